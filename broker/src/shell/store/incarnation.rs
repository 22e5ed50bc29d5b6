//! Incarnations of the journal's offsets, and what a restore changes in the store.

use super::audit::{AuditEntry, audit};
use super::{Store, column::Uint};
use crate::core::incarnation::{History, Incarnation, Restored};
use anyhow::Context as _;
use protocol::id::hex;
use protocol::time::UnixMillis;
use rusqlite::{Connection, Row, params};
use serde_json::json;

/// What a restore took away, besides what the backup does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Voided {
    /// Install keys that nobody had used when the backup was made: somebody may have since.
    pub install_keys: usize,
    /// Places of load tests' readers: their journal is not in a backup.
    pub bench_sessions: usize,
    /// Access tokens: one that was revoked since would open the door again.
    pub access_tokens: usize,
}

impl Store {
    /// Every incarnation.
    ///
    /// # Errors
    /// The store cannot be read, or says what cannot be.
    pub fn history(&self) -> anyhow::Result<History> {
        self.read("read incarnations", history)
    }

    /// Begins an incarnation: everything that a restore changes, in one transaction, with its row of the audit trail.
    ///
    /// # Errors
    /// The disk refuses, or there is one of that number.
    pub fn begin_incarnation(
        &self,
        next: &Incarnation,
        keys: &'static str,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<Voided> {
        let restored = next.restored.context("it was restored from nothing")?;
        self.write("begin incarnation", |tx| {
            tx.execute(
                "INSERT INTO incarnations (number, id, first_offset, began_ms, backup_id, backup_ms, backup_end)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
                params![
                    Uint(next.number), next.id, Uint(next.first), Uint(next.began.0),
                    restored.backup, Uint(restored.made.0), Uint(restored.end),
                ],
            )?;
            let install_keys =
                tx.execute("UPDATE install_keys SET state = 'retired' WHERE state = 'new'", [])?;
            let bench_sessions = tx.execute(
                "DELETE FROM reader_sessions WHERE reader IN (SELECT name FROM readers WHERE may = 'bench')",
                [],
            )?;
            let access_tokens = tx.execute("DELETE FROM access_tokens", [])?;
            let fields = json!({
                "incarnation": next.number,
                "incarnation_id": hex(&next.id),
                "first_offset": next.first,
                "backup": hex(&restored.backup),
                "backup_ms": restored.made.0,
                "withdrawn_from": restored.end,
                "keys": keys,
                "install_keys_retired": install_keys,
                "access_tokens_revoked": access_tokens,
            });
            audit(tx, &AuditEntry {
                time_ms: now_ms,
                name: "broker.restored",
                subject: &format!("incarnation {}", next.number),
                actor,
                fields: &fields,
            })?;
            Ok(Voided { install_keys, bench_sessions, access_tokens })
        })
    }
}

pub(super) fn history(connection: &Connection) -> anyhow::Result<History> {
    let mut rows = connection.prepare_cached("SELECT * FROM incarnations ORDER BY number")?;
    let rows = rows.query_map([], read_row)?;
    let all = rows.collect::<Result<_, _>>()?;
    History::new(all).context("its incarnations do not follow from each other")
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<Incarnation> {
    let restored = match row.get("backup_id")? {
        None => None,
        Some(backup) => Some(Restored {
            backup,
            made: UnixMillis(row.get::<_, Uint>("backup_ms")?.0),
            end: row.get::<_, Uint>("backup_end")?.0,
        }),
    };
    Ok(Incarnation {
        number: row.get::<_, Uint>("number")?.0,
        id: row.get("id")?,
        first: row.get::<_, Uint>("first_offset")?.0,
        began: UnixMillis(row.get::<_, Uint>("began_ms")?.0),
        restored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{NOW, audit_names, open, with_unused_key};

    #[test]
    fn a_restore_is_recorded_with_what_it_voids_and_read_back() {
        let (_dir, store) = with_unused_key();
        let history = store.history().unwrap();
        assert_eq!((history.current().number, history.current().first), (1, 0));
        let backup = Restored {
            backup: [5; 16],
            made: UnixMillis(NOW),
            end: 17,
        };
        let next = history.next([6; 16], UnixMillis(NOW + 5), backup).unwrap();
        let voided = store.begin_incarnation(&next, "restored", "uid:0", NOW + 5);
        assert_eq!(voided.unwrap().install_keys, 1);
        assert_eq!(store.history().unwrap().current(), &next);
        assert_eq!(audit_names(&store).last().unwrap(), "broker.restored");
        // Once: a number is never taken again.
        assert!(
            store
                .begin_incarnation(&next, "restored", "uid:0", NOW)
                .is_err()
        );
    }

    #[test]
    fn two_stores_are_two_incarnations() {
        let id = |store: &Store| store.history().unwrap().current().id;
        let ((_one, one), (_two, two)) = (open(), open());
        assert_ne!(id(&one), id(&two));
    }
}
