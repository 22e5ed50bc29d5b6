//! The store: everything the broker must remember besides the journal, in one SQLite file.
//!
//! Every method blocks, and what it changed is on disk when it returns (write-ahead log, `synchronous=FULL`): call it
//! through `spawn_blocking`. Every change of rights writes its row of the audit trail in the same transaction.

mod access;
mod audit;
mod audit_checkpoint;
mod audit_tree;
mod catch_up;
mod column;
mod command;
mod dispatcher;
mod dropped;
mod enroll;
mod host;
mod incarnation;
mod reader;
mod right;
mod sandbox;
mod schema;
mod snapshot;
mod statement;
mod trouble;
mod witness;

pub use access::{AccessRow, AddedAccess, NewAccess};
pub use audit::{
    AUDIT_ROWS_MAX, AuditCheck, AuditEntry, AuditFault, AuditFilter, AuditRow, Opening,
    may_be_withheld,
};
pub use audit_checkpoint::{CHECKPOINTS_LISTED_MAX, CheckpointRow, Inconsistent};
pub use catch_up::CaughtUp;
pub use command::{COMMANDS_OPEN_MAX, CommandRow, OpenCommand, Recorded};
pub use dispatcher::DispatcherRow;
pub use dropped::{DroppedRow, Needed};
pub use enroll::{AddHost, AddRefusal, Enrolled, NewHost, Redeem, Redeemed};
pub use host::{HostKeyRow, HostKind, HostRow, Renewed};
pub use incarnation::Voided;
pub use reader::{NewReader, ReaderRow, SESSIONS_MAX};
pub use right::{InstallKeyRow, VoidedGeneration};
pub use sandbox::{SANDBOXES_LISTED_MAX, SandboxRow};
pub use snapshot::{Snapshot, StoreFacts, inspect};
pub use statement::{NewStatement, Said};
pub use trouble::Trouble;
pub use witness::{WITNESSES_LISTED_MAX, WitnessRow};

use crate::shell::confirm::Canary;
use crate::shell::room::Room;
use anyhow::Context as _;
use column::Uint;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::fs::OpenOptions;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long a transaction waits for another process that has the file, such as a backup.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// The store. Cheap to clone; one transaction at a time.
#[derive(Clone, Debug)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    /// For what may be lost in a power cut, and is not in the end of this process: its commits wait for no disk.
    hasty: Arc<Mutex<Connection>>,
    /// Asked after each commit. To open the store's own file a second time would undo SQLite's locks.
    canary: Arc<Canary>,
    path: PathBuf,
    /// Where there is room if there is no other.
    ballast: Arc<OnceLock<Room>>,
    /// What was wrong with the disk at the last write, if anything was.
    trouble: watch::Sender<Option<Trouble>>,
}

impl Store {
    /// Open the store at `path`, or make one, readable by its owner alone.
    ///
    /// # Errors
    /// The disk refuses, the file is not a database, or a newer program wrote it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = connect(path).with_context(|| format!("open store {}", path.display()))?;
        let hasty =
            connect_hastily(path).with_context(|| format!("open store {}", path.display()))?;
        let canary = Canary::new(path.parent().unwrap_or(path))
            .with_context(|| format!("open store {}", path.display()))?;
        Ok(Self {
            connection: Arc::new(Mutex::new(connection)),
            hasty: Arc::new(Mutex::new(hasty)),
            canary: Arc::new(canary),
            path: path.to_owned(),
            ballast: Arc::default(),
            trouble: watch::Sender::new(None),
        })
    }

    /// Says no where a newer program wrote the store; touches nothing.
    ///
    /// # Errors
    /// It did, or the file is not a database.
    pub fn refuse_newer(path: &Path) -> anyhow::Result<()> {
        schema::refuse_newer(path).with_context(|| format!("open store {}", path.display()))
    }

    /// The broker's clock shows `now_ms`: the greatest time that was ever shown, in milliseconds since 1970. It never goes
    /// back, not even over a restart with a clock that did.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn advance_time(&self, now_ms: u64) -> anyhow::Result<u64> {
        self.write("advance time", |tx| {
            let mut advance = tx.prepare_cached(
                "UPDATE meta SET value = max(value, ?) WHERE name = 'time_ms' RETURNING value",
            )?;
            Ok(advance
                .query_row([Uint(now_ms)], |row| row.get::<_, Uint>(0))?
                .0)
        })
    }

    /// Change something: all of it or nothing, and on disk when this returns.
    fn write<T>(
        &self,
        what: &'static str,
        change: impl Fn(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.write_to(&self.connection, change)
            .and_then(|value| self.confirm(value))
            .context(what)
    }

    /// The same for what need not survive a power cut.
    fn write_hastily<T>(
        &self,
        what: &'static str,
        change: impl Fn(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.write_to(&self.hasty, change).context(what)
    }

    /// A change that found no room was rolled back, and is made again for each slice of the ballast that is given up for it.
    fn write_to<T>(
        &self,
        connection: &Mutex<Connection>,
        change: impl Fn(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        loop {
            let written = write(connection, &change);
            let trouble = written.as_ref().err().and_then(Trouble::of);
            if trouble == Some(Trouble::Full) && self.ballast.get().is_some_and(Room::give_way) {
                continue;
            }
            if written.is_ok() || trouble.is_some() {
                self.note(trouble);
            }
            return match trouble {
                Some(trouble) => written.context(trouble),
                None => written,
            };
        }
    }

    /// Gives `value` if what was committed is on the disk.
    fn confirm<T>(&self, value: T) -> anyhow::Result<T> {
        let confirmed = self.canary.confirm();
        if confirmed.is_err() {
            self.note(Some(Trouble::Failed));
        }
        confirmed.context(Trouble::Failed)?;
        Ok(value)
    }

    /// One that ended the store stays.
    fn note(&self, trouble: Option<Trouble>) {
        self.trouble.send_if_modified(|last| {
            let is_news = *last != trouble && *last != Some(Trouble::Failed);
            if is_news {
                *last = trouble;
            }
            is_news
        });
    }

    /// From now on, what finds no room on the disk may use the ballast.
    pub fn use_ballast(&self, room: &Room) {
        let _ = self.ballast.set(room.clone());
    }

    /// What was wrong with the disk at the last write, if anything was.
    #[must_use]
    pub fn trouble(&self) -> Option<Trouble> {
        *self.trouble.borrow()
    }

    /// Resolves when a write or a sync has failed: nobody knows what is on the disk, and the process should stop. Never before that.
    pub async fn failed(&self) {
        let mut trouble = self.trouble.subscribe();
        // The sender lives as long as `self`, so there is no other way out of this wait.
        let _ = trouble
            .wait_for(|trouble| *trouble == Some(Trouble::Failed))
            .await;
    }

    /// Reads a row.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn probe(&self) -> anyhow::Result<()> {
        self.read("read time", |connection| {
            let mut time = connection.prepare_cached("SELECT value FROM meta")?;
            Ok(time.query_row([], |_| Ok(()))?)
        })
    }

    fn read<T>(
        &self,
        what: &'static str,
        look: impl FnOnce(&Connection) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        look(
            &self
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
        .context(what)
    }
}

fn write<T>(
    connection: &Mutex<Connection>,
    change: impl Fn(&Transaction<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    // A panic left no half-made change behind: a transaction that is dropped is rolled back.
    let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
    // Immediate: what is read in here stays true until it is committed.
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = change(&tx)?;
    tx.commit()?;
    Ok(value)
}

/// A second connection to a store that is open. In a write-ahead log `normal` syncs at checkpoints only.
fn connect_hastily(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn connect(path: &Path) -> anyhow::Result<Connection> {
    // Made here first, so that there is no moment at which others may read it. Its companions get the same mode.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .context("close it to others")?;
    drop(file);
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update_and_check(None, "journal_mode", "wal", |row| {
        let mode: String = row.get(0)?;
        if mode == "wal" {
            Ok(())
        } else {
            Err(rusqlite::Error::InvalidQuery)
        }
    })?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    schema::migrate(&mut connection)?;
    audit_tree::fill(&mut connection).context("make the tree over the audit trail")?;
    Ok(connection)
}

/// Public bytes for the audit trail.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod tests;
