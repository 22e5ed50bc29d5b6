//! Where a time stands in the journal.
//!
//! Offsets are what counts; times are a way to find one. A segment's first record tells when it begins, and so does a place that the index
//! has: of these the last that begins before the time is looked up by halving, and only from there on records are read. So what is found is
//! the first record behind that place that came at that time or later. The broker shows no time that lies before one it has shown, so
//! this is the first of all, but for records that came within the same moment.

use super::{Filter, Item, Journal};

/// Records and bytes of payload that are looked at together.
const LOOK_RECORDS: usize = 1024;
/// See [`LOOK_RECORDS`].
const LOOK_BYTES: usize = 256 * 1024;

impl Journal {
    /// The first offset that came at `time_ms` (since 1970) or later; the next one, if there is none yet. Blocks on the disk.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn offset_since(&self, time_ms: u64) -> anyhow::Result<u64> {
        let catalog = &self.inner.catalog;
        let segment = self.last_before(&catalog.segments(), time_ms)?;
        let Some(segment) = segment else {
            return Ok(catalog.oldest());
        };
        let marks = catalog.marks(segment);
        let start = self.last_before(&marks, time_ms)?.unwrap_or(segment);
        let mut reader = self.reader(start, Filter::default());
        loop {
            let batch = reader.next_batch(LOOK_RECORDS, LOOK_BYTES)?;
            let found = batch.items.iter().find_map(|item| match item {
                Item::Record(record) if record.time_ms >= time_ms => Some(record.offset),
                Item::Record(_) | Item::Gap { .. } => None,
            });
            if let Some(found) = found {
                return Ok(found);
            }
            if batch.caught_up {
                return Ok(batch.next);
            }
        }
    }

    /// The last of these places whose first record came before `time_ms`.
    fn last_before(&self, places: &[u64], time_ms: u64) -> anyhow::Result<Option<u64>> {
        let (mut low, mut high) = (0, places.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(place) = places.get(middle) else {
                break;
            };
            if self.begins_before(*place, time_ms)? {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.checked_sub(1).and_then(|at| places.get(at)).copied())
    }

    /// Whether the first record at or behind `offset` came before `time_ms`.
    fn begins_before(&self, offset: u64, time_ms: u64) -> anyhow::Result<bool> {
        let mut reader = self.reader(offset, Filter::default());
        loop {
            let batch = reader.next_batch(1, 1)?;
            for item in batch.items {
                if let Item::Record(record) = item {
                    return Ok(record.time_ms < time_ms);
                }
            }
            if batch.caught_up {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Durability, Sizes};
    use super::*;
    use crate::core::journal::{Entry, RecordKind};
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    /// Some ten records for each segment, some three for each place in its index.
    const SMALL: Sizes = Sizes {
        segment_bytes: 600,
        mark_bytes: 200,
        kept_bytes: None,
    };

    fn open(dir: &Path) -> Journal {
        Journal::open_sized(dir, Durability::Os, SMALL).unwrap()
    }

    async fn append(journal: &Journal, time_ms: u64) {
        let entry = Entry {
            kind: RecordKind::Event,
            host: "edge-1",
            sandbox: None,
            time_ms,
            payload: b"some bytes of a record",
        };
        journal.append(entry).await.unwrap();
    }

    #[tokio::test]
    async fn of_every_time_the_first_record_that_came_then_or_later_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        assert_eq!(journal.offset_since(5).unwrap(), 0, "an empty journal");
        // Three came at each time, and nothing at odd ones.
        let times: Vec<u64> = (0..100).map(|number| 10 + number / 3 * 2).collect();
        for time in &times {
            append(&journal, *time).await;
        }
        let all_are_found = |journal: &Journal| {
            for time in 0..100 {
                let expected = times.iter().take_while(|came| **came < time).count();
                let found = journal.offset_since(time).unwrap();
                assert_eq!(found, expected as u64, "{time}");
            }
        };
        let (segments, places) = {
            let catalog = &journal.inner.catalog;
            let segments = catalog.segments();
            let places: usize = segments.iter().map(|one| catalog.marks(*one).len()).sum();
            (segments.len(), places)
        };
        assert!(segments > 5 && places > 5, "{segments} {places}");
        all_are_found(&journal);
        drop(journal);
        // Whoever opened it has the index of the last segment alone.
        all_are_found(&open(dir.path()));
    }

    #[tokio::test]
    async fn after_a_clock_that_went_back_what_is_found_came_then_or_later() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        let times: Vec<u64> = (0..40).chain(20..60).collect();
        for time in &times {
            append(&journal, *time).await;
        }
        for time in 0..60 {
            let found = usize::try_from(journal.offset_since(time).unwrap()).unwrap();
            assert!(times[found] >= time, "{time}");
            // And whoever reads on from there has all that came then or later since the clock went back.
            let last = times.iter().rposition(|came| *came < time);
            assert!(last.is_none_or(|last| found <= last + 1), "{time}");
        }
        assert_eq!(journal.offset_since(60).unwrap(), 80);
    }

    #[tokio::test]
    async fn a_damaged_record_does_not_hide_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path());
        for time in 0..40 {
            append(&journal, time).await;
        }
        let first = journal.inner.catalog.segments()[1];
        let path = super::super::segment::path(dir.path(), first);
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0xFF], 40).unwrap();
        for time in 0..40 {
            let found = journal.offset_since(time).unwrap();
            assert!(found >= time, "{time}");
            assert!(found == time || found > first, "{time} {found}");
        }
    }
}
