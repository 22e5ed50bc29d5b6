//! Tests of `journal`.

mod live;
mod prepared;
mod retention;
mod submit;

use super::*;
use crate::core::journal::{HEADER_BYTES, PAYLOAD_BYTES_MAX, RecordKind};
use protocol::hole::Cause;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use tempfile::TempDir;

const SMALL: Sizes = Sizes {
    segment_bytes: 4_000,
    mark_bytes: 1_000,
    kept_bytes: None,
};
/// The bytes of the records that [`entry`] makes.
const ENTRY_BYTES: u64 = 8 + 20 + 6 + 7 + 10;

fn open(dir: &TempDir) -> Journal {
    Journal::open_sized(dir.path(), Durability::Fsync, SMALL).unwrap()
}

fn entry(payload: &[u8]) -> Entry<'_> {
    Entry {
        kind: RecordKind::Event,
        host: "edge-1",
        sandbox: Some("build-7"),
        time_ms: 5,
        payload,
    }
}

async fn fill(journal: &Journal, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        let payload = format!("number{offset:04}");
        assert_eq!(journal.append(entry(payload.as_bytes())).await, Ok(offset));
    }
}

/// All there is, as `1 2 3-5! 6`: offsets, and gaps with an exclamation mark.
fn read(journal: &Journal, from: u64, filter: Filter) -> String {
    let mut reader = journal.reader(from, filter);
    let mut seen = Vec::new();
    loop {
        let batch = reader.next_batch(7, 1_000).unwrap();
        for item in batch.items {
            seen.push(match item {
                Item::Record(record) => {
                    if record.payload.starts_with(b"number") {
                        assert_eq!(
                            record.payload,
                            format!("number{:04}", record.offset).as_bytes()
                        );
                    }
                    record.offset.to_string()
                }
                Item::Gap { from, to, causes } if causes == Cause::Damage.into() => {
                    format!("{from}-{to}!")
                }
                Item::Gap { from, to, causes } => format!("{from}-{to}!{causes}"),
            });
        }
        if batch.caught_up {
            return seen.join(" ");
        }
    }
}

fn numbers(range: std::ops::Range<u64>) -> String {
    range
        .map(|offset| offset.to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

fn segments(dir: &TempDir) -> Vec<PathBuf> {
    segment::list(dir.path())
        .unwrap()
        .into_iter()
        .map(|first| segment::path(dir.path(), first))
        .collect()
}

fn position(index: u64) -> u64 {
    HEADER_BYTES as u64 + index * ENTRY_BYTES
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[tokio::test]
async fn reopening_continues_the_offsets_and_keeps_every_record() {
    let dir = TempDir::new().unwrap();
    for round in 0..5 {
        let journal = open(&dir);
        assert_eq!(journal.next_offset(), round * 50);
        assert_eq!(journal.oldest(), 0);
        fill(&journal, round * 50..(round + 1) * 50).await;
        assert_eq!(
            read(&journal, 0, Filter::default()),
            numbers(0..(round + 1) * 50)
        );
    }
    assert!(segments(&dir).len() > 2, "segments roll");
}

#[tokio::test]
async fn every_start_in_the_middle_gives_the_rest() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    fill(&journal, 0..200).await;
    for from in 0..=200 {
        assert_eq!(
            read(&journal, from, Filter::default()),
            numbers(from..200),
            "index of the writer"
        );
    }
    drop(journal);
    let journal = open(&dir);
    for _ in 0..2 {
        for from in (0..=200).rev() {
            assert_eq!(
                read(&journal, from, Filter::default()),
                numbers(from..200),
                "index of the readers"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appenders_get_every_offset_once_and_share_commits() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let tasks: Vec<_> = (0..32_u32)
        .map(|task| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let mut offsets = Vec::new();
                for number in 0..4_u32 {
                    let mut slot = journal.reserve(500).await.unwrap();
                    for part in 0..5_u32 {
                        slot.push(&entry(format!("{task}/{number}/{part}").as_bytes()))
                            .unwrap();
                    }
                    let first = slot.submit().await.unwrap();
                    offsets.extend(first..first + 5);
                }
                offsets
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        let offsets = task.await.unwrap();
        assert!(
            offsets.is_sorted(),
            "an appender's order is the journal's order"
        );
        all.extend(offsets);
    }
    all.sort_unstable();
    assert_eq!(all, (0..640).collect::<Vec<_>>());
    let stats = journal.commit_stats();
    assert_eq!(stats.records, 640);
    assert_eq!(stats.fsyncs, stats.commits);
    assert!(
        (1..128).contains(&stats.fsyncs),
        "{} syncs for 128 appends",
        stats.fsyncs
    );
    assert_eq!(read(&journal, 0, Filter::default()), numbers(0..640));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_follows_sees_committed_records_only_and_each_once() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let follower = journal.clone();
    let reading = tokio::spawn(async move {
        let mut committed = follower.committed();
        let mut reader = follower.reader(0, Filter::default());
        let mut seen = Vec::new();
        while seen.len() < 300 {
            committed
                .wait_for(|&next| next > reader.position())
                .await
                .unwrap();
            (reader, seen) = tokio::task::spawn_blocking({
                let follower = follower.clone();
                move || {
                    let batch = reader.next_batch(16, 4_096).unwrap();
                    for item in batch.items {
                        let Item::Record(record) = item else {
                            panic!("{item:?}")
                        };
                        assert!(record.offset < follower.next_offset());
                        seen.push(record.offset);
                    }
                    (reader, seen)
                }
            })
            .await
            .unwrap();
        }
        seen
    });
    let tickets: Vec<_> = {
        let mut tickets = Vec::new();
        for offset in 0..300 {
            let payload = format!("number{offset:04}");
            let entry = entry(payload.as_bytes());
            let mut slot = journal.reserve(entry.frame_bytes()).await.unwrap();
            slot.push(&entry).unwrap();
            tickets.push(slot.submit());
        }
        tickets
    };
    for (offset, ticket) in (0..).zip(tickets) {
        assert_eq!(ticket.await, Ok(offset));
    }
    assert_eq!(reading.await.unwrap(), (0..300).collect::<Vec<_>>());
}

#[tokio::test]
async fn filters_give_exactly_what_agrees_with_every_field() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let kinds = [RecordKind::Event, RecordKind::Report, RecordKind::Command];
    let mut written = Vec::new();
    for host in ["a", "b"] {
        for sandbox in [None, Some("x"), Some("y")] {
            for kind in kinds {
                journal
                    .append(Entry {
                        kind,
                        host,
                        sandbox,
                        time_ms: 1,
                        payload: b"p",
                    })
                    .await
                    .unwrap();
                written.push((host, sandbox, kind));
            }
        }
    }
    for host in [None, Some("a"), Some("b"), Some("c")] {
        for sandbox in [None, Some("x"), Some("y")] {
            for kind in [None, Some(kinds[0]), Some(kinds[1]), Some(kinds[2])] {
                let filter = Filter {
                    host: host.map(str::to_owned),
                    sandbox: sandbox.map(str::to_owned),
                    kind,
                };
                let expected: Vec<String> = written
                    .iter()
                    .enumerate()
                    .filter(|(_, (of, about, what))| {
                        host.is_none_or(|host| host == *of)
                            && (sandbox.is_none() || sandbox == *about)
                            && kind.is_none_or(|kind| kind == *what)
                    })
                    .map(|(offset, _)| offset.to_string())
                    .collect();
                assert_eq!(
                    read(&journal, 0, filter.clone()),
                    expected.join(" "),
                    "{filter:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_everything_before_it_survives() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..10).await;
    let path = segments(&dir).pop().unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in position(9) + 1..position(10) {
        std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
        let journal = open(&dir);
        assert_eq!(
            read(&journal, 0, Filter::default()),
            numbers(0..9),
            "cut at {cut}"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), position(9));
    }
    fill(&open(&dir), 9..12).await;
    assert_eq!(read(&open(&dir), 0, Filter::default()), numbers(0..12));
    let torn = std::fs::read_dir(dir.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|extension| extension == "torn")
    });
    assert_eq!(
        torn.count() as u64,
        ENTRY_BYTES - 1,
        "each cut tail is kept beside"
    );
}

#[tokio::test]
async fn whatever_prefix_of_the_writes_a_crash_leaves_its_whole_records_are_there_and_writing_goes_on()
 {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..10).await;
    let path = segments(&dir).pop().unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in (0..=whole.len() as u64).step_by(13) {
        std::fs::write(&path, &whole[..usize::try_from(cut).unwrap()]).unwrap();
        let left = cut.saturating_sub(HEADER_BYTES as u64) / ENTRY_BYTES;
        let journal = open(&dir);
        assert_eq!(
            read(&journal, 0, Filter::default()),
            numbers(0..left),
            "cut at {cut}"
        );
        fill(&journal, left..left + 2).await;
        drop(journal);
        assert_eq!(
            read(&open(&dir), 0, Filter::default()),
            numbers(0..left + 2),
            "cut at {cut}"
        );
    }
}

#[tokio::test]
async fn sectors_that_were_never_written_are_a_torn_tail() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    fill(&journal, 0..3).await;
    journal.append(entry(&[7; 1_500])).await.unwrap();
    drop(journal);
    let path = segments(&dir).pop().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 512], 1_024).unwrap();
    let journal = open(&dir);
    assert_eq!(read(&journal, 0, Filter::default()), numbers(0..3));
    assert_eq!(segments(&dir).len(), 1);
}

#[tokio::test]
async fn a_segment_whose_making_was_cut_short_is_made_again() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..5).await;
    for bytes in 0..=HEADER_BYTES {
        std::fs::write(
            segment::path(dir.path(), 5),
            &journal::encode_header(5)[..bytes],
        )
        .unwrap();
        assert_eq!(open(&dir).next_offset(), 5);
    }
    fill(&open(&dir), 5..8).await;
    assert_eq!(read(&open(&dir), 0, Filter::default()), numbers(0..8));
}

#[tokio::test]
async fn every_flipped_bit_of_an_old_segment_is_a_gap_and_nothing_is_deleted() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..120).await;
    let firsts = segment::list(dir.path()).unwrap();
    let (old, next) = (segments(&dir)[0].clone(), firsts[1]);
    let whole = std::fs::read(&old).unwrap();
    for at in (0..whole.len() as u64).step_by(37) {
        flip(&old, at);
        let damaged = std::fs::read(&old).unwrap();
        let lost = at
            .checked_sub(HEADER_BYTES as u64)
            .map_or(0, |at| at / ENTRY_BYTES);
        let journal = open(&dir);
        let seen = read(&journal, 0, Filter::default());
        let expected = format!("{} {lost}-{next}! {}", numbers(0..lost), numbers(next..120));
        assert_eq!(seen, expected.trim_start(), "byte {at}");
        assert_eq!(read(&journal, next, Filter::default()), numbers(next..120));
        assert_eq!(std::fs::read(&old).unwrap(), damaged);
        flip(&old, at);
    }
    assert_eq!(read(&open(&dir), 0, Filter::default()), numbers(0..120));
}

#[tokio::test]
async fn an_intact_record_in_the_wrong_place_is_a_gap() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..120).await;
    let next = segment::list(dir.path()).unwrap()[1];
    let path = &segments(&dir)[0];
    let mut bytes = std::fs::read(path).unwrap();
    let at = |index| usize::try_from(position(index)).unwrap();
    bytes.copy_within(at(3)..at(4), at(5));
    std::fs::write(path, bytes).unwrap();
    let expected = format!("{} 5-{next}! {}", numbers(0..5), numbers(next..120));
    assert_eq!(read(&open(&dir), 0, Filter::default()), expected);
}

#[tokio::test]
async fn damage_in_the_middle_of_the_last_segment_is_a_gap_and_writing_goes_on_after_it() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..10).await;
    let path = segments(&dir).pop().unwrap();
    flip(&path, position(4) + 30);
    let damaged = std::fs::read(&path).unwrap();
    let journal = open(&dir);
    assert_eq!(journal.next_offset(), 10);
    fill(&journal, 10..15).await;
    drop(journal);
    let journal = open(&dir);
    assert_eq!(
        read(&journal, 0, Filter::default()),
        format!("{} 4-10! {}", numbers(0..4), numbers(10..15))
    );
    assert_eq!(
        read(&journal, 7, Filter::default()),
        format!("7-10! {}", numbers(10..15))
    );
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
}

#[tokio::test]
async fn the_last_record_damaged_is_kept_and_its_offset_is_not_given_again() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..10).await;
    let path = segments(&dir).pop().unwrap();
    flip(&path, position(9) + 30);
    let damaged = std::fs::read(&path).unwrap();
    let journal = open(&dir);
    let next = journal.next_offset();
    assert!(next >= 10, "{next}");
    fill(&journal, next..next + 1).await;
    assert_eq!(
        read(&journal, 0, Filter::default()),
        format!("{} 9-{next}! {next}", numbers(0..9))
    );
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
}

#[tokio::test]
async fn damage_while_open_costs_no_more_than_the_distance_of_two_marks() {
    let dir = TempDir::new().unwrap();
    let sizes = Sizes {
        segment_bytes: 1_000_000,
        mark_bytes: 500,
        kept_bytes: None,
    };
    let journal = Journal::open_sized(dir.path(), Durability::Os, sizes).unwrap();
    fill(&journal, 0..100).await;
    flip(&segments(&dir)[0], position(50) + 30);
    let seen = read(&journal, 0, Filter::default());
    let (before, after) = seen.split_once("! ").unwrap();
    let resumed: u64 = before.rsplit_once('-').unwrap().1.parse().unwrap();
    assert!((51..62).contains(&resumed), "{seen}");
    assert_eq!(before, format!("{} 50-{resumed}", numbers(0..50)));
    assert_eq!(after, numbers(resumed..100));
    fill(&journal, 100..110).await;
    assert_eq!(read(&journal, 100, Filter::default()), numbers(100..110));
}

#[tokio::test]
async fn a_failed_write_ends_the_journal_for_good() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..3).await;
    let mut recovered = recover::recover(dir.path(), SMALL).unwrap();
    recovered.active.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let journal = Journal::launch(recovered, Durability::Fsync, SMALL).unwrap();
    let waiting = journal.reserve(100).await.unwrap();
    assert_eq!(
        journal.append(entry(b"lost")).await,
        Err(AppendError::Failed)
    );
    journal.failed().await;
    assert_eq!(waiting.submit().await, Err(AppendError::Failed));
    assert_eq!(
        journal.append(entry(b"lost")).await,
        Err(AppendError::Failed)
    );
    assert_eq!(journal.reserve(1).await.unwrap_err(), AppendError::Failed);
    assert_eq!(journal.commit_stats().records, 0);
    assert_eq!(
        read(&journal, 0, Filter::default()),
        numbers(0..3),
        "what was committed can still be read"
    );
    drop(journal);
    fill(&open(&dir), 3..4).await;
}

#[tokio::test]
async fn a_second_opener_is_refused_with_a_reason() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let error = Journal::open(dir.path(), Durability::Fsync).unwrap_err();
    assert!(
        format!("{error:#}").contains("another process is using it"),
        "{error:#}"
    );
    drop(journal);
    open(&dir);
}

#[tokio::test]
async fn a_full_queue_makes_appenders_wait_and_a_barrier_waits_for_what_came_before() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let mut slots = Vec::new();
    while let Ok(slot) = tokio::time::timeout(
        std::time::Duration::ZERO,
        journal.reserve(RESERVE_BYTES_MAX),
    )
    .await
    {
        slots.push(slot.unwrap());
    }
    assert_eq!(
        slots.len(),
        QUEUE_BYTES_MAX / (RESERVE_BYTES_MAX + JOB_BYTES)
    );
    let mut slot = slots.pop().unwrap();
    slot.push(&entry(b"one")).unwrap();
    let (one, barrier) = (slot.submit(), slots.pop().unwrap().submit());
    assert_eq!(barrier.await, Ok(1));
    assert_eq!(journal.next_offset(), 1);
    assert_eq!(one.await, Ok(0));
    drop(slots);
    fill(&journal, 1..3).await;
}

#[tokio::test]
async fn entries_beyond_a_limit_are_refused_and_harm_nothing() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let long = vec![0; PAYLOAD_BYTES_MAX + 1];
    assert_eq!(
        journal.append(entry(&long)).await,
        Err(AppendError::Invalid(EncodeError::PayloadTooLong))
    );
    assert_eq!(journal.append(entry(&long[1..])).await, Ok(0));
    assert_eq!(
        journal.reserve(RESERVE_BYTES_MAX + 1).await.unwrap_err(),
        AppendError::TooLarge
    );
    let mut slot = journal.reserve(60).await.unwrap();
    slot.push(&entry(b"fits")).unwrap();
    assert_eq!(slot.push(&entry(b"does not")), Err(AppendError::TooLarge));
    assert_eq!(slot.submit().await, Ok(1));
}
