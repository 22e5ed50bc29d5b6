//! `[journal]`: what is kept.

use anyhow::bail;
use serde::Deserialize;

use crate::core::retention::Limits;

/// How long is kept, in days: what somebody asks about is mostly less than a month ago.
const DAYS: u64 = 30;
/// How much is kept of all hosts, in MiB: 16 GiB, which the disk of a small machine has to spare.
const MIB: u64 = 16 * 1024;
/// How much is kept of one host, in MiB: a quarter of the whole.
const HOST_MIB: u64 = 4 * 1024;
/// The most days; more is without end.
const DAYS_MAX: u64 = 36_500;
/// The fewest MiB: two segments, since one is written while another goes.
const MIB_MIN: u64 = 128;
/// The fewest MiB of one host.
const HOST_MIB_MIN: u64 = 16;
/// The most MiB: an exbibyte.
const MIB_MAX: u64 = 1 << 40;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// `[journal]`, and its flags.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawJournal {
    /// Days that records are kept; 0 is for ever.
    pub keep_days: Option<u64>,
    /// MiB that are kept of all hosts; 0 is without limit.
    pub keep_mib: Option<u64>,
    /// MiB that are kept of one host; 0 is without limit.
    pub keep_host_mib: Option<u64>,
}

impl RawJournal {
    pub(super) fn over(self, below: Self) -> Self {
        Self {
            keep_days: self.keep_days.or(below.keep_days),
            keep_mib: self.keep_mib.or(below.keep_mib),
            keep_host_mib: self.keep_host_mib.or(below.keep_host_mib),
        }
    }
}

impl TryFrom<RawJournal> for Limits {
    type Error = anyhow::Error;

    fn try_from(raw: RawJournal) -> anyhow::Result<Self> {
        let bounded = |key, value: Option<u64>, default, unit, least, most| {
            let value = value.unwrap_or(default);
            if value != 0 && !(least..=most).contains(&value) {
                bail!("journal.{key} is {value}; allowed is {least} to {most}, or 0 for no limit");
            }
            Ok((value != 0).then_some(value * unit))
        };
        let mib =
            |key, value, default, least| bounded(key, value, default, 1 << 20, least, MIB_MAX);
        Ok(Self {
            age_ms: bounded("keep_days", raw.keep_days, DAYS, DAY_MS, 1, DAYS_MAX)?,
            bytes: mib("keep_mib", raw.keep_mib, MIB, MIB_MIN)?,
            host_bytes: mib("keep_host_mib", raw.keep_host_mib, HOST_MIB, HOST_MIB_MIN)?,
        })
    }
}
