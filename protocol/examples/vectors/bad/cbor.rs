//! Payloads that are not in the one encoding (`SPEC.md`, 1.1), or are not what a closed message says (chapter 9). Each is signed, so that
//! the encoding alone is wrong.

use super::{MALFORMED, NOT_DETERMINISTIC, command as refused_command};
use crate::{
    item::{FALSE, Item, Map, NULL, TRUE, array, bytes, head, head_of_width, int, text, uint},
    message::{
        command, launch, launch_command, limits, order, signed_command, stop, stop_command, texts,
    },
    vector::Vector,
    world::{HOST, NOW_MS, SANDBOX},
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = lengths();
    all.extend(order_of_keys());
    all.extend(whole());
    all.extend(types());
    all.extend(strings());
    all.extend(closed());
    all
}

fn malformed(name: &str, payload: impl Into<Item>, why: &str) -> Vector {
    refused_command(name, &signed_command(payload), MALFORMED, why)
}

fn not_deterministic(name: &str, payload: impl Into<Item>, why: &str) -> Vector {
    refused_command(name, &signed_command(payload), NOT_DETERMINISTIC, why)
}

fn stop_with(label: i64, value: impl Into<Item>) -> Map {
    command(order(2, stop().with(label, value)))
}

/// Definite and shortest.
fn lengths() -> Vec<Vector> {
    let inner = stop_command().encode();
    let indefinite = |major: u8, content: &[u8]| [&[major << 5 | 31], content, &[0xff]].concat();
    let definite = "1.1: lengths are definite";
    let shortest = "1.1: integers and lengths are in their shortest form";
    let long_text = [head_of_width(3, 6, 1), HOST.into()].concat();
    let long_bytes = [head_of_width(2, 16, 2), vec![3; 16]].concat();
    let long_array = [vec![0x98, 2], uint(2), stop().encode()].concat();
    vec![
        not_deterministic(
            "map-of-indefinite-length",
            indefinite(5, &inner[1..]),
            definite,
        ),
        not_deterministic(
            "array-of-indefinite-length",
            launch_command(launch().with(3, indefinite(4, &text("make")))),
            definite,
        ),
        not_deterministic(
            "text-of-indefinite-length",
            stop_command().with(2, indefinite(3, &text(HOST))),
            definite,
        ),
        not_deterministic(
            "bytes-of-indefinite-length",
            stop_command().with(1, indefinite(2, &bytes(&[3; 16]))),
            definite,
        ),
        not_deterministic(
            "integer-of-one-byte-too-many",
            stop_with(2, head_of_width(0, 10, 1)),
            shortest,
        ),
        not_deterministic(
            "integer-of-two-bytes-where-one-does",
            stop_with(2, head_of_width(0, 255, 2)),
            shortest,
        ),
        not_deterministic(
            "integer-of-four-bytes-where-two-do",
            stop_with(2, head_of_width(0, 65_535, 4)),
            shortest,
        ),
        not_deterministic(
            "integer-of-eight-bytes-where-four-do",
            stop_with(2, head_of_width(0, 0xffff_ffff, 8)),
            shortest,
        ),
        not_deterministic(
            "text-whose-length-is-longer-than-needed",
            stop_command().with(2, long_text),
            shortest,
        ),
        not_deterministic(
            "bytes-whose-length-is-longer-than-needed",
            stop_command().with(1, long_bytes),
            shortest,
        ),
        not_deterministic(
            "array-whose-length-is-longer-than-needed",
            command(long_array),
            shortest,
        ),
        not_deterministic(
            "map-whose-length-is-longer-than-needed",
            [&[0xb8, 5], &inner[1..]].concat(),
            shortest,
        ),
        not_deterministic(
            "label-that-is-longer-than-needed",
            Map([&[(vec![0x18, 1], bytes(&[3; 16]))], &stop_command().0[1..]].concat()),
            shortest,
        ),
    ]
}

fn order_of_keys() -> Vec<Vector> {
    let mut swapped = stop_command();
    swapped.0.swap(1, 2);
    let last_first = Map(stop_command().0.into_iter().rev().collect());
    let mut inner = stop();
    inner.0.swap(0, 1);
    let mut twice = stop_command();
    twice.0.insert(1, twice.0[0].clone());
    let mut twice_with_others = stop_command();
    (twice_with_others.0).insert(1, (int(1), bytes(&[4; 16])));
    let once = "1.1: each key of a map is there once";
    let in_order = "1.1: keys of a map are in the bytewise order of their encodings";
    vec![
        not_deterministic("two-keys-out-of-order", swapped, in_order),
        not_deterministic("keys-in-the-reverse-order", last_first, in_order),
        not_deterministic(
            "keys-out-of-order-further-in",
            command(order(2, inner)),
            in_order,
        ),
        malformed("key-twice", twice, once),
        malformed("key-twice-with-other-values", twice_with_others, once),
    ]
}

/// The value and what is around it.
fn whole() -> Vec<Vector> {
    let inner = stop_command().encode();
    let pairs = stop_command().0;
    let values: Vec<_> = pairs.iter().map(|(_, value)| value.clone()).collect();
    let map = "6: a command is a map";
    vec![
        malformed("payload-of-nothing", Vec::new(), map),
        malformed("payload-that-is-an-array", array(&values), map),
        malformed("payload-that-is-null", [NULL], map),
        malformed("payload-that-is-in-a-byte-string", bytes(&inner), map),
        malformed(
            "payload-with-a-byte-behind-it",
            [&inner[..], &[0]].concat(),
            "1.1: no bytes after the value",
        ),
        malformed(
            "payload-without-its-last-byte",
            &inner[..inner.len() - 1],
            "1.1: the value must be there whole",
        ),
        malformed(
            "payload-with-a-tag",
            [&[0xd9, 0xd9, 0xf7], &inner[..]].concat(),
            "1.1: no tags",
        ),
        malformed(
            "payload-with-keys-that-are-text",
            Map(vec![(text("host"), text(HOST))]),
            "1.1: labels are integers",
        ),
        malformed(
            "length-beyond-the-end",
            stop_command().with(2, head(3, 1 << 40)),
            "1.1: the value must be there whole",
        ),
    ]
}

/// One kind of value where another belongs.
fn types() -> Vec<Vector> {
    let number = "6: a grace is an unsigned integer";
    let simple = "1.1: no floats, no undefined";
    let with_limit = |value: Item| launch_command(launch().with(6, limits().with(3, value)));
    vec![
        malformed("tag-on-a-number", stop_with(2, [0xc1, 10]), "1.1: no tags"),
        malformed(
            "tag-of-a-big-number",
            stop_with(2, [&[0xc2], &bytes(&[10])[..]].concat()),
            "1.1: no tags",
        ),
        malformed(
            "half-float-for-a-number",
            stop_with(2, [0xf9, 0x49, 0]),
            simple,
        ),
        malformed(
            "float-for-a-number",
            stop_with(2, [0xfa, 0x41, 0x20, 0, 0]),
            simple,
        ),
        malformed(
            "double-for-a-number",
            stop_with(2, [0xfb, 0x40, 0x24, 0, 0, 0, 0, 0, 0]),
            simple,
        ),
        malformed("undefined-for-a-number", stop_with(2, [0xf7]), simple),
        malformed(
            "simple-value-for-a-number",
            stop_with(2, [0xf8, 32]),
            simple,
        ),
        malformed(
            "reserved-head-for-a-number",
            stop_with(2, [0x1c]),
            "RFC 8949 §3: 28 to 30 are no heads",
        ),
        malformed(
            "break-for-a-number",
            stop_with(2, [0xff]),
            "1.1: lengths are definite",
        ),
        malformed(
            "negative-number-where-none-belongs",
            stop_with(2, int(-1)),
            number,
        ),
        malformed("true-for-a-number", stop_with(2, [TRUE]), number),
        malformed("false-for-a-number", with_limit(vec![FALSE]), number),
        malformed("text-for-a-number", stop_with(2, text("10")), number),
        malformed("null-for-a-number", stop_with(2, [NULL]), number),
        malformed(
            "null-for-a-label-that-may-be-left-out",
            launch_command(launch().with(8, [NULL])),
            "1.1: what is left out is not there; null is another value",
        ),
        malformed(
            "null-for-a-list",
            launch_command(launch().with(5, [NULL])),
            "6: sources are an array",
        ),
        malformed(
            "map-for-a-list",
            launch_command(launch().with(5, [0xa0])),
            "6: sources are an array",
        ),
    ]
}

fn strings() -> Vec<Vector> {
    let raw =
        |major: u8, content: &[u8]| [head(major, content.len() as u64), content.to_vec()].concat();
    let arguments = |one: Item| launch_command(launch().with(3, array(&[one])));
    let utf8 = "1.1: text is UTF-8";
    vec![
        malformed(
            "text-where-bytes-belong",
            stop_command().with(1, text("sixteen letters!")),
            "6: an id is a byte string",
        ),
        malformed(
            "bytes-where-text-belongs",
            stop_command().with(2, bytes(HOST.as_bytes())),
            "6: a host is text",
        ),
        malformed(
            "bytes-for-an-argument",
            arguments(bytes(b"make")),
            "6: an argument is text",
        ),
        malformed("text-that-is-not-utf-8", arguments(raw(3, &[0xff])), utf8),
        malformed(
            "text-with-half-a-surrogate",
            arguments(raw(3, &[0xed, 0xa0, 0x80])),
            utf8,
        ),
        malformed(
            "text-with-a-letter-in-too-many-bytes",
            arguments(raw(3, &[0xc1, 0x81])),
            utf8,
        ),
        malformed(
            "text-that-ends-inside-a-letter",
            arguments(raw(3, &[0xc3])),
            utf8,
        ),
        malformed(
            "id-of-15-bytes",
            stop_command().with(1, bytes(&[3; 15])),
            "6: an id has 16 bytes",
        ),
        malformed(
            "id-of-17-bytes",
            stop_command().with(1, bytes(&[3; 17])),
            "6: an id has 16 bytes",
        ),
    ]
}

/// What a closed message does not know, it refuses.
fn closed() -> Vec<Vector> {
    let unknown = "9: in a closed message an unknown label, choice or word is refused";
    let there = "1.1: what may not be left out must be there";
    let mut wide = stop_command();
    for label in 6..25 {
        wide = wide.with(label, uint(0));
    }
    let pair = |items: &[Item]| command(array(items));
    vec![
        malformed(
            "command-with-a-label-more",
            stop_command().with(6, uint(0)),
            unknown,
        ),
        malformed(
            "command-with-a-newer-label",
            stop_command().with(64, uint(0)),
            unknown,
        ),
        malformed(
            "command-with-a-negative-label",
            stop_command().with(-1, uint(0)),
            unknown,
        ),
        malformed(
            "launch-with-a-newer-label",
            launch_command(launch().with(64, uint(0))),
            unknown,
        ),
        malformed(
            "launch-with-a-label-more",
            launch_command(launch().with(9, uint(0))),
            unknown,
        ),
        malformed(
            "limits-with-a-label-more",
            launch_command(launch().with(6, limits().with(6, uint(1)))),
            unknown,
        ),
        malformed("stop-with-a-newer-label", stop_with(64, uint(0)), unknown),
        malformed(
            "command-with-an-unknown-order",
            command(order(3, stop())),
            unknown,
        ),
        malformed(
            "command-with-the-order-0",
            command(order(0, stop())),
            unknown,
        ),
        malformed(
            "launch-with-unknown-content",
            launch_command(launch().with(7, uint(4))),
            unknown,
        ),
        malformed(
            "launch-with-the-content-0",
            launch_command(launch().with(7, uint(0))),
            unknown,
        ),
        malformed(
            "command-with-24-pairs",
            wide,
            "9: a map has at most 23 pairs, and unknown ones are refused",
        ),
        malformed(
            "command-without-an-expiry",
            stop_command().without(4),
            there,
        ),
        malformed("command-without-an-order", stop_command().without(5), there),
        malformed(
            "launch-without-limits",
            launch_command(launch().without(6)),
            there,
        ),
        malformed(
            "limits-without-a-life",
            launch_command(launch().with(6, limits().without(5))),
            there,
        ),
        malformed(
            "order-of-one",
            pair(&[uint(2)]),
            "1.1: a choice is an array of two",
        ),
        malformed(
            "order-of-three",
            pair(&[uint(2), stop().encode(), uint(0)]),
            "1.1: a choice is an array of two",
        ),
        malformed(
            "order-whose-label-is-text",
            pair(&[text("stop"), stop().encode()]),
            "1.1: a choice's label is an unsigned integer",
        ),
        malformed(
            "order-that-is-a-map",
            command(Map::new(&[(2, stop().into())]).into()),
            "1.1: a choice is an array of two",
        ),
        malformed(
            "variable-of-three",
            launch_command(launch().with(4, array(&[texts(&["A", "b", "c"])]))),
            "6: a variable is a name and a value",
        ),
        malformed(
            "time-in-text",
            stop_command().with(3, text(&NOW_MS.to_string())),
            "1.2: a time is an unsigned integer",
        ),
        malformed(
            "body-of-another-order",
            command(order(1, stop())),
            &format!("6: a launch of {SANDBOX} says what to launch"),
        ),
    ]
}
