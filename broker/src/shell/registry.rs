//! Who is online, one connection for each subject. A newcomer takes the seat of the one before it, which is told and gone first.
//! A host's sandboxes, and the client ids of one reader, are so many at once and no more.

mod quota;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use protocol::mqtt::ReasonCode;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot, watch},
    time::timeout,
};

use crate::{
    core::principal::Who,
    drive::{Plane, Withdrawn},
};
use quota::Quota;

pub use quota::{BENCH_CONNECTIONS_MAX, CONNECTIONS_PER_READER_MAX, SANDBOXES_PER_HOST_MAX};

/// How long a newcomer waits for its turn, and then for the one before it to be gone. Whoever is told to go writes for a second at most.
pub const SEAT_WAIT: Duration = Duration::from_secs(3);
/// Takeovers of one subject that may come at once: a broken link that is redialled, not two clones in a race.
pub const TAKEOVERS_MAX: u32 = 10;
/// After that, one per this time.
pub const TAKEOVER_EVERY: Duration = Duration::from_secs(1);

/// The connections that are online. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    inner: Arc<Mutex<Seats>>,
}

#[derive(Debug, Default)]
struct Seats {
    seats: BTreeMap<Who, Seat>,
    /// Counts the seats.
    quota: Quota,
    /// The last connection's number.
    last: u64,
}

/// One subject's. Lives while somebody sits or waits.
#[derive(Debug)]
struct Seat {
    turn: Arc<Semaphore>,
    waiting: usize,
    live: Option<Live>,
    pace: Pace,
}

#[derive(Debug)]
struct Live {
    number: u64,
    end: Option<oneshot::Sender<End>>,
    gone: watch::Receiver<()>,
}

/// Why a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// What to tell its client.
    pub reason: ReasonCode,
    /// Why, in words of ours.
    pub why: &'static str,
}

/// Why a newcomer gets no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSeat {
    /// It was taken over too often: 0x9F.
    #[error("taken over too often")]
    TooOften,
    /// As many of its host or its reader as may be: 0x97.
    #[error("as many of its kind are connected as may be")]
    TooMany,
    /// The one before it does not go: 0x89.
    #[error("its older connection does not go")]
    Taken,
}

/// The right to the next seat, in its turn.
#[derive(Debug)]
pub struct Claim {
    waiting: Waiting,
    number: u64,
    /// Held until seated, so that newcomers are seated in the order of their numbers.
    _turn: OwnedSemaphorePermit,
}

/// A seat. Freed when dropped.
#[derive(Debug)]
pub struct Seated {
    registry: Registry,
    who: Who,
    number: u64,
    /// Resolves when this connection is to end.
    pub end: oneshot::Receiver<End>,
    /// Dropped behind the seat: whoever waits for it finds the seat free.
    _gone: watch::Sender<()>,
}

/// Counts a newcomer in its seat as long as it waits.
#[derive(Debug)]
struct Waiting {
    registry: Registry,
    who: Who,
}

impl Registry {
    /// Waits for the turn of a newcomer, and gives its number. Numbers count up in the order in which newcomers are seated. Load tests
    /// may have more seats than other readers.
    ///
    /// # Errors
    /// [`NoSeat`].
    pub async fn claim(&self, who: &Who, is_bench: bool, now: Instant) -> Result<Claim, NoSeat> {
        let (waiting, turn) = self.wait(who, is_bench, now)?;
        let turn = timeout(SEAT_WAIT, turn.acquire_owned())
            .await
            .map_err(|_| NoSeat::Taken)?
            .map_err(|_| NoSeat::Taken)?;
        let mut seats = self.lock();
        seats.last += 1;
        let number = seats.last;
        drop(seats);
        Ok(Claim {
            waiting,
            number,
            _turn: turn,
        })
    }

    fn wait(
        &self,
        who: &Who,
        is_bench: bool,
        now: Instant,
    ) -> Result<(Waiting, Arc<Semaphore>), NoSeat> {
        let mut guard = self.lock();
        let seats = &mut *guard;
        // A takeover needs no seat more.
        if !seats.seats.contains_key(who) && !seats.quota.take(who, is_bench) {
            return Err(NoSeat::TooMany);
        }
        let seat = seats.seats.entry(who.clone()).or_insert_with(|| Seat {
            turn: Arc::new(Semaphore::new(1)),
            waiting: 0,
            live: None,
            pace: Pace::new(now),
        });
        if seat.live.is_some() && !seat.pace.take(now) {
            return Err(NoSeat::TooOften);
        }
        seat.waiting += 1;
        let waiting = Waiting {
            registry: self.clone(),
            who: who.clone(),
        };
        Ok((waiting, Arc::clone(&seat.turn)))
    }

    /// Ends the connection of `who`, if it has one.
    pub fn disconnect(&self, who: &Who, end: End) {
        if let Some(seat) = self.lock().seats.get_mut(who) {
            seat.end(end);
        }
    }

    /// Ends every connection whose principal's rights are not what they were.
    pub fn withdraw(&self, withdrawn: &Withdrawn) {
        self.disconnect_if(|who| withdrawn.concerns(who), end_of(withdrawn));
    }

    /// Ends every connection that `plane` says has no rights any more.
    fn withdraw_all(&self, plane: &Plane) {
        let mut seats = self.lock();
        for (who, seat) in &mut seats.seats {
            if plane.is_withdrawn(who) {
                seat.end(End {
                    reason: ReasonCode::ADMINISTRATIVE_ACTION,
                    why: withdrawn_why(who),
                });
            } else if who
                .subject()
                .is_some_and(|subject| plane.is_void(subject, 1))
            {
                // Some of its host's tokens are void, and this one may rest on them.
                seat.end(LOOKED_AT_ANEW);
            }
        }
    }

    /// Ends every connection whose principal `is_meant`.
    pub fn disconnect_if(&self, is_meant: impl Fn(&Who) -> bool, end: End) {
        let mut seats = self.lock();
        for (_, seat) in seats.seats.iter_mut().filter(|(who, _)| is_meant(who)) {
            seat.end(end);
        }
    }

    /// Whether `who` is online.
    #[must_use]
    pub fn is_connected(&self, who: &Who) -> bool {
        let seats = self.lock();
        seats.seats.get(who).is_some_and(|seat| seat.live.is_some())
    }

    /// How many are online.
    #[must_use]
    pub fn count(&self) -> usize {
        let seats = self.lock();
        seats
            .seats
            .values()
            .filter(|seat| seat.live.is_some())
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The connection's number.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Tells the one before to go, waits until it is gone, and sits down.
    ///
    /// # Errors
    /// [`NoSeat::Taken`] if it does not go. It was told, and will.
    pub async fn evict(self) -> Result<Seated, NoSeat> {
        self.evict_within(SEAT_WAIT).await
    }

    async fn evict_within(self, wait: Duration) -> Result<Seated, NoSeat> {
        let Waiting { registry, who } = &self.waiting;
        let before = registry.lock().seats.get_mut(who).and_then(|seat| {
            seat.end(End {
                reason: ReasonCode::SESSION_TAKEN_OVER,
                why: "taken over by a newer connection",
            });
            seat.live.as_ref().map(|live| live.gone.clone())
        });
        if let Some(mut gone) = before {
            let gone = async { while gone.changed().await.is_ok() {} };
            timeout(wait, gone).await.map_err(|_| NoSeat::Taken)?;
        }
        let (end_sender, end) = oneshot::channel();
        let (gone_sender, gone) = watch::channel(());
        if let Some(seat) = registry.lock().seats.get_mut(who) {
            debug_assert!(seat.live.is_none(), "it is our turn, and the last is gone");
            seat.live = Some(Live {
                number: self.number,
                end: Some(end_sender),
                gone,
            });
        }
        Ok(Seated {
            registry: registry.clone(),
            who: who.clone(),
            number: self.number,
            end,
            _gone: gone_sender,
        })
    }
}

impl Seats {
    /// Forgets a seat that nobody has or waits for.
    fn free(&mut self, who: &Who) {
        if self.seats.get(who).is_some_and(Seat::is_free) {
            self.seats.remove(who);
            self.quota.give_back(who);
        }
    }
}

impl Seat {
    /// The first reason counts.
    fn end(&mut self, end: End) {
        if let Some(sender) = self.live.as_mut().and_then(|live| live.end.take()) {
            // It may have ended by itself in this moment.
            let _ = sender.send(end);
        }
    }

    const fn is_free(&self) -> bool {
        self.live.is_none() && self.waiting == 0
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut seats = self.registry.lock();
        if let Some(seat) = seats.seats.get_mut(&self.who) {
            seat.waiting -= 1;
        }
        seats.free(&self.who);
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut seats = self.registry.lock();
        if let Some(seat) = seats.seats.get_mut(&self.who)
            && seat
                .live
                .as_ref()
                .is_some_and(|live| live.number == self.number)
        {
            seat.live = None;
        }
        seats.free(&self.who);
    }
}

/// A token bucket: [`TAKEOVERS_MAX`] at once, then one per [`TAKEOVER_EVERY`].
#[derive(Debug)]
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self {
            left: TAKEOVERS_MAX,
            since: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < TAKEOVERS_MAX
            && now.saturating_duration_since(self.since) >= TAKEOVER_EVERY
        {
            self.left += 1;
            self.since += TAKEOVER_EVERY;
        }
        if self.left == TAKEOVERS_MAX {
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

/// How a connection ends whose token may be void, for all that is known here: as if its time were over. Who holds a good one is back
/// at once; and whose is refused then knows.
const LOOKED_AT_ANEW: End = End {
    reason: ReasonCode::MAXIMUM_CONNECT_TIME,
    why: "rights of its host changed",
};

/// How the connections end that `withdrawn` concerns.
const fn end_of(withdrawn: &Withdrawn) -> End {
    let why = match withdrawn {
        Withdrawn::Some(_) => return LOOKED_AT_ANEW,
        Withdrawn::Host(_) => HOST_WITHDRAWN,
        Withdrawn::Sandbox(..) => "its sandbox was revoked",
        Withdrawn::Reader(_) => READER_WITHDRAWN,
        Withdrawn::Tokens => TOKENS_VOID,
    };
    End {
        reason: ReasonCode::ADMINISTRATIVE_ACTION,
        why,
    }
}

const HOST_WITHDRAWN: &str = "its host was revoked or locked";
const READER_WITHDRAWN: &str = "its reader was removed";

/// Why a connection of `who` ends whose rights were taken away.
#[must_use]
pub const fn withdrawn_why(who: &Who) -> &'static str {
    match who {
        Who::Subject(_) => HOST_WITHDRAWN,
        Who::Reader { .. } => READER_WITHDRAWN,
    }
}

/// Why a connection ends whose token was made void with all others.
pub const TOKENS_VOID: &str = "the broker's issuer key was replaced: a fresh token is needed";

/// Ends the connections of those who lose their rights, as they lose them. Runs as long as the plane.
pub async fn close_withdrawn(registry: Registry, plane: Plane) {
    let mut withdrawals = plane.withdrawals();
    let mut voided = plane.tokens_voided();
    loop {
        match withdrawals.recv().await {
            // Looked at below.
            Ok(Withdrawn::Tokens) => {}
            Ok(withdrawn) => registry.withdraw(&withdrawn),
            // Some were lost: look at all.
            Err(broadcast::error::RecvError::Lagged(_)) => registry.withdraw_all(&plane),
            Err(broadcast::error::RecvError::Closed) => return,
        }
        // Each time: the word of it may be among those that were lost.
        let before = std::mem::replace(&mut voided, plane.tokens_voided());
        if before != voided {
            registry.withdraw(&Withdrawn::Tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::clock;
    use protocol::{id::HostId, token::Subject};

    const END: End = End {
        reason: ReasonCode::ADMINISTRATIVE_ACTION,
        why: "a test",
    };

    fn subject(text: &str) -> Who {
        Who::Subject(Subject::parse(text).unwrap())
    }

    async fn seat(registry: &Registry, text: &str) -> Result<Seated, NoSeat> {
        let claim = registry.claim(&subject(text), false, clock::mono()).await?;
        claim.evict().await
    }

    #[tokio::test]
    async fn a_newcomer_is_seated_when_the_one_before_it_was_told_and_is_gone() {
        let registry = Registry::default();
        let mut old = seat(&registry, "edge-1").await.unwrap();
        let newcomer = tokio::spawn({
            let registry = registry.clone();
            async move { seat(&registry, "edge-1").await }
        });
        let told = (&mut old.end).await.unwrap();
        assert_eq!(told.reason, ReasonCode::SESSION_TAKEN_OVER);
        assert!(!newcomer.is_finished());
        let number = old.number;
        drop(old);
        let new = newcomer.await.unwrap().unwrap();
        assert!(new.number > number);
        assert_eq!(registry.count(), 1);
        drop(new);
        assert_eq!(registry.count(), 0);
        let seats = registry.lock();
        assert!(
            seats.seats.is_empty() && seats.quota.is_empty(),
            "nothing is kept of who is gone"
        );
        drop(seats);
    }

    #[tokio::test]
    async fn many_newcomers_are_seated_one_after_the_other_in_the_order_of_their_numbers() {
        let registry = Registry::default();
        let mut tasks = tokio::task::JoinSet::new();
        let seated = Arc::new(Mutex::new(Vec::new()));
        for _ in 0..8 {
            let (registry, seated) = (registry.clone(), Arc::clone(&seated));
            tasks.spawn(async move {
                let mut seat = seat(&registry, "edge-1").await.unwrap();
                assert_eq!(registry.count(), 1);
                seated.lock().unwrap().push(seat.number);
                // All but the last are told to go.
                let _ = timeout(Duration::from_millis(200), &mut seat.end).await;
            });
        }
        tasks.join_all().await;
        let seated = seated.lock().unwrap();
        assert_eq!(seated.len(), 8);
        assert!(seated.is_sorted());
    }

    #[tokio::test]
    async fn one_that_does_not_go_keeps_its_seat_and_the_newcomer_is_sent_away() {
        let registry = Registry::default();
        let _old = seat(&registry, "edge-1").await.unwrap();
        let claim = registry
            .claim(&subject("edge-1"), false, clock::mono())
            .await;
        let evicted = claim.unwrap().evict_within(Duration::from_millis(5)).await;
        assert_eq!(evicted.unwrap_err(), NoSeat::Taken);
        assert_eq!(registry.count(), 1);
    }

    #[tokio::test]
    async fn takeovers_are_paced_and_first_connections_are_not() {
        let registry = Registry::default();
        let now = clock::mono();
        let _old = seat(&registry, "edge-1").await.unwrap();
        for _ in 0..TAKEOVERS_MAX {
            assert!(registry.wait(&subject("edge-1"), false, now).is_ok());
        }
        let refused = registry.wait(&subject("edge-1"), false, now).map(drop);
        assert_eq!(refused, Err(NoSeat::TooOften));
        assert!(registry.wait(&subject("edge-2"), false, now).is_ok());
        let later = now + TAKEOVER_EVERY;
        assert!(registry.wait(&subject("edge-1"), false, later).is_ok());
        assert!(registry.wait(&subject("edge-1"), false, later).is_err());
    }

    #[tokio::test]
    async fn a_host_has_so_many_sandboxes_at_once_and_each_may_come_again() {
        let registry = Registry::default();
        let now = clock::mono();
        let mut waiting: Vec<_> = (0..SANDBOXES_PER_HOST_MAX)
            .map(|n| registry.wait(&subject(&format!("edge-1/{n}")), false, now))
            .map(Result::unwrap)
            .collect();
        let one_more = || {
            let wait = registry.wait(&subject("edge-1/more"), false, now);
            wait.map(drop)
        };
        assert_eq!(one_more(), Err(NoSeat::TooMany));
        assert_eq!(one_more(), Err(NoSeat::TooMany), "and counts nothing");
        for other in ["edge-1", "edge-1/0", "edge-2/more"] {
            assert!(
                registry.wait(&subject(other), false, now).is_ok(),
                "{other}"
            );
        }
        waiting.pop();
        assert_eq!(one_more(), Ok(()));
        waiting.clear();
        let seats = registry.lock();
        assert!(seats.seats.is_empty() && seats.quota.is_empty());
    }

    #[tokio::test]
    async fn a_host_is_disconnected_with_its_sandboxes_and_nobody_elses() {
        let registry = Registry::default();
        let mut seats = Vec::new();
        for text in ["edge-1", "edge-1/a", "edge-1/b", "edge-10", "edge-10/a"] {
            seats.push(seat(&registry, text).await.unwrap());
        }
        let host = Withdrawn::Host(HostId::new("edge-1").unwrap());
        registry.disconnect_if(|who| host.concerns(who), END);
        let told: Vec<_> = seats
            .iter_mut()
            .map(|seat| seat.end.try_recv().is_ok())
            .collect();
        assert_eq!(told, [true, true, true, false, false]);
        registry.disconnect(&subject("edge-10/a"), END);
        assert!(seats[4].end.try_recv().is_ok());
        assert!(
            registry.is_connected(&subject("edge-10"))
                && !registry.is_connected(&subject("edge-2"))
        );
    }
}
