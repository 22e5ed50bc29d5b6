//! Sizes and times as people write them: a whole number and a unit.

/// Reads a size such as `512MiB` or `2GiB`, in bytes. Powers of two, so the units say so.
#[must_use]
pub fn bytes(text: &str) -> Option<u64> {
    scaled(
        text,
        &[
            ("TiB", 1 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
            ("B", 1),
        ],
    )
}

/// Reads a time such as `90s`, `30m`, `24h` or `7d`, in seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    scaled(text, &[("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)])
}

/// Reads a number of processors such as `1.5`, in thousandths.
#[must_use]
pub fn cpu_millis(cpus: f64) -> Option<u64> {
    /// More than any host has.
    const CPUS_MAX: f64 = 65_536.0;
    if !(0.001..=CPUS_MAX).contains(&cpus) {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 65 536 000, by the check above"
    )]
    Some((cpus * 1000.0).round() as u64)
}

/// Writes a size in the largest unit that it is a whole number of.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    for (unit, scale) in [
        ("TiB", 1_u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ] {
        if bytes >= scale && bytes.is_multiple_of(scale) {
            return format!("{} {unit}", bytes / scale);
        }
    }
    format!("{bytes} B")
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?.trim_end(), scale)))?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(*scale)
        .filter(|value| *value > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_their_unit_only() {
        for (text, value) in [
            ("2GiB", Some(2 << 30)),
            ("512 MiB", Some(512 << 20)),
            ("1B", Some(1)),
            ("2GB", None),
            ("2", None),
            ("0GiB", None),
            ("-1GiB", None),
            ("+1GiB", None),
            ("1.5GiB", None),
            ("GiB", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(bytes(text), value, "{text}");
        }
        for (text, value) in [
            ("24h", Some(86_400)),
            ("90s", Some(90)),
            ("2d", Some(172_800)),
            ("5 m", Some(300)),
            ("24", None),
            ("h", None),
        ] {
            assert_eq!(seconds(text), value, "{text}");
        }
    }

    #[test]
    fn processors_are_read_in_thousandths() {
        assert_eq!(cpu_millis(1.5), Some(1500));
        assert_eq!(cpu_millis(0.29), Some(290));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert_eq!(cpu_millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_size_is_shown_as_it_would_be_written() {
        assert_eq!(show_bytes(2 << 30), "2 GiB");
        assert_eq!(show_bytes((1 << 30) + 1), "1073741825 B");
    }
}
