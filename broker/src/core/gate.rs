//! The gate: the MQTT 5 session of one connection, as a machine. It reads no socket and no clock.
//!
//! Packets, answers and the time go in; bytes to send are appended to [`Session::output`], and work for others comes out of
//! [`Session::poll_effect`], which is to be emptied after every call. Every phase has a deadline.
//!
//! ```text
//! WaitConnect ─CONNECT→ Checking ─token good→ WaitProof ─proof good→ Admitting ─old one gone→ Online
//!      │                    │                     │                      │                      │
//!      └────────────────────┴────── refused ──────┴──────────────────────┴──── taken over … ────┴→ Closed
//! ```
//!
//! What MQTT offers and Outhaul does not is advertised away in CONNACK, and enforced: no will, retained message, QoS 2, topic alias,
//! wildcard, shared subscription or kept session gets past here.

mod connect;
mod inbox;
mod online;
mod outbox;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use protocol::{
    id::HostId,
    limits::{LEEWAY_S, PACKET_BYTES_BEFORE_AUTH_MAX, PACKET_BYTES_MAX},
    mqtt::{
        Auth, ClientPacket, ConnAck, DecodeError, Disconnect, Frame, Kind, ReasonCode, Version,
        decode_client,
    },
    possession::Nonce,
    time::{Now, is_expired},
    token::{Grant, Subject},
    topic::Topic,
};

use super::principal::Principal;
use connect::Terms;
use online::Online;

pub use connect::{CLIENT_PACKET_BYTES_MIN, KEEP_ALIVE_S_MAX, METHOD};
pub use inbox::{QUIET_MAX, Ticket};
pub use online::{FILTERS_MAX, REFUSALS_MAX, RENEWAL_WAIT};
pub use outbox::OUTPUT_BYTES_MAX;

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
    /// What CONNACK says of it: `fsync` or `os`.
    durability: &'static str,
}

/// Work for others.
#[derive(Clone, PartialEq, Eq)]
pub enum Effect {
    /// Check this token; tell [`Session::checked`].
    CheckToken(Vec<u8>),
    /// It is who it says. Make its older connection go away, then tell [`Session::admitted`].
    Admit(Subject),
    /// Make a payload durable; tell [`Session::stored`].
    Store {
        /// Names it in the answer.
        ticket: Ticket,
        /// Where it belongs: a topic of the principal's own.
        topic: Arc<Topic>,
        /// The payload.
        payload: Vec<u8>,
    },
    /// Attach the host to its commands and read its open ones; tell [`Session::subscribed`].
    Subscribe(HostId),
    /// Detach it.
    Unsubscribe,
    /// So many commands were larger than the client takes, and are not sent.
    Skip(usize),
    /// A packet was answered with this refusal, and the connection goes on: to be counted.
    Refused(ReasonCode),
    /// Write out what is in [`Session::output`] and close. The last effect.
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
#[derive(Default)]
struct Wire {
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
    },
    /// CONNACK was sent. Lasts until its token ends, or it falls silent.
    Online(Box<Online>),
    /// Nothing more is taken or sent.
    Closed,
}

impl Session {
    /// A session whose client must have proven itself at `until`.
    #[must_use]
    pub fn new(durability: &'static str, until: Instant) -> Self {
        Self {
            phase: Phase::WaitConnect { until },
            wire: Wire::default(),
            durability,
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
        let stepped = match decode_client(frame, Version::V5) {
            Ok(packet) => self.step(&packet, now),
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
            // What was never kept cannot be kept longer (MQTT 5.0 §3.14.2.2.2).
            if self.is_online() && disconnect.session_expiry_secs.is_some_and(|s| s > 0) {
                let reason = ReasonCode::PROTOCOL_ERROR;
                return Err(Refusal::new(reason, "raises its session expiry"));
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
                let (terms, token) = match connect::judge(connect) {
                    Ok(judged) => judged,
                    Err(refusal) if connect.version == Version::V311 => {
                        self.refuse_old(refusal);
                        return Ok(());
                    }
                    Err(refusal) => return Err(refusal),
                };
                self.wire.effect(Effect::CheckToken(token.to_vec()));
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

    /// Takes the verdict on a token: what it grants, or what to answer. `nonce` comes from the system's generator.
    pub fn checked(&mut self, verdict: Result<Grant, ReasonCode>, nonce: Nonce) {
        if let Phase::Online(online) = &mut self.phase {
            if let Err(refusal) = online.checked(verdict, nonce, &mut self.wire) {
                self.refuse(refusal);
            }
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Checking { until, terms } => {
                let grant = match verdict {
                    Ok(grant) if grant.subject == terms.subject => Ok(grant),
                    Ok(_) => Err((
                        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                        "its client id is not its token's subject",
                    )),
                    Err(reason) => Err((reason, "its token is refused")),
                };
                match grant {
                    Ok(grant) => {
                        let reason = ReasonCode::CONTINUE_AUTHENTICATION;
                        self.wire.auth(reason, Some(&nonce));
                        self.phase = Phase::WaitProof {
                            until,
                            terms,
                            grant: Box::new(grant),
                            nonce,
                        };
                    }
                    Err((reason, why)) => {
                        self.phase = Phase::Checking { until, terms };
                        self.refuse(Refusal::new(reason, why));
                    }
                }
            }
            other => self.phase = other,
        }
    }

    fn prove(&mut self, auth: &Auth<'_>) -> Result<(), Refusal> {
        check_step(auth, ReasonCode::CONTINUE_AUTHENTICATION)?;
        let Phase::WaitProof {
            until,
            terms,
            grant,
            nonce,
        } = &self.phase
        else {
            debug_assert!(false, "the phase was looked at before");
            return Ok(());
        };
        let proof = auth.data.unwrap_or_default();
        let Some(principal) = Principal::prove((**grant).clone(), nonce, proof) else {
            return Err(UNPROVEN);
        };
        self.wire.effect(Effect::Admit(principal.subject().clone()));
        self.phase = Phase::Admitting {
            until: *until,
            terms: terms.clone(),
            principal: Box::new(principal),
        };
        Ok(())
    }

    /// The client's older connection is gone: it is told that it is welcome.
    pub fn admitted(&mut self, now: Now) {
        let Phase::Admitting {
            terms, principal, ..
        } = &self.phase
        else {
            debug_assert!(self.is_closed(), "only who asked for admission is admitted");
            return;
        };
        let Some(expires) = end_of(principal.expires_s(), now) else {
            let reason = ReasonCode::NOT_AUTHORIZED;
            return self.refuse(Refusal::new(reason, "its token ended meanwhile"));
        };
        connect::welcome(terms, self.durability, now.unix, &mut self.wire.output);
        let online = Online::new(terms, (**principal).clone(), expires, now.mono);
        self.phase = Phase::Online(Box::new(online));
    }

    /// A payload is stored, or not. Acknowledgements go out in the order of their publishes.
    pub fn stored(&mut self, ticket: Ticket, outcome: Outcome, now: Instant) {
        if let Phase::Online(online) = &mut self.phase {
            online.stored(ticket, outcome, now, &mut self.wire.output);
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

    /// Says why and closes.
    fn refuse(&mut self, refusal: Refusal) {
        let output = &mut self.wire.output;
        let written = match &self.phase {
            Phase::Closed => return,
            Phase::Online(_) => Disconnect::new(refusal.reason).encode(Version::V5, output),
            Phase::WaitConnect { .. }
            | Phase::Checking { .. }
            | Phase::WaitProof { .. }
            | Phase::Admitting { .. } => {
                let reason = connect::connack_reason(refusal.reason);
                ConnAck::new(reason).encode(Version::V5, output)
            }
        };
        debug_assert!(written.is_ok(), "a refusal is five bytes");
        self.close(Some(refusal.reason), refusal.why);
    }

    /// The same for a client of MQTT 3.1.1, in its own form.
    fn refuse_old(&mut self, refusal: Refusal) {
        let connack = ConnAck::new(refusal.reason);
        let written = connack.encode(Version::V311, &mut self.wire.output);
        debug_assert!(written.is_ok(), "a refusal is four bytes");
        self.close(Some(refusal.reason), refusal.why);
    }

    fn close(&mut self, reason: Option<ReasonCode>, why: &'static str) {
        if !self.is_closed() {
            self.phase = Phase::Closed;
            self.wire.effect(Effect::Close(Ending { reason, why }));
        }
    }
}

const UNPROVEN: Refusal = Refusal::new(
    ReasonCode::NOT_AUTHORIZED,
    "did not prove that it holds its token's key",
);

/// Whether `auth` is this step of our method (MQTT 5.0 §4.12: the method never changes).
fn check_step(auth: &Auth<'_>, step: ReasonCode) -> Result<(), Refusal> {
    if auth.method != Some(METHOD) {
        let reason = ReasonCode::BAD_AUTHENTICATION_METHOD;
        return Err(Refusal::new(reason, "changes its authentication method"));
    }
    if auth.reason != step {
        let reason = ReasonCode::PROTOCOL_ERROR;
        return Err(Refusal::new(reason, "a step of authentication out of turn"));
    }
    Ok(())
}

/// When a token that ends at `expires_s` ends a connection, leeway included; `None` if that is past.
fn end_of(expires_s: u64, now: Now) -> Option<Instant> {
    if is_expired(expires_s, now.unix) {
        return None;
    }
    let end_ms = expires_s.saturating_add(LEEWAY_S).saturating_mul(1000);
    let left = Duration::from_millis(end_ms.saturating_sub(now.unix.0));
    now.mono.checked_add(left.min(TOKEN_WAIT_MAX))
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

/// Shows neither tokens nor payloads.
impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CheckToken(_) => f.write_str("CheckToken"),
            Self::Admit(subject) => write!(f, "Admit({subject})"),
            Self::Store {
                ticket, payload, ..
            } => write!(f, "Store({ticket:?}, {} bytes)", payload.len()),
            Self::Subscribe(host) => write!(f, "Subscribe({host})"),
            Self::Unsubscribe => f.write_str("Unsubscribe"),
            Self::Skip(count) => write!(f, "Skip({count})"),
            Self::Refused(reason) => write!(f, "Refused({reason})"),
            Self::Close(ending) => write!(f, "Close({ending:?})"),
        }
    }
}
