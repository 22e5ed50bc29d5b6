//! A reader's side of a session: its subscriptions are a cursor on the journal, which the shell reads for it.

use protocol::{
    hole::Causes,
    mqtt::{ReasonCode, Subscribe, Subscription},
};

use super::{
    Effect, Phase, Refusal, Session, Wire,
    connect::SESSION_EXPIRY_S_MAX,
    feed::{Feed, Kept, Message, Place, Written},
    online::{FILTERS_MAX, Online, suback},
};
use crate::core::{
    acl::{self, Action, Decision},
    incarnation::Withdrawn,
    principal::Who,
};

/// The user property of a SUBSCRIBE that says where to begin: an offset, or [`FROM_OLDEST`].
const FROM: &str = "from";
/// The value of [`FROM`] that stands for everything that is kept.
const FROM_OLDEST: &str = "oldest";

/// Where a reader begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what comes next.
    Now,
    /// With everything that is kept.
    Oldest,
    /// At this offset.
    Offset(u64),
}

impl Session {
    /// The journal is read for it from this offset on.
    pub fn following(&mut self, offset: u64) {
        if let Some(feed) = self.feed() {
            feed.start(offset);
        }
    }

    /// How many records of the journal may be handed over now.
    #[must_use]
    pub fn room(&self) -> usize {
        match &self.phase {
            Phase::Online(online) => online.room(&self.wire),
            Phase::WaitConnect { .. }
            | Phase::Checking { .. }
            | Phase::WaitProof { .. }
            | Phase::Admitting { .. }
            | Phase::Closed => 0,
        }
    }

    /// A record of the journal: sent, if it is wanted.
    pub fn record(&mut self, message: Message<'_>) {
        if let Phase::Online(online) = &mut self.phase {
            online.record(message, &mut self.wire);
        }
    }

    /// Records of the journal that cannot be read: from the first offset up to and not including the other, why, and which of them a restore
    /// withdrew.
    pub fn missed(&mut self, from: u64, to: u64, causes: Causes, withdrawn: Option<Withdrawn>) {
        if let Some(feed) = self.feed() {
            feed.miss(from, to, causes, withdrawn);
        }
    }

    /// Everything below this offset was looked at.
    pub fn looked_at(&mut self, offset: u64) {
        if let Some(feed) = self.feed() {
            feed.advance(offset);
        }
    }

    /// How far it got, if its session is kept.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        match &self.phase {
            Phase::Online(online) => online.place(),
            Phase::WaitConnect { .. }
            | Phase::Checking { .. }
            | Phase::WaitProof { .. }
            | Phase::Admitting { .. }
            | Phase::Closed => None,
        }
    }

    /// What to keep of its session while it is away, and for how many seconds; none if it is not to be kept.
    #[must_use]
    pub fn keep(&self) -> Option<(Kept, u32)> {
        match &self.phase {
            Phase::Online(online) => online.keep(),
            Phase::WaitConnect { .. }
            | Phase::Checking { .. }
            | Phase::WaitProof { .. }
            | Phase::Admitting { .. } => None,
            Phase::Closed => self.left.clone(),
        }
    }

    fn feed(&mut self) -> Option<&mut Feed> {
        match &mut self.phase {
            Phase::Online(online) => online.feed(),
            Phase::WaitConnect { .. }
            | Phase::Checking { .. }
            | Phase::WaitProof { .. }
            | Phase::Admitting { .. }
            | Phase::Closed => None,
        }
    }
}

impl Online {
    /// Goes on with an older session, as far as its principal may still hear what it subscribed to.
    pub(super) fn resume(&mut self, kept: Kept, wire: &mut Wire) -> Result<(), Refusal> {
        let feed = Feed::resume(kept);
        let may = |filter| {
            matches!(
                acl::decide(&self.principal, Action::Subscribe(filter)),
                Decision::Allow { .. }
            )
        };
        if !feed.filters().all(may) {
            let reason = ReasonCode::NOT_AUTHORIZED;
            return Err(Refusal::new(
                reason,
                "its session has subscriptions that it no longer may",
            ));
        }
        if feed.has_filters() {
            let reads = feed.reads(self.principal.is_bench());
            // It may have ended between its subscription and the first look at the journal.
            let from = feed.next().map_or(Start::Now, Start::Offset);
            wire.effect(Effect::Follow { from, reads });
        }
        self.feed = Some(Box::new(feed));
        Ok(())
    }

    /// The client says at its end how long its session is to be kept. What was never kept cannot be kept longer (MQTT 5.0
    /// §3.14.2.2.2).
    pub(super) fn expire_after(&mut self, seconds: u32) -> Result<(), Refusal> {
        if self.session_expiry_s == 0 && seconds > 0 {
            let reason = ReasonCode::PROTOCOL_ERROR;
            return Err(Refusal::new(reason, "raises its session expiry"));
        }
        self.session_expiry_s = seconds.min(SESSION_EXPIRY_S_MAX);
        Ok(())
    }

    fn place(&self) -> Option<Place> {
        let feed = self.feed.as_ref().filter(|_| self.session_expiry_s > 0);
        feed.and_then(|feed| feed.place())
    }

    pub(super) fn keep(&self) -> Option<(Kept, u32)> {
        let is_reader = matches!(self.principal.who(), Who::Reader { .. });
        (is_reader && self.session_expiry_s > 0).then(|| {
            let kept = self.feed.as_ref().map(|feed| feed.keep());
            (kept.unwrap_or_default(), self.session_expiry_s)
        })
    }

    pub(super) fn feed(&mut self) -> Option<&mut Feed> {
        self.feed.as_deref_mut()
    }

    pub(super) fn room(&self, wire: &Wire) -> usize {
        let feed = self.feed.as_ref();
        feed.map_or(0, |feed| feed.room(self.limits, wire.output.len()))
    }

    pub(super) fn record(&mut self, message: Message<'_>, wire: &mut Wire) {
        let Some(feed) = &mut self.feed else { return };
        match feed.write(message, self.limits, &mut wire.output) {
            Written::Sent | Written::Unwanted => {}
            Written::TooLarge => wire.effect(Effect::Skip(1)),
        }
    }

    pub(super) fn subscribe_reader(
        &mut self,
        subscribe: &Subscribe<'_>,
        wire: &mut Wire,
    ) -> Result<(), Refusal> {
        if subscribe.subscription_id.is_some() {
            let reason = ReasonCode::SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED;
            return Err(Refusal::new(reason, "a subscription identifier"));
        }
        let mut feed = self.feed.take().unwrap_or_default();
        let begin = begin_of(subscribe, feed.next().is_some());
        let codes: Vec<_> = subscribe
            .subscriptions
            .iter()
            .enumerate()
            .map(|(at, subscription)| match begin {
                Err(reason) => reason,
                Ok(_) if at >= FILTERS_MAX || feed.is_full_for(subscription.filter) => {
                    ReasonCode::QUOTA_EXCEEDED
                }
                Ok(_) => self.grant_reader(&subscription, &mut feed),
            })
            .collect();
        let is_granted = codes.iter().any(|code| !code.is_error());
        if let (Ok(from), true) = (begin, is_granted) {
            wire.effect(Effect::Follow {
                from: feed.next().map_or(from, Start::Offset),
                reads: feed.reads(self.principal.is_bench()),
            });
        }
        self.feed = Some(feed);
        if is_granted && self.session_expiry_s > 0 {
            wire.effect(Effect::Keep);
        }
        if codes.contains(&ReasonCode::NOT_AUTHORIZED) {
            self.count_refusal(false)?;
        }
        if let Some(refused) = codes.iter().find(|code| code.is_error()) {
            wire.effect(Effect::Refused(*refused));
        }
        suback(subscribe.id, &codes, wire);
        Ok(())
    }

    fn grant_reader(&self, subscription: &Subscription<'_>, feed: &mut Feed) -> ReasonCode {
        let filter = subscription.filter;
        match acl::decide(&self.principal, Action::Subscribe(filter)) {
            Decision::Allow { .. } if subscription.qos.value() == 0 => {
                feed.subscribe(filter, false);
                ReasonCode::GRANTED_QOS_0
            }
            Decision::Allow { .. } => {
                feed.subscribe(filter, true);
                ReasonCode::GRANTED_QOS_1
            }
            Decision::Refuse { reason, .. } => reason,
        }
    }
}

/// Where a reader wants to begin. Once it reads, that is settled: a filter that comes later goes on from where it stands.
fn begin_of(subscribe: &Subscribe<'_>, is_reading: bool) -> Result<Start, ReasonCode> {
    let mut properties = subscribe.user_properties.iter();
    let Some((_, value)) = properties.find(|(name, _)| *name == FROM) else {
        return Ok(Start::Now);
    };
    if is_reading {
        return Err(ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR);
    }
    if value == FROM_OLDEST {
        return Ok(Start::Oldest);
    }
    value
        .parse()
        .map(Start::Offset)
        .map_err(|_| ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR)
}
