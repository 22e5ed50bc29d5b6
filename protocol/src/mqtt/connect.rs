//! CONNECT, MQTT 5.0 §3.1 and MQTT 3.1.1 §3.1: the first packet of a link.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::hidden::Hidden;
use super::property::{Properties, UserProperties, id};
use super::qos::Qos;
use super::reader::Reader;
use super::version::Version;
use super::will::Will;
use super::writer::{self, EncodeError, Writer};

/// The protocol name of both versions (MQTT 5.0 §3.1.2.1).
const PROTOCOL_NAME: &[u8] = b"MQTT";

/// A CONNECT packet. What MQTT 3.1.1 does not have is at its MQTT 5 default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version the client speaks; all that follows on the link is decoded by it.
    pub version: Version,
    /// Clean Start; in MQTT 3.1.1, Clean Session.
    pub clean_start: bool,
    /// Keep Alive, in seconds; 0 for none.
    pub keep_alive_secs: u16,
    /// Client Identifier; may be empty.
    pub client_id: &'a str,
    /// User Name.
    pub user_name: Option<&'a str>,
    /// Password: a secret, not shown by `Debug`.
    pub password: Option<&'a [u8]>,
    /// The will.
    pub will: Option<Will<'a>>,
    /// Session Expiry Interval, in seconds; `u32::MAX` for never. In MQTT 3.1.1 it is what Clean Session says.
    pub session_expiry_secs: u32,
    /// Receive Maximum: how many QoS 1 messages the client takes unacknowledged.
    pub receive_maximum: NonZeroU16,
    /// Maximum Packet Size that the client takes, in bytes.
    pub packet_bytes_max: Option<NonZeroU32>,
    /// Topic Alias Maximum that the client takes.
    pub topic_alias_max: u16,
    /// Request Problem Information: whether reason strings are welcome outside CONNACK and DISCONNECT (§3.1.2.11.7).
    pub wants_problem_info: bool,
    /// Authentication Method.
    pub auth_method: Option<&'a str>,
    /// Authentication Data: a secret, not shown by `Debug`.
    pub auth_data: Option<&'a [u8]>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Connect<'a> {
    /// A CONNECT of MQTT 5 with clean start, session expiry 0, and all else at the defaults of the standard.
    pub const fn new(client_id: &'a str, keep_alive_secs: u16) -> Self {
        Self {
            version: Version::V5,
            clean_start: true,
            keep_alive_secs,
            client_id,
            user_name: None,
            password: None,
            will: None,
            session_expiry_secs: 0,
            receive_maximum: NonZeroU16::MAX,
            packet_bytes_max: None,
            topic_alias_max: 0,
            wants_problem_info: true,
            auth_method: None,
            auth_data: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    pub(super) fn decode(frame: &Frame<'a>) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let version = match (reader.binary()?, reader.u8()?) {
            (PROTOCOL_NAME, 5) => Version::V5,
            (PROTOCOL_NAME, 4) => Version::V311,
            _ => return Err(DecodeError::UnsupportedVersion),
        };
        frame.check_length_form(version)?;
        let flags = Flags::of(reader.u8()?, version)?;

        let mut connect = Self::new("", reader.u16()?);
        connect.version = version;
        connect.clean_start = flags.clean_start;
        if version == Version::V311 && !flags.clean_start {
            connect.session_expiry_secs = u32::MAX;
        }
        connect.read_properties(&mut reader)?;

        connect.client_id = reader.text()?;
        if let Some((qos, retain)) = flags.will {
            connect.will = Some(Will::read(&mut reader, version, qos, retain)?);
        }
        if flags.user_name {
            connect.user_name = Some(reader.text()?);
        }
        if flags.password {
            connect.password = Some(reader.binary()?);
        }
        reader.end()?;
        Ok(connect)
    }

    /// The properties of §3.1.2.11.
    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let mut properties = Properties::open(reader, self.version)?;
        while let Some(id) = properties.next_id()? {
            match id {
                id::SESSION_EXPIRY => self.session_expiry_secs = properties.u32()?,
                id::RECEIVE_MAXIMUM => self.receive_maximum = properties.receive_maximum()?,
                id::PACKET_BYTES_MAXIMUM => {
                    self.packet_bytes_max = Some(properties.packet_bytes_maximum()?);
                }
                id::TOPIC_ALIAS_MAXIMUM => self.topic_alias_max = properties.u16()?,
                // We have no response information to give, asked or not (§3.1.2.11.6).
                id::REQUEST_RESPONSE_INFO => _ = properties.flag()?,
                id::REQUEST_PROBLEM_INFO => self.wants_problem_info = properties.flag()?,
                id::AUTH_METHOD => self.auth_method = Some(properties.text()?),
                id::AUTH_DATA => self.auth_data = Some(properties.binary()?),
                _ => return Err(DecodeError::PropertyNotAllowed),
            }
        }
        if self.auth_data.is_some() && self.auth_method.is_none() {
            return Err(DecodeError::AuthDataWithoutMethod);
        }
        self.user_properties = properties.user_properties();
        Ok(())
    }

    /// Appends the packet to `out`, in its own version.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`]; [`EncodeError::NotInThisVersion`] for MQTT 3.1.1 with a
    /// password and no user name.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.version == Version::V311 && self.password.is_some() && self.user_name.is_none() {
            return Err(EncodeError::NotInThisVersion);
        }
        writer::packet(out, Kind::Connect.first_byte(), 0, |w| {
            w.binary(PROTOCOL_NAME);
            w.u8(self.version.level());
            w.u8(Flags::from(self).byte());
            w.u16(self.keep_alive_secs);
            w.properties(self.version, |w| self.write_properties(w));
            w.text(self.client_id);
            if let Some(will) = &self.will {
                will.write(self.version, w);
            }
            if let Some(user_name) = self.user_name {
                w.text(user_name);
            }
            if let Some(password) = self.password {
                w.binary(password);
            }
        })
    }

    fn write_properties(&self, w: &mut Writer<'_>) {
        let unless = |default: u16, value: u16| Some(value).filter(|value| *value != default);
        w.u32_property(
            id::SESSION_EXPIRY,
            Some(self.session_expiry_secs).filter(|secs| *secs > 0),
        );
        w.u16_property(
            id::RECEIVE_MAXIMUM,
            unless(u16::MAX, self.receive_maximum.get()),
        );
        w.u32_property(
            id::PACKET_BYTES_MAXIMUM,
            self.packet_bytes_max.map(NonZeroU32::get),
        );
        w.u16_property(id::TOPIC_ALIAS_MAXIMUM, unless(0, self.topic_alias_max));
        w.flag_property(
            id::REQUEST_PROBLEM_INFO,
            (!self.wants_problem_info).then_some(false),
        );
        w.text_property(id::AUTH_METHOD, self.auth_method);
        w.binary_property(id::AUTH_DATA, self.auth_data);
        w.user_properties(&self.user_properties);
    }
}

/// Shows no secret.
impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("password", &self.password.map(Hidden))
            .field("will", &self.will)
            .field("session_expiry_secs", &self.session_expiry_secs)
            .field("receive_maximum", &self.receive_maximum)
            .field("packet_bytes_max", &self.packet_bytes_max)
            .field("topic_alias_max", &self.topic_alias_max)
            .field("wants_problem_info", &self.wants_problem_info)
            .field("auth_method", &self.auth_method)
            .field("auth_data", &self.auth_data.map(Hidden))
            .field("user_properties", &self.user_properties)
            .finish()
    }
}

/// The connect flags, MQTT 5.0 §3.1.2.3.
struct Flags {
    user_name: bool,
    password: bool,
    will: Option<(Qos, bool)>,
    clean_start: bool,
}

impl Flags {
    fn of(byte: u8, version: Version) -> Result<Self, DecodeError> {
        let set = |bit: u8| byte & bit != 0;
        let will = if set(0x04) {
            let qos = Qos::of(byte >> 3 & 0b11).ok_or(DecodeError::QosThree)?;
            Some((qos, set(0x20)))
        } else if set(0x38) {
            return Err(DecodeError::ConnectFlags);
        } else {
            None
        };
        let flags = Self {
            user_name: set(0x80),
            password: set(0x40),
            will,
            clean_start: set(0x02),
        };
        // MQTT 3.1.1 §3.1.2.9 allows no password without a user name; MQTT 5 does.
        let lonely = version == Version::V311 && flags.password && !flags.user_name;
        if set(0x01) || lonely {
            return Err(DecodeError::ConnectFlags);
        }
        Ok(flags)
    }

    fn from(connect: &Connect<'_>) -> Self {
        Self {
            user_name: connect.user_name.is_some(),
            password: connect.password.is_some(),
            will: connect.will.map(|will| (will.qos, will.retain)),
            clean_start: connect.clean_start,
        }
    }

    fn byte(&self) -> u8 {
        let will = self.will.map_or(0, |(qos, retain)| {
            0x04 | qos.value() << 3 | u8::from(retain) << 5
        });
        u8::from(self.user_name) << 7
            | u8::from(self.password) << 6
            | will
            | u8::from(self.clean_start) << 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientPacket;
    use super::super::testing::{client, raw, section, text};
    use super::*;

    /// Name, level, flags, keep-alive of 60 s, properties, and payload.
    fn connect(level: u8, flags: u8, properties: &[&[u8]], payload: &[&[u8]]) -> Vec<u8> {
        let properties = match level {
            5 => section(properties),
            _ => Vec::new(),
        };
        raw(
            0x10,
            &[
                &text("MQTT"),
                &[level, flags, 0, 60],
                &properties,
                &payload.concat(),
            ],
        )
    }

    fn decode(bytes: &[u8]) -> Result<Connect<'_>, DecodeError> {
        // The version of the link is not known yet; CONNECT must not look at it.
        let decoded = client(bytes, Version::V311);
        assert_eq!(decoded, client(bytes, Version::V5));
        let ClientPacket::Connect(connect) = decoded? else {
            panic!("another packet");
        };
        Ok(connect)
    }

    /// The error of a CONNECT of MQTT 5 with these properties.
    fn refused(properties: &[&[u8]]) -> Option<DecodeError> {
        decode(&connect(5, 0x02, properties, &[&text("edge-1")])).err()
    }

    #[test]
    fn mqtt_connect_of_a_host_is_these_bytes() {
        let packet = Connect {
            receive_maximum: NonZeroU16::new(128).unwrap(),
            packet_bytes_max: NonZeroU32::new(65_536),
            auth_method: Some("ace"),
            auth_data: Some(&[0, 1, 7]),
            ..Connect::new("edge-1", 30)
        };
        let mut out = Vec::new();
        packet.encode(&mut out).unwrap();
        let expected = [
            &[0x10, 39, 0, 4][..],
            b"MQTT",
            &[5, 0x02, 0, 30, 20],
            &[0x21, 0, 128, 0x27, 0, 1, 0, 0],
            &[0x15, 0, 3, b'a', b'c', b'e', 0x16, 0, 3, 0, 1, 7],
            &[0, 6],
            b"edge-1",
        ]
        .concat();
        assert_eq!(out, expected);
        assert_eq!(decode(&out), Ok(packet));
    }

    #[test]
    fn mqtt_connect_of_3_1_1_has_the_defaults_of_mqtt_5() {
        let bytes = connect(
            4,
            0xC2,
            &[],
            &[&text("reader"), &text("name"), &text([0xFF, 0])],
        );
        let expected = Connect {
            version: Version::V311,
            user_name: Some("name"),
            password: Some(&[0xFF, 0]),
            ..Connect::new("reader", 60)
        };
        assert_eq!(decode(&bytes), Ok(expected));

        let bytes = connect(4, 0x00, &[], &[&text("reader")]);
        assert_eq!(decode(&bytes).unwrap().session_expiry_secs, u32::MAX);
    }

    #[test]
    fn mqtt_other_protocols_are_unsupported_and_not_malformed() {
        for (name, level) in [
            ("MQTT", 3),
            ("MQTT", 6),
            ("MQTT", 0x84),
            ("MQIsdp", 3),
            ("mqtt", 5),
            ("", 5),
        ] {
            let bytes = raw(0x10, &[&text(name), &[level, 2, 0, 60, 0, 0, 0]]);
            assert_eq!(decode(&bytes), Err(DecodeError::UnsupportedVersion));
        }
        assert_eq!(DecodeError::UnsupportedVersion.reason().value(), 0x84);
    }

    #[test]
    fn mqtt_connect_flags_that_contradict_each_other_are_refused() {
        let will = [&[0][..], &text("t"), &text("")].concat();
        for (flags, error) in [
            (0x03, DecodeError::ConnectFlags), // reserved
            (0x0A, DecodeError::ConnectFlags), // will QoS without will
            (0x22, DecodeError::ConnectFlags), // will retain without will
            (0x1E, DecodeError::QosThree),
        ] {
            let bytes = connect(5, flags, &[], &[&text("edge-1"), &will]);
            assert_eq!(decode(&bytes), Err(error), "{flags:#04x}");
            assert_eq!(error.reason().value(), 0x81);
        }
    }

    #[test]
    fn mqtt_a_password_without_a_user_name_needs_mqtt_5() {
        let payload = [text("edge-1"), text("secret")].concat();
        let bytes = connect(5, 0x42, &[], &[&payload]);
        assert_eq!(decode(&bytes).unwrap().password, Some(&b"secret"[..]));
        let bytes = connect(4, 0x42, &[], &[&payload]);
        assert_eq!(decode(&bytes), Err(DecodeError::ConnectFlags));

        let mut packet = Connect::new("edge-1", 30);
        packet.version = Version::V311;
        packet.password = Some(b"secret");
        assert_eq!(
            packet.encode(&mut Vec::new()),
            Err(EncodeError::NotInThisVersion)
        );
    }

    #[test]
    fn mqtt_a_will_is_decoded_for_the_gate_to_refuse() {
        let properties = section(&[&[0x18, 0, 0, 0, 9], &[0x01, 1]]);
        let bytes = connect(
            5,
            0x36,
            &[],
            &[&text("edge-1"), &properties, &text("é/x"), &text("gone")],
        );
        let will = decode(&bytes).unwrap().will.unwrap();
        assert_eq!((will.topic, will.payload), ("é/x", &b"gone"[..]));
        assert_eq!(
            (will.qos, will.retain, will.delay_secs),
            (Qos::ExactlyOnce, true, 9)
        );
        assert!(will.properties.payload_is_text);
    }

    #[test]
    fn mqtt_a_will_with_a_bad_topic_or_property_is_refused() {
        let will = |properties: &[&[u8]], topic: &str| {
            let will = [section(properties), text(topic), text("")].concat();
            let bytes = connect(5, 0x06, &[], &[&text("edge-1"), &will]);
            decode(&bytes).err()
        };
        assert_eq!(will(&[], ""), Some(DecodeError::TopicEmpty));
        assert_eq!(will(&[], "a/#"), Some(DecodeError::TopicWildcard));
        assert_eq!(will(&[], "a\0"), Some(DecodeError::BadText));
        // A topic alias is PUBLISH's, a session expiry CONNECT's.
        for property in [&[0x23, 0, 1][..], &[0x11, 0, 0, 0, 1]] {
            assert_eq!(
                will(&[property], "t"),
                Some(DecodeError::PropertyNotAllowed)
            );
        }
        let delay = [0x18, 0, 0, 0, 9];
        assert_eq!(
            will(&[&delay, &delay], "t"),
            Some(DecodeError::PropertyTwice)
        );
        let users = [&[0x26, 0, 0, 0, 0][..]; 9];
        assert_eq!(will(&users, "t"), Some(DecodeError::TooManyUserProperties));
    }

    #[test]
    fn mqtt_hostile_connect_properties_are_refused() {
        for (property, error) in [
            (&[0x21, 0, 0][..], DecodeError::ReceiveMaximumZero),
            (&[0x27, 0, 0, 0, 0], DecodeError::PacketMaximumZero),
            (&[0x17, 2], DecodeError::PropertyValue),
            (&[0x19, 2], DecodeError::PropertyValue),
            (&[0x16, 0, 1, 7], DecodeError::AuthDataWithoutMethod),
            (&[0x15, 0, 1, 0], DecodeError::BadText),
            (&[0x00, 1], DecodeError::PropertyNotAllowed), // no such property
            (&[0x7E, 1], DecodeError::PropertyNotAllowed), // no such property
            (&[0x91, 0x00], DecodeError::PropertyNotAllowed), // 0x11, in two bytes
            (&[0x23, 0, 1], DecodeError::PropertyNotAllowed), // topic alias
            (&[0x12, 0, 0], DecodeError::PropertyNotAllowed), // assigned client id
            (&[0x11, 0, 0], DecodeError::Truncated),
        ] {
            assert_eq!(refused(&[property]), Some(error), "{property:x?}");
        }
    }

    #[test]
    fn mqtt_each_connect_property_twice_is_refused() {
        for property in [
            &[0x11, 0, 0, 0, 1][..],
            &[0x21, 0, 1],
            &[0x27, 0, 0, 0, 1],
            &[0x22, 0, 1],
            &[0x19, 1],
            &[0x17, 1],
            &[0x15, 0, 1, b'a'],
        ] {
            assert_eq!(refused(&[property]), None);
            assert_eq!(
                refused(&[property, property]),
                Some(DecodeError::PropertyTwice),
                "{property:x?}"
            );
        }
    }

    #[test]
    fn mqtt_the_ninth_user_property_of_a_connect_is_refused() {
        let property = [&[0x26][..], &text("k"), &text("v")].concat();
        assert_eq!(refused(&[&property[..]; 8]), None);
        assert_eq!(
            refused(&[&property[..]; 9]),
            Some(DecodeError::TooManyUserProperties)
        );
    }

    #[test]
    fn mqtt_client_ids_are_text() {
        for (bytes, error) in [
            (&b"a\0b"[..], DecodeError::BadText),
            (&[0xFF], DecodeError::BadText),
        ] {
            let bytes = connect(5, 0x02, &[], &[&text(bytes)]);
            assert_eq!(decode(&bytes), Err(error));
        }
        // What a client id may be is the gate's to say; these are all text.
        for id in ["", "+#$/", "__proto__", &"x".repeat(65_535)] {
            let bytes = connect(5, 0x02, &[], &[&text(id)]);
            assert_eq!(decode(&bytes).unwrap().client_id, id);
        }
    }

    #[test]
    fn mqtt_bytes_behind_a_connect_are_refused() {
        for level in [4, 5] {
            let bytes = connect(level, 0x02, &[], &[&text("edge-1"), &[0]]);
            assert_eq!(decode(&bytes), Err(DecodeError::TrailingBytes));
        }
    }

    #[test]
    fn mqtt_connect_secrets_are_not_shown() {
        let packet = Connect {
            password: Some(b"geheim"),
            auth_method: Some("ace"),
            auth_data: Some(b"geheim"),
            ..Connect::new("edge-1", 30)
        };
        let shown = format!("{packet:?}");
        assert!(shown.contains("password: Some(<6 bytes>)"), "{shown}");
        assert!(
            !shown.contains("geheim") && !shown.contains("103"),
            "{shown}"
        );
    }
}
