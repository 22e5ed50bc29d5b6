//! A reader: what it subscribed to is sent from the journal in order, each record once, no more unacknowledged than it takes; and where it
//! is to go on after a break is never past what it has not acknowledged.

use std::collections::BTreeMap;

use protocol::{
    id::{HostId, SandboxId},
    mqtt::{Delivery, List, PacketId, Publish, Qos, ReasonCode, Subscribe, Unsubscribe, Version},
};

use crate::core::{
    gate::{FILTERS_MAX, Kept, OUTPUT_BYTES_MAX, READ_FILTERS_MAX, Reads, Session, Start},
    reader::Rights,
};

/// How many records may be handed over where none is acknowledged: at least one, and not without end.
const UNCONFIRMED_MAX: usize = 128;

#[derive(Clone, Debug)]
pub(super) struct Reading {
    rights: Rights,
    version: Version,
    window: usize,
    packet_bytes_max: usize,
    /// For how long its session is kept.
    pub(super) expiry_s: u32,
    filters: BTreeMap<String, bool>,
    /// The next record that it is handed, while it is subscribed to something.
    cursor: Option<u64>,
    unacknowledged: Vec<(u64, PacketId)>,
    /// Below this, records may have been sent over an older connection.
    sent_before: u64,
    sent: u64,
    gap: Option<(u64, u64)>,
    /// Reading the journal is to be asked for now, from here.
    follows: Option<Start>,
    /// What is to be sent now: its quality of service, and the offset.
    due: Option<(bool, u64)>,
    skips: usize,
    /// The least and the greatest offset that was sent over this connection.
    spread: Option<(u64, u64)>,
    /// A record did not get the identifier that it should have had: that was in use.
    has_met: bool,
    past: Past,
}

/// What is known of the connections before.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    /// The identifiers of what was not acknowledged when the last one broke, by offset.
    ids: BTreeMap<u64, PacketId>,
    has_met: bool,
}

impl Reading {
    pub(super) fn new(
        rights: Rights,
        (version, window, packet_bytes_max): (Version, usize, usize),
        expiry_s: u32,
        past: Past,
    ) -> Self {
        Self {
            rights,
            version,
            window,
            packet_bytes_max,
            expiry_s,
            filters: BTreeMap::new(),
            cursor: None,
            unacknowledged: Vec::new(),
            sent_before: 0,
            sent: 0,
            gap: None,
            follows: None,
            due: None,
            skips: 0,
            spread: None,
            has_met: false,
            past,
        }
    }

    pub(super) fn past(&self) -> Past {
        Past {
            ids: self.unacknowledged.iter().copied().collect(),
            has_met: self.has_met,
        }
    }

    pub(super) fn unacknowledged(&self, which: usize) -> Option<u16> {
        let known = &self.unacknowledged;
        (!known.is_empty()).then(|| known[which % known.len()].1.get())
    }

    /// It is welcome, with what was kept; says whether it may still have that.
    pub(super) fn resumes(&mut self, kept: Option<&Kept>) -> bool {
        let Some(kept) = kept else {
            self.past = Past::default();
            return true;
        };
        if !kept.filters.keys().all(|filter| self.may_read(filter)) {
            return false;
        }
        self.filters.clone_from(&kept.filters);
        (self.sent_before, self.sent) = (kept.sent, kept.sent);
        if !self.filters.is_empty() {
            self.cursor = kept.next;
            self.follows = Some(kept.next.map_or(Start::Now, Start::Offset));
        }
        true
    }

    /// SUBSCRIBE comes; gives the codes of its answer.
    pub(super) fn subscribes(&mut self, subscribe: &Subscribe<'_>) -> Vec<ReasonCode> {
        let mut properties = subscribe.user_properties.iter();
        let from = properties.find(|(name, _)| *name == "from");
        let begin = match (from, self.cursor) {
            (None, cursor) => Some(cursor.map_or(Start::Now, Start::Offset)),
            (Some(_), Some(_)) => None,
            (Some((_, "oldest")), None) => Some(Start::Oldest),
            (Some((_, offset)), None) => offset.parse().ok().map(Start::Offset),
        };
        let mut codes = Vec::new();
        for (at, one) in subscribe.subscriptions.iter().enumerate() {
            let is_known = self.filters.contains_key(one.filter);
            let is_full = self.filters.len() >= READ_FILTERS_MAX && !is_known;
            codes.push(if begin.is_none() {
                ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
            } else if at >= FILTERS_MAX || is_full {
                ReasonCode::QUOTA_EXCEEDED
            } else if one.filter.starts_with("$share/") {
                ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
            } else if !self.may_read(one.filter) {
                ReasonCode::NOT_AUTHORIZED
            } else {
                let is_confirmed = one.qos != Qos::AtMostOnce;
                self.filters.insert(one.filter.to_owned(), is_confirmed);
                self.follows = begin;
                [ReasonCode::GRANTED_QOS_0, ReasonCode::GRANTED_QOS_1][usize::from(is_confirmed)]
            });
        }
        codes
    }

    /// UNSUBSCRIBE comes; gives the codes of its answer.
    pub(super) fn unsubscribes(&mut self, unsubscribe: &Unsubscribe<'_>) -> Vec<ReasonCode> {
        let mut codes = Vec::new();
        for (at, filter) in unsubscribe.filters.iter().enumerate() {
            codes.push(if self.filters.remove(filter).is_some() {
                ReasonCode::SUCCESS
            } else if at < FILTERS_MAX {
                ReasonCode::NO_SUBSCRIPTION_EXISTED
            } else {
                ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR
            });
        }
        if self.filters.is_empty() {
            (self.cursor, self.gap) = (None, None);
        }
        codes
    }

    /// Reading the journal is asked for.
    pub(super) fn follow_is_asked(&mut self, from: Start, reads: &Reads) {
        assert_eq!(self.follows.take(), Some(from), "asked for when it is due");
        match reads {
            Reads::Bench => assert_eq!(self.rights, Rights::Bench),
            Reads::Records(filters) => {
                assert_ne!(self.rights, Rights::Bench);
                let filters = filters.iter().map(ToString::to_string);
                assert!(filters.eq(self.filters.keys().cloned()));
            }
        }
    }

    pub(super) fn following(&mut self, offset: u64) {
        if !self.filters.is_empty() {
            self.cursor = Some(offset);
        }
    }

    pub(super) fn looked_at(&mut self, offset: u64) {
        if let Some(cursor) = &mut self.cursor {
            *cursor = offset.max(*cursor);
        }
    }

    pub(super) fn missed(&mut self, from: u64, to: u64) {
        if self.cursor.is_some() {
            self.gap = Some((self.gap.map_or(from, |gap| gap.0), to));
            self.looked_at(to);
        }
    }

    /// A record is handed over.
    pub(super) fn record(&mut self, offset: u64, topic: &str, payload: &[u8]) {
        self.looked_at(offset + 1);
        let wanted = self
            .filters
            .iter()
            .filter(|(filter, _)| matches(filter, topic));
        if let Some(is_confirmed) = wanted.map(|(_, is_confirmed)| *is_confirmed).max() {
            if self.packet_bytes(is_confirmed, offset, topic, payload) > self.packet_bytes_max {
                self.skips += 1;
            } else {
                self.due = Some((is_confirmed, offset));
            }
        }
    }

    fn properties(&self, offset: u64) -> Vec<(&'static str, String)> {
        let gap = self
            .gap
            .map(|(from, to)| ("gap", format!("{from}-{}", to - 1)));
        match self.version {
            Version::V5 => [
                ("offset", offset.to_string()),
                ("incarnation", "1".to_owned()),
            ]
                .into_iter()
                .chain(gap)
                .collect(),
            Version::V311 => Vec::new(),
        }
    }

    fn packet_bytes(&self, is_confirmed: bool, offset: u64, topic: &str, payload: &[u8]) -> usize {
        let delivery = if is_confirmed {
            Delivery::at_least_once(PacketId::MIN)
        } else {
            Delivery::AtMostOnce
        };
        let properties = self.properties(offset);
        let properties: Vec<_> = properties
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let mut publish = Publish::new(topic, delivery, payload);
        publish.properties.user_properties = List::from(properties.as_slice());
        let mut out = Vec::new();
        publish
            .encode(self.version, &mut out)
            .expect("it is short enough");
        out.len()
    }

    /// A record was sent.
    pub(super) fn sent(&mut self, publish: &Publish<'_>, bytes: usize, record: (u64, &str, &[u8])) {
        let (offset, topic, payload) = record;
        let (is_confirmed, _) = self.due.take().expect("nothing else is sent");
        assert_eq!((publish.topic, publish.retain), (topic, false));
        assert!(publish.payload == payload);
        assert!(bytes <= self.packet_bytes_max);
        assert!(self.covers_topic(topic), "only what its rights open");
        let properties = self.properties(offset);
        let expected = properties.iter().map(|(key, value)| (*key, value.as_str()));
        assert!(publish.properties.user_properties.iter().eq(expected));
        self.gap = None;
        let is_new = offset >= self.sent_before;
        match publish.delivery {
            Delivery::AtMostOnce => assert!(!is_confirmed, "at its best quality of service"),
            Delivery::AtLeastOnce { id, dup } => {
                assert!(is_confirmed);
                assert_eq!(dup, !is_new, "a repeat says so");
                let in_use = |(_, one): &(u64, PacketId)| *one == id;
                assert!(
                    !self.unacknowledged.iter().any(in_use),
                    "an identifier in use"
                );
                // Records 65,535 apart want the same one: the second gets the next, and may push others on.
                let is_first_choice = offset % u64::from(u16::MAX) + 1 == u64::from(id.get());
                let may_meet = self.has_met || self.is_far_spread(offset);
                assert!(is_first_choice || may_meet, "another without need");
                self.has_met |= !is_first_choice;
                if let Some(before) = self.past.ids.get(&offset)
                    && !self.past.has_met
                    && !self.has_met
                {
                    assert_eq!(*before, id, "the same record, the same identifier");
                }
                self.unacknowledged.push((offset, id));
                assert!(
                    self.unacknowledged.len() <= self.window,
                    "no more than it takes"
                );
            }
            Delivery::ExactlyOnce { .. } => panic!("QoS 2"),
        }
        self.sent = self.sent.max(offset + 1);
        let (least, greatest) = self.spread.unwrap_or((offset, offset));
        self.spread = Some((least.min(offset), greatest.max(offset)));
    }

    /// Whether what was sent over this connection, with this, can have wanted the same identifier twice: it is far apart, or the same
    /// record came again to who subscribed anew.
    fn is_far_spread(&self, offset: u64) -> bool {
        self.spread.is_some_and(|(least, greatest)| {
            greatest.max(offset) - least.min(offset) >= u16::MAX.into() || offset <= greatest
        })
    }

    pub(super) fn skips(&mut self, count: usize) {
        assert_eq!(
            (count, self.skips),
            (1, 1),
            "what is too large is told, once"
        );
        self.skips = 0;
    }

    pub(super) fn acknowledged(&mut self, id: PacketId) {
        self.unacknowledged.retain(|(_, one)| *one != id);
    }

    /// What is to be kept of it now.
    pub(super) fn keeps(&self) -> Option<(Kept, u32)> {
        let first = self.unacknowledged.iter().map(|(offset, _)| *offset).min();
        let kept = Kept {
            filters: self.filters.clone(),
            next: first.into_iter().chain(self.cursor).min(),
            sent: self.sent,
        };
        (self.expiry_s > 0).then_some((kept, self.expiry_s))
    }

    /// Whether `kept` is what is to be kept.
    pub(super) fn check_kept(&self, kept: Option<&(Kept, u32)>) {
        let expected = self.keeps();
        let (Some((kept, kept_s)), Some((expected, expected_s))) = (kept, &expected) else {
            assert_eq!(kept, expected.as_ref());
            return;
        };
        assert_eq!((&kept.filters, kept_s), (&expected.filters, expected_s));
        if self.filters.is_empty() {
            assert_eq!(kept.next, None, "subscribed to nothing");
        } else {
            assert_eq!(
                kept.next, expected.next,
                "never past what is not acknowledged"
            );
        }
        assert_eq!(kept.sent, expected.sent);
    }

    /// After each call: what is due is done.
    pub(super) fn check(&self, session: &Session, waiting: usize) {
        assert_eq!(
            (self.follows, self.due, self.skips),
            (None, None, 0),
            "late"
        );
        let room = session.room();
        if self.cursor.is_none() || waiting >= OUTPUT_BYTES_MAX {
            assert_eq!(room, 0);
        } else if self.filters.values().any(|is_confirmed| *is_confirmed) {
            assert!(room <= self.window - self.unacknowledged.len());
            assert!(
                room > 0 || !self.unacknowledged.is_empty(),
                "it may have more"
            );
        } else {
            assert!((1..=UNCONFIRMED_MAX).contains(&room));
        }
    }

    pub(super) fn forgets_due(&mut self) {
        self.follows = None;
    }

    pub(super) fn may_publish(&self, topic: &str) -> bool {
        self.rights == Rights::Bench && is_bench(topic) && !topic.contains(['+', '#'])
    }

    fn covers_topic(&self, topic: &str) -> bool {
        if self.rights == Rights::Bench {
            return topic.starts_with("bench/");
        }
        self.may_read(topic)
    }

    /// Whether all that a filter matches is for it, and is something that readers read.
    fn may_read(&self, filter: &str) -> bool {
        let Rights::Read {
            events,
            reports,
            host,
            sandbox,
            ..
        } = &self.rights
        else {
            return is_bench(filter);
        };
        let is_host = |level: &str| level == "+" || HostId::new(level).is_ok();
        let is_sandbox = |level: &str| level == "+" || SandboxId::new(level).is_ok();
        let of_host = |level: &str| host.as_ref().is_none_or(|host| host.as_str() == level);
        let of_sandbox = |level: &str| sandbox.as_ref().is_none_or(|one| one.as_str() == level);
        match filter.split('/').collect::<Vec<_>>().as_slice() {
            ["v1", host, "reports"] => *reports && is_host(host) && of_host(host),
            ["v1", host, sandbox, "events"] => {
                let is_good = is_host(host) && is_sandbox(sandbox);
                *events && is_good && of_host(host) && of_sandbox(sandbox)
            }
            _ => false,
        }
    }
}

/// Whether it is a filter below `bench/`.
fn is_bench(filter: &str) -> bool {
    let levels: Vec<_> = filter.split('/').collect();
    let is_name = |level: &str| {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"+#$".contains(&byte);
        !level.is_empty() && level.bytes().all(is_plain)
    };
    let last = levels.len() - 1;
    filter.len() <= 256
        && last > 0
        && levels[0] == "bench"
        && levels
            .iter()
            .enumerate()
            .all(|(at, level)| is_name(level) || *level == "+" || *level == "#" && at == last)
}

/// MQTT 5.0 §4.7, straight from its words; no topic here begins with `$`.
fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}
