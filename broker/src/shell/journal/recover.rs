//! Opening a journal: what does the last segment hold, and where does writing go on?

use super::Sizes;
use super::catalog::{Catalog, Mark};
use super::segment::{self, Scan, Step};
use super::writer::Active;
use crate::core::journal::{self, DecodeError, HEADER_BYTES};
use anyhow::{Context as _, bail};
use protocol::hole::Cause;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The part of a disk that is written as a whole.
const SECTOR_BYTES: u64 = 512;

/// A journal that can go on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) catalog: Catalog,
    pub(super) active: Active,
    /// Keeps every other process out while it is open.
    pub(super) lock: File,
}

/// What comes after the last good record of the last segment.
#[derive(Debug, PartialEq, Eq)]
enum Tail {
    /// Nothing.
    Clean,
    /// Zeros, which nothing was written over yet.
    Prepared,
    /// A write that a crash cut short. It was never acknowledged.
    Torn,
    /// Something that was whole once. It stays where it is, and writing goes on in a new segment from `resume` on, an
    /// offset that no damaged record can have had.
    Damaged { resume: u64 },
}

/// Take the journal in `dir`, made if it is not there.
pub(super) fn recover(dir: &Path, sizes: Sizes) -> anyhow::Result<Recovered> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .context("create journal directory")?;
    let lock = lock(dir)?;
    // Where the oldest are dropped whole, as of load tests, that is why they are not there.
    let before = if sizes.kept_bytes.is_some() {
        Cause::Bytes
    } else {
        Cause::Damage
    };
    let catalog = Catalog::new(dir, sizes.mark_bytes, before.into());
    segment::remove_unfinished(dir)?;
    let firsts = segment::list(dir)?;
    let active = match firsts.split_last() {
        None => start(&catalog, 0)?,
        Some((&last, sealed)) => {
            let mut end = 0;
            for &first in sealed {
                if first < end {
                    // A crash came between the file that stands for it too and its removal.
                    segment::remove(dir, first)?;
                    continue;
                }
                end = add(&catalog, first)?;
            }
            resume(&catalog, last)?
        }
    };
    catalog.publish(active.first, active.end_bytes, active.next);
    Ok(Recovered {
        catalog,
        active,
        lock,
    })
}

/// Puts a sealed segment into the catalog; up to which offset it stands for everything.
fn add(catalog: &Catalog, first: u64) -> anyhow::Result<u64> {
    let dir = catalog.dir();
    let bytes = std::fs::metadata(segment::path(dir, first))
        .context("look at journal segment")?
        .len();
    let header = segment::header(dir, first)?;
    let Some((end, serial)) = header.and_then(|header| Some((header.end?, header.serial))) else {
        catalog.add(first, bytes);
        return Ok(0);
    };
    // Only what may be the oldest is looked into: all before it was removed.
    let is_oldest = catalog.bytes() == 0 || catalog.oldest() >= first;
    let oldest = match Scan::open(dir, first, bytes)?.filter(|_| is_oldest) {
        Some(mut scan) => match scan.step(first)? {
            Step::Removed(removed) => removed.to,
            Step::Record(..) | Step::End | Step::Bad(_) => first,
        },
        None => first,
    };
    catalog.add_rewritten(first, bytes, serial, oldest);
    Ok(end)
}

fn lock(dir: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"));
    let file = file.context("open journal lock")?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "lock journal {}: another process is using it",
            dir.display()
        ),
        Err(error) => Err(error).context("lock journal"),
    }
}

/// A new segment, on disk and in the catalog.
pub(super) fn start(catalog: &Catalog, first: u64) -> anyhow::Result<Active> {
    let file = segment::create(catalog.dir(), first)?;
    let end_bytes = segment::length(HEADER_BYTES);
    catalog.add(first, end_bytes);
    Ok(Active {
        file,
        first,
        end_bytes,
        next: first,
    })
}

/// Go on after the segment `first`, the last one.
fn resume(catalog: &Catalog, first: u64) -> anyhow::Result<Active> {
    let dir = catalog.dir();
    let path = segment::path(dir, first);
    let what = || format!("recover journal segment {first}");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(what)?;
    // What a failed fsync left in the page cache looks written and is not: read what the disk has.
    file.sync_data().with_context(what)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).with_context(what)?;
    segment::sync_directory(dir)?;

    let bytes = file.metadata().with_context(what)?.len();
    if bytes <= segment::length(HEADER_BYTES) {
        // A newer program's is not ours to write over.
        Scan::open(dir, first, bytes)?;
        return start(catalog, first); // The crash came while it was being made, or before its first record.
    }
    if let Some(end) = segment::header(dir, first)?.and_then(|header| header.end) {
        // What follows it is gone: it is not appended to.
        add(catalog, first)?;
        return start(catalog, end);
    }
    catalog.add(first, bytes);
    let Some(mut scan) = Scan::open(dir, first, bytes)? else {
        tracing::warn!(
            segment = first,
            "the last journal segment has no header; it is kept, and skipped"
        );
        return start(
            catalog,
            first.saturating_add(journal::records_max(
                usize::try_from(bytes).unwrap_or(usize::MAX),
            )),
        );
    };
    let (next, tail) = examine(catalog, first, &mut scan, bytes)?;
    match tail {
        Tail::Clean => {}
        Tail::Prepared => file.set_len(scan.position()).with_context(what)?,
        Tail::Torn => cut(dir, scan.file(), &file, next, scan.position()..bytes)?,
        Tail::Damaged { resume } => {
            tracing::warn!(
                segment = first,
                from = next,
                to = resume,
                "journal is damaged; the segment is kept, readers see a gap"
            );
            return start(catalog, resume);
        }
    }
    catalog.publish(first, scan.position(), next);
    Ok(Active {
        file,
        first,
        end_bytes: scan.position(),
        next,
    })
}

/// Read the segment `first` to its end: the next offset, and what stands where that record should.
fn examine(
    catalog: &Catalog,
    first: u64,
    scan: &mut Scan,
    end: u64,
) -> anyhow::Result<(u64, Tail)> {
    let mut next = first;
    let error = loop {
        match scan.step(next)? {
            Step::Record(..) => next += 1,
            // Nothing is removed from what is appended to.
            Step::Removed(_) => break DecodeError::Content,
            Step::End => return Ok((next, Tail::Clean)),
            Step::Bad(error) => break error,
        }
        catalog.note(
            first,
            0,
            Mark {
                offset: next,
                position: scan.position(),
            },
        );
    };
    let rest = read(scan.file(), scan.position()..end)?;
    Ok((next, judge(&rest, scan.position(), next, error)))
}

/// What are these bytes, which begin at `position` and fail as the record `expected`?
fn judge(rest: &[u8], position: u64, expected: u64, error: DecodeError) -> Tail {
    let prepared = rest.iter().rev().take_while(|&&byte| byte == 0).count();
    if prepared == rest.len() {
        return Tail::Prepared;
    }
    let written = rest.len() - prepared;
    if let Some((last, after)) = journal::last_record_in(rest, expected) {
        // At least one offset on, and past whatever the bytes after the last record may have been.
        return Tail::Damaged {
            resume: last
                .saturating_add(1)
                .saturating_add(journal::records_max(after.saturating_sub(prepared))),
        };
    }
    // Of what is behind the record that stands there, zeros say nothing.
    let length = journal::frame_len(rest).unwrap_or(rest.len());
    let record = rest.get(..length).unwrap_or(rest);
    match error {
        DecodeError::Incomplete | DecodeError::Length => Tail::Torn,
        DecodeError::Checksum | DecodeError::Content if has_unwritten_sector(record, position) => {
            Tail::Torn
        }
        DecodeError::Checksum | DecodeError::Content => Tail::Damaged {
            resume: expected.saturating_add(journal::records_max(written.max(record.len()))),
        },
    }
}

/// After a power cut a sector that was not written reads as zeros.
fn has_unwritten_sector(rest: &[u8], position: u64) -> bool {
    let to_boundary =
        usize::try_from(position.next_multiple_of(SECTOR_BYTES) - position).unwrap_or(usize::MAX);
    let sectors = rest.get(to_boundary..).unwrap_or_default();
    sectors
        .chunks(usize::try_from(SECTOR_BYTES).unwrap_or(usize::MAX))
        .any(|sector| sector.iter().all(|&byte| byte == 0))
}

/// Cut a torn tail off, after setting its bytes aside, all but the sectors of zeros at their end.
fn cut(
    dir: &Path,
    from: &File,
    file: &File,
    expected: u64,
    tail: std::ops::Range<u64>,
) -> anyhow::Result<()> {
    tracing::warn!(
        offset = expected,
        bytes = tail.end - tail.start,
        "cut a torn tail off the journal"
    );
    let mut bytes = read(from, tail.clone())?;
    let written = bytes.iter().rposition(|&byte| byte != 0);
    let sector = usize::try_from(SECTOR_BYTES)?;
    bytes.truncate(written.map_or(0, |last| last + 1).next_multiple_of(sector));
    segment::set_aside(dir, expected, &bytes)?;
    file.set_len(tail.start)
        .and_then(|()| file.sync_all())
        .context("cut torn tail")
}

fn read(file: &File, range: std::ops::Range<u64>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).context("read torn tail")?];
    file.read_exact_at(&mut bytes, range.start)
        .context("read torn tail")?;
    Ok(bytes)
}
