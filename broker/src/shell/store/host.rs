//! Hosts and their keys: renewal, locking, revocation.

use super::audit::{AuditEntry, audit};
use super::{Store, column::Uint, hex};
use crate::core::hosts::{self, CloneSign, HostState, Identity, RenewRefusal, Renewal, Seen};
use anyhow::{Context as _, ensure};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};
use serde_json::{Value, json};

/// Where a host runs its sandboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// On a Docker engine.
    Docker,
    /// In a namespace of a Kubernetes cluster.
    Kubernetes,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRow {
    /// Its id, `[a-z0-9-]{1,64}`, never used for another.
    pub name: String,
    /// Where it runs its sandboxes.
    pub kind: HostKind,
    /// When it was added, in milliseconds since 1970.
    pub created_ms: u64,
    /// Where its life stands.
    pub state: HostState,
    /// Counts its keys; zero before the first.
    pub generation: u64,
    /// The key it has now.
    pub public_key: Option<[u8; 32]>,
    /// Its keys up to this generation were revoked; zero is none.
    pub void_generation: u64,
    /// What people call it, beside its name.
    pub label: Option<String>,
    /// Who added it, as the audit trail names people; unknown of hosts from before this was kept.
    pub added_by: Option<String>,
    /// When it was taken out of the lists, in milliseconds since 1970.
    pub removed_ms: Option<u64>,
}

impl HostRow {
    /// What decisions about its keys rest on.
    #[must_use]
    pub const fn identity(&self) -> Identity {
        Identity {
            state: self.state,
            generation: self.generation,
            public_key: self.public_key,
            void_generation: self.void_generation,
        }
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            kind: row.get(1)?,
            created_ms: row.get::<_, Uint>(2)?.0,
            state: row.get(3)?,
            generation: row.get::<_, Uint>(4)?.0,
            public_key: row.get(5)?,
            void_generation: row.get::<_, Uint>(6)?.0,
            label: row.get(7)?,
            added_by: row.get(8)?,
            removed_ms: row.get::<_, Option<Uint>>(9)?.map(|removed| removed.0),
        })
    }
}

const COLUMNS: &str = "name, kind, created_ms, state, generation, public_key, void_generation, label, added_by, removed_ms";

/// A key that a host has or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKeyRow {
    /// Which of its keys.
    pub generation: u64,
    /// The key.
    pub public_key: [u8; 32],
    /// The statement by which the key before names this one, as signed. `None`: it came with an install key.
    pub succession: Option<Vec<u8>>,
    /// Since when, in milliseconds since 1970.
    pub enrolled_ms: u64,
    /// The incarnation to which the host showed that it had had this key in between. `None`: it asked for a token for it.
    pub caught_up: Option<u64>,
}

/// What [`Store::renew_host`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The host has the new key, in this generation.
    Advanced {
        /// That generation.
        generation: u64,
    },
    /// It had it already: give the same answer.
    Repeated {
        /// Its generation.
        generation: u64,
    },
    /// A clone: the host is locked now. Close its links.
    Locked(CloneSign),
    /// No; nothing changed.
    Refused(RenewRefusal),
}

/// The host of this name.
pub(super) fn find(connection: &Connection, name: &str) -> anyhow::Result<Option<HostRow>> {
    let mut row =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM hosts WHERE name = ?"))?;
    Ok(row.query_row([name], HostRow::read).optional()?)
}

/// Whether any host has or had this key.
pub(super) fn is_key_known(connection: &Connection, public_key: &[u8; 32]) -> anyhow::Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM host_keys WHERE public_key = ?")?
        .exists([public_key])?)
}

/// What is on record of a key that `host` presents for `generation`.
fn seen(
    connection: &Connection,
    host: &str,
    generation: u64,
    public_key: &[u8; 32],
) -> anyhow::Result<Seen> {
    let mut known = connection
        .prepare_cached("SELECT host = ? AND generation = ? FROM host_keys WHERE public_key = ?")?;
    let is_here: Option<bool> = known
        .query_row(params![host, Uint(generation), public_key], |row| {
            row.get(0)
        })
        .optional()?;
    match is_here {
        None => Ok(Seen::Never),
        Some(false) => Ok(Seen::Elsewhere),
        Some(true) => {
            let mut next = connection.prepare_cached(
                "SELECT enrolled_ms FROM host_keys WHERE host = ? AND generation = ?",
            )?;
            let next = next.query_row(params![host, Uint(generation.saturating_add(1))], |row| {
                row.get::<_, Uint>(0)
            });
            let next_ms = next.optional()?.map(|next| next.0);
            Ok(Seen::Here { next_ms })
        }
    }
}

/// Give the host its next key, on the condition that it still has the one before.
pub(super) fn set_key(tx: &Transaction<'_>, host: &str, key: &HostKeyRow) -> anyhow::Result<()> {
    let before = key.generation.checked_sub(1).context("number generation")?;
    let changed = tx
        .prepare_cached(
            "UPDATE hosts SET state = 'enrolled', generation = ?, public_key = ?
             WHERE name = ? AND generation = ? AND state IN ('new', 'enrolled')",
        )?
        .execute(params![
            Uint(key.generation),
            key.public_key,
            host,
            Uint(before)
        ])?;
    ensure!(changed == 1, "the host changed meanwhile");
    tx.prepare_cached(
        "INSERT INTO host_keys (host, generation, public_key, succession, enrolled_ms, caught_up) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        host,
        Uint(key.generation),
        key.public_key,
        key.succession,
        Uint(key.enrolled_ms),
        key.caught_up.map(Uint)
    ])?;
    Ok(())
}

impl Store {
    /// The host of this name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn host(&self, name: &str) -> anyhow::Result<Option<HostRow>> {
        self.read("look up host", |connection| find(connection, name))
    }

    /// All hosts, revoked ones too, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn hosts(&self) -> anyhow::Result<Vec<HostRow>> {
        self.read("list hosts", |connection| {
            let mut rows =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM hosts ORDER BY name"))?;
            let rows = rows.query_map([], HostRow::read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Every key the host has had, the first one first: with their successions, the chain that anchors its reports.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn host_keys(&self, host: &str) -> anyhow::Result<Vec<HostKeyRow>> {
        self.read("list host keys", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT generation, public_key, succession, enrolled_ms, caught_up FROM host_keys WHERE host = ? ORDER BY generation",
            )?;
            let rows = rows.query_map([host], |row| {
                Ok(HostKeyRow {
                    generation: row.get::<_, Uint>(0)?.0,
                    public_key: row.get(1)?,
                    succession: row.get(2)?,
                    enrolled_ms: row.get::<_, Uint>(3)?.0,
                    caught_up: row.get::<_, Option<Uint>>(4)?.map(|number| number.0),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The host presents its key of `generation`, with the statement by which the key before names it. The caller has
    /// verified that statement, and that the request is fresh and signed by a key this host has or had. `asked_ms` is when the
    /// challenge was given that it answers, in milliseconds since 1970.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn renew_host(
        &self,
        host: &str,
        generation: u64,
        public_key: &[u8; 32],
        succession: &[u8],
        asked_ms: u64,
        now_ms: u64,
    ) -> anyhow::Result<Renewed> {
        self.write("renew host", |tx| {
            let Some(row) = find(tx, host)? else {
                return Ok(Renewed::Refused(RenewRefusal::Unknown));
            };
            let actor = format!("host:{host}");
            match hosts::judge_renewal(
                &row.identity(),
                generation,
                public_key,
                seen(tx, host, generation, public_key)?,
                asked_ms,
            ) {
                Renewal::Refuse(refusal) => Ok(Renewed::Refused(refusal)),
                Renewal::Repeat => Ok(Renewed::Repeated { generation }),
                Renewal::Advance => {
                    let key = HostKeyRow {
                        generation,
                        public_key: *public_key,
                        succession: Some(succession.to_vec()),
                        enrolled_ms: now_ms,
                        caught_up: None,
                    };
                    set_key(tx, host, &key)?;
                    let fields = json!({ "generation": generation, "public_key": hex(public_key) });
                    record(tx, "key.rotated", host, &actor, &fields, now_ms)?;
                    Ok(Renewed::Advanced { generation })
                }
                Renewal::Clone(sign) => {
                    let reason = match sign {
                        CloneSign::OtherKey => "another key for the same generation",
                        CloneSign::OldGeneration => "an older generation",
                    };
                    let fields = json!({
                        "reason": reason,
                        "generation": row.generation,
                        "presented_generation": generation,
                        "presented_key": hex(public_key),
                    });
                    change_state(tx, host, &[HostState::Enrolled], HostState::Locked)?;
                    record(tx, "host.locked", host, &actor, &fields, now_ms)?;
                    Ok(Renewed::Locked(sign))
                }
            }
        })
    }

    /// Lock an enrolled host. `false`: it is not enrolled.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn lock_host(
        &self,
        host: &str,
        reason: &str,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("lock host", |tx| {
            let changed = change_state(tx, host, &[HostState::Enrolled], HostState::Locked)?;
            if changed {
                record(
                    tx,
                    "host.locked",
                    host,
                    actor,
                    &json!({ "reason": reason }),
                    now_ms,
                )?;
            }
            Ok(changed)
        })
    }

    /// Unlock a locked host: the key and generation it had count again. `false`: it is not locked.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn unlock_host(&self, host: &str, actor: &str, now_ms: u64) -> anyhow::Result<bool> {
        self.write("unlock host", |tx| {
            let changed = change_state(tx, host, &[HostState::Locked], HostState::Enrolled)?;
            if changed {
                record(tx, "host.unlocked", host, actor, &json!({}), now_ms)?;
            }
            Ok(changed)
        })
    }

    /// Revoke a host for good, with its unused install key. `false`: there is none of that name, or it is revoked.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn revoke_host(&self, host: &str, actor: &str, now_ms: u64) -> anyhow::Result<bool> {
        self.write("revoke host", |tx| {
            let from = [HostState::New, HostState::Enrolled, HostState::Locked];
            let changed = change_state(tx, host, &from, HostState::Revoked)?;
            if changed {
                let retired = super::enroll::retire_unused(tx, host)?;
                record(
                    tx,
                    "host.revoked",
                    host,
                    actor,
                    &json!({ "install_keys_retired": retired }),
                    now_ms,
                )?;
            }
            Ok(changed)
        })
    }
}

pub(super) fn change_state(
    tx: &Transaction<'_>,
    host: &str,
    from: &[HostState],
    to: HostState,
) -> anyhow::Result<bool> {
    let Some(row) = find(tx, host)? else {
        return Ok(false);
    };
    if !from.contains(&row.state) {
        return Ok(false);
    }
    Ok(tx
        .prepare_cached("UPDATE hosts SET state = ? WHERE name = ?")?
        .execute(params![to, host])?
        == 1)
}

pub(super) fn record(
    tx: &Transaction<'_>,
    name: &str,
    host: &str,
    actor: &str,
    fields: &Value,
    time_ms: u64,
) -> anyhow::Result<()> {
    audit(
        tx,
        &AuditEntry {
            time_ms,
            name,
            subject: host,
            actor,
            fields,
        },
    )?;
    Ok(())
}
