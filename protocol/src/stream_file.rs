//! Checking a stream file: one sandbox's stream with all that is needed to judge it offline (`SPEC.md`, chapter 10).
//!
//! The one thing that does not come from the file is the anchor: the host's first public key. From it follow the host's later keys, from
//! them its reports, from the first `launched` report the sandbox's key, and from that every event.

use crate::{
    command::{self, CommandError},
    event::{Event, Kind as EventKind},
    exchange::Succession,
    hole::Hole,
    key::{Dispatcher, Host, Public},
    limits::BATCHES_WAITING_MAX,
    record::{Kind, Opening, Record},
    report::{self, Launched, News},
    signed::{self, VerifyError},
    stream::{StreamError, Verdict, Verifier},
};

/// Why an item does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Its bytes are no item of a stream file.
    #[error("not an item of a stream file")]
    Malformed,
    /// The file ends inside it.
    #[error("the file ends inside it")]
    CutShort,
    /// It belongs into another file.
    #[error("filed under another host or sandbox")]
    Elsewhere,
    /// Records come in the order of their offsets.
    #[error("its offset does not come after the one before it")]
    Offset,
    /// A lost record says no more than how far it goes and why.
    #[error("a hole in the journal with something in it")]
    Hole,
    /// Successions come first.
    #[error("a succession behind other records")]
    Late,
    /// Not the host's last key naming the next.
    #[error("a succession: {0}")]
    Succession(VerifyError),
    /// A generation is left out, or comes twice, or it is another host's.
    #[error("a succession that does not follow from the one before it")]
    Chain,
    /// Not signed by a key of the host.
    #[error("a report: {0}")]
    Report(VerifyError),
    /// A second `launched` report that names another key.
    #[error("a report that names another key for a sandbox that has one")]
    OtherKey,
    /// Not signed by a dispatcher that was given.
    #[error("{0}")]
    Command(CommandError),
    /// Its batch is not the next one.
    #[error("events: {0}")]
    Stream(StreamError),
    /// Batches of which nothing says who signs them.
    #[error("events: no report of the host names the key that signs them")]
    NoKey,
}

/// The first item that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("item {item}: {why}")]
pub struct Fault {
    /// Counted from 0, which is the opening.
    pub item: u64,
    /// Why.
    pub why: Why,
}

/// What was found so far, all of it verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Items, the opening among them.
    pub items: u64,
    /// Batches of events, each counted once.
    pub batches: u64,
    /// Of these, batches whose body was purged: how many events they had is known, and not what they said.
    pub purged: u64,
    /// The events of these.
    pub purged_events: u64,
    /// Batches that came again.
    pub redelivered: u64,
    /// Of a part: batches that came before its first one, and can be put nowhere.
    pub earlier: u64,
    /// Events that the sandbox says it dropped before it sealed them.
    pub dropped: u64,
    /// What the sandbox says its command ended with.
    pub exit_code: Option<u64>,
    /// Reports of the host.
    pub reports: u64,
    /// Commands.
    pub commands: u64,
    /// Places where the broker's journal lost records.
    pub holes: u64,
    /// Of these, places where it says that its owner had them removed.
    pub removed: u64,
}

/// Judges a stream file, record by record.
#[derive(Debug)]
pub struct Check {
    opening: Opening,
    /// None: commands are counted and not judged.
    dispatchers: Option<Vec<Public<Dispatcher>>>,
    keys: Vec<Public<Host>>,
    generation: Option<u64>,
    offset: Option<u64>,
    item: u64,
    verifier: Option<Verifier>,
    /// Batches before the report that names their key, with their items, and whether only their heads are left.
    waiting: Vec<(u64, bool, Vec<u8>)>,
    found: Found,
}

impl Check {
    /// Judges the file that starts with `opening`, by the host's first key.
    #[must_use]
    pub fn new(
        opening: Opening,
        anchor: Public<Host>,
        dispatchers: Option<Vec<Public<Dispatcher>>>,
    ) -> Self {
        Self {
            opening,
            dispatchers,
            keys: vec![anchor],
            generation: None,
            offset: None,
            item: 0,
            verifier: None,
            waiting: Vec::new(),
            found: Found {
                items: 1,
                ..Found::default()
            },
        }
    }

    /// Whose stream it is.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// What was found so far.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The host's keys, the anchor first.
    #[must_use]
    pub fn host_keys(&self) -> &[Public<Host>] {
        &self.keys
    }

    /// The stream, once a report has named its key.
    #[must_use]
    pub fn stream(&self) -> Option<&Verifier> {
        self.verifier.as_ref()
    }

    /// Whether commands are judged, or only counted.
    #[must_use]
    pub fn judges_commands(&self) -> bool {
        self.dispatchers.is_some()
    }

    /// Whether the closing head was seen: if not, the tail may be missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.verifier.as_ref().is_some_and(Verifier::is_closed)
    }

    /// Whether the file is a part, and the stream's beginning is not in it.
    #[must_use]
    pub fn misses_beginning(&self) -> bool {
        let stream = self.verifier.as_ref();
        self.opening.is_part
            && stream.is_none_or(|stream| stream.misses_beginning() || stream.events() == 0)
    }

    /// The events that the file holds, each counted once.
    #[must_use]
    pub fn events(&self) -> u64 {
        let stream = self.verifier.as_ref();
        stream.map_or(0, |stream| {
            stream.events().saturating_sub(stream.events_before())
        })
    }

    /// Judges the next record.
    ///
    /// # Errors
    /// [`Fault`]: everything before its item verifies. Nothing after it says anything.
    pub fn record(&mut self, record: &Record) -> Result<(), Fault> {
        self.item += 1;
        self.judge(record)?;
        self.found.items += 1;
        Ok(())
    }

    /// What the next item, which could not be read, means.
    #[must_use]
    pub fn unreadable(&self, why: Why) -> Fault {
        Fault {
            item: self.item + 1,
            why,
        }
    }

    /// Judges the end of the file.
    ///
    /// # Errors
    /// [`Fault`]: batches are left that no report names the key of.
    pub fn finish(&self) -> Result<(), Fault> {
        match self.waiting.first() {
            None => Ok(()),
            Some((item, ..)) => Err(Fault {
                item: *item,
                why: Why::NoKey,
            }),
        }
    }

    fn judge(&mut self, record: &Record) -> Result<(), Fault> {
        let is_here = match record.kind {
            Kind::Gap => record.host.is_none() && record.sandbox.is_none(),
            Kind::Succession => {
                record.host.as_ref() == Some(&self.opening.host) && record.sandbox.is_none()
            }
            Kind::Batch | Kind::Head | Kind::Report | Kind::Command => {
                record.host.as_ref() == Some(&self.opening.host)
                    && record.sandbox.as_ref() == Some(&self.opening.sandbox)
            }
        };
        if !is_here {
            return self.fault(Why::Elsewhere);
        }
        if matches!(record.kind, Kind::Gap | Kind::Succession) && record.received.0 != 0 {
            return self.fault(Why::Malformed);
        }
        if record.kind == Kind::Succession {
            return self.succession(record);
        }
        if self.offset.is_some_and(|before| record.offset <= before) {
            return self.fault(Why::Offset);
        }
        self.offset = Some(record.offset);
        match record.kind {
            Kind::Gap => self.hole(record),
            Kind::Batch => self.batch(self.item, false, &record.payload),
            Kind::Head => self.batch(self.item, true, &record.payload),
            Kind::Report => self.report(&record.payload),
            Kind::Command => self.command(&record.payload),
            Kind::Succession => Ok(()),
        }
    }

    fn hole(&mut self, record: &Record) -> Result<(), Fault> {
        let hole = Hole::decode(&record.payload).filter(|hole| hole.to > record.offset);
        let is_removed = hole.is_some_and(|hole| hole.causes.is_willed());
        if hole.is_none() && !record.payload.is_empty() {
            return self.fault(Why::Hole);
        }
        self.found.holes += 1;
        self.found.removed += u64::from(is_removed);
        Ok(())
    }

    fn succession(&mut self, record: &Record) -> Result<(), Fault> {
        if self.offset.is_some() || record.offset != 0 {
            return self.fault(Why::Late);
        }
        let last = self.keys.last().copied();
        let named: Succession = match signed::verify(&record.payload, last.as_slice(), b"") {
            Ok(verified) => verified.into_value(),
            Err(error) => return self.fault(Why::Succession(error)),
        };
        let follows = self
            .generation
            .is_none_or(|before| before.checked_add(1) == Some(named.generation));
        if named.host != self.opening.host || !follows {
            return self.fault(Why::Chain);
        }
        self.generation = Some(named.generation);
        self.keys.push(named.key);
        Ok(())
    }

    fn command(&mut self, payload: &[u8]) -> Result<(), Fault> {
        if let Some(dispatchers) = &self.dispatchers
            && let Err(error) = command::verify_undated(payload, dispatchers, &self.opening.host)
        {
            return self.fault(Why::Command(error));
        }
        self.found.commands += 1;
        Ok(())
    }

    fn report(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let report = match report::verify(payload, &self.keys, &self.opening.host) {
            Ok(report) => report.into_value(),
            Err(error) => return self.fault(Why::Report(error)),
        };
        self.found.reports += 1;
        if report.news.sandbox() != Some(&self.opening.sandbox) {
            return Ok(());
        }
        match report.news {
            News::Launched(launched) => self.launched(&launched),
            News::Forwarded(forwarded) => self.batch(self.item, false, &forwarded.batch),
            News::Ended(_) => self.finish(),
            News::Refused(_) | News::Stopped(_) | News::Status(_) | News::Other(_) => Ok(()),
        }
    }

    fn launched(&mut self, launched: &Launched) -> Result<(), Fault> {
        match &self.verifier {
            Some(verifier) if verifier.key() == launched.key => Ok(()),
            Some(_) => self.fault(Why::OtherKey),
            None => {
                let Opening { host, sandbox, .. } = &self.opening;
                // Every head is remembered: the file's own size bounds them.
                let verifier = Verifier::remembering(host, sandbox, launched.key, usize::MAX);
                self.verifier = Some(verifier);
                std::mem::take(&mut self.waiting)
                    .into_iter()
                    .try_for_each(|(item, is_head, payload)| self.batch(item, is_head, &payload))
            }
        }
    }

    fn batch(&mut self, item: u64, is_head: bool, payload: &[u8]) -> Result<(), Fault> {
        let Some(verifier) = &mut self.verifier else {
            if self.waiting.len() >= BATCHES_WAITING_MAX {
                return self.fault(Why::NoKey);
            }
            self.waiting.push((item, is_head, payload.to_vec()));
            return Ok(());
        };
        let judged = match (self.opening.is_part, is_head) {
            (true, _) => verifier.check_part(payload, is_head),
            (false, true) => verifier.check_head(payload).map(Some),
            (false, false) => verifier.check(payload).map(Some),
        };
        match judged {
            Ok(None) => self.found.earlier += 1,
            Ok(Some(Verdict::Again)) => self.found.redelivered += 1,
            Ok(Some(Verdict::Purged(head))) => {
                self.found.batches += 1;
                self.found.purged += 1;
                self.found.purged_events += head.count;
            }
            Ok(Some(Verdict::Next(_, events))) => {
                self.found.batches += 1;
                for event in events {
                    self.found.note(&event);
                }
            }
            Err(error) => {
                let why = Why::Stream(error);
                return Err(Fault { item, why });
            }
        }
        Ok(())
    }

    fn fault(&self, why: Why) -> Result<(), Fault> {
        let item = self.item;
        Err(Fault { item, why })
    }
}

impl Found {
    fn note(&mut self, event: &Event<'_>) {
        match event.kind {
            EventKind::Gap => self.dropped = self.dropped.saturating_add(event.value),
            EventKind::Exited => self.exit_code = Some(event.value),
            EventKind::Started
            | EventKind::Stdout
            | EventKind::Stderr
            | EventKind::Progress
            | EventKind::Other(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
