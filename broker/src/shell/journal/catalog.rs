//! What is committed, and where: the one thing that the writer and the readers share.

use super::segment;
use crate::core::journal::HEADER_BYTES;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// A record whose place is known for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: u64,
    pub(super) position: u64,
}

/// Where to look for an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The segment, by its first offset.
    pub(super) first: u64,
    /// A record at or before the offset. `None`: start at the segment's first.
    pub(super) mark: Option<Mark>,
    /// The segment's committed bytes.
    pub(super) end_bytes: u64,
    /// The first offset that the segment does not hold.
    pub(super) end_offset: u64,
}

#[derive(Debug)]
struct Segment {
    /// Its committed bytes, header included.
    end_bytes: u64,
    /// A sparse index, ascending: at most one mark per `mark_bytes`.
    marks: Vec<Mark>,
}

/// All segments, and how far they are committed.
#[derive(Debug)]
pub(super) struct Catalog {
    dir: PathBuf,
    /// The least distance of two marks. At 1 MiB a journal of 100 GB has an index of 1.6 MB, and starting in the middle
    /// reads less than a millisecond's worth of records too many.
    mark_bytes: u64,
    /// By first offset. Never empty once the journal is open.
    segments: Mutex<BTreeMap<u64, Segment>>,
    committed: watch::Sender<u64>,
}

impl Catalog {
    pub(super) fn new(dir: &Path, mark_bytes: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            mark_bytes,
            segments: Mutex::new(BTreeMap::new()),
            committed: watch::Sender::new(0),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The least distance of two marks, in bytes.
    pub(super) const fn mark_bytes(&self) -> u64 {
        self.mark_bytes
    }

    /// The next offset to be committed, and news of it.
    pub(super) fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// The next offset to be committed.
    pub(super) fn next(&self) -> u64 {
        *self.committed.borrow()
    }

    /// The first offset that is still there.
    pub(super) fn oldest(&self) -> u64 {
        self.lock().keys().next().copied().unwrap_or_default()
    }

    /// The first offsets of all segments, ascending.
    pub(super) fn segments(&self) -> Vec<u64> {
        self.lock().keys().copied().collect()
    }

    /// The offsets of the index in the segment `first`, ascending.
    pub(super) fn marks(&self, first: u64) -> Vec<u64> {
        let segments = self.lock();
        let marks = segments.get(&first).map(|segment| &segment.marks);
        marks
            .into_iter()
            .flatten()
            .map(|mark| mark.offset)
            .collect()
    }

    /// There is a segment, with this much in it.
    pub(super) fn add(&self, first: u64, end_bytes: u64) {
        self.lock().insert(
            first,
            Segment {
                end_bytes,
                marks: Vec::new(),
            },
        );
    }

    /// The bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().values().map(|segment| segment.end_bytes).sum()
    }

    /// Forgets the oldest segment, and gives its first offset; never the last one, which is written.
    pub(super) fn drop_oldest(&self) -> Option<u64> {
        let mut segments = self.lock();
        if segments.len() < 2 {
            return None;
        }
        segments.pop_first().map(|(first, _)| first)
    }

    /// Everything before `next` is committed, and the segment `first` ends at `end_bytes`.
    pub(super) fn publish(&self, first: u64, end_bytes: u64, next: u64) {
        let mut segments = self.lock();
        if let Some(segment) = segments.get_mut(&first) {
            segment.end_bytes = end_bytes;
        }
        // Under the lock, so that nobody sees the offset without the bytes.
        self.committed.send_replace(next);
    }

    /// A record was seen whole at `mark`; kept if it is far enough from its neighbour before.
    pub(super) fn note(&self, first: u64, mark: Mark) {
        let mut segments = self.lock();
        let Some(segment) = segments.get_mut(&first) else {
            return;
        };
        let last = segment
            .marks
            .last()
            .map_or_else(|| segment::length(HEADER_BYTES), |last| last.position);
        if mark.position >= last.saturating_add(self.mark_bytes) {
            segment.marks.push(mark);
        }
    }

    /// Where `offset` is to be found. `None`: before everything that is still there.
    pub(super) fn locate(&self, offset: u64) -> Option<Place> {
        let segments = self.lock();
        let (&first, segment) = segments.range(..=offset).next_back()?;
        let mark = segment
            .marks
            .iter()
            .rev()
            .find(|mark| mark.offset <= offset)
            .copied();
        let end_offset = segments
            .range(first + 1..)
            .next()
            .map_or_else(|| self.next(), |(&next, _)| next);
        Some(Place {
            first,
            mark,
            end_bytes: segment.end_bytes,
            end_offset,
        })
    }

    /// Where to go on after `offset` in the segment `first` could not be read: a place that was noted while the bytes were
    /// good, so nothing inside a damaged record can pass for a record.
    pub(super) fn resume_after(&self, first: u64, offset: u64) -> Mark {
        let segments = self.lock();
        let Some(segment) = segments.get(&first) else {
            return Mark {
                offset: self.next(),
                position: 0,
            };
        };
        let marked = segment
            .marks
            .iter()
            .find(|mark| mark.offset > offset)
            .copied();
        let following = segments.range(first + 1..).next().map(|(&next, _)| next);
        marked.unwrap_or_else(|| Mark {
            offset: following.unwrap_or_else(|| self.next()),
            position: segment.end_bytes,
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Segment>> {
        // Every change under this lock is whole before anything can panic.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
