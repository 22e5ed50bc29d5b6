//! The journal: the broker's durable record of every batch of events, report and command it accepted, in order.
//!
//! Segment files of our own (format: [`crate::core::journal`]), written by one thread with group commit. An append
//! resolves after `fdatasync`, so an acknowledgement sent then is a promise kept. The first write or sync that fails ends
//! it: every append after that fails, and the process is expected to stop and open the journal again.
//!
//! Opening cuts off what a crash left half written, and never deletes what was whole once: readers get an explicit
//! [`Item::Gap`] where records cannot be read. What its owner does not keep goes by rewriting sealed segments without it
//! ([`Journal::retain`]), and readers are told that too.

mod ahead;
mod catalog;
mod extent;
mod keep;
mod promise;
mod purge;
mod queue;
mod reader;
mod recover;
mod rewrite;
mod segment;
mod since;
mod summary;
mod tail;
mod writer;

pub use extent::{Contents, Extent, Extents, Lost, begin_at, lost_after, read_through};
pub use keep::{Inventory, Kept, Ledger, Order};
pub use promise::Ticket;
pub use purge::Purged;
pub use reader::{Batch, Filter, Item, Live, OwnedRecord, Reader};
pub use rewrite::{Fate, Gone};

use crate::core::histogram::Histogram;
use crate::core::journal::{self, EncodeError, Entry};
use crate::shell::{confirm::Canary, room::Room};
use anyhow::Context as _;
use catalog::Catalog;
use queue::{Job, Outlet, Queue};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::yield_now;
use writer::{Status, Writer};

/// A segment that has reached this is followed by the next, in bytes: small enough to remove and to recover quickly, large
/// enough that a busy journal is not thousands of files.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// What is kept of load tests, in bytes.
pub const BENCH_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The most bytes that wait to be written. Whoever wants to append more waits: this is the back-pressure on the gate.
pub const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a place in the queue costs besides its records, in bytes: it bounds the number of places too.
const JOB_BYTES: usize = 256;
/// The most bytes that one [`Journal::reserve`] may ask for: what one read from a connection may hold, several times over.
pub const RESERVE_BYTES_MAX: usize = 1024 * 1024;
/// The least distance of two marks in the index of a segment, in bytes.
const MARK_BYTES: u64 = 1024 * 1024;

/// When an append counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It is on the disk: survives a power cut.
    Fsync,
    /// The operating system has it: survives the end of this process only.
    Os,
}

/// Why an append failed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AppendError {
    /// The entry is beyond a limit.
    #[error("cannot be journaled")]
    Invalid(#[from] EncodeError),
    /// More than was reserved, or a reservation beyond [`RESERVE_BYTES_MAX`].
    #[error("does not fit its place in the journal's queue")]
    TooLarge,
    /// A write or a sync failed, now or earlier. It is not known whether the entry is on disk.
    #[error("the journal could not write and accepts nothing more until the broker is restarted")]
    Failed,
}

/// What the writer did since the journal was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitStats {
    /// Group commits.
    pub commits: u64,
    /// Successful calls of fdatasync.
    pub fsyncs: u64,
    /// Records committed.
    pub records: u64,
    /// Bytes committed.
    pub bytes: u64,
    /// Records in each commit.
    pub commit_records: Histogram,
    /// How long each fdatasync took, in microseconds.
    pub fsync_us: Histogram,
}

impl Default for CommitStats {
    fn default() -> Self {
        Self {
            commits: 0,
            fsyncs: 0,
            records: 0,
            bytes: 0,
            commit_records: Histogram::COUNTS,
            fsync_us: Histogram::MICROSECONDS,
        }
    }
}

/// Smaller in tests.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    segment_bytes: u64,
    mark_bytes: u64,
    /// Past this the oldest segments go; none: all are kept.
    kept_bytes: Option<u64>,
}

/// The journal. Cheap to clone; dropping the last clone waits until everything submitted is durable.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    catalog: Arc<Catalog>,
    status: Arc<Status>,
    budget: Arc<Semaphore>,
    durability: Durability,
    sizes: Sizes,
    /// Held by who rewrites segments: one at a time.
    keeping: Mutex<()>,
    /// When the oldest record was accepted, as of the last round of retention.
    oldest_ms: AtomicU64,
    /// Every job in it holds a part of `budget`, so at most [`QUEUE_BYTES_MAX`] wait.
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    /// Freed last, after the thread has ended.
    _lock: std::fs::File,
}

impl Journal {
    /// Open the journal in `dir`, or make one. Blocks: it reads the last segment through.
    ///
    /// # Errors
    /// Another process uses it, the disk refuses, or a newer program wrote it. Damage is not an error.
    pub fn open(dir: &Path, durability: Durability) -> anyhow::Result<Self> {
        Self::open_sized(
            dir,
            durability,
            Sizes {
                segment_bytes: SEGMENT_BYTES,
                mark_bytes: MARK_BYTES,
                kept_bytes: None,
            },
        )
    }

    /// The same for the partition of load tests: what is past [`BENCH_BYTES_MAX`] goes, oldest first.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_bench(dir: &Path, durability: Durability) -> anyhow::Result<Self> {
        let sizes = Sizes {
            segment_bytes: SEGMENT_BYTES,
            mark_bytes: MARK_BYTES,
            kept_bytes: Some(BENCH_BYTES_MAX),
        };
        Self::open_sized(dir, durability, sizes)
    }

    fn open_sized(dir: &Path, durability: Durability, sizes: Sizes) -> anyhow::Result<Self> {
        let recovered = recover::recover(dir, sizes)
            .with_context(|| format!("open journal {}", dir.display()))?;
        Self::launch(recovered, durability, sizes)
    }

    fn launch(
        recovered: recover::Recovered,
        durability: Durability,
        sizes: Sizes,
    ) -> anyhow::Result<Self> {
        let catalog = Arc::new(recovered.catalog);
        let status = Arc::new(Status::default());
        let budget = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let queue = Arc::new(Queue::default());
        let outlet = Outlet::new(&queue);
        let writer = Writer {
            active: recovered.active,
            catalog: Arc::clone(&catalog),
            status: Arc::clone(&status),
            budget: Arc::clone(&budget),
            durability,
            sizes,
            ahead: ahead::Ahead::new(durability),
            canary: Canary::new(catalog.dir()).context("open journal")?,
        };
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&outlet))
            .context("start journal thread")?;
        let inner = Inner {
            catalog,
            status,
            budget,
            durability,
            sizes,
            keeping: Mutex::default(),
            oldest_ms: AtomicU64::new(0),
            queue,
            thread: Some(thread),
            _lock: recovered.lock,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Append one entry; resolves with its offset when it is durable. Dropped after its first wait for room, the entry may
    /// still be written.
    ///
    /// # Errors
    /// [`AppendError`]. After [`AppendError::Failed`] nothing can be appended any more.
    pub async fn append(&self, entry: Entry<'_>) -> Result<u64, AppendError> {
        let mut slot = self.reserve(entry.frame_bytes()).await?;
        slot.push(&entry)?;
        slot.submit().await
    }

    /// Wait for room for `bytes` bytes of records ([`Entry::frame_bytes`]); nothing is queued yet.
    ///
    /// From here on nothing waits: look at the table of streams, [`Slot::push`] what is new and [`Slot::submit`] under one
    /// lock, and no cancellation can come between remembering a batch and queueing it.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`] past [`RESERVE_BYTES_MAX`], [`AppendError::Failed`].
    pub async fn reserve(&self, bytes: usize) -> Result<Slot, AppendError> {
        let permits = permits(bytes).ok_or(AppendError::TooLarge)?;
        let budget = Arc::clone(&self.inner.budget);
        let room = budget
            .acquire_many_owned(permits)
            .await
            .map_err(|_| AppendError::Failed)?;
        Ok(self.slot(room, bytes))
    }

    /// The same, if there is room at once and nobody waits for it.
    #[must_use]
    pub fn try_reserve(&self, bytes: usize) -> Option<Slot> {
        let budget = Arc::clone(&self.inner.budget);
        let room = budget.try_acquire_many_owned(permits(bytes)?).ok()?;
        Some(self.slot(room, bytes))
    }

    fn slot(&self, room: OwnedSemaphorePermit, bytes: usize) -> Slot {
        Slot {
            journal: self.clone(),
            room,
            frames: Vec::with_capacity(bytes),
            records: 0,
            bytes_max: bytes,
        }
    }

    /// Holds back what is submitted, whoever submits it, until the cork is dropped.
    #[must_use = "it is dropped at once"]
    pub fn cork(&self) -> Cork {
        self.inner.queue.cork();
        Cork {
            queue: Arc::clone(&self.inner.queue),
        }
    }

    /// Holds back what is submitted until the runtime, in which this is called, has been through all that is ready now: the publishes of
    /// many connections are one piece of work then, and the writer is woken once. A writer that is at work comes by itself.
    pub fn cork_for_turn(&self) {
        if self.inner.queue.begin_turn() {
            let turn = Turn {
                queue: Arc::clone(&self.inner.queue),
            };
            tokio::spawn(async move {
                yield_now().await;
                drop(turn);
            });
        }
    }

    /// The next offset to be committed: everything before it is readable. Wait on it for news.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.inner.catalog.committed()
    }

    /// The next offset to be committed, now.
    #[must_use]
    pub fn next_offset(&self) -> u64 {
        self.inner.catalog.next()
    }

    /// The first offset that is kept; the same as [`Self::next_offset`] in an empty journal.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.inner.catalog.oldest()
    }

    /// A cursor that starts at the offset `from`, which may be still to come.
    #[must_use]
    pub fn reader(&self, from: u64, filter: Filter) -> Reader {
        self.reader_of_any(from, vec![filter])
    }

    /// The same, for records that any of several filters admits.
    #[must_use]
    pub fn reader_of_any(&self, from: u64, filters: Vec<Filter>) -> Reader {
        Reader::new(Arc::clone(&self.inner.catalog), from, filters)
    }

    /// From now on, what finds no room on the disk may use the ballast.
    pub fn use_ballast(&self, room: &Room) {
        let _ = self.inner.status.ballast.set(room.clone());
    }

    /// What the writer did, for metrics.
    #[must_use]
    pub fn commit_stats(&self) -> CommitStats {
        self.inner.status.stats()
    }

    /// When an append counts as done.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// Resolves when the journal has failed: the process should stop. Never before that.
    pub async fn failed(&self) {
        let mut failed = self.inner.status.failed.subscribe();
        // The sender lives as long as `self`, so there is no other way out of this wait.
        let _ = failed.wait_for(|&failed| failed).await;
    }
}

/// What a place of so many bytes takes of the queue's room. `None`: more than a place may have.
fn permits(bytes: usize) -> Option<u32> {
    (bytes <= RESERVE_BYTES_MAX)
        .then_some(bytes + JOB_BYTES)?
        .try_into()
        .ok()
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

/// A place in the queue. Dropped without [`Self::submit`], it leaves no trace.
#[derive(Debug)]
pub struct Slot {
    journal: Journal,
    room: OwnedSemaphorePermit,
    frames: Vec<u8>,
    records: usize,
    bytes_max: usize,
}

impl Slot {
    /// Add an entry.
    ///
    /// # Errors
    /// [`AppendError::Invalid`], or [`AppendError::TooLarge`] when more than what was reserved is pushed; the slot is then
    /// as it was.
    pub fn push(&mut self, entry: &Entry<'_>) -> Result<(), AppendError> {
        if entry.frame_bytes() > self.bytes_max - self.frames.len() {
            return Err(AppendError::TooLarge);
        }
        journal::encode(entry, &mut self.frames)?;
        self.records += 1;
        Ok(())
    }

    /// Queue what was pushed, in the order of these calls. With nothing pushed it is a barrier: the ticket resolves when
    /// everything submitted before is durable, which is when a redelivered batch may be acknowledged.
    #[must_use = "the entries are durable only when the ticket says so"]
    pub fn submit(self) -> Ticket {
        let (done, ticket) = promise::promise();
        let job = Job {
            records: self.records,
            done,
        };
        let queue = &self.journal.inner.queue;
        queue.push(&self.frames, job, self.room);
        ticket
    }
}

/// Holds back what is submitted, so that the writer is woken once for all of it. Dropped, it lets go of everything; so it must not be
/// kept over a wait.
#[derive(Debug)]
pub struct Cork {
    queue: Arc<Queue>,
}

impl Drop for Cork {
    fn drop(&mut self) {
        self.queue.uncork();
    }
}

/// A turn of the runtime, which ends when this is dropped, also if the runtime does.
struct Turn {
    queue: Arc<Queue>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue.end_turn();
    }
}

#[cfg(test)]
mod tests;
