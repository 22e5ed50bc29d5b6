//! A [`Link`] against a broker written by hand: what each side sends is spelled out, byte by byte where it matters.

mod peer;

use std::net::Shutdown;

use peer::{NONCE, TestBroker, auth, auth_bytes, command, connack, packet, puback, split};

use super::*;
use crate::shell::tokio::block_on;
use crate::shell::transport::tests::{Pki, listen, proxy};
use crate::shell::transport::within;

/// The next event; a test fails rather than hangs.
async fn next(link: &Link) -> LinkEvent {
    within(Duration::from_secs(10), link.next()).await.unwrap()
}

/// Nothing more comes.
async fn assert_silent(link: &Link) {
    let more = within(Duration::from_millis(20), link.next()).await;
    assert_eq!(more, None);
}

#[test]
fn a_link_presents_its_token_answers_the_challenge_and_subscribes() {
    block_on(async {
        let broker = TestBroker::start().await;
        let options = LinkOptions {
            subscribe: Some("v1/edge-1/commands".to_owned()),
            ..broker.options()
        };
        let link = Link::open(options);
        let mut peer = broker.accept().await;
        let connect = peer.challenge().await;
        // Clean start, keep-alive 30 s, no user name, password or will.
        assert_eq!(&connect[..10], b"\0\x04MQTT\x05\x02\0\x1e");
        let token = auth_bytes(b"\0\x05token");
        assert!(connect.windows(token.len()).any(|part| part == token));
        assert!(connect.ends_with(b"\0\x06edge-1"));
        // Receive Maximum 5, a user property.
        peer.send(&connack(0, b"\x21\0\x05\x26\0\x01k\0\x01v"))
            .await;
        let LinkEvent::Up(session) = next(&link).await else {
            panic!("not up")
        };
        assert_eq!(session.inflight_max, 5);
        assert_eq!(session.packet_bytes_max, PACKET_BYTES_MAX);
        assert_eq!(session.keep_alive, Duration::from_secs(30));
        assert_eq!(session.user_properties, [("k".to_owned(), "v".to_owned())]);
        let (first, body) = peer.receive().await.unwrap();
        assert_eq!(first, 0x82);
        assert!(body.ends_with(b"\0\0\x12v1/edge-1/commands\x01"));
        peer.send(&packet(0x90, &[body[0], body[1], 0, 1])).await;
        assert_eq!(next(&link).await, LinkEvent::Subscribed);
    })
    .unwrap();
}

#[test]
fn a_command_is_acknowledged_when_we_say_so_and_not_before() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (link, mut peer) = broker.connected(broker.options()).await;
        peer.send(&command(9, b"first")).await;
        peer.send(&command(8, b"second")).await;
        let LinkEvent::Message {
            topic,
            payload,
            ack,
        } = next(&link).await
        else {
            panic!("no message")
        };
        assert_eq!(topic, "v1/edge-1/commands");
        assert_eq!(payload, b"first");
        let LinkEvent::Message { ack: later, .. } = next(&link).await else {
            panic!("no message")
        };
        // Had either been acknowledged by itself, that PUBACK would come before this publish.
        link.publish(1, "v1/edge-1/reports", b"r".to_vec()).unwrap();
        peer.publish().await;
        link.ack(later);
        assert_eq!(peer.receive().await.unwrap(), (0x40, vec![0, 8]));
        link.ack(ack);
        assert_eq!(peer.receive().await.unwrap(), (0x40, vec![0, 9]));
    })
    .unwrap();
}

#[test]
fn a_handle_of_an_old_link_acknowledges_nothing_on_a_new_one() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (old, mut peer) = broker.connected(broker.options()).await;
        peer.send(&command(1, b"x")).await;
        let LinkEvent::Message { ack, .. } = next(&old).await else {
            panic!("no message")
        };
        let (new, mut peer) = broker.connected(broker.options()).await;
        new.ack(ack);
        new.publish(1, "v1/edge-1/reports", b"r".to_vec()).unwrap();
        peer.publish().await;
    })
    .unwrap();
}

#[test]
fn every_publish_is_settled_under_its_own_number_in_any_order_of_pubacks() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (link, mut peer) = broker.connected(broker.options()).await;
        for seq in 0..u64::from(INFLIGHT_MAX) {
            let payload = seq.to_be_bytes().to_vec();
            link.publish(1000 + seq, "v1/edge-1/reports", payload)
                .unwrap();
        }
        let full = link.publish(0, "v1/edge-1/reports", Vec::new());
        assert_eq!(full, Err(NotSent::Full));
        let mut ids = Vec::new();
        for seq in 0..u64::from(INFLIGHT_MAX) {
            let (id, payload) = peer.publish().await;
            assert_eq!(payload, seq.to_be_bytes());
            ids.push((id, seq));
        }
        // Backwards, every tenth refused.
        for (id, seq) in ids.iter().rev() {
            let code = if seq % 10 == 0 { 0x97 } else { 0 };
            peer.send(&puback(*id, code)).await;
        }
        for (_, seq) in ids.iter().rev() {
            // Its place is taken until its event is: however fast PUBACKs come, events cannot overflow.
            let full = link.publish(0, "v1/edge-1/reports", Vec::new());
            assert_eq!(full.is_err(), *seq == u64::from(INFLIGHT_MAX) - 1, "{seq}");
            let seq = 1000 + seq;
            let expected = if (seq - 1000) % 10 == 0 {
                LinkEvent::PublishRefused { seq, code: 0x97 }
            } else {
                LinkEvent::Acked { seq }
            };
            assert_eq!(next(&link).await, expected);
        }
    })
    .unwrap();
}

#[test]
fn what_the_broker_cannot_take_is_refused_before_it_costs_the_link() {
    block_on(async {
        let broker = TestBroker::start().await;
        let link = Link::open(broker.options());
        let early = link.publish(1, "v1/edge-1/reports", Vec::new());
        assert_eq!(early, Err(NotSent::Full), "not up yet");
        let mut peer = broker.accept().await;
        peer.challenge().await;
        // Maximum Packet Size 100.
        peer.send(&connack(0, b"\x27\0\0\0\x64")).await;
        assert!(matches!(next(&link).await, LinkEvent::Up(_)));
        let large = link.publish(1, "v1/edge-1/reports", vec![0; 100]);
        assert_eq!(large, Err(NotSent::TooLarge));
        let wild = link.publish(1, "v1/+/reports", Vec::new());
        assert_eq!(wild, Err(NotSent::Topic));
        link.publish(1, "v1/edge-1/reports", vec![0; 70]).unwrap();
        assert_eq!(peer.publish().await.1, [0; 70]);
    })
    .unwrap();
}

#[test]
fn a_refused_connect_surfaces_its_code() {
    block_on(async {
        let broker = TestBroker::start().await;
        for code in [0x87, 0x8c, 0x89, 0x9f] {
            let link = Link::open(broker.options());
            let mut peer = broker.accept().await;
            peer.challenge().await;
            peer.send(&packet(0x20, &[0, code, 0])).await;
            let refused = DownReason::Refused { code };
            assert_eq!(next(&link).await, LinkEvent::Down(refused));
        }
    })
    .unwrap();
}

#[test]
fn a_refused_subscription_surfaces_its_code() {
    block_on(async {
        let broker = TestBroker::start().await;
        let options = LinkOptions {
            subscribe: Some("v1/edge-2/commands".to_owned()),
            ..broker.options()
        };
        let (link, mut peer) = broker.connected(options).await;
        let (_, body) = peer.receive().await.unwrap();
        peer.send(&packet(0x90, &[body[0], body[1], 0, 0x87])).await;
        let refused = DownReason::Refused { code: 0x87 };
        assert_eq!(next(&link).await, LinkEvent::Down(refused));
    })
    .unwrap();
}

#[test]
fn a_disconnect_surfaces_its_code_and_what_came_before_it_is_not_lost() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (link, mut peer) = broker.connected(broker.options()).await;
        link.publish(1, "v1/edge-1/reports", Vec::new()).unwrap();
        link.publish(2, "v1/edge-1/reports", Vec::new()).unwrap();
        let (first, _) = peer.publish().await;
        let (second, _) = peer.publish().await;
        // One TLS record: the library reads them together.
        let together = [
            puback(first, 0),
            command(3, b"c"),
            puback(second, 0),
            packet(0xe0, &[0x8e, 0]),
        ];
        peer.send(&together.concat()).await;
        assert_eq!(next(&link).await, LinkEvent::Acked { seq: 1 });
        assert!(matches!(next(&link).await, LinkEvent::Message { .. }));
        assert_eq!(next(&link).await, LinkEvent::Acked { seq: 2 });
        let taken_over = DownReason::Disconnected { code: 0x8e };
        assert_eq!(next(&link).await, LinkEvent::Down(taken_over));
        assert_silent(&link).await;
    })
    .unwrap();
}

#[test]
fn a_closed_connection_surfaces_once_and_is_not_dialled_again() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (link, mut peer) = broker.connected(broker.options()).await;
        link.publish(1, "v1/edge-1/reports", Vec::new()).unwrap();
        peer.publish().await;
        peer.0.get_ref().0.shutdown(Shutdown::Both).unwrap();
        drop(peer);
        let LinkEvent::Down(DownReason::Network(_)) = next(&link).await else {
            panic!("not a network error")
        };
        let late = link.publish(2, "v1/edge-1/reports", Vec::new());
        assert_eq!(late, Err(NotSent::Full));
        assert_silent(&link).await;
        let again = within(Duration::from_millis(50), broker.listener.accept()).await;
        assert!(again.is_none(), "it dialled again");
    })
    .unwrap();
}

#[test]
fn a_token_is_renewed_on_the_live_link() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (link, mut peer) = broker.connected(broker.options()).await;
        link.present(b"fresh").unwrap();
        assert_eq!(
            link.present(b"another"),
            Err(NotSent::Full),
            "one at a time"
        );
        let presented = split(&auth(0x19, b"\0\x05fresh"));
        assert_eq!(peer.receive().await.unwrap(), presented);
        peer.send(&auth(0x18, &NONCE)).await;
        peer.expect_proof().await;
        peer.send(&auth(0x00, &[])).await;
        assert_eq!(next(&link).await, LinkEvent::Renewed);

        link.present(b"stale").unwrap();
        peer.receive().await.unwrap();
        peer.send(&packet(0xe0, &[0x87, 0])).await;
        let refused = DownReason::Disconnected { code: 0x87 };
        assert_eq!(next(&link).await, LinkEvent::Down(refused));
    })
    .unwrap();
}

#[test]
fn a_malformed_challenge_is_the_brokers_fault() {
    block_on(async {
        let broker = TestBroker::start().await;
        let link = Link::open(broker.options());
        let mut peer = broker.accept().await;
        peer.receive().await.unwrap();
        peer.send(&auth(0x18, b"seven b")).await;
        let LinkEvent::Down(DownReason::Protocol(_)) = next(&link).await else {
            panic!("not a protocol error")
        };
    })
    .unwrap();
}

#[test]
fn more_commands_than_our_receive_maximum_end_the_link_not_the_memory() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (link, mut peer) = broker.connected(broker.options()).await;
        for id in 1..=u16::try_from(EVENTS_MAX).unwrap() + 1 {
            peer.send(&command(id, b"x")).await;
        }
        // The end of the connection shows that the link gave up by itself, before anyone read its events.
        assert_eq!(peer.receive().await, None);
        for _ in 0..EVENTS_MAX {
            assert!(matches!(next(&link).await, LinkEvent::Message { .. }));
        }
        let LinkEvent::Down(DownReason::Protocol(_)) = next(&link).await else {
            panic!("not a protocol error")
        };
    })
    .unwrap();
}

#[test]
fn bytes_that_are_not_our_mqtt_end_the_link() {
    // QoS 2, twice: the library has an unwrap behind the second, which must stay out of reach.
    let qos_2 = [&packet(0x34, b"\0\x01t\0\x07\0")[..]; 2].concat();
    let oversized = [&[0x32, 0xff, 0xff, 0xff, 0x7f][..], &[0; 64]].concat();
    let unasked = puback(77, 0);
    let second_connack = connack(0, &[]);
    for bytes in [qos_2, oversized, unasked, second_connack, vec![0; 8]] {
        block_on(async {
            let broker = TestBroker::start().await;
            let (link, mut peer) = broker.connected(broker.options()).await;
            peer.send(&bytes).await;
            let LinkEvent::Down(DownReason::Protocol(_)) = next(&link).await else {
                panic!("not a protocol error: {bytes:?}")
            };
        })
        .unwrap();
    }
}

#[test]
fn closing_says_goodbye() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (link, mut peer) = broker.connected(broker.options()).await;
        link.close();
        // DISCONNECT 0x00 may leave out the code.
        let (first, body) = peer.receive().await.unwrap();
        assert_eq!((first, body.first().copied().unwrap_or(0)), (0xe0, 0));
        assert_eq!(next(&link).await, LinkEvent::Down(DownReason::Closed));
        assert_eq!(peer.receive().await, None);
    })
    .unwrap();
}

#[test]
fn closing_while_dialling_is_immediate() {
    block_on(async {
        let broker = TestBroker::start().await;
        let link = Link::open(broker.options());
        link.close();
        assert_eq!(next(&link).await, LinkEvent::Down(DownReason::Closed));
    })
    .unwrap();
}

#[test]
fn a_link_goes_through_a_proxy() {
    block_on(async {
        let broker = TestBroker::start().await;
        let (listener, authority) = listen().await;
        let seen = proxy(listener, "HTTP/1.1 200 OK\r\n\r\n");
        let options = LinkOptions {
            proxy: Some(Proxy {
                authority,
                credentials: None,
            }),
            ..broker.options()
        };
        let (_link, _peer) = broker.connected(options).await;
        let line = format!("CONNECT {} HTTP/1.1\r\n", broker.authority);
        assert!(seen.await.starts_with(&line));
    })
    .unwrap();
}

#[test]
fn a_ca_we_do_not_trust_is_a_tls_error() {
    block_on(async {
        let broker = TestBroker::start().await;
        let options = LinkOptions {
            tls: Pki::new().client(),
            ..broker.options()
        };
        let link = Link::open(options);
        let (tcp, _) = broker.listener.accept().await.unwrap();
        assert!(broker.pki.acceptor().accept(tcp).await.is_err());
        let LinkEvent::Down(DownReason::Tls(_)) = next(&link).await else {
            panic!("not a TLS error")
        };
    })
    .unwrap();
}

#[test]
fn silence_before_connack_or_suback_costs_one_deadline() {
    block_on(async {
        let broker = TestBroker::start().await;
        let options = LinkOptions {
            up_wait: Duration::from_millis(300),
            subscribe: Some("v1/edge-1/commands".to_owned()),
            ..broker.options()
        };
        let link = Link::open(options.clone());
        let silent = broker.accept().await;
        let timeout = LinkEvent::Down(DownReason::Timeout("connect"));
        assert_eq!(next(&link).await, timeout);
        drop(silent);

        let (link, _peer) = broker.connected(options).await;
        let timeout = LinkEvent::Down(DownReason::Timeout("subscribe"));
        assert_eq!(next(&link).await, timeout);
    })
    .unwrap();
}

#[test]
fn an_unanswered_ping_ends_the_link() {
    block_on(async {
        let broker = TestBroker::start().await;
        let options = LinkOptions {
            keep_alive: Duration::from_secs(1),
            ..broker.options()
        };
        let (link, mut peer) = broker.connected(options).await;
        assert_eq!(peer.receive().await.unwrap(), (0xc0, Vec::new()));
        let timeout = LinkEvent::Down(DownReason::Timeout("ping"));
        assert_eq!(next(&link).await, timeout);
    })
    .unwrap();
}

#[test]
fn a_broker_that_stops_reading_ends_the_link() {
    block_on(async {
        let broker = TestBroker::start().await.with_short_buffers();
        let options = LinkOptions {
            keep_alive: Duration::from_secs(1),
            ..broker.options()
        };
        let (link, _peer) = broker.connected(options).await;
        // More than the sockets' buffers hold: the library waits in a write, where it looks at no keep-alive.
        for seq in 0..u64::from(INFLIGHT_MAX) {
            link.publish(seq, "v1/edge-1/reports", vec![0; 60_000])
                .unwrap();
        }
        let timeout = LinkEvent::Down(DownReason::Timeout("the broker stopped reading"));
        assert_eq!(next(&link).await, timeout);
    })
    .unwrap();
}

#[test]
fn a_token_too_long_to_present_is_ours_to_mend() {
    block_on(async {
        let broker = TestBroker::start().await;
        let options = LinkOptions {
            token: vec![0; TOKEN_BYTES_MAX + 1],
            ..broker.options()
        };
        let link = Link::open(options);
        let LinkEvent::Down(DownReason::Local(_)) = next(&link).await else {
            panic!("not ours")
        };
        assert_silent(&link).await;
    })
    .unwrap();
}

#[test]
fn secrets_are_not_printed() {
    let broker = block_on(TestBroker::start()).unwrap();
    let shown = format!("{:?} {:?}", broker.options(), broker.options().prove);
    assert!(
        !shown.contains("116, 111") && !shown.contains("token:"),
        "{shown}"
    );
}
