//! Open messages that go too far (`SPEC.md`, chapter 9): skipping is not leniency.

use super::{MALFORMED, NOT_DETERMINISTIC, report as refused_report};
use crate::{
    good::trail,
    item::{Item, Map, array, bytes, head, head_of_width, nested, text, uint},
    message::{
        challenge, ended, grant, launched, refusal, report, sighting, signed_report, status,
        stopped,
    },
    vector::Vector,
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = labels();
    all.extend(skipped());
    all.extend(skipped_maps());
    all.extend(choices());
    all.extend(answers());
    all
}

fn malformed(name: &str, payload: impl Into<Item>, why: &str) -> Vector {
    refused_report(name, &signed_report(payload), MALFORMED, why)
}

fn not_deterministic(name: &str, payload: impl Into<Item>, why: &str) -> Vector {
    refused_report(name, &signed_report(payload), NOT_DETERMINISTIC, why)
}

fn stopped_report() -> Map {
    report(4, stopped())
}

fn labels() -> Vec<Vector> {
    let never = "9: labels 0 to 63 and negative ones are never skipped";
    let in_order = "9: a skipped label is still in its order";
    let once = "9: a skipped label is there once";
    let sighting = sighting("build-7", 2).with(3, uint(0)).encode();
    let mut wide = stopped_report();
    for label in 64..84 {
        wide = wide.with(label, uint(0));
    }
    let front = Map([&[(uint(64), uint(0))], &stopped_report().0[..]].concat());
    let longer = (vec![0x19, 0, 64], uint(0));
    vec![
        malformed(
            "report-with-an-unknown-label-below-64",
            stopped_report().with(5, uint(0)),
            never,
        ),
        malformed(
            "report-with-the-unknown-label-63",
            stopped_report().with(63, uint(0)),
            never,
        ),
        malformed(
            "report-with-the-unknown-label-0",
            stopped_report().with(0, uint(0)),
            never,
        ),
        malformed(
            "report-with-a-label-past-the-greatest",
            Map([&stopped_report().0[..], &[(uint(1 << 63), uint(0))]].concat()),
            "9: a label from 64 to 2⁶³ − 1 is skipped, and no other",
        ),
        malformed(
            "report-with-a-negative-label",
            stopped_report().with(-1, uint(0)),
            never,
        ),
        malformed(
            "launched-with-an-unknown-label-below-64",
            report(2, launched().with(7, uint(0))),
            never,
        ),
        malformed(
            "ended-with-a-negative-label",
            report(3, ended().with(-65, uint(0))),
            never,
        ),
        malformed(
            "sighting-with-an-unknown-label-below-64",
            report(6, status(&[sighting])),
            never,
        ),
        malformed(
            "report-with-a-newer-label-before-the-known-ones",
            front,
            in_order,
        ),
        malformed(
            "report-with-newer-labels-out-of-order",
            stopped_report().then(65, uint(0)).then(64, uint(0)),
            in_order,
        ),
        malformed(
            "report-with-a-newer-label-twice",
            stopped_report().then(64, uint(0)).then(64, uint(0)),
            once,
        ),
        not_deterministic(
            "report-with-a-newer-label-that-is-longer-than-needed",
            Map([&stopped_report().0[..], &[longer]].concat()),
            "9: a skipped label is in its shortest form",
        ),
        malformed(
            "report-with-24-pairs",
            wide,
            "9: a map has at most 23 pairs, skipped ones included",
        ),
        malformed(
            "report-without-its-news",
            stopped_report().without(4).with(64, uint(0)),
            "1.1: what may not be left out must be there",
        ),
        malformed(
            "report-with-a-newer-label-without-its-value",
            [&[0xa5], &stopped_report().encode()[1..], &[0x18, 64]].concat(),
            "1.1: the value must be there whole",
        ),
    ]
}

fn holding(value: impl Into<Item>) -> Map {
    stopped_report().with(64, value)
}

/// Values that are skipped, and refused.
fn skipped() -> Vec<Vector> {
    let made_of =
        "9: a skipped value is made of integers, bytes, text, arrays, maps, booleans and null";
    let shortest = "1.1: integers and lengths are in their shortest form";
    let definite = "1.1: lengths are definite";
    let deep = "9: a skipped value nests at most 8 deep, itself included";
    let mut deep_map = Map::new(&[]);
    for _ in 0..8 {
        deep_map = Map::new(&[(1, deep_map.encode())]);
    }
    vec![
        malformed(
            "skipped-value-that-nests-nine-deep",
            holding(nested(9)),
            deep,
        ),
        malformed("skipped-map-that-nests-nine-deep", holding(deep_map), deep),
        malformed("skipped-float", holding([0xf9, 0, 0]), made_of),
        malformed(
            "skipped-double",
            holding([0xfb, 0, 0, 0, 0, 0, 0, 0, 0]),
            made_of,
        ),
        malformed("skipped-undefined", holding([0xf7]), made_of),
        malformed("skipped-simple-value", holding([0xe0]), made_of),
        malformed("skipped-tag", holding([0xc1, 0]), made_of),
        malformed(
            "skipped-tag-further-in",
            holding([0x81, 0xd8, 61, 0]),
            made_of,
        ),
        malformed(
            "skipped-text-that-is-not-utf-8",
            holding([0x61, 0xff]),
            "1.1: text is UTF-8",
        ),
        malformed(
            "skipped-text-beyond-the-end",
            holding(head(3, 10)),
            "1.1: the value must be there whole",
        ),
        not_deterministic(
            "skipped-integer-that-is-longer-than-needed",
            holding(head_of_width(0, 7, 1)),
            shortest,
        ),
        not_deterministic(
            "skipped-length-that-is-longer-than-needed",
            holding([head_of_width(2, 1, 8), vec![0]].concat()),
            shortest,
        ),
        not_deterministic(
            "skipped-array-of-indefinite-length",
            holding([0x9f, 0xff]),
            definite,
        ),
        not_deterministic(
            "skipped-map-of-indefinite-length",
            holding([0xbf, 0xff]),
            definite,
        ),
        not_deterministic(
            "skipped-bytes-of-indefinite-length",
            holding([0x5f, 0x41, 0, 0xff]),
            definite,
        ),
    ]
}

fn skipped_maps() -> Vec<Vector> {
    let in_order = "1.1: keys of a map are in the bytewise order of their encodings";
    let kinds = "9: the keys of skipped maps are integers or texts";
    let of = |pairs: &[(Item, u64)]| {
        let pair = |(key, value): &(Item, u64)| (key.clone(), uint(*value));
        holding(Map(pairs.iter().map(pair).collect()))
    };
    let many: Vec<_> = (0..24).map(|n| (uint(n), n)).collect();
    vec![
        not_deterministic(
            "skipped-map-with-a-key-twice",
            of(&[(uint(1), 0), (uint(1), 0)]),
            "1.1: each key of a map is there once",
        ),
        not_deterministic(
            "skipped-map-with-keys-out-of-order",
            of(&[(uint(2), 0), (uint(1), 0)]),
            in_order,
        ),
        not_deterministic(
            "skipped-map-with-keys-in-the-order-of-their-lengths",
            of(&[(int_minus_one(), 0), (uint(24), 0)]),
            in_order,
        ),
        malformed(
            "skipped-map-of-24-pairs",
            of(&many),
            "9: a map has at most 23 pairs",
        ),
        malformed(
            "skipped-map-with-a-key-of-bytes",
            of(&[(bytes(b"a"), 0)]),
            kinds,
        ),
        malformed(
            "skipped-map-with-an-array-for-a-key",
            of(&[(vec![0x80], 0)]),
            kinds,
        ),
        malformed(
            "skipped-map-with-a-map-for-a-key",
            of(&[(vec![0xa0], 0)]),
            kinds,
        ),
        malformed(
            "skipped-map-with-true-for-a-key",
            of(&[(vec![0xf5], 0)]),
            kinds,
        ),
        malformed(
            "skipped-map-with-null-for-a-key",
            of(&[(vec![0xf6], 0)]),
            kinds,
        ),
    ]
}

/// −1, whose encoding is shorter than that of 24 and comes after it.
fn int_minus_one() -> Item {
    crate::item::int(-1)
}

/// What is kept as *other*.
fn choices() -> Vec<Vector> {
    let news = |items: &[Item]| stopped_report().with(4, array(items));
    let two = "1.1: a choice is an array of two";
    vec![
        malformed(
            "other-news-that-nests-nine-deep",
            report(7, nested(9)),
            "9: the body of an other choice nests at most 8 deep",
        ),
        malformed(
            "other-news-with-a-float",
            report(7, [0xf9, 0, 0]),
            "9: the body of an other choice has no floats",
        ),
        malformed(
            "other-news-with-a-tag",
            report(7, [0xc1, 0]),
            "9: the body of an other choice has no tags",
        ),
        malformed("other-news-of-one", news(&[uint(7)]), two),
        malformed(
            "other-news-of-three",
            news(&[uint(7), uint(0), uint(0)]),
            two,
        ),
        malformed(
            "other-news-with-a-negative-label",
            news(&[crate::item::int(-1), uint(0)]),
            "1.1: a choice's label is an unsigned integer",
        ),
        malformed(
            "other-news-with-a-label-of-text",
            news(&[text("news"), uint(0)]),
            "1.1: a choice's label is an unsigned integer",
        ),
        malformed(
            "reason-that-is-text",
            report(1, crate::message::refused().with(3, text("busy"))),
            "1.1: a word is an unsigned integer",
        ),
        malformed(
            "state-that-is-negative",
            report(3, ended().with(3, crate::item::int(-1))),
            "1.1: a word is an unsigned integer",
        ),
    ]
}

/// The exchange's answers, which nobody signs.
fn answers() -> Vec<Vector> {
    let refused = |kind: &'static str, name: &str, map: Map, reason: &str, why: &str| {
        Vector::exchange(kind, name, &map.encode()).refused(reason, why)
    };
    let (malformed, not_deterministic) = ("not well-formed", "not in deterministic encoding");
    let never = "9: labels 0 to 63 and negative ones are never skipped";
    let there = "1.1: what may not be left out must be there";
    let mut swapped = challenge();
    swapped.0.swap(0, 1);
    let behind = [&challenge().encode()[..], &[0]].concat();
    vec![
        refused(
            "challenge",
            "challenge-with-an-unknown-label-below-64",
            challenge().with(3, uint(0)),
            malformed,
            never,
        ),
        refused(
            "challenge",
            "challenge-without-its-time",
            challenge().without(2),
            malformed,
            there,
        ),
        refused(
            "challenge",
            "challenge-with-a-nonce-of-31-bytes",
            challenge().with(1, bytes(&[5; 31])),
            malformed,
            "5: a nonce has 32 bytes",
        ),
        refused(
            "challenge",
            "challenge-with-its-labels-out-of-order",
            swapped,
            malformed,
            "1.1: keys of a map are in the bytewise order of their encodings",
        ),
        refused(
            "challenge",
            "challenge-with-a-time-that-is-longer-than-needed",
            challenge().with(2, head_of_width(0, 1, 8)),
            not_deterministic,
            "1.1: integers are in their shortest form",
        ),
        Vector::exchange("challenge", "challenge-with-a-byte-behind-it", &behind)
            .refused(malformed, "1.1: no bytes after the value"),
        refused(
            "grant",
            "grant-with-an-unknown-label-below-64",
            grant().with(4, uint(0)),
            malformed,
            never,
        ),
        refused(
            "grant",
            "grant-without-its-generation",
            grant().without(3),
            malformed,
            there,
        ),
        refused(
            "grant",
            "grant-of-more-than-8192-bytes",
            grant().with(1, bytes(&[0; 8180])),
            "longer than its limit",
            "5: an answer has at most EXCHANGE_BYTES_MAX bytes",
        ),
        refused(
            "grant",
            "grant-whose-authorities-are-no-list",
            grant().with(65, bytes(&[0x30, 0])),
            malformed,
            "5: authorities are a list of byte strings",
        ),
        refused(
            "grant",
            "grant-with-a-trail-whose-hash-is-short",
            grant().with(66, trail(0, 0).with(3, array(&[bytes(&[7; 31])]))),
            malformed,
            "5: a proof is made of hashes of 32 bytes",
        ),
        refused(
            "grant",
            "grant-with-a-trail-without-its-key",
            grant().with(66, trail(0, 0).without(2)),
            malformed,
            there,
        ),
        refused(
            "grant",
            "grant-with-a-trail-that-has-an-unknown-label-below-64",
            grant().with(66, trail(0, 0).with(6, uint(0))),
            malformed,
            never,
        ),
        refused(
            "grant",
            "grant-whose-token-is-text",
            grant().with(1, text("token")),
            malformed,
            "5: a token is a byte string",
        ),
        refused(
            "refused",
            "refusal-with-an-unknown-label-below-64",
            refusal(6).with(3, uint(0)),
            malformed,
            never,
        ),
        refused(
            "refused",
            "refusal-without-its-word",
            refusal(6).without(1),
            malformed,
            there,
        ),
        refused(
            "refused",
            "refusal-whose-word-is-text",
            refusal(6).with(1, text("unavailable")),
            malformed,
            "1.1: a word is an unsigned integer",
        ),
        refused(
            "refused",
            "refusal-with-a-skipped-float",
            refusal(6).with(64, [0xf9, 0, 0]),
            malformed,
            "9: a skipped value has no floats",
        ),
    ]
}
