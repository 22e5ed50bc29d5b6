//! `server_now`: the last time the broker told, plus what the boot-time clock has counted since.
//!
//! A host's wall clock may be wrong by years and may jump; the boot-time clock only counts, through suspension too. So the broker's
//! time is the one notion of now for certificates, tokens and commands. Before the first word from the broker there is the wall
//! clock, with a floor: it is not earlier than when the bundle was made.

use std::fmt;
use std::time::Duration;

use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

/// What the host's own clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock; may be anything.
    pub wall: UnixMillis,
    /// Time since boot, suspension included (`CLOCK_BOOTTIME`).
    pub boot: Duration,
}

/// A moment when both clocks were known. Persisted, so that a restart within the same boot still knows the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// What the broker said.
    pub server: UnixMillis,
    /// Milliseconds since boot when it said so.
    pub boot_ms: u64,
    /// Which boot: the kernel's random boot id, as text.
    pub boot_id: String,
}

/// The host's notion of the broker's time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerClock {
    floor: UnixMillis,
    fix: Option<Fix>,
    boot_id: String,
}

impl ServerClock {
    /// A clock that knows only that it is not earlier than `floor` (the bundle's issue time), and, if this is still the boot it was
    /// taken in, what an earlier fix tells. A fix of another boot raises the floor.
    #[must_use]
    pub fn new(floor: UnixMillis, boot_id: String, earlier: Option<Fix>, now: Reading) -> Self {
        let floor = earlier.as_ref().map_or(floor, |fix| floor.max(fix.server));
        let fix = earlier.filter(|fix| fix.boot_id == boot_id && millis(now.boot) >= fix.boot_ms);
        Self {
            floor,
            fix,
            boot_id,
        }
    }

    /// Takes the broker's word. The broker is the only judge of time, so a word that goes back is taken too, down to the floor.
    pub fn learn(&mut self, server: UnixMillis, now: Reading) {
        self.fix = Some(Fix {
            server: server.max(self.floor),
            boot_ms: millis(now.boot),
            boot_id: self.boot_id.clone(),
        });
    }

    /// The broker's time, as well as we know it.
    #[must_use]
    pub fn now(&self, reading: Reading) -> UnixMillis {
        match &self.fix {
            Some(fix) => {
                let passed_ms = millis(reading.boot).saturating_sub(fix.boot_ms);
                fix.server.plus(Duration::from_millis(passed_ms))
            }
            None => reading.wall.max(self.floor),
        }
    }

    /// Whether the broker told the time in this boot: only then does a persisted token's life mean anything.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.fix.is_some()
    }

    /// The last fix, to be persisted.
    #[must_use]
    pub fn fix(&self) -> Option<&Fix> {
        self.fix.as_ref()
    }

    /// How far the wall clock is from the broker's, in milliseconds: positive if it is ahead.
    #[must_use]
    pub fn skew_ms(&self, reading: Reading) -> i64 {
        let wall = i64::try_from(reading.wall.0).unwrap_or(i64::MAX);
        wall.saturating_sub(i64::try_from(self.now(reading).0).unwrap_or(i64::MAX))
    }
}

/// A time as RFC 3339 has it, in UTC.
#[derive(Clone, Copy, Debug)]
pub struct Rfc3339(pub UnixMillis);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, rest) = (self.0.0 / 86_400_000, self.0.0 % 86_400_000);
        let (year, month, day) = date(days);
        let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
        let (second, milli) = (rest / 1000 % 60, rest % 1000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
        )
    }
}

/// The Gregorian date of a day since 1970. Years are counted from March, so that the day of leap years comes last (Hinnant's
/// `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: UnixMillis = UnixMillis(1_800_000_000_000);

    fn at(wall: u64, boot_s: u64) -> Reading {
        Reading {
            wall: UnixMillis(wall),
            boot: Duration::from_secs(boot_s),
        }
    }

    fn clock(earlier: Option<Fix>, now: Reading) -> ServerClock {
        ServerClock::new(FLOOR, "boot-1".into(), earlier, now)
    }

    #[test]
    fn before_first_contact_it_is_the_wall_clock_but_never_before_the_bundle() {
        let clock = clock(None, at(0, 5));
        assert_eq!(clock.now(at(0, 5)), FLOOR);
        assert_eq!(clock.now(at(FLOOR.0 + 7, 5)), UnixMillis(FLOOR.0 + 7));
        assert!(!clock.is_fixed());
    }

    #[test]
    fn after_contact_the_wall_clock_means_nothing() {
        let mut clock = clock(None, at(0, 5));
        clock.learn(UnixMillis(FLOOR.0 + 1000), at(0, 10));
        for wall in [0, FLOOR.0, u64::MAX] {
            assert_eq!(clock.now(at(wall, 70)), UnixMillis(FLOOR.0 + 61_000));
        }
    }

    #[test]
    fn a_fix_outlives_the_operator_within_one_boot_only() {
        let mut first = clock(None, at(0, 5));
        first.learn(UnixMillis(FLOOR.0 + 1000), at(0, 10));
        let fix = first.fix().cloned();
        let same = clock(fix.clone(), at(0, 20));
        assert!(same.is_fixed());
        assert_eq!(same.now(at(0, 20)), UnixMillis(FLOOR.0 + 11_000));
        let other = ServerClock::new(FLOOR, "boot-2".into(), fix.clone(), at(0, 20));
        assert!(!other.is_fixed());
        assert_eq!(
            other.now(at(0, 20)),
            UnixMillis(FLOOR.0 + 1000),
            "but the floor rose"
        );
        let earlier = clock(fix, at(0, 9));
        assert!(
            !earlier.is_fixed(),
            "a boot clock that went back is another boot's"
        );
    }

    #[test]
    fn the_broker_may_go_back_but_not_below_the_floor() {
        let mut clock = clock(None, at(0, 0));
        clock.learn(UnixMillis(FLOOR.0 + 5000), at(0, 0));
        clock.learn(UnixMillis(FLOOR.0 + 1000), at(0, 0));
        assert_eq!(clock.now(at(0, 0)), UnixMillis(FLOOR.0 + 1000));
        clock.learn(UnixMillis(1), at(0, 0));
        assert_eq!(clock.now(at(0, 0)), FLOOR);
        assert_eq!(clock.skew_ms(at(FLOOR.0 - 400, 0)), -400);
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (20_785, (2026, 11, 28)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
    }
}
