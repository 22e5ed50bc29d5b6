//! What a server sends: encoded by the gate, decoded by the shim and by tests.

use super::ack::{Ack, AckKind};
use super::auth::Auth;
use super::connack::ConnAck;
use super::decode_error::DecodeError;
use super::disconnect::Disconnect;
use super::frame::{Frame, Kind};
use super::publish::Publish;
use super::reader::Reader;
use super::suback::{SubAck, SubAckKind};
use super::version::{Side, Version};
use super::writer::EncodeError;

/// PINGRESP (MQTT 5.0 §3.13), whole.
pub const PINGRESP: [u8; 2] = [0xD0, 0x00];

/// A packet from a server, borrowing from the buffer it came in. Large, and not boxed: a box would allocate for a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerPacket<'a> {
    /// CONNACK.
    ConnAck(ConnAck<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack<'a>),
    /// SUBACK or UNSUBACK.
    SubAck(SubAck<'a>),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

/// Decodes a packet that a server sent, without allocating, and as strictly as [`decode_client`](super::decode_client).
///
/// # Errors
/// Everything in [`DecodeError`]: the packet breaks the standard, or our bounds.
#[inline]
pub fn decode_server<'a>(
    frame: &Frame<'a>,
    version: Version,
) -> Result<ServerPacket<'a>, DecodeError> {
    frame.check_length_form(version)?;
    let ack = |kind| Ack::decode(frame, kind, version).map(ServerPacket::Ack);
    let suback = |kind| SubAck::decode(frame, kind, version).map(ServerPacket::SubAck);
    match frame.kind() {
        Kind::PubAck => ack(AckKind::PubAck),
        Kind::PubRec => ack(AckKind::PubRec),
        Kind::PubRel => ack(AckKind::PubRel),
        Kind::PubComp => ack(AckKind::PubComp),
        Kind::Publish => Publish::decode(frame, version, Side::Server).map(ServerPacket::Publish),
        Kind::ConnAck => ConnAck::decode(frame, version).map(ServerPacket::ConnAck),
        Kind::SubAck => suback(SubAckKind::Subscribe),
        Kind::UnsubAck => suback(SubAckKind::Unsubscribe),
        Kind::PingResp => Reader::new(frame.body())
            .end()
            .map(|()| ServerPacket::PingResp),
        // MQTT 3.1.1 §3.14: from a client only.
        Kind::Disconnect if version == Version::V311 => Err(DecodeError::WrongDirection),
        Kind::Disconnect => {
            Disconnect::decode(frame, version, Side::Server).map(ServerPacket::Disconnect)
        }
        Kind::Auth if version == Version::V311 => Err(DecodeError::UnknownPacket),
        Kind::Auth => Auth::decode(frame, Side::Server).map(ServerPacket::Auth),
        Kind::Connect | Kind::Subscribe | Kind::Unsubscribe | Kind::PingReq => {
            Err(DecodeError::WrongDirection)
        }
    }
}

impl ServerPacket<'_> {
    /// Appends the packet to `out`.
    ///
    /// # Errors
    /// As the packet's own `encode`; [`EncodeError::NotInThisVersion`] for AUTH and DISCONNECT over MQTT 3.1.1.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::ConnAck(connack) => connack.encode(version, out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::Ack(ack) => ack.encode(version, out),
            Self::SubAck(suback) => suback.encode(version, out),
            Self::PingResp => {
                out.extend_from_slice(&PINGRESP);
                Ok(())
            }
            Self::Disconnect(_) | Self::Auth(_) if version == Version::V311 => {
                Err(EncodeError::NotInThisVersion)
            }
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::frame;
    use super::super::reason::ReasonCode;
    use super::super::testing::{MAX, parts, raw, server};
    use super::*;

    const BOTH: [Version; 2] = [Version::V5, Version::V311];

    /// What `bytes` decode to, if to anything, survives being encoded.
    fn decodes_alike_when_encoded_again(bytes: &[u8], version: Version) {
        let Ok(Some(frame)) = frame(bytes, MAX) else {
            return;
        };
        let Ok(packet) = decode_server(&frame, version) else {
            return;
        };
        let mut again = Vec::new();
        packet.encode(version, &mut again).unwrap();
        assert_eq!(server(&again, version), Ok(packet));
    }

    proptest! {
        #[test]
        fn mqtt_server_packets_decode_to_what_was_encoded(parts in parts()) {
            parts.each_server_packet(|packet| {
                let mut out = vec![0xEE];
                packet.encode(parts.version, &mut out).unwrap();
                assert_eq!(server(&out[1..], parts.version), Ok(packet));
            });
        }

    }

    proptest! {
        // Each case decodes thousands of packets.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn mqtt_server_packets_cut_short_or_changed_never_panic(
            parts in parts(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            parts.each_server_packet(|packet| {
                let mut whole = Vec::new();
                packet.encode(parts.version, &mut whole).unwrap();
                for end in 0..whole.len() {
                    assert_eq!(frame(&whole[..end], MAX), Ok(None));
                }
                let body = frame(&whole, MAX).unwrap().unwrap().body();
                for end in 0..body.len() {
                    let cut = raw(whole[0], &[&body[..end]]);
                    decodes_alike_when_encoded_again(&cut, parts.version);
                }
                for (at, byte) in &changes {
                    let at = at.index(whole.len());
                    whole[at] = *byte;
                }
                for version in BOTH {
                    decodes_alike_when_encoded_again(&whole, version);
                }
            });
        }

    }

    proptest! {
        #[test]
        fn mqtt_any_bytes_from_a_server_never_panic(
            first: u8,
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            for version in BOTH {
                decodes_alike_when_encoded_again(&body, version);
                decodes_alike_when_encoded_again(&raw(first, &[&body]), version);
            }
        }
    }

    #[test]
    fn mqtt_packets_of_a_client_are_refused_from_a_server() {
        for first in [0x10, 0x82, 0xA2, 0xC0] {
            let bytes = raw(first, &[&[0, 1, 0]]);
            assert_eq!(
                server(&bytes, Version::V5),
                Err(DecodeError::WrongDirection)
            );
        }
    }

    #[test]
    fn mqtt_3_1_1_servers_neither_disconnect_nor_authenticate() {
        let disconnect = ServerPacket::Disconnect(Disconnect::new(ReasonCode::SUCCESS));
        let auth = ServerPacket::Auth(Auth::new(ReasonCode::SUCCESS, "ace", None));
        let mut out = Vec::new();
        for packet in [disconnect, auth] {
            assert_eq!(
                packet.encode(Version::V311, &mut out),
                Err(EncodeError::NotInThisVersion)
            );
        }
        assert!(out.is_empty());
        assert_eq!(
            server(&[0xE0, 0], Version::V311),
            Err(DecodeError::WrongDirection)
        );
        assert_eq!(
            server(&[0xF0, 0], Version::V311),
            Err(DecodeError::UnknownPacket)
        );
    }

    #[test]
    fn mqtt_pingresp_with_a_body_is_refused() {
        assert_eq!(server(&PINGRESP, Version::V5), Ok(ServerPacket::PingResp));
        assert_eq!(
            server(&[0xD0, 1, 0], Version::V5),
            Err(DecodeError::TrailingBytes)
        );
    }
}
