//! Ed25519 keys, one type for each role, so that a host's key cannot stand where an issuer's belongs.
//!
//! Secrets are wiped on drop (`ed25519-dalek` does it), never printed, never compared. Public keys of small order are refused when
//! read, and every check is `verify_strict` (RFC 8032 §5.1.7 with the checks of the "Taming the many EdDSAs" paper).

use std::{fmt, marker::PhantomData};

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::id::{hex, unhex};

/// Who a key belongs to, and how its text form starts.
pub trait Role {
    /// The prefix of the public key's text form; the secret's is the same with `_secret`.
    const PREFIX: &'static str;
}

macro_rules! role {
    ($(#[$meta:meta])* $name:ident, $prefix:literal) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub enum $name {}
        impl Role for $name {
            const PREFIX: &'static str = $prefix;
        }
    };
}

role!(
    /// Signs commands; kept by a person or a program, never by the broker.
    Dispatcher,
    "ohd1"
);
role!(
    /// Signs connection tokens; kept by the broker.
    Issuer,
    "ohi1"
);
role!(
    /// Signs checkpoints of the audit trail; kept by the broker.
    Audit,
    "oha1"
);
role!(
    /// A host's: possession, its sandboxes' tokens, its reports.
    Host,
    "ohh1"
);
role!(
    /// A sandbox's: possession and batch heads; lives in the shim's memory.
    Sandbox,
    "ohs1"
);
role!(
    /// The key that a token's `cnf` names, whoever holds it: good for checking possession only.
    Holder,
    "ohp1"
);

/// Why a key was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    /// Not a point of the curve, or not its text form.
    #[error("not a key of this kind")]
    Malformed,
    /// A key of small order, for which signatures prove nothing.
    #[error("a weak key")]
    Weak,
}

/// A signature did not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// The first 8 bytes of a key's thumbprint: a hint to find it by, never a proof.
pub type KeyId = [u8; 8];

/// A secret key.
pub struct Secret<R> {
    key: SigningKey,
    role: PhantomData<fn() -> R>,
}

impl<R: Role> Secret<R> {
    /// Makes a key from 32 bytes of the system's generator.
    #[must_use]
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Self {
        Self {
            key: SigningKey::from_bytes(seed),
            role: PhantomData,
        }
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> Public<R> {
        Public::of(self.key.verifying_key())
    }

    /// Signs `message` as it stands. Callers in this crate wrap it in a `Sig_structure` or a possession challenge first.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// The text that a key file holds.
    #[must_use]
    pub fn to_file_text(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.key.to_bytes());
        let digits = Zeroizing::new(hex(&*seed));
        Zeroizing::new(format!("{}_secret_{}\n", R::PREFIX, *digits))
    }

    /// Reads a key file's text.
    ///
    /// # Errors
    /// [`BadKey::Malformed`] if it is not a secret key of this role.
    pub fn from_file_text(text: &str) -> Result<Self, BadKey> {
        let digits = text
            .trim()
            .strip_prefix(R::PREFIX)
            .and_then(|rest| rest.strip_prefix("_secret_"))
            .ok_or(BadKey::Malformed)?;
        let seed = unhex(digits).map(Zeroizing::new).ok_or(BadKey::Malformed)?;
        Ok(Self::from_seed(&seed))
    }
}

impl<R: Role> fmt::Debug for Secret<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_secret_(redacted)", R::PREFIX)
    }
}

/// A public key, known not to be weak.
pub struct Public<R> {
    key: VerifyingKey,
    role: PhantomData<fn() -> R>,
}

impl<R: Role> Public<R> {
    fn of(key: VerifyingKey) -> Self {
        Self {
            key,
            role: PhantomData,
        }
    }

    /// Reads 32 bytes (RFC 8032 §5.1.3).
    ///
    /// # Errors
    /// [`BadKey`] if they are not a point of the curve in its one encoding, or one of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, BadKey> {
        if !is_canonical(bytes) {
            return Err(BadKey::Malformed);
        }
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| BadKey::Malformed)?;
        if key.is_weak() {
            return Err(BadKey::Weak);
        }
        Ok(Self::of(key))
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// RFC 9679 thumbprint: SHA-256 of the deterministic `COSE_Key` `{1: 1, -1: 6, -2: x}`.
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update([0xa3, 0x01, 0x01, 0x20, 0x06, 0x21, 0x58, 0x20]);
        hash.update(self.as_bytes());
        hash.finalize().into()
    }

    /// The first 8 bytes of the thumbprint.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let [a, b, c, d, e, f, g, h, ..] = self.thumbprint();
        [a, b, c, d, e, f, g, h]
    }

    /// The same key, where only possession is to be checked.
    #[must_use]
    pub fn as_holder(&self) -> Public<Holder> {
        Public::of(self.key)
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        self.key
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| BadSignature)
    }
}

impl Public<Holder> {
    /// The key as a host's. The caller has checked that the token is a host's.
    #[must_use]
    pub fn as_host(&self) -> Public<Host> {
        Public::of(self.key)
    }
}

impl<R> Clone for Public<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Public<R> {}

impl<R> PartialEq for Public<R> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl<R> Eq for Public<R> {}

impl<R: Role> fmt::Display for Public<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", R::PREFIX, hex(self.as_bytes()))
    }
}

impl<R: Role> fmt::Debug for Public<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<R: Role> std::str::FromStr for Public<R> {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        let digits = text
            .trim()
            .strip_prefix(R::PREFIX)
            .and_then(|rest| rest.strip_prefix('_'))
            .ok_or(BadKey::Malformed)?;
        Self::from_bytes(&unhex(digits).ok_or(BadKey::Malformed)?)
    }
}

impl<R: Role> Serialize for Public<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_bytes())
    }
}

impl<'de, R: Role> Deserialize<'de> for Public<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteArray::<32>::deserialize(deserializer)?;
        Self::from_bytes(&bytes).map_err(D::Error::custom)
    }
}

/// Whether y is below p = 2^255 − 19, as RFC 8032 §5.1.3 has it and the library does not ask. The last bit is the sign of x.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let [first, middle @ .., last] = bytes;
    last & 0x7f != 0x7f || *first < 0xed || middle.iter().any(|byte| *byte != 0xff)
}

#[cfg(test)]
pub(crate) fn seeded<R: Role>(byte: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_the_one_of_the_worked_example() {
        let host = seeded::<Host>(0x0c).public();
        assert_eq!(
            hex(&host.thumbprint()),
            "fca054954b865e6c87eae3b20b5198588f145198062803319b12cd3d84ce7450"
        );
    }

    #[test]
    fn a_key_file_of_another_role_is_refused() {
        let text = seeded::<Dispatcher>(1).to_file_text();
        assert!(Secret::<Dispatcher>::from_file_text(&text).is_ok());
        assert_eq!(
            Secret::<Host>::from_file_text(&text).err(),
            Some(BadKey::Malformed)
        );
    }

    #[test]
    fn a_weak_key_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(
            Public::<Host>::from_bytes(&identity).err(),
            Some(BadKey::Weak)
        );
    }

    #[test]
    fn a_key_has_one_encoding() {
        // y = p + 3, which is y = 3 once more, and a point of the curve.
        let mut three = [0; 32];
        three[0] = 3;
        assert!(Public::<Host>::from_bytes(&three).is_ok());
        let mut again = [0xff; 32];
        (again[0], again[31]) = (0xf0, 0x7f);
        assert!(
            VerifyingKey::from_bytes(&again).is_ok(),
            "the library takes it"
        );
        assert_eq!(
            Public::<Host>::from_bytes(&again).err(),
            Some(BadKey::Malformed)
        );
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = seeded::<Host>(7);
        assert_eq!(format!("{secret:?}"), "ohh1_secret_(redacted)");
    }

    #[test]
    fn public_keys_round_trip_as_text() {
        let key = seeded::<Dispatcher>(3).public();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert!(key.to_string().parse::<Public<Host>>().is_err());
    }
}
