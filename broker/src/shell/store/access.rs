//! Access tokens: who may use the control plane over HTTPS.

use super::audit::{AuditEntry, audit};
use super::{Store, column::Uint};
use crate::core::access::{ACCESS_MAX, Account, Accounts, Rights, Role};
use anyhow::Context as _;
use protocol::id::{AccessName, HostId};
use rusqlite::{Row, params};
use serde_json::json;

/// A token that is to be added.
#[derive(Clone, Debug)]
pub struct NewAccess {
    /// Whose it is, and what it gives.
    pub account: Account,
    /// Names it.
    pub kid: [u8; 8],
    /// When it is added, in milliseconds since 1970.
    pub added_ms: u64,
    /// Who adds it.
    pub actor: String,
}

/// A token in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRow {
    /// Names it.
    pub kid: [u8; 8],
    /// Whose it is, and what it gives.
    pub account: Account,
    /// Who added it, as the audit trail names them.
    pub added_by: String,
    /// When it was added, in milliseconds since 1970.
    pub added_ms: u64,
}

/// What became of a token that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedAccess {
    /// It is there.
    Added,
    /// The name is taken, and nothing changed.
    Taken,
    /// There are as many as may be, and nothing changed.
    Full,
}

impl Store {
    /// Adds a token.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn add_access(&self, new: &NewAccess) -> anyhow::Result<AddedAccess> {
        let NewAccess {
            account,
            kid,
            added_ms,
            actor,
        } = new;
        let role = account.rights.role.word();
        let host = account.rights.host.as_ref().map(HostId::as_str);
        self.write("add access token", |tx| {
            let mut known = tx.prepare_cached("SELECT 1 FROM access_tokens WHERE name = ?")?;
            if known.exists([account.name.as_str()])? {
                return Ok(AddedAccess::Taken);
            }
            let count: u32 = tx.query_row("SELECT count(*) FROM access_tokens", [], |row| row.get(0))?;
            if count >= ACCESS_MAX {
                return Ok(AddedAccess::Full);
            }
            tx.execute(
                "INSERT INTO access_tokens (name, kid, secret_sha256, role, host, added_by, added_ms, expires_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    account.name.as_str(), kid, account.secret_sha256, role, host, actor,
                    Uint(*added_ms), Uint(account.expires_ms),
                ],
            )?;
            let fields = json!({
                "role": role, "host": host, "kid": super::hex(kid), "expires_ms": account.expires_ms,
            });
            audit(tx, &AuditEntry {
                time_ms: *added_ms,
                name: "access.added",
                subject: account.name.as_str(),
                actor,
                fields: &fields,
            })?;
            Ok(AddedAccess::Added)
        })
    }

    /// Takes a token away. `false`: there was none of that name.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn revoke_access(
        &self,
        name: &AccessName,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("revoke access token", |tx| {
            if tx.execute("DELETE FROM access_tokens WHERE name = ?", [name.as_str()])? == 0 {
                return Ok(false);
            }
            audit(
                tx,
                &AuditEntry {
                    time_ms: now_ms,
                    name: "access.removed",
                    subject: name.as_str(),
                    actor,
                    fields: &json!({}),
                },
            )?;
            Ok(true)
        })
    }

    /// All tokens, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn access(&self) -> anyhow::Result<Vec<AccessRow>> {
        self.read("list access tokens", |connection| {
            let mut rows =
                connection.prepare_cached("SELECT * FROM access_tokens ORDER BY name")?;
            let mut rows = rows.query([])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(read_row(row)?);
            }
            Ok(found)
        })
    }

    /// All tokens, by kid.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn access_accounts(&self) -> anyhow::Result<Accounts> {
        let rows = self.access()?;
        Ok(rows.into_iter().map(|row| (row.kid, row.account)).collect())
    }
}

fn read_row(row: &Row<'_>) -> anyhow::Result<AccessRow> {
    let (name, role): (String, String) = (row.get("name")?, row.get("role")?);
    let host = row.get::<_, Option<String>>("host")?;
    let rights = Rights {
        // What is not understood must not be taken for less than it restricts.
        role: Role::from_word(&role).context("an access token has a role that is not known")?,
        host: host.map(|host| HostId::new(&host)).transpose()?,
    };
    Ok(AccessRow {
        kid: row.get("kid")?,
        account: Account {
            name: AccessName::new(&name)?,
            secret_sha256: row.get("secret_sha256")?,
            rights,
            expires_ms: row.get::<_, Uint>("expires_ms")?.0,
        },
        added_by: row.get("added_by")?,
        added_ms: row.get::<_, Uint>("added_ms")?.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{NOW, audit_names, open};

    fn new(name: &str, number: u16, role: Role) -> NewAccess {
        let [high, low] = number.to_be_bytes();
        NewAccess {
            account: Account {
                name: AccessName::new(name).unwrap(),
                secret_sha256: [low; 32],
                rights: Rights {
                    role,
                    host: (role == Role::Viewer).then(|| HostId::new("edge-1").unwrap()),
                },
                expires_ms: NOW + 10,
            },
            kid: [high, low, 0, 0, 0, 0, 0, 0],
            added_ms: NOW,
            actor: "uid:0".to_owned(),
        }
    }

    #[test]
    fn tokens_are_added_once_read_back_as_they_were_and_revoked() {
        let (_dir, store) = open();
        for (number, role) in (1..).zip(Role::ALL) {
            let new = new(role.word(), number, role);
            assert_eq!(store.add_access(&new).unwrap(), AddedAccess::Added);
            assert_eq!(store.add_access(&new).unwrap(), AddedAccess::Taken);
            assert_eq!(store.access_accounts().unwrap()[&new.kid], new.account);
        }
        let name = AccessName::new("viewer").unwrap();
        assert!(store.revoke_access(&name, "token:ada", NOW).unwrap());
        assert!(!store.revoke_access(&name, "token:ada", NOW).unwrap());
        assert_eq!(store.access().unwrap().len(), 2);
        let names = [
            "access.added",
            "access.added",
            "access.added",
            "access.removed",
        ];
        assert_eq!(audit_names(&store), names);
    }

    #[test]
    fn there_are_no_more_tokens_than_may_be() {
        let (_dir, store) = open();
        let full = u16::try_from(ACCESS_MAX).unwrap();
        for number in 0..full {
            let new = new(&format!("t-{number}"), number, Role::Viewer);
            assert_eq!(store.add_access(&new).unwrap(), AddedAccess::Added);
        }
        let more = new("more", full, Role::Viewer);
        assert_eq!(store.add_access(&more).unwrap(), AddedAccess::Full);
    }
}
