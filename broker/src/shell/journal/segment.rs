//! Segment files: their names, making one, and reading records from one in order.

use crate::core::journal::removed::Removed;
use crate::core::journal::{
    self, DecodeError, Frame, HEADER_BYTES, Header, HeaderError, RECORD_BYTES_MAX,
    REWRITTEN_HEADER_BYTES, Record,
};
use anyhow::Context as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes read at once. A few records of the greatest size, and little enough for many readers at a time.
const READ_BYTES: usize = 256 * 1024;
const _: () = assert!(READ_BYTES >= RECORD_BYTES_MAX);

/// How the name of a segment's summary ends.
pub(super) const SUMMARY: &str = "sum";
/// How the name of a file ends that is to take another's place.
pub(super) const UNFINISHED: &str = "tmp";

/// Where the segment lies whose first record has the offset `first`. The zeros make names sort as offsets do.
pub(super) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.seg"))
}

/// The first offsets of all segments in `dir`, ascending.
pub(super) fn list(dir: &Path) -> anyhow::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(dir).context("list journal directory")? {
        let name = entry.context("list journal directory")?.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_suffix(".seg"))
            .filter(|digits| digits.len() == 20);
        firsts.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Where something beside the segment `first` lies.
pub(super) fn beside(dir: &Path, first: u64, extension: &str) -> PathBuf {
    dir.join(format!("{first:020}.{extension}"))
}

/// Remove the segment `first` and what lies beside it. What is not there is removed.
pub(super) fn remove(dir: &Path, first: u64) -> anyhow::Result<()> {
    for path in [beside(dir, first, SUMMARY), path(dir, first)] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove journal segment {first}"));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Remove what a crash left half written beside the segments.
pub(super) fn remove_unfinished(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir).context("list journal directory")? {
        let path = entry.context("list journal directory")?.path();
        if path.extension().is_some_and(|found| found == UNFINISHED) {
            std::fs::remove_file(&path).context("remove unfinished segment")?;
        }
    }
    Ok(())
}

/// Make an empty segment that survives a power cut: the file, its header and its name in the directory are on disk when
/// this returns. A file of that name that holds no record is taken over.
pub(super) fn create(dir: &Path, first: u64) -> anyhow::Result<File> {
    let path = path(dir, first);
    let make = || -> std::io::Result<File> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        if file.metadata()?.len() > length(HEADER_BYTES) {
            return Err(std::io::ErrorKind::AlreadyExists.into());
        }
        file.set_len(0)?;
        file.write_all(&journal::encode_header(first))?;
        file.sync_all()?;
        Ok(file)
    };
    let file = make().with_context(|| format!("create journal segment {first}"))?;
    sync_directory(dir)?;
    Ok(file)
}

/// Make the names in `dir` durable.
pub(super) fn sync_directory(dir: &Path) -> anyhow::Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .context("sync journal directory")
}

/// `bytes` as a file length.
pub(super) fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// What the segment `first` says of itself. `None`: its header is damaged.
pub(super) fn header(dir: &Path, first: u64) -> anyhow::Result<Option<Header>> {
    let what = || format!("read journal segment {first}");
    let file = File::open(path(dir, first)).with_context(what)?;
    header_of(&file, first).with_context(what)
}

fn header_of(file: &File, first: u64) -> anyhow::Result<Option<Header>> {
    let mut bytes = [0; REWRITTEN_HEADER_BYTES];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, length(filled)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    match journal::decode_header(bytes.get(..filled).unwrap_or_default()) {
        Ok(header) if header.first == first => Ok(Some(header)),
        Ok(_) | Err(HeaderError::Damaged) => Ok(None),
        Err(error @ HeaderError::Version(_)) => Err(error.into()),
    }
}

/// What stands next in a segment.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A record whose checksum holds, and its bytes in the file.
    Record(Record<'a>, &'a [u8]),
    /// Records were here, and were removed.
    Removed(Removed),
    /// Nothing more.
    End,
    /// Something that is not the record which should stand there.
    Bad(DecodeError),
}

/// Reads a segment's records in order, each checked. It holds no buffer while it has nothing to read.
#[derive(Debug)]
pub(super) struct Scan {
    file: File,
    /// Where the next record starts.
    position: u64,
    /// Nothing at or past this is read.
    end: u64,
    /// Bytes from `position - head` on.
    buffer: Vec<u8>,
    head: usize,
}

impl Scan {
    /// Start at a record that is known to start at `position`.
    pub(super) const fn new(file: File, position: u64, end: u64) -> Self {
        Self {
            file,
            position,
            end,
            buffer: Vec::new(),
            head: 0,
        }
    }

    /// Start at the first record. `None`: the header is damaged.
    pub(super) fn open(dir: &Path, first: u64, end: u64) -> anyhow::Result<Option<Self>> {
        let what = || format!("read journal segment {first}");
        let file = File::open(path(dir, first)).with_context(what)?;
        let header = header_of(&file, first).with_context(what)?;
        Ok(header.map(|header| Self::new(file, length(header.bytes()), end)))
    }

    /// Where the next record starts.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Go on at a record that is known to start at `position`.
    pub(super) fn seek(&mut self, position: u64) {
        self.position = position;
        self.rest();
    }

    /// The segment has grown.
    pub(super) const fn extend(&mut self, end: u64) {
        self.end = end;
    }

    /// Give the buffer back until there is more to read.
    pub(super) fn rest(&mut self) {
        self.buffer = Vec::new();
        self.head = 0;
    }

    /// The next record, which must have the offset `expected`.
    pub(super) fn step(&mut self, expected: u64) -> anyhow::Result<Step<'_>> {
        if self.position >= self.end {
            return Ok(Step::End);
        }
        self.fill(8)?;
        let whole = match journal::frame_len(self.ahead()) {
            Ok(whole) => whole,
            Err(error) => return Ok(Step::Bad(error)),
        };
        self.fill(whole)?;
        // Not `ahead()`: the record borrows the buffer alone, while the position moves on.
        let bytes = self.buffer.get(self.head..).unwrap_or_default();
        let (frame, whole) = match journal::decode_frame(bytes) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Step::Bad(error)),
        };
        let offset = match &frame {
            Frame::Record(record) => record.offset,
            Frame::Removed(removed) => removed.from,
        };
        if offset != expected {
            return Ok(Step::Bad(DecodeError::Content));
        }
        self.head += whole;
        self.position += length(whole);
        Ok(match frame {
            Frame::Record(record) => Step::Record(record, bytes.get(..whole).unwrap_or_default()),
            Frame::Removed(removed) => Step::Removed(removed),
        })
    }

    fn ahead(&self) -> &[u8] {
        self.buffer.get(self.head..).unwrap_or_default()
    }

    /// Have `wanted` bytes ahead, or all up to the end.
    fn fill(&mut self, wanted: usize) -> anyhow::Result<()> {
        let have = self.ahead().len();
        if have >= wanted {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        self.buffer.drain(..self.head.min(self.buffer.len()));
        self.head = 0;
        self.buffer.resize(left.clamp(have, READ_BYTES), 0);
        let mut filled = have;
        while let Some(room) = self
            .buffer
            .get_mut(filled..)
            .filter(|room| !room.is_empty())
        {
            match self.file.read_at(room, self.position + length(filled)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read journal segment"),
            }
        }
        self.buffer.truncate(filled);
        Ok(())
    }
}

/// Set `bytes`, which are about to be cut from the end of the last segment, aside in a file of their own beside it.
///
/// Nothing is deleted because a checksum failed: a cut tail was most likely never acknowledged, and it is kept all the same.
pub(super) fn set_aside(dir: &Path, expected: u64, bytes: &[u8]) -> anyhow::Result<()> {
    let path = dir.join(format!("{expected:020}-{:08x}.torn", crc32c::crc32c(bytes)));
    if path.exists() {
        return Ok(()); // The same bytes, before the same record, from a start that went no further.
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .context("create torn tail's file")?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .context("write torn tail's file")?;
    sync_directory(dir)
}
