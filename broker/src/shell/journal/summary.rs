//! What each sealed segment holds, by host. Found by reading it through once, and kept beside it: a file that may be lost or damaged at
//! any time, and is then made again.

use super::catalog::Sealed;
use super::segment::{self, Scan, Step};
use crate::core::journal::removed::Count;
use crate::core::retention::Summary;
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Hexadecimal digits of the checksum that the file begins with.
const CHECKSUM_DIGITS: usize = 8;

/// As it is in the file.
#[derive(Debug, Deserialize, Serialize)]
struct Kept {
    /// With `serial` and `end`: which file it is about.
    bytes: u64,
    serial: u32,
    first: u64,
    end: u64,
    first_ms: u64,
    last_ms: u64,
    is_whole: bool,
    /// Records and bytes.
    hosts: BTreeMap<String, (u64, u64)>,
}

/// What the segment holds.
///
/// # Errors
/// It is not there. One that cannot be read to its end is summed up as far as it can.
pub(super) fn load(dir: &Path, sealed: &Sealed) -> anyhow::Result<Summary> {
    if let Some(summary) = read(dir, sealed) {
        return Ok(summary);
    }
    let mut summary = sum_up(dir, sealed)?;
    if summary.is_whole {
        if let Err(error) = store(dir, sealed, &summary) {
            tracing::debug!(
                error = format!("{error:#}"),
                "a segment's summary was not kept"
            );
        }
    } else {
        let metadata = std::fs::metadata(segment::path(dir, sealed.first));
        let written = metadata.context("look at journal segment")?.mtime();
        let written_ms = u64::try_from(written).unwrap_or_default() * 1000;
        summary.last_ms = summary.last_ms.max(written_ms);
    }
    Ok(summary)
}

/// Keeps it beside its segment. Not synced: see the module.
pub(super) fn store(dir: &Path, sealed: &Sealed, summary: &Summary) -> anyhow::Result<()> {
    let kept = Kept {
        bytes: sealed.bytes,
        serial: sealed.serial,
        first: summary.first,
        end: summary.end,
        first_ms: summary.first_ms,
        last_ms: summary.last_ms,
        is_whole: summary.is_whole,
        hosts: summary
            .hosts
            .iter()
            .map(|(host, count)| (host.clone(), (count.records, count.bytes)))
            .collect(),
    };
    let json = serde_json::to_string(&kept)?;
    let path = segment::beside(dir, sealed.first, segment::SUMMARY);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(format!("{:08x}{json}", crc32c::crc32c(json.as_bytes())).as_bytes())?;
    Ok(())
}

/// It is not to be believed any more.
pub(super) fn forget(dir: &Path, first: u64) {
    // One that is not there is forgotten.
    let _ = std::fs::remove_file(segment::beside(dir, first, segment::SUMMARY));
}

fn read(dir: &Path, sealed: &Sealed) -> Option<Summary> {
    let path = segment::beside(dir, sealed.first, segment::SUMMARY);
    let text = std::fs::read_to_string(path).ok()?;
    let (checksum, json) = text.split_at_checked(CHECKSUM_DIGITS)?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32c::crc32c(json.as_bytes()) {
        return None;
    }
    let kept: Kept = serde_json::from_str(json).ok()?;
    let of = (kept.first, kept.end, kept.bytes, kept.serial);
    if of != (sealed.first, sealed.end, sealed.bytes, sealed.serial) {
        return None;
    }
    let hosts = kept.hosts.into_iter();
    Some(Summary {
        first: kept.first,
        end: kept.end,
        first_ms: kept.first_ms,
        last_ms: kept.last_ms,
        is_whole: kept.is_whole,
        hosts: hosts
            .map(|(host, (records, bytes))| (host, Count { records, bytes }))
            .collect(),
    })
}

/// Reads the segment through, up to its end or to the first thing that cannot be read.
pub(super) fn sum_up(dir: &Path, sealed: &Sealed) -> anyhow::Result<Summary> {
    let mut summary = Summary {
        first: sealed.first,
        end: sealed.end,
        first_ms: 0,
        last_ms: 0,
        is_whole: false,
        hosts: BTreeMap::new(),
    };
    let Some(mut scan) = Scan::open(dir, sealed.first, sealed.bytes)? else {
        return Ok(summary);
    };
    let mut at = sealed.first;
    loop {
        match scan.step(at) {
            Ok(Step::Record(record, frame)) => {
                add(
                    &mut summary,
                    record.host,
                    record.time_ms,
                    segment::length(frame.len()),
                );
                at += 1;
            }
            Ok(Step::Removed(removed)) => at = removed.to,
            Ok(Step::End) => {
                summary.is_whole = at == sealed.end;
                return Ok(summary);
            }
            Ok(Step::Bad(error)) => {
                tracing::debug!(segment = sealed.first, offset = at, %error, "journal segment is damaged");
                return Ok(summary);
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(
                    segment = sealed.first,
                    offset = at,
                    error,
                    "journal segment cannot be read"
                );
                return Ok(summary);
            }
        }
    }
}

/// Counts a record.
pub(super) fn add(summary: &mut Summary, host: &str, time_ms: u64, bytes: u64) {
    if summary.hosts.is_empty() {
        summary.first_ms = time_ms;
    }
    summary.first_ms = summary.first_ms.min(time_ms);
    summary.last_ms = summary.last_ms.max(time_ms);
    let more = Count { records: 1, bytes };
    match summary.hosts.get_mut(host) {
        Some(count) => count.add(more),
        None => {
            summary.hosts.insert(host.to_owned(), more);
        }
    }
}
