//! How far a journal is committed, segment by segment; and a copy of that, read through without opening it.

use super::segment::{self, Scan, Step};
use super::{Catalog, Journal};
use crate::core::backup::Gap;
use crate::core::incarnation::History;
use anyhow::{Context as _, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A segment, as far as it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first offset.
    pub first: u64,
    /// Its committed bytes, header included.
    pub bytes: u64,
}

impl Extent {
    /// Where it lies in the journal's directory `dir`.
    #[must_use]
    pub fn path(&self, dir: &Path) -> PathBuf {
        segment::path(dir, self.first)
    }
}

/// Every segment, and the next offset, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extents {
    /// By first offset. The last one may be growing; nothing is ever written into the others.
    pub segments: Vec<Extent>,
    /// The next offset to be committed.
    pub next: u64,
}

/// What a copied journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Records whose checksums hold.
    pub records: u64,
    /// What cannot be read, ascending, no two touching.
    pub gaps: Vec<Gap>,
    /// When the first and the last of the records came, in milliseconds since 1970.
    pub times: Option<(u64, u64)>,
    /// Records of each host.
    pub hosts: BTreeMap<String, u64>,
}

impl Journal {
    /// How far it is committed now.
    #[must_use]
    pub fn extents(&self) -> Extents {
        self.inner.catalog.extents()
    }

    /// Offsets that no record ever had: where `history` says so, a segment that ends early is not damaged.
    pub fn expect(&self, history: &History) {
        self.inner.catalog.expect(history);
    }
}

impl Catalog {
    pub(super) fn extents(&self) -> Extents {
        let segments = self.lock();
        let extents = segments.iter().map(|(&first, segment)| Extent {
            first,
            bytes: segment.end_bytes,
        });
        Extents {
            segments: extents.collect(),
            // Under the lock: both are of one moment.
            next: self.next(),
        }
    }
}

/// Reads the copy in `dir` through: every record's checksum and place. `told` hears the bytes of each segment once it is read.
///
/// # Errors
/// A segment cannot be read at all, is not as long as it should be, or is of another version. Damage within one is a gap.
pub fn read_through(
    dir: &Path,
    extents: &Extents,
    mut told: impl FnMut(u64),
) -> anyhow::Result<Contents> {
    let mut contents = Contents::default();
    let ends = extents.segments.iter().skip(1).map(|next| next.first);
    for (extent, end) in extents.segments.iter().zip(ends.chain([extents.next])) {
        let path = extent.path(dir);
        let reading = || format!("read {}", path.display());
        let bytes = std::fs::metadata(&path).with_context(reading)?.len();
        ensure!(
            bytes == extent.bytes,
            "read {}: it has {bytes} bytes, not {}",
            path.display(),
            extent.bytes
        );
        let at = match Scan::open(dir, extent.first, bytes)? {
            Some(mut scan) => contents
                .scan(&mut scan, extent.first)
                .with_context(reading)?,
            None => extent.first,
        };
        if at > end {
            bail!("{}: it goes on past offset {end}", reading());
        }
        contents.miss(at, end);
        told(bytes);
    }
    Ok(contents)
}

impl Contents {
    /// Reads a segment up to its end or to the first thing in it that is no record; the offset that should stand there. Where whole
    /// records go on after damage only an index would tell for sure, and a copy has none: the rest counts as a gap.
    fn scan(&mut self, scan: &mut Scan, first: u64) -> anyhow::Result<u64> {
        let mut at = first;
        loop {
            match scan.step(at)? {
                Step::Record(record, _) => {
                    let began = self.times.map_or(record.time_ms, |(began, _)| began);
                    self.times = Some((began, record.time_ms));
                    match self.hosts.get_mut(record.host) {
                        Some(count) => *count += 1,
                        None => {
                            self.hosts.insert(record.host.to_owned(), 1);
                        }
                    }
                    self.records += 1;
                    at += 1;
                }
                // Its owner did not keep them: known, and counted as what cannot be read.
                Step::Removed(removed) => {
                    self.miss(at, removed.to);
                    at = removed.to;
                }
                Step::End | Step::Bad(_) => return Ok(at),
            }
        }
    }

    fn miss(&mut self, from: u64, to: u64) {
        match self.gaps.last_mut() {
            _ if from >= to => {}
            Some(last) if last.to == from => last.to = to,
            _ => self.gaps.push(Gap { from, to }),
        }
    }
}

/// Puts an empty segment that starts at `first` behind what is in `dir`: the next record there has that offset.
///
/// # Errors
/// The disk refuses, or there is one of that name with records.
pub fn begin_at(dir: &Path, first: u64) -> anyhow::Result<()> {
    segment::create(dir, first).map(drop)
}

/// What a journal holds past an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Records of each host.
    pub hosts: BTreeMap<String, u64>,
    /// One past the last of them.
    pub end: u64,
}

/// Reads what a journal that nobody writes holds from `offset` on, as far as it can be read. It is not opened: a torn tail stays as it is.
///
/// # Errors
/// It cannot be read at all.
pub fn lost_after(dir: &Path, offset: u64) -> anyhow::Result<Lost> {
    let mut lost = Lost {
        hosts: BTreeMap::new(),
        end: offset,
    };
    let firsts = segment::list(dir)?;
    for (at, &first) in firsts.iter().enumerate() {
        if firsts.get(at + 1).is_some_and(|next| *next <= offset) {
            continue;
        }
        let bytes = std::fs::metadata(segment::path(dir, first))?.len();
        let Some(mut scan) = Scan::open(dir, first, bytes)? else {
            continue;
        };
        let mut expected = first;
        loop {
            match scan.step(expected)? {
                Step::Record(record, _) => {
                    expected += 1;
                    if record.offset >= offset {
                        *lost.hosts.entry(record.host.to_owned()).or_default() += 1;
                        lost.end = expected;
                    }
                }
                Step::Removed(removed) => expected = removed.to,
                Step::End | Step::Bad(_) => break,
            }
        }
    }
    Ok(lost)
}
