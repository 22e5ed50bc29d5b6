//! A reader's connection: what is read for it, and where it is written down how far it got.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use protocol::{
    id::{HostId, SandboxId},
    mqtt::ReasonCode,
    topic::{ReadFilter, Topic},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, feeder::Feeder};
use crate::{
    core::{
        gate::{Kept, Message, Place, Reads, Start},
        journal::{RecordKind, split_bench_payload},
        principal::Who,
    },
    shell::journal::{Batch, Filter, Item, OwnedRecord},
};

/// How long after a reader's progress the store has its place. A power cut, or a disk that takes no file of places, repeats what was
/// acknowledged since.
pub(super) const KEEP_WAIT: Duration = Duration::from_secs(1);

impl<S, G> Connection<S, G>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    G: Send,
{
    /// Reads the journal for a reader: its own partition of it.
    pub(super) fn follow(&mut self, from: Start, reads: &Reads) {
        let plane = &self.gate.plane;
        let (journal, filters) = match reads {
            Reads::Records(filters) => (
                Some(plane.journal()),
                filters.iter().map(Filter::from).collect(),
            ),
            Reads::Bench => (plane.bench(), vec![Filter::default()]),
        };
        let Some(journal) = journal else { return };
        let (mut feeder, offset) = Feeder::new(journal, from, filters);
        feeder.is_bench = *reads == Reads::Bench;
        // The first time only: a filter more is no news.
        if let (None, Reads::Records(_), Some(online)) = (&self.feeder, reads, &self.online)
            && let Some(reader) = online.who.reader()
        {
            plane.note_reading(reader);
        }
        self.feeder = Some(feeder);
        self.session.following(offset);
    }

    /// Hands over what was read.
    fn hand_over(&mut self, batch: &Batch) {
        let history = self.gate.plane.history();
        let is_bench = self.feeder.as_ref().is_some_and(|feeder| feeder.is_bench);
        for item in &batch.items {
            let record = match item {
                Item::Gap { from, to, causes } => {
                    let withdrawn = history.withdrawn_in(*from, *to).filter(|_| !is_bench);
                    self.session.missed(*from, *to, *causes, withdrawn);
                    continue;
                }
                Item::Record(record) => record,
            };
            if let Some((topic, payload)) = topic_and_payload(record) {
                self.session.record(Message {
                    offset: record.offset,
                    incarnation: match record.kind {
                        // No restore brings back the journal of load tests: all of it is of this one.
                        RecordKind::Bench => history.current().number,
                        RecordKind::Event | RecordKind::Report | RecordKind::Command => {
                            history.of(record.offset)
                        }
                    },
                    topic: &topic,
                    payload,
                    is_purged: record.is_purged,
                });
            }
        }
        self.session.looked_at(batch.next);
    }

    /// What a reader is to be given.
    pub(super) fn look_at_journal(&mut self, context: &mut Context<'_>) -> bool {
        let room = self.session.room();
        let Some(feeder) = &mut self.feeder else {
            return false;
        };
        let Poll::Ready(batch) = feeder.poll(context, room) else {
            return false;
        };
        match batch {
            Ok(batch) => {
                self.hand_over(&batch);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the journal cannot be read for a reader");
                self.feeder = None;
                let reason = ReasonCode::UNSPECIFIED_ERROR;
                self.session.end(reason, "the journal cannot be read");
            }
        }
        true
    }

    /// A reader that got on has its place written down before it hears more, and within [`KEEP_WAIT`] in the store too.
    pub(super) fn look_at_place(&mut self, now: Instant) {
        let place = self.session.place();
        if let Some(place) = place {
            self.write_place(place);
        }
        if place != self.kept_place && self.keep_at.is_none() {
            self.keep_at = Some(now + KEEP_WAIT);
        }
    }

    fn write_place(&mut self, place: Place) {
        let Some(file) = &mut self.place_file else {
            return;
        };
        if let Err(error) = file.write(place) {
            tracing::warn!(%error, "a reader's place is not written down at every step: if this broker is killed, messages come to it twice");
            self.place_file = None;
        }
    }

    /// What its reader is told of its subscriptions next is true after a crash. The place comes first: the store says whether it counts.
    pub(super) async fn keep_now(&mut self) {
        if let Some(Who::Reader { name, id }) =
            self.online.as_ref().map(|online| online.who.clone())
            && let Some((kept, seconds)) = self.session.keep()
        {
            self.kept_place = self.session.place();
            if let Some(place) = self.kept_place {
                self.write_place(place);
            }
            let plane = &self.gate.plane;
            plane.keep_session_now(&name, &id, kept, seconds).await;
        }
    }

    /// Its place is written down before its seat is free: whoever takes its session over finds it.
    pub(super) async fn keep_last(&mut self) {
        let Some(Who::Reader { name, id }) = self.online.as_ref().map(|online| online.who.clone())
        else {
            return;
        };
        match self.session.keep() {
            Some((kept, seconds)) => {
                let Kept { next, sent, .. } = kept;
                if let Some(next) = next {
                    self.write_place(Place { next, sent });
                }
                let plane = &self.gate.plane;
                plane.keep_session_now(&name, &id, kept, seconds).await;
            }
            None if self.is_resumed => self.gate.plane.forget_session(&name, &id).await,
            None => {}
        }
    }

    pub(super) fn keep_if_due(&mut self, now: Instant) {
        if self.keep_at.take_if(|at| now >= *at).is_none() {
            return;
        }
        self.kept_place = self.session.place();
        if let Some(Who::Reader { name, id }) = self.online.as_ref().map(|online| &online.who)
            && let Some((kept, seconds)) = self.session.keep()
        {
            self.gate.plane.keep_session(name, id, kept, seconds);
        }
    }
}

impl From<&ReadFilter> for Filter {
    fn from(filter: &ReadFilter) -> Self {
        let (kind, host, sandbox) = match filter {
            ReadFilter::Events { host, sandbox } => (RecordKind::Event, host, sandbox.as_ref()),
            ReadFilter::Reports { host } => (RecordKind::Report, host, None),
        };
        Self {
            host: host.as_ref().map(ToString::to_string),
            sandbox: sandbox.map(ToString::to_string),
            kind: Some(kind),
        }
    }
}

/// Where a record of the journal was published, and what. Commands are for their host alone.
fn topic_and_payload(record: &OwnedRecord) -> Option<(String, &[u8])> {
    let host = || HostId::new(&record.host).ok();
    let topic = match record.kind {
        RecordKind::Bench => {
            let (topic, payload) = split_bench_payload(&record.payload)?;
            return Some((topic.to_owned(), payload));
        }
        RecordKind::Event => {
            Topic::Events(host()?, SandboxId::new(record.sandbox.as_deref()?).ok()?)
        }
        RecordKind::Report => Topic::Reports(host()?),
        RecordKind::Command => return None,
    };
    Some((topic.to_string(), &record.payload))
}
