//! UNSUBSCRIBE, MQTT 5.0 §3.10: asking for messages no more.

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::list::{Entry, List};
use super::property::{Properties, UserProperties};
use super::qos::PacketId;
use super::reader::Reader;
use super::text;
use super::version::Version;
use super::writer::{self, EncodeError};

/// An UNSUBSCRIBE packet. `Debug` does not show its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// What UNSUBACK will name.
    pub id: PacketId,
    /// The filters: at least one, each valid.
    pub filters: List<'a, &'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Entry<'a> for &'a str {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader::new(bytes);
        let text = reader.text().ok()?;
        Some((text, reader.rest()))
    }
}

impl<'a> Unsubscribe<'a> {
    /// An UNSUBSCRIBE without properties.
    pub const fn new(id: PacketId, filters: List<'a, &'a str>) -> Self {
        Self {
            id,
            filters,
            user_properties: UserProperties::EMPTY,
        }
    }

    pub(super) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let mut unsubscribe = Self::new(reader.packet_id()?, List::EMPTY);
        let mut properties = Properties::open(&mut reader, version)?;
        if properties.next_id()?.is_some() {
            return Err(DecodeError::PropertyNotAllowed);
        }
        unsubscribe.user_properties = properties.user_properties();

        let bytes = reader.rest();
        let mut count = 0;
        while !reader.is_empty() {
            text::check_topic_filter(reader.text()?)?;
            count += 1;
        }
        if count == 0 {
            return Err(DecodeError::NoFilters);
        }
        unsubscribe.filters = List::checked(bytes, count);
        Ok(unsubscribe)
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::packet(out, Kind::Unsubscribe.first_byte(), 0, |w| {
            w.packet_id(self.id);
            w.properties(version, |w| w.user_properties(&self.user_properties));
            for filter in &self.filters {
                w.text(filter);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientPacket;
    use super::super::testing::{client, raw};
    use super::*;

    fn decode(bytes: &[u8], version: Version) -> Result<Unsubscribe<'_>, DecodeError> {
        let ClientPacket::Unsubscribe(unsubscribe) = client(bytes, version)? else {
            panic!("another packet");
        };
        Ok(unsubscribe)
    }

    #[test]
    fn mqtt_filters_to_leave_are_read_in_their_order() {
        let bytes = raw(0xA2, &[&[0, 7, 0, 0, 1, b'a', 0, 3, b'b', b'/', b'#']]);
        let unsubscribe = decode(&bytes, Version::V5).unwrap();
        assert!(unsubscribe.filters.iter().eq(["a", "b/#"]));
    }

    #[test]
    fn mqtt_malformed_unsubscribes_are_refused() {
        for (body, error) in [
            (&[0, 0, 0, 0, 1, b'a'][..], DecodeError::PacketIdZero),
            (&[0, 7, 0], DecodeError::NoFilters),
            (&[0, 7, 0, 0], DecodeError::Truncated),
            (&[0, 7, 0, 0, 0], DecodeError::FilterInvalid),
            (&[0, 7, 0, 0, 2, b'a', b'#'], DecodeError::FilterInvalid),
            (&[0, 7, 0, 0, 1, 0], DecodeError::BadText),
            (
                &[0, 7, 2, 0x0B, 1, 0, 1, b'a'],
                DecodeError::PropertyNotAllowed,
            ),
        ] {
            let bytes = raw(0xA2, &[body]);
            assert_eq!(decode(&bytes, Version::V5), Err(error), "{body:x?}");
        }
    }
}
