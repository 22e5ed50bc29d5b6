//! Many connections: what an idle one costs, and how long it takes until all of a crowd are in.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use protocol::id::SandboxId;

use super::{
    broker::Broker,
    clock,
    fleet::{Fleet, Sources},
    link::{Plan, Task},
    outhaul::seed,
    report::{Bound, Column, Limit, Report, Row},
};

/// Handshakes at once while a crowd gathers slowly.
const AT_ONCE: usize = 64;
/// How long a crowd may take to gather.
const GATHER_WAIT: Duration = Duration::from_secs(300);
/// How long a broker has, once all are there, to give back what handshakes needed.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a storm may take before it counts as lost.
const STORM_WAIT: Duration = Duration::from_secs(60);

const IDLE_COLUMNS: [Column; 4] = [
    Column {
        title: "KiB/connection",
        key: "kib_per_connection",
        digits: 1,
    },
    Column {
        title: "connected",
        key: "connected",
        digits: 0,
    },
    Column {
        title: "gathered in s",
        key: "gathered_s",
        digits: 1,
    },
    Column {
        title: "CPU ms/connect",
        key: "cpu_ms_per_connect",
        digits: 2,
    },
];

const STORM_COLUMNS: [Column; 5] = [
    Column {
        title: "all up in s",
        key: "all_up_s",
        digits: 2,
    },
    Column {
        title: "up",
        key: "up",
        digits: 0,
    },
    Column {
        title: "p50 ms",
        key: "p50_ms",
        digits: 0,
    },
    Column {
        title: "p99 ms",
        key: "p99_ms",
        digits: 0,
    },
    Column {
        title: "CPU ms/connect",
        key: "cpu_ms_per_connect",
        digits: 2,
    },
];

/// Connects `count` clients from many addresses, and looks at the broker's memory before and after. A broker's first crowd counts: a
/// second would find the memory that the first one left, so there is one round.
pub(crate) fn idle(brokers: &[Broker], count: usize) -> anyhow::Result<Report> {
    let mut rows = Vec::new();
    for broker in brokers {
        let figures = gather(broker, count).with_context(|| format!("idle on {}", broker.name))?;
        rows.push(Row {
            broker: broker.name.clone(),
            rounds: vec![figures],
        });
    }
    let mut report = Report {
        bench: "idle".to_owned(),
        about: format!("{count} idle connections, authenticated; TLS 1.3; resident memory"),
        columns: &IDLE_COLUMNS,
        rows,
        limits: Vec::new(),
    };
    report.limits = ours(&report, "KiB/connection", 16.0);
    Ok(report)
}

fn gather(broker: &Broker, count: usize) -> anyhow::Result<Vec<f64>> {
    let plans = plans(broker, count)?;
    let (before, cpu, start) = (broker.process.rss()?, broker.process.cpu()?, clock::mono());
    let mut fleet = Fleet::new(&broker.ca, broker.port, Sources::Many)?;
    fleet.connect(plans, AT_ONCE, start + GATHER_WAIT)?;
    fleet.check()?;
    let (took, cpu) = (clock::mono() - start, broker.process.cpu()? - cpu);
    let connected = fleet.ready();
    fleet.rest(SETTLE)?;
    fleet.check()?;
    let grown = broker.process.rss()?.saturating_sub(before);
    let connected = float(connected as u64);
    Ok(vec![
        float(grown) / 1024.0 / connected,
        connected,
        took.as_secs_f64(),
        cpu.as_secs_f64() * 1e3 / connected,
    ])
}

/// Lets `count` clients connect all at once.
pub(crate) fn storm(
    brokers: &[Broker],
    count: usize,
    sources: Sources,
    rounds: usize,
) -> anyhow::Result<Report> {
    let mut rows: Vec<_> = brokers
        .iter()
        .map(|broker| Row {
            broker: broker.name.clone(),
            rounds: Vec::new(),
        })
        .collect();
    for round in 0..rounds {
        for (broker, row) in brokers.iter().zip(&mut rows) {
            let figures = burst(broker, count, sources)
                .with_context(|| format!("storm {} on {}", round + 1, broker.name))?;
            row.rounds.push(figures);
        }
    }
    let (name, from) = match sources {
        Sources::One => ("one", "one address"),
        Sources::Many => ("many", "as many addresses"),
    };
    let mut report = Report {
        bench: format!("storm {name}"),
        about: format!(
            "{count} clients at once from {from}; TLS 1.3, authenticated; median of {rounds} round(s)"
        ),
        columns: &STORM_COLUMNS,
        rows,
        limits: Vec::new(),
    };
    report.limits = ours(&report, "seconds until all are up", 10.0);
    Ok(report)
}

fn burst(broker: &Broker, count: usize, sources: Sources) -> anyhow::Result<Vec<f64>> {
    let plans = plans(broker, count)?;
    let (cpu, start) = (broker.process.cpu()?, clock::mono());
    let mut fleet = Fleet::new(&broker.ca, broker.port, sources)?;
    fleet.connect(plans, count, start + STORM_WAIT)?;
    let cpu = broker.process.cpu()? - cpu;
    let mut waits: Vec<_> = fleet
        .links
        .iter()
        .flatten()
        .filter_map(|link| Some(link.ready? - link.dialled))
        .collect();
    waits.sort_unstable();
    let up = fleet.ready();
    // Who is not up by the end was not up in any time that counts.
    let all_up = if up == count {
        last_ready(&fleet).map_or(f64::INFINITY, |last| (last - start).as_secs_f64())
    } else {
        STORM_WAIT.as_secs_f64()
    };
    let quantile = |part: usize| {
        let at = (waits.len() * part / 100).min(waits.len().saturating_sub(1));
        waits
            .get(at)
            .map_or(f64::NAN, |wait| wait.as_secs_f64() * 1e3)
    };
    Ok(vec![
        all_up,
        float(up as u64),
        quantile(50),
        quantile(99),
        cpu.as_secs_f64() * 1e3 / float(up.max(1) as u64),
    ])
}

fn last_ready(fleet: &Fleet) -> Option<Instant> {
    fleet
        .links
        .iter()
        .flatten()
        .filter_map(|link| link.ready)
        .max()
}

/// Clients, each a sandbox with a token of its own where there are tokens, and none that came before: taking over a link whose client is
/// just going is another matter.
fn plans(broker: &Broker, count: usize) -> anyhow::Result<Vec<Plan>> {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
    (0..count)
        .map(|_| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let sandbox = SandboxId::new(&format!("c-{number}"))?;
            broker.client(&sandbox, &seed(number)?, Task::Idle)
        })
        .collect()
}

fn ours(report: &Report, what: &'static str, most: f64) -> Vec<Limit> {
    report
        .rows
        .iter()
        .filter(|row| row.broker.starts_with("outhaul"))
        .map(|row| Limit {
            broker: row.broker.clone(),
            what,
            bound: Bound::Most(most),
            value: report.median(&row.broker, 0),
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
const fn float(count: u64) -> f64 {
    count as f64
}
