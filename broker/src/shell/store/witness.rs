//! Hosts as witnesses of the audit trail: the last checkpoint that each cosigned, and what contradicts the trail.

use super::Store;
use super::audit::{AuditEntry, audit};
use super::column::Uint;
use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::json;

/// Witnesses that one call of [`Store::witnesses`] gives.
pub const WITNESSES_LISTED_MAX: u32 = 1_000;

/// A host as witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessRow {
    /// Which.
    pub host: String,
    /// The last checkpoint that it cosigned and the trail goes on from: its rows, the signed note, and when it came, in milliseconds since
    /// 1970.
    pub cosigned: Option<(u64, String, u64)>,
    /// The last checkpoint that it showed and the trail does not go on from.
    pub conflict: Option<String>,
}

impl WitnessRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let size = row.get::<_, Option<Uint>>("size")?;
        let (note, time) = (row.get("note")?, row.get::<_, Option<Uint>>("cosigned_ms")?);
        let cosigned = match (size, note, time) {
            (Some(size), Some(note), Some(time)) => Some((size.0, note, time.0)),
            _ => None,
        };
        Ok(Self {
            host: row.get("host")?,
            cosigned,
            conflict: row.get("conflict")?,
        })
    }
}

impl Store {
    /// A host cosigned a checkpoint of `size` rows that the trail goes on from.
    ///
    /// # Errors
    /// There is no such host, the note passes its limit, or the disk refuses.
    pub fn cosigned(&self, host: &str, size: u64, note: &str, now_ms: u64) -> anyhow::Result<()> {
        // Hastily: what a power cut takes, the host shows again with its next renewal.
        self.write_hastily("keep a cosigned checkpoint", |tx| {
            tx.prepare_cached(
                "INSERT INTO witnesses (host, size, note, cosigned_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (host) DO UPDATE
                 SET size = ?2, note = ?3, cosigned_ms = ?4, conflict = NULL",
            )?
            .execute(params![host, Uint(size), note, Uint(now_ms)])?;
            Ok(())
        })
    }

    /// A host showed a checkpoint that the trail does not go on from: that is on record, once for each checkpoint. `true` if it is news.
    ///
    /// # Errors
    /// There is no such host, the note passes its limit, or the disk refuses.
    pub fn witness_conflict(
        &self,
        host: &str,
        size: u64,
        note: &str,
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("keep what contradicts the audit trail", |tx| {
            let before = one(tx, host)?.and_then(|row| row.conflict);
            if before.as_deref() == Some(note) {
                return Ok(false);
            }
            tx.prepare_cached(
                "INSERT INTO witnesses (host, conflict) VALUES (?1, ?2) ON CONFLICT (host) DO UPDATE SET conflict = ?2",
            )?
            .execute(params![host, note])?;
            audit(
                tx,
                &AuditEntry {
                    time_ms: now_ms,
                    name: "witness.conflict",
                    subject: host,
                    actor: &format!("host:{host}"),
                    fields: &json!({ "rows": size, "note": note }),
                },
            )?;
            Ok(true)
        })
    }

    /// The last checkpoints that hosts other than `host` cosigned, the newest first: rows and note.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn cosigned_by_others(
        &self,
        host: &str,
        limit: usize,
    ) -> anyhow::Result<Vec<(u64, String)>> {
        self.read("read cosigned checkpoints", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT size, note FROM witnesses WHERE host <> ? AND note IS NOT NULL ORDER BY cosigned_ms DESC, host LIMIT ?",
            )?;
            let limit = u64::try_from(limit).unwrap_or(u64::MAX);
            let rows = rows.query_map(params![host, Uint(limit)], |row| {
                Ok((row.get::<_, Uint>(0)?.0, row.get(1)?))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Every witness, by name; at most [`WITNESSES_LISTED_MAX`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn witnesses(&self) -> anyhow::Result<Vec<WitnessRow>> {
        self.read("read witnesses", |connection| {
            let mut rows =
                connection.prepare_cached("SELECT * FROM witnesses ORDER BY host LIMIT ?")?;
            let rows = rows.query_map([WITNESSES_LISTED_MAX], WitnessRow::read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn one(connection: &Connection, host: &str) -> anyhow::Result<Option<WitnessRow>> {
    connection
        .prepare_cached("SELECT * FROM witnesses WHERE host = ?")?
        .query_row([host], WitnessRow::read)
        .optional()
        .context("read a witness")
}
