//! Publishes that came in one read are stored together: one place in the journal's queue, one look at the table of streams, one promise.

use std::sync::Arc;

use protocol::{stream::stream_id, topic::Topic};

use super::pending::{Pending, Storing};
use crate::{
    core::gate::{Target, Ticket},
    drive::{Accepted, Plane, Queued},
};

/// Of what is no sandbox's event.
const NO_STREAM: [u8; 16] = [0; 16];

/// Publishes that are not begun yet. Bounded by what one read holds, and by Receive Maximum.
#[derive(Debug, Default)]
pub(super) struct Burst {
    publishes: Vec<(Ticket, Target, Vec<u8>)>,
    /// The topic of events that was published to last, and its stream's id: a connection has one.
    stream: Option<(Arc<Topic>, [u8; 16])>,
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
            let stream = self.stream(&target);
            let queued = match pending.is_waiting() {
                false => queue(plane, &target, stream, &payloads),
                true => None,
            };
            let storing = queued.map_or_else(
                || Storing::Waiting(Box::pin(store(plane.clone(), target, stream, payloads))),
                Storing::Queued,
            );
            pending.push(tickets, storing);
        }
    }

    /// The id of the stream that is published to, if it is one. A hash: it is not made for each publish anew.
    fn stream(&mut self, target: &Target) -> [u8; 16] {
        let Target::Own(topic) = target else {
            return NO_STREAM;
        };
        let Topic::Events(host, sandbox) = &**topic else {
            return NO_STREAM;
        };
        match &self.stream {
            Some((last, id)) if Arc::ptr_eq(last, topic) => *id,
            Some(_) | None => {
                let id = stream_id(host, sandbox);
                self.stream = Some((Arc::clone(topic), id));
                id
            }
        }
    }
}

/// Queues events for the journal, if there is room for them at once: mostly there is, and then nothing is left but to wait for the disk.
fn queue(plane: &Plane, target: &Target, stream: [u8; 16], payloads: &[Vec<u8>]) -> Option<Queued> {
    let Target::Own(topic) = target else {
        return None;
    };
    match &**topic {
        Topic::Events(host, sandbox) => plane.queue_events((host, sandbox), stream, payloads),
        Topic::Reports(_) | Topic::Commands(_) => None,
    }
}

/// Stores payloads of one topic, and waits for room; what became of each, in their order.
async fn store(
    plane: Plane,
    target: Target,
    stream: [u8; 16],
    payloads: Vec<Vec<u8>>,
) -> Vec<Accepted> {
    let topic = match target {
        Target::Own(topic) => topic,
        Target::Bench(topic) => return plane.accept_bench(&topic, &payloads).await,
    };
    match &*topic {
        Topic::Events(host, sandbox) => {
            let whose = (host, sandbox);
            plane.accept_events(whose, stream, &payloads).await
        }
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
