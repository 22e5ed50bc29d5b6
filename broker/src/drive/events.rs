//! Batches of a sandbox's events: looked at, queued for the journal in one piece, and answered when they are durable.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use protocol::{
    id::{HostId, SandboxId},
    stream::Batch,
};

use super::{Accepted, Plane, intake::entry, lock};
use crate::{
    core::{
        dedup::{Fingerprints, Sighting},
        journal::{Entry, RecordKind},
    },
    shell::{
        journal::{Slot, Ticket},
        room::Waits,
    },
};

/// So many batches, or fewer, wait for others that are about to come before the journal's writer is woken; more are worth it.
const FEW: usize = 8;

/// What tells batches of one stream apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchMark {
    pub(super) epoch: u64,
    pub(super) batch: u64,
    pub(super) fingerprint: u64,
}

impl BatchMark {
    /// Reads a batch's head, strictly, and that it belongs to this stream.
    pub(super) fn read(
        fingerprints: &Fingerprints,
        stream: &[u8; 16],
        payload: &[u8],
    ) -> Option<Self> {
        Self::of(fingerprints, stream, &Batch::parse(payload).ok()?)
    }

    /// The same for a head whose body was purged.
    pub(super) fn read_head(
        fingerprints: &Fingerprints,
        stream: &[u8; 16],
        head: &[u8],
    ) -> Option<Self> {
        Self::of(fingerprints, stream, &Batch::parse_head(head).ok()?)
    }

    fn of(fingerprints: &Fingerprints, stream: &[u8; 16], batch: &Batch<'_>) -> Option<Self> {
        (*batch.head.stream == *stream).then(|| Self {
            epoch: batch.head.epoch,
            batch: batch.head.batch,
            fingerprint: fingerprints.of(batch.head_bytes),
        })
    }
}

/// Batches on their way into the journal. Resolves with what became of each, in their order; dropped, they are written all the same.
#[derive(Debug)]
pub struct Queued {
    accepted: Vec<Accepted>,
    /// Resolves when they are durable, and what they repeat. None: there is nothing to wait for.
    ticket: Option<Ticket>,
}

impl Future for Queued {
    type Output = Vec<Accepted>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Accepted>> {
        let durable = match &mut self.ticket {
            None => true,
            Some(ticket) => ready!(Pin::new(ticket).poll(context)).is_ok(),
        };
        let mut accepted = std::mem::take(&mut self.accepted);
        if !durable {
            for one in &mut accepted {
                if matches!(one, Accepted::Stored | Accepted::Again) {
                    *one = Accepted::Failed;
                }
            }
        }
        Poll::Ready(accepted)
    }
}

/// Batches that were looked at: what tells each from others, and what is to be journaled of it. None is no batch of this stream.
struct Marked<'a>(Vec<Option<(BatchMark, Entry<'a>)>>);

impl Marked<'_> {
    /// What they take of the journal, in bytes.
    fn bytes(&self) -> usize {
        let entries = self.0.iter().flatten();
        entries.map(|(_, entry)| entry.frame_bytes()).sum()
    }

    /// The same answer for all that are batches.
    fn all(&self, accepted: Accepted) -> Vec<Accepted> {
        let answer = |mark: &Option<_>| mark.as_ref().map_or(Accepted::Malformed, |_| accepted);
        self.0.iter().map(answer).collect()
    }
}

impl Plane {
    /// Queues batches of a sandbox's events, whose stream's id is at hand, if there is room for them at once.
    #[must_use]
    pub fn queue_events(
        &self,
        whose: (&HostId, &SandboxId),
        stream: [u8; 16],
        payloads: &[Vec<u8>],
    ) -> Option<Queued> {
        let marked = self.mark(whose, stream, payloads);
        if let Some(accepted) = self.answer_at_once(&marked) {
            let ticket = None;
            return Some(Queued { accepted, ticket });
        }
        let slot = self.journal().try_reserve(marked.bytes())?;
        if payloads.len() <= FEW {
            self.journal().cork_for_turn();
        }
        Some(self.queue_marked(whose, &marked, slot))
    }

    /// The same, waiting for room; answers when they are durable.
    pub async fn accept_events(
        &self,
        whose: (&HostId, &SandboxId),
        stream: [u8; 16],
        payloads: &[Vec<u8>],
    ) -> Vec<Accepted> {
        let marked = self.mark(whose, stream, payloads);
        if let Some(accepted) = self.answer_at_once(&marked) {
            return accepted;
        }
        match self.place(self.journal(), marked.bytes()).await {
            Ok(slot) => self.queue_marked(whose, &marked, slot).await,
            Err(refused) => marked.all(refused),
        }
    }

    fn mark<'a>(
        &self,
        (host, sandbox): (&'a HostId, &'a SandboxId),
        stream: [u8; 16],
        payloads: &'a [Vec<u8>],
    ) -> Marked<'a> {
        let time = self.now();
        let marked = payloads.iter().map(|payload| {
            let mark = BatchMark::read(&self.inner.fingerprints, &stream, payload)?;
            let entry = entry(RecordKind::Event, (host, Some(sandbox)), time, payload);
            Some((mark, entry))
        });
        Marked(marked.collect())
    }

    /// What is told of batches that are not to be stored at all.
    fn answer_at_once(&self, marked: &Marked<'_>) -> Option<Vec<Accepted>> {
        // Before it is remembered: what was seen and is not journaled would pass for a repeat.
        let is_to_wait = marked.bytes() > 0 && self.room().refuse(Waits::Event).is_none();
        (!is_to_wait).then(|| marked.all(Accepted::Busy))
    }

    fn queue_marked(
        &self,
        (host, sandbox): (&HostId, &SandboxId),
        marked: &Marked<'_>,
        mut slot: Slot,
    ) -> Queued {
        let mut tables = lock(&self.inner.tables);
        let mut accept = |marked: &Option<(BatchMark, Entry<'_>)>| {
            let Some((mark, entry)) = marked else {
                return Accepted::Malformed;
            };
            let seen = tables.events.observe(
                host.as_str(),
                sandbox.as_str(),
                mark.epoch,
                mark.batch,
                mark.fingerprint,
            );
            match seen {
                Sighting::New if slot.push(entry).is_err() => Accepted::Failed,
                Sighting::New => Accepted::Stored,
                Sighting::Redelivery => Accepted::Again,
                Sighting::Fork => Accepted::Fork,
            }
        };
        let accepted: Vec<_> = marked.0.iter().map(&mut accept).collect();
        // With nothing pushed, this waits for what was pushed before: the first delivery may still be on its way to disk.
        let ticket = Some(slot.submit());
        drop(tables);
        if accepted.contains(&Accepted::Fork) {
            self.note_fork(host, Some(sandbox));
        }
        Queued { accepted, ticket }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::journal::AppendError;

    #[tokio::test]
    async fn what_did_not_reach_the_disk_is_not_acknowledged() {
        use Accepted::{Again, Failed, Fork, Malformed, Stored};
        let all = vec![Stored, Again, Fork, Malformed];
        let told = |answer| {
            let accepted = all.clone();
            let ticket = Some(Ticket::kept(answer));
            Queued { accepted, ticket }
        };
        assert_eq!(told(Ok(7)).await, all);
        let failed = told(Err(AppendError::Failed)).await;
        assert_eq!(failed, [Failed, Failed, Fork, Malformed]);
    }
}
