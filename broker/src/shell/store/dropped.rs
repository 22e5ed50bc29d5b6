//! What retention and purges took out of the journal.

use super::{Store, column::Uint};
use crate::shell::journal::Gone;
use rusqlite::params;

/// Rows of single losses. Past it the older half becomes sums.
const ROWS_MAX: u32 = 8_192;

/// What a host lost for one cause, in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedRow {
    /// The host; empty for what could not be read.
    pub host: String,
    /// Why, in a word.
    pub cause: String,
    /// The first offset.
    pub from_offset: u64,
    /// The first offset after the last.
    pub to_offset: u64,
    /// When the first record was accepted, milliseconds since 1970.
    pub first_ms: u64,
    /// When the last one was.
    pub last_ms: u64,
    /// Records; of a purge, events whose bodies went among them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When it was last so.
    pub dropped_ms: u64,
}

/// A record of the journal that must stay, by offset and host.
pub type Needed = (u64, String);

impl Store {
    /// Write down what is about to go. The same again changes nothing.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn record_dropped(&self, gone: &[Gone], now_ms: u64) -> anyhow::Result<()> {
        self.record_dropped_within(gone, now_ms, ROWS_MAX)
    }

    fn record_dropped_within(
        &self,
        gone: &[Gone],
        now_ms: u64,
        rows_max: u32,
    ) -> anyhow::Result<()> {
        self.write("record what the journal drops", |tx| {
            let mut insert = tx.prepare_cached(
                "INSERT INTO dropped VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                 ON CONFLICT (segment, serial, host, cause) DO NOTHING",
            )?;
            for one in gone {
                insert.execute(params![
                    Uint(one.segment),
                    one.serial,
                    one.host,
                    one.cause.word(),
                    Uint(one.from),
                    Uint(one.to),
                    Uint(one.first_ms),
                    Uint(one.last_ms),
                    Uint(one.count.records),
                    Uint(one.count.bytes),
                    Uint(now_ms),
                ])?;
            }
            let rows: u32 = tx
                .prepare_cached("SELECT count(*) FROM dropped WHERE serial > 0")?
                .query_row([], |row| row.get(0))?;
            if rows <= rows_max {
                return Ok(());
            }
            let last: i64 = tx
                .prepare_cached(
                    "SELECT rowid FROM dropped WHERE serial > 0 ORDER BY rowid LIMIT 1 OFFSET ?",
                )?
                .query_row([rows / 2], |row| row.get(0))?;
            tx.prepare_cached(
                "INSERT INTO dropped
                 SELECT 0, 0, host, cause, min(from_offset), max(to_offset), min(first_ms), max(last_ms),
                        sum(records), sum(bytes), max(dropped_ms)
                 FROM dropped WHERE serial > 0 AND rowid <= ? GROUP BY host, cause
                 ON CONFLICT (segment, serial, host, cause) DO UPDATE SET
                     from_offset = min(from_offset, excluded.from_offset),
                     to_offset = max(to_offset, excluded.to_offset),
                     first_ms = min(first_ms, excluded.first_ms),
                     last_ms = max(last_ms, excluded.last_ms),
                     records = records + excluded.records,
                     bytes = bytes + excluded.bytes,
                     dropped_ms = max(dropped_ms, excluded.dropped_ms)",
            )?
            .execute([last])?;
            tx.prepare_cached("DELETE FROM dropped WHERE serial > 0 AND rowid <= ?")?
                .execute([last])?;
            Ok(())
        })
    }

    /// What was dropped, by host and cause.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn dropped(&self) -> anyhow::Result<Vec<DroppedRow>> {
        self.read("list what the journal dropped", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT host, cause, min(from_offset), max(to_offset), min(first_ms), max(last_ms),
                        sum(records), sum(bytes), max(dropped_ms)
                 FROM dropped GROUP BY host, cause ORDER BY host, cause",
            )?;
            let rows = rows.query_map([], |row| {
                let number = |at| row.get::<_, Uint>(at).map(|Uint(number)| number);
                Ok(DroppedRow {
                    host: row.get(0)?,
                    cause: row.get(1)?,
                    from_offset: number(2)?,
                    to_offset: number(3)?,
                    first_ms: number(4)?,
                    last_ms: number(5)?,
                    records: number(6)?,
                    bytes: number(7)?,
                    dropped_ms: number(8)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Records of the journal that something still rests on: commands that are neither settled nor over, and the reports that name the
    /// keys of sandboxes that have not ended.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn needed_records(&self, now_ms: u64) -> anyhow::Result<Vec<Needed>> {
        self.read("list needed records", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT offset, host FROM commands WHERE settled_offset IS NULL AND expires_ms > ?
                 UNION ALL
                 SELECT launched_offset, host FROM sandboxes WHERE ended = 0 AND launched_offset IS NOT NULL",
            )?;
            let rows = rows.query_map([Uint(now_ms)], |row| {
                Ok((row.get::<_, Uint>(0)?.0, row.get(1)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::journal::removed::Count;
    use crate::shell::store::tests::{NOW, enrolled};
    use crate::shell::store::{CommandRow, SandboxRow};
    use protocol::hole::Cause;

    fn gone(segment: u64, host: &str, records: u64) -> Gone {
        Gone {
            segment,
            serial: 1,
            host: host.to_owned(),
            cause: Cause::Age,
            from: segment,
            to: segment + records,
            first_ms: 10 * segment,
            last_ms: 10 * segment + 5,
            count: Count {
                records,
                bytes: 100 * records,
            },
        }
    }

    #[test]
    fn what_was_dropped_adds_up_however_often_it_is_written_down_and_folded() {
        let (_dir, store) = enrolled();
        let mut expected = 0;
        for segment in 1..50 {
            for _ in 0..2 {
                let gone = [gone(segment, "edge-1", segment), gone(segment, "gone", 1)];
                store
                    .record_dropped_within(&gone, NOW + segment, 8)
                    .unwrap();
            }
            expected += segment;
            let rows = store.dropped().unwrap();
            assert_eq!(rows.len(), 2);
            let row = DroppedRow {
                host: "edge-1".to_owned(),
                cause: "age".to_owned(),
                from_offset: 1,
                to_offset: 2 * segment,
                first_ms: 10,
                last_ms: 10 * segment + 5,
                records: expected,
                bytes: 100 * expected,
                dropped_ms: NOW + segment,
            };
            assert_eq!(rows[0], row);
            assert_eq!(rows[1].records, segment);
        }
        let rows = |connection: &rusqlite::Connection| {
            Ok(
                connection.query_row("SELECT count(*) FROM dropped", [], |row| {
                    row.get::<_, u32>(0)
                })?,
            )
        };
        assert!(store.read("count", rows).unwrap() <= 10);
    }

    #[test]
    fn open_commands_and_the_launches_of_sandboxes_that_live_are_needed() {
        let (_dir, store) = enrolled();
        let command = |id: u8, offset, settled_offset| CommandRow {
            id: [id; 16],
            host: "edge-1".to_owned(),
            sandbox: None,
            kind: "launch".to_owned(),
            bytes_hash: [id; 32],
            offset,
            expires_ms: NOW + u64::from(id),
            settled_offset,
        };
        for row in [
            command(1, 5, None),
            command(2, 6, Some(9)),
            command(3, 7, None),
        ] {
            store.insert_command(&row).unwrap();
        }
        let sandbox = |id: &str, ended, launched_offset| SandboxRow {
            host: "edge-1".to_owned(),
            id: id.to_owned(),
            state: "running".to_owned(),
            ended,
            reason: None,
            exit_code: None,
            created_ms: NOW,
            updated_ms: NOW,
            public_key: None,
            launched_offset,
            name: None,
            image: None,
            isolation: None,
            detail: None,
        };
        for row in [
            sandbox("a", false, Some(8)),
            sandbox("b", true, Some(9)),
            sandbox("c", false, None),
        ] {
            store.upsert_sandbox(&row).unwrap();
        }
        let needed = |now| -> Vec<u64> {
            let needed = store.needed_records(now).unwrap();
            assert!(needed.iter().all(|(_, host)| host == "edge-1"));
            needed.into_iter().map(|(offset, _)| offset).collect()
        };
        assert_eq!(needed(NOW), [5, 7, 8]);
        assert_eq!(needed(NOW + 1), [7, 8]);
        assert_eq!(needed(NOW + 3), [8]);
    }
}
