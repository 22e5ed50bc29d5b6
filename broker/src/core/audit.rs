//! The leaves of the audit trail: what is hashed, byte for byte.
//!
//! A leaf is a deterministic CBOR array (RFC 8949 §4.2.1) of seven: sequence number, time in milliseconds since 1970, name,
//! subject, actor, fields as JSON text, and the hash of the leaf before it (32 zero bytes for the first). Its hash is that of
//! a leaf in RFC 6962 §2.1, `SHA-256(0x00 ‖ leaf)`, so a Merkle tree over the same leaves needs nothing hashed anew.

use sha2::{Digest as _, Sha256};

/// The hash before the first leaf.
pub const NO_LEAF: [u8; 32] = [0; 32];

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
    pub prev: &'a [u8; 32],
}

impl Leaf<'_> {
    /// The bytes that are hashed.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let texts = [self.name, self.subject, self.actor, self.fields];
        let mut out =
            Vec::with_capacity(64 + texts.iter().map(|text| text.len() + 5).sum::<usize>());
        head(&mut out, 4, 7);
        head(&mut out, 0, self.seq);
        head(&mut out, 0, self.time_ms);
        for text in texts {
            head(&mut out, 3, length(text.len()));
            out.extend_from_slice(text.as_bytes());
        }
        head(&mut out, 2, length(self.prev.len()));
        out.extend_from_slice(self.prev);
        out
    }

    /// The leaf's hash.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::new()
            .chain_update([0])
            .chain_update(self.to_bytes())
            .finalize()
            .into()
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A CBOR head of the major type `major`, as short as its value allows.
fn head(out: &mut Vec<u8>, major: u8, value: u64) {
    let major = major << 5;
    if let Ok(byte) = u8::try_from(value) {
        if byte >= 24 {
            out.push(major | 24);
            out.push(byte);
        } else {
            out.push(major | byte);
        }
    } else if let Ok(short) = u16::try_from(value) {
        out.push(major | 25);
        out.extend_from_slice(&short.to_be_bytes());
    } else if let Ok(word) = u32::try_from(value) {
        out.push(major | 26);
        out.extend_from_slice(&word.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend_from_slice(&value.to_be_bytes());
    }
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
    fn heads_are_as_short_as_rfc_8949_wants_them() {
        let cases: [(u64, &[u8]); 8] = [
            (0, &[0x00]),
            (23, &[0x17]),
            (24, &[0x18, 24]),
            (255, &[0x18, 0xff]),
            (256, &[0x19, 1, 0]),
            (65_536, &[0x1a, 0, 1, 0, 0]),
            (u64::from(u32::MAX), &[0x1a, 0xff, 0xff, 0xff, 0xff]),
            (1 << 32, &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (value, expected) in cases {
            let mut out = Vec::new();
            head(&mut out, 0, value);
            assert_eq!(out, expected);
        }
    }
}
