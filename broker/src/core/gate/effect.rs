//! What a session asks of others, and what it is told of it.

use std::fmt;

use protocol::{id::HostId, mqtt::ReasonCode};
use zeroize::Zeroizing;

use super::{feed::Reads, inbox::Ticket, online::Target, reading::Start};
use crate::core::principal::Who;

/// Work for others.
#[derive(Clone, PartialEq, Eq)]
pub enum Effect {
    /// Check this token; tell [`super::Session::checked`].
    CheckToken(Vec<u8>),
    /// Check this reader's token; tell [`super::Session::checked_reader`].
    CheckReader(Zeroizing<Vec<u8>>),
    /// It is who it says. Make its older connection go away, then tell [`super::Session::admitted`].
    Admit {
        /// Whose connection it is.
        who: Who,
        /// What was kept of an older session of it is wanted; else it is to be forgotten.
        resume: bool,
    },
    /// Make a payload durable; tell [`super::Session::stored`].
    Store {
        /// Names it in the answer.
        ticket: Ticket,
        /// Where it belongs.
        target: Target,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Attach the host to its commands and read its open ones; tell [`super::Session::subscribed`].
    Subscribe(HostId),
    /// Detach it.
    Unsubscribe,
    /// Read the journal for it, in place of what was read before, and hand over what is found as long as there is [`super::Session::room`].
    /// Where that begins, tell [`super::Session::following`].
    Follow {
        /// Where to begin.
        from: Start,
        /// What to read.
        reads: Reads,
    },
    /// Write down what [`super::Session::keep`] says before anything that is in [`super::Session::output`] goes out: what its reader is told of
    /// its subscriptions must be true after a crash.
    Keep,
    /// So many messages were larger than the client takes, and are not sent.
    Skip(usize),
    /// A packet was answered with this refusal, and the connection goes on: to be counted.
    Refused(ReasonCode),
    /// Write out what is in [`super::Session::output`] and close. The last effect.
    Close(Ending),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the client was told; `None` if nothing, or if it was the client that ended it.
    pub reason: Option<ReasonCode>,
    /// Why, in words of ours.
    pub why: &'static str,
}

/// What became of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable.
    Stored,
    /// It is not what its topic carries, or contradicts what is stored: 0x99.
    Invalid,
    /// No room now: 0x97.
    Busy,
    /// It could not be made durable: 0x80.
    Failed,
}

impl Outcome {
    /// What it is acknowledged with.
    #[must_use]
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::Stored => ReasonCode::SUCCESS,
            Self::Invalid => ReasonCode::PAYLOAD_FORMAT_INVALID,
            Self::Busy => ReasonCode::QUOTA_EXCEEDED,
            Self::Failed => ReasonCode::UNSPECIFIED_ERROR,
        }
    }
}

/// Shows neither tokens nor payloads.
impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckToken(_) => f.write_str("CheckToken"),
            Self::CheckReader(_) => f.write_str("CheckReader"),
            Self::Admit { who, resume } => write!(f, "Admit({who}, {resume})"),
            Self::Store {
                ticket, payload, ..
            } => write!(f, "Store({ticket:?}, {} bytes)", payload.len()),
            Self::Subscribe(host) => write!(f, "Subscribe({host})"),
            Self::Unsubscribe => f.write_str("Unsubscribe"),
            Self::Keep => f.write_str("Keep"),
            Self::Follow { from, .. } => write!(f, "Follow({from:?})"),
            Self::Skip(count) => write!(f, "Skip({count})"),
            Self::Refused(reason) => write!(f, "Refused({reason})"),
            Self::Close(ending) => write!(f, "Close({ending:?})"),
        }
    }
}
