//! AUTH, MQTT 5.0 §3.15 and §4.12: the steps of enhanced authentication. MQTT 3.1.1 has none.

use std::fmt;

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::hidden::Hidden;
use super::property::{Properties, UserProperties, id};
use super::reader::Reader;
use super::reason::ReasonCode;
use super::version::{Side, Version};
use super::writer::{self, EncodeError};

/// An AUTH packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Which step: success from a server, re-authenticate from a client, continue from both.
    pub reason: ReasonCode,
    /// Authentication Method; absent only in a success that says nothing else.
    pub method: Option<&'a str>,
    /// Authentication Data: a secret, not shown by `Debug`.
    pub data: Option<&'a [u8]>,
    /// Reason String, for people.
    pub reason_string: Option<&'a str>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

/// What a client may say (MQTT 5.0 §3.15.2.1).
const CLIENT_REASONS: &[ReasonCode] = &[
    ReasonCode::CONTINUE_AUTHENTICATION,
    ReasonCode::RE_AUTHENTICATE,
];

/// What a server may say (MQTT 5.0 §3.15.2.1).
const SERVER_REASONS: &[ReasonCode] = &[ReasonCode::SUCCESS, ReasonCode::CONTINUE_AUTHENTICATION];

impl<'a> Auth<'a> {
    /// An AUTH of `method` with `data`.
    pub const fn new(reason: ReasonCode, method: &'a str, data: Option<&'a [u8]>) -> Self {
        Self {
            reason,
            method: Some(method),
            data,
            reason_string: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    pub(super) fn decode(frame: &Frame<'a>, from: Side) -> Result<Self, DecodeError> {
        let allowed = match from {
            Side::Client => CLIENT_REASONS,
            Side::Server => SERVER_REASONS,
        };
        let mut reader = Reader::new(frame.body());
        let empty = reader.is_empty();
        let code = if empty { 0 } else { reader.u8()? };
        let mut auth = Self {
            reason: ReasonCode::among(code, allowed).ok_or(DecodeError::ReasonNotAllowed)?,
            method: None,
            data: None,
            reason_string: None,
            user_properties: UserProperties::EMPTY,
        };
        // §3.15.2.1: success with nothing else may have a length of 0. §3.15.2.2.2: all others name their method.
        if empty {
            return Ok(auth);
        }
        let mut properties = Properties::open(&mut reader, Version::V5)?;
        while let Some(id) = properties.next_id()? {
            match id {
                id::AUTH_METHOD => auth.method = Some(properties.text()?),
                id::AUTH_DATA => auth.data = Some(properties.binary()?),
                id::REASON_STRING => auth.reason_string = Some(properties.text()?),
                _ => return Err(DecodeError::PropertyNotAllowed),
            }
        }
        if auth.method.is_none() {
            return Err(DecodeError::AuthMethodMissing);
        }
        auth.user_properties = properties.user_properties();
        reader.end()?;
        Ok(auth)
    }

    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let bare = Self {
            reason: ReasonCode::SUCCESS,
            method: None,
            data: None,
            reason_string: None,
            user_properties: UserProperties::EMPTY,
        };
        writer::packet(out, Kind::Auth.first_byte(), 0, |w| {
            if *self == bare {
                return;
            }
            w.u8(self.reason.value());
            w.properties(Version::V5, |w| {
                w.text_property(id::AUTH_METHOD, self.method);
                w.binary_property(id::AUTH_DATA, self.data);
                w.text_property(id::REASON_STRING, self.reason_string);
                w.user_properties(&self.user_properties);
            });
        })
    }
}

/// Shows no authentication data.
impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("reason", &self.reason)
            .field("method", &self.method)
            .field("data", &self.data.map(Hidden))
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientPacket;
    use super::super::server::ServerPacket;
    use super::super::testing::{client, raw, section, server};
    use super::*;

    const METHOD: &[u8] = &[0x15, 0, 3, b'a', b'c', b'e'];

    fn from_client(bytes: &[u8]) -> Result<Auth<'_>, DecodeError> {
        let ClientPacket::Auth(auth) = client(bytes, Version::V5)? else {
            panic!("another packet");
        };
        Ok(auth)
    }

    fn from_server(bytes: &[u8]) -> Result<Auth<'_>, DecodeError> {
        let ServerPacket::Auth(auth) = server(bytes, Version::V5)? else {
            panic!("another packet");
        };
        Ok(auth)
    }

    #[test]
    fn mqtt_a_proof_is_these_bytes() {
        let auth = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, "ace", Some(&[9, 8]));
        let mut out = Vec::new();
        auth.encode(&mut out).unwrap();
        let expected = raw(0xF0, &[&[0x18], &section(&[METHOD, &[0x16, 0, 2, 9, 8]])]);
        assert_eq!(out, expected);
        assert_eq!(from_client(&out), Ok(auth));
        assert_eq!(from_server(&out), Ok(auth));
    }

    #[test]
    fn mqtt_each_side_has_its_own_steps() {
        for code in 0..=u8::MAX {
            let bytes = raw(0xF0, &[&[code], &section(&[METHOD])]);
            assert_eq!(
                from_client(&bytes).is_ok(),
                matches!(code, 0x18 | 0x19),
                "{code:#04x}"
            );
            assert_eq!(
                from_server(&bytes).is_ok(),
                matches!(code, 0x00 | 0x18),
                "{code:#04x}"
            );
        }
    }

    #[test]
    fn mqtt_an_empty_auth_is_a_servers_success() {
        let auth = from_server(&[0xF0, 0]).unwrap();
        assert_eq!((auth.reason, auth.method), (ReasonCode::SUCCESS, None));
        let mut out = Vec::new();
        auth.encode(&mut out).unwrap();
        assert_eq!(out, [0xF0, 0]);
        assert_eq!(from_client(&[0xF0, 0]), Err(DecodeError::ReasonNotAllowed));
    }

    #[test]
    fn mqtt_malformed_auths_are_refused() {
        let refused = |properties: &[&[u8]]| {
            let bytes = raw(0xF0, &[&[0x18], &section(properties)]);
            from_client(&bytes).err()
        };
        assert_eq!(refused(&[]), Some(DecodeError::AuthMethodMissing));
        assert_eq!(
            refused(&[&[0x16, 0, 0]]),
            Some(DecodeError::AuthMethodMissing)
        );
        assert_eq!(refused(&[METHOD, METHOD]), Some(DecodeError::PropertyTwice));
        assert_eq!(
            refused(&[METHOD, &[0x11, 0, 0, 0, 1]]),
            Some(DecodeError::PropertyNotAllowed)
        );
        assert_eq!(from_client(&[0xF0, 1, 0x18]), Err(DecodeError::Truncated));
        let bytes = raw(0xF0, &[&[0x18], &section(&[METHOD]), &[0]]);
        assert_eq!(from_client(&bytes), Err(DecodeError::TrailingBytes));
    }

    #[test]
    fn mqtt_3_1_1_has_no_auth() {
        let bytes = raw(0xF0, &[&[0x18], &section(&[METHOD])]);
        assert_eq!(
            client(&bytes, Version::V311),
            Err(DecodeError::UnknownPacket)
        );
    }

    #[test]
    fn mqtt_authentication_data_is_not_shown() {
        let auth = Auth::new(ReasonCode::RE_AUTHENTICATE, "ace", Some(b"geheim"));
        let shown = format!("{auth:?}");
        assert!(shown.contains("<6 bytes>"), "{shown}");
        assert!(
            !shown.contains("geheim") && !shown.contains("103"),
            "{shown}"
        );
    }
}
