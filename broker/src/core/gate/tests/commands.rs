//! What a host subscribes to, and the commands it gets.

use super::*;

#[test]
fn a_host_subscribes_to_its_commands_and_is_told_once_attached() {
    let mut client = subscribed(&[]);
    assert_eq!(client.said(), [Said::SubAck(1, vec![1])]);
}

#[test]
fn a_subscription_that_cannot_be_attached_gets_0x80_and_may_be_tried_again() {
    let mut client = Client::online("edge-1");
    client.subscribe(&["v1/edge-1/commands"]);
    client.session.poll_effect();
    client.session.subscribed(None);
    assert_eq!(client.said(), [Said::SubAck(1, vec![0x80])]);
    client.subscribe(&["v1/edge-1/commands"]);
    assert!(matches!(
        client.session.poll_effect(),
        Some(Effect::Subscribe(_))
    ));
}

#[test]
fn a_sandbox_may_subscribe_to_nothing_and_the_third_attempt_ends_it() {
    let mut client = Client::online("edge-1/build-7");
    for filter in ["v1/edge-1/build-7/events", "#"] {
        assert_eq!(client.subscribe(&[filter]), [Said::SubAck(1, vec![0x87])]);
    }
    assert_eq!(
        client.subscribe(&["v1/edge-1/commands"]),
        [Said::Disconnect(0x87)]
    );
    assert_eq!(client.ending(), Some(0x87));
}

#[test]
fn each_filter_has_its_code_and_only_the_allowed_one_is_active() {
    let mut client = Client::online("edge-1");
    let filters = [
        "v1/edge-2/commands",
        "v1/edge-1/commands",
        "#",
        "v1/+/commands",
        "$share/g/v1/edge-1/commands",
        "$SYS/#",
    ];
    assert_eq!(client.subscribe(&filters), []);
    let counted = Some(Effect::Refused(ReasonCode::NOT_AUTHORIZED));
    assert_eq!(client.session.poll_effect(), counted, "once");
    assert!(matches!(
        client.session.poll_effect(),
        Some(Effect::Subscribe(_))
    ));
    assert_eq!(client.session.poll_effect(), None);
    client.session.subscribed(Some(Vec::new()));
    let codes = vec![0x87, 1, 0xA2, 0xA2, 0x9E, 0x87];
    assert_eq!(client.said(), [Said::SubAck(1, codes)]);
}

#[test]
fn commands_come_at_qos_1_or_not_at_all() {
    for (qos, code) in [(Qos::AtMostOnce, 0x83), (Qos::ExactlyOnce, 1)] {
        let mut client = Client::online("edge-1");
        let mut one = subscription("v1/edge-1/commands");
        one.qos = qos;
        let mut said = client.send(ClientPacket::Subscribe(Subscribe::new(
            id(1),
            List::from(&[one]),
        )));
        if let Some(Effect::Subscribe(_)) = client.session.poll_effect() {
            client.session.subscribed(Some(Vec::new()));
            said = client.said();
        }
        assert_eq!(said, [Said::SubAck(1, vec![code])]);
    }
}

#[test]
fn a_subscription_identifier_gets_0xa1() {
    let mut client = Client::online("edge-1");
    let one = [subscription("v1/edge-1/commands")];
    let mut subscribe = Subscribe::new(id(1), List::from(&one));
    subscribe.subscription_id = NonZeroU32::new(1);
    assert_eq!(
        client.send(ClientPacket::Subscribe(subscribe)),
        [Said::Disconnect(0xA1)]
    );
}

#[test]
fn an_invalid_filter_gets_0x8f() {
    for filter in [&b"a/#/b"[..], b"a#", b"+a", b""] {
        let mut client = Client::online("edge-1");
        let length = u8::try_from(filter.len()).unwrap();
        let bytes = [&[0x82, length + 6, 0, 1, 0, 0, length], filter, &[1]].concat();
        assert_eq!(client.bytes(&bytes), [Said::Disconnect(0x8F)], "{filter:?}");
    }
}

#[test]
fn filters_past_the_eighth_are_refused_unread() {
    let mut client = Client::online("edge-1");
    let filters: Vec<_> = std::iter::repeat_n("v1/edge-2/commands", 10).collect();
    let said = client.subscribe(&filters);
    assert_eq!(
        said,
        [Said::SubAck(1, [vec![0x87; 8], vec![0x97; 2]].concat())]
    );
}

#[test]
fn subscribing_again_changes_nothing_and_sends_nothing_twice() {
    let mut client = subscribed(&[b"one"]);
    client.said();
    assert_eq!(
        client.subscribe(&["v1/edge-1/commands"]),
        [Said::SubAck(1, vec![1])]
    );
    assert_eq!(client.session.poll_effect(), None);
}

#[test]
fn unsubscribing_has_a_code_for_each_filter_in_one_answer() {
    let mut client = subscribed(&[]);
    client.said();
    let filters = [
        "v1/edge-2/commands",
        "v1/edge-1/commands",
        "v1/edge-1/commands",
    ];
    let unsubscribe = Unsubscribe::new(id(9), List::from(&filters));
    let said = client.send(ClientPacket::Unsubscribe(unsubscribe));
    assert_eq!(said, [Said::UnsubAck(9, vec![0x11, 0, 0x11])]);
    assert_eq!(client.session.poll_effect(), Some(Effect::Unsubscribe));
    client.session.deliver(b"late".to_vec());
    assert_eq!(client.said(), []);
}

#[test]
fn open_commands_come_right_behind_the_suback_oldest_first() {
    let mut client = subscribed(&[b"one", b"two"]);
    assert_eq!(
        client.said(),
        [
            Said::SubAck(1, vec![1]),
            Said::Publish(1, b"one".to_vec()),
            Said::Publish(2, b"two".to_vec())
        ]
    );
    client.session.deliver(b"three".to_vec());
    assert_eq!(client.said(), [Said::Publish(3, b"three".to_vec())]);
}

#[test]
fn the_clients_receive_maximum_is_honoured() {
    let (mut client, _) = Client::online_as("edge-1", |connect| {
        connect.receive_maximum = NonZeroU16::MIN;
    });
    client.subscribe(&["v1/edge-1/commands"]);
    client.session.poll_effect();
    client
        .session
        .subscribed(Some(vec![b"one".to_vec(), b"two".to_vec()]));
    assert_eq!(client.said().len(), 2, "SUBACK and one command");
    let ack = |number| ClientPacket::Ack(Ack::puback(id(number), ReasonCode::SUCCESS));
    assert_eq!(client.send(ack(1)), [Said::Publish(2, b"two".to_vec())]);
}

#[test]
fn a_host_that_does_not_take_its_commands_gets_0x97() {
    let mut client = subscribed(&[]);
    client.said();
    for number in 0..2 * RECEIVE_MAXIMUM {
        client.session.deliver(number.to_be_bytes().to_vec());
        assert!(!client.session.is_closed(), "{number}");
    }
    client.said();
    client.session.deliver(b"one more".to_vec());
    assert_eq!(client.said(), [Said::Disconnect(0x97)]);
}

#[test]
fn an_unsolicited_puback_is_tolerated() {
    let mut client = Client::online("edge-1");
    let ack = Ack::puback(id(77), ReasonCode::SUCCESS);
    assert_eq!(client.send(ClientPacket::Ack(ack)), []);
    assert!(!client.session.is_closed());
}

#[test]
fn pubacks_out_of_order_are_accepted() {
    let (mut client, _) = Client::online_as("edge-1", |connect| {
        connect.receive_maximum = NonZeroU16::new(2).unwrap();
    });
    client.subscribe(&["v1/edge-1/commands"]);
    client.session.poll_effect();
    client
        .session
        .subscribed(Some((1..=4).map(|byte| vec![byte]).collect()));
    client.said();
    let ack = |number| ClientPacket::Ack(Ack::puback(id(number), ReasonCode::SUCCESS));
    assert_eq!(client.send(ack(2)), [Said::Publish(3, vec![3])]);
    assert_eq!(client.send(ack(1)), [Said::Publish(4, vec![4])]);
}

#[test]
fn the_steps_of_qos_2_get_0x82() {
    for kind in [AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
        let mut client = Client::online("edge-1");
        let mut ack = Ack::puback(id(1), ReasonCode::SUCCESS);
        ack.kind = kind;
        assert_eq!(
            client.send(ClientPacket::Ack(ack)),
            [Said::Disconnect(0x82)]
        );
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read() {
    let mut client = Client::online("edge-1");
    let mut bytes = Vec::new();
    ClientPacket::PingReq
        .encode(Version::V5, &mut bytes)
        .unwrap();
    let ping = frame(&bytes, 4096).unwrap().unwrap();
    while client.session.wants_packets() {
        client.session.receive(&ping, client.now);
        assert!(client.session.output().len() <= OUTPUT_BYTES_MAX);
    }
    client.session.output().clear();
    assert!(client.session.wants_packets());
}

#[test]
fn commands_wait_for_output_that_is_not_written() {
    let big: Vec<_> = (0..9).map(|byte| vec![byte; 60_000]).collect();
    let mut client = subscribed(&big.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(client.said().len(), 4, "SUBACK and three commands");
    client.session.flushed();
    assert_eq!(client.said().len(), 3);
}

#[test]
fn a_command_larger_than_the_client_takes_is_reported() {
    let (mut client, _) = Client::online_as("edge-1", |connect| {
        connect.packet_bytes_max = NonZeroU32::new(300);
    });
    client.subscribe(&["v1/edge-1/commands"]);
    client.session.poll_effect();
    client.session.subscribed(Some(vec![vec![0; 400]]));
    assert_eq!(client.session.poll_effect(), Some(Effect::Skip(1)));
}
