//! A cursor on the journal.

use super::catalog::{Catalog, Mark};
use super::segment::{Scan, Step};
use super::tail::Commit;
use crate::core::journal::{Record, RecordKind, decode_held};
use protocol::hole::{Cause, Causes};
use std::sync::Arc;

/// The most bytes one call looks through in memory: it is the runtime's thread that looks.
const LIVE_BYTES_MAX: usize = 256 * 1024;
/// The most bytes one call looks through. A filter that matches nothing gives its thread back this often.
const SCAN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Which records a reader wants: all that agree with every field that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this host's.
    pub host: Option<String>,
    /// Only this sandbox's.
    pub sandbox: Option<String>,
    /// Only of this kind.
    pub kind: Option<RecordKind>,
}

impl Filter {
    /// Whether it could admit records of which only this host is known, if that.
    fn may_admit(&self, host: Option<&str>) -> bool {
        host.is_none() || self.host.is_none() || self.host.as_deref() == host
    }

    fn admits(&self, record: &Record<'_>) -> bool {
        self.kind.is_none_or(|kind| kind == record.kind)
            && self.host.as_deref().is_none_or(|host| host == record.host)
            && self
                .sandbox
                .as_deref()
                .is_none_or(|sandbox| record.sandbox == Some(sandbox))
    }
}

/// A record out of the journal, its checksum verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its place in the journal.
    pub offset: u64,
    /// When the broker accepted it, milliseconds since 1970.
    pub time_ms: u64,
    /// What it is.
    pub kind: RecordKind,
    /// The host it came from or goes to.
    pub host: String,
    /// The sandbox it came from or is about.
    pub sandbox: Option<String>,
    /// The bytes as they were sent; of a purged event, its signed head.
    pub payload: Vec<u8>,
    /// It is an event whose body was purged.
    pub is_purged: bool,
}

impl OwnedRecord {
    /// The same, borrowed.
    #[must_use]
    pub fn as_record(&self) -> Record<'_> {
        Record {
            offset: self.offset,
            time_ms: self.time_ms,
            kind: self.kind,
            host: &self.host,
            sandbox: self.sandbox.as_deref(),
            payload: &self.payload,
            is_purged: self.is_purged,
        }
    }
}

impl From<Record<'_>> for OwnedRecord {
    fn from(record: Record<'_>) -> Self {
        Self {
            offset: record.offset,
            time_ms: record.time_ms,
            kind: record.kind,
            host: record.host.to_owned(),
            sandbox: record.sandbox.map(str::to_owned),
            payload: record.payload.to_vec(),
            is_purged: record.is_purged,
        }
    }
}

/// What a reader is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record that the filter admits.
    Record(OwnedRecord),
    /// Some or all of the records from `from` up to and not including `to` are gone; those that are not, the filter does not admit.
    /// Whether it would have admitted any of the others is unknown.
    Gap {
        /// The first offset missing.
        from: u64,
        /// The first offset after it that is there, or is still to come.
        to: u64,
        /// Why.
        causes: Causes,
    },
}

/// What one call of [`Reader::next_batch`] gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// In the order of their offsets. Empty is possible without being caught up: the filter admitted nothing of much.
    pub items: Vec<Item>,
    /// Where the next call goes on; a reader made with it continues this one.
    pub next: u64,
    /// Everything that was committed when the call began has been looked at: wait on `Journal::committed`.
    pub caught_up: bool,
}

/// How far one call of [`Reader::give_live`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Where the next call goes on.
    pub next: u64,
    /// Everything that was committed when the call began has been looked at.
    pub caught_up: bool,
}

/// A cursor. Each call blocks on the disk, so it belongs into `spawn_blocking`; between calls it holds one open file and no
/// buffer.
#[derive(Debug)]
pub struct Reader {
    catalog: Arc<Catalog>,
    /// A record is wanted if any of these admits it.
    filters: Vec<Filter>,
    /// The next offset owed to the caller: given, skipped by the filter, or reported as a gap.
    next: u64,
    open: Option<Open>,
}

/// The segment being read.
#[derive(Debug)]
struct Open {
    first: u64,
    /// How often it had been rewritten.
    serial: u32,
    /// The first offset that was not in it when it was last looked up.
    end_offset: u64,
    scan: Scan,
    /// The offset of the record at the scan's position; behind `next` while looking for it.
    at: u64,
    /// The position that was last offered to the index.
    noted: u64,
}

impl Reader {
    pub(super) const fn new(catalog: Arc<Catalog>, from: u64, filters: Vec<Filter>) -> Self {
        Self {
            catalog,
            filters,
            next: from,
            open: None,
        }
    }

    /// Where the next call goes on.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.next
    }

    /// The next records that the filter admits: at most `records_max`, and no more once `bytes_max` bytes of payload are
    /// reached. Never a record that is not committed. Blocks on the disk.
    ///
    /// # Errors
    /// A segment cannot be read at all, or was written by another version of this program. Damage is not an error: it is
    /// an [`Item::Gap`].
    pub fn next_batch(&mut self, records_max: usize, bytes_max: usize) -> anyhow::Result<Batch> {
        let limit = self.catalog.next();
        let (mut items, mut records, mut bytes, mut scanned) = (Vec::new(), 0, 0, 0);
        while self.next < limit
            && records < records_max
            && bytes < bytes_max
            && scanned < SCAN_BYTES_MAX
        {
            let Some(mut open) = self.take_open(&mut items)? else {
                continue;
            };
            let (step_from, owed) = (open.scan.position(), self.next);
            match open.scan.step(open.at)? {
                Step::Record(record, _) => {
                    if record.offset >= owed && self.admits(&record) {
                        records += 1;
                        bytes += record.payload.len();
                        items.push(Item::Record(record.into()));
                    }
                    open.at += 1;
                    self.next = owed.max(open.at);
                    scanned += open.scan.position() - step_from;
                    self.note(&mut open);
                    self.open = Some(open);
                }
                Step::Removed(removed) => {
                    let host = removed.host.as_deref();
                    if self.filters.iter().any(|filter| filter.may_admit(host)) {
                        self.skip_to(removed.to, removed.causes(), &mut items);
                    }
                    open.at = removed.to;
                    self.next = owed.max(open.at);
                    scanned += open.scan.position() - step_from;
                    self.note(&mut open);
                    self.open = Some(open);
                }
                Step::End => {
                    let is_withdrawn = self.catalog.is_withdrawn(self.next, open.end_offset);
                    let causes = if is_withdrawn {
                        Causes::UNKNOWN
                    } else {
                        tracing::warn!(
                            segment = open.first,
                            offset = open.at,
                            to = open.end_offset,
                            "journal segment is cut short"
                        );
                        Cause::Damage.into()
                    };
                    self.skip_to(open.end_offset, causes, &mut items);
                }
                Step::Bad(error) => {
                    let resume = self.catalog.resume_after(open.first, open.serial, open.at);
                    // Another file has its place: what stands there now is read from that.
                    let Some(resume) = resume else { continue };
                    tracing::warn!(segment = open.first, offset = open.at, to = resume.offset, %error, "journal is damaged");
                    self.skip_to(resume.offset, Cause::Damage.into(), &mut items);
                    open.at = resume.offset;
                    open.scan.seek(resume.position);
                    self.open = Some(open);
                }
            }
        }
        if let Some(open) = &mut self.open {
            open.scan.rest();
        }
        Ok(Batch {
            items,
            next: self.next,
            caught_up: self.next >= limit,
        })
    }

    /// The same from memory alone, if what is next is among the last commits, each record handed over as it lies there: nothing blocks, and
    /// nothing is copied. `None`: ask [`Self::next_batch`].
    pub fn give_live(
        &mut self,
        records_max: usize,
        bytes_max: usize,
        mut give: impl FnMut(Record<'_>),
    ) -> Option<Live> {
        let (limit, start) = (self.catalog.next(), self.next);
        let (mut records, mut bytes, mut scanned) = (0, 0, 0);
        if self.next < self.catalog.oldest() {
            return None; // No longer kept, which is for the other way to say.
        }
        let (mut held, mut at) = (None::<Commit>, 0);
        while self.next < limit
            && records < records_max
            && bytes < bytes_max
            && scanned < LIVE_BYTES_MAX
        {
            let commit = match held.take().filter(|commit| at < commit.frames.len()) {
                Some(commit) => commit,
                None => match self.catalog.tail().find(self.next) {
                    Some(commit) => {
                        at = 0;
                        commit
                    }
                    None => break,
                },
            };
            // What was sealed in this process decodes; if it did not, the disk would say so.
            let Ok((record, whole)) = decode_held(commit.frames.get(at..).unwrap_or_default())
            else {
                break;
            };
            scanned += whole;
            if record.offset >= self.next {
                self.next = record.offset + 1;
                if self.admits(&record) {
                    records += 1;
                    bytes += record.payload.len();
                    give(record);
                }
            }
            at += whole;
            held = Some(commit);
        }
        // The segment that was open is behind by now; the next one is opened near the place.
        self.open = self.open.take().filter(|open| open.at >= self.next);
        (self.next > start || start >= limit).then_some(Live {
            next: self.next,
            caught_up: self.next >= limit,
        })
    }

    fn admits(&self, record: &Record<'_>) -> bool {
        self.filters.iter().any(|filter| filter.admits(record))
    }

    /// The segment that holds `next`, opened if it is not. `None`: `next` moved instead, over a gap.
    fn take_open(&mut self, items: &mut Vec<Item>) -> anyhow::Result<Option<Open>> {
        if let Some(open) = self.open.take_if(|open| self.next < open.end_offset) {
            return Ok(Some(open));
        }
        let catalog = Arc::clone(&self.catalog);
        let _reading = catalog.reading();
        let Some(place) = self.catalog.locate(self.next) else {
            self.skip_to(self.catalog.oldest(), self.catalog.before(), items);
            return Ok(None);
        };
        let is_same = |open: &Open| open.first == place.first && open.serial == place.serial;
        if let Some(mut open) = self.open.take().filter(is_same) {
            open.scan.extend(place.end_bytes);
            open.end_offset = place.end_offset;
            return Ok(Some(open));
        }
        let scan = match Scan::open(self.catalog.dir(), place.first, place.end_bytes) {
            Ok(scan) => scan,
            // Removed meanwhile: what was in it is no longer kept.
            Err(_) if self.catalog.oldest() > self.next => return Ok(None),
            Err(error) => return Err(error.context("open journal reader")),
        };
        let Some(mut scan) = scan else {
            tracing::warn!(
                segment = place.first,
                to = place.end_offset,
                "journal segment has no header"
            );
            self.skip_to(place.end_offset, Cause::Damage.into(), items);
            return Ok(None);
        };
        let start = place.mark.unwrap_or_else(|| Mark {
            offset: place.first,
            position: scan.position(),
        });
        scan.seek(start.position);
        Ok(Some(Open {
            first: place.first,
            serial: place.serial,
            end_offset: place.end_offset,
            at: start.offset,
            noted: start.position,
            scan,
        }))
    }

    fn skip_to(&mut self, to: u64, causes: Causes, items: &mut Vec<Item>) {
        if self.next >= to {
            return;
        }
        let from = self.next;
        self.next = to;
        // One gap for all that follow each other: what lies between was looked at, and is not wanted.
        if let Some(Item::Gap {
            to: end,
            causes: known,
            ..
        }) = items.last_mut()
        {
            (*end, *known) = (to, known.and(causes));
        } else {
            items.push(Item::Gap { from, to, causes });
        }
    }

    /// Help the next reader to start in the middle of this segment.
    fn note(&self, open: &mut Open) {
        if open.scan.position() - open.noted >= self.catalog.mark_bytes() {
            open.noted = open.scan.position();
            self.catalog.note(
                open.first,
                open.serial,
                Mark {
                    offset: open.at,
                    position: open.noted,
                },
            );
        }
    }
}
