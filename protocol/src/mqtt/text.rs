//! Texts, topic names and topic filters: MQTT 5.0 §1.5.4 and §4.7.

use super::decode_error::DecodeError;

/// `bytes` as text, if it is UTF-8 without the code points that MQTT 5.0 §1.5.4 lets a receiver refuse: U+0000, the other
/// control characters, and the non-characters of Unicode. Nothing of ours needs them, and they make logs and filters lie.
#[inline]
pub(super) fn check(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = str::from_utf8(bytes).map_err(|_| DecodeError::BadText)?;
    // No early exit: this loop runs over many bytes at once. Nearly every text ends here.
    let plain = bytes
        .iter()
        .fold(true, |plain, byte| plain & (0x20..0x7F).contains(byte));
    if plain || text.chars().all(is_allowed) {
        Ok(text)
    } else {
        Err(DecodeError::BadText)
    }
}

fn is_allowed(c: char) -> bool {
    let non_character = matches!(c, '\u{FDD0}'..='\u{FDEF}') || u32::from(c) & 0xFFFE == 0xFFFE;
    !c.is_control() && !non_character
}

/// Refuses a topic name with a wildcard in it (MQTT 5.0 §3.3.2.1). Whether it may be empty depends on the packet.
#[inline]
pub(super) fn check_topic_name(topic: &str) -> Result<(), DecodeError> {
    let wildcard = topic
        .bytes()
        .fold(false, |found, byte| found | (byte == b'+') | (byte == b'#'));
    if wildcard {
        Err(DecodeError::TopicWildcard)
    } else {
        Ok(())
    }
}

/// Refuses an empty filter, a `#` that is not the whole last level, and a `+` that is not a whole level (MQTT 5.0 §4.7.1).
/// The inner form of `$share/…` is not looked at: whether to share at all is for the gate to say.
pub(super) fn check_topic_filter(filter: &str) -> Result<(), DecodeError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let whole = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['#', '+']),
        };
        if !whole {
            return Err(DecodeError::FilterInvalid);
        }
    }
    if filter.is_empty() {
        return Err(DecodeError::FilterInvalid);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_text_with_control_or_non_characters_is_refused() {
        for c in (0..0x20)
            .chain(0x7F..0xA0)
            .chain(0xFDD0..0xFDF0)
            .chain((0..=16).flat_map(|plane| [plane << 16 | 0xFFFE, plane << 16 | 0xFFFF]))
            .map(|code| char::from_u32(code).unwrap())
        {
            let text = format!("v1/{c}/events");
            assert_eq!(
                check(text.as_bytes()),
                Err(DecodeError::BadText),
                "U+{:04X}",
                u32::from(c)
            );
        }
    }

    #[test]
    fn mqtt_text_at_the_edges_of_what_is_refused_is_taken() {
        for text in [
            "",
            " ~",
            "\u{A0}",
            "\u{FDCF}\u{FDF0}",
            "\u{FFFD}\u{1_0000}",
            "é/x",
            "\u{FEFF}bom",
            "𝔘",
        ] {
            assert_eq!(check(text.as_bytes()), Ok(text));
        }
    }

    #[test]
    fn mqtt_bytes_that_are_not_utf_8_are_refused() {
        for bytes in [
            &[0xC0, 0x80][..],         // NUL, overlong
            &[0xE0, 0x80, 0xAF],       // slash, overlong
            &[0xED, 0xA0, 0x80],       // a surrogate
            &[0xF4, 0x90, 0x80, 0x80], // past U+10FFFF
            &[b'a', 0xFF],
            &[0xC3],
        ] {
            assert_eq!(check(bytes), Err(DecodeError::BadText), "{bytes:x?}");
        }
    }

    #[test]
    fn mqtt_wildcards_in_topic_names_are_refused() {
        for topic in ["#", "a/#", "+", "a/+/b", "a+", "a#b"] {
            assert_eq!(
                check_topic_name(topic),
                Err(DecodeError::TopicWildcard),
                "{topic}"
            );
        }
        assert_eq!(check_topic_name("v1/edge-1/build-7/events"), Ok(()));
    }

    #[test]
    fn mqtt_wildcards_are_whole_levels_of_a_filter() {
        for filter in [
            "#",
            "+",
            "a/#",
            "+/+",
            "a/+/b",
            "/",
            "//",
            "$share/g/a",
            "$share//x",
            "a/+/#",
        ] {
            assert_eq!(check_topic_filter(filter), Ok(()), "{filter}");
        }
        for filter in ["", "a#", "a/#/b", "#/", "+a", "a+", "a/b+/c", "##", "a/#b"] {
            assert_eq!(
                check_topic_filter(filter),
                Err(DecodeError::FilterInvalid),
                "{filter}"
            );
        }
    }
}
