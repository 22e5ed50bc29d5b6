//! The tables, and how older ones become these.

use anyhow::Context as _;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Step `n` takes a database from version `n` to `n + 1`. Steps are only ever added.
const STEPS: [&str; 9] = [
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
];

/// Where a database has its version, as the file's head shows it, big end first.
const VERSION_AT: u64 = 60;

/// Look at the database at `path` before anything in its directory is touched; one that is not there is as old as can be.
pub(super) fn refuse_newer(path: &Path) -> anyhow::Result<()> {
    let Ok(file) = File::open(path) else {
        return Ok(()); // Whoever opens it to use it says what is wrong.
    };
    let mut version = [0; 4];
    if file.read_exact_at(&mut version, VERSION_AT).is_ok() {
        refuse(i64::from(u32::from_be_bytes(version)))?;
    }
    drop(file);
    // What its log holds counts, and stays in its log.
    let log = path.with_extension("db-wal");
    if !log.metadata().is_ok_and(|log| log.len() > 0) {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let version = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .context("read store version")?;
    refuse(version)
}

fn refuse(version: i64) -> anyhow::Result<()> {
    if usize::try_from(version).is_ok_and(|version| version <= STEPS.len()) {
        Ok(())
    } else {
        Err(newer(version))
    }
}

fn newer(version: i64) -> anyhow::Error {
    anyhow::anyhow!(
        "the store has version {version}, and this program knows versions up to {}: a newer program wrote it. Run that one, or \
         restore a backup from before",
        STEPS.len()
    )
}

/// Bring the database up to date, one transaction for each step.
pub(super) fn migrate(connection: &mut Connection) -> anyhow::Result<()> {
    loop {
        // Immediate, and the version is read inside: two openers at once take turns.
        let step = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .context("begin migration")?;
        let version: i64 = step
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .context("read store version")?;
        let Some(sql) = usize::try_from(version)
            .ok()
            .and_then(|version| STEPS.get(version))
        else {
            if usize::try_from(version) == Ok(STEPS.len()) {
                return Ok(());
            }
            return Err(newer(version));
        };
        step.execute_batch(sql)
            .with_context(|| format!("migrate store from version {version}"))?;
        step.pragma_update(None, "user_version", version + 1)
            .context("write store version")?;
        step.commit()
            .with_context(|| format!("migrate store from version {version}"))?;
    }
}

/// Says why a store that is only looked at cannot be read: another program wrote it.
pub(super) fn refuse_other(connection: &Connection) -> anyhow::Result<()> {
    let version: i64 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .context("read store version")?;
    if usize::try_from(version) != Ok(STEPS.len()) {
        anyhow::bail!(
            "the store has version {version}, and this program reads version {}: use the program that wrote it",
            STEPS.len()
        );
    }
    Ok(())
}
