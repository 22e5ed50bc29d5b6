//! Writing packets onto the end of a buffer.

use std::num::NonZeroU16;

use super::reader::{VBI_MAX, vbi_bytes};
use super::text;

/// Why a packet cannot be written. Nothing of it is left in the buffer then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum EncodeError {
    /// A text or a piece of binary data is longer than 65,535 bytes, or the packet than 268,435,455.
    #[error("field or packet too long for its length prefix")]
    TooLong,
    /// A text holds a control character or a non-character, which a careful peer refuses (MQTT 5.0 §1.5.4).
    #[error("text with characters that are not allowed")]
    BadText,
    /// MQTT 3.1.1 has no such packet, or no way to say this in it. Closing the connection is the nearest form.
    #[error("not expressible in MQTT 3.1.1")]
    NotInThisVersion,
}

/// Appends one packet to `out`: its first byte, its length, and what `body` writes. The length also covers
/// `payload_bytes` more, which the caller writes behind it.
///
/// # Errors
/// What went wrong first in `body`; `out` is then as it was.
pub(super) fn packet(
    out: &mut Vec<u8>,
    first_byte: u8,
    payload_bytes: usize,
    body: impl FnOnce(&mut Writer<'_>),
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(first_byte);
    let mut writer = Writer { out, fault: None };
    writer.sized(payload_bytes, body);
    match writer.fault {
        None => Ok(()),
        Some(fault) => {
            out.truncate(start);
            Err(fault)
        }
    }
}

/// Appends fields; the first fault is kept, and told by [`packet`].
pub(super) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    fault: Option<EncodeError>,
}

impl Writer<'_> {
    /// What `write` writes, behind its length as a variable byte integer (§1.5.5).
    pub(super) fn sized(&mut self, more_bytes: usize, write: impl FnOnce(&mut Self)) {
        let at = self.out.len();
        // One byte is nearly always enough. If not, what was written moves; payloads are written later, for this reason.
        self.out.push(0);
        write(self);
        let written = self.out.len().saturating_sub(at + 1);
        let length = written.saturating_add(more_bytes);
        let Ok(value) = u32::try_from(length) else {
            return self.fail(EncodeError::TooLong);
        };
        if length > VBI_MAX {
            return self.fail(EncodeError::TooLong);
        }
        let count = vbi_bytes(length);
        let encoded = vbi(value);
        let [first, ..] = encoded;
        match self.out.get_mut(at) {
            Some(byte) if count == 1 => *byte = first,
            _ => drop(self.out.splice(at..=at, encoded.into_iter().take(count))),
        }
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn packet_id(&mut self, id: NonZeroU16) {
        self.u16(id.get());
    }

    /// A variable byte integer (§1.5.5).
    pub(super) fn vbi(&mut self, value: u32) {
        match usize::try_from(value) {
            Ok(size) if size <= VBI_MAX => {
                let count = vbi_bytes(size);
                self.out.extend(vbi(value).into_iter().take(count));
            }
            Ok(_) | Err(_) => self.fail(EncodeError::TooLong),
        }
    }

    /// Bytes without a length.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Binary data (§1.5.6).
    pub(super) fn binary(&mut self, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(length) => {
                self.u16(length);
                self.raw(bytes);
            }
            Err(_) => self.fail(EncodeError::TooLong),
        }
    }

    /// A UTF-8 string (§1.5.4).
    pub(super) fn text(&mut self, value: &str) {
        if text::check(value.as_bytes()).is_err() {
            self.fail(EncodeError::BadText);
        }
        self.binary(value.as_bytes());
    }

    /// Notes that the packet cannot be written.
    pub(super) fn fail(&mut self, fault: EncodeError) {
        self.fault.get_or_insert(fault);
    }
}

/// `value` in groups of seven bits, each but the fourth marked as having a follower if anything is left (§1.5.5).
fn vbi(mut value: u32) -> [u8; 4] {
    let mut bytes = [0; 4];
    for byte in &mut bytes {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        *byte = if value == 0 { low & 0x7F } else { low | 0x80 };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::reader::Reader;
    use super::*;

    #[test]
    fn mqtt_lengths_are_written_in_their_shortest_form() {
        for length in [
            0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, VBI_MAX,
        ] {
            let mut out = vec![0xEE];
            packet(&mut out, 0x30, length, |_| ()).unwrap();
            assert_eq!(out[..2], [0xEE, 0x30]);
            let mut reader = Reader::new(&out[2..]);
            assert_eq!(reader.vbi(), Ok(u32::try_from(length).unwrap()));
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn mqtt_a_long_section_keeps_its_bytes_in_order() {
        let mut out = Vec::new();
        packet(&mut out, 0x10, 0, |w| {
            w.sized(0, |w| w.binary(&[7; 200]));
            w.u8(9);
        })
        .unwrap();
        let mut reader = Reader::new(&out[1..]);
        let body = reader.section().unwrap();
        assert_eq!(reader.end(), Ok(()));
        let mut reader = Reader::new(body);
        assert_eq!(
            Reader::new(reader.section().unwrap()).binary(),
            Ok(&[7; 200][..])
        );
        assert_eq!(reader.rest(), [9]);
    }

    #[test]
    fn mqtt_a_packet_that_cannot_be_written_leaves_no_trace() {
        let mut out = vec![1, 2, 3];
        let long = "x".repeat(65_536);
        assert_eq!(
            packet(&mut out, 0x10, 0, |w| w.text(&long)),
            Err(EncodeError::TooLong)
        );
        assert_eq!(
            packet(&mut out, 0x10, 0, |w| w.text("two\nlines")),
            Err(EncodeError::BadText)
        );
        assert_eq!(
            packet(&mut out, 0x10, VBI_MAX, |w| w.u8(0)),
            Err(EncodeError::TooLong)
        );
        assert_eq!(
            packet(&mut out, 0x10, usize::MAX, |w| w.u8(0)),
            Err(EncodeError::TooLong)
        );
        assert_eq!(out, [1, 2, 3]);
    }
}
