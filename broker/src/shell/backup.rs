//! Backups of the data directory: made while the broker runs, judged offline, restored into a new directory. What is in one, and the
//! rule that makes it consistent: [`crate::core::backup`].

mod check;
mod file;
mod make;
mod restore;
mod sealed;
#[cfg(test)]
mod tests;

use protocol::{id::hex, time::UnixMillis};
use serde_json::json;

pub use check::{Found, check};
pub use file::{sync, write_once};
pub use make::{Made, Source, make};
pub use restore::{Keys, Outcome, Unfinished, restore};
pub use sealed::{KeyFiles, PASSPHRASE_BYTES_MIN};

use super::store::{AuditEntry, Store, may_be_withheld};

/// How far a long work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is being done, for a person.
    pub what: &'static str,
    /// How much of it is done.
    pub done: u64,
    /// Of how much.
    pub all: u64,
}

/// Writes down that a backup is about to be made: before the first byte of it.
///
/// # Errors
/// The disk refuses.
pub fn record(
    store: &Store,
    id: [u8; 16],
    to: &str,
    keys: bool,
    actor: &str,
    now: UnixMillis,
) -> anyhow::Result<()> {
    let fields = json!({ "to": may_be_withheld(to), "keys": keys });
    store.record_audit(&AuditEntry {
        time_ms: now.0,
        name: "backup.made",
        subject: &hex(&id),
        actor,
        fields: &fields,
    })?;
    Ok(())
}
