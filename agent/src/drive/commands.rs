//! Commands, from the topic to a sandbox's task or a refusal: remembered on disk, then acknowledged, then acted on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::command::{self, Command, Order};
use protocol::id::{CommandId, SandboxId};
use protocol::key_change::Statement;
use protocol::report::{self, Ended, News, Reason, State};

use super::sandbox::{Begin, Control};
use super::site::DISK_WAIT;
use super::{Attendant, Drive};
use crate::core::detail;
use crate::core::dispatcher::{Changed, NoChange};
use crate::core::intake::{self, Decision, Standing, World};
use crate::core::outbox::Class;
use crate::core::record::{CommandRecord, Ending, SandboxRecord};
use crate::shell::mqtt::AckHandle;
use crate::shell::tokio::spawn;

impl Drive {
    /// Takes a command from the link, and acknowledges it unless there is no room to remember it: then it is tried again.
    pub(super) fn take_command(&mut self, bytes: Vec<u8>, ack: AckHandle) {
        if !self.on_command(&bytes) {
            self.deferred.push_back((bytes, ack));
            self.retry_at = Some(self.site.time.now().mono + DISK_WAIT);
            return;
        }
        if self.deferred.is_empty() {
            self.said_deferred.clear();
        }
        if let Some((_, link)) = &self.link {
            link.ack(ack);
        }
    }

    /// Tries the commands that were put off again, in their order.
    pub(super) fn take_deferred(&mut self) {
        for (bytes, ack) in std::mem::take(&mut self.deferred) {
            self.take_command(bytes, ack);
        }
    }

    /// Takes the bytes of a command. True if they are to be acknowledged.
    fn on_command(&mut self, bytes: &[u8]) -> bool {
        if Statement::is_claimed(bytes) {
            return self.on_statement(bytes);
        }
        match self.decide(bytes) {
            Decision::Ignore(error) => {
                self.ignored = self.ignored.saturating_add(1);
                tracing::warn!(
                    ignored = self.ignored,
                    bytes = bytes.len(),
                    "a command was ignored: {error}"
                );
                true
            }
            Decision::Defer => {
                let why = "too many are remembered, or too many reports wait";
                self.said_deferred
                    .warn("commands are put off", why.to_owned());
                false
            }
            Decision::Again { command, settled } => {
                tracing::debug!(%command, settled, "a command came again");
                if settled {
                    self.answer_again(command);
                }
                true
            }
            Decision::Refuse {
                reason,
                detail,
                command,
            } => {
                let command = command.into_value();
                self.remember(bytes, &command) && self.refuse(&command, reason, &detail)
            }
            Decision::AlreadyStopped(command) => {
                let command = command.into_value();
                self.remember(bytes, &command) && self.already_stopped(&command)
            }
            Decision::Launch(command) | Decision::Stop(command) => {
                let command = command.into_value();
                if !self.remember(bytes, &command) {
                    return false;
                }
                self.carry_out(command);
                true
            }
        }
    }

    fn decide(&self, bytes: &[u8]) -> Decision {
        let dispatchers = self.dispatchers.obeyed(self.site.time.now().unix);
        let standing: BTreeMap<SandboxId, Standing> = self
            .site
            .records()
            .values()
            .map(|record| {
                let standing = Standing {
                    command: record.command,
                    isolation: record.isolation.clone(),
                };
                (record.sandbox.clone(), standing)
            })
            .collect();
        let stopped = self.site.witness().refusal();
        let world = World {
            host: &self.site.host,
            dispatchers: &dispatchers,
            memory: &self.memory,
            standing: &standing,
            parallel: self.site.policy.parallel(),
            is_clogged: self.outbox.is_full() || !self.unstored.is_empty(),
            stopped: stopped.as_deref(),
        };
        intake::decide(bytes, &world, self.site.time.now().unix)
    }

    /// Takes what a dispatcher says about keys. True if it is to be acknowledged: it is on disk, or changes nothing.
    fn on_statement(&mut self, bytes: &[u8]) -> bool {
        let mut next = self.dispatchers.clone();
        let changed = match next.take(bytes, self.site.time.now().unix) {
            Ok(changed) => changed,
            // It comes at every connection.
            Err(NoChange::Again) => return true,
            Err(why) => {
                let said = &mut self.said_statement;
                said.warn("a dispatcher's statement changes nothing", why.to_string());
                return true;
            }
        };
        if let Changed::Restored { trail, by } = &changed {
            return self.on_restored(trail, by);
        }
        if let Err(error) = self.site.store.save_dispatchers(next.learned()) {
            let why = error.root_cause().to_string();
            self.said_deferred
                .warn("commands are put off: remember a statement", why);
            return false;
        }
        self.dispatchers = next;
        self.is_status_due = true;
        match changed {
            Changed::Followed { key, next, until } => tracing::info!(
                dispatcher = %key, %next, until_ms = until.map(|until| until.0),
                "a dispatcher's key is followed by another, which this host obeys from now on"
            ),
            Changed::Revoked { key, by } => tracing::warn!(
                dispatcher = %key, %by,
                "a dispatcher's key was revoked: this host obeys it no more, nor what it named"
            ),
            Changed::Restored { .. } => {}
        }
        true
    }

    /// Writes a new command down. If the disk does not take it, it is not acknowledged, and comes again.
    fn remember(&mut self, bytes: &[u8], command: &Command) -> bool {
        let record = CommandRecord {
            id: command.id,
            sandbox: command.order.sandbox().clone(),
            expires: command.expires,
            accepted: self.site.time.now().unix,
            signed: bytes.to_vec(),
            used: false,
            outcome: None,
        };
        match self.site.store.save_command(&record) {
            Ok(()) => {
                self.memory.insert(command.id, record.remembered());
                true
            }
            Err(error) => {
                let why = error.root_cause().to_string();
                self.said_deferred
                    .warn("commands are put off: remember a command", why);
                false
            }
        }
    }

    fn refuse(&mut self, command: &Command, reason: Reason, detail: &str) -> bool {
        let sandbox = command.order.sandbox();
        tracing::info!(%sandbox, command = %command.id, "{} refused: {reason}: {detail}", command.order.word());
        self.report(News::Refused(report::Refused {
            command: command.id,
            sandbox: sandbox.clone(),
            reason,
            detail: detail::outward(detail),
        }));
        true
    }

    fn already_stopped(&mut self, command: &Command) -> bool {
        self.report(News::Stopped(report::Stopped {
            command: command.id,
            sandbox: command.order.sandbox().clone(),
        }));
        true
    }

    /// Acts on a command that is remembered.
    fn carry_out(&mut self, command: Command) {
        let id = command.id;
        tracing::info!(sandbox = %command.order.sandbox(), command = %id, "{}", command.order.word());
        match command.order {
            Order::Launch(order) => {
                let record = SandboxRecord {
                    sandbox: order.sandbox.clone(),
                    command: id,
                    isolation: order.isolation.clone(),
                    content: order.content,
                    life_s: order.limits.life_s,
                    image: None,
                    running: None,
                    stopped: false,
                    ending: None,
                };
                if let Err(error) = self.site.save(&record) {
                    tracing::error!("{error:#}");
                    let news = report::Refused {
                        command: id,
                        sandbox: record.sandbox,
                        reason: Reason::DiskFull,
                        detail: "the operator cannot write to its state directory".into(),
                    };
                    self.report(News::Refused(news));
                    return;
                }
                let begin = Begin::Launch {
                    order: Box::new(order),
                    again: false,
                };
                self.attend(&record.sandbox, begin);
            }
            Order::Stop(stop) => {
                let grace = Duration::from_secs(stop.grace_s);
                match self.attendants.get_mut(&stop.sandbox) {
                    Some(attendant) => give_stop(attendant, id, grace),
                    // It stands, and nobody attends to it yet: the engine has not been seen since the start. The command is
                    // taken up when it has.
                    None => {
                        tracing::debug!(sandbox = %stop.sandbox, "the stop waits for the engine")
                    }
                }
            }
        }
    }

    /// Sends the report that settled a command again.
    fn answer_again(&mut self, command: CommandId) {
        let again = self.site.store.load_command(command).and_then(|record| {
            if let Some(outcome) = record.outcome
                && !self.outbox.contains(outcome.number)
            {
                self.site
                    .store
                    .save_report(outcome.number, Class::Outcome, &outcome.report)?;
                self.outbox.add(outcome.number, Class::Outcome);
            }
            Ok(())
        });
        if let Err(error) = again {
            tracing::error!("{error:#}");
        }
    }

    /// Launches whose end was told just before the operator was interrupted are not launched again.
    pub(super) fn mark_told(&mut self) {
        for record in self.site.records().values_mut() {
            let is_settled = self
                .memory
                .find(record.command)
                .is_none_or(|known| known.settled);
            if is_settled && record.running.is_none() {
                record.ending = Some(Ending { reported: true });
            }
        }
    }

    /// Takes up the commands that were accepted and never settled, once the engine has been seen.
    pub(super) fn take_up_commands(&mut self) {
        for id in self.memory.unsettled() {
            match self.read_again(id) {
                Ok(command) => {
                    let standing = self.site.records().contains_key(command.order.sandbox());
                    match (&command.order, standing) {
                        // Its record says where it stands.
                        (Order::Launch(_), true) => {}
                        (Order::Stop(_), false) => {
                            self.already_stopped(&command);
                        }
                        (Order::Launch(_), false) | (Order::Stop(_), true) => {
                            self.carry_out(command);
                        }
                    }
                }
                Err(error) => self.void(id, &error),
            }
        }
    }

    /// A command from disk, verified as of when it was accepted: a dispatcher that was removed or revoked since is obeyed no more.
    fn read_again(&self, id: CommandId) -> anyhow::Result<Command> {
        let record = self.site.store.load_command(id)?;
        let dispatchers = self.dispatchers.obeyed(record.accepted);
        let verified = command::verify(
            &record.signed,
            &dispatchers,
            &self.site.host,
            record.accepted,
        )?;
        Ok(verified.into_value())
    }

    fn void(&mut self, id: CommandId, error: &anyhow::Error) {
        tracing::warn!(command = %id, "a command is not taken up again: {error:#}");
        let Some(sandbox) = self.memory.find(id).map(|known| known.sandbox.clone()) else {
            return;
        };
        self.report(News::Refused(report::Refused {
            command: id,
            sandbox,
            reason: Reason::PolicyRefused,
            detail: "dispatchers: whoever signed it is not listed any more".into(),
        }));
    }

    /// Begins a launch again that was cut short.
    pub(super) fn relaunch(&mut self, sandbox: &SandboxId) {
        let Some(id) = self
            .site
            .records()
            .get(sandbox)
            .map(|record| record.command)
        else {
            return;
        };
        match self.read_again(id) {
            Ok(Command {
                order: Order::Launch(order),
                ..
            }) => {
                tracing::info!(%sandbox, "launch begun again");
                let begin = Begin::Launch {
                    order: Box::new(order),
                    again: true,
                };
                self.attend(sandbox, begin);
            }
            Ok(_) | Err(_) => {
                let error = anyhow::anyhow!("its dispatcher is not listed any more");
                self.void(id, &error);
                self.mark_told();
                self.attend(sandbox, Begin::Finish { container: None });
            }
        }
    }

    /// Removes a container that no record explains. `command` is its label, if its end is to be reported.
    pub(super) fn sweep(
        &mut self,
        container: String,
        sandbox: SandboxId,
        command: Option<CommandId>,
    ) {
        let Some((engine, _)) = self.site.engine() else {
            return;
        };
        if !self.sweeping.insert(container.clone()) {
            return;
        }
        tracing::warn!(%sandbox, container, "sweeping a container that no record explains");
        let site = Arc::clone(&self.site);
        self.tasks.retain(|task| !task.is_finished());
        self.tasks.push(spawn(async move {
            if let Err(error) = engine.remove(&container).await {
                tracing::warn!(%sandbox, container, "sweep: {error}");
                return;
            }
            if command.is_some() {
                let news = News::Ended(Ended {
                    command,
                    sandbox,
                    state: State::Failed,
                    exit_code: None,
                    reason: Some(Reason::Lost),
                    detail: "swept: its container was here, and no record of it".into(),
                });
                // An outcome always finds room.
                let _ = site.report(news, Class::Outcome).await;
            }
        }));
    }

    /// A sandbox is gone: whoever asked for its end is told.
    pub(super) fn on_gone(&mut self, sandbox: &SandboxId) {
        let Some(attendant) = self.attendants.remove(sandbox) else {
            return;
        };
        for command in attendant.stops {
            self.report(News::Stopped(report::Stopped {
                command,
                sandbox: sandbox.clone(),
            }));
        }
    }
}

fn give_stop(attendant: &mut Attendant, command: CommandId, grace: Duration) {
    attendant.stops.push(command);
    // Full means that it has been told to stop before.
    let _ = attendant.control.try_send(Control::Stop { grace });
}
