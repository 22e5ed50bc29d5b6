//! The heads of CBOR items (RFC 8949 §3), read strictly and written shortest: all that the COSE envelope needs, with nothing
//! allocated and nothing copied.

/// Major type 0, an unsigned integer.
const UINT: u8 = 0;
/// Major type 2, a byte string.
const BYTES: u8 = 2;
/// Major type 3, a text string.
const TEXT: u8 = 3;
/// Major type 4, an array.
const ARRAY: u8 = 4;
/// Major type 5, a map.
const MAP: u8 = 5;

/// Reads items from the front of a slice. `None` means: not the shortest definite form of what was asked for.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn uint(&mut self) -> Option<u64> {
        self.head(UINT)
    }

    pub(crate) fn array(&mut self) -> Option<u64> {
        self.head(ARRAY)
    }

    pub(crate) fn map(&mut self) -> Option<u64> {
        self.head(MAP)
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.head(BYTES)?;
        self.take(length)
    }

    fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn head(&mut self, major: u8) -> Option<u64> {
        let (first, rest) = self.rest.split_first()?;
        if first >> 5 != major {
            return None;
        }
        let low = first & 0x1f;
        self.rest = rest;
        let (value, least) = match low {
            0..=23 => return Some(u64::from(low)),
            24 => (self.big_endian(1)?, 24),
            25 => (self.big_endian(2)?, 1 << 8),
            26 => (self.big_endian(4)?, 1 << 16),
            27 => (self.big_endian(8)?, 1 << 32),
            _ => return None,
        };
        (value >= least).then_some(value)
    }

    fn big_endian(&mut self, width: u64) -> Option<u64> {
        let bytes = self.take(width)?;
        Some(
            bytes
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        )
    }
}

/// Appends an unsigned integer.
pub(crate) fn put_uint(out: &mut Vec<u8>, value: u64) {
    put_head(out, UINT, value);
}

/// Appends the head of an array of `count` items.
pub(crate) fn put_array(out: &mut Vec<u8>, count: usize) {
    put_head(out, ARRAY, count as u64);
}

/// Appends the head of a map of `count` pairs.
pub(crate) fn put_map(out: &mut Vec<u8>, count: usize) {
    put_head(out, MAP, count as u64);
}

/// Appends a byte string.
pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_head(out, BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a text string.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
    let [b0, b1, b2, b3, b4, b5, b6, b7] = value.to_be_bytes();
    let major = major << 5;
    match value {
        0..=23 => out.push(major | b7),
        24..=0xff => out.extend([major | 24, b7]),
        0x100..=0xffff => out.extend([major | 25, b6, b7]),
        0x1_0000..=0xffff_ffff => out.extend([major | 26, b4, b5, b6, b7]),
        _ => out.extend([major | 27, b0, b1, b2, b3, b4, b5, b6, b7]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_round_trip_at_every_width() {
        for value in [
            0,
            23,
            24,
            255,
            256,
            65_535,
            65_536,
            u64::from(u32::MAX),
            1 << 32,
            u64::MAX,
        ] {
            let mut out = Vec::new();
            put_uint(&mut out, value);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.uint(), Some(value));
            assert!(reader.rest().is_empty());
        }
    }

    #[test]
    fn a_head_longer_than_needed_is_refused() {
        for bytes in [
            &[0x18, 23][..],
            &[0x19, 0, 255],
            &[0x1a, 0, 0, 255, 255],
            &[0x1b, 0, 0, 0, 0, 255, 255, 255, 255],
            &[0x1f],
        ] {
            assert_eq!(Reader::new(bytes).uint(), None);
        }
    }

    #[test]
    fn a_length_past_the_end_is_refused_without_allocation() {
        assert_eq!(
            Reader::new(&[0x5b, 0x40, 0, 0, 0, 0, 0, 0, 0]).bytes(),
            None
        );
        assert_eq!(Reader::new(&[0x42, 1]).bytes(), None);
    }
}
