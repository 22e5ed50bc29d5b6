//! A broker under test: its process, and what a client of it has to know.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use protocol::{
    id::{HostId, SandboxId},
    topic::{Topic, events_of_host},
};
use zeroize::Zeroizing;

use super::{
    clock,
    credential::Credential,
    link::{Plan, Task},
    outhaul::Outhaul,
    process::Process,
};

/// How long a broker may take to be ready.
const READY_WAIT: Duration = Duration::from_secs(30);

/// The host whose sandboxes all clients are. Every broker gets the same topics.
pub(crate) const HOST: &str = "bench";
/// The user of the publishers, and the reader's, where a broker has users.
pub(crate) const PUBLISHER: &str = "publisher";
/// See [`PUBLISHER`].
pub(crate) const READER: &str = "reader";

/// A broker.
pub(crate) struct Broker {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// What its clients trust.
    pub(crate) ca: PathBuf,
    pub(crate) process: Process,
    pub(crate) access: Access,
}

/// How a broker lets its clients in.
pub(crate) enum Access {
    /// Ours: tokens and proofs; events are read from its local socket.
    Tokens(Box<Outhaul>),
    /// Users with one password, and a subscriber that reads.
    Users { password: String },
    /// Everyone.
    Open,
}

impl Broker {
    /// Waits until it takes connections.
    pub(crate) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let (port, process) = (self.port, &mut self.process);
        let mut has_ended = false;
        let is_ready = clock::until(READY_WAIT, || {
            has_ended = !process.is_running();
            has_ended || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        anyhow::ensure!(
            is_ready && !has_ended,
            "{} does not start: {}",
            self.name,
            self.process.last_words()
        );
        Ok(())
    }

    /// A client that stands for a sandbox.
    pub(crate) fn client(
        &self,
        sandbox: &SandboxId,
        seed: &Zeroizing<[u8; 32]>,
        task: Task,
    ) -> anyhow::Result<Plan> {
        let (client_id, credential) = match &self.access {
            Access::Tokens(outhaul) => (
                format!("{HOST}/{sandbox}"),
                outhaul.credential(sandbox, seed)?,
            ),
            Access::Users { password } => (
                sandbox.to_string(),
                Credential::Password {
                    user: PUBLISHER.to_owned(),
                    password: password.clone(),
                },
            ),
            Access::Open => (sandbox.to_string(), Credential::None),
        };
        Ok(Plan {
            client_id,
            credential,
            task,
        })
    }

    /// A client that reads everything, if it is read by a client.
    pub(crate) fn reader(&self) -> anyhow::Result<Option<Plan>> {
        let credential = match &self.access {
            Access::Tokens(_) => return Ok(None),
            Access::Users { password } => Credential::Password {
                user: READER.to_owned(),
                password: password.clone(),
            },
            Access::Open => Credential::None,
        };
        Ok(Some(Plan {
            client_id: READER.to_owned(),
            credential,
            task: Task::Subscribe {
                filter: events_of_host(&host()?),
            },
        }))
    }
}

/// The host's id.
pub(crate) fn host() -> anyhow::Result<HostId> {
    HostId::new(HOST).context("name the host")
}

/// Where a sandbox publishes.
pub(crate) fn topic(sandbox: &SandboxId) -> anyhow::Result<String> {
    Ok(Topic::Events(host()?, sandbox.clone()).to_string())
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port())
}
