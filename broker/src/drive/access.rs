//! Who asks for something; access tokens: given and revoked by the owner, checked at every request; and the record of who read what.

use std::{sync::PoisonError, time::Duration};

use protocol::{
    access_token::AccessToken,
    id::{AccessName, HostId, ReaderName, SandboxId},
    time::UnixMillis,
};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Plane, clerk::Note, lock};
use crate::{
    core::{
        access::{self, Account, BadAccess, Holder, Refusal, Rights},
        disclosed::EVERYTHING,
    },
    shell::{
        keys::fill_random,
        store::{AccessRow, AddedAccess, AuditEntry, NewAccess},
    },
};

/// How often a token that is in use is looked at: its end comes by a clock that may be set.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What the audit trail calls a reading of what sandboxes said.
const CONTENT_READ: &str = "content.read";

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Who is at the other end of the local socket, as the kernel says: governs the broker.
    Local {
        /// Its user id.
        uid: u32,
    },
    /// Who showed an access token, over HTTPS.
    Token(Holder),
}

impl Peer {
    /// As the audit trail names it.
    #[must_use]
    pub fn actor(&self) -> String {
        match self {
            Self::Local { uid } => format!("uid:{uid}"),
            Self::Token(holder) => format!("token:{}", holder.name()),
        }
    }

    /// The holder of a token, if it is one.
    #[must_use]
    pub const fn holder(&self) -> Option<&Holder> {
        match self {
            Self::Local { .. } => None,
            Self::Token(holder) => Some(holder),
        }
    }

    /// The one host that it is limited to.
    #[must_use]
    pub fn only_host(&self) -> Option<&HostId> {
        self.holder()?.rights().host.as_ref()
    }

    /// Whether it may touch or see anything of `host`.
    ///
    /// # Errors
    /// [`Refusal::OtherHost`].
    pub fn reach(&self, host: &HostId) -> Result<(), Refusal> {
        self.holder()
            .map_or(Ok(()), |holder| holder.rights().reach(host))
    }

    /// What it makes ends with its own token at the latest, so that nobody outlives theirs by a second one.
    #[must_use]
    pub fn outlive(&self, end: UnixMillis) -> UnixMillis {
        self.holder()
            .map_or(end, |holder| end.min(UnixMillis(holder.expires_ms())))
    }
}

/// An access token, made: shown once.
#[derive(Debug)]
pub struct NewAccessToken {
    /// `oat1_…`. Wiped on drop.
    pub token: AccessToken,
    /// When it ends.
    pub expires: UnixMillis,
}

impl Plane {
    /// Gives an access token, good for `life`. Blocks.
    ///
    /// # Errors
    /// The disk refuses, or the system gives no random bytes.
    pub fn add_access(
        &self,
        name: &AccessName,
        rights: Rights,
        life: Duration,
        peer: &Peer,
    ) -> anyhow::Result<Result<NewAccessToken, AddedAccess>> {
        let (mut kid, mut secret) = ([0; 8], Zeroizing::new([0; 32]));
        fill_random(&mut kid)?;
        fill_random(&mut *secret)?;
        let token = AccessToken::new(kid, secret);
        let now = self.now();
        let expires = peer.outlive(now.plus(life));
        let new = NewAccess {
            account: Account {
                name: name.clone(),
                secret_sha256: token.hash(),
                rights,
                expires_ms: expires.0,
            },
            kid,
            added_ms: now.0,
            actor: peer.actor(),
        };
        match self.store().add_access(&new)? {
            AddedAccess::Added => {
                self.load_access()?;
                Ok(Ok(NewAccessToken { token, expires }))
            }
            refused => Ok(Err(refused)),
        }
    }

    /// Takes an access token away; streams that it opened end. `false`: there is none of that name. Blocks.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn revoke_access(&self, name: &AccessName, peer: &Peer) -> anyhow::Result<bool> {
        let is_revoked = self
            .store()
            .revoke_access(name, &peer.actor(), self.now().0)?;
        if is_revoked {
            self.load_access()?;
        }
        Ok(is_revoked)
    }

    /// All access tokens, by name. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn access(&self) -> anyhow::Result<Vec<AccessRow>> {
        self.store().access()
    }

    /// Checks an access token as it was shown.
    ///
    /// # Errors
    /// [`BadAccess`].
    pub fn check_access(&self, shown: &[u8]) -> Result<Holder, BadAccess> {
        let accounts = self.inner.access.read();
        let accounts = accounts.unwrap_or_else(PoisonError::into_inner);
        access::check(shown, &accounts, self.now())
    }

    /// Resolves when who asked may ask no more: its token has ended, or was revoked. Never for who is at the socket.
    pub async fn access_ended(&self, peer: &Peer) {
        let Some(holder) = peer.holder() else {
            return std::future::pending().await;
        };
        let mut changed = self.inner.access_changed.subscribe();
        loop {
            let left = UnixMillis(holder.expires_ms()).since(self.now());
            if left.is_zero() || !self.has_access(holder) {
                return;
            }
            // Whether it changed or time passed, it is looked at above.
            let _ = tokio::time::timeout(left.min(LOOK_EVERY), changed.changed()).await;
        }
    }

    fn has_access(&self, holder: &Holder) -> bool {
        let accounts = self.inner.access.read();
        let accounts = accounts.unwrap_or_else(PoisonError::into_inner);
        accounts.contains_key(holder.kid())
    }

    fn load_access(&self) -> anyhow::Result<()> {
        let accounts = self.store().access_accounts()?;
        let mut access = self
            .inner
            .access
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *access = accounts;
        drop(access);
        self.inner.access_changed.send_replace(());
        Ok(())
    }

    /// Whoever asks begins to read what sandboxes said: in the audit trail before anything is shown, once for the same within a minute.
    ///
    /// # Errors
    /// The disk refuses, and a token asks. Who is at the socket may read the files themselves, and is not kept from looking at what a
    /// broken disk still gives.
    pub async fn begin_reading(
        &self,
        peer: &Peer,
        host: Option<&HostId>,
        sandbox: Option<&SandboxId>,
    ) -> anyhow::Result<()> {
        let subject = match (host, sandbox) {
            (Some(host), Some(sandbox)) => format!("{host}/{sandbox}"),
            (Some(host), None) => host.to_string(),
            (None, Some(sandbox)) => format!("{EVERYTHING}/{sandbox}"),
            (None, None) => EVERYTHING.to_owned(),
        };
        let (actor, time) = (peer.actor(), self.now());
        let begun = lock(&self.inner.disclosed).begin(&actor, &subject, time);
        let Some(subject) = begun else {
            return Ok(());
        };
        let named = actor.clone();
        let record = move |plane: &Self| {
            plane.store().record_audit(&AuditEntry {
                time_ms: time.0,
                name: CONTENT_READ,
                subject: &subject,
                actor: &named,
                fields: &json!({}),
            })
        };
        let Err(error) = self.blocking(record).await else {
            return Ok(());
        };
        lock(&self.inner.disclosed).forget(&actor);
        if peer.holder().is_some() {
            return Err(error);
        }
        let error = format!("{error:#}");
        tracing::warn!(error, actor, "reads, and the audit trail does not take it");
        Ok(())
    }

    /// A reader began to read what sandboxes and hosts said: for the audit trail.
    pub fn note_reading(&self, name: &ReaderName) {
        let (reader, time) = (format!("reader:{name}"), self.now());
        if lock(&self.inner.disclosed)
            .begin(&reader, &reader, time)
            .is_some()
        {
            self.note(Note {
                time,
                name: CONTENT_READ,
                subject: reader.clone(),
                actor: reader,
            });
        }
    }
}
