//! The live fan-out: rumqttd's router, and the only file that names it.
//!
//! It never meets the network, and a wrong step kills its thread or leaves it deaf, so every road to it leads through here. One
//! thread of ours makes all calls that may block: it feeds messages in, attaches links and detaches them. A link is read by a task
//! of its own, which is never cancelled half way, and which wakes the router only while it is attached. What goes in is topics that
//! [`Topic`] built, at QoS 0, never retained.
//!
//! Losing the router loses nothing: what it carries is in the journal. But its log drops what a slow link has not read, without a
//! word, so every message is numbered per topic, and a link says [`Delivery::Missed`] where a number is missing.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, anyhow, ensure};
use protocol::{id::HostId, topic::Topic};
use rumqttd::{
    local::{LinkBuilder, LinkError, LinkRx, LinkTx},
    protocol::{Disconnect, DisconnectReasonCode, Packet},
};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};

/// The `[router]` section of `broker.toml`, as rumqttd reads it. [`default_config`] is what holds without one.
pub type RouterConfig = rumqttd::RouterConfig;

/// Requests that wait for our thread. Past that, whoever asks waits too.
pub const REQUESTS_MAX: usize = 256;
/// Messages that a link has read and its owner has not taken. Past that the link is not read.
pub const LINK_QUEUE_MAX: usize = 16;
/// How long a message may wait to be taken by our thread: a router that is alive takes thousands in a millisecond.
pub const PUBLISH_WAIT: Duration = Duration::from_secs(1);
/// How long attaching may take, with the wait for the detaching of the link before it.
pub const ATTACH_WAIT: Duration = Duration::from_secs(2);
/// How long a probe may take through the router.
pub const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How often [`Router::failed`] probes.
pub const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Probes that may fail in a row: a machine that sleeps for a second is not a dead router.
pub const PROBE_FAILURES_MAX: u32 = 3;
/// Where probes go. Outside the grammar of [`Topic`], so that nothing else does.
const PROBE_TOPIC: &str = "probe";
/// Bytes of the number that stands before every message inside the router.
const NUMBER_BYTES: usize = 8;

/// The router. Cheap to clone. Its own thread lives as long as the process.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    requests: mpsc::Sender<Request>,
    /// The last probe that came back. Closed when the router's thread is gone.
    seen: watch::Receiver<u64>,
    probes: AtomicU64,
    /// One entry per host ever seen: rumqttd keeps something for each link's name for ever, so names are never made up anew.
    slots: Mutex<BTreeMap<HostId, Slot>>,
}

/// Where a host's link goes: its name in the router, and the right to be attached under it.
struct Slot {
    name: String,
    turn: Arc<Semaphore>,
}

/// What comes out of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A message, the bytes that were published.
    Message(Vec<u8>),
    /// Messages before this one are lost here: read them from the journal. The number of the one that came is not the next.
    Missed,
}

/// A host's live commands. Detached when dropped; the next link of the same host waits for that.
#[derive(Debug)]
pub struct CommandLink {
    deliveries: mpsc::Receiver<Delivery>,
}

impl CommandLink {
    /// The next message; `None` when the router is gone. May be cancelled without losing one.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// As [`CommandLink::next`], for a hand-written future.
    pub fn poll_next(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Delivery>> {
        self.deliveries.poll_recv(context)
    }
}

/// What holds when the configuration says nothing: small segments, since each host's commands topic keeps up to two of them.
#[must_use]
pub fn default_config() -> RouterConfig {
    RouterConfig {
        max_connections: 10_000,
        max_outgoing_packet_count: 200,
        max_segment_size: 256 * 1024,
        max_segment_count: 2,
        ..RouterConfig::default()
    }
}

impl Router {
    /// Starts it, and sees a probe through. Call it inside the tokio runtime.
    ///
    /// # Errors
    /// The configuration would kill it, no thread can be started, or the probe did not come back.
    pub async fn spawn(config: RouterConfig) -> anyhow::Result<Self> {
        check_config(&config)?;
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("router-feed".to_owned())
            .spawn(move || feed(config, &runtime, received))
            .context("start router thread")?;
        let (seen_sender, seen) = watch::channel(0);
        let inner = Inner {
            requests,
            seen,
            probes: AtomicU64::new(0),
            slots: Mutex::new(BTreeMap::new()),
        };
        let router = Self {
            inner: Arc::new(inner),
        };
        let turn = Arc::new(Semaphore::new(1));
        let link = router.attach(PROBE_TOPIC.to_owned(), turn, PROBE_TOPIC.to_owned());
        tokio::spawn(watch_probes(link.await?, seen_sender));
        router.probe().await?;
        Ok(router)
    }

    /// Gives a message to whoever has a link to `topic` now.
    ///
    /// # Errors
    /// The router is gone, or took nothing for [`PUBLISH_WAIT`].
    pub async fn publish(&self, topic: &Topic, payload: &[u8]) -> anyhow::Result<()> {
        self.publish_to(topic.to_string(), payload).await
    }

    async fn publish_to(&self, topic: String, payload: &[u8]) -> anyhow::Result<()> {
        // Room for the number in front, so that nothing is copied again.
        let mut framed = vec![0; NUMBER_BYTES];
        framed.extend_from_slice(payload);
        let request = Request::Publish { topic, framed };
        timeout(PUBLISH_WAIT, self.inner.requests.send(request))
            .await
            .context("publish through the router: it takes nothing")?
            .map_err(|_| anyhow!("publish through the router: it is gone"))
    }

    /// Attaches `host` to its commands. What is published after this returns comes out of the link.
    ///
    /// # Errors
    /// The host's last link is still attached, or the router does not answer, within [`ATTACH_WAIT`].
    pub async fn link(&self, host: &HostId) -> anyhow::Result<CommandLink> {
        let (name, turn) = self.slot(host);
        let topic = Topic::Commands(host.clone()).to_string();
        self.attach(name, turn, topic).await
    }

    fn slot(&self, host: &HostId) -> (String, Arc<Semaphore>) {
        let mut slots = self
            .inner
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let number = slots.len();
        let slot = slots.entry(host.clone()).or_insert_with(|| Slot {
            name: format!("host-{number}"),
            turn: Arc::new(Semaphore::new(1)),
        });
        (slot.name.clone(), Arc::clone(&slot.turn))
    }

    async fn attach(
        &self,
        name: String,
        turn: Arc<Semaphore>,
        topic: String,
    ) -> anyhow::Result<CommandLink> {
        let attaching = async {
            let turn = turn.acquire_owned().await?;
            let (reply, attached) = oneshot::channel();
            let request = Request::Attach {
                name,
                topic,
                turn,
                reply,
            };
            self.inner
                .requests
                .send(request)
                .await
                .map_err(|_| anyhow!("the router is gone"))?;
            attached.await.context("the router took no link")
        };
        let link = timeout(ATTACH_WAIT, attaching)
            .await
            .context("attach to the router: it does not answer")?
            .context("attach to the router")?;
        let (sender, deliveries) = mpsc::channel(LINK_QUEUE_MAX);
        // A task must not keep our thread alive by itself.
        tokio::spawn(pump(link, sender, self.inner.requests.downgrade()));
        Ok(CommandLink { deliveries })
    }

    /// Sends a message through the router and waits for it.
    ///
    /// # Errors
    /// It did not come back within [`PROBE_WAIT`], or the router is gone.
    pub async fn probe(&self) -> anyhow::Result<()> {
        let number = self.inner.probes.fetch_add(1, Ordering::Relaxed) + 1;
        let mut seen = self.inner.seen.clone();
        let there_and_back = async {
            self.publish_to(PROBE_TOPIC.to_owned(), &number.to_be_bytes())
                .await?;
            seen.wait_for(|seen| *seen >= number)
                .await
                .map_err(|_| anyhow!("its thread ended"))?;
            anyhow::Ok(())
        };
        timeout(PROBE_WAIT, there_and_back)
            .await
            .context("probe the router: no answer")?
            .context("probe the router")
    }

    /// Ends when the router is lost for good, which the process should not outlive: at once when its thread ends, and after
    /// [`PROBE_FAILURES_MAX`] failed probes in a row.
    pub async fn failed(&self) -> anyhow::Error {
        let mut failures = 0;
        loop {
            let mut seen = self.inner.seen.clone();
            match self.probe().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures >= PROBE_FAILURES_MAX || seen.has_changed().is_err() {
                        return error;
                    }
                    tracing::warn!(failures, "the router did not answer a probe");
                }
            }
            let closed = async { while seen.changed().await.is_ok() {} };
            let _ = timeout(PROBE_EVERY, closed).await;
        }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Router")
    }
}

/// For tests of what becomes of the broker.
#[cfg(test)]
impl Router {
    /// Ends the router's thread by what rumqttd dies of; `publish` takes a Topic so that this cannot happen.
    pub(crate) async fn die(&self) {
        self.publish_to("é/x".to_owned(), b"").await.unwrap();
    }
}

/// rumqttd asserts these on its own thread, after it was started.
fn check_config(config: &RouterConfig) -> anyhow::Result<()> {
    ensure!(
        config.max_segment_size >= 1024 && config.max_segment_count >= 1,
        "router: max_segment_size must be 1024 or more, max_segment_count 1 or more"
    );
    let custom = config.custom_segment.iter().flatten();
    ensure!(
        custom
            .map(|(_, segment)| segment)
            .all(|segment| segment.max_segment_size >= 1024 && segment.max_segment_count >= 1),
        "router: custom_segment: max_segment_size must be 1024 or more, max_segment_count 1 or more"
    );
    ensure!(
        config.max_connections >= 3 && config.max_outgoing_packet_count >= 1,
        "router: max_connections must be 3 or more, max_outgoing_packet_count 1 or more"
    );
    Ok(())
}

/// What our thread is asked.
enum Request {
    /// Feed a message in, whose first bytes are room for its number.
    Publish { topic: String, framed: Vec<u8> },
    /// Attach a link and subscribe it. `turn` is the right to that name.
    Attach {
        name: String,
        topic: String,
        turn: OwnedSemaphorePermit,
        reply: oneshot::Sender<Link>,
    },
    /// Detach it, and give its turn away only then.
    Detach(Link),
}

/// An attached link.
struct Link {
    tx: LinkTx,
    rx: LinkRx,
    /// The number of the last message before it was attached.
    last: u64,
    turn: OwnedSemaphorePermit,
}

/// Our thread: everything that blocks while the router does not answer.
fn feed(config: RouterConfig, runtime: &Handle, mut requests: mpsc::Receiver<Request>) {
    let router = rumqttd::Router::new(0, config).spawn();
    // Boxed: the error carries the whole request.
    let build = |name: &str| {
        LinkBuilder::new(name, router.clone())
            .build()
            .map_err(Box::new)
    };
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    let Ok((mut feeder, _feeder_rx, _)) = build("feeder") else {
        return;
    };
    while let Some(request) = requests.blocking_recv() {
        match request {
            Request::Publish { topic, mut framed } => {
                let number = numbers.entry(topic.clone()).or_default();
                *number += 1;
                if let Some(front) = framed.first_chunk_mut::<NUMBER_BYTES>() {
                    *front = number.to_be_bytes();
                }
                if feeder.publish(topic, framed).is_err() {
                    return;
                }
            }
            Request::Attach {
                name,
                topic,
                turn,
                reply,
            } => {
                let last = numbers.get(&topic).copied().unwrap_or_default();
                let Ok((tx, rx)) = subscribe(build(&name), topic) else {
                    continue;
                };
                let link = Link { tx, rx, last, turn };
                if let Err(link) = reply.send(link) {
                    detach(link, runtime);
                }
            }
            Request::Detach(link) => detach(link, runtime),
        }
    }
}

/// Subscribes a fresh link, and waits until the router says so: from there on it misses nothing.
fn subscribe(
    built: Result<(LinkTx, LinkRx, rumqttd::Notification), Box<LinkError>>,
    topic: String,
) -> Result<(LinkTx, LinkRx), Box<LinkError>> {
    let (mut tx, mut rx, _) = built?;
    tx.subscribe(topic).map_err(Box::new)?;
    loop {
        // The answer stands in the queue before any message.
        let packet = rx
            .recv()
            .map_err(Box::new)?
            .and_then(Option::<Packet>::from);
        if let Some(Packet::SubAck(..)) = packet {
            return Ok((tx, rx));
        }
    }
}

/// Asks the router to forget a link, and waits until it has: it then drops its end of the channel. Only our thread does this, and
/// only with the reading half in hand, so nothing can wake the router for a link that is gone.
fn detach(mut link: Link, runtime: &Handle) {
    let reason_code = DisconnectReasonCode::NormalDisconnection;
    let goodbye = Packet::Disconnect(Disconnect { reason_code }, None);
    // `async` in name only.
    if runtime.block_on(link.tx.send(goodbye)).is_ok() {
        while link.rx.recv().is_ok() {}
    }
    drop(link.turn);
}

/// Reads one link until its owner drops it or the router ends.
async fn pump(mut link: Link, out: mpsc::Sender<Delivery>, requests: mpsc::WeakSender<Request>) {
    loop {
        let next = tokio::select! {
            next = link.rx.next() => next,
            () = out.closed() => break,
        };
        let Ok(next) = next else { return };
        let Some(notification) = next else { continue };
        match Option::<Packet>::from(notification) {
            Some(Packet::Publish(publish, _)) => {
                let Some((number, payload)) = publish.payload.split_first_chunk::<NUMBER_BYTES>()
                else {
                    debug_assert!(false, "every message is numbered");
                    continue;
                };
                let number = u64::from_be_bytes(*number);
                let is_next = number == link.last + 1;
                link.last = number;
                if !is_next && out.send(Delivery::Missed).await.is_err() {
                    break;
                }
                if out.send(Delivery::Message(payload.to_vec())).await.is_err() {
                    break;
                }
            }
            Some(_) => {}
            // The router waits until we have read what it gave us, and we have.
            None => {
                if link.rx.wake().await.is_err() {
                    return;
                }
            }
        }
    }
    if let Some(requests) = requests.upgrade() {
        let _ = requests.send(Request::Detach(link)).await;
    }
}

/// Notes which probes came back. When the link ends, so does `seen`.
async fn watch_probes(mut link: CommandLink, seen: watch::Sender<u64>) {
    while let Some(delivery) = link.next().await {
        if let Delivery::Message(payload) = delivery
            && let Ok(number) = payload.try_into()
        {
            seen.send_replace(u64::from_be_bytes(number));
        }
    }
}

#[cfg(test)]
mod tests;
