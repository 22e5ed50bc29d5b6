//! The one place that reads the clock. Everything else is told what time it is.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::time::{Now, UnixMillis};

/// Both notions of now, read one after the other.
#[must_use]
pub fn now() -> Now {
    Now {
        mono: mono(),
        unix: unix(),
    }
}

/// For waits: never goes back.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn mono() -> Instant {
    Instant::now()
}

/// For dates that are signed or stored: may jump. A clock set before 1970 reads as 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn unix() -> UnixMillis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
