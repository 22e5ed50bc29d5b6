//! Whether the broker can keep its promises now.

use std::{
    sync::Weak,
    time::{Duration, Instant},
};

use tokio::time::MissedTickBehavior;

use super::{Inner, Plane};
use crate::{
    core::room::Shortage,
    shell::{clock, journal::Durability, store::Trouble},
};

/// How long an answer counts: strangers may ask, and each look sends a message through the router.
const FRESH: Duration = Duration::from_secs(1);
/// How often the disk is looked at: who fills it at a gigabyte a second does not get through the reserve between two looks.
const ROOM_EVERY: Duration = Duration::from_millis(250);

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `fsync` or `os`.
    pub durability: &'static str,
    /// What does not work, and what to do; nothing if all does.
    pub reasons: Vec<&'static str>,
    /// How long a message took through the router; none if it did not come back.
    pub router_probe: Option<Duration>,
}

/// The last answer, and when it was given. One looks at a time.
pub(super) type Last = tokio::sync::Mutex<Option<(Instant, Health)>>;

impl Plane {
    /// Looks at the journal, the disk, the store and the router; or says what was seen within the last second. Nothing is written for
    /// it: whether writing works, the last writes said, and one is tried every ten seconds whoever asks.
    pub async fn health(&self) -> Health {
        let mut last = self.inner.health.lock().await;
        if let Some((time, health)) = last.as_ref()
            && clock::mono().saturating_duration_since(*time) < FRESH
        {
            return health.clone();
        }
        let mut reasons = Vec::new();
        if self.is_broken() {
            reasons.push("the journal or the store has failed");
        }
        let looked = self.blocking(|plane| {
            let shortage = plane.room().look();
            let trouble = plane.store().trouble();
            Ok((shortage, trouble, plane.store().probe()))
        });
        match looked.await {
            Ok((shortage, trouble, read)) => {
                reasons.extend(shortage.map(Shortage::advice));
                reasons.extend(trouble.map(Trouble::advice));
                if read.is_err() {
                    reasons.push("the store cannot be read");
                }
            }
            Err(_) => reasons.push("the disk cannot be looked at"),
        }
        let asked = clock::mono();
        let probed = self.router().probe().await;
        let router_probe = probed.is_ok().then(|| clock::mono() - asked);
        if router_probe.is_none() {
            reasons.push("the router does not answer");
        }
        if self.audit_key().fault().is_some() {
            reasons.push(
                "the audit trail does not go on from what was signed of it: see the log, keep the data directory as it is, and compare it with a saved checkpoint (`outhaul audit verify`)",
            );
        }
        if self.now() > self.certificates().expiry.server {
            reasons.push("the server certificate has ended");
        }
        let health = Health {
            durability: self.durability(),
            reasons,
            router_probe,
        };
        *last = Some((clock::mono(), health.clone()));
        health
    }

    /// When a message counts as kept, in a word.
    #[must_use]
    pub fn durability(&self) -> &'static str {
        match self.journal().durability() {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
        }
    }
}

/// Looks at the disk until the plane is gone.
pub(super) async fn watch_room(inner: Weak<Inner>) {
    let mut looks = tokio::time::interval(ROOM_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let room = inner.parts.room.clone();
        // A disk that hangs holds up this look and nothing else.
        let _ = tokio::task::spawn_blocking(move || room.look()).await;
    }
}
