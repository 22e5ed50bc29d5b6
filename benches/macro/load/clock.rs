//! The one place of the load generator that reads a clock, or waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use protocol::time::UnixMillis;

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub(crate) fn mono() -> Instant {
    Instant::now()
}

/// The wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub(crate) fn unix() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Asks `done` every few milliseconds until it is, or `wait` is over.
pub(crate) fn until(wait: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = mono() + wait;
    while !done() {
        if mono() >= end {
            return false;
        }
        // Nobody wakes a thread that waits for another process.
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}
