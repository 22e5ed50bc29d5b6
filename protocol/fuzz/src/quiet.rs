//! Errors say what was wrong, and nothing of the bytes that were.

use std::error::Error;

/// The longest error text. A log line holds it, and a person reads it.
const TEXT_BYTES_MAX: usize = 128;
/// Room for a kind and two numbers.
const ERROR_BYTES_MAX: usize = 32;

/// Checks that an error is short, printable and without room for a stranger's words: `Copy` and `'static` rule out all but a few
/// bytes by value.
pub fn check<E: Error + Copy + 'static>(error: E) {
    const { assert!(size_of::<E>() <= ERROR_BYTES_MAX) };
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() <= TEXT_BYTES_MAX);
    assert!(
        text.chars()
            .all(|c| c == '…' || c == ' ' || c.is_ascii_graphic())
    );
}
