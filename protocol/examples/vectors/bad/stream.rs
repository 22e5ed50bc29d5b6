//! Stream files whose form is refused: openings, records, successions and places (`SPEC.md`, chapter 10).

use super::{SIGNATURE, UNKNOWN_KEY};
use crate::{
    file::{
        BATCH, COMMAND, File, HEAD, HOLE, REPORT, SUCCESSION, head_of, hole, launched_report,
        opening, record, record_at, removed,
    },
    forge::Envelope,
    item::{Item, array, bytes, head, text, uint},
    message::{report_envelope, succession, succession_envelope, succession_to},
    stream::three,
    vector::Vector,
    world::{HOST, HOST_KEY, HOST_KEY_2, HOST_KEY_3, NOW_MS, SANDBOX, STRANGER},
};

const NOT_AN_ITEM: &str = "not an item of a stream file";
const CUT_SHORT: &str = "the file ends inside it";
const ELSEWHERE: &str = "filed under another host or sandbox";
const OFFSET: &str = "its offset does not come after the one before it";
const CHAIN: &str = "a succession that does not follow from the one before it";
const LATE: &str = "a succession behind other records";

pub(crate) fn all() -> Vec<Vector> {
    let mut all = openings();
    all.extend(records());
    all.extend(successions());
    all.extend(places());
    all.extend(purged());
    all
}

/// Refused at an item, counted from 0.
pub(super) fn refused(name: &str, file: File, item: u64, reason: &str, why: &str) -> Vector {
    Vector::stream(name, &file.bytes()).refused(&format!("item {item}: {reason}"), why)
}

fn openings() -> Vec<Vector> {
    let first = "10, 1: item 0 is first, with version 1 and two good names";
    let of =
        |name: &str, bytes: Vec<u8>| refused(name, File::starting(bytes), 0, NOT_AN_ITEM, first);
    let items = |word: &str, version: u64, host: &str, sandbox: &str| {
        array(&[text(word), uint(version), text(host), text(sandbox)])
    };
    let word = "outhaul-stream";
    let good = opening(SANDBOX);
    vec![
        refused(
            "file-of-nothing",
            File::starting(Vec::new()),
            0,
            CUT_SHORT,
            first,
        ),
        refused(
            "file-that-ends-inside-its-first-item",
            File::starting(good[..good.len() - 1].to_vec()),
            0,
            CUT_SHORT,
            first,
        ),
        of(
            "file-of-another-kind",
            items("outhaul-trails", 1, HOST, SANDBOX),
        ),
        of("file-of-a-later-version", items(word, 2, HOST, SANDBOX)),
        of("file-of-no-host", items(word, 1, "", SANDBOX)),
        of(
            "file-of-a-host-in-upper-case",
            items(word, 1, "Edge-1", SANDBOX),
        ),
        of("file-of-no-sandbox", items(word, 1, HOST, "")),
        of(
            "file-of-a-sandbox-that-is-a-path",
            items(word, 1, HOST, "../x"),
        ),
        of(
            "file-whose-first-item-has-five",
            array(&[text(word), uint(1), text(HOST), text(SANDBOX), uint(0)]),
        ),
        of(
            "file-whose-version-is-longer-than-needed",
            array(&[text(word), vec![0x18, 1], text(HOST), text(SANDBOX)]),
        ),
        of(
            "file-without-its-first-item",
            record(23, REPORT, &launched_report()),
        ),
    ]
}

fn records() -> Vec<Vector> {
    let after = |name: &str, item: &[u8], why: &str| {
        refused(name, File::launched().raw(item), 2, NOT_AN_ITEM, why)
    };
    let [one, ..] = three();
    let good = record(99, BATCH, &one);
    let parts = |offset: Item, kind: Item, host: Item, payload: Item| {
        array(&[offset, uint(NOW_MS), kind, host, text(SANDBOX), payload])
    };
    let of_six = "10: a record is an array of six";
    let shortest = "1.1: integers and lengths are in their shortest form";
    let too_long = [
        record(99, BATCH, b"")
            .split_last()
            .map_or(vec![], |(_, front)| front.to_vec()),
        head(2, 65_537),
    ]
    .concat();
    vec![
        refused(
            "file-that-ends-inside-a-record",
            File::launched().raw(&good[..good.len() - 1]),
            2,
            CUT_SHORT,
            "10: each item is whole",
        ),
        after("file-with-other-bytes-behind-it", b"\n", of_six),
        after(
            "record-of-five",
            &array(&[uint(99), uint(NOW_MS), uint(BATCH), text(HOST), bytes(&one)]),
            of_six,
        ),
        after(
            "record-of-seven",
            &[&[0x87], &good[1..], &[0]].concat(),
            of_six,
        ),
        after(
            "record-of-the-kind-5",
            &record(99, 5, &one),
            "10: a kind is 0 to 4",
        ),
        after(
            "record-with-a-tag",
            &[&[0xc1], &good[..]].concat(),
            "1.1: no tags",
        ),
        after(
            "record-of-indefinite-length",
            &[&[0x9f], &good[1..], &[0xff]].concat(),
            "1.1: lengths are definite",
        ),
        after(
            "record-whose-offset-is-longer-than-needed",
            &parts(vec![0x19, 0, 99], uint(BATCH), text(HOST), bytes(&one)),
            shortest,
        ),
        after(
            "record-whose-offset-is-negative",
            &parts(vec![0x20], uint(BATCH), text(HOST), bytes(&one)),
            "10: an offset is an unsigned integer",
        ),
        after(
            "record-whose-host-is-bytes",
            &parts(uint(99), uint(BATCH), bytes(HOST.as_bytes()), bytes(&one)),
            "10: a host is text",
        ),
        after(
            "record-whose-payload-is-text",
            &parts(uint(99), uint(BATCH), text(HOST), text("batch")),
            "10: a payload is a byte string",
        ),
        after(
            "record-whose-payload-is-said-to-have-65537-bytes",
            &too_long,
            "10: a payload has at most PACKET_BYTES_MAX bytes",
        ),
    ]
}

fn successions() -> Vec<Vector> {
    let signed = |seed: u8, payload: crate::item::Map| succession_envelope(seed, payload).seal();
    let second = signed(HOST_KEY, succession());
    let third = signed(HOST_KEY_2, succession_to(3, HOST_KEY_3));
    let after = |name: &str, payload: &[u8], reason: &str, why: &str| {
        refused(
            name,
            File::new().succession(&second).succession(payload),
            2,
            reason,
            why,
        )
    };
    let unknown = format!("a succession: {UNKNOWN_KEY}");
    let last = "10, 2: a succession is signed by the last key of the chain";
    let by_one = "10, 2: from the second on, the generation counts up by one";
    let first = "10, 2: no succession comes after a record of another kind";
    let as_report = Envelope {
        protected: report_envelope(succession()).protected,
        ..succession_envelope(HOST_KEY, succession())
    };
    let mut flipped = second.clone();
    let end = flipped.len() - 1;
    flipped[end] ^= 1;
    let at =
        |offset: u64, received: u64| record_at(offset, received, SUCCESSION, (HOST, ""), &second);
    vec![
        refused(
            "succession-by-a-stranger-in-a-file",
            File::new().succession(&signed(STRANGER, succession())),
            1,
            &unknown,
            last,
        ),
        refused(
            "succession-with-one-bit-flipped-in-a-file",
            File::new().succession(&flipped),
            1,
            &format!("a succession: {SIGNATURE}"),
            last,
        ),
        refused(
            "succession-by-the-next-key-itself-in-a-file",
            File::new().succession(&signed(HOST_KEY_2, succession())),
            1,
            &unknown,
            last,
        ),
        after(
            "succession-by-the-key-before-last-in-a-file",
            &signed(HOST_KEY, succession_to(3, HOST_KEY_3)),
            &unknown,
            last,
        ),
        after("succession-twice-in-a-file", &second, &unknown, last),
        after(
            "succession-that-leaves-a-generation-out-in-a-file",
            &signed(HOST_KEY_2, succession_to(4, HOST_KEY_3)),
            CHAIN,
            by_one,
        ),
        after(
            "succession-of-the-same-generation-in-a-file",
            &signed(HOST_KEY_2, succession_to(2, HOST_KEY_3)),
            CHAIN,
            by_one,
        ),
        refused(
            "successions-in-the-wrong-order-in-a-file",
            File::new().succession(&third).succession(&second),
            1,
            &unknown,
            last,
        ),
        refused(
            "succession-of-another-host-in-a-file",
            File::new().succession(&signed(HOST_KEY, succession().with(1, text("edge-2")))),
            1,
            CHAIN,
            "10, 2: a succession names the file's host",
        ),
        refused(
            "succession-with-the-header-of-a-report-in-a-file",
            File::new().succession(&as_report.seal()),
            1,
            "a succession: not a signed message of this kind",
            "1.4: one kind is none of another",
        ),
        refused(
            "succession-behind-a-report",
            File::launched().succession(&second),
            2,
            LATE,
            first,
        ),
        refused(
            "succession-behind-a-hole",
            File::new().hole().succession(&second),
            2,
            LATE,
            first,
        ),
        refused(
            "succession-with-an-offset",
            File::new().raw(&at(1, 0)),
            1,
            LATE,
            "10: a succession's offset is 0",
        ),
        refused(
            "succession-with-a-date",
            File::new().raw(&at(0, NOW_MS)),
            1,
            NOT_AN_ITEM,
            "10: a succession's received is 0",
        ),
    ]
}

/// Where records are filed, and in what order.
fn places() -> Vec<Vector> {
    let [one, two, _] = three();
    let at = |name: &str, kind: u64, place: (&str, &str), payload: &[u8]| {
        let record = record_at(
            99,
            if kind == HOLE { 0 } else { NOW_MS },
            kind,
            place,
            payload,
        );
        refused(
            name,
            File::launched().raw(&record),
            2,
            ELSEWHERE,
            "10: records are of the file's host and sandbox; a hole is of none",
        )
    };
    let order = "10, 3: a record's offset is greater than the one before";
    let offsets = |name: &str, offset: u64| {
        let file = File::launched()
            .batch(&one)
            .raw(&record(offset, BATCH, &two));
        refused(name, file, 3, OFFSET, order)
    };
    let succession = record_at(
        0,
        0,
        SUCCESSION,
        (HOST, SANDBOX),
        &succession_envelope(HOST_KEY, succession()).seal(),
    );
    vec![
        at(
            "batch-that-is-filed-under-another-host",
            BATCH,
            ("edge-2", SANDBOX),
            &one,
        ),
        at(
            "batch-that-is-filed-under-another-sandbox",
            BATCH,
            (HOST, "build-8"),
            &one,
        ),
        at(
            "batch-that-is-filed-under-no-sandbox",
            BATCH,
            (HOST, ""),
            &one,
        ),
        at(
            "report-that-is-filed-under-another-sandbox",
            REPORT,
            (HOST, "build-8"),
            &launched_report(),
        ),
        at(
            "command-that-is-filed-under-no-sandbox",
            COMMAND,
            (HOST, ""),
            b"x",
        ),
        at("hole-that-is-filed-under-a-host", HOLE, (HOST, ""), b""),
        refused(
            "succession-that-is-filed-under-a-sandbox",
            File::new().raw(&succession),
            1,
            ELSEWHERE,
            "10: a succession is of the file's host and of no sandbox",
        ),
        refused(
            "batch-that-is-filed-under-nobody",
            File::launched().raw(&record_at(99, NOW_MS, BATCH, ("", ""), &one)),
            2,
            NOT_AN_ITEM,
            "10: a hole alone is of no host",
        ),
        offsets("offset-that-comes-twice", 26),
        offsets("offset-that-goes-back", 25),
        refused(
            "offset-that-goes-back-to-0",
            File::launched().raw(&record(0, BATCH, &one)),
            2,
            OFFSET,
            order,
        ),
        refused(
            "hole-with-the-offset-before",
            File::launched().raw(&hole(23, b"")),
            2,
            OFFSET,
            order,
        ),
        refused(
            "hole-with-something-in-it",
            File::launched().raw(&hole(99, &[0])),
            2,
            "a hole in the journal with something in it",
            "10: the payload of a lost record is empty",
        ),
        refused(
            "hole-with-a-date",
            File::launched().raw(&record_at(99, NOW_MS, HOLE, ("", ""), b"")),
            2,
            NOT_AN_ITEM,
            "10: a lost record's received is 0",
        ),
    ]
}

/// Heads that are none, and holes that say what they cannot.
fn purged() -> Vec<Vector> {
    let [one, two, _] = three();
    let fit = "10, 5: of a purged batch the head is left, and nothing behind it";
    let not_fit = "events: batch: its head and its body do not fit";
    let of = |name: &str, kind: u64, payload: &[u8], reason: &str, why: &str| {
        let file = File::launched().raw(&record(90, kind, payload));
        refused(name, file, 2, reason, why)
    };
    let last = head_of(&one).len() - 1;
    let mut forged = head_of(&one).to_vec();
    forged[last] ^= 1;
    let says = "10: a lost record says nothing, or how far it goes and why";
    let in_hole = "a hole in the journal with something in it";
    let at = |name: &str, payload: &[u8]| {
        let file = File::launched().raw(&hole(90, payload));
        refused(name, file, 2, in_hole, says)
    };
    vec![
        of("purged-batch-with-its-body", HEAD, &one, not_fit, fit),
        of(
            "batch-without-its-body",
            BATCH,
            head_of(&one),
            not_fit,
            "8.5: the body has the length that its head says",
        ),
        of(
            "purged-batch-with-another-signature",
            HEAD,
            &forged,
            "events: the head is not signed by the sandbox's key",
            "8.7, 3",
        ),
        of(
            "purged-batch-that-does-not-follow",
            HEAD,
            head_of(&two),
            "events: batches are missing: expected batch 0, found 1",
            "8.7, 8",
        ),
        of(
            "purged-batch-that-is-cut-short",
            HEAD,
            &head_of(&one)[..last],
            "events: batch: not a signed message of this kind",
            "10, 5: of a purged batch the head is left, whole",
        ),
        at("hole-that-ends-where-it-begins", &removed(90, &[1])),
        at("hole-with-a-cause-that-is-none", &removed(99, &[5])),
        at("hole-with-a-cause-twice", &removed(99, &[1, 1])),
        at("hole-with-causes-out-of-order", &removed(99, &[2, 1])),
        at(
            "hole-with-something-behind-it",
            &[removed(99, &[1]), uint(0)].concat(),
        ),
    ]
}
