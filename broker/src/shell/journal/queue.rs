//! What waits to be written: whoever submits adds to one piece of memory, and the writer takes it whole. Nothing is copied together at
//! the writer's, nothing that one thread allocated is freed by another for each job, and a writer that is at work is not woken.

use super::promise::Promise;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// The most bytes of one commit, and what one job adds. Larger commits gain nothing: past this the disk's bandwidth counts, not its
/// latency.
const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What is made room for at once, in bytes, if the load before was so large. It may stay in memory for long, as a commit that is read live.
const ROOM_BYTES_MAX: usize = 64 * 1024;

/// Someone who waits for records to be durable.
#[derive(Debug)]
pub(super) struct Job {
    /// How many records. None at all is a barrier.
    pub(super) records: usize,
    /// Told the first offset, once everything up to here is durable.
    pub(super) done: Promise,
}

/// Jobs in the order of their submission, and their records one behind the other: what is committed together.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Encoded, not sealed.
    pub(super) frames: Vec<u8>,
    pub(super) jobs: Vec<Job>,
    /// How many records there are.
    pub(super) records: usize,
    /// Room in the queue, given back when it is done.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

impl Load {
    fn push(&mut self, frames: &[u8], job: Job, room: OwnedSemaphorePermit) {
        self.frames.extend_from_slice(frames);
        self.records += job.records;
        self.jobs.push(job);
        match &mut self.room {
            Some(all) => all.merge(room),
            none @ None => *none = Some(room),
        }
    }
}

/// The way in. Unbounded by itself: what lies in it holds room that somebody counts.
#[derive(Debug, Default)]
pub(super) struct Queue {
    held: Mutex<Held>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    /// The oldest first. Only the last is added to.
    loads: VecDeque<Load>,
    /// Room for the next load: what the last one took.
    frames_bytes: usize,
    /// As long as there are any, what is pushed is not to be taken for it.
    corks: usize,
    /// One of them is for a turn.
    is_turn: bool,
    /// What lies here may be taken.
    is_loose: bool,
    /// The writer waits, and nobody has woken it.
    is_awaited: bool,
    /// Nothing more is submitted.
    is_closed: bool,
    /// Nobody will take anything any more.
    is_ended: bool,
}

impl Queue {
    /// Adds a job, with its records and the room that they have. Where nobody takes anything any more, its promise is broken.
    pub(super) fn push(&self, frames: &[u8], job: Job, room: OwnedSemaphorePermit) {
        let mut held = self.held();
        if held.is_ended {
            // What is dropped wakes others, who may come here.
            return drop(held);
        }
        let fits = |load: &&mut Load| load.frames.len() < COMMIT_BYTES_MAX;
        match held.loads.back_mut().filter(fits) {
            Some(load) => load.push(frames, job, room),
            None => {
                let mut load = Load {
                    frames: Vec::with_capacity(held.frames_bytes.max(frames.len())),
                    ..Load::default()
                };
                load.push(frames, job, room);
                held.loads.push_back(load);
            }
        }
        if held.corks == 0 {
            self.loosen(held);
        }
    }

    /// What is pushed from now on waits until a cork is taken off, this one or another.
    pub(super) fn cork(&self) {
        self.held().corks += 1;
    }

    /// Takes a cork off, and lets go of everything.
    pub(super) fn uncork(&self) {
        let mut held = self.held();
        held.corks -= 1;
        self.loosen(held);
    }

    /// Corks it for a turn, if the writer would have to be woken and there is no turn yet.
    pub(super) fn begin_turn(&self) -> bool {
        let mut held = self.held();
        let begins = held.is_awaited && !held.is_turn;
        if begins {
            held.is_turn = true;
            held.corks += 1;
        }
        begins
    }

    /// Takes that cork off.
    pub(super) fn end_turn(&self) {
        self.held().is_turn = false;
        self.uncork();
    }

    /// Nothing more will be submitted.
    pub(super) fn close(&self) {
        let mut held = self.held();
        held.is_closed = true;
        self.loosen(held);
    }

    /// Whether the writer waits, and nobody has woken it.
    #[cfg(test)]
    pub(super) fn is_awaited(&self) -> bool {
        self.held().is_awaited
    }

    fn loosen(&self, mut held: MutexGuard<'_, Held>) {
        held.is_loose = !held.loads.is_empty();
        let is_news = held.is_loose || held.is_closed;
        if is_news && std::mem::take(&mut held.is_awaited) {
            drop(held);
            self.news.notify_one();
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Every change under this lock is whole before anything can panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out: the writer's. Dropped, it breaks the promises of all that is left.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: Arc<Queue>,
}

impl Outlet {
    pub(super) fn new(queue: &Arc<Queue>) -> Self {
        Self {
            queue: Arc::clone(queue),
        }
    }

    /// Waits until there is something to take: how many records. None: there will be nothing any more.
    pub(super) fn wait(&self) -> Option<usize> {
        let mut held = self.queue.held();
        loop {
            if let (Some(load), true) = (held.loads.front(), held.is_loose) {
                return Some(load.records);
            }
            if held.is_closed {
                return None;
            }
            held.is_awaited = true;
            let woken = self.queue.news.wait(held);
            held = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many records could be taken now.
    pub(super) fn records(&self) -> usize {
        let held = self.queue.held();
        held.loads.front().map_or(0, |load| load.records)
    }

    /// Takes what is committed together. Nothing, if there is nothing.
    pub(super) fn take(&self) -> Load {
        let mut held = self.queue.held();
        let load = held.loads.pop_front().unwrap_or_default();
        held.is_loose &= !held.loads.is_empty();
        held.frames_bytes = load.frames.len().min(ROOM_BYTES_MAX);
        load
    }

    /// From now on nothing is taken in, and what is left is given back.
    pub(super) fn end(&self) -> VecDeque<Load> {
        let mut held = self.queue.held();
        held.is_ended = true;
        std::mem::take(&mut held.loads)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        drop(self.end());
    }
}

#[cfg(test)]
mod tests {
    use super::super::promise::{Ticket, promise};
    use super::*;
    use crate::shell::journal::AppendError;
    use tokio::sync::Semaphore;

    struct World {
        queue: Arc<Queue>,
        outlet: Outlet,
        room: Arc<Semaphore>,
    }

    impl World {
        fn new() -> Self {
            let queue = Arc::new(Queue::default());
            Self {
                outlet: Outlet::new(&queue),
                queue,
                room: Arc::new(Semaphore::new(100)),
            }
        }

        fn push(&self, frames: &[u8], records: usize) -> Ticket {
            let (done, ticket) = promise();
            let room = Arc::clone(&self.room).try_acquire_owned().unwrap();
            self.queue.push(frames, Job { records, done }, room);
            ticket
        }
    }

    #[test]
    fn what_was_pushed_is_taken_in_one_piece_and_in_order() {
        let world = World::new();
        let _tickets = [(&b"ab"[..], 1), (b"", 0), (b"cde", 2)]
            .map(|(frames, records)| world.push(frames, records));
        assert_eq!(world.outlet.wait(), Some(3));
        let load = world.outlet.take();
        assert_eq!((load.frames.as_slice(), load.records), (&b"abcde"[..], 3));
        let records: Vec<_> = load.jobs.iter().map(|job| job.records).collect();
        assert_eq!(records, [1, 0, 2]);
        assert_eq!(world.room.available_permits(), 97);
        drop(load.room);
        assert_eq!(world.room.available_permits(), 100);
        world.queue.close();
        assert_eq!(world.outlet.wait(), None);
    }

    #[test]
    fn a_commit_has_its_bound() {
        let world = World::new();
        let half = vec![0; COMMIT_BYTES_MAX / 2 + 1];
        let _tickets: Vec<_> = (0..5).map(|_| world.push(&half, 1)).collect();
        world.queue.close();
        let mut records = Vec::new();
        while world.outlet.wait().is_some() {
            records.push(world.outlet.take().records);
        }
        assert_eq!(records, [2, 2, 1]);
    }

    #[tokio::test]
    async fn a_writer_that_is_gone_breaks_every_promise() {
        let world = World::new();
        let before = world.push(b"a", 1);
        drop(world.outlet.end());
        assert_eq!(before.await, Err(AppendError::Failed));
        assert_eq!(world.push(b"b", 1).await, Err(AppendError::Failed));
        assert_eq!(world.room.available_permits(), 100);
    }

    #[test]
    fn a_cork_holds_back_until_one_is_taken_off() {
        let world = World::new();
        world.queue.cork();
        world.queue.cork();
        let _ticket = world.push(b"a", 1);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| world.outlet.wait().map(|_| world.outlet.take().records));
            while !world.queue.is_awaited() {
                std::thread::yield_now();
            }
            let _other = world.push(b"b", 1);
            assert!(world.queue.is_awaited());
            world.queue.uncork();
            assert_eq!(taken.join().unwrap(), Some(2));
        });
    }
}
