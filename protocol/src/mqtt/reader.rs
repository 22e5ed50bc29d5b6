//! Reading the data types of MQTT 5.0 §1.5 from borrowed bytes.

use std::num::NonZeroU16;

use super::decode_error::DecodeError;
use super::text;

/// The largest value of a variable byte integer (MQTT 5.0 §1.5.5).
pub(super) const VBI_MAX: usize = 268_435_455;

/// The first bytes of `bytes` as a variable byte integer, and how many they are. `None`: more bytes are needed.
pub(super) fn vbi(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (at, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(DecodeError::LengthMalformed)
    }
}

/// How many bytes the shortest form of `value` takes; five and more do not exist.
pub(super) const fn vbi_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// What is left to read of a packet, or of a part of it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Refuses bytes behind the last field.
    pub(super) const fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A variable byte integer in its shortest form (§1.5.5).
    pub(super) fn vbi(&mut self) -> Result<u32, DecodeError> {
        let (value, bytes) = vbi(self.rest)?.ok_or(DecodeError::Truncated)?;
        // A last byte of zero adds nothing, unless it is the only one.
        if self.take(bytes)?.last() == Some(&0) && bytes > 1 {
            return Err(DecodeError::LengthNotMinimal);
        }
        Ok(value)
    }

    /// A section that begins with its length as a variable byte integer.
    pub(super) fn section(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.vbi()?;
        self.take(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)
    }

    /// Binary data (§1.5.6).
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// A UTF-8 string (§1.5.4).
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        text::check(self.binary()?)
    }

    /// A packet identifier (§2.2.1).
    pub(super) fn packet_id(&mut self) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.u16()?).ok_or(DecodeError::PacketIdZero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_variable_byte_integers_of_the_standard_are_read() {
        // MQTT 5.0 §1.5.5, table 1-1.
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x7F], 127),
            (&[0x80, 0x01], 128),
            (&[0xFF, 0x7F], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xFF, 0xFF, 0x7F], 2_097_151),
            (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
            (&[0xFF, 0xFF, 0xFF, 0x7F], 268_435_455),
        ] {
            assert_eq!(Reader::new(bytes).vbi(), Ok(value));
            assert_eq!(vbi_bytes(value.try_into().unwrap()), bytes.len(), "{value}");
            for end in 0..bytes.len() {
                assert_eq!(
                    Reader::new(&bytes[..end]).vbi(),
                    Err(DecodeError::Truncated)
                );
            }
        }
    }

    #[test]
    fn mqtt_variable_byte_integers_longer_than_needed_are_refused() {
        for bytes in [
            &[0x80, 0x00][..],
            &[0xFF, 0x00],
            &[0x80, 0x80, 0x00],
            &[0x81, 0x80, 0x80, 0x00],
        ] {
            assert_eq!(Reader::new(bytes).vbi(), Err(DecodeError::LengthNotMinimal));
        }
        assert_eq!(
            Reader::new(&[0xFF; 5]).vbi(),
            Err(DecodeError::LengthMalformed)
        );
    }

    #[test]
    fn mqtt_a_failed_read_takes_nothing() {
        let mut reader = Reader::new(&[0x00]);
        assert_eq!(reader.u16(), Err(DecodeError::Truncated));
        assert_eq!(reader.u8(), Ok(0));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn mqtt_packet_id_zero_is_refused() {
        assert_eq!(
            Reader::new(&[0, 0]).packet_id(),
            Err(DecodeError::PacketIdZero)
        );
    }
}
