//! Reads the journal for one reader: a batch at a time, away from the runtime's threads, and only as much as there is room for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Sleep, sleep},
};

use crate::{
    core::gate::Start,
    shell::journal::{Batch, Filter, Journal, Reader},
};

/// Bytes of payload read at once.
const BATCH_BYTES: usize = 128 * 1024;
/// How long a reader that has everything is not given more: one batch for the commits of a millisecond costs a fraction of one for
/// each. One that is behind never waits, however small its batches are.
const BATCH_PAUSE: Duration = Duration::from_millis(1);

/// A cursor on the journal, read when there is something to read and somebody to give it to.
pub(super) struct Feeder {
    journal: Journal,
    /// Not here while it reads.
    reader: Option<Reader>,
    reading: Option<JoinHandle<(Reader, anyhow::Result<Batch>)>>,
    /// The pause once everything was read.
    pause: Option<Pin<Box<Sleep>>>,
    news: News,
}

/// The wait for something to be committed.
enum News {
    Known(watch::Receiver<u64>),
    Awaited(Pin<Box<dyn Future<Output = watch::Receiver<u64>> + Send>>),
}

impl Feeder {
    /// A cursor that stands where the reader wants to begin, and where that is. An offset that is still to come is one of another
    /// journal: it begins with what comes next.
    pub(super) fn new(journal: &Journal, from: Start, filters: Vec<Filter>) -> (Self, u64) {
        let news = journal.committed();
        let next = journal.next_offset();
        let offset = match from {
            Start::Now => next,
            Start::Oldest => journal.oldest(),
            Start::Offset(offset) => offset.min(next),
        };
        let feeder = Self {
            reader: Some(journal.reader_of_any(offset, filters)),
            journal: journal.clone(),
            reading: None,
            pause: None,
            news: News::Known(news),
        };
        (feeder, offset)
    }

    /// The next batch, of at most `room` records. An error is for good.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        room: usize,
    ) -> Poll<anyhow::Result<Batch>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                let (reader, batch) = read?;
                self.reader = Some(reader);
                if batch.as_ref().is_ok_and(|batch| batch.caught_up) {
                    self.pause = Some(Box::pin(sleep(BATCH_PAUSE)));
                }
                return Poll::Ready(batch);
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let Some(mut reader) = self.reader.take_if(|_| room > 0) else {
                return Poll::Pending;
            };
            if reader.position() < self.journal.next_offset() {
                self.reading = Some(tokio::task::spawn_blocking(move || {
                    let batch = reader.next_batch(room, BATCH_BYTES);
                    (reader, batch)
                }));
                continue;
            }
            self.reader = Some(reader);
            ready!(self.poll_news(context));
        }
    }

    /// Ready when something may have been committed since the last time.
    fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let News::Known(receiver) = &self.news {
            let mut receiver = receiver.clone();
            self.news = News::Awaited(Box::pin(async move {
                // The journal outlives us, so there is no other way out of this wait.
                let _ = receiver.changed().await;
                receiver
            }));
        }
        if let News::Awaited(wait) = &mut self.news {
            self.news = News::Known(ready!(wait.as_mut().poll(context)));
        }
        Poll::Ready(())
    }
}

impl fmt::Debug for Feeder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feeder")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::journal::{Entry, RecordKind},
        shell::journal::Durability,
    };

    #[tokio::test]
    async fn whoever_is_behind_is_not_made_to_wait_between_batches() {
        const RECORDS: u64 = 100;
        let place = tempfile::tempdir().unwrap();
        let journal = Journal::open(place.path(), Durability::Os).unwrap();
        for time_ms in 0..RECORDS {
            let entry = Entry {
                kind: RecordKind::Report,
                host: "edge-1",
                sandbox: None,
                time_ms,
                payload: b"report",
            };
            journal.append(entry).await.unwrap();
        }
        let (mut feeder, from) = Feeder::new(&journal, Start::Oldest, vec![Filter::default()]);
        for offset in from..RECORDS {
            // As for a client whose Receive Maximum is 1.
            let next = std::future::poll_fn(|context| feeder.poll(context, 1));
            let batch = next.await.unwrap();
            assert_eq!((batch.items.len(), batch.next), (1, offset + 1));
            assert_eq!(feeder.pause.is_some(), batch.caught_up, "{offset}");
        }
        assert!(feeder.pause.is_some());
    }
}
