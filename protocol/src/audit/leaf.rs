//! The leaves of the audit trail: what is hashed, byte for byte.
//!
//! A leaf is a deterministic CBOR array (RFC 8949 §4.2.1) of seven: sequence number, time in milliseconds since 1970, name,
//! subject, actor, fields as JSON text, and the hash of the leaf before it (32 zero bytes for the first). Its hash is that of
//! a leaf in RFC 6962 §2.1, `SHA-256(0x00 ‖ leaf)`.

use super::tree::{Hash, leaf_hash};
use crate::cbor::CborError;
use crate::cbor::head::{
    ARRAY, BYTES, Reader, TEXT, UINT, put_array, put_bytes, put_text, put_uint,
};

/// The hash before the first leaf.
pub const NO_LEAF: Hash = [0; 32];

/// The longest leaf, in bytes. What the broker writes is bounded in characters, at most 9 KiB of four bytes each.
pub const LEAF_BYTES_MAX: usize = 40 * 1024;

/// One row of the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf<'a> {
    /// Its place, from zero.
    pub seq: u64,
    /// When, by the broker's clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// What happened: `host.enrolled`.
    pub name: &'a str,
    /// To whom or what.
    pub subject: &'a str,
    /// Who did it.
    pub actor: &'a str,
    /// More, as JSON text. Hashed as it stands, never written anew.
    pub fields: &'a str,
    /// The hash of the leaf before.
    pub prev: &'a Hash,
}

impl<'a> Leaf<'a> {
    /// The bytes that are hashed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let texts = [self.name, self.subject, self.actor, self.fields];
        let mut out =
            Vec::with_capacity(64 + texts.iter().map(|text| text.len() + 5).sum::<usize>());
        put_array(&mut out, 7);
        put_uint(&mut out, self.seq);
        put_uint(&mut out, self.time_ms);
        for text in texts {
            put_text(&mut out, text);
        }
        put_bytes(&mut out, self.prev);
        out
    }

    /// The leaf's hash.
    #[must_use]
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.to_bytes())
    }

    /// Reads the leaf at the front of `bytes`, with nothing copied; what is behind it comes back too.
    ///
    /// # Errors
    /// [`CborError`] if it is not the deterministic encoding of a leaf, longer than [`LEAF_BYTES_MAX`], or cut off: a reader that has
    /// less than that in hand tries again with more.
    pub fn split_from(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), CborError> {
        let mut reader = Reader::new(bytes);
        if reader.head(ARRAY)? != 7 {
            return Err(CborError::Malformed);
        }
        let leaf = Self {
            seq: reader.head(UINT)?,
            time_ms: reader.head(UINT)?,
            name: text(&mut reader)?,
            subject: text(&mut reader)?,
            actor: text(&mut reader)?,
            fields: text(&mut reader)?,
            prev: reader
                .string(BYTES)?
                .try_into()
                .map_err(|_| CborError::Malformed)?,
        };
        if bytes.len() - reader.rest().len() > LEAF_BYTES_MAX {
            return Err(CborError::TooLong);
        }
        Ok((leaf, reader.rest()))
    }

    /// Reads a leaf that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`CborError`] if it is anything else.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, CborError> {
        match Self::split_from(bytes)? {
            (leaf, []) => Ok(leaf),
            _ => Err(CborError::Malformed),
        }
    }
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, CborError> {
    std::str::from_utf8(reader.string(TEXT)?).map_err(|_| CborError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: Leaf<'_> = Leaf {
        seq: 300,
        time_ms: 1_700_000_000_000,
        name: "host.enrolled",
        subject: "edge-1",
        actor: "host:edge-1",
        fields: r#"{"generation":1}"#,
        prev: &[0xab; 32],
    };

    #[test]
    fn the_bytes_of_a_leaf_do_not_change() {
        let mut expected = vec![
            0x87, 0x19, 0x01, 0x2c, 0x1b, 0x00, 0x00, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00,
        ];
        expected.extend_from_slice(
            b"\x6dhost.enrolled\x66edge-1\x6bhost:edge-1\x70{\"generation\":1}\x58\x20",
        );
        expected.extend_from_slice(&[0xab; 32]);
        assert_eq!(LEAF.to_bytes(), expected);
    }

    #[test]
    fn every_part_of_a_leaf_changes_its_hash() {
        let others = [
            Leaf { seq: 301, ..LEAF },
            Leaf { time_ms: 1, ..LEAF },
            Leaf {
                name: "host.enrolle",
                subject: "dedge-1",
                ..LEAF
            },
            Leaf {
                subject: "edge-2",
                ..LEAF
            },
            Leaf { actor: "", ..LEAF },
            Leaf {
                fields: "{}",
                ..LEAF
            },
            Leaf {
                prev: &NO_LEAF,
                ..LEAF
            },
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(other.hash(), LEAF.hash(), "{index}");
        }
    }

    #[test]
    fn a_leaf_reads_back_and_no_shorter_longer_or_wider_form_does() {
        let bytes = LEAF.to_bytes();
        assert_eq!(Leaf::from_bytes(&bytes), Ok(LEAF));
        for end in 0..bytes.len() {
            assert!(Leaf::from_bytes(&bytes[..end]).is_err(), "{end}");
        }
        let two = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Leaf::from_bytes(&two), Err(CborError::Malformed));
        assert_eq!(Leaf::split_from(&two), Ok((LEAF, &[0][..])));
        let wide = [&[0x87, 0x1a, 0, 0, 1, 0x2c], &bytes[4..]].concat();
        assert_eq!(Leaf::from_bytes(&wide), Err(CborError::NotDeterministic));
        let long = "x".repeat(LEAF_BYTES_MAX);
        let long = Leaf {
            fields: &long,
            ..LEAF
        }
        .to_bytes();
        assert_eq!(Leaf::from_bytes(&long), Err(CborError::TooLong));
    }
}
