//! Is this batch new? The table of streams, rebuilt from the journal at every start.
//!
//! A publisher that missed an acknowledgement sends the batch again: it is acknowledged and stored once. A batch with the
//! number of another and a different head is a fork, and is refused. What the table has forgotten counts as new: a batch
//! stored twice is harmless, since readers go by its number, and one acknowledged but not stored would be lost.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
};

use protocol::limits::HEADS_REMEMBERED;

/// Streams remembered. Past it the one that was quiet the longest is forgotten. With every stream full this is 50 MB;
/// a stream that sent one batch takes some hundred bytes.
pub const STREAMS_MAX: usize = 8_192;

/// What a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// Not seen before: store it, then acknowledge it. It is remembered from here on.
    New,
    /// Seen before, the same: acknowledge it once what was stored before is durable.
    Redelivery,
    /// The number of a batch seen before, and another head: refuse it.
    Fork,
}

/// Makes the numbers that stand for heads in the table, in a fraction of BLAKE3's time and memory. They are keyed, and the key is drawn
/// at every start and never shown: nobody can look for two heads with one number, and by chance two have it once in 2⁶⁴. Who had such
/// a pair could have the second of two batches of their own acknowledged without being stored, and nothing else.
#[derive(Clone, Debug)]
pub struct Fingerprints(RandomState);

impl Fingerprints {
    /// With this key.
    #[must_use]
    pub const fn new(key: RandomState) -> Self {
        Self(key)
    }

    /// What stands for `bytes`.
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> u64 {
        self.0.hash_one(bytes)
    }
}

/// The streams, and the heads last seen in each.
#[derive(Debug)]
pub struct StreamTable {
    /// By host, and by sandbox: to look one up copies no name.
    hosts: BTreeMap<String, BTreeMap<String, Stream>>,
    /// How many streams there are.
    len: usize,
    /// Counts sightings.
    tick: u64,
    streams_max: usize,
    heads_max: usize,
}

#[derive(Debug, Default)]
struct Stream {
    /// When it was last heard.
    tick: u64,
    /// By epoch and number, ascending; the greatest are kept. Mostly one is added at the end.
    heads: VecDeque<((u64, u64), u64)>,
}

impl Stream {
    fn observe(&mut self, number: (u64, u64), fingerprint: u64, heads_max: usize) -> Sighting {
        let is_next = self.heads.back().is_none_or(|(last, _)| *last < number);
        let place = match is_next {
            true => Err(self.heads.len()),
            false => self
                .heads
                .binary_search_by_key(&number, |(number, _)| *number),
        };
        match place {
            Ok(at)
                if self
                    .heads
                    .get(at)
                    .is_some_and(|(_, seen)| *seen == fingerprint) =>
            {
                Sighting::Redelivery
            }
            Ok(_) => Sighting::Fork,
            // Behind all that are kept, and there is no room for more.
            Err(0) if self.heads.len() >= heads_max => Sighting::New,
            Err(at) => {
                let is_full = self.heads.len() >= heads_max;
                if is_full {
                    self.heads.pop_front();
                }
                self.heads
                    .insert(at - usize::from(is_full), (number, fingerprint));
                Sighting::New
            }
        }
    }
}

impl Default for StreamTable {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamTable {
    /// A table that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self::sized(STREAMS_MAX, HEADS_REMEMBERED)
    }

    const fn sized(streams_max: usize, heads_max: usize) -> Self {
        Self {
            hosts: BTreeMap::new(),
            len: 0,
            tick: 0,
            streams_max,
            heads_max,
        }
    }

    /// The batch `batch` of the sandbox's `epoch` came, and `fingerprint` stands for its head.
    ///
    /// A new batch counts as stored from here on, so it must be queued for the journal before anyone else can ask.
    pub fn observe(
        &mut self,
        host: &str,
        sandbox: &str,
        epoch: u64,
        batch: u64,
        fingerprint: u64,
    ) -> Sighting {
        if self.stream(host, sandbox).is_none() {
            self.begin(host, sandbox);
        }
        self.tick += 1;
        let (tick, heads_max) = (self.tick, self.heads_max);
        let Some(stream) = self.stream(host, sandbox) else {
            debug_assert!(false, "it was begun");
            return Sighting::New;
        };
        stream.tick = tick;
        stream.observe((epoch, batch), fingerprint, heads_max)
    }

    /// The sandbox is gone and its stream is closed.
    pub fn forget(&mut self, host: &str, sandbox: &str) {
        let Some(streams) = self.hosts.get_mut(host) else {
            return;
        };
        if streams.remove(sandbox).is_some() {
            self.len -= 1;
        }
        if streams.is_empty() {
            self.hosts.remove(host);
        }
    }

    /// The streams remembered.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no stream is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn stream(&mut self, host: &str, sandbox: &str) -> Option<&mut Stream> {
        self.hosts.get_mut(host)?.get_mut(sandbox)
    }

    fn begin(&mut self, host: &str, sandbox: &str) {
        if self.len >= self.streams_max {
            self.forget_quietest();
        }
        let streams = self.hosts.entry(host.to_owned()).or_default();
        streams.insert(sandbox.to_owned(), Stream::default());
        self.len += 1;
    }

    /// Looks at every stream; a new one past the bound is rare, and a sighting is not.
    fn forget_quietest(&mut self) {
        let all = self.hosts.iter().flat_map(|(host, streams)| {
            let of_host = streams.iter();
            of_host.map(move |(sandbox, stream)| (stream.tick, host, sandbox))
        });
        if let Some((_, host, sandbox)) = all.min() {
            let (host, sandbox) = (host.clone(), sandbox.clone());
            self.forget(&host, &sandbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_head_is_a_redelivery_and_another_a_fork() {
        let mut table = StreamTable::new();
        for epoch in 1..3 {
            for batch in [3, 1, 2] {
                let head = epoch * 10 + batch;
                assert_eq!(
                    table.observe("edge-1", "build-7", epoch, batch, head),
                    Sighting::New
                );
                assert_eq!(
                    table.observe("edge-1", "build-7", epoch, batch, head),
                    Sighting::Redelivery
                );
                assert_eq!(
                    table.observe("edge-1", "build-7", epoch, batch, 0),
                    Sighting::Fork
                );
                assert_eq!(
                    table.observe("edge-1", "build-7", epoch, batch, head),
                    Sighting::Redelivery
                );
            }
        }
    }

    #[test]
    fn a_head_with_one_other_bit_has_another_fingerprint() {
        let fingerprints = Fingerprints::new(RandomState::new());
        let mut head = [7; 200];
        let first = fingerprints.of(&head);
        assert_eq!(fingerprints.of(&head), first);
        for bit in 0..head.len() * 8 {
            head[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(fingerprints.of(&head), first, "bit {bit}");
            head[bit / 8] ^= 1 << (bit % 8);
        }
        assert_ne!(fingerprints.of(&head[..199]), first);
        let others = Fingerprints::new(RandomState::new());
        assert_ne!(others.of(&head), first, "another start, another key");
    }

    #[test]
    fn streams_do_not_mix() {
        let mut table = StreamTable::new();
        for (host, sandbox) in [("a", "b"), ("a", "c"), ("c", "b"), ("b", "a")] {
            assert_eq!(table.observe(host, sandbox, 1, 1, 1), Sighting::New);
        }
        assert_eq!(table.len(), 4);
        table.forget("a", "b");
        assert_eq!(table.observe("a", "b", 1, 1, 2), Sighting::New);
        assert_eq!(table.observe("a", "c", 1, 1, 2), Sighting::Fork);
    }

    #[test]
    fn everything_a_client_may_have_in_flight_is_remembered_and_no_more_than_the_bound() {
        let mut table = StreamTable::new();
        for batch in 0..1_000 {
            assert_eq!(table.observe("a", "b", 1, batch, 1), Sighting::New);
        }
        for batch in 1_000 - 256..1_000 {
            assert_eq!(table.observe("a", "b", 1, batch, 1), Sighting::Redelivery);
        }
        assert_eq!(
            table
                .hosts
                .values()
                .flat_map(BTreeMap::values)
                .map(|stream| stream.heads.len())
                .sum::<usize>(),
            HEADS_REMEMBERED
        );
        assert_eq!(
            table.observe("a", "b", 1, 3, 1),
            Sighting::New,
            "forgotten is stored again, never dropped"
        );
    }

    #[test]
    fn the_quietest_stream_is_forgotten_first() {
        let mut table = StreamTable::sized(3, 4);
        for sandbox in ["a", "b", "c"] {
            table.observe("h", sandbox, 1, 1, 1);
        }
        table.observe("h", "a", 1, 2, 1);
        table.observe("h", "d", 1, 1, 1);
        assert_eq!((table.len(), table.hosts.len()), (3, 1));
        assert_eq!(table.observe("h", "a", 1, 1, 1), Sighting::Redelivery);
        assert_eq!(table.observe("h", "b", 1, 1, 1), Sighting::New);
    }
}
