//! What is written down in its own time: who came and went, the greatest time shown, commands that nobody answered.

use std::{sync::Weak, time::Duration};

use protocol::{id::ReaderName, limits::LEEWAY_S, time::UnixMillis};
use serde_json::json;
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, timeout},
};

use super::{Inner, Plane};
use crate::{core::gate::Kept, shell::store::AuditEntry};

/// Notes that wait to be written. Past that they are dropped and counted in the log: links come and go faster than the disk.
pub(super) const ERRANDS_MAX: usize = 4_096;
/// How long the last records may take at the end.
const SETTLE_WAIT: Duration = Duration::from_secs(10);
/// How often time is written down and commands are looked through.
const ROUND: Duration = Duration::from_secs(10);

/// What the clerk is asked.
#[derive(Debug)]
pub(super) enum Errand {
    /// Write this down.
    Write(Note),
    /// Keep a reader's session.
    Keep {
        name: ReaderName,
        client_id: String,
        kept: Kept,
        expires: UnixMillis,
    },
    /// Say when everything before this is written.
    Say(oneshot::Sender<()>),
}

/// Something for the audit trail that grants nothing.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) time: UnixMillis,
    pub(super) name: &'static str,
    pub(super) subject: String,
    pub(super) actor: String,
}

impl Plane {
    pub(super) fn note(&self, note: Note) {
        if let Err(error) = self.inner.errands.try_send(Errand::Write(note)) {
            tracing::warn!(%error, "an audit note was dropped");
        }
    }

    /// Waits until everything that was handed in so far is on disk, at most [`SETTLE_WAIT`]: the last thing before the end.
    pub async fn settle(&self) {
        let (done, said) = oneshot::channel();
        let settling = async {
            if self.inner.errands.send(Errand::Say(done)).await.is_ok() {
                let _ = said.await;
            }
            // So that the next start begins no earlier.
            let advance = |plane: &Self| plane.store().advance_time(plane.now().0);
            if let Err(error) = self.blocking(advance).await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the time was not written down"
                );
            }
            // With nothing in it, this waits for what was queued before.
            if let Ok(slot) = self.journal().reserve(0).await {
                let _ = slot.submit().await;
            }
        };
        if timeout(SETTLE_WAIT, settling).await.is_err() {
            tracing::warn!("the disk did not take the last records in time");
        }
    }
}

/// Writes notes and does the rounds until the plane is gone.
pub(super) async fn run(inner: Weak<Inner>, mut errands: mpsc::Receiver<Errand>) {
    let mut rounds = tokio::time::interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let errand = tokio::select! {
            errand = errands.recv() => match errand {
                Some(Errand::Say(done)) => {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                    continue;
                }
                Some(errand) => Some(errand),
                None => return,
            },
            _ = rounds.tick() => None,
        };
        let Some(inner) = inner.upgrade() else { return };
        let plane = Plane { inner };
        let work = plane.blocking(move |plane| match errand {
            Some(Errand::Write(note)) => write(plane, &note),
            Some(Errand::Keep {
                name,
                client_id,
                kept,
                expires,
            }) => {
                let store = plane.store();
                for gone in store.keep_session(&name, &client_id, &kept, expires.0)? {
                    plane.inner.parts.places.forget(&name, &gone);
                }
                Ok(())
            }
            Some(Errand::Say(_)) | None => make_round(plane),
        });
        if let Err(error) = work.await {
            tracing::warn!(error = format!("{error:#}"), "the store refused a note");
        }
    }
}

fn write(plane: &Plane, note: &Note) -> anyhow::Result<()> {
    let entry = AuditEntry {
        time_ms: note.time.0,
        name: note.name,
        subject: &note.subject,
        actor: &note.actor,
        fields: &json!({}),
    };
    plane.store().record_audit(&entry)?;
    Ok(())
}

fn make_round(plane: &Plane) -> anyhow::Result<()> {
    let now = plane.now();
    plane.store().advance_time(now.0)?;
    plane.look_at_clock();
    plane.expire_launches(now)?;
    for (name, client_id) in plane.store().prune_sessions(now.0)? {
        plane.inner.parts.places.forget(&name, &client_id);
    }
    // A host takes a command until its end and a minute; an id is remembered for as long again.
    plane
        .store()
        .prune_commands(now.0.saturating_sub(2 * LEEWAY_S * 1000))?;
    Ok(())
}
