//! PUBLISH, MQTT 5.0 §3.3: a message.

use std::fmt;
use std::num::NonZeroU16;

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::hidden::Hidden;
use super::message::MessageProperties;
use super::property::{Properties, id};
use super::qos::{Delivery, Qos};
use super::reader::Reader;
use super::text;
use super::version::{Side, Version};
use super::writer::{self, EncodeError};

/// A PUBLISH packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Topic Name, without wildcards; empty only beside a topic alias.
    pub topic: &'a str,
    /// The message.
    pub payload: &'a [u8],
    /// QoS, packet identifier and DUP.
    pub delivery: Delivery,
    /// RETAIN.
    pub retain: bool,
    /// Topic Alias. The decoder resolves none: who grants none refuses the packet.
    pub topic_alias: Option<NonZeroU16>,
    /// The other properties.
    pub properties: MessageProperties<'a>,
}

const RETAIN: u8 = 0b0001;
const DUP: u8 = 0b1000;

impl<'a> Publish<'a> {
    /// A PUBLISH without properties, not retained.
    pub const fn new(topic: &'a str, delivery: Delivery, payload: &'a [u8]) -> Self {
        Self {
            topic,
            payload,
            delivery,
            retain: false,
            topic_alias: None,
            properties: MessageProperties {
                payload_is_text: false,
                expiry_secs: None,
                content_type: None,
                response_topic: None,
                correlation_data: None,
                user_properties: super::UserProperties::EMPTY,
            },
        }
    }

    #[inline]
    pub(super) fn decode(
        frame: &Frame<'a>,
        version: Version,
        from: Side,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let topic = reader.text()?;
        text::check_topic_name(topic)?;
        let dup = frame.flags() & DUP != 0;
        let delivery = match Qos::of(frame.flags() >> 1 & 0b11).ok_or(DecodeError::QosThree)? {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            Qos::AtLeastOnce => Delivery::AtLeastOnce {
                id: reader.packet_id()?,
                dup,
            },
            Qos::ExactlyOnce => Delivery::ExactlyOnce {
                id: reader.packet_id()?,
                dup,
            },
        };
        let mut publish = Self::new(topic, delivery, &[]);
        publish.retain = frame.flags() & RETAIN != 0;
        publish.read_properties(&mut reader, version, from)?;
        if topic.is_empty() && publish.topic_alias.is_none() {
            return Err(DecodeError::TopicEmpty);
        }
        publish.payload = reader.rest();
        Ok(publish)
    }

    /// The properties of §3.3.2.3.
    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        version: Version,
        from: Side,
    ) -> Result<(), DecodeError> {
        let mut properties = Properties::open(reader, version)?;
        while let Some(id) = properties.next_id()? {
            if self.properties.read(id, &mut properties)? {
                continue;
            }
            match (id, from) {
                (id::TOPIC_ALIAS, _) => self.topic_alias = Some(properties.topic_alias()?),
                (id::SUBSCRIPTION_ID, Side::Client) => {
                    return Err(DecodeError::SubscriptionIdFromClient);
                }
                // One for each subscription that matched. We subscribe with none, and so have no use for them.
                (id::SUBSCRIPTION_ID, Side::Server) => {
                    properties.subscription_id()?;
                    properties.allow_again(id);
                }
                _ => return Err(DecodeError::PropertyNotAllowed),
            }
        }
        self.properties.user_properties = properties.user_properties();
        Ok(())
    }

    /// Whether the payload is text if the sender says so (Payload Format Indicator, §3.3.2.3.2). If not, the answer is
    /// [`PAYLOAD_FORMAT_INVALID`](super::ReasonCode::PAYLOAD_FORMAT_INVALID).
    pub fn payload_is_as_declared(&self) -> bool {
        !self.properties.payload_is_text || str::from_utf8(self.payload).is_ok()
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_header(version, self.payload.len(), out)?;
        out.extend_from_slice(self.payload);
        Ok(())
    }

    /// Appends all of the packet but its payload, of which the caller writes `payload_bytes` bytes behind it: from several
    /// slices, say, and without a copy. The field `payload` is not looked at.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`].
    pub fn encode_header(
        &self,
        version: Version,
        payload_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let flags = u8::from(self.delivery.dup()) << 3
            | self.delivery.qos().value() << 1
            | u8::from(self.retain);
        let first_byte = Kind::Publish.first_byte() | flags;
        writer::packet(out, first_byte, payload_bytes, |w| {
            w.text(self.topic);
            if let Some(id) = self.delivery.packet_id() {
                w.packet_id(id);
            }
            w.properties(version, |w| {
                w.u16_property(id::TOPIC_ALIAS, self.topic_alias.map(NonZeroU16::get));
                self.properties.write(w);
            });
        })
    }
}

/// Shows no payload.
impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("topic", &self.topic)
            .field("payload", &Hidden(self.payload))
            .field("delivery", &self.delivery)
            .field("retain", &self.retain)
            .field("topic_alias", &self.topic_alias)
            .field("properties", &self.properties)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientPacket;
    use super::super::property::UserProperties;
    use super::super::server::ServerPacket;
    use super::super::testing::{client, pid, raw, section, server, text};
    use super::*;

    const TOPIC: &str = "v1/edge-1/build-7/events";

    fn decode(bytes: &[u8], version: Version) -> Result<Publish<'_>, DecodeError> {
        let ClientPacket::Publish(publish) = client(bytes, version)? else {
            panic!("another packet");
        };
        Ok(publish)
    }

    /// The error of a PUBLISH of QoS 0 with these properties.
    fn refused(topic: &str, properties: &[&[u8]]) -> Option<DecodeError> {
        let bytes = raw(0x30, &[&text(topic), &section(properties), b"payload"]);
        decode(&bytes, Version::V5).err()
    }

    #[test]
    fn mqtt_publish_of_a_shim_is_these_bytes() {
        let publish = Publish::new(TOPIC, Delivery::at_least_once(pid(258)), b"payload");
        let mut out = Vec::new();
        publish.encode(Version::V5, &mut out).unwrap();
        let expected = [&[0x32, 36][..], &text(TOPIC), &[1, 2, 0], b"payload"].concat();
        assert_eq!(out, expected);
        assert_eq!(decode(&out, Version::V5), Ok(publish));

        out.clear();
        publish.encode(Version::V311, &mut out).unwrap();
        let expected = [&[0x32, 35][..], &text(TOPIC), &[1, 2], b"payload"].concat();
        assert_eq!(out, expected);
        assert_eq!(decode(&out, Version::V311), Ok(publish));
    }

    #[test]
    fn mqtt_a_header_and_slices_make_the_same_packet() {
        for payload_bytes in [0, 90, 91, 92, 127, 128, 16_384, 60_000] {
            let payload = vec![7; payload_bytes];
            let user = [("traceparent", "00-1")];
            let mut publish = Publish::new(
                TOPIC,
                Delivery::AtLeastOnce {
                    id: pid(9),
                    dup: true,
                },
                &[],
            );
            publish.properties.user_properties = UserProperties::from(&user);
            let mut slices = Vec::new();
            publish
                .encode_header(Version::V5, payload_bytes, &mut slices)
                .unwrap();
            slices.extend(&payload);

            publish.payload = &payload;
            let mut whole = Vec::new();
            publish.encode(Version::V5, &mut whole).unwrap();
            assert_eq!(slices, whole);
            assert_eq!(decode(&whole, Version::V5), Ok(publish));
        }
    }

    #[test]
    fn mqtt_wildcards_in_a_topic_are_refused_in_both_versions() {
        for topic in ["#", "a/+", "v1/edge-1/#", "a#", "+a"] {
            assert_eq!(refused(topic, &[]), Some(DecodeError::TopicWildcard));
            let bytes = raw(0x30, &[&text(topic)]);
            assert_eq!(
                decode(&bytes, Version::V311),
                Err(DecodeError::TopicWildcard)
            );
        }
    }

    #[test]
    fn mqtt_an_empty_topic_needs_an_alias() {
        assert_eq!(refused("", &[]), Some(DecodeError::TopicEmpty));
        assert_eq!(
            decode(&raw(0x30, &[&text("")]), Version::V311),
            Err(DecodeError::TopicEmpty)
        );
        let bytes = raw(0x30, &[&text(""), &section(&[&[0x23, 0, 1]])]);
        let publish = decode(&bytes, Version::V5).unwrap();
        assert_eq!(publish.topic_alias, NonZeroU16::new(1));
    }

    #[test]
    fn mqtt_topics_of_many_forms_are_decoded_for_the_gate_to_judge() {
        for topic in ["é/x", "$SYS/x", "$share/g/x", &"/".repeat(65_535)] {
            let bytes = raw(0x30, &[&text(topic), &[0]]);
            assert_eq!(decode(&bytes, Version::V5).unwrap().topic, topic);
        }
    }

    #[test]
    fn mqtt_topics_with_bytes_that_are_not_text_are_refused() {
        for topic in [
            &b"a\0b"[..],
            b"a\x1Fb",
            b"a\x7Fb",
            &[0xC2, 0x80],
            &[0xEF, 0xBF, 0xBE],
            &[0xED, 0xA0, 0x80],
            &[0xC0, 0x80],
            &[0xFF],
        ] {
            let bytes = raw(0x30, &[&text(topic), &[0]]);
            assert_eq!(
                decode(&bytes, Version::V5),
                Err(DecodeError::BadText),
                "{topic:x?}"
            );
        }
    }

    #[test]
    fn mqtt_qos_2_and_retain_are_decoded_for_the_gate_to_refuse() {
        let bytes = raw(0x3D, &[&text(TOPIC), &[0, 5, 0]]);
        let publish = decode(&bytes, Version::V5).unwrap();
        assert_eq!(
            publish.delivery,
            Delivery::ExactlyOnce {
                id: pid(5),
                dup: true
            }
        );
        assert!(publish.retain);
        assert!(publish.payload.is_empty());
    }

    #[test]
    fn mqtt_packet_id_zero_of_a_publish_is_refused() {
        for first in [0x32, 0x34] {
            for version in [Version::V5, Version::V311] {
                let bytes = raw(first, &[&text(TOPIC), &[0, 0, 0]]);
                assert_eq!(decode(&bytes, version), Err(DecodeError::PacketIdZero));
            }
        }
    }

    #[test]
    fn mqtt_hostile_publish_properties_are_refused() {
        for (property, error) in [
            (&[0x23, 0, 0][..], DecodeError::TopicAliasZero),
            (&[0x0B, 1], DecodeError::SubscriptionIdFromClient),
            (&[0x0B, 0], DecodeError::SubscriptionIdFromClient),
            (&[0x01, 2], DecodeError::PropertyValue),
            (&[0x08, 0, 0], DecodeError::TopicEmpty),
            (&[0x08, 0, 1, b'#'], DecodeError::TopicWildcard),
            (&[0x03, 0, 1, 0], DecodeError::BadText),
            (&[0x09, 0, 9, 0], DecodeError::Truncated),
            (&[0x02, 0, 0, 0], DecodeError::Truncated),
            (&[0x26, 0, 1, b'k'], DecodeError::Truncated),
            (&[0x26, 0, 1, 0, 0, 0], DecodeError::BadText),
            (&[0x11, 0, 0, 0, 1], DecodeError::PropertyNotAllowed),
            (&[0x18, 0, 0, 0, 1], DecodeError::PropertyNotAllowed),
            (&[0x3F], DecodeError::PropertyNotAllowed),
        ] {
            assert_eq!(refused(TOPIC, &[property]), Some(error), "{property:x?}");
        }
    }

    #[test]
    fn mqtt_each_publish_property_twice_is_refused() {
        for property in [
            &[0x01, 0][..],
            &[0x02, 0, 0, 0, 0],
            &[0x23, 0, 1],
            &[0x08, 0, 1, b't'],
            &[0x09, 0, 0],
            &[0x03, 0, 0],
        ] {
            assert_eq!(refused(TOPIC, &[property]), None);
            assert_eq!(
                refused(TOPIC, &[property, &[0x26, 0, 0, 0, 0], property]),
                Some(DecodeError::PropertyTwice)
            );
        }
    }

    #[test]
    fn mqtt_properties_longer_than_their_packet_are_refused() {
        let bytes = raw(0x30, &[&text(TOPIC), &[200, 0x01, 0x00]]);
        assert_eq!(decode(&bytes, Version::V5), Err(DecodeError::Truncated));
        let bytes = raw(0x30, &[&text(TOPIC), &[0x80, 0x00]]);
        assert_eq!(
            decode(&bytes, Version::V5),
            Err(DecodeError::LengthNotMinimal)
        );
        let bytes = raw(0x30, &[&text(TOPIC), &[0xFF; 5]]);
        assert_eq!(
            decode(&bytes, Version::V5),
            Err(DecodeError::LengthMalformed)
        );
    }

    #[test]
    fn mqtt_a_server_may_send_several_subscription_ids_and_none_is_zero() {
        let decoded = |properties: &[&[u8]]| {
            let bytes = raw(0x30, &[&text(TOPIC), &section(properties)]);
            match server(&bytes, Version::V5) {
                Ok(ServerPacket::Publish(publish)) => Ok(publish.topic.len()),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error),
            }
        };
        assert_eq!(decoded(&[&[0x0B, 1], &[0x0B, 0xFF, 0x7F]]), Ok(TOPIC.len()));
        assert_eq!(decoded(&[&[0x0B, 0]]), Err(DecodeError::SubscriptionIdZero));
    }

    #[test]
    fn mqtt_a_payload_declared_as_text_is_told_from_one_that_is() {
        let mut publish = Publish::new(TOPIC, Delivery::AtMostOnce, &[0xFF]);
        assert!(publish.payload_is_as_declared());
        publish.properties.payload_is_text = true;
        assert!(!publish.payload_is_as_declared());
        publish.payload = "é\n".as_bytes();
        assert!(publish.payload_is_as_declared());
    }
}
