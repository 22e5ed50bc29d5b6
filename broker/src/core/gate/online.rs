//! A connection whose client has proven itself: publishes in, commands out, and a fresh token now and then.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    mqtt::{
        AckKind, Auth, ClientPacket, Delivery, List, PINGRESP, PacketId, Publish, ReasonCode,
        SubAck, Subscribe, Subscription, Unsubscribe, Version,
    },
    possession::Nonce,
    time::Now,
    token::Grant,
    topic::Topic,
};

use super::{
    Effect, Outcome, Refusal, SECOND_CONNECT, Wire,
    connect::{Terms, token_of},
    feed::{Feed, Limits},
    handshake::{UNPROVEN, check_step, end_of},
    inbox::{Inbox, NoPlace, Ticket},
    outbox::Outbox,
};
use crate::core::{
    acl::{self, Action, Decision, Place},
    principal::{Principal, Who},
};

/// How long a client has to answer the challenge of a renewal.
pub const RENEWAL_WAIT: Duration = Duration::from_secs(5);
/// The refusal that ends the connection: one or two may be a mistake.
pub const REFUSALS_MAX: u8 = 3;
/// Filters of one SUBSCRIBE or UNSUBSCRIBE that are looked at; a host has one, a reader a few. The rest is refused unread.
pub const FILTERS_MAX: usize = 8;
/// Where a payload belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A topic of the principal's own.
    Own(Arc<Topic>),
    /// The journal's partition for load tests, under this topic.
    Bench(Arc<str>),
}

/// See the module.
pub(super) struct Online {
    pub(super) principal: Principal,
    /// When its token ends.
    expires: Instant,
    renewal: Renewal,
    /// When the last packet came.
    heard: Instant,
    /// How long it may be silent: one and a half times its keep-alive (MQTT 5.0 §3.1.2.10).
    silence_max: Duration,
    /// Counts what was not permitted.
    refusals: u8,
    inbox: Inbox,
    /// The last topic that was allowed, so that a stream of publishes decides once. Forgotten at renewal.
    allowed: Option<(String, Target)>,
    outbox: Outbox,
    commands: Commands,
    /// What a reader subscribed to.
    pub(super) feed: Option<Box<Feed>>,
    pub(super) session_expiry_s: u32,
    pub(super) limits: Limits,
}

/// A new token on a live link.
enum Renewal {
    None,
    Checking {
        until: Instant,
    },
    WaitProof {
        until: Instant,
        grant: Box<Grant>,
        nonce: Nonce,
    },
}

/// Where a host's subscription to its commands stands.
enum Commands {
    Off,
    /// Being attached; the SUBACK waits.
    Attaching {
        id: PacketId,
        codes: Vec<ReasonCode>,
        topic: String,
    },
    On {
        topic: String,
    },
}

impl Online {
    pub(super) fn new(terms: &Terms, principal: Principal, expires: Instant, now: Instant) -> Self {
        Self {
            principal,
            expires,
            renewal: Renewal::None,
            heard: now,
            silence_max: Duration::from_millis(u64::from(terms.keep_alive_s) * 1500),
            refusals: 0,
            inbox: Inbox::default(),
            allowed: None,
            outbox: Outbox::default(),
            commands: Commands::Off,
            feed: None,
            session_expiry_s: terms.session_expiry_s,
            limits: Limits {
                version: terms.version,
                window: terms.window,
                packet_bytes_max: terms.packet_bytes_max,
            },
        }
    }

    pub(super) const fn is_flooded(&self) -> bool {
        self.inbox.is_flooded()
    }

    /// What ends it next, if nothing happens, and with which words.
    pub(super) fn deadline(&self) -> (Instant, Refusal) {
        let expiry = (
            self.expires,
            Refusal::new(ReasonCode::MAXIMUM_CONNECT_TIME, "its token ended"),
        );
        // Who waits for our journal is not silent.
        let silence = self.inbox.is_empty().then(|| {
            let refusal = Refusal::new(ReasonCode::KEEP_ALIVE_TIMEOUT, "fell silent");
            (self.heard + self.silence_max, refusal)
        });
        let renewal = match &self.renewal {
            Renewal::None => None,
            Renewal::Checking { until } | Renewal::WaitProof { until, .. } => {
                let refusal =
                    Refusal::new(ReasonCode::NOT_AUTHORIZED, "did not finish its renewal");
                Some((*until, refusal))
            }
        };
        [silence, renewal]
            .into_iter()
            .flatten()
            .fold(
                expiry,
                |first, other| {
                    if other.0 < first.0 { other } else { first }
                },
            )
    }

    pub(super) fn step(
        &mut self,
        packet: &ClientPacket<'_>,
        now: Now,
        wire: &mut Wire,
    ) -> Result<(), Refusal> {
        if now.mono >= self.expires {
            let reason = ReasonCode::MAXIMUM_CONNECT_TIME;
            return Err(Refusal::new(reason, "its token ended"));
        }
        self.heard = now.mono;
        match packet {
            ClientPacket::Publish(publish) => self.publish(publish, wire),
            ClientPacket::Ack(ack) => match ack.kind {
                AckKind::PubAck => {
                    if let Some(feed) = &mut self.feed {
                        feed.acknowledge(ack.id);
                    }
                    self.outbox.acknowledge(ack.id);
                    self.send(wire);
                    Ok(())
                }
                AckKind::PubRec | AckKind::PubRel | AckKind::PubComp => {
                    let reason = ReasonCode::PROTOCOL_ERROR;
                    Err(Refusal::new(reason, "a step of QoS 2"))
                }
            },
            ClientPacket::Subscribe(subscribe) => match self.principal.who() {
                Who::Subject(_) => self.subscribe(subscribe, wire),
                Who::Reader { .. } => self.subscribe_reader(subscribe, wire),
            },
            ClientPacket::Unsubscribe(unsubscribe) => {
                self.unsubscribe(unsubscribe, wire);
                Ok(())
            }
            ClientPacket::PingReq => {
                wire.output.extend_from_slice(&PINGRESP);
                Ok(())
            }
            ClientPacket::Auth(auth) => self.authenticate(auth, now, wire),
            ClientPacket::Connect(_) => Err(SECOND_CONNECT),
            ClientPacket::Disconnect(_) => {
                debug_assert!(false, "a DISCONNECT was taken before");
                Ok(())
            }
        }
    }

    fn publish(&mut self, publish: &Publish<'_>, wire: &mut Wire) -> Result<(), Refusal> {
        let id = match publish.delivery {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce { id, .. } => Some(id),
            Delivery::ExactlyOnce { .. } => {
                return Err(Refusal::new(ReasonCode::QOS_NOT_SUPPORTED, "QoS 2"));
            }
        };
        if publish.retain {
            let reason = ReasonCode::RETAIN_NOT_SUPPORTED;
            return Err(Refusal::new(reason, "a retained message"));
        }
        if publish.topic_alias.is_some() {
            let reason = ReasonCode::TOPIC_ALIAS_INVALID;
            return Err(Refusal::new(reason, "a topic alias"));
        }
        let permitted = self.permit(publish.topic)?;
        let refused = match (&permitted, publish.payload_is_as_declared()) {
            (None, _) => Some(ReasonCode::NOT_AUTHORIZED),
            (Some(_), false) => Some(ReasonCode::PAYLOAD_FORMAT_INVALID),
            (Some(_), true) => None,
        };
        // Nothing tells the sender of a QoS 0 message that it may not, nor anyone over MQTT 3.1.1; so the first one ends it.
        let is_mute = wire.version == Version::V311;
        if permitted.is_none() {
            self.count_refusal(id.is_none() || is_mute)?;
        }
        if let (None, Some(reason)) = (id, refused) {
            return Err(Refusal::new(reason, "not the text that it says it is"));
        }
        let ticket = self.inbox.take(id).map_err(|no| match no {
            NoPlace::Full => Refusal::new(
                ReasonCode::RECEIVE_MAXIMUM_EXCEEDED,
                "more unacknowledged than we take",
            ),
            NoPlace::InUse => Refusal::new(
                ReasonCode::PROTOCOL_ERROR,
                "a packet identifier that is in use",
            ),
        })?;
        match (permitted, refused) {
            (Some(target), None) => wire.effect(Effect::Store {
                ticket,
                target,
                payload: publish.payload.to_vec(),
            }),
            (_, reason) => {
                let reason = reason.unwrap_or(ReasonCode::NOT_AUTHORIZED);
                wire.effect(Effect::Refused(reason));
                self.inbox.answer(ticket, reason, &mut wire.output);
            }
        }
        Ok(())
    }

    /// Where the topic leads, if it may publish there.
    fn permit(&mut self, topic: &str) -> Result<Option<Target>, Refusal> {
        if let Some((text, target)) = &self.allowed
            && text == topic
        {
            return Ok(Some(target.clone()));
        }
        match acl::decide(&self.principal, Action::Publish(topic)) {
            Decision::Allow { place, .. } => {
                let target = match place {
                    Place::Own(topic) => Target::Own(Arc::new(topic)),
                    Place::Bench => Target::Bench(Arc::from(topic)),
                    Place::Records(_) => {
                        debug_assert!(false, "records are read");
                        return Ok(None);
                    }
                };
                self.allowed = Some((topic.to_owned(), target.clone()));
                Ok(Some(target))
            }
            Decision::Refuse { reason, .. } if reason == ReasonCode::NOT_AUTHORIZED => Ok(None),
            Decision::Refuse { reason, why } => Err(Refusal::new(reason, why)),
        }
    }

    pub(super) fn count_refusal(&mut self, is_last: bool) -> Result<(), Refusal> {
        self.refusals = self.refusals.saturating_add(1);
        if is_last || self.refusals >= REFUSALS_MAX {
            let reason = ReasonCode::NOT_AUTHORIZED;
            return Err(Refusal::new(reason, "asks for what it may not"));
        }
        Ok(())
    }

    pub(super) fn stored(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        now: Instant,
        wire: &mut Wire,
    ) -> Result<(), Refusal> {
        let reason = outcome.reason();
        self.heard = self.heard.max(now);
        if reason.is_error() && wire.version == Version::V311 {
            // Its PUBACK would mean success.
            return Err(Refusal::new(reason, "its publish was not taken"));
        }
        self.inbox.answer(ticket, reason, &mut wire.output);
        Ok(())
    }

    fn subscribe(&mut self, subscribe: &Subscribe<'_>, wire: &mut Wire) -> Result<(), Refusal> {
        if subscribe.subscription_id.is_some() {
            let reason = ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED;
            return Err(Refusal::new(reason, "a subscription identifier"));
        }
        let mut granted = None;
        let mut codes = Vec::new();
        for (at, subscription) in subscribe.subscriptions.iter().enumerate() {
            codes.push(if at < FILTERS_MAX {
                self.grant(&subscription, &mut granted)
            } else {
                ReasonCode::QUOTA_EXCEEDED
            });
        }
        if codes.contains(&ReasonCode::NOT_AUTHORIZED) {
            self.count_refusal(false)?;
        }
        // Once for the packet, not for each of its filters.
        if let Some(refused) = codes.iter().find(|code| code.is_error()) {
            wire.effect(Effect::Refused(*refused));
        }
        match (granted, &self.commands) {
            (Some(topic), Commands::Off) => {
                wire.effect(Effect::Subscribe(topic.host().clone()));
                self.commands = Commands::Attaching {
                    id: subscribe.id,
                    codes,
                    topic: topic.to_string(),
                };
            }
            // Subscribed already, or about to be: what it has goes on.
            (_, Commands::Off | Commands::Attaching { .. } | Commands::On { .. }) => {
                suback(subscribe.id, &codes, wire);
            }
        }
        Ok(())
    }

    fn grant(&self, subscription: &Subscription<'_>, granted: &mut Option<Topic>) -> ReasonCode {
        match acl::decide(&self.principal, Action::Subscribe(subscription.filter)) {
            // A command is delivered or it is not: QoS 0 would lose it without a word.
            Decision::Allow { .. } if subscription.qos.value() == 0 => {
                ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
            }
            Decision::Allow {
                place: Place::Own(topic),
                ..
            } => {
                *granted = Some(topic);
                ReasonCode::GRANTED_QOS_1
            }
            Decision::Allow { .. } => ReasonCode::NOT_AUTHORIZED,
            Decision::Refuse { reason, .. } => reason,
        }
    }

    pub(super) fn subscribed(&mut self, open: Option<Vec<Vec<u8>>>, wire: &mut Wire) {
        let Commands::Attaching {
            id,
            mut codes,
            topic,
        } = std::mem::replace(&mut self.commands, Commands::Off)
        else {
            debug_assert!(false, "nobody asked to be attached");
            return;
        };
        match open {
            Some(open) => {
                self.outbox.open(open);
                self.commands = Commands::On { topic };
            }
            None => {
                for code in &mut codes {
                    if *code == ReasonCode::GRANTED_QOS_1 {
                        *code = ReasonCode::UNSPECIFIED_ERROR;
                    }
                }
            }
        }
        suback(id, &codes, wire);
        self.send(wire);
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, wire: &mut Wire) {
        let mut codes = Vec::new();
        let mut is_news = false;
        for (at, filter) in unsubscribe.filters.iter().enumerate() {
            let is_on = matches!(&self.commands, Commands::On { topic } if topic == filter);
            let is_read = self
                .feed
                .as_mut()
                .is_some_and(|feed| feed.unsubscribe(filter));
            is_news |= is_read;
            codes.push(if is_read {
                ReasonCode::SUCCESS
            } else if is_on {
                self.commands = Commands::Off;
                self.outbox.close();
                wire.effect(Effect::Unsubscribe);
                ReasonCode::SUCCESS
            } else if at < FILTERS_MAX {
                ReasonCode::NO_SUBSCRIPTION_EXISTED
            } else {
                ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
            });
        }
        if is_news && self.session_expiry_s > 0 {
            wire.effect(Effect::Keep);
        }
        let unsuback = SubAck::to_unsubscribe(unsubscribe.id, List::from(codes.as_slice()));
        let written = unsuback.encode(wire.version, &mut wire.output);
        debug_assert!(written.is_ok(), "shorter than what it answers");
    }

    pub(super) fn deliver(&mut self, command: Vec<u8>, wire: &mut Wire) -> Result<(), Refusal> {
        if let Commands::On { .. } = self.commands {
            self.outbox.push(command, self.limits.window).map_err(|_| {
                Refusal::new(ReasonCode::QUOTA_EXCEEDED, "does not take its commands")
            })?;
            self.send(wire);
        }
        Ok(())
    }

    /// Writes the commands that may go now.
    pub(super) fn send(&mut self, wire: &mut Wire) {
        if let Commands::On { topic } = &self.commands {
            let output = &mut wire.output;
            let Limits {
                window,
                packet_bytes_max,
                ..
            } = self.limits;
            let skipped = self.outbox.write(topic, window, packet_bytes_max, output);
            if skipped > 0 {
                wire.effect(Effect::Skip(skipped));
            }
        }
    }

    /// Re-authentication (MQTT 5.0 §4.12.1). What the old token permits goes on until the new one is proven.
    fn authenticate(&mut self, auth: &Auth<'_>, now: Now, wire: &mut Wire) -> Result<(), Refusal> {
        if let Who::Reader { .. } = self.principal.who() {
            let reason = ReasonCode::PROTOCOL_ERROR;
            return Err(Refusal::new(reason, "AUTH without a method"));
        }
        match std::mem::replace(&mut self.renewal, Renewal::None) {
            Renewal::None => {
                check_step(auth, ReasonCode::RE_AUTHENTICATE)?;
                wire.effect(Effect::CheckToken(token_of(auth.data)?.to_vec()));
                self.renewal = Renewal::Checking {
                    until: now.mono + RENEWAL_WAIT,
                };
                Ok(())
            }
            Renewal::Checking { .. } => {
                let reason = ReasonCode::PROTOCOL_ERROR;
                Err(Refusal::new(reason, "a step of authentication out of turn"))
            }
            Renewal::WaitProof { grant, nonce, .. } => {
                check_step(auth, ReasonCode::CONTINUE_AUTHENTICATION)?;
                let proof = auth.data.unwrap_or_default();
                let principal = Principal::prove(*grant, &nonce, proof).ok_or(UNPROVEN)?;
                self.renew(principal, now)?;
                wire.auth(ReasonCode::SUCCESS, None);
                Ok(())
            }
        }
    }

    pub(super) fn checked(
        &mut self,
        verdict: Result<Grant, ReasonCode>,
        nonce: Nonce,
        wire: &mut Wire,
    ) -> Result<(), Refusal> {
        let Renewal::Checking { until } = self.renewal else {
            debug_assert!(false, "no token was to be checked");
            return Ok(());
        };
        let grant = verdict.map_err(|reason| {
            // A DISCONNECT has no 0x88 (MQTT 5.0 §3.14.2.1).
            let reason = match reason {
                ReasonCode::SERVER_UNAVAILABLE => ReasonCode::SERVER_BUSY,
                other => other,
            };
            Refusal::new(reason, "its new token is refused")
        })?;
        if Some(&grant.subject) != self.principal.who().subject() {
            let reason = ReasonCode::NOT_AUTHORIZED;
            return Err(Refusal::new(reason, "its new token names somebody else"));
        }
        wire.auth(ReasonCode::CONTINUE_AUTHENTICATION, Some(&nonce));
        self.renewal = Renewal::WaitProof {
            until,
            grant: Box::new(grant),
            nonce,
        };
        Ok(())
    }

    /// From here on the new token holds, and what it no longer permits ends.
    fn renew(&mut self, principal: Principal, now: Now) -> Result<(), Refusal> {
        let ended = Refusal::new(ReasonCode::NOT_AUTHORIZED, "its new token has ended");
        self.expires = end_of(principal.expires_s(), now).ok_or(ended)?;
        self.principal = principal;
        self.allowed = None;
        let (Commands::On { topic } | Commands::Attaching { topic, .. }) = &self.commands else {
            return Ok(());
        };
        match acl::decide(&self.principal, Action::Subscribe(topic)) {
            Decision::Allow { .. } => Ok(()),
            Decision::Refuse { reason, .. } => Err(Refusal::new(
                reason,
                "its new token does not permit its subscription",
            )),
        }
    }
}

pub(super) fn suback(id: PacketId, codes: &[ReasonCode], wire: &mut Wire) {
    let suback = SubAck::to_subscribe(id, List::from(codes));
    let written = suback.encode(wire.version, &mut wire.output);
    debug_assert!(written.is_ok(), "shorter than what it answers");
}
