//! The load generator of the macro benches: starts brokers side by side, gives each the same load from the same client, and prints what it
//! cost them. `benches/macro.sh` builds and runs it; `--help` there says how to read the figures.

mod broker;
mod clock;
mod credential;
mod crowd;
mod durable;
mod enrol;
mod fleet;
mod link;
mod mosquitto;
mod newcomer;
mod outhaul;
mod payload;
mod process;
mod publish;
mod report;
mod rumqttd;
mod tls;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use broker::{Access, Broker};
use clap::{Parser, ValueEnum};
use fleet::Sources;
use publish::{Effort, Shape};
use report::Report;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Broker CPU for each event, and messages a second.
    Publish,
    /// Memory of idle connections.
    Idle,
    /// A crowd that connects at once.
    Storm,
    /// What it costs to wait for the disk.
    Durable,
    /// From an install key to a link.
    Newcomer,
}

/// Measures brokers side by side.
#[derive(Debug, Parser)]
struct Flags {
    /// What to measure; all of it, if none is named
    benches: Vec<Bench>,
    /// The program `outhaul`, as it ships
    #[arg(long, value_name = "FILE")]
    outhaul: PathBuf,
    /// A directory of this run alone
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The program `rumqttd`, for the broker of that name
    #[arg(long, value_name = "FILE", default_value = "target/tools/bin/rumqttd")]
    rumqttd: PathBuf,
    /// Brokers: outhaul-fsync, outhaul-os, mosquitto, rumqttd
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "outhaul-fsync,outhaul-os,mosquitto"
    )]
    brokers: Vec<String>,
    /// Publishers and messages in flight each, for `publish`
    #[arg(long, value_delimiter = ',', default_value = "1x64,4x64,50x1")]
    shapes: Vec<Shape>,
    /// Rounds, of which the median counts
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Messages of a round with more than one in flight; a quarter of them with one
    #[arg(long, default_value_t = 200_000)]
    messages: usize,
    /// The longest a round of `publish` publishes, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Publish with nobody reading
    #[arg(long)]
    no_reader: bool,
    /// Clients of `idle`
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
    /// Clients of `storm`
    #[arg(long, default_value_t = 2_000)]
    storm: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Fail if a limit does not hold
    #[arg(long)]
    check: bool,
    /// Judge nothing: for runs that are too short to
    #[arg(long, conflicts_with = "check")]
    no_limits: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(reports) => {
            let holds = reports
                .iter()
                .flat_map(|report| &report.limits)
                .all(report::Limit::holds);
            ExitCode::from(u8::from(flags.check && !holds))
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(flags: &Flags) -> anyhow::Result<Vec<Report>> {
    let all = [
        Bench::Publish,
        Bench::Idle,
        Bench::Storm,
        Bench::Durable,
        Bench::Newcomer,
    ];
    let wanted = |bench: &Bench| flags.benches.is_empty() || flags.benches.contains(bench);
    raise_descriptors(flags)?;
    let mut reports = Vec::new();
    for bench in all.into_iter().filter(wanted) {
        // Fresh ones for each: memory that one bench leaves behind would hide what the next one needs.
        let brokers = start(flags, bench)?;
        let mut show = |mut report: Report| {
            if flags.no_limits {
                report.limits.clear();
            }
            if !flags.json {
                let _ = std::io::stdout().write_all(report.text().as_bytes());
            }
            reports.push(report);
        };
        match bench {
            Bench::Publish => {
                for shape in &flags.shapes {
                    let messages = match shape.window {
                        1 => flags.messages / 4,
                        _ => flags.messages,
                    };
                    let effort = Effort {
                        rounds: flags.rounds,
                        messages,
                        time: Duration::from_secs(flags.seconds),
                        has_reader: !flags.no_reader,
                    };
                    show(publish::run(&brokers, *shape, effort)?);
                }
            }
            Bench::Durable => {
                let effort = Effort {
                    rounds: flags.rounds,
                    messages: flags.messages / 4,
                    time: Duration::from_secs(flags.seconds),
                    has_reader: false,
                };
                for report in durable::run(&brokers, &flags.dir, effort)? {
                    show(report);
                }
            }
            Bench::Newcomer => show(newcomer::run(&brokers, flags.rounds)?),
            Bench::Idle => show(crowd::idle(&brokers, flags.idle)?),
            Bench::Storm => {
                for sources in [Sources::One, Sources::Many] {
                    show(crowd::storm(&brokers, flags.storm, sources, flags.rounds)?);
                }
            }
        }
    }
    if flags.json {
        let reports: Vec<_> = reports.iter().map(Report::json).collect();
        let text = serde_json::to_string_pretty(&reports)?;
        std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
    }
    Ok(reports)
}

/// Starts the brokers, ours first: it makes the certificate that all of them use.
fn start(flags: &Flags, bench: Bench) -> anyhow::Result<Vec<Broker>> {
    let dir = flags.dir.join(format!("{bench:?}").to_lowercase());
    std::fs::create_dir_all(&dir).context("make a directory")?;
    let is_ours = |name: &&String| name.starts_with("outhaul");
    let mut brokers = Vec::new();
    for name in flags.brokers.iter().filter(is_ours) {
        brokers.push(match name.as_str() {
            "outhaul-fsync" => outhaul::start(&flags.outhaul, &dir, "fsync")?,
            "outhaul-os" => outhaul::start(&flags.outhaul, &dir, "os")?,
            other => anyhow::bail!("no broker is called {other}"),
        });
    }
    let (keys, ca) = certificate(&brokers, &dir)?;
    for name in flags.brokers.iter().filter(|name| !is_ours(name)) {
        brokers.push(match name.as_str() {
            "mosquitto" => mosquitto::start(&dir, &keys, &ca)?,
            "rumqttd" => rumqttd::start(&flags.rumqttd, &dir, &keys, &ca)?,
            other => anyhow::bail!("no broker is called {other}"),
        });
    }
    Ok(brokers)
}

/// Where the certificate is that the first of our brokers made, and what signed it.
fn certificate(brokers: &[Broker], dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let first = brokers
        .iter()
        .find(|broker| matches!(broker.access, Access::Tokens(_)))
        .context("name one of outhaul-fsync and outhaul-os: it makes the certificate")?;
    Ok((dir.join(&first.name).join("keys"), first.ca.clone()))
}

/// Lets us, and the brokers that we start, have as many connections as the benches open.
fn raise_descriptors(flags: &Flags) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    let wanted = u64::try_from(flags.idle.max(flags.storm))? + 256;
    let most = limit.maximum.unwrap_or(u64::MAX);
    anyhow::ensure!(
        most >= wanted,
        "{most} open files are allowed and {wanted} needed: raise the hard limit, or lower --idle"
    );
    Ok(())
}
