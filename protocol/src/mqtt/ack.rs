//! PUBACK, PUBREC, PUBREL and PUBCOMP, MQTT 5.0 §3.4 to §3.7: four packets of one form.

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::property::{Properties, UserProperties, id};
use super::qos::PacketId;
use super::reader::Reader;
use super::reason::ReasonCode;
use super::version::Version;
use super::writer::{self, EncodeError};

/// One step in the delivery of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which step.
    pub kind: AckKind,
    /// The message.
    pub id: PacketId,
    /// How it went.
    pub reason: ReasonCode,
    /// Reason String, for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

/// The steps of MQTT 5.0 §4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// The only step of QoS 1.
    PubAck,
    /// The first of QoS 2.
    PubRec,
    /// The second of QoS 2, by the publisher.
    PubRel,
    /// The last of QoS 2.
    PubComp,
}

/// What PUBACK and PUBREC may say (MQTT 5.0 §3.4.2.1, §3.5.2.1).
const RECEIVE_REASONS: &[ReasonCode] = &[
    ReasonCode::SUCCESS,
    ReasonCode::NO_MATCHING_SUBSCRIBERS,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::PACKET_IDENTIFIER_IN_USE,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
];

/// What PUBREL and PUBCOMP may say (MQTT 5.0 §3.6.2.1, §3.7.2.1).
const RELEASE_REASONS: &[ReasonCode] =
    &[ReasonCode::SUCCESS, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND];

impl<'a> Ack<'a> {
    /// The PUBACK of message `id`.
    pub const fn puback(id: PacketId, reason: ReasonCode) -> Self {
        Self {
            kind: AckKind::PubAck,
            id,
            reason,
            reason_string: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    #[inline]
    pub(super) fn decode(
        frame: &Frame<'a>,
        kind: AckKind,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let mut ack = Self::puback(reader.packet_id()?, ReasonCode::SUCCESS);
        ack.kind = kind;
        // Both may be left out, the code only with the properties (§3.4.2.1, §3.4.2.2.1). MQTT 3.1.1 has neither.
        if version == Version::V5 && !reader.is_empty() {
            let allowed = match kind {
                AckKind::PubAck | AckKind::PubRec => RECEIVE_REASONS,
                AckKind::PubRel | AckKind::PubComp => RELEASE_REASONS,
            };
            ack.reason =
                ReasonCode::among(reader.u8()?, allowed).ok_or(DecodeError::ReasonNotAllowed)?;
            let mut properties = Properties::open_if_any(&mut reader, version)?;
            while let Some(id) = properties.next_id()? {
                match id {
                    id::REASON_STRING => ack.reason_string = Some(properties.text()?),
                    _ => return Err(DecodeError::PropertyNotAllowed),
                }
            }
            ack.user_properties = properties.user_properties();
        }
        reader.end()?;
        Ok(ack)
    }

    /// Appends the packet to `out`, in its shortest form.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`]; [`EncodeError::NotInThisVersion`] for an error over MQTT 3.1.1,
    /// where an acknowledgement always means success.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version == Version::V311 && self.reason.is_error() {
            return Err(EncodeError::NotInThisVersion);
        }
        let kind = match self.kind {
            AckKind::PubAck => Kind::PubAck,
            AckKind::PubRec => Kind::PubRec,
            AckKind::PubRel => Kind::PubRel,
            AckKind::PubComp => Kind::PubComp,
        };
        let has_properties = self.reason_string.is_some() || !self.user_properties.is_empty();
        writer::packet(out, kind.first_byte(), 0, |w| {
            w.packet_id(self.id);
            if version == Version::V311 {
                return;
            }
            if has_properties || self.reason != ReasonCode::SUCCESS {
                w.u8(self.reason.value());
            }
            if has_properties {
                w.properties(version, |w| {
                    w.text_property(id::REASON_STRING, self.reason_string);
                    w.user_properties(&self.user_properties);
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientPacket;
    use super::super::testing::{client, pid, raw, section};
    use super::*;

    fn decode(bytes: &[u8], version: Version) -> Result<Ack<'_>, DecodeError> {
        let ClientPacket::Ack(ack) = client(bytes, version)? else {
            panic!("another packet");
        };
        Ok(ack)
    }

    #[test]
    fn mqtt_acks_take_their_shortest_form() {
        let mut out = Vec::new();
        let success = Ack::puback(pid(7), ReasonCode::SUCCESS);
        success.encode(Version::V5, &mut out).unwrap();
        success.encode(Version::V311, &mut out).unwrap();
        let refusal = Ack::puback(pid(7), ReasonCode::NOT_AUTHORIZED);
        refusal.encode(Version::V5, &mut out).unwrap();
        assert_eq!(out, [0x40, 2, 0, 7, 0x40, 2, 0, 7, 0x40, 3, 0, 7, 0x87]);
    }

    #[test]
    fn mqtt_acks_of_each_length_are_read() {
        for bytes in [&[0, 7][..], &[0, 7, 0], &[0, 7, 0, 0]] {
            let bytes = raw(0x40, &[bytes]);
            assert_eq!(
                decode(&bytes, Version::V5),
                Ok(Ack::puback(pid(7), ReasonCode::SUCCESS))
            );
        }
        for (first, kind) in [
            (0x50, AckKind::PubRec),
            (0x62, AckKind::PubRel),
            (0x70, AckKind::PubComp),
        ] {
            let bytes = raw(first, &[&[0, 7]]);
            assert_eq!(decode(&bytes, Version::V5).unwrap().kind, kind);
        }
    }

    #[test]
    fn mqtt_a_failure_is_no_acknowledgement_in_3_1_1() {
        let mut out = Vec::new();
        let refusal = Ack::puback(pid(7), ReasonCode::NOT_AUTHORIZED);
        assert_eq!(
            refusal.encode(Version::V311, &mut out),
            Err(EncodeError::NotInThisVersion)
        );
        assert!(out.is_empty());
    }

    #[test]
    fn mqtt_malformed_acks_are_refused() {
        for (first, body, error) in [
            (0x40, &[][..], DecodeError::Truncated),
            (0x40, &[7], DecodeError::Truncated),
            (0x40, &[0, 0], DecodeError::PacketIdZero),
            (0x40, &[0, 7, 0x92], DecodeError::ReasonNotAllowed),
            (0x40, &[0, 7, 0x01], DecodeError::ReasonNotAllowed),
            (0x62, &[0, 7, 0x87], DecodeError::ReasonNotAllowed),
            (0x70, &[0, 7, 0x10], DecodeError::ReasonNotAllowed),
            (0x40, &[0, 7, 0, 0, 0], DecodeError::TrailingBytes),
            (0x40, &[0, 7, 0, 1], DecodeError::Truncated),
            (
                0x40,
                &[0, 7, 0, 2, 0x01, 0],
                DecodeError::PropertyNotAllowed,
            ),
            (0x40, &[0, 7, 0, 3, 0x1F, 0, 1], DecodeError::Truncated),
        ] {
            let bytes = raw(first, &[body]);
            assert_eq!(decode(&bytes, Version::V5), Err(error), "{body:x?}");
        }
        let reason = section(&[&[0x1F, 0, 0], &[0x1F, 0, 0]]);
        let bytes = raw(0x40, &[&[0, 7, 0], &reason]);
        assert_eq!(decode(&bytes, Version::V5), Err(DecodeError::PropertyTwice));
        let bytes = raw(0x40, &[&[0, 7, 0]]);
        assert_eq!(
            decode(&bytes, Version::V311),
            Err(DecodeError::TrailingBytes)
        );
    }
}
