//! From bytes on the command topic to a decision.
//!
//! Only a command that a listed dispatcher signed for this host, and that is in its time, is looked at; everything else is
//! acknowledged to the broker (it would come again for ever), counted, and starts nothing. A command that was seen before is
//! answered from memory. A new one is remembered on disk before it is acknowledged or acted on.

mod memory;

use std::collections::BTreeMap;

use protocol::command::{self, Command, CommandError, Launch, Order, Stop};
use protocol::id::{CommandId, HostId, IsolationKey, SandboxId};
use protocol::key::{Dispatcher, Public};
use protocol::report::Reason;
use protocol::signed::Verified;
use protocol::time::UnixMillis;

pub use memory::{COMMANDS_MAX, Memory, Remembered};

/// What intake needs to know of the host.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// This host.
    pub host: &'a HostId,
    /// Whom it obeys: the bundle's dispatchers and the policy's.
    pub dispatchers: &'a [Public<Dispatcher>],
    /// Commands seen before.
    pub memory: &'a Memory,
    /// Sandboxes that exist here, in whatever state.
    pub standing: &'a BTreeMap<SandboxId, Standing>,
    /// Sandboxes at once, from the policy.
    pub parallel: usize,
    /// Reports have piled up: a command could not be answered.
    pub is_clogged: bool,
    /// Why this host obeys nobody now, if its witness has stopped it.
    pub stopped: Option<&'a str>,
}

/// A sandbox that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The command that asked for it.
    pub command: CommandId,
    /// Its isolation key.
    pub isolation: Option<IsolationKey>,
}

/// What is to be done with bytes that came as a command.
#[derive(Debug)]
pub enum Decision {
    /// Nothing: acknowledge, count, log the reason.
    Ignore(CommandError),
    /// Nothing, and do not acknowledge: there is no room to remember it. The broker offers it again on the next link.
    Defer,
    /// It was seen before: acknowledge; if it is settled, send the report that settled it again.
    Again {
        /// Which.
        command: CommandId,
        /// Whether a report settled it.
        settled: bool,
    },
    /// Remember it, acknowledge, report the refusal.
    Refuse {
        /// Why.
        reason: Reason,
        /// For a person.
        detail: String,
        /// What it was.
        command: Verified<Command, Dispatcher>,
    },
    /// Remember it, acknowledge, launch. The policy is asked once the image is known.
    Launch(Verified<Command, Dispatcher>),
    /// Remember it, acknowledge, stop a sandbox that exists.
    Stop(Verified<Command, Dispatcher>),
    /// Remember it, acknowledge, report as stopped: it ended before.
    AlreadyStopped(Verified<Command, Dispatcher>),
}

/// Decides what to do with `bytes` from the command topic. `now` is the broker's time.
#[must_use]
pub fn decide(bytes: &[u8], world: &World<'_>, now: UnixMillis) -> Decision {
    let command = match command::verify(bytes, world.dispatchers, world.host, now) {
        Ok(command) => command,
        Err(error) => return Decision::Ignore(error),
    };
    let id = command.value().id;
    if let Some(known) = world.memory.find(id) {
        return Decision::Again {
            command: id,
            settled: known.settled,
        };
    }
    if world.memory.is_full() || world.is_clogged {
        return Decision::Defer;
    }
    judge(command, world)
}

/// Decides on a command that is proven and new.
fn judge(command: Verified<Command, Dispatcher>, world: &World<'_>) -> Decision {
    let verdict = match (&command.value().order, world.stopped) {
        // Refused rather than put off: whoever sent it hears why at once, and nothing old starts by itself when the owner has decided.
        (_, Some(why)) => Err((Reason::PolicyRefused, why.to_owned())),
        (Order::Launch(launch), None) => judge_launch(launch, world),
        (Order::Stop(stop), None) => judge_stop(stop, world),
    };
    match verdict {
        Ok(Verdict::Launch) => Decision::Launch(command),
        Ok(Verdict::Stop) => Decision::Stop(command),
        Ok(Verdict::AlreadyStopped) => Decision::AlreadyStopped(command),
        Err((reason, detail)) => Decision::Refuse {
            reason,
            detail,
            command,
        },
    }
}

enum Verdict {
    Launch,
    Stop,
    AlreadyStopped,
}

fn judge_launch(launch: &Launch, world: &World<'_>) -> Result<Verdict, (Reason, String)> {
    let id = &launch.sandbox;
    if world.standing.contains_key(id) {
        return Err((Reason::Conflict, format!("a sandbox {id} exists here")));
    }
    if world.memory.has_used(id) {
        let detail = format!("a sandbox {id} ran here before; ids are used once");
        return Err((Reason::Conflict, detail));
    }
    let holder = launch.isolation.as_ref().and_then(|key| {
        let holds = |standing: &Standing| standing.isolation.as_ref() == Some(key);
        world.standing.iter().find(|(_, standing)| holds(standing))
    });
    if let Some((holder, _)) = holder {
        let detail = format!("its isolation key is held by sandbox {holder}");
        return Err((Reason::Conflict, detail));
    }
    // Last: what can never be done here must not be told to try again later.
    let count = world.standing.len();
    if count >= world.parallel {
        let detail = format!(
            "parallel: {count} sandboxes of at most {} exist",
            world.parallel
        );
        return Err((Reason::Busy, detail));
    }
    Ok(Verdict::Launch)
}

fn judge_stop(stop: &Stop, world: &World<'_>) -> Result<Verdict, (Reason, String)> {
    if world.standing.contains_key(&stop.sandbox) {
        Ok(Verdict::Stop)
    } else if world.memory.has_used(&stop.sandbox) {
        Ok(Verdict::AlreadyStopped)
    } else {
        let detail = format!("no sandbox {} here", stop.sandbox);
        Err((Reason::NotFound, detail))
    }
}

#[cfg(test)]
mod tests;
