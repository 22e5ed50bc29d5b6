//! Commands: taken from dispatchers, kept, and sent until a report settles them.

use anyhow::Context as _;
use protocol::{
    command::{self, Command, CommandError, Order},
    id::{HostId, SandboxId},
    key::{Dispatcher, Public},
    limits::MESSAGE_BYTES_MAX,
    report::State,
    signed::{self, Verified, VerifyError},
    topic::Topic,
};
use serde_json::json;

use super::{Peer, Plane, apply::Extra};
use crate::{
    core::{
        access::Refusal,
        hosts::HostState,
        journal::{Entry, RecordKind},
    },
    shell::{
        journal::{Filter, Item},
        room::Waits,
        store::{AuditEntry, CommandRow, Recorded, SandboxRow},
    },
};

/// Why a command was not taken. The text tells a person what to do.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Longer than a packet holds.
    #[error(
        "the command is {bytes} bytes long; at most {MESSAGE_BYTES_MAX} fit: shorten its arguments or its environment"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not a signed command, or its signature is wrong.
    #[error("not a signed command")]
    Malformed,
    /// Arguments, environment, limits or image that no command may have.
    #[error(
        "the command is out of bounds: check the image's name, the limits, and the number of arguments and variables"
    )]
    Bounds,
    /// Signed by nobody we know.
    #[error(
        "the command is signed by a dispatcher that is not registered here: run `outhaul dispatcher init`"
    )]
    Dispatcher,
    /// It is for another host than who hands it in may use.
    #[error("the command is not for this token: {0}")]
    OtherHost(Refusal),
    /// Its time is over, or it lives longer than any command may.
    #[error(
        "the command has expired, or would live longer than 7 days: check this machine's clock"
    )]
    Expired,
    /// Dated in the future.
    #[error("the command is dated in the future: check this machine's clock")]
    Early,
    /// No such host.
    #[error("no host is called {0}: add it with `outhaul host add {0} --kind docker`")]
    HostUnknown(HostId),
    /// The host is locked.
    #[error(
        "host {0} is locked, since two machines used its identity: find the other one, then unlock it with `outhaul host unlock {0}`"
    )]
    HostLocked(HostId),
    /// The host was revoked.
    #[error("host {0} is revoked")]
    HostRevoked(HostId),
    /// The id is taken.
    #[error("host {0} has, or had, a sandbox {1}: choose another name")]
    SandboxExists(HostId, SandboxId),
    /// There is nothing to stop.
    #[error("host {0} has no sandbox {1}: see `outhaul ps`")]
    SandboxUnknown(HostId, SandboxId),
    /// The disk has no room for new work, or takes nothing at all.
    #[error("nothing new is taken: {0}")]
    Disk(&'static str),
    /// Another command has this id.
    #[error("another command has the same id: sign it anew")]
    IdTaken,
    /// The journal or the store failed.
    #[error("the command could not be recorded: see the broker's log")]
    Failed(#[source] anyhow::Error),
}

/// What the store says of a command before it is journaled.
enum Checked {
    New(Box<Verified<Command, Dispatcher>>),
    Again(u64),
}

impl Plane {
    /// Takes a dispatcher's command, and gives its offset in the journal. The same bytes again get the same answer. When this
    /// returns the command is durable; it is sent to its host now, or when it connects.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit_command(&self, bytes: Vec<u8>, peer: Peer) -> Result<u64, SubmitError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(SubmitError::TooLarge { bytes: bytes.len() });
        }
        let plane = self.clone();
        // A task of its own: who hangs up half way must not leave a command in the journal that the store does not know.
        let submitting = tokio::spawn(async move { plane.submit(bytes, peer).await });
        submitting
            .await
            .unwrap_or_else(|error| Err(SubmitError::Failed(error.into())))
    }

    async fn submit(&self, bytes: Vec<u8>, peer: Peer) -> Result<u64, SubmitError> {
        // One at a time: two launches of one id must not both find it free.
        let _turn = self.inner.submitting.lock().await;
        let checking = bytes.clone();
        let checked = self
            .blocking(move |plane| Ok(plane.check_command(&checking, &peer)))
            .await;
        let command = match checked.map_err(SubmitError::Failed)?? {
            Checked::Again(offset) => return Ok(offset),
            Checked::New(command) => command.into_value(),
        };
        let entry = Entry {
            kind: RecordKind::Command,
            host: command.host.as_str(),
            sandbox: Some(command.order.sandbox().as_str()),
            time_ms: self.now().0,
            payload: &bytes,
        };
        let time_ms = entry.time_ms;
        let appended = self.journal().append(entry).await.context("append command");
        let offset = appended.map_err(SubmitError::Failed)?;
        let topic = Topic::Commands(command.host.clone());
        let hash = *blake3::hash(&bytes).as_bytes();
        let followed = self
            .blocking(move |plane| plane.record_command(&command, hash, offset, time_ms))
            .await;
        if let Err(error) = followed {
            self.break_down(&error);
            return Err(SubmitError::Failed(error));
        }
        if let Err(error) = self.router().publish(&topic, &bytes).await {
            // It is sent again when the host subscribes.
            tracing::warn!(
                error = format!("{error:#}"),
                "a command did not go through the router"
            );
        }
        Ok(offset)
    }

    /// Whether a command may be taken; recorded in the audit trail if so. Blocks.
    fn check_command(&self, bytes: &[u8], peer: &Peer) -> Result<Checked, SubmitError> {
        let claimed: Command = signed::peek(bytes).map_err(|_| SubmitError::Malformed)?;
        // Before anything is looked up: whether there is such a host is not for this peer to know.
        peer.reach(&claimed.host).map_err(SubmitError::OtherHost)?;
        let dispatchers = self.dispatcher_keys().map_err(SubmitError::Failed)?;
        let now = self.now();
        let verified = command::verify(bytes, &dispatchers, &claimed.host, now).map_err(
            |error| match error {
                CommandError::Unverified(VerifyError::UnknownKey) => SubmitError::Dispatcher,
                CommandError::Unverified(_) | CommandError::Host => SubmitError::Malformed,
                CommandError::Expired => SubmitError::Expired,
                CommandError::Early => SubmitError::Early,
                CommandError::Bounds => SubmitError::Bounds,
            },
        )?;
        let command = verified.value();
        self.check_host(&command.host)?;
        if let Some(known) = self
            .store()
            .command(&command.id.0)
            .map_err(SubmitError::Failed)?
        {
            let is_same = known.bytes_hash == *blake3::hash(bytes).as_bytes();
            return if is_same {
                Ok(Checked::Again(known.offset))
            } else {
                Err(SubmitError::IdTaken)
            };
        }
        let (host, sandbox) = (&command.host, command.order.sandbox());
        let known = self
            .store()
            .sandbox(host.as_str(), sandbox.as_str())
            .map_err(SubmitError::Failed)?;
        match (&command.order, known) {
            (Order::Launch(_), Some(_)) => {
                return Err(SubmitError::SandboxExists(host.clone(), sandbox.clone()));
            }
            (Order::Stop(_), None) => {
                return Err(SubmitError::SandboxUnknown(host.clone(), sandbox.clone()));
            }
            (Order::Launch(_), None) | (Order::Stop(_), Some(_)) => {}
        }
        self.check_room(&command.order)?;
        self.audit_command(command, &verified.signer(), peer)
            .map_err(SubmitError::Failed)?;
        Ok(Checked::New(Box::new(verified)))
    }

    /// Whoever wants something to stop gets the reserve.
    fn check_room(&self, order: &Order) -> Result<(), SubmitError> {
        let shortage = match order {
            Order::Launch(_) => self.room().refuse(Waits::Launch),
            Order::Stop(_) => self
                .room()
                .shortage()
                .filter(|shortage| !shortage.leaves_reserve()),
        };
        shortage.map_or(Ok(()), |shortage| Err(SubmitError::Disk(shortage.advice())))
    }

    fn check_host(&self, host: &HostId) -> Result<(), SubmitError> {
        match self.host_state(host) {
            None => Err(SubmitError::HostUnknown(host.clone())),
            Some(HostState::Locked) => Err(SubmitError::HostLocked(host.clone())),
            Some(HostState::Revoked) => Err(SubmitError::HostRevoked(host.clone())),
            // One that has not come yet finds its commands waiting.
            Some(HostState::New | HostState::Enrolled) => Ok(()),
        }
    }

    fn audit_command(
        &self,
        command: &Command,
        signer: &Public<Dispatcher>,
        peer: &Peer,
    ) -> anyhow::Result<()> {
        let (name, image) = match &command.order {
            Order::Launch(launch) => ("sandbox.launch_requested", Some(launch.image.as_str())),
            Order::Stop(_) => ("sandbox.stop_requested", None),
        };
        let fields = json!({
            "command": command.id.to_string(),
            "dispatcher": signer.to_string(),
            "image": image,
            "expires_ms": command.expires.0,
        });
        self.store().record_audit(&AuditEntry {
            time_ms: self.now().0,
            name,
            subject: &format!("{}/{}", command.host, command.order.sandbox()),
            actor: &peer.actor(),
            fields: &fields,
        })?;
        Ok(())
    }

    /// Lets the store follow a command of the journal. Blocks; may be done again.
    pub(super) fn record_command(
        &self,
        command: &Command,
        bytes_hash: [u8; 32],
        offset: u64,
        time_ms: u64,
    ) -> anyhow::Result<()> {
        let (host, sandbox) = (
            command.host.to_string(),
            command.order.sandbox().to_string(),
        );
        let recorded = self.store().insert_command(&CommandRow {
            id: command.id.0,
            host: host.clone(),
            sandbox: Some(sandbox.clone()),
            kind: command.order.word().to_owned(),
            bytes_hash,
            offset,
            expires_ms: command.expires.0,
            settled_offset: None,
        })?;
        let Order::Launch(launch) = &command.order else {
            return Ok(());
        };
        if recorded == Recorded::Conflict || self.store().sandbox(&host, &sandbox)?.is_some() {
            return Ok(());
        }
        let extra = Extra {
            first_offset: Some(offset),
            expires_ms: Some(command.expires.0),
            ..Extra::default()
        };
        self.store().upsert_sandbox(&SandboxRow {
            host,
            id: sandbox,
            state: State::Creating.word().to_owned(),
            ended: false,
            reason: None,
            exit_code: None,
            created_ms: time_ms,
            updated_ms: time_ms,
            public_key: None,
            launched_offset: None,
            name: None,
            image: Some(launch.image.clone()),
            isolation: launch.isolation.as_ref().map(ToString::to_string),
            detail: extra.to_text(),
        })
    }

    /// What dispatchers said about their keys, and then the unsettled, unexpired commands of a host, oldest first: to be sent after
    /// every subscription, in this order, since what was said may name the key that signed a command.
    ///
    /// # Errors
    /// The store or the journal cannot be read.
    pub async fn open_commands(&self, host: &HostId) -> anyhow::Result<Vec<Vec<u8>>> {
        let host = host.clone();
        self.blocking(move |plane| plane.read_open_commands(&host))
            .await
            .context("read open commands")
    }

    fn read_open_commands(&self, host: &HostId) -> anyhow::Result<Vec<Vec<u8>>> {
        let dispatchers = self.dispatcher_keys()?;
        let mut commands = self.store().statements()?;
        for open in self.store().open_commands(host.as_str(), self.now().0)? {
            let batch = self
                .journal()
                .reader(open.offset, Filter::default())
                .next_batch(1, MESSAGE_BYTES_MAX)?;
            match batch.items.into_iter().next() {
                // One whose dispatcher was removed meanwhile stays here.
                Some(Item::Record(record)) if record.offset == open.offset => commands.extend(
                    command::verify(&record.payload, &dispatchers, host, self.now())
                        .is_ok()
                        .then_some(record.payload),
                ),
                Some(Item::Record(_) | Item::Gap { .. }) | None => {
                    tracing::warn!(
                        offset = open.offset,
                        "an open command cannot be read from the journal"
                    );
                }
            }
        }
        Ok(commands)
    }
}
