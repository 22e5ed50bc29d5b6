//! The journal's file format: segment headers and records, as bytes and back.
//!
//! A segment is one header and then records, back to back, all integers little-endian:
//!
//! ```text
//! header   magic 8 | version u32 | first offset u64 | crc32c u32 over the 20 bytes before
//! more     end offset u64 | serial u32 | crc32c u32 over the 36 bytes before: in version 2, behind the header
//! record   crc32c u32 over all that follows | body length u32 | body
//! body     offset u64 | time_ms u64 | kind u8 | host length u8 | sandbox length u8 | flags u8 | host | sandbox | payload
//! ```
//!
//! The checksum covers the length too, and each record carries its own offset: a record that was moved, repeated or cut
//! never decodes as another. Offsets are consecutive integers.
//!
//! In the last segment zeros may follow, prepared for what comes: no record has the length zero. A sealed one ends with its last record.
//!
//! Segments of version 1 are written by appending, and of version 2 by rewriting what was appended before, without what had to go:
//! such a one accounts for every offset from its first up to its end, by a record or by a marker ([`removed`]). The serial counts how
//! often. The one flag, 1, says that of an event's payload only the signed head is left.

pub mod removed;

use removed::Removed;
use thiserror::Error;

/// First bytes of every segment. The line feed shows a transfer that "repaired" line endings.
const MAGIC: [u8; 8] = *b"OUTHAUL\n";
/// The format of what is appended. A segment of a version that is not known is an error, never a gap.
pub const FORMAT_VERSION: u32 = 1;
/// The format of what is rewritten.
pub const REWRITTEN_VERSION: u32 = 2;
/// Bytes of the header of a segment that is appended to.
pub const HEADER_BYTES: usize = 24;
/// Bytes of the header of a rewritten one.
pub const REWRITTEN_HEADER_BYTES: usize = 40;
/// The longest payload, in bytes: one MQTT packet is at most this, so no payload can be longer.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// The longest host or sandbox id, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// Checksum and length, before the body.
const FRAME_HEAD_BYTES: usize = 8;
/// The part of a body that every record has.
const BODY_HEAD_BYTES: usize = 20;
/// Where the flags stand in a frame.
const FLAGS_AT: usize = FRAME_HEAD_BYTES + BODY_HEAD_BYTES - 1;
/// The flag of an event whose body was purged.
const PURGED: u8 = 1;
/// The shortest record: an id of one byte, no sandbox, no payload.
pub const RECORD_BYTES_MIN: usize = FRAME_HEAD_BYTES + BODY_HEAD_BYTES + 1;
/// The longest record.
pub const RECORD_BYTES_MAX: usize =
    FRAME_HEAD_BYTES + BODY_HEAD_BYTES + 2 * ID_BYTES_MAX + PAYLOAD_BYTES_MAX;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKind {
    /// A batch of events, sandbox to platform.
    Event,
    /// A report, host to platform.
    Report,
    /// A command, dispatcher to host.
    Command,
    /// A message of a load test, in a partition of its own: [`bench_payload`].
    Bench,
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            Self::Event => 1,
            Self::Report => 2,
            Self::Command => 3,
            Self::Bench => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Event),
            2 => Some(Self::Report),
            3 => Some(Self::Command),
            4 => Some(Self::Bench),
            _ => None,
        }
    }
}

/// Something to be written; the journal gives it its offset.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What it is.
    pub kind: RecordKind,
    /// The host it came from or goes to, `[a-z0-9-]{1,64}`.
    pub host: &'a str,
    /// The sandbox it came from or is about, of the same form.
    pub sandbox: Option<&'a str>,
    /// When the broker accepted it, milliseconds since 1970.
    pub time_ms: u64,
    /// The bytes as they were sent, at most [`PAYLOAD_BYTES_MAX`].
    pub payload: &'a [u8],
}

impl Entry<'_> {
    /// The bytes this entry takes in a segment.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        FRAME_HEAD_BYTES
            + BODY_HEAD_BYTES
            + self.host.len()
            + self.sandbox.map_or(0, str::len)
            + self.payload.len()
    }
}

/// A record that was read and whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the journal.
    pub offset: u64,
    /// When the broker accepted it, milliseconds since 1970.
    pub time_ms: u64,
    /// What it is.
    pub kind: RecordKind,
    /// The host it came from or goes to.
    pub host: &'a str,
    /// The sandbox it came from or is about.
    pub sandbox: Option<&'a str>,
    /// The bytes as they were sent; of a purged event, its signed head.
    pub payload: &'a [u8],
    /// It is an event whose body was purged.
    pub is_purged: bool,
}

/// What a segment holds, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record.
    Record(Record<'a>),
    /// What was removed there.
    Removed(Removed),
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first offset.
    pub first: u64,
    /// The first offset after it; none if it was appended to, and ends where it ends.
    pub end: Option<u64>,
    /// How often it was rewritten.
    pub serial: u32,
}

impl Header {
    /// Its length, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        match self.end {
            None => HEADER_BYTES,
            Some(_) => REWRITTEN_HEADER_BYTES,
        }
    }
}

/// Why an entry cannot be written: the caller let through what it should not.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    /// The payload passes [`PAYLOAD_BYTES_MAX`].
    #[error("payload is longer than a record may carry")]
    PayloadTooLong,
    /// The host or sandbox is not `[a-z0-9-]{1,64}`.
    #[error("host or sandbox is not an id")]
    BadId,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The record goes on after the bytes end.
    #[error("record is cut short")]
    Incomplete,
    /// No record has this length.
    #[error("record has an impossible length")]
    Length,
    /// The bytes are not the bytes that were written.
    #[error("record fails its checksum")]
    Checksum,
    /// The checksum holds and the content is not ours.
    #[error("record has impossible content")]
    Content,
}

/// Why bytes are not a segment header.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Cut short, not ours, or altered.
    #[error("segment header is damaged")]
    Damaged,
    /// Written by another version of this program.
    #[error(
        "segment has format version {0}, and this program reads versions {FORMAT_VERSION} and {REWRITTEN_VERSION}: run the program \
         that wrote it, or restore a backup from before"
    )]
    Version(u32),
}

/// The payload of a load test's record: `topic length u16 | topic | payload`. `None`: longer than a record's payload may be.
#[must_use]
pub fn bench_payload(topic: &str, payload: &[u8]) -> Option<Vec<u8>> {
    let topic_bytes = u16::try_from(topic.len()).ok()?.to_le_bytes();
    let record = [topic_bytes.as_slice(), topic.as_bytes(), payload].concat();
    (record.len() <= PAYLOAD_BYTES_MAX).then_some(record)
}

/// Topic and payload of what [`bench_payload`] made.
#[must_use]
pub fn split_bench_payload(record: &[u8]) -> Option<(&str, &[u8])> {
    let (topic_bytes, rest) = record.split_first_chunk::<2>()?;
    let (topic, payload) = rest.split_at_checked(usize::from(u16::from_le_bytes(*topic_bytes)))?;
    Some((std::str::from_utf8(topic).ok()?, payload))
}

/// The header of a segment whose first record has the offset `first`.
#[must_use]
pub fn encode_header(first: u64) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes.copy_from_slice(&start_header(FORMAT_VERSION, first));
    bytes
}

fn start_header(version: u32, first: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(REWRITTEN_HEADER_BYTES);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&version.to_le_bytes());
    header.extend_from_slice(&first.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

/// The header of a segment that was rewritten `serial` times and holds everything from `first` up to and not including `end`.
#[must_use]
pub fn encode_rewritten_header(first: u64, end: u64, serial: u32) -> Vec<u8> {
    let mut header = start_header(REWRITTEN_VERSION, first);
    header.extend_from_slice(&end.to_le_bytes());
    header.extend_from_slice(&serial.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header
}

/// What the header says that `bytes` begin with; the first [`REWRITTEN_HEADER_BYTES`] of a segment are enough.
///
/// # Errors
/// [`HeaderError`], which tells damage from another version.
pub fn decode_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let mut fields = Fields(checked(bytes, HEADER_BYTES)?);
    if fields.take::<8>() != Some(MAGIC) {
        return Err(HeaderError::Damaged);
    }
    let version = fields.take().map(u32::from_le_bytes);
    let first = fields.take().map(u64::from_le_bytes);
    let (version, first) = version.zip(first).ok_or(HeaderError::Damaged)?;
    match version {
        FORMAT_VERSION => Ok(Header {
            first,
            end: None,
            serial: 0,
        }),
        REWRITTEN_VERSION => {
            let whole = checked(bytes, REWRITTEN_HEADER_BYTES)?;
            let mut fields = Fields(whole.get(HEADER_BYTES..).unwrap_or_default());
            let end = fields.take().map(u64::from_le_bytes);
            let serial = fields.take().map(u32::from_le_bytes);
            let more = end.filter(|end| *end > first).zip(serial);
            let (end, serial) = more.ok_or(HeaderError::Damaged)?;
            Ok(Header {
                first,
                end: Some(end),
                serial,
            })
        }
        other => Err(HeaderError::Version(other)),
    }
}

/// The first `length` bytes but for the checksum that they end with, which holds.
fn checked(bytes: &[u8], length: usize) -> Result<&[u8], HeaderError> {
    let (covered, crc) = bytes
        .get(..length)
        .and_then(<[u8]>::split_last_chunk::<4>)
        .ok_or(HeaderError::Damaged)?;
    if crc32c::crc32c(covered) == u32::from_le_bytes(*crc) {
        Ok(covered)
    } else {
        Err(HeaderError::Damaged)
    }
}

/// Append `entry` to `out` as a record without offset and checksum, which [`seal`] fills in once the offset is known.
///
/// # Errors
/// [`EncodeError`]; `out` is then unchanged.
pub fn encode(entry: &Entry<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if entry.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(EncodeError::PayloadTooLong);
    }
    if !is_id(entry.host) || entry.sandbox.is_some_and(|sandbox| !is_id(sandbox)) {
        return Err(EncodeError::BadId);
    }
    let sandbox = entry.sandbox.unwrap_or_default();
    let body_bytes = u32::try_from(entry.frame_bytes() - FRAME_HEAD_BYTES)
        .map_err(|_| EncodeError::PayloadTooLong)?;
    let host_bytes = u8::try_from(entry.host.len()).map_err(|_| EncodeError::BadId)?;
    let sandbox_bytes = u8::try_from(sandbox.len()).map_err(|_| EncodeError::BadId)?;
    out.reserve(entry.frame_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&body_bytes.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&entry.time_ms.to_le_bytes());
    out.extend_from_slice(&[entry.kind.code(), host_bytes, sandbox_bytes, 0]);
    out.extend_from_slice(entry.host.as_bytes());
    out.extend_from_slice(sandbox.as_bytes());
    out.extend_from_slice(entry.payload);
    Ok(())
}

/// Give the records that [`encode`] put into `frames` the offsets `first`, `first + 1`, … and their checksums; how many
/// there were.
///
/// # Errors
/// [`DecodeError`] when `frames` is not what [`encode`] made.
pub fn seal(frames: &mut [u8], first: u64) -> Result<u64, DecodeError> {
    let mut rest = frames;
    let mut offset = first;
    while !rest.is_empty() {
        let (frame, tail) = rest
            .split_at_mut_checked(frame_len(rest)?)
            .ok_or(DecodeError::Incomplete)?;
        frame
            .get_mut(8..16)
            .ok_or(DecodeError::Incomplete)?
            .copy_from_slice(&offset.to_le_bytes());
        seal_frame(frame);
        offset += 1;
        rest = tail;
    }
    Ok(offset - first)
}

fn seal_frame(frame: &mut [u8]) {
    if let Some((crc, covered)) = frame.split_first_chunk_mut::<4>() {
        *crc = crc32c::crc32c(covered).to_le_bytes();
    }
}

/// Appends `event` without its body, as a frame, sealed: `head` is the signed head that its payload begins with.
///
/// # Errors
/// [`EncodeError`]; `out` is then unchanged.
pub fn encode_purged(
    event: &Record<'_>,
    head: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    let entry = Entry {
        kind: RecordKind::Event,
        host: event.host,
        sandbox: event.sandbox,
        time_ms: event.time_ms,
        payload: head,
    };
    encode(&entry, out)?;
    let frame = out.get_mut(start..).unwrap_or_default();
    if let Some(field) = frame.get_mut(8..16) {
        field.copy_from_slice(&event.offset.to_le_bytes());
    }
    if let Some(flags) = frame.get_mut(FLAGS_AT) {
        *flags = PURGED;
    }
    seal_frame(frame);
    Ok(())
}

/// The whole length of the record that starts `bytes`, in bytes, from its length field alone.
///
/// # Errors
/// [`DecodeError::Incomplete`] with fewer than 8 bytes, [`DecodeError::Length`] for a length no record has.
pub fn frame_len(bytes: &[u8]) -> Result<usize, DecodeError> {
    let field = bytes
        .get(4..)
        .and_then(<[u8]>::first_chunk::<4>)
        .ok_or(DecodeError::Incomplete)?;
    let body = usize::try_from(u32::from_le_bytes(*field)).map_err(|_| DecodeError::Length)?;
    let whole = body
        .checked_add(FRAME_HEAD_BYTES)
        .ok_or(DecodeError::Length)?;
    if (RECORD_BYTES_MIN..=RECORD_BYTES_MAX).contains(&whole) {
        Ok(whole)
    } else {
        Err(DecodeError::Length)
    }
}

/// The record that starts `bytes`, and its length in bytes.
///
/// # Errors
/// [`DecodeError`]: what is wrong with the first record, whatever follows it. A marker is none.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), DecodeError> {
    match decode_frame(bytes)? {
        (Frame::Record(record), whole) => Ok((record, whole)),
        (Frame::Removed(_), _) => Err(DecodeError::Content),
    }
}

/// The record or marker that starts `bytes`, and its length in bytes.
///
/// # Errors
/// [`DecodeError`]: what is wrong with the first, whatever follows it.
pub fn decode_frame(bytes: &[u8]) -> Result<(Frame<'_>, usize), DecodeError> {
    let (crc, covered) = split_frame(bytes)?;
    if crc32c::crc32c(covered) != crc {
        return Err(DecodeError::Checksum);
    }
    let body = covered.get(4..).unwrap_or_default();
    let frame = match body.get(16) {
        Some(&removed::KIND) => Removed::decode_body(body).map(Frame::Removed),
        Some(_) | None => decode_body(body).map(Frame::Record),
    };
    Ok((frame.ok_or(DecodeError::Content)?, 4 + covered.len()))
}

/// The same for a record that this process sealed and has held since. Its checksum, which is for disks, is not computed again.
///
/// # Errors
/// As [`decode`], but for [`DecodeError::Checksum`].
pub fn decode_held(bytes: &[u8]) -> Result<(Record<'_>, usize), DecodeError> {
    let (_, covered) = split_frame(bytes)?;
    let record = decode_body(covered.get(4..).unwrap_or_default());
    Ok((record.ok_or(DecodeError::Content)?, 4 + covered.len()))
}

/// The first frame of `bytes`: its checksum, and what that covers.
fn split_frame(bytes: &[u8]) -> Result<(u32, &[u8]), DecodeError> {
    let frame = bytes
        .get(..frame_len(bytes)?)
        .ok_or(DecodeError::Incomplete)?;
    let (crc, covered) = frame.split_first_chunk().ok_or(DecodeError::Incomplete)?;
    Ok((u32::from_le_bytes(*crc), covered))
}

fn decode_body(body: &[u8]) -> Option<Record<'_>> {
    let mut fields = Fields(body);
    let offset = u64::from_le_bytes(fields.take()?);
    let time_ms = u64::from_le_bytes(fields.take()?);
    let [kind, host_bytes, sandbox_bytes, flags] = fields.take()?;
    let (host, rest) = fields.0.split_at_checked(usize::from(host_bytes))?;
    let (sandbox, payload) = rest.split_at_checked(usize::from(sandbox_bytes))?;
    let (host, sandbox) = (
        std::str::from_utf8(host).ok()?,
        std::str::from_utf8(sandbox).ok()?,
    );
    let sandbox = (!sandbox.is_empty()).then_some(sandbox);
    let kind = RecordKind::from_code(kind)?;
    let is_purged = flags == PURGED;
    let sound = (flags == 0 || is_purged && kind == RecordKind::Event)
        && is_id(host)
        && sandbox.is_none_or(is_id)
        && payload.len() <= PAYLOAD_BYTES_MAX;
    sound.then_some(Record {
        offset,
        time_ms,
        kind,
        host,
        sandbox,
        payload,
        is_purged,
    })
}

/// The last intact record anywhere in `bytes` that could stand there if the bytes began with the record `expected`: its
/// offset, and the bytes that follow it.
///
/// Recovery asks this about bytes that begin with a bad record: whole records after it mean damage, not a write cut short.
/// The answer may be forged by whoever wrote a payload, so it decides where to go on, never what readers are given.
#[must_use]
pub fn last_record_in(bytes: &[u8], expected: u64) -> Option<(u64, usize)> {
    let mut last = None;
    let mut at = 1;
    while let Some(rest) = bytes
        .get(at..)
        .filter(|rest| rest.len() >= RECORD_BYTES_MIN)
    {
        let offset_max = expected.saturating_add(records_max(at));
        let offset = rest
            .get(8..)
            .and_then(<[u8]>::first_chunk::<8>)
            .map_or(0, |field| u64::from_le_bytes(*field));
        // The offset is looked at first: a checksum at every byte would take a quadratic time.
        let found = if offset > expected && offset <= offset_max {
            decode(rest).ok()
        } else {
            None
        };
        if let Some((_, whole)) = found {
            last = Some((offset, rest.len() - whole));
        }
        at += found.map_or(1, |(_, whole)| whole);
    }
    last
}

/// The most records that `bytes` bytes can hold, rounded up.
#[must_use]
pub fn records_max(bytes: usize) -> u64 {
    u64::try_from(bytes.div_ceil(RECORD_BYTES_MIN)).unwrap_or(u64::MAX)
}

fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Fixed-size fields, taken from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

#[cfg(test)]
mod tests;
