//! What a server sends, as the shim decodes it: its broker may be anybody's who got hold of the address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::mqtt::{
    Auth, ConnAck, DecodeError, EncodeError, Frame, MessageProperties, Publish, ServerPacket,
    Version, decode_server,
};
use protocol_fuzz::link::{self, Side, message_texts, pairs, swapped};

fuzz_target!(|data: &[u8]| link::read::<Server>(data));

struct Server;

impl Side for Server {
    type Packet<'a> = ServerPacket<'a>;

    fn decode<'a>(frame: &Frame<'a>, version: Version) -> Result<ServerPacket<'a>, DecodeError> {
        decode_server(frame, version)
    }

    fn encode(
        packet: &ServerPacket<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        packet.encode(version, out)
    }

    fn opens_link(packet: &ServerPacket<'_>) -> bool {
        matches!(packet, ServerPacket::ConnAck(connack) if !connack.reason.is_error())
    }

    fn with_other_secrets<'a>(packet: ServerPacket<'a>, other: &'a [u8]) -> ServerPacket<'a> {
        let swap = |secret: Option<&[u8]>| secret.map(|secret| swapped(secret, other));
        match packet {
            ServerPacket::ConnAck(connack) => ServerPacket::ConnAck(ConnAck {
                auth_data: swap(connack.auth_data),
                ..connack
            }),
            ServerPacket::Publish(publish) => ServerPacket::Publish(Publish {
                payload: swapped(publish.payload, other),
                properties: MessageProperties {
                    correlation_data: swap(publish.properties.correlation_data),
                    ..publish.properties
                },
                ..publish
            }),
            ServerPacket::Auth(auth) => ServerPacket::Auth(Auth {
                data: swap(auth.data),
                ..auth
            }),
            plain => plain,
        }
    }

    fn texts<'a>(packet: &Self::Packet<'a>) -> Vec<&'a str> {
        let (alone, properties) = match packet {
            ServerPacket::ConnAck(connack) => {
                assert!(!(connack.session_present && connack.reason.is_error()));
                let texts = [
                    connack.assigned_client_id,
                    connack.reason_string,
                    connack.response_info,
                    connack.server_reference,
                    connack.auth_method,
                ];
                (texts.to_vec(), connack.user_properties)
            }
            ServerPacket::Publish(publish) => {
                assert!(!publish.topic.contains(['+', '#']));
                return [vec![publish.topic], message_texts(&publish.properties)].concat();
            }
            ServerPacket::Ack(ack) => (vec![ack.reason_string], ack.user_properties),
            ServerPacket::SubAck(suback) => {
                assert!(
                    suback
                        .reasons
                        .iter()
                        .all(|reason| reason.name() != "unknown")
                );
                (vec![suback.reason_string], suback.user_properties)
            }
            ServerPacket::PingResp => return Vec::new(),
            ServerPacket::Disconnect(disconnect) => {
                let texts = vec![disconnect.reason_string, disconnect.server_reference];
                (texts, disconnect.user_properties)
            }
            ServerPacket::Auth(auth) => {
                (vec![auth.method, auth.reason_string], auth.user_properties)
            }
        };
        alone
            .into_iter()
            .flatten()
            .chain(pairs(&properties))
            .collect()
    }
}
