//! Batches that are refused: what a head must look like (`SPEC.md`, 8.5), and each line of 8.7 that says BAD.

use super::{MALFORMED, NOT_DETERMINISTIC};
use crate::{
    forge::{Envelope, plus_order},
    item::{FALSE, Item, Map, TRUE, array, bytes, head_of_width, int, text, uint},
    message::typ,
    stream::{
        Chain, batch, batch_of, exited, hash, head_envelope, line, sealed, started, stream_id,
        three, tiny,
    },
    vector::Vector,
    world::{HOST_KEY, NOW_MS, STRANGER},
};

const SHAPE: &str = "batch: its head and its body do not fit";
const NOT_SIGNED: &str = "the head is not signed by the sandbox's key";
const FORK: &str = "the batch does not follow from the one before it";
const CLOSED: &str = "a batch after the closing one";
const STREAM: &str = "the batch belongs to another stream";
const BODY: &str = "the body is not the one that was signed";

pub(crate) fn all() -> Vec<Vector> {
    let mut all = shapes();
    all.extend(heads());
    all.extend(signatures());
    all.extend(places());
    all.extend(orders());
    all.extend(bodies());
    all.extend(events());
    all
}

fn head() -> Map {
    Chain::new().head(&[])
}

/// Numbers that make no sense. The body is `80`, unless it is what is wrong.
fn shapes() -> Vec<Vector> {
    let shape = |name: &str, head: Map, body: &[u8], why: &str| {
        Vector::batch(name, &batch(head, body)).refused(SHAPE, why)
    };
    let empty = |name: &str, head: Map, why: &str| shape(name, head, &[0x80], why);
    let many = vec![tiny(); 257];
    let one = [started()];
    let body = array(&one);
    let cti = "8.5: label 10 is there exactly if batch is 0";
    let length = "8.5: the body is as long as label 8 says";
    let [first, ..] = three();
    let mut chain = Chain::new();
    chain.next(&[started(), line("hello")]);
    let with_cti = chain.head(&[]).with(10, bytes(&[2; 8]));
    vec![
        empty(
            "head-of-the-epoch-0",
            head().with(2, uint(0)),
            "8.5: epoch ≥ 1",
        ),
        empty(
            "head-of-the-greatest-batch",
            head().with(3, uint(u64::MAX)).without(10),
            "8.5: batch is not 2⁶⁴ − 1",
        ),
        empty("head-without-a-token-in-batch-0", head().without(10), cti),
        Vector::batch_after(
            "head-with-a-token-in-batch-1",
            &[&first],
            &batch(with_cti, &[0x80]),
        )
        .refused(SHAPE, cti),
        empty(
            "head-that-is-closing-with-false",
            head().with(11, [FALSE]),
            "8.5: label 11, if there, is true",
        ),
        shape(
            "head-of-257-events",
            Chain::new().head(&many),
            &array(&many),
            "8.5: count ≤ 256",
        ),
        shape(
            "head-whose-events-overflow",
            Chain::new().head(&one).with(4, uint(u64::MAX)),
            &body,
            "8.5: first + count does not overflow",
        ),
        shape(
            "body-that-is-shorter-than-its-head-says",
            Chain::new().head(&one),
            &body[..body.len() - 1],
            length,
        ),
        shape(
            "body-that-is-longer-than-its-head-says",
            Chain::new().head(&one),
            &[&body[..], &[0]].concat(),
            length,
        ),
        shape("body-that-is-missing", Chain::new().head(&one), &[], length),
    ]
}

/// Heads that are not one.
fn heads() -> Vec<Vector> {
    let refused = |name: &str, head: Map, reason: &str, why: &str| {
        Vector::batch(name, &batch(head, &[0x80])).refused(&format!("batch: {reason}"), why)
    };
    let unknown = "8.5: every label is known, and 9: heads are closed";
    let there = "1.1: what may not be left out must be there";
    let mut swapped = head();
    swapped.0.swap(0, 1);
    let not_one = |name: &str, bytes: &[u8]| {
        let reason = format!("batch: {}", super::ENVELOPE);
        Vector::batch(name, bytes).refused(&reason, "8.1: a batch begins with a signed head")
    };
    vec![
        not_one("batch-of-nothing", &[]),
        not_one("batch-without-a-head", &[0x80]),
        not_one("batch-that-ends-inside-its-head", &sealed(head())[..200]),
        refused(
            "head-with-a-label-more",
            head().with(12, uint(0)),
            MALFORMED,
            unknown,
        ),
        refused(
            "head-with-a-newer-label",
            head().with(64, uint(0)),
            MALFORMED,
            unknown,
        ),
        refused(
            "head-without-a-body-hash",
            head().without(7),
            MALFORMED,
            there,
        ),
        refused(
            "head-with-a-stream-of-15-bytes",
            head().with(1, bytes(&[0; 15])),
            MALFORMED,
            "8.1: a stream's id has 16 bytes",
        ),
        refused(
            "head-with-a-previous-of-31-bytes",
            head().with(6, bytes(&[0; 31])),
            MALFORMED,
            "8.1: a hash has 32 bytes",
        ),
        refused(
            "head-with-a-token-of-16-bytes",
            head().with(10, bytes(&[2; 16])),
            MALFORMED,
            "8.1: a cti has 8 bytes",
        ),
        refused(
            "head-that-is-closing-with-1",
            head().with(11, uint(1)),
            MALFORMED,
            "8.5: label 11, if there, is true",
        ),
        refused(
            "head-with-a-negative-epoch",
            head().with(2, int(-1)),
            MALFORMED,
            "8.1: an epoch is an unsigned integer",
        ),
        refused(
            "head-with-labels-out-of-order",
            swapped,
            NOT_DETERMINISTIC,
            "1.1: keys of a map are in the bytewise order of their encodings",
        ),
        refused(
            "head-with-an-epoch-that-is-longer-than-needed",
            head().with(2, head_of_width(0, 1, 1)),
            NOT_DETERMINISTIC,
            "1.1: integers are in their shortest form",
        ),
    ]
}

fn signatures() -> Vec<Vector> {
    let refused = |name: &str, head: &[u8], why: &str| {
        Vector::batch(name, &[head, &[0x80]].concat()).refused(NOT_SIGNED, why)
    };
    let by = |seed: u8| Envelope::new(seed, typ("batch"), "", head()).seal();
    let posing = Envelope {
        seed: STRANGER,
        ..head_envelope(head())
    };
    let good = head_envelope(head());
    let mut flipped = good.signature();
    flipped[0] ^= 1;
    let placed = Envelope {
        aad: crate::message::EVENTS.into(),
        ..good.clone()
    };
    let line_3 = "8.7, 3: the sandbox's key signs the head";
    vec![
        refused("head-of-a-stranger", &by(STRANGER), line_3),
        refused("head-of-the-host", &by(HOST_KEY), line_3),
        refused(
            "head-of-a-stranger-with-the-kid-of-the-sandbox",
            &posing.seal(),
            line_3,
        ),
        refused(
            "head-with-one-bit-of-its-signature-flipped",
            &good.seal_with(&flipped),
            line_3,
        ),
        refused(
            "head-whose-s-is-plus-the-order",
            &good.seal_with(&plus_order(&good.signature())),
            "1.3: verify strictly: S < L",
        ),
        refused(
            "head-that-is-signed-for-a-place",
            &placed.seal(),
            "1.4: the external_aad of a head is empty",
        ),
    ]
}

fn places() -> Vec<Vector> {
    let of = |name: &str, topic: &str| {
        let head = head().with(1, bytes(&stream_id(topic)));
        Vector::batch(name, &batch(head, &[0x80]))
            .refused(STREAM, "8.7, 4: the head's stream is this one")
    };
    let [one, two, last] = three();
    let mut after = chain_after(&[started(), line("hello")], 3, 4);
    after.previous = *blake3::hash(head_of(&last)).as_bytes();
    let before = [&one[..], &two, &last];
    let closed = "8.7, 5: nothing comes after the closing batch";
    let mut restarted = after.clone();
    restarted.epoch(2);
    let mut other = Chain::new();
    other.next(&[started(), line("hello")]);
    vec![
        of("batch-of-another-sandbox", "v1/edge-1/build-8/events"),
        of("batch-of-another-host", "v1/edge-2/build-7/events"),
        Vector::batch_after("batch-after-the-closing-one", &before, &after.next(&[]))
            .refused(CLOSED, closed),
        Vector::batch_after(
            "epoch-after-the-closing-batch",
            &before,
            &restarted.next(&[]),
        )
        .refused(CLOSED, closed),
        Vector::batch_after(
            "fork-after-the-closing-batch",
            &before,
            &other.next(&[tiny()]),
        )
        .refused(CLOSED, closed),
    ]
}

/// A stream that stands here, whatever came before.
fn chain_after(_: &[Item], batch: u64, first: u64) -> Chain {
    Chain {
        batch,
        first,
        ..Chain::new()
    }
}

/// The signed head at the front of a batch of `three`, whose bodies are known.
fn head_of(batch: &[u8]) -> &[u8] {
    let body = array(&[exited(0)]);
    &batch[..batch.len() - body.len()]
}

/// Lines 6 to 9.
fn orders() -> Vec<Vector> {
    let mut chain = Chain::new();
    let one = chain.next(&[started(), line("hello")]);
    let here = chain.clone();
    let two = chain.next(&[line("world")]);
    let after_two = chain.clone();
    let after = |name: &str, head: Map, reason: &str, why: &str| {
        Vector::batch_after(name, &[&one], &batch(head, &[0x80])).refused(reason, why)
    };
    let missing = |expected: u64, found: u64| {
        format!("batches are missing: expected batch {expected}, found {found}")
    };
    let mut second_epoch = here.clone();
    second_epoch.epoch(2);
    let restarted = second_epoch.next(&[]);
    let back = Chain {
        epoch: 1,
        ..second_epoch
    };
    let forks = "8.7, 7: a number that was there before, with another head, is a fork";
    let misses = "8.7, 8: batches are missing";
    let follows = "8.7, 9: a batch follows from the one before it";
    let fork = |name: &str, before: &[&[u8]], bytes: &[u8]| {
        Vector::batch_after(name, before, bytes).refused(FORK, forks)
    };
    vec![
        fork(
            "batch-0-twice-with-other-events",
            &[&one],
            &Chain::new().next(&[started()]),
        ),
        fork(
            "batch-0-twice-with-another-time",
            &[&one],
            &batch(head().with(9, uint(NOW_MS + 1)), &[0x80]),
        ),
        fork(
            "batch-1-twice-with-other-events",
            &[&one, &two],
            &here.clone().next(&[line("w0rld")]),
        ),
        fork("batch-of-the-epoch-before", &[&one, &restarted], &two),
        fork(
            "batch-of-the-epoch-before-that-follows-all-the-same",
            &[&one, &restarted],
            &batch(back.head(&[]), &[0x80]),
        ),
        fork(
            "batch-0-twice-that-follows-all-the-same",
            &[&one],
            &batch(
                here.head(&[]).with(3, uint(0)).with(10, bytes(&[2; 8])),
                &[0x80],
            ),
        ),
        Vector::batch("batch-1-first", &two).refused(&missing(0, 1), misses),
        after(
            "batch-2-after-batch-0",
            here.head(&[]).with(3, uint(2)),
            &missing(1, 2),
            misses,
        ),
        after(
            "epoch-that-begins-with-batch-1",
            here.head(&[]).with(2, uint(2)),
            &missing(0, 1),
            misses,
        ),
        after(
            "batch-whose-first-event-was-there",
            here.head(&[]).with(4, uint(1)),
            FORK,
            follows,
        ),
        after(
            "batch-whose-first-event-is-too-late",
            here.head(&[]).with(4, uint(3)),
            FORK,
            follows,
        ),
        after(
            "batch-after-another-head",
            here.head(&[]).with(6, bytes(&[7; 32])),
            FORK,
            follows,
        ),
        after(
            "batch-after-the-start-of-the-stream",
            here.head(&[]).with(6, bytes(&[0; 32])),
            FORK,
            follows,
        ),
        after(
            "epoch-that-forgets-the-head-before",
            Chain {
                epoch: 2,
                first: 2,
                ..Chain::new()
            }
            .head(&[]),
            FORK,
            follows,
        ),
        after(
            "epoch-that-counts-its-events-from-0",
            Chain {
                epoch: 2,
                previous: here.previous,
                ..Chain::new()
            }
            .head(&[]),
            FORK,
            follows,
        ),
        Vector::batch(
            "first-batch-after-a-head",
            &batch(head().with(6, bytes(&[7; 32])), &[0x80]),
        )
        .refused(FORK, follows),
        Vector::batch(
            "first-batch-whose-events-do-not-begin-at-0",
            &batch(head().with(4, uint(1)), &[0x80]),
        )
        .refused(FORK, follows),
        Vector::batch_after(
            "batch-that-names-the-head-before-last",
            &[&one, &two],
            &batch(after_two.head(&[]).with(6, bytes(&here.previous)), &[0x80]),
        )
        .refused(FORK, follows),
    ]
}

fn bodies() -> Vec<Vector> {
    let good = Chain::new().next(&[started(), line("hello")]);
    let mut changed = good;
    if let Some(byte) = changed.last_mut() {
        *byte ^= 1;
    }
    let line_10 = "8.7, 10: the body is the one whose hash the head has";
    let line_11 =
        "8.7, 11: the body is an array of as many events as the head says, and nothing else";
    let of = |name: &str, body: &[u8], count: u64, why: &str| {
        Vector::batch(name, &batch_of(body, count)).refused(BODY, why)
    };
    let one = array(&[started()]);
    vec![
        Vector::batch("body-with-one-bit-flipped", &changed).refused(BODY, line_10),
        Vector::batch(
            "body-with-the-hash-of-another",
            &batch(head().with(7, hash(&[0x81])), &[0x80]),
        )
        .refused(BODY, line_10),
        of("body-of-fewer-events-than-its-head-says", &one, 2, line_11),
        of("body-of-more-events-than-its-head-says", &one, 0, line_11),
        of(
            "body-with-a-byte-behind-its-events",
            &[&one[..], &[0]].concat(),
            1,
            line_11,
        ),
        of("body-of-no-bytes", &[], 0, line_11),
        of("body-that-is-a-map", &[0xa0], 0, line_11),
        of("body-in-a-byte-string", &bytes(&[0x80]), 0, line_11),
        of(
            "body-of-indefinite-length",
            &[0x9f, 0xff],
            0,
            "1.1: lengths are definite",
        ),
        of(
            "body-whose-length-is-longer-than-needed",
            &[0x98, 0],
            0,
            "1.1: lengths are in their shortest form",
        ),
        of("body-of-events-without-an-array", &started(), 1, line_11),
        of(
            "body-that-announces-an-event-that-is-not-there",
            &[0x81],
            0,
            line_11,
        ),
        of(
            "body-that-announces-one-event-more-than-is-there",
            &[&[0x82], &started()[..]].concat(),
            1,
            line_11,
        ),
    ]
}

/// A body of one event that is none.
fn events() -> Vec<Vector> {
    let of = |name: &str, event: &[Item], why: &str| {
        let body = array(&[array(event)]);
        Vector::batch(name, &batch_of(&body, 1)).refused(BODY, why)
    };
    let good = || -> Vec<Item> {
        let mut items = [NOW_MS, 2, 0, 6, 0].map(uint).to_vec();
        items.push(bytes(b"hello"));
        items
    };
    let with = |at: usize, item: Item| {
        let mut items = good();
        items[at] = item;
        items
    };
    let six = "8.1: an event is an array of six";
    let number = "8.1: the first five of an event are unsigned integers";
    let data = "8.1: data is a byte string of at most 8192 bytes";
    vec![
        of("event-of-five", &good()[..5], six),
        of("event-of-seven", &[&good()[..], &[uint(0)]].concat(), six),
        of("event-without-anything", &[], six),
        of("event-with-a-negative-time", &with(0, int(-1)), number),
        of(
            "event-with-a-kind-that-is-text",
            &with(1, text("stdout")),
            number,
        ),
        of(
            "event-with-flags-that-are-true",
            &with(2, vec![TRUE]),
            number,
        ),
        of(
            "event-with-a-size-that-is-a-float",
            &with(3, vec![0xf9, 0x46, 0]),
            number,
        ),
        of(
            "event-with-a-value-that-is-tagged",
            &with(4, vec![0xc1, 0]),
            number,
        ),
        of(
            "event-with-a-value-that-is-longer-than-needed",
            &with(4, vec![0x18, 0]),
            "1.1: integers are in their shortest form",
        ),
        of(
            "event-with-data-that-is-text",
            &with(5, text("hello")),
            data,
        ),
        of(
            "event-with-data-that-is-null",
            &with(5, vec![crate::item::NULL]),
            data,
        ),
        of(
            "event-with-data-of-8193-bytes",
            &with(5, bytes(&[0; 8193])),
            data,
        ),
        of(
            "event-with-data-of-indefinite-length",
            &with(5, vec![0x5f, 0x41, b'x', 0xff]),
            "1.1: lengths are definite",
        ),
    ]
}
