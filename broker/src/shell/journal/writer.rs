//! The one thread that writes: it takes what is queued, writes it, syncs once, and then tells everyone who waits.

use super::ahead::Ahead;
use super::catalog::{Catalog, Mark};
use super::promise::wake_all;
use super::queue::{Job, Load, Outlet};
use super::tail::Commit;
use super::{AppendError, CommitStats, Durability, Sizes, recover};
use crate::core::journal;
use crate::shell::{clock, confirm::Canary, room::Room};
use anyhow::Context as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// How long a commit pauses for more, if fewer are there than in the one before: those who were just answered are about to send again.
/// Every commit costs the same few system calls and wake-ups, whoever shares it. A lone publisher never waits.
const GATHER_PAUSE: Duration = Duration::from_micros(100);
/// So often, as long as each pause brings some: all in all less than most disks take to sync.
const GATHER_PAUSES_MAX: usize = 3;

/// The segment being written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: File,
    pub(super) first: u64,
    /// Its committed bytes.
    pub(super) end_bytes: u64,
    /// The next offset.
    pub(super) next: u64,
}

impl Active {
    /// Takes off what is prepared and not written.
    fn cut(&self) -> std::io::Result<()> {
        self.file.set_len(self.end_bytes)
    }
}

/// What others may know of the writer.
#[derive(Debug, Default)]
pub(super) struct Status {
    stats: Mutex<CommitStats>,
    /// The next commit is to begin a segment.
    pub(super) roll: AtomicBool,
    /// Set once, for good.
    pub(super) failed: watch::Sender<bool>,
    /// Where there is room if there is no other.
    pub(super) ballast: OnceLock<Room>,
}

impl Status {
    pub(super) fn stats(&self) -> CommitStats {
        *self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut CommitStats)) {
        change(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The writer's side of the journal.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) active: Active,
    pub(super) catalog: Arc<Catalog>,
    pub(super) status: Arc<Status>,
    pub(super) budget: Arc<Semaphore>,
    pub(super) durability: Durability,
    pub(super) sizes: Sizes,
    pub(super) ahead: Ahead,
    /// Asked after each sync. To ask the segment would have the file system commit its journal for it.
    pub(super) canary: Canary,
}

impl Writer {
    /// Write until nobody can append any more, or until the first failure.
    pub(super) fn run(mut self, queue: &Outlet) {
        let mut wakers = Vec::new();
        let mut last_records = 0;
        while let Some(mut records) = queue.wait() {
            for _ in 0..GATHER_PAUSES_MAX {
                if records >= last_records {
                    break;
                }
                // Not a wait on the queue, where each arrival would wake us. Nothing breaks if it ends early.
                std::thread::park_timeout(GATHER_PAUSE);
                let before = std::mem::replace(&mut records, queue.records());
                if records == before {
                    break;
                }
            }
            let Load {
                frames,
                records,
                jobs,
                room,
            } = queue.take();
            last_records = records;
            match self.commit(frames) {
                Ok(first) => {
                    drop(room);
                    let mut offset = first;
                    for Job { records, done } in jobs {
                        // Nobody has to wait: an append that was given up is durable all the same.
                        wakers.extend(done.keep(Ok(offset)));
                        offset += records as u64;
                    }
                    wake_all(&mut wakers);
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the journal cannot write and stops for good"
                    );
                    return self.fail(queue, jobs);
                }
            }
        }
        // Only for whoever looks at the file: recovery takes it off too.
        let _ = self.active.cut();
    }

    /// Make records durable, all or none; the offset of the first.
    fn commit(&mut self, mut frames: Vec<u8>) -> anyhow::Result<u64> {
        let is_asked = self.status.roll.swap(false, Ordering::Relaxed);
        let is_due = is_asked && self.active.next > self.active.first;
        if is_due || self.active.end_bytes >= self.sizes.segment_bytes {
            self.seal().context("seal journal segment")?;
            self.active = recover::start(&self.catalog, self.active.next)?;
            self.drop_oldest();
        }
        let first = self.active.next;
        if frames.is_empty() {
            return Ok(first); // Barriers alone: what came before them is durable already.
        }
        let next = first + journal::seal(&mut frames, first).context("seal records")?;
        let bytes = super::segment::length(frames.len());
        self.ahead
            .take(
                &self.active.file,
                self.active.first,
                self.active.end_bytes,
                bytes,
                self.status.ballast.get(),
            )
            .context("write journal")?;
        self.active
            .file
            .write_all_at(&frames, self.active.end_bytes)
            .context("write journal")?;
        self.sync()?;
        self.active.end_bytes += bytes;
        self.active.next = next;
        self.status.count(|stats| {
            stats.commits += 1;
            stats.records += next - first;
            stats.bytes += bytes;
            stats.commit_records.observe(next - first);
        });
        // It was added to piece by piece, and what is kept of it is counted by its length.
        frames.shrink_to_fit();
        self.catalog.tail().push(Commit {
            first,
            next,
            frames: Arc::new(frames),
        });
        self.catalog
            .publish(self.active.first, self.active.end_bytes, next);
        self.catalog.note(
            self.active.first,
            0,
            Mark {
                offset: next,
                position: self.active.end_bytes,
            },
        );
        Ok(first)
    }

    /// A sealed segment ends with its last record, before there is one behind it.
    fn seal(&self) -> std::io::Result<()> {
        match self.durability {
            Durability::Os => Ok(()), // Nothing was prepared.
            Durability::Fsync => {
                self.active.cut()?;
                self.active.file.sync_all()
            }
        }
    }

    /// Gives back what is past the size that is kept. A file that cannot be removed is found again at the next start.
    fn drop_oldest(&self) {
        let Some(kept) = self.sizes.kept_bytes else {
            return;
        };
        while self.catalog.bytes() > kept
            && let Some(first) = self.catalog.drop_oldest()
        {
            let path = super::segment::path(self.catalog.dir(), first);
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::debug!(first, "a journal segment was dropped"),
                Err(error) => {
                    tracing::warn!(first, %error, "a journal segment could not be dropped");
                }
            }
        }
    }

    fn sync(&self) -> anyhow::Result<()> {
        match self.durability {
            Durability::Os => return Ok(()),
            Durability::Fsync => {}
        }
        let start = clock::mono();
        self.active.file.sync_data().context("sync journal")?;
        let took = clock::mono() - start;
        self.canary
            .confirm()
            .context("confirm that the journal was synced")?;
        self.status.count(|stats| {
            stats.fsyncs += 1;
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            stats.fsync_us.observe(took);
        });
        Ok(())
    }

    /// Nothing is tried again: after a failed fsync the kernel may call pages clean that never reached the disk, so a
    /// second fsync that succeeds proves nothing.
    fn fail(self, queue: &Outlet, jobs: Vec<Job>) {
        self.status.failed.send_replace(true);
        self.budget.close();
        let queued = queue.end().into_iter().flat_map(|load| load.jobs);
        for job in jobs.into_iter().chain(queued) {
            wake_all(
                &mut job
                    .done
                    .keep(Err(AppendError::Failed))
                    .into_iter()
                    .collect(),
            );
        }
    }
}
