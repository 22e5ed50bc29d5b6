//! Logs: lines on standard error, for people or as JSON for machines.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How lines look.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `filter` is a level, or targets with levels: `info`, or `warn,agent=debug`.
///
/// # Errors
/// If the filter cannot be read, or logging was started before.
pub fn start(filter: &str, format: Format) -> anyhow::Result<()> {
    let targets: Targets = filter.parse().with_context(|| {
        format!("read log filter {filter:?}: use a level such as info, or warn,agent=debug")
    })?;
    let subscriber = tracing_subscriber::registry().with(targets);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(false);
    match format {
        Format::Text => subscriber
            .with(lines.with_ansi(io::stderr().is_terminal()))
            .try_init(),
        Format::Json => subscriber.with(lines.json().flatten_event(true)).try_init(),
    }
    .context("start logging")
}
