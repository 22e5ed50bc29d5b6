//! One test for each rule of the gate, with packets as they are on the wire.

mod commands;
mod connect;
mod online;
mod publish;
mod readers;
mod renewal;

use std::num::{NonZeroU16, NonZeroU32};

use protocol::{
    id::HostId,
    limits::RECEIVE_MAXIMUM,
    mqtt::{
        Ack, AckKind, Connect, Delivery, List, MessageProperties, PacketId, Publish, Qos,
        RetainHandling, ServerPacket, SubAckKind, Subscribe, Subscription, Unsubscribe, Will,
        decode_server, frame,
    },
    possession::prove,
    scope::{Permission, Scope},
    time::UnixMillis,
    token::Subject,
};

use super::*;
use crate::core::principal::{
    Who,
    tests::{grant, key},
};

const TOKEN: &[u8] = b"a token";
/// The token with its length, as authentication data.
const TOKEN_DATA: &[u8] = b"\x00\x07a token";
const NONCE: Nonce = [5; 8];
const OFFER: Offer = Offer {
    durability: "fsync",
    readers: false,
};
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
    said_in_version(frame, Version::V5)
}

fn said_in_version(frame: &Frame<'_>, version: Version) -> Said {
    match decode_server(frame, version).unwrap() {
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

fn who(subject: &str) -> Who {
    Who::Subject(Subject::parse(subject).unwrap())
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
            session: Session::new(OFFER, mono + STRANGER_WAIT),
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
            Some(Effect::Admit {
                who: who(subject),
                resume: false
            })
        );
        assert!(!client.session.is_online());
        client.session.admitted(None, client.now);
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
        packet
            .encode(self.session.wire.version, &mut bytes)
            .unwrap();
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
            said.push(said_in_version(&frame, self.session.wire.version));
        }
        said
    }

    fn stored(&mut self, effect: Option<&Effect>, outcome: Outcome) -> Vec<Said> {
        let Some(Effect::Store { ticket, .. }) = effect else {
            panic!("nothing to store: {effect:?}");
        };
        self.session.stored(*ticket, outcome, self.now.mono);
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

/// A client whose token is good, with the challenge before it.
fn challenged(subject: &str) -> Client {
    let mut client = Client::new();
    client.connect(subject, |_| {});
    let granted = grant(subject, scope_of(subject), EXPIRES_S);
    client.session.checked(Ok(granted), NONCE);
    client.said();
    client
}

/// A host that is attached, with these commands open.
fn subscribed(open: &[&[u8]]) -> Client {
    let mut client = Client::online("edge-1");
    assert_eq!(client.subscribe(&["v1/edge-1/commands"]), []);
    let host = HostId::new("edge-1").unwrap();
    assert_eq!(client.session.poll_effect(), Some(Effect::Subscribe(host)));
    let open = open.iter().map(|one| one.to_vec()).collect();
    client.session.subscribed(Some(open));
    client
}
