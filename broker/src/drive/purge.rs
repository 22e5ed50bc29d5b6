//! Purging what sandboxes said, by the owner's word: the bodies of their events go, and the signed heads stay, so that what is left
//! still verifies.

use anyhow::Context as _;
use protocol::{
    hole::Cause,
    id::{HostId, SandboxId},
    report::{News, Report},
    signed,
    stream::Batch,
    time::UnixMillis,
};
use serde_json::json;

use super::{Peer, Plane};
use crate::{
    core::journal::{Record, RecordKind},
    shell::{
        journal::{Fate, Filter, Gone, Item, Purged},
        store::AuditEntry,
    },
};

/// Records and bytes looked at, at once.
const STEP_RECORDS: usize = 1_024;
/// See [`STEP_RECORDS`].
const STEP_BYTES: usize = 4 * 1024 * 1024;

/// Whose events lose their bodies.
#[derive(Clone, Debug)]
pub struct Purge {
    /// Of this host.
    pub host: HostId,
    /// Of this sandbox only.
    pub sandbox: Option<SandboxId>,
    /// Accepted before this only.
    pub before: Option<UnixMillis>,
}

impl Purge {
    /// What becomes of a record. A batch that a report forwards is filed by itself too, so such a report goes: what it holds is signed as
    /// a whole.
    fn fate(&self, kind: RecordKind, sandbox: Option<&str>, time_ms: u64, payload: &[u8]) -> Fate {
        let is_wanted = |sandbox: Option<&str>| {
            let wanted = self.sandbox.as_ref();
            wanted.is_none_or(|wanted| sandbox == Some(wanted.as_str()))
        };
        if self.before.is_some_and(|before| time_ms >= before.0) {
            return Fate::Keep;
        }
        match kind {
            RecordKind::Event if is_wanted(sandbox) => match Batch::parse(payload) {
                // An empty one says nothing that its head does not.
                Ok(batch) if batch.head.count > 0 => Fate::Purge(payload.len() - batch.body.len()),
                Ok(_) | Err(_) => Fate::Keep,
            },
            RecordKind::Report => match signed::peek::<Report>(payload).map(|report| report.news) {
                Ok(News::Forwarded(forwarded)) if is_wanted(Some(forwarded.sandbox.as_str())) => {
                    Fate::Remove(Cause::Purge)
                }
                Ok(_) | Err(_) => Fate::Keep,
            },
            RecordKind::Event | RecordKind::Command | RecordKind::Bench => Fate::Keep,
        }
    }

    fn fate_of(&self, record: &Record<'_>) -> Fate {
        if record.is_purged {
            return Fate::Keep;
        }
        self.fate(record.kind, record.sandbox, record.time_ms, record.payload)
    }
}

impl Plane {
    /// Purges. When this returns, the bodies are gone from the disk.
    ///
    /// # Errors
    /// The disk refuses; some may be gone then, as the ledger and the audit trail say.
    pub async fn purge(&self, purge: Purge, peer: Peer) -> anyhow::Result<Purged> {
        // What is written now is sealed first: only sealed segments are rewritten.
        self.journal().roll().await?;
        let end = self.settled_end().await;
        self.blocking(move |plane| plane.purge_below(&purge, end, &peer))
            .await
            .context("purge")
    }

    fn purge_below(&self, purge: &Purge, end: u64, peer: &Peer) -> anyhow::Result<Purged> {
        let now_ms = self.now().0;
        let (records, bytes) = self.count_purged_below(purge, end)?;
        let host = purge.host.as_str();
        let subject = match &purge.sandbox {
            Some(sandbox) => format!("{host}/{sandbox}"),
            None => host.to_owned(),
        };
        // Before it takes effect.
        self.store().record_audit(&AuditEntry {
            time_ms: now_ms,
            name: "journal.purged",
            subject: &subject,
            actor: &peer.actor(),
            fields: &json!({
                "before_ms": purge.before.map(|before| before.0),
                "below_offset": end,
                "records": records,
                "bytes": bytes,
            }),
        })?;
        let mut ledger = |gone: &[Gone]| self.store().record_dropped(gone, now_ms);
        let mut fate = |record: &Record<'_>| purge.fate_of(record);
        let purged = self.journal().purge(host, end, &mut fate, &mut ledger)?;
        self.count_purged(&purged.gone);
        Ok(purged)
    }

    /// How many records it will change, and how many bytes of theirs go.
    fn count_purged_below(&self, purge: &Purge, end: u64) -> anyhow::Result<(u64, u64)> {
        let of_host = Filter {
            host: Some(purge.host.to_string()),
            ..Filter::default()
        };
        let mut reader = self.journal().reader(self.journal().oldest(), of_host);
        let (mut records, mut bytes) = (0, 0);
        while reader.position() < end {
            let batch = reader.next_batch(STEP_RECORDS, STEP_BYTES)?;
            for item in &batch.items {
                let Item::Record(record) = item else { continue };
                if record.is_purged || record.offset >= end {
                    continue;
                }
                let sandbox = record.sandbox.as_deref();
                let left = match purge.fate(record.kind, sandbox, record.time_ms, &record.payload) {
                    Fate::Keep => continue,
                    Fate::Remove(_) => 0,
                    Fate::Purge(head_bytes) => head_bytes,
                };
                records += 1;
                bytes += u64::try_from(record.payload.len() - left).unwrap_or_default();
            }
        }
        Ok((records, bytes))
    }
}
