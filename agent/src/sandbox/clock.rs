//! The shim's one notion of time: the time since boot, set to the broker's clock by the operator. It never jumps.

use std::{sync::Arc, time::Duration};

use protocol::time::UnixMillis;
use rustix::time::{ClockId, clock_gettime};
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

/// Boot-time clock plus an offset.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    boot_unix_ms: u64,
}

impl Clock {
    /// A clock that showed `boot_unix_ms` when the machine booted.
    #[must_use]
    pub fn new(boot_unix_ms: u64) -> Self {
        Self { boot_unix_ms }
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> UnixMillis {
        let since_boot = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(since_boot.tv_sec).unwrap_or(0);
        let millis = u64::try_from(since_boot.tv_nsec / 1_000_000).unwrap_or(0);
        UnixMillis(
            self.boot_unix_ms
                .saturating_add(seconds.saturating_mul(1000))
                .saturating_add(millis),
        )
    }

    /// The same clock for the dates of certificates.
    #[must_use]
    pub fn for_tls(self) -> Arc<dyn TimeProvider> {
        Arc::new(self)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(
            self.now().0,
        )))
    }
}
