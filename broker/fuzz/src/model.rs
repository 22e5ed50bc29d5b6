//! What must hold of a session, whatever its client, its shell and time do: a second, plain telling of the gate's rules, from
//! `SPEC.md` chapters 2.3, 2.4 and 3.
//!
//! [`Model::before`] sees what is about to happen and says how it must go; [`Model::effect`] and [`Model::said`] see what comes of
//! it, in order; [`Model::after`] sees that nothing is missing.

mod inbound;
mod outbound;
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
            CLIENT_ID_BYTES_MAX, CLIENT_PACKET_BYTES_MIN, Effect, Ending, KEEP_ALIVE_S_MAX, Kept,
            Outcome, REFUSALS_MAX, RENEWAL_WAIT, SESSION_EXPIRY_S_MAX, Session, TOKEN_WAIT_MAX,
            Target, Ticket,
        },
        principal,
        reader::{Reader, Rights},
    },
    world::{NONCE, Who},
};
use inbound::{Fate, Inbound};
use outbound::Outbound;
use reading::{Past, Reading};

/// What happens to a session.
#[derive(Debug)]
pub enum Cause<'a> {
    /// A packet comes.
    Packet(Kind, Result<ClientPacket<'a>, DecodeError>),
    /// Bytes come that are no packet.
    Unreadable(u8),
    /// The token is good, or not.
    Verdict(Result<Grant, ReasonCode>),
    /// The reader's token is good, or not.
    VerdictReader(Result<Reader, ReasonCode>),
    /// The older connection is gone, and this was kept of it.
    Admitted(Option<Kept>),
    /// A payload is stored, or not.
    Stored(Ticket, Outcome),
    /// The host is attached, or not.
    Attached(Option<Vec<Vec<u8>>>),
    /// A command comes.
    Deliver(Vec<u8>),
    /// The journal is read for it from here on.
    Following(u64),
    /// A record is handed over: its offset, topic and payload.
    Record(u64, &'static str, Vec<u8>),
    /// Records are gone: from the first, not including the other.
    Missed(u64, u64),
    /// The journal was looked at, up to here.
    LookedAt(u64),
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

/// What a reader's CONNECT says.
#[derive(Clone, Debug)]
struct Claim {
    user: String,
    client_id: String,
    is_clean: bool,
    expiry_s: u32,
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

    /// The verdict on a reader's token.
    fn before_verdict(&mut self, reader: Option<&Reader>) -> Must {
        let claim = self.claim.clone().expect("a reader asked");
        let Some(reader) = reader.filter(|reader| reader.name().as_str() == claim.user) else {
            return Must::End;
        };
        let (asked, name) = (&claim.client_id, reader.name().as_str());
        let is_own =
            asked == name || asked.len() > name.len() + 1 && asked.starts_with(&format!("{name}/"));
        let id = if asked.is_empty() {
            format!("{name}/0505050505050505")
        } else {
            asked.clone()
        };
        if !asked.is_empty() && !is_own && *reader.rights() != Rights::Bench {
            return Must::End;
        }
        let window = self.outbound.window;
        let limits = (self.version, window, self.outbound.packet_bytes_max);
        let past = std::mem::take(&mut self.past);
        let rights = reader.rights().clone();
        let reading = Reading::new(rights, limits, claim.expiry_s, past);
        self.reader = Some((reader.clone(), id, reading));
        Must::Live
    }

    /// The older connection is gone.
    fn before_admission(&mut self, kept: Option<&Kept>, now: Now) -> Must {
        let Some((reader, _, reading)) = &mut self.reader else {
            return Must::Either;
        };
        if now.unix.0 >= reader.expires_ms() {
            return Must::End;
        }
        if reading.resumes(kept) {
            Must::Live
        } else {
            Must::End
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

    /// A packet that a reader's session takes otherwise than others.
    fn before_readers_packet(&mut self, packet: &ClientPacket<'_>) -> Option<Must> {
        let (_, _, reading) = self.reader.as_mut()?;
        let must = match packet {
            ClientPacket::Ack(ack) if ack.kind == AckKind::PubAck => {
                reading.acknowledged(ack.id);
                Must::Live
            }
            ClientPacket::Subscribe(subscribe) if subscribe.subscription_id.is_none() => {
                let codes = reading.subscribes(subscribe);
                let is_refused = codes.contains(&ReasonCode::NOT_AUTHORIZED);
                if is_refused && self.counts_refusal(false) == Must::End {
                    return Some(Must::End);
                }
                let codes = codes.into_iter();
                let codes = codes.map(|code| match self.version {
                    Version::V311 if code.is_error() => ReasonCode::UNSPECIFIED_ERROR,
                    _ => code,
                });
                let suback = Due::SubAck(SubAckKind::Subscribe, subscribe.id, codes.collect());
                self.due.push_back(suback);
                Must::Live
            }
            ClientPacket::Unsubscribe(unsubscribe) => {
                let mut codes = reading.unsubscribes(unsubscribe);
                if self.version == Version::V311 {
                    codes.clear();
                }
                let unsuback = Due::SubAck(SubAckKind::Unsubscribe, unsubscribe.id, codes);
                self.due.push_back(unsuback);
                Must::Live
            }
            ClientPacket::Auth(_) => Must::End,
            ClientPacket::Disconnect(disconnect) => {
                if let Some(seconds) = disconnect.session_expiry_secs
                    && (seconds == 0 || reading.expiry_s > 0)
                {
                    reading.expiry_s = seconds.min(SESSION_EXPIRY_S_MAX);
                }
                Must::End
            }
            _ => return None,
        };
        Some(must)
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
            (Effect::CheckReader(shown), Cause::Packet(_, Ok(ClientPacket::Connect(connect)))) => {
                assert!(self.readers && !is_online, "readers are turned on");
                assert_eq!(connect.password, Some(shown.as_slice()));
                assert!(connect.user_name.is_some() && connect.auth_method.is_none());
                assert!(connect.will.is_none());
                assert!(connect.clean_start || !connect.client_id.is_empty());
                assert!(connect.client_id.len() <= CLIENT_ID_BYTES_MAX);
                assert!(!connect.client_id.contains(['+', '#', '$']));
                assert!(self.outbound.packet_bytes_max >= CLIENT_PACKET_BYTES_MIN as usize);
            }
            (Effect::Admit { who, resume }, Cause::VerdictReader(_)) => {
                let (reader, id, _) = self.reader.as_ref().expect("its token was good");
                let (name, id) = (reader.name().clone(), id.clone());
                assert_eq!(*who, principal::Who::Reader { name, id });
                let claim = self.claim.as_ref().expect("it connected");
                assert_eq!(*resume, !claim.is_clean);
                self.is_admitting = true;
            }
            (Effect::Follow { from, reads }, Cause::Packet(..) | Cause::Admitted(Some(_))) => {
                assert!(is_online || matches!(cause, Cause::Admitted(_)));
                let (_, _, reading) = self.reader.as_mut().expect("readers read");
                reading.follow_is_asked(*from, reads);
            }
            (Effect::Skip(count), Cause::Record(..)) => {
                let (_, _, reading) = self.reader.as_mut().expect("readers read");
                reading.skips(*count);
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
        if let Some((reader, id, reading)) = &self.reader {
            let end_ms = reader.expires_ms() / 1000 * 1000;
            let left = Duration::from_millis(end_ms - now.unix.0).min(TOKEN_WAIT_MAX);
            assert_eq!(connack.session_present, kept.is_some());
            let claim = self.claim.as_ref().expect("it connected");
            let assigned = claim.client_id.is_empty().then_some(id.as_str());
            if self.version == Version::V5 {
                assert_eq!(connack.session_expiry_secs, Some(reading.expiry_s));
                assert_eq!(connack.assigned_client_id, assigned);
                assert_eq!(
                    (connack.wildcard_available, connack.auth_method),
                    (Some(true), None)
                );
                let keep_alive = connack.server_keep_alive_secs.map(u64::from);
                assert_eq!(keep_alive, Some(self.keep_alive.as_secs()));
            }
            self.reads_until = Some(now.mono + left);
            return;
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
