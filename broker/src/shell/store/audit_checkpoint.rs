//! What is signed of the audit trail: checkpoints, each consistent with every one before, and the keys that sign them.

use anyhow::Context as _;
use protocol::{
    audit::{Checkpoint, SignedCheckpoint, Vkey, proof::check_consistency},
    key::{Audit, Secret},
};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde_json::json;

use super::{
    Store,
    audit::{AuditEntry, audit},
    audit_tree,
    column::Uint,
};
use crate::core::audit::CHECKPOINTS_KEPT_MS;

/// The most checkpoints that one call of [`Store::audit_checkpoints`] gives.
pub const CHECKPOINTS_LISTED_MAX: u32 = 1_000;

/// A checkpoint that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRow {
    /// Rows that it covers.
    pub size: u64,
    /// When it was signed, in milliseconds since 1970.
    pub time_ms: u64,
    /// The signed note.
    pub note: String,
}

impl CheckpointRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            size: row.get::<_, Uint>("size")?.0,
            time_ms: row.get::<_, Uint>("time_ms")?.0,
            note: row.get("note")?,
        })
    }
}

/// The trail does not go on from what was signed of it. Nothing is signed then, until a person has looked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistent {
    /// Rows that were signed are gone.
    #[error(
        "the audit trail has {rows} rows, and {signed} were signed: rows are missing from its end"
    )]
    Shorter {
        /// Rows there are.
        rows: u64,
        /// Rows that were signed.
        signed: u64,
    },
    /// Rows that were signed have changed.
    #[error("the first {signed} rows of the audit trail are not those that were signed")]
    Changed {
        /// Rows that were signed.
        signed: u64,
    },
    /// The last checkpoint is not one of ours.
    #[error("the last checkpoint in the store, of {signed} rows, is not signed with the audit key")]
    Forged {
        /// Rows that it covers.
        signed: u64,
    },
}

/// Signs the trail as it stands: with one key, or at a change of keys with both.
fn sign(
    tx: &Transaction<'_>,
    time_ms: u64,
    signers: &[&Secret<Audit>],
    origin: &str,
) -> anyhow::Result<CheckpointRow> {
    let size = audit_tree::size(tx)?;
    let checkpoint = Checkpoint::new(origin, size, audit_tree::root(tx, size)?)?;
    let row = CheckpointRow {
        size,
        time_ms,
        note: SignedCheckpoint::sign(checkpoint, signers).to_string(),
    };
    tx.prepare_cached(
        "INSERT INTO audit_checkpoint (size, time_ms, is_handing, note) VALUES (?, ?, ?, ?)",
    )?
    .execute(params![
        Uint(size),
        Uint(time_ms),
        signers.len() > 1,
        row.note
    ])
    .context("write checkpoint")?;
    Ok(row)
}

/// Refuses where the trail does not go on from the newest checkpoint, which has to be ours; gives that.
fn check_last(
    tx: &Transaction<'_>,
    vkey: &Vkey<Audit>,
) -> anyhow::Result<Result<Option<CheckpointRow>, Inconsistent>> {
    let Some(last) = newest(tx)? else {
        return Ok(Ok(None));
    };
    let signed = last.size;
    let note = SignedCheckpoint::parse(&last.note);
    let Some(told) = note.as_ref().ok().and_then(|note| note.verify(vkey).ok()) else {
        return Ok(Err(Inconsistent::Forged { signed }));
    };
    let rows = audit_tree::size(tx)?;
    if rows < told.size() {
        return Ok(Err(Inconsistent::Shorter { rows, signed }));
    }
    let hashes = audit_tree::consistency(tx, told.size(), rows)?;
    let root = audit_tree::root(tx, rows)?;
    if check_consistency(told.size(), rows, &hashes, told.root(), &root).is_err() {
        return Ok(Err(Inconsistent::Changed { signed }));
    }
    Ok(Ok(Some(last)))
}

fn newest(connection: &Connection) -> anyhow::Result<Option<CheckpointRow>> {
    connection
        .prepare_cached("SELECT * FROM audit_checkpoint ORDER BY size DESC LIMIT 1")?
        .query_row([], CheckpointRow::read)
        .optional()
        .context("read newest checkpoint")
}

/// Of days long past the last checkpoint is enough: it covers all before it. Those that hand over to another key stay.
fn thin(tx: &Transaction<'_>, now_ms: u64) -> anyhow::Result<()> {
    tx.prepare_cached(
        "DELETE FROM audit_checkpoint WHERE is_handing = 0 AND time_ms < ?1 AND size NOT IN
           (SELECT max(size) FROM audit_checkpoint WHERE time_ms < ?1 GROUP BY time_ms / 86400000)",
    )?
    .execute([Uint(now_ms.saturating_sub(CHECKPOINTS_KEPT_MS))])
    .context("thin out checkpoints")?;
    Ok(())
}

impl Store {
    /// Signs the audit trail as it stands, unless the newest checkpoint covers all of it; the newest one. Durable on return.
    ///
    /// # Errors
    /// [`Inconsistent`] if the trail does not go on from what was signed before: then nothing is signed. Or the disk refuses.
    pub fn sign_checkpoint(
        &self,
        time_ms: u64,
        key: &Secret<Audit>,
        origin: &str,
    ) -> anyhow::Result<CheckpointRow> {
        let vkey = Vkey::new(origin, key.public())?;
        let signed = self.write("sign the audit trail", |tx| {
            let last = match check_last(tx, &vkey)? {
                Ok(last) => last,
                Err(inconsistent) => return Ok(Err(inconsistent)),
            };
            if let Some(last) = last
                && last.size == audit_tree::size(tx)?
            {
                return Ok(Ok(last));
            }
            let row = sign(tx, time_ms, &[key], origin)?;
            thin(tx, time_ms)?;
            Ok(Ok(row))
        })?;
        Ok(signed?)
    }

    /// Hands the trail over from the key `old` to the key `new`: a row that says so, and a checkpoint that ends with it and that both
    /// sign, in one transaction.
    ///
    /// # Errors
    /// [`Inconsistent`], as for [`Self::sign_checkpoint`]; or the disk refuses.
    pub fn hand_over_audit(
        &self,
        time_ms: u64,
        actor: &str,
        (old, new): (&Secret<Audit>, &Secret<Audit>),
        origin: &str,
    ) -> anyhow::Result<CheckpointRow> {
        let before = Vkey::new(origin, old.public())?;
        let after = Vkey::new(origin, new.public())?;
        let fields = json!({ "key": "audit", "old": before.to_string(), "new": after.to_string() });
        let signed = self.write("hand the audit trail over to another key", |tx| {
            if let Err(inconsistent) = check_last(tx, &before)? {
                return Ok(Err(inconsistent));
            }
            let entry = AuditEntry {
                time_ms,
                name: "key.rotated",
                subject: origin,
                actor,
                fields: &fields,
            };
            audit(tx, &entry)?;
            let row = sign(tx, time_ms, &[old, new], origin)?;
            begin_key(tx, row.size, &after)?;
            Ok(Ok(row))
        })?;
        Ok(signed?)
    }

    /// The newest checkpoint.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn newest_checkpoint(&self) -> anyhow::Result<Option<CheckpointRow>> {
        self.read("read newest checkpoint", newest)
    }

    /// The checkpoints of `from_size` rows and more, the smallest first; at most `limit` and [`CHECKPOINTS_LISTED_MAX`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_checkpoints(
        &self,
        from_size: u64,
        limit: u32,
    ) -> anyhow::Result<Vec<CheckpointRow>> {
        self.read("read checkpoints", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT * FROM audit_checkpoint WHERE size >= ? ORDER BY size LIMIT ?",
            )?;
            let rows = rows.query_map(
                params![Uint(from_size), limit.min(CHECKPOINTS_LISTED_MAX)],
                CheckpointRow::read,
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The keys that sign the trail, and from which size on each does; the first one first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_keys(&self) -> anyhow::Result<Vec<(u64, Vkey<Audit>)>> {
        self.read("read audit keys", |connection| {
            let mut rows = connection
                .prepare_cached("SELECT from_size, vkey FROM audit_key ORDER BY from_size")?;
            let rows = rows.query_map([], |row| {
                Ok((row.get::<_, Uint>(0)?.0, row.get::<_, String>(1)?))
            })?;
            rows.map(|row| {
                let (from_size, vkey) = row?;
                Ok((from_size, vkey.parse().context("read an audit key")?))
            })
            .collect()
        })
    }

    /// Names the key that signs the trail from its beginning. Once.
    ///
    /// # Errors
    /// There is one, or the disk refuses.
    pub fn begin_audit_keys(&self, vkey: &Vkey<Audit>) -> anyhow::Result<()> {
        self.write("name the audit key", |tx| begin_key(tx, 0, vkey))
    }
}

#[cfg(test)]
impl Store {
    /// What somebody puts there who writes into the store's file and has another key.
    pub(crate) fn forge_checkpoint(
        &self,
        key: &Secret<Audit>,
        origin: &str,
    ) -> anyhow::Result<CheckpointRow> {
        self.write("forge", |tx| sign(tx, 1, &[key], origin))
    }
}

fn begin_key(tx: &Transaction<'_>, from_size: u64, vkey: &Vkey<Audit>) -> anyhow::Result<()> {
    tx.prepare_cached("INSERT INTO audit_key (from_size, vkey) VALUES (?, ?)")?
        .execute(params![Uint(from_size), vkey.to_string()])
        .context("write audit key")?;
    Ok(())
}
