//! How long an HTTP connection may last, and the room that it takes meanwhile.
//!
//! Over HTTP hardly anybody proves who they are: connections are short, and count as strangers' to the end. But for a reader of a
//! stream: once its token was good it takes no room that others need, and stays as long as its stream.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::sleep_until,
};

use super::door::Stranger;
use crate::shell::clock;

/// The right to stay. What serves the connection holds it, and may change how long that is.
#[derive(Debug)]
pub struct Stay {
    /// Given back when it proves who it is, at the latest when it goes.
    room: Mutex<Option<Room>>,
    /// None: as long as it likes.
    until: watch::Sender<Option<Instant>>,
}

type Room = (OwnedSemaphorePermit, Stranger);

/// The other side of it: ends the connection.
#[derive(Debug)]
pub(super) struct Limit {
    stay: Arc<Stay>,
    until: watch::Receiver<Option<Instant>>,
}

impl Stay {
    pub(super) fn new(room: Room, wait: Duration) -> (Arc<Self>, Limit) {
        let (until, received) = watch::channel(Some(clock::mono() + wait));
        let stay = Arc::new(Self {
            room: Mutex::new(Some(room)),
            until,
        });
        let limit = Limit {
            stay: Arc::clone(&stay),
            until: received,
        };
        (stay, limit)
    }

    /// One that has no room to give back.
    #[cfg(test)]
    pub(crate) fn alone(wait: Duration) -> (Arc<Self>, impl Future<Output = ()>) {
        let (until, received) = watch::channel(Some(clock::mono() + wait));
        let stay = Arc::new(Self {
            room: Mutex::default(),
            until,
        });
        let limit = Limit {
            stay: Arc::clone(&stay),
            until: received,
        };
        (stay, limit.hold(std::future::pending()))
    }

    /// Its client has shown who it is: no stranger any more, and no end in sight.
    pub fn settle(&self) {
        self.give_back();
        self.until.send_replace(None);
    }

    /// It ends after this, whatever is still unsent.
    pub fn end_within(&self, wait: Duration) {
        self.until.send_replace(Some(clock::mono() + wait));
    }

    /// Resolves when the connection is gone.
    pub async fn over(&self) {
        self.until.closed().await;
    }

    fn give_back(&self) {
        let room = self
            .room
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(room);
    }
}

impl Limit {
    /// Serves a connection to its end, or as long as it may last.
    pub(super) async fn hold(mut self, serving: impl Future<Output = ()>) {
        tokio::select! {
            () = serving => {}
            () = self.passed() => {}
        }
        self.stay.give_back();
    }

    async fn passed(&mut self) {
        loop {
            let until = *self.until.borrow_and_update();
            let end = async {
                match until {
                    Some(until) => sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = end => return,
                // The sender is ours too: it changes, and is never gone.
                _ = self.until.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_millis(200);
    /// Nothing here takes as long.
    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_connection_ends_when_its_time_is_over_unless_its_client_is_known() {
        let (stay, stranger) = Stay::alone(SHORT);
        timeout(DEADLINE, stranger).await.unwrap();
        timeout(DEADLINE, stay.over()).await.unwrap();
        let (stay, reader) = Stay::alone(SHORT);
        stay.settle();
        let mut reader = std::pin::pin!(reader);
        assert!(timeout(LONG, &mut reader).await.is_err(), "it stays");
        // A last word may take this long, and no longer.
        stay.end_within(SHORT);
        timeout(DEADLINE, reader).await.unwrap();
    }
}
