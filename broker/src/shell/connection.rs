//! One MQTT connection: bytes in, bytes out, and what its session asks for in between.
//!
//! One task and one hand-written future for each connection: it looks at the socket, at what the journal has finished, at live commands,
//! at the order to end and at the clock, all in one place and with one buffer each way. While it is idle neither buffer exists.
//! Publishes are stored concurrently, as many as Receive Maximum allows, so that they share the journal's group commit; what the
//! client does not read, or floods us with, is answered by not reading.

mod admission;
mod burst;
mod feeder;
mod pending;
mod reading;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    future::{Future as _, poll_fn},
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use protocol::{
    id::HostId,
    limits::PACKET_BYTES_MAX,
    mqtt::{ReasonCode, frame},
    time::Now,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    time::{Sleep, sleep_until, timeout},
};

use super::{
    clock,
    metrics::Metrics,
    places::PlaceFile,
    registry::{Registry, Seated},
    router::{CommandLink, Delivery},
};
use crate::{
    core::{
        gate::{Effect, Ending, Offer, Outcome, Place, Session},
        principal::Who,
    },
    drive::{Accepted, Plane},
    shell::journal::Journal,
};
use admission::Presence;
use burst::Burst;
use feeder::Feeder;
use pending::Pending;

/// How long output may wait without a byte of it being taken: the client is gone, or means harm.
pub const WRITE_WAIT: Duration = Duration::from_secs(15);
/// How long a last word may take, with the end of TLS behind it.
pub const FAREWELL_WAIT: Duration = Duration::from_secs(1);
/// What a client may still send after the last word, in bytes.
const DISCARD_BYTES_MAX: usize = 1024 * 1024;
/// What one look at the socket reads, in bytes: a TLS record.
const READ_BYTES: usize = 16 * 1024;
/// What one connection takes in before others have their turn, in bytes: the largest packet.
const QUANTUM_BYTES: usize = PACKET_BYTES_MAX;
/// A buffer that is larger than this is given back when it is empty, in bytes.
const KEPT_BYTES_MAX: usize = 1024;
/// Live commands taken at one look, so that the socket has its turn.
const COMMANDS_PER_LOOK: usize = 16;
/// What every connection needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Checks tokens and takes payloads.
    pub plane: Plane,
    /// Who is online.
    pub registry: Registry,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is offered to every client.
    pub offer: Offer,
}

impl Gate {
    /// Serves a connection until it ends. Its client must have proven itself at `until`; `stranger` is dropped when it has.
    pub async fn serve<S, G>(self, stream: S, until: Instant, stranger: G)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
        G: Send,
    {
        self.metrics.mqtt.add();
        let metrics = Arc::clone(&self.metrics);
        // Boxed, so that the futures which pass it on hold a pointer each and not a copy.
        let connection = Box::new(Connection::new(self, stream, until, stranger));
        let ending = connection.run().await;
        metrics.end(ending);
    }
}

struct Connection<S, G> {
    gate: Gate,
    stream: S,
    session: Session,
    /// Read, and not yet taken.
    input: Vec<u8>,
    /// The client will send nothing more.
    is_eof: bool,
    /// Something was written since the last flush.
    is_unflushed: bool,
    /// When output must have moved.
    write_until: Option<Instant>,
    burst: Burst,
    pending: Pending,
    timer: Pin<Box<Sleep>>,
    stranger: Option<G>,
    /// The generation of its host's key that its token rests on.
    generation: Option<u64>,
    online: Option<OnlineParts>,
    link: Option<CommandLink>,
    feeder: Option<Feeder>,
    /// How often all tokens had been made void when this one's was checked.
    voided: u64,
    /// A session of it was kept, and goes on.
    is_resumed: bool,
    /// When a reader's place is to be written down.
    keep_at: Option<Instant>,
    /// The place that is in the store.
    kept_place: Option<Place>,
    /// Where its place is written down at every step.
    place_file: Option<PlaceFile>,
}

/// What a connection has while its principal is online. Fields are dropped in this order: presence ends before the seat is free.
struct OnlineParts {
    /// Readers have none: nobody waits for them.
    _presence: Option<Presence>,
    who: Who,
    seat: Seated,
    /// The order to end has come, and is not to be waited for again.
    is_told: bool,
}

/// What one look around brought.
enum Look {
    /// The session was told something, or bytes came.
    News,
    /// The socket failed, or does not take our bytes.
    Broken(&'static str),
}

impl<S, G> Connection<S, G>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    G: Send,
{
    fn new(gate: Gate, stream: S, until: Instant, stranger: G) -> Self {
        Self {
            session: Session::new(gate.offer, until),
            gate,
            stream,
            input: Vec::new(),
            is_eof: false,
            is_unflushed: false,
            write_until: None,
            burst: Burst::default(),
            pending: Pending::default(),
            timer: Box::pin(sleep_until(until.into())),
            stranger: Some(stranger),
            generation: None,
            online: None,
            link: None,
            feeder: None,
            voided: 0,
            is_resumed: false,
            keep_at: None,
            kept_place: None,
            place_file: None,
        }
    }

    async fn run(mut self: Box<Self>) -> Ending {
        let ending = loop {
            let look = poll_fn(|context| self.look(context)).await;
            let taken = match self.take_packets().await {
                Ok(bytes) => bytes,
                Err(ending) => break ending,
            };
            let why = match look {
                Look::Broken(why) => why,
                Look::News if self.is_eof => "the client closed the connection",
                Look::News => {
                    // Its quantum: whoever sends without end comes again when all others that are ready had theirs.
                    if taken >= QUANTUM_BYTES / 2 {
                        tokio::task::yield_now().await;
                    }
                    continue;
                }
            };
            break Ending { reason: None, why };
        };
        self.leave(ending).await;
        ending
    }

    /// Takes every whole packet that is in the input; how many bytes that were.
    async fn take_packets(&mut self) -> Result<usize, Ending> {
        let taken = self.take_each_packet().await;
        self.burst.begin(&self.gate.plane, &mut self.pending);
        taken
    }

    /// Takes them, and does what the session asks for after each.
    async fn take_each_packet(&mut self) -> Result<usize, Ending> {
        if let Some(ending) = self.run_effects().await {
            return Err(ending);
        }
        if self.input.is_empty() {
            return Ok(0);
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        let now = self.now();
        while self.session.wants_packets()
            && let Some(first) = rest.first()
        {
            match frame(rest, self.session.packet_bytes_max()) {
                Ok(Some(packet)) => {
                    self.session.receive(&packet, now);
                    rest = rest.get(packet.total_bytes()..).unwrap_or_default();
                }
                Ok(None) => break,
                Err(error) => self.session.unreadable(error, *first),
            }
            if let Some(ending) = self.run_effects().await {
                return Err(ending);
            }
        }
        let taken = input.len() - rest.len();
        self.input = input;
        self.input.drain(..taken);
        give_back(&mut self.input);
        Ok(taken)
    }

    async fn run_effects(&mut self) -> Option<Ending> {
        while let Some(effect) = self.session.poll_effect() {
            match effect {
                Effect::CheckToken(token) => self.check(&token),
                Effect::CheckReader(shown) => self.check_reader(&shown),
                Effect::Admit { who, resume } => self.admit(&who, resume).await,
                Effect::Store {
                    ticket,
                    target,
                    payload,
                } => {
                    self.gate.metrics.published.add();
                    self.burst.push(ticket, target, payload);
                }
                Effect::Follow { from, reads } => self.follow(from, &reads),
                Effect::Subscribe(host) => {
                    let opened = self.open_commands(&host).await;
                    let open = opened.map_err(|error| {
                        let error = format!("{error:#}");
                        tracing::warn!(%host, error, "commands could not be opened");
                    });
                    self.session.subscribed(open.ok());
                }
                Effect::Keep => self.keep_now().await,
                Effect::Unsubscribe => self.link = None,
                Effect::Skip(count) => {
                    self.gate.metrics.skipped.add_many(count);
                    tracing::warn!(count, "commands are larger than their host takes");
                }
                Effect::Refused(reason) => self.gate.metrics.refuse_packet(reason),
                Effect::Close(ending) => return Some(ending),
            }
        }
        None
    }

    /// Attached first, read after: what comes between is in both, and nothing in neither.
    async fn open_commands(&mut self, host: &HostId) -> anyhow::Result<Vec<Vec<u8>>> {
        self.link = None;
        let link = self.gate.plane.router().link(host).await?;
        let open = self.gate.plane.open_commands(host).await?;
        self.link = Some(link);
        Ok(open)
    }

    fn now(&self) -> Now {
        Now {
            mono: clock::mono(),
            unix: self.gate.plane.now(),
        }
    }

    /// Looks at everything once. Pending only if nothing at all has happened.
    fn look(&mut self, context: &mut Context<'_>) -> Poll<Look> {
        let mut has_answered = self.look_at_pending(context);
        let mut is_news = self.look_at_work(context);
        match self.write(context) {
            Poll::Ready(Ok(())) => has_answered = true,
            Poll::Ready(Err(_)) => return Poll::Ready(Look::Broken("writing failed")),
            Poll::Pending => {}
        }
        match self.read(context) {
            Poll::Ready(Ok(())) => is_news = true,
            Poll::Ready(Err(_)) => return Poll::Ready(Look::Broken("reading failed")),
            Poll::Pending => {}
        }
        if is_news || has_answered && !self.is_settled() {
            return Poll::Ready(Look::News);
        }
        ready!(self.wait(context));
        let now = clock::mono();
        if self.write_until.is_some_and(|until| now >= until) {
            return Poll::Ready(Look::Broken("the client takes no bytes"));
        }
        self.keep_if_due(now);
        self.session.handle_timeout(now);
        Poll::Ready(Look::News)
    }

    /// Whether another look would find nothing that this one did not: answers were given and written, and nothing waited for that.
    fn is_settled(&mut self) -> bool {
        self.session.output().is_empty()
            && self.input.is_empty()
            && self.link.is_none()
            && self.feeder.is_none()
            && !self.session.has_effects()
    }

    /// What was ordered, and what is to be sent.
    fn look_at_work(&mut self, context: &mut Context<'_>) -> bool {
        let mut is_news = self.look_at_journal(context);
        self.look_at_place();
        if let Some(online) = &mut self.online
            && !online.is_told
            && let Poll::Ready(end) = Pin::new(&mut online.seat.end).poll(context)
        {
            is_news = true;
            online.is_told = true;
            if let Ok(end) = end {
                self.session.end(end.reason, end.why);
            }
        }
        for _ in 0..COMMANDS_PER_LOOK {
            let Some(link) = &mut self.link else { break };
            let Poll::Ready(delivery) = link.poll_next(context) else {
                break;
            };
            is_news = true;
            match delivery {
                Some(Delivery::Message(command)) => self.session.deliver(command),
                Some(Delivery::Missed) => {
                    let reason = ReasonCode::QUOTA_EXCEEDED;
                    self.session.end(reason, "commands overtook it");
                }
                None => {
                    self.link = None;
                    let reason = ReasonCode::SERVER_BUSY;
                    self.session.end(reason, "the router is gone");
                }
            }
        }
        is_news
    }

    /// What was stored.
    fn look_at_pending(&mut self, context: &mut Context<'_>) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        let mut is_news = false;
        let now = clock::mono();
        let (session, metrics) = (&mut self.session, &self.gate.metrics);
        // Those that wait for room find it together, and wake the journal once.
        let plane = &self.gate.plane;
        let cork = self.pending.is_waiting();
        let cork = cork.then(|| (plane.journal().cork(), plane.bench().map(Journal::cork)));
        self.pending.poll_all(context, |ticket, accepted| {
            is_news = true;
            let outcome = outcome_of(accepted);
            if outcome == Outcome::Stored {
                metrics.stored.add();
            } else {
                metrics.refuse_packet(outcome.reason());
            }
            session.stored(ticket, outcome, now);
        });
        drop(cork);
        is_news
    }

    /// Writes what is to be written. Ready if that made room.
    fn write(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut has_written = false;
        while !self.session.output().is_empty() {
            let output = self.session.output();
            let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, output)
            else {
                if has_written || self.write_until.is_none() {
                    self.write_until = Some(clock::mono() + WRITE_WAIT);
                }
                break;
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            output.drain(..written);
            has_written = true;
            self.is_unflushed = true;
            self.session.flushed();
        }
        if self.session.output().is_empty() {
            self.write_until = None;
            give_back(self.session.output());
        }
        if self.is_unflushed
            && let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(context)
        {
            flushed?;
            self.is_unflushed = false;
        }
        if has_written {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Reads into the input what there is room for. Ready if anything came, the end included.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut has_read = false;
        while self.session.wants_packets()
            && !self.is_eof
            && self.input.len() < self.session.packet_bytes_max()
        {
            // On the stack, so that a connection that waits has no buffer at all.
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let room = self.session.packet_bytes_max() - self.input.len();
            let space = space.get_mut(..room.min(READ_BYTES)).unwrap_or_default();
            let mut buffer = ReadBuf::uninit(space);
            let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, &mut buffer)
            else {
                break;
            };
            read?;
            has_read = true;
            self.is_eof = buffer.filled().is_empty();
            self.input.extend_from_slice(buffer.filled());
        }
        if has_read {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// Waits for the next deadline. Deadlines mostly move away, so the timer is set again only when it rings early.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadlines = [self.session.poll_timeout(), self.write_until, self.keep_at];
        let Some(until) = deadlines.into_iter().flatten().min() else {
            return Poll::Pending;
        };
        loop {
            if self.timer.deadline() > until.into() {
                self.timer.as_mut().reset(until.into());
            }
            ready!(self.timer.as_mut().poll(context));
            if clock::mono() >= until {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(until.into());
        }
    }

    /// Says the last word, and gives everything back in order: the link, the presence, the seat.
    async fn leave(mut self: Box<Self>, ending: Ending) {
        let output = std::mem::take(self.session.output());
        let stream = &mut self.stream;
        let farewell = async {
            stream.write_all(&output).await?;
            stream.shutdown().await
        };
        let farewell = timeout(FAREWELL_WAIT, farewell).await;
        self.link = None;
        self.feeder = None;
        let why = ending.why;
        let reason = ending.reason.map(ReasonCode::value);
        // Who lost its rights has nothing to come back to, and its name may be another's by now.
        if ending.reason != Some(ReasonCode::ADMINISTRATIVE_ACTION) {
            self.keep_last().await;
        }
        if let Some(online) = self.online.take() {
            self.gate.metrics.ended.add();
            tracing::info!(who = %online.who, reason, why, "disconnected");
        } else {
            tracing::debug!(reason, why, "a stranger left");
        }
        // What was begun is finished, whoever still wants to know.
        if !self.pending.is_empty() {
            tokio::spawn(self.pending.finish());
        }
        // A socket that is closed with bytes unread is reset, and a reset overtakes the last word.
        if let (Some(_), Ok(Ok(())), false) = (reason, farewell, self.is_eof) {
            let _ = timeout(FAREWELL_WAIT, discard(&mut self.stream)).await;
        }
    }
}

/// Reads until the other side is done, or has sent more than anyone would by mistake.
async fn discard(stream: &mut (impl AsyncRead + Unpin)) {
    let mut space = [0; 512];
    let mut left = DISCARD_BYTES_MAX;
    while let Ok(count @ 1..) = stream.read(&mut space).await {
        let Some(rest) = left.checked_sub(count) else {
            return;
        };
        left = rest;
    }
}

const fn outcome_of(accepted: Accepted) -> Outcome {
    match accepted {
        Accepted::Stored | Accepted::Again => Outcome::Stored,
        Accepted::Malformed | Accepted::Fork => Outcome::Invalid,
        Accepted::Busy => Outcome::Busy,
        Accepted::Failed => Outcome::Failed,
    }
}

/// Gives an empty buffer's memory back, if it is worth it.
fn give_back(buffer: &mut Vec<u8>) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BYTES_MAX {
        *buffer = Vec::new();
    }
}
