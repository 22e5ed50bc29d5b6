//! fjall, as a journal would use it: the offset is the key, one batch for each commit, synced.

use std::path::Path;

use anyhow::Context as _;
use broker::core::journal::{decode, encode, seal};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::engine::{Engine, entry};

pub(crate) struct Fjall {
    database: Database,
    records: Keyspace,
}

impl Fjall {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let database = Database::builder(dir).open().context("open fjall")?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(Self { database, records })
    }
}

impl Engine for Fjall {
    fn append(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let mut batch = self.database.batch();
        for offset in first..first + count {
            let mut record = Vec::new();
            encode(&entry(offset), &mut record)?;
            seal(&mut record, offset)?;
            batch.insert(&self.records, offset.to_be_bytes(), record);
        }
        batch
            .durability(Some(PersistMode::SyncData))
            .commit()
            .context("commit")
    }

    fn scan(&mut self) -> anyhow::Result<u64> {
        let mut count = 0;
        for record in self.records.iter() {
            let (_, value) = record.into_inner()?;
            let (record, _) = decode(&value)?;
            anyhow::ensure!(record.offset == count, "a record is missing");
            count += 1;
        }
        Ok(count)
    }
}
