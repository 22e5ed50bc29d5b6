//! Records in, verified lines out. Nothing is shown that a host, a sandbox or a dispatcher did not sign; what does not verify
//! becomes a warning that says why.
//!
//! Reports verify with the host's keys. The `launched` report names the sandbox's key, and with it the sandbox's batches verify,
//! each following from the one before. Batches may come before that report, since they take another connection: they wait for it.

use std::collections::{BTreeMap, VecDeque};

use crate::core::incarnation::Withdrawn;
use protocol::{
    command::{Command, Content},
    event::{Event, FLAG_CONTINUED, Kind},
    hole::Hole,
    id::{HostId, SandboxId},
    key::{Dispatcher, Host, Public, Role},
    limits::BATCHES_WAITING_MAX,
    record::{self, Record},
    report::{self, Launched, News},
    signed::{self, VerifyError},
    stream::{StreamError, Verdict, Verifier},
    time::UnixMillis,
    topic::Topic,
};

/// Sandboxes that are followed at once. Past that the one that was heard of first is forgotten, and its history is asked for
/// again when it speaks.
const STREAMS_MAX: usize = 4096;

/// One thing to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The record it comes from.
    pub(crate) offset: u64,
    /// The incarnation that gave it that offset; 0 where the broker does not say.
    pub(crate) incarnation: u64,
    /// When, by the clock of whoever says so.
    pub(crate) time: UnixMillis,
    /// Whose.
    pub(crate) host: Option<HostId>,
    /// The sandbox it comes from or is about.
    pub(crate) sandbox: Option<SandboxId>,
    /// What.
    pub(crate) what: What,
}

/// What there is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A sandbox's event.
    Event(Told),
    /// A host's report.
    Report(News),
    /// A dispatcher asked for something.
    Asked {
        /// `launch` or `stop`.
        order: &'static str,
        /// Whose key signed it.
        signer: Public<Dispatcher>,
    },
    /// A record that does not verify.
    Unverified(Unverified),
    /// A host's keys are not believed.
    Distrusted(String),
    /// Offsets that it gave before it was restored from a backup, and has forgotten.
    Withdrawn(Withdrawn),
    /// A batch of which the broker's owner had the body purged: so many events, and what they said is gone.
    Purged {
        /// How many.
        events: u64,
    },
    /// Records that the broker does not have any more, and why if it says so.
    Missing(Option<Hole>),
    /// For a person, about what the command line itself does.
    Note(String),
}

/// An event, with its data taken out of the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// What it tells.
    pub(crate) kind: Kind,
    /// Whether the line goes on in the next event of its kind.
    pub(crate) continued: bool,
    /// Bytes that the command wrote.
    pub(crate) size: u64,
    /// A number that depends on the kind.
    pub(crate) value: u64,
    /// What the content policy let through.
    pub(crate) data: Vec<u8>,
    /// It is output, and the content policy lets none through.
    pub(crate) withheld: bool,
}

/// Why a record is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unverified {
    /// A report of no key of the host.
    #[error("a report: {0}")]
    Report(VerifyError),
    /// A command of no dispatcher that is known here.
    #[error("a command: {0}")]
    Command(VerifyError),
    /// A batch of events.
    #[error("events: {0}")]
    Stream(#[from] StreamError),
    /// Batches that came without the report that names their key.
    #[error("events: no report of the host names the key that signs them")]
    NoKey,
    /// A second `launched` report that names another key.
    #[error("a report: it names another key for a sandbox that has one")]
    OtherKey,
    /// More of the same.
    #[error("events: {0} more batches that do not verify")]
    More(u64),
}

/// What is missing before a record can be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The host's keys, or newer ones.
    Keys(HostId),
    /// What the sandbox's host and the sandbox said before: reading began in the middle of its stream.
    History(HostId, SandboxId),
}

/// Where reading began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Before anything that concerns the sandboxes that will be seen.
    Origin,
    /// Somewhere in the journal.
    Midway,
}

type SandboxOf = (HostId, SandboxId);

/// Follows any number of hosts and sandboxes.
#[derive(Debug)]
pub(crate) struct Follow {
    start: Start,
    hosts: BTreeMap<HostId, Vec<Public<Host>>>,
    /// None: commands are not shown.
    dispatchers: Option<Vec<Public<Dispatcher>>>,
    streams: BTreeMap<SandboxOf, Stream>,
    order: VecDeque<SandboxOf>,
    failures: u64,
    /// Records were removed before what was read.
    was_cut: bool,
}

impl Follow {
    /// Knows nobody yet.
    pub(crate) fn new(start: Start) -> Self {
        Self {
            start,
            hosts: BTreeMap::new(),
            dispatchers: None,
            streams: BTreeMap::new(),
            order: VecDeque::new(),
            failures: 0,
            was_cut: false,
        }
    }

    /// Believes these keys of a host.
    pub(crate) fn set_keys(&mut self, host: HostId, keys: Vec<Public<Host>>) {
        self.hosts.insert(host, keys);
    }

    /// Shows commands too, of these dispatchers.
    pub(crate) fn set_dispatchers(&mut self, keys: Vec<Public<Dispatcher>>) {
        self.dispatchers = Some(keys);
    }

    /// Records that did not verify so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// Whether the sandbox's stream was seen to its end.
    pub(crate) fn is_closed(&self, host: &HostId, sandbox: &SandboxId) -> bool {
        self.streams
            .get(&(host.clone(), sandbox.clone()))
            .and_then(|stream| stream.verifier.as_ref())
            .is_some_and(Verifier::is_closed)
    }

    /// What to fetch before [`Self::read`]; asking again after a failed fetch is no use.
    pub(crate) fn need(&self, record: &Record) -> Option<Need> {
        let host = record.host.as_ref()?;
        match record.kind {
            record::Kind::Report => {
                let keys = self.keys(host);
                let verified = report::verify(&record.payload, keys, host);
                matches!(verified, Err(VerifyError::UnknownKey)).then(|| Need::Keys(host.clone()))
            }
            record::Kind::Batch | record::Kind::Head => {
                let sandbox = record.sandbox.as_ref()?;
                let is_known = self.streams.contains_key(&(host.clone(), sandbox.clone()));
                (self.start == Start::Midway && !is_known)
                    .then(|| Need::History(host.clone(), sandbox.clone()))
            }
            record::Kind::Command | record::Kind::Gap | record::Kind::Succession => None,
        }
    }

    /// Judges the next record.
    pub(crate) fn read(&mut self, record: &Record) -> Vec<Line> {
        let place = Place::of(record);
        let whats = match (record.kind, &record.host, &record.sandbox) {
            (record::Kind::Report, Some(host), _) => return self.report(host, record, &place),
            (record::Kind::Batch | record::Kind::Head, Some(host), Some(sandbox)) => {
                let is_head = record.kind == record::Kind::Head;
                let lines =
                    self.stream(host, sandbox)
                        .batch(&place, is_head, record.payload.clone());
                return self.counted(lines);
            }
            (record::Kind::Command, Some(host), _) => self.command(host, &record.payload),
            (record::Kind::Gap, _, _) => vec![What::Missing(self.hole(record))],
            // Where none belongs, or with nobody to be of: no broker of ours sends that.
            (_, _, _) => {
                vec![What::Unverified(Unverified::NoKey)]
            }
        };
        self.counted(
            whats
                .into_iter()
                .map(|what| place.line(record.received, what))
                .collect(),
        )
    }

    /// Where the owner had records removed, streams go on at what is left: the line that says so stands for what is missing.
    fn hole(&mut self, record: &Record) -> Option<Hole> {
        let hole = Hole::decode(&record.payload).filter(|hole| hole.to > record.offset);
        if hole.is_some_and(|hole| hole.causes.is_willed()) {
            self.was_cut = true;
            self.streams
                .values_mut()
                .for_each(|stream| stream.may_skip = true);
        }
        hole
    }

    fn keys(&self, host: &HostId) -> &[Public<Host>] {
        self.hosts.get(host).map_or(&[], Vec::as_slice)
    }

    fn report(&mut self, host: &HostId, record: &Record, place: &Place) -> Vec<Line> {
        let report = match report::verify(&record.payload, self.keys(host), host) {
            Ok(report) => report.into_value(),
            Err(error) => {
                let what = What::Unverified(Unverified::Report(error));
                return self.counted(vec![place.line(record.received, what)]);
            }
        };
        // What the report says it is about counts, not where the broker filed it.
        let place = Place {
            sandbox: report.news.sandbox().cloned(),
            ..place.clone()
        };
        let mut lines = match &report.news {
            News::Launched(launched) => {
                self.stream(host, &launched.sandbox)
                    .launched(host, &place, report.time, launched)
            }
            News::Forwarded(forwarded) => {
                self.stream(host, &forwarded.sandbox)
                    .batch(&place, false, forwarded.batch.to_vec())
            }
            News::Ended(ended) => self.stream(host, &ended.sandbox).ended(&place, report.time),
            News::Refused(_) | News::Stopped(_) | News::Status(_) | News::Other(_) => Vec::new(),
        };
        let shown = place.line(report.time, What::Report(report.news));
        match &shown.what {
            // Its events are shown in its place.
            What::Report(News::Forwarded(_)) => {}
            // Before the events that waited for it.
            What::Report(News::Launched(_)) => lines.insert(0, shown),
            _ => lines.push(shown),
        }
        self.counted(lines)
    }

    fn command(&self, host: &HostId, payload: &[u8]) -> Vec<What> {
        let Some(dispatchers) = &self.dispatchers else {
            return Vec::new();
        };
        let topic = Topic::Commands(host.clone()).to_string();
        let shown = match signed::verify::<Command>(payload, dispatchers, topic.as_bytes()) {
            Ok(command) => What::Asked {
                order: command.value().order.word(),
                signer: command.signer(),
            },
            Err(error) => What::Unverified(Unverified::Command(error)),
        };
        vec![shown]
    }

    fn stream(&mut self, host: &HostId, sandbox: &SandboxId) -> &mut Stream {
        let name = (host.clone(), sandbox.clone());
        if !self.streams.contains_key(&name) {
            if self.order.len() >= STREAMS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.streams.remove(&oldest);
            }
            self.order.push_back(name.clone());
        }
        let may_skip = self.was_cut;
        let begin = || Stream {
            may_skip,
            ..Stream::default()
        };
        self.streams.entry(name).or_insert_with(begin)
    }

    fn counted(&mut self, lines: Vec<Line>) -> Vec<Line> {
        let failed = lines
            .iter()
            .filter(|line| matches!(line.what, What::Unverified(_)))
            .count();
        self.failures = self
            .failures
            .saturating_add(u64::try_from(failed).unwrap_or(u64::MAX));
        lines
    }
}

/// Where a line comes from.
#[derive(Clone, Debug)]
struct Place {
    offset: u64,
    accepted: UnixMillis,
    host: Option<HostId>,
    sandbox: Option<SandboxId>,
}

impl Place {
    fn of(record: &Record) -> Self {
        Self {
            offset: record.offset,
            accepted: record.received,
            host: record.host.clone(),
            sandbox: record.sandbox.clone(),
        }
    }

    fn line(&self, time: UnixMillis, what: What) -> Line {
        Line {
            offset: self.offset,
            incarnation: 0,
            time,
            host: self.host.clone(),
            sandbox: self.sandbox.clone(),
            what,
        }
    }
}

/// One sandbox's events.
#[derive(Debug, Default)]
struct Stream {
    key: Option<Public<protocol::key::Sandbox>>,
    content: Option<Content>,
    verifier: Option<Verifier>,
    /// With whether only the head is left.
    waiting: Vec<(Place, bool, Vec<u8>)>,
    /// Records were removed since its last batch, or before its first.
    may_skip: bool,
    last_error: Option<StreamError>,
    /// Failures that were not shown, since they are like the one before.
    untold: u64,
}

impl Stream {
    fn launched(
        &mut self,
        host: &HostId,
        place: &Place,
        time: UnixMillis,
        launched: &Launched,
    ) -> Vec<Line> {
        match self.key {
            None => {
                self.key = Some(launched.key);
                self.content = Some(launched.content);
                self.verifier = Some(Verifier::new(host, &launched.sandbox, launched.key));
                let waiting = std::mem::take(&mut self.waiting);
                waiting
                    .into_iter()
                    .flat_map(|(place, is_head, payload)| self.batch(&place, is_head, payload))
                    .collect()
            }
            Some(known) if known == launched.key => Vec::new(),
            Some(_) => vec![place.line(time, What::Unverified(Unverified::OtherKey))],
        }
    }

    fn batch(&mut self, place: &Place, is_head: bool, payload: Vec<u8>) -> Vec<Line> {
        let Some(verifier) = &mut self.verifier else {
            if self.waiting.len() >= BATCHES_WAITING_MAX {
                return self.failed(place, Unverified::NoKey);
            }
            self.waiting.push((place.clone(), is_head, payload));
            return Vec::new();
        };
        if self.may_skip {
            // Nothing where it follows, or is no later batch: that is for the check to say.
            let _ = verifier.skip_to(&payload);
        }
        let verdict = if is_head {
            verifier.check_head(&payload)
        } else {
            verifier.check(&payload)
        };
        match verdict {
            Ok(Verdict::Again) => Vec::new(),
            Ok(Verdict::Purged(head)) => {
                (self.last_error, self.may_skip) = (None, false);
                let events = head.count;
                vec![place.line(head.time, What::Purged { events })]
            }
            Ok(Verdict::Next(_, events)) => {
                (self.last_error, self.may_skip) = (None, false);
                let content = self.content;
                events.map(|event| told(place, &event, content)).collect()
            }
            Err(error) => {
                let is_alike = self.last_error.is_some_and(|last| {
                    std::mem::discriminant(&last) == std::mem::discriminant(&error)
                });
                self.last_error = Some(error);
                if is_alike {
                    self.untold = self.untold.saturating_add(1);
                    return Vec::new();
                }
                self.failed(place, error.into())
            }
        }
    }

    /// The host says that it is over: what still waits will wait for ever.
    fn ended(&mut self, place: &Place, time: UnixMillis) -> Vec<Line> {
        let mut lines = Vec::new();
        if !self.waiting.is_empty() {
            self.waiting.clear();
            lines.push(place.line(time, What::Unverified(Unverified::NoKey)));
        }
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            lines.push(place.line(time, What::Unverified(Unverified::More(untold))));
        }
        lines
    }

    fn failed(&mut self, place: &Place, why: Unverified) -> Vec<Line> {
        if why == Unverified::NoKey && self.untold > 0 {
            self.untold = self.untold.saturating_add(1);
            return Vec::new();
        }
        if why == Unverified::NoKey {
            self.untold = 1;
        }
        vec![place.line(place.accepted, What::Unverified(why))]
    }
}

fn told(place: &Place, event: &Event<'_>, content: Option<Content>) -> Line {
    let is_output = matches!(event.kind, Kind::Stdout | Kind::Stderr);
    let withholds = match content {
        Some(Content::Full) | None => false,
        Some(Content::Redacted) => event.data.is_empty(),
        Some(Content::Metadata) => true,
    };
    place.line(
        event.time,
        What::Event(Told {
            kind: event.kind,
            continued: event.flags & FLAG_CONTINUED != 0,
            size: event.size,
            value: event.value,
            data: event.data.to_vec(),
            withheld: is_output && withholds,
        }),
    )
}

/// The start of a public key, as people compare keys.
pub(crate) fn short<R: Role>(key: &Public<R>) -> String {
    let text = key.to_string();
    text.get(..R::PREFIX.len() + 1 + 12)
        .unwrap_or(&text)
        .to_owned()
}

#[cfg(test)]
pub(crate) mod tests;
