//! What is written down of commands and sandboxes, so that an operator that restarts knows what it owes.

use protocol::command::Content;
use protocol::id::{CommandId, IsolationKey, SandboxId};
use protocol::key::{Public, Sandbox};
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::intake::Remembered;
use super::reconcile::Stage;

/// A command that was accepted. Written before it is acknowledged or acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Its id.
    pub id: CommandId,
    /// The sandbox it is about.
    pub sandbox: SandboxId,
    /// When it is void.
    pub expires: UnixMillis,
    /// When it was verified, by the broker's time.
    pub accepted: UnixMillis,
    /// The signed command as it came, until it is settled: what is taken up again after a restart is verified again.
    #[serde(with = "serde_bytes")]
    pub signed: Vec<u8>,
    /// It launched its sandbox.
    pub used: bool,
    /// What settled it.
    pub outcome: Option<Outcome>,
}

/// The report that settled a command, to be sent again to whoever sends the command again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its number.
    pub number: u64,
    /// The signed report.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
}

impl CommandRecord {
    /// What intake needs to know of it.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        Remembered {
            expires: self.expires,
            sandbox: self.sandbox.clone(),
            settled: self.outcome.is_some(),
            used: self.used,
        }
    }
}

/// A sandbox that was accepted and is not gone yet. Written before its container is made, removed after that is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its id.
    pub sandbox: SandboxId,
    /// The command that asked for it.
    pub command: CommandId,
    /// Its isolation key.
    pub isolation: Option<IsolationKey>,
    /// What its events carry.
    pub content: Content,
    /// How long it may live, in seconds.
    pub life_s: u64,
    /// The engine's id of its image, once it is known.
    pub image: Option<String>,
    /// Its container and its key, once it runs.
    pub running: Option<Running>,
    /// A `stop` was accepted: its end will be no surprise.
    pub stopped: bool,
    /// It has ended; what it left is still to be reported or removed.
    pub ending: Option<Ending>,
}

impl SandboxRecord {
    /// Where it stands, for [`reconcile`](super::reconcile::reconcile).
    #[must_use]
    pub fn stage(&self) -> Stage {
        match (&self.ending, &self.running) {
            (Some(_), _) => Stage::Ending,
            (None, Some(running)) => Stage::Running {
                container: running.container.clone(),
            },
            (None, None) => Stage::Creating,
        }
    }
}

/// A sandbox that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The engine's id of the container.
    pub container: String,
    /// The key that its shim announced first.
    pub key: Public<Sandbox>,
    /// When its life is over, by the broker's time.
    pub until: UnixMillis,
}

/// How a sandbox ended, and how far its end has been told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The report of its end is written; only removal is left.
    pub reported: bool,
}
