//! Logs: lines on standard error, for people or as JSON for machines.
//!
//! A subscriber of our own: one line for each event, no spans. The usual library keeps a table of spans for each thread, 40 KB of an
//! idle operator's memory and 60 KB of its program, and nothing here opens one.

mod filter;
mod line;

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::set_global_default;
use tracing::{Event, Metadata, Subscriber};

use super::server_time::wall;
use filter::Filter;
use tracing::level_filters::LevelFilter;

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
    let filter = filter.parse().with_context(|| {
        format!("read log filter {filter:?}: use a level such as info, or warn,agent=debug")
    })?;
    let lines = Lines {
        filter,
        format,
        is_coloured: io::stderr().is_terminal(),
    };
    set_global_default(lines).context("start logging")
}

/// Writes events that pass the filter.
struct Lines {
    filter: Filter,
    format: Format,
    is_coloured: bool,
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.passes(metadata.target(), *metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.filter.max())
    }

    fn event(&self, event: &Event<'_>) {
        let line = match self.format {
            Format::Text => line::text(event, wall(), self.is_coloured),
            Format::Json => line::json(event, wall()),
        };
        // In one piece, so that lines of several threads do not mix. If standard error is gone there is nobody to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
