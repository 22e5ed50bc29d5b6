//! Commands at the operator: the real intake, outbox and reconcile, over a disk and an engine in memory. A power cut may come
//! between any two steps.

use std::collections::BTreeMap;
use std::time::Instant;

use agent::core::intake::{Decision, Memory, World, decide};
use agent::core::outbox::{Class, Outbox};
use agent::core::reconcile::{Action, Doing, Recorded, Seen, Stage, reconcile};
use agent::core::record::{CommandRecord, Outcome};
use protocol::command::{Command, Content, Launch, Limits, Order, sign};
use protocol::id::{CommandId, HostId, SandboxId};
use protocol::key::{Dispatcher, Host, Public, Sandbox, Secret};
use protocol::report::{self, Launched, News, Report};
use protocol::signed;
use protocol::time::UnixMillis;
use zeroize::Zeroizing;

/// Who signs commands.
fn dispatcher() -> Secret<Dispatcher> {
    Secret::from_seed(&Zeroizing::new([5; 32]))
}

/// A signed command to launch a sandbox of its own.
pub(crate) fn launch(number: u8, host: &HostId, now: UnixMillis) -> (CommandId, Vec<u8>) {
    let id = CommandId([number; 16]);
    let order = Order::Launch(Launch {
        sandbox: SandboxId::new(&format!("build-{number}")).unwrap(),
        image: "tool:1".into(),
        arguments: vec![],
        environment: vec![],
        sources: vec![],
        limits: Limits::default(),
        content: Content::Metadata,
        isolation: None,
    });
    let command = Command {
        id,
        host: host.clone(),
        issued: now,
        expires: UnixMillis(now.0 + 24 * 3_600_000),
        order,
    };
    (id, sign(&dispatcher(), &command))
}

/// Commands and reports on disk, and what the engine shows: both outlive the process.
#[derive(Clone, Default)]
pub(crate) struct Shelf {
    commands: BTreeMap<CommandId, CommandRecord>,
    reports: BTreeMap<u64, (Class, Vec<u8>)>,
    next: u64,
    containers: BTreeMap<SandboxId, CommandId>,
    /// How often each command was carried out.
    pub(crate) starts: BTreeMap<CommandId, u64>,
}

/// The process's side.
pub(crate) struct Desk {
    memory: Memory,
    pub(crate) outbox: Outbox,
    dispatchers: Vec<Public<Dispatcher>>,
    /// Steps until the power is cut, if it will be.
    pub(crate) fuse: Option<u64>,
}

/// The power was cut.
#[derive(Debug)]
pub(crate) struct Cut;

/// What a report is signed with.
pub(crate) struct Signer<'a> {
    pub(crate) host: &'a HostId,
    pub(crate) key: &'a Secret<Host>,
    pub(crate) now: UnixMillis,
}

impl Desk {
    pub(crate) fn open(shelf: &mut Shelf) -> Self {
        let owed = shelf.reports.iter();
        let owed = owed.map(|(number, (class, _))| (*number, *class));
        let mut desk = Self {
            memory: Memory::default(),
            outbox: Outbox::new(owed, shelf.next),
            dispatchers: vec![dispatcher().public()],
            fuse: None,
        };
        let known = shelf.commands.iter();
        desk.memory = Memory::new(known.map(|(id, record)| (*id, record.remembered())));
        for (number, (_, bytes)) in shelf.reports.clone() {
            let report: Report = signed::peek(&bytes).unwrap();
            let command = report.news.settles().unwrap();
            // No power cut here: a start that is cut short has done nothing yet that the next one would not do.
            desk.settle(shelf, command, number, bytes).unwrap();
        }
        desk
    }

    fn step(&mut self) -> Result<(), Cut> {
        match &mut self.fuse {
            None => Ok(()),
            Some(0) => Err(Cut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Takes up what an earlier start left behind.
    pub(crate) fn take_up(&mut self, shelf: &mut Shelf, signer: &Signer<'_>) -> Result<(), Cut> {
        let unsettled = self.memory.unsettled().into_iter();
        let recorded = unsettled.map(|id| {
            let record = Recorded {
                command: id,
                stage: Stage::Creating,
                attended: false,
            };
            (shelf.commands[&id].sandbox.clone(), record)
        });
        let recorded: BTreeMap<_, _> = recorded.collect();
        let containers = shelf.containers.iter();
        let containers = containers.filter(|(sandbox, _)| recorded.contains_key(*sandbox));
        let seen: Vec<Seen> = containers
            .map(|(sandbox, command)| Seen {
                container: sandbox.to_string(),
                sandbox: sandbox.clone(),
                command: *command,
                doing: Doing::Running,
            })
            .collect();
        for action in reconcile(&recorded, &seen) {
            match action {
                Action::Relaunch { sandbox } => {
                    self.start(shelf, recorded[&sandbox].command, &sandbox, signer)?;
                }
                Action::Adopt { sandbox, .. } => {
                    self.report(shelf, recorded[&sandbox].command, &sandbox, signer)?;
                }
                other => unreachable!("{other:?}"),
            }
        }
        Ok(())
    }

    /// Takes a command in. `Ok(true)` is the acknowledgement.
    pub(crate) fn take(
        &mut self,
        shelf: &mut Shelf,
        bytes: &[u8],
        signer: &Signer<'_>,
    ) -> Result<bool, Cut> {
        let standing = BTreeMap::new();
        let world = World {
            host: signer.host,
            dispatchers: &self.dispatchers,
            memory: &self.memory,
            standing: &standing,
            parallel: 100,
            is_clogged: self.outbox.is_full(),
            stopped: None,
        };
        match decide(bytes, &world, signer.now) {
            Decision::Launch(command) => {
                let command = command.into_value();
                let record = CommandRecord {
                    id: command.id,
                    sandbox: command.order.sandbox().clone(),
                    expires: command.expires,
                    accepted: signer.now,
                    signed: bytes.to_vec(),
                    used: false,
                    outcome: None,
                };
                self.step()?;
                self.memory.insert(command.id, record.remembered());
                shelf.commands.insert(command.id, record);
                self.start(shelf, command.id, command.order.sandbox(), signer)?;
            }
            Decision::Again { command, settled } => {
                if settled {
                    let outcome = shelf.commands[&command].outcome.clone().unwrap();
                    self.step()?;
                    let report = (Class::Outcome, outcome.report);
                    shelf.reports.insert(outcome.number, report);
                    self.outbox.add(outcome.number, Class::Outcome);
                }
            }
            Decision::Defer => return Ok(false),
            other => unreachable!("{other:?}"),
        }
        let command: Command = signed::peek(bytes).unwrap();
        let on_disk = shelf.commands.contains_key(&command.id);
        assert!(on_disk, "acknowledged before it was written down");
        Ok(true)
    }

    fn start(
        &mut self,
        shelf: &mut Shelf,
        id: CommandId,
        sandbox: &SandboxId,
        signer: &Signer<'_>,
    ) -> Result<(), Cut> {
        self.step()?;
        *shelf.starts.entry(id).or_default() += 1;
        shelf.containers.insert(sandbox.clone(), id);
        self.report(shelf, id, sandbox, signer)
    }

    fn report(
        &mut self,
        shelf: &mut Shelf,
        id: CommandId,
        sandbox: &SandboxId,
        signer: &Signer<'_>,
    ) -> Result<(), Cut> {
        let number = self.outbox.next_number(Class::Outcome).unwrap();
        let report = Report {
            host: signer.host.clone(),
            number,
            time: signer.now,
            news: News::Launched(Launched {
                command: id,
                sandbox: sandbox.clone(),
                key: Secret::<Sandbox>::from_seed(&Zeroizing::new([6; 32])).public(),
                image: "sha256:00".into(),
                container: sandbox.to_string(),
                content: Content::Metadata,
            }),
        };
        let bytes = report::sign(signer.key, &report);
        self.step()?;
        shelf
            .reports
            .insert(number, (Class::Outcome, bytes.clone()));
        shelf.next = number + 1;
        self.outbox.add(number, Class::Outcome);
        self.settle(shelf, id, number, bytes)
    }

    fn settle(
        &mut self,
        shelf: &mut Shelf,
        id: CommandId,
        number: u64,
        report: Vec<u8>,
    ) -> Result<(), Cut> {
        if self.memory.find(id).is_none_or(|known| known.settled) {
            return Ok(());
        }
        self.step()?;
        self.memory.settle(id, true);
        let record = shelf.commands.get_mut(&id).unwrap();
        record.outcome = Some(Outcome { number, report });
        record.used = true;
        Ok(())
    }

    /// The next report to send.
    pub(crate) fn next_report(&mut self, shelf: &Shelf, now: Instant) -> Option<(u64, Vec<u8>)> {
        let number = self.outbox.poll_send(now)?;
        self.outbox.sent(number);
        Some((number, shelf.reports[&number].1.clone()))
    }

    /// The broker has it on disk.
    pub(crate) fn acked(&mut self, shelf: &mut Shelf, number: u64) {
        if self.outbox.acked(number) {
            shelf.reports.remove(&number);
        }
    }
}
