//! MQTT packets: good or bad, to decode one allocates nothing at all.

use protocol::mqtt::{
    Auth, ClientPacket, Connect, Delivery, List, PacketId, Publish, Qos, ReasonCode, ServerPacket,
    Subscribe, Subscription, Unsubscribe, UserProperties, Version, decode_client, decode_server,
    frame,
};

use crate::cost;

const BYTES_MAX: usize = 64 * 1024;

/// Decodes the first packet of `bytes` as everybody might, goes through its lists, and says how many entries they have if it is good
/// MQTT 5.
fn decode(bytes: &[u8]) -> Option<usize> {
    let decode = |version| {
        let frame = frame(bytes, BYTES_MAX).ok()??;
        let from_client = decode_client(&frame, version).map(|packet| entries_of_client(&packet));
        let from_server = decode_server(&frame, version).map(|packet| entries_of_server(&packet));
        from_client.or(from_server).ok()
    };
    let ((entries, _), cost) = cost::of(|| (decode(Version::V5), decode(Version::V311)));
    let front = &bytes[..bytes.len().min(20)];
    assert_eq!(cost.count, 0, "{} bytes: {front:x?}", bytes.len());
    entries
}

fn entries_of_client(packet: &ClientPacket<'_>) -> usize {
    match packet {
        ClientPacket::Connect(connect) => connect.user_properties.iter().count(),
        ClientPacket::Publish(publish) => publish.properties.user_properties.iter().count(),
        ClientPacket::Ack(ack) => ack.user_properties.iter().count(),
        ClientPacket::Subscribe(subscribe) => subscribe.subscriptions.iter().count(),
        ClientPacket::Unsubscribe(unsubscribe) => unsubscribe.filters.iter().count(),
        ClientPacket::PingReq => 0,
        ClientPacket::Disconnect(disconnect) => disconnect.user_properties.iter().count(),
        ClientPacket::Auth(auth) => auth.user_properties.iter().count(),
    }
}

fn entries_of_server(packet: &ServerPacket<'_>) -> usize {
    match packet {
        ServerPacket::ConnAck(connack) => connack.user_properties.iter().count(),
        ServerPacket::SubAck(suback) => suback.reasons.iter().count(),
        _ => 0,
    }
}

fn publish(payload: &[u8], pairs: &[(&str, &str)]) -> Vec<u8> {
    let id = PacketId::new(7).unwrap();
    let mut publish = Publish::new(
        "v1/edge-1/build-7/events",
        Delivery::at_least_once(id),
        payload,
    );
    publish.properties.user_properties = UserProperties::from(pairs);
    encoded(&ClientPacket::Publish(publish))
}

fn encoded(packet: &ClientPacket<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(Version::V5, &mut out).unwrap();
    out
}

/// A packet of each kind that a client sends.
fn good() -> Vec<Vec<u8>> {
    let id = PacketId::new(7).unwrap();
    let pairs = [("traceparent", "00-1"), ("k", "v")];
    let connect = Connect {
        auth_method: Some("ace"),
        auth_data: Some(&[0, 1, 7]),
        user_properties: UserProperties::from(&pairs),
        ..Connect::new("edge-1", 30)
    };
    let subscriptions = [Subscription::new("v1/edge-1/commands", Qos::AtLeastOnce); 3];
    let filters = ["v1/edge-1/commands"; 3];
    vec![
        publish(b"payload", &pairs),
        encoded(&ClientPacket::Connect(connect)),
        encoded(&ClientPacket::Subscribe(Subscribe::new(
            id,
            List::from(&subscriptions),
        ))),
        encoded(&ClientPacket::Unsubscribe(Unsubscribe::new(
            id,
            List::from(&filters),
        ))),
        encoded(&ClientPacket::Auth(Auth::new(
            ReasonCode::SUCCESS,
            "ace",
            Some(&[7; 72]),
        ))),
        encoded(&ClientPacket::PingReq),
        vec![0xe0, 2, 0x04, 0],
        vec![0x40, 4, 0, 7, 0x10, 0],
    ]
}

/// A packet whose remaining length is that of `body`.
fn raw(first: u8, body: &[u8]) -> Vec<u8> {
    let (mut length, mut out) = (body.len(), vec![first]);
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            return [out, body.to_vec()].concat();
        }
    }
}

#[test]
fn a_publish_is_read_where_it_stands() {
    for length in [0, 1, 200, 49_152, 60_000] {
        let bytes = publish(&vec![7; length], &[("k", "v"); 8]);
        let (payload_bytes, cost) = cost::of(|| {
            let frame = frame(&bytes, BYTES_MAX).unwrap().unwrap();
            match decode_client(&frame, Version::V5).unwrap() {
                ClientPacket::Publish(publish) => publish.payload.len(),
                _ => 0,
            }
        });
        assert_eq!((payload_bytes, cost.count), (length, 0));
    }
}

#[test]
fn a_good_packet_of_each_kind_costs_nothing() {
    for bytes in good() {
        assert!(decode(&bytes).is_some(), "{bytes:x?}");
    }
}

#[test]
fn a_packet_with_one_byte_changed_or_cut_short_costs_nothing() {
    for bytes in good() {
        for index in 0..bytes.len() {
            decode(&bytes[..index]);
            decode(&raw(bytes[0], &bytes[2..index.max(2)]));
            for byte in [0, 1, 0x0b, 0x23, 0x26, 0x7f, 0x80, 0xc3, 0xff] {
                let mut changed = bytes.clone();
                changed[index] = byte;
                decode(&changed);
            }
        }
    }
}

#[test]
fn a_length_that_nothing_follows_costs_nothing() {
    for first in 0..=u8::MAX {
        for length in [
            &[0][..],
            &[0x7f],
            &[0xff, 0x7f],
            &[0xff, 0xff, 0x03],
            &[0xff, 0xff, 0xff, 0x7f],
            &[0xff; 5],
        ] {
            assert_eq!(
                decode(&[&[first][..], length].concat()).filter(|entries| *entries > 0),
                None
            );
            decode(&[&[first][..], length, &[0xff; 300]].concat());
            decode(&raw(first, &[0xff; 300]));
        }
    }
}

#[test]
fn ten_thousand_filters_reasons_or_properties_cost_nothing() {
    const MANY: usize = 10_000;
    let behind = |front: &[u8], unit: &[u8]| [front, &unit.repeat(MANY)].concat();
    assert_eq!(
        decode(&raw(0x82, &behind(&[0, 7, 0], &[0, 1, b'a', 0]))),
        Some(MANY)
    );
    assert_eq!(
        decode(&raw(0xa2, &behind(&[0, 7, 0], &[0, 1, b'a']))),
        Some(MANY)
    );
    assert_eq!(decode(&raw(0x90, &behind(&[0, 7, 0], &[0]))), Some(MANY));
    // A property section of 50,000 bytes: 0xd0 0x86 0x03.
    let properties = behind(&[0, 1, b't', 0xd0, 0x86, 0x03], &[0x26, 0, 0, 0, 0]);
    assert_eq!(decode(&raw(0x30, &properties)), None, "eight are allowed");
    for property in [
        &[0x0b, 1, 0x0b, 1, 0x0b][..],
        &[0x01, 0, 0x01, 0, 0x01],
        &[0x26, 0, 9, 9, 9],
    ] {
        decode(&raw(
            0x30,
            &behind(&[0, 1, b't', 0xd0, 0x86, 0x03], property),
        ));
    }
}
