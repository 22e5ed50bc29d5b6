//! What is prepared at the end of the last segment, and not written yet.

use super::*;

/// The segments as a kill leaves them, in a directory of their own.
fn killed(dir: &TempDir) -> TempDir {
    let copy = TempDir::new().unwrap();
    for path in segments(dir) {
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    copy
}

fn last(dir: &TempDir) -> PathBuf {
    segments(dir).pop().unwrap()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

fn has_torn(dir: &TempDir) -> bool {
    let names = std::fs::read_dir(dir.path()).unwrap();
    names.map(|entry| entry.unwrap().path()).any(|path| {
        path.extension()
            .is_some_and(|extension| extension == "torn")
    })
}

#[tokio::test]
async fn zeros_behind_the_last_record_are_no_record_no_damage_and_no_torn_tail() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    fill(&journal, 0..10).await;
    assert!(length(&last(&dir)) > position(10), "something is prepared");
    let copy = killed(&dir);
    for round in 0..3 {
        let end = 10 + round * 5;
        let again = open(&copy);
        assert_eq!(read(&again, 0, Filter::default()), numbers(0..end));
        fill(&again, end..end + 5).await;
        drop(again);
        assert!(!has_torn(&copy));
        assert_eq!(
            length(&last(&copy)),
            position(end + 5),
            "closed, it ends with its last record"
        );
    }
}

#[tokio::test]
async fn a_sealed_segment_ends_with_its_last_record_and_without_syncs_nothing_is_prepared() {
    for durability in [Durability::Fsync, Durability::Os] {
        let dir = TempDir::new().unwrap();
        let journal = Journal::open_sized(dir.path(), durability, SMALL).unwrap();
        fill(&journal, 0..200).await;
        let firsts = segment::list(dir.path()).unwrap();
        for (pair, path) in firsts.windows(2).zip(segments(&dir)) {
            assert_eq!(length(&path), position(pair[1] - pair[0]));
        }
        let written = position(200 - firsts.last().unwrap());
        let is_prepared = length(&last(&dir)) > written;
        assert_eq!(is_prepared, durability == Durability::Fsync);
    }
}

#[tokio::test]
async fn a_write_that_stopped_at_any_sector_in_front_of_zeros_is_a_torn_tail() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    fill(&journal, 0..5).await;
    journal.append(entry(&[7; 3_000])).await.unwrap();
    let end = position(5) + ENTRY_BYTES + 3_000 - 10;
    for sector in (1..).map(|sector| sector * 512).take_while(|at| *at < end) {
        let copy = killed(&dir);
        let file = OpenOptions::new().write(true).open(last(&copy)).unwrap();
        let from = sector.max(position(5));
        let zeros = vec![0; usize::try_from(end - from).unwrap()];
        file.write_all_at(&zeros, from).unwrap();
        let again = open(&copy);
        assert_eq!(
            read(&again, 0, Filter::default()),
            numbers(0..5),
            "sector at {sector}"
        );
        assert_eq!(has_torn(&copy), from > position(5), "sector at {sector}");
        fill(&again, 5..7).await;
        drop(again);
        assert_eq!(read(&open(&copy), 0, Filter::default()), numbers(0..7));
    }
}

#[tokio::test]
async fn a_last_record_that_changed_in_front_of_zeros_is_damage_and_stays_where_it_is() {
    let dir = TempDir::new().unwrap();
    let journal = open(&dir);
    fill(&journal, 0..10).await;
    for at in position(9) + 8..position(10) {
        let copy = killed(&dir);
        flip(&last(&copy), at);
        let damaged = std::fs::read(last(&copy)).unwrap();
        let again = open(&copy);
        let next = again.next_offset();
        assert!((10..20).contains(&next), "byte {at}: {next}");
        let expected = format!("{} 9-{next}!", numbers(0..9));
        assert_eq!(read(&again, 0, Filter::default()), expected, "byte {at}");
        fill(&again, next..next + 2).await;
        assert_eq!(std::fs::read(&segments(&copy)[0]).unwrap(), damaged);
        assert!(!has_torn(&copy));
    }
}
