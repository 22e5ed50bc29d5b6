//! Publishes of the client: each that is taken is answered once, in order, as soon as those before it are.

use std::collections::VecDeque;

use protocol::{
    limits::RECEIVE_MAXIMUM,
    mqtt::{Delivery, PacketId, Publish, ReasonCode},
};

use crate::core::gate::{Outcome, QUIET_MAX, Ticket};

/// What must become of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is stored.
    Stored,
    /// It is answered with this.
    Refused(ReasonCode),
    /// It ends the session.
    Ends,
}

#[derive(Debug, Default)]
pub(super) struct Inbound {
    waiting: VecDeque<Waiting>,
    /// A publish that is to be stored, and was not yet.
    expected: Option<Option<PacketId>>,
    last: Option<Ticket>,
}

#[derive(Debug)]
struct Waiting {
    /// None for QoS 0.
    id: Option<PacketId>,
    ticket: Option<Ticket>,
    answer: Option<ReasonCode>,
}

impl Inbound {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A publish comes; `is_permitted` says whether its topic is the client's to publish to.
    pub(super) fn take(&mut self, publish: &Publish<'_>, is_permitted: bool) -> Fate {
        let id = publish.delivery.packet_id();
        let fate = self.fate(publish, is_permitted);
        match fate {
            Fate::Stored => self.expected = Some(id),
            Fate::Refused(reason) => self.waiting.push_back(Waiting {
                id,
                ticket: None,
                answer: Some(reason),
            }),
            Fate::Ends => {}
        }
        fate
    }

    fn fate(&self, publish: &Publish<'_>, is_permitted: bool) -> Fate {
        let is_exactly_once = matches!(publish.delivery, Delivery::ExactlyOnce { .. });
        if is_exactly_once || publish.retain || publish.topic_alias.is_some() {
            return Fate::Ends;
        }
        let topic = publish.topic;
        let is_printable = topic.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if !is_printable || topic.len() > 256 || topic.matches('/').count() > 7 {
            return Fate::Ends;
        }
        let id = publish.delivery.packet_id();
        let loud = || self.waiting.iter().filter_map(|waiting| waiting.id);
        if id.is_some_and(|id| loud().any(|one| one == id)) {
            return Fate::Ends;
        }
        if id.is_some() && loud().count() >= usize::from(RECEIVE_MAXIMUM) {
            return Fate::Ends;
        }
        if !is_permitted {
            return Fate::Refused(ReasonCode::NOT_AUTHORIZED);
        }
        if publish.properties.payload_is_text && str::from_utf8(publish.payload).is_err() {
            return match id {
                Some(_) => Fate::Refused(ReasonCode::PAYLOAD_FORMAT_INVALID),
                None => Fate::Ends,
            };
        }
        Fate::Stored
    }

    /// It is to be stored.
    pub(super) fn stores(&mut self, ticket: Ticket) {
        let id = self.expected.take().expect("nothing else is stored");
        assert!(self.last < Some(ticket), "no ticket twice");
        self.last = Some(ticket);
        self.waiting.push_back(Waiting {
            id,
            ticket: Some(ticket),
            answer: None,
        });
    }

    /// It is stored, or not.
    pub(super) fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        let waiting = self.waiting.iter_mut();
        let mut found = waiting.filter(|waiting| waiting.ticket == Some(ticket));
        found.next().expect("it waits").answer = Some(match outcome {
            Outcome::Stored => ReasonCode::SUCCESS,
            Outcome::Invalid => ReasonCode::PAYLOAD_FORMAT_INVALID,
            Outcome::Busy => ReasonCode::QUOTA_EXCEEDED,
            Outcome::Failed => ReasonCode::UNSPECIFIED_ERROR,
        });
        self.drop_quiet();
    }

    /// QoS 0 keeps its place in the order, and gets no answer.
    fn drop_quiet(&mut self) {
        while let Some(Waiting {
            id: None,
            answer: Some(_),
            ..
        }) = self.waiting.front()
        {
            self.waiting.pop_front();
        }
    }

    /// PUBACK was sent.
    pub(super) fn acknowledged(&mut self, id: PacketId, reason: ReasonCode) {
        self.drop_quiet();
        let first = self.waiting.pop_front().expect("something waits");
        assert_eq!((first.id, first.answer), (Some(id), Some(reason)));
        self.drop_quiet();
    }

    pub(super) fn check(&mut self, wants_packets: bool) {
        self.drop_quiet();
        assert_eq!(self.expected, None, "what may be stored is stored");
        if let Some(first) = self.waiting.front() {
            assert_eq!(first.answer, None, "an acknowledgement is late");
        }
        let quiet = self.waiting.iter().filter(|one| one.id.is_none()).count();
        assert!(quiet <= QUIET_MAX);
        assert!(self.waiting.len() - quiet <= usize::from(RECEIVE_MAXIMUM));
        assert!(quiet < QUIET_MAX || !wants_packets, "a flood is not read");
    }
}
