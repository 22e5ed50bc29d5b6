//! Rights that are taken away one by one: a generation of a host's key, a sandbox's, an install key's, a whole host's with its name. And
//! what a host says of its clock.

use std::sync::PoisonError;

use protocol::{
    id::{HostId, SandboxId},
    time::UnixMillis,
    token::Subject,
};

use super::{Peer, Plane, Withdrawn, lock};
use crate::{
    core::{hosts::HostState, principal::Who},
    shell::store::VoidedGeneration,
};

/// What a host said of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// How far its wall clock is ahead of what it knows of the broker's, in milliseconds; negative if it is behind.
    pub ahead_ms: i64,
    /// When it said so.
    pub said: UnixMillis,
}

/// Why a right was not taken away. The text tells a person what to do.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// No host of this name, or none that has any rights left.
    #[error("no host is called {0}, or it is revoked: see `outhaul host list`")]
    Unknown(HostId),
    /// The host's key has not come so far.
    #[error("host {host} is at generation {newest}: see `outhaul host show {host}`")]
    Ahead {
        /// Which.
        host: HostId,
        /// Its newest generation.
        newest: u64,
    },
    /// It is void already.
    #[error("generation {generation} of host {host} is revoked already")]
    Void {
        /// Which.
        host: HostId,
        /// Which of its keys.
        generation: u64,
    },
    /// There is nothing to take away.
    #[error("host {0} has no unused install key")]
    NoInstallKey(HostId),
    /// The host never had this sandbox, or it is revoked.
    #[error("host {0} never had a sandbox {1}, or it is revoked: see `outhaul ps -a`")]
    Sandbox(HostId, SandboxId),
    /// It is at work.
    #[error(
        "host {host} {doing}: a host that is removed loses its rights at once and for good. Say `outhaul host remove {host} --force` if that is meant"
    )]
    InUse {
        /// Which.
        host: HostId,
        /// What it is at.
        doing: String,
    },
    /// The label is another host's name.
    #[error("{0} is the name of another host: choose another label")]
    LabelIsName(HostId),
    /// Nothing would change.
    #[error("no host is called {0}, or that is its label already: see `outhaul host list`")]
    SameLabel(HostId),
    /// The store failed.
    #[error("the change could not be recorded: see the broker's log")]
    Failed(#[from] anyhow::Error),
}

impl Plane {
    /// Whether a link of `who` is to be closed.
    #[must_use]
    pub fn is_withdrawn(&self, who: &Who) -> bool {
        match who {
            Who::Subject(subject) => self.is_subject_withdrawn(subject),
            Who::Reader { name, .. } => !self.is_reader(name),
        }
    }

    fn is_subject_withdrawn(&self, subject: &Subject) -> bool {
        let hosts = self
            .inner
            .hosts
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(standing) = hosts.get(subject.host()) else {
            return true;
        };
        let is_revoked = match subject {
            Subject::Host(_) => false,
            Subject::Sandbox(_, sandbox) => standing.revoked_sandboxes.contains(sandbox),
        };
        is_revoked || standing.is_unread || standing.state != HostState::Enrolled
    }

    /// Whether the generation of its host's key that a subject's token rests on was revoked.
    #[must_use]
    pub fn is_void(&self, subject: &Subject, generation: u64) -> bool {
        let hosts = self
            .inner
            .hosts
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        hosts
            .get(subject.host())
            .is_none_or(|standing| generation <= standing.void_generation)
    }

    /// Lets nothing count any more that rests on the host's keys up to this generation: tokens, renewals, and the links under them. Whether
    /// that is its newest, so that it needs a new bundle. Blocks.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub fn revoke_generation(
        &self,
        host: &HostId,
        generation: u64,
        peer: &Peer,
    ) -> Result<bool, RevokeError> {
        let now = self.now().0;
        let (actor, name) = (peer.actor(), host.as_str());
        match self
            .store()
            .revoke_generation(name, generation, &actor, now)?
        {
            VoidedGeneration::Now { is_newest } => {
                self.reload(host)?;
                // Those that hold a token of a later generation are back at once.
                self.withdraw(Withdrawn::Some(host.clone()));
                Ok(is_newest)
            }
            VoidedGeneration::Before => Err(RevokeError::Void {
                host: host.clone(),
                generation,
            }),
            VoidedGeneration::Ahead { newest } => Err(RevokeError::Ahead {
                host: host.clone(),
                newest,
            }),
            VoidedGeneration::Unknown => Err(RevokeError::Unknown(host.clone())),
        }
    }

    /// Lets a sandbox connect no more, and has its link closed. It runs on: stopping it is for a signed command. Blocks.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub fn revoke_sandbox(
        &self,
        host: &HostId,
        sandbox: &SandboxId,
        peer: &Peer,
    ) -> Result<(), RevokeError> {
        let (actor, now) = (peer.actor(), self.now().0);
        if !self
            .store()
            .revoke_sandbox(host.as_str(), sandbox.as_str(), &actor, now)?
        {
            return Err(RevokeError::Sandbox(host.clone(), sandbox.clone()));
        }
        self.reload(host)?;
        self.withdraw(Withdrawn::Sandbox(host.clone(), sandbox.clone()));
        Ok(())
    }

    /// Makes a host's unused install key worthless: its fingerprint. Blocks.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub fn revoke_install_key(&self, host: &HostId, peer: &Peer) -> Result<String, RevokeError> {
        self.store()
            .revoke_install_key(host.as_str(), &peer.actor(), self.now().0)?
            .ok_or_else(|| RevokeError::NoInstallKey(host.clone()))
    }

    /// Takes a host's rights away for good and takes it out of the lists; its name is never used again, and its journal stays. One that is
    /// at work only if `force` says that this is meant. Blocks.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub fn remove_host(&self, host: &HostId, force: bool, peer: &Peer) -> Result<(), RevokeError> {
        if !force && let Some(doing) = self.work_of(host)? {
            let host = host.clone();
            return Err(RevokeError::InUse { host, doing });
        }
        if !self
            .store()
            .remove_host(host.as_str(), &peer.actor(), self.now().0)?
        {
            return Err(RevokeError::Unknown(host.clone()));
        }
        self.reload(host)?;
        self.withdraw(Withdrawn::Host(host.clone()));
        lock(&self.inner.skews).remove(host);
        Ok(())
    }

    /// What a host is at, in words, if anything.
    fn work_of(&self, host: &HostId) -> anyhow::Result<Option<String>> {
        let rows = self.store().list_sandboxes(false)?;
        let running = rows.iter().filter(|row| row.host == host.as_str()).count();
        Ok(match (running, self.is_connected(host)) {
            (0, false) => None,
            (0, true) => Some("is connected".to_owned()),
            (1, _) => Some("has a sandbox that has not ended".to_owned()),
            (count, _) => Some(format!("has {count} sandboxes that have not ended")),
        })
    }

    /// Calls a host something else beside its name; `None` takes that away. Topics, tokens and the journal know the name alone. Blocks.
    ///
    /// # Errors
    /// [`RevokeError`].
    pub fn label_host(
        &self,
        host: &HostId,
        label: Option<&str>,
        peer: &Peer,
    ) -> Result<(), RevokeError> {
        // Who reads a list must not take one for the other.
        if let Some(Ok(other)) = label.map(HostId::new)
            && other != *host
            && self.host_state(&other).is_some()
        {
            return Err(RevokeError::LabelIsName(other));
        }
        let (actor, now) = (peer.actor(), self.now().0);
        if self.store().label_host(host.as_str(), label, &actor, now)? {
            return Ok(());
        }
        Err(RevokeError::SameLabel(host.clone()))
    }

    /// Takes a dispatcher's right away. What it signed and no host has settled is sent to nobody any more: hosts that may have some of it
    /// waiting on their links come again. `false`: there was none. Blocks.
    ///
    /// # Errors
    /// The store failed.
    pub fn remove_dispatcher(&self, public_key: &[u8; 32], peer: &Peer) -> anyhow::Result<bool> {
        let now = self.now().0;
        if !self
            .store()
            .remove_dispatcher(public_key, &peer.actor(), now)?
        {
            return Ok(false);
        }
        for (host, is_connected) in self.hosts_and_presence() {
            if is_connected && !self.store().open_commands(host.as_str(), now)?.is_empty() {
                self.withdraw(Withdrawn::Some(host));
            }
        }
        Ok(true)
    }

    /// What a host said of its clock.
    pub(super) fn note_skew(&self, host: &HostId, ahead_ms: i64, said: UnixMillis) {
        let skew = Skew { ahead_ms, said };
        lock(&self.inner.skews).insert(host.clone(), skew);
    }

    /// What a host last said of its clock, since this start.
    #[must_use]
    pub fn skew(&self, host: &HostId) -> Option<Skew> {
        lock(&self.inner.skews).get(host).copied()
    }
}
