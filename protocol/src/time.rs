//! Time as a value. Nothing here reads a clock.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::limits::LEEWAY_S;

/// Milliseconds since 1970, UTC. What is signed carries this.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds, as CWT dates are (RFC 8392 §2).
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Later by `duration`; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// The time that has passed since `earlier`; zero if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Both notions of now: waits use `mono`, signed dates use `unix`. A jump of the wall clock never changes a wait.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Never goes back.
    pub mono: Instant,
    /// May jump.
    pub unix: UnixMillis,
}

/// Whether a date has passed, with leeway: `expires` is in seconds.
#[must_use]
pub fn is_expired(expires_s: u64, now: UnixMillis) -> bool {
    now.seconds() >= expires_s.saturating_add(LEEWAY_S)
}

/// Whether a date is still to come, with leeway: `starts` is in seconds.
#[must_use]
pub fn is_early(starts_s: u64, now: UnixMillis) -> bool {
    now.seconds().saturating_add(LEEWAY_S) < starts_s
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leeway_is_a_minute_on_both_sides_and_no_more() {
        let now = UnixMillis(1_000_000_000);
        assert!(!is_expired(999_941, now) && is_expired(999_940, now));
        assert!(!is_early(1_000_060, now) && is_early(1_000_061, now));
        assert!(!is_expired(u64::MAX, now) && is_early(u64::MAX, now));
    }
}
