//! Texts that are refused: install keys (`SPEC.md`, 1.6), reader tokens (1.7), public keys (1.3), and filters that a rule does not cover (4.1).

use protocol::id::hex;

use crate::{
    base62::{base62, checked, front, install_key, reader_token},
    vector::Vector,
    world::{DISPATCHER, HOST_KEY, key_text, no_point, non_canonical_key, public, weak_key},
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = install_keys();
    all.extend(public_keys());
    all.extend(covers());
    all.extend(filters());
    all.extend(reader_tokens());
    all
}

fn install_keys() -> Vec<Vector> {
    let refused = |name: &str, text: &str, why: &str| {
        Vector::install_key(name, text)
            .refused("not an install key (ohk1_…), or not copied whole", why)
    };
    let good = install_key(6);
    let (kid, secret) = (base62(&[6; 8], 11), base62(&[6; 32], 43));
    let check = "1.6: the check is the CRC-32 of all text before the last _";
    let fits = "1.6: a number that does not fit its bytes is refused";
    let form = "1.6: ohk1_<kid>_<secret>_<check>, of 11, 43 and 6 digits";
    let other_check = format!("{}_{}", front(&kid, &secret), base62(&[0, 0, 0, 1], 6));
    vec![
        refused("install-key-with-another-check", &other_check, check),
        refused(
            "install-key-with-another-digit",
            &good.replacen("ohk1_0", "ohk1_1", 1),
            check,
        ),
        refused(
            "install-key-whose-kid-does-not-fit",
            &checked(&front("zzzzzzzzzzz", &secret)),
            fits,
        ),
        refused(
            "install-key-whose-kid-is-one-too-great",
            &checked(&front(&one_more(&base62(&[0xff; 8], 11)), &secret)),
            fits,
        ),
        refused(
            "install-key-whose-secret-does-not-fit",
            &checked(&front(&kid, &"z".repeat(43))),
            fits,
        ),
        refused(
            "install-key-whose-check-does-not-fit",
            &format!("{}_zzzzzz", front(&kid, &secret)),
            fits,
        ),
        refused(
            "install-key-with-a-kid-of-10-digits",
            &checked(&front(&kid[1..], &secret)),
            form,
        ),
        refused(
            "install-key-with-a-secret-of-42-digits",
            &checked(&front(&kid, &secret[1..])),
            form,
        ),
        refused(
            "install-key-without-its-last-digit",
            &good[..good.len() - 1],
            form,
        ),
        refused("install-key-with-a-digit-more", &format!("{good}0"), form),
        refused("install-key-of-nothing", "", form),
        refused("install-key-without-a-check", &front(&kid, &secret), form),
        refused(
            "install-key-with-another-prefix",
            &checked(&front(&kid, &secret).replacen("ohk1", "ohk2", 1)),
            form,
        ),
        refused(
            "install-key-with-a-part-more",
            &checked(&format!("{}_0", front(&kid, &secret))),
            form,
        ),
        refused(
            "install-key-with-a-sign-that-is-no-digit",
            &checked(&front(&kid.replacen('0', "-", 1), &secret)),
            "1.6: digits are 0-9A-Za-z",
        ),
        refused(
            "install-key-with-a-space-inside",
            &good.replacen("ohk1_", "ohk1_ ", 1),
            form,
        ),
    ]
}

fn reader_tokens() -> Vec<Vector> {
    let refused = |name: &str, text: &str, why: &str| {
        Vector::reader_token(name, text)
            .refused("not a reader token (ort1_…), or not copied whole", why)
    };
    let good = reader_token(7);
    let (kid, secret) = (base62(&[7; 8], 11), base62(&[7; 32], 43));
    let front = |kid: &str, secret: &str| format!("ort1_{kid}_{secret}");
    let form = "1.7: ort1_<kid>_<secret>_<check>, of 11, 43 and 6 digits";
    let fits = "1.7, as 1.6: a number that does not fit its bytes is refused";
    let other_check = format!("{}_{}", front(&kid, &secret), base62(&[0, 0, 0, 1], 6));
    vec![
        refused(
            "reader-token-with-another-check",
            &other_check,
            "1.7, as 1.6: the check is the CRC-32 of all text before the last _",
        ),
        refused(
            "reader-token-whose-kid-does-not-fit",
            &checked(&front("zzzzzzzzzzz", &secret)),
            fits,
        ),
        refused(
            "reader-token-whose-secret-does-not-fit",
            &checked(&front(&kid, &"z".repeat(43))),
            fits,
        ),
        refused(
            "reader-token-without-its-last-digit",
            &good[..good.len() - 1],
            form,
        ),
        refused("reader-token-of-nothing", "", form),
        refused("reader-token-that-is-an-install-key", &install_key(7), form),
        refused(
            "reader-token-with-a-part-more",
            &checked(&format!("{}_0", front(&kid, &secret))),
            form,
        ),
    ]
}

/// The number after this one, whose last digit is not the greatest.
fn one_more(number: &str) -> String {
    let mut bytes = number.as_bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn public_keys() -> Vec<Vector> {
    let refused = |name: &str, text: &str, why: &str| {
        Vector::public_key(name, "host", text).refused("not a key of this kind", why)
    };
    let weak = |name: &str, bytes: &[u8]| {
        Vector::public_key(name, "host", &format!("ohh1_{}", hex(bytes)))
            .refused("a weak key", "1.3: a key of small order is refused")
    };
    let digits = hex(&public(HOST_KEY));
    let encoding = "1.3: a key is RFC 8032's encoding of a point, of which there is one";
    let form = "1.3: the prefix of its role, _ and 64 hexadecimal digits";
    let mut all = vec![
        refused(
            "public-key-in-another-encoding",
            &format!("ohh1_{}", hex(&non_canonical_key())),
            encoding,
        ),
        refused(
            "public-key-that-is-no-point",
            &format!("ohh1_{}", hex(&no_point())),
            "1.3: a key that is no point of the curve is refused",
        ),
        refused(
            "public-key-of-another-role",
            &key_text("ohd1", DISPATCHER),
            form,
        ),
        refused("public-key-without-a-prefix", &digits, form),
        refused(
            "public-key-that-is-a-secret",
            &format!("ohh1_secret_{digits}"),
            form,
        ),
        refused(
            "public-key-of-63-digits",
            &format!("ohh1_{}", &digits[1..]),
            form,
        ),
        refused("public-key-of-65-digits", &format!("ohh1_{digits}0"), form),
        refused(
            "public-key-with-a-letter-that-is-no-digit",
            &format!("ohh1_g{}", &digits[1..]),
            form,
        ),
        refused(
            "public-key-with-a-sign",
            &format!("ohh1_+{}", &digits[1..]),
            form,
        ),
        refused(
            "public-key-with-a-prefix-in-upper-case",
            &format!("OHH1_{digits}"),
            form,
        ),
        refused("public-key-of-nothing", "", form),
    ];
    // The points of small order: of orders 1, 2, 4 (both signs of x), and 8 (four of them).
    let y8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05";
    let y8_other = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    all.extend([
        weak("public-key-of-order-1", &weak_key()),
        weak(
            "public-key-of-order-2",
            &unhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ),
        weak("public-key-of-order-4", &[0; 32]),
        weak(
            "public-key-of-order-4-with-the-other-sign",
            &signed(&[0; 32]),
        ),
        weak("public-key-of-order-8", &unhex(y8)),
        weak(
            "public-key-of-order-8-with-the-other-sign",
            &signed(&unhex(y8)),
        ),
        weak("public-key-of-order-8-with-the-other-y", &unhex(y8_other)),
        weak(
            "public-key-of-order-8-with-the-other-y-and-sign",
            &signed(&unhex(y8_other)),
        ),
    ]);
    all
}

fn unhex(digits: &str) -> [u8; 32] {
    protocol::id::unhex(digits).expect("64 digits")
}

/// With the other sign of x.
fn signed(key: &[u8; 32]) -> [u8; 32] {
    let mut key = *key;
    key[31] ^= 0x80;
    key
}

fn not_covered(name: &str, rule: &str, filter: &str, why: &str) -> Vector {
    Vector::covers(name, rule, filter).refused("not covered", why)
}

/// Filters that are good, and wider than the rule or beside it.
fn covers() -> Vec<Vector> {
    let itself = "4.1: a level covers itself";
    let plus = "4.1: + in the rule covers any level but #";
    let end = "4.1: both must end together";
    vec![
        not_covered("level-does-not-cover-another", "a/b", "a/c", itself),
        not_covered(
            "level-does-not-cover-itself-in-upper-case",
            "a/b",
            "a/B",
            itself,
        ),
        not_covered("level-does-not-cover-plus", "a/b", "a/+", itself),
        not_covered("level-does-not-cover-hash", "a/b", "a/#", itself),
        not_covered("level-does-not-cover-its-front", "a/bc", "a/b", itself),
        not_covered("plus-does-not-cover-hash", "a/+", "a/#", plus),
        not_covered("plus-alone-does-not-cover-hash-alone", "+", "#", plus),
        not_covered("plus-and-hash-do-not-cover-hash-alone", "+/#", "#", plus),
        not_covered(
            "plus-does-not-cover-a-level-that-is-not-there",
            "a/+",
            "a",
            end,
        ),
        not_covered("plus-does-not-cover-two-levels", "a/+", "a/b/c", end),
        not_covered("rule-does-not-cover-a-shorter-filter", "a/b", "a", end),
        not_covered("rule-does-not-cover-a-longer-filter", "a", "a/b", end),
        not_covered("hash-does-not-cover-beside-its-front", "a/#", "b/c", itself),
        not_covered(
            "events-of-a-host-do-not-cover-its-reports",
            "v1/edge-1/+/events",
            "v1/edge-1/reports",
            end,
        ),
        not_covered(
            "events-of-a-host-do-not-cover-those-of-another",
            "v1/edge-1/+/events",
            "v1/edge-2/build-7/events",
            itself,
        ),
    ]
}

/// Filters that are none: not even `#` covers them.
fn filters() -> Vec<Vector> {
    let why =
        "4.1: a level is +, # (last only), or visible ASCII without them and $; none is empty";
    let mut all: Vec<_> = [
        ("filter-of-nothing", ""),
        ("filter-with-an-empty-level", "a//b"),
        ("filter-that-starts-with-a-slash", "/a"),
        ("filter-that-ends-with-a-slash", "a/"),
        ("filter-with-a-hash-in-the-middle", "a/#/b"),
        ("filter-with-a-hash-beside-a-letter", "a#"),
        ("filter-with-a-plus-beside-a-letter", "+a"),
        ("filter-of-the-server", "$SYS/x"),
        ("filter-that-is-shared", "$share/g/a"),
        ("filter-with-a-dollar-inside", "a/b$"),
        ("filter-with-a-space", "a b"),
        ("filter-with-a-nul", "a\0"),
        ("filter-with-a-letter-that-is-not-ascii", "é"),
    ]
    .iter()
    .map(|(name, filter)| not_covered(name, "#", filter, why))
    .collect();
    let long = "a".repeat(257);
    all.push(not_covered(
        "filter-of-257-bytes",
        "#",
        &long,
        "4.1: a filter has at most TOPIC_BYTES_MAX bytes",
    ));
    all
}
