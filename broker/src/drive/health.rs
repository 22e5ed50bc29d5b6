//! Whether the broker can keep its promises now.

use std::time::{Duration, Instant};

use super::Plane;
use crate::shell::{clock, journal::Durability};

/// How long an answer counts: strangers may ask, and each look sends a message through the router.
const FRESH: Duration = Duration::from_secs(1);

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// `fsync` or `os`.
    pub durability: &'static str,
    /// What does not work; nothing if all does.
    pub reasons: Vec<&'static str>,
    /// How long a message took through the router; none if it did not come back.
    pub router_probe: Option<Duration>,
}

/// The last answer, and when it was given. One looks at a time.
pub(super) type Last = tokio::sync::Mutex<Option<(Instant, Health)>>;

impl Plane {
    /// Looks at the journal, the store and the router; or says what was seen within the last second.
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
        if self
            .blocking(|plane| plane.store().dispatchers().map(drop))
            .await
            .is_err()
        {
            reasons.push("the store cannot be read");
        }
        let asked = clock::mono();
        let probed = self.router().probe().await;
        let router_probe = probed.is_ok().then(|| clock::mono() - asked);
        if router_probe.is_none() {
            reasons.push("the router does not answer");
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
