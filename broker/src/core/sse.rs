//! Records of the journal as server-sent events (WHATWG HTML, "Server-sent events"): written here, and what a reader may ask for.

mod ask;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use super::journal::{Record, RecordKind};

pub use ask::{Ask, Asked, Begin, Refusal, Selected, accepts, bearer};

/// The media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";
/// How long a client should wait before it comes back, in milliseconds: longer than a broker takes to start again.
const RETRY_MS: u64 = 2_000;

/// The data of a record: one line of JSON, as JSON strings hold no line ends. The names are those of the records in `SPEC.md`.
#[derive(Serialize)]
struct Data<'a> {
    offset: u64,
    time_ms: u64,
    kind: &'a str,
    host: &'a str,
    sandbox: Option<&'a str>,
    payload: String,
}

/// The data of a gap.
#[derive(Serialize)]
struct Missing {
    kind: &'static str,
    first: u64,
    last: u64,
}

/// What a stream begins with: something, so that the client knows at once that it is let in.
pub fn put_greeting(out: &mut Vec<u8>) {
    out.extend_from_slice(format!("retry: {RETRY_MS}\n\n").as_bytes());
}

/// A record. Its id is its offset: who comes back with it goes on after it.
pub fn put_record(out: &mut Vec<u8>, record: &Record<'_>) {
    let kind = word(record.kind);
    let data = Data {
        offset: record.offset,
        time_ms: record.time_ms,
        kind,
        host: record.host,
        sandbox: record.sandbox,
        payload: STANDARD.encode(record.payload),
    };
    put_event(out, record.offset, kind, &data);
}

/// The records from `from` up to and not including `to` cannot be read any more. Who comes back goes on behind them.
pub fn put_gap(out: &mut Vec<u8>, from: u64, to: u64) {
    let last = to.saturating_sub(1);
    let data = Missing {
        kind: GAP,
        first: from,
        last,
    };
    put_event(out, last, GAP, &data);
}

/// Nothing to tell, and the client learns that we are still here; and how far we have looked on its behalf, so that it need not have
/// all of that looked through again when it comes back. A block without data is no event: it moves the last id, and nothing else.
pub fn put_keep_alive(out: &mut Vec<u8>, next: u64) {
    out.extend_from_slice(b": nothing new\n");
    if let Some(last) = next.checked_sub(1) {
        out.extend_from_slice(format!("id: {last}\n").as_bytes());
    }
    out.push(b'\n');
}

/// A last word, for people: programs learn from the end of the stream.
pub fn put_farewell(out: &mut Vec<u8>, why: &str) {
    out.extend_from_slice(format!(": this stream ends: {why}\n\n").as_bytes());
}

fn put_event(out: &mut Vec<u8>, id: u64, kind: &str, data: &impl Serialize) {
    out.extend_from_slice(format!("id: {id}\nevent: {kind}\ndata: ").as_bytes());
    // Plain structs of numbers and texts: there is nothing in them that could fail.
    let written = serde_json::to_writer(&mut *out, data);
    debug_assert!(written.is_ok(), "numbers and texts are JSON");
    out.extend_from_slice(b"\n\n");
}

const GAP: &str = "gap";

const fn word(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Event => "event",
        RecordKind::Report => "report",
        RecordKind::Command => "command",
        RecordKind::Bench => "bench",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_one_event_whose_id_is_its_offset_and_whose_data_is_one_line() {
        let record = Record {
            offset: 7,
            time_ms: 1_764_300_000_123,
            kind: RecordKind::Event,
            host: "edge-1",
            sandbox: Some("build-7"),
            payload: b"\n\r\0 any bytes \xFF",
        };
        assert_eq!(
            text(|out| put_record(out, &record)),
            "id: 7\nevent: event\ndata: {\"offset\":7,\"time_ms\":1764300000123,\"kind\":\"event\",\
             \"host\":\"edge-1\",\"sandbox\":\"build-7\",\"payload\":\"Cg0AIGFueSBieXRlcyD/\"}\n\n"
        );
        let report = Record {
            kind: RecordKind::Report,
            sandbox: None,
            payload: b"",
            ..record
        };
        let report = text(|out| put_record(out, &report));
        assert!(report.contains("event: report\n"), "{report}");
        assert!(
            report.contains("\"sandbox\":null,\"payload\":\"\""),
            "{report}"
        );
    }

    #[test]
    fn a_gap_names_its_first_and_its_last_offset_and_its_id_is_the_last() {
        assert_eq!(
            text(|out| put_gap(out, 3, 9)),
            "id: 8\nevent: gap\ndata: {\"kind\":\"gap\",\"first\":3,\"last\":8}\n\n"
        );
    }

    #[test]
    fn what_is_no_event_has_no_data() {
        let all = text(|out| {
            put_greeting(out);
            put_keep_alive(out, 0);
            put_keep_alive(out, 12);
            put_farewell(out, "its token has ended");
        });
        assert!(!all.contains("data"), "{all}");
        assert_eq!(
            text(|out| put_keep_alive(out, 12)),
            ": nothing new\nid: 11\n\n"
        );
        assert!(text(|out| put_keep_alive(out, 0)).ends_with(": nothing new\n\n"));
        assert!(all.starts_with("retry: 2000\n\n"));
    }
}
