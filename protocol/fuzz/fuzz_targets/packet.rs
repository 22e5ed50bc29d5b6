//! What a client sends, as the gate decodes it: before it has said who it is, and after.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::mqtt::{
    Auth, ClientPacket, Connect, DecodeError, EncodeError, Frame, MessageProperties, Publish,
    Version, Will, decode_client,
};
use protocol_fuzz::link::{self, Side, message_texts, pairs, swapped};

fuzz_target!(|data: &[u8]| link::read::<Client>(data));

struct Client;

impl Side for Client {
    type Packet<'a> = ClientPacket<'a>;

    fn decode<'a>(frame: &Frame<'a>, version: Version) -> Result<ClientPacket<'a>, DecodeError> {
        decode_client(frame, version)
    }

    fn encode(
        packet: &ClientPacket<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        packet.encode(version, out)
    }

    fn opens_link(packet: &ClientPacket<'_>) -> bool {
        matches!(packet, ClientPacket::Auth(_))
    }

    fn with_other_secrets<'a>(packet: ClientPacket<'a>, other: &'a [u8]) -> ClientPacket<'a> {
        let swap = |secret: Option<&[u8]>| secret.map(|secret| swapped(secret, other));
        let swap_message = |properties: MessageProperties<'a>| MessageProperties {
            correlation_data: swap(properties.correlation_data),
            ..properties
        };
        match packet {
            ClientPacket::Connect(connect) => ClientPacket::Connect(Connect {
                password: swap(connect.password),
                auth_data: swap(connect.auth_data),
                will: connect.will.map(|will| Will {
                    payload: swapped(will.payload, other),
                    properties: swap_message(will.properties),
                    ..will
                }),
                ..connect
            }),
            ClientPacket::Publish(publish) => ClientPacket::Publish(Publish {
                payload: swapped(publish.payload, other),
                properties: swap_message(publish.properties),
                ..publish
            }),
            ClientPacket::Auth(auth) => ClientPacket::Auth(Auth {
                data: swap(auth.data),
                ..auth
            }),
            plain => plain,
        }
    }

    fn texts<'a>(packet: &Self::Packet<'a>) -> Vec<&'a str> {
        match packet {
            ClientPacket::Connect(connect) => {
                let alone = [
                    Some(connect.client_id),
                    connect.user_name,
                    connect.auth_method,
                ];
                let mut texts: Vec<_> = alone.into_iter().flatten().collect();
                if let Some(will) = &connect.will {
                    texts.push(will.topic);
                    texts.extend(message_texts(&will.properties));
                }
                texts.extend(pairs(&connect.user_properties));
                texts
            }
            ClientPacket::Publish(publish) => {
                assert!(!publish.topic.contains(['+', '#']));
                assert!(publish.topic_alias.is_some() || !publish.topic.is_empty());
                [vec![publish.topic], message_texts(&publish.properties)].concat()
            }
            ClientPacket::Ack(ack) => {
                let alone = ack.reason_string.into_iter();
                alone.chain(pairs(&ack.user_properties)).collect()
            }
            ClientPacket::Subscribe(subscribe) => {
                assert!(!subscribe.subscriptions.is_empty());
                let filters = subscribe.subscriptions.iter().map(|each| each.filter);
                filters.chain(pairs(&subscribe.user_properties)).collect()
            }
            ClientPacket::Unsubscribe(unsubscribe) => {
                assert!(!unsubscribe.filters.is_empty());
                let filters = unsubscribe.filters.iter();
                filters.chain(pairs(&unsubscribe.user_properties)).collect()
            }
            ClientPacket::PingReq => Vec::new(),
            ClientPacket::Disconnect(disconnect) => {
                let alone = [disconnect.reason_string, disconnect.server_reference];
                let alone = alone.into_iter().flatten();
                alone.chain(pairs(&disconnect.user_properties)).collect()
            }
            ClientPacket::Auth(auth) => {
                let alone = [auth.method, auth.reason_string].into_iter().flatten();
                alone.chain(pairs(&auth.user_properties)).collect()
            }
        }
    }
}
