//! Records of the journal or of a stream file: whatever arrives is kept once, until it is a record or cannot become one.

use protocol::{
    limits::{ID_BYTES_MAX, PACKET_BYTES_MAX},
    record::{Kind, Reader, Record},
};

use crate::{
    cost,
    hostile::{bombs, twists},
    item::Item,
    sample::{NOW, host, sandbox},
};

fn record(payload_bytes: usize) -> Record {
    Record {
        offset: 7,
        received: NOW,
        kind: Kind::Batch,
        host: Some(host()),
        sandbox: Some(sandbox()),
        payload: vec![7; payload_bytes],
    }
}

#[test]
fn a_hostile_record_costs_no_more_than_what_arrived() {
    /// The two names of a record, which are read before the rest has arrived.
    const NAMES_BYTES_MAX: u64 = 2 * ID_BYTES_MAX as u64;
    let good = Item::parse(&record(3).encode());
    let bombs = bombs(PACKET_BYTES_MAX);
    for place in good.places() {
        let twists = twists(&good.at(&place));
        for hostile in bombs.iter().chain(&twists) {
            let bytes = good.with(&place, &hostile.item).encode();
            let length = bytes.len() as u64;
            let (taken, cost) = cost::of(|| {
                let mut reader = Reader::default();
                reader.push(&bytes);
                reader
                    .take()
                    .map(|record| record.map(|record| record.payload.len()))
            });
            // What is a record after all is copied out.
            let copied = taken.ok().flatten().unwrap_or(0) as u64;
            let most = length + NAMES_BYTES_MAX + copied;
            assert!(cost.peak <= most, "{} at {place:?}: {cost:?}", hostile.what);
        }
    }
}

#[test]
fn a_record_that_is_announced_and_does_not_come_costs_what_has_come() {
    let record = record(PACKET_BYTES_MAX).encode();
    let mut reader = Reader::default();
    let (_, cost) = cost::of(|| reader.push(&record[..1000]));
    assert_eq!(cost.peak, 1000);
    let (taken, cost) = cost::of(|| reader.take().map(|record| record.is_some()));
    assert_eq!(taken, Ok(false));
    assert!(cost.peak <= 2 * ID_BYTES_MAX as u64, "{cost:?}");
}
