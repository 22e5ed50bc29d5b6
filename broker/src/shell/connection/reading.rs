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

use super::{
    Connection,
    feeder::{Fed, Feeder},
};
use crate::{
    core::{
        gate::{Kept, Message, Place, Reads, Session, Start},
        incarnation::History,
        journal::{Record, RecordKind, split_bench_payload},
        principal::Who,
    },
    shell::{
        clock,
        journal::{Batch, Filter, Item},
    },
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

    /// What a reader is to be given.
    pub(super) fn look_at_journal(&mut self, context: &mut Context<'_>) -> bool {
        let Some(feeder) = &mut self.feeder else {
            return false;
        };
        let room = self.session.room();
        let mut giving = Giving {
            is_bench: feeder.is_bench,
            session: &mut self.session,
            history: self.gate.plane.history(),
            named: None,
        };
        let Poll::Ready(fed) = feeder.poll(context, room, |record| giving.record(&record)) else {
            return false;
        };
        match fed {
            Ok(Fed::Live(live)) => giving.session.looked_at(live.next),
            Ok(Fed::Batch(batch)) => giving.batch(&batch),
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
    pub(super) fn look_at_place(&mut self) {
        let place = self.session.place();
        if let Some(place) = place {
            self.write_place(place);
        }
        if place != self.kept_place && self.keep_at.is_none() {
            self.keep_at = Some(clock::mono() + KEEP_WAIT);
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

/// Records on their way from the journal to a session.
struct Giving<'a> {
    session: &'a mut Session,
    history: &'a History,
    is_bench: bool,
    /// The topic of the last one: those of one sandbox mostly follow each other.
    named: Option<Named>,
}

struct Named {
    kind: RecordKind,
    host: String,
    sandbox: Option<String>,
    topic: String,
}

impl Giving<'_> {
    fn batch(&mut self, batch: &Batch) {
        for item in &batch.items {
            match item {
                Item::Gap { from, to, causes } => {
                    let withdrawn = self.history.withdrawn_in(*from, *to);
                    let withdrawn = withdrawn.filter(|_| !self.is_bench);
                    self.session.missed(*from, *to, *causes, withdrawn);
                }
                Item::Record(record) => self.record(&record.as_record()),
            }
        }
        self.session.looked_at(batch.next);
    }

    fn record(&mut self, record: &Record<'_>) {
        let (topic, payload, incarnation) = if record.kind == RecordKind::Bench {
            let Some((topic, payload)) = split_bench_payload(record.payload) else {
                return;
            };
            // No restore brings back the journal of load tests: all of it is of this one.
            (topic, payload, self.history.current().number)
        } else {
            let is_last = |named: &Named| {
                named.kind == record.kind
                    && named.host == record.host
                    && named.sandbox.as_deref() == record.sandbox
            };
            if !self.named.as_ref().is_some_and(is_last) {
                self.named = Named::new(record);
            }
            let Some(named) = &self.named else { return };
            let incarnation = self.history.of(record.offset);
            (named.topic.as_str(), record.payload, incarnation)
        };
        self.session.record(Message {
            offset: record.offset,
            incarnation,
            topic,
            payload,
            is_purged: record.is_purged,
        });
    }
}

impl Named {
    /// Where a record of the journal was published. Commands are for their host alone.
    fn new(record: &Record<'_>) -> Option<Self> {
        let host = HostId::new(record.host).ok()?;
        let topic = match record.kind {
            RecordKind::Event => Topic::Events(host, SandboxId::new(record.sandbox?).ok()?),
            RecordKind::Report => Topic::Reports(host),
            RecordKind::Command | RecordKind::Bench => return None,
        };
        Some(Self {
            kind: record.kind,
            host: record.host.to_owned(),
            sandbox: record.sandbox.map(str::to_owned),
            topic: topic.to_string(),
        })
    }
}
