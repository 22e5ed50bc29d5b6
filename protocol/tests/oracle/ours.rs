//! Our decoder.

use protocol::mqtt::{
    ClientPacket, Connect, Delivery, MessageProperties, Publish, UserProperties, Version,
    decode_client, frame,
};

use crate::outcome::{Facts, Outcome, append, hex, note, note_if, note_unless};

pub(crate) fn read(version: Version, bytes: &[u8]) -> Outcome {
    let found = match frame(bytes, usize::MAX) {
        Ok(Some(found)) => found,
        Ok(None) => return Outcome::Incomplete,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    match decode_client(&found, version) {
        Ok(packet) => Outcome::Taken(facts(&packet)),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn facts(packet: &ClientPacket<'_>) -> Facts {
    let mut facts = Facts::new();
    let all = &mut facts;
    match packet {
        ClientPacket::Connect(connect) => of_connect(all, connect),
        ClientPacket::Publish(publish) => of_publish(all, publish),
        ClientPacket::Ack(ack) => {
            note(all, "id", ack.id);
            note_unless(all, "reason", ack.reason.value(), 0);
            note_if(all, "reason string", ack.reason_string);
            of_user(all, "user", &ack.user_properties);
        }
        ClientPacket::Subscribe(subscribe) => {
            note(all, "id", subscribe.id);
            note_if(all, "subscription id", subscribe.subscription_id);
            of_user(all, "user", &subscribe.user_properties);
            for one in &subscribe.subscriptions {
                let (qos, rh) = (one.qos.value(), one.retain_handling as u8);
                let (nl, rap) = (one.no_local, one.retain_as_published);
                append(
                    all,
                    "filters",
                    &format!("{} {qos} {nl} {rap} {rh}", one.filter),
                );
            }
        }
        ClientPacket::Unsubscribe(unsubscribe) => {
            note(all, "id", unsubscribe.id);
            of_user(all, "user", &unsubscribe.user_properties);
            for filter in &unsubscribe.filters {
                append(all, "filters", filter);
            }
        }
        ClientPacket::PingReq => {}
        ClientPacket::Disconnect(disconnect) => {
            note_unless(all, "reason", disconnect.reason.value(), 0);
            note_if(all, "session expiry", disconnect.session_expiry_secs);
            note_if(all, "reason string", disconnect.reason_string);
            note_if(all, "server reference", disconnect.server_reference);
            of_user(all, "user", &disconnect.user_properties);
        }
        ClientPacket::Auth(auth) => {
            note_unless(all, "reason", auth.reason.value(), 0);
            note_if(all, "method", auth.method);
            note_if(all, "data", auth.data.map(hex));
            note_if(all, "reason string", auth.reason_string);
            of_user(all, "user", &auth.user_properties);
        }
    }
    facts
}

fn of_connect(all: &mut Facts, connect: &Connect<'_>) {
    note(all, "level", connect.version.level());
    note(all, "clean", connect.clean_start);
    note(all, "keep alive", connect.keep_alive_secs);
    note(all, "client id", connect.client_id);
    note_if(all, "user name", connect.user_name);
    note_if(all, "password", connect.password.map(hex));
    if connect.version == Version::V5 {
        note_unless(all, "session expiry", connect.session_expiry_secs, 0);
    }
    note_unless(
        all,
        "receive maximum",
        connect.receive_maximum.get(),
        u16::MAX,
    );
    note_if(all, "packet maximum", connect.packet_bytes_max);
    note_unless(all, "alias maximum", connect.topic_alias_max, 0);
    note_unless(all, "problem info", u8::from(connect.wants_problem_info), 1);
    note_if(all, "method", connect.auth_method);
    note_if(all, "data", connect.auth_data.map(hex));
    of_user(all, "user", &connect.user_properties);
    if let Some(will) = &connect.will {
        note(all, "will qos", will.qos.value());
        note(all, "will retain", will.retain);
        note(all, "will topic", will.topic);
        note(all, "will payload", hex(will.payload));
        note_unless(all, "will delay", will.delay_secs, 0);
        of_message(all, &will.properties);
    }
}

fn of_publish(all: &mut Facts, publish: &Publish<'_>) {
    let dup = match publish.delivery {
        Delivery::AtMostOnce => false,
        Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => dup,
    };
    note(all, "topic", publish.topic);
    note(all, "payload", hex(publish.payload));
    note(all, "qos", publish.delivery.qos().value());
    note_if(all, "id", publish.delivery.packet_id());
    note(all, "dup", dup);
    note(all, "retain", publish.retain);
    note_if(all, "alias", publish.topic_alias);
    of_message(all, &publish.properties);
}

fn of_message(all: &mut Facts, properties: &MessageProperties<'_>) {
    note_unless(all, "is text", u8::from(properties.payload_is_text), 0);
    note_if(all, "expiry", properties.expiry_secs);
    note_if(all, "content type", properties.content_type);
    note_if(all, "response topic", properties.response_topic);
    note_if(all, "correlation", properties.correlation_data.map(hex));
    of_user(all, "message user", &properties.user_properties);
}

fn of_user(all: &mut Facts, name: &'static str, properties: &UserProperties<'_>) {
    for (key, value) in properties {
        append(all, name, &format!("{key}={value}"));
    }
}
