//! What a client publishes.

use super::*;
use protocol::topic::Topic;

fn own(topic: &str) -> Target {
    Target::Own(Topic::parse(topic).unwrap().into())
}

#[test]
fn a_publish_is_acknowledged_when_it_is_stored_and_not_before() {
    let mut client = Client::online("edge-1/build-7");
    assert_eq!(client.publish(qos1("v1/edge-1/build-7/events", 7)), []);
    let effect = client.session.poll_effect();
    let Some(Effect::Store {
        target, payload, ..
    }) = &effect
    else {
        panic!("{effect:?}");
    };
    assert_eq!(*target, own("v1/edge-1/build-7/events"));
    assert_eq!(payload, b"payload");
    assert_eq!(
        client.stored(effect.as_ref(), Outcome::Stored),
        [Said::PubAck(7, 0)]
    );
}

#[test]
fn what_could_not_be_stored_is_acknowledged_with_its_code() {
    for (outcome, code) in [
        (Outcome::Invalid, 0x99),
        (Outcome::Busy, 0x97),
        (Outcome::Failed, 0x80),
    ] {
        let mut client = Client::online("edge-1");
        client.publish(qos1("v1/edge-1/reports", 1));
        let effect = client.session.poll_effect();
        assert_eq!(
            client.stored(effect.as_ref(), outcome),
            [Said::PubAck(1, code)]
        );
    }
}

#[test]
fn a_qos_0_publish_is_stored_and_not_acknowledged() {
    let mut client = Client::online("edge-1");
    let publish = Publish::new("v1/edge-1/reports", Delivery::AtMostOnce, b"x");
    assert_eq!(client.publish(publish), []);
    let effect = client.session.poll_effect();
    assert_eq!(client.stored(effect.as_ref(), Outcome::Stored), []);
}

#[test]
fn a_flood_of_qos_0_is_not_read_until_some_is_stored() {
    let mut client = Client::online("edge-1");
    for _ in 0..QUIET_MAX {
        assert!(client.session.wants_packets());
        client.publish(Publish::new(
            "v1/edge-1/reports",
            Delivery::AtMostOnce,
            b"x",
        ));
    }
    assert!(!client.session.wants_packets());
    let effect = client.session.poll_effect();
    client.stored(effect.as_ref(), Outcome::Stored);
    assert!(client.session.wants_packets());
}

#[test]
fn a_publish_that_is_not_permitted_gets_0x87_and_the_third_ends_it() {
    let mut client = Client::online("edge-1/build-7");
    let foreign = "v1/edge-1/build-8/events";
    assert_eq!(client.publish(qos1(foreign, 1)), [Said::PubAck(1, 0x87)]);
    assert_eq!(client.publish(qos1("$SYS/x", 2)), [Said::PubAck(2, 0x87)]);
    let counted = Some(Effect::Refused(ReasonCode::NOT_AUTHORIZED));
    assert_eq!(client.session.poll_effect(), counted);
    assert_eq!(client.session.poll_effect(), counted);
    assert_eq!(client.session.poll_effect(), None, "nothing is stored");
    assert_eq!(client.publish(qos1(foreign, 3)), [Said::Disconnect(0x87)]);
    assert_eq!(client.ending(), Some(0x87));
}

#[test]
fn a_host_may_publish_its_reports_and_nothing_else() {
    for topic in [
        "v1/edge-1/commands",
        "v1/edge-2/reports",
        "v1/edge-1/a/events",
        "bench/x",
    ] {
        let mut client = Client::online("edge-1");
        assert_eq!(client.publish(qos1(topic, 1)), [Said::PubAck(1, 0x87)]);
    }
}

#[test]
fn a_qos_0_publish_that_is_not_permitted_ends_it_at_once() {
    let mut client = Client::online("edge-1");
    let publish = Publish::new("v1/edge-2/reports", Delivery::AtMostOnce, b"x");
    assert_eq!(client.publish(publish), [Said::Disconnect(0x87)]);
}

#[test]
fn a_topic_that_is_no_name_of_ours_gets_0x90() {
    let (long, deep) = ("a".repeat(257), "a/".repeat(8));
    for topic in ["é/x", "v1/edge 1/reports", &long, &deep] {
        let mut client = Client::online("edge-1");
        assert_eq!(
            client.publish(qos1(topic, 1)),
            [Said::Disconnect(0x90)],
            "{topic}"
        );
    }
}

#[test]
fn a_topic_with_wildcards_gets_0x90() {
    for topic in [b'#', b'+'] {
        let mut client = Client::online("edge-1");
        let said = client.bytes(&[0x32, 6, 0, 1, topic, 0, 1, 0]);
        assert_eq!(said, [Said::Disconnect(0x90)]);
    }
}

#[test]
fn qos_2_gets_0x9b() {
    let mut client = Client::online("edge-1");
    let delivery = Delivery::ExactlyOnce {
        id: id(1),
        dup: false,
    };
    let publish = Publish::new("v1/edge-1/reports", delivery, b"x");
    assert_eq!(client.publish(publish), [Said::Disconnect(0x9B)]);
}

#[test]
fn a_retained_publish_gets_0x9a_even_to_clear() {
    for payload in [&b"x"[..], b""] {
        let mut client = Client::online("edge-1");
        let mut publish = qos1("v1/edge-1/reports", 1);
        (publish.retain, publish.payload) = (true, payload);
        assert_eq!(client.publish(publish), [Said::Disconnect(0x9A)]);
    }
}

#[test]
fn a_topic_alias_gets_0x94_with_or_without_a_topic() {
    for topic in ["v1/edge-1/reports", ""] {
        let mut client = Client::online("edge-1");
        let mut publish = qos1(topic, 1);
        publish.topic_alias = NonZeroU16::new(1);
        assert_eq!(client.publish(publish), [Said::Disconnect(0x94)]);
    }
}

#[test]
fn a_payload_that_says_it_is_text_and_is_not_gets_0x99() {
    let mut client = Client::online("edge-1");
    let mut publish = qos1("v1/edge-1/reports", 1);
    publish.properties.payload_is_text = true;
    publish.payload = &[0xFF];
    assert_eq!(client.publish(publish), [Said::PubAck(1, 0x99)]);
    let counted = Some(Effect::Refused(ReasonCode::PAYLOAD_FORMAT_INVALID));
    assert_eq!(client.session.poll_effect(), counted);
    assert_eq!(client.session.poll_effect(), None);
}

#[test]
fn the_properties_of_a_publish_go_nowhere() {
    let mut client = Client::online("edge-1");
    let mut publish = qos1("v1/edge-1/reports", 1);
    publish.properties.response_topic = Some("v1/edge-2/commands");
    publish.properties.expiry_secs = Some(0);
    client.publish(publish);
    let Some(Effect::Store {
        target, payload, ..
    }) = client.session.poll_effect()
    else {
        panic!("not stored");
    };
    assert_eq!(target, own("v1/edge-1/reports"));
    assert_eq!(payload, b"payload");
}

#[test]
fn more_unacknowledged_than_receive_maximum_gets_0x93() {
    let mut client = Client::online("edge-1");
    for number in 1..=RECEIVE_MAXIMUM {
        assert_eq!(client.publish(qos1("v1/edge-1/reports", number)), []);
    }
    let one_more = qos1("v1/edge-1/reports", RECEIVE_MAXIMUM + 1);
    assert_eq!(client.publish(one_more), [Said::Disconnect(0x93)]);
}

#[test]
fn a_packet_identifier_in_use_gets_0x82() {
    let mut client = Client::online("edge-1");
    client.publish(qos1("v1/edge-1/reports", 1));
    let again = client.publish(qos1("v1/edge-1/reports", 1));
    assert_eq!(again, [Said::Disconnect(0x82)]);
}

#[test]
fn a_refused_publish_is_acknowledged_in_its_turn() {
    let mut client = Client::online("edge-1");
    client.publish(qos1("v1/edge-1/reports", 1));
    let first = client.session.poll_effect();
    assert_eq!(client.publish(qos1("v1/edge-2/reports", 2)), []);
    let said = client.stored(first.as_ref(), Outcome::Stored);
    assert_eq!(said, [Said::PubAck(1, 0), Said::PubAck(2, 0x87)]);
}

#[test]
fn at_qos_0_what_is_not_the_text_that_it_says_ends_the_connection_with_0x99() {
    let mut client = Client::online("edge-1");
    let mut publish = Publish::new("v1/edge-1/reports", Delivery::AtMostOnce, b"\xff");
    publish.properties.payload_is_text = true;
    assert_eq!(client.publish(publish), [Said::Disconnect(0x99)]);
}
