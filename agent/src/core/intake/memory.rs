//! Commands seen before, kept until they are void: a replay starts nothing, and is answered as the first time.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::id::{CommandId, SandboxId};
use protocol::limits::LEEWAY_S;
use protocol::time::UnixMillis;

/// Commands remembered at once. With lives of minutes this is thousands an hour; with the longest life of a week, one every two and
/// a half minutes. When full, no new command is accepted.
pub const COMMANDS_MAX: usize = 4096;

/// A void command is remembered this much longer: its verification allows for clocks that differ, and so must we.
const KEEP_AFTER: Duration = Duration::from_secs(2 * LEEWAY_S);

/// What is known of a command. The signed bytes and the report that settled it are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// When it is void.
    pub expires: UnixMillis,
    /// The sandbox it is about.
    pub sandbox: SandboxId,
    /// A report settled it.
    pub settled: bool,
    /// It launched its sandbox: the id is used up.
    pub used: bool,
}

/// The commands of this host, by id.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    entries: BTreeMap<CommandId, Remembered>,
}

impl Memory {
    /// What was found on disk.
    #[must_use]
    pub fn new(found: impl IntoIterator<Item = (CommandId, Remembered)>) -> Self {
        Self {
            entries: found.into_iter().collect(),
        }
    }

    /// Remembers a command that is on disk.
    pub fn insert(&mut self, id: CommandId, command: Remembered) {
        self.entries.insert(id, command);
    }

    /// What is known of it.
    #[must_use]
    pub fn find(&self, id: CommandId) -> Option<&Remembered> {
        self.entries.get(&id)
    }

    /// A report settled it. `used`: whether its sandbox was launched.
    pub fn settle(&mut self, id: CommandId, used: bool) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.settled = true;
            entry.used = used;
        }
    }

    /// Whether a remembered command used this sandbox id up.
    #[must_use]
    pub fn has_used(&self, sandbox: &SandboxId) -> bool {
        self.entries
            .values()
            .any(|entry| entry.used && entry.sandbox == *sandbox)
    }

    /// Whether another command cannot be remembered.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= COMMANDS_MAX
    }

    /// Commands that may be forgotten: void and settled. What is not settled is kept until it is.
    pub fn forget(&mut self, now: UnixMillis) -> Vec<CommandId> {
        let is_over = |entry: &Remembered| entry.settled && now >= entry.expires.plus(KEEP_AFTER);
        let over: Vec<CommandId> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_over(entry))
            .map(|(id, _)| *id)
            .collect();
        for id in &over {
            self.entries.remove(id);
        }
        over
    }

    /// Commands that were accepted and never settled, to be taken up again after a restart.
    #[must_use]
    pub fn unsettled(&self) -> Vec<CommandId> {
        self.entries
            .iter()
            .filter(|(_, entry)| !entry.settled)
            .map(|(id, _)| *id)
            .collect()
    }
}
