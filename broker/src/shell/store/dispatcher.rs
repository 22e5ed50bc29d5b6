//! Dispatchers: whose commands the broker relays. (What a host obeys is listed on the host.)

use super::audit::{AuditEntry, audit};
use super::{Store, column::Uint};
use rusqlite::{OptionalExtension as _, params};
use serde_json::json;

/// A dispatcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatcherRow {
    /// Its Ed25519 key.
    pub public_key: [u8; 32],
    /// What people call it; at most 64 characters, unique.
    pub name: String,
    /// When it was added, in milliseconds since 1970.
    pub added_ms: u64,
    /// Who added it, as the audit trail names them.
    pub added_by: String,
    /// When it ends, being followed by another, in milliseconds since 1970.
    pub until_ms: Option<u64>,
}

impl Store {
    /// Let a dispatcher launch work. `false`: its key or its name is taken, and nothing changed.
    ///
    /// # Errors
    /// The name passes its limit, or the disk refuses.
    pub fn add_dispatcher(&self, dispatcher: &DispatcherRow) -> anyhow::Result<bool> {
        self.write("add dispatcher", |tx| {
            let mut known = tx.prepare_cached("SELECT 1 FROM dispatchers WHERE public_key = ? OR name = ?")?;
            if known.exists(params![dispatcher.public_key, dispatcher.name])? {
                return Ok(false);
            }
            tx.execute(
                "INSERT INTO dispatchers (public_key, name, added_ms, added_by_uid, added_by) VALUES (?, ?, ?, ?, ?)",
                params![
                    dispatcher.public_key, dispatcher.name, Uint(dispatcher.added_ms),
                    // From before there were others.
                    uid_of(&dispatcher.added_by).unwrap_or(-1), dispatcher.added_by,
                ],
            )?;
            let entry = AuditEntry {
                time_ms: dispatcher.added_ms,
                name: "dispatcher.added",
                subject: &dispatcher.name,
                actor: &dispatcher.added_by,
                fields: &json!({ "public_key": super::hex(&dispatcher.public_key) }),
            };
            audit(tx, &entry)?;
            Ok(true)
        })
    }

    /// Take a dispatcher's right away. `false`: there was none.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_dispatcher(
        &self,
        public_key: &[u8; 32],
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("remove dispatcher", |tx| {
            let mut remove =
                tx.prepare_cached("DELETE FROM dispatchers WHERE public_key = ? RETURNING name")?;
            let name: Option<String> = remove
                .query_row([public_key], |row| row.get(0))
                .optional()?;
            let Some(name) = name else { return Ok(false) };
            let entry = AuditEntry {
                time_ms: now_ms,
                name: "dispatcher.removed",
                subject: &name,
                actor,
                fields: &json!({ "public_key": super::hex(public_key) }),
            };
            audit(tx, &entry)?;
            Ok(true)
        })
    }

    /// All dispatchers, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn dispatchers(&self) -> anyhow::Result<Vec<DispatcherRow>> {
        self.read("list dispatchers", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT public_key, name, added_ms, coalesce(added_by, 'uid:' || added_by_uid), until_ms
                 FROM dispatchers ORDER BY name",
            )?;
            let rows = rows.query_map([], |row| {
                Ok(DispatcherRow {
                    public_key: row.get(0)?,
                    name: row.get(1)?,
                    added_ms: row.get::<_, Uint>(2)?.0,
                    added_by: row.get(3)?,
                    until_ms: row.get::<_, Option<Uint>>(4)?.map(|time| time.0),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn uid_of(actor: &str) -> Option<i64> {
    actor.strip_prefix("uid:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{KEY, NOW, audit_names, open};

    #[test]
    fn dispatchers_are_added_once_listed_and_removed() {
        let (_dir, store) = open();
        let ann = DispatcherRow {
            public_key: KEY,
            name: "ann".to_owned(),
            added_ms: NOW,
            added_by: "uid:1000".to_owned(),
            until_ms: None,
        };
        assert!(store.add_dispatcher(&ann).unwrap());
        assert!(
            !store
                .add_dispatcher(&DispatcherRow {
                    public_key: [2; 32],
                    ..ann.clone()
                })
                .unwrap()
        );
        assert!(
            !store
                .add_dispatcher(&DispatcherRow {
                    name: "bob".to_owned(),
                    ..ann.clone()
                })
                .unwrap()
        );
        assert_eq!(store.dispatchers().unwrap(), [ann]);
        assert!(store.remove_dispatcher(&KEY, "uid:0", NOW).unwrap());
        assert!(!store.remove_dispatcher(&KEY, "uid:0", NOW).unwrap());
        assert_eq!(
            audit_names(&store),
            ["dispatcher.added", "dispatcher.removed"]
        );
    }
}
