//! The promise of one job, and its keeping. Unlike a channel it is kept in two steps, so that a writer can keep all promises of a commit
//! before it wakes anyone: whoever waits for many is woken once, and finds all of them kept.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::AppendError;

pub(crate) type Answer = Result<u64, AppendError>;

#[derive(Debug)]
enum State {
    /// Nobody has looked yet.
    Open,
    Waited(Waker),
    Kept(Answer),
}

/// The promise of an offset: resolves with the first record's when all of them are durable (they are consecutive). May be
/// dropped; the records are written all the same.
#[derive(Debug)]
pub struct Ticket {
    state: Arc<Mutex<State>>,
}

/// Keeps the promise; with [`AppendError::Failed`] if it is dropped.
#[derive(Debug)]
pub(super) struct Promise {
    state: Arc<Mutex<State>>,
}

/// A promise and its ticket.
pub(super) fn promise() -> (Promise, Ticket) {
    let state = Arc::new(Mutex::new(State::Open));
    let ticket = Ticket {
        state: Arc::clone(&state),
    };
    (Promise { state }, ticket)
}

impl Promise {
    /// Keeps it, and gives whom to wake.
    pub(super) fn keep(self, answer: Answer) -> Option<Waker> {
        self.settle(answer)
    }

    fn settle(&self, answer: Answer) -> Option<Waker> {
        let mut state = lock(&self.state);
        match *state {
            State::Kept(_) => None,
            State::Open | State::Waited(_) => {
                match std::mem::replace(&mut *state, State::Kept(answer)) {
                    State::Waited(waker) => Some(waker),
                    State::Open | State::Kept(_) => None,
                }
            }
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(waker) = self.settle(Err(AppendError::Failed)) {
            waker.wake();
        }
    }
}

impl Ticket {
    /// Of a promise that was kept, or broken.
    #[cfg(test)]
    pub(crate) fn kept(answer: Answer) -> Self {
        let (promise, ticket) = promise();
        promise.settle(answer);
        ticket
    }
}

impl Future for Ticket {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        let mut state = lock(&self.state);
        match &mut *state {
            State::Kept(answer) => return Poll::Ready(*answer),
            State::Waited(waker) => waker.clone_from(context.waker()),
            State::Open => *state = State::Waited(context.waker().clone()),
        }
        Poll::Pending
    }
}

/// Wakes everyone once: the jobs of one task mostly lie side by side.
pub(super) fn wake_all(wakers: &mut Vec<Waker>) {
    wakers.dedup_by(|next, kept| next.will_wake(kept));
    wakers.drain(..).for_each(Waker::wake);
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(ticket: &mut Ticket, count: &Arc<Count>) -> Poll<Answer> {
        let waker = Waker::from(Arc::clone(count));
        Pin::new(ticket).poll(&mut Context::from_waker(&waker))
    }

    #[test]
    fn who_waits_for_many_is_woken_once_and_finds_all_kept() {
        let count = Arc::new(Count::default());
        let (promises, mut tickets): (Vec<_>, Vec<_>) = (0..64).map(|_| promise()).unzip();
        for ticket in &mut tickets {
            assert_eq!(poll(ticket, &count), Poll::Pending);
        }
        let mut wakers: Vec<_> = (0..)
            .zip(promises)
            .filter_map(|(offset, promise)| promise.keep(Ok(offset)))
            .collect();
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        wake_all(&mut wakers);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        for (offset, ticket) in (0..).zip(&mut tickets) {
            assert_eq!(poll(ticket, &count), Poll::Ready(Ok(offset)));
        }
    }

    #[test]
    fn a_promise_that_is_dropped_is_broken_and_says_so() {
        let count = Arc::new(Count::default());
        let (broken, mut ticket) = promise();
        assert_eq!(poll(&mut ticket, &count), Poll::Pending);
        drop(broken);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(
            poll(&mut ticket, &count),
            Poll::Ready(Err(AppendError::Failed))
        );
    }

    #[test]
    fn the_last_who_looked_is_woken() {
        let (first, last) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let (kept, mut ticket) = promise();
        assert_eq!(poll(&mut ticket, &first), Poll::Pending);
        assert_eq!(poll(&mut ticket, &last), Poll::Pending);
        wake_all(&mut kept.keep(Ok(7)).into_iter().collect());
        assert_eq!(first.0.load(Ordering::Relaxed), 0);
        assert_eq!(last.0.load(Ordering::Relaxed), 1);
    }
}
