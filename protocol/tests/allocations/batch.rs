//! Batches: a verified one costs its head, however many events it has; a hostile one costs no more.

use protocol::{
    event::{Event, Events, Kind},
    key::Sandbox,
    limits::{BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_HEAD_BYTES_MAX},
    stream::{Batch, StreamError, Verdict, Verifier, Writer, stream_id},
};

use crate::{
    cost::{self, Cost},
    hostile::{bombs, twists},
    item::Item,
    sample::{NOW, host, sandbox, secret},
};

fn writer() -> Writer {
    Writer::new(secret(3), stream_id(&host(), &sandbox()), [8; 8])
}

fn verifier() -> Verifier {
    Verifier::new(&host(), &sandbox(), secret::<Sandbox>(3).public())
}

fn line(data: &[u8]) -> Event<'_> {
    Event {
        time: NOW,
        kind: Kind::Stdout,
        flags: 0,
        size: data.len() as u64,
        value: 0,
        data,
    }
}

/// A first batch of so many lines.
fn batch(count: usize) -> Vec<u8> {
    let mut writer = writer();
    for _ in 0..count {
        assert!(writer.push(&line(b"a line of output")));
    }
    writer.seal(NOW, false)
}

/// Checks a payload and reads its events to the end.
fn check(payload: &[u8]) -> (Result<usize, StreamError>, Cost) {
    let mut verifier = verifier();
    cost::of(|| match verifier.check(payload) {
        Ok(Verdict::Next(_, events)) => Ok(events.map(|event| event.data.len()).sum()),
        Ok(Verdict::Again | Verdict::Purged(_)) => Ok(0),
        Err(error) => Err(error),
    })
}

#[test]
fn a_batch_of_many_events_costs_what_a_batch_of_one_costs() {
    // What differs is the length of two numbers in the head, which is copied to be verified.
    const NUMBERS_BYTES: u64 = 8;
    let (_, one) = check(&batch(1));
    assert!(one.count > 0, "something is counted");
    for count in [0, 64, BATCH_EVENTS_MAX] {
        let (bytes, many) = check(&batch(count));
        assert_eq!(bytes, Ok(count * "a line of output".len()));
        assert_eq!(many.count, one.count, "{count} events");
        assert!(
            many.total.abs_diff(one.total) <= NUMBERS_BYTES,
            "{count} events"
        );
    }
}

#[test]
fn a_body_is_read_where_it_stands() {
    for count in [0, 1, 64, BATCH_EVENTS_MAX] {
        let payload = batch(count);
        let body = Batch::parse(&payload).unwrap().body;
        let (events, cost) = cost::of(|| Events::parse(body, count as u64).map(Iterator::count));
        assert_eq!((events, cost.count), (Ok(count), 0));
    }
}

#[test]
fn a_hostile_body_costs_nothing() {
    let payload = batch(3);
    let good = Item::parse(Batch::parse(&payload).unwrap().body);
    let bombs = bombs(BATCH_BODY_BYTES_MAX - good.encode().len());
    for place in good.places() {
        let twists = twists(&good.at(&place));
        for hostile in bombs.iter().chain(&twists) {
            let body = good.with(&place, &hostile.item).encode();
            for count in [3, 256, 60_000, u64::MAX] {
                let (events, cost) = cost::of(|| Events::parse(&body, count).map(Iterator::count));
                assert_eq!(cost.count, 0, "{} at {place:?}", hostile.what);
                assert!(events.is_err() || count <= 256);
            }
        }
    }
}

#[test]
fn a_payload_that_is_no_batch_costs_a_head_at_the_most() {
    let good = batch(3);
    let head_bytes = good.len() - Batch::parse(&good).unwrap().body.len();
    let (head, body) = good.split_at(head_bytes);
    let envelope = Item::parse(head);
    let mut payloads: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    for place in envelope.places() {
        let twists = twists(&envelope.at(&place));
        for hostile in bombs(60_000).iter().chain(&twists) {
            payloads.push([&envelope.with(&place, &hostile.item).encode(), body].concat());
        }
    }
    for payload in payloads.iter().filter(|payload| **payload != good) {
        let (events, cost) = check(payload);
        assert!(events.is_err());
        assert!(cost.total <= 2 * BATCH_HEAD_BYTES_MAX as u64, "{cost:?}");
    }
}
