//! What the client can say without the fuzzer having to spell it. Zero twists make a packet that is welcome.

use std::num::{NonZeroU16, NonZeroU32};

use protocol::{
    mqtt::{
        Ack, Auth, ClientPacket, Connect, Delivery, Disconnect, List, PacketId, Publish, Qos,
        ReasonCode, RetainHandling, Subscribe, Subscription, Unsubscribe, Version, Will,
    },
    possession::prove,
};
use protocol_fuzz::input::Input;

use crate::{
    core::gate::METHOD,
    world::{COMMANDS, KEY, NONCE, OTHER_KEY, TOKEN_DATA, Who},
};

/// Topics and filters, all but the first two of nobody here.
const TOPICS: [&str; 14] = [
    COMMANDS,
    "v1/edge-1/reports",
    "v1/edge-2/reports",
    "v1/edge-1/build-8/events",
    "v1/edge-2/commands",
    "v1/+/commands",
    "#",
    "$SYS/x",
    "$share/g/v1/edge-1/commands",
    "é/x",
    "v1/edge-1/reports/",
    "v1/edge-1/REPORTS",
    "a/b/c/d/e/f/g/h/i",
    " ",
];

fn topic(number: u8, own: &'static str) -> &'static str {
    match number {
        0 => own,
        other => TOPICS[usize::from(other) % TOPICS.len()],
    }
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap_or(PacketId::MIN)
}

/// One packet as it is on the wire.
pub fn encoded(packet: &ClientPacket<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    // What this version does not have is not said.
    _ = packet.encode(version, &mut out);
    out
}

/// CONNECT.
pub fn connect(who: Who, input: &mut Input<'_>) -> Vec<u8> {
    let twists = input.byte();
    let twisted = |bit: u8| twists & bit != 0;
    let mut connect = Connect::new(who.subject(), 30);
    connect.auth_method = Some(METHOD);
    connect.auth_data = Some(TOKEN_DATA);
    if twisted(1) {
        connect.keep_alive_secs = input.u16();
        connect.receive_maximum = NonZeroU16::new(input.u16()).unwrap_or(NonZeroU16::MIN);
    }
    if twisted(2) {
        connect.packet_bytes_max = NonZeroU32::new(input.u16().into());
    }
    if twisted(4) {
        connect.version = Version::V311;
        (connect.auth_method, connect.auth_data) = (None, None);
    }
    if twisted(8) {
        (connect.user_name, connect.password) = (Some("name"), Some(TOKEN_DATA));
    }
    if twisted(16) {
        connect.will = Some(Will {
            topic: topic(input.byte(), who.own_topic()),
            payload: b"gone",
            qos: qos(input.byte()),
            retain: twists & 1 != 0,
            delay_secs: 0,
            properties: protocol::mqtt::MessageProperties::default(),
        });
    }
    if twisted(32) {
        connect.client_id = topic(input.byte(), "edge-2");
    }
    if twisted(64) {
        connect.auth_data = Some(&TOKEN_DATA[..usize::from(input.byte()) % TOKEN_DATA.len()]);
    }
    if twisted(128) {
        connect.auth_method = Some("other");
    }
    encoded(&ClientPacket::Connect(connect), connect.version)
}

/// AUTH: the answer to a challenge.
pub fn proof(twists: u8) -> Vec<u8> {
    let key = if twists & 1 == 0 { &KEY } else { &OTHER_KEY };
    let nonce = if twists & 2 == 0 { NONCE } else { [6; 8] };
    let method = if twists & 4 == 0 { METHOD } else { "other" };
    let proof = prove(key, &nonce, &[7; 8]);
    let proof = &proof[..proof.len() - usize::from(twists >> 4)];
    auth(ReasonCode::CONTINUE_AUTHENTICATION, method, proof)
}

/// AUTH: a fresh token.
pub fn renew(twists: u8) -> Vec<u8> {
    let method = if twists & 1 == 0 { METHOD } else { "other" };
    let data = &TOKEN_DATA[..TOKEN_DATA.len() - usize::from(twists >> 6)];
    auth(ReasonCode::RE_AUTHENTICATE, method, data)
}

fn auth(reason: ReasonCode, method: &str, data: &[u8]) -> Vec<u8> {
    let auth = Auth::new(reason, method, Some(data));
    encoded(&ClientPacket::Auth(auth), Version::V5)
}

fn qos(bits: u8) -> Qos {
    match bits % 4 {
        0 | 3 => Qos::AtLeastOnce,
        1 => Qos::AtMostOnce,
        _ => Qos::ExactlyOnce,
    }
}

/// PUBLISH.
pub fn publish(who: Who, version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let twists = input.byte();
    let number = input.u16();
    let topic = topic(input.byte(), who.own_topic());
    let dup = twists & 4 != 0;
    let delivery = match qos(twists) {
        Qos::AtMostOnce => Delivery::AtMostOnce,
        Qos::AtLeastOnce => Delivery::AtLeastOnce {
            id: id(number),
            dup,
        },
        Qos::ExactlyOnce => Delivery::ExactlyOnce {
            id: id(number),
            dup,
        },
    };
    let mut publish = Publish::new(topic, delivery, input.chunk());
    publish.retain = twists & 8 != 0;
    publish.properties.payload_is_text = twists & 16 != 0;
    publish.properties.expiry_secs = (twists & 32 != 0).then_some(0);
    publish.topic_alias = (twists & 64 != 0).then_some(NonZeroU16::MIN);
    encoded(&ClientPacket::Publish(publish), version)
}

/// SUBSCRIBE.
pub fn subscribe(version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let number = input.u16();
    let count = 1 + usize::from(input.byte() % 12);
    let subscriptions: Vec<_> = (0..count)
        .map(|_| {
            let filter = topic(input.byte(), COMMANDS);
            let options = input.byte();
            Subscription {
                filter,
                qos: qos(options),
                no_local: options & 4 != 0 && !filter.starts_with("$share/"),
                retain_as_published: options & 8 != 0,
                retain_handling: RetainHandling::Send,
            }
        })
        .collect();
    let mut subscribe = Subscribe::new(id(number), List::from(subscriptions.as_slice()));
    if number > 0xfff0 {
        subscribe.subscription_id = NonZeroU32::new(7);
    }
    encoded(&ClientPacket::Subscribe(subscribe), version)
}

/// UNSUBSCRIBE.
pub fn unsubscribe(version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let number = input.u16();
    let count = 1 + usize::from(input.byte() % 12);
    let filters: Vec<_> = (0..count).map(|_| topic(input.byte(), COMMANDS)).collect();
    let unsubscribe = Unsubscribe::new(id(number), List::from(filters.as_slice()));
    encoded(&ClientPacket::Unsubscribe(unsubscribe), version)
}

/// PUBACK.
pub fn puback(version: Version, number: u16) -> Vec<u8> {
    let ack = Ack::puback(id(number), ReasonCode::SUCCESS);
    encoded(&ClientPacket::Ack(ack), version)
}

/// DISCONNECT.
pub fn disconnect(version: Version, twists: u8) -> Vec<u8> {
    let mut disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    disconnect.session_expiry_secs = (twists & 1 != 0).then_some(u32::from(twists >> 1));
    encoded(&ClientPacket::Disconnect(disconnect), version)
}
