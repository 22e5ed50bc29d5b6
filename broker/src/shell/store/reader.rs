//! Readers: who may read, and where each goes on.

use super::audit::{AuditEntry, audit};
use super::{Store, column::Uint};
use crate::core::{
    gate::Kept,
    reader::{Account, Accounts, Rights},
};
use anyhow::Context as _;
use protocol::id::{HostId, ReaderName, SandboxId};
use rusqlite::{OptionalExtension as _, Row, Rows, Transaction, params};
use serde_json::json;

/// Sessions that are kept for one reader while it is away. Past that the one that would end first gives way.
pub const SESSIONS_MAX: u32 = 64;

/// A reader that is to be added.
#[derive(Clone, Debug)]
pub struct NewReader {
    /// Who it is, and what it may.
    pub account: Account,
    /// Names its token.
    pub kid: [u8; 8],
    /// When it is added, in milliseconds since 1970.
    pub added_ms: u64,
    /// Who adds it.
    pub actor: String,
}

/// A reader in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderRow {
    /// Names its token.
    pub kid: [u8; 8],
    /// Who it is, and what it may.
    pub account: Account,
    /// When it was added, in milliseconds since 1970.
    pub added_ms: u64,
}

impl Store {
    /// Adds a reader. `false`: the name is taken, and nothing changed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn add_reader(&self, new: &NewReader) -> anyhow::Result<bool> {
        let NewReader {
            account,
            kid,
            added_ms,
            actor,
        } = new;
        let may = account.rights.words().join(" ");
        let (host, sandbox) = account.rights.limits();
        let (host, sandbox) = (host.map(HostId::as_str), sandbox.map(SandboxId::as_str));
        self.write("add reader", |tx| {
            let mut known = tx.prepare_cached("SELECT 1 FROM readers WHERE name = ?")?;
            if known.exists([account.name.as_str()])? {
                return Ok(false);
            }
            tx.execute(
                "INSERT INTO readers (name, kid, secret_sha256, may, host, sandbox, added_ms, expires_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    account.name.as_str(), kid, account.secret_sha256, may, host, sandbox,
                    Uint(*added_ms), Uint(account.expires_ms),
                ],
            )?;
            let fields = json!({
                "may": may, "host": host, "sandbox": sandbox, "kid": super::hex(kid),
                "expires_ms": account.expires_ms,
            });
            audit(tx, &AuditEntry {
                time_ms: *added_ms,
                name: "reader.added",
                subject: account.name.as_str(),
                actor,
                fields: &fields,
            })?;
            Ok(true)
        })
    }

    /// Takes a reader's rights away, and forgets its sessions. `false`: there was none of that name.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_reader(
        &self,
        name: &ReaderName,
        actor: &str,
        now_ms: u64,
    ) -> anyhow::Result<bool> {
        self.write("remove reader", |tx| {
            if tx.execute("DELETE FROM readers WHERE name = ?", [name.as_str()])? == 0 {
                return Ok(false);
            }
            audit(
                tx,
                &AuditEntry {
                    time_ms: now_ms,
                    name: "reader.removed",
                    subject: name.as_str(),
                    actor,
                    fields: &json!({}),
                },
            )?;
            Ok(true)
        })
    }

    /// All readers, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn readers(&self) -> anyhow::Result<Vec<ReaderRow>> {
        self.read("list readers", |connection| {
            let mut rows = connection.prepare_cached("SELECT * FROM readers ORDER BY name")?;
            let mut rows = rows.query([])?;
            let mut readers = Vec::new();
            while let Some(row) = rows.next()? {
                readers.push(read_row(row)?);
            }
            Ok(readers)
        })
    }

    /// All readers, by the kid of their token.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn reader_accounts(&self) -> anyhow::Result<Accounts> {
        let rows = self.readers()?;
        Ok(rows.into_iter().map(|row| (row.kid, row.account)).collect())
    }

    /// Keeps a reader's session until `expires_ms`, milliseconds since 1970. One of a reader that was removed is not kept. That there is
    /// one, and for which filters, is on disk when this returns; of its progress a power cut may take the last back: then messages that
    /// were acknowledged come again. The client ids of the sessions that gave way to it are given back.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn keep_session(
        &self,
        name: &ReaderName,
        client_id: &str,
        kept: &Kept,
        expires_ms: u64,
    ) -> anyhow::Result<Vec<String>> {
        let filters = serde_json::to_string(&kept.filters)?;
        // Of a session that is lost nobody knows where to go on: what is published until its reader subscribes again, it never gets.
        let known = self.kept_session(name, client_id, 0)?;
        let is_progress =
            known.is_some_and(|known| known.filters == kept.filters && known.next.is_some());
        let keep = |tx: &Transaction<'_>| {
            let kept = tx.execute(
                "INSERT INTO reader_sessions (reader, client_id, filters, next_offset, sent_offset, expires_ms)
                 SELECT name, ?, ?, ?, ?, ? FROM readers WHERE name = ?
                 ON CONFLICT DO UPDATE SET filters = excluded.filters, next_offset = excluded.next_offset,
                     sent_offset = excluded.sent_offset, expires_ms = excluded.expires_ms",
                params![
                    client_id, filters, kept.next.map(Uint), Uint(kept.sent), Uint(expires_ms), name.as_str(),
                ],
            )?;
            if kept == 0 {
                return Ok(Vec::new());
            }
            let mut gone = tx.prepare_cached(
                "DELETE FROM reader_sessions WHERE rowid IN (SELECT rowid FROM reader_sessions
                 WHERE reader = ? ORDER BY expires_ms DESC LIMIT -1 OFFSET ?) RETURNING client_id",
            )?;
            let gone = gone.query_map(params![name.as_str(), SESSIONS_MAX], |row| row.get(0))?;
            Ok(gone.collect::<Result<_, _>>()?)
        };
        if is_progress {
            self.write_hastily("keep reader session", keep)
        } else {
            self.write("keep reader session", keep)
        }
    }

    /// What was kept of a session, if its time is not over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept_session(
        &self,
        name: &ReaderName,
        client_id: &str,
        now_ms: u64,
    ) -> anyhow::Result<Option<Kept>> {
        self.read("read reader session", |connection| {
            let mut row = connection.prepare_cached(
                "SELECT filters, next_offset, sent_offset FROM reader_sessions
                 WHERE reader = ? AND client_id = ? AND expires_ms > ?",
            )?;
            let found = row
                .query_row(params![name.as_str(), client_id, Uint(now_ms)], |row| {
                    let filters: String = row.get(0)?;
                    let next = row.get::<_, Option<Uint>>(1)?.map(|next| next.0);
                    Ok((filters, next, row.get::<_, Uint>(2)?.0))
                })
                .optional()?;
            let Some((filters, next, sent)) = found else {
                return Ok(None);
            };
            let filters = serde_json::from_str(&filters).context("read filters")?;
            Ok(Some(Kept {
                filters,
                next,
                sent,
            }))
        })
    }

    /// The sessions that are kept: of whom each is, and its client id.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept_sessions(&self) -> anyhow::Result<Vec<(ReaderName, String)>> {
        self.read("list reader sessions", |connection| {
            let mut rows =
                connection.prepare_cached("SELECT reader, client_id FROM reader_sessions")?;
            read_sessions(rows.query([])?)
        })
    }

    /// Forgets a session.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn forget_session(&self, name: &ReaderName, client_id: &str) -> anyhow::Result<()> {
        self.write("forget reader session", |tx| {
            tx.execute(
                "DELETE FROM reader_sessions WHERE reader = ? AND client_id = ?",
                [name.as_str(), client_id],
            )?;
            Ok(())
        })
    }

    /// Takes sessions back that stand past the end of the journal they read: a power cut took records that a reader had, and others come
    /// in their places. `is_bench`: those that read load tests.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn take_sessions_back(&self, end: u64, is_bench: bool) -> anyhow::Result<()> {
        self.write("take reader sessions back", |tx| {
            tx.execute(
                "UPDATE reader_sessions
                 SET next_offset = min(next_offset, ?1), sent_offset = min(sent_offset, ?1)
                 WHERE (next_offset > ?1 OR sent_offset > ?1)
                     AND reader IN (SELECT name FROM readers WHERE (may = 'bench') = ?2)",
                params![Uint(end), is_bench],
            )?;
            Ok(())
        })
    }

    /// Forgets the sessions whose time is over; of whom each was, and its client id.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn prune_sessions(&self, now_ms: u64) -> anyhow::Result<Vec<(ReaderName, String)>> {
        self.write("prune reader sessions", |tx| {
            let mut over = tx.prepare_cached(
                "DELETE FROM reader_sessions WHERE expires_ms <= ? RETURNING reader, client_id",
            )?;
            read_sessions(over.query([Uint(now_ms)])?)
        })
    }
}

fn read_sessions(mut rows: Rows<'_>) -> anyhow::Result<Vec<(ReaderName, String)>> {
    let mut sessions = Vec::new();
    while let Some(row) = rows.next()? {
        let reader: String = row.get(0)?;
        sessions.push((ReaderName::new(&reader)?, row.get(1)?));
    }
    Ok(sessions)
}

fn read_row(row: &Row<'_>) -> anyhow::Result<ReaderRow> {
    let text = |column: &str| row.get::<_, Option<String>>(column);
    let name: String = row.get("name")?;
    let may: String = row.get("may")?;
    let host = text("host")?.map(|host| HostId::new(&host)).transpose()?;
    let sandbox = text("sandbox")?
        .map(|sandbox| SandboxId::new(&sandbox))
        .transpose()?;
    let words: Vec<&str> = may.split(' ').collect();
    Ok(ReaderRow {
        kid: row.get("kid")?,
        account: Account {
            name: ReaderName::new(&name)?,
            secret_sha256: row.get("secret_sha256")?,
            rights: Rights::from_words(&words, host, sandbox)?,
            expires_ms: row.get::<_, Uint>("expires_ms")?.0,
        },
        added_ms: row.get::<_, Uint>("added_ms")?.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{NOW, audit_names, open};

    fn new(name: &str, kid: u8, rights: Rights) -> NewReader {
        NewReader {
            account: Account {
                name: ReaderName::new(name).unwrap(),
                secret_sha256: [kid; 32],
                rights,
                expires_ms: NOW + 10,
            },
            kid: [kid; 8],
            added_ms: NOW,
            actor: "uid:0".to_owned(),
        }
    }

    fn rights() -> [Rights; 3] {
        let read = |events, host: Option<&str>| Rights::Read {
            events,
            reports: !events,
            metrics: true,
            host: host.map(|host| HostId::new(host).unwrap()),
            sandbox: host.map(|_| SandboxId::new("build-7").unwrap()),
        };
        [read(true, Some("edge-1")), read(false, None), Rights::Bench]
    }

    fn kept(next: u64) -> Kept {
        Kept {
            filters: [("v1/+/+/events".to_owned(), true)].into(),
            next: Some(next),
            sent: next + 3,
        }
    }

    #[test]
    fn readers_are_added_once_read_back_as_they_were_and_removed() {
        let (_dir, store) = open();
        for (kid, rights) in (1..).zip(rights()) {
            let new = new(&format!("reader-{kid}"), kid, rights.clone());
            assert!(store.add_reader(&new).unwrap());
            assert!(!store.add_reader(&new).unwrap());
            let accounts = store.reader_accounts().unwrap();
            assert_eq!(accounts[&[kid; 8]], new.account);
        }
        let name = ReaderName::new("reader-1").unwrap();
        assert!(store.remove_reader(&name, "uid:0", NOW).unwrap());
        assert!(!store.remove_reader(&name, "uid:0", NOW).unwrap());
        assert_eq!(store.readers().unwrap().len(), 2);
        assert_eq!(
            audit_names(&store),
            [
                "reader.added",
                "reader.added",
                "reader.added",
                "reader.removed"
            ]
        );
    }

    #[test]
    fn a_session_is_kept_for_its_time_and_goes_with_its_reader() {
        let (_dir, store) = open();
        let name = ReaderName::new("grafana").unwrap();
        store.keep_session(&name, "grafana", &kept(1), NOW).unwrap();
        assert_eq!(
            store.kept_session(&name, "grafana", 0).unwrap(),
            None,
            "of nobody"
        );
        store.add_reader(&new("grafana", 1, Rights::Bench)).unwrap();
        for next in [1, 2] {
            store
                .keep_session(&name, "grafana", &kept(next), NOW)
                .unwrap();
            let found = store.kept_session(&name, "grafana", NOW - 1).unwrap();
            assert_eq!(found, Some(kept(next)));
        }
        assert_eq!(store.kept_session(&name, "grafana", NOW).unwrap(), None);
        assert_eq!(store.kept_session(&name, "grafana/2", 0).unwrap(), None);
        store.prune_sessions(NOW - 1).unwrap();
        assert!(store.kept_session(&name, "grafana", 0).unwrap().is_some());
        store.forget_session(&name, "grafana").unwrap();
        assert_eq!(store.kept_session(&name, "grafana", 0).unwrap(), None);
        store.keep_session(&name, "grafana", &kept(1), NOW).unwrap();
        store.remove_reader(&name, "uid:0", NOW).unwrap();
        assert_eq!(store.kept_session(&name, "grafana", 0).unwrap(), None);
    }

    #[test]
    fn a_session_past_the_end_of_its_journal_goes_on_there() {
        let (_dir, store) = open();
        for (kid, (name, rights)) in
            (1..).zip([("siem", rights()[0].clone()), ("load", Rights::Bench)])
        {
            store.add_reader(&new(name, kid, rights)).unwrap();
            let name = ReaderName::new(name).unwrap();
            for next in [5, 9] {
                let client = next.to_string();
                store
                    .keep_session(&name, &client, &kept(next), NOW)
                    .unwrap();
            }
        }
        store.take_sessions_back(7, false).unwrap();
        let places = |name: &str| {
            ["5", "9"].map(|client| {
                let name = ReaderName::new(name).unwrap();
                let kept = store.kept_session(&name, client, 0).unwrap().unwrap();
                (kept.next, kept.sent)
            })
        };
        assert_eq!(places("siem"), [(Some(5), 7), (Some(7), 7)]);
        assert_eq!(
            places("load"),
            [(Some(5), 8), (Some(9), 12)],
            "of another journal"
        );
    }

    #[test]
    fn of_too_many_sessions_those_that_would_end_first_give_way() {
        let (_dir, store) = open();
        let name = ReaderName::new("grafana").unwrap();
        store.add_reader(&new("grafana", 1, Rights::Bench)).unwrap();
        for number in 0..=u64::from(SESSIONS_MAX) {
            let id = format!("grafana/{number}");
            store
                .keep_session(&name, &id, &kept(number), NOW + number)
                .unwrap();
        }
        let is_kept = |id| store.kept_session(&name, id, 0).unwrap().is_some();
        assert!(!is_kept("grafana/0") && is_kept("grafana/1") && is_kept("grafana/64"));
    }
}
