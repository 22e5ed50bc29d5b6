//! Reads the journal for one reader: a batch at a time, away from the runtime's threads, and only as much as there is room for.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    core::{gate::Start, journal::Record},
    shell::journal::{Batch, Filter, Journal, Live, Reader},
};

/// Bytes of payload read at once.
const BATCH_BYTES: usize = 128 * 1024;

/// What came of looking at the journal.
pub(super) enum Fed {
    /// Records were handed over, out of memory.
    Live(Live),
    /// This was read from the disk.
    Batch(Batch),
}

/// A cursor on the journal, read when there is something to read and somebody to give it to.
pub(super) struct Feeder {
    journal: Journal,
    /// Not here while it reads.
    reader: Option<Reader>,
    reading: Option<JoinHandle<(Reader, anyhow::Result<Batch>)>>,
    news: News,
    /// It reads the partition of load tests.
    pub(super) is_bench: bool,
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
            news: News::Known(news),
            is_bench: false,
        };
        (feeder, offset)
    }

    /// What is next, at most `room` records: given, if it is in memory. An error is for good.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        room: usize,
        mut give: impl FnMut(Record<'_>),
    ) -> Poll<anyhow::Result<Fed>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = ready!(Pin::new(reading).poll(context));
                self.reading = None;
                let (reader, batch) = read?;
                self.reader = Some(reader);
                return Poll::Ready(batch.map(Fed::Batch));
            }
            let Some(mut reader) = self.reader.take_if(|_| room > 0) else {
                return Poll::Pending;
            };
            if reader.position() < self.journal.next_offset() {
                if let Some(live) = reader.give_live(room, BATCH_BYTES, &mut give) {
                    self.reader = Some(reader);
                    return Poll::Ready(Ok(Fed::Live(live)));
                }
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
