//! Signing the audit trail: from time to time, when asked, and never where it does not go on from what was signed before.

use std::{sync::Weak, time::Duration};

use tokio::time::MissedTickBehavior;

use super::{Inner, Peer, Plane};
use crate::{
    core::audit::is_due,
    shell::{
        audit_key::AuditKey,
        store::{CheckpointRow, Inconsistent},
    },
};

/// How often it is asked whether a checkpoint is due: two reads that find their pages in memory.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Plane {
    /// The key that signs the trail.
    #[must_use]
    pub fn audit_key(&self) -> &AuditKey {
        &self.inner.parts.audit
    }

    /// Signs the trail as it stands, unless the newest checkpoint covers all of it; the newest one. Blocks.
    ///
    /// # Errors
    /// [`Inconsistent`], which also makes the broker not ready; or the disk refuses.
    pub fn sign_audit(&self) -> anyhow::Result<CheckpointRow> {
        self.heed(self.audit_key().sign(self.store(), self.now().0))
    }

    /// Makes a new key for the trail, and hands over to it. Blocks.
    ///
    /// # Errors
    /// As [`Self::sign_audit`].
    pub fn rotate_audit_key(&self, peer: &Peer) -> anyhow::Result<CheckpointRow> {
        let rotated = self
            .audit_key()
            .rotate(self.store(), self.now().0, &peer.actor());
        self.heed(rotated)
    }

    /// What is wrong with the trail is said once, loudly, and shows in `/readyz` from then on.
    fn heed(&self, signed: anyhow::Result<CheckpointRow>) -> anyhow::Result<CheckpointRow> {
        let fault = match &signed {
            Ok(_) => None,
            Err(error) => match error.downcast_ref::<Inconsistent>() {
                Some(fault) => Some(fault.clone()),
                None => return signed,
            },
        };
        let is_news = self.audit_key().note(fault.as_ref());
        if let (true, Some(fault)) = (is_news, fault) {
            tracing::error!(
                %fault,
                "the audit trail was tampered with or damaged, and is not signed any more: keep the data directory as it is, and \
                 compare it with a saved checkpoint or a backup (`outhaul audit verify`)"
            );
        }
        signed
    }

    fn sign_audit_if_due(&self) -> anyhow::Result<()> {
        let last = self.store().newest_checkpoint()?;
        let last = last.map(|row| (row.size, row.time_ms));
        if is_due(last, self.store().audit_size()?, self.now().0) {
            self.sign_audit()?;
        }
        Ok(())
    }
}

/// Signs what is due until the plane is gone.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let plane = Plane { inner };
        if let Err(error) = plane.blocking(Plane::sign_audit_if_due).await {
            // A fault of the trail was said already.
            if error.downcast_ref::<Inconsistent>().is_none() {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the audit trail was not signed"
                );
            }
        }
    }
}
