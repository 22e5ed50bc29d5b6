//! mqtt-protocol-core, in the role of a server. A CONNECT goes to its connection, which is where its role begins; the other packets go
//! to its frame builder and packet parsers, since a connection also knows what may come when, and a decoder does not.

use std::panic::catch_unwind;

use mqtt_protocol_core::mqtt::{
    Version as TheirVersion,
    common::Cursor,
    connection::{Connection, Event, PacketBuildResult, PacketBuilder, RawPacket, role},
    packet::{Packet, Properties, Property, v3_1_1, v5_0},
    result_code::MqttError,
};
use protocol::mqtt::Version;

use crate::outcome::{Facts, Outcome, append, hex, note, note_if, note_unless};

pub(crate) fn read(version: Version, bytes: &[u8]) -> Outcome {
    catch_unwind(|| read_or_panic(version, bytes)).unwrap_or(Outcome::Panicked)
}

fn read_or_panic(version: Version, bytes: &[u8]) -> Outcome {
    let raw = match PacketBuilder::new().feed(&mut Cursor::new(bytes)) {
        PacketBuildResult::Complete(raw) => raw,
        PacketBuildResult::Incomplete => return Outcome::Incomplete,
        PacketBuildResult::Error(error) => return refused(error),
    };
    let parsed = match (raw.packet_type(), version) {
        (1, _) => return connect(bytes),
        (_, Version::V5) => parse(&raw),
        (_, Version::V311) => parse_old(&raw),
    };
    match parsed {
        Ok(packet) => taken(&packet),
        Err(error) => refused(error),
    }
}

fn refused(error: MqttError) -> Outcome {
    Outcome::Refused(format!("{error:?}"))
}

fn connect(bytes: &[u8]) -> Outcome {
    let mut connection = Connection::<role::Server>::new(TheirVersion::Undetermined);
    let mut outcome = Outcome::Incomplete;
    for event in connection.recv(&mut Cursor::new(bytes)) {
        match event {
            Event::NotifyPacketReceived(packet) => outcome = taken(&packet),
            Event::NotifyError(error) => outcome = refused(error),
            _ => {}
        }
    }
    outcome
}

fn parse(raw: &RawPacket) -> Result<Packet, MqttError> {
    Ok(match raw.packet_type() {
        3 => v5_0::Publish::parse(raw.flags(), raw.data_as_slice().into())?
            .0
            .into(),
        4 => raw.parse_exact(v5_0::Puback::parse)?.into(),
        5 => raw.parse_exact(v5_0::Pubrec::parse)?.into(),
        6 => raw.parse_exact(v5_0::Pubrel::parse)?.into(),
        7 => raw.parse_exact(v5_0::Pubcomp::parse)?.into(),
        8 => raw.parse_exact(v5_0::Subscribe::parse)?.into(),
        10 => raw.parse_exact(v5_0::Unsubscribe::parse)?.into(),
        12 => raw.parse_exact(v5_0::Pingreq::parse)?.into(),
        14 => raw.parse_exact(v5_0::Disconnect::parse)?.into(),
        15 => raw.parse_exact(v5_0::Auth::parse)?.into(),
        // As its connection answers for a server.
        2 | 9 | 11 | 13 => return Err(MqttError::ProtocolError),
        _ => return Err(MqttError::MalformedPacket),
    })
}

fn parse_old(raw: &RawPacket) -> Result<Packet, MqttError> {
    Ok(match raw.packet_type() {
        3 => v3_1_1::Publish::parse(raw.flags(), raw.data_as_slice().into())?
            .0
            .into(),
        4 => raw.parse_exact(v3_1_1::Puback::parse)?.into(),
        5 => raw.parse_exact(v3_1_1::Pubrec::parse)?.into(),
        6 => raw.parse_exact(v3_1_1::Pubrel::parse)?.into(),
        7 => raw.parse_exact(v3_1_1::Pubcomp::parse)?.into(),
        8 => raw.parse_exact(v3_1_1::Subscribe::parse)?.into(),
        10 => raw.parse_exact(v3_1_1::Unsubscribe::parse)?.into(),
        12 => raw.parse_exact(v3_1_1::Pingreq::parse)?.into(),
        14 => raw.parse_exact(v3_1_1::Disconnect::parse)?.into(),
        2 | 9 | 11 | 13 | 15 => return Err(MqttError::ProtocolError),
        _ => return Err(MqttError::MalformedPacket),
    })
}

fn taken(packet: &Packet) -> Outcome {
    let mut facts = Facts::new();
    let all = &mut facts;
    match packet {
        Packet::V5_0Connect(connect) => {
            note(all, "level", connect.protocol_version());
            note(all, "clean", connect.clean_start());
            note(all, "keep alive", connect.keep_alive());
            note(all, "client id", connect.client_id());
            note_if(all, "user name", connect.user_name());
            note_if(all, "password", connect.password().map(hex));
            of_properties(all, "user", &connect.props);
            if connect.will_flag() {
                note(all, "will qos", connect.will_qos() as u8);
                note(all, "will retain", connect.will_retain());
                note_if(all, "will topic", connect.will_topic());
                note_if(all, "will payload", connect.will_payload().map(hex));
                of_properties(all, "message user", &connect.will_props);
            }
        }
        Packet::V3_1_1Connect(connect) => {
            note(all, "level", connect.protocol_version());
            note(all, "clean", connect.clean_session());
            note(all, "keep alive", connect.keep_alive());
            note(all, "client id", connect.client_id());
            note_if(all, "user name", connect.user_name());
            note_if(all, "password", connect.password().map(hex));
            if connect.will_flag() {
                note(all, "will qos", connect.will_qos() as u8);
                note(all, "will retain", connect.will_retain());
                note_if(all, "will topic", connect.will_topic());
                note_if(all, "will payload", connect.will_payload().map(hex));
            }
        }
        Packet::V5_0Publish(publish) => {
            note(all, "topic", publish.topic_name());
            note(all, "payload", hex(publish.payload().as_slice()));
            note(all, "qos", publish.qos() as u8);
            note_if(all, "id", publish.packet_id());
            note(all, "dup", publish.dup());
            note(all, "retain", publish.retain());
            of_properties(all, "message user", &publish.props);
        }
        Packet::V3_1_1Publish(publish) => {
            note(all, "topic", publish.topic_name());
            note(all, "payload", hex(publish.payload().as_slice()));
            note(all, "qos", publish.qos() as u8);
            note_if(all, "id", publish.packet_id());
            note(all, "dup", publish.dup());
            note(all, "retain", publish.retain());
        }
        Packet::V5_0Subscribe(subscribe) => {
            note(all, "id", subscribe.packet_id());
            of_properties(all, "user", &subscribe.props);
            for entry in subscribe.entries() {
                let options = entry.sub_opts();
                let (qos, rh) = (options.qos() as u8, options.rh() as u8);
                let (filter, nl, rap) = (entry.topic_filter(), options.nl(), options.rap());
                append(all, "filters", &format!("{filter} {qos} {nl} {rap} {rh}"));
            }
        }
        Packet::V3_1_1Subscribe(subscribe) => {
            note(all, "id", subscribe.packet_id());
            for entry in subscribe.entries() {
                let qos = entry.sub_opts().qos() as u8;
                append(
                    all,
                    "filters",
                    &format!("{} {qos} false false 0", entry.topic_filter()),
                );
            }
        }
        Packet::V5_0Unsubscribe(unsubscribe) => {
            note(all, "id", unsubscribe.packet_id());
            of_properties(all, "user", &unsubscribe.props);
            unsubscribe
                .entries()
                .iter()
                .for_each(|filter| append(all, "filters", filter.as_str()));
        }
        Packet::V3_1_1Unsubscribe(unsubscribe) => {
            note(all, "id", unsubscribe.packet_id());
            unsubscribe
                .entries()
                .iter()
                .for_each(|filter| append(all, "filters", filter.as_str()));
        }
        Packet::V5_0Puback(ack) => of_ack(
            all,
            ack.packet_id(),
            ack.reason_code().map(|code| code as u8),
            ack.props.as_ref(),
        ),
        Packet::V5_0Pubrec(ack) => of_ack(
            all,
            ack.packet_id(),
            ack.reason_code().map(|code| code as u8),
            ack.props.as_ref(),
        ),
        Packet::V5_0Pubrel(ack) => of_ack(
            all,
            ack.packet_id(),
            ack.reason_code().map(|code| code as u8),
            ack.props.as_ref(),
        ),
        Packet::V5_0Pubcomp(ack) => of_ack(
            all,
            ack.packet_id(),
            ack.reason_code().map(|code| code as u8),
            ack.props.as_ref(),
        ),
        Packet::V3_1_1Puback(ack) => of_ack(all, ack.packet_id(), None, None),
        Packet::V3_1_1Pubrec(ack) => of_ack(all, ack.packet_id(), None, None),
        Packet::V3_1_1Pubrel(ack) => of_ack(all, ack.packet_id(), None, None),
        Packet::V3_1_1Pubcomp(ack) => of_ack(all, ack.packet_id(), None, None),
        Packet::V5_0Disconnect(disconnect) => {
            of_reason(
                all,
                disconnect.reason_code().map(|code| code as u8),
                disconnect.props.as_ref(),
            );
        }
        Packet::V5_0Auth(auth) => of_reason(
            all,
            auth.reason_code().map(|code| code as u8),
            auth.props.as_ref(),
        ),
        Packet::V5_0Pingreq(_) | Packet::V3_1_1Pingreq(_) | Packet::V3_1_1Disconnect(_) => {}
        other => panic!("not a client's packet: {other:?}"),
    }
    Outcome::Taken(facts)
}

fn of_ack(all: &mut Facts, id: u16, reason: Option<u8>, properties: Option<&Properties>) {
    note(all, "id", id);
    of_reason(all, reason, properties);
}

fn of_reason(all: &mut Facts, reason: Option<u8>, properties: Option<&Properties>) {
    note_unless(all, "reason", reason.unwrap_or_default(), 0);
    if let Some(properties) = properties {
        // A DISCONNECT's session expiry of 0 says something, a CONNECT's does not.
        of_properties(all, "user", properties);
        for property in properties {
            if let Property::SessionExpiryInterval(expiry) = property {
                note(all, "session expiry", expiry.val());
            }
        }
    }
}

fn of_properties(all: &mut Facts, user: &'static str, properties: &Properties) {
    for property in properties {
        match property {
            Property::PayloadFormatIndicator(one) => note_unless(all, "is text", one.val(), 0),
            Property::MessageExpiryInterval(one) => note(all, "expiry", one.val()),
            Property::ContentType(one) => note(all, "content type", one.val()),
            Property::ResponseTopic(one) => note(all, "response topic", one.val()),
            Property::CorrelationData(one) => note(all, "correlation", hex(one.val())),
            Property::SubscriptionIdentifier(one) => note(all, "subscription id", one.val()),
            Property::SessionExpiryInterval(one) => {
                note_unless(all, "session expiry", one.val(), 0)
            }
            Property::AuthenticationMethod(one) => note(all, "method", one.val()),
            Property::AuthenticationData(one) => note(all, "data", hex(one.val())),
            Property::RequestProblemInformation(one) => {
                note_unless(all, "problem info", one.val(), 1)
            }
            Property::WillDelayInterval(one) => note_unless(all, "will delay", one.val(), 0),
            // We have no such information to give, asked or not, and do not keep the question.
            Property::RequestResponseInformation(_) => {}
            Property::ReasonString(one) => note(all, "reason string", one.val()),
            Property::ServerReference(one) => note(all, "server reference", one.val()),
            Property::ReceiveMaximum(one) => {
                note_unless(all, "receive maximum", one.val(), u16::MAX)
            }
            Property::TopicAliasMaximum(one) => note_unless(all, "alias maximum", one.val(), 0),
            Property::TopicAlias(one) => note(all, "alias", one.val()),
            Property::MaximumPacketSize(one) => note(all, "packet maximum", one.val()),
            Property::UserProperty(one) => {
                append(all, user, &format!("{}={}", one.key(), one.val()))
            }
            other => panic!("not a client's property: {other:?}"),
        }
    }
}
