//! Commands: which are still to be settled, and where in the journal they stand.

use super::{Store, column::Uint};
use rusqlite::{OptionalExtension as _, params};

/// The most unsettled commands of one host that are listed at once, oldest first; the rest come when these are settled.
pub const COMMANDS_OPEN_MAX: u32 = 1_024;

/// A command that was journaled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRow {
    /// The dispatcher's id for it.
    pub id: [u8; 16],
    /// The host it names.
    pub host: String,
    /// The sandbox it is about; at most 64 characters.
    pub sandbox: Option<String>,
    /// What it asks; at most 64 characters.
    pub kind: String,
    /// The blake3 hash of its bytes, as sent.
    pub bytes_hash: [u8; 32],
    /// Where it stands in the journal.
    pub offset: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Where the report stands that settled it.
    pub settled_offset: Option<u64>,
}

/// A command that a host still owes a report for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenCommand {
    /// The dispatcher's id for it.
    pub id: [u8; 16],
    /// The sandbox it is about.
    pub sandbox: Option<String>,
    /// What it asks.
    pub kind: String,
    /// Where its bytes stand in the journal.
    pub offset: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// What [`Store::insert_command`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The id is new.
    New,
    /// The same bytes were recorded before: the same command, sent again. Its first place in the journal counts.
    Again {
        /// That place.
        offset: u64,
    },
    /// The id is another command's.
    Conflict,
}

impl Store {
    /// Remember a command that was journaled.
    ///
    /// # Errors
    /// No host of that name, a text beyond its limit, or the disk refuses.
    pub fn insert_command(&self, command: &CommandRow) -> anyhow::Result<Recorded> {
        self.write("record command", |tx| {
            let inserted = tx
                .prepare_cached(
                    "INSERT INTO commands (id, host, sandbox, kind, bytes_hash, offset, expires_ms, settled_offset)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
                )?
                .execute(params![
                    command.id,
                    command.host,
                    command.sandbox,
                    command.kind,
                    command.bytes_hash,
                    Uint(command.offset),
                    Uint(command.expires_ms),
                    command.settled_offset.map(Uint),
                ])?;
            if inserted == 1 {
                return Ok(Recorded::New);
            }
            let mut known = tx.prepare_cached("SELECT bytes_hash, offset FROM commands WHERE id = ?")?;
            let (hash, offset) =
                known.query_row([command.id], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, Uint>(1)?.0)))?;
            Ok(if hash == command.bytes_hash { Recorded::Again { offset } } else { Recorded::Conflict })
        })
    }

    /// The command with this id. Asked before a command is journaled, it tells a repeat and a conflict apart early.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn command(&self, id: &[u8; 16]) -> anyhow::Result<Option<CommandRow>> {
        self.read("look up command", |connection| {
            let mut row = connection.prepare_cached(
                "SELECT host, sandbox, kind, bytes_hash, offset, expires_ms, settled_offset FROM commands WHERE id = ?",
            )?;
            let row = row.query_row([id], |row| {
                Ok(CommandRow {
                    id: *id,
                    host: row.get(0)?,
                    sandbox: row.get(1)?,
                    kind: row.get(2)?,
                    bytes_hash: row.get(3)?,
                    offset: row.get::<_, Uint>(4)?.0,
                    expires_ms: row.get::<_, Uint>(5)?.0,
                    settled_offset: row.get::<_, Option<Uint>>(6)?.map(|offset| offset.0),
                })
            });
            Ok(row.optional()?)
        })
    }

    /// The host's commands that no report has settled and that have not expired, oldest first, at most
    /// [`COMMANDS_OPEN_MAX`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open_commands(&self, host: &str, now_ms: u64) -> anyhow::Result<Vec<OpenCommand>> {
        self.read("list open commands", |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT id, sandbox, kind, offset, expires_ms FROM commands
                 WHERE host = ? AND settled_offset IS NULL AND expires_ms > ? ORDER BY offset LIMIT ?",
            )?;
            let rows = rows.query_map(params![host, Uint(now_ms), COMMANDS_OPEN_MAX], |row| {
                Ok(OpenCommand {
                    id: row.get(0)?,
                    sandbox: row.get(1)?,
                    kind: row.get(2)?,
                    offset: row.get::<_, Uint>(3)?.0,
                    expires_ms: row.get::<_, Uint>(4)?.0,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The host's report at `report_offset` settles the command. `false`: it was settled before, or is not this host's.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn settle_command(
        &self,
        id: &[u8; 16],
        host: &str,
        report_offset: u64,
    ) -> anyhow::Result<bool> {
        self.write("settle command", |tx| {
            let mut settle = tx.prepare_cached(
                "UPDATE commands SET settled_offset = ? WHERE id = ? AND host = ? AND settled_offset IS NULL",
            )?;
            Ok(settle.execute(params![Uint(report_offset), id, host])? == 1)
        })
    }

    /// Forget the commands that expired before `before_ms`; how many. An id must be remembered until its command can no
    /// longer be replayed: leave room for the leeway.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn prune_commands(&self, before_ms: u64) -> anyhow::Result<usize> {
        self.write("prune commands", |tx| {
            Ok(tx
                .prepare_cached("DELETE FROM commands WHERE expires_ms < ?")?
                .execute([Uint(before_ms)])?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::store::tests::{NOW, enrolled};

    #[test]
    fn a_command_is_open_until_it_is_settled_by_its_host_or_expires() {
        let (_dir, store) = enrolled();
        let open = |now| -> Vec<u64> {
            store
                .open_commands("edge-1", now)
                .unwrap()
                .into_iter()
                .map(|command| command.offset)
                .collect()
        };
        for (id, offset) in [(1, 30), (2, 10), (3, 20)] {
            assert_eq!(
                store.insert_command(&command(id, offset)).unwrap(),
                Recorded::New
            );
        }
        assert_eq!(open(NOW), [10, 20, 30]);
        assert_eq!(open(NOW + 2), [20]);
        assert!(
            !store.settle_command(&[3; 16], "edge-2", 40).unwrap(),
            "only by its host"
        );
        assert!(store.settle_command(&[3; 16], "edge-1", 40).unwrap());
        assert!(!store.settle_command(&[3; 16], "edge-1", 41).unwrap());
        assert_eq!(open(NOW), [10, 30]);
        assert_eq!(
            store.command(&[3; 16]).unwrap().unwrap().settled_offset,
            Some(40)
        );
        assert_eq!(store.prune_commands(NOW + 3).unwrap(), 2);
        assert_eq!(store.command(&[1; 16]).unwrap(), None);
        assert_eq!(
            store.command(&[3; 16]).unwrap().unwrap(),
            CommandRow {
                settled_offset: Some(40),
                ..command(3, 20)
            }
        );
    }

    #[test]
    fn a_command_id_with_other_bytes_is_refused() {
        let (_dir, store) = enrolled();
        store.insert_command(&command(1, 10)).unwrap();
        let again = CommandRow {
            offset: 11,
            ..command(1, 10)
        };
        assert_eq!(
            store.insert_command(&again).unwrap(),
            Recorded::Again { offset: 10 }
        );
        let other = CommandRow {
            bytes_hash: [7; 32],
            ..again
        };
        assert_eq!(store.insert_command(&other).unwrap(), Recorded::Conflict);
        assert_eq!(store.command(&[1; 16]).unwrap().unwrap(), command(1, 10));
    }

    fn command(id: u8, offset: u64) -> CommandRow {
        CommandRow {
            id: [id; 16],
            host: "edge-1".to_owned(),
            sandbox: Some("build-7".to_owned()),
            kind: "launch".to_owned(),
            bytes_hash: [id; 32],
            offset,
            expires_ms: NOW + u64::from(id),
            settled_offset: None,
        }
    }
}
