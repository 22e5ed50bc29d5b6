//! A connection that is online: its deadlines, its end, and packets out of place.

use super::*;

#[test]
fn one_and_a_half_keep_alives_of_silence_get_0x8d() {
    let mut client = Client::online("edge-1");
    assert_eq!(client.wait(44), []);
    assert_eq!(client.send(ClientPacket::PingReq), [Said::Pong]);
    assert_eq!(client.wait(44), []);
    assert_eq!(client.wait(1), [Said::Disconnect(0x8D)]);
    assert_eq!(client.ending(), Some(0x8D));
}

#[test]
fn who_waits_for_our_journal_is_not_silent() {
    let mut client = Client::online("edge-1");
    client.publish(qos1("v1/edge-1/reports", 1));
    let effect = client.session.poll_effect();
    assert_eq!(client.wait(100), []);
    assert_eq!(
        client.stored(effect.as_ref(), Outcome::Stored),
        [Said::PubAck(1, 0)]
    );
    assert_eq!(client.wait(44), []);
    assert_eq!(client.wait(1), [Said::Disconnect(0x8D)]);
}

#[test]
fn the_end_of_the_token_and_its_leeway_gets_0xa0() {
    let mut client = Client::online("edge-1");
    for _ in 0..22 {
        assert_eq!(client.wait(29), []);
        assert_eq!(client.send(ClientPacket::PingReq), [Said::Pong]);
    }
    assert_eq!(client.wait(21), []);
    assert_eq!(client.wait(1), [Said::Disconnect(0xA0)]);
    assert_eq!(client.ending(), Some(0xA0));
}

#[test]
fn a_packet_after_the_end_of_the_token_is_not_looked_at() {
    let mut client = Client::online("edge-1");
    client.now.mono += Duration::from_secs(660);
    let said = client.publish(qos1("v1/edge-1/reports", 1));
    assert_eq!(said, [Said::Disconnect(0xA0)]);
}

#[test]
fn a_jump_of_the_wall_clock_changes_no_deadline() {
    let mut client = Client::online("edge-1");
    let before = client.session.poll_timeout();
    client.now.unix = UnixMillis(client.now.unix.0 + 86_400_000);
    assert_eq!(client.send(ClientPacket::PingReq), [Said::Pong]);
    assert_eq!(client.session.poll_timeout(), before);
}

#[test]
fn a_second_connect_gets_0x82() {
    let mut client = Client::online("edge-1");
    assert_eq!(client.connect("edge-1", |_| {}), [Said::Disconnect(0x82)]);
}

#[test]
fn a_second_connect_gets_0x82_even_if_its_version_is_unknown() {
    let mut client = Client::online("edge-1");
    let bytes = b"\x10\x0d\0\x04MQTT\x06\x02\0\x1e\0\0\0";
    // A DISCONNECT has no 0x84 (MQTT 5.0 §3.14.2.1).
    assert_eq!(client.bytes(bytes), [Said::Disconnect(0x82)]);
}

#[test]
fn a_servers_packet_from_a_client_gets_0x82() {
    for bytes in [
        &[0x20, 3, 0, 0, 0][..],
        &[0x90, 4, 0, 1, 0, 0],
        &[0xB0, 4, 0, 1, 0, 0],
        &[0xD0, 0],
    ] {
        let mut client = Client::online("edge-1");
        assert_eq!(client.bytes(bytes), [Said::Disconnect(0x82)], "{bytes:?}");
    }
}

#[test]
fn a_malformed_packet_gets_0x81() {
    for bytes in [
        &[0x00, 0][..],
        &[0xC1, 0],
        &[0xC0, 1, 0],
        &[0x36, 2, 0, 0],
        &[0x32, 1, 0],
    ] {
        let mut client = Client::online("edge-1");
        assert_eq!(client.bytes(bytes), [Said::Disconnect(0x81)], "{bytes:?}");
    }
}

#[test]
fn a_disconnect_of_the_client_ends_without_a_word() {
    for reason in [
        ReasonCode::NORMAL_DISCONNECTION,
        ReasonCode::DISCONNECT_WITH_WILL,
    ] {
        let mut client = Client::online("edge-1");
        let goodbye = ClientPacket::Disconnect(Disconnect::new(reason));
        assert_eq!(client.send(goodbye), []);
        assert_eq!(client.ending(), None);
    }
}

#[test]
fn a_disconnect_that_raises_the_session_expiry_gets_0x82() {
    let mut client = Client::online("edge-1");
    let mut goodbye = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    goodbye.session_expiry_secs = Some(1);
    assert_eq!(
        client.send(ClientPacket::Disconnect(goodbye)),
        [Said::Disconnect(0x82)]
    );
}

#[test]
fn what_ends_it_from_outside_says_why() {
    for (reason, code) in [
        (ReasonCode::SESSION_TAKEN_OVER, 0x8E),
        (ReasonCode::ADMINISTRATIVE_ACTION, 0x98),
        (ReasonCode::SERVER_SHUTTING_DOWN, 0x8B),
    ] {
        let mut client = Client::online("edge-1");
        client.session.end(reason, "a test");
        assert_eq!(client.said(), [Said::Disconnect(code)]);
        assert_eq!(client.ending(), Some(code));
    }
}

#[test]
fn a_closed_session_takes_and_says_nothing_more() {
    let mut client = Client::online("edge-1");
    client.session.end(ReasonCode::SESSION_TAKEN_OVER, "a test");
    client.said();
    client.ending();
    assert_eq!(client.send(ClientPacket::PingReq), []);
    client
        .session
        .end(ReasonCode::ADMINISTRATIVE_ACTION, "again");
    client.session.deliver(vec![1]);
    assert_eq!(client.wait(1_000), []);
    assert_eq!(client.session.poll_effect(), None);
    assert_eq!(client.session.poll_timeout(), None);
    assert!(!client.session.wants_packets());
}

#[test]
fn no_short_packet_of_any_kind_leaves_the_gate_undecided() {
    // Every first byte, with bodies of up to two bytes from a small alphabet: it answers, tolerates or closes, and never panics.
    let bodies: Vec<Vec<u8>> = std::iter::once(Vec::new())
        .chain((0..4).map(|a| vec![a]))
        .chain((0..4).flat_map(|a| (0..4).map(move |b| vec![a, b])))
        .collect();
    for first in 0..=255_u8 {
        for body in &bodies {
            let length = u8::try_from(body.len()).unwrap();
            let bytes = [&[first, length], body.as_slice()].concat();
            for mut client in [
                Client::new(),
                challenged("edge-1"),
                Client::online("edge-1"),
            ] {
                let was_online = client.session.is_online();
                let said = client.bytes(&bytes);
                let closes = client.session.is_closed();
                if was_online && closes && first >> 4 != 14 {
                    assert!(
                        matches!(said.as_slice(), [Said::Disconnect(_)]),
                        "{bytes:?}"
                    );
                }
            }
        }
    }
}
