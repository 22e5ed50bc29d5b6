//! Readers and bench principals: ordinary MQTT clients with a token as their password.

use super::*;
use crate::core::reader::{
    Rights,
    tests::{everything, reader},
};
use protocol::{id::HostId, topic::ReadFilter};

const PASSWORD: &[u8] = b"ort1_secret";

fn open() -> Client {
    let mut client = Client::new();
    client.session.offer.readers = true;
    client
}

/// CONNECT as the reader `grafana`, up to the verdict on its token.
fn shown(client: &mut Client, id: &str, change: impl FnOnce(&mut Connect<'_>)) -> Vec<Said> {
    let mut connect = Connect::new(id, 30);
    connect.user_name = Some("grafana");
    connect.password = Some(PASSWORD);
    connect.clean_start = true;
    change(&mut connect);
    let mut bytes = Vec::new();
    connect.encode(&mut bytes).unwrap();
    client.bytes(&bytes)
}

fn admitted(
    id: &str,
    rights: &Rights,
    kept: Option<Kept>,
    change: impl FnOnce(&mut Connect<'_>),
) -> (Client, Vec<u8>) {
    let mut client = open();
    assert_eq!(shown(&mut client, id, change), []);
    let token = Effect::CheckReader(Zeroizing::new(PASSWORD.to_vec()));
    assert_eq!(client.session.poll_effect(), Some(token));
    client.session.checked_reader(Ok(reader(rights)), [0xab; 8]);
    let Some(Effect::Admit { who, .. }) = client.session.poll_effect() else {
        panic!("{:?}", client.said());
    };
    assert_eq!(who.to_string(), "reader:grafana");
    client.now.unix = UnixMillis(0);
    client.session.admitted(kept, client.now);
    let connack = std::mem::take(client.session.output());
    (client, connack)
}

fn online(rights: &Rights) -> Client {
    admitted("grafana", rights, None, |_| {}).0
}

fn old(connect: &mut Connect<'_>) {
    connect.version = Version::V311;
}

/// Hands a record over, as the shell does.
fn record(client: &mut Client, offset: u64) -> Vec<Said> {
    client.session.record(Message {
        offset,
        incarnation: 1,
        topic: "v1/edge-1/build-7/events",
        payload: b"batch",
        is_purged: false,
    });
    client.said()
}

fn followed(client: &mut Client) -> Option<(Start, Reads)> {
    match client.session.poll_effect() {
        Some(Effect::Follow { from, reads }) => Some((from, reads)),
        _ => None,
    }
}

#[test]
fn readers_and_mqtt_3_1_1_are_off_unless_the_owner_turns_them_on() {
    let mut client = Client::new();
    assert_eq!(shown(&mut client, "grafana", |_| {}), [Said::ConnAck(0x86)]);
    let mut client = Client::new();
    assert_eq!(shown(&mut client, "grafana", old), [Said::ConnAck(0x84)]);
}

#[test]
fn a_host_or_sandbox_never_comes_in_with_a_password() {
    for id in ["edge-1", "edge-1/build-7"] {
        let mut client = open();
        shown(&mut client, id, |_| {});
        client.session.poll_effect();
        client
            .session
            .checked_reader(Ok(reader(&everything())), [0; 8]);
        assert_eq!(client.said(), [Said::ConnAck(0x85)], "{id}");
    }
}

#[test]
fn a_bad_token_and_anothers_name_get_one_answer() {
    for version in [Version::V5, Version::V311] {
        let mut answers = Vec::new();
        for is_right in [true, false] {
            let mut client = open();
            shown(&mut client, "eve", |connect| {
                connect.version = version;
                connect.user_name = Some("eve");
            });
            client.session.poll_effect();
            let verdict = if is_right {
                Ok(reader(&everything()))
            } else {
                Err(ReasonCode::NOT_AUTHORIZED)
            };
            client.session.checked_reader(verdict, [0; 8]);
            answers.push(client.said());
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], [Said::ConnAck(0x87)]);
    }
}

#[test]
fn a_reader_has_its_name_and_what_follows_a_slash_and_a_bench_tool_any_name() {
    for (id, reads, load) in [
        ("grafana", true, true),
        ("grafana/2", true, true),
        ("grafana/a/b", true, true),
        ("grafana/", false, true),
        ("grafana2", false, true),
        ("edge-1", false, true),
        ("bench_pub_17", false, true),
    ] {
        for (rights, may) in [(everything(), reads), (Rights::Bench, load)] {
            let mut client = open();
            shown(&mut client, id, |_| {});
            client.session.poll_effect();
            client.session.checked_reader(Ok(reader(&rights)), [0; 8]);
            let expected: &[Said] = if may { &[] } else { &[Said::ConnAck(0x85)] };
            assert_eq!(client.said(), expected, "{id}");
        }
    }
    for id in ["a+", "#", "$SYS", "a b", "é"] {
        assert_eq!(
            shown(&mut open(), id, |_| {}),
            [Said::ConnAck(0x85)],
            "{id}"
        );
    }
    let long = "a".repeat(CLIENT_ID_BYTES_MAX + 1);
    assert_eq!(shown(&mut open(), &long, |_| {}), [Said::ConnAck(0x85)]);
}

#[test]
fn an_empty_client_id_is_given_one_unless_a_session_would_hang_on_it() {
    let (_, connack) = admitted("", &everything(), None, |_| {});
    let frame = frame(&connack, usize::MAX).unwrap().unwrap();
    let Ok(ServerPacket::ConnAck(connack)) = decode_server(&frame, Version::V5) else {
        panic!("not a CONNACK");
    };
    assert_eq!(connack.assigned_client_id, Some("grafana/abababababababab"));
    let lost = |connect: &mut Connect<'_>| connect.clean_start = false;
    assert_eq!(shown(&mut open(), "", lost), [Said::ConnAck(0x85)]);
}

#[test]
fn its_connack_says_what_a_reader_gets() {
    let asks = |connect: &mut Connect<'_>| {
        connect.keep_alive_secs = 0;
        connect.session_expiry_secs = u32::MAX;
    };
    let (_, connack) = admitted("grafana", &everything(), Some(Kept::default()), asks);
    let frame = frame(&connack, usize::MAX).unwrap().unwrap();
    let Ok(ServerPacket::ConnAck(connack)) = decode_server(&frame, Version::V5) else {
        panic!("not a CONNACK");
    };
    assert_eq!(connack.reason, ReasonCode::SUCCESS);
    assert!(connack.session_present);
    assert_eq!(connack.session_expiry_secs, Some(SESSION_EXPIRY_S_MAX));
    assert_eq!(connack.wildcard_available, Some(true));
    assert_eq!(connack.shared_available, Some(false));
    assert_eq!(connack.server_keep_alive_secs, Some(KEEP_ALIVE_S_MAX));
    assert_eq!(connack.auth_method, None);
}

#[test]
fn a_will_and_a_second_method_are_refused() {
    let mut client = open();
    let said = shown(&mut client, "grafana", |connect| {
        connect.auth_method = Some(METHOD);
    });
    assert_eq!(said, [Said::ConnAck(0x8c)]);
    let mut client = open();
    let said = shown(&mut client, "grafana", |connect| {
        connect.will = Some(Will {
            topic: "v1/edge-1/reports",
            payload: b"",
            qos: Qos::AtMostOnce,
            retain: false,
            delay_secs: 0,
            properties: MessageProperties::default(),
        });
    });
    assert_eq!(said, [Said::ConnAck(0x87)]);
    let mut client = online(&everything());
    assert_eq!(client.auth(0x19, TOKEN_DATA), [Said::Disconnect(0x82)]);
}

#[test]
fn a_subscription_is_a_cursor_from_what_comes_next_or_from_where_it_says() {
    let all = Reads::Records(vec![ReadFilter::Events {
        host: None,
        sandbox: None,
    }]);
    for (from, expected) in [
        (None, Some(Start::Now)),
        (Some("oldest"), Some(Start::Oldest)),
        (Some("17"), Some(Start::Offset(17))),
        (Some("x"), None),
    ] {
        let mut client = online(&everything());
        let subscriptions = [subscription("v1/+/+/events")];
        let properties: Vec<_> = from.iter().map(|from| ("from", *from)).collect();
        let mut subscribe = Subscribe::new(id(1), List::from(&subscriptions));
        subscribe.user_properties = List::from(properties.as_slice());
        let said = client.send(ClientPacket::Subscribe(subscribe));
        let code = if expected.is_some() { 1 } else { 0x83 };
        assert_eq!(said, [Said::SubAck(1, vec![code])]);
        assert_eq!(
            followed(&mut client),
            expected.map(|from| (from, all.clone()))
        );
    }
}

#[test]
fn each_filter_has_its_code_and_only_what_its_rights_cover_is_read() {
    let of_one = Rights::Read {
        events: true,
        reports: false,
        metrics: false,
        host: Some(HostId::new("edge-1").unwrap()),
        sandbox: None,
    };
    let mut client = online(&of_one);
    let said = client.subscribe(&[
        "v1/edge-1/+/events",
        "v1/+/+/events",
        "v1/edge-1/reports",
        "v1/edge-1/commands",
        "#",
        "bench/#",
        "$share/g/v1/edge-1/+/events",
    ]);
    let codes = vec![1, 0x87, 0x87, 0x87, 0x87, 0x87, 0x9e];
    assert_eq!(said, [Said::SubAck(1, codes)]);
    let (_, reads) = followed(&mut client).unwrap();
    let own = ReadFilter::parse("v1/edge-1/+/events").unwrap();
    assert_eq!(reads, Reads::Records(vec![own]));
}

#[test]
fn records_are_sent_within_the_window_and_acknowledged_in_any_order() {
    let mut client = admitted("grafana", &everything(), None, |connect| {
        connect.receive_maximum = NonZeroU16::new(2).unwrap();
    })
    .0;
    client.subscribe(&["v1/+/+/events"]);
    assert_eq!(client.session.room(), 0, "nobody has said where it begins");
    client.session.following(5);
    assert_eq!(client.session.room(), 2);
    assert_eq!(
        record(&mut client, 5),
        [Said::Publish(6, b"batch".to_vec())]
    );
    record(&mut client, 6);
    assert_eq!(client.session.room(), 0);
    for id in [7, 6] {
        client.send(ClientPacket::Ack(Ack::puback(
            PacketId::new(id).unwrap(),
            ReasonCode::SUCCESS,
        )));
    }
    assert_eq!(client.session.room(), 2);
}

#[test]
fn a_filter_more_goes_on_where_the_cursor_stands() {
    let mut client = online(&everything());
    client.subscribe(&["v1/edge-1/+/events"]);
    followed(&mut client).unwrap();
    client.session.following(5);
    record(&mut client, 5);
    client.subscribe(&["v1/edge-2/+/events"]);
    let (from, reads) = followed(&mut client).unwrap();
    assert_eq!(from, Start::Offset(6));
    assert!(matches!(reads, Reads::Records(filters) if filters.len() == 2));
}

#[test]
fn a_session_is_kept_for_its_time_from_the_first_that_was_not_acknowledged() {
    let asks = |connect: &mut Connect<'_>| connect.session_expiry_secs = 60;
    let mut client = admitted("grafana", &everything(), None, asks).0;
    client.subscribe(&["v1/+/+/events"]);
    client.session.following(5);
    record(&mut client, 5);
    record(&mut client, 6);
    client.send(ClientPacket::Ack(Ack::puback(id(6), ReasonCode::SUCCESS)));
    let kept = Kept {
        filters: [("v1/+/+/events".to_owned(), true)].into(),
        next: Some(6),
        sent: 7,
    };
    assert_eq!(client.session.keep(), Some((kept.clone(), 60)));
    client.session.end(ReasonCode::SESSION_TAKEN_OVER, "a test");
    assert_eq!(client.session.keep(), Some((kept.clone(), 60)));

    let mut again = admitted("grafana", &everything(), Some(kept.clone()), asks).0;
    let (from, _) = followed(&mut again).unwrap();
    assert_eq!(from, Start::Offset(6));
    again.session.following(6);
    assert_eq!(record(&mut again, 6), [Said::Publish(7, b"batch".to_vec())]);

    let mut last = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    last.session_expiry_secs = Some(0);
    again.send(ClientPacket::Disconnect(last));
    assert_eq!(again.session.keep(), None, "it does not want it any more");

    let none = admitted("grafana", &everything(), None, |_| {}).0;
    assert_eq!(none.session.keep(), None);

    let narrower = Rights::Read {
        events: false,
        reports: true,
        metrics: false,
        host: None,
        sandbox: None,
    };
    let (client, answer) = admitted("grafana", &narrower, Some(kept), asks);
    assert!(client.session.is_closed());
    assert!(answer.ends_with(&[0xe0, 2, 0x87, 0]), "{answer:?}");
}

#[test]
fn over_mqtt_3_1_1_a_refusal_is_a_code_or_the_end_and_never_silence() {
    let mut client = admitted("grafana", &everything(), None, old).0;
    assert_eq!(
        client.subscribe(&["v1/+/+/events", "#"]),
        [Said::SubAck(1, vec![1, 0x80])]
    );
    followed(&mut client).unwrap();
    client.session.following(0);
    assert_eq!(
        record(&mut client, 0),
        [Said::Publish(1, b"batch".to_vec())]
    );
    assert_eq!(client.publish(qos1("v1/edge-1/reports", 1)), []);
    assert!(client.session.is_closed(), "a PUBACK would mean success");

    let mut client = admitted("grafana", &Rights::Bench, None, old).0;
    client.publish(qos1("bench/a", 1));
    let effect = client.session.poll_effect();
    assert_eq!(client.stored(effect.as_ref(), Outcome::Failed), []);
    assert!(client.session.is_closed());
}

#[test]
fn over_mqtt_3_1_1_a_client_has_the_keep_alive_it_asked_for() {
    // Without one, it is its token that ends it in the end.
    for (asked, silent_s, closed) in [
        (0, 80_000, false),
        (0, 86_400, true),
        (300, 449, false),
        (300, 450, true),
    ] {
        let mut client = admitted("grafana", &everything(), None, |connect| {
            old(connect);
            connect.keep_alive_secs = asked;
        })
        .0;
        client.wait(silent_s);
        assert_eq!(client.session.is_closed(), closed, "{asked} {silent_s}");
    }
}

#[test]
fn a_load_test_publishes_and_subscribes_below_bench_and_nowhere_else() {
    let mut client = online(&Rights::Bench);
    client.publish(qos1("bench/a/b", 1));
    let Some(Effect::Store { target, .. }) = client.session.poll_effect() else {
        panic!("not stored");
    };
    assert_eq!(target, Target::Bench("bench/a/b".into()));
    assert_eq!(
        client.subscribe(&["bench/+/b", "v1/+/+/events"]),
        [Said::SubAck(1, vec![1, 0x87])]
    );
    assert!(matches!(followed(&mut client), Some((_, Reads::Bench))));
    client.session.following(0);
    client.session.record(Message {
        offset: 0,
        incarnation: 1,
        topic: "bench/a/c",
        payload: b"",
        is_purged: false,
    });
    assert_eq!(client.said(), [], "no filter wants it");
    assert_eq!(
        client.publish(qos1("v1/edge-1/reports", 2)),
        [] as [Said; 0],
        "acknowledged behind the one that is not stored yet"
    );
}

#[test]
fn a_malformed_connect_of_mqtt_3_1_1_is_closed_without_a_word_it_would_not_understand() {
    for readers in [false, true] {
        let mut client = Client::new();
        client.session.offer.readers = readers;
        // A reserved flag is set (MQTT 3.1.1 §3.1.2.3).
        let bytes = b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x1e\x00\x01a";
        assert_eq!(client.bytes(bytes), []);
        assert!(client.session.is_closed());
    }
}

#[test]
fn a_session_that_ended_with_its_subscription_still_open_goes_on_with_what_comes_next() {
    let rights = everything();
    let keep = |connect: &mut Connect<'_>| {
        connect.clean_start = false;
        connect.session_expiry_secs = 60;
    };
    let (mut client, _) = admitted("grafana", &rights, None, keep);
    for filters in [&["#"][..], &["#"], &["v1/+/+/events", "#"]] {
        client.subscribe(filters);
    }
    assert_eq!(client.session.keep().unwrap().0.next, None);
    let (kept, _) = client.session.keep().unwrap();
    let (mut client, _) = admitted("grafana", &rights, Some(kept), keep);
    let (from, _) = followed(&mut client).unwrap();
    assert_eq!(from, Start::Now);
}
