//! How the operator does, written to a file whenever it changes: `outhaul-agent status` is another process.

use protocol::time::UnixMillis;

use super::Drive;
use crate::core::host::identity::life_of;
use crate::core::status::{Connection, Life, Status, VERSION, Witnessed};
use protocol::limits::REPORT_SANDBOXES_MAX;

/// What the loop knows of it that is nowhere else.
#[derive(Debug)]
pub(super) struct Standing {
    started: UnixMillis,
    pub(super) connection: Connection,
    pub(super) skew_ms: i64,
    /// The hash of what was written last: it is not written again.
    written: [u8; 32],
}

impl Standing {
    pub(super) fn new(now: UnixMillis, skew_ms: i64) -> Self {
        Self {
            started: now,
            connection: Connection {
                connected: false,
                since_ms: now,
                why: None,
            },
            skew_ms,
            written: [0; 32],
        }
    }

    /// The connection is up, or down and why.
    pub(super) fn turned(&mut self, why: Result<(), String>, now: UnixMillis) {
        let connected = why.is_ok();
        if self.connection.connected != connected {
            self.connection.since_ms = now;
        }
        self.connection.connected = connected;
        self.connection.why = why.err();
    }
}

impl Drive {
    /// Writes how the operator does, if that is due and something changed. Best effort: what cannot be written now is at the next change.
    pub(super) fn write_status(&mut self) {
        if !std::mem::take(&mut self.is_status_due) {
            return;
        }
        let Ok(json) = serde_json::to_vec(&self.status()) else {
            return;
        };
        let hash = *blake3::hash(&json).as_bytes();
        if hash == self.standing.written {
            return;
        }
        match self.site.store.write_status(&json) {
            Ok(()) => {
                self.standing.written = hash;
                self.said_status.clear();
            }
            Err(error) => self
                .said_status
                .warn("say how the operator does", format!("{error:#}")),
        }
    }

    fn status(&self) -> Status {
        let site = &self.site;
        let (generation, token) = {
            let identity = site.identity();
            let current = identity.current.as_ref();
            let life = current.and_then(|current| life_of(&current.token));
            (identity.generation(), life)
        };
        let names = site
            .records()
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        let witness = Witnessed::of(&site.witness(), &site.other_witnesses());
        let obeyed = self.dispatchers.obeyed(site.time.now().unix);
        Status {
            version: VERSION,
            operator: env!("CARGO_PKG_VERSION").to_owned(),
            host: site.host.to_string(),
            broker: site.broker.clone(),
            started_ms: self.standing.started,
            connection: self.standing.connection.clone(),
            generation,
            token: token.map(|(issued_ms, expires_ms)| Life {
                issued_ms,
                expires_ms,
            }),
            token_trouble: site.said().last().map(str::to_owned),
            skew_ms: self.standing.skew_ms,
            engine: site
                .engine_answers
                .load(std::sync::atomic::Ordering::Relaxed),
            sandboxes: names.into_iter().take(REPORT_SANDBOXES_MAX).collect(),
            dispatchers: obeyed.iter().map(ToString::to_string).collect(),
            witness,
        }
    }
}
