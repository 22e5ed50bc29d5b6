//! What all engines do, and the record that all of them keep.

use std::{path::Path, str::FromStr};

use anyhow::bail;
use broker::core::journal::{Entry, RecordKind};

use super::{fjall::Fjall, ours::Ours, sqlite::Sqlite};

/// With names and head it is a record of 256 bytes.
const PAYLOAD: [u8; 216] = [0x5a; 216];

/// A record to keep.
pub(crate) const fn entry(time_ms: u64) -> Entry<'static> {
    Entry {
        kind: RecordKind::Event,
        host: "edge-1",
        sandbox: Some("s-0001"),
        time_ms,
        payload: &PAYLOAD,
    }
}

/// An engine that is open.
pub(crate) trait Engine {
    /// Keeps so many records, in one commit: durable when it returns. The first has this offset.
    fn append(&mut self, first: u64, count: u64) -> anyhow::Result<()>;
    /// Reads all of them in order, each checked; how many there were.
    fn scan(&mut self) -> anyhow::Result<u64>;
}

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ours,
    Sqlite,
    Fjall,
}

impl Kind {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ours => "outhaul",
            Self::Sqlite => "sqlite",
            Self::Fjall => "fjall",
        }
    }

    pub(crate) fn open(self, dir: &Path) -> anyhow::Result<Box<dyn Engine>> {
        Ok(match self {
            Self::Ours => Box::new(Ours::open(dir)?),
            Self::Sqlite => Box::new(Sqlite::open(dir)?),
            Self::Fjall => Box::new(Fjall::open(dir)?),
        })
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        let all = [Self::Ours, Self::Sqlite, Self::Fjall];
        match all.into_iter().find(|kind| kind.word() == word) {
            Some(kind) => Ok(kind),
            None => bail!("no engine of this name"),
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Append,
    Open,
    Scan,
}

impl Step {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Open => "open",
            Self::Scan => "scan",
        }
    }
}

impl FromStr for Step {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        let all = [Self::Append, Self::Open, Self::Scan];
        match all.into_iter().find(|step| step.word() == word) {
            Some(step) => Ok(step),
            None => bail!("no step of this name"),
        }
    }
}
