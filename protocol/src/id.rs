//! Names of things, checked when made: a value of these types is safe in a topic, a path and a label.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::limits::ID_BYTES_MAX;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 64 of a-z, 0-9 and '-'")]
pub struct BadId;

/// Whether `text` is `[a-z0-9-]{1,64}`.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Checks and keeps a name.
            ///
            /// # Errors
            /// [`BadId`] if it is not `[a-z0-9-]{1,64}`.
            pub fn new(text: &str) -> Result<Self, BadId> {
                if is_id(text) { Ok(Self(text.to_owned())) } else { Err(BadId) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Self::new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                if is_id(&text) { Ok(Self(text)) } else { Err(D::Error::custom(BadId)) }
            }
        }
    };
}

id!(
    /// A machine or namespace where sandboxes run.
    HostId
);
id!(
    /// One container or pod doing one piece of agent work. Unique on its host, for ever.
    SandboxId
);
id!(
    /// A person or program that may read, as the broker's owner calls it.
    ReaderName
);
id!(
    /// A person or program with an access token, as the broker's owner calls it.
    AccessName
);
id!(
    /// A read-only directory on the host that its owner's policy lists.
    SourceName
);
id!(
    /// One key, one sandbox at a time.
    IsolationKey
);

/// 16 random bytes that name a command, for replay checks and as correlation id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub [u8; 16]);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for CommandId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for CommandId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<16>::deserialize(deserializer)
            .map(|bytes| Self(bytes.into_array()))
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads exactly `N` bytes of lower- or upper-case hexadecimal.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_place_is_refused() {
        for bad in [
            "",
            "a/b",
            "A",
            "a_b",
            "é",
            "..",
            "a b",
            "a\0",
            "+",
            "#",
            "$SYS",
            &"a".repeat(65),
        ] {
            assert_eq!(HostId::new(bad), Err(BadId), "{bad:?}");
        }
        for good in ["a", "edge-1", "0", &"a".repeat(64)] {
            assert_eq!(
                HostId::new(good).map(|id| id.to_string()).as_deref(),
                Ok(good)
            );
        }
    }

    #[test]
    fn hexadecimal_round_trips_and_refuses_signs() {
        assert_eq!(unhex::<2>(&hex(&[0, 255])), Some([0, 255]));
        for bad in ["", "0", "+f00", "00 0", "zz00", "0000 "] {
            assert_eq!(unhex::<2>(bad), None, "{bad:?}");
        }
    }
}
