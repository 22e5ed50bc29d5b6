//! What must hold of a session, whatever its client, its shell and time do: a second, plain telling of the gate's rules, from
//! `SPEC.md` chapters 2.3 and 3.
//!
//! [`Model::before`] sees what is about to happen and says how it must go; [`Model::effect`] and [`Model::said`] see what comes of
//! it, in order; [`Model::after`] sees that nothing is missing.

mod inbound;
mod outbound;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use protocol::{
    limits::{LEEWAY_S, RECEIVE_MAXIMUM, TOKEN_BYTES_MAX},
    mqtt::{
        AckKind, Auth, ClientPacket, ConnAck, Connect, DecodeError, Frame, Kind, PacketId,
        ReasonCode, ServerPacket, SubAckKind, Version, decode_client,
    },
    possession::is_proven,
    time::Now,
    token::Grant,
};

use crate::{
    core::gate::{
        Effect, Ending, KEEP_ALIVE_S_MAX, Outcome, REFUSALS_MAX, RENEWAL_WAIT, Session,
        TOKEN_WAIT_MAX, Target, Ticket,
    },
    world::{NONCE, Who},
};
use inbound::{Fate, Inbound};
use outbound::Outbound;

/// What happens to a session.
#[derive(Debug)]
pub enum Cause<'a> {
    /// A packet comes.
    Packet(Kind, Result<ClientPacket<'a>, DecodeError>),
    /// Bytes come that are no packet.
    Unreadable(u8),
    /// The token is good, or not.
    Verdict(Result<Grant, ReasonCode>),
    /// The older connection is gone.
    Admitted,
    /// A payload is stored, or not.
    Stored(Ticket, Outcome),
    /// The host is attached, or not.
    Attached(Option<Vec<Vec<u8>>>),
    /// A command comes.
    Deliver(Vec<u8>),
    /// Output was written.
    Flushed,
    /// A deadline is looked at.
    Timeout,
    /// It is ended from outside.
    End,
}

/// How a call must leave the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Live,
    End,
    Either,
}

/// An answer that is due at once.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Pong,
    SubAck(SubAckKind, PacketId, Vec<ReasonCode>),
}

/// See the module.
#[derive(Debug)]
pub struct Model {
    who: Who,
    version: Version,
    /// When a stranger must have proven itself.
    until: Instant,
    has_connected: bool,
    /// What its CONNECT said.
    keep_alive: Duration,
    /// The token that is being looked at grants this; it is not proven.
    offered: Option<Grant>,
    /// The last packet proved the offered grant.
    is_proven: bool,
    /// It has proven itself, and its older connection is on its way out.
    is_admitting: bool,
    /// What it may do, once it is online, and when that ends.
    granted: Option<(Grant, Instant)>,
    renewal_until: Option<Instant>,
    heard: Instant,
    inbound: Inbound,
    outbound: Outbound,
    /// What was not permitted.
    refusals: u8,
    must: Must,
    due: VecDeque<Due>,
    ending: Option<Ending>,
}

impl Model {
    /// Of a session whose client must have proven itself at `until`.
    pub fn new(who: Who, until: Instant) -> Self {
        Self {
            who,
            version: Version::V5,
            until,
            has_connected: false,
            keep_alive: Duration::ZERO,
            offered: None,
            is_proven: false,
            is_admitting: false,
            granted: None,
            renewal_until: None,
            heard: until,
            inbound: Inbound::default(),
            outbound: Outbound::default(),
            refusals: 0,
            must: Must::Either,
            due: VecDeque::new(),
            ending: None,
        }
    }

    /// The version that the client speaks.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The identifier of a command that the client has not acknowledged.
    pub fn unacknowledged(&self, which: usize) -> Option<u16> {
        self.outbound.unacknowledged(which)
    }

    /// What a packet says. The first CONNECT settles the version.
    pub fn decode<'a>(&mut self, frame: &Frame<'a>) -> Result<ClientPacket<'a>, DecodeError> {
        let decoded = decode_client(frame, self.version);
        if let Ok(ClientPacket::Connect(connect)) = &decoded
            && !self.has_connected
        {
            self.version = connect.version;
        }
        decoded
    }

    /// What is about to happen.
    pub fn before(&mut self, cause: &Cause<'_>, now: Now) {
        assert_eq!(self.ending, None, "nothing happens after the end");
        self.is_proven = false;
        self.must = match cause {
            Cause::Packet(_, Err(_)) | Cause::Unreadable(_) | Cause::End => Must::End,
            Cause::Packet(_, Ok(packet)) => match self.granted.clone() {
                Some((_, expires)) if now.mono >= expires => Must::End,
                Some((grant, _)) => self.before_packet(packet, &grant, now),
                None => self.before_strangers_packet(packet),
            },
            Cause::Verdict(verdict) => {
                self.offered = verdict.clone().ok();
                if verdict.is_ok() {
                    Must::Either
                } else {
                    Must::End
                }
            }
            Cause::Admitted => Must::Either,
            Cause::Stored(ticket, outcome) => {
                self.heard = self.heard.max(now.mono);
                self.inbound.answer(*ticket, *outcome);
                Must::Live
            }
            Cause::Attached(open) => {
                let (id, codes) = self.outbound.attached(open.as_deref());
                let suback = Due::SubAck(SubAckKind::Subscribe, id, codes);
                self.due.push_back(suback);
                Must::Live
            }
            Cause::Deliver(command) => {
                if self.outbound.deliver(command) {
                    Must::Live
                } else {
                    Must::End
                }
            }
            Cause::Flushed => Must::Live,
            Cause::Timeout if now.mono >= self.deadline() => Must::End,
            Cause::Timeout => Must::Live,
        };
    }

    fn before_strangers_packet(&mut self, packet: &ClientPacket<'_>) -> Must {
        match packet {
            ClientPacket::Connect(connect) if !self.has_connected => {
                self.has_connected = true;
                self.connects(connect);
                Must::Either
            }
            ClientPacket::Auth(auth) if !self.is_admitting => {
                self.note_proof(auth);
                if self.is_proven {
                    Must::Live
                } else {
                    Must::End
                }
            }
            _ => Must::End,
        }
    }

    fn connects(&mut self, connect: &Connect<'_>) {
        self.keep_alive = match connect.keep_alive_secs {
            asked @ 1..=KEEP_ALIVE_S_MAX => Duration::from_secs(asked.into()),
            _ => Duration::from_secs(KEEP_ALIVE_S_MAX.into()),
        };
        self.outbound.window = usize::from(connect.receive_maximum.get().min(RECEIVE_MAXIMUM));
        self.outbound.packet_bytes_max = connect
            .packet_bytes_max
            .map_or(usize::MAX, |bytes| bytes.get() as usize);
    }

    fn note_proof(&mut self, auth: &Auth<'_>) {
        self.is_proven = auth.reason == ReasonCode::CONTINUE_AUTHENTICATION
            && auth.method == Some("ace")
            && self.offered.as_ref().is_some_and(|grant| {
                is_proven(&grant.holder, &NONCE, auth.data.unwrap_or_default())
            });
    }

    /// A packet of a client that is online.
    fn before_packet(&mut self, packet: &ClientPacket<'_>, grant: &Grant, now: Now) -> Must {
        self.heard = now.mono;
        match packet {
            ClientPacket::Publish(publish) => {
                let fate = self.inbound.take(publish, grant, self.who.own_topic());
                let is_last = publish.delivery.packet_id().is_none();
                match fate {
                    Fate::Refused(ReasonCode::NOT_AUTHORIZED) => self.counts_refusal(is_last),
                    Fate::Stored | Fate::Refused(_) => Must::Live,
                    Fate::Ends => Must::End,
                }
            }
            ClientPacket::Ack(ack) if ack.kind == AckKind::PubAck => {
                self.outbound.acknowledged(ack.id);
                Must::Live
            }
            ClientPacket::Subscribe(subscribe) if subscribe.subscription_id.is_none() => {
                let codes = self.outbound.subscribes(subscribe, self.who, grant);
                let is_refused = codes.contains(&ReasonCode::NOT_AUTHORIZED);
                if is_refused && self.counts_refusal(false) == Must::End {
                    self.outbound.forgets_subscribe();
                    return Must::End;
                }
                if !self.outbound.is_to_attach() {
                    let suback = Due::SubAck(SubAckKind::Subscribe, subscribe.id, codes);
                    self.due.push_back(suback);
                }
                Must::Live
            }
            ClientPacket::Unsubscribe(unsubscribe) => {
                let codes = self.outbound.unsubscribes(unsubscribe);
                let unsuback = Due::SubAck(SubAckKind::Unsubscribe, unsubscribe.id, codes);
                self.due.push_back(unsuback);
                Must::Live
            }
            ClientPacket::PingReq => {
                self.due.push_back(Due::Pong);
                Must::Live
            }
            ClientPacket::Auth(auth) => {
                self.note_proof(auth);
                Must::Either
            }
            ClientPacket::Connect(_)
            | ClientPacket::Disconnect(_)
            | ClientPacket::Ack(_)
            | ClientPacket::Subscribe(_) => Must::End,
        }
    }

    fn counts_refusal(&mut self, is_last: bool) -> Must {
        self.refusals += 1;
        if is_last || self.refusals >= REFUSALS_MAX {
            Must::End
        } else {
            Must::Live
        }
    }

    /// When it ends if nothing happens.
    fn deadline(&self) -> Instant {
        let Some((_, expires)) = &self.granted else {
            return self.until;
        };
        let silence = self.heard + self.keep_alive * 3 / 2;
        let silence = self.inbound.is_empty().then_some(silence);
        let all = [Some(*expires), silence, self.renewal_until];
        all.into_iter().flatten().min().expect("one at least")
    }

    /// Something is to be done.
    pub fn effect(&mut self, effect: &Effect, cause: &Cause<'_>) {
        assert_eq!(self.ending, None, "nothing is to be done after the end");
        let is_online = self.granted.is_some();
        match (effect, cause) {
            (Effect::CheckToken(token), Cause::Packet(_, Ok(packet))) => {
                let data = match packet {
                    ClientPacket::Connect(connect) => connect.auth_data,
                    ClientPacket::Auth(auth) => auth.data,
                    other => panic!("no token is in {other:?}"),
                };
                assert_eq!(data.and_then(|data| data.get(2..)), Some(token.as_slice()));
                assert!((1..=TOKEN_BYTES_MAX).contains(&token.len()));
                if is_online {
                    self.renewal_until = Some(self.heard + RENEWAL_WAIT);
                }
            }
            (Effect::Admit { who, resume }, Cause::Packet(..)) => {
                assert!(self.is_proven && !is_online, "who proved itself, once");
                let grant = self.offered.as_ref().expect("proven");
                assert_eq!(who.subject(), Some(&grant.subject));
                assert!(!resume, "nothing is kept of a host or a sandbox");
                self.is_admitting = true;
            }
            (
                Effect::Store {
                    ticket,
                    target,
                    payload,
                },
                Cause::Packet(_, Ok(packet)),
            ) => {
                assert!(is_online);
                let Target::Own(topic) = target else {
                    panic!("load tests are turned off");
                };
                assert_eq!(topic.to_string(), self.who.own_topic());
                let ClientPacket::Publish(publish) = packet else {
                    panic!("stored without a PUBLISH");
                };
                assert_eq!(payload, publish.payload);
                self.inbound.stores(*ticket);
            }
            (Effect::Subscribe(host), Cause::Packet(..)) => {
                assert!(is_online && self.who == Who::Host);
                assert_eq!(host.to_string(), self.who.subject());
                self.outbound.attaches();
            }
            (Effect::Unsubscribe, Cause::Packet(..)) => self.outbound.detaches(),
            (Effect::Skip(count), _) => self.outbound.skips(*count),
            (Effect::Close(ending), _) => self.ending = Some(*ending),
            (effect, cause) => panic!("{effect:?} by {cause:?}"),
        }
    }

    /// Something was said to the client.
    pub fn said(&mut self, said: &ServerPacket<'_>, bytes: usize, cause: &Cause<'_>, now: Now) {
        match said {
            ServerPacket::ConnAck(connack) => self.said_connack(connack, cause, now),
            ServerPacket::Auth(auth) => self.said_auth(auth, cause, now),
            ServerPacket::Ack(ack) => {
                assert_eq!(ack.kind, AckKind::PubAck);
                self.inbound.acknowledged(ack.id, ack.reason);
            }
            ServerPacket::SubAck(ack) => {
                let suback = Due::SubAck(ack.kind, ack.id, ack.reasons.iter().collect());
                assert_eq!(self.due.pop_front(), Some(suback));
            }
            ServerPacket::PingResp => assert_eq!(self.due.pop_front(), Some(Due::Pong)),
            ServerPacket::Publish(publish) => self.outbound.sent(publish, bytes),
            ServerPacket::Disconnect(disconnect) => {
                assert!(self.granted.is_some(), "a stranger gets a CONNACK");
                let ending = self.ending.expect("it ends");
                assert_eq!(ending.reason, Some(disconnect.reason));
            }
        }
    }

    fn said_connack(&mut self, connack: &ConnAck<'_>, cause: &Cause<'_>, now: Now) {
        assert!(self.granted.is_none(), "one CONNACK");
        if connack.reason.is_error() {
            let ending = self.ending.expect("it ends");
            assert!(ending.reason.is_some());
            return;
        }
        assert!(matches!(cause, Cause::Admitted));
        let grant = self.offered.take().expect("a token was good");
        assert_eq!(grant.subject.to_string(), self.who.subject());
        let keep_alive = connack.server_keep_alive_secs.map(u64::from);
        assert_eq!(keep_alive, Some(self.keep_alive.as_secs()));
        assert_eq!(
            connack.receive_maximum.map(u16::from),
            Some(RECEIVE_MAXIMUM)
        );
        assert_eq!(
            (connack.session_present, connack.session_expiry_secs),
            (false, Some(0))
        );
        self.heard = now.mono;
        self.grants(grant, now);
    }

    fn said_auth(&mut self, auth: &Auth<'_>, cause: &Cause<'_>, now: Now) {
        match auth.reason {
            ReasonCode::CONTINUE_AUTHENTICATION => {
                assert!(matches!(cause, Cause::Verdict(Ok(_))));
                assert_eq!(auth.data, Some(NONCE.as_slice()));
            }
            ReasonCode::SUCCESS => {
                assert!(self.is_proven && self.granted.is_some(), "renewed by proof");
                self.renewal_until = None;
                let grant = self.offered.take().expect("proven");
                self.grants(grant, now);
                assert!(
                    self.outbound
                        .is_permitted_by(&self.granted.as_ref().expect("just").0)
                );
            }
            other => panic!("AUTH with {other:?}"),
        }
    }

    fn grants(&mut self, grant: Grant, now: Now) {
        let end_ms = (grant.expires_s + LEEWAY_S) * 1000;
        assert!(now.unix.0 < end_ms, "a token that has ended grants nothing");
        let left = Duration::from_millis(end_ms - now.unix.0).min(TOKEN_WAIT_MAX);
        self.granted = Some((grant, now.mono + left));
    }

    /// Nothing is missing.
    pub fn after(&mut self, session: &Session, waiting: usize, cause: &Cause<'_>, now: Now) {
        match self.must {
            Must::Live => assert!(
                !session.is_closed(),
                "ended by {cause:?}: {:?}",
                self.ending
            ),
            Must::End => assert!(session.is_closed(), "not ended by {cause:?}"),
            Must::Either => {}
        }
        assert_eq!(session.is_closed(), self.ending.is_some(), "an end is told");
        assert_eq!(
            session.is_online(),
            self.granted.is_some() && !session.is_closed()
        );
        if session.is_closed() {
            assert_eq!(session.poll_timeout(), None);
            assert!(!session.wants_packets());
            return;
        }
        assert!(self.due.is_empty(), "unanswered: {:?}", self.due);
        self.inbound.check(session.wants_packets());
        assert_eq!(
            session.poll_timeout(),
            Some(self.deadline()),
            "by {cause:?}"
        );
        assert!(self.deadline() <= now.mono.max(self.until) + TOKEN_WAIT_MAX);
        self.outbound.check(waiting);
    }
}
