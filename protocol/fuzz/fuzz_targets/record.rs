//! Records and the opening of a stream file: a sequence that anybody may have written, read piece by piece.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    limits::PACKET_BYTES_MAX,
    record::{Kind, Opening, Reader, Record},
};
use protocol_fuzz::{input::Input, item::Item, quiet};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let piece_bytes = usize::from(input.byte());
    let bytes = input.rest();
    let whole = read(bytes, bytes.len());
    assert_eq!(read(bytes, piece_bytes), whole, "however it is cut");
    let (opening, records, is_good) = whole;
    let mut again = opening.as_ref().map(Opening::encode).unwrap_or_default();
    again.extend(records.iter().flat_map(Record::encode));
    assert!(
        bytes.starts_with(&again),
        "what is read is all that was written"
    );
    let is_whole = again.len() == bytes.len() && opening.is_some();
    assert!(!is_whole || is_good);
    records.iter().for_each(check);
    // What is refused or unfinished is no record by RFC 8949 either, or one that the chapter forbids.
    if let Some((item, _)) = Item::read_front(&bytes[again.len()..])
        && opening.is_some()
    {
        assert!(!is_record(&item));
    }
});

/// What there is until the first fault, and whether that is the end of the bytes or they may yet go on.
fn read(bytes: &[u8], piece_bytes: usize) -> (Option<Opening>, Vec<Record>, bool) {
    let mut reader = Reader::default();
    let (mut opening, mut records) = (None, Vec::new());
    for piece in bytes.chunks(piece_bytes.max(1)) {
        reader.push(piece);
        if opening.is_none() {
            match reader.take_opening() {
                Ok(taken) => opening = taken,
                Err(error) => {
                    quiet::check(error);
                    return (opening, records, false);
                }
            }
        }
        while opening.is_some() {
            match reader.take() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(error) => {
                    quiet::check(error);
                    return (opening, records, false);
                }
            }
        }
    }
    (opening, records, true)
}

fn check(record: &Record) {
    assert!(record.payload.len() <= PACKET_BYTES_MAX);
    assert!(record.host.is_some() || record.kind == Kind::Gap);
    assert!(Item::read(&record.encode()).is_some_and(|item| is_record(&item)));
}

/// Whether an item is a record as `SPEC.md` 10 has it.
fn is_record(item: &Item) -> bool {
    let Item::Array(parts) = item else {
        return false;
    };
    let [
        Item::Uint(_),
        Item::Uint(_),
        Item::Uint(kind @ (0..=4 | 6)),
        Item::Text(host),
        Item::Text(sandbox),
        Item::Bytes(payload),
    ] = parts.as_slice()
    else {
        return false;
    };
    let is_id = |text: &str| {
        let is_digit = |c: char| c == '-' || c.is_ascii_digit() || c.is_ascii_lowercase();
        text.len() <= 64 && text.chars().all(is_digit)
    };
    is_id(host)
        && is_id(sandbox)
        && payload.len() <= PACKET_BYTES_MAX
        && (*kind == 0 || !host.is_empty())
}
