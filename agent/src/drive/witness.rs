//! The witness at work: what it finds is on disk before it counts, and its owner is told.

use protocol::exchange::Trail;
use protocol::key::{Dispatcher, Public};
use protocol::key_change::RestoredTrail;

use super::Drive;
use super::site::Site;
use crate::core::host::Failure;
use crate::core::witness::{self, NotUndone, Stop, Verdict, Witness};

/// Looks at the trail that came with a grant. The broker showed how it goes on from what `asked` keeps.
///
/// # Errors
/// If it cannot be judged, or the verdict is not on disk: the grant is not to be used then.
pub(super) fn look(site: &Site, asked: &Witness, trail: Option<&Trail>) -> Result<(), Failure> {
    if site.witness().kept != asked.kept {
        tracing::info!(
            "another checkpoint was accepted while the broker was asked: it is asked again"
        );
        return Err(Failure::Unreachable);
    }
    let now = site.time.now().unix;
    let verdict = site.witness().judge(trail, site.audit_vkey.as_ref(), now);
    match verdict {
        Err(bad) => {
            let why = format!("the grant is not used: {bad}");
            site.said().warn("no fresh token", why);
            return Err(Failure::Unreachable);
        }
        Ok(Verdict::Same | Verdict::StillStopped) => {}
        Ok(Verdict::Grown(next)) => {
            save(site, &next)?;
            *site.witness() = next;
        }
        Ok(Verdict::Stopped(next)) => {
            // At once, whatever the disk says: a host that is in doubt obeys nobody.
            *site.witness() = next.clone();
            if let Some(stop) = &next.stop {
                tell(site, &next, stop);
            }
            save(site, &next)?;
        }
    }
    *site.other_witnesses() = trail.map(witness::others).unwrap_or_default();
    Ok(())
}

fn save(site: &Site, witness: &Witness) -> Result<(), Failure> {
    site.store.save_witness(witness).map_err(|error| {
        let why = format!("the grant is not used: keep the audit trail's checkpoint: {error:#}");
        site.said().warn("no fresh token", why);
        Failure::NotPersisted
    })
}

/// Says what is wrong, once and loudly, and puts the notes where a person finds them.
fn tell(site: &Site, witness: &Witness, stop: &Stop) {
    let kept = witness.kept.as_ref().map(|kept| kept.checkpoint().size());
    let evidence = match site.store.save_evidence(witness, stop) {
        Ok(dir) => dir.display().to_string(),
        Err(error) => {
            tracing::warn!("{error:#}");
            "(not written)".to_owned()
        }
    };
    tracing::error!(
        kept,
        shown = stop.offered.checkpoint().size(),
        other = stop.other.as_ref().map(|other| other.name.as_str()),
        evidence,
        "the witness stops this host: {}. No command is obeyed until its owner has looked (`outhaul-agent status`) and accepts it \
         (`outhaul-agent accept-restore`); sandboxes keep running",
        stop.why.text()
    );
}

impl Drive {
    /// Takes a dispatcher's word for a restore. True if it is to be acknowledged: what came of it is on disk, or nothing did.
    pub(super) fn on_restored(&mut self, trail: &RestoredTrail, by: &Public<Dispatcher>) -> bool {
        let (before, now) = (self.site.witness().clone(), self.site.time.now().unix);
        let next = match before.restored(trail, now) {
            Ok(next) => next,
            // It comes at every connection.
            Err(NotUndone::Seen) if before.stop.is_none() => return true,
            Err(why) => {
                self.said_statement.warn(
                    "a dispatcher's word for a restore changes nothing",
                    why.to_string(),
                );
                return true;
            }
        };
        if let Err(error) = self.site.store.save_witness(&next) {
            let why = error.root_cause().to_string();
            self.said_deferred
                .warn("commands are put off: remember a restore", why);
            return false;
        }
        let rows = next.kept.as_ref().map(|kept| kept.checkpoint().size());
        *self.site.witness() = next;
        self.is_status_due = true;
        tracing::warn!(
            rows, dispatcher = %by, restored_ms = trail.at.0,
            "a dispatcher says that the broker was restored: its audit trail counts from there, and commands are obeyed"
        );
        true
    }

    /// Takes up what the owner accepted, if the witness has stopped this host and something waits.
    pub(super) fn take_accepted(&mut self) {
        if self.site.witness().stop.is_none() {
            return;
        }
        let digest = match self.site.store.load_accepted() {
            Ok(Some(digest)) => digest,
            Ok(None) => return,
            Err(error) => {
                self.said_accepted
                    .warn("look for what the owner accepted", format!("{error:#}"));
                return;
            }
        };
        if let Err(error) = self.accept(&digest) {
            self.said_accepted
                .warn("take up what the owner accepted", format!("{error:#}"));
            return;
        }
        self.said_accepted.clear();
        self.is_status_due = true;
    }

    fn accept(&self, digest: &[u8; 32]) -> anyhow::Result<()> {
        let accepted = self
            .site
            .witness()
            .accept(digest, self.site.time.now().unix);
        match accepted {
            Ok(next) => {
                self.site.store.save_witness(&next)?;
                let rows = next.kept.as_ref().map(|kept| kept.checkpoint().size());
                *self.site.witness() = next;
                tracing::warn!(
                    rows,
                    "the owner accepts the audit trail that the broker shows: commands are obeyed again"
                );
            }
            Err(error) => tracing::warn!("{error}"),
        }
        self.site.store.remove_accepted()
    }
}
