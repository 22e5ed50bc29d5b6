//! The one thread that writes: it takes what is queued, writes it, syncs once, and then tells everyone who waits.

use super::ahead::Ahead;
use super::catalog::{Catalog, Mark};
use super::promise::{Promise, wake_all};
use super::tail::Commit;
use super::{AppendError, CommitStats, Durability, Sizes, recover};
use crate::core::journal;
use crate::shell::{clock, confirm::Canary, room::Room};
use anyhow::Context as _;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The most bytes of one commit. Larger commits gain nothing: past this the disk's bandwidth counts, not its latency.
const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a commit pauses for more, if fewer are there than in the one before: those who were just answered are about to send again.
/// Every commit costs the same few system calls and wake-ups, whoever shares it. A lone publisher never waits.
const GATHER_PAUSE: Duration = Duration::from_micros(100);
/// So often, as long as each pause brings some: all in all less than most disks take to sync.
const GATHER_PAUSES_MAX: usize = 3;

/// Records that want offsets, and someone who waits for them to be durable.
#[derive(Debug)]
pub(super) struct Job {
    /// Encoded, not sealed. None at all is a barrier.
    pub(super) frames: Vec<u8>,
    /// How many.
    pub(super) records: usize,
    /// Told the first offset, once everything up to here is durable.
    pub(super) done: Promise,
    /// Room in the queue, given back when the job is done.
    pub(super) room: OwnedSemaphorePermit,
}

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
    pub(super) fn run(mut self, queue: &Receiver<Vec<Job>>) {
        let mut wakers = Vec::new();
        let mut last_records = 0;
        while let Ok(mut jobs) = queue.recv() {
            let mut bytes = drain(queue, &mut jobs);
            for _ in 0..GATHER_PAUSES_MAX {
                let before = records(&jobs);
                if before >= last_records {
                    break;
                }
                // Not a wait on the queue, where each arrival would wake us. Nothing breaks if it ends early.
                std::thread::park_timeout(GATHER_PAUSE);
                bytes = drain(queue, &mut jobs);
                if records(&jobs) == before {
                    break;
                }
            }
            last_records = records(&jobs);
            match self.commit(&mut jobs, bytes) {
                Ok(offsets) => {
                    for (job, offset) in jobs.into_iter().zip(offsets) {
                        drop(job.room);
                        // Nobody has to wait: an append that was given up is durable all the same.
                        wakers.extend(job.done.keep(Ok(offset)));
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

    /// Make `jobs` durable, all or none; the first offset of each.
    fn commit(&mut self, jobs: &mut [Job], bytes: usize) -> anyhow::Result<Vec<u64>> {
        let is_asked = self.status.roll.swap(false, Ordering::Relaxed);
        let is_due = is_asked && self.active.next > self.active.first;
        if is_due || self.active.end_bytes >= self.sizes.segment_bytes {
            self.seal().context("seal journal segment")?;
            self.active = recover::start(&self.catalog, self.active.next)?;
            self.drop_oldest();
        }
        let mut next = self.active.next;
        let mut offsets = Vec::with_capacity(jobs.len());
        let mut buffer = Vec::with_capacity(bytes);
        for job in jobs {
            offsets.push(next);
            next += journal::seal(&mut job.frames, next).context("seal records")?;
            buffer.extend_from_slice(&job.frames);
        }
        if buffer.is_empty() {
            return Ok(offsets); // Barriers alone: what came before them is durable already.
        }
        self.ahead
            .take(
                &self.active.file,
                self.active.first,
                self.active.end_bytes,
                super::segment::length(buffer.len()),
                self.status.ballast.get(),
            )
            .context("write journal")?;
        self.active
            .file
            .write_all_at(&buffer, self.active.end_bytes)
            .context("write journal")?;
        self.sync()?;
        let (first, bytes) = (self.active.next, super::segment::length(buffer.len()));
        self.active.end_bytes += bytes;
        self.active.next = next;
        self.status.count(|stats| {
            stats.commits += 1;
            stats.records += next - first;
            stats.bytes += bytes;
            stats.commit_records.observe(next - first);
        });
        self.catalog.tail().push(Commit {
            first,
            next,
            frames: Arc::new(buffer),
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
        Ok(offsets)
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
    fn fail(self, queue: &Receiver<Vec<Job>>, jobs: Vec<Job>) {
        self.status.failed.send_replace(true);
        self.budget.close();
        for job in jobs.into_iter().chain(queue.try_iter().flatten()) {
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

fn records(jobs: &[Job]) -> usize {
    jobs.iter().map(|job| job.records).sum()
}

/// Everything queued behind the first jobs, up to the size of one commit; the bytes of all.
fn drain(queue: &Receiver<Vec<Job>>, jobs: &mut Vec<Job>) -> usize {
    let mut bytes: usize = jobs.iter().map(|job| job.frames.len()).sum();
    while bytes < COMMIT_BYTES_MAX {
        match queue.try_recv() {
            Ok(more) => {
                bytes += more.iter().map(|job| job.frames.len()).sum::<usize>();
                jobs.extend(more);
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    bytes
}
