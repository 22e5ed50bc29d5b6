//! Spans of time, and points in time, as people write them.

use std::{str::FromStr, time::Duration};

use protocol::time::UnixMillis;

/// A day, in milliseconds.
pub(crate) const MILLIS_PER_DAY: u64 = 24 * 3600 * 1000;

/// Digits after the point that are read; more are refused rather than rounded.
const FRACTION_DIGITS_MAX: usize = 9;

/// A point in time, as somebody wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `2026-11-28`, `2026-11-28T05:00:00Z`, `2026-11-28T06:00:00.5+01:00` (RFC 3339).
    At(UnixMillis),
    /// `10m`: so long ago.
    Ago(Duration),
}

/// The text is no point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a time: write 2026-11-28T05:00:00Z, 2026-11-28, or how long ago, such as 90s, 10m or 1h30m"
)]
pub struct BadMoment;

impl Moment {
    /// When that is, at `now`.
    #[must_use]
    pub fn at(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::At(time) => time,
            Self::Ago(span) => {
                let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                UnixMillis(now.0.saturating_sub(span))
            }
        }
    }
}

impl FromStr for Moment {
    type Err = BadMoment;

    fn from_str(text: &str) -> Result<Self, BadMoment> {
        let ago = || parse(text).map(Self::Ago);
        let moment = date_and_time(text).map(Self::At).or_else(ago);
        moment.ok_or(BadMoment)
    }
}

/// RFC 3339, and a date alone, which begins at midnight (UTC).
fn date_and_time(text: &str) -> Option<UnixMillis> {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, time),
        None => (text, "00:00:00Z"),
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (time, zone_minutes) = zoned(time)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    // A leap second is the first of the next minute.
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let is_date = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=month_days(year, month)).contains(&day);
    if !is_time || !is_date {
        return None;
    }
    let millis = scaled(&format!("0.{fraction}"), 1000)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    let local = i64::try_from(seconds * 1000 + millis).ok()?;
    let utc = local.checked_sub(zone_minutes * 60_000)?;
    u64::try_from(utc).ok().map(UnixMillis)
}

/// A time of day without its zone, and how many minutes that is ahead.
fn zoned(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix(['Z', 'z']) {
        return Some((time, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (time, zone) = time.split_at_checked(at)?;
    let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
    let ahead = i64::try_from(hours * 60 + minutes).ok()?;
    let is_zone = hours < 24 && minutes < 60;
    is_zone.then_some((time, if zone.starts_with('-') { -ahead } else { ahead }))
}

/// Numbers of so many digits each.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(between);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        let is_number = part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = is_number.then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(found)
}

const fn month_days(year: u64, month: u64) -> u64 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970-01-01 to a date after it (H. Hinnant, "chrono-compatible low-level date algorithms").
const fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = (year % 400) * 365 + (year % 400) / 4 - (year % 400) / 100 + day_of_year;
    year / 400 * 146_097 + day_of_era - 719_468
}

/// Reads a duration: `90s`, `10m`, `1h30m`, `7d`, `250ms`; a bare number counts seconds.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split_unit(rest);
        let unit_bytes = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_bytes)?;
        let unit_ms = match unit {
            "ms" => 1,
            "" | "s" => 1000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => MILLIS_PER_DAY,
            _ => return None,
        };
        total_ms = scaled(number, unit_ms).and_then(|part| total_ms.checked_add(part))?;
        rest = next;
    }
    Some(Duration::from_millis(total_ms))
}

/// Splits `1.5GiB` into `1.5` and `GiB`.
pub(crate) fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// A decimal number times `unit`, rounded down; in integers, so that `0.1` is what it says.
pub(crate) fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_number = !whole.is_empty()
        && whole
            .bytes()
            .chain(fraction.bytes())
            .all(|b| b.is_ascii_digit())
        && fraction.len() <= FRACTION_DIGITS_MAX
        && !number.ends_with('.');
    if !is_number {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?);
    let part = u128::from(format!("0{fraction}").parse::<u64>().ok()?);
    let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let unit = u128::from(unit);
    u64::try_from(whole * unit + part * unit / divisor).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> Option<u64> {
        match text.parse() {
            Ok(Moment::At(time)) => Some(time.0),
            Ok(Moment::Ago(_)) | Err(_) => None,
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, time) in [
            ("1970-01-01", 0),
            ("2000-02-29T00:00:00.000Z", 951_782_400_000),
            ("2027-01-15T08:00:00.123Z", 1_800_000_000_123),
            ("2027-01-15t09:30:00.1234+01:30", 1_800_000_000_123),
            ("2027-01-14 22:00:00.123-10:00", 1_800_000_000_123),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ] {
            assert_eq!(millis(text), Some(time), "{text}");
        }
    }

    /// Every day of four centuries follows from the one before it.
    #[test]
    fn each_day_is_one_after_the_one_before_it() {
        let mut expected = 0;
        for year in 1970..2370 {
            for month in 1..=12 {
                for day in 1..=month_days(year, month) {
                    assert_eq!(days(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn a_span_is_so_long_ago_and_never_before_1970() {
        let now = UnixMillis(10_000);
        for (text, time) in [("4s", 6_000), ("500ms", 9_500), ("1h", 0)] {
            let moment: Moment = text.parse().unwrap();
            assert_eq!(moment.at(now), UnixMillis(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2026-13-01",
            "2026-02-29",
            "2026-04-31",
            "2026-1-1",
            "1969-12-31",
            "2026-11-28T24:00:00Z",
            "2026-11-28T05:00Z",
            "2026-11-28T05:00:00",
            "2026-11-28T05:00:00.Z",
            "2026-11-28T05:00:00+24:00",
            "1970-01-01T00:00:00+01:00",
            "2026-11-28T05:00:00ZZ",
            "-5m",
        ] {
            assert_eq!(text.parse::<Moment>(), Err(BadMoment), "{text:?}");
        }
    }
}
