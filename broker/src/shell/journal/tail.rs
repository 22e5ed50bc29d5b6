//! The last commits, in memory: who follows the journal live reads them here, without the disk and without a thread that may block.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is kept, in bytes: the largest commit, and so many of the usual kind that whoever reads live is never behind it.
const TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The records of one commit, sealed and committed.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    /// The offset of its first record.
    pub(super) first: u64,
    /// The first offset after it.
    pub(super) next: u64,
    /// The records, as they stand in the segment.
    pub(super) frames: Arc<Vec<u8>>,
}

/// The last commits, oldest first, without a gap between them.
#[derive(Debug, Default)]
pub(super) struct Tail {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    commits: VecDeque<Commit>,
    bytes: usize,
}

impl Tail {
    /// Adds a commit, and forgets those before it that are too many.
    pub(super) fn push(&self, commit: Commit) {
        let mut inner = self.lock();
        inner.bytes += commit.frames.len();
        inner.commits.push_back(commit);
        while inner.bytes > TAIL_BYTES_MAX
            && let Some(oldest) = inner.commits.pop_front()
        {
            inner.bytes -= oldest.frames.len();
        }
    }

    /// Forgets everything: some of it is no longer kept.
    pub(super) fn clear(&self) {
        *self.lock() = Inner::default();
    }

    /// The commit that holds the record `offset`, if it is still here.
    pub(super) fn find(&self, offset: u64) -> Option<Commit> {
        let inner = self.lock();
        let at = inner
            .commits
            .partition_point(|commit| commit.next <= offset);
        let commit = inner.commits.get(at)?;
        (commit.first <= offset).then(|| commit.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under this lock is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(first: u64, records: u64, bytes: usize) -> Commit {
        Commit {
            first,
            next: first + records,
            frames: Arc::new(vec![0; bytes]),
        }
    }

    #[test]
    fn every_offset_of_the_last_commits_is_found_and_no_other() {
        let tail = Tail::default();
        tail.push(commit(5, 3, 30));
        tail.push(commit(8, 1, 10));
        let found: Vec<_> = (0..12)
            .map(|offset| tail.find(offset).map(|commit| commit.first))
            .collect();
        let five = [Some(5); 3];
        assert_eq!(found[..5], [None; 5]);
        assert_eq!(found[5..8], five);
        assert_eq!(found[8..], [Some(8), None, None, None]);
    }

    #[test]
    fn it_keeps_so_many_bytes_and_no_more() {
        let tail = Tail::default();
        for first in 0..10 {
            tail.push(commit(first, 1, TAIL_BYTES_MAX / 4));
        }
        assert_eq!(tail.lock().bytes, TAIL_BYTES_MAX);
        assert!(tail.find(5).is_none() && tail.find(6).is_some());
        tail.push(commit(10, 1, TAIL_BYTES_MAX + 1));
        assert!(
            tail.find(10).is_none(),
            "who reads that reads it from the disk"
        );
        assert_eq!(tail.lock().bytes, 0);
    }
}
