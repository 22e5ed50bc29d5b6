//! One sandbox, from its command to its end: a task of its own, in steps that can be taken up again after a restart.
//!
//! Every step is written down before the next. Whatever ends it, the end is the same: what it left is forwarded, its end is
//! reported, and only then are its container, its directory and its record removed.

mod end;
mod launch;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use protocol::command::Launch;
use protocol::report::{Reason, State};
use smol::Timer;
use smol::channel::Receiver;

use super::site::{Mail, Site};
use crate::core::record::SandboxRecord;
use crate::shell::docker::{EngineError, Exit};

/// Letters to a sandbox's task that wait to be read. More are dropped: a second stop adds nothing, and tokens are minted on a timer
/// as well.
pub(super) const CONTROL_MAX: usize = 8;

/// How long to wait before the engine is asked again for something it must do in the end.
const ENGINE_WAIT: Duration = Duration::from_secs(5);

/// How a task begins.
#[derive(Debug)]
pub(super) enum Begin {
    /// From the beginning.
    Launch {
        /// What to launch.
        order: Box<Launch>,
        /// A launch before this one was cut short, and may have left a container.
        again: bool,
    },
    /// With a container that runs.
    Watch {
        /// The engine's id.
        container: String,
    },
    /// With a container that has ended, or is gone after its end was reported.
    Finish {
        /// The engine's id.
        container: Option<String>,
    },
    /// With nothing: its container vanished.
    Lose,
}

/// What a task may be told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Control {
    /// End it, after this grace.
    Stop {
        /// How long it may take to end by itself.
        grace: Duration,
    },
    /// The host has a fresh token: mint one for the sandbox.
    Remint,
}

/// How a sandbox ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// What the runtime recorded.
    exit_code: Option<u64>,
    /// Why, unless it ended by itself.
    reason: Option<Reason>,
    /// For a person.
    detail: String,
    /// Nothing was started: the command was refused.
    refused: bool,
}

impl End {
    /// It ended by itself, or as `why` had it.
    fn exited(exit: Exit, why: Option<Reason>) -> Self {
        let reason = why.or_else(|| exit.oom.then_some(Reason::OomKilled));
        let detail = match reason {
            Some(Reason::OomKilled) => "it used more memory than its limit",
            Some(Reason::DeadlineExceeded) => "it lived as long as it may, and was stopped",
            Some(Reason::QuotaExceeded) => {
                "it wrote more to its run directory than it may, and was stopped"
            }
            Some(Reason::Stopped) => "stopped by a command",
            Some(_) | None => "",
        };
        Self {
            exit_code: Some(exit.code),
            reason,
            detail: detail.to_owned(),
            refused: false,
        }
    }

    /// Its container is gone, and nobody here removed it.
    fn lost() -> Self {
        Self::failed(
            Reason::Lost,
            "its container is gone, and not by the operator's hand",
        )
    }

    fn failed(reason: Reason, detail: &str) -> Self {
        Self {
            exit_code: None,
            reason: Some(reason),
            detail: detail.to_owned(),
            refused: false,
        }
    }

    /// It was refused before anything was started.
    fn refused(reason: Reason, detail: &str) -> Self {
        Self {
            refused: true,
            ..Self::failed(reason, detail)
        }
    }

    fn state(&self) -> State {
        match self.reason {
            None => State::Finished,
            Some(_) => State::Failed,
        }
    }
}

impl From<EngineError> for End {
    fn from(error: EngineError) -> Self {
        Self::refused(error.reason, &error.detail)
    }
}

/// Looks after one sandbox until it is gone.
pub(super) async fn attend(
    site: Arc<Site>,
    mut record: SandboxRecord,
    begin: Begin,
    control: Receiver<Control>,
) {
    let sandbox = record.sandbox.clone();
    let (end, container) = match begin {
        Begin::Launch { order, again } => {
            if let (true, Some((engine, _))) = (again, site.engine()) {
                end::remove_containers(&engine, &record, None).await;
            }
            match launch::launch(&site, &mut record, &order, &control).await {
                Ok(container) => {
                    let end = watch::watch(&site, &mut record, &container, &control).await;
                    (Some(end), Some(container))
                }
                Err(end) => (Some(end), None),
            }
        }
        Begin::Watch { container } => {
            let end = match launch::announce_again(&site, &mut record, &container).await {
                Ok(()) => watch::watch(&site, &mut record, &container, &control).await,
                Err(end) => end,
            };
            (Some(end), Some(container))
        }
        Begin::Finish { container } => {
            let is_told = record.ending.as_ref().is_some_and(|ending| ending.reported);
            let end = match &container {
                _ if is_told => None,
                Some(container) => Some(end::look(&site, &mut record, container).await),
                None => Some(End::lost()),
            };
            (end, container)
        }
        Begin::Lose => (Some(End::lost()), None),
    };
    if let Some(end) = end {
        end::tell(&site, &mut record, &end).await;
    }
    end::remove(&site, &record, container).await;
    site.forget(&sandbox);
    let _ = site.mail.send(Mail::Gone(sandbox)).await;
}

/// Waits before the engine is asked again.
async fn wait_for_engine() {
    Timer::after(ENGINE_WAIT).await;
}
