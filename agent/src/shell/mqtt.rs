//! The operator's MQTT connection. One [`Link`] is one attempt: it dials, proves who we are, carries commands, reports
//! and renewals, and ends with exactly one [`LinkEvent::Down`]. It never dials again; when to open the next one is
//! decided in `core`. Nothing survives a link but what `core` keeps: a publish that was not acknowledged is published
//! again on the next one, and a command that was not acknowledged is sent again by the broker.
//!
//! The library behind it is named in [`pump`] alone, so that it can be swapped there.

mod pump;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use smol::Task;
use smol::channel::{self, Receiver, Sender};

use super::tls::Tls;
use super::tokio::spawn;
use super::transport::Proxy;

/// How many of our publishes may be unacknowledged; the broker may ask for fewer in CONNACK. Reports are few, and the library
/// makes room for every one of these at the start: 128 cost 88 KB more of an idle operator's memory.
pub const INFLIGHT_MAX: u16 = 32;

/// How many commands the broker may send before we acknowledge one (our Receive Maximum). Commands are rare and up to
/// 64 KiB each: this bounds what a broker can make us hold to 1 MiB.
pub const COMMANDS_UNACKED_MAX: u16 = 16;

/// The largest packet we accept, in bytes, and the largest we send unless CONNACK says less (`design.md` §7).
pub const PACKET_BYTES_MAX: u32 = 64 * 1024;

/// The longest token we present, in bytes; the gate refuses longer ones.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;

/// How long a link may take from [`Link::open`] to CONNACK and SUBACK. The dial has a shorter deadline of its own.
pub const UP_WAIT_MAX: Duration = Duration::from_secs(20);

/// How long the broker may take over a renewal (AUTH 0x19) before the link is given up.
pub const RENEW_WAIT_MAX: Duration = Duration::from_secs(10);

/// How long [`Link::close`] waits for the DISCONNECT to leave.
pub const CLOSE_WAIT_MAX: Duration = Duration::from_secs(1);

/// How many events wait for [`Link::next`]: every acknowledgement and every command that can be outstanding, and a few
/// of the rest. It cannot overflow unless the broker breaks its Receive Maximum, and then the link ends.
const EVENTS_MAX: usize = INFLIGHT_MAX as usize + COMMANDS_UNACKED_MAX as usize + 8;

/// Bytes a PUBLISH needs beside topic and payload: fixed header 5, topic length 2, packet id 2, property length 1.
const PUBLISH_OVERHEAD_BYTES: usize = 10;

/// Numbers the links of this process, so that an old link's [`AckHandle`] means nothing to a new one.
static LINKS: AtomicU64 = AtomicU64::new(0);

/// Answers a challenge: server nonce (8 bytes) → client nonce (8) and Ed25519 signature over both nonces (64).
#[derive(Clone)]
pub struct Prover(Arc<Prove>);

type Prove = dyn Fn(&[u8; 8]) -> [u8; 72] + Send + Sync;

impl Prover {
    /// Wraps the function that holds the key.
    pub fn new(prove: impl Fn(&[u8; 8]) -> [u8; 72] + Send + Sync + 'static) -> Self {
        Self(Arc::new(prove))
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Prover(_)")
    }
}

/// What one connection attempt needs to know.
#[derive(Clone)]
pub struct LinkOptions {
    /// The broker, `host:port`.
    pub authority: String,
    /// The proxy to go through, if any.
    pub proxy: Option<Proxy>,
    /// With ALPN `mqtt`.
    pub tls: Tls,
    /// The token's subject.
    pub client_id: String,
    /// The connection token, at most [`TOKEN_BYTES_MAX`].
    pub token: Vec<u8>,
    /// Holds the key that the token names.
    pub prove: Prover,
    /// Whole seconds, at least one; CONNACK may set another. Silence of twice this ends the link.
    pub keep_alive: Duration,
    /// The topic to subscribe to with QoS 1 as soon as the link is up.
    pub subscribe: Option<String>,
    /// [`UP_WAIT_MAX`] outside tests.
    pub up_wait: Duration,
}

impl fmt::Debug for LinkOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LinkOptions")
            .field("authority", &self.authority)
            .field("client_id", &self.client_id)
            .field("subscribe", &self.subscribe)
            .finish_non_exhaustive()
    }
}

/// What the broker said in CONNACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// How many publishes may be unacknowledged: the smaller of [`INFLIGHT_MAX`] and the broker's Receive Maximum.
    pub inflight_max: u16,
    /// The largest packet the broker takes, in bytes, at most [`PACKET_BYTES_MAX`].
    pub packet_bytes_max: u32,
    /// The keep-alive in force.
    pub keep_alive: Duration,
    /// Name and value, in the broker's order (durability mode, server time).
    pub user_properties: Vec<(String, String)>,
}

/// News from a link, in the order it happened.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// CONNACK: publishes are taken from now on.
    Up(Session),
    /// SUBACK for [`LinkOptions::subscribe`].
    Subscribed,
    /// A command. The broker sends it again on the next link until it is acknowledged.
    Message {
        /// Where it was published.
        topic: String,
        /// Its bytes, unverified.
        payload: Vec<u8>,
        /// For [`Link::ack`], once the command is on disk.
        ack: AckHandle,
    },
    /// PUBACK: the broker has made the publish with this number durable.
    Acked {
        /// As given to [`Link::publish`].
        seq: u64,
    },
    /// PUBACK with a failure code (0x80 and up): the broker will not take this publish.
    PublishRefused {
        /// As given to [`Link::publish`].
        seq: u64,
        /// MQTT 5 reason code.
        code: u8,
    },
    /// The broker accepted the token given to [`Link::present`].
    Renewed,
    /// The link is over. Always the last event, and there is only one.
    Down(DownReason),
}

/// Why a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// Not allowed: CONNACK or SUBACK with this code.
    #[error("the broker refused us with code {code:#04x}")]
    Refused {
        /// MQTT 5 reason code.
        code: u8,
    },
    /// The broker ended a link that was up with this DISCONNECT code (0x87 also answers a failed renewal).
    #[error("the broker disconnected us with code {code:#04x}")]
    Disconnected {
        /// MQTT 5 reason code.
        code: u8,
    },
    /// Name resolution, TCP or the proxy failed, or the connection broke.
    #[error("{0}")]
    Network(String),
    /// The broker's certificate or TLS is not what we trust.
    #[error("{0}")]
    Tls(String),
    /// No answer within the step's deadline.
    #[error("no answer in time: {0}")]
    Timeout(&'static str),
    /// The peer misbehaved: what it sent is not the MQTT 5 we agreed on.
    #[error("the broker broke the protocol: {0}")]
    Protocol(&'static str),
    /// Ours: what we were given cannot be used (authority, credentials file, token).
    #[error("{0}")]
    Local(String),
    /// We closed it.
    #[error("closed")]
    Closed,
}

/// Why a publish or a token was not taken. Nothing was sent, and the link goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The link is not up, or as much is outstanding as the broker allows: wait for the next event.
    #[error("no room until something is acknowledged")]
    Full,
    /// Larger than the broker takes; it will never be sent as it is.
    #[error("larger than the broker takes")]
    TooLarge,
    /// Not a topic one may publish to.
    #[error("not a topic name")]
    Topic,
}

/// The right to acknowledge one command once, on the link it came from.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a command that is not acknowledged comes again"]
pub struct AckHandle {
    link: u64,
    /// Nothing is owed for a QoS 0 message.
    packet_id: Option<NonZeroU16>,
}

/// One connection attempt and the connection that comes of it. Dropping it cuts the connection without a DISCONNECT.
pub struct Link {
    number: u64,
    client: Option<pump::Client>,
    ledger: Arc<Mutex<Ledger>>,
    events: Receiver<LinkEvent>,
    /// Closed by [`Link::close`].
    stop: Sender<()>,
    renewals: Sender<u64>,
    down: AtomicBool,
    _task: Task<()>,
}

/// What is outstanding on a link. Held for moments, never across an await.
#[derive(Debug, Default)]
struct Ledger {
    up: bool,
    /// Up, and subscribed if that was asked for.
    settled: bool,
    inflight_max: u16,
    packet_bytes_max: u32,
    /// Given to the library, in order, without a packet id yet.
    queued: VecDeque<u64>,
    /// On the wire, by packet id.
    sent: BTreeMap<u16, u64>,
    /// Settled, but not yet taken by [`Link::next`].
    unread: usize,
    /// Renewals begun and done; never more than one apart.
    renewals_begun: u64,
    renewals_done: u64,
}

impl Ledger {
    fn outstanding(&self) -> usize {
        self.queued.len() + self.sent.len() + self.unread
    }
}

impl Link {
    /// Starts an attempt. Never waits and never fails: whatever goes wrong comes as [`LinkEvent::Down`]. Runs on the
    /// executor of [`super::tokio`].
    #[must_use]
    pub fn open(options: LinkOptions) -> Self {
        let number = LINKS.fetch_add(1, Ordering::Relaxed);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (events_in, events) = channel::bounded(EVENTS_MAX);
        let (stop, stopped) = channel::bounded(1);
        let (renewals, renewals_out) = channel::bounded(1);
        let parts = pump::build(&options);
        let client = parts.as_ref().ok().map(|(client, _)| client.clone());
        let pump = pump::Pump {
            number,
            ledger: Arc::clone(&ledger),
            events: events_in,
            stopped,
            renewals: renewals_out,
            subscribe: options.subscribe,
            up_wait: options.up_wait,
        };
        Self {
            number,
            client,
            ledger,
            events,
            stop,
            renewals,
            down: AtomicBool::new(false),
            _task: spawn(pump.run(parts)),
        }
    }

    /// The next event. After [`LinkEvent::Down`] there is none, and this waits for ever. May be cancelled.
    pub async fn next(&self) -> LinkEvent {
        match self.events.recv().await {
            Ok(event) => {
                match event {
                    LinkEvent::Acked { .. } | LinkEvent::PublishRefused { .. } => {
                        let mut ledger = self.ledger();
                        ledger.unread = ledger.unread.saturating_sub(1);
                    }
                    LinkEvent::Down(_) => self.down.store(true, Ordering::Relaxed),
                    LinkEvent::Up(_)
                    | LinkEvent::Subscribed
                    | LinkEvent::Message { .. }
                    | LinkEvent::Renewed => {}
                }
                event
            }
            // The pump always says why; that it went without a word would be a bug, and must not become a hang.
            Err(_) if !self.down.swap(true, Ordering::Relaxed) => {
                LinkEvent::Down(DownReason::Closed)
            }
            Err(_) => smol::future::pending().await,
        }
    }

    /// Publishes with QoS 1. `seq` is the caller's and comes back in [`LinkEvent::Acked`] or
    /// [`LinkEvent::PublishRefused`]. A place is free again when that event has been taken from [`Link::next`].
    ///
    /// # Errors
    ///
    /// [`NotSent`].
    pub fn publish(&self, seq: u64, topic: &str, payload: Vec<u8>) -> Result<(), NotSent> {
        let client = self.client.as_ref().ok_or(NotSent::Full)?;
        // The lock is held until the number is in the queue, so that both queues have one order.
        let mut ledger = self.ledger();
        if !ledger.up || ledger.outstanding() >= usize::from(ledger.inflight_max) {
            return Err(NotSent::Full);
        }
        let bytes = topic.len() + payload.len() + PUBLISH_OVERHEAD_BYTES;
        if u32::try_from(bytes).map_or(true, |bytes| bytes > ledger.packet_bytes_max) {
            return Err(NotSent::TooLarge);
        }
        client.publish(topic, payload)?;
        ledger.queued.push_back(seq);
        Ok(())
    }

    /// Acknowledges a command. A handle of another link is let go: that link's broker sends the command again.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a handle that is gone cannot acknowledge twice"
    )]
    pub fn ack(&self, handle: AckHandle) {
        let AckHandle { link, packet_id } = handle;
        if let (Some(client), Some(packet_id)) = (&self.client, packet_id)
            && link == self.number
        {
            client.ack(packet_id);
        }
    }

    /// Presents a fresh token on the live link (AUTH 0x19). [`LinkEvent::Renewed`] follows, or the link goes down: the
    /// broker answers a bad token with DISCONNECT 0x87, and silence lasts at most [`RENEW_WAIT_MAX`].
    ///
    /// # Errors
    ///
    /// [`NotSent::Full`] when the link is not up or another renewal is under way.
    pub fn present(&self, token: &[u8]) -> Result<(), NotSent> {
        let client = self.client.as_ref().ok_or(NotSent::Full)?;
        let mut ledger = self.ledger();
        if !ledger.up || ledger.renewals_begun != ledger.renewals_done {
            return Err(NotSent::Full);
        }
        client.present(token)?;
        ledger.renewals_begun += 1;
        // A full channel means that a watch is running; it looks at the newest number when it ends.
        let _ = self.renewals.try_send(ledger.renewals_begun);
        Ok(())
    }

    /// Sends DISCONNECT 0x00 and ends the link with [`DownReason::Closed`], at the latest after [`CLOSE_WAIT_MAX`], at
    /// once if it is not up. Does not wait for acknowledgements.
    pub fn close(&self) {
        if let Some(client) = &self.client {
            client.disconnect();
        }
        self.stop.close();
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Link")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// The ledger stays right whatever panicked beside it: each change is one statement.
fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
