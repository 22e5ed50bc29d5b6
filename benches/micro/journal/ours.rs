//! Our journal, used as the broker uses it: a place for each record, a cork over all of them, a ticket for each.

use std::path::Path;

use anyhow::Context as _;
use broker::shell::journal::{Durability, Filter, Item, Journal};
use tokio::runtime::Runtime;

use super::engine::{Engine, entry};

/// Records and bytes read at once, as the readers of the broker do.
const STEP_RECORDS: usize = 1_024;
/// See [`STEP_RECORDS`].
const STEP_BYTES: usize = 256 * 1024;

pub(crate) struct Ours {
    journal: Journal,
    runtime: Runtime,
}

impl Ours {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .context("start a runtime")?;
        let journal = Journal::open(dir, Durability::Fsync)?;
        Ok(Self { journal, runtime })
    }
}

impl Engine for Ours {
    fn append(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let journal = &self.journal;
        self.runtime.block_on(async {
            let mut slots = Vec::new();
            for time_ms in first..first + count {
                let entry = entry(time_ms);
                let mut slot = journal.reserve(entry.frame_bytes()).await?;
                slot.push(&entry)?;
                slots.push(slot);
            }
            let cork = journal.cork();
            let tickets: Vec<_> = slots.into_iter().map(|slot| slot.submit()).collect();
            drop(cork);
            for (offset, ticket) in (first..).zip(tickets) {
                anyhow::ensure!(ticket.await? == offset, "a record has another offset");
            }
            Ok(())
        })
    }

    fn scan(&mut self) -> anyhow::Result<u64> {
        let mut reader = self.journal.reader(0, Filter::default());
        let mut count = 0;
        loop {
            let batch = reader.next_batch(STEP_RECORDS, STEP_BYTES)?;
            for item in batch.items {
                match item {
                    Item::Record(record) if record.offset == count => count += 1,
                    Item::Record(_) | Item::Gap { .. } => anyhow::bail!("a record is missing"),
                }
            }
            if batch.caught_up {
                return Ok(count);
            }
        }
    }
}
