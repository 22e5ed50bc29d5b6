//! The tables, and how older ones become these.

use anyhow::{Context as _, bail};
use rusqlite::{Connection, TransactionBehavior};

/// Step `n` takes a database from version `n` to `n + 1`. Steps are only ever added.
const STEPS: [&str; 3] = [
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
];

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
            bail!(
                "the store has version {version}, and this program knows versions up to {}",
                STEPS.len()
            );
        };
        step.execute_batch(sql)
            .with_context(|| format!("migrate store from version {version}"))?;
        step.pragma_update(None, "user_version", version + 1)
            .context("write store version")?;
        step.commit()
            .with_context(|| format!("migrate store from version {version}"))?;
    }
}
