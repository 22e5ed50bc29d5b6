//! What is committed, and where: the one thing that the writer and the readers share.

use super::segment;
use super::tail::Tail;
use crate::core::incarnation::{History, Withdrawn};
use crate::core::journal::HEADER_BYTES;
use protocol::hole::Causes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard};
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
    /// How often it was rewritten: with another number it is another file.
    pub(super) serial: u32,
    /// A record at or before the offset. `None`: start at the segment's first.
    pub(super) mark: Option<Mark>,
    /// The segment's committed bytes.
    pub(super) end_bytes: u64,
    /// The first offset that the segment does not hold.
    pub(super) end_offset: u64,
}

/// A segment that is not written any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) first: u64,
    /// The first offset after it.
    pub(super) end: u64,
    /// Its bytes.
    pub(super) bytes: u64,
    /// How often it was rewritten.
    pub(super) serial: u32,
}

/// What stands in the place of some segments.
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) sealed: Sealed,
    /// The first offset in it that is still a record; its end if none is.
    pub(super) oldest: u64,
    /// Its index.
    pub(super) marks: Vec<Mark>,
}

#[derive(Debug)]
pub(super) struct Segment {
    /// Its committed bytes, header included.
    pub(super) end_bytes: u64,
    /// How often it was rewritten.
    serial: u32,
    /// Everything in it before this was removed.
    oldest: u64,
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
    tail: Tail,
    /// Held for reading from a look at the catalog until the file that it names is open, and for writing while a file takes another's
    /// name. The writer never waits for it.
    naming: RwLock<()>,
    /// Why there is nothing before the oldest segment.
    before: Causes,
    committed: watch::Sender<u64>,
    /// Offsets that are withdrawn: between two segments, and in neither.
    withdrawn: OnceLock<Vec<Withdrawn>>,
}

impl Catalog {
    pub(super) fn new(dir: &Path, mark_bytes: u64, before: Causes) -> Self {
        Self {
            dir: dir.to_owned(),
            mark_bytes,
            segments: Mutex::new(BTreeMap::new()),
            tail: Tail::default(),
            naming: RwLock::new(()),
            before,
            committed: watch::Sender::new(0),
            withdrawn: OnceLock::new(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The least distance of two marks, in bytes.
    pub(super) const fn mark_bytes(&self) -> u64 {
        self.mark_bytes
    }

    /// The last commits. Only what is published may be read there.
    pub(super) const fn tail(&self) -> &Tail {
        &self.tail
    }

    /// What is withdrawn, said once.
    pub(super) fn expect(&self, history: &History) {
        // Said again it is the same: a journal belongs to one store.
        let _ = self.withdrawn.set(history.withdrawn().collect());
    }

    /// Whether there never were records from `from` up to and not including `to`.
    pub(super) fn is_withdrawn(&self, from: u64, to: u64) -> bool {
        let mut all = self.withdrawn.get().into_iter().flatten();
        all.any(|part| part.from <= from && to <= part.to)
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
        let segments = self.lock();
        let ends = segments.keys().skip(1).copied();
        let ends = ends.chain(std::iter::once(u64::MAX));
        let mut kept = segments.values().zip(ends);
        let oldest = kept.find(|(segment, end)| segment.oldest < *end);
        oldest.map_or(0, |(segment, _)| segment.oldest)
    }

    /// Why there is nothing before the oldest segment.
    pub(super) const fn before(&self) -> Causes {
        self.before
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
        self.add_rewritten(first, end_bytes, 0, first);
    }

    /// There is a segment that was rewritten.
    pub(super) fn add_rewritten(&self, first: u64, end_bytes: u64, serial: u32, oldest: u64) {
        self.lock().insert(
            first,
            Segment {
                end_bytes,
                serial,
                oldest,
                marks: Vec::new(),
            },
        );
    }

    /// All but the one that is written, by first offset.
    pub(super) fn sealed(&self) -> Vec<Sealed> {
        let segments = self.lock();
        let following = segments.keys().skip(1);
        let pairs = segments.iter().zip(following);
        pairs
            .map(|((&first, segment), &end)| Sealed {
                first,
                end,
                bytes: segment.end_bytes,
                serial: segment.serial,
            })
            .collect()
    }

    /// The first offset of the segment that is written.
    pub(super) fn active(&self) -> u64 {
        self.lock().keys().next_back().copied().unwrap_or_default()
    }

    /// What the catalog names stays what it is until this is dropped.
    pub(super) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.naming.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `rename` put a file in the place of another, and from then on this stands for everything from its first offset to its end.
    pub(super) fn replace(
        &self,
        by: Replacement,
        rename: impl FnOnce() -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let _naming = self.naming.write().unwrap_or_else(PoisonError::into_inner);
        rename()?;
        let Sealed {
            first, end, bytes, ..
        } = by.sealed;
        let mut segments = self.lock();
        segments.retain(|other, _| *other < first || *other >= end);
        segments.insert(
            first,
            Segment {
                end_bytes: bytes,
                serial: by.sealed.serial,
                oldest: by.oldest,
                marks: by.marks,
            },
        );
        drop(segments);
        self.tail.clear();
        Ok(())
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
    pub(super) fn note(&self, first: u64, serial: u32, mark: Mark) {
        let mut segments = self.lock();
        let segment = segments.get_mut(&first);
        let Some(segment) = segment.filter(|segment| segment.serial == serial) else {
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
            serial: segment.serial,
            mark,
            end_bytes: segment.end_bytes,
            end_offset,
        })
    }

    /// Where to go on after `offset` in the segment `first` could not be read: a place that was noted while the bytes were
    /// good, so nothing inside a damaged record can pass for a record. `None`: another file has taken its place meanwhile.
    pub(super) fn resume_after(&self, first: u64, serial: u32, offset: u64) -> Option<Mark> {
        let segments = self.lock();
        let segment = segments.get(&first);
        let segment = segment.filter(|segment| segment.serial == serial)?;
        let marked = segment
            .marks
            .iter()
            .find(|mark| mark.offset > offset)
            .copied();
        let following = segments.range(first + 1..).next().map(|(&next, _)| next);
        Some(marked.unwrap_or_else(|| Mark {
            offset: following.unwrap_or_else(|| self.next()),
            position: segment.end_bytes,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Segment>> {
        // Every change under this lock is whole before anything can panic.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
