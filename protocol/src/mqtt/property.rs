//! The property section of MQTT 5.0 §2.2.2: each identifier once, user properties a few times, nothing that the packet does
//! not have.

use std::num::{NonZeroU16, NonZeroU32};

use super::decode_error::DecodeError;
use super::list::{Entry, List};
use super::reader::Reader;
use super::version::Version;
use super::writer::Writer;

/// User properties of one packet, or of its will. Nothing of ours uses more than two; 1,000 of them are an attack.
pub const USER_PROPERTIES_MAX: usize = 8;

/// The user properties of a packet: name and value, in order (MQTT 5.0 §2.2.2.2).
pub type UserProperties<'a> = List<'a, (&'a str, &'a str)>;

/// The identifiers of MQTT 5.0 §2.2.2.2, table 2-4. All are below 64.
pub(super) mod id {
    pub(in super::super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(in super::super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(in super::super) const CONTENT_TYPE: u8 = 0x03;
    pub(in super::super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in super::super) const CORRELATION_DATA: u8 = 0x09;
    pub(in super::super) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(in super::super) const SESSION_EXPIRY: u8 = 0x11;
    pub(in super::super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(in super::super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in super::super) const AUTH_METHOD: u8 = 0x15;
    pub(in super::super) const AUTH_DATA: u8 = 0x16;
    pub(in super::super) const REQUEST_PROBLEM_INFO: u8 = 0x17;
    pub(in super::super) const WILL_DELAY: u8 = 0x18;
    pub(in super::super) const REQUEST_RESPONSE_INFO: u8 = 0x19;
    pub(in super::super) const RESPONSE_INFO: u8 = 0x1A;
    pub(in super::super) const SERVER_REFERENCE: u8 = 0x1C;
    pub(in super::super) const REASON_STRING: u8 = 0x1F;
    pub(in super::super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in super::super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in super::super) const TOPIC_ALIAS: u8 = 0x23;
    pub(in super::super) const QOS_MAXIMUM: u8 = 0x24;
    pub(in super::super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in super::super) const USER_PROPERTY: u8 = 0x26;
    pub(in super::super) const PACKET_BYTES_MAXIMUM: u8 = 0x27;
    pub(in super::super) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(in super::super) const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
    pub(in super::super) const SHARED_AVAILABLE: u8 = 0x2A;
}

/// One property section being read.
///
/// The packet asks for the next identifier and reads its value, or says that it has no such property. User properties are
/// counted on the way: every packet with properties may have them.
pub(super) struct Properties<'a> {
    section: &'a [u8],
    reader: Reader<'a>,
    /// A bit for each identifier seen.
    seen: u64,
    user_properties: usize,
}

impl<'a> Properties<'a> {
    /// The section at the reader's place. In MQTT 3.1.1 there is none.
    pub(super) fn open(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let section = match version {
            Version::V5 => reader.section()?,
            Version::V311 => &[],
        };
        Ok(Self {
            section,
            reader: Reader::new(section),
            seen: 0,
            user_properties: 0,
        })
    }

    /// Like [`Properties::open`], for packets that may end before their properties (§3.4.2.2.1, §3.14.2.2.1).
    pub(super) fn open_if_any(
        reader: &mut Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        if reader.is_empty() {
            Self::open(reader, Version::V311)
        } else {
            Self::open(reader, version)
        }
    }

    /// The identifier of the next property that is not a user property. Its value must be read next.
    pub(super) fn next_id(&mut self) -> Result<Option<u8>, DecodeError> {
        while !self.reader.is_empty() {
            let id = self.reader.u8()?;
            if id == id::USER_PROPERTY {
                self.user_properties += 1;
                if self.user_properties > USER_PROPERTIES_MAX {
                    return Err(DecodeError::TooManyUserProperties);
                }
                self.reader.text()?;
                self.reader.text()?;
                continue;
            }
            if id >= 64 {
                return Err(DecodeError::PropertyNotAllowed);
            }
            let bit = 1 << id;
            if self.seen & bit != 0 {
                return Err(DecodeError::PropertyTwice);
            }
            self.seen |= bit;
            return Ok(Some(id));
        }
        Ok(None)
    }

    /// Lets a property be there again: subscription identifiers in a server's PUBLISH (§3.3.2.3.8).
    pub(super) const fn allow_again(&mut self, id: u8) {
        self.seen &= !(1 << id);
    }

    /// The user properties, after [`Properties::next_id`] has returned `None`.
    pub(super) const fn user_properties(&self) -> UserProperties<'a> {
        List::checked(self.section, self.user_properties)
    }

    /// A byte that is 0 or 1.
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::PropertyValue),
        }
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.reader.u16()
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.reader.u32()
    }

    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        self.reader.text()
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        self.reader.binary()
    }

    pub(super) fn receive_maximum(&mut self) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.u16()?).ok_or(DecodeError::ReceiveMaximumZero)
    }

    pub(super) fn packet_bytes_maximum(&mut self) -> Result<NonZeroU32, DecodeError> {
        NonZeroU32::new(self.u32()?).ok_or(DecodeError::PacketMaximumZero)
    }

    pub(super) fn topic_alias(&mut self) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.u16()?).ok_or(DecodeError::TopicAliasZero)
    }

    pub(super) fn subscription_id(&mut self) -> Result<NonZeroU32, DecodeError> {
        NonZeroU32::new(self.reader.vbi()?).ok_or(DecodeError::SubscriptionIdZero)
    }
}

/// The next user property, past the other properties of its section.
impl<'a> Entry<'a> for (&'a str, &'a str) {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader::new(bytes);
        loop {
            let id = reader.u8().ok()?;
            if id == id::USER_PROPERTY {
                let pair = (reader.text().ok()?, reader.text().ok()?);
                return Some((pair, reader.rest()));
            }
            skip(&mut reader, id).ok()?;
        }
    }
}

/// Passes over the value of property `id`.
fn skip(reader: &mut Reader<'_>, id: u8) -> Result<(), DecodeError> {
    match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFO
        | id::REQUEST_RESPONSE_INFO
        | id::QOS_MAXIMUM
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_ID_AVAILABLE
        | id::SHARED_AVAILABLE => reader.u8().map(drop),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            reader.u16().map(drop)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::PACKET_BYTES_MAXIMUM => {
            reader.u32().map(drop)
        }
        id::SUBSCRIPTION_ID => reader.vbi().map(drop),
        // Texts and binary data: a length and bytes.
        _ => reader.binary().map(drop),
    }
}

/// Writing properties. What is `None` is left out.
impl Writer<'_> {
    /// A property section of what `write` writes. In MQTT 3.1.1 there is none.
    pub(super) fn properties(&mut self, version: Version, write: impl FnOnce(&mut Self)) {
        match version {
            Version::V5 => self.sized(0, write),
            Version::V311 => {}
        }
    }

    pub(super) fn flag_property(&mut self, id: u8, value: Option<bool>) {
        if let Some(value) = value {
            self.u8(id);
            self.u8(value.into());
        }
    }

    pub(super) fn u16_property(&mut self, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            self.u8(id);
            self.u16(value);
        }
    }

    pub(super) fn u32_property(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.u8(id);
            self.u32(value);
        }
    }

    pub(super) fn text_property(&mut self, id: u8, value: Option<&str>) {
        if let Some(value) = value {
            self.u8(id);
            self.text(value);
        }
    }

    pub(super) fn binary_property(&mut self, id: u8, value: Option<&[u8]>) {
        if let Some(value) = value {
            self.u8(id);
            self.binary(value);
        }
    }

    pub(super) fn user_properties(&mut self, properties: &UserProperties<'_>) {
        for (name, value) in properties {
            self.u8(id::USER_PROPERTY);
            self.text(name);
            self.text(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::writer::packet;
    use super::*;

    /// A property section with `write`'s properties, without its length.
    fn section(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = Vec::new();
        packet(&mut out, 0x30, 0, write).unwrap();
        Reader::new(&out[1..]).section().unwrap().to_vec()
    }

    #[test]
    fn mqtt_user_properties_are_found_between_all_others() {
        let user = |w: &mut Writer<'_>, n: &str| w.user_properties(&List::from(&[("n", n)]));
        let bytes = section(|w| {
            w.flag_property(id::PAYLOAD_FORMAT, Some(true));
            user(w, "1");
            w.u16_property(id::TOPIC_ALIAS, Some(0x2626));
            user(w, "2");
            w.u32_property(id::MESSAGE_EXPIRY, Some(0x2626_2626));
            user(w, "3");
            w.u8(id::SUBSCRIPTION_ID);
            w.raw(&[0xA6, 0x26]);
            user(w, "4");
            w.text_property(id::CONTENT_TYPE, Some("&&&&"));
            user(w, "5");
            w.binary_property(id::CORRELATION_DATA, Some(&[0x26; 9]));
            user(w, "6");
        });
        let list: UserProperties<'_> = List::checked(&bytes, 6);
        let values: Vec<&str> = list.iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["1", "2", "3", "4", "5", "6"]);
    }

    #[test]
    fn mqtt_a_property_past_its_section_is_refused() {
        let mut reader = Reader::new(&[3, id::RECEIVE_MAXIMUM, 0, 1, 0xFF]);
        let mut properties = Properties::open(&mut reader, Version::V5).unwrap();
        assert_eq!(properties.next_id(), Ok(Some(id::RECEIVE_MAXIMUM)));
        assert_eq!(properties.u16(), Ok(1));
        assert_eq!(properties.next_id(), Ok(None));

        let mut reader = Reader::new(&[2, id::RECEIVE_MAXIMUM, 0, 1]);
        let mut properties = Properties::open(&mut reader, Version::V5).unwrap();
        assert_eq!(properties.next_id(), Ok(Some(id::RECEIVE_MAXIMUM)));
        assert_eq!(properties.u16(), Err(DecodeError::Truncated));
    }

    #[test]
    fn mqtt_a_section_longer_than_its_packet_is_refused() {
        let mut reader = Reader::new(&[4, id::RECEIVE_MAXIMUM, 0, 1]);
        assert_eq!(
            Properties::open(&mut reader, Version::V5).err(),
            Some(DecodeError::Truncated)
        );
    }

    #[test]
    fn mqtt_identifiers_past_the_table_are_refused() {
        for id in 64..=u8::MAX {
            let bytes = [1, id];
            let mut reader = Reader::new(&bytes);
            let mut properties = Properties::open(&mut reader, Version::V5).unwrap();
            assert_eq!(properties.next_id(), Err(DecodeError::PropertyNotAllowed));
        }
    }

    #[test]
    fn mqtt_the_ninth_user_property_is_refused() {
        let pairs = [("k", "v"); USER_PROPERTIES_MAX + 1];
        let count = |pairs: &[(&str, &str)]| {
            let bytes = section(|w| w.sized(0, |w| w.user_properties(&List::from(pairs))));
            let mut reader = Reader::new(&bytes);
            let mut properties = Properties::open(&mut reader, Version::V5).unwrap();
            properties
                .next_id()
                .map(|_| properties.user_properties().len())
        };
        assert_eq!(
            count(&pairs[..USER_PROPERTIES_MAX]),
            Ok(USER_PROPERTIES_MAX)
        );
        assert_eq!(count(&pairs), Err(DecodeError::TooManyUserProperties));
    }
}
