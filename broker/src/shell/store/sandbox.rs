//! Sandboxes: what the reports said last of each.

use super::{Store, column::Uint};
use anyhow::Context as _;
use rusqlite::{OptionalExtension as _, Row, params};

/// The most sandboxes that are listed at once: the newest.
pub const SANDBOXES_LISTED_MAX: u32 = 10_000;

/// A sandbox, as far as the reports tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxRow {
    /// The host it runs on.
    pub host: String,
    /// Its id on that host, `[a-z0-9-]{1,64}`.
    pub id: String,
    /// In the words of the reports; at most 64 characters.
    pub state: String,
    /// Whether that state is its last.
    pub ended: bool,
    /// Why it is in that state; at most 1,024 characters, as all texts below.
    pub reason: Option<String>,
    /// What its process ended with.
    pub exit_code: Option<i32>,
    /// When it was first heard of, in milliseconds since 1970. The first value stays.
    pub created_ms: u64,
    /// When it was last heard of.
    pub updated_ms: u64,
    /// The key that signs its events. `None` in an update leaves what was known, here and below.
    pub public_key: Option<[u8; 32]>,
    /// Where the report stands in the journal that named that key.
    pub launched_offset: Option<u64>,
    /// What people call it.
    pub name: Option<String>,
    /// What it was made from.
    pub image: Option<String>,
    /// Its isolation key.
    pub isolation: Option<String>,
    /// Anything else, as JSON text; at most 64 KiB.
    pub detail: Option<String>,
}

const COLUMNS: &str = "host, id, state, ended, reason, exit_code, created_ms, updated_ms, public_key, launched_offset, \
                       name, image, isolation, detail";

impl SandboxRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            host: row.get(0)?,
            id: row.get(1)?,
            state: row.get(2)?,
            ended: row.get(3)?,
            reason: row.get(4)?,
            exit_code: row.get(5)?,
            created_ms: row.get::<_, Uint>(6)?.0,
            updated_ms: row.get::<_, Uint>(7)?.0,
            public_key: row.get(8)?,
            launched_offset: row.get::<_, Option<Uint>>(9)?.map(|offset| offset.0),
            name: row.get(10)?,
            image: row.get(11)?,
            isolation: row.get(12)?,
            detail: row.get(13)?,
        })
    }
}

impl Store {
    /// Write down what is now known of a sandbox, new or not. State, its end, reason and exit code are replaced; what else
    /// was known stays unless there is something in its place.
    ///
    /// # Errors
    /// No host of that name, a text beyond its limit, or the disk refuses.
    pub fn upsert_sandbox(&self, sandbox: &SandboxRow) -> anyhow::Result<()> {
        let upsert = format!(
            "INSERT INTO sandboxes ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (host, id) DO UPDATE SET
                state = excluded.state, ended = excluded.ended, reason = excluded.reason, exit_code = excluded.exit_code,
                updated_ms = excluded.updated_ms,
                public_key = coalesce(excluded.public_key, public_key),
                launched_offset = coalesce(excluded.launched_offset, launched_offset),
                name = coalesce(excluded.name, name), image = coalesce(excluded.image, image),
                isolation = coalesce(excluded.isolation, isolation), detail = coalesce(excluded.detail, detail)"
        );
        self.write("record sandbox", |tx| {
            let row = params![
                sandbox.host,
                sandbox.id,
                sandbox.state,
                sandbox.ended,
                sandbox.reason,
                sandbox.exit_code,
                Uint(sandbox.created_ms),
                Uint(sandbox.updated_ms),
                sandbox.public_key,
                sandbox.launched_offset.map(Uint),
                sandbox.name,
                sandbox.image,
                sandbox.isolation,
                sandbox.detail,
            ];
            tx.prepare_cached(&upsert)?
                .execute(row)
                .with_context(|| format!("sandbox {}", sandbox.id))?;
            Ok(())
        })
    }

    /// The sandboxes that have not ended, or `all`; the newest first, at most [`SANDBOXES_LISTED_MAX`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn list_sandboxes(&self, all: bool) -> anyhow::Result<Vec<SandboxRow>> {
        let which = if all { "" } else { "WHERE ended = 0" };
        self.read("list sandboxes", |connection| {
            let mut rows = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM sandboxes {which} ORDER BY created_ms DESC, host, id LIMIT {SANDBOXES_LISTED_MAX}"
            ))?;
            let rows = rows.query_map([], SandboxRow::read)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// One sandbox.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn sandbox(&self, host: &str, id: &str) -> anyhow::Result<Option<SandboxRow>> {
        self.read("look up sandbox", |connection| {
            let mut row = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM sandboxes WHERE host = ? AND id = ?"
            ))?;
            Ok(row.query_row([host, id], SandboxRow::read).optional()?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{KEY, enrolled};

    #[test]
    fn sandboxes_are_listed_until_they_end_and_keep_what_an_update_does_not_say() {
        let (_dir, store) = enrolled();
        let first = SandboxRow {
            host: "edge-1".to_owned(),
            id: "build-7".to_owned(),
            state: "running".to_owned(),
            ended: false,
            reason: None,
            exit_code: None,
            created_ms: 5,
            updated_ms: 5,
            public_key: Some(KEY),
            launched_offset: Some(3),
            name: Some("build".to_owned()),
            image: Some("web@sha256:9f".to_owned()),
            isolation: None,
            detail: Some("{}".to_owned()),
        };
        store.upsert_sandbox(&first).unwrap();
        assert_eq!(
            store.list_sandboxes(false).unwrap(),
            std::slice::from_ref(&first)
        );
        let last = SandboxRow {
            state: "finished".to_owned(),
            ended: true,
            exit_code: Some(-1),
            created_ms: 9,
            updated_ms: 9,
            public_key: None,
            launched_offset: None,
            name: None,
            image: None,
            detail: None,
            ..first.clone()
        };
        store.upsert_sandbox(&last).unwrap();
        let expected = SandboxRow {
            state: last.state.clone(),
            ended: true,
            exit_code: Some(-1),
            updated_ms: 9,
            ..first
        };
        assert_eq!(
            store.sandbox("edge-1", "build-7").unwrap(),
            Some(expected.clone())
        );
        assert_eq!(store.list_sandboxes(false).unwrap(), []);
        assert_eq!(store.list_sandboxes(true).unwrap(), [expected]);
        assert!(
            store
                .upsert_sandbox(&SandboxRow {
                    host: "edge-9".to_owned(),
                    ..last
                })
                .is_err(),
            "no such host"
        );
    }
}
