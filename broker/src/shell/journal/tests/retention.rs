//! Tests of retention: what goes, what readers see of it, and what a crash may leave.

use super::*;
use crate::core::journal::removed::Count;
use crate::core::retention::Limits;
use std::collections::BTreeMap;

/// The bytes of a record of [`put`].
const RECORD_BYTES: u64 = 8 + 20 + 1 + 100;

/// Of a host whose name is one letter, accepted at its offset.
async fn put(journal: &Journal, host: &str) -> u64 {
    let time_ms = journal.next_offset();
    let entry = Entry {
        kind: RecordKind::Event,
        host,
        sandbox: None,
        time_ms,
        payload: &[7; 100],
    };
    journal.append(entry).await.unwrap()
}

/// One record each, and then the next segment.
async fn put_segment(journal: &Journal, hosts: &str) {
    for host in hosts.split("") {
        if !host.is_empty() {
            put(journal, host).await;
        }
    }
    journal.roll().await.unwrap();
}

fn order(limits: Limits, now_ms: u64) -> Order {
    Order {
        limits,
        now_ms,
        floor: u64::MAX,
        needed: BTreeMap::new(),
    }
}

fn age(age_ms: u64) -> Limits {
    Limits {
        age_ms: Some(age_ms),
        ..Limits::default()
    }
}

fn host_records(records: u64) -> Limits {
    Limits {
        host_bytes: Some(records * RECORD_BYTES),
        ..Limits::default()
    }
}

/// What went, as `a:age:0-3:2`, after the ledger was told the same.
fn retain(journal: &Journal, order: &Order) -> String {
    let mut told = Vec::new();
    let mut ledger = |gone: &[Gone]| {
        told.extend_from_slice(gone);
        Ok(())
    };
    let gone = journal.retain(order, &mut ledger).unwrap();
    assert_eq!(gone, told);
    let words = gone.iter().map(|gone| {
        let Gone {
            host,
            cause,
            from,
            to,
            count,
            ..
        } = gone;
        format!("{host}:{cause}:{from}-{to}:{}", count.records)
    });
    words.collect::<Vec<_>>().join(" ")
}

fn all(journal: &Journal) -> String {
    read(journal, 0, Filter::default())
}

fn of(host: &str) -> Filter {
    Filter {
        host: Some(host.to_owned()),
        ..Filter::default()
    }
}

fn files(dir: &TempDir, extension: &str) -> usize {
    let names = std::fs::read_dir(dir.path()).unwrap();
    let paths = names.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .count()
}

#[tokio::test]
async fn what_is_too_old_goes_and_readers_are_told_so_before_and_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    for _ in 0..4 {
        put_segment(&journal, "ab").await;
    }
    assert_eq!(
        retain(&journal, &order(age(5), 8)),
        "a:age:0-1:1 b:age:1-2:1"
    );
    assert_eq!(all(&journal), "0-2!age 2 3 4 5 6 7");
    assert_eq!(journal.oldest(), 2);
    assert_eq!(
        retain(&journal, &order(age(5), 8)),
        "",
        "there is nothing more to do"
    );
    assert_eq!(
        retain(&journal, &order(age(5), 11)),
        "a:age:2-5:2 b:age:3-6:2"
    );
    for _ in 0..2 {
        assert_eq!(all(&journal), "0-6!age 6 7");
        assert_eq!(read(&journal, 4, Filter::default()), "4-6!age 6 7");
    }
    drop(journal);
    let journal = open(&dir);
    assert_eq!(all(&journal), "0-6!age 6 7");
    assert_eq!(journal.oldest(), 6);
    assert_eq!(put(&journal, "a").await, 8);
    assert_eq!(files(&dir, "seg"), 2, "one stands for all that went");
}

#[tokio::test]
async fn a_host_with_too_much_loses_its_oldest_and_others_do_not_notice() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    for _ in 0..5 {
        put_segment(&journal, "aba").await;
    }
    assert_eq!(
        retain(&journal, &order(host_records(6), 20)),
        "a:host:0-9:6"
    );
    for journal in [journal.clone(), journal] {
        assert_eq!(
            all(&journal),
            "0-1!host 1 2-4!host 4 5-7!host 7 8-9!host 9 10 11 12 13 14"
        );
        assert_eq!(read(&journal, 0, of("b")), "1 4 7 10 13");
        assert_eq!(read(&journal, 0, of("a")), "0-9!host 9 11 12 14");
        for from in 0..15 {
            let seen = read(&journal, from, of("b"));
            assert!("1 4 7 10 13".ends_with(&seen), "from {from}: {seen}");
        }
    }
}

#[tokio::test]
async fn a_needed_record_stays_where_everything_around_it_goes() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    put_segment(&journal, "aaa").await;
    put_segment(&journal, "aaa").await;
    let mut order = order(age(1), 100);
    order.needed = BTreeMap::from([(1, "a".to_owned())]);
    assert_eq!(retain(&journal, &order), "a:age:0-6:5");
    assert_eq!(all(&journal), "0-1!age 1 2-6!age");
    assert_eq!(journal.oldest(), 1);
    assert_eq!(retain(&journal, &order), "");
    order.needed.clear();
    assert_eq!(retain(&journal, &order), "a:age:1-2:1");
    assert_eq!(all(&journal), "0-6!age");
}

#[tokio::test]
async fn nothing_at_or_past_the_floor_goes() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    put_segment(&journal, "aa").await;
    put_segment(&journal, "aa").await;
    for (floor, left) in [
        (0, "0 1 2 3"),
        (1, "0 1 2 3"),
        (3, "0-2!age 2 3"),
        (4, "0-4!age"),
    ] {
        let order = Order {
            floor,
            ..order(age(1), 100)
        };
        retain(&journal, &order);
        assert_eq!(all(&journal), left, "floor {floor}");
    }
}

#[tokio::test]
async fn the_segment_that_is_written_stays_until_it_is_rolled() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    assert_eq!(journal.active_since().unwrap(), None);
    put(&journal, "a").await;
    put(&journal, "a").await;
    assert_eq!(journal.active_since().unwrap(), Some(0));
    assert_eq!(retain(&journal, &order(age(1), 100)), "");
    journal.roll().await.unwrap();
    journal.roll().await.unwrap();
    assert_eq!(
        journal.size().0,
        2,
        "an empty one is not followed by another"
    );
    assert_eq!(retain(&journal, &order(age(1), 100)), "a:age:0-2:2");
    assert_eq!((all(&journal), journal.oldest()), ("0-2!age".to_owned(), 2));
    drop(journal);
    let journal = open(&dir);
    assert_eq!((journal.oldest(), journal.next_offset()), (2, 2));
    assert_eq!(put(&journal, "a").await, 2);
}

#[tokio::test]
async fn a_damaged_segment_is_left_alone_until_all_of_it_is_too_old() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    put_segment(&journal, "aba").await;
    put_segment(&journal, "aba").await;
    let path = &segments(&dir)[0];
    flip(path, HEADER_BYTES as u64 + RECORD_BYTES + 40);
    let whole = std::fs::read(path).unwrap();
    assert_eq!(
        retain(&journal, &order(host_records(1), 10)),
        "a:host:3-6:2"
    );
    assert_eq!(
        std::fs::read(path).unwrap(),
        whole,
        "nothing goes because it is damaged"
    );
    assert_eq!(all(&journal), "0 1-4!damage,host 4 5-6!host");
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(
        retain(&journal, &order(age(1), 10)),
        ":damage:1-3:0 a:age:0-1:1 b:age:4-5:1"
    );
    assert_eq!(all(&journal), "0-6!damage,age,host");
}

#[tokio::test]
async fn a_segment_that_goes_bad_after_it_was_summed_up_stays_and_the_others_go_on() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    for _ in 0..3 {
        put_segment(&journal, &"ab".repeat(10)).await;
    }
    retain(&journal, &order(Limits::default(), 60));
    flip(&segments(&dir)[1], HEADER_BYTES as u64 + 40);
    assert_eq!(retain(&journal, &order(host_records(1), 60)), "");
    let gone = retain(&journal, &order(host_records(1), 60));
    assert!(
        gone.starts_with("a:host:0-19:10 b:host:1-20:10 a:host:40-"),
        "{gone}"
    );
    assert_eq!(files(&dir, "tmp"), 0);
    let left = format!("0-28!damage,host {} 40-60!host", numbers(28..40));
    assert_eq!(all(&journal), left);
}

#[tokio::test]
async fn a_crash_at_any_step_of_a_round_leaves_the_old_or_the_new() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    for _ in 0..3 {
        put_segment(&journal, "ab").await;
    }
    let (old, before) = (copy(&dir), all(&journal));
    assert_eq!(
        retain(&journal, &order(age(1), 5)),
        "a:age:0-3:2 b:age:1-4:2"
    );
    let after = all(&journal);
    drop(journal);
    let new = copy(&dir);
    let stands_for_all = segment::path(Path::new(""), 0);
    let replaced = segment::path(Path::new(""), 2);
    let tmp = segment::beside(Path::new(""), 0, segment::UNFINISHED);
    for cut in (0..=new[&stands_for_all].len()).step_by(11) {
        let mut files = old.clone();
        files.insert(tmp.clone(), new[&stands_for_all][..cut].to_vec());
        assert_eq!(reopened(&files), (before.clone(), 4), "cut at {cut}");
    }
    // Renamed, with what it stands for still there; and with some of that gone.
    let mut files = old;
    files.insert(stands_for_all.clone(), new[&stands_for_all].clone());
    assert_eq!(reopened(&files), (after.clone(), 2));
    files.remove(&replaced);
    assert_eq!(reopened(&files), (after.clone(), 2));
    assert_eq!(reopened(&new), (after, 2));
}

/// Every file of a journal, by name.
fn copy(dir: &TempDir) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = std::fs::read_dir(dir.path()).unwrap();
    names
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (
                path.file_name().unwrap().into(),
                std::fs::read(path).unwrap(),
            )
        })
        .collect()
}

/// What a journal of these files holds, and in how many segments. A round leaves it so.
fn reopened(files: &BTreeMap<PathBuf, Vec<u8>>) -> (String, usize) {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let journal = open(&dir);
    let held = all(&journal);
    assert_eq!(self::files(&dir, "tmp"), 0);
    assert_eq!(retain(&journal, &order(Limits::default(), 5)), "");
    assert_eq!(all(&journal), held);
    (held, journal.size().0)
}

#[tokio::test]
async fn a_ledger_that_fails_leaves_everything_as_it_was() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    put_segment(&journal, "ab").await;
    let refused = journal.retain(&order(age(1), 100), &mut |_| anyhow::bail!("disk full"));
    assert!(format!("{:#}", refused.unwrap_err()).contains("disk full"));
    assert_eq!((all(&journal), files(&dir, "tmp")), ("0 1".to_owned(), 0));
    assert_eq!(
        retain(&journal, &order(age(1), 100)),
        "a:age:0-1:1 b:age:1-2:1"
    );
}

#[tokio::test]
async fn summaries_are_found_again_and_a_bad_one_is_made_anew() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    put_segment(&journal, "aba").await;
    put(&journal, "c").await;
    let first = journal.inventory().unwrap();
    let count = |records| Count {
        records,
        bytes: records * RECORD_BYTES,
    };
    let expected = [("a", count(2)), ("b", count(1)), ("c", count(1))];
    assert_eq!(
        first.hosts,
        expected
            .map(|(host, count)| (host.to_owned(), count))
            .into()
    );
    let times: Vec<_> = first
        .segments
        .iter()
        .map(|kept| {
            (
                kept.first,
                kept.end,
                kept.records,
                kept.first_ms,
                kept.last_ms,
            )
        })
        .collect();
    assert_eq!(
        times,
        [(0, 3, 3, Some(0), Some(2)), (3, 4, 1, Some(3), Some(3))]
    );
    let path = segment::beside(dir.path(), 0, segment::SUMMARY);
    let text = std::fs::read_to_string(&path).unwrap();
    for bad in [&text[..20], &text.replace("[2,", "[9,"), "", "ffffffff{}"] {
        std::fs::write(&path, bad).unwrap();
        assert_eq!(journal.inventory().unwrap().hosts, first.hosts, "{bad:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}

#[tokio::test]
async fn small_leftovers_become_one_segment() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    for _ in 0..3 {
        put_segment(&journal, &format!("{}b", "a".repeat(9))).await;
    }
    put_segment(&journal, &"a".repeat(30)).await;
    retain(&journal, &order(host_records(33), 100));
    assert_eq!(journal.size().0, 3);
    assert_eq!(read(&journal, 0, of("b")), "9 19 29");
    assert_eq!(retain(&journal, &order(host_records(33), 100)), "");
    drop(journal);
    assert_eq!(read(&open(&dir), 10, of("b")), "19 29");
}

/// Readers hold files open while these are rewritten under them, start anywhere, and never see a record twice, out of order, or missing
/// without being told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_appenders_go_on_while_segments_are_rewritten_under_them() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    let appending = tokio::spawn({
        let journal = journal.clone();
        async move {
            for number in 0..1_500_u32 {
                put(&journal, ["a", "b", "c"][number as usize % 3]).await;
            }
        }
    });
    let readers: Vec<_> = (0..3)
        .map(|_| {
            tokio::task::spawn_blocking({
                let journal = journal.clone();
                move || {
                    let mut reader = journal.reader(0, Filter::default());
                    let mut owed = 0;
                    while owed < 1_500 {
                        for item in reader.next_batch(5, 1_000).unwrap().items {
                            let (from, to) = match item {
                                Item::Record(record) => (record.offset, record.offset + 1),
                                Item::Gap { from, to, causes } => {
                                    assert!(causes.is_willed(), "{from}-{to} {causes}");
                                    (from, to)
                                }
                            };
                            assert_eq!(from, owed);
                            owed = to;
                        }
                    }
                }
            })
        })
        .collect();
    while !appending.is_finished() {
        let next = journal.next_offset();
        let limits = Limits {
            age_ms: Some(400),
            bytes: Some(300 * RECORD_BYTES),
            host_bytes: Some(60 * RECORD_BYTES),
        };
        let retaining = journal.clone();
        let order = order(limits, next);
        tokio::task::spawn_blocking(move || retaining.retain(&order, &mut |_| Ok(())).map(drop))
            .await
            .unwrap()
            .unwrap();
    }
    appending.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
    let limits = host_records(60);
    retain(&journal, &order(limits, 1_500));
    assert!(
        journal
            .inventory()
            .unwrap()
            .hosts
            .values()
            .all(|count| count.records <= 60 + 12)
    );
}

#[tokio::test]
async fn a_purged_event_keeps_its_head_its_place_and_nothing_of_its_body_anywhere() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    for host in ["a", "b", "a"] {
        let entry = Entry {
            kind: RecordKind::Event,
            host,
            sandbox: Some("s"),
            time_ms: 9,
            payload: b"HEADsecret",
        };
        journal.append(entry).await.unwrap();
    }
    put(&journal, "a").await;
    journal.roll().await.unwrap();
    put_segment(&journal, "b").await;
    let untouched = std::fs::read(&segments(&dir)[1]).unwrap();
    let mut decide = |record: &journal::Record<'_>| match record.offset {
        0 => Fate::Purge(4),
        2 => Fate::Remove(Cause::Purge),
        _ => Fate::Keep,
    };
    let mut purge = || {
        let end = journal.next_offset();
        let purged = journal
            .purge("a", end, &mut decide, &mut |_| Ok(()))
            .unwrap();
        let gone = purged.gone.iter();
        let gone = gone.map(|gone| {
            (
                gone.host.as_str(),
                gone.cause,
                gone.from..gone.to,
                gone.count.records,
            )
        });
        assert_eq!(gone.collect::<Vec<_>>(), [("a", Cause::Purge, 0..3, 2)]);
        assert_eq!(purged.damaged, []);
    };
    purge();
    let bytes = std::fs::read(&segments(&dir)[0]).unwrap();
    let places = |text: &[u8]| {
        bytes
            .windows(text.len())
            .filter(|window| *window == text)
            .count()
    };
    assert_eq!(
        (places(b"secret"), places(b"HEAD")),
        (1, 2),
        "b has its own"
    );
    assert_eq!(std::fs::read(&segments(&dir)[1]).unwrap(), untouched);
    assert_eq!(all(&journal), "0 1 2-3!purge 3 4");
    drop(journal);
    let journal = open(&dir);
    assert_eq!(all(&journal), "0 1 2-3!purge 3 4");
    let batch = journal.reader(0, of("a")).next_batch(1, 1_000).unwrap();
    let Some(Item::Record(record)) = batch.items.first() else {
        panic!("{batch:?}")
    };
    let shown = (
        record.kind,
        record.sandbox.as_deref(),
        record.time_ms,
        record.payload.as_slice(),
    );
    assert_eq!(shown, (RecordKind::Event, Some("s"), 9, &b"HEAD"[..]));
    assert!(record.is_purged);
    assert_eq!(
        retain(&journal, &order(age(1), 100)),
        "a:age:0-4:2 b:age:1-5:2"
    );
}

#[tokio::test]
async fn removed_segments_are_a_gap_before_the_oldest() {
    let dir = TempDir::new().unwrap();
    fill(&open(&dir), 0..200).await;
    let firsts = segment::list(dir.path()).unwrap();
    std::fs::remove_file(segment::path(dir.path(), firsts[0])).unwrap();
    let journal = open(&dir);
    assert_eq!(journal.oldest(), firsts[1]);
    assert_eq!(
        read(&journal, 0, Filter::default()),
        format!("0-{}! {}", firsts[1], numbers(firsts[1]..200))
    );
}
