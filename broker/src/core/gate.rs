//! The gate: the MQTT session of one connection, as a machine. It reads no socket and no clock.
//!
//! Packets, answers and the time go in; bytes to send are appended to [`Session::output`], and work for others comes out of
//! [`Session::poll_effect`], which is to be emptied after every call. Every phase has a deadline.
//!
//! ```text
//! WaitConnect ─CONNECT→ Checking ─token good→ WaitProof ─proof good→ Admitting ─old one gone→ Online
//!      │                    │   └──── a reader's password is good ────────┘                     │
//!      └────────────────────┴────── refused ──────┴──────────────────────┴──── taken over … ────┴→ Closed
//! ```
//!
//! What MQTT offers and Outhaul does not is advertised away in CONNACK, and enforced: no will, retained message, QoS 2, topic alias or
//! shared subscription gets past here. Wildcards, kept sessions and MQTT 3.1.1 are for readers, where the owner lets them in.

mod connect;
mod effect;
mod feed;
mod handshake;
mod inbox;
mod online;
mod outbox;
mod reading;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use protocol::{
    limits::{PACKET_BYTES_BEFORE_AUTH_MAX, PACKET_BYTES_MAX},
    mqtt::{
        Auth, ClientPacket, ConnAck, DecodeError, Disconnect, Frame, Kind, ReasonCode, Version,
        decode_client,
    },
    possession::Nonce,
    time::Now,
    token::Grant,
};
use zeroize::Zeroizing;

use super::principal::Principal;
use connect::{Shown, Terms};
use online::Online;

pub use connect::{
    CLIENT_ID_BYTES_MAX, CLIENT_PACKET_BYTES_MIN, KEEP_ALIVE_S_MAX, METHOD, SESSION_EXPIRY_S_MAX,
};
pub use effect::{Effect, Ending, Outcome};
pub use feed::{Kept, Message, Place, READ_FILTERS_MAX, Reads};
pub use inbox::{QUIET_MAX, Ticket};
pub use online::{FILTERS_MAX, REFUSALS_MAX, RENEWAL_WAIT, Target};
pub use outbox::OUTPUT_BYTES_MAX;
pub use reading::Start;

/// How long a stranger has from its first byte, TLS and all, until it has proven who it is.
pub const STRANGER_WAIT: Duration = Duration::from_secs(5);
/// How long a connection may last on one token, whatever its token says: bounds the arithmetic, not the token.
pub const TOKEN_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// The first byte of a CONNECT.
const CONNECT_FIRST_BYTE: u8 = 0x10;

/// The session of one connection.
pub struct Session {
    phase: Phase,
    wire: Wire,
    offer: Offer,
    /// What is to be kept of a reader's session that has ended.
    left: Option<(Kept, u32)>,
}

/// What this broker offers to every client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What CONNACK says of it: `fsync` or `os`.
    pub durability: &'static str,
    /// Readers and bench principals may come, over MQTT 3.1.1 too.
    pub readers: bool,
}

/// Why a packet ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    reason: ReasonCode,
    why: &'static str,
}

impl Refusal {
    const fn new(reason: ReasonCode, why: &'static str) -> Self {
        Self { reason, why }
    }
}

/// What goes out.
struct Wire {
    version: Version,
    output: Vec<u8>,
    effects: VecDeque<Effect>,
}

impl Wire {
    fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    fn auth(&mut self, reason: ReasonCode, data: Option<&[u8]>) {
        let written = Auth::new(reason, METHOD, data).encode(&mut self.output);
        debug_assert!(written.is_ok(), "our own AUTH is short");
    }
}

enum Phase {
    /// Nothing has come.
    WaitConnect { until: Instant },
    /// The token is being checked.
    Checking { until: Instant, terms: Box<Terms> },
    /// The token is good; whether it is the client's own is open.
    WaitProof {
        until: Instant,
        terms: Box<Terms>,
        grant: Box<Grant>,
        nonce: Nonce,
    },
    /// The client is who it says; its older connection is on its way out.
    Admitting {
        until: Instant,
        terms: Box<Terms>,
        principal: Box<Principal>,
        /// The client id that was made for it.
        assigned: Option<String>,
    },
    /// CONNACK was sent. Lasts until its token ends, or it falls silent.
    Online(Box<Online>),
    /// Nothing more is taken or sent.
    Closed,
}

impl Session {
    /// A session whose client must have proven itself at `until`.
    #[must_use]
    pub fn new(offer: Offer, until: Instant) -> Self {
        Self {
            phase: Phase::WaitConnect { until },
            wire: Wire {
                version: Version::V5,
                output: Vec::new(),
                effects: VecDeque::new(),
            },
            offer,
            left: None,
        }
    }

    /// The largest packet that is taken now, in bytes, fixed header included.
    #[must_use]
    pub const fn packet_bytes_max(&self) -> usize {
        if self.is_online() {
            PACKET_BYTES_MAX
        } else {
            PACKET_BYTES_BEFORE_AUTH_MAX
        }
    }

    /// Whether packets should be read now. If not, either the client does not read what we send, or it floods us with QoS 0.
    #[must_use]
    pub fn wants_packets(&self) -> bool {
        let is_flooded = match &self.phase {
            Phase::Online(online) => online.is_flooded(),
            Phase::Closed => true,
            Phase::WaitConnect { .. }
            | Phase::Checking { .. }
            | Phase::WaitProof { .. }
            | Phase::Admitting { .. } => false,
        };
        !is_flooded && self.wire.output.len() < OUTPUT_BYTES_MAX
    }

    /// Whether the client has proven itself and was told so.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online(_))
    }

    /// Whether it has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Bytes to send. Take from the front what was written, then call [`Session::flushed`].
    pub const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.wire.output
    }

    /// The next thing to do for it.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.wire.effects.pop_front()
    }

    /// Whether it asks for anything.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.wire.effects.is_empty()
    }

    /// When [`Session::handle_timeout`] wants to be called. It may change with every call.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::WaitConnect { until }
            | Phase::Checking { until, .. }
            | Phase::WaitProof { until, .. }
            | Phase::Admitting { until, .. } => Some(*until),
            Phase::Online(online) => Some(online.deadline().0),
            Phase::Closed => None,
        }
    }

    /// Ends what has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &self.phase {
            Phase::WaitConnect { until }
            | Phase::Checking { until, .. }
            | Phase::WaitProof { until, .. }
            | Phase::Admitting { until, .. } => {
                if now >= *until {
                    self.close(None, "did not prove itself in time");
                }
            }
            Phase::Online(online) => {
                let (until, refusal) = online.deadline();
                if now >= until {
                    self.refuse(refusal);
                }
            }
            Phase::Closed => {}
        }
    }

    /// Takes a packet.
    pub fn receive(&mut self, frame: &Frame<'_>, now: Now) {
        if let Phase::WaitConnect { .. } = self.phase
            && frame.kind() != Kind::Connect
        {
            return self.close(None, "the first packet is not CONNECT");
        }
        // Whatever it says: some of what a CONNECT is refused for has no code that a DISCONNECT may carry.
        if self.is_online() && frame.kind() == Kind::Connect {
            return self.refuse(SECOND_CONNECT);
        }
        let stepped = match decode_client(frame, self.wire.version) {
            Ok(packet) => self.step(&packet, now),
            // One of MQTT 3.1.1 that is malformed gets no CONNACK: ours would be in the other version ([MQTT-3.1.4-1] there).
            Err(error) if !self.is_online() && is_old_connect(frame) => {
                return self.close(Some(error.reason()), "not a packet");
            }
            Err(error) => Err(Refusal::new(error.reason(), "not a packet")),
        };
        if let Err(refusal) = stepped {
            self.refuse(refusal);
        }
    }

    /// Takes bytes that are no packet, of which the first is given. A stranger that did not try to CONNECT gets no answer.
    pub fn unreadable(&mut self, error: DecodeError, first_byte: u8) {
        if let Phase::WaitConnect { .. } = self.phase
            && first_byte != CONNECT_FIRST_BYTE
        {
            return self.close(None, "not MQTT");
        }
        self.refuse(Refusal::new(error.reason(), "not a packet"));
    }

    fn step(&mut self, packet: &ClientPacket<'_>, now: Now) -> Result<(), Refusal> {
        if let ClientPacket::Disconnect(disconnect) = packet {
            if let (Phase::Online(online), Some(seconds)) =
                (&mut self.phase, disconnect.session_expiry_secs)
            {
                online.expire_after(seconds)?;
            }
            self.close(None, "the client disconnected");
            return Ok(());
        }
        if let Phase::Online(online) = &mut self.phase {
            return online.step(packet, now, &mut self.wire);
        }
        let out_of_turn = Refusal::new(ReasonCode::PROTOCOL_ERROR, "a packet out of turn");
        match (&self.phase, packet) {
            (Phase::WaitConnect { until }, ClientPacket::Connect(connect)) => {
                // From here on it is answered in its own version.
                self.wire.version = connect.version;
                let (terms, shown) = connect::judge(connect, self.offer.readers)?;
                self.wire.effect(match shown {
                    Shown::Token(token) => Effect::CheckToken(token.to_vec()),
                    Shown::Password(password) => {
                        Effect::CheckReader(Zeroizing::new(password.to_vec()))
                    }
                });
                self.phase = Phase::Checking {
                    until: *until,
                    terms: Box::new(terms),
                };
                Ok(())
            }
            (Phase::WaitProof { .. }, ClientPacket::Auth(auth)) => self.prove(auth),
            _ => Err(out_of_turn),
        }
    }

    /// A payload is stored, or not. Acknowledgements go out in the order of their publishes.
    pub fn stored(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if let Phase::Online(online) = &mut self.phase
            && let Err(refusal) = online.stored(ticket, outcome, now, &mut self.wire)
        {
            self.refuse(refusal);
        }
    }

    /// The host is attached, and these are its open commands, oldest first; or it could not be done.
    pub fn subscribed(&mut self, open: Option<Vec<Vec<u8>>>) {
        if let Phase::Online(online) = &mut self.phase {
            online.subscribed(open, &mut self.wire);
        }
    }

    /// A command has come.
    pub fn deliver(&mut self, command: Vec<u8>) {
        if let Phase::Online(online) = &mut self.phase
            && let Err(refusal) = online.deliver(command, &mut self.wire)
        {
            self.refuse(refusal);
        }
    }

    /// Output was written: there may be room for more commands.
    pub fn flushed(&mut self) {
        if let Phase::Online(online) = &mut self.phase {
            online.send(&mut self.wire);
        }
    }

    /// Ends it for a reason from outside: taken over, revoked, shutting down, overtaken by a failure of ours.
    pub fn end(&mut self, reason: ReasonCode, why: &'static str) {
        self.refuse(Refusal::new(reason, why));
    }

    /// Says why and closes. Over MQTT 3.1.1 a server has no word for it once the client is online.
    fn refuse(&mut self, refusal: Refusal) {
        let Wire {
            version, output, ..
        } = &mut self.wire;
        let written = match &self.phase {
            Phase::Closed => return,
            Phase::Online(_) if *version == Version::V311 => Ok(()),
            Phase::Online(_) => Disconnect::new(refusal.reason).encode(*version, output),
            Phase::WaitConnect { .. }
            | Phase::Checking { .. }
            | Phase::WaitProof { .. }
            | Phase::Admitting { .. } => {
                let reason = connect::connack_reason(refusal.reason);
                ConnAck::new(reason).encode(*version, output)
            }
        };
        debug_assert!(written.is_ok(), "a refusal is five bytes");
        self.close(Some(refusal.reason), refusal.why);
    }

    fn close(&mut self, reason: Option<ReasonCode>, why: &'static str) {
        if !self.is_closed() {
            self.left = self.keep();
            self.phase = Phase::Closed;
            self.wire.effect(Effect::Close(Ending { reason, why }));
        }
    }
}

const SECOND_CONNECT: Refusal = Refusal::new(ReasonCode::PROTOCOL_ERROR, "a second CONNECT");

/// Whether this is a CONNECT whose protocol level is that of MQTT 3.1.1: the byte behind the name.
fn is_old_connect(frame: &Frame<'_>) -> bool {
    const LEVEL_AT: usize = 6;
    frame.kind() == Kind::Connect && frame.body().get(LEVEL_AT) == Some(&Version::V311.level())
}

/// Names the phase and nothing of what passes.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.phase {
            Phase::WaitConnect { .. } => "Session(WaitConnect)",
            Phase::Checking { .. } => "Session(Checking)",
            Phase::WaitProof { .. } => "Session(WaitProof)",
            Phase::Admitting { .. } => "Session(Admitting)",
            Phase::Online(_) => "Session(Online)",
            Phase::Closed => "Session(Closed)",
        })
    }
}
