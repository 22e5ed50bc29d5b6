//! What the loop and its tasks share: settings that do not change, and a few things behind locks that are held for moments.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::audit::Vkey;
use protocol::id::{HostId, SandboxId};
use protocol::key::{Audit, Public, Sandbox};
use protocol::report::News;
use protocol::time::UnixMillis;
use protocol::token;
use serde_bytes::ByteBuf;
use smol::Timer;
use smol::channel::{Sender, bounded};

use super::said::Said;
use super::trust::{Clients, Trust};
use crate::core::host;
use crate::core::host::identity::{Identity, life_of};
use crate::core::launch::engine::EngineFacts;
use crate::core::launch::observed::Observed;
use crate::core::outbox::{Class, Full};
use crate::core::policy::Policy;
use crate::core::record::SandboxRecord;
use crate::core::witness::Witness;
use crate::shell::bundle::Bundle;
use crate::shell::docker::Engine;
use crate::shell::exchange::ExchangeOptions;
use crate::shell::rundir::RunDir;
use crate::shell::server_time::{ServerTime, random};
use crate::shell::store::Store;
use crate::shell::transport::Proxy;

/// Letters to the loop that wait to be read; who writes another one waits.
pub(super) const MAIL_MAX: usize = 64;

/// How long to wait before trying again to write to a disk that could not be written.
pub(super) const DISK_WAIT: Duration = Duration::from_secs(2);

/// A letter from a task to the loop.
#[derive(Debug)]
pub(super) enum Mail {
    /// News for the session.
    Session(host::Event),
    /// A report to be written down and sent. `done` hears once it is on disk.
    Report {
        news: Box<News>,
        class: Class,
        done: Option<Sender<Result<(), Full>>>,
    },
    /// The containers of this host.
    Listed(Vec<Observed>),
    /// The engine does not answer any more.
    EngineSilent,
    /// A sandbox is gone; its record is, too.
    Gone(SandboxId),
    /// The program cannot go on.
    Fatal(anyhow::Error),
}

/// What is shared. See the module.
pub(super) struct Site {
    pub(super) host: HostId,
    /// The broker, `name:port`.
    pub(super) broker: String,
    pub(super) bundle: Bundle,
    pub(super) policy: Policy,
    /// Paths that no source may show.
    pub(super) secrets: Vec<PathBuf>,
    pub(super) docker_socket: PathBuf,
    pub(super) run_dir: RunDir,
    pub(super) store: Store,
    pub(super) time: ServerTime,
    pub(super) proxy: Option<Proxy>,
    pub(super) trust: Mutex<Trust>,
    pub(super) mail: Sender<Mail>,
    /// Asks the engine's watch to look now; asking twice is asking once.
    pub(super) look: Sender<()>,
    pub(super) identity: Mutex<Identity>,
    pub(super) records: Mutex<BTreeMap<SandboxId, SandboxRecord>>,
    pub(super) engine: Mutex<Option<(Engine, EngineFacts)>>,
    /// Whether the engine answered when it was last asked.
    pub(super) engine_answers: AtomicBool,
    /// What was said about the exchange last.
    pub(super) said: Mutex<Said>,
    /// What is kept of the broker's audit trail.
    pub(super) witness: Mutex<Witness>,
    /// The audit key that the bundle names.
    pub(super) audit_vkey: Option<Vkey<Audit>>,
    /// What other hosts had seen of it, as the broker said last.
    pub(super) other_witnesses: Mutex<Vec<(String, u64)>>,
}

impl Site {
    /// Who this host is.
    pub(super) fn identity(&self) -> MutexGuard<'_, Identity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of the broker's audit trail. Held for moments.
    pub(super) fn witness(&self) -> MutexGuard<'_, Witness> {
        self.witness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What other hosts had seen of it.
    pub(super) fn other_witnesses(&self) -> MutexGuard<'_, Vec<(String, u64)>> {
        let others = self.other_witnesses.lock();
        others.unwrap_or_else(PoisonError::into_inner)
    }

    /// The clients of connections to come.
    pub(super) fn clients(&self) -> Clients {
        self.trust().clients.clone()
    }

    /// Where and how to ask for tokens.
    pub(super) fn exchange(&self) -> ExchangeOptions {
        ExchangeOptions {
            authority: self.broker.clone(),
            proxy: self.proxy.clone(),
            tls: self.clients().exchange,
        }
    }

    /// Takes the certificate authorities that the broker named in a grant. What cannot be kept is asked for again with the next one.
    pub(super) fn learn_authorities(&self, told: &[ByteBuf]) {
        if let Err(error) = self.trust().learn(told, &self.store) {
            tracing::warn!("learn certificate authorities: {error:#}");
        }
    }

    fn trust(&self) -> MutexGuard<'_, Trust> {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was said about the exchange last.
    pub(super) fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every sandbox that is not gone.
    pub(super) fn records(&self) -> MutexGuard<'_, BTreeMap<SandboxId, SandboxRecord>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, if it was ever reached.
    pub(super) fn engine(&self) -> Option<(Engine, EngineFacts)> {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.clone()
    }

    /// Keeps the engine that was reached.
    pub(super) fn set_engine(&self, engine: Engine, facts: EngineFacts) {
        let mut slot = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some((engine, facts));
    }

    pub(super) fn set_engine_answers(&self, answers: bool) {
        self.engine_answers.store(answers, Ordering::Relaxed);
    }

    /// Has the engine looked at now.
    pub(super) fn look_at_engine(&self) {
        let _ = self.look.try_send(());
    }

    /// Writes a record down, here and on disk.
    pub(super) fn save(&self, record: &SandboxRecord) -> anyhow::Result<()> {
        self.store.save_sandbox(record)?;
        self.records()
            .insert(record.sandbox.clone(), record.clone());
        Ok(())
    }

    /// Writes a record down, however long the disk takes.
    pub(super) async fn save_surely(&self, record: &SandboxRecord) {
        while let Err(error) = self.save(record) {
            tracing::error!(sandbox = %record.sandbox, "{error:#}; trying again");
            Timer::after(DISK_WAIT).await;
        }
    }

    /// Forgets a sandbox that is gone.
    pub(super) fn forget(&self, sandbox: &SandboxId) {
        if let Err(error) = self.store.remove_sandbox(sandbox) {
            // It is found again at the next start, with nothing left to do.
            tracing::warn!(%sandbox, "{error:#}");
        }
        self.records().remove(sandbox);
    }

    /// Has a report written down, and returns once it is on disk: an outcome, however long that takes.
    pub(super) async fn report(&self, news: News, class: Class) -> Result<(), Full> {
        let (done, stored) = bounded(1);
        let mail = Mail::Report {
            news: Box::new(news),
            class,
            done: Some(done),
        };
        if self.mail.send(mail).await.is_err() {
            // The loop is over, and this task with it.
            smol::future::pending::<()>().await;
        }
        stored.recv().await.unwrap_or(Err(Full))
    }

    /// A fresh token for a sandbox, and when it ends. Nothing while the host's own token is over.
    pub(super) fn mint(
        &self,
        sandbox: &SandboxId,
        key: &Public<Sandbox>,
    ) -> anyhow::Result<Option<(Vec<u8>, UnixMillis)>> {
        let now = self.time.now().unix;
        let id = random()?;
        let identity = self.identity();
        let Some(current) = &identity.current else {
            return Ok(None);
        };
        let is_over = life_of(&current.token).is_none_or(|(_, expires)| now >= expires);
        if is_over {
            return Ok(None);
        }
        let token = token::mint_sandbox(&current.key, &current.token, sandbox, key, id, now)?;
        let ends = life_of(&token).map_or(now, |(_, expires)| expires);
        Ok(Some((token, ends)))
    }
}
