//! What dispatchers said about each other's keys, and of a restore: kept for hosts, and applied to whose commands the broker relays.

use super::audit::{AuditEntry, audit};
use super::{Store, column::Uint, hex};
use protocol::key_change::Change;
use protocol::limits::STATEMENTS_MAX;
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde_json::{Value, json};

/// A statement that was verified, and who brings it.
#[derive(Clone, Copy, Debug)]
pub struct NewStatement<'a> {
    /// As signed.
    pub bytes: &'a [u8],
    /// What it changes.
    pub change: &'a Change,
    /// The key that signed it.
    pub signer: &'a [u8; 32],
    /// What a new key is called.
    pub name: &'a str,
    /// Who brings it, as the audit trail names them.
    pub actor: &'a str,
}

/// What became of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is kept, and in force.
    Taken,
    /// It changes nothing that is not so already.
    Again,
    /// Its signer named another key before.
    Fork,
    /// The new key's name is another dispatcher's.
    NameTaken,
    /// As many are kept as may be.
    Full,
}

impl Store {
    /// Takes a statement, with its row of the audit trail.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn take_statement(&self, new: &NewStatement<'_>, now_ms: u64) -> anyhow::Result<Said> {
        self.write("take statement", |tx| {
            let mut same =
                tx.prepare_cached("SELECT 1 FROM dispatcher_statements WHERE statement = ?")?;
            if same.exists([new.bytes])? {
                return Ok(Said::Again);
            }
            let mut all = tx.prepare_cached("SELECT count(*) FROM dispatcher_statements")?;
            let count = all.query_row([], |row| row.get::<_, Uint>(0))?.0;
            if count >= STATEMENTS_MAX as u64 {
                return Ok(Said::Full);
            }
            let (name, subject, fields) = match new.change {
                Change::Next(next) => {
                    if let Some(said) = follow(tx, new, next.key.as_bytes(), next.until.0, now_ms)?
                    {
                        return Ok(said);
                    }
                    let fields = json!({
                        "before": hex(new.signer),
                        "after": hex(next.key.as_bytes()),
                        "until_ms": next.until.0,
                    });
                    ("dispatcher.rotated", new.name.to_owned(), fields)
                }
                Change::Revoke(revoked) => {
                    let (called, fallen) = revoke(tx, revoked.key.as_bytes())?;
                    let fields = json!({
                        "public_key": hex(revoked.key.as_bytes()),
                        "by": hex(new.signer),
                        "with_it": fallen,
                    });
                    ("dispatcher.revoked", called, fields)
                }
                Change::Restored(trail) => {
                    let fields = json!({ "by": hex(new.signer), "restored_ms": trail.at.0, "note": trail.note });
                    ("dispatcher.accepted_restore", "broker".to_owned(), fields)
                }
            };
            tx.execute(
                "INSERT INTO dispatcher_statements (statement, taken_ms) VALUES (?, ?)",
                params![new.bytes, Uint(now_ms)],
            )?;
            record(tx, name, &subject, &fields, new.actor, now_ms)?;
            Ok(Said::Taken)
        })
    }

    /// Every statement, in the order in which they came.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn statements(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        self.read("list statements", |connection| {
            let mut rows = connection
                .prepare_cached("SELECT statement FROM dispatcher_statements ORDER BY seq")?;
            let rows = rows.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

/// Registers the signer's next key, and gives its own an end; what stands against it, if anything does.
fn follow(
    tx: &Transaction<'_>,
    new: &NewStatement<'_>,
    next: &[u8; 32],
    until_ms: u64,
    now_ms: u64,
) -> anyhow::Result<Option<Said>> {
    let mut named = tx.prepare_cached("SELECT public_key FROM dispatchers WHERE named_by = ?")?;
    let before: Option<[u8; 32]> = named.query_row([new.signer], |row| row.get(0)).optional()?;
    match before {
        Some(before) if before == *next => return Ok(Some(Said::Again)),
        Some(_) => return Ok(Some(Said::Fork)),
        None => {}
    }
    let mut taken =
        tx.prepare_cached("SELECT 1 FROM dispatchers WHERE name = ? AND public_key != ?")?;
    if taken.exists(params![new.name, next])? {
        return Ok(Some(Said::NameTaken));
    }
    tx.execute(
        "INSERT INTO dispatchers (public_key, name, added_ms, added_by_uid, added_by, named_by) VALUES (?, ?, ?, -1, ?, ?)
         ON CONFLICT (public_key) DO UPDATE SET named_by = excluded.named_by",
        params![next, new.name, Uint(now_ms), new.actor, new.signer],
    )?;
    tx.execute(
        "UPDATE dispatchers SET until_ms = ? WHERE public_key = ?",
        params![Uint(until_ms), new.signer],
    )?;
    Ok(None)
}

/// Removes a key and what it named, and what those named; its name, and how many went with it.
fn revoke(tx: &Transaction<'_>, key: &[u8; 32]) -> anyhow::Result<(String, usize)> {
    let mut named = tx.prepare_cached("SELECT name FROM dispatchers WHERE public_key = ?")?;
    let name: Option<String> = named.query_row([key], |row| row.get(0)).optional()?;
    // UNION, not UNION ALL: keys that named each other in a circle end here too.
    let removed = tx.execute(
        "WITH RECURSIVE fallen (public_key) AS (
             SELECT ?1 UNION SELECT d.public_key FROM dispatchers d JOIN fallen f ON d.named_by = f.public_key
         ) DELETE FROM dispatchers WHERE public_key IN (SELECT public_key FROM fallen)",
        [key],
    )?;
    let called = name.clone().unwrap_or_else(|| hex(key));
    let itself = usize::from(name.is_some());
    Ok((called, removed.saturating_sub(itself)))
}

fn record(
    tx: &Transaction<'_>,
    name: &str,
    subject: &str,
    fields: &Value,
    actor: &str,
    time_ms: u64,
) -> anyhow::Result<()> {
    audit(
        tx,
        &AuditEntry {
            time_ms,
            name,
            subject,
            actor,
            fields,
        },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::DispatcherRow;
    use crate::shell::store::tests::{NOW, audit_names, open};
    use protocol::key::{Dispatcher, Public, Secret};
    use protocol::key_change::{NextKey, RestoredTrail, RevokedKey};
    use protocol::time::UnixMillis;
    use zeroize::Zeroizing;

    fn key(byte: u8) -> Public<Dispatcher> {
        Secret::from_seed(&Zeroizing::new([byte; 32])).public()
    }

    fn next(to: u8) -> Change {
        let until = UnixMillis(NOW + 5);
        Change::Next(NextKey {
            key: key(to),
            until,
        })
    }

    fn revoke(which: u8) -> Change {
        Change::Revoke(RevokedKey { key: key(which) })
    }

    fn say(store: &Store, signer: u8, change: &Change, bytes: u8, name: &str) -> Said {
        let signer = key(signer);
        let new = NewStatement {
            bytes: &[bytes; 70],
            change,
            signer: signer.as_bytes(),
            name,
            actor: "uid:7",
        };
        store.take_statement(&new, NOW).unwrap()
    }

    fn keys(store: &Store) -> Vec<(String, Option<u64>)> {
        let rows = store.dispatchers().unwrap();
        rows.into_iter()
            .map(|row| (row.name, row.until_ms))
            .collect()
    }

    #[test]
    fn a_key_is_followed_once_and_revoked_with_what_it_named() {
        let (_dir, store) = open();
        for (byte, name) in [(1, "ada"), (2, "bob")] {
            let row = DispatcherRow {
                public_key: *key(byte).as_bytes(),
                name: name.to_owned(),
                added_ms: NOW,
                added_by: "uid:7".to_owned(),
                until_ms: None,
            };
            assert!(store.add_dispatcher(&row).unwrap());
        }
        assert_eq!(say(&store, 1, &next(11), 1, "bob"), Said::NameTaken);
        assert_eq!(say(&store, 1, &next(11), 1, "ada-2"), Said::Taken);
        assert_eq!(say(&store, 1, &next(11), 1, "ada-2"), Said::Again);
        assert_eq!(
            say(&store, 1, &next(11), 2, "ada-2"),
            Said::Again,
            "signed anew"
        );
        assert_eq!(say(&store, 1, &next(12), 3, "ada-3"), Said::Fork);
        assert_eq!(say(&store, 11, &next(12), 4, "ada-3"), Said::Taken);
        let ends = Some(NOW + 5);
        let name = |name: &str, until| (name.to_owned(), until);
        assert_eq!(
            keys(&store),
            [
                name("ada", ends),
                name("ada-2", ends),
                name("ada-3", None),
                name("bob", None)
            ]
        );
        assert_eq!(say(&store, 2, &revoke(11), 5, ""), Said::Taken);
        assert_eq!(keys(&store), [name("ada", ends), name("bob", None)]);
        assert_eq!(
            say(&store, 2, &revoke(90), 6, ""),
            Said::Taken,
            "of a host's list"
        );
        assert_eq!(store.statements().unwrap().len(), 4);
        let names = audit_names(&store);
        assert_eq!(names[names.len() - 2..], ["dispatcher.revoked"; 2]);
    }

    #[test]
    fn a_word_for_a_restore_is_kept_for_hosts_and_on_record_and_changes_no_key() {
        let (_dir, store) = open();
        let before = keys(&store);
        let change = Change::Restored(RestoredTrail {
            at: UnixMillis(NOW),
            vkey: "a key".to_owned(),
            note: "a note".to_owned(),
        });
        assert_eq!(say(&store, 1, &change, 1, "restored"), Said::Taken);
        assert_eq!(say(&store, 1, &change, 1, "restored"), Said::Again);
        assert_eq!(store.statements().unwrap().len(), 1);
        assert_eq!(keys(&store), before);
        assert_eq!(
            audit_names(&store).last().unwrap(),
            "dispatcher.accepted_restore"
        );
    }

    #[test]
    fn there_is_room_for_as_many_as_a_host_keeps() {
        let (_dir, store) = open();
        for byte in 0..u8::try_from(STATEMENTS_MAX).unwrap() {
            assert_eq!(say(&store, 1, &revoke(byte + 100), byte, ""), Said::Taken);
        }
        assert_eq!(say(&store, 1, &revoke(99), 99, ""), Said::Full);
    }
}
