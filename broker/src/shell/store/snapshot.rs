//! A store as of one moment: copied while a broker writes it, and judged offline.

use super::{AuditCheck, Store, audit, column::Uint, incarnation, schema};
use crate::core::incarnation::History;
use anyhow::{Context as _, bail};
use rusqlite::{Connection, OpenFlags, backup::Backup};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Pages that are copied before anyone hears of it.
const STEP_PAGES: i32 = 4_096;

/// A moment of a store that others may go on writing; what they write meanwhile is not in it.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
}

impl Snapshot {
    /// Fixes the moment: now.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        let take = || -> anyhow::Result<Self> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(super::BUSY_WAIT)?;
            connection.execute_batch("BEGIN")?;
            // A transaction begins with its first look.
            connection.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
            Ok(Self { connection })
        };
        take().with_context(|| format!("look at store {}", path.display()))
    }

    /// Every incarnation, at that moment.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn history(&self) -> anyhow::Result<History> {
        incarnation::history(&self.connection).context("read incarnations")
    }

    /// Copies it into a new file, durably; `told` hears how many pages of how many are done. Whoever writes the store is not held up.
    ///
    /// # Errors
    /// The disk refuses, or the file is there.
    pub fn write(self, path: &Path, mut told: impl FnMut(u64, u64)) -> anyhow::Result<()> {
        let mut write = || -> anyhow::Result<()> {
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            let mut copy = Connection::open(path)?;
            copy.pragma_update(None, "synchronous", "off")?;
            let backup = Backup::new(&self.connection, &mut copy)?;
            loop {
                let step = backup.step(STEP_PAGES)?;
                let progress = backup.progress();
                let (all, left) = (count(progress.pagecount), count(progress.remaining));
                told(all - left, all);
                match step {
                    rusqlite::backup::StepResult::Done => break,
                    rusqlite::backup::StepResult::More => {}
                    // Its own transaction reads; nobody can be in the way for long.
                    _ => std::thread::park_timeout(Duration::from_millis(20)),
                }
            }
            drop(backup);
            // One file alone: without this it would want its write-ahead log beside it.
            copy.pragma_update_and_check(None, "journal_mode", "delete", |row| {
                row.get::<_, String>(0)
            })?;
            copy.close().map_err(|(_, error)| error)?;
            file.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("copy the store to {}", path.display()))
    }
}

fn count(pages: i32) -> u64 {
    u64::try_from(pages).unwrap_or_default()
}

/// What a store holds, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFacts {
    /// Its incarnations.
    pub history: History,
    /// One past the greatest journal offset that it names.
    pub offsets_end: u64,
    /// Hosts that were ever added.
    pub hosts: u64,
    /// Sandboxes.
    pub sandboxes: u64,
    /// Readers.
    pub readers: u64,
    /// The audit trail.
    pub audit: AuditCheck,
}

/// Judges a store that nobody uses, changing nothing: its pages and references, its version, its audit trail.
///
/// # Errors
/// What is wrong with it first.
pub fn inspect(path: &Path) -> anyhow::Result<StoreFacts> {
    File::open(path).with_context(|| format!("open {}", path.display()))?;
    // Immutable: not even a lock or a log is made beside it, so that read-only media can be judged.
    let uri = format!("file:{}?immutable=1", escaped(path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    let said: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .context("check its integrity")?;
    if said != "ok" {
        bail!("its integrity check says: {said}");
    }
    if connection.prepare("PRAGMA foreign_key_check")?.exists([])? {
        bail!("a row of it names another that is not there");
    }
    schema::refuse_other(&connection)?;
    let number = |sql: &str| -> anyhow::Result<u64> {
        Ok(connection
            .query_row(sql, [], |row| row.get::<_, Uint>(0))?
            .0)
    };
    Ok(StoreFacts {
        history: incarnation::history(&connection)?,
        offsets_end: number(OFFSETS_END)?,
        hosts: number("SELECT count(*) FROM hosts")?,
        sandboxes: number("SELECT count(*) FROM sandboxes")?,
        readers: number("SELECT count(*) FROM readers")?,
        audit: audit::verify(&connection)?,
    })
}

/// Readers' places are first offsets that are wanted, everything else names records that are there. Load tests have a journal of
/// their own.
const OFFSETS_END: &str = "
    SELECT max(coalesce(end, 0)) FROM (
        SELECT max(offset) + 1 AS end FROM commands
        UNION ALL SELECT max(settled_offset) + 1 FROM commands
        UNION ALL SELECT max(launched_offset) + 1 FROM sandboxes
        UNION ALL SELECT max(max(coalesce(next_offset, 0), sent_offset)) FROM reader_sessions
            JOIN readers ON readers.name = reader_sessions.reader WHERE readers.may != 'bench'
    )";

/// A path in an SQLite URI: everything but letters, digits and a few signs as its bytes.
fn escaped(path: &Path) -> anyhow::Result<String> {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::path::absolute(path)?;
    let mut text = String::new();
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Ok(text)
}

impl Store {
    /// Where its file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For tests: a reader that is to go on past the offset `before`.
    #[cfg(test)]
    pub(crate) fn name_an_offset(&self, before: u64) {
        let connection = self.connection.lock();
        let connection = connection.unwrap_or_else(std::sync::PoisonError::into_inner);
        let sql = format!(
            "INSERT INTO readers VALUES ('siem', zeroblob(8), zeroblob(32), 'events', NULL, NULL, 1, 1);
             INSERT INTO reader_sessions VALUES ('siem', 'c', '{{}}', {}, 0, 1)",
            before + 1
        );
        let _ = connection.execute_batch(&sql);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{NOW, audit_names, enrolled};

    #[test]
    fn a_snapshot_is_of_its_moment_and_stands_alone() {
        let (dir, store) = enrolled();
        let before = audit_names(&store).len();
        let snapshot = Snapshot::take(store.path()).unwrap();
        let entry = super::super::AuditEntry {
            time_ms: NOW,
            name: "later",
            subject: "",
            actor: "",
            fields: &serde_json::json!({}),
        };
        store.record_audit(&entry).unwrap();
        let copy = dir.path().join("a copy?#%.db");
        snapshot.write(&copy, |_, _| {}).unwrap();
        let names = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push("-wal");
            name
        };
        assert!(!Path::new(&names(&copy)).exists());
        let facts = inspect(&copy).unwrap();
        assert_eq!((facts.hosts, facts.audit.rows), (1, before as u64));
        assert_eq!(facts.audit.broken, None);
        assert!(
            Snapshot::take(&copy)
                .unwrap()
                .write(&copy, |_, _| {})
                .is_err()
        );
    }

    #[test]
    fn the_greatest_offset_that_a_store_names_is_found_wherever_it_stands() {
        let (dir, store) = enrolled();
        let mut at = 0;
        let mut end = |sql: &str| {
            store.connection.lock().unwrap().execute_batch(sql).unwrap();
            at += 1;
            let copy = dir.path().join(format!("{at}.db"));
            Snapshot::take(store.path())
                .unwrap()
                .write(&copy, |_, _| {})
                .unwrap();
            inspect(&copy).unwrap().offsets_end
        };
        assert_eq!(end(""), 0);
        let command = |offset: u64, settled: &str| {
            format!(
                "INSERT INTO commands VALUES (zeroblob({}), 'edge-1', NULL, 'launch', zeroblob(32), {offset}, 1, {settled})",
                16
            )
            .replace("zeroblob(16)", &format!("x'{offset:032}'"))
        };
        assert_eq!(end(&command(4, "NULL")), 5);
        assert_eq!(end(&command(3, "9")), 10);
        let sandbox = "INSERT INTO sandboxes (host, id, state, ended, created_ms, updated_ms, launched_offset)
             VALUES ('edge-1', 'b', 'running', 0, 1, 1, 20)";
        assert_eq!(end(sandbox), 21);
        let reader = |name: &str, may: &str, next: u64| {
            format!(
                "INSERT INTO readers VALUES ('{name}', x'{next:016}', zeroblob(32), '{may}', NULL, NULL, 1, 1);
                 INSERT INTO reader_sessions VALUES ('{name}', 'c', '{{}}', {next}, 2, 1)"
            )
        };
        assert_eq!(end(&reader("load", "bench", 99)), 21);
        assert_eq!(end(&reader("siem", "events", 30)), 30);
    }
}
