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

/// Waits until `condition` holds, at most `span`; if it never does, the last it said.
///
/// # Errors
/// What `condition` said last.
#[expect(clippy::disallowed_methods, reason = "see `until`")]
pub fn until_ok<T, E>(span: Duration, mut condition: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let end = Instant::now() + span;
    loop {
        let said = condition();
        if said.is_ok() || Instant::now() >= end {
            return said;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Lets a moment pass, so that a loop which waits for others does not spin.
#[expect(clippy::disallowed_methods, reason = "see `until`")]
pub fn pause() {
    std::thread::sleep(LOOK_EVERY);
}

/// Now, by the clock for waits.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "see `until`")]
pub fn mono() -> Instant {
    Instant::now()
}

/// Runs `work`, and says how long it took.
#[expect(clippy::disallowed_methods, reason = "see `until`")]
pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// The time, for what tests sign.
///
/// # Panics
/// If the clock is before 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "see `until`; a clock before 1970 cannot sign anything"
)]
pub fn now() -> protocol::time::UnixMillis {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock past 1970");
    protocol::time::UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The time in nanoseconds since 1970, as the kernel's own tracing writes it down.
///
/// # Panics
/// If the clock is before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, clippy::expect_used, reason = "see `now`")]
pub fn unix_ns() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("a clock past 1970");
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A time in milliseconds since 1970 as people and programs write it, by the machine's own `date`.
///
/// # Panics
/// If there is none.
#[must_use]
#[expect(clippy::expect_used, reason = "every machine that tests run on has it")]
pub fn rfc_3339(time_ms: u64) -> String {
    let seconds = format!("@{}.{:03}", time_ms / 1000, time_ms % 1000);
    let said = std::process::Command::new("date")
        .args(["-u", "-d", &seconds, "+%Y-%m-%dT%H:%M:%S.%3NZ"])
        .output()
        .expect("date runs");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
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
