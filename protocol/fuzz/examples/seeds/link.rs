//! Seeds of MQTT, from either side.

use protocol::{
    cbor,
    command::Order,
    key::Sandbox,
    mqtt::{
        Ack, Auth, ClientPacket, ConnAck, Connect, Delivery, Disconnect, List, MessageProperties,
        PacketId, Publish, Qos, ReasonCode, ServerPacket, SubAck, Subscribe, Subscription,
        Unsubscribe, Version, Will,
    },
    possession,
};
use protocol_fuzz::{
    input::chunk,
    world::{self, SANDBOX},
};

use crate::{message::*, write};

/// The versions and limits that a link's first byte chooses.
const BEFORE_AUTH: u8 = 0;
const AFTER_AUTH: u8 = 1;
const V311: u8 = 3;

pub fn packet() {
    let auth_data = chunk(&world::SANDBOX_TOKEN);
    let id = PacketId::MIN;
    let connect = Connect {
        packet_bytes_max: std::num::NonZeroU32::new(65_536),
        auth_method: Some("ace"),
        auth_data: Some(&auth_data),
        ..Connect::new("edge-1/build-7", 30)
    };
    let proof = possession::prove(world::secret::<Sandbox>(SANDBOX), &[1; 8], &[2; 8]);
    let auth = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, "ace", Some(&proof));
    let batches = batches();
    let topic = "v1/edge-1/build-7/events";
    let pairs = [("name", "value")];
    let message = MessageProperties {
        payload_is_text: true,
        expiry_secs: Some(60),
        content_type: Some("text/plain"),
        response_topic: Some("a/b"),
        correlation_data: Some(&[1, 2, 3]),
        user_properties: List::from(&pairs),
    };
    let will = Will {
        topic,
        payload: b"gone",
        qos: Qos::AtLeastOnce,
        retain: true,
        delay_secs: 5,
        properties: message,
    };
    let subscriptions = [Subscription::new("v1/edge-1/commands", Qos::AtLeastOnce)];
    let filters = ["v1/edge-1/commands", "a/#"];
    let put = |name: &str, mode: u8, packets: &[ClientPacket<'_>]| {
        let version = if mode == V311 {
            Version::V311
        } else {
            Version::V5
        };
        let mut out = vec![mode];
        packets
            .iter()
            .for_each(|packet| packet.encode(version, &mut out).expect("a good packet"));
        write("packet", name, &[&out]);
    };
    let publish = Publish::new(topic, Delivery::at_least_once(id), &batches[0]);
    let with_properties = Publish {
        properties: message,
        ..publish
    };
    let plain = Connect {
        version: Version::V311,
        user_name: Some("user"),
        password: Some(b"password"),
        ..Connect::new("reader", 30)
    };
    put(
        "connect-and-proof",
        BEFORE_AUTH,
        &[ClientPacket::Connect(connect), ClientPacket::Auth(auth)],
    );
    let with_will = Connect {
        will: Some(will),
        ..connect
    };
    put(
        "connect-with-a-will",
        BEFORE_AUTH,
        &[ClientPacket::Connect(with_will)],
    );
    put("connect-3-1-1", V311, &[ClientPacket::Connect(plain)]);
    put("publish", AFTER_AUTH, &[ClientPacket::Publish(publish)]);
    put(
        "publish-with-properties",
        AFTER_AUTH,
        &[ClientPacket::Publish(with_properties)],
    );
    let subscribe = Subscribe::new(id, List::from(&subscriptions));
    let unsubscribe = Unsubscribe::new(id, List::from(&filters));
    let subscribing = [
        ClientPacket::Subscribe(subscribe),
        ClientPacket::Unsubscribe(unsubscribe),
    ];
    put("subscribe-and-unsubscribe", AFTER_AUTH, &subscribing);
    put("subscribe-and-unsubscribe-3-1-1", V311, &subscribing);
    let disconnect = Disconnect::new(ReasonCode::DISCONNECT_WITH_WILL);
    let end = [
        ClientPacket::Ack(Ack::puback(id, ReasonCode::SUCCESS)),
        ClientPacket::PingReq,
        ClientPacket::Disconnect(disconnect),
    ];
    put("puback-ping-and-disconnect", AFTER_AUTH, &end);
}

pub fn server_packet() {
    let id = PacketId::MIN;
    let pairs = [("durability", "fsync"), ("server-time", "1800000000000")];
    let connack = ConnAck {
        session_expiry_secs: Some(0),
        receive_maximum: std::num::NonZeroU16::new(128),
        qos_max: Some(Qos::AtLeastOnce),
        retain_available: Some(false),
        server_keep_alive_secs: Some(30),
        auth_method: Some("ace"),
        auth_data: Some(&[7; 8]),
        user_properties: List::from(&pairs),
        ..ConnAck::new(ReasonCode::SUCCESS)
    };
    let refusal = ConnAck::new(ReasonCode::NOT_AUTHORIZED);
    let challenge = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, "ace", Some(&[1; 8]));
    let stop = cbor::to_vec(&a_command(Order::Stop(stop())));
    let publish = Publish::new("v1/edge-1/commands", Delivery::at_least_once(id), &stop);
    let reasons = [ReasonCode::GRANTED_QOS_1, ReasonCode::NOT_AUTHORIZED];
    let suback = SubAck::to_subscribe(id, List::from(&reasons));
    let reasons = [ReasonCode::SUCCESS, ReasonCode::NO_SUBSCRIPTION_EXISTED];
    let unsuback = SubAck::to_unsubscribe(id, List::from(&reasons));
    let taken_over = Disconnect::new(ReasonCode::SESSION_TAKEN_OVER);
    let put = |name: &str, mode: u8, packets: &[ServerPacket<'_>]| {
        let version = if mode == V311 {
            Version::V311
        } else {
            Version::V5
        };
        let mut out = vec![mode];
        packets
            .iter()
            .for_each(|packet| packet.encode(version, &mut out).expect("a good packet"));
        write("server_packet", name, &[&out]);
    };
    let welcome = [
        ServerPacket::Auth(challenge),
        ServerPacket::ConnAck(connack),
    ];
    put("challenge-and-connack", BEFORE_AUTH, &welcome);
    put(
        "connack-of-a-refusal",
        BEFORE_AUTH,
        &[ServerPacket::ConnAck(refusal)],
    );
    put("connack-3-1-1", V311, &[ServerPacket::ConnAck(refusal)]);
    put("publish", AFTER_AUTH, &[ServerPacket::Publish(publish)]);
    put(
        "suback-and-unsuback",
        AFTER_AUTH,
        &[ServerPacket::SubAck(suback), ServerPacket::SubAck(unsuback)],
    );
    let puback = Ack::puback(id, ReasonCode::QUOTA_EXCEEDED);
    let end = [
        ServerPacket::Ack(puback),
        ServerPacket::PingResp,
        ServerPacket::Disconnect(taken_over),
    ];
    put("puback-ping-and-disconnect", AFTER_AUTH, &end);
}
