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
    world::{COMMANDS, KEY, NONCE, OTHER_KEY, PASSWORD, READER, TOKEN_DATA, Who},
};

/// Topics and filters, all but the first two of nobody here.
const TOPICS: [&str; 18] = [
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
    "bench/a/b",
    "bench/$a",
    "bench",
    "bench//b",
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

/// CONNECT of a reader: in which version, whether clean, for how long and under which client id is by bits, the rest as it should be.
pub fn connect_reader(input: &mut Input<'_>) -> Vec<u8> {
    let twists = input.byte();
    let twisted = |bit: u8| twists & bit != 0;
    let mut connect = Connect::new("grafana/one", 30);
    (connect.user_name, connect.password) = (Some(READER), Some(PASSWORD));
    if twisted(1) {
        connect.version = Version::V311;
    }
    if twisted(2) {
        connect.clean_start = false;
        connect.session_expiry_secs = 600;
    }
    if twisted(4) {
        connect.receive_maximum = NonZeroU16::new(input.byte().into()).unwrap_or(NonZeroU16::MIN);
    }
    if twisted(8) {
        connect.keep_alive_secs = input.u16();
    }
    if twisted(16) {
        connect.session_expiry_secs = u32::from(input.u16()) << 8;
    }
    if twisted(32) {
        connect.packet_bytes_max = NonZeroU32::new(input.u16().into());
    }
    if twisted(64) {
        let ids = [
            "",
            READER,
            "grafana/",
            "grafana/two",
            "other/one",
            "grafana/+",
        ];
        connect.client_id = ids[usize::from(input.byte()) % ids.len()];
    }
    if twisted(128) {
        match input.byte() % 4 {
            0 => connect.user_name = Some("other"),
            1 => connect.user_name = None,
            2 => connect.password = None,
            _ => connect.auth_method = Some(METHOD),
        }
    }
    encoded(&ClientPacket::Connect(connect), connect.version)
}

/// Filters of readers, good ones and others.
const READ_FILTERS: [&str; 20] = [
    "v1/+/+/events",
    "bench/#",
    "v1/+/reports",
    "v1/edge-1/+/events",
    "v1/edge-1/reports",
    "v1/edge-1/build-7/events",
    "v1/+/build-7/events",
    "v1/edge-2/reports",
    "bench/+/b",
    "bench/a",
    "bench/a/b",
    "#",
    "v1/#",
    "v1/+/commands",
    "v1/edge-1/commands",
    "$share/g/v1/+/+/events",
    "bench",
    "bench/$a",
    "bench//a",
    "v1/edge-1/Build/events",
];

/// One of them; past their number, one of many that are good and match nothing.
fn read_filter(number: u8) -> String {
    let known = READ_FILTERS.get(usize::from(number & 0x7f));
    known.map_or_else(
        || {
            let tree = if number & 0x80 == 0 {
                "v1/h"
            } else {
                "bench/h"
            };
            format!("{tree}{number}/reports")
        },
        |filter| (*filter).to_owned(),
    )
}

/// SUBSCRIBE of a reader, which says where it wants to begin, if `from` is not zero.
pub fn subscribe_reader(version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let (number, from, count) = (input.byte(), input.byte(), 1 + input.byte() % 10);
    let filters: Vec<_> = (0..count)
        .map(|_| (read_filter(input.byte()), input.byte()))
        .collect();
    let subscriptions: Vec<_> = filters
        .iter()
        .map(|(filter, options)| Subscription {
            filter,
            qos: qos(*options),
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        })
        .collect();
    let offset = from.to_string();
    let property = match from {
        0 => None,
        1 => Some(("from", "oldest")),
        2 => Some(("from", "yesterday")),
        3 => Some(("From", "oldest")),
        4 => Some(("from", "18446744073709551615")),
        _ => Some(("from", offset.as_str())),
    };
    let properties: Vec<_> = property.into_iter().collect();
    let list = List::from(subscriptions.as_slice());
    let mut subscribe = Subscribe::new(id(number.into()), list);
    if version == Version::V5 {
        subscribe.user_properties = List::from(properties.as_slice());
    }
    encoded(&ClientPacket::Subscribe(subscribe), version)
}

/// UNSUBSCRIBE of a reader.
pub fn unsubscribe_reader(version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let (number, count) = (input.byte(), 1 + input.byte() % 10);
    let filters: Vec<_> = (0..count).map(|_| read_filter(input.byte())).collect();
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    let unsubscribe = Unsubscribe::new(id(number.into()), List::from(filters.as_slice()));
    encoded(&ClientPacket::Unsubscribe(unsubscribe), version)
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
pub fn publish(own: &'static str, version: Version, input: &mut Input<'_>) -> Vec<u8> {
    let twists = input.byte();
    let number = input.u16();
    let topic = topic(input.byte(), own);
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
