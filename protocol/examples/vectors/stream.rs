//! Batches by hand (`SPEC.md`, 8.1), each chained to the one before.

use crate::{
    forge::Envelope,
    item::{Item, Map, TRUE, array, bytes, uint},
    message::{EVENTS, typ},
    world::{NOW_MS, SANDBOX_KEY},
};

/// Where a stream stands.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) epoch: u64,
    pub(crate) batch: u64,
    pub(crate) first: u64,
    pub(crate) previous: [u8; 32],
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self {
            epoch: 1,
            batch: 0,
            first: 0,
            previous: [0; 32],
        }
    }

    /// The head of the next batch, over these events.
    pub(crate) fn head(&self, events: &[Item]) -> Map {
        let body = array(events);
        let head = Map::new(&[
            (1, bytes(&stream_id(EVENTS))),
            (2, uint(self.epoch)),
            (3, uint(self.batch)),
            (4, uint(self.first)),
            (5, uint(events.len() as u64)),
            (6, bytes(&self.previous)),
            (7, hash(&body)),
            (8, uint(body.len() as u64)),
            (9, uint(NOW_MS + self.batch)),
        ]);
        if self.batch == 0 {
            head.with(10, bytes(&[2; 8]))
        } else {
            head
        }
    }

    pub(crate) fn next(&mut self, events: &[Item]) -> Vec<u8> {
        let head = self.head(events);
        self.seal(head, events)
    }

    /// The last batch.
    pub(crate) fn close(&mut self, events: &[Item]) -> Vec<u8> {
        let head = self.head(events).with(11, [TRUE]);
        self.seal(head, events)
    }

    fn seal(&mut self, head: Map, events: &[Item]) -> Vec<u8> {
        let signed = sealed(head);
        self.previous = *blake3::hash(&signed).as_bytes();
        self.batch += 1;
        self.first += events.len() as u64;
        [signed, array(events)].concat()
    }

    /// The writer starts again.
    pub(crate) fn epoch(&mut self, epoch: u64) {
        (self.epoch, self.batch) = (epoch, 0);
    }
}

pub(crate) fn head_envelope(head: impl Into<Item>) -> Envelope {
    Envelope::new(SANDBOX_KEY, typ("batch"), "", head)
}

pub(crate) fn sealed(head: impl Into<Item>) -> Vec<u8> {
    head_envelope(head).seal()
}

/// A head, signed, and whatever body.
pub(crate) fn batch(head: Map, body: &[u8]) -> Vec<u8> {
    [&sealed(head), body].concat()
}

/// A first batch with this body, whose hash and length its head has; and so many events, as it says.
pub(crate) fn batch_of(body: &[u8], count: u64) -> Vec<u8> {
    let head = (Chain::new().head(&[]))
        .with(5, uint(count))
        .with(7, hash(body))
        .with(8, uint(body.len() as u64));
    batch(head, body)
}

pub(crate) fn hash(body: &[u8]) -> Item {
    bytes(blake3::hash(body).as_bytes())
}

pub(crate) fn stream_id(topic: &str) -> Vec<u8> {
    blake3::hash(topic.as_bytes()).as_bytes()[..16].to_vec()
}

pub(crate) fn event(kind: u64, size: u64, value: u64, data: &[u8]) -> Item {
    let numbers = [NOW_MS, kind, 0, size, value];
    array(&[numbers.map(uint).to_vec(), vec![bytes(data)]].concat())
}

pub(crate) fn line(data: &str) -> Item {
    event(2, data.len() as u64 + 1, 0, data.as_bytes())
}

/// The shortest event there is.
pub(crate) fn tiny() -> Item {
    array(&[uint(0), uint(2), uint(0), uint(1), uint(0), bytes(&[])])
}

pub(crate) fn started() -> Item {
    event(1, 0, 0, b"")
}

pub(crate) fn exited(code: u64) -> Item {
    event(5, 0, code, b"")
}

/// Batches of 2, 1 and 1 events, the last of which is closing.
pub(crate) fn three() -> [Vec<u8>; 3] {
    let mut chain = Chain::new();
    [
        chain.next(&[started(), line("hello")]),
        chain.next(&[line("world")]),
        chain.close(&[exited(0)]),
    ]
}
