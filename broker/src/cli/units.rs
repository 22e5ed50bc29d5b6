//! Sizes, durations and dates, as people write and read them.

use std::time::Duration;

use protocol::time::UnixMillis;

use crate::core::span::{self, MILLIS_PER_DAY, scaled, split_unit};

/// Why a text is no size, duration or count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadUnit {
    #[error("not a size: write 512MiB, 1.5GiB or a number of bytes")]
    Bytes,
    #[error("not a duration: write 90s, 10m, 24h or 1h30m")]
    Duration,
    #[error("not a number of processors: write 2 or 0.5")]
    Cpus,
}

/// Reads a size in bytes: `512MiB`, `1.5GiB`, `2g` (binary, as `docker` reads it), `10MB` (decimal), `4096`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, BadUnit> {
    let (number, unit) = split_unit(text.trim());
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "ki" | "kib" => 1 << 10,
        "m" | "mi" | "mib" => 1 << 20,
        "g" | "gi" | "gib" => 1 << 30,
        "t" | "ti" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(BadUnit::Bytes),
    };
    scaled(number, unit)
        .filter(|bytes| *bytes > 0)
        .ok_or(BadUnit::Bytes)
}

/// Reads a number of processors as thousandths: `1.5` is 1500.
pub(crate) fn parse_cpus(text: &str) -> Result<u64, BadUnit> {
    scaled(text.trim(), 1000)
        .filter(|millis| *millis > 0)
        .ok_or(BadUnit::Cpus)
}

/// Reads a duration, as [`span::parse`] does.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, BadUnit> {
    span::parse(text).ok_or(BadUnit::Duration)
}

/// A size for people: `512 B`, `1.5 KiB`, `2.0 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match UNITS.into_iter().find(|(unit, _)| count >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(count) * 10 / u128::from(unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{count} B"),
    }
}

/// A duration for people, with its two largest units: `4s`, `2m5s`, `3h`, `7d2h`.
pub(crate) fn duration(duration: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let mut rest = duration.as_secs();
    let mut text = String::new();
    let mut parts = 0;
    for (unit, name) in UNITS {
        let count = rest / unit;
        if count > 0 && parts < 2 {
            text.push_str(&format!("{count}{name}"));
            parts += 1;
        }
        // Two units that stand side by side: "7d 3s" would say more than it knows.
        if parts == 1 && count == 0 {
            break;
        }
        rest %= unit;
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// How long ago, for tables.
pub(crate) fn ago(then_ms: u64, now: UnixMillis) -> String {
    format!("{} ago", duration(now.since(UnixMillis(then_ms))))
}

/// A date as RFC 3339 in UTC, to the millisecond.
pub(crate) fn date(time: UnixMillis) -> String {
    let (days, in_day) = (time.0 / MILLIS_PER_DAY, time.0 % MILLIS_PER_DAY);
    let (year, month, day) = civil(days);
    let seconds = in_day / 1000;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        in_day % 1000
    )
}

/// Year, month and day of the `days`th day after 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, count) in [
            ("4096", 4096),
            ("512MiB", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("2g", 2 << 30),
            ("10MB", 10_000_000),
            ("64 kib", 65_536),
        ] {
            assert_eq!(parse_bytes(text), Ok(count), "{text}");
        }
        for bad in [
            "",
            "0",
            "-1",
            "1x",
            "MiB",
            "1.",
            ".5g",
            "1.2.3",
            "1e3",
            "99999999999TiB",
        ] {
            assert_eq!(parse_bytes(bad), Err(BadUnit::Bytes), "{bad:?}");
        }
    }

    #[test]
    fn processors_are_exact_thousandths() {
        assert_eq!(parse_cpus("1.5"), Ok(1500));
        assert_eq!(parse_cpus("0.1"), Ok(100));
        assert_eq!(parse_cpus("0.0001"), Err(BadUnit::Cpus));
        assert_eq!(parse_cpus("two"), Err(BadUnit::Cpus));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("1h30m", 5400),
            ("1.5h", 5400),
            ("7d", 604_800),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "s", "10x", "-3s", "1h 30m", "h1"] {
            assert_eq!(parse_duration(bad), Err(BadUnit::Duration), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_right() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (125, "2m5s"),
            (3600, "1h"),
            (3661, "1h1m"),
            (86_400 * 7 + 3, "7d"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_800_000_000_123, "2027-01-15T08:00:00.123Z"),
        ] {
            assert_eq!(date(UnixMillis(ms)), text);
        }
    }
}
