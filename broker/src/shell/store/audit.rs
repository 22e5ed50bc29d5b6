//! The audit trail: rows that are only added, each naming the hash of the one before.

use super::Store;
use super::audit_tree;
use super::column::Uint;
use crate::core::trail::{SALT_BYTES, commitment};
use crate::shell::keys::fill_random;
use anyhow::Context as _;
use protocol::audit::{Frontier, Leaf, NO_LEAF};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, Transaction, params};
use serde_json::{Map, Value, json};

/// The most rows that one call of [`Store::audit_rows`] gives.
pub const AUDIT_ROWS_MAX: u32 = 1_000;

/// What is to be recorded. Nothing in it may be a secret.
#[derive(Clone, Copy, Debug)]
pub struct AuditEntry<'a> {
    /// When, by the broker's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// What happened, `host.enrolled`; at most 64 characters.
    pub name: &'a str,
    /// To whom or what; at most 256 characters.
    pub subject: &'a str,
    /// Who did it, `uid:1000` or `host:edge-1`; at most 256 characters.
    pub actor: &'a str,
    /// More; at most 8 KiB of JSON text.
    pub fields: &'a Value,
}

/// A value that a row commits to, and that may be withheld from whoever reads the trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The row.
    pub seq: u64,
    /// Its field.
    pub field: String,
    /// What was hashed before the value, so that nobody finds the value by trying.
    pub salt: [u8; SALT_BYTES],
    /// The value.
    pub value: String,
}

/// Which rows of the audit trail are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// From this sequence number on.
    pub from: u64,
    /// The most rows; never more than [`AUDIT_ROWS_MAX`].
    pub limit: u32,
    /// Of this name; `host.*` for all that start so.
    pub name: Option<String>,
    /// About this subject.
    pub subject: Option<String>,
    /// Of this time or later, in milliseconds since 1970.
    pub since_ms: u64,
    /// Before this time.
    pub until_ms: Option<u64>,
    /// The last that fit, and not the first.
    pub is_newest: bool,
}

/// A row of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Its place, from zero.
    pub seq: u64,
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// What happened.
    pub name: String,
    /// To whom or what.
    pub subject: String,
    /// Who did it.
    pub actor: String,
    /// More, as the JSON text that was hashed.
    pub fields: String,
    /// The hash of the row before.
    pub prev: [u8; 32],
    /// This row's hash.
    pub hash: [u8; 32],
}

impl AuditRow {
    /// What is hashed.
    #[must_use]
    pub fn leaf(&self) -> Leaf<'_> {
        Leaf {
            seq: self.seq,
            time_ms: self.time_ms,
            name: &self.name,
            subject: &self.subject,
            actor: &self.actor,
            fields: &self.fields,
            prev: &self.prev,
        }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            seq: row.get::<_, Uint>("seq")?.0,
            time_ms: row.get::<_, Uint>("time_ms")?.0,
            name: row.get("name")?,
            subject: row.get("subject")?,
            actor: row.get("actor")?,
            fields: row.get("fields")?,
            prev: row.get("prev")?,
            hash: row.get("hash")?,
        })
    }
}

/// What reading the whole trail showed. An end that was cut off does not show: compare `rows` and `head` with what somebody
/// else kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditCheck {
    /// The rows that are as they were written, from the first on.
    pub rows: u64,
    /// The hash of the last of them.
    pub head: [u8; 32],
    /// The root over all rows, if none is broken.
    pub root: [u8; 32],
    /// What is wrong with the row after them, if anything is.
    pub broken: Option<AuditFault>,
}

/// What is wrong with a row of the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFault {
    /// Rows are missing before the one that is there.
    Missing,
    /// It does not follow from the row before.
    Unchained,
    /// It is not what was hashed, or cannot be read.
    Altered,
    /// The rows are whole, and the tree that is kept over them is another.
    Tree,
}

macro_rules! filtered {
    () => {
        "SELECT * FROM audit WHERE seq >= ?1 AND (?2 IS NULL OR name = ?2) AND substr(name, 1, length(?3)) = ?3 \
         AND (?4 IS NULL OR subject = ?4) AND time_ms >= ?5 AND (?7 IS NULL OR time_ms < ?7)"
    };
}

/// Add a row within a transaction: it is there if, and only if, what it records is.
pub(super) fn audit(tx: &Transaction<'_>, entry: &AuditEntry<'_>) -> anyhow::Result<u64> {
    let last = tx
        .prepare_cached("SELECT seq, hash, time_ms FROM audit ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| {
            let (seq, time_ms) = (row.get::<_, Uint>(0)?.0, row.get::<_, Uint>(2)?.0);
            Ok((seq, row.get::<_, [u8; 32]>(1)?, time_ms))
        })
        .optional()
        .context("read end of audit trail")?;
    let (seq, prev, last_ms) = last.map_or((0, NO_LEAF, 0), |(seq, hash, time_ms)| {
        (seq + 1, hash, time_ms)
    });
    let (fields, openings) = withhold(entry.fields)?;
    let fields = fields.to_string();
    let leaf = Leaf {
        seq,
        // What is recorded late, as after a crash, is dated when it was recorded: the trail's clock never goes back.
        time_ms: entry.time_ms.max(last_ms),
        name: entry.name,
        subject: entry.subject,
        actor: entry.actor,
        fields: &fields,
        prev: &prev,
    };
    let hash = leaf.hash();
    tx.prepare_cached(
        "INSERT INTO audit (seq, time_ms, name, subject, actor, fields, prev, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![Uint(seq), Uint(leaf.time_ms), leaf.name, leaf.subject, leaf.actor, leaf.fields, prev, hash])
    .with_context(|| format!("write audit row {}", entry.name))?;
    audit_tree::append(tx, seq, &hash, &prev)?;
    for opening in openings {
        tx.prepare_cached(
            "INSERT INTO audit_opening (seq, field, salt, value) VALUES (?, ?, ?, ?)",
        )?
        .execute(params![
            Uint(seq),
            opening.field,
            opening.salt,
            opening.value
        ])
        .context("write a value that may be withheld")?;
    }
    Ok(seq)
}

/// The key of an object that stands for a text which an export may withhold.
const WITHHELD: &str = "withheld";

/// A field whose value an export may leave out: the row commits to it with a salted hash, and the value is kept beside the row. For what
/// says more of its owner than of what was done, such as a path.
#[must_use]
pub fn may_be_withheld(value: &str) -> Value {
    json!({ WITHHELD: value })
}

/// Puts commitments in the place of what may be withheld.
fn withhold(fields: &Value) -> anyhow::Result<(Value, Vec<Opening>)> {
    let mut openings = Vec::new();
    let Value::Object(fields) = fields else {
        return Ok((fields.clone(), openings));
    };
    let mut kept = Map::new();
    for (field, value) in fields {
        let withheld = value.as_object().filter(|object| object.len() == 1);
        let kept_value = match withheld.and_then(|object| object.get(WITHHELD)?.as_str()) {
            None => value.clone(),
            Some(text) => {
                let mut salt = [0; SALT_BYTES];
                fill_random(&mut salt)?;
                openings.push(Opening {
                    seq: 0,
                    field: field.clone(),
                    salt,
                    value: text.to_owned(),
                });
                commitment(&salt, text)
            }
        };
        kept.insert(field.clone(), kept_value);
    }
    Ok((Value::Object(kept), openings))
}

impl Store {
    /// Record something that changes nothing else in the store; its sequence number. Durable on return.
    ///
    /// # Errors
    /// A text passes its limit, or the disk refuses.
    pub fn record_audit(&self, entry: &AuditEntry<'_>) -> anyhow::Result<u64> {
        self.write("record audit row", |tx| audit(tx, entry))
    }

    /// The rows from the sequence number `from` on, at most `limit` and at most [`AUDIT_ROWS_MAX`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_rows(&self, from: u64, limit: u32) -> anyhow::Result<Vec<AuditRow>> {
        self.read("read audit trail", |connection| {
            let mut rows = connection
                .prepare_cached("SELECT * FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?")?;
            let rows = rows.query_map(
                params![Uint(from), limit.min(AUDIT_ROWS_MAX)],
                AuditRow::read,
            )?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The rows that `filter` lets through, in their order, and where to go on. Looks through all of the trail if it must; others go on
    /// meanwhile.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_filtered(&self, filter: &AuditFilter) -> anyhow::Result<(Vec<AuditRow>, u64)> {
        let mut connection =
            Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
                .context("open store to read audit trail")?;
        // Rows and size as of one moment.
        let tx = connection.transaction().context("read audit trail")?;
        let size = audit_tree::size(&tx)?;
        let limit = filter.limit.min(AUDIT_ROWS_MAX);
        let mut rows = tx.prepare(if filter.is_newest {
            concat!(filtered!(), " ORDER BY seq DESC LIMIT ?6")
        } else {
            concat!(filtered!(), " ORDER BY seq LIMIT ?6")
        })?;
        let exact = filter.name.as_deref().map(|name| {
            name.strip_suffix('*')
                .map_or((name, None), |start| ("", Some(start)))
        });
        let (name, start) = exact.unwrap_or(("", Some("")));
        let mut rows = rows
            .query_map(
                params![
                    Uint(filter.from),
                    start.is_none().then_some(name),
                    start.unwrap_or_default(),
                    filter.subject,
                    Uint(filter.since_ms),
                    limit,
                    filter.until_ms.map(Uint),
                ],
                AuditRow::read,
            )?
            .collect::<Result<Vec<_>, _>>()?;
        let is_full = u32::try_from(rows.len()).is_ok_and(|count| count == limit);
        if filter.is_newest {
            rows.reverse();
        }
        let next = match rows.last() {
            Some(last) if is_full && !filter.is_newest => last.seq + 1,
            _ => size.max(filter.from),
        };
        Ok((rows, next))
    }

    /// The values that the rows from `from` on, and before `to`, commit to; at most [`AUDIT_ROWS_MAX`] of them, in the order of rows.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn audit_openings(&self, from: u64, to: u64) -> anyhow::Result<Vec<Opening>> {
        self.read("read values of the audit trail", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT * FROM audit_opening WHERE seq >= ? AND seq < ? ORDER BY seq, field LIMIT ?",
            )?;
            let rows = rows.query_map(params![Uint(from), Uint(to), AUDIT_ROWS_MAX], |row| {
                Ok(Opening {
                    seq: row.get::<_, Uint>("seq")?.0,
                    field: row.get("field")?,
                    salt: row.get("salt")?,
                    value: row.get("value")?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Read the whole trail and check every hash and every link. Long; others go on meanwhile.
    ///
    /// # Errors
    /// The store cannot be read. A fault in the trail is an answer, not an error.
    pub fn audit_verify(&self) -> anyhow::Result<AuditCheck> {
        let connection = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .context("open store to verify audit trail")?;
        verify(&connection)
    }
}

pub(super) fn verify(connection: &Connection) -> anyhow::Result<AuditCheck> {
    let mut rows = connection
        .prepare("SELECT * FROM audit ORDER BY seq")
        .context("read audit trail")?;
    let mut rows = rows.query([]).context("read audit trail")?;
    let mut check = AuditCheck {
        rows: 0,
        head: NO_LEAF,
        root: NO_LEAF,
        broken: None,
    };
    let mut frontier = Frontier::new();
    while let Some(row) = rows.next().context("read audit trail")? {
        check.broken = match AuditRow::read(row) {
            Err(_) => Some(AuditFault::Altered),
            Ok(row) if row.leaf().hash() != row.hash => Some(AuditFault::Altered),
            Ok(row) if row.seq != check.rows => Some(AuditFault::Missing),
            Ok(row) if row.prev != check.head => Some(AuditFault::Unchained),
            Ok(row) => {
                check.rows += 1;
                check.head = row.hash;
                frontier.push(row.hash);
                None
            }
        };
        if check.broken.is_some() {
            return Ok(check);
        }
    }
    check.root = frontier.root();
    if !audit_tree::root(connection, check.rows).is_ok_and(|root| root == check.root) {
        check.broken = Some(AuditFault::Tree);
    }
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{NOW, open};

    #[test]
    fn every_kind_of_tampering_with_the_audit_trail_shows_at_its_row() {
        let tamper = [
            (
                "UPDATE audit SET subject = 'x' WHERE seq = 2",
                2,
                AuditFault::Altered,
            ),
            (
                "UPDATE audit SET time_ms = 1 WHERE seq = 0",
                0,
                AuditFault::Altered,
            ),
            (
                "UPDATE audit SET fields = '{ }' WHERE seq = 4",
                4,
                AuditFault::Altered,
            ),
            (
                "UPDATE audit SET hash = zeroblob(32) WHERE seq = 3",
                3,
                AuditFault::Altered,
            ),
            (
                "UPDATE audit SET prev = zeroblob(32) WHERE seq = 3",
                3,
                AuditFault::Altered,
            ),
            ("DELETE FROM audit WHERE seq = 0", 0, AuditFault::Missing),
            ("DELETE FROM audit WHERE seq = 3", 3, AuditFault::Missing),
            (
                "UPDATE audit SET seq = 9 WHERE seq = 1; UPDATE audit SET seq = 1 WHERE seq = 2",
                1,
                AuditFault::Altered,
            ),
        ];
        for (sql, row, fault) in tamper {
            let (dir, store) = open();
            for number in 0..5 {
                let fields = json!({ "number": number });
                let entry = AuditEntry {
                    time_ms: NOW,
                    name: "content.read",
                    subject: "s",
                    actor: "a",
                    fields: &fields,
                };
                assert_eq!(store.record_audit(&entry).unwrap(), number);
            }
            let whole = store.audit_verify().unwrap();
            assert_eq!((whole.rows, whole.broken), (5, None));
            assert_eq!(whole.head, store.audit_rows(4, 9).unwrap()[0].hash);
            let connection = Connection::open(dir.path().join("outhaul.db")).unwrap();
            assert!(
                connection.execute_batch(sql).is_err(),
                "the triggers stop mistakes"
            );
            connection
                .execute_batch("DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete")
                .unwrap();
            connection.execute_batch(sql).unwrap();
            let check = store.audit_verify().unwrap();
            assert_eq!((check.rows, check.broken), (row, Some(fault)), "{sql}");
        }
    }

    #[test]
    fn a_row_forged_with_a_good_hash_does_not_chain() {
        let (dir, store) = open();
        let fields = json!({});
        for subject in ["a", "b", "c"] {
            store
                .record_audit(&AuditEntry {
                    time_ms: NOW,
                    name: "n",
                    subject,
                    actor: "",
                    fields: &fields,
                })
                .unwrap();
        }
        let mut row = store.audit_rows(1, 1).unwrap().pop().unwrap();
        row.subject = "forged".to_owned();
        let connection = Connection::open(dir.path().join("outhaul.db")).unwrap();
        connection
            .execute_batch("DROP TRIGGER audit_no_update")
            .unwrap();
        let forged = (row.leaf().hash(), "forged");
        connection
            .execute(
                "UPDATE audit SET hash = ?, subject = ? WHERE seq = 1",
                forged,
            )
            .unwrap();
        let check = store.audit_verify().unwrap();
        assert_eq!((check.rows, check.broken), (2, Some(AuditFault::Unchained)));
    }
}
