//! What a client sends: decoded by the gate, encoded by the shim and by tests.

use super::ack::{Ack, AckKind};
use super::auth::Auth;
use super::connect::Connect;
use super::decode_error::DecodeError;
use super::disconnect::Disconnect;
use super::frame::{Frame, Kind};
use super::publish::Publish;
use super::reader::Reader;
use super::subscribe::Subscribe;
use super::unsubscribe::Unsubscribe;
use super::version::{Side, Version};
use super::writer::EncodeError;

/// PINGREQ (MQTT 5.0 §3.12), whole.
pub const PINGREQ: [u8; 2] = [0xC0, 0x00];

/// A packet from a client, borrowing from the buffer it came in. Large, and not boxed: a box would allocate for a stranger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientPacket<'a> {
    /// CONNECT.
    Connect(Connect<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// PINGREQ.
    PingReq,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

/// Decodes a packet that a client sent, without allocating.
///
/// `version` is what the link's CONNECT said; for CONNECT itself it does not matter. Whether the packet comes at the right
/// time, and whether what it asks for is granted, is for the gate to decide.
///
/// # Errors
/// Everything in [`DecodeError`]: the packet breaks the standard, or our bounds.
#[inline]
pub fn decode_client<'a>(
    frame: &Frame<'a>,
    version: Version,
) -> Result<ClientPacket<'a>, DecodeError> {
    let kind = frame.kind();
    if kind != Kind::Connect {
        frame.check_length_form(version)?;
    }
    let ack = |kind| Ack::decode(frame, kind, version).map(ClientPacket::Ack);
    match kind {
        Kind::Publish => Publish::decode(frame, version, Side::Client).map(ClientPacket::Publish),
        Kind::PubAck => ack(AckKind::PubAck),
        Kind::PubRec => ack(AckKind::PubRec),
        Kind::PubRel => ack(AckKind::PubRel),
        Kind::PubComp => ack(AckKind::PubComp),
        Kind::PingReq => Reader::new(frame.body())
            .end()
            .map(|()| ClientPacket::PingReq),
        Kind::Connect => Connect::decode(frame).map(ClientPacket::Connect),
        Kind::Subscribe => Subscribe::decode(frame, version).map(ClientPacket::Subscribe),
        Kind::Unsubscribe => Unsubscribe::decode(frame, version).map(ClientPacket::Unsubscribe),
        Kind::Disconnect => {
            Disconnect::decode(frame, version, Side::Client).map(ClientPacket::Disconnect)
        }
        Kind::Auth if version == Version::V311 => Err(DecodeError::UnknownPacket),
        Kind::Auth => Auth::decode(frame, Side::Client).map(ClientPacket::Auth),
        Kind::ConnAck | Kind::SubAck | Kind::UnsubAck | Kind::PingResp => {
            Err(DecodeError::WrongDirection)
        }
    }
}

impl ClientPacket<'_> {
    /// Appends the packet to `out`. A CONNECT is written in its own version.
    ///
    /// # Errors
    /// As the packet's own `encode`; [`EncodeError::NotInThisVersion`] for AUTH over MQTT 3.1.1.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Connect(connect) => connect.encode(out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::Ack(ack) => ack.encode(version, out),
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::PingReq => {
                out.extend_from_slice(&PINGREQ);
                Ok(())
            }
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(_) if version == Version::V311 => Err(EncodeError::NotInThisVersion),
            Self::Auth(auth) => auth.encode(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::frame::frame;
    use super::super::testing::{MAX, Parts, client, parts, raw};
    use super::*;

    const BOTH: [Version; 2] = [Version::V5, Version::V311];

    /// What `bytes` decode to, if to anything, survives being encoded.
    fn decodes_alike_when_encoded_again(bytes: &[u8], version: Version) {
        let Ok(Some(frame)) = frame(bytes, MAX) else {
            return;
        };
        let Ok(packet) = decode_client(&frame, version) else {
            return;
        };
        let mut again = Vec::new();
        packet.encode(version, &mut again).unwrap();
        assert_eq!(client(&again, version), Ok(packet));
    }

    fn encoded(parts: &Parts) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        parts.each_client_packet(|packet| {
            let mut out = Vec::new();
            packet.encode(parts.version, &mut out).unwrap();
            all.push(out);
        });
        all
    }

    proptest! {
        #[test]
        fn mqtt_client_packets_decode_to_what_was_encoded(parts in parts()) {
            parts.each_client_packet(|packet| {
                let mut out = vec![0xEE];
                packet.encode(parts.version, &mut out).unwrap();
                assert_eq!(client(&out[1..], parts.version), Ok(packet));
            });
        }

    }

    proptest! {
        // Each case decodes thousands of packets.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn mqtt_client_packets_cut_short_are_incomplete_or_refused(parts in parts()) {
            for whole in encoded(&parts) {
                for end in 0..whole.len() {
                    assert_eq!(frame(&whole[..end], MAX), Ok(None));
                }
                let body = frame(&whole, MAX).unwrap().unwrap().body();
                for end in 0..body.len() {
                    let cut = raw(whole[0], &[&body[..end]]);
                    let decoded = client(&cut, parts.version);
                    // Elsewhere a shorter packet may be another valid one: a shorter payload, one filter less.
                    if matches!(whole[0] >> 4, 1 | 15) {
                        assert!(decoded.is_err(), "{decoded:?}");
                    }
                }
                let longer = raw(whole[0], &[body, &[0xFF; 2]]);
                if whole[0] >> 4 != 3 {
                    assert!(client(&longer, parts.version).is_err());
                }
            }
        }

    }

    proptest! {
        #[test]
        fn mqtt_any_bytes_from_a_client_never_panic(
            first: u8,
            body in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            for version in BOTH {
                decodes_alike_when_encoded_again(&body, version);
                decodes_alike_when_encoded_again(&raw(first, &[&body]), version);
            }
        }

        #[test]
        fn mqtt_mutated_client_packets_never_panic(
            parts in parts(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            for mut bytes in encoded(&parts) {
                for (at, byte) in &changes {
                    let at = at.index(bytes.len());
                    bytes[at] = *byte;
                }
                for version in BOTH {
                    decodes_alike_when_encoded_again(&bytes, version);
                }
            }
        }
    }

    #[test]
    fn mqtt_packets_of_a_server_are_refused_from_a_client() {
        for first in [0x20, 0x90, 0xB0, 0xD0] {
            for version in BOTH {
                let bytes = raw(first, &[&[0, 1, 0]]);
                assert_eq!(
                    client(&bytes, version),
                    Err(DecodeError::WrongDirection),
                    "{first:#04x}"
                );
            }
        }
    }

    #[test]
    fn mqtt_pingreq_with_a_body_is_refused() {
        assert_eq!(client(&PINGREQ, Version::V5), Ok(ClientPacket::PingReq));
        assert_eq!(
            client(&[0xC0, 1, 0], Version::V5),
            Err(DecodeError::TrailingBytes)
        );
    }

    #[test]
    fn mqtt_a_packet_with_a_long_length_is_refused_by_mqtt_5_only() {
        let bytes = [0xC0, 0x80, 0x00];
        assert_eq!(
            client(&bytes, Version::V5),
            Err(DecodeError::LengthNotMinimal)
        );
        assert_eq!(client(&bytes, Version::V311), Ok(ClientPacket::PingReq));
    }
}
