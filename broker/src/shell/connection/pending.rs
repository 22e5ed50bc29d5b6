//! Payloads on their way into the journal: begun all at once, so that they share its group commit, and finished in any order.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    core::gate::Ticket,
    drive::{Accepted, Queued},
};

/// Payloads that are stored together.
pub(super) enum Storing {
    /// In the journal's queue.
    Queued(Queued),
    /// They wait for room there, or for more than the journal.
    Waiting(Pin<Box<dyn Future<Output = Vec<Accepted>> + Send>>),
}

impl Storing {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Vec<Accepted>> {
        match self {
            Self::Queued(queued) => Pin::new(queued).poll(context),
            Self::Waiting(waiting) => waiting.as_mut().poll(context),
        }
    }
}

/// What is being stored for one connection. As many as its session lets in.
#[derive(Default)]
pub(super) struct Pending {
    storing: Vec<(Vec<Ticket>, Storing)>,
}

impl Pending {
    /// Some that are stored together: what becomes of each comes in the same order.
    pub(super) fn push(&mut self, tickets: Vec<Ticket>, storing: Storing) {
        self.storing.push((tickets, storing));
    }

    /// Whether something has no place in the journal's queue yet: what comes later must not overtake it.
    pub(super) fn is_waiting(&self) -> bool {
        let mut storing = self.storing.iter();
        storing.any(|(_, storing)| matches!(storing, Storing::Waiting(_)))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.storing.is_empty()
    }

    /// Looks at every one: what is never looked at may hold what another waits for. Those that are finished are told and gone.
    pub(super) fn poll_all(
        &mut self,
        context: &mut Context<'_>,
        mut tell: impl FnMut(Ticket, Accepted),
    ) {
        self.storing
            .retain_mut(|(tickets, storing)| match storing.poll(context) {
                Poll::Ready(accepted) => {
                    debug_assert_eq!(tickets.len(), accepted.len());
                    let answers = tickets.iter().zip(accepted);
                    answers.for_each(|(ticket, accepted)| tell(*ticket, accepted));
                    false
                }
                Poll::Pending => true,
            });
        if self.storing.is_empty() {
            self.storing.shrink_to(0);
        }
    }

    /// Finishes all.
    pub(super) async fn finish(mut self) {
        poll_fn(|context| {
            self.poll_all(context, |_, _| {});
            if self.is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({})", self.storing.len())
    }
}
