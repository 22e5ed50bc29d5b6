//! What is submitted together is committed together.

use super::*;
use tokio::task::yield_now;

#[tokio::test]
async fn what_is_submitted_in_one_turn_is_one_commit() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    for turn in 1..3_u64 {
        while !journal.inner.queue.is_awaited() {
            yield_now().await;
        }
        let tickets: Vec<_> = (0..20)
            .map(|_| {
                let entry = entry(b"in a turn");
                let mut slot = journal.try_reserve(entry.frame_bytes()).unwrap();
                journal.cork_for_turn();
                slot.push(&entry).unwrap();
                let ticket = slot.submit();
                assert!(journal.inner.queue.is_awaited(), "nobody wakes the writer");
                ticket
            })
            .collect();
        for (offset, ticket) in (20 * (turn - 1)..).zip(tickets) {
            assert_eq!(ticket.await, Ok(offset));
        }
        assert_eq!(journal.commit_stats().commits, turn);
    }
}

#[test]
fn a_turn_ends_with_its_runtime() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let runtime = || tokio::runtime::Builder::new_current_thread().build();
    while !journal.inner.queue.is_awaited() {
        std::thread::yield_now();
    }
    // It never comes to its second half there.
    runtime()
        .unwrap()
        .block_on(async { journal.cork_for_turn() });
    let appended = runtime()
        .unwrap()
        .block_on(journal.append(entry(b"after it")));
    assert_eq!(appended, Ok(0));
}

#[tokio::test]
async fn what_is_submitted_under_a_cork_is_one_commit_in_the_order_of_submission() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let mut tickets = Vec::new();
    let cork = journal.cork();
    for number in 0..20_u64 {
        let payload = format!("number{number:04}");
        let entry = entry(payload.as_bytes());
        let mut slot = journal.reserve(entry.frame_bytes()).await.unwrap();
        slot.push(&entry).unwrap();
        tickets.push(slot.submit());
    }
    assert_eq!(journal.commit_stats().commits, 0);
    // Two may hold at once; whoever lets go first, lets go of everything.
    let other = journal.cork();
    drop(cork);
    for (offset, ticket) in (0..).zip(tickets) {
        assert_eq!(ticket.await, Ok(offset));
    }
    assert_eq!(journal.commit_stats().commits, 1);
    drop(other);
    fill(&journal, 20..21).await;
}
