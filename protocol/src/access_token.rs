//! Access tokens: `oat1_<kid>_<secret>_<check>`, what a person or a program shows over HTTPS to use the control plane.
//!
//! Apart from reader tokens (`ort1_…`), since they open another door: one that may change things. A secret scanner tells the two
//! apart, and neither opens what is the other's. A bearer secret too, so it ends, can be taken away, is off unless the broker's owner
//! turns it on, and starts nothing by itself: hosts obey dispatcher keys, which no token replaces. Only the kid and the SHA-256 of the
//! secret are ever stored: at 256 bits a slow hash buys nothing.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::secret_text;

const PREFIX: &str = "oat1";

/// The longest text form, in bytes.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 67;

/// What a person or a program shows. Wiped on drop, never printed but by [`AccessToken::to_text`].
pub struct AccessToken {
    /// Which token it is; no secret.
    pub kid: [u8; 8],
    secret: Zeroizing<[u8; 32]>,
}

/// The text is not an access token, or was not copied whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an access token (oat1_…), or not copied whole")]
pub struct BadAccessToken;

impl AccessToken {
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
    /// [`BadAccessToken`], which says nothing of the text.
    pub fn from_text(text: &str) -> Result<Self, BadAccessToken> {
        let (kid, secret) = secret_text::read(PREFIX, text).ok_or(BadAccessToken)?;
        Ok(Self { kid, secret })
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("oat1_(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader_token::ReaderToken;

    #[test]
    fn tokens_round_trip_and_do_not_print() {
        for byte in [0, 1, 0x7f, 0xff] {
            let token = AccessToken::new([byte; 8], Zeroizing::new([byte; 32]));
            let text = token.to_text();
            assert_eq!(text.len(), ACCESS_TOKEN_BYTES_MAX);
            let read = AccessToken::from_text(&format!("{}\n", *text)).unwrap();
            assert_eq!((read.kid, read.hash()), ([byte; 8], token.hash()));
            assert_eq!(format!("{token:?}"), "oat1_(redacted)");
        }
    }

    #[test]
    fn a_readers_token_is_no_access_token_nor_the_other_way_round() {
        let reader = ReaderToken::new([1; 8], Zeroizing::new([2; 32])).to_text();
        assert!(AccessToken::from_text(&reader).is_err());
        let access = AccessToken::new([1; 8], Zeroizing::new([2; 32])).to_text();
        assert!(ReaderToken::from_text(&access).is_err());
    }
}
