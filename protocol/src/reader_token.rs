//! Reader tokens: `ort1_<kid>_<secret>_<check>`, what a reader or a bench principal shows as its MQTT password, or over HTTPS as
//! its bearer token.
//!
//! A bearer secret, unlike everything that hosts and sandboxes hold: ordinary MQTT clients cannot prove possession of a key. So it
//! opens nothing but reading (and load tests), ends, can be taken away, and is off unless the broker's owner turns it on. Only the
//! kid and the SHA-256 of the secret are ever stored: at 256 bits a slow hash buys nothing.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::secret_text;

const PREFIX: &str = "ort1";

/// The longest text form, in bytes.
pub const READER_TOKEN_BYTES_MAX: usize = 67;

/// What a reader shows. Wiped on drop, never printed but by [`ReaderToken::to_text`].
pub struct ReaderToken {
    /// Which token it is; no secret.
    pub kid: [u8; 8],
    secret: Zeroizing<[u8; 32]>,
}

/// The text is not a reader token, or was not copied whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a reader token (ort1_…), or not copied whole")]
pub struct BadReaderToken;

impl ReaderToken {
    /// A token of bytes from the system's generator.
    #[must_use]
    pub const fn new(kid: [u8; 8], secret: Zeroizing<[u8; 32]>) -> Self {
        Self { kid, secret }
    }

    /// The SHA-256 of the secret: what the broker stores, and compares in constant time.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(*self.secret).into()
    }

    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        secret_text::write(PREFIX, &self.kid, &self.secret)
    }

    /// Reads the text form; white space around it is ignored, since files end in a line feed.
    ///
    /// # Errors
    /// [`BadReaderToken`], which says nothing of the text.
    pub fn from_text(text: &str) -> Result<Self, BadReaderToken> {
        let (kid, secret) = secret_text::read(PREFIX, text).ok_or(BadReaderToken)?;
        Ok(Self { kid, secret })
    }
}

impl fmt::Debug for ReaderToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ort1_(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_do_not_print() {
        for byte in [0, 1, 0x7f, 0xff] {
            let token = ReaderToken::new([byte; 8], Zeroizing::new([byte; 32]));
            let text = token.to_text();
            assert_eq!(text.len(), READER_TOKEN_BYTES_MAX);
            let read = ReaderToken::from_text(&format!("{}\n", *text)).unwrap();
            assert_eq!((read.kid, read.hash()), ([byte; 8], token.hash()));
            assert_eq!(format!("{token:?}"), "ort1_(redacted)");
        }
    }

    #[test]
    fn a_bad_copy_is_refused() {
        let text = ReaderToken::new([9; 8], Zeroizing::new([9; 32])).to_text();
        for index in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'a' { b'b' } else { b'a' };
            assert!(ReaderToken::from_text(std::str::from_utf8(&bytes).unwrap()).is_err());
            assert!(ReaderToken::from_text(&text[..index]).is_err());
        }
    }
}
