//! DISCONNECT, MQTT 5.0 §3.14: the last packet of a link, from either side.

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::property::{Properties, UserProperties, id};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::version::{Side, Version};
use super::writer::{self, EncodeError};

/// A DISCONNECT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: ReasonCode,
    /// Session Expiry Interval, in seconds: a client's change of mind. Whether it may be raised depends on CONNECT.
    pub session_expiry_secs: Option<u32>,
    /// Reason String, for people.
    pub reason_string: Option<&'a str>,
    /// Server Reference, from a server.
    pub server_reference: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

/// What a client may say (MQTT 5.0 §3.14.2.1).
const CLIENT_REASONS: &[ReasonCode] = &[
    ReasonCode::NORMAL_DISCONNECTION,
    ReasonCode::DISCONNECT_WITH_WILL,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::MALFORMED_PACKET,
    ReasonCode::PROTOCOL_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    // Table 2-6 lets it end a failed re-authentication; a client may find the server's answer wanting.
    ReasonCode::BAD_AUTHENTICATION_METHOD,
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
    ReasonCode::TOPIC_ALIAS_INVALID,
    ReasonCode::PACKET_TOO_LARGE,
    ReasonCode::MESSAGE_RATE_TOO_HIGH,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::ADMINISTRATIVE_ACTION,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
];

/// What a server may say (MQTT 5.0 §3.14.2.1). An empty DISCONNECT says `0x00`, so that is here too.
const SERVER_REASONS: &[ReasonCode] = &[
    ReasonCode::NORMAL_DISCONNECTION,
    ReasonCode::UNSPECIFIED_ERROR,
    ReasonCode::MALFORMED_PACKET,
    ReasonCode::PROTOCOL_ERROR,
    ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR,
    ReasonCode::NOT_AUTHORIZED,
    ReasonCode::SERVER_BUSY,
    ReasonCode::SERVER_SHUTTING_DOWN,
    ReasonCode::BAD_AUTHENTICATION_METHOD,
    ReasonCode::KEEP_ALIVE_TIMEOUT,
    ReasonCode::SESSION_TAKEN_OVER,
    ReasonCode::TOPIC_FILTER_INVALID,
    ReasonCode::TOPIC_NAME_INVALID,
    ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
    ReasonCode::TOPIC_ALIAS_INVALID,
    ReasonCode::PACKET_TOO_LARGE,
    ReasonCode::MESSAGE_RATE_TOO_HIGH,
    ReasonCode::QUOTA_EXCEEDED,
    ReasonCode::ADMINISTRATIVE_ACTION,
    ReasonCode::PAYLOAD_FORMAT_INVALID,
    ReasonCode::RETAIN_NOT_SUPPORTED,
    ReasonCode::QOS_NOT_SUPPORTED,
    ReasonCode::USE_ANOTHER_SERVER,
    ReasonCode::SERVER_MOVED,
    ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
    ReasonCode::CONNECTION_RATE_EXCEEDED,
    ReasonCode::MAXIMUM_CONNECT_TIME,
    ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED,
    ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
];

impl<'a> Disconnect<'a> {
    /// A DISCONNECT that says `reason` and nothing else.
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_secs: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    pub(super) fn decode(
        frame: &Frame<'a>,
        version: Version,
        from: Side,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let mut disconnect = Self::new(ReasonCode::NORMAL_DISCONNECTION);
        // Both may be left out, the code only with the properties (§3.14.2.1, §3.14.2.2.1). MQTT 3.1.1 has neither.
        if version == Version::V5 && !reader.is_empty() {
            let allowed = match from {
                Side::Client => CLIENT_REASONS,
                Side::Server => SERVER_REASONS,
            };
            disconnect.reason =
                ReasonCode::among(reader.u8()?, allowed).ok_or(DecodeError::ReasonNotAllowed)?;
            disconnect.read_properties(&mut reader, from)?;
        }
        reader.end()?;
        Ok(disconnect)
    }

    /// The properties of §3.14.2.2.
    fn read_properties(&mut self, reader: &mut Reader<'a>, from: Side) -> Result<(), DecodeError> {
        let mut properties = Properties::open_if_any(reader, Version::V5)?;
        while let Some(id) = properties.next_id()? {
            match (id, from) {
                (id::SESSION_EXPIRY, Side::Client) => {
                    self.session_expiry_secs = Some(properties.u32()?);
                }
                (id::SERVER_REFERENCE, Side::Server) => {
                    self.server_reference = Some(properties.text()?);
                }
                (id::REASON_STRING, _) => self.reason_string = Some(properties.text()?),
                _ => return Err(DecodeError::PropertyNotAllowed),
            }
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    /// Appends the packet to `out`, without properties if there are none.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`]; [`EncodeError::NotInThisVersion`] for any reason but `0x00` over
    /// MQTT 3.1.1, where a client has no other and a server sends none: close the connection instead.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version == Version::V311 && self.reason != ReasonCode::NORMAL_DISCONNECTION {
            return Err(EncodeError::NotInThisVersion);
        }
        let has_properties = self.session_expiry_secs.is_some()
            || self.reason_string.is_some()
            || self.server_reference.is_some()
            || !self.user_properties.is_empty();
        writer::packet(out, Kind::Disconnect.first_byte(), 0, |w| {
            if version == Version::V311 {
                return;
            }
            // A length of 1, code without properties, is valid (§3.14.2.2.1), but rumqttc 0.34 cannot read it.
            if has_properties || self.reason != ReasonCode::NORMAL_DISCONNECTION {
                w.u8(self.reason.value());
                w.properties(version, |w| {
                    w.u32_property(id::SESSION_EXPIRY, self.session_expiry_secs);
                    w.text_property(id::REASON_STRING, self.reason_string);
                    w.text_property(id::SERVER_REFERENCE, self.server_reference);
                    w.user_properties(&self.user_properties);
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientPacket;
    use super::super::server::ServerPacket;
    use super::super::testing::{client, raw, section, server};
    use super::*;

    fn from_client(bytes: &[u8], version: Version) -> Result<Disconnect<'_>, DecodeError> {
        let ClientPacket::Disconnect(disconnect) = client(bytes, version)? else {
            panic!("another packet");
        };
        Ok(disconnect)
    }

    fn from_server(bytes: &[u8]) -> Result<Disconnect<'_>, DecodeError> {
        let ServerPacket::Disconnect(disconnect) = server(bytes, Version::V5)? else {
            panic!("another packet");
        };
        Ok(disconnect)
    }

    #[test]
    fn mqtt_disconnects_say_no_more_than_they_must() {
        let mut out = Vec::new();
        let normal = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        normal.encode(Version::V5, &mut out).unwrap();
        normal.encode(Version::V311, &mut out).unwrap();
        let expired = Disconnect {
            reason_string: Some("bye"),
            ..Disconnect::new(ReasonCode::MAXIMUM_CONNECT_TIME)
        };
        assert_eq!(
            expired.encode(Version::V311, &mut out),
            Err(EncodeError::NotInThisVersion)
        );
        assert_eq!(out, [0xE0, 0, 0xE0, 0]);

        out.clear();
        expired.encode(Version::V5, &mut out).unwrap();
        assert_eq!(out, [0xE0, 8, 0xA0, 6, 0x1F, 0, 3, b'b', b'y', b'e']);
        assert_eq!(from_server(&out), Ok(expired));
        let bare = Disconnect::new(ReasonCode::MAXIMUM_CONNECT_TIME);
        out.clear();
        bare.encode(Version::V5, &mut out).unwrap();
        assert_eq!(out, [0xE0, 2, 0xA0, 0]);
        assert_eq!(from_server(&out), Ok(bare));
        assert_eq!(from_server(&[0xE0, 1, 0xA0]), Ok(bare));
    }

    #[test]
    fn mqtt_each_side_has_its_own_reasons_to_leave() {
        for code in 0..=u8::MAX {
            let bytes = [0xE0, 1, code];
            let client = matches!(
                code,
                0 | 4 | 0x80..=0x83 | 0x8C | 0x90 | 0x93..=0x99
            );
            let server = matches!(
                code,
                0 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
            );
            assert_eq!(
                from_client(&bytes, Version::V5).is_ok(),
                client,
                "{code:#04x}"
            );
            assert_eq!(from_server(&bytes).is_ok(), server, "{code:#04x}");
        }
    }

    #[test]
    fn mqtt_malformed_disconnects_are_refused() {
        let refused = |properties: &[&[u8]]| {
            let bytes = raw(0xE0, &[&[0], &section(properties)]);
            (
                from_client(&bytes, Version::V5).err(),
                from_server(&bytes).err(),
            )
        };
        let not_allowed = Some(DecodeError::PropertyNotAllowed);
        assert_eq!(refused(&[&[0x11, 0, 0, 0, 9]]), (None, not_allowed));
        assert_eq!(refused(&[&[0x1C, 0, 0]]), (not_allowed, None));
        let twice = Some(DecodeError::PropertyTwice);
        assert_eq!(refused(&[&[0x1F, 0, 0], &[0x1F, 0, 0]]), (twice, twice));
        assert_eq!(
            from_client(&[0xE0, 3, 0, 0, 0], Version::V5),
            Err(DecodeError::TrailingBytes)
        );
        assert_eq!(
            from_client(&[0xE0, 1, 0], Version::V311),
            Err(DecodeError::TrailingBytes)
        );
    }

    #[test]
    fn mqtt_a_session_expiry_is_decoded_for_the_gate_to_judge() {
        let bytes = raw(0xE0, &[&[0], &section(&[&[0x11, 0, 0, 1, 0]])]);
        let disconnect = from_client(&bytes, Version::V5).unwrap();
        assert_eq!(disconnect.session_expiry_secs, Some(256));
    }
}
