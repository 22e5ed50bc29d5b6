//! Reading the last commits from memory gives what reading the disk gives, and never takes what is not there for nothing.

use super::*;

/// Everything from `from` on: live where that is possible, from the disk where it is not; and how many records came live.
fn read_live(journal: &Journal, from: u64, filter: &Filter) -> (Vec<Item>, usize) {
    let mut reader = journal.reader(from, filter.clone());
    let (mut items, mut live) = (Vec::new(), 0);
    loop {
        let batch = match next_live(&mut reader, 3, 1_000) {
            Some(batch) => {
                live += batch.items.len();
                batch
            }
            None => reader.next_batch(3, 1_000).unwrap(),
        };
        assert_eq!(batch.next, reader.position());
        items.extend(batch.items);
        if batch.caught_up {
            return (items, live);
        }
    }
}

/// What [`Reader::give_live`] gives, kept.
fn next_live(reader: &mut Reader, records_max: usize, bytes_max: usize) -> Option<Batch> {
    let mut items = Vec::new();
    let give = |record: journal::Record<'_>| items.push(Item::Record(record.into()));
    let Live { next, caught_up } = reader.give_live(records_max, bytes_max, give)?;
    Some(Batch {
        items,
        next,
        caught_up,
    })
}

fn read_disk(journal: &Journal, from: u64, filter: &Filter) -> Vec<Item> {
    let mut reader = journal.reader(from, filter.clone());
    let batch = reader.next_batch(usize::MAX, usize::MAX).unwrap();
    assert!(batch.caught_up);
    batch.items
}

#[tokio::test]
async fn from_every_offset_memory_and_disk_give_the_same() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    fill(&journal, 0..40).await;
    drop(journal);
    // What was committed before this start is on the disk only.
    let journal = open(&dir);
    for group in 0..8 {
        let cork = journal.cork();
        let tickets: Vec<_> = (0..5)
            .map(|one| {
                let payload = format!("number{:04}", 40 + group * 5 + one);
                let host = if one % 2 == 0 { "edge-1" } else { "edge-2" };
                let entry = Entry {
                    host,
                    ..entry(payload.as_bytes())
                };
                let mut slot = journal.try_reserve(entry.frame_bytes()).unwrap();
                slot.push(&entry).unwrap();
                slot.submit()
            })
            .collect();
        drop(cork);
        for ticket in tickets {
            ticket.await.unwrap();
        }
    }
    let of_one = Filter {
        host: Some("edge-2".to_owned()),
        ..Filter::default()
    };
    let of_none = Filter {
        sandbox: Some("another".to_owned()),
        ..Filter::default()
    };
    for filter in [Filter::default(), of_one, of_none] {
        for from in 0..=80 {
            let (items, live) = read_live(&journal, from, &filter);
            assert_eq!(items, read_disk(&journal, from, &filter), "from {from}");
            if from >= 40 {
                assert_eq!(live, items.len(), "from {from}: nothing from the disk");
            } else if filter == Filter::default() {
                assert!(live >= 38, "from {from}: the disk gives two more at most");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_longer_kept_is_a_gap_in_memory_too() {
    let dir = TempDir::new().unwrap();
    let sizes = Sizes {
        kept_bytes: Some(8_000),
        ..SMALL
    };
    let journal = Journal::open_sized(dir.path(), Durability::Fsync, sizes).unwrap();
    fill(&journal, 0..400).await;
    let oldest = journal.oldest();
    assert!(oldest > 0, "something was dropped");
    let (items, _) = read_live(&journal, 0, &Filter::default());
    assert!(matches!(items[0], Item::Gap { from: 0, to, .. } if to == oldest));
    assert_eq!(items, read_disk(&journal, 0, &Filter::default()));
}
