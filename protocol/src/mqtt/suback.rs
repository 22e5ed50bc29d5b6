//! SUBACK and UNSUBACK, MQTT 5.0 §3.9 and §3.11: one code for each filter, in the order of the filters.

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::list::{Entry, List};
use super::property::{Properties, UserProperties, id};
use super::qos::PacketId;
use super::reader::Reader;
use super::reason::ReasonCode;
use super::version::Version;
use super::writer::{self, EncodeError};

/// The answer to SUBSCRIBE or UNSUBSCRIBE. `Debug` does not show its codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// To which of the two.
    pub kind: SubAckKind,
    /// The packet that is answered.
    pub id: PacketId,
    /// How it went, filter by filter. Empty only for an UNSUBACK of MQTT 3.1.1, which has none.
    pub reasons: List<'a, ReasonCode>,
    /// Reason String, for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

/// What a [`SubAck`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubAckKind {
    /// SUBACK.
    Subscribe,
    /// UNSUBACK.
    Unsubscribe,
}

/// What SUBACK may say (MQTT 5.0 §3.9.3).
const SUBSCRIBE_REASONS: &[ReasonCode] = &[
    ReasonCode::GRANTED_QOS_0,
    ReasonCode::GRANTED_QOS_1,
    ReasonCode::GRANTED_QOS_2,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::TOPIC_FILTER_INVALID,
    ReasonCode::PACKET_IDENTIFIER_IN_USE,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
];

/// What SUBACK may say in MQTT 3.1.1 (§3.9.3); `0x80` is failure of any kind.
const SUBSCRIBE_REASONS_V311: &[ReasonCode] = &[
    ReasonCode::GRANTED_QOS_0,
    ReasonCode::GRANTED_QOS_1,
    ReasonCode::GRANTED_QOS_2,
    ReasonCode::UNSPECIFIED_ERROR,
];

/// What UNSUBACK may say (MQTT 5.0 §3.11.3).
const UNSUBSCRIBE_REASONS: &[ReasonCode] = &[
    ReasonCode::SUCCESS,
    ReasonCode::NO_SUBSCRIPTION_EXISTED,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::TOPIC_FILTER_INVALID,
    ReasonCode::PACKET_IDENTIFIER_IN_USE,
];

impl<'a> Entry<'a> for ReasonCode {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        bytes
            .split_first()
            .map(|(byte, rest)| (Self::checked_before(*byte), rest))
    }
}

impl<'a> SubAck<'a> {
    /// A SUBACK without properties.
    pub const fn to_subscribe(id: PacketId, reasons: List<'a, ReasonCode>) -> Self {
        Self {
            kind: SubAckKind::Subscribe,
            id,
            reasons,
            reason_string: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    /// An UNSUBACK without properties.
    pub const fn to_unsubscribe(id: PacketId, reasons: List<'a, ReasonCode>) -> Self {
        let mut ack = Self::to_subscribe(id, reasons);
        ack.kind = SubAckKind::Unsubscribe;
        ack
    }

    pub(super) fn decode(
        frame: &Frame<'a>,
        kind: SubAckKind,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let mut ack = Self::to_subscribe(reader.packet_id()?, List::EMPTY);
        ack.kind = kind;
        let mut properties = Properties::open(&mut reader, version)?;
        while let Some(id) = properties.next_id()? {
            match id {
                id::REASON_STRING => ack.reason_string = Some(properties.text()?),
                _ => return Err(DecodeError::PropertyNotAllowed),
            }
        }
        ack.user_properties = properties.user_properties();

        let allowed = match (kind, version) {
            (SubAckKind::Subscribe, Version::V5) => SUBSCRIBE_REASONS,
            (SubAckKind::Subscribe, Version::V311) => SUBSCRIBE_REASONS_V311,
            (SubAckKind::Unsubscribe, Version::V5) => UNSUBSCRIBE_REASONS,
            (SubAckKind::Unsubscribe, Version::V311) => {
                reader.end()?;
                return Ok(ack);
            }
        };
        let codes = reader.rest();
        if codes.is_empty() {
            return Err(DecodeError::NoFilters);
        }
        let known = |code: &u8| ReasonCode::among(*code, allowed).is_some();
        if !codes.iter().all(known) {
            return Err(DecodeError::ReasonNotAllowed);
        }
        ack.reasons = List::checked(codes, codes.len());
        Ok(ack)
    }

    /// Appends the packet to `out`. In MQTT 3.1.1 every failed SUBSCRIBE is `0x80`, and an UNSUBACK says nothing.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let kind = match self.kind {
            SubAckKind::Subscribe => Kind::SubAck,
            SubAckKind::Unsubscribe => Kind::UnsubAck,
        };
        writer::packet(out, kind.first_byte(), 0, |w| {
            w.packet_id(self.id);
            w.properties(version, |w| {
                w.text_property(id::REASON_STRING, self.reason_string);
                w.user_properties(&self.user_properties);
            });
            for reason in &self.reasons {
                match (self.kind, version) {
                    (_, Version::V5) => w.u8(reason.value()),
                    (SubAckKind::Subscribe, Version::V311) => w.u8(reason.value().min(0x80)),
                    (SubAckKind::Unsubscribe, Version::V311) => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::ServerPacket;
    use super::super::testing::{pid, raw, server};
    use super::*;

    fn decode(bytes: &[u8], version: Version) -> Result<SubAck<'_>, DecodeError> {
        let ServerPacket::SubAck(ack) = server(bytes, version)? else {
            panic!("another packet");
        };
        Ok(ack)
    }

    fn encode(ack: &SubAck<'_>, version: Version) -> Vec<u8> {
        let mut out = Vec::new();
        ack.encode(version, &mut out).unwrap();
        out
    }

    #[test]
    fn mqtt_each_filter_has_its_code() {
        let reasons = [
            ReasonCode::GRANTED_QOS_1,
            ReasonCode::NOT_AUTHORIZED,
            ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
        ];
        let ack = SubAck::to_subscribe(pid(7), List::from(&reasons));
        let bytes = encode(&ack, Version::V5);
        assert_eq!(bytes, [0x90, 6, 0, 7, 0, 1, 0x87, 0x9E]);
        assert!(
            decode(&bytes, Version::V5)
                .unwrap()
                .reasons
                .iter()
                .eq(reasons)
        );
        assert_eq!(encode(&ack, Version::V311), [0x90, 5, 0, 7, 1, 0x80, 0x80]);
    }

    #[test]
    fn mqtt_two_filters_left_are_one_unsuback() {
        let reasons = [ReasonCode::SUCCESS, ReasonCode::NO_SUBSCRIPTION_EXISTED];
        let ack = SubAck::to_unsubscribe(pid(7), List::from(&reasons));
        assert_eq!(encode(&ack, Version::V5), [0xB0, 5, 0, 7, 0, 0, 0x11]);
        assert_eq!(encode(&ack, Version::V311), [0xB0, 2, 0, 7]);
    }

    #[test]
    fn mqtt_malformed_subacks_are_refused() {
        for (first, body, error) in [
            (0x90, &[0, 0, 0, 0][..], DecodeError::PacketIdZero),
            (0x90, &[0, 7, 0], DecodeError::NoFilters),
            (0x90, &[0, 7, 0, 3], DecodeError::ReasonNotAllowed),
            (0x90, &[0, 7, 0, 1, 0x11], DecodeError::ReasonNotAllowed),
            (0xB0, &[0, 7, 0], DecodeError::NoFilters),
            (0xB0, &[0, 7, 0, 1], DecodeError::ReasonNotAllowed),
            (
                0xB0,
                &[0, 7, 2, 0x01, 0, 0],
                DecodeError::PropertyNotAllowed,
            ),
        ] {
            let bytes = raw(first, &[body]);
            assert_eq!(decode(&bytes, Version::V5), Err(error), "{body:x?}");
        }
        assert_eq!(
            decode(&[0x90, 3, 0, 7, 0x87], Version::V311),
            Err(DecodeError::ReasonNotAllowed)
        );
        assert_eq!(
            decode(&[0xB0, 3, 0, 7, 0], Version::V311),
            Err(DecodeError::TrailingBytes)
        );
    }
}
