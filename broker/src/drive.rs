//! The control plane: what the gate and the APIs ask, decided by `core`, recorded in the journal and the store, and only then
//! answered.
//!
//! The journal comes first and the store follows it: what a crash leaves out of the store is put there from the journal at the
//! next start. A change of rights is in the audit trail before it takes effect.

mod access;
mod apply;
mod audit;
mod bundle;
mod certificate;
mod clerk;
mod command;
mod dispatcher;
mod events;
mod health;
mod identity;
mod intake;
mod key;
mod purge;
mod reader;
mod rebuild;
mod retention;
mod right;
mod time;
mod withdrawn;
mod witness;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU64},
    time::Duration,
};

use anyhow::Context as _;
use protocol::{
    id::{HostId, SandboxId},
    signed::VerifyError,
    time::UnixMillis,
    token::{self, Grant, Subject, TokenError},
};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use zeroize::Zeroizing;

use crate::{
    core::{
        access::Accounts as AccessAccounts,
        challenge::Challenges,
        dedup::{Fingerprints, StreamTable},
        disclosed::Disclosed,
        exchange::HostKey,
        hosts::HostState,
        incarnation::History,
        lag::Lag,
        presence::{Change, Presence},
        reader::{Accounts, Admitted, BadReader},
        retention::Limits,
    },
    shell::{
        audit_key::AuditKey,
        certificate::Facts,
        clock,
        issuer::Issuers,
        journal::Journal,
        keys::fill_random,
        places::Places,
        room::Room,
        router::Router,
        store::{Store, Trouble},
    },
};

pub use access::{NewAccessToken, Peer};
pub(crate) use apply::Extra;
pub(crate) use bundle::kind_word;
pub use bundle::{AddError, Added};
pub use command::SubmitError;
pub use dispatcher::StatementRefused;
pub use events::Queued;
pub use health::Health;
pub use identity::No;
pub use purge::Purge;
pub use reader::NewToken;
pub use right::{RevokeError, Skew};
pub use withdrawn::Withdrawn;

use clerk::{Errand, Note};

/// Keys of a host whose reports are taken: the one it has and the three before it. A host that could not reach the journal for some
/// renewals still has reports to send that an earlier key signed.
const REPORT_KEYS_MAX: usize = 4;
/// Exchanges at once: each is two verified signatures and a transaction. Past that they wait.
const EXCHANGES_MAX: usize = 8;
/// Forked streams that are remembered, and so recorded, in one life of the process.
const FORKED_MAX: usize = 1_024;
/// Withdrawals that wait for whoever closes links. Past that the closer looks at every link.
const WITHDRAWALS_MAX: usize = 64;

/// Why a token opens nothing. The wire shows none of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The token itself is refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No host of this name is enrolled.
    #[error("token: its host is not enrolled")]
    Unknown,
    /// The host was revoked.
    #[error("token: its host is revoked")]
    Revoked,
    /// The host is locked.
    #[error("token: its host is locked")]
    Locked,
    /// It rests on a generation of the host's key that is gone or revoked, or was never known here.
    #[error("token: of another generation of its host's key")]
    Generation,
    /// The sandbox was revoked.
    #[error("token: its sandbox is revoked")]
    Sandbox,
    /// A reader's token is refused.
    #[error(transparent)]
    Reader(BadReader),
    /// What is known of hosts cannot be read: closed until it can.
    #[error("the store cannot be read")]
    Unavailable,
}

impl Denied {
    /// In a word, to be counted by.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Token(TokenError::Envelope(VerifyError::UnknownKey | VerifyError::Signature)) => {
                "signature"
            }
            Self::Token(TokenError::Envelope(_)) => "malformed",
            Self::Token(TokenError::Claims) => "claims",
            Self::Token(TokenError::Audience) => "audience",
            Self::Token(TokenError::Expired) => "expired",
            Self::Token(TokenError::Early) => "early",
            Self::Token(TokenError::Delegation) => "delegation",
            Self::Unknown => "unknown_host",
            Self::Revoked => "revoked_host",
            Self::Locked => "locked_host",
            Self::Generation => "generation",
            Self::Sandbox => "revoked_sandbox",
            Self::Reader(BadReader::Unknown) => "unknown_reader",
            Self::Reader(BadReader::Expired) => "expired_reader",
            Self::Reader(BadReader::Off) => "reader_off",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of a payload. `Stored` and `Again` may be acknowledged: it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// New, and durable.
    Stored,
    /// Seen before, the same, and durable.
    Again,
    /// Not what the topic carries: 0x99.
    Malformed,
    /// The number of a batch or report seen before, with other content: 0x99.
    Fork,
    /// No room now: 0x97.
    Busy,
    /// The journal or the store failed: 0x80.
    Failed,
}

/// What a plane is made of.
#[derive(Debug)]
pub struct Parts {
    /// Who the hosts are.
    pub store: Store,
    /// What was accepted.
    pub journal: Journal,
    /// The same of load tests, where they are let in.
    pub bench: Option<Journal>,
    /// How far each reader got.
    pub places: Places,
    /// What kinds of readers are let in.
    pub admitted: Admitted,
    /// What the journal keeps at the most.
    pub retention: Limits,
    /// Who hears of it now.
    pub router: Router,
    /// Signs the audit trail.
    pub audit: AuditKey,
    /// Sign connection tokens.
    pub issuer: Issuers,
    /// How long a host may be away after its last token ended.
    pub recovery_window: Duration,
    /// How long a connection token lives; at most an hour.
    pub token_life: Duration,
    /// How long an unused install key is good.
    pub install_key_life: Duration,
    /// Room on the disk.
    pub room: Room,
    /// The authority that bundles carry, `name:port`.
    pub address: String,
    /// Whether the broker's owner said so. If not, it is a guess, and no bundle is made with it.
    pub is_address_set: bool,
    /// The certificates, as others may know them.
    pub certificates: watch::Receiver<Arc<Facts>>,
}

/// The control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plane {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    parts: Parts,
    audience: String,
    history: History,
    challenges: Challenges,
    exchanges: Semaphore,
    hosts: RwLock<BTreeMap<HostId, Standing>>,
    readers: RwLock<Accounts>,
    access: RwLock<AccessAccounts>,
    /// Whenever these are others.
    access_changed: watch::Sender<()>,
    disclosed: Mutex<Disclosed>,
    /// What stands for batches and reports in the tables.
    fingerprints: Fingerprints,
    tables: Mutex<Tables>,
    presence: Mutex<Presence>,
    /// When each host was last heard, since this start or by the journal.
    seen: Mutex<BTreeMap<HostId, UnixMillis>>,
    /// What each host last said of its own clock, since this start.
    skews: Mutex<BTreeMap<HostId, Skew>>,
    errands: mpsc::Sender<Errand>,
    /// Held by who submits a command, from the look at its id to its place in the store.
    submitting: tokio::sync::Mutex<()>,
    /// Held by who reads a sandbox's row to write it.
    applying: Mutex<()>,
    /// Held for reading by each report from before it is in the journal until the store has followed it.
    following: Arc<tokio::sync::RwLock<()>>,
    /// The greatest time ever shown: it never goes back.
    floor_ms: AtomicU64,
    /// How time goes on while the clock is behind that.
    lag: Mutex<Lag>,
    broken: watch::Sender<bool>,
    withdrawn: broadcast::Sender<Withdrawn>,
    health: health::Last,
    dropped: Mutex<retention::Dropped>,
}

/// What is known of a host, kept in memory: the gate asks at every CONNECT.
#[derive(Clone, Debug)]
struct Standing {
    state: HostState,
    /// The last of its keys, at most [`REPORT_KEYS_MAX`], the current one last.
    keys: Vec<HostKey>,
    /// Its keys up to this generation were revoked; zero is none.
    void_generation: u64,
    /// Its sandboxes that may not connect any more.
    revoked_sandboxes: BTreeSet<SandboxId>,
    /// Taken out of the lists.
    is_removed: bool,
    /// It could not be read after a change, and more may be known of it than is true: nothing of it is let in.
    is_unread: bool,
}

impl Standing {
    fn generation(&self) -> u64 {
        self.keys.last().map_or(0, |key| key.generation)
    }
}

/// What came already.
#[derive(Debug, Default)]
struct Tables {
    /// Batches, by sandbox.
    events: StreamTable,
    /// Reports, by host; the generation of the key that signed them stands for the epoch.
    reports: StreamTable,
    /// Who forked since this start: one audit row each, so that repeating it buys nobody any writes.
    forked: BTreeSet<String>,
}

impl Tables {
    /// Whether this is the first fork of `subject`, and there is room to remember it.
    fn note_fork(&mut self, subject: &str) -> bool {
        self.forked.len() < FORKED_MAX && self.forked.insert(subject.to_owned())
    }
}

impl Plane {
    /// Opens the plane: reads the hosts, and the journal as far as is needed to know what came before. Blocks on the disk; call it
    /// inside the tokio runtime.
    ///
    /// # Errors
    /// The store or the journal cannot be read, or the system gives no random bytes.
    pub fn open(parts: Parts) -> anyhow::Result<Self> {
        let floor = UnixMillis(parts.store.advance_time(clock::unix().0)?);
        let history = parts.store.history()?;
        parts.journal.expect(&history);
        let mut key = Zeroizing::new([0; 32]);
        fill_random(&mut *key)?;
        let (errands, errands_received) = mpsc::channel(clerk::ERRANDS_MAX);
        let inner = Inner {
            audience: parts.issuer.audience().to_owned(),
            history,
            challenges: Challenges::new(key),
            exchanges: Semaphore::new(EXCHANGES_MAX),
            hosts: RwLock::new(identity::load(&parts.store).context("read hosts")?),
            readers: RwLock::new(parts.store.reader_accounts().context("read readers")?),
            access: RwLock::new(
                parts
                    .store
                    .access_accounts()
                    .context("read access tokens")?,
            ),
            access_changed: watch::Sender::default(),
            disclosed: Mutex::default(),
            fingerprints: Fingerprints::new(RandomState::new()),
            tables: Mutex::default(),
            presence: Mutex::default(),
            seen: Mutex::default(),
            skews: Mutex::default(),
            following: Arc::default(),
            errands,
            submitting: tokio::sync::Mutex::new(()),
            applying: Mutex::new(()),
            floor_ms: AtomicU64::new(floor.0),
            lag: Mutex::default(),
            broken: watch::Sender::new(false),
            withdrawn: broadcast::Sender::new(WITHDRAWALS_MAX),
            health: health::Last::default(),
            dropped: Mutex::default(),
            parts,
        };
        let plane = Self {
            inner: Arc::new(inner),
        };
        plane.room().look();
        plane.rebuild().context("read the journal")?;
        for (journal, is_bench) in [(Some(plane.journal()), false), (plane.bench(), true)] {
            if let Some(journal) = journal {
                let store = plane.store();
                store.take_sessions_back(journal.next_offset(), is_bench)?;
            }
        }
        let sessions = plane.store().kept_sessions()?;
        let places = &plane.inner.parts.places;
        places
            .keep_only(&sessions)
            .context("tidy the places of readers")?;
        plane.look_at_clock();
        tokio::spawn(audit::run(Arc::downgrade(&plane.inner)));
        tokio::spawn(clerk::run(Arc::downgrade(&plane.inner), errands_received));
        tokio::spawn(health::watch_room(Arc::downgrade(&plane.inner)));
        tokio::spawn(retention::run(Arc::downgrade(&plane.inner)));
        Ok(plane)
    }

    /// Checks a token: its signatures, dates, audience, and that its host is in good standing. A token of the generation before the
    /// current one is good until it ends: a live link goes on, and so do the sandboxes that rest on it.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check_token(&self, token: &[u8], now: UnixMillis) -> Result<Grant, Denied> {
        let now = now.max(self.now());
        let issuers = self.inner.parts.issuer.accepted(now);
        let grant = token::check(token, &issuers, &self.inner.audience, now)?;
        let hosts = self
            .inner
            .hosts
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let standing = hosts.get(grant.subject.host()).ok_or(Denied::Unknown)?;
        if standing.is_unread {
            return Err(Denied::Unavailable);
        }
        match standing.state {
            HostState::New => return Err(Denied::Unknown),
            HostState::Locked => return Err(Denied::Locked),
            HostState::Revoked => return Err(Denied::Revoked),
            HostState::Enrolled => {}
        }
        let current = standing.generation();
        let is_recent =
            grant.generation == current || Some(grant.generation) == current.checked_sub(1);
        if !is_recent || grant.generation <= standing.void_generation {
            return Err(Denied::Generation);
        }
        match &grant.subject {
            Subject::Sandbox(_, sandbox) if standing.revoked_sandboxes.contains(sandbox) => {
                Err(Denied::Sandbox)
            }
            Subject::Host(_) | Subject::Sandbox(..) => Ok(grant),
        }
    }

    /// Takes a host's report; answers when it is durable and the store has followed it.
    pub async fn accept_report(&self, host: &HostId, payload: Vec<u8>) -> Accepted {
        self.take_report(host, payload).await
    }

    /// A principal has connected, under this connection number.
    pub fn connected(&self, subject: &Subject, connection: u64) {
        let change = lock(&self.inner.presence).connected(subject, connection);
        self.note_presence(subject, change);
    }

    /// That connection has ended.
    pub fn disconnected(&self, subject: &Subject, connection: u64) {
        let change = lock(&self.inner.presence).disconnected(subject, connection);
        self.note_presence(subject, change);
    }

    fn note_presence(&self, subject: &Subject, change: Change) {
        let Subject::Host(host) = subject else { return };
        let name = match change {
            Change::Came => "host.connected",
            Change::Left => "host.disconnected",
            Change::Moved | Change::None => return,
        };
        let time = self.now();
        lock(&self.inner.seen).insert(host.clone(), time);
        self.note(Note {
            time,
            name,
            subject: host.to_string(),
            actor: format!("host:{host}"),
        });
    }

    /// The router.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.inner.parts.router
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.inner.parts.journal
    }

    /// The store. Its methods block.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.inner.parts.store
    }

    /// This broker's name in tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.inner.audience
    }

    /// The incarnations of the journal's offsets.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.inner.history
    }

    /// What hosts dial, `name:port`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.parts.address
    }

    /// Room on the disk.
    #[must_use]
    pub fn room(&self) -> &Room {
        &self.inner.parts.room
    }

    /// Whether the operator of `host` is connected.
    #[must_use]
    pub fn is_connected(&self, host: &HostId) -> bool {
        lock(&self.inner.presence).is_connected(host)
    }

    /// How many operators are connected.
    #[must_use]
    pub fn connected_hosts(&self) -> usize {
        lock(&self.inner.presence).hosts()
    }

    /// Every host that was added and not removed, and whether its operator is connected.
    #[must_use]
    pub fn hosts_and_presence(&self) -> Vec<(HostId, bool)> {
        let hosts = self.inner.hosts.read();
        let hosts = hosts.unwrap_or_else(PoisonError::into_inner);
        let presence = lock(&self.inner.presence);
        let is_here = |host: &HostId| presence.is_connected(host);
        hosts
            .iter()
            .filter(|(_, standing)| !standing.is_removed)
            .map(|(host, _)| (host.clone(), is_here(host)))
            .collect()
    }

    /// When `host` was last heard.
    #[must_use]
    pub fn last_seen(&self, host: &HostId) -> Option<UnixMillis> {
        lock(&self.inner.seen).get(host).copied()
    }

    /// Who loses rights from now on: their links, and those of a host's sandboxes, are to be closed with 0x98. Who lags behind asks
    /// [`Plane::is_withdrawn`] of every link.
    #[must_use]
    pub fn withdrawals(&self) -> broadcast::Receiver<Withdrawn> {
        self.inner.withdrawn.subscribe()
    }

    /// Resolves when the journal or the store has failed in a way that only a new start heals. Never before that.
    pub async fn failed(&self) {
        let mut broken = self.inner.broken.subscribe();
        let bench = async {
            match self.bench() {
                Some(bench) => bench.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inner.parts.journal.failed() => {}
            () = bench => {}
            () = self.inner.parts.store.failed() => {}
            _ = broken.wait_for(|broken| *broken) => {}
        }
    }

    fn is_broken(&self) -> bool {
        // Polled once: resolved means failed.
        let journals = [Some(self.journal()), self.bench()];
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut has_failed = |journal: &Journal| {
            std::pin::pin!(journal.failed())
                .poll(&mut context)
                .is_ready()
        };
        let is_store_broken = self.store().trouble() == Some(Trouble::Failed);
        *self.inner.broken.borrow()
            || is_store_broken
            || journals.into_iter().flatten().any(&mut has_failed)
    }

    /// Runs what blocks away from the runtime's threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let plane = self.clone();
        tokio::task::spawn_blocking(move || work(&plane))
            .await
            .context("run blocking work")?
    }

    /// The store no longer follows the journal: only a new start puts that right.
    fn break_down(&self, error: &anyhow::Error) {
        tracing::error!(
            error = format!("{error:#}"),
            "the store failed and cannot follow the journal"
        );
        self.inner.broken.send_replace(true);
    }
}

/// A panic elsewhere leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
