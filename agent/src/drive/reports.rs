//! Reports on their way: written down, sent, acknowledged, forgotten.

use protocol::id::CommandId;
use protocol::limits::REPORT_SANDBOXES_MAX;
use protocol::report::{self, News, Report, Sighting, State, Status};
use protocol::signed;
use protocol::time::UnixMillis;
use protocol::topic::Topic;
use smol::channel::Sender;

use super::Drive;
use super::site::DISK_WAIT;
use crate::core::outbox::{Class, Full, Refused};
use crate::core::record::{Outcome, SandboxRecord};
use crate::shell::mqtt::NotSent;

/// A report that is not on disk yet.
#[derive(Debug)]
pub(super) struct Unstored {
    pub(super) news: News,
    pub(super) class: Class,
    /// Hears once it is.
    pub(super) done: Option<Sender<Result<(), Full>>>,
}

impl Drive {
    /// Reports an outcome.
    pub(super) fn report(&mut self, news: News) {
        self.on_report(Unstored {
            news,
            class: Class::Outcome,
            done: None,
        });
    }

    /// Writes a report down, now or as soon as the disk takes it.
    pub(super) fn on_report(&mut self, report: Unstored) {
        // One behind another: the order of outcomes is what happened.
        if !self.unstored.is_empty() && report.class == Class::Outcome {
            self.unstored.push_back(report);
            return;
        }
        let Ok(number) = self.outbox.next_number(report.class) else {
            answer(&report, Err(Full));
            return;
        };
        match self.store(number, &report.news, report.class) {
            Ok(()) => answer(&report, Ok(())),
            Err(error) => {
                tracing::error!("{error:#}; trying again");
                match report.class {
                    Class::Outcome => {
                        self.retry_at = Some(self.site.time.now().mono + DISK_WAIT);
                        self.unstored.push_back(report);
                    }
                    Class::Forwarded | Class::Status => answer(&report, Err(Full)),
                }
            }
        }
    }

    /// Tries again what the disk did not take.
    pub(super) fn store_again(&mut self) {
        self.retry_at = None;
        for report in std::mem::take(&mut self.unstored) {
            self.on_report(report);
        }
    }

    /// Signs a report, writes it down under its number, and marks the command that it settles.
    fn store(&mut self, number: u64, news: &News, class: Class) -> anyhow::Result<()> {
        let report = Report {
            host: self.site.host.clone(),
            number,
            time: self.site.time.now().unix,
            news: news.clone(),
        };
        let signed = match &self.site.identity().current {
            Some(current) => report::sign(&current.key, &report),
            None => anyhow::bail!("sign a report: this host is not enrolled"),
        };
        self.site.store.save_report(number, class, &signed)?;
        self.outbox.add(number, class);
        tracing::debug!(number, "report: {}", news.word());
        if let Some(command) = news.settles() {
            self.settle(command, number, signed, is_used(news));
        }
        Ok(())
    }

    /// A report settled a command: a replay is answered with it.
    fn settle(&mut self, command: CommandId, number: u64, report: Vec<u8>, used: bool) {
        if self.memory.find(command).is_none_or(|known| known.settled) {
            return;
        }
        self.memory.settle(command, used);
        let saved = self
            .site
            .store
            .load_command(command)
            .and_then(|mut record| {
                record.outcome = Some(Outcome { number, report });
                record.signed = Vec::new();
                record.used = used;
                self.site.store.save_command(&record)
            });
        if let Err(error) = saved {
            // The report is on disk: the next start settles the command from it, or at worst answers twice.
            tracing::error!("{error:#}");
        }
    }

    /// Settles commands whose report was written down just before the operator was interrupted.
    pub(super) fn settle_from_outbox(&mut self, owed: &[(u64, Class)]) -> anyhow::Result<()> {
        for (number, class) in owed {
            if *class != Class::Outcome {
                continue;
            }
            let bytes = self.site.store.load_report(*number)?;
            // Our own signature, of a key that may have been replaced since.
            if let Ok(report) = signed::peek::<Report>(&bytes)
                && let Some(command) = report.news.settles()
            {
                self.settle(command, *number, bytes, is_used(&report.news));
            }
        }
        Ok(())
    }

    /// Sends what is owed, as far as the link takes it.
    pub(super) fn pump(&mut self) {
        if !self.host.is_online() {
            return;
        }
        if self.status_owed && self.outbox.count(Class::Status) == 0 {
            self.status_owed = false;
            self.report_status();
        }
        let now = self.site.time.now().mono;
        let topic = Topic::Reports(self.site.host.clone()).to_string();
        while let Some(number) = self.outbox.poll_send(now) {
            let Some((_, link)) = &self.link else {
                return;
            };
            let payload = match self.site.store.load_report(number) {
                Ok(payload) => payload,
                Err(error) => {
                    tracing::error!("{error:#}; the report is left out");
                    self.outbox.drop_unsendable(number);
                    continue;
                }
            };
            match link.publish(number, &topic, payload) {
                Ok(()) => self.outbox.sent(number),
                Err(NotSent::Full) => return,
                Err(error @ (NotSent::TooLarge | NotSent::Topic)) => {
                    tracing::error!(number, "send a report: {error}; it is left out");
                    self.outbox.drop_unsendable(number);
                    self.remove_report(number);
                }
            }
        }
    }

    /// The broker has a report on disk.
    pub(super) fn on_acked(&mut self, number: u64) {
        if self.outbox.acked(number) {
            self.remove_report(number);
        }
    }

    /// The broker does not take a report.
    pub(super) fn on_refused(&mut self, number: u64, code: u8) {
        let now = self.site.time.now().mono;
        match self.outbox.refused(number, code, now, super::draw()) {
            Refused::Dropped => {
                tracing::error!(
                    number,
                    "the broker refuses a report for ever, with code {code:#04x}"
                );
                self.remove_report(number);
            }
            Refused::Held => {
                tracing::warn!(
                    number,
                    "the broker refuses a report for now, with code {code:#04x}"
                );
            }
            Refused::Unknown => {}
        }
    }

    fn remove_report(&self, number: u64) {
        if let Err(error) = self.site.store.remove_report(number) {
            // It is sent once more after the next start; its number tells the broker.
            tracing::warn!("{error:#}");
        }
    }

    /// Says that the host is alive, and what it knows.
    fn report_status(&mut self) {
        let engine = self
            .site
            .engine_answers
            .load(std::sync::atomic::Ordering::Relaxed);
        self.said_engine = engine;
        let sightings: Vec<Sighting> = self
            .site
            .records()
            .values()
            .filter(|record| record.ending.is_none())
            .map(|record| sighting(record, engine))
            .collect();
        let generation = self.site.identity().generation();
        let mut parts: Vec<Vec<Sighting>> = sightings
            .chunks(REPORT_SANDBOXES_MAX)
            .map(<[Sighting]>::to_vec)
            .collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        for sandboxes in parts {
            let status = Status {
                generation,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                start: self.start.into(),
                engine,
                sandboxes,
                skew_ms: Some(self.site.time.skew_ms()),
            };
            self.on_report(Unstored {
                news: News::Status(status),
                class: Class::Status,
                done: None,
            });
        }
    }

    /// Forgets commands that can come no more.
    pub(super) fn forget_commands(&mut self, now: UnixMillis) {
        for command in self.memory.forget(now) {
            if let Err(error) = self.site.store.remove_command(command) {
                tracing::warn!("{error:#}");
            }
        }
    }
}

/// What is known of a sandbox; of one that was started, nothing while the engine does not answer.
fn sighting(record: &SandboxRecord, engine: bool) -> Sighting {
    let state = match (&record.running, engine) {
        (None, _) => State::Creating,
        (Some(_), true) => State::Running,
        (Some(_), false) => State::Unknown,
    };
    Sighting {
        sandbox: record.sandbox.clone(),
        state,
    }
}

/// Whether a report means that its command's sandbox was started.
fn is_used(news: &News) -> bool {
    match news {
        News::Launched(_) | News::Ended(_) => true,
        News::Refused(_)
        | News::Stopped(_)
        | News::Forwarded(_)
        | News::Status(_)
        | News::Other(_) => false,
    }
}

fn answer(report: &Unstored, result: Result<(), Full>) {
    if let Some(done) = &report.done {
        // Nobody waits any more: the task was ended with the operator.
        let _ = done.try_send(result);
    }
}
