//! The operator's clocks, and `server_now` made of them: for waits, for signed dates, and for the dates of certificates.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use protocol::time::{Now, UnixMillis};
use rustix::time::{ClockId, Timespec, clock_gettime};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

use crate::core::time::{Fix, Reading, ServerClock};

/// Where the kernel tells which boot this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The broker's time, shared by all who need it. Cheap to clone.
#[derive(Clone)]
pub struct ServerTime(Arc<Mutex<ServerClock>>);

impl ServerTime {
    /// Starts from the bundle's issue time and the last fix on disk.
    #[must_use]
    pub fn new(floor: UnixMillis, earlier: Option<Fix>) -> Self {
        // Without a boot id no fix is trusted after a restart, which costs one exchange.
        let boot_id = std::fs::read_to_string(BOOT_ID_FILE).unwrap_or_default();
        let boot_id = boot_id.trim().to_owned();
        let earlier = earlier.filter(|_| !boot_id.is_empty());
        Self(Arc::new(Mutex::new(ServerClock::new(
            floor,
            boot_id,
            earlier,
            read(),
        ))))
    }

    /// Both notions of now: `unix` is the broker's time.
    #[must_use]
    pub fn now(&self) -> Now {
        Now {
            mono: mono(),
            unix: self.lock().now(read()),
        }
    }

    /// Takes the broker's word.
    pub fn learn(&self, server: UnixMillis) {
        self.lock().learn(server, read());
    }

    /// Whether the broker told the time in this boot.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.lock().is_fixed()
    }

    /// The last fix, to be persisted.
    #[must_use]
    pub fn fix(&self) -> Option<Fix> {
        self.lock().fix().cloned()
    }

    /// How far the host's wall clock is ahead of the broker's, in milliseconds.
    #[must_use]
    pub fn skew_ms(&self) -> i64 {
        self.lock().skew_ms(read())
    }

    /// The broker's time at this boot, in milliseconds: with it and the boot-time clock a sandbox needs no true clock.
    #[must_use]
    pub fn boot_unix_ms(&self) -> u64 {
        let reading = read();
        let since_boot = u64::try_from(reading.boot.as_millis()).unwrap_or(u64::MAX);
        self.lock().now(reading).0.saturating_sub(since_boot)
    }

    fn lock(&self) -> MutexGuard<'_, ServerClock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServerTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTime")
    }
}

impl TimeProvider for ServerTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = self.now().unix.seconds();
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Uniform random bytes from the system's generator.
///
/// # Errors
/// If the kernel has none to give.
pub fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("read random bytes")?;
    Ok(bytes)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the operator reads its clocks here, and hands the time on as a value"
)]
fn mono() -> Instant {
    Instant::now()
}

/// The host's own clock, which may be anything: for lines of the log.
pub(super) fn wall() -> UnixMillis {
    let wall = duration(clock_gettime(ClockId::Realtime));
    UnixMillis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
}

fn read() -> Reading {
    Reading {
        wall: wall(),
        boot: duration(clock_gettime(ClockId::Boottime)),
    }
}

/// A clock before 1970 reads as 1970.
fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_broker_sets_the_clock_and_a_restart_keeps_it() {
        let told = UnixMillis(4_000_000_000_000);
        let time = ServerTime::new(UnixMillis(7), None);
        assert!(!time.is_fixed());
        time.learn(told);
        let now = time.now().unix;
        assert!(
            now >= told && now < told.plus(Duration::from_secs(60)),
            "{now:?}"
        );
        assert!(time.boot_unix_ms() <= now.0);
        let again = ServerTime::new(UnixMillis(7), time.fix());
        assert!(again.is_fixed() && again.now().unix >= told);
        assert!(again.current_time().unwrap().as_secs() >= told.seconds());
    }
}
