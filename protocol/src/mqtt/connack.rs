//! CONNACK, MQTT 5.0 §3.2: the answer to CONNECT, and what the server does not do.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::hidden::Hidden;
use super::property::{Properties, UserProperties, id};
use super::qos::Qos;
use super::reader::Reader;
use super::reason::ReasonCode;
use super::version::Version;
use super::writer::{self, EncodeError, Writer};

/// A CONNACK packet. What is `None` is absent from the wire, and has the default of the standard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// How it went.
    pub reason: ReasonCode,
    /// Whether the server kept the session; false with an error.
    pub session_present: bool,
    /// Session Expiry Interval, in seconds, if not as asked for.
    pub session_expiry_secs: Option<u32>,
    /// Receive Maximum of the server; absent: 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Maximum QoS, 0 or 1; absent: 2.
    pub qos_max: Option<Qos>,
    /// Retain Available; absent: yes.
    pub retain_available: Option<bool>,
    /// Maximum Packet Size that the server takes, in bytes; absent: no limit.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// Assigned Client Identifier.
    pub assigned_client_id: Option<&'a str>,
    /// Topic Alias Maximum; absent: 0.
    pub topic_alias_max: Option<u16>,
    /// Reason String, for people.
    pub reason_string: Option<&'a str>,
    /// Wildcard Subscription Available; absent: yes.
    pub wildcard_available: Option<bool>,
    /// Subscription Identifiers Available; absent: yes.
    pub subscription_id_available: Option<bool>,
    /// Shared Subscription Available; absent: yes.
    pub shared_available: Option<bool>,
    /// Server Keep Alive, in seconds; absent: as the client asked for.
    pub server_keep_alive_secs: Option<u16>,
    /// Response Information.
    pub response_info: Option<&'a str>,
    /// Server Reference.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub auth_method: Option<&'a str>,
    /// Authentication Data; not shown by `Debug`.
    pub auth_data: Option<&'a [u8]>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

/// What a CONNACK may say (MQTT 5.0 §3.2.2.2).
const REASONS: &[ReasonCode] = &[
    ReasonCode::SUCCESS,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::MALFORMED_PACKET,
    ReasonCode::PROTOCOL_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
    ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
    ReasonCode::BAD_USER_NAME_OR_PASSWORD,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::SERVER_UNAVAILABLE,
    ReasonCode::SERVER_BUSY,
    ReasonCode::BANNED,
    ReasonCode::BAD_AUTHENTICATION_METHOD,
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::PACKET_TOO_LARGE,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
    ReasonCode::RETAIN_NOT_SUPPORTED,
    ReasonCode::QOS_NOT_SUPPORTED,
    ReasonCode::USE_ANOTHER_SERVER,
    ReasonCode::SERVER_MOVED,
    ReasonCode::CONNECTION_RATE_EXCEEDED,
];

impl<'a> ConnAck<'a> {
    /// A CONNACK that says `reason` and nothing else.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_present: false,
            session_expiry_secs: None,
            receive_maximum: None,
            qos_max: None,
            retain_available: None,
            packet_bytes_max: None,
            assigned_client_id: None,
            topic_alias_max: None,
            reason_string: None,
            wildcard_available: None,
            subscription_id_available: None,
            shared_available: None,
            server_keep_alive_secs: None,
            response_info: None,
            server_reference: None,
            auth_method: None,
            auth_data: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    pub(super) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let session_present = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(DecodeError::ConnectFlags),
        };
        let code = reader.u8()?;
        let reason = match version {
            Version::V5 => ReasonCode::among(code, REASONS),
            Version::V311 => from_return_code(code),
        };
        let mut connack = Self::new(reason.ok_or(DecodeError::ReasonNotAllowed)?);
        // §3.2.2.1.1: a refusal keeps no session.
        if session_present && connack.reason.is_error() {
            return Err(DecodeError::ConnectFlags);
        }
        connack.session_present = session_present;
        connack.read_properties(&mut reader, version)?;
        reader.end()?;
        Ok(connack)
    }

    /// The properties of §3.2.2.3.
    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        version: Version,
    ) -> Result<(), DecodeError> {
        let mut properties = Properties::open(reader, version)?;
        while let Some(id) = properties.next_id()? {
            let p = &mut properties;
            match id {
                id::SESSION_EXPIRY => self.session_expiry_secs = Some(p.u32()?),
                id::RECEIVE_MAXIMUM => self.receive_maximum = Some(p.receive_maximum()?),
                id::QOS_MAXIMUM if p.flag()? => self.qos_max = Some(Qos::AtLeastOnce),
                id::QOS_MAXIMUM => self.qos_max = Some(Qos::AtMostOnce),
                id::RETAIN_AVAILABLE => self.retain_available = Some(p.flag()?),
                id::PACKET_BYTES_MAXIMUM => self.packet_bytes_max = Some(p.packet_bytes_maximum()?),
                id::ASSIGNED_CLIENT_ID => self.assigned_client_id = Some(p.text()?),
                id::TOPIC_ALIAS_MAXIMUM => self.topic_alias_max = Some(p.u16()?),
                id::REASON_STRING => self.reason_string = Some(p.text()?),
                id::WILDCARD_AVAILABLE => self.wildcard_available = Some(p.flag()?),
                id::SUBSCRIPTION_ID_AVAILABLE => {
                    self.subscription_id_available = Some(p.flag()?);
                }
                id::SHARED_AVAILABLE => self.shared_available = Some(p.flag()?),
                id::SERVER_KEEP_ALIVE => self.server_keep_alive_secs = Some(p.u16()?),
                id::RESPONSE_INFO => self.response_info = Some(p.text()?),
                id::SERVER_REFERENCE => self.server_reference = Some(p.text()?),
                id::AUTH_METHOD => self.auth_method = Some(p.text()?),
                id::AUTH_DATA => self.auth_data = Some(p.binary()?),
                _ => return Err(DecodeError::PropertyNotAllowed),
            }
        }
        if self.auth_data.is_some() && self.auth_method.is_none() {
            return Err(DecodeError::AuthDataWithoutMethod);
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    /// Appends the packet to `out`. In MQTT 3.1.1 it is the nearest return code, and no properties.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::packet(out, Kind::ConnAck.first_byte(), 0, |w| {
            w.u8(u8::from(self.session_present && !self.reason.is_error()));
            w.u8(match version {
                Version::V5 => self.reason.value(),
                Version::V311 => return_code(self.reason),
            });
            w.properties(version, |w| self.write_properties(w));
        })
    }

    fn write_properties(&self, w: &mut Writer<'_>) {
        w.u32_property(id::SESSION_EXPIRY, self.session_expiry_secs);
        w.u16_property(
            id::RECEIVE_MAXIMUM,
            self.receive_maximum.map(NonZeroU16::get),
        );
        // QoS 2 has no value here: it is what absence means (§3.2.2.3.4).
        w.flag_property(
            id::QOS_MAXIMUM,
            match self.qos_max {
                Some(Qos::AtMostOnce) => Some(false),
                Some(Qos::AtLeastOnce) => Some(true),
                Some(Qos::ExactlyOnce) | None => None,
            },
        );
        w.flag_property(id::RETAIN_AVAILABLE, self.retain_available);
        w.u32_property(
            id::PACKET_BYTES_MAXIMUM,
            self.packet_bytes_max.map(NonZeroU32::get),
        );
        w.text_property(id::ASSIGNED_CLIENT_ID, self.assigned_client_id);
        w.u16_property(id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_max);
        w.text_property(id::REASON_STRING, self.reason_string);
        w.flag_property(id::WILDCARD_AVAILABLE, self.wildcard_available);
        w.flag_property(
            id::SUBSCRIPTION_ID_AVAILABLE,
            self.subscription_id_available,
        );
        w.flag_property(id::SHARED_AVAILABLE, self.shared_available);
        w.u16_property(id::SERVER_KEEP_ALIVE, self.server_keep_alive_secs);
        w.text_property(id::RESPONSE_INFO, self.response_info);
        w.text_property(id::SERVER_REFERENCE, self.server_reference);
        w.text_property(id::AUTH_METHOD, self.auth_method);
        w.binary_property(id::AUTH_DATA, self.auth_data);
        w.user_properties(&self.user_properties);
    }
}

/// The return code of MQTT 3.1.1 §3.2.2.3 that comes nearest.
const fn return_code(reason: ReasonCode) -> u8 {
    match reason {
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => 1,
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => 2,
        ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::SERVER_BUSY
        | ReasonCode::QUOTA_EXCEEDED
        | ReasonCode::USE_ANOTHER_SERVER
        | ReasonCode::SERVER_MOVED
        | ReasonCode::CONNECTION_RATE_EXCEEDED => 3,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => 4,
        other if other.is_error() => 5,
        _ => 0,
    }
}

const fn from_return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::SUCCESS,
        1 => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        2 => ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
        3 => ReasonCode::SERVER_UNAVAILABLE,
        4 => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        5 => ReasonCode::NOT_AUTHORIZED,
        _ => return None,
    })
}

/// Shows what is present, and no authentication data.
impl fmt::Debug for ConnAck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnAck")
            .field("reason", &self.reason)
            .field("session_present", &self.session_present)
            .field("session_expiry_secs", &self.session_expiry_secs)
            .field("receive_maximum", &self.receive_maximum)
            .field("qos_max", &self.qos_max)
            .field("retain_available", &self.retain_available)
            .field("packet_bytes_max", &self.packet_bytes_max)
            .field("assigned_client_id", &self.assigned_client_id)
            .field("topic_alias_max", &self.topic_alias_max)
            .field("reason_string", &self.reason_string)
            .field("wildcard_available", &self.wildcard_available)
            .field("subscription_id_available", &self.subscription_id_available)
            .field("shared_available", &self.shared_available)
            .field("server_keep_alive_secs", &self.server_keep_alive_secs)
            .field("auth_method", &self.auth_method)
            .field("auth_data", &self.auth_data.map(Hidden))
            .field("user_properties", &self.user_properties)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::ServerPacket;
    use super::super::testing::{raw, section, server};
    use super::*;

    fn decode(bytes: &[u8], version: Version) -> Result<ConnAck<'_>, DecodeError> {
        let ServerPacket::ConnAck(connack) = server(bytes, version)? else {
            panic!("another packet");
        };
        Ok(connack)
    }

    #[test]
    fn mqtt_connack_of_the_gate_is_these_bytes() {
        let connack = ConnAck {
            session_expiry_secs: Some(0),
            receive_maximum: NonZeroU16::new(128),
            qos_max: Some(Qos::AtLeastOnce),
            retain_available: Some(false),
            packet_bytes_max: NonZeroU32::new(65_536),
            wildcard_available: Some(false),
            subscription_id_available: Some(false),
            shared_available: Some(false),
            server_keep_alive_secs: Some(30),
            ..ConnAck::new(ReasonCode::SUCCESS)
        };
        let mut out = Vec::new();
        connack.encode(Version::V5, &mut out).unwrap();
        let expected = [
            &[0x20, 29, 0, 0, 26][..],
            &[0x11, 0, 0, 0, 0, 0x21, 0, 128, 0x24, 1, 0x25, 0],
            &[0x27, 0, 1, 0, 0, 0x28, 0, 0x29, 0, 0x2A, 0, 0x13, 0, 30],
        ]
        .concat();
        assert_eq!(out, expected);
        assert_eq!(decode(&out, Version::V5), Ok(connack));
    }

    #[test]
    fn mqtt_3_1_1_gets_the_nearest_return_code() {
        for (reason, code) in [
            (ReasonCode::SUCCESS, 0),
            (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, 1),
            (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, 2),
            (ReasonCode::CONNECTION_RATE_EXCEEDED, 3),
            (ReasonCode::SERVER_BUSY, 3),
            (ReasonCode::BAD_USER_NAME_OR_PASSWORD, 4),
            (ReasonCode::NOT_AUTHORIZED, 5),
            (ReasonCode::BAD_AUTHENTICATION_METHOD, 5),
            (ReasonCode::PROTOCOL_ERROR, 5),
        ] {
            let mut out = Vec::new();
            ConnAck::new(reason)
                .encode(Version::V311, &mut out)
                .unwrap();
            assert_eq!(out, [0x20, 2, 0, code], "{reason}");
        }
    }

    #[test]
    fn mqtt_a_refusal_never_claims_a_session() {
        let mut connack = ConnAck::new(ReasonCode::NOT_AUTHORIZED);
        connack.session_present = true;
        let mut out = Vec::new();
        connack.encode(Version::V5, &mut out).unwrap();
        assert_eq!(out, [0x20, 3, 0, 0x87, 0]);
        for version in [Version::V5, Version::V311] {
            let code = if version == Version::V5 { 0x87 } else { 5 };
            let bytes = raw(0x20, &[&[1, code], &section(&[])]);
            assert_eq!(decode(&bytes, version), Err(DecodeError::ConnectFlags));
        }
    }

    #[test]
    fn mqtt_malformed_connacks_are_refused() {
        let v5 = |flags, code, properties: &[&[u8]]| {
            let bytes = raw(0x20, &[&[flags, code], &section(properties)]);
            decode(&bytes, Version::V5).err()
        };
        assert_eq!(v5(2, 0, &[]), Some(DecodeError::ConnectFlags));
        for code in 0..=u8::MAX {
            let expected = match code {
                0 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F => None,
                _ => Some(DecodeError::ReasonNotAllowed),
            };
            assert_eq!(v5(0, code, &[]), expected, "{code:#04x}");
        }
        for (property, error) in [
            (&[0x21, 0, 0][..], DecodeError::ReceiveMaximumZero),
            (&[0x27, 0, 0, 0, 0], DecodeError::PacketMaximumZero),
            (&[0x24, 2], DecodeError::PropertyValue),
            (&[0x25, 2], DecodeError::PropertyValue),
            (&[0x2A, 9], DecodeError::PropertyValue),
            (&[0x16, 0, 0], DecodeError::AuthDataWithoutMethod),
            (&[0x23, 0, 1], DecodeError::PropertyNotAllowed),
            (&[0x24, 1, 0x24, 1], DecodeError::PropertyTwice),
            (&[0x1F, 0, 1, 0x1B], DecodeError::BadText),
        ] {
            assert_eq!(v5(0, 0, &[property]), Some(error), "{property:x?}");
        }
        assert_eq!(
            decode(&[0x20, 2, 0, 6], Version::V311),
            Err(DecodeError::ReasonNotAllowed)
        );
        assert_eq!(
            decode(&[0x20, 3, 0, 0, 0], Version::V311),
            Err(DecodeError::TrailingBytes)
        );
        assert_eq!(
            decode(&[0x20, 2, 0, 0], Version::V5),
            Err(DecodeError::Truncated)
        );
    }
}
