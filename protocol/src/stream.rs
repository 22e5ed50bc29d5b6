//! Event streams: batches under signed, chained heads.
//!
//! The sandbox's key signs a head that holds the BLAKE3 of the batch's body and of the head before it; the body travels beside the
//! head (a CBOR sequence, RFC 8742). So nobody can invent, drop or reorder events unseen, and bodies can be purged while the chain
//! still verifies. Hashes are over the bytes that travelled, never over a re-encoding.

use std::collections::{HashSet, VecDeque};

use serde_bytes::ByteArray;

use crate::{
    cbor::{self, CborError},
    event::{self, BadBody, Event, Events},
    id::{HostId, SandboxId},
    key::{KeyId, Public, Sandbox, Secret},
    limits::{BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_HEAD_BYTES_MAX, HEADS_REMEMBERED},
    signed::{self, Envelope, Typ, VerifyError},
    time::UnixMillis,
    topic::Topic,
};

/// The kind of a batch's head.
pub const TYP: Typ = Typ::Text("application/vnd.outhaul.batch+cbor");

int_map! {
    /// What a batch's signature covers.
    pub struct Head {
        /// Which stream: see [`stream_id`].
        1 => req stream: ByteArray<16>,
        /// Counts the starts of its writer, from 1.
        2 => req epoch: u64,
        /// Counts the batches of the epoch, from 0.
        3 => req batch: u64,
        /// The number of the first event, from 0 over the whole stream.
        4 => req first: u64,
        /// How many events; 0 is a heartbeat.
        5 => req count: u64,
        /// BLAKE3 of the signed head before this one; zeros for the first.
        6 => req previous: ByteArray<32>,
        /// BLAKE3 of the body.
        7 => req body_hash: ByteArray<32>,
        /// Length of the body, in bytes.
        8 => req body_bytes: u64,
        /// When it was sealed.
        9 => req time: UnixMillis,
        /// The id of the token that its writer held, in the first head of an epoch.
        10 => opt token: ByteArray<8>,
        /// There is no batch after this one.
        11 => opt closing: bool,
    }
}

/// The id of a sandbox's stream: half of the BLAKE3 of its topic. A head says where it belongs without the topic at hand.
#[must_use]
pub fn stream_id(host: &HostId, sandbox: &SandboxId) -> [u8; 16] {
    let topic = Topic::Events(host.clone(), sandbox.clone()).to_string();
    let hash = blake3::hash(topic.as_bytes());
    let mut id = [0; 16];
    id.iter_mut()
        .zip(hash.as_bytes())
        .for_each(|(to, from)| *to = *from);
    id
}

/// Writes one epoch of a stream.
#[derive(Debug)]
pub struct Writer {
    key: Secret<Sandbox>,
    stream: [u8; 16],
    epoch: u64,
    batch: u64,
    first: u64,
    previous: [u8; 32],
    token: [u8; 8],
    pending: Vec<u8>,
    pending_count: usize,
}

impl Writer {
    /// The first epoch of a stream, under the token with this id.
    #[must_use]
    pub fn new(key: Secret<Sandbox>, stream: [u8; 16], token: [u8; 8]) -> Self {
        Self {
            key,
            stream,
            epoch: 1,
            batch: 0,
            first: 0,
            previous: [0; 32],
            token,
            pending: Vec::new(),
            pending_count: 0,
        }
    }

    /// The key that signs its heads, for proving possession of it.
    #[must_use]
    pub fn key(&self) -> &Secret<Sandbox> {
        &self.key
    }

    /// Adds an event to the batch under way. `false`: the batch is full, seal it first.
    #[must_use]
    pub fn push(&mut self, event: &Event<'_>) -> bool {
        // The longest head of an event: an array of six with five long integers and a long length.
        const EVENT_HEAD_BYTES_MAX: usize = 64;
        let after = self.pending.len() + event.data.len() + EVENT_HEAD_BYTES_MAX;
        if self.pending_count >= BATCH_EVENTS_MAX || after > BATCH_BODY_BYTES_MAX {
            return false;
        }
        event.encode(&mut self.pending);
        self.pending_count += 1;
        true
    }

    /// Events in the batch under way.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending_count
    }

    /// Seals the batch under way, empty or not: its MQTT payload.
    pub fn seal(&mut self, time: UnixMillis, closing: bool) -> Vec<u8> {
        let body_head = event::body_head(self.pending_count);
        let mut hash = blake3::Hasher::new();
        hash.update(&body_head).update(&self.pending);
        let count = self.pending_count as u64;
        let head = Head {
            stream: self.stream.into(),
            epoch: self.epoch,
            batch: self.batch,
            first: self.first,
            count,
            previous: self.previous.into(),
            body_hash: (*hash.finalize().as_bytes()).into(),
            body_bytes: (body_head.len() + self.pending.len()) as u64,
            time,
            token: (self.batch == 0).then(|| self.token.into()),
            closing: closing.then_some(true),
        };
        let mut payload = signed::seal(&self.key, TYP, &cbor::to_vec(&head), b"", None);
        self.previous = *blake3::hash(&payload).as_bytes();
        payload.reserve_exact(body_head.len() + self.pending.len());
        payload.extend_from_slice(&body_head);
        payload.extend_from_slice(&self.pending);
        self.pending.clear();
        self.pending_count = 0;
        self.batch = self.batch.saturating_add(1);
        self.first = self.first.saturating_add(count);
        payload
    }
}

/// Why a batch was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No signed head at its front.
    #[error("batch: {0}")]
    Head(#[from] VerifyError),
    /// Numbers in the head that make no sense, or a body of another length.
    #[error("batch: its head and its body do not fit")]
    Shape,
}

/// A batch taken apart, borrowing from the payload. Its signature is not checked.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    /// What it says of itself.
    pub head: Head,
    /// The signed head, as it travelled.
    pub head_bytes: &'a [u8],
    /// The events, as they travelled.
    pub body: &'a [u8],
    envelope: Envelope<'a>,
}

impl<'a> Batch<'a> {
    /// Takes a payload apart: strict in the head, blind to the body but for its length. This is all that the gate does.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, BatchError> {
        let batch = Self::split(payload)?;
        if batch.head.body_bytes == batch.body.len() as u64 {
            Ok(batch)
        } else {
            Err(BatchError::Shape)
        }
    }

    /// Takes a signed head apart whose body was purged: as strict, and there is nothing behind it. No body is empty, so one is never
    /// taken for the other.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn parse_head(head: &'a [u8]) -> Result<Self, BatchError> {
        let batch = Self::split(head)?;
        if batch.body.is_empty() && batch.head.body_bytes > 0 {
            Ok(batch)
        } else {
            Err(BatchError::Shape)
        }
    }

    fn split(payload: &'a [u8]) -> Result<Self, BatchError> {
        let (envelope, body) = Envelope::parse_front(payload, TYP)?;
        let head_bytes = payload
            .get(..payload.len().saturating_sub(body.len()))
            .filter(|bytes| bytes.len() <= BATCH_HEAD_BYTES_MAX)
            .ok_or(BatchError::Shape)?;
        let head: Head = cbor::from_slice(envelope.payload, BATCH_HEAD_BYTES_MAX)
            .map_err(|error: CborError| BatchError::Head(VerifyError::Payload(error)))?;
        let is_sound = head.body_bytes <= BATCH_BODY_BYTES_MAX as u64
            && body.len() <= BATCH_BODY_BYTES_MAX
            && head.count <= BATCH_EVENTS_MAX as u64
            && head.first.checked_add(head.count).is_some()
            && head.batch != u64::MAX
            && head.epoch >= 1
            && head.token.is_some() == (head.batch == 0)
            && head.closing != Some(false);
        if !is_sound {
            return Err(BatchError::Shape);
        }
        Ok(Self {
            head,
            head_bytes,
            body,
            envelope,
        })
    }

    /// BLAKE3 of the signed head, which the next one names.
    #[must_use]
    pub fn head_hash(&self) -> [u8; 32] {
        *blake3::hash(self.head_bytes).as_bytes()
    }

    /// Which key its head says signed it: a hint.
    #[must_use]
    pub fn kid(&self) -> KeyId {
        self.envelope.kid
    }

    /// Checks its head's signature; what it follows, a [`Verifier`] knows.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, keys: &[Public<Sandbox>]) -> Result<Public<Sandbox>, VerifyError> {
        self.envelope.verify(keys, b"")
    }

    /// The events of its body.
    ///
    /// # Errors
    /// [`StreamError::Body`] if it is not the body that was signed, or no list of events.
    pub fn events(&self) -> Result<Events<'a>, StreamError> {
        if *blake3::hash(self.body).as_bytes() != *self.head.body_hash {
            return Err(StreamError::Body);
        }
        Events::parse(self.body, self.head.count).map_err(|BadBody| StreamError::Body)
    }
}

/// Why a stream does not verify at a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The batch itself is refused.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// Not signed by the sandbox's key.
    #[error("the head is not signed by the sandbox's key")]
    Signature,
    /// Of another stream.
    #[error("the batch belongs to another stream")]
    Stream,
    /// The body is not the one that was signed.
    #[error("the body is not the one that was signed")]
    Body,
    /// One or more batches are missing before this one.
    #[error("batches are missing: expected batch {expected}, found {found}")]
    Gap {
        /// The number that was expected.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// An earlier number with other content, or one that does not follow from the last: the writer forked, or somebody lies.
    #[error("the batch does not follow from the one before it")]
    Fork,
    /// After the closing batch.
    #[error("a batch after the closing one")]
    Closed,
}

/// What a good batch is.
#[derive(Clone, Debug)]
pub enum Verdict<'a> {
    /// The next one: its head and its events.
    Next(Head, Events<'a>),
    /// The next one, of which only the head is left: so many events were in it, and what they said was purged.
    Purged(Head),
    /// One that was seen before, by its signed head. Whatever its body is now, it tells nothing new.
    Again,
}

/// Heads that were seen, the oldest forgotten first.
#[derive(Clone, Debug)]
struct Seen {
    heads: HashSet<[u8; 32]>,
    order: VecDeque<[u8; 32]>,
    max: usize,
}

impl Seen {
    fn insert(&mut self, head: [u8; 32]) {
        if self.order.len() >= self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.heads.remove(&oldest);
        }
        self.order.push_back(head);
        self.heads.insert(head);
    }
}

/// Follows a stream from its first batch and says for each whether it is the next (`SPEC.md`, 8.7).
#[derive(Clone, Debug)]
pub struct Verifier {
    key: Public<Sandbox>,
    stream: [u8; 16],
    epoch: u64,
    next_batch: u64,
    next_event: u64,
    previous: [u8; 32],
    closed: bool,
    seen: Seen,
    /// Of a part: the epoch, the batch and the event that it began with.
    began: Option<(u64, u64, u64)>,
}

impl Verifier {
    /// Follows the stream of a sandbox, whose key a verified `launched` report names. Remembers [`HEADS_REMEMBERED`] heads.
    #[must_use]
    pub fn new(host: &HostId, sandbox: &SandboxId, key: Public<Sandbox>) -> Self {
        Self::remembering(host, sandbox, key, HEADS_REMEMBERED)
    }

    /// The same, remembering `heads_max` heads at 64 bytes each: one that is forgotten is a fork when it comes again.
    #[must_use]
    pub fn remembering(
        host: &HostId,
        sandbox: &SandboxId,
        key: Public<Sandbox>,
        heads_max: usize,
    ) -> Self {
        Self {
            key,
            stream: stream_id(host, sandbox),
            epoch: 1,
            next_batch: 0,
            next_event: 0,
            previous: [0; 32],
            closed: false,
            seen: Seen {
                heads: HashSet::new(),
                order: VecDeque::new(),
                max: heads_max,
            },
            began: None,
        }
    }

    /// The key that signs the stream.
    #[must_use]
    pub fn key(&self) -> Public<Sandbox> {
        self.key
    }

    /// Events seen so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.next_event
    }

    /// Whether the closing batch was seen: if not, the tail may be missing.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Checks the next payload.
    ///
    /// # Errors
    /// [`StreamError`]; the verifier stays where it was.
    pub fn check<'a>(&mut self, payload: &'a [u8]) -> Result<Verdict<'a>, StreamError> {
        let batch = Batch::parse(payload)?;
        let hash = batch.head_hash();
        if self.seen.heads.contains(&hash) {
            return Ok(Verdict::Again);
        }
        self.judge(&batch)?;
        let events = batch.events()?;
        self.follow(&batch, hash);
        Ok(Verdict::Next(batch.head, events))
    }

    /// Checks the next head, whose body was purged.
    ///
    /// # Errors
    /// [`StreamError`]; the verifier stays where it was.
    pub fn check_head(&mut self, head: &[u8]) -> Result<Verdict<'static>, StreamError> {
        let batch = Batch::parse_head(head)?;
        let hash = batch.head_hash();
        if self.seen.heads.contains(&hash) {
            return Ok(Verdict::Again);
        }
        self.judge(&batch)?;
        self.follow(&batch, hash);
        Ok(Verdict::Purged(batch.head))
    }

    /// Goes on at a later batch, its body there or not, though batches before it are missing: whoever had them says that they were
    /// removed. What comes after it follows from it again. `false`: it is no later batch of this stream.
    pub fn skip_to(&mut self, payload: &[u8]) -> bool {
        let batch = Batch::parse(payload).or_else(|_| Batch::parse_head(payload));
        let Ok(batch) = batch else { return false };
        let head = &batch.head;
        let is_later = !self.closed
            && (head.epoch, head.batch) > (self.epoch, self.next_batch)
            && head.first >= self.next_event
            && *head.stream == self.stream
            && batch.verify(&[self.key]).is_ok();
        if is_later {
            self.epoch = head.epoch;
            self.next_batch = head.batch;
            self.next_event = head.first;
            self.previous = *head.previous;
        }
        is_later
    }

    fn judge(&self, batch: &Batch<'_>) -> Result<(), StreamError> {
        self.check_origin(batch)?;
        self.check_order(&batch.head)
    }

    fn check_origin(&self, batch: &Batch<'_>) -> Result<(), StreamError> {
        batch
            .verify(&[self.key])
            .map_err(|_| StreamError::Signature)?;
        if *batch.head.stream == self.stream {
            Ok(())
        } else {
            Err(StreamError::Stream)
        }
    }

    fn follow(&mut self, batch: &Batch<'_>, hash: [u8; 32]) {
        let head = &batch.head;
        self.epoch = head.epoch;
        self.next_batch = head.batch.saturating_add(1);
        self.next_event = head.first.saturating_add(head.count);
        self.previous = hash;
        self.closed = head.closing.is_some();
        self.seen.insert(hash);
    }

    /// Checks the next payload of a part of a stream: what came before its first batch is taken as that one's head has it. None: it comes
    /// before the first, delivered again; it is signed, and where it belongs is not known. `is_head`: its body was purged.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn check_part<'a>(
        &mut self,
        payload: &'a [u8],
        is_head: bool,
    ) -> Result<Option<Verdict<'a>>, StreamError> {
        let batch = if is_head {
            Batch::parse_head(payload)?
        } else {
            Batch::parse(payload)?
        };
        self.check_origin(&batch)?;
        let head = &batch.head;
        if self.began.is_none() {
            // Whole, or it is no beginning.
            if !is_head {
                batch.events()?;
            }
            self.began = Some((head.epoch, head.batch, head.first));
            (self.epoch, self.next_batch) = (head.epoch, head.batch);
            (self.next_event, self.previous) = (head.first, *head.previous);
        }
        let is_earlier = self.began > Some((head.epoch, head.batch, u64::MAX));
        if is_earlier {
            return Ok(None);
        }
        let verdict = if is_head {
            self.check_head(payload)
        } else {
            self.check(payload)
        };
        verdict.map(Some)
    }

    /// The events that came before the first batch of a part; 0 of what is no part, or begins where its stream does.
    #[must_use]
    pub fn events_before(&self) -> u64 {
        self.began.map_or(0, |(.., event)| event)
    }

    /// Whether the stream's first batch is not among what was checked.
    #[must_use]
    pub fn misses_beginning(&self) -> bool {
        let began = self.began.map(|(epoch, batch, _)| (epoch, batch));
        began.is_some_and(|began| began != (1, 0))
    }

    fn check_order(&self, head: &Head) -> Result<(), StreamError> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        let is_new_epoch = head.epoch > self.epoch;
        let expected = if is_new_epoch { 0 } else { self.next_batch };
        if head.epoch < self.epoch || head.batch < expected {
            return Err(StreamError::Fork);
        }
        if head.batch > expected {
            return Err(StreamError::Gap {
                expected,
                found: head.batch,
            });
        }
        if head.first != self.next_event || *head.previous != self.previous {
            return Err(StreamError::Fork);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
