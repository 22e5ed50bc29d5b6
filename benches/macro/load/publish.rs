//! What a message costs: so many publishers with so many in flight each, and one reader that gets everything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use protocol::id::SandboxId;
use zeroize::Zeroizing;

use super::{
    broker::{Access, Broker, host, topic},
    clock,
    fleet::{Fleet, Sources},
    link::Task,
    outhaul::{Follower, seed},
    payload::Payloads,
    report::{Bound, Column, Limit, Report, Row},
};

/// How long clients may take to connect.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// How long a broker may give no sign before a round ends without it.
const QUIET_WAIT: Duration = Duration::from_secs(3);

/// Publishers, and how many of its messages each may have unacknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) publishers: usize,
    pub(crate) window: usize,
}

impl std::str::FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (publishers, window) = text
            .split_once('x')
            .context("write PUBLISHERSxWINDOW, as in 4x64")?;
        Ok(Self {
            publishers: publishers.parse()?,
            window: window.parse()?,
        })
    }
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Messages of a round, of all publishers.
    pub(crate) messages: usize,
    /// A round ends after this, whatever is left.
    pub(crate) time: Duration,
    pub(crate) has_reader: bool,
}

const COLUMNS: [Column; 5] = [
    Column {
        title: "CPU µs/event",
        key: "cpu_us_per_event",
        digits: 2,
    },
    Column {
        title: "acked/s",
        key: "acknowledged_per_s",
        digits: 0,
    },
    Column {
        title: "received/s",
        key: "received_per_s",
        digits: 0,
    },
    Column {
        title: "received %",
        key: "received_percent",
        digits: 1,
    },
    Column {
        title: "payload B",
        key: "payload_bytes",
        digits: 1,
    },
];

/// Messages that were acknowledged, a second, in one round with fresh publishers.
pub(crate) fn acknowledged(broker: &Broker, shape: Shape, effort: Effort) -> anyhow::Result<f64> {
    let publishers = seal(shape, effort.messages)?;
    let figures = measure(broker, shape, effort, &publishers)?;
    figures.get(1).copied().context("a round has figures")
}

/// Rounds of one shape with each broker in turn.
pub(crate) fn run(brokers: &[Broker], shape: Shape, effort: Effort) -> anyhow::Result<Report> {
    let mut rows: Vec<_> = brokers
        .iter()
        .map(|broker| Row {
            broker: broker.name.clone(),
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..effort.rounds {
        let publishers = seal(shape, effort.messages)?;
        // Another one starts each time, so that none has always the same place.
        for place in 0..brokers.len() {
            let at = (round + place) % brokers.len();
            let (Some(broker), Some(row)) = (brokers.get(at), rows.get_mut(at)) else {
                continue;
            };
            let figures = measure(broker, shape, effort, &publishers)
                .with_context(|| format!("round {} with {}", round + 1, broker.name))?;
            row.rounds.push(figures);
        }
    }
    let reader = if effort.has_reader {
        "one reader"
    } else {
        "no reader"
    };
    let mut report = Report {
        bench: format!("publish {}x{}", shape.publishers, shape.window),
        about: format!(
            "{} publisher(s), {} in flight each; QoS 1, TLS 1.3, {reader}; median of {} round(s)",
            shape.publishers, shape.window, effort.rounds
        ),
        columns: &COLUMNS,
        rows,
        limits: Vec::new(),
    };
    report.limits = limits(&report, shape);
    Ok(report)
}

fn limits(report: &Report, shape: Shape) -> Vec<Limit> {
    let (most, most_ratio) = match shape.window {
        1 => (25.0, 0.7),
        _ => (3.0, 0.5),
    };
    let ours = report.rows.iter().map(|row| &row.broker);
    ours.filter(|broker| broker.starts_with("outhaul"))
        .flat_map(|broker| {
            [
                Limit {
                    broker: broker.clone(),
                    what: "CPU µs/event",
                    bound: Bound::Most(most),
                    value: report.median(broker, 0),
                },
                Limit {
                    broker: broker.clone(),
                    what: "CPU, of mosquitto's",
                    bound: Bound::Most(most_ratio),
                    value: report.ratio(broker),
                },
            ]
        })
        .collect()
}

/// A sandbox with what it will say.
struct Publisher {
    sandbox: SandboxId,
    seed: Zeroizing<[u8; 32]>,
    payloads: Arc<Payloads>,
}

/// Sandboxes that nobody has heard of, and their batches, sealed on two threads.
fn seal(shape: Shape, messages: usize) -> anyhow::Result<Vec<Publisher>> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let host = host()?;
    let each = messages.div_ceil(shape.publishers.max(1));
    let wanted: Vec<_> = (0..shape.publishers)
        .map(|_| NEXT.fetch_add(1, Ordering::Relaxed))
        .collect();
    let seal_some = |numbers: &[u64]| -> anyhow::Result<Vec<Publisher>> {
        let publishers = numbers.iter().map(|number| {
            let sandbox = SandboxId::new(&format!("s-{number:06}"))?;
            let seed = seed(*number)?;
            let payloads = Arc::new(Payloads::seal(&host, &sandbox, &seed, each));
            Ok(Publisher {
                sandbox,
                seed,
                payloads,
            })
        });
        publishers.collect()
    };
    let (some, rest) = wanted.split_at(wanted.len() / 2);
    std::thread::scope(|scope| {
        let some = scope.spawn(|| seal_some(some));
        let mut publishers = seal_some(rest)?;
        let some = some
            .join()
            .map_err(|_| anyhow::anyhow!("sealing panicked"))?;
        publishers.extend(some?);
        Ok(publishers)
    })
}

/// Whoever reads: a client in the fleet, or a follower of the journal.
struct Reading {
    follower: Option<Follower>,
    is_client: bool,
}

impl Reading {
    fn received(&self, fleet: &Fleet) -> usize {
        match (&self.follower, self.is_client) {
            (Some(follower), _) => follower.received(),
            (None, true) => fleet.links.iter().flatten().map(|link| link.received).sum(),
            (None, false) => 0,
        }
    }
}

fn measure(
    broker: &Broker,
    shape: Shape,
    effort: Effort,
    publishers: &[Publisher],
) -> anyhow::Result<Vec<f64>> {
    let mut fleet = Fleet::new(&broker.ca, broker.port, Sources::One)?;
    let mut plans = Vec::new();
    for publisher in publishers {
        let task = Task::Publish {
            topic: topic(&publisher.sandbox)?,
            payloads: Arc::clone(&publisher.payloads),
            window: shape.window,
        };
        plans.push(broker.client(&publisher.sandbox, &publisher.seed, task)?);
    }
    let mut reading = Reading {
        follower: None,
        is_client: false,
    };
    if effort.has_reader {
        if let Access::Tokens(outhaul) = &broker.access {
            reading.follower = Some(outhaul.follow()?);
        }
        let reader = broker.reader()?;
        reading.is_client = reader.is_some();
        plans.extend(reader);
    }
    let wanted = plans.len();
    fleet.connect(plans, wanted, clock::mono() + CONNECT_WAIT)?;
    fleet.check()?;
    anyhow::ensure!(fleet.ready() == wanted, "not all clients could connect");

    let span = publish(broker, &mut fleet, &reading, effort)?;
    let payloads = publishers.iter().map(|publisher| &publisher.payloads);
    let (bytes, count) = payloads.fold((0, 0), |(bytes, count), payloads| {
        (bytes + payloads.bytes(), count + payloads.len())
    });
    let acknowledged = float(span.acknowledged);
    Ok(vec![
        span.cpu.as_secs_f64() * 1e6 / acknowledged,
        acknowledged / span.acknowledging.as_secs_f64(),
        float(span.received) / span.receiving.as_secs_f64(),
        float(span.received) * 100.0 / acknowledged,
        float(bytes) / float(count),
    ])
}

/// What happened between the first message and the last that anyone got.
struct Span {
    cpu: Duration,
    acknowledged: usize,
    received: usize,
    acknowledging: Duration,
    receiving: Duration,
}

fn publish(
    broker: &Broker,
    fleet: &mut Fleet,
    reading: &Reading,
    effort: Effort,
) -> anyhow::Result<Span> {
    let cpu = broker.process.cpu()?;
    let start = clock::mono();
    for link in fleet.links.iter_mut().flatten() {
        link.start()?;
    }
    let (mut acknowledged, mut received) = (Mark::new(start), Mark::new(start));
    loop {
        fleet.turn()?;
        fleet.check()?;
        let now = clock::mono();
        if now - start >= effort.time {
            fleet
                .links
                .iter_mut()
                .flatten()
                .for_each(|link| link.stop());
        }
        let mut publishers = fleet
            .links
            .iter()
            .flatten()
            .filter(|link| link.is_publisher());
        let is_done = publishers.clone().all(|link| link.is_done());
        let count = publishers.by_ref().map(|link| link.acknowledged).sum();
        acknowledged.note(count, now);
        received.note(reading.received(fleet), now);
        let is_all = !effort.has_reader || received.count >= acknowledged.count;
        let heard = acknowledged.changed.max(received.changed);
        if (is_done && is_all) || now - heard > QUIET_WAIT {
            break;
        }
    }
    anyhow::ensure!(acknowledged.count > 0, "nothing was acknowledged");
    Ok(Span {
        cpu: broker.process.cpu()?.saturating_sub(cpu),
        acknowledged: acknowledged.count,
        received: received.count,
        acknowledging: acknowledged.changed - start,
        receiving: (received.changed - start).max(Duration::from_micros(1)),
    })
}

/// A count, and when it last grew.
struct Mark {
    count: usize,
    changed: Instant,
}

impl Mark {
    const fn new(start: Instant) -> Self {
        Self {
            count: 0,
            changed: start,
        }
    }

    fn note(&mut self, count: usize, now: Instant) {
        if count > self.count {
            self.count = count;
            self.changed = now;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
const fn float(count: usize) -> f64 {
    count as f64
}
