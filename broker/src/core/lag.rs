//! The broker's time never goes back. What to show, then, while this machine's clock is behind what was shown before?

use std::time::{Duration, Instant};

use protocol::{
    limits::LEEWAY_S,
    time::{Now, UnixMillis},
};

/// A clock that is behind by less stands still until it has caught up: everybody allows this much.
pub const STANDSTILL: Duration = Duration::from_secs(LEEWAY_S);
/// How much slower time goes while the clock is further behind than that. So it ends what has to end, a token after twice the rest of
/// its life at the latest, and still meets the clock.
pub const SLOWER: u32 = 2;

/// A clock that is behind, if it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// What was shown, and when.
    from: Option<(UnixMillis, Instant)>,
}

impl Lag {
    /// The time to show, where `shown` was shown before and is later than the clock.
    pub fn time(&mut self, shown: UnixMillis, now: Now) -> UnixMillis {
        if shown.since(now.unix) <= STANDSTILL {
            self.from = None;
            return shown;
        }
        let (time, at) = *self.from.get_or_insert((shown, now.mono));
        let slow = time.plus(now.mono.saturating_duration_since(at) / SLOWER);
        if slow < shown {
            // The clock went ahead meanwhile, and back once more.
            self.from = Some((shown, now.mono));
        }
        slow.max(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    /// A broker, and a clock that says what it is told.
    struct World {
        lag: Lag,
        shown: UnixMillis,
        now: Now,
    }

    impl World {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test needs some instant to begin with"
        )]
        fn new(unix: UnixMillis) -> Self {
            let now = Now {
                mono: Instant::now(),
                unix,
            };
            Self {
                lag: Lag::default(),
                shown: START,
                now,
            }
        }

        /// As the plane does it.
        fn show(&mut self) -> UnixMillis {
            let time = if self.shown <= self.now.unix {
                self.now.unix
            } else {
                self.lag.time(self.shown, self.now)
            };
            assert!(time >= self.shown, "time went back");
            self.shown = time;
            time
        }

        fn pass(&mut self, span: Duration) {
            self.now.mono += span;
            self.now.unix = self.now.unix.plus(span);
        }
    }

    fn minus(time: UnixMillis, span: Duration) -> UnixMillis {
        UnixMillis(time.0 - u64::try_from(span.as_millis()).unwrap())
    }

    #[test]
    fn behind_by_an_hour_time_goes_at_half_speed_and_meets_the_clock_after_two() {
        let mut world = World::new(minus(START, HOUR));
        assert_eq!(world.show(), START);
        // Looked at often or seldom: the same.
        for _ in 0..3_600_000 / 50 {
            world.pass(Duration::from_millis(50));
            world.show();
        }
        assert_eq!(world.shown, START.plus(HOUR / SLOWER));
        world.pass(HOUR);
        assert_eq!(world.show(), world.now.unix);
        world.pass(HOUR);
        assert_eq!(
            world.show(),
            world.now.unix,
            "and then it is the clock again"
        );
    }

    #[test]
    fn behind_by_a_leeway_or_less_it_stands_still() {
        let mut world = World::new(minus(START, STANDSTILL));
        assert_eq!(world.show(), START);
        world.pass(STANDSTILL / 2);
        assert_eq!(world.show(), START);
        world.pass(STANDSTILL);
        assert_eq!(world.show(), world.now.unix);
    }

    #[test]
    fn no_order_of_jumps_makes_it_go_back_or_stop_for_long() {
        let jumps = [-2, -1, 0, 1, 2].map(|hours: i64| hours * 3_600_000);
        for first in jumps {
            for second in jumps {
                for third in jumps {
                    let mut world = World::new(START);
                    for jump in [first, second, third] {
                        let unix = world.now.unix.0.checked_add_signed(jump).unwrap();
                        world.now.unix = UnixMillis(unix);
                        let before = world.show();
                        world.pass(HOUR / 6);
                        world.show();
                        world.pass(HOUR / 6);
                        let went = world.show().since(before);
                        assert!(
                            went >= HOUR / 6 - STANDSTILL,
                            "{first} {second} {third}: {went:?}"
                        );
                    }
                }
            }
        }
    }
}
