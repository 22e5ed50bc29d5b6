//! Install keys: `ohk1_<kid>_<secret>_<check>`, single use, shown once.
//!
//! The prefix is for secret scanners, the check catches a bad copy before it costs an attempt. Only the kid and the SHA-256 of the
//! secret are ever stored: at 256 bits a slow hash buys nothing.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteArray;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::secret_text;

const PREFIX: &str = "ohk1";

/// A key that enrols one host, once. Wiped on drop, never printed but by [`InstallKey::to_text`].
pub struct InstallKey {
    /// Which key it is; no secret.
    pub kid: [u8; 8],
    secret: InstallSecret,
}

/// What redeems an install key: 32 bytes that are wiped on drop, not printed, and compared in constant time.
#[derive(Clone)]
pub struct InstallSecret(Zeroizing<[u8; 32]>);

/// The text is not an install key, or was not copied whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an install key (ohk1_…), or not copied whole")]
pub struct BadInstallKey;

impl InstallKey {
    /// A key of bytes from the system's generator.
    #[must_use]
    pub fn new(kid: [u8; 8], secret: Zeroizing<[u8; 32]>) -> Self {
        Self {
            kid,
            secret: InstallSecret(secret),
        }
    }

    /// The secret, for the request that redeems it.
    #[must_use]
    pub fn secret(&self) -> &InstallSecret {
        &self.secret
    }

    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        secret_text::write(PREFIX, &self.kid, &self.secret.0)
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// [`BadInstallKey`], which says nothing of the text.
    pub fn from_text(text: &str) -> Result<Self, BadInstallKey> {
        let (kid, secret) = secret_text::read(PREFIX, text).ok_or(BadInstallKey)?;
        Ok(Self::new(kid, secret))
    }
}

impl fmt::Debug for InstallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ohk1_(redacted)")
    }
}

impl InstallSecret {
    /// Its SHA-256: what the broker stores.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(*self.0).into()
    }
}

impl fmt::Debug for InstallSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl PartialEq for InstallSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for InstallSecret {}

impl Serialize for InstallSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&*self.0)
    }
}

impl<'de> Deserialize<'de> for InstallSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = ByteArray::<32>::deserialize(deserializer)?;
        Ok(Self(Zeroizing::new(bytes.into_array())))
    }
}

/// What audit rows show of a key: 8 bytes of the hash of its hash, in hexadecimal, which find it and open nothing.
#[must_use]
pub fn fingerprint(secret_hash: &[u8; 32]) -> String {
    let hash: [u8; 32] = Sha256::digest(secret_hash).into();
    crate::id::hex(hash.first_chunk::<8>().unwrap_or(&[0; 8]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> InstallKey {
        InstallKey::new([byte; 8], Zeroizing::new([byte; 32]))
    }

    #[test]
    fn keys_round_trip_at_their_full_range() {
        for byte in [0, 1, 0x7f, 0xff] {
            let text = key(byte).to_text();
            assert_eq!(text.len(), 4 + 1 + 11 + 1 + 43 + 1 + 6);
            let read = InstallKey::from_text(&format!(" {}\n", *text)).unwrap();
            assert_eq!(read.kid, [byte; 8]);
            assert_eq!(read.secret(), key(byte).secret());
        }
    }

    #[test]
    fn a_bad_copy_is_refused() {
        let text = key(9).to_text();
        for index in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'a' { b'b' } else { b'a' };
            assert!(
                InstallKey::from_text(std::str::from_utf8(&bytes).unwrap()).is_err(),
                "{index}"
            );
            assert!(InstallKey::from_text(&text[..index]).is_err());
        }
        assert!(InstallKey::from_text("").is_err());
    }

    #[test]
    fn a_key_does_not_print_and_its_fingerprint_is_not_its_hash() {
        assert_eq!(format!("{:?}", key(1)), "ohk1_(redacted)");
        let hash = key(1).secret().hash();
        assert!(!crate::id::hex(&hash).contains(&fingerprint(&hash)));
    }
}
