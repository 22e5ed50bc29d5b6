//! What must hold of a session, whatever its client, its shell and time do: a second, plain telling of the gate's rules, from
//! `SPEC.md` chapters 2.3, 2.4 and 3.
//!
//! [`Model::before`] sees what is about to happen and says how it must go; [`Model::effect`] and [`Model::said`] see what comes of
//! it, in order; [`Model::after`] sees that nothing is missing.

mod cause;
mod inbound;
mod outbound;
mod reader;
mod reading;

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
    scope::Permission,
    time::Now,
    token::Grant,
};

use crate::{
    core::{
        gate::{
            Effect, Ending, KEEP_ALIVE_S_MAX, Outcome, REFUSALS_MAX, RENEWAL_WAIT,
            SESSION_EXPIRY_S_MAX, Session, TOKEN_WAIT_MAX, Target,
        },
        reader::Reader,
    },
    world::{NONCE, Who},
};
pub use cause::Cause;
use inbound::{Fate, Inbound};
use outbound::Outbound;
use reader::Claim;
use reading::{Past, Reading};

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
    /// Readers are let in.
    readers: bool,
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
    /// What its CONNECT said, if it is that of a reader.
    claim: Option<Claim>,
    /// The reader whose token was good, its client id, and what is read for it.
    reader: Option<(Reader, String, Reading)>,
    /// When the reader's token ends, once it is online.
    reads_until: Option<Instant>,
    /// What is known of an older connection of it.
    past: Past,
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
    pub fn new(who: Who, until: Instant, readers: bool) -> Self {
        Self {
            who,
            readers,
            version: Version::V5,
            until,
            has_connected: false,
            keep_alive: Duration::ZERO,
            offered: None,
            is_proven: false,
            is_admitting: false,
            granted: None,
            claim: None,
            reader: None,
            reads_until: None,
            past: Past::default(),
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

    /// Of the session after this one, of the same client.
    pub fn again(&self, until: Instant) -> Self {
        let mut model = Self::new(self.who, until, self.readers);
        let reading = self.reader.as_ref().filter(|_| self.was_online());
        model.past = reading.map_or_else(|| self.past.clone(), |reader| reader.2.past());
        model
    }

    /// Whether its token is a reader's.
    pub const fn is_reader(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether it is online, or was.
    pub const fn was_online(&self) -> bool {
        self.granted.is_some() || self.reads_until.is_some()
    }

    fn expires(&self) -> Option<Instant> {
        let granted = self.granted.as_ref().map(|granted| granted.1);
        granted.or(self.reads_until)
    }

    /// The version that the client speaks.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The identifier of a command that the client has not acknowledged.
    pub fn unacknowledged(&self, which: usize) -> Option<u16> {
        let reading = self.reader.as_ref();
        let read = reading.and_then(|(_, _, reading)| reading.unacknowledged(which));
        read.or_else(|| self.outbound.unacknowledged(which))
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
            Cause::Packet(_, Ok(packet)) => match self.expires() {
                // Who leaves before anybody looks at the time is still heard.
                Some(expires)
                    if now.mono >= expires && !matches!(packet, ClientPacket::Disconnect(_)) =>
                {
                    Must::End
                }
                Some(_) => self.before_packet(packet, now),
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
            Cause::VerdictReader(verdict) => self.before_verdict(verdict.as_ref().ok()),
            Cause::Admitted(kept) => self.before_admission(kept.as_ref(), now),
            Cause::Stored(ticket, outcome) => {
                self.heard = self.heard.max(now.mono);
                self.inbound.answer(*ticket, *outcome);
                // Over MQTT 3.1.1 a PUBACK would mean that it is stored.
                if self.version == Version::V311 && *outcome != Outcome::Stored {
                    Must::End
                } else {
                    Must::Live
                }
            }
            Cause::Following(..) | Cause::Record(..) | Cause::Missed(..) | Cause::LookedAt(_) => {
                let (_, _, reading) = self.reader.as_mut().expect("readers read");
                match cause {
                    Cause::Following(offset) => reading.following(*offset),
                    Cause::Record(offset, topic, payload) => {
                        reading.record(*offset, topic, payload);
                    }
                    Cause::Missed(from, to) => reading.missed(*from, *to),
                    Cause::LookedAt(offset) => reading.looked_at(*offset),
                    _ => {}
                }
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
        let asked_s = match (connect.version, connect.keep_alive_secs) {
            (Version::V5, asked) if asked == 0 || asked > KEEP_ALIVE_S_MAX => KEEP_ALIVE_S_MAX,
            (Version::V311, 0) => u16::MAX,
            (_, asked) => asked,
        };
        self.keep_alive = Duration::from_secs(asked_s.into());
        if let (true, Some(user), Some(_)) = (self.readers, connect.user_name, connect.password) {
            self.claim = Some(Claim {
                user: user.to_owned(),
                client_id: connect.client_id.to_owned(),
                is_clean: connect.clean_start,
                expiry_s: connect.session_expiry_secs.min(SESSION_EXPIRY_S_MAX),
            });
        }
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
    fn before_packet(&mut self, packet: &ClientPacket<'_>, now: Now) -> Must {
        self.heard = now.mono;
        if let Some(must) = self.before_readers_packet(packet) {
            return must;
        }
        match packet {
            ClientPacket::Publish(publish) => {
                let is_permitted = self.may_publish(publish.topic);
                let fate = self.inbound.take(publish, is_permitted);
                let is_mute = self.version == Version::V311;
                let is_last = publish.delivery.packet_id().is_none() || is_mute;
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
                let (grant, _) = self.granted.clone().expect("no reader");
                let codes = self.outbound.subscribes(subscribe, self.who, &grant);
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

    fn may_publish(&self, topic: &str) -> bool {
        match (&self.reader, &self.granted) {
            (Some((_, _, reading)), _) => reading.may_publish(topic),
            (None, Some((grant, _))) => {
                let own = self.who.own_topic();
                topic == own && grant.scope.rule_for(own, Permission::Pub).is_some()
            }
            (None, None) => false,
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
        let Some(expires) = self.expires() else {
            return self.until;
        };
        let silence = self.heard + self.keep_alive * 3 / 2;
        let silence = self.inbound.is_empty().then_some(silence);
        let all = [Some(expires), silence, self.renewal_until];
        all.into_iter().flatten().min().expect("one at least")
    }

    /// Something is to be done.
    pub fn effect(&mut self, effect: &Effect, cause: &Cause<'_>) {
        assert_eq!(self.ending, None, "nothing is to be done after the end");
        let is_online = self.was_online();
        match (effect, cause) {
            (Effect::CheckToken(token), Cause::Packet(_, Ok(packet))) => {
                let data = match packet {
                    ClientPacket::Connect(connect) => {
                        assert_eq!((connect.version, connect.user_name), (Version::V5, None));
                        connect.auth_data
                    }
                    ClientPacket::Auth(auth) => auth.data,
                    other => panic!("no token is in {other:?}"),
                };
                assert_eq!(data.and_then(|data| data.get(2..)), Some(token.as_slice()));
                assert!((1..=TOKEN_BYTES_MAX).contains(&token.len()));
                if is_online {
                    self.renewal_until = Some(self.heard + RENEWAL_WAIT);
                }
            }
            (
                Effect::CheckReader(_) | Effect::Follow { .. } | Effect::Keep,
                Cause::Packet(..) | Cause::Admitted(Some(_)),
            )
            | (Effect::Admit { .. }, Cause::VerdictReader(_))
            | (Effect::Skip(_), Cause::Record(..)) => self.readers_effect(effect, cause),
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
                let ClientPacket::Publish(publish) = packet else {
                    panic!("stored without a PUBLISH");
                };
                match target {
                    Target::Own(topic) => {
                        assert!(self.reader.is_none());
                        assert_eq!(topic.to_string(), self.who.own_topic());
                    }
                    Target::Bench(topic) => {
                        assert!(self.may_publish(topic) && self.reader.is_some());
                        assert_eq!(**topic, *publish.topic);
                    }
                }
                assert_eq!(payload, publish.payload);
                self.inbound.stores(*ticket);
            }
            (Effect::Subscribe(host), Cause::Packet(..)) => {
                assert!(is_online && self.who == Who::Host && self.reader.is_none());
                assert_eq!(host.to_string(), self.who.subject());
                self.outbound.attaches();
            }
            (Effect::Unsubscribe, Cause::Packet(..)) => self.outbound.detaches(),
            (Effect::Skip(count), _) => self.outbound.skips(*count),
            (Effect::Refused(reason), Cause::Packet(Kind::Publish | Kind::Subscribe, Ok(_))) => {
                assert!(reason.is_error() && is_online)
            }
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
            ServerPacket::Publish(publish) => match (&mut self.reader, cause) {
                (Some((_, _, reading)), Cause::Record(offset, topic, payload)) => {
                    reading.sent(publish, bytes, (*offset, topic, payload));
                }
                (reader, _) => {
                    assert!(reader.is_none(), "sent when it is handed over");
                    self.outbound.sent(publish, bytes);
                }
            },
            ServerPacket::Disconnect(disconnect) => {
                assert!(self.was_online(), "a stranger gets a CONNACK");
                let ending = self.ending.expect("it ends");
                assert_eq!(ending.reason, Some(disconnect.reason));
            }
        }
    }

    fn said_connack(&mut self, connack: &ConnAck<'_>, cause: &Cause<'_>, now: Now) {
        assert!(!self.was_online(), "one CONNACK");
        if connack.reason.is_error() {
            let ending = self.ending.expect("it ends");
            assert!(ending.reason.is_some());
            return;
        }
        let Cause::Admitted(kept) = cause else {
            panic!("welcome by {cause:?}");
        };
        self.heard = now.mono;
        if self.reader.is_some() {
            return self.said_readers_connack(connack, kept.is_some(), now);
        }
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
            self.was_online() && !session.is_closed()
        );
        if session.is_closed() {
            assert_eq!(session.poll_timeout(), None);
            assert!(!session.wants_packets());
            if let Some((_, _, reading)) = &mut self.reader {
                reading.forgets_due();
            }
            self.after_the_end(session);
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
        match &self.reader {
            Some((_, _, reading)) if self.was_online() => {
                reading.check(session, waiting);
                reading.check_kept(session.keep().as_ref());
            }
            _ => assert_eq!((session.room(), session.keep()), (0, None)),
        }
    }

    /// Nothing is read for it any more, and what is kept of it stays.
    pub fn after_the_end(&self, session: &Session) {
        assert_eq!(session.room(), 0);
        match &self.reader {
            Some((_, _, reading)) if self.was_online() => {
                reading.check_kept(session.keep().as_ref());
            }
            _ => assert_eq!(session.keep(), None),
        }
    }
}
