//! Finding one packet at the start of a buffer: the fixed header, MQTT 5.0 §2.1.

use std::fmt;

use super::decode_error::DecodeError;
use super::reader::{vbi, vbi_bytes};
use super::version::Version;

/// One whole packet, found by [`frame`] and not yet looked into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    kind: Kind,
    flags: u8,
    length_bytes: usize,
    body: &'a [u8],
}

/// Finds the packet at the start of `buf`, and reads nothing behind it.
///
/// `max` is the largest whole packet taken, in bytes, fixed header included (MQTT 5.0 §3.1.2.11.4). `Ok(None)` asks for more
/// bytes. What can be refused by the header alone is refused at once, however little of the packet has arrived.
///
/// # Errors
/// [`DecodeError::TooLarge`], [`DecodeError::LengthMalformed`], [`DecodeError::UnknownPacket`],
/// [`DecodeError::ReservedFlags`], [`DecodeError::QosThree`], [`DecodeError::DupOnQosZero`].
#[inline]
pub fn frame(buf: &[u8], max: usize) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some((&first, rest)) = buf.split_first() else {
        return Ok(None);
    };
    let kind = Kind::of(first >> 4)?;
    let flags = first & 0x0F;
    kind.check_flags(flags)?;

    let Some((length, length_bytes)) = vbi(rest)? else {
        return Ok(None);
    };
    let length = usize::try_from(length).map_err(|_| DecodeError::TooLarge)?;
    if length.saturating_add(1 + length_bytes) > max {
        return Err(DecodeError::TooLarge);
    }
    Ok(rest
        .get(length_bytes..)
        .and_then(|rest| rest.get(..length))
        .map(|body| Frame {
            kind,
            flags,
            length_bytes,
            body,
        }))
}

impl<'a> Frame<'a> {
    /// Which packet this is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// How many bytes of the buffer the packet takes, fixed header included.
    pub const fn total_bytes(&self) -> usize {
        1 + self.length_bytes + self.body.len()
    }

    /// The bytes behind the fixed header.
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The four flags beside the packet type.
    pub(super) const fn flags(&self) -> u8 {
        self.flags
    }

    /// MQTT 5 asks for the shortest form of the remaining length (§1.5.5); MQTT 3.1.1 does not.
    pub(super) const fn check_length_form(&self, version: Version) -> Result<(), DecodeError> {
        match version {
            Version::V5 if self.length_bytes != vbi_bytes(self.body.len()) => {
                Err(DecodeError::LengthNotMinimal)
            }
            Version::V5 | Version::V311 => Ok(()),
        }
    }
}

/// Shows no content: it is a stranger's.
impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes", self.kind, self.total_bytes())
    }
}

/// The packet types of MQTT 5.0 §2.1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "named as in the standard")]
pub enum Kind {
    Connect,
    ConnAck,
    Publish,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    PingReq,
    PingResp,
    Disconnect,
    Auth,
}

impl Kind {
    const fn of(number: u8) -> Result<Self, DecodeError> {
        Ok(match number {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return Err(DecodeError::UnknownPacket),
        })
    }

    /// The flags that MQTT 5.0 §2.1.3 fixes for this type; PUBLISH has its own.
    const fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::ConnAck
            | Self::Publish
            | Self::PubAck
            | Self::PubRec
            | Self::PubComp
            | Self::SubAck
            | Self::UnsubAck
            | Self::PingReq
            | Self::PingResp
            | Self::Disconnect
            | Self::Auth => 0,
        }
    }

    const fn check_flags(self, flags: u8) -> Result<(), DecodeError> {
        if !matches!(self, Self::Publish) {
            return if flags == self.flags() {
                Ok(())
            } else {
                Err(DecodeError::ReservedFlags)
            };
        }
        // DUP, two bits of QoS, RETAIN (MQTT 5.0 §3.3.1).
        match (flags & 0b0110, flags & 0b1000) {
            (0b0110, _) => Err(DecodeError::QosThree),
            (0, 0b1000) => Err(DecodeError::DupOnQosZero),
            _ => Ok(()),
        }
    }

    /// The first byte of such a packet; of a PUBLISH, with no flag set.
    pub(super) const fn first_byte(self) -> u8 {
        let number = match self {
            Self::Connect => 1,
            Self::ConnAck => 2,
            Self::Publish => 3,
            Self::PubAck => 4,
            Self::PubRec => 5,
            Self::PubRel => 6,
            Self::PubComp => 7,
            Self::Subscribe => 8,
            Self::SubAck => 9,
            Self::Unsubscribe => 10,
            Self::UnsubAck => 11,
            Self::PingReq => 12,
            Self::PingResp => 13,
            Self::Disconnect => 14,
            Self::Auth => 15,
        };
        number << 4 | self.flags()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any packet of these tests.
    const MAX: usize = 1 << 20;

    #[test]
    fn mqtt_a_frame_ends_where_its_length_says() {
        let buf = [0xC0, 0x00, 0x40, 0x02, 0x00, 0x01, 0xFF];
        let ping = frame(&buf, MAX).unwrap().unwrap();
        assert_eq!((ping.kind(), ping.total_bytes()), (Kind::PingReq, 2));
        let ack = frame(&buf[2..], MAX).unwrap().unwrap();
        assert_eq!((ack.kind(), ack.total_bytes()), (Kind::PubAck, 4));
        assert_eq!(ack.body(), [0, 1]);
    }

    #[test]
    fn mqtt_every_prefix_of_a_frame_asks_for_more() {
        let mut whole = vec![0x30, 0x80, 0x01];
        whole.resize(3 + 128, 7);
        for end in 0..whole.len() {
            assert_eq!(frame(&whole[..end], MAX), Ok(None), "{end} bytes");
        }
        assert_eq!(frame(&whole, MAX).unwrap().unwrap().total_bytes(), 131);
    }

    #[test]
    fn mqtt_a_declared_size_past_the_limit_is_refused_before_it_arrives() {
        // The first packet of CVE-2023-0809: not a CONNECT, 256 MB.
        assert_eq!(
            frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], 4096),
            Err(DecodeError::TooLarge)
        );
        assert_eq!(
            frame(&[0x10, 0x80, 0x20], 4096),
            Err(DecodeError::TooLarge),
            "4096 and a header"
        );
        assert_eq!(
            frame(&[0x10, 0xFD, 0x1F], 4096),
            Ok(None),
            "4093 and a header of 3"
        );
        assert_eq!(frame(&[0x10, 0xFE, 0x1F], 4096), Err(DecodeError::TooLarge));
    }

    #[test]
    fn mqtt_a_length_of_five_bytes_is_refused_on_its_fourth() {
        assert_eq!(frame(&[0x10, 0x80, 0x80, 0x80], MAX), Ok(None));
        assert_eq!(
            frame(&[0x10, 0x80, 0x80, 0x80, 0x80], MAX),
            Err(DecodeError::LengthMalformed)
        );
    }

    #[test]
    fn mqtt_packet_type_and_flags_are_checked_on_the_first_byte() {
        for first in 0..=u8::MAX {
            let expected = match first {
                0x00..=0x0F => Err(DecodeError::UnknownPacket),
                0x36 | 0x37 | 0x3E | 0x3F => Err(DecodeError::QosThree),
                0x38 | 0x39 => Err(DecodeError::DupOnQosZero),
                0x30..=0x3F | 0x62 | 0x82 | 0xA2 => Ok(None),
                0x60 | 0x80 | 0xA0 => Err(DecodeError::ReservedFlags),
                _ if first & 0x0F == 0 => Ok(None),
                _ => Err(DecodeError::ReservedFlags),
            };
            assert_eq!(frame(&[first], MAX), expected, "{first:#04x}");
        }
    }

    #[test]
    fn mqtt_a_long_length_is_refused_by_mqtt_5_only() {
        let buf = [0xC0, 0x80, 0x00];
        let ping = frame(&buf, MAX).unwrap().unwrap();
        assert_eq!(ping.total_bytes(), 3);
        assert_eq!(
            ping.check_length_form(Version::V5),
            Err(DecodeError::LengthNotMinimal)
        );
        assert_eq!(ping.check_length_form(Version::V311), Ok(()));
    }

    #[test]
    fn mqtt_the_first_byte_of_each_kind_is_read_back() {
        for number in 1..=15 {
            let kind = Kind::of(number).unwrap();
            assert_eq!(kind.first_byte() >> 4, number);
            assert_eq!(kind.check_flags(kind.first_byte() & 0x0F), Ok(()));
        }
    }
}
