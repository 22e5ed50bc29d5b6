//! What the journal knows and memory does not, at a start: which batches and reports came, and what a crash left out of the store.

use anyhow::Context as _;
use protocol::{
    command::Command,
    id::{HostId, SandboxId},
    report::{News, Report},
    signed::{self, Envelope, Message as _},
    stream::stream_id,
    time::UnixMillis,
};

use super::{Plane, Tables, events::BatchMark, lock};
use crate::{
    core::journal::RecordKind,
    shell::journal::{Filter, Item, OwnedRecord},
};

/// Records looked at, the newest. A redelivery of anything older is stored twice, which readers see and skip.
const RECORDS_MAX: u64 = 200_000;
/// Records and bytes read at once.
const STEP_RECORDS: usize = 1_024;
/// See [`STEP_RECORDS`].
const STEP_BYTES: usize = 4 * 1024 * 1024;

impl Plane {
    /// Reads the end of the journal. Blocks.
    pub(super) fn rebuild(&self) -> anyhow::Result<()> {
        let end = self.journal().next_offset();
        let from = self.history().back(end, RECORDS_MAX);
        let from = self.journal().oldest().max(from);
        let mut reader = self.journal().reader(from, Filter::default());
        let mut tables = Tables::default();
        loop {
            let batch = reader.next_batch(STEP_RECORDS, STEP_BYTES)?;
            for item in &batch.items {
                if let Item::Record(record) = item {
                    let replayed = self.replay(&mut tables, record);
                    replayed.with_context(|| format!("replay record {}", record.offset))?;
                }
            }
            if batch.caught_up {
                break;
            }
        }
        tracing::debug!(
            from,
            end,
            streams = tables.events.len(),
            "the journal was read"
        );
        *lock(&self.inner.tables) = tables;
        Ok(())
    }

    /// Payloads were checked before they were journaled, and the journal checks that they are the same.
    fn replay(&self, tables: &mut Tables, record: &OwnedRecord) -> anyhow::Result<()> {
        let host = HostId::new(&record.host).context("read a record's host")?;
        self.note_time(UnixMillis(record.time_ms));
        match record.kind {
            RecordKind::Event => {
                let sandbox = record
                    .sandbox
                    .as_deref()
                    .and_then(|sandbox| SandboxId::new(sandbox).ok());
                let mark = sandbox.as_ref().and_then(|id| {
                    let fingerprints = &self.inner.fingerprints;
                    let stream = stream_id(&host, id);
                    match record.is_purged {
                        false => BatchMark::read(fingerprints, &stream, &record.payload),
                        true => BatchMark::read_head(fingerprints, &stream, &record.payload),
                    }
                });
                if let (Some(sandbox), Some(mark)) = (sandbox, mark) {
                    tables.events.observe(
                        host.as_str(),
                        sandbox.as_str(),
                        mark.epoch,
                        mark.batch,
                        mark.fingerprint,
                    );
                }
                Ok(())
            }
            RecordKind::Report => self.replay_report(tables, &host, record),
            // In a partition of its own.
            RecordKind::Bench => Ok(()),
            RecordKind::Command => {
                let Ok(command) = signed::peek::<Command>(&record.payload) else {
                    return Ok(());
                };
                if command.expires > self.now() && self.host_state(&host).is_some() {
                    let hash = *blake3::hash(&record.payload).as_bytes();
                    self.record_command(&command, hash, record.offset, record.time_ms)?;
                }
                Ok(())
            }
        }
    }

    fn replay_report(
        &self,
        tables: &mut Tables,
        host: &HostId,
        record: &OwnedRecord,
    ) -> anyhow::Result<()> {
        let Ok(report) = signed::peek::<Report>(&record.payload) else {
            return Ok(());
        };
        lock(&self.inner.seen).insert(host.clone(), UnixMillis(record.time_ms));
        let kid = Envelope::parse(&record.payload, Report::TYP, Report::BYTES_MAX)
            .map(|envelope| envelope.kid);
        let keys = self.report_keys(host);
        // One that an older key signed would not be taken again either.
        if let Some(key) = keys.iter().find(|key| Ok(key.key.id()) == kid) {
            let fingerprint = self.inner.fingerprints.of(&record.payload);
            tables.reports.observe(
                host.as_str(),
                "",
                key.generation,
                report.number,
                fingerprint,
            );
        }
        if self.host_state(host).is_none() {
            // A store older than the journal: there is nobody to file it under.
            return Ok(());
        }
        match report.news {
            // What was so then need not be so now; the next one says.
            News::Status(_) | News::Forwarded(_) | News::Other(_) => Ok(()),
            News::Refused(_) | News::Launched(_) | News::Ended(_) | News::Stopped(_) => {
                self.apply_report(&report, record.offset, record.time_ms)
            }
        }
    }
}
