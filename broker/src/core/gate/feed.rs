//! What a reader subscribed to: a cursor on the journal, not a queue.
//!
//! Nothing waits here but what is sent and not acknowledged, at most a window of it. What a slow reader has not taken stays in the
//! journal. The cursor to come back to is the first offset that is not acknowledged; of the acknowledgements behind it nothing is
//! kept, so after a break some messages come twice, and none is left out.

use std::collections::{BTreeMap, VecDeque};

use protocol::{
    hole::Causes,
    mqtt::{Delivery, List, PacketId, Publish, Version},
    scope::covers,
    topic::ReadFilter,
};

use super::outbox::OUTPUT_BYTES_MAX;
use crate::core::incarnation::Withdrawn;

/// Filters of one reader. A reader of everything needs two.
pub const READ_FILTERS_MAX: usize = 64;
/// Records that may be handed over at once where nothing is acknowledged (QoS 0).
const UNCONFIRMED_MAX: usize = 128;

/// One message for a reader: a record of the journal.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its offset in the journal.
    pub offset: u64,
    /// The incarnation that gave it that offset.
    pub incarnation: u64,
    /// The topic that it was published to.
    pub topic: &'a str,
    /// The bytes as they were published; of a batch whose body was purged, its signed head.
    pub payload: &'a [u8],
    /// Its body was purged.
    pub is_purged: bool,
}

/// What is kept of a reader's session while it is away: which filters, and from which offset on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its filters, each with whether it is served at QoS 1.
    pub filters: BTreeMap<String, bool>,
    /// The first offset that was not acknowledged; none while nothing is subscribed.
    pub next: Option<u64>,
    /// Everything below this was sent before, if not acknowledged.
    pub sent: u64,
}

impl Kept {
    /// The same at a place that was written down since, where anything is subscribed.
    #[must_use]
    pub fn at(self, place: Option<Place>) -> Self {
        match (self.next, place) {
            (Some(_), Some(place)) => Self {
                next: Some(place.next),
                sent: place.sent,
                ..self
            },
            _ => self,
        }
    }
}

/// How far a reader got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first offset that it has not acknowledged.
    pub next: u64,
    /// Everything below this was sent.
    pub sent: u64,
}

/// What is read for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Records that any of these filters admits.
    Records(Vec<ReadFilter>),
    /// The partition of load tests, whole: which topics are wanted is looked at here.
    Bench,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Feed {
    filters: BTreeMap<String, bool>,
    /// The next offset that the shell will hand over; none while nothing is subscribed.
    next: Option<u64>,
    /// Sent at QoS 1, in the order of their offsets; the first is not acknowledged.
    unacknowledged: VecDeque<Sent>,
    /// Below this everything was sent before: it goes out marked as a repeat.
    repeated: u64,
    /// One past the greatest offset that was sent.
    sent: u64,
    /// Records that cannot be read any more, until the next message tells of them.
    gap: Option<(u64, u64, Causes)>,
    /// Of those, what a restore withdrew: the last of it.
    withdrawn: Option<Withdrawn>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    id: PacketId,
    offset: u64,
    is_acknowledged: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// It is in the output.
    Sent,
    /// No filter wants it.
    Unwanted,
    /// It is larger than the client takes (MQTT 5.0 §3.1.2.11.4).
    TooLarge,
}

/// What the client takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) version: Version,
    /// Messages at QoS 1 that may be unacknowledged.
    pub(super) window: usize,
    /// The largest packet, in bytes.
    pub(super) packet_bytes_max: usize,
}

impl Feed {
    /// Goes on where a session was left.
    pub(super) fn resume(kept: Kept) -> Self {
        Self {
            filters: kept.filters,
            next: kept.next,
            repeated: kept.sent,
            sent: kept.sent,
            ..Self::default()
        }
    }

    /// How far it got; none while nothing is subscribed. Whoever subscribed anew, further back, has not got to all that it has not
    /// acknowledged.
    pub(super) fn place(&self) -> Option<Place> {
        let open = self.unacknowledged.iter();
        let open = open.filter(|sent| !sent.is_acknowledged);
        let first = open.map(|sent| sent.offset).chain(self.next).min();
        first
            .filter(|_| !self.filters.is_empty())
            .map(|next| Place {
                next,
                sent: self.sent.max(self.repeated),
            })
    }

    /// What to keep of it.
    pub(super) fn keep(&self) -> Kept {
        Kept {
            filters: self.filters.clone(),
            next: self.place().map(|place| place.next),
            sent: self.sent.max(self.repeated),
        }
    }

    /// The filters.
    pub(super) fn filters(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(String::as_str)
    }

    /// What is to be read for it.
    pub(super) fn reads(&self, is_bench: bool) -> Reads {
        if is_bench {
            return Reads::Bench;
        }
        Reads::Records(self.filters().filter_map(ReadFilter::parse).collect())
    }

    /// Where the shell is to read; none while nothing is subscribed.
    pub(super) const fn next(&self) -> Option<u64> {
        self.next
    }

    /// Whether there is no room for this filter. What it has it may have again (MQTT 5.0 §3.8.4).
    pub(super) fn is_full_for(&self, filter: &str) -> bool {
        self.filters.len() >= READ_FILTERS_MAX && !self.filters.contains_key(filter)
    }

    pub(super) fn subscribe(&mut self, filter: &str, is_confirmed: bool) {
        self.filters.insert(filter.to_owned(), is_confirmed);
    }

    /// Whether there was such a subscription.
    pub(super) fn unsubscribe(&mut self, filter: &str) -> bool {
        let was_there = self.filters.remove(filter).is_some();
        if self.filters.is_empty() {
            self.next = None;
            self.gap = None;
            self.withdrawn = None;
        }
        was_there
    }

    /// The shell's cursor stands at `offset`.
    pub(super) fn start(&mut self, offset: u64) {
        if self.has_filters() {
            self.next = Some(offset);
        }
    }

    /// Whether anything is subscribed.
    pub(super) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// How many messages may be handed over now.
    pub(super) fn room(&self, limits: Limits, output_bytes: usize) -> usize {
        if self.next.is_none() || output_bytes >= OUTPUT_BYTES_MAX {
            return 0;
        }
        if self.filters.values().any(|is_confirmed| *is_confirmed) {
            limits.window.saturating_sub(self.unacknowledged.len())
        } else {
            UNCONFIRMED_MAX
        }
    }

    /// Writes a message out, at the best quality of service that one of its filters has, once.
    pub(super) fn write(
        &mut self,
        message: Message<'_>,
        limits: Limits,
        output: &mut Vec<u8>,
    ) -> Written {
        let Message {
            offset,
            incarnation,
            topic,
            payload,
            is_purged,
        } = message;
        self.advance(offset.saturating_add(1));
        let wanted = self.filters.iter();
        let Some(is_confirmed) = wanted
            .filter(|(filter, _)| covers(filter, topic))
            .map(|(_, is_confirmed)| *is_confirmed)
            .max()
        else {
            return Written::Unwanted;
        };
        let delivery = if is_confirmed {
            Delivery::AtLeastOnce {
                id: self.free_id(offset),
                dup: offset < self.repeated,
            }
        } else {
            Delivery::AtMostOnce
        };
        let (mut offset_text, mut incarnation_text) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (gap, withdrawn) = (self.gap_texts(), self.withdrawn);
        let withdrawn = withdrawn.map(|part| range_text(part.from, part.to));
        let mut properties = vec![
            ("offset", offset_text.format(offset)),
            ("incarnation", incarnation_text.format(incarnation)),
        ];
        properties.extend(is_purged.then_some(("body", "purged")));
        if let Some((run, causes)) = &gap {
            properties.push(("gap", run));
            properties.extend((!causes.is_empty()).then_some(("gap-reason", causes.as_str())));
        }
        properties.extend(withdrawn.as_deref().map(|part| ("withdrawn", part)));
        let mut publish = Publish::new(topic, delivery, payload);
        publish.properties.user_properties = List::from(properties.as_slice());
        let before = output.len();
        let written = publish.encode(limits.version, output);
        if written.is_err() || output.len() - before > limits.packet_bytes_max {
            output.truncate(before);
            return Written::TooLarge;
        }
        self.gap = None;
        self.withdrawn = None;
        self.sent = self.sent.max(offset.saturating_add(1));
        if let Some(id) = delivery.packet_id() {
            self.unacknowledged.push_back(Sent {
                id,
                offset,
                is_acknowledged: false,
            });
        }
        Written::Sent
    }

    /// The shell has looked at everything below `offset`.
    pub(super) fn advance(&mut self, offset: u64) {
        if let Some(next) = &mut self.next {
            *next = (*next).max(offset);
        }
    }

    /// The records from `from` up to and not including `to` cannot be read, and of some of them a restore is the reason: the next message
    /// says so.
    pub(super) fn miss(
        &mut self,
        from: u64,
        to: u64,
        causes: Causes,
        withdrawn: Option<Withdrawn>,
    ) {
        if self.next.is_none() {
            return;
        }
        let (from, causes) = self.gap.map_or((from, causes), |(before, _, known)| {
            (before.min(from), known.and(causes))
        });
        self.gap = Some((from, to, causes));
        self.withdrawn = withdrawn.or(self.withdrawn);
        self.advance(to);
    }

    /// Notes an acknowledgement, in whatever order. One for nothing we sent is no news.
    pub(super) fn acknowledge(&mut self, id: PacketId) {
        if let Some(sent) = self.unacknowledged.iter_mut().find(|sent| sent.id == id) {
            sent.is_acknowledged = true;
        }
        while self
            .unacknowledged
            .front()
            .is_some_and(|sent| sent.is_acknowledged)
        {
            self.unacknowledged.pop_front();
        }
    }

    /// The same offset has the same identifier after a break, as the standard wants of what is sent again (MQTT 5.0 §4.4); but for
    /// one that is in use.
    fn free_id(&self, offset: u64) -> PacketId {
        let number = u16::try_from(offset % u64::from(u16::MAX)).unwrap_or_default();
        let mut id = PacketId::new(number.saturating_add(1)).unwrap_or(PacketId::MIN);
        while self.unacknowledged.iter().any(|sent| sent.id == id) {
            id = PacketId::new(id.get().wrapping_add(1)).unwrap_or(PacketId::MIN);
        }
        id
    }

    fn gap_texts(&self) -> Option<(String, String)> {
        self.gap
            .map(|(from, to, causes)| (range_text(from, to), causes.to_string()))
    }
}

/// As far as its last offset, so that people and programs read it alike.
fn range_text(from: u64, to: u64) -> String {
    format!("{from}-{}", to.saturating_sub(1))
}

#[cfg(test)]
mod tests;
