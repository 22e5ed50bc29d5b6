//! MQTT packets: good or bad, to decode one allocates nothing at all.

use std::num::{NonZeroU16, NonZeroU32};

use protocol::mqtt::{
    Ack, AckKind, Auth, ClientPacket, Connect, Delivery, Disconnect, List, MessageProperties,
    PacketId, Publish, Qos, ReasonCode, ServerPacket, Subscribe, Subscription, Unsubscribe,
    UserProperties, Version, Will, decode_client, decode_server, frame,
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
        ClientPacket::Connect(connect) => {
            let will = connect.will.map(|will| will.properties.user_properties);
            connect.user_properties.iter().count() + will.map_or(0, |pairs| pairs.iter().count())
        }
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
    encoded(&ClientPacket::Publish(publish), Version::V5)
}

fn encoded(packet: &ClientPacket<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out).unwrap();
    out
}

/// A packet of each kind that a client sends, with everything in it that such a packet may have, and in both versions if there is it
/// in both.
fn good() -> Vec<(Version, Vec<u8>)> {
    let pairs = [("traceparent", "00-1"), ("k", "v")];
    let user_properties = UserProperties::from(&pairs);
    let subscriptions = [Subscription::new("v1/edge-1/commands", Qos::AtLeastOnce); 3];
    let filters = ["v1/edge-1/commands"; 3];
    let id = PacketId::new(7).unwrap();
    let properties = MessageProperties {
        payload_is_text: true,
        expiry_secs: Some(9),
        content_type: Some("text/plain"),
        response_topic: Some("v1/answers"),
        correlation_data: Some(&[7; 16]),
        user_properties,
    };
    let connect = Connect {
        user_name: Some("reader"),
        password: Some(b"a password"),
        will: Some(Will {
            topic: "v1/edge-1/reports",
            payload: b"gone",
            qos: Qos::AtLeastOnce,
            retain: true,
            delay_secs: 5,
            properties,
        }),
        session_expiry_secs: 60,
        receive_maximum: NonZeroU16::new(20).unwrap(),
        packet_bytes_max: NonZeroU32::new(4096),
        topic_alias_max: 10,
        auth_method: Some("ace"),
        auth_data: Some(&[0, 1, 7]),
        user_properties,
        ..Connect::new("edge-1", 30)
    };
    let publish = |delivery| Publish {
        topic_alias: NonZeroU16::new(1),
        properties,
        ..Publish::new("v1/edge-1/build-7/events", delivery, b"payload")
    };
    let subscribe = Subscribe {
        subscription_id: NonZeroU32::new(7),
        user_properties,
        ..Subscribe::new(id, List::from(&subscriptions))
    };
    let unsubscribe = Unsubscribe {
        user_properties,
        ..Unsubscribe::new(id, List::from(&filters))
    };
    let disconnect = Disconnect {
        session_expiry_secs: Some(0),
        reason_string: Some("done"),
        user_properties,
        ..Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)
    };
    let auth = |reason| Auth {
        reason_string: Some("renewal"),
        user_properties,
        ..Auth::new(reason, "ace", Some(&[7; 72]))
    };
    let ack = |kind| Ack {
        kind,
        reason_string: Some("done"),
        user_properties,
        ..Ack::puback(id, ReasonCode::SUCCESS)
    };
    let both = [
        ClientPacket::Publish(publish(Delivery::AtMostOnce)),
        ClientPacket::Publish(publish(Delivery::AtLeastOnce { id, dup: true })),
        ClientPacket::Publish(publish(Delivery::ExactlyOnce { id, dup: false })),
        ClientPacket::Ack(ack(AckKind::PubAck)),
        ClientPacket::Ack(ack(AckKind::PubRec)),
        ClientPacket::Ack(ack(AckKind::PubRel)),
        ClientPacket::Ack(ack(AckKind::PubComp)),
        ClientPacket::Subscribe(subscribe),
        ClientPacket::Unsubscribe(unsubscribe),
        ClientPacket::PingReq,
        ClientPacket::Disconnect(disconnect),
    ];
    let mut all = Vec::new();
    for version in [Version::V5, Version::V311] {
        let connect = ClientPacket::Connect(Connect { version, ..connect });
        for packet in [connect].iter().chain(&both) {
            all.push((version, encoded(packet, version)));
        }
    }
    for reason in [
        ReasonCode::CONTINUE_AUTHENTICATION,
        ReasonCode::RE_AUTHENTICATE,
    ] {
        let packet = ClientPacket::Auth(auth(reason));
        all.push((Version::V5, encoded(&packet, Version::V5)));
    }
    all
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
fn a_good_packet_of_each_kind_that_a_client_sends_costs_nothing() {
    for (version, bytes) in good() {
        let (entries, cost) = cost::of(|| {
            let frame = frame(&bytes, BYTES_MAX).ok()??;
            let packet = decode_client(&frame, version).ok()?;
            Some(entries_of_client(&packet))
        });
        assert!(entries.is_some(), "{version:?} {bytes:x?}");
        assert_eq!(cost.count, 0, "{version:?} {bytes:x?}");
    }
}

#[test]
fn each_kind_that_a_client_sends_is_among_the_good_packets() {
    let first_bytes: Vec<_> = good().iter().map(|(_, bytes)| bytes[0] >> 4).collect();
    for kind in [1, 3, 4, 5, 6, 7, 8, 10, 12, 14, 15] {
        let expected = if matches!(kind, 3) { 6 } else { 2 };
        let found = first_bytes.iter().filter(|one| **one == kind).count();
        assert_eq!(found, expected, "packet type {kind}");
    }
}

#[test]
fn a_packet_with_one_byte_changed_or_cut_short_costs_nothing() {
    for (_, bytes) in good() {
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
