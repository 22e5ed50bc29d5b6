//! Records as the broker hands them out: a CBOR sequence (RFC 8742) of arrays of six, read piece by piece as they arrive.

use protocol::{
    id::{HostId, SandboxId},
    limits::{ID_BYTES_MAX, PACKET_BYTES_MAX},
    time::UnixMillis,
};

/// The longest record, in bytes: a whole packet, two ids, and the heads around them.
const RECORD_BYTES_MAX: usize = PACKET_BYTES_MAX + 2 * ID_BYTES_MAX + 64;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records that the broker cannot give: they were removed, or cannot be read.
    Gap,
    /// A batch of a sandbox's events.
    Event,
    /// A host's report.
    Report,
    /// A dispatcher's command.
    Command,
}

/// One record of the broker's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Its number.
    pub(crate) offset: u64,
    /// When the broker accepted it.
    pub(crate) time: UnixMillis,
    /// What it is.
    pub(crate) kind: Kind,
    /// Whose; none for a gap.
    pub(crate) host: Option<HostId>,
    /// The sandbox it comes from or is about.
    pub(crate) sandbox: Option<SandboxId>,
    /// The bytes as they were sent to the broker.
    pub(crate) payload: Vec<u8>,
}

/// The broker sent something that is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker sent bytes that are not records")]
pub(crate) struct BadRecord;

/// Puts pieces together and takes records out.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    read: usize,
}

impl Reader {
    /// Adds a piece that has arrived.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        // What was read goes before the buffer grows: it holds one unfinished record and one piece at most.
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole record, if it has arrived.
    pub(crate) fn take(&mut self) -> Result<Option<Record>, BadRecord> {
        let unread = self.buffer.get(self.read..).unwrap_or_default();
        let mut cursor = Cursor { rest: unread };
        match record(&mut cursor) {
            Ok(record) => {
                self.read += unread.len() - cursor.rest.len();
                Ok(Some(record))
            }
            Err(Stop::Short) if unread.len() <= RECORD_BYTES_MAX => Ok(None),
            Err(Stop::Short | Stop::Bad) => Err(BadRecord),
        }
    }

    /// Whether nothing is left half read.
    pub(crate) fn is_empty(&self) -> bool {
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
    let time = UnixMillis(cursor.head(0)?);
    let kind = match cursor.head(0)? {
        0 => Kind::Gap,
        1 => Kind::Event,
        2 => Kind::Report,
        3 => Kind::Command,
        _ => return Err(Stop::Bad),
    };
    let host = id(cursor.string(3, ID_BYTES_MAX)?, HostId::new)?;
    let sandbox = id(cursor.string(3, ID_BYTES_MAX)?, SandboxId::new)?;
    let payload = cursor.string(2, PACKET_BYTES_MAX)?.to_vec();
    if host.is_none() && kind != Kind::Gap {
        return Err(Stop::Bad);
    }
    Ok(Record {
        offset,
        time,
        kind,
        host,
        sandbox,
        payload,
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
        let length = match first & 0x1f {
            small @ 0..=23 => return Ok(u64::from(small)),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            _ => return Err(Stop::Bad),
        };
        let bytes = self.take(length)?;
        Ok(bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
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
pub(crate) mod tests {
    use super::*;

    fn put_head(out: &mut Vec<u8>, major: u8, value: u64) {
        let top = major << 5;
        match value {
            0..=23 => out.push(top | u8::try_from(value).unwrap()),
            24..=0xff => out.extend([top | 24, u8::try_from(value).unwrap()]),
            0x100..=0xffff => {
                out.push(top | 25);
                out.extend(u16::try_from(value).unwrap().to_be_bytes());
            }
            _ => {
                out.push(top | 27);
                out.extend(value.to_be_bytes());
            }
        }
    }

    /// A record as the broker sends it.
    pub(crate) fn encode(record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        put_head(&mut out, 4, 6);
        put_head(&mut out, 0, record.offset);
        put_head(&mut out, 0, record.time.0);
        put_head(&mut out, 0, record.kind as u64);
        for text in [
            record.host.as_ref().map_or("", HostId::as_str),
            record.sandbox.as_ref().map_or("", SandboxId::as_str),
        ] {
            put_head(&mut out, 3, text.len() as u64);
            out.extend(text.as_bytes());
        }
        put_head(&mut out, 2, record.payload.len() as u64);
        out.extend(&record.payload);
        out
    }

    fn records() -> Vec<Record> {
        let host = HostId::new("edge-1").ok();
        let record = |offset, kind, host, sandbox, length| Record {
            offset,
            time: UnixMillis(1_800_000_000_000),
            kind,
            host,
            sandbox,
            payload: vec![7; length],
        };
        vec![
            record(
                0,
                Kind::Event,
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
        let bytes: Vec<u8> = records().iter().flat_map(encode).collect();
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
    fn our_writing_is_the_deterministic_one() {
        let with_no_payload = &records()[1];
        let same = protocol::cbor::to_vec(&(300, 1_800_000_000_000_u64, 2, "edge-1", ""));
        let ours = encode(with_no_payload);
        assert_eq!(ours[1..ours.len() - 1], same[1..]);
    }

    #[test]
    fn what_is_no_record_is_refused_and_never_kept_for_ever() {
        let good = encode(&records()[1]);
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
