//! The broker's time: this machine's clock, and never less than what was shown before.

use std::{sync::atomic::Ordering, time::Duration};

use protocol::time::UnixMillis;

use super::{Plane, lock};
use crate::{core::lag::STANDSTILL, shell::clock};

impl Plane {
    /// The time: the clock's, or, if that is behind what was ever shown, such a time as [`crate::core::lag`] says.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        let floor_ms = &self.inner.floor_ms;
        let unix = clock::unix();
        let shown = UnixMillis(floor_ms.fetch_max(unix.0, Ordering::Relaxed));
        if shown <= unix {
            return unix;
        }
        let time = lock(&self.inner.lag).time(shown, clock::now());
        UnixMillis(floor_ms.fetch_max(time.0, Ordering::Relaxed)).max(time)
    }

    /// How far this machine's clock is behind the time that the broker shows.
    #[must_use]
    pub fn clock_behind(&self) -> Duration {
        self.now().since(clock::unix())
    }

    /// Says that the clock is behind, if it is by more than anybody allows.
    pub(super) fn look_at_clock(&self) {
        let behind = self.clock_behind();
        if behind > STANDSTILL {
            tracing::warn!(
                behind_s = behind.as_secs(),
                "this machine's clock is behind the time that the broker showed before: set it. Until it has caught up, the \
                 broker's time goes on from there, at half speed, so that no token that ended comes to life again"
            );
        }
    }

    /// Something on disk bears this time, so it was shown before.
    pub(super) fn note_time(&self, time: UnixMillis) {
        self.inner.floor_ms.fetch_max(time.0, Ordering::Relaxed);
    }
}
