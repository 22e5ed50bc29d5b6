//! What the session is told, and what it asks for.

use protocol::exchange::Refusal;
use protocol::time::UnixMillis;

use crate::core::chain::Show;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The pending key is on disk.
    Prepared {
        /// Which exchange.
        attempt: u64,
    },
    /// The broker asks for a proof.
    Challenged {
        /// Which exchange.
        attempt: u64,
        /// What to sign.
        nonce: [u8; 32],
    },
    /// The broker grants a token.
    Granted {
        /// Which exchange.
        attempt: u64,
        /// The token.
        token: Vec<u8>,
        /// The generation it rests on.
        generation: u64,
        /// When it was issued and when it ends.
        life: (UnixMillis, UnixMillis),
    },
    /// The grant is on disk: the pending key is now the host's key.
    Adopted {
        /// Which exchange.
        attempt: u64,
    },
    /// The exchange came to nothing.
    ExchangeFailed {
        /// Which exchange.
        attempt: u64,
        /// How.
        failure: Failure,
    },
    /// The link is up and subscribed.
    LinkUp {
        /// Which link.
        attempt: u64,
    },
    /// The broker took the token presented on the live link.
    Renewed {
        /// Which link.
        attempt: u64,
    },
    /// The link is over.
    LinkDown {
        /// Which link.
        attempt: u64,
        /// Why.
        why: Down,
    },
    /// The operator ends: leave cleanly, and begin nothing new.
    Stop,
}

/// How an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The broker said no.
    Refused {
        /// Why.
        refusal: Refusal,
        /// How far it knows this host's keys, if it asks how they went on.
        known: Option<u64>,
    },
    /// No answer, or not one of this exchange.
    Unreachable,
    /// Ours: the key or the grant could not be persisted.
    NotPersisted,
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// CONNACK, SUBACK or DISCONNECT with this MQTT 5 reason code.
    Code(u8),
    /// The network, TLS or the peer failed.
    Lost,
    /// We closed it.
    Closed,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make a key and persist it as pending, with its succession, unless one is pending. Answer: [`Event::Prepared`].
    Prepare {
        /// Which exchange.
        attempt: u64,
    },
    /// Ask for a challenge. Answer: [`Event::Challenged`].
    Challenge {
        /// Which exchange.
        attempt: u64,
    },
    /// Ask for a token with the pending key. Answer: [`Event::Granted`].
    Exchange {
        /// Which exchange.
        attempt: u64,
        /// The challenge.
        nonce: [u8; 32],
        /// By what the right to it is shown.
        show: Show,
    },
    /// Persist the token, with the pending key in the place of the last. Answer: [`Event::Adopted`].
    Adopt {
        /// Which exchange.
        attempt: u64,
        /// The token.
        token: Vec<u8>,
        /// The generation it rests on.
        generation: u64,
    },
    /// Mint fresh tokens for every running sandbox.
    Remint,
    /// Open a link under the current token.
    Connect {
        /// Which link.
        attempt: u64,
    },
    /// Present the current token on the live link (AUTH 0x19).
    Present {
        /// Which link.
        attempt: u64,
    },
    /// End the link.
    Close {
        /// Which link.
        attempt: u64,
    },
    /// The host cannot be enrolled: forget the pending key and end the program.
    GiveUp(Refusal),
}

/// Session taken over, of MQTT 5.
pub(super) const TAKEN_OVER: u8 = 0x8e;

/// Whether an MQTT 5 reason code says that we are not wanted, rather than that something failed: bad credentials (0x86), not
/// authorised (0x87), banned (0x8a), bad authentication method (0x8c), taken over (0x8e: somebody else has our identity), or ended
/// by an administrator (0x98).
#[must_use]
pub const fn is_refusal(code: u8) -> bool {
    matches!(code, 0x86 | 0x87 | 0x8a | 0x8c | TAKEN_OVER | 0x98)
}
