//! An audit trail in a directory, as `outhaul audit export` writes it (`SPEC.md`, chapter 14), read in one pass and in bounded memory.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, ErrorKind, Read as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use protocol::{
    audit::{Leaf, SignedCheckpoint, Vkey, leaf::LEAF_BYTES_MAX, note::NOTE_BYTES_MAX},
    id::unhex,
    key::Audit,
};
use serde::Deserialize;

use crate::core::trail::{Fault, SALT_BYTES, Trail, Unsigned, opens};

/// What is read from a file at once, in bytes: some rows of the longest kind, and thousands of the ordinary.
const PIECE_BYTES: usize = 1024 * 1024;
/// The longest line of the files of lines, in bytes: a note, or a value, with its escapes.
const LINE_BYTES_MAX: u64 = 4 * NOTE_BYTES_MAX as u64;

/// The files of an export.
#[derive(Debug)]
pub struct Export {
    /// Rows.
    pub entries: PathBuf,
    /// Their hashes.
    pub hashes: PathBuf,
    /// What was signed.
    pub checkpoints: PathBuf,
    /// The last of it.
    pub checkpoint: PathBuf,
    /// The first key.
    pub vkey: PathBuf,
    /// Values that rows commit to; may be missing.
    pub openings: PathBuf,
    /// What is what.
    pub readme: PathBuf,
}

impl Export {
    /// The names in a directory.
    #[must_use]
    pub fn at(directory: &Path) -> Self {
        Self {
            entries: directory.join("entries.cbor"),
            hashes: directory.join("hashes.bin"),
            checkpoints: directory.join("checkpoints.jsonl"),
            checkpoint: directory.join("checkpoint"),
            vkey: directory.join("vkey"),
            openings: directory.join("openings.jsonl"),
            readme: directory.join("README.txt"),
        }
    }
}

/// Why a trail does not verify.
#[derive(Debug)]
pub enum Bad {
    /// The first row that is not as it was written.
    Row(u64, Fault),
    /// A checkpoint of so many rows that does not stand; up to the first number all is vouched for.
    Checkpoint(u64, u64, Unsigned),
    /// Nothing was signed at all.
    Nothing,
    /// The checkpoint that was saved does not fit: other rows, or fewer.
    Saved(u64, Unsigned),
}

/// The verdict.
#[derive(Debug)]
pub struct Report {
    /// What was read.
    pub trail: Trail,
    /// What is wrong with it, if anything is.
    pub bad: Option<Bad>,
    /// Rows that the saved checkpoint covers, if one was given and the trail goes on from it.
    pub saved: Option<u64>,
    /// Values that were told, and fit.
    pub opened: u64,
    /// The bytes of the row that was asked for.
    pub row: Option<Vec<u8>>,
}

impl Report {
    /// Whether it verifies.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bad.is_none()
    }
}

/// Judges an export in one pass, and in bounded memory.
///
/// # Errors
/// A file cannot be read. What does not verify is an answer, not an error.
pub fn judge(
    export: &Export,
    vkey: Vkey<Audit>,
    mut since: Option<SignedCheckpoint>,
    wanted: Option<u64>,
) -> anyhow::Result<Report> {
    let mut hashes = BufReader::with_capacity(PIECE_BYTES, open(&export.hashes)?);
    let mut entries = Entries::new(open(&export.entries)?);
    let mut notes = Lines::<Noted>::open(&export.checkpoints)?;
    let mut openings = match export.openings.exists() {
        true => Some(Lines::<Opened>::open(&export.openings)?),
        false => None,
    };
    let mut report = Report {
        trail: Trail::new(vkey),
        bad: None,
        saved: None,
        opened: 0,
        row: None,
    };
    // The root over many rows costs some hashes: each checkpoint asks for it once.
    let mut unsigned = None;
    let mut next_note = notes.next()?;
    loop {
        let rows = report.trail.rows();
        if let Some(saved) = since.take_if(|note| note.unverified().size() <= rows) {
            match report.trail.checkpoint(&saved) {
                Ok(()) => report.saved = Some(rows),
                Err(why) => report.bad = Some(Bad::Saved(saved.unverified().size(), why)),
            }
        }
        while let Some(noted) = next_note.take_if(|noted| noted.size <= rows) {
            let signed = report.trail.signed();
            let stood = match SignedCheckpoint::parse(&noted.note) {
                Ok(note) => report.trail.checkpoint(&note),
                Err(why) => Err(Unsigned::Signature(why)),
            };
            if let Err(why) = stood {
                unsigned.get_or_insert((signed, noted.size, why));
            }
            next_note = notes.next()?;
        }
        let Some(hash) = next_hash(&mut hashes)? else {
            break;
        };
        let row = entries.next()?;
        if let Ok(bytes) = row {
            if let Some(openings) = &mut openings {
                match openings.judge(rows, bytes)? {
                    Ok(count) => report.opened += count,
                    Err(fault) => report.bad = report.bad.take().or(Some(Bad::Row(rows, fault))),
                }
            }
            if wanted == Some(rows) {
                report.row = Some(bytes.to_vec());
            }
        }
        report.trail.push(&hash, row);
    }
    report.trail.finish();
    let rows = report.trail.rows();
    let more_rows = !matches!(entries.next()?, Err(Fault::Truncated));
    let beyond = next_note.map(|noted| noted.size);
    let saved_beyond = since.map(|note| note.unverified().size());
    let found = match report.trail.bad() {
        Some((row, fault)) => Some(Bad::Row(row, fault)),
        None => report.bad.take(),
    };
    report.bad = found
        .or_else(|| saved_beyond.map(|size| Bad::Saved(size, Unsigned::Beyond)))
        .or_else(|| unsigned.map(|(signed, size, why)| Bad::Checkpoint(signed, size, why)))
        .or_else(|| beyond.map(|_| Bad::Row(rows, Fault::Truncated)))
        .or_else(|| more_rows.then_some(Bad::Row(rows, Fault::Misplaced)))
        .or_else(|| (report.trail.signed() == 0 && rows > 0).then_some(Bad::Nothing));
    Ok(report)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("open {}", path.display()))
}

fn next_hash(hashes: &mut impl std::io::Read) -> anyhow::Result<Option<[u8; 32]>> {
    let mut hash = [0; 32];
    let Some((first, rest)) = hash.split_first_mut() else {
        return Ok(None);
    };
    if hashes.read(std::slice::from_mut(first))? == 0 {
        return Ok(None);
    }
    hashes
        .read_exact(rest)
        .map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => anyhow::anyhow!("hashes.bin ends in the middle of a hash"),
            _ => error.into(),
        })?;
    Ok(Some(hash))
}

/// Rows, read piece by piece.
struct Entries {
    file: File,
    buffer: Vec<u8>,
    at: usize,
    is_over: bool,
}

impl Entries {
    fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::new(),
            at: 0,
            is_over: false,
        }
    }

    /// The bytes of the next row; or what is in its place. After what cannot be read nothing can.
    fn next(&mut self) -> anyhow::Result<Result<&[u8], Fault>> {
        if self.buffer.len() - self.at < LEAF_BYTES_MAX && !self.is_over {
            self.buffer.drain(..self.at);
            self.at = 0;
            let room = PIECE_BYTES.saturating_sub(self.buffer.len()) as u64;
            let read = (&mut self.file).take(room).read_to_end(&mut self.buffer)?;
            self.is_over = read == 0;
        }
        let rest = self.buffer.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Err(Fault::Truncated));
        }
        let Ok((_, behind)) = Leaf::split_from(rest) else {
            return Ok(Err(Fault::Unreadable));
        };
        let length = rest.len() - behind.len();
        self.at += length;
        Ok(Ok(rest.get(..length).unwrap_or_default()))
    }
}

/// A file of JSON objects, one on each line.
struct Lines<T> {
    file: BufReader<File>,
    name: String,
    line: u64,
    ahead: Option<T>,
}

impl<T: serde::de::DeserializeOwned> Lines<T> {
    fn open(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            file: BufReader::new(open(path)?),
            name: path.display().to_string(),
            line: 0,
            ahead: None,
        })
    }

    fn next(&mut self) -> anyhow::Result<Option<T>> {
        let mut text = String::new();
        self.line += 1;
        let reading = || format!("read line {} of {}", self.line, self.name);
        let read = (&mut self.file)
            .take(LINE_BYTES_MAX)
            .read_line(&mut text)
            .with_context(reading)?;
        if read == 0 {
            return Ok(None);
        }
        let value =
            serde_json::from_str(&text).map_err(|_| anyhow::anyhow!("it is not one of ours"));
        value.map(Some).with_context(reading)
    }
}

/// A line of `checkpoints.jsonl`.
#[derive(Deserialize)]
struct Noted {
    size: u64,
    note: String,
}

/// A line of `openings.jsonl`.
#[derive(Deserialize)]
struct Opened {
    seq: u64,
    field: String,
    salt: String,
    value: String,
}

impl Lines<Opened> {
    /// How many values of the row are told, and all as it committed to them.
    fn judge(&mut self, row: u64, bytes: &[u8]) -> anyhow::Result<Result<u64, Fault>> {
        let mut count = 0;
        loop {
            if self.ahead.is_none() {
                self.ahead = self.next()?;
            }
            let Some(opened) = self.ahead.take_if(|opened| opened.seq <= row) else {
                return Ok(Ok(count));
            };
            let salt = unhex::<SALT_BYTES>(&opened.salt);
            let fits = Leaf::from_bytes(bytes).is_ok_and(|leaf| {
                salt.is_some_and(|salt| opens(leaf.fields, &opened.field, &salt, &opened.value))
            });
            if opened.seq != row || !fits {
                return Ok(Err(Fault::Opening));
            }
            count += 1;
        }
    }
}
