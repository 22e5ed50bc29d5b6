//! Stream files by hand (`SPEC.md`, chapter 10).

use crate::{
    item::{Item, array, bytes, text, uint},
    message::{ended, launched, report, signed_report},
    world::{HOST, NOW_MS, SANDBOX},
};

/// Kinds of records.
pub(crate) const HOLE: u64 = 0;
pub(crate) const BATCH: u64 = 1;
pub(crate) const REPORT: u64 = 2;
pub(crate) const COMMAND: u64 = 3;
pub(crate) const SUCCESSION: u64 = 4;
pub(crate) const HEAD: u64 = 6;

/// A file under way. Records take every third offset, as a journal does that holds others too.
#[derive(Clone)]
pub(crate) struct File {
    bytes: Vec<u8>,
    offset: u64,
}

impl File {
    pub(crate) fn new() -> Self {
        Self::starting(opening(SANDBOX))
    }

    pub(crate) fn starting(bytes: Vec<u8>) -> Self {
        Self { bytes, offset: 20 }
    }

    /// A part of a stream, the `launched` report first.
    pub(crate) fn part() -> Self {
        Self::starting(opening_of_part()).report(&launched_report())
    }

    /// The file of a sandbox whose `launched` report comes first.
    pub(crate) fn launched() -> Self {
        Self::new().report(&launched_report())
    }

    pub(crate) fn batch(self, payload: &[u8]) -> Self {
        self.of_kind(BATCH, payload)
    }

    pub(crate) fn batches<'a>(self, payloads: impl IntoIterator<Item = &'a Vec<u8>>) -> Self {
        payloads.into_iter().fold(self, |file, one| file.batch(one))
    }

    pub(crate) fn report(self, payload: &[u8]) -> Self {
        self.of_kind(REPORT, payload)
    }

    pub(crate) fn ended(self) -> Self {
        self.report(&ended_report())
    }

    pub(crate) fn command(self, payload: &[u8]) -> Self {
        self.of_kind(COMMAND, payload)
    }

    fn of_kind(mut self, kind: u64, payload: &[u8]) -> Self {
        self.offset += 3;
        let record = record(self.offset, kind, payload);
        self.raw(&record)
    }

    pub(crate) fn hole(mut self) -> Self {
        self.offset += 3;
        let record = hole(self.offset, &[]);
        self.raw(&record)
    }

    /// A hole that goes on before `to`, for these causes.
    pub(crate) fn removed(mut self, to: u64, causes: &[u64]) -> Self {
        self.offset += 3;
        let record = hole(self.offset, &removed(to, causes));
        self.raw(&record)
    }

    /// A batch of which only the head is left.
    pub(crate) fn head(self, batch: &[u8]) -> Self {
        self.of_kind(HEAD, head_of(batch))
    }

    pub(crate) fn succession(self, payload: &[u8]) -> Self {
        self.raw(&succession_record(payload))
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

pub(crate) fn opening(sandbox: &str) -> Vec<u8> {
    array(&[text("outhaul-stream"), uint(1), text(HOST), text(sandbox)])
}

/// The opening of a file that may begin in the middle of its stream.
pub(crate) fn opening_of_part() -> Vec<u8> {
    array(&[
        text("outhaul-stream-part"),
        uint(1),
        text(HOST),
        text(SANDBOX),
    ])
}

/// A record of the file's host and sandbox.
pub(crate) fn record(offset: u64, kind: u64, payload: &[u8]) -> Item {
    record_at(offset, NOW_MS, kind, (HOST, SANDBOX), payload)
}

pub(crate) fn succession_record(payload: &[u8]) -> Item {
    record_at(0, 0, SUCCESSION, (HOST, ""), payload)
}

pub(crate) fn hole(offset: u64, payload: &[u8]) -> Item {
    record_at(offset, 0, HOLE, ("", ""), payload)
}

pub(crate) fn removed(to: u64, causes: &[u64]) -> Item {
    let numbers: Vec<_> = [&[to], causes].concat().into_iter().map(uint).collect();
    array(&numbers)
}

/// The signed head that a batch begins with: an array of four, a byte string for each but the second, and 64 bytes of signature.
pub(crate) fn head_of(batch: &[u8]) -> &[u8] {
    let body = protocol::stream::Batch::parse(batch).expect("a batch").body;
    &batch[..batch.len() - body.len()]
}

pub(crate) fn record_at(
    offset: u64,
    received: u64,
    kind: u64,
    place: (&str, &str),
    payload: &[u8],
) -> Item {
    array(&[
        uint(offset),
        uint(received),
        uint(kind),
        text(place.0),
        text(place.1),
        bytes(payload),
    ])
}

pub(crate) fn launched_report() -> Vec<u8> {
    signed_report(report(2, launched()))
}

/// With an exit code of 0.
pub(crate) fn ended_report() -> Vec<u8> {
    let ended = ended().with(1, bytes(&[3; 16])).with(4, uint(0));
    signed_report(report(3, ended).with(2, uint(8)))
}
