//! What dispatchers say about each other's keys, and of a restore: kept, obeyed here too, and passed on to every host. The broker can make
//! none of it.

use anyhow::Context as _;
use protocol::{
    key::{Dispatcher, Public},
    key_change::{Change, RestoredTrail, Statement, StatementError},
    limits::STATEMENTS_MAX,
    topic::Topic,
};

use super::{Peer, Plane};
use crate::shell::store::{NewStatement, Said};

/// Why a statement was not taken. The text tells a person what to do.
#[derive(Debug, thiserror::Error)]
pub enum StatementRefused {
    /// Not signed by a dispatcher that is registered and has not ended, or not to be said.
    #[error(
        "{0}: it must be signed by a dispatcher's key that is registered here and has not ended; see `outhaul dispatcher list`"
    )]
    Statement(#[from] StatementError),
    /// Its signer named another key before.
    #[error(
        "the key that signed it was followed by another key before: somebody else may have it; have another dispatcher revoke it"
    )]
    Fork,
    /// It is about the audit trail of a broker that was restored, which is not this one's.
    #[error(
        "this broker was not restored from a backup at that time, or its audit trail is another: run this against the broker that was restored"
    )]
    OtherTrail,
    /// The new key's name is taken.
    #[error("another dispatcher has this name: choose one with --name")]
    NameTaken,
    /// There is no room for more.
    #[error(
        "{STATEMENTS_MAX} statements are kept already, as many as hosts keep: give hosts new bundles or policies that list the present keys, and use a new broker directory"
    )]
    Full,
    /// The store failed.
    #[error("the statement could not be recorded: see the broker's log")]
    Failed(#[source] anyhow::Error),
}

impl Plane {
    /// Takes a dispatcher's statement: records it, then passes it on to the hosts that are connected; others get it when they subscribe.
    /// Saying the same again changes nothing.
    ///
    /// # Errors
    /// [`StatementRefused`].
    pub async fn submit_statement(
        &self,
        bytes: Vec<u8>,
        name: String,
        peer: &Peer,
    ) -> Result<(), StatementRefused> {
        let (statement, actor) = (bytes.clone(), peer.actor());
        let taken = self
            .blocking(move |plane| Ok(plane.take_statement(&statement, &name, &actor)))
            .await;
        if !taken.map_err(StatementRefused::Failed)?? {
            return Ok(());
        }
        for (host, is_connected) in self.hosts_and_presence() {
            if !is_connected {
                continue;
            }
            let topic = Topic::Commands(host);
            if let Err(error) = self.router().publish(&topic, &bytes).await {
                // It is sent again when the host subscribes.
                let error = format!("{error:#}");
                tracing::warn!(error, "a statement did not go through the router");
            }
        }
        Ok(())
    }

    /// True if it is news.
    fn take_statement(
        &self,
        bytes: &[u8],
        name: &str,
        actor: &str,
    ) -> Result<bool, StatementRefused> {
        let now = self.now();
        let kept = self.store().statements();
        if kept
            .map_err(StatementRefused::Failed)?
            .iter()
            .any(|kept| kept == bytes)
        {
            // Its answer was lost; its signer may have ended by its own word meanwhile.
            return Ok(false);
        }
        let keys = self.dispatcher_keys().map_err(StatementRefused::Failed)?;
        let verified = Statement::verify(bytes, &keys, now)?;
        let signer = verified.signer();
        if let Change::Restored(trail) = &verified.value().change
            && !self.is_own(trail).map_err(StatementRefused::Failed)?
        {
            return Err(StatementRefused::OtherTrail);
        }
        let new = NewStatement {
            bytes,
            change: &verified.value().change,
            signer: signer.as_bytes(),
            name,
            actor,
        };
        let said = self.store().take_statement(&new, now.0);
        match said.map_err(StatementRefused::Failed)? {
            Said::Taken => Ok(true),
            Said::Again => Ok(false),
            Said::Fork => Err(StatementRefused::Fork),
            Said::NameTaken => Err(StatementRefused::NameTaken),
            Said::Full => Err(StatementRefused::Full),
        }
    }

    /// Whether it is about this broker, as it was restored last.
    fn is_own(&self, trail: &RestoredTrail) -> anyhow::Result<bool> {
        let Ok((vkey, note)) = trail.checkpoint() else {
            return Ok(false);
        };
        let (store, current) = (self.store(), self.history().current());
        let checkpoint = note.unverified();
        let is_named = current.restored.is_some() && current.began == trail.at;
        let is_known = store.audit_keys()?.iter().any(|(_, key)| *key == vkey);
        Ok(is_named
            && is_known
            && checkpoint.size() <= store.audit_size()?
            && store.audit_root(checkpoint.size())? == *checkpoint.root())
    }

    /// The keys whose commands are taken now.
    pub(super) fn dispatcher_keys(&self) -> anyhow::Result<Vec<Public<Dispatcher>>> {
        let now = self.now();
        let rows = self.store().dispatchers().context("read dispatchers")?;
        let current = rows
            .iter()
            .filter(|row| row.until_ms.is_none_or(|until| now.0 <= until));
        Ok(current
            .filter_map(|row| Public::from_bytes(&row.public_key).ok())
            .collect())
    }
}
