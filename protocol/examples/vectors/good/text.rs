//! Good texts: install keys (`SPEC.md`, 1.6), public keys (1.3), and filters that a rule covers (4.1).

use protocol::id::hex;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    base62::{install_key, reader_token},
    vector::Vector,
    world::{
        DISPATCHER, HOST_KEY, ISSUER, SANDBOX_KEY, STRANGER, bytes_32, key_text, kid_of, public,
    },
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = install_keys();
    all.extend(public_keys());
    all.extend(covers());
    all.extend(reader_tokens());
    all
}

fn install_keys() -> Vec<Vector> {
    let good = |name: &str, byte: u8| {
        Vector::install_key(name, &install_key(byte))
            .says(json!({"kid": hex(&[byte; 8]), "secret": hex(&[byte; 32])}))
    };
    vec![
        good("install-key", 6),
        good("install-key-of-zeros", 0),
        good("install-key-of-the-greatest-numbers", 0xff),
        Vector::install_key(
            "install-key-with-white-space-around-it",
            &format!(" \t{}\r\n", install_key(6)),
        )
        .says(json!({"kid": hex(&[6; 8])})),
    ]
}

fn reader_tokens() -> Vec<Vector> {
    let good = |name: &str, byte: u8| {
        Vector::reader_token(name, &reader_token(byte)).says(json!({
            "kid": hex(&[byte; 8]),
            "secret_sha256": hex(&<[u8; 32]>::from(Sha256::digest([byte; 32]))),
        }))
    };
    vec![
        good("reader-token", 7),
        good("reader-token-of-zeros", 0),
        good("reader-token-of-the-greatest-numbers", 0xff),
        Vector::reader_token(
            "reader-token-with-white-space-around-it",
            &format!(" \t{}\r\n", reader_token(7)),
        )
        .says(json!({"kid": hex(&[7; 8])})),
    ]
}

fn public_keys() -> Vec<Vector> {
    let roles = [
        ("dispatcher", "ohd1", DISPATCHER),
        ("issuer", "ohi1", ISSUER),
        ("audit", "oha1", STRANGER),
        ("host", "ohh1", HOST_KEY),
        ("sandbox", "ohs1", SANDBOX_KEY),
        ("holder", "ohp1", HOST_KEY),
    ];
    let mut all: Vec<_> = roles
        .iter()
        .map(|(role, prefix, seed)| {
            let name = format!("public-key-of-the-role-{role}");
            Vector::public_key(&name, role, &key_text(prefix, *seed))
                .says(json!({"kid": hex(&kid_of(&public(*seed)))}))
        })
        .collect();
    let upper = hex(&public(HOST_KEY)).to_uppercase();
    all.push(
        Vector::public_key("public-key-in-upper-case", "host", &format!("ohh1_{upper}"))
            .says(json!({"kid": hex(&kid_of(&public(HOST_KEY)))})),
    );
    let three = format!("ohh1_{}", hex(&bytes_32(&[3])));
    all.push(Vector::public_key(
        "public-key-that-is-a-point-though-nobody-holds-it",
        "host",
        &three,
    ));
    all
}

fn covers() -> Vec<Vector> {
    [
        ("filter-covers-itself", "a/b", "a/b"),
        ("plus-covers-a-level", "a/+", "a/b"),
        ("plus-covers-plus", "a/+", "a/+"),
        (
            "plus-covers-a-level-in-the-middle",
            "v1/edge-1/+/events",
            "v1/edge-1/build-7/events",
        ),
        ("hash-covers-all-that-is-left", "a/#", "a/b/c"),
        ("hash-covers-nothing-that-is-left", "a/#", "a"),
        ("hash-covers-plus", "a/#", "a/+"),
        ("hash-covers-hash", "a/#", "a/#"),
        ("hash-covers-hash-further-down", "a/#", "a/b/#"),
        ("hash-alone-covers-everything", "#", "a/+/#"),
        ("plus-and-hash-cover-one-level", "+/#", "a"),
        (
            "levels-of-every-visible-sign-are-covered",
            "+",
            "!\"%&'()*,-.:;<=>?@[\\]^_`{|}~",
        ),
    ]
    .iter()
    .map(|(name, rule, filter)| Vector::covers(name, rule, filter))
    .chain([Vector::covers(
        "longest-filter-is-covered",
        "+",
        &"a".repeat(256),
    )])
    .collect()
}
