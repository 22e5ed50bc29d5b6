//! Publishes that came in one read are stored together: one place in the journal's queue, one look at the table of streams, one promise.

use protocol::topic::Topic;

use super::pending::Pending;
use crate::{
    core::gate::{Target, Ticket},
    drive::{Accepted, Plane},
};

/// Publishes that are not begun yet. Bounded by what one read holds, and by Receive Maximum.
#[derive(Debug, Default)]
pub(super) struct Burst {
    publishes: Vec<(Ticket, Target, Vec<u8>)>,
}

impl Burst {
    pub(super) fn push(&mut self, ticket: Ticket, target: Target, payload: Vec<u8>) {
        self.publishes.push((ticket, target, payload));
    }

    /// Begins all of them: those that follow each other to one topic together. Reports each by itself, since the store follows each.
    pub(super) fn begin(&mut self, plane: &Plane, pending: &mut Pending) {
        let mut publishes = std::mem::take(&mut self.publishes).into_iter().peekable();
        while let Some((ticket, target, payload)) = publishes.next() {
            let (mut tickets, mut payloads) = (vec![ticket], vec![payload]);
            let is_alone =
                matches!(&target, Target::Own(topic) if matches!(**topic, Topic::Reports(_)));
            while let Some((ticket, _, payload)) =
                publishes.next_if(|(_, next, _)| !is_alone && *next == target)
            {
                tickets.push(ticket);
                payloads.push(payload);
            }
            pending.push(tickets, store(plane.clone(), target, payloads));
        }
    }
}

/// Stores payloads of one topic; what became of each, in their order.
async fn store(plane: Plane, target: Target, payloads: Vec<Vec<u8>>) -> Vec<Accepted> {
    let topic = match target {
        Target::Own(topic) => topic,
        Target::Bench(topic) => return plane.accept_bench(&topic, &payloads).await,
    };
    match &*topic {
        Topic::Events(host, sandbox) => plane.accept_events(host, sandbox, &payloads).await,
        Topic::Reports(host) => {
            let mut accepted = Vec::new();
            for payload in payloads {
                accepted.push(plane.accept_report(host, payload).await);
            }
            accepted
        }
        Topic::Commands(_) => {
            debug_assert!(false, "nobody may publish commands");
            vec![Accepted::Malformed; payloads.len()]
        }
    }
}
