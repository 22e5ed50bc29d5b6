//! Waiting on a condition, with a deadline. The only place in the tests that sleeps.

use std::time::{Duration, Instant};

/// How long a condition may take before the test fails. Generous: two cores may be busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
///
/// # Panics
/// If it does not within [`DEADLINE`]; `what` says what was waited for.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place in the tests that reads the clock and sleeps"
)]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < end,
            "waited {} s for {what}",
            DEADLINE.as_secs()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether `condition` stays false for `span`: for what must not happen.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place in the tests that reads the clock and sleeps"
)]
pub fn never(span: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if condition() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}
