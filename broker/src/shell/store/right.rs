//! Rights that are taken away one by one, and what a host is called: a row of the audit trail for each, in the same transaction.

use super::host::{self, HostRow};
use super::{Store, column::Uint};
use crate::core::hosts::{self, HostState, InstallKeyState};
use rusqlite::{Transaction, params};
use serde_json::json;

/// The install keys of a host that are shown, newest first; older ones are in the audit trail.
const INSTALL_KEYS_SHOWN_MAX: u32 = 8;

/// An install key, as far as people may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallKeyRow {
    /// What the audit trail calls it.
    pub fingerprint: String,
    /// Where its life stands.
    pub state: InstallKeyState,
    /// When it ends unused, in milliseconds since 1970.
    pub expires_ms: u64,
    /// When it was redeemed, in milliseconds since 1970.
    pub used_ms: Option<u64>,
    /// When somebody else first presented it after that, in milliseconds since 1970.
    pub misused_ms: Option<u64>,
}

/// What [`Store::revoke_generation`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoidedGeneration {
    /// Nothing that rests on the generation counts any more.
    Now {
        /// It is the host's newest: the host needs a new bundle.
        is_newest: bool,
    },
    /// It was revoked before.
    Before,
    /// The host has not come so far.
    Ahead {
        /// Its newest generation.
        newest: u64,
    },
    /// There is no such host, or it is revoked.
    Unknown,
}

impl Store {
    /// The host's install keys, the newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn install_keys(&self, host: &str) -> anyhow::Result<Vec<InstallKeyRow>> {
        self.read("list install keys", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT secret_sha256, state, expires_ms, used_ms, misused_ms FROM install_keys
                 WHERE host = ? ORDER BY rowid DESC LIMIT ?",
            )?;
            let rows = rows.query_map(params![host, INSTALL_KEYS_SHOWN_MAX], |row| {
                Ok(InstallKeyRow {
                    fingerprint: hosts::fingerprint(&row.get(0)?),
                    state: row.get(1)?,
                    expires_ms: row.get::<_, Uint>(2)?.0,
                    used_ms: row.get::<_, Option<Uint>>(3)?.map(|used| used.0),
                    misused_ms: row.get::<_, Option<Uint>>(4)?.map(|misused| misused.0),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Make the host's unused install key worthless. `None`: it has none.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn revoke_install_key(
        &self,
        host: &str,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<Option<String>> {
        self.write("revoke install key", |tx| {
            let mut retire = tx.prepare_cached(
                "UPDATE install_keys SET state = 'retired' WHERE host = ? AND state = 'new' RETURNING secret_sha256",
            )?;
            let retired: Vec<[u8; 32]> =
                retire.query_map([host], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let Some(secret_sha256) = retired.first() else {
                return Ok(None);
            };
            let fingerprint = hosts::fingerprint(secret_sha256);
            let fields = json!({ "fingerprint": fingerprint });
            host::record(tx, "host.install_key_revoked", host, actor, &fields, now_ms)?;
            Ok(Some(fingerprint))
        })
    }

    /// Let nothing count any more that rests on the host's keys up to this generation.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn revoke_generation(
        &self,
        host: &str,
        generation: u64,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<VoidedGeneration> {
        self.write("revoke generation", |tx| {
            let Some(row) = host::find(tx, host)?.filter(is_in_use) else {
                return Ok(VoidedGeneration::Unknown);
            };
            if generation > row.generation || generation == 0 {
                let newest = row.generation;
                return Ok(VoidedGeneration::Ahead { newest });
            }
            if row.identity().is_void(generation) {
                return Ok(VoidedGeneration::Before);
            }
            tx.prepare_cached("UPDATE hosts SET void_generation = ? WHERE name = ?")?
                .execute(params![Uint(generation), host])?;
            let fields = json!({ "up_to": generation, "newest": row.generation });
            host::record(tx, "host.generation_revoked", host, actor, &fields, now_ms)?;
            Ok(VoidedGeneration::Now {
                is_newest: generation == row.generation,
            })
        })
    }

    /// Let a sandbox connect no more. `false`: the host never had it, or it is revoked.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn revoke_sandbox(
        &self,
        host: &str,
        sandbox: &str,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("revoke sandbox", |tx| {
            let revoked = tx
                .prepare_cached(
                    "INSERT INTO revoked_sandboxes (host, id, revoked_ms)
                     SELECT host, id, ?3 FROM sandboxes WHERE host = ?1 AND id = ?2 ON CONFLICT DO NOTHING",
                )?
                .execute(params![host, sandbox, Uint(now_ms)])?;
            if revoked == 1 {
                let subject = format!("{host}/{sandbox}");
                host::record(tx, "sandbox.revoked", &subject, actor, &json!({}), now_ms)?;
            }
            Ok(revoked == 1)
        })
    }

    /// The host's sandboxes that may not connect any more, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn revoked_sandboxes(&self, host: &str) -> anyhow::Result<Vec<String>> {
        self.read("list revoked sandboxes", |connection| {
            let mut rows = connection
                .prepare_cached("SELECT id FROM revoked_sandboxes WHERE host = ? ORDER BY id")?;
            let rows = rows.query_map([host], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Take a host's rights away for good, if that was not done before, and take it out of the lists. `false`: there is none of that
    /// name, or it was removed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_host(&self, host: &str, actor: &str, now_ms: u64) -> anyhow::Result<bool> {
        self.write("remove host", |tx| {
            let row = host::find(tx, host)?.filter(|row| row.removed_ms.is_none());
            let Some(row) = row else { return Ok(false) };
            tx.prepare_cached("UPDATE hosts SET state = ?, removed_ms = ? WHERE name = ?")?
                .execute(params![HostState::Revoked, Uint(now_ms), host])?;
            let retired = super::enroll::retire_unused(tx, host)?;
            let fields = json!({
                "install_keys_retired": retired,
                "was_revoked": row.state == HostState::Revoked,
            });
            host::record(tx, "host.removed", host, actor, &fields, now_ms)?;
            Ok(true)
        })
    }

    /// Call a host something else beside its name, or nothing. `false`: there is none of that name in the lists, or that is what it
    /// is called.
    ///
    /// # Errors
    /// The label passes its limit, or the disk refuses.
    pub fn label_host(
        &self,
        host: &str,
        label: Option<&str>,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("rename host", |tx| {
            let row = host::find(tx, host)?
                .filter(|row| row.removed_ms.is_none() && row.label.as_deref() != label);
            let Some(row) = row else { return Ok(false) };
            set_label(tx, host, label)?;
            let fields = json!({ "label": label, "before": row.label });
            host::record(tx, "host.renamed", host, actor, &fields, now_ms)?;
            Ok(true)
        })
    }
}

fn is_in_use(row: &HostRow) -> bool {
    match row.state {
        HostState::New | HostState::Enrolled | HostState::Locked => true,
        HostState::Revoked => false,
    }
}

fn set_label(tx: &Transaction<'_>, host: &str, label: Option<&str>) -> anyhow::Result<()> {
    tx.prepare_cached("UPDATE hosts SET label = ? WHERE name = ?")?
        .execute(params![label, host])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{NOW, audit_names, enrolled, with_unused_key};
    use crate::shell::store::{AddHost, AddRefusal, HostKind, NewHost};

    #[test]
    fn an_unused_install_key_is_revoked_once_and_shown_by_its_fingerprint() {
        let (_dir, store) = with_unused_key();
        let shown = store.install_keys("edge-1").unwrap();
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].state, InstallKeyState::New);
        let revoked = store.revoke_install_key("edge-1", "uid:0", NOW).unwrap();
        assert_eq!(revoked.as_ref(), Some(&shown[0].fingerprint));
        assert_eq!(
            store.revoke_install_key("edge-1", "uid:0", NOW).unwrap(),
            None
        );
        let state = store.install_keys("edge-1").unwrap()[0].state;
        assert_eq!(state, InstallKeyState::Retired);
        assert_eq!(
            audit_names(&store),
            ["host.operator_bundle", "host.install_key_revoked"]
        );
    }

    #[test]
    fn a_generation_is_revoked_once_and_none_that_has_not_come() {
        let (_dir, store) = enrolled();
        let revoke = |host, generation| {
            store
                .revoke_generation(host, generation, "uid:0", NOW)
                .unwrap()
        };
        assert_eq!(revoke("edge-2", 1), VoidedGeneration::Unknown);
        assert_eq!(revoke("edge-1", 0), VoidedGeneration::Ahead { newest: 1 });
        assert_eq!(revoke("edge-1", 2), VoidedGeneration::Ahead { newest: 1 });
        assert_eq!(
            revoke("edge-1", 1),
            VoidedGeneration::Now { is_newest: true }
        );
        assert_eq!(revoke("edge-1", 1), VoidedGeneration::Before);
        assert_eq!(
            audit_names(&store).last().map(String::as_str),
            Some("host.generation_revoked")
        );
    }

    #[test]
    fn a_removed_host_is_revoked_and_its_name_is_never_given_again() {
        let (_dir, store) = enrolled();
        assert!(store.remove_host("edge-1", "uid:0", NOW + 5).unwrap());
        assert!(!store.remove_host("edge-1", "uid:0", NOW + 6).unwrap());
        assert!(!store.remove_host("edge-2", "uid:0", NOW + 6).unwrap());
        let row = store.host("edge-1").unwrap().unwrap();
        assert_eq!(row.state, HostState::Revoked);
        assert_eq!(row.removed_ms, Some(NOW + 5));
        let again = NewHost {
            name: "edge-1".to_owned(),
            kind: HostKind::Docker,
            kid: [7; 8],
            secret_sha256: [7; 32],
            expires_ms: NOW + 1_000,
            replace: true,
        };
        assert_eq!(
            store.add_host(&again, "uid:0", NOW + 7).unwrap(),
            AddHost::Refused(AddRefusal::Revoked)
        );
        assert!(!store.label_host("edge-1", Some("x"), "uid:0", NOW).unwrap());
    }

    #[test]
    fn a_label_is_set_changed_and_taken_away_and_each_is_on_record() {
        let (_dir, store) = enrolled();
        let label = |label: Option<&str>| store.label_host("edge-1", label, "uid:0", NOW).unwrap();
        assert!(label(Some("Rack 4")));
        assert!(!label(Some("Rack 4")));
        assert_eq!(
            store.host("edge-1").unwrap().unwrap().label.as_deref(),
            Some("Rack 4")
        );
        assert!(label(None));
        assert!(
            store
                .label_host("edge-1", Some(&"x".repeat(65)), "uid:0", NOW)
                .is_err()
        );
        let rows = store.audit_rows(0, 100).unwrap();
        let renamed: Vec<_> = rows
            .iter()
            .filter(|row| row.name == "host.renamed")
            .collect();
        assert_eq!(renamed.len(), 2);
        assert!(renamed[1].fields.contains("Rack 4"), "what it was before");
    }
}
