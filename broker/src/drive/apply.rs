//! Reports, applied to the store. Everything here may be done again, with the same result: it is, after a crash.

use protocol::{
    id::{HostId, SandboxId},
    limits::LEEWAY_S,
    report::{News, Reason, Report, State},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Plane, lock};
use crate::{
    core::sandbox::{self, Standing},
    shell::store::{AuditEntry, SandboxRow},
};

/// The word for a command that asks for a stop.
pub(super) const STOP: &str = "stop";

/// What the store keeps of a sandbox beside its columns, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extra {
    /// Where the journal first speaks of it: its launch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_offset: Option<u64>,
    /// When the command that asked for it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires_ms: Option<u64>,
    /// For a person: why it is where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// The engine's id of its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image_id: Option<String>,
}

impl Extra {
    /// Reads it from a row.
    pub(crate) fn of(row: &SandboxRow) -> Self {
        row.detail
            .as_deref()
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }

    pub(super) fn to_text(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }
}

impl Plane {
    /// Lets the store follow a report of the journal. Blocks.
    pub(super) fn apply_report(
        &self,
        report: &Report,
        offset: u64,
        time_ms: u64,
    ) -> anyhow::Result<()> {
        let host = &report.host;
        let mut is_stop = false;
        if let Some(command) = report.news.settles() {
            is_stop = self
                .store()
                .command(&command.0)?
                .is_some_and(|command| command.kind == STOP);
            self.store()
                .settle_command(&command.0, host.as_str(), offset)?;
        }
        if let News::Status(status) = &report.news {
            if let Some(ahead_ms) = status.skew_ms {
                self.note_skew(host, ahead_ms, UnixMillis(time_ms));
            }
            for sighting in &status.sandboxes {
                self.change(host, &sighting.sandbox, offset, time_ms, |now| {
                    sandbox::after_sighting(now, sighting.state)
                })?;
            }
            return Ok(());
        }
        let Some(id) = report.news.sandbox() else {
            return Ok(());
        };
        let image_id = match &report.news {
            News::Launched(launched) => Some(launched.image.as_str()),
            News::Refused(_)
            | News::Ended(_)
            | News::Stopped(_)
            | News::Forwarded(_)
            | News::Status(_)
            | News::Other(_) => None,
        };
        let changed = self.change(host, id, offset, time_ms, |now| {
            sandbox::after_report(now, &report.news, is_stop)
        })?;
        if let (true, Some(image_id)) = (changed, image_id) {
            self.note_image(host, id, image_id)?;
        }
        Ok(())
    }

    /// Looks at where a sandbox stands and writes down where it stands after. One at a time. Whether anything changed.
    fn change(
        &self,
        host: &HostId,
        id: &SandboxId,
        offset: u64,
        time_ms: u64,
        after: impl FnOnce(Option<&Standing>) -> Option<Standing>,
    ) -> anyhow::Result<bool> {
        let _turn = lock(&self.inner.applying);
        let row = self.store().sandbox(host.as_str(), id.as_str())?;
        let before = row.as_ref().map(standing_of);
        let Some(standing) = after(before.as_ref()) else {
            return Ok(false);
        };
        if before.as_ref().map(|before| before.state) != Some(standing.state) {
            // Before the change: a crash between leaves a row too many, never one too few.
            self.audit_change(host, id, &standing, offset, time_ms)?;
        }
        let is_new_key = before
            .as_ref()
            .is_none_or(|before| before.key != standing.key)
            && standing.key.is_some();
        let mut extra = row.as_ref().map(Extra::of).unwrap_or_default();
        extra.text.clone_from(&standing.text);
        extra.first_offset.get_or_insert(offset);
        self.store().upsert_sandbox(&SandboxRow {
            host: host.to_string(),
            id: id.to_string(),
            state: standing.state.word().to_owned(),
            ended: standing.state.is_final(),
            reason: standing.reason.map(|reason| reason.word().to_owned()),
            exit_code: standing.exit_code.and_then(|code| i32::try_from(code).ok()),
            created_ms: time_ms,
            updated_ms: time_ms,
            public_key: standing.key,
            launched_offset: is_new_key.then_some(offset),
            name: None,
            image: None,
            isolation: None,
            detail: extra.to_text(),
        })?;
        Ok(true)
    }

    fn note_image(&self, host: &HostId, id: &SandboxId, image_id: &str) -> anyhow::Result<()> {
        let _turn = lock(&self.inner.applying);
        let Some(mut row) = self.store().sandbox(host.as_str(), id.as_str())? else {
            return Ok(());
        };
        let mut extra = Extra::of(&row);
        extra.image_id = Some(image_id.to_owned());
        row.detail = extra.to_text();
        self.store().upsert_sandbox(&row)
    }

    /// Sandboxes whose launch nobody answered in time are no longer said to be under way. Blocks.
    pub(super) fn expire_launches(&self, now: UnixMillis) -> anyhow::Result<()> {
        for row in self.store().list_sandboxes(false)? {
            let is_over = row.state == State::Creating.word()
                && Extra::of(&row)
                    .expires_ms
                    .is_some_and(|end| now.0 > end.saturating_add(2 * LEEWAY_S * 1000));
            let (Ok(host), Ok(id)) = (HostId::new(&row.host), SandboxId::new(&row.id)) else {
                continue;
            };
            if is_over {
                let offset = row.launched_offset.unwrap_or_default();
                self.change(&host, &id, offset, now.0, |now| {
                    now.and_then(sandbox::after_expiry)
                })?;
            }
        }
        Ok(())
    }

    fn audit_change(
        &self,
        host: &HostId,
        id: &SandboxId,
        standing: &Standing,
        offset: u64,
        time_ms: u64,
    ) -> anyhow::Result<()> {
        let refused = standing.state == State::Failed
            && standing.key.is_none()
            && standing.reason != Some(Reason::Stopped);
        let name = match standing.state {
            State::Running => "sandbox.running",
            State::Finished => "sandbox.finished",
            State::Failed if refused => "sandbox.refused",
            State::Failed => "sandbox.failed",
            State::Creating | State::Paused | State::Unknown | State::Other(_) => return Ok(()),
        };
        let fields = json!({
            "offset": offset,
            "reason": standing.reason.map(Reason::word),
            "exit_code": standing.exit_code,
        });
        self.store().record_audit(&AuditEntry {
            time_ms,
            name,
            subject: &format!("{host}/{id}"),
            actor: &format!("host:{host}"),
            fields: &fields,
        })?;
        Ok(())
    }
}

fn standing_of(row: &SandboxRow) -> Standing {
    Standing {
        state: State::from_word(&row.state).unwrap_or(State::Unknown),
        reason: row.reason.as_deref().and_then(Reason::from_word),
        exit_code: row.exit_code.and_then(|code| u64::try_from(code).ok()),
        text: Extra::of(row).text,
        key: row.public_key,
    }
}
