//! Records: what the broker took in, as it hands it out and as a stream file keeps it. A CBOR sequence (RFC 8742) of arrays of six
//! (`SPEC.md`, chapter 10), read piece by piece as they arrive.

use crate::{
    cbor::head,
    id::{HostId, SandboxId},
    limits::{ID_BYTES_MAX, PACKET_BYTES_MAX},
    time::UnixMillis,
};

/// The longest record, in bytes: a whole packet, two ids, and the heads around them.
const RECORD_BYTES_MAX: usize = PACKET_BYTES_MAX + 2 * ID_BYTES_MAX + 64;

int_word! {
    /// What a record holds.
    pub enum Kind {
        /// Records that the broker cannot give: they were removed, or cannot be read.
        0 => Gap = "gap",
        /// A batch of a sandbox's events.
        1 => Batch = "batch",
        /// A host's report.
        2 => Report = "report",
        /// A dispatcher's command.
        3 => Command = "command",
        /// A host's key signing the next one; in stream files alone.
        4 => Succession = "succession",
        /// The signed head of a batch of events whose body was purged. (5 is nothing: it stands for what is no record in the vectors.)
        6 => Head = "head",
    }
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number in the broker's journal.
    pub offset: u64,
    /// When the broker accepted it.
    pub received: UnixMillis,
    /// What it is.
    pub kind: Kind,
    /// Whose; none for a gap.
    pub host: Option<HostId>,
    /// The sandbox it comes from or is about.
    pub sandbox: Option<SandboxId>,
    /// The bytes as they were sent to the broker.
    pub payload: Vec<u8>,
}

impl Record {
    /// Its encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 2 * ID_BYTES_MAX + 64);
        let host = self.host.as_ref().map_or("", HostId::as_str);
        let sandbox = self.sandbox.as_ref().map_or("", SandboxId::as_str);
        put(
            &mut out,
            self.offset,
            self.received,
            self.kind,
            (host, sandbox),
            &self.payload,
        );
        out
    }
}

/// Appends a record of parts: `place` is its host's and sandbox's name, each empty where there is none.
pub fn put(
    out: &mut Vec<u8>,
    offset: u64,
    received: UnixMillis,
    kind: Kind,
    place: (&str, &str),
    payload: &[u8],
) {
    head::put_array(out, 6);
    head::put_uint(out, offset);
    head::put_uint(out, received.0);
    head::put_uint(out, kind.label());
    head::put_text(out, place.0);
    head::put_text(out, place.1);
    head::put_bytes(out, payload);
}

/// What a stream file starts with: whose stream it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The host.
    pub host: HostId,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Whether the file may begin in the middle of the stream.
    pub is_part: bool,
}

/// The first element of an opening.
const FILE_NAME: &str = "outhaul-stream";
/// The same of a file that may begin in the middle.
const PART_NAME: &str = "outhaul-stream-part";
/// The second: the version of the file.
const FILE_VERSION: u64 = 1;

impl Opening {
    /// Its encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        head::put_array(&mut out, 4);
        let name = if self.is_part { PART_NAME } else { FILE_NAME };
        head::put_text(&mut out, name);
        head::put_uint(&mut out, FILE_VERSION);
        head::put_text(&mut out, self.host.as_str());
        head::put_text(&mut out, self.sandbox.as_str());
        out
    }
}

/// The bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes that are not records")]
pub struct BadRecord;

/// Puts pieces together and takes records out.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: Vec<u8>,
    read: usize,
}

impl Reader {
    /// Adds a piece that has arrived.
    pub fn push(&mut self, piece: &[u8]) {
        // What was read goes before the buffer grows: it holds one unfinished record and one piece at most.
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole record, if it has arrived.
    ///
    /// # Errors
    /// [`BadRecord`]: there is none, whatever may still arrive.
    pub fn take(&mut self) -> Result<Option<Record>, BadRecord> {
        self.item(record)
    }

    /// What the file starts with, if it has arrived.
    ///
    /// # Errors
    /// [`BadRecord`]: it is no stream file, or one of a later version.
    pub fn take_opening(&mut self) -> Result<Option<Opening>, BadRecord> {
        self.item(opening)
    }

    fn item<T>(
        &mut self,
        read: impl Fn(&mut Cursor<'_>) -> Result<T, Stop>,
    ) -> Result<Option<T>, BadRecord> {
        let unread = self.buffer.get(self.read..).unwrap_or_default();
        let mut cursor = Cursor { rest: unread };
        match read(&mut cursor) {
            Ok(item) => {
                self.read += unread.len() - cursor.rest.len();
                Ok(Some(item))
            }
            Err(Stop::Short) if unread.len() <= RECORD_BYTES_MAX => Ok(None),
            Err(Stop::Short | Stop::Bad) => Err(BadRecord),
        }
    }

    /// Whether nothing is left half read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read == self.buffer.len()
    }
}

enum Stop {
    /// The record goes on after the bytes end.
    Short,
    /// It is none.
    Bad,
}

fn record(cursor: &mut Cursor<'_>) -> Result<Record, Stop> {
    if cursor.head(4)? != 6 {
        return Err(Stop::Bad);
    }
    let offset = cursor.head(0)?;
    let received = UnixMillis(cursor.head(0)?);
    let kind = Kind::from_label(cursor.head(0)?).ok_or(Stop::Bad)?;
    let host = id(cursor.string(3, ID_BYTES_MAX)?, HostId::new)?;
    let sandbox = id(cursor.string(3, ID_BYTES_MAX)?, SandboxId::new)?;
    let payload = cursor.string(2, PACKET_BYTES_MAX)?.to_vec();
    if host.is_none() && kind != Kind::Gap {
        return Err(Stop::Bad);
    }
    Ok(Record {
        offset,
        received,
        kind,
        host,
        sandbox,
        payload,
    })
}

fn opening(cursor: &mut Cursor<'_>) -> Result<Opening, Stop> {
    if cursor.head(4)? != 4 {
        return Err(Stop::Bad);
    }
    let name = cursor.string(3, PART_NAME.len())?;
    let is_part = name == PART_NAME.as_bytes();
    if !is_part && name != FILE_NAME.as_bytes() || cursor.head(0)? != FILE_VERSION {
        return Err(Stop::Bad);
    }
    Ok(Opening {
        is_part,
        host: id(cursor.string(3, ID_BYTES_MAX)?, HostId::new)?.ok_or(Stop::Bad)?,
        sandbox: id(cursor.string(3, ID_BYTES_MAX)?, SandboxId::new)?.ok_or(Stop::Bad)?,
    })
}

fn id<T, E>(bytes: &[u8], new: impl Fn(&str) -> Result<T, E>) -> Result<Option<T>, Stop> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Stop::Bad)?;
    new(text).map(Some).map_err(|_| Stop::Bad)
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The argument of an item of the major type `major` (RFC 8949 §3).
    fn head(&mut self, major: u8) -> Result<u64, Stop> {
        let [first] = self.take(1)? else {
            return Err(Stop::Short);
        };
        if first >> 5 != major {
            return Err(Stop::Bad);
        }
        let (length, least) = match first & 0x1f {
            small @ 0..=23 => return Ok(u64::from(small)),
            24 => (1, 24),
            25 => (2, 1 << 8),
            26 => (4, 1 << 16),
            27 => (8, 1 << 32),
            _ => return Err(Stop::Bad),
        };
        let bytes = self.take(length)?;
        let value = bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        // Shortest form only, as everywhere.
        if value < least {
            Err(Stop::Bad)
        } else {
            Ok(value)
        }
    }

    fn string(&mut self, major: u8, bytes_max: usize) -> Result<&'a [u8], Stop> {
        let length = usize::try_from(self.head(major)?).map_err(|_| Stop::Bad)?;
        if length > bytes_max {
            return Err(Stop::Bad);
        }
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let host = HostId::new("edge-1").ok();
        let record = |offset, kind, host, sandbox, length| Record {
            offset,
            received: UnixMillis(1_800_000_000_000),
            kind,
            host,
            sandbox,
            payload: vec![7; length],
        };
        vec![
            record(
                0,
                Kind::Batch,
                host.clone(),
                SandboxId::new("build-7").ok(),
                PACKET_BYTES_MAX,
            ),
            record(300, Kind::Report, host.clone(), None, 0),
            record(u64::MAX, Kind::Command, host, None, 300),
            record(70_000, Kind::Gap, None, None, 8),
        ]
    }

    #[test]
    fn records_come_out_whole_however_they_are_cut() {
        let bytes: Vec<u8> = records().iter().flat_map(Record::encode).collect();
        for piece_bytes in [1, 2, 7, 1000, bytes.len()] {
            let mut reader = Reader::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(piece_bytes) {
                reader.push(piece);
                while let Some(record) = reader.take().unwrap() {
                    read.push(record);
                }
            }
            assert_eq!(read, records(), "pieces of {piece_bytes}");
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn an_opening_round_trips_and_another_file_has_none() {
        let opening = Opening {
            is_part: false,
            host: HostId::new("edge-1").unwrap(),
            sandbox: SandboxId::new("build-7").unwrap(),
        };
        let bytes = opening.encode();
        let read = |bytes: &[u8]| {
            let mut reader = Reader::default();
            reader.push(bytes);
            reader.take_opening()
        };
        assert_eq!(read(&bytes), Ok(Some(opening)));
        assert_eq!(read(&bytes[..bytes.len() - 1]), Ok(None));
        let later: Vec<u8> = bytes.iter().map(|b| if *b == 1 { 2 } else { *b }).collect();
        for other in [&later, &records()[1].encode()] {
            assert_eq!(read(other), Err(BadRecord));
        }
    }

    #[test]
    fn our_writing_is_the_deterministic_one() {
        let with_no_payload = &records()[1];
        let same = crate::cbor::to_vec(&(300, 1_800_000_000_000_u64, 2, "edge-1", ""));
        let ours = with_no_payload.encode();
        assert_eq!(ours[1..ours.len() - 1], same[1..]);
    }

    #[test]
    fn what_is_no_record_is_refused_and_never_kept_for_ever() {
        let good = records()[1].encode();
        let wrong_kind: Vec<u8> = good
            .iter()
            .enumerate()
            .map(|(index, byte)| if index == 13 { 9 } else { *byte })
            .collect();
        for bad in [&[0x85][..], &[0xff], b"HTTP/1.1", &wrong_kind] {
            let mut reader = Reader::default();
            reader.push(bad);
            assert_eq!(reader.take(), Err(BadRecord), "{bad:02x?}");
        }
        let mut long = good[..good.len() - 1].to_vec();
        long.extend([0x5a, 0xff, 0xff, 0xff, 0xff]);
        let mut reader = Reader::default();
        reader.push(&long);
        assert_eq!(reader.take(), Err(BadRecord), "a length beyond any packet");
    }
}
