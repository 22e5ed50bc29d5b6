//! Sealed segments, written again without what has to go: into a new file, which is on disk before it takes the old one's name. A crash
//! at any point leaves the old or the new. The writer goes on meanwhile: nothing here holds what it waits for.

use super::catalog::{Catalog, Mark, Replacement, Sealed};
use super::segment::{self, Scan, Step};
use super::summary;
use crate::core::journal::removed::{Count, Removed};
use crate::core::journal::{self, Record};
use crate::core::retention::Summary;
use anyhow::{Context as _, bail};
use protocol::hole::Cause;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Bytes that are written before they are synced. A commit that comes between waits for no more than this beside its own.
const SYNC_BYTES: u64 = 1024 * 1024;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It goes.
    Remove(Cause),
    /// So many bytes of its payload stay: an event's signed head.
    Purge(usize),
}

/// A segment to be rewritten.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) sealed: Sealed,
    /// All of it goes, what cannot be read too. Otherwise that is an error: nothing is removed because it is damaged.
    pub(super) vanishes: bool,
}

/// What one host lost for one cause, in one rewriting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The first offset of the segment that was rewritten.
    pub segment: u64,
    /// How often it was rewritten then. With the segment, the host and the cause it names this loss: whoever writes it down twice
    /// after a crash writes the same.
    pub serial: u32,
    /// The host; empty for what could not be read.
    pub host: String,
    /// Why. For the purge of bodies, the records stay.
    pub cause: Cause,
    /// The first offset.
    pub from: u64,
    /// The first offset after the last.
    pub to: u64,
    /// When the first record was accepted, milliseconds since 1970.
    pub first_ms: u64,
    /// When the last one was.
    pub last_ms: u64,
    /// How much.
    pub count: Count,
}

/// A rewritten segment that has not taken its place yet. Dropped, it leaves no trace.
#[derive(Debug)]
pub(super) struct Rewritten {
    path: PathBuf,
    replacement: Replacement,
    summary: Summary,
    gone: BTreeMap<(String, Cause), Gone>,
}

/// Writes what is left of `sources`, which follow each other, into one file, and syncs it.
pub(super) fn rewrite(
    catalog: &Catalog,
    sources: &[Source],
    decide: &mut dyn FnMut(&Record<'_>) -> Fate,
) -> anyhow::Result<Rewritten> {
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
        bail!("there is nothing to rewrite");
    };
    let serials = sources.iter().map(|source| source.sealed.serial);
    let sealed = Sealed {
        first: first.sealed.first,
        end: last.sealed.end,
        bytes: 0,
        serial: serials.max().unwrap_or_default().saturating_add(1),
    };
    let mut output = Output::create(catalog, sealed)?;
    for source in sources {
        copy(catalog, source, &mut output, decide)
            .with_context(|| format!("rewrite journal segment {}", source.sealed.first))?;
    }
    output.finish()
}

/// Puts it into the place of what it was made of. When this returns, that is gone for good.
pub(super) fn install(catalog: &Catalog, rewritten: Rewritten) -> anyhow::Result<Vec<Gone>> {
    let dir = catalog.dir();
    let Replacement { sealed, .. } = rewritten.replacement;
    let firsts = catalog.sealed().into_iter().map(|other| other.first);
    let others: Vec<_> = firsts
        .filter(|other| *other > sealed.first && *other < sealed.end)
        .collect();
    let place = segment::path(dir, sealed.first);
    // Kept open so that the file system frees the old file behind the lock that readers wait for, not within.
    let old = File::open(&place);
    let mut rewritten = rewritten;
    let replacement = rewritten.take_replacement();
    catalog
        .replace(replacement, || std::fs::rename(&rewritten.path, &place))
        .context("put a rewritten journal segment in its place")?;
    segment::sync_directory(dir)?;
    if let Err(error) = summary::store(dir, &sealed, &rewritten.summary) {
        tracing::debug!(%error, "a segment's summary was not kept");
    }
    for other in others {
        segment::remove(dir, other)?;
    }
    segment::sync_directory(dir)?;
    drop(old);
    Ok(std::mem::take(&mut rewritten.gone).into_values().collect())
}

impl Rewritten {
    /// What it does not hold any more.
    pub(super) fn gone(&self) -> Vec<Gone> {
        self.gone.values().cloned().collect()
    }

    fn take_replacement(&mut self) -> Replacement {
        Replacement {
            sealed: self.replacement.sealed,
            oldest: self.replacement.oldest,
            marks: std::mem::take(&mut self.replacement.marks),
        }
    }
}

impl Drop for Rewritten {
    fn drop(&mut self) {
        // Renamed, or not wanted.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The file that is written.
struct Output {
    file: File,
    rewritten: Rewritten,
    buffer: Vec<u8>,
    unsynced: u64,
    /// Markers are written once it is known where their run ends.
    run: Option<Removed>,
    mark_bytes: u64,
}

impl Output {
    fn create(catalog: &Catalog, sealed: Sealed) -> anyhow::Result<Self> {
        let path = segment::beside(catalog.dir(), sealed.first, segment::UNFINISHED);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .context("create rewritten segment")?;
        let rewritten = Rewritten {
            path,
            replacement: Replacement {
                sealed,
                oldest: sealed.end,
                marks: Vec::new(),
            },
            summary: Summary {
                first: sealed.first,
                end: sealed.end,
                first_ms: 0,
                last_ms: 0,
                is_whole: true,
                hosts: BTreeMap::new(),
            },
            gone: BTreeMap::new(),
        };
        Ok(Self {
            file,
            rewritten,
            buffer: journal::encode_rewritten_header(sealed.first, sealed.end, sealed.serial),
            unsynced: 0,
            run: None,
            mark_bytes: catalog.mark_bytes(),
        })
    }

    fn keep(
        &mut self,
        record: &Record<'_>,
        put: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.end_run();
        let place = &mut self.rewritten.replacement;
        place.oldest = place.oldest.min(record.offset);
        let position = place.sealed.bytes + segment::length(self.buffer.len());
        let last = place.marks.last().map_or(0, |mark| mark.position);
        if position >= last + self.mark_bytes {
            place.marks.push(Mark {
                offset: record.offset,
                position,
            });
        }
        let before = self.buffer.len();
        put(&mut self.buffer)?;
        let bytes = segment::length(self.buffer.len() - before);
        summary::add(
            &mut self.rewritten.summary,
            record.host,
            record.time_ms,
            bytes,
        );
        if self.buffer.len() >= WRITE_BYTES {
            self.write()?;
        }
        Ok(())
    }

    fn lose(&mut self, record: &Record<'_>, bytes: u64, cause: Cause) {
        self.note(record, bytes, cause);
        self.join(Removed::one(
            record.offset,
            record.time_ms,
            record.host,
            bytes,
            cause,
        ));
    }

    /// What was removed before, or now.
    fn join(&mut self, more: Removed) {
        match &mut self.run {
            Some(run) => run.join(&more),
            None => self.run = Some(more),
        }
    }

    fn note(&mut self, record: &Record<'_>, bytes: u64, cause: Cause) {
        let count = Count { records: 1, bytes };
        self.note_run(
            record.host,
            cause,
            record.offset..record.offset + 1,
            record.time_ms,
            count,
        );
    }

    fn note_run(
        &mut self,
        host: &str,
        cause: Cause,
        run: std::ops::Range<u64>,
        time_ms: u64,
        count: Count,
    ) {
        let sealed = self.rewritten.replacement.sealed;
        let gone = self.rewritten.gone.entry((host.to_owned(), cause));
        let gone = gone.or_insert_with(|| Gone {
            segment: sealed.first,
            serial: sealed.serial,
            host: host.to_owned(),
            cause,
            from: run.start,
            to: run.end,
            first_ms: time_ms,
            last_ms: time_ms,
            count: Count::default(),
        });
        gone.to = gone.to.max(run.end);
        gone.first_ms = gone.first_ms.min(time_ms);
        gone.last_ms = gone.last_ms.max(time_ms);
        gone.count.add(count);
    }

    /// Everything from `at` up to the end of `source` could not be read, and goes with the rest.
    fn give_up(&mut self, at: u64, source: &Sealed, bytes: u64) {
        if at >= source.end {
            return;
        }
        let time_ms = self.run.as_ref().map_or(0, |run| run.last_ms);
        let count = Count { records: 0, bytes };
        self.note_run("", Cause::Damage, at..source.end, time_ms, count);
        self.join(Removed {
            from: at,
            to: source.end,
            first_ms: time_ms,
            last_ms: time_ms,
            host: None,
            counts: Default::default(),
        });
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            run.encode(&mut self.buffer);
        }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        let bytes = segment::length(self.buffer.len());
        self.file
            .write_all(&self.buffer)
            .context("write rewritten segment")?;
        self.buffer.clear();
        self.rewritten.replacement.sealed.bytes += bytes;
        self.unsynced += bytes;
        if self.unsynced >= SYNC_BYTES {
            self.file.sync_data().context("sync rewritten segment")?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn finish(mut self) -> anyhow::Result<Rewritten> {
        self.end_run();
        self.write()?;
        self.file.sync_all().context("sync rewritten segment")?;
        Ok(self.rewritten)
    }
}

fn copy(
    catalog: &Catalog,
    source: &Source,
    output: &mut Output,
    decide: &mut dyn FnMut(&Record<'_>) -> Fate,
) -> anyhow::Result<()> {
    let sealed = &source.sealed;
    let mut at = sealed.first;
    let scan = Scan::open(catalog.dir(), sealed.first, sealed.bytes);
    let scan = match scan {
        Ok(scan) => scan,
        Err(error) if !source.vanishes => return Err(error),
        Err(_) => None,
    };
    let mut left = sealed.bytes;
    if let Some(mut scan) = scan {
        loop {
            left = sealed.bytes.saturating_sub(scan.position());
            match scan.step(at) {
                Ok(Step::Record(record, frame)) => {
                    let bytes = segment::length(frame.len());
                    match decide(&record) {
                        Fate::Keep => output.keep(&record, |out| {
                            // As it was, checksum and all: nothing that went bad in memory gets a new one.
                            out.extend_from_slice(frame);
                            Ok(())
                        })?,
                        Fate::Remove(cause) => output.lose(&record, bytes, cause),
                        Fate::Purge(head_bytes) => {
                            let head =
                                record.payload.get(..head_bytes).context("purge an event")?;
                            output.keep(&record, |out| {
                                journal::encode_purged(&record, head, out).context("purge an event")
                            })?;
                            let body = segment::length(record.payload.len() - head_bytes);
                            output.note(&record, body, Cause::Purge);
                        }
                    }
                    at += 1;
                }
                Ok(Step::Removed(removed)) => {
                    at = removed.to;
                    output.join(removed);
                }
                Ok(Step::End) => break,
                Ok(Step::Bad(error)) if !source.vanishes => {
                    bail!("record {at}: {error}");
                }
                Ok(Step::Bad(_)) => break,
                Err(error) if !source.vanishes => return Err(error),
                Err(_) => break,
            }
        }
    }
    if at < sealed.end && !source.vanishes {
        bail!("it ends before record {at}");
    }
    output.give_up(at, sealed, left);
    Ok(())
}
