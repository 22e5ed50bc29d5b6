//! What the gate hands in. Durable first, acknowledged after: batches are in [`super::events`], reports here.

use std::time::Duration;

use protocol::{
    id::{HostId, SandboxId},
    report::{self, News, Report},
    stream,
    time::UnixMillis,
};
use tokio::time::timeout;

use super::{Accepted, Plane, clerk::Note, events::BatchMark, lock};
use crate::{
    core::{
        dedup::Sighting,
        journal::{Entry, RecordKind},
    },
    shell::{
        journal::{Journal, Slot},
        room::Waits,
    },
};

/// How long a payload may wait for room in the journal's queue. Past that the disk does not keep up, and the sender is told so.
const ROOM_WAIT: Duration = Duration::from_secs(5);

impl Plane {
    pub(super) async fn take_report(&self, host: &HostId, payload: Vec<u8>) -> Accepted {
        let keys = self.report_keys(host);
        let publics: Vec<_> = keys.iter().map(|key| key.key).collect();
        let Ok(verified) = report::verify(&payload, &publics, host) else {
            return Accepted::Malformed;
        };
        let signer = verified.signer();
        let Some(generation) = keys
            .iter()
            .find(|key| key.key == signer)
            .map(|key| key.generation)
        else {
            return Accepted::Malformed;
        };
        if self.room().refuse(Waits::Report).is_some() {
            return Accepted::Busy;
        }
        let report = verified.into_value();
        let fingerprint = self.inner.fingerprints.of(&payload);
        let time = self.now();
        let sandbox = report.news.sandbox();
        let entry = entry(RecordKind::Report, (host, sandbox), time, &payload);
        // A container can leave anything in its spool. Only what is a batch of its own is filed; the report is kept either way.
        let wrapped = match &report.news {
            News::Forwarded(forwarded) => {
                let stream = stream::stream_id(host, &forwarded.sandbox);
                let mark = BatchMark::read(&self.inner.fingerprints, &stream, &forwarded.batch);
                mark.map(|mark| {
                    let whose = (host, Some(&forwarded.sandbox));
                    (
                        mark,
                        self::entry(RecordKind::Event, whose, time, &forwarded.batch),
                    )
                })
            }
            News::Refused(_)
            | News::Launched(_)
            | News::Ended(_)
            | News::Stopped(_)
            | News::Status(_)
            | News::Other(_) => None,
        };
        let bytes =
            entry.frame_bytes() + wrapped.as_ref().map_or(0, |(_, entry)| entry.frame_bytes());
        let mut slot = match self.place(self.journal(), bytes).await {
            Ok(slot) => slot,
            Err(refused) => return refused,
        };
        let following = self.inner.following.clone().read_owned().await;
        let (accepted, ticket) = {
            let mut tables = lock(&self.inner.tables);
            match tables
                .reports
                .observe(host.as_str(), "", generation, report.number, fingerprint)
            {
                Sighting::New => {
                    let mut pushed = slot.push(&entry);
                    if let Some((mark, entry)) = &wrapped
                        && let Some(sandbox) = entry.sandbox
                        && tables.events.observe(
                            host.as_str(),
                            sandbox,
                            mark.epoch,
                            mark.batch,
                            mark.fingerprint,
                        ) == Sighting::New
                    {
                        pushed = pushed.and_then(|()| slot.push(entry));
                    }
                    if pushed.is_err() {
                        return Accepted::Failed;
                    }
                    (Accepted::Stored, slot.submit())
                }
                Sighting::Redelivery => (Accepted::Again, slot.submit()),
                Sighting::Fork => {
                    drop(tables);
                    self.note_fork(host, None);
                    return Accepted::Fork;
                }
            }
        };
        lock(&self.inner.seen).insert(host.clone(), time);
        let plane = self.clone();
        // A task of its own: once it is in the journal the store must follow, whatever becomes of the link.
        let follow = tokio::spawn(async move {
            let _following = following;
            let Ok(offset) = ticket.await else {
                return Accepted::Failed;
            };
            if accepted == Accepted::Stored {
                return plane.follow(report, offset, time.0).await;
            }
            accepted
        });
        follow.await.unwrap_or(Accepted::Failed)
    }

    /// Waits until the store has followed every report that a reader of the journal may have seen by now.
    pub async fn followed(&self) {
        drop(self.inner.following.write().await);
    }

    async fn follow(&self, report: Report, offset: u64, time_ms: u64) -> Accepted {
        match self
            .blocking(move |plane| plane.apply_report(&report, offset, time_ms))
            .await
        {
            Ok(()) => Accepted::Stored,
            Err(error) => {
                self.break_down(&error);
                Accepted::Failed
            }
        }
    }

    pub(super) async fn place(&self, journal: &Journal, bytes: usize) -> Result<Slot, Accepted> {
        // Mostly there is room, and no need for a timer.
        if let Some(slot) = journal.try_reserve(bytes) {
            return Ok(slot);
        }
        match timeout(ROOM_WAIT, journal.reserve(bytes)).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) => Err(Accepted::Failed),
            Err(_) => Err(Accepted::Busy),
        }
    }

    /// Somebody signed two things under one number: a bug of theirs, a restored snapshot, or a lie.
    pub(super) fn note_fork(&self, host: &HostId, sandbox: Option<&SandboxId>) {
        let subject =
            sandbox.map_or_else(|| host.to_string(), |sandbox| format!("{host}/{sandbox}"));
        if !lock(&self.inner.tables).note_fork(&subject) {
            return;
        }
        tracing::warn!("a stream forked: two contents under one number");
        let name = if sandbox.is_some() {
            "sandbox.stream_forked"
        } else {
            "host.reports_forked"
        };
        self.note(Note {
            time: self.now(),
            name,
            subject,
            actor: format!("host:{host}"),
        });
    }
}

/// What is to be journaled of this host, and of this sandbox.
pub(super) fn entry<'a>(
    kind: RecordKind,
    (host, sandbox): (&'a HostId, Option<&'a SandboxId>),
    time: UnixMillis,
    payload: &'a [u8],
) -> Entry<'a> {
    Entry {
        kind,
        host: host.as_str(),
        sandbox: sandbox.map(SandboxId::as_str),
        time_ms: time.0,
        payload,
    }
}
