//! Publishes of the client that wait for the journal, and their acknowledgements in the order they came (MQTT 5.0 §4.6).

use std::collections::VecDeque;

use protocol::{
    limits::RECEIVE_MAXIMUM,
    mqtt::{Ack, PacketId, ReasonCode, Version},
};

/// QoS 0 publishes that may wait. Nothing acknowledges them, so the only way to slow their sender down is not to read.
pub const QUIET_MAX: usize = 128;

/// Names one publish of one connection, until it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What waits, oldest first.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: VecDeque<Waiting>,
    /// The ticket of the first in `waiting`.
    first: u64,
    /// How many in `waiting` are QoS 0.
    quiet: usize,
}

#[derive(Debug)]
struct Waiting {
    /// None for QoS 0.
    id: Option<PacketId>,
    /// What to acknowledge it with, once that is known.
    answer: Option<ReasonCode>,
}

/// Why a publish has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// As many are unacknowledged as we said we take.
    Full,
    /// That packet identifier is in use.
    InUse,
}

impl Inbox {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether QoS 0 publishes wait in such number that no more should be read.
    pub(super) const fn is_flooded(&self) -> bool {
        self.quiet >= QUIET_MAX
    }

    /// Takes a publish in.
    pub(super) fn take(&mut self, id: Option<PacketId>) -> Result<Ticket, NoPlace> {
        match id {
            None => self.quiet += 1,
            Some(id) => {
                if self.waiting.len() - self.quiet >= usize::from(RECEIVE_MAXIMUM) {
                    return Err(NoPlace::Full);
                }
                if self.waiting.iter().any(|waiting| waiting.id == Some(id)) {
                    return Err(NoPlace::InUse);
                }
            }
        }
        let ticket = Ticket(self.first + self.waiting.len() as u64);
        self.waiting.push_back(Waiting { id, answer: None });
        Ok(ticket)
    }

    /// Notes the answer to one, and writes every acknowledgement whose turn it is.
    pub(super) fn answer(&mut self, ticket: Ticket, reason: ReasonCode, output: &mut Vec<u8>) {
        let at = ticket.0.checked_sub(self.first).map(usize::try_from);
        if let Some(Ok(at)) = at
            && let Some(waiting) = self.waiting.get_mut(at)
        {
            waiting.answer = Some(reason);
        }
        while let Some(Waiting {
            id,
            answer: Some(reason),
        }) = self.waiting.front()
        {
            match id {
                None => self.quiet -= 1,
                Some(id) => {
                    // A success is the same in both versions, and an error is told in the newer one only.
                    let written = Ack::puback(*id, *reason).encode(Version::V5, output);
                    debug_assert!(written.is_ok(), "an acknowledgement is five bytes");
                }
            }
            self.waiting.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> Option<PacketId> {
        PacketId::new(number)
    }

    #[test]
    fn acknowledgements_go_out_in_the_order_of_their_publishes() {
        // Every order in which four publishes can be stored, the third of them QoS 0.
        let ids = [id(7), id(3), None, id(9)];
        let expected = [0x40, 2, 0, 7, 0x40, 2, 0, 3, 0x40, 3, 0, 9, 0x80];
        for order in 0..4_usize.pow(4) {
            let order: Vec<_> = (0..4).map(|place| order / 4_usize.pow(place) % 4).collect();
            if !(0..4).all(|one| order.contains(&one)) {
                continue;
            }
            let (mut inbox, mut output) = (Inbox::default(), Vec::new());
            let tickets = ids.map(|id| inbox.take(id).unwrap());
            for one in order {
                let reason =
                    [ReasonCode::SUCCESS, ReasonCode::UNSPECIFIED_ERROR][usize::from(one == 3)];
                inbox.answer(tickets[one], reason, &mut output);
                assert!(expected.starts_with(&output));
            }
            assert_eq!(output, expected);
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn an_old_ticket_changes_nothing() {
        let (mut inbox, mut output) = (Inbox::default(), Vec::new());
        let ticket = inbox.take(id(1)).unwrap();
        inbox.answer(ticket, ReasonCode::SUCCESS, &mut output);
        let next = inbox.take(id(1)).unwrap();
        assert_ne!(ticket, next);
        inbox.answer(ticket, ReasonCode::SUCCESS, &mut output);
        assert_eq!(output.len(), 4);
    }

    #[test]
    fn an_identifier_is_free_again_once_acknowledged_and_not_before() {
        let mut inbox = Inbox::default();
        let ticket = inbox.take(id(1)).unwrap();
        assert_eq!(inbox.take(id(1)), Err(NoPlace::InUse));
        inbox.answer(ticket, ReasonCode::SUCCESS, &mut Vec::new());
        assert!(inbox.take(id(1)).is_ok());
    }

    #[test]
    fn one_more_than_receive_maximum_has_no_place_and_quiet_ones_do_not_count() {
        let mut inbox = Inbox::default();
        for number in 1..=RECEIVE_MAXIMUM {
            inbox.take(id(number)).unwrap();
        }
        assert_eq!(inbox.take(id(RECEIVE_MAXIMUM + 1)), Err(NoPlace::Full));
        for _ in 0..QUIET_MAX {
            assert!(!inbox.is_flooded());
            inbox.take(None).unwrap();
        }
        assert!(inbox.is_flooded());
    }
}
