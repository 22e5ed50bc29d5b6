//! Adding hosts, and install keys: each works once.

use super::host::{self, HostKeyRow, HostKind, HostRow};
use super::{Store, column::Uint};
use crate::core::hosts::{
    self, HostState, InstallKeyFacts, InstallKeyState, RedeemRefusal, Redemption,
};
use anyhow::Context as _;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde_json::json;

/// A host to be added, and the install key in its bundle.
#[derive(Clone, Debug)]
pub struct NewHost {
    /// Its id, `[a-z0-9-]{1,64}`.
    pub name: String,
    /// Where it runs its sandboxes.
    pub kind: HostKind,
    /// The install key's public id.
    pub kid: [u8; 8],
    /// SHA-256 of the install key's secret. The secret itself never comes here.
    pub secret_sha256: [u8; 32],
    /// When the install key ends unused, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Whether the host may be enrolled already: who redeems the key then takes the place of the machine it has.
    pub replace: bool,
}

/// What [`Store::add_host`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddHost {
    /// The host is new.
    Added,
    /// It was there; it has a fresh install key, and this many unused ones before it are void. An enrolled operator keeps
    /// running until somebody redeems the key.
    Reissued {
        /// How many: 0 or 1.
        retired: usize,
    },
    /// No; nothing changed.
    Refused(AddRefusal),
}

/// Why a host is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddRefusal {
    /// It is locked: unlock it first.
    Locked,
    /// The name is that of a revoked host, and never used again.
    Revoked,
    /// It is enrolled, and was not to be replaced.
    Enrolled,
    /// It is enrolled, and of the other kind.
    OtherKind,
}

/// Someone who presents an install key. The caller has verified a signature by `public_key` over its own nonce, the kid and
/// the host.
#[derive(Clone, Copy, Debug)]
pub struct Redeem<'a> {
    /// The install key's public id.
    pub kid: &'a [u8; 8],
    /// SHA-256 of the secret that was presented.
    pub secret_sha256: &'a [u8; 32],
    /// The host it says it is.
    pub host: &'a str,
    /// The key it made.
    pub public_key: &'a [u8; 32],
    /// For how long after its redemption the same key gets the same answer again, in milliseconds: as long as a host may be away.
    pub again_ms: u64,
}

/// A host that has just enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Its name.
    pub host: String,
    /// Where it runs its sandboxes.
    pub kind: HostKind,
    /// The generation of its key.
    pub generation: u64,
}

/// What [`Store::redeem_install_key`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// The host is enrolled with this key. On disk, so it may be told.
    Now(Enrolled),
    /// It was, by the same key, and has no other since: give the same answer.
    AlreadySame(Enrolled),
    /// No. The peer is not told why.
    Refused(RedeemRefusal),
}

impl Store {
    /// Add a host with its install key, or give one that was added a fresh key and retire its unused one.
    ///
    /// # Errors
    /// The name is not an id, the kid is taken, or the disk refuses.
    pub fn add_host(&self, new: &NewHost, actor: &str, now_ms: u64) -> anyhow::Result<AddHost> {
        self.write("add host", |tx| {
            let outcome = match host::find(tx, &new.name)? {
                None => {
                    tx.execute(
                        "INSERT INTO hosts (name, kind, created_ms, state, generation, added_by) VALUES (?, ?, ?, 'new', 0, ?)",
                        params![new.name, new.kind, Uint(now_ms), actor],
                    )?;
                    AddHost::Added
                }
                Some(row) => match judge_again(&row, new) {
                    Some(refusal) => return Ok(AddHost::Refused(refusal)),
                    None => {
                        tx.execute("UPDATE hosts SET kind = ? WHERE name = ?", params![new.kind, new.name])?;
                        AddHost::Reissued { retired: retire_unused(tx, &new.name)? }
                    }
                },
            };
            tx.execute(
                "INSERT INTO install_keys (kid, host, secret_sha256, state, expires_ms) VALUES (?, ?, ?, 'new', ?)",
                params![new.kid, new.name, new.secret_sha256, Uint(new.expires_ms)],
            )?;
            let fields = json!({
                "fingerprint": hosts::fingerprint(&new.secret_sha256),
                "expires_ms": new.expires_ms,
                "retired": matches!(outcome, AddHost::Reissued { retired: 1.. }),
            });
            host::record(tx, "host.operator_bundle", &new.name, actor, &fields, now_ms)?;
            Ok(outcome)
        })
    }

    /// Redeem an install key. Of any number of callers at once, exactly one enrols the host; who has not the secret
    /// causes no write.
    ///
    /// # Errors
    /// The disk refuses. Then nothing changed, and nothing may be granted.
    pub fn redeem_install_key(&self, redeem: &Redeem<'_>, now_ms: u64) -> anyhow::Result<Redeemed> {
        if !self.read("look up install key", |connection| {
            has_secret(connection, redeem)
        })? {
            return Ok(Redeemed::Refused(RedeemRefusal::Unknown));
        }
        self.write("redeem install key", |tx| {
            if !take_key(tx, redeem, now_ms)? {
                return refuse_or_repeat(tx, redeem, now_ms);
            }
            let row = host::find(tx, redeem.host)?.context("find the install key's host")?;
            let generation = row.generation.checked_add(1).context("number generation")?;
            let key = HostKeyRow {
                generation,
                public_key: *redeem.public_key,
                succession: None,
                enrolled_ms: now_ms,
                caught_up: None,
            };
            host::set_key(tx, redeem.host, &key)?;
            let fields = json!({
                "generation": generation,
                "public_key": super::hex(redeem.public_key),
                "fingerprint": hosts::fingerprint(redeem.secret_sha256),
            });
            host::record(
                tx,
                "host.enrolled",
                redeem.host,
                &format!("host:{}", redeem.host),
                &fields,
                now_ms,
            )?;
            Ok(Redeemed::Now(Enrolled {
                host: row.name,
                kind: row.kind,
                generation,
            }))
        })
    }
}

fn judge_again(row: &HostRow, new: &NewHost) -> Option<AddRefusal> {
    match row.state {
        HostState::New => None,
        HostState::Enrolled if !new.replace => Some(AddRefusal::Enrolled),
        HostState::Enrolled => (row.kind != new.kind).then_some(AddRefusal::OtherKind),
        HostState::Locked => Some(AddRefusal::Locked),
        HostState::Revoked => Some(AddRefusal::Revoked),
    }
}

/// Make the host's unused install key worthless; how many there were.
pub(super) fn retire_unused(tx: &Transaction<'_>, host: &str) -> anyhow::Result<usize> {
    let mut retire = tx.prepare_cached(
        "UPDATE install_keys SET state = 'retired' WHERE host = ? AND state = 'new'",
    )?;
    Ok(retire.execute([host])?)
}

/// Whether the presented secret is the one of this kid and host. A kid that does not exist takes the same time.
fn has_secret(connection: &Connection, redeem: &Redeem<'_>) -> anyhow::Result<bool> {
    let mut row =
        connection.prepare_cached("SELECT secret_sha256, host FROM install_keys WHERE kid = ?")?;
    let row: Option<([u8; 32], String)> = row
        .query_row([redeem.kid], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let known = row.is_some();
    let (stored, host) = row.unwrap_or(([0; 32], String::new()));
    let matches = hosts::secret_matches(&stored, redeem.secret_sha256);
    Ok(matches && known && host == redeem.host)
}

/// The one door: of all who come with the secret, one finds the key new.
fn take_key(tx: &Transaction<'_>, redeem: &Redeem<'_>, now_ms: u64) -> anyhow::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE install_keys SET state = 'used', bound_pk = ?1, used_ms = ?2
             WHERE kid = ?3 AND state = 'new' AND expires_ms > ?2
               AND EXISTS (SELECT 1 FROM hosts WHERE name = host AND state IN ('new', 'enrolled'))
               AND NOT EXISTS (SELECT 1 FROM host_keys WHERE public_key = ?1)",
        )?
        .execute(params![redeem.public_key, Uint(now_ms), redeem.kid])?;
    Ok(changed == 1)
}

/// The key could not be taken: was it taken by the same key, or why not?
fn refuse_or_repeat(
    tx: &Transaction<'_>,
    redeem: &Redeem<'_>,
    now_ms: u64,
) -> anyhow::Result<Redeemed> {
    let row = host::find(tx, redeem.host)?.context("find the install key's host")?;
    let facts = facts(tx, redeem, &row)?;
    match hosts::judge_redemption(&facts, redeem.public_key, now_ms) {
        Redemption::Repeat => Ok(Redeemed::AlreadySame(Enrolled {
            host: row.name,
            kind: row.kind,
            generation: row.generation,
        })),
        Redemption::Refuse(refusal) => {
            if refusal == RedeemRefusal::UsedByOther {
                note_misuse(tx, redeem, now_ms)?;
            }
            Ok(Redeemed::Refused(refusal))
        }
        Redemption::Enrol => {
            debug_assert!(false, "the door and the judge agree");
            Ok(Redeemed::Refused(RedeemRefusal::Unknown))
        }
    }
}

fn facts(
    tx: &Transaction<'_>,
    redeem: &Redeem<'_>,
    row: &HostRow,
) -> anyhow::Result<InstallKeyFacts> {
    let mut key = tx.prepare_cached(
        "SELECT state, expires_ms, bound_pk, used_ms FROM install_keys WHERE kid = ?",
    )?;
    let (state, expires_ms, bound, used_ms) = key.query_row([redeem.kid], |row| {
        Ok((
            row.get::<_, InstallKeyState>(0)?,
            row.get::<_, Uint>(1)?.0,
            row.get::<_, Option<[u8; 32]>>(2)?,
            row.get::<_, Option<Uint>>(3)?.map(|used| used.0),
        ))
    })?;
    let public_key_known = host::is_key_known(tx, redeem.public_key)?;
    Ok(InstallKeyFacts {
        state,
        expires_ms,
        used: bound.zip(used_ms.map(|used| used.saturating_add(redeem.again_ms))),
        public_key_known,
        host: row.identity(),
    })
}

/// Somebody else has the secret of a used key: one row for each key, so that repeating it buys nobody any writes.
fn note_misuse(tx: &Transaction<'_>, redeem: &Redeem<'_>, now_ms: u64) -> anyhow::Result<()> {
    let mut note = tx.prepare_cached(
        "UPDATE install_keys SET misused_ms = ? WHERE kid = ? AND misused_ms IS NULL",
    )?;
    if note.execute(params![Uint(now_ms), redeem.kid])? == 0 {
        return Ok(());
    }
    tracing::warn!("a used install key was presented by another machine");
    let fields = json!({
        "severity": "high",
        "reason": "a used install key was presented with another public key",
        "fingerprint": hosts::fingerprint(redeem.secret_sha256),
        "presented_key": super::hex(redeem.public_key),
    });
    host::record(
        tx,
        "host.enrolment_refused",
        redeem.host,
        "stranger",
        &fields,
        now_ms,
    )
}
