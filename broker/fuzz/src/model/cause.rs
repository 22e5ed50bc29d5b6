//! What happens to a session, from outside.

use protocol::{
    mqtt::{ClientPacket, DecodeError, Kind, ReasonCode},
    token::Grant,
};

use crate::core::{
    gate::{Kept, Outcome, Ticket},
    reader::Reader,
};

/// What happens to a session.
#[derive(Debug)]
pub enum Cause<'a> {
    /// A packet comes.
    Packet(Kind, Result<ClientPacket<'a>, DecodeError>),
    /// Bytes come that are no packet.
    Unreadable(u8),
    /// The token is good, or not.
    Verdict(Result<Grant, ReasonCode>),
    /// The reader's token is good, or not.
    VerdictReader(Result<Reader, ReasonCode>),
    /// The older connection is gone, and this was kept of it.
    Admitted(Option<Kept>),
    /// A payload is stored, or not.
    Stored(Ticket, Outcome),
    /// The host is attached, or not.
    Attached(Option<Vec<Vec<u8>>>),
    /// A command comes.
    Deliver(Vec<u8>),
    /// The journal is read for it from here on.
    Following(u64),
    /// A record is handed over: its offset, topic and payload.
    Record(u64, &'static str, Vec<u8>),
    /// Records are gone: from the first, not including the other.
    Missed(u64, u64),
    /// The journal was looked at, up to here.
    LookedAt(u64),
    /// Output was written.
    Flushed,
    /// A deadline is looked at.
    Timeout,
    /// It is ended from outside.
    End,
}
