//! Which reports are owed to the broker, and in what order. The bytes are on disk; here are only their numbers.
//!
//! A report gets the next number of a sequence that lives as long as the state directory, is persisted, and only then added here.
//! It is published, oldest first, on every link until the broker acknowledges it, and only then removed from the disk. So a
//! report may arrive twice, and never not at all; its number tells the broker which it has seen.
//!
//! Nothing that is numbered is ever dropped for want of room, so that the numbers have no holes. What gives way does so before it
//! gets a number: first the status (only the newest is worth sending, and none when much waits), then forwarded batches, which
//! wait in their spool. Outcomes of commands always find room: when the outbox is full, no new command is accepted.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pace::{Lane, Pace};

/// Reports waiting before statuses and forwarded batches give way and commands are deferred. At 300 bytes each it is little disk,
/// and more than a host says in an ordinary day offline.
pub const REPORTS_MAX: usize = 1024;

/// Forwarded batches in the outbox at once. Each may be 49 KiB and lies in its spool anyway until there is room here.
pub const FORWARDED_MAX: usize = 8;

/// Statuses in the outbox at once: the parts of one, for a host that runs as many sandboxes as a policy may allow.
pub const STATUSES_MAX: usize = 4;

/// What a report is, as far as room for it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What became of a command or a sandbox.
    Outcome,
    /// A batch that a sandbox left unsent.
    Forwarded,
    /// The host, whole.
    Status,
}

/// There is no room for a report of this class now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the outbox is full")]
pub struct Full;

/// What became of a refused report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The broker will never take it: remove it from the disk.
    Dropped,
    /// It is sent again later.
    Held,
    /// It is not in the outbox any more.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    class: Class,
    sent: bool,
}

/// The reports that are owed. See the module.
#[derive(Clone, Debug)]
pub struct Outbox {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    held_until: Option<Instant>,
    pace: Pace,
}

impl Outbox {
    /// The reports found on disk; `next` is one past the highest number ever given.
    #[must_use]
    pub fn new(found: impl IntoIterator<Item = (u64, Class)>, next: u64) -> Self {
        let entries: BTreeMap<u64, Entry> = found
            .into_iter()
            .map(|(number, class)| (number, Entry { class, sent: false }))
            .collect();
        let after = entries
            .last_key_value()
            .map_or(0, |(number, _)| number.saturating_add(1));
        Self {
            entries,
            next: next.max(after),
            held_until: None,
            pace: Pace::default(),
        }
    }

    /// The number for the next report, if there is room for one of this class. Persist the report, then [`Outbox::add`] it.
    ///
    /// # Errors
    /// [`Full`]; never for an outcome.
    pub fn next_number(&self, class: Class) -> Result<u64, Full> {
        let room = match class {
            Class::Outcome => true,
            Class::Forwarded => !self.is_full() && self.count(class) < FORWARDED_MAX,
            Class::Status => !self.is_full() && self.count(class) < STATUSES_MAX,
        };
        if room { Ok(self.next) } else { Err(Full) }
    }

    /// Adds a report that is on disk under this number.
    pub fn add(&mut self, number: u64, class: Class) {
        self.next = self.next.max(number.saturating_add(1));
        self.entries
            .entry(number)
            .or_insert(Entry { class, sent: false });
    }

    /// The oldest report that is not on its way. Publish it, then [`Outbox::sent`].
    #[must_use]
    pub fn poll_send(&self, now: Instant) -> Option<u64> {
        if self.held_until.is_some_and(|until| now < until) {
            return None;
        }
        self.entries
            .iter()
            .find(|(_, entry)| !entry.sent)
            .map(|(number, _)| *number)
    }

    /// When [`Outbox::poll_send`] may answer again, if it holds back now.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.held_until.filter(|until| now < *until)
    }

    /// A report is on its way.
    pub fn sent(&mut self, number: u64) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.sent = true;
        }
    }

    /// The broker has it on disk: remove it from ours. False if it was not owed any more.
    pub fn acked(&mut self, number: u64) -> bool {
        self.pace.reset();
        self.entries.remove(&number).is_some()
    }

    /// The broker refused it with an MQTT 5 reason code of PUBACK.
    pub fn refused(&mut self, number: u64, code: u8, now: Instant, random: u64) -> Refused {
        let Some(entry) = self.entries.get_mut(&number) else {
            return Refused::Unknown;
        };
        if is_never(code) {
            self.entries.remove(&number);
            return Refused::Dropped;
        }
        entry.sent = false;
        self.held_until = Some(now + self.pace.after_failure(Lane::Ordinary, random));
        Refused::Held
    }

    /// It cannot be sent as it is, ever: too large, or unreadable. True if it was owed.
    pub fn drop_unsendable(&mut self, number: u64) -> bool {
        self.entries.remove(&number).is_some()
    }

    /// The link is over: what was on its way is owed again.
    pub fn link_lost(&mut self) {
        self.held_until = None;
        for entry in self.entries.values_mut() {
            entry.sent = false;
        }
    }

    /// How many reports are owed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is owed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether so much waits that no new command may be accepted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= REPORTS_MAX
    }

    /// Whether this report is owed.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    /// How many reports of a class are owed.
    #[must_use]
    pub fn count(&self, class: Class) -> usize {
        self.entries
            .values()
            .filter(|entry| entry.class == class)
            .count()
    }
}

/// Codes that say the report itself is at fault: topic invalid (0x90), too large (0x95), payload invalid (0x99).
fn is_never(code: u8) -> bool {
    matches!(code, 0x90 | 0x95 | 0x99)
}

/// How long a caller waits before it looks for room again.
pub const ROOM_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "an origin for the test's own clock"
    )]
    fn now() -> Instant {
        Instant::now()
    }

    fn add(outbox: &mut Outbox, class: Class) -> Result<u64, Full> {
        let number = outbox.next_number(class)?;
        outbox.add(number, class);
        Ok(number)
    }

    fn send_all(outbox: &mut Outbox) -> Vec<u64> {
        let mut sent = vec![];
        while let Some(number) = outbox.poll_send(now()) {
            outbox.sent(number);
            sent.push(number);
        }
        sent
    }

    #[test]
    fn reports_go_out_oldest_first_and_again_on_every_link_until_acknowledged() {
        let mut outbox = Outbox::new([], 0);
        for _ in 0..3 {
            add(&mut outbox, Class::Outcome).unwrap();
        }
        assert_eq!(send_all(&mut outbox), [0, 1, 2]);
        assert!(outbox.acked(1) && !outbox.acked(1));
        outbox.link_lost();
        assert_eq!(send_all(&mut outbox), [0, 2]);
        assert!(outbox.acked(0) && outbox.acked(2) && outbox.is_empty());
    }

    #[test]
    fn numbers_go_on_after_a_restart_even_from_an_empty_outbox() {
        assert_eq!(Outbox::new([], 7).next_number(Class::Outcome), Ok(7));
        let found = Outbox::new([(4, Class::Outcome), (9, Class::Forwarded)], 3);
        assert_eq!(found.next_number(Class::Outcome), Ok(10));
    }

    #[test]
    fn outcomes_always_find_room_and_everything_else_gives_way() {
        let mut outbox = Outbox::new([], 0);
        for _ in 0..STATUSES_MAX {
            assert!(add(&mut outbox, Class::Status).is_ok());
        }
        assert_eq!(add(&mut outbox, Class::Status), Err(Full));
        for _ in 0..FORWARDED_MAX {
            assert!(add(&mut outbox, Class::Forwarded).is_ok());
        }
        assert_eq!(add(&mut outbox, Class::Forwarded), Err(Full));
        outbox = Outbox::new([], 0);
        while !outbox.is_full() {
            add(&mut outbox, Class::Outcome).unwrap();
        }
        assert_eq!(outbox.next_number(Class::Status), Err(Full));
        assert_eq!(outbox.next_number(Class::Forwarded), Err(Full));
        assert!(add(&mut outbox, Class::Outcome).is_ok());
    }

    #[test]
    fn the_numbers_of_what_is_sent_have_no_holes() {
        let mut outbox = Outbox::new([], 0);
        for class in [Class::Status, Class::Forwarded, Class::Outcome].repeat(20) {
            let _ = add(&mut outbox, class);
        }
        let sent = send_all(&mut outbox);
        assert_eq!(sent.len(), STATUSES_MAX + FORWARDED_MAX + 20);
        assert!(sent.iter().copied().eq(0..sent.len() as u64));
    }

    #[test]
    fn a_refused_report_is_held_and_a_poisonous_one_does_not_block_the_rest() {
        let mut outbox = Outbox::new([], 0);
        for _ in 0..2 {
            add(&mut outbox, Class::Outcome).unwrap();
        }
        send_all(&mut outbox);
        let start = now();
        assert_eq!(outbox.refused(0, 0x97, start, u64::MAX), Refused::Held);
        assert_eq!(outbox.poll_send(start), None);
        let later = outbox.poll_timeout(start).unwrap();
        assert_eq!(outbox.poll_send(later), Some(0));
        assert_eq!(outbox.refused(0, 0x99, start, 0), Refused::Dropped);
        assert_eq!(outbox.refused(0, 0x99, start, 0), Refused::Unknown);
        assert_eq!(outbox.len(), 1);
    }

    #[test]
    fn an_outcome_asked_for_again_is_sent_again_under_its_own_number() {
        let mut outbox = Outbox::new([], 5);
        outbox.add(2, Class::Outcome);
        assert_eq!(send_all(&mut outbox), [2]);
        assert_eq!(outbox.next_number(Class::Outcome), Ok(5));
        outbox.add(2, Class::Outcome);
        assert!(send_all(&mut outbox).is_empty(), "already on its way");
    }
}
