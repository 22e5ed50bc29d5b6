//! Making a stranger's text safe to show: what a sandbox writes must not drive the reader's terminal.
//!
//! On a terminal a line keeps its newlines, tabs and colours; every other control is shown instead of obeyed: an escape as `^[`,
//! a C1 control or a change of writing direction as `\u{9b}`, a byte that is not UTF-8 as `\xff`. Each piece is judged by itself,
//! so a sequence cut in two is never put together again.

use std::fmt::Write as _;

/// The longest run of colour parameters that is let through, in bytes; the longest in use is about 20.
const COLOUR_BYTES_MAX: usize = 32;

/// Switches colours off, so that they do not run on into our own lines.
const RESET: &str = "\x1b[0m";

/// `bytes` as a terminal may show them, colours kept.
pub(crate) fn visible(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    let mut coloured = false;
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(c) = rest.chars().next() {
            let colour = if c == '\x1b' { colour(rest) } else { None };
            let taken = if let Some(sequence) = colour {
                coloured = true;
                shown.push_str(sequence);
                sequence.len()
            } else {
                let is_line_end = c == '\r' && matches!(rest.as_bytes().get(1), None | Some(b'\n'));
                if !is_line_end {
                    show(c, &mut shown);
                }
                c.len_utf8()
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        for byte in chunk.invalid() {
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    if coloured {
        shown.push_str(RESET);
    }
    shown
}

/// A stranger's text for one cell or one message: on one line, without colours.
pub(crate) fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' | '\r' => shown.push(' '),
            c => show(c, &mut shown),
        }
    }
    shown
}

/// JSON with the controls escaped that its own rules let through: they can stand in strings only.
pub(crate) fn json_safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unsafe(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn show(c: char, shown: &mut String) {
    match c {
        '\n' | '\t' => shown.push(c),
        '\0'..='\x1f' | '\x7f' => {
            shown.push('^');
            shown.push(char::from_u32(u32::from(c) ^ 0x40).unwrap_or('?'));
        }
        c if is_unsafe(c) => {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
        c => shown.push(c),
    }
}

/// Controls of ASCII and Latin-1, and the marks that turn the writing direction, with which a text shows as another.
fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The colour sequence (SGR, ECMA-48 §8.3.117) at the front of `text`, whole, if there is one.
fn colour(text: &str) -> Option<&str> {
    let parameters = text.strip_prefix("\x1b[")?;
    let length = parameters
        .bytes()
        .take(COLOUR_BYTES_MAX)
        .position(|b| !matches!(b, b'0'..=b'9' | b';' | b':'))?;
    if parameters.as_bytes().get(length) != Some(&b'm') {
        return None;
    }
    text.get(..length + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tabs_and_colours_stay() {
        assert_eq!(visible(b"a\tb\n"), "a\tb\n");
        assert_eq!(visible("naïve ✓".as_bytes()), "naïve ✓");
        assert_eq!(
            visible(b"\x1b[1;31mred\x1b[0m!"),
            "\x1b[1;31mred\x1b[0m!\x1b[0m"
        );
    }

    #[test]
    fn colours_do_not_run_on() {
        assert!(visible(b"\x1b[8mhidden").ends_with(RESET));
    }

    #[test]
    fn nothing_else_reaches_the_terminal_as_a_control() {
        for (bytes, shown) in [
            (&b"\x1b]0;title\x07"[..], "^[]0;title^G"),
            (b"\x1b[2J\x1b[H", "^[[2J^[[H"),
            (b"\x1b[6n", "^[[6n"),
            (b"\x1bc", "^[c"),
            (b"safe\rfake", "safe^Mfake"),
            (b"\x08\x7f", "^H^?"),
            ("\u{9b}2J".as_bytes(), "\\u{9b}2J"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
            (b"\x9b2J", "\\x9b2J"),
            (b"\x1b[", "^[["),
            (b"\x1b[1;", "^[[1;"),
        ] {
            assert_eq!(visible(bytes), shown, "{bytes:?}");
        }
    }

    #[test]
    fn no_byte_and_no_pair_of_bytes_escapes_unless_it_is_a_colour() {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                let shown = visible(&[0x1b, first, second]);
                let is_safe = shown
                    .chars()
                    .all(|c| matches!(c, '\n' | '\t') || !is_unsafe(c));
                assert!(
                    is_safe || [first, second] == *b"[m",
                    "{first:02x} {second:02x}"
                );
            }
        }
    }

    #[test]
    fn a_carriage_return_that_ends_a_line_is_just_dropped() {
        assert_eq!(visible(b"dos\r\n"), "dos\n");
        assert_eq!(visible(b"dos\r"), "dos");
    }

    #[test]
    fn a_cell_has_one_line_and_no_colour() {
        assert_eq!(one_line("a\nb\x1b[31mc"), "a b^[[31mc");
    }

    #[test]
    fn json_stays_json_and_carries_no_control() {
        let json = serde_json::json!({ "data": "a\u{9b}\u{202e}\n" }).to_string();
        let safe = json_safe(&json);
        assert!(!safe.contains('\u{9b}') && !safe.contains('\u{202e}'));
        let read: serde_json::Value = serde_json::from_str(&safe).unwrap();
        assert_eq!(read["data"], "a\u{9b}\u{202e}\n");
    }
}
