//! What dispatchers say about keys (`SPEC.md`, chapter 6).

use serde_json::json;

use crate::{
    forge::Envelope,
    item::{self, Item, Map, bytes, uint},
    message::{order, typ},
    note::{AUDIT, LOG, NEXT_AUDIT, ORIGIN, checkpoint, note, signed, vkey},
    vector::Vector,
    world::{DISPATCHER, HOST_KEY, NOW_MS, key_text, public},
};

const DAY_MS: u64 = 86_400_000;
/// Whose key it is makes no difference here.
const OTHER: u8 = HOST_KEY;

fn next(key: u8, until_ms: u64) -> Map {
    let next = Map::new(&[(1, bytes(&public(key))), (2, uint(until_ms))]);
    said(order(1, next), NOW_MS)
}

fn revocation(key: u8) -> Map {
    said(order(2, Map::new(&[(1, bytes(&public(key)))])), NOW_MS)
}

/// The broker was restored then; a checkpoint of five rows, and a key that may have signed it.
fn restoration(at_ms: u64, text: &str, vkey: &str) -> Map {
    let trail = Map::new(&[
        (1, uint(at_ms)),
        (2, item::text(vkey)),
        (3, item::text(text)),
    ]);
    said(order(3, trail), NOW_MS)
}

fn said(change: Item, time_ms: u64) -> Map {
    Map::new(&[(1, change), (2, uint(time_ms))])
}

fn sealed(signer: u8, payload: Map) -> Vec<u8> {
    Envelope::new(signer, typ("dispatcher-statement"), "", payload).seal()
}

pub(crate) fn good() -> Vec<Vector> {
    of_keys().into_iter().chain(of_a_restore()).collect()
}

fn of_keys() -> Vec<Vector> {
    let good = |name: &str, payload: Map| Vector::statement(name, &sealed(DISPATCHER, payload));
    let key = key_text("ohd1", OTHER);
    vec![
        good("statement-of-the-next-key", next(OTHER, NOW_MS + DAY_MS))
            .says(json!({"says": "next", "key": key, "until_ms": NOW_MS + DAY_MS})),
        good(
            "statement-with-the-longest-overlap",
            next(OTHER, NOW_MS + 7 * DAY_MS),
        )
        .says(json!({"says": "next"})),
        good("statement-of-a-revocation", revocation(OTHER))
            .says(json!({"says": "revoke", "key": key, "until_ms": null})),
    ]
}

pub(crate) fn bad() -> Vec<Vector> {
    bad_of_keys()
        .into_iter()
        .chain(bad_of_a_restore())
        .collect()
}

fn bad_of_keys() -> Vec<Vector> {
    let bad = |name: &str, payload: Map, reason: &str, why: &str| {
        Vector::statement(name, &sealed(DISPATCHER, payload)).refused(reason, why)
    };
    let bounds = "statement: out of bounds";
    let early = said(
        order(2, Map::new(&[(1, bytes(&public(OTHER)))])),
        NOW_MS + 61_000,
    );
    vec![
        Vector::statement(
            "statement-of-a-stranger",
            &sealed(OTHER, revocation(DISPATCHER)),
        )
        .refused(
            "statement: signed by a key that is not listed",
            "6: a dispatcher that the host obeys says it",
        ),
        bad(
            "statement-of-the-next-key-that-is-its-own",
            next(DISPATCHER, NOW_MS + DAY_MS),
            bounds,
            "6: not about the signer's own key",
        ),
        bad(
            "statement-that-revokes-its-own-key",
            revocation(DISPATCHER),
            bounds,
            "6: not about the signer's own key",
        ),
        bad(
            "statement-with-too-long-an-overlap",
            next(OTHER, NOW_MS + 7 * DAY_MS + 1),
            bounds,
            "6: an overlap of COMMAND_LIFE_MS_MAX at most",
        ),
        bad(
            "statement-whose-overlap-ends-before-it-begins",
            next(OTHER, NOW_MS - 1),
            bounds,
            "6: an overlap of COMMAND_LIFE_MS_MAX at most",
        ),
        bad(
            "statement-that-is-early",
            early,
            "statement: dated in the future",
            "1.2: the leeway is 60 s",
        ),
        bad(
            "statement-with-a-newer-label",
            revocation(OTHER).with(64, uint(0)),
            "statement: the payload is not well-formed",
            "9: statements are closed",
        ),
    ]
}

fn of_a_restore() -> Vec<Vector> {
    let five = checkpoint(5);
    let signed = note(&five, &[signed(AUDIT, &five)]);
    let payload = restoration(NOW_MS, &signed, &vkey(ORIGIN, LOG, AUDIT));
    vec![
        Vector::statement("statement-of-a-restore", &sealed(DISPATCHER, payload))
            .says(json!({"says": "restored", "at_ms": NOW_MS, "size": 5})),
    ]
}

fn bad_of_a_restore() -> Vec<Vector> {
    let bad = |name: &str, payload: Map, reason: &str, why: &str| {
        Vector::statement(name, &sealed(DISPATCHER, payload)).refused(reason, why)
    };
    let five = checkpoint(5);
    let signed = note(&five, &[signed(AUDIT, &five)]);
    let key = vkey(ORIGIN, LOG, AUDIT);
    let why = "6: a checkpoint that the key beside it signed";
    vec![
        bad(
            "statement-of-a-restore-to-come",
            restoration(NOW_MS + 1, &signed, &key),
            "statement: out of bounds",
            "6: not after it was said",
        ),
        bad(
            "statement-of-a-restore-under-another-key",
            restoration(NOW_MS, &signed, &vkey(ORIGIN, LOG, NEXT_AUDIT)),
            "statement: the checkpoint is not signed with this key",
            why,
        ),
        bad(
            "statement-of-a-restore-without-a-signature",
            restoration(NOW_MS, &five, &key),
            "statement: the checkpoint is not well-formed",
            why,
        ),
        bad(
            "statement-of-a-restore-without-a-key",
            restoration(NOW_MS, &signed, ""),
            "statement: the checkpoint is not a verifier's key of this kind",
            why,
        ),
        bad(
            "statement-of-a-restore-with-a-newer-label",
            restoration(NOW_MS, &signed, &key).with(64, uint(0)),
            "statement: the payload is not well-formed",
            "9: statements are closed",
        ),
    ]
}
