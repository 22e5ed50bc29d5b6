//! How long to wait before trying again. Exponential with full jitter, so that a thousand hosts that lost the same broker do not
//! come back together; and a slow lane for those whom the broker refused, who gain nothing by asking often.

use std::time::Duration;

/// The first ceiling; it doubles with every failure.
pub const WAIT_FIRST: Duration = Duration::from_secs(1);

/// The last ceiling.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// No wait is shorter: full jitter may draw nearly nothing, and nearly nothing in a row is a hot loop.
pub const WAIT_MIN: Duration = Duration::from_millis(100);

/// After a refusal: at most once a minute.
pub const WAIT_REFUSED: Duration = Duration::from_secs(60);

/// How an attempt failed, as far as the wait depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Nobody answered, or not well: come back soon.
    Ordinary,
    /// The broker answered, and said no.
    Refused,
}

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    failures: u32,
}

impl Pace {
    /// The wait after one more failure. `random` is uniform over all of `u64`.
    pub fn after_failure(&mut self, lane: Lane, random: u64) -> Duration {
        let doubled = WAIT_FIRST.saturating_mul(1_u32 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        match lane {
            Lane::Ordinary => up_to(doubled.min(WAIT_MAX), random).max(WAIT_MIN),
            Lane::Refused => WAIT_REFUSED + up_to(WAIT_REFUSED, random),
        }
    }

    /// All is well again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A duration drawn from zero to `ceiling`, in milliseconds.
#[must_use]
pub fn up_to(ceiling: Duration, random: u64) -> Duration {
    let ceiling_ms = u64::try_from(ceiling.as_millis()).unwrap_or(u64::MAX);
    let drawn = (u128::from(random) * u128::from(ceiling_ms)) >> 64;
    Duration::from_millis(u64::try_from(drawn).unwrap_or(ceiling_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_from_a_second_to_a_minute_and_stay_there() {
        let mut pace = Pace::default();
        let waits: Vec<u64> = (0..9)
            .map(|_| pace.after_failure(Lane::Ordinary, u64::MAX).as_millis())
            .map(|ms| u64::try_from(ms).unwrap().div_ceil(1000))
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        pace.reset();
        assert!(pace.after_failure(Lane::Ordinary, u64::MAX) <= WAIT_FIRST);
    }

    #[test]
    fn no_draw_makes_a_hot_loop() {
        for failures in 0..40 {
            let mut pace = Pace { failures };
            assert_eq!(pace.after_failure(Lane::Ordinary, 0), WAIT_MIN);
        }
    }

    #[test]
    fn the_refused_come_back_at_most_once_a_minute() {
        for random in [0, 1 << 40, u64::MAX / 2, u64::MAX] {
            let wait = Pace::default().after_failure(Lane::Refused, random);
            assert!(
                (WAIT_REFUSED..=WAIT_REFUSED * 2).contains(&wait),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn draws_fill_the_whole_range() {
        let ceiling = Duration::from_secs(10);
        assert_eq!(up_to(ceiling, 0), Duration::ZERO);
        assert_eq!(up_to(ceiling, 1 << 63), Duration::from_secs(5));
        assert_eq!(up_to(ceiling, u64::MAX), Duration::from_millis(9999));
        assert_eq!(
            up_to(Duration::MAX, u64::MAX).as_millis(),
            u128::from(u64::MAX) - 1
        );
    }
}
