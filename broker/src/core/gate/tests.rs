//! One test for each rule of the gate, with packets as they are on the wire.

use std::num::{NonZeroU16, NonZeroU32};

use protocol::{
    limits::RECEIVE_MAXIMUM,
    mqtt::{
        Ack, AckKind, Connect, Delivery, List, MessageProperties, PacketId, Publish, Qos,
        RetainHandling, ServerPacket, SubAckKind, Subscribe, Subscription, Unsubscribe, Will,
        decode_server, frame,
    },
    possession::prove,
    scope::{Permission, Scope},
    time::UnixMillis,
};

use super::*;
use crate::core::principal::tests::{grant, key};

const TOKEN: &[u8] = b"a token";
/// The token with its length, as authentication data.
const TOKEN_DATA: &[u8] = b"\x00\x07a token";
const NONCE: Nonce = [5; 8];
const EXPIRES_S: u64 = 1_800_000_000;
/// Ten minutes before the token ends.
const UNIX: UnixMillis = UnixMillis((EXPIRES_S - 600) * 1000);

/// What the gate answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    ConnAck(u8),
    Auth(u8, Vec<u8>),
    PubAck(u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    Pong,
    Publish(u16, Vec<u8>),
    Disconnect(u8),
}

/// What a packet of ours says.
pub(crate) fn said_in(frame: &Frame<'_>) -> Said {
    match decode_server(frame, Version::V5).unwrap() {
        ServerPacket::ConnAck(connack) => Said::ConnAck(connack.reason.value()),
        ServerPacket::Auth(auth) => {
            Said::Auth(auth.reason.value(), auth.data.unwrap_or_default().to_vec())
        }
        ServerPacket::Ack(ack) => Said::PubAck(ack.id.get(), ack.reason.value()),
        ServerPacket::SubAck(ack) => {
            let codes = ack.reasons.iter().map(ReasonCode::value).collect();
            match ack.kind {
                SubAckKind::Subscribe => Said::SubAck(ack.id.get(), codes),
                SubAckKind::Unsubscribe => Said::UnsubAck(ack.id.get(), codes),
            }
        }
        ServerPacket::PingResp => Said::Pong,
        ServerPacket::Publish(publish) => Said::Publish(
            publish.delivery.packet_id().unwrap().get(),
            publish.payload.to_vec(),
        ),
        ServerPacket::Disconnect(disconnect) => Said::Disconnect(disconnect.reason.value()),
    }
}

/// A session and the client at its other end.
struct Client {
    session: Session,
    now: Now,
}

fn scope_of(subject: &str) -> Scope {
    if subject.contains('/') {
        return Scope::one(format!("v1/{subject}/events"), Permission::Pub);
    }
    Scope::new(vec![
        (format!("v1/{subject}/commands"), vec![Permission::Sub]),
        (format!("v1/{subject}/reports"), vec![Permission::Pub]),
    ])
}

pub(crate) fn token_data(token: &[u8]) -> Vec<u8> {
    let length = u16::try_from(token.len()).unwrap().to_be_bytes();
    [length.as_slice(), token].concat()
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn qos1(topic: &str, number: u16) -> Publish<'_> {
    Publish::new(topic, Delivery::at_least_once(id(number)), b"payload")
}

fn subscription(filter: &str) -> Subscription<'_> {
    Subscription {
        filter,
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

impl Client {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let mono = Instant::now();
        Self {
            session: Session::new("fsync", mono + STRANGER_WAIT),
            now: Now { mono, unix: UNIX },
        }
    }

    /// Through the whole handshake.
    fn online(subject: &str) -> Self {
        Self::online_as(subject, |_| {}).0
    }

    fn online_as(subject: &str, change: impl FnOnce(&mut Connect<'_>)) -> (Self, Vec<u8>) {
        let mut client = Self::new();
        assert_eq!(client.connect(subject, change), []);
        assert_eq!(
            client.session.poll_effect(),
            Some(Effect::CheckToken(TOKEN.to_vec()))
        );
        client
            .session
            .checked(Ok(grant(subject, scope_of(subject), EXPIRES_S)), NONCE);
        assert_eq!(client.said(), [Said::Auth(0x18, NONCE.to_vec())]);
        assert_eq!(client.auth(0x18, &prove(&key(1), &NONCE, &[6; 8])), []);
        assert_eq!(
            client.session.poll_effect(),
            Some(Effect::Admit(Subject::parse(subject).unwrap()))
        );
        assert!(!client.session.is_online());
        client.session.admitted(client.now);
        assert!(client.session.is_online());
        let connack = std::mem::take(client.session.output());
        (client, connack)
    }

    fn connect<'a>(
        &mut self,
        subject: &'a str,
        change: impl FnOnce(&mut Connect<'a>),
    ) -> Vec<Said> {
        let mut connect = Connect::new(subject, 30);
        connect.auth_method = Some(METHOD);
        connect.auth_data = Some(TOKEN_DATA);
        change(&mut connect);
        let mut bytes = Vec::new();
        connect.encode(&mut bytes).unwrap();
        self.bytes(&bytes)
    }

    fn auth(&mut self, reason: u8, data: &[u8]) -> Vec<Said> {
        let reason = *ReasonCode::ALL
            .iter()
            .find(|code| code.value() == reason)
            .unwrap();
        self.send(ClientPacket::Auth(Auth::new(reason, METHOD, Some(data))))
    }

    fn send(&mut self, packet: ClientPacket<'_>) -> Vec<Said> {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        self.bytes(&bytes)
    }

    fn publish(&mut self, publish: Publish<'_>) -> Vec<Said> {
        self.send(ClientPacket::Publish(publish))
    }

    fn subscribe(&mut self, filters: &[&str]) -> Vec<Said> {
        let subscriptions: Vec<_> = filters.iter().map(|one| subscription(one)).collect();
        let subscribe = Subscribe::new(id(1), List::from(subscriptions.as_slice()));
        self.send(ClientPacket::Subscribe(subscribe))
    }

    /// As the shell does: finds a packet, or says that there is none.
    fn bytes(&mut self, bytes: &[u8]) -> Vec<Said> {
        match frame(bytes, self.session.packet_bytes_max()) {
            Ok(frame) => self.session.receive(&frame.unwrap(), self.now),
            Err(error) => self.session.unreadable(error, bytes[0]),
        }
        self.said()
    }

    fn said(&mut self) -> Vec<Said> {
        let output = std::mem::take(self.session.output());
        let mut rest = output.as_slice();
        let mut said = Vec::new();
        while let Some(frame) = frame(rest, usize::MAX).unwrap() {
            rest = &rest[frame.total_bytes()..];
            said.push(said_in(&frame));
        }
        said
    }

    fn stored(&mut self, effect: Option<Effect>, outcome: Outcome) -> Vec<Said> {
        let Some(Effect::Store { ticket, .. }) = effect else {
            panic!("nothing to store: {effect:?}");
        };
        self.session.stored(ticket, outcome, self.now.mono);
        self.said()
    }

    fn wait(&mut self, seconds: u64) -> Vec<Said> {
        let wait = Duration::from_secs(seconds);
        self.now.mono += wait;
        self.now.unix = self.now.unix.plus(wait);
        self.session.handle_timeout(self.now.mono);
        self.said()
    }

    /// How it ended, and that this was the last effect.
    fn ending(&mut self) -> Option<u8> {
        while let Some(effect) = self.session.poll_effect() {
            if let Effect::Close(ending) = effect {
                assert!(self.session.is_closed());
                assert_eq!(self.session.poll_effect(), None);
                return ending.reason.map(ReasonCode::value);
            }
        }
        panic!("not closed");
    }
}

/// Which code each CONNECT gets, if it is changed like that.
fn refused_connect<'a>(subject: &'a str, change: impl FnOnce(&mut Connect<'a>)) -> u8 {
    let mut client = Client::new();
    let said = client.connect(subject, change);
    let [Said::ConnAck(code)] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert_eq!(client.ending(), Some(*code));
    *code
}

// Before CONNECT.

#[test]
fn silence_before_connect_ends_without_a_word_at_the_deadline() {
    let mut client = Client::new();
    assert_eq!(client.wait(4), []);
    assert!(!client.session.is_closed());
    assert_eq!(client.wait(1), []);
    assert_eq!(client.ending(), None);
}

#[test]
fn a_first_packet_that_is_not_connect_ends_without_a_word() {
    for bytes in [&[0xC0, 0][..], &[0xE0, 0], &[0xF0, 0], &[0x30, 2, 0, 0]] {
        let mut client = Client::new();
        assert_eq!(client.bytes(bytes), []);
        assert_eq!(client.ending(), None);
    }
}

#[test]
fn bytes_that_are_no_packet_end_without_a_word() {
    for bytes in [
        &[0x00, 0][..],
        &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
        &[0x16, 3, 1, 0, 0],
    ] {
        let mut client = Client::new();
        assert_eq!(client.bytes(bytes), []);
        assert_eq!(client.ending(), None);
    }
}

#[test]
fn before_the_proof_a_packet_may_take_four_kilobytes_and_after_it_sixty_four() {
    let mut client = Client::new();
    assert_eq!(client.session.packet_bytes_max(), 4 * 1024);
    assert_eq!(client.bytes(&[0x10, 0x80, 0x20]), [Said::ConnAck(0x95)]);
    let mut client = Client::online("edge-1");
    assert_eq!(client.session.packet_bytes_max(), 64 * 1024);
    assert_eq!(
        client.bytes(&[0x32, 0x80, 0x80, 0x04]),
        [Said::Disconnect(0x95)]
    );
}

// CONNECT.

#[test]
fn another_protocol_version_gets_0x84() {
    let mut client = Client::new();
    let bytes = [0x10, 12, 0, 4, b'M', b'Q', b'T', b'T', 6, 2, 0, 30, 0, 0];
    assert_eq!(client.bytes(&bytes), [Said::ConnAck(0x84)]);
    assert_eq!(client.ending(), Some(0x84));
}

#[test]
fn mqtt_3_1_1_gets_return_code_1_in_its_own_form() {
    let mut client = Client::new();
    let bytes = [
        0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 30, 0, 1, b'a',
    ];
    let frame = frame(&bytes, 4096).unwrap().unwrap();
    client.session.receive(&frame, client.now);
    assert_eq!(client.session.output(), &[0x20, 2, 0, 1]);
    assert_eq!(client.ending(), Some(0x84));
}

#[test]
fn a_malformed_connect_gets_its_code() {
    let mut client = Client::new();
    let reserved_flag = [0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 5, 3, 0, 30, 0, 0, 0];
    assert_eq!(client.bytes(&reserved_flag), [Said::ConnAck(0x81)]);
}

#[test]
fn a_method_other_than_ace_or_none_gets_0x8c() {
    for method in [Some("SCRAM-SHA-256"), Some("ACE"), Some("")] {
        assert_eq!(
            refused_connect("edge-1", |connect| connect.auth_method = method),
            0x8C
        );
    }
    let none = |connect: &mut Connect<'_>| (connect.auth_method, connect.auth_data) = (None, None);
    assert_eq!(refused_connect("edge-1", none), 0x8C);
}

#[test]
fn a_user_name_or_password_gets_0x86() {
    assert_eq!(
        refused_connect("edge-1", |connect| connect.user_name = Some("x")),
        0x86
    );
    assert_eq!(
        refused_connect("edge-1", |connect| connect.password = Some(b"x")),
        0x86
    );
}

#[test]
fn a_will_is_refused_with_the_code_of_what_is_wrong_with_it() {
    let will = |topic: &'static str, qos, retain| Will {
        topic,
        payload: b"gone",
        qos,
        retain,
        delay_secs: 0,
        properties: MessageProperties::default(),
    };
    for (will, code) in [
        (will("v1/edge-1/reports", Qos::AtMostOnce, false), 0x87),
        (will("v1/edge-2/reports", Qos::AtLeastOnce, false), 0x87),
        (will("é/x", Qos::AtLeastOnce, false), 0x90),
        (will("v1/edge-1/reports", Qos::ExactlyOnce, false), 0x9B),
        (will("v1/edge-1/reports", Qos::ExactlyOnce, true), 0x9A),
    ] {
        assert_eq!(
            refused_connect("edge-1", |connect| connect.will = Some(will)),
            code
        );
    }
}

#[test]
fn a_client_id_that_no_token_can_name_gets_0x85() {
    let long = "a".repeat(65);
    for bad in [
        "",
        "#",
        "+",
        "a/b/c",
        "Edge",
        "$SYS",
        "__proto__",
        "a/",
        "/a",
        "é",
        &long,
    ] {
        assert_eq!(refused_connect(bad, |_| {}), 0x85, "{bad}");
    }
}

#[test]
fn a_client_id_other_than_the_tokens_subject_gets_0x85() {
    let pairs = [
        ("edge-2", "edge-1"),
        ("edge-1/b", "edge-1/a"),
        ("edge-1", "edge-1/a"),
        ("edge-1/a", "edge-1"),
    ];
    for (client_id, subject) in pairs {
        let mut client = Client::new();
        client.connect(client_id, |_| {});
        let granted = grant(subject, scope_of(subject), EXPIRES_S);
        client.session.checked(Ok(granted), NONCE);
        assert_eq!(client.said(), [Said::ConnAck(0x85)]);
        assert_eq!(client.ending(), Some(0x85));
    }
}

#[test]
fn authentication_data_that_is_not_a_length_and_its_token_gets_0x87() {
    let long = token_data(&[0; 2049]);
    for data in [&[][..], &[0], &[0, 0], &[0, 2, 1], &[0, 1, 1, 1], &long] {
        assert_eq!(
            refused_connect("edge-1", |connect| connect.auth_data = Some(data)),
            0x87
        );
    }
    assert_eq!(
        refused_connect("edge-1", |connect| connect.auth_data = None),
        0x87
    );
}

#[test]
fn a_refused_token_gets_0x87_and_a_store_that_cannot_be_read_0x88() {
    for (reason, code) in [
        (ReasonCode::NOT_AUTHORIZED, 0x87),
        (ReasonCode::SERVER_UNAVAILABLE, 0x88),
    ] {
        let mut client = Client::new();
        client.connect("edge-1", |_| {});
        client.session.checked(Err(reason), NONCE);
        assert_eq!(client.said(), [Said::ConnAck(code)]);
        assert_eq!(client.ending(), Some(code));
    }
}

#[test]
fn a_client_that_takes_too_small_packets_gets_0x95() {
    let small = NonZeroU32::new(CLIENT_PACKET_BYTES_MIN - 1);
    assert_eq!(
        refused_connect("edge-1", |connect| connect.packet_bytes_max = small),
        0x95
    );
}

// Proof.

fn challenged(subject: &str) -> Client {
    let mut client = Client::new();
    client.connect(subject, |_| {});
    let granted = grant(subject, scope_of(subject), EXPIRES_S);
    client.session.checked(Ok(granted), NONCE);
    client.said();
    client
}

#[test]
fn a_proof_with_another_key_or_nonce_or_none_gets_0x87() {
    for proof in [
        prove(&key(2), &NONCE, &[6; 8]).to_vec(),
        prove(&key(1), &[9; 8], &[6; 8]).to_vec(),
        Vec::new(),
    ] {
        let mut client = challenged("edge-1");
        assert_eq!(client.auth(0x18, &proof), [Said::ConnAck(0x87)]);
        assert_eq!(client.ending(), Some(0x87));
    }
}

#[test]
fn a_change_of_method_gets_0x8c_and_a_step_out_of_turn_0x82() {
    let proof = prove(&key(1), &NONCE, &[6; 8]);
    let mut client = challenged("edge-1");
    let other = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, "other", Some(&proof));
    assert_eq!(
        client.send(ClientPacket::Auth(other)),
        [Said::ConnAck(0x8C)]
    );
    let mut client = challenged("edge-1");
    assert_eq!(client.auth(0x19, &token_data(TOKEN)), [Said::ConnAck(0x82)]);
}

#[test]
fn nothing_but_auth_and_disconnect_may_come_before_connack() {
    for packet in [
        ClientPacket::PingReq,
        ClientPacket::Publish(qos1("v1/edge-1/reports", 1)),
        ClientPacket::Connect(Connect::new("edge-1", 30)),
    ] {
        let mut client = challenged("edge-1");
        assert_eq!(client.send(packet), [Said::ConnAck(0x82)]);
        assert_eq!(client.ending(), Some(0x82));
    }
    let mut client = challenged("edge-1");
    let goodbye = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    assert_eq!(client.send(ClientPacket::Disconnect(goodbye)), []);
    assert_eq!(client.ending(), None);
}

#[test]
fn the_deadline_covers_the_proof_too() {
    let mut client = Client::new();
    client.wait(3);
    client.connect("edge-1", |_| {});
    let granted = grant("edge-1", scope_of("edge-1"), EXPIRES_S);
    client.session.checked(Ok(granted), NONCE);
    client.said();
    assert_eq!(client.wait(2), []);
    while let Some(effect) = client.session.poll_effect() {
        if let Effect::Close(ending) = effect {
            assert_eq!(ending.reason, None);
            return;
        }
    }
    panic!("not closed");
}

#[test]
fn a_token_that_ends_before_admission_gets_0x87() {
    let mut client = challenged("edge-1");
    client.auth(0x18, &prove(&key(1), &NONCE, &[6; 8]));
    client.now.unix = UnixMillis((EXPIRES_S + 60) * 1000);
    client.session.admitted(client.now);
    assert_eq!(client.said(), [Said::ConnAck(0x87)]);
}

// CONNACK.

fn connack_of(change: impl FnOnce(&mut Connect<'_>), look: impl FnOnce(&ConnAck<'_>)) {
    let (_, bytes) = Client::online_as("edge-1", change);
    let frame = frame(&bytes, usize::MAX).unwrap().unwrap();
    assert_eq!(frame.total_bytes(), bytes.len());
    let ServerPacket::ConnAck(connack) = decode_server(&frame, Version::V5).unwrap() else {
        panic!("not a CONNACK");
    };
    look(&connack);
}

#[test]
fn connack_says_what_we_do_not_do() {
    connack_of(
        |_| {},
        |connack| {
            assert_eq!(connack.reason, ReasonCode::SUCCESS);
            assert!(!connack.session_present);
            assert_eq!(connack.qos_max, Some(Qos::AtLeastOnce));
            assert_eq!(connack.retain_available, Some(false));
            assert_eq!(connack.wildcard_available, Some(false));
            assert_eq!(connack.subscription_id_available, Some(false));
            assert_eq!(connack.shared_available, Some(false));
            assert_eq!(connack.topic_alias_max, None);
            assert_eq!(connack.receive_maximum, NonZeroU16::new(128));
            assert_eq!(connack.packet_bytes_max, NonZeroU32::new(65_536));
            assert_eq!(connack.session_expiry_secs, Some(0));
            assert_eq!(connack.auth_method, Some("ace"));
            let time = UNIX.0.to_string();
            let said: Vec<_> = connack.user_properties.iter().collect();
            assert_eq!(
                said,
                [("durability", "fsync"), ("server-time", time.as_str())]
            );
        },
    );
}

#[test]
fn no_session_is_kept_whatever_the_client_asks() {
    connack_of(
        |connect| (connect.clean_start, connect.session_expiry_secs) = (false, u32::MAX),
        |connack| {
            assert!(!connack.session_present);
            assert_eq!(connack.session_expiry_secs, Some(0));
        },
    );
}

#[test]
fn keep_alive_is_the_clients_up_to_60_and_else_60() {
    for (asked, got) in [(0, 60), (1, 1), (30, 30), (60, 60), (61, 60), (65_535, 60)] {
        connack_of(
            |connect| connect.keep_alive_secs = asked,
            |connack| assert_eq!(connack.server_keep_alive_secs, Some(got)),
        );
    }
}

// Online.

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
    assert_eq!(client.stored(effect, Outcome::Stored), [Said::PubAck(1, 0)]);
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

// PUBLISH.

#[test]
fn a_publish_is_acknowledged_when_it_is_stored_and_not_before() {
    let mut client = Client::online("edge-1/build-7");
    assert_eq!(client.publish(qos1("v1/edge-1/build-7/events", 7)), []);
    let effect = client.session.poll_effect();
    let Some(Effect::Store { topic, payload, .. }) = &effect else {
        panic!("{effect:?}");
    };
    assert_eq!(topic.to_string(), "v1/edge-1/build-7/events");
    assert_eq!(payload, b"payload");
    assert_eq!(client.stored(effect, Outcome::Stored), [Said::PubAck(7, 0)]);
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
        assert_eq!(client.stored(effect, outcome), [Said::PubAck(1, code)]);
    }
}

#[test]
fn a_qos_0_publish_is_stored_and_not_acknowledged() {
    let mut client = Client::online("edge-1");
    let publish = Publish::new("v1/edge-1/reports", Delivery::AtMostOnce, b"x");
    assert_eq!(client.publish(publish), []);
    let effect = client.session.poll_effect();
    assert_eq!(client.stored(effect, Outcome::Stored), []);
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
    client.stored(effect, Outcome::Stored);
    assert!(client.session.wants_packets());
}

#[test]
fn a_publish_that_is_not_permitted_gets_0x87_and_the_third_ends_it() {
    let mut client = Client::online("edge-1/build-7");
    let foreign = "v1/edge-1/build-8/events";
    assert_eq!(client.publish(qos1(foreign, 1)), [Said::PubAck(1, 0x87)]);
    assert_eq!(client.publish(qos1("$SYS/x", 2)), [Said::PubAck(2, 0x87)]);
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
    assert_eq!(client.session.poll_effect(), None);
}

#[test]
fn the_properties_of_a_publish_go_nowhere() {
    let mut client = Client::online("edge-1");
    let mut publish = qos1("v1/edge-1/reports", 1);
    publish.properties.response_topic = Some("v1/edge-2/commands");
    publish.properties.expiry_secs = Some(0);
    client.publish(publish);
    let Some(Effect::Store { topic, payload, .. }) = client.session.poll_effect() else {
        panic!("not stored");
    };
    assert_eq!(
        (topic.to_string().as_str(), payload.as_slice()),
        ("v1/edge-1/reports", &b"payload"[..])
    );
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
    let said = client.stored(first, Outcome::Stored);
    assert_eq!(said, [Said::PubAck(1, 0), Said::PubAck(2, 0x87)]);
}

// SUBSCRIBE.

fn subscribed(open: &[&[u8]]) -> Client {
    let mut client = Client::online("edge-1");
    assert_eq!(client.subscribe(&["v1/edge-1/commands"]), []);
    let host = HostId::new("edge-1").unwrap();
    assert_eq!(client.session.poll_effect(), Some(Effect::Subscribe(host)));
    let open = open.iter().map(|one| one.to_vec()).collect();
    client.session.subscribed(Some(open));
    client
}

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
        if client.session.poll_effect().is_some() {
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

// Commands.

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

// Renewal.

fn renewing(subject: &str, scope: Scope, expires_s: u64) -> Client {
    let mut client = subscribed(&[]);
    client.said();
    assert_eq!(client.auth(0x19, &token_data(b"a new token")), []);
    let effect = client.session.poll_effect();
    assert_eq!(effect, Some(Effect::CheckToken(b"a new token".to_vec())));
    client
        .session
        .checked(Ok(grant(subject, scope, expires_s)), [8; 8]);
    client
}

#[test]
fn a_new_token_on_a_live_link_prolongs_it() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    assert_eq!(client.said(), [Said::Auth(0x18, vec![8; 8])]);
    let said = client.auth(0x18, &prove(&key(1), &[8; 8], &[6; 8]));
    assert_eq!(said, [Said::Auth(0, vec![])]);
    for _ in 0..43 {
        assert_eq!(client.wait(29), []);
        assert_eq!(client.send(ClientPacket::PingReq), [Said::Pong]);
    }
    assert_eq!(client.wait(13), [Said::Disconnect(0xA0)]);
}

#[test]
fn during_a_renewal_the_old_token_still_holds() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    assert_eq!(client.publish(qos1("v1/edge-1/reports", 1)), []);
    assert!(matches!(
        client.session.poll_effect(),
        Some(Effect::Store { .. })
    ));
}

#[test]
fn a_renewal_without_proof_gets_0x87() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    let said = client.auth(0x18, &prove(&key(2), &[8; 8], &[6; 8]));
    assert_eq!(said, [Said::Disconnect(0x87)]);
}

#[test]
fn a_renewal_for_somebody_else_gets_0x87() {
    let mut client = renewing("edge-2", scope_of("edge-2"), EXPIRES_S + 600);
    assert_eq!(client.said(), [Said::Disconnect(0x87)]);
}

#[test]
fn a_renewal_that_is_not_finished_in_time_gets_0x87() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    assert_eq!(client.wait(5), [Said::Disconnect(0x87)]);
}

#[test]
fn a_refused_new_token_gets_0x87_and_a_store_that_cannot_be_read_0x89() {
    for (reason, code) in [
        (ReasonCode::NOT_AUTHORIZED, 0x87),
        (ReasonCode::SERVER_UNAVAILABLE, 0x89),
    ] {
        let mut client = Client::online("edge-1");
        client.auth(0x19, &token_data(b"a new token"));
        client.session.checked(Err(reason), NONCE);
        assert_eq!(client.said(), [Said::Disconnect(code)]);
    }
}

#[test]
fn a_proof_nobody_asked_for_gets_0x82() {
    let mut client = Client::online("edge-1");
    assert_eq!(client.auth(0x18, &[0; 72]), [Said::Disconnect(0x82)]);
}

#[test]
fn two_renewals_at_once_get_0x82() {
    let mut client = renewing("edge-1", scope_of("edge-1"), EXPIRES_S + 600);
    client.said();
    assert_eq!(
        client.auth(0x19, &token_data(TOKEN)),
        [Said::Disconnect(0x82)]
    );
}

#[test]
fn a_subscription_the_new_token_does_not_permit_ends_it() {
    let scope = Scope::one("v1/edge-1/reports".to_owned(), Permission::Pub);
    let mut client = renewing("edge-1", scope, EXPIRES_S + 600);
    client.said();
    let said = client.auth(0x18, &prove(&key(1), &[8; 8], &[6; 8]));
    assert_eq!(said, [Said::Disconnect(0x87)]);
}

#[test]
fn a_topic_the_new_token_does_not_permit_is_forgotten() {
    let mut client = Client::online("edge-1/a");
    client.publish(qos1("v1/edge-1/a/events", 1));
    let effect = client.session.poll_effect();
    client.stored(effect, Outcome::Stored);
    client.auth(0x19, &token_data(TOKEN));
    client.session.poll_effect();
    let narrower = grant("edge-1/a", Scope::default(), EXPIRES_S);
    client.session.checked(Ok(narrower), NONCE);
    client.said();
    assert_eq!(client.auth(0x18, &prove(&key(1), &NONCE, &[6; 8])).len(), 1);
    let said = client.publish(qos1("v1/edge-1/a/events", 1));
    assert_eq!(said, [Said::PubAck(1, 0x87)]);
}

// Anything.

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
