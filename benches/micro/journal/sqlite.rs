//! SQLite, as a journal would use it: WAL, `synchronous=FULL`, one transaction for each commit, a checksum that is verified on read.

use std::path::Path;

use anyhow::Context as _;
use rusqlite::{Connection, params};

use super::engine::{Engine, entry};

pub(crate) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).context("make a directory")?;
        let connection = Connection::open(dir.join("journal.db")).context("open SQLite")?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
                 CREATE TABLE IF NOT EXISTS records (
                     offset INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, kind INTEGER NOT NULL, host TEXT NOT NULL,
                     sandbox TEXT, payload BLOB NOT NULL, crc INTEGER NOT NULL
                 ) STRICT;",
            )
            .context("make the table")?;
        Ok(Self { connection })
    }
}

impl Engine for Sqlite {
    fn append(&mut self, first: u64, count: u64) -> anyhow::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO records VALUES (?1, ?2, 1, ?3, ?4, ?5, ?6)")?;
            for time_ms in first..first + count {
                let entry = entry(time_ms);
                let crc = crc32c::crc32c(entry.payload);
                insert.execute(params![
                    i64::try_from(time_ms)?,
                    i64::try_from(entry.time_ms)?,
                    entry.host,
                    entry.sandbox,
                    entry.payload,
                    crc
                ])?;
            }
        }
        transaction.commit().context("commit")
    }

    fn scan(&mut self) -> anyhow::Result<u64> {
        let mut select = self
            .connection
            .prepare("SELECT offset, time_ms, kind, host, sandbox, payload, crc FROM records ORDER BY offset")?;
        let mut rows = select.query([])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            let offset: i64 = row.get(0)?;
            let payload: Vec<u8> = row.get(5)?;
            let (_host, _sandbox): (String, Option<String>) = (row.get(3)?, row.get(4)?);
            let crc: u32 = row.get(6)?;
            anyhow::ensure!(
                crc == crc32c::crc32c(&payload) && u64::try_from(offset)? == count,
                "a record is damaged"
            );
            count += 1;
        }
        Ok(count)
    }
}
