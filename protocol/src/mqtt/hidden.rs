//! Bytes whose length may be printed and whose content may not: tokens, proofs, payloads.

use std::fmt;

/// Prints as `<72 bytes>`.
pub(super) struct Hidden<'a>(pub(super) &'a [u8]);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}
