//! What of the journal goes, and why: by age, by what one host may have, by what all together may have.
//!
//! The unit is what one host has in one segment. Ages are a segment's: it goes once its youngest record is too old, and segments span
//! a small part of the age that is kept ([`Limits::span_ms`]). Bytes go oldest first. Where all hosts together have too much, those with the
//! most give way, down to a common level: a host that keeps to its share of the whole loses nothing to another, however much that one
//! writes.

use super::journal::removed::Count;
use protocol::hole::Cause;
use std::collections::BTreeMap;

/// What goes goes down to so much less than the limit, as a part of it: a host that stands at its limit is not rewritten for every
/// record that it adds.
const SLACK: u64 = 16;
/// Parts of the greatest age that one segment spans at the most, so that nothing is kept for much longer than that.
const SPANS: u64 = 32;
/// The shortest span, in milliseconds: a segment is a file.
const SPAN_MS_MIN: u64 = 60 * 60 * 1000;

/// What is kept at the most; none is without limit. Of bytes, what is being written (a segment) comes on top.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// The greatest age, in milliseconds.
    pub age_ms: Option<u64>,
    /// Bytes of all hosts.
    pub bytes: Option<u64>,
    /// Bytes of one host.
    pub host_bytes: Option<u64>,
}

impl Limits {
    /// How much time a segment may span, in milliseconds, if that is bounded.
    #[must_use]
    pub fn span_ms(&self) -> Option<u64> {
        self.age_ms.map(|age| (age / SPANS).max(SPAN_MS_MIN))
    }
}

/// What a sealed segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its first offset.
    pub first: u64,
    /// The first offset after it.
    pub end: u64,
    /// When its first record was accepted, milliseconds since 1970.
    pub first_ms: u64,
    /// When its last record was. Of a segment whose end cannot be read, when the next one begins.
    pub last_ms: u64,
    /// Whether all of it can be read. What cannot is removed with the whole segment only.
    pub is_whole: bool,
    /// Its records, by host.
    pub hosts: BTreeMap<String, Count>,
}

impl Summary {
    fn is_old(&self, limits: &Limits, now_ms: u64) -> bool {
        limits
            .age_ms
            .is_some_and(|age| self.last_ms.saturating_add(age) < now_ms)
    }

    /// Whether no record is left in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.is_whole && self.hosts.is_empty()
    }

    /// The bytes of its records.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.hosts.values().map(|count| count.bytes).sum()
    }
}

/// What each host has, of what is not too old.
#[derive(Debug)]
pub struct Census {
    limits: Limits,
    now_ms: u64,
    hosts: BTreeMap<String, u64>,
}

impl Census {
    /// Of nothing yet.
    #[must_use]
    pub const fn new(limits: Limits, now_ms: u64) -> Self {
        Self {
            limits,
            now_ms,
            hosts: BTreeMap::new(),
        }
    }

    /// Counts a segment.
    pub fn add(&mut self, segment: &Summary) {
        if segment.is_old(&self.limits, self.now_ms) {
            return;
        }
        for (host, count) in &segment.hosts {
            match self.hosts.get_mut(host) {
                Some(bytes) => *bytes = bytes.saturating_add(count.bytes),
                None => {
                    self.hosts.insert(host.clone(), count.bytes);
                }
            }
        }
    }

    /// What is to go, once every segment is counted.
    #[must_use]
    pub fn plan(self) -> Plan {
        let Limits {
            bytes, host_bytes, ..
        } = self.limits;
        let host_room = |bytes: u64| match host_bytes {
            Some(limit) if bytes > limit => with_slack(limit),
            Some(_) | None => bytes,
        };
        let left = self.hosts.values().map(|bytes| host_room(*bytes)).collect();
        let level = bytes.and_then(|bytes| level(left, bytes));
        let over = self
            .hosts
            .into_iter()
            .filter_map(|(host, bytes)| {
                let room = host_room(bytes);
                let (room, cause) = match level {
                    Some(level) if level < room => (level, Cause::Bytes),
                    Some(_) | None => (room, Cause::Host),
                };
                (room < bytes).then(|| (host, (bytes - room, cause)))
            })
            .collect();
        Plan {
            limits: self.limits,
            now_ms: self.now_ms,
            over,
        }
    }
}

fn with_slack(limit: u64) -> u64 {
    limit - limit / SLACK
}

/// The most that each may have if all of these together have too much.
fn level(mut all: Vec<u64>, limit: u64) -> Option<u64> {
    let sum = all
        .iter()
        .fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    if sum <= limit {
        return None;
    }
    all.sort_unstable();
    let mut room = with_slack(limit);
    let mut sharers = u64::try_from(all.len()).unwrap_or(u64::MAX);
    for bytes in all {
        let share = room / sharers;
        if bytes > share {
            return Some(share);
        }
        room -= bytes;
        sharers -= 1;
    }
    None
}

/// Says of one segment after the other, the oldest first, what goes.
#[derive(Debug)]
pub struct Plan {
    limits: Limits,
    now_ms: u64,
    /// What each host has to give yet, and why.
    over: BTreeMap<String, (u64, Cause)>,
}

/// Whose records go, and why.
pub type Goes = BTreeMap<String, Cause>;

/// What a segment's judgement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays as it is.
    Stays,
    /// The records of these go, but for those that are needed.
    Loses(Goes),
    /// All of it goes, what cannot be read too: it is too old.
    Vanishes(Goes),
}

impl Plan {
    /// What goes of `segment`; `needed` are records of it that have to stay, by host.
    pub fn judge(&mut self, segment: &Summary, needed: &BTreeMap<String, u64>) -> Verdict {
        let is_old = segment.is_old(&self.limits, self.now_ms);
        let is_more_than_needed = |host: &String, count: &Count| {
            count.records > needed.get(host).copied().unwrap_or_default()
        };
        let goes: Goes = segment
            .hosts
            .iter()
            .filter(|(host, count)| is_more_than_needed(host, count))
            .filter_map(|(host, _)| {
                let over = self.over.get(host).filter(|(bytes, _)| *bytes > 0);
                let cause = if is_old {
                    Some(Cause::Age)
                } else {
                    over.map(|(_, cause)| *cause)
                };
                cause.map(|cause| (host.clone(), cause))
            })
            .collect();
        if !segment.is_whole {
            // Nobody knows whose the records are that cannot be read: only age speaks of all of them.
            return if is_old && needed.is_empty() {
                Verdict::Vanishes(goes)
            } else {
                Verdict::Stays
            };
        }
        if !is_old {
            for host in goes.keys() {
                if let (Some((bytes, _)), Some(count)) =
                    (self.over.get_mut(host), segment.hosts.get(host))
                {
                    *bytes = bytes.saturating_sub(count.bytes);
                }
            }
        }
        if goes.is_empty() {
            Verdict::Stays
        } else {
            Verdict::Loses(goes)
        }
    }
}

/// What will be left of one or more segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Bytes of records.
    pub bytes: u64,
    /// When the first was accepted.
    pub first_ms: u64,
    /// When the last was.
    pub last_ms: u64,
}

impl Left {
    /// What both together are, if one small file may stand for them: it holds an eighth of a segment at the most, and spans no more
    /// time than a segment may.
    #[must_use]
    pub fn join(self, next: Self, segment_bytes: u64, limits: &Limits) -> Option<Self> {
        if next.bytes == 0 {
            return (self.bytes <= segment_bytes / 8).then_some(self);
        }
        if self.bytes == 0 {
            return (next.bytes <= segment_bytes / 8).then_some(next);
        }
        let joined = Self {
            bytes: self.bytes.saturating_add(next.bytes),
            first_ms: self.first_ms.min(next.first_ms),
            last_ms: self.last_ms.max(next.last_ms),
        };
        let span = joined.last_ms.saturating_sub(joined.first_ms);
        let fits =
            joined.bytes <= segment_bytes / 8 && limits.span_ms().is_none_or(|max| span <= max);
        fits.then_some(joined)
    }
}

#[cfg(test)]
mod tests;
