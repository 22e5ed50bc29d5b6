//! When the journal's queue is full.

use super::*;
use crate::shell::journal::{Filter, Item, RESERVE_BYTES_MAX, Slot};

/// Takes all room that there is, in pieces of which the last are small.
fn fill(journal: &Journal) -> Vec<Slot> {
    let mut taken = Vec::new();
    let mut bytes = RESERVE_BYTES_MAX;
    while bytes > 0 {
        match journal.try_reserve(bytes) {
            Some(slot) => taken.push(slot),
            None => bytes /= 2,
        }
    }
    taken
}

#[tokio::test]
async fn events_that_wait_for_room_are_not_overtaken_and_all_are_stored() {
    let world = World::new().await;
    let journal = world.gate.plane.journal().clone();
    let mut client = world.sandbox("build-7").await;
    let from = journal.next_offset();
    let mut taken = fill(&journal);
    // Some room, and too little for any.
    taken.pop();
    let batches = batches("build-7", 4);
    for (number, batch) in (1..).zip(&batches) {
        let quality = Quality::at_least_once(numbered(number));
        let publish = Publish::new("v1/edge-1/build-7/events", quality, batch);
        client.send(ClientPacket::Publish(publish)).await;
        let published = number as u64;
        until("it is taken in", || {
            world.gate.metrics.published.count() == published
        })
        .await;
    }
    assert_eq!(journal.next_offset(), from, "nothing found room yet");
    drop(taken);
    for number in 1..=4 {
        assert_eq!(client.next().await, Some(Said::PubAck(number, 0)));
    }
    let read = journal.reader(from, Filter::default()).next_batch(9, 9_999);
    let payloads = read.unwrap().items.into_iter().map(|item| match item {
        Item::Record(record) => record.payload,
        Item::Gap { .. } => panic!("a gap"),
    });
    assert!(payloads.eq(batches));
}
