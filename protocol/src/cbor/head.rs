//! The heads of CBOR items (RFC 8949 §3), read strictly and written shortest, with nothing allocated and nothing copied.

use super::CborError;
use crate::limits::MAP_PAIRS_MAX;

/// Major type 0, an unsigned integer.
pub(crate) const UINT: u8 = 0;
/// Major type 1, a negative integer: the argument is −1 − n.
pub(crate) const NEGATIVE: u8 = 1;
/// Major type 2, a byte string.
pub(crate) const BYTES: u8 = 2;
/// Major type 3, a text string.
pub(crate) const TEXT: u8 = 3;
/// Major type 4, an array.
pub(crate) const ARRAY: u8 = 4;
/// Major type 5, a map.
pub(crate) const MAP: u8 = 5;

/// `false`, whole.
pub(crate) const FALSE: u8 = 0xf4;
/// `true`, whole.
pub(crate) const TRUE: u8 = 0xf5;
/// `null`, whole.
pub(crate) const NULL: u8 = 0xf6;

/// Reads items from the front of a slice. `None` means: not the shortest definite form of what was asked for.
#[derive(Clone, Copy, Debug)]
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
        self.head(UINT).ok()
    }

    pub(crate) fn array(&mut self) -> Option<u64> {
        self.head(ARRAY).ok()
    }

    pub(crate) fn map(&mut self) -> Option<u64> {
        self.head(MAP).ok()
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        self.string(BYTES).ok()
    }

    /// The byte that the next item starts with.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Reads the head of an item of type `major` and gives its argument.
    pub(crate) fn head(&mut self, major: u8) -> Result<u64, CborError> {
        let first = self.take(1)?.first().copied().unwrap_or_default();
        if first >> 5 != major {
            return Err(CborError::Malformed);
        }
        let (value, least) = match first & 0x1f {
            low @ 0..=23 => return Ok(u64::from(low)),
            24 => (self.big_endian(1)?, 24),
            25 => (self.big_endian(2)?, 1 << 8),
            26 => (self.big_endian(4)?, 1 << 16),
            27 => (self.big_endian(8)?, 1 << 32),
            // Indefinite length is CBOR, and never ours; 28 to 30 are not CBOR (RFC 8949 §3).
            31 if (BYTES..=MAP).contains(&major) => return Err(CborError::NotDeterministic),
            _ => return Err(CborError::Malformed),
        };
        if value < least {
            return Err(CborError::NotDeterministic);
        }
        Ok(value)
    }

    /// Reads a whole string of type `major`, [`BYTES`] or [`TEXT`].
    pub(crate) fn string(&mut self, major: u8) -> Result<&'a [u8], CborError> {
        let length = self.head(major)?;
        self.take(length)
    }

    /// Reads past one value that is none of our business, strictly all the same.
    pub(crate) fn skip(&mut self, depth: usize) -> Result<(), CborError> {
        let first = self.peek().ok_or(CborError::Malformed)?;
        let inside = || depth.checked_sub(1).ok_or(CborError::Malformed);
        match first >> 5 {
            major @ (UINT | NEGATIVE) => self.head(major).map(drop),
            BYTES => self.string(BYTES).map(drop),
            TEXT => self.text().map(drop),
            ARRAY => {
                let inside = inside()?;
                (0..self.head(ARRAY)?).try_for_each(|_| self.skip(inside))
            }
            MAP => self.skip_map(inside()?),
            _ if matches!(first, FALSE | TRUE | NULL) => self.take(1).map(drop),
            _ => Err(CborError::Malformed),
        }
    }

    fn skip_map(&mut self, depth: usize) -> Result<(), CborError> {
        let count = self.head(MAP)?;
        if count > MAP_PAIRS_MAX {
            return Err(CborError::Malformed);
        }
        let mut last: &[u8] = &[];
        for _ in 0..count {
            let before = self.rest;
            // Integers and texts: what every language can have as a key, each equal to itself alone.
            if !matches!(
                self.peek().map(|first| first >> 5),
                Some(UINT | NEGATIVE | TEXT)
            ) {
                return Err(CborError::Malformed);
            }
            self.skip(depth)?;
            let key = before
                .get(..before.len() - self.rest.len())
                .unwrap_or_default();
            if key <= last {
                return Err(CborError::NotDeterministic);
            }
            last = key;
            self.skip(depth)?;
        }
        Ok(())
    }

    /// Reads a whole text string.
    pub(crate) fn text(&mut self) -> Result<&'a str, CborError> {
        std::str::from_utf8(self.string(TEXT)?).map_err(|_| CborError::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let length = usize::try_from(length).map_err(|_| CborError::Malformed)?;
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(CborError::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn big_endian(&mut self, width: u64) -> Result<u64, CborError> {
        let bytes = self.take(width)?;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
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
