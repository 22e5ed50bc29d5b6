//! Records of the journal as server-sent events (WHATWG HTML, "Server-sent events"): written here, and what a reader may ask for.

mod ask;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::hole::{Cause, Causes};
use serde::Serialize;

use super::{
    incarnation::Withdrawn,
    journal::{Record, RecordKind},
};

pub use ask::{Ask, Asked, Begin, Refusal, Selected, accepts, bearer};

/// The media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";
/// How long a client should wait before it comes back, in milliseconds: longer than a broker takes to start again.
const RETRY_MS: u64 = 2_000;

/// The data of a record: one line of JSON, as JSON strings hold no line ends. The names are those of the records in `SPEC.md`.
#[derive(Serialize)]
struct Data<'a> {
    offset: u64,
    incarnation: u64,
    time_ms: u64,
    kind: &'a str,
    host: &'a str,
    sandbox: Option<&'a str>,
    payload: String,
    /// `purged`: the payload is the signed head of a batch, and nothing behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'static str>,
}

/// The data of a gap.
#[derive(Serialize)]
struct Missing {
    kind: &'static str,
    first: u64,
    last: u64,
    /// Why; nothing if it is not known.
    reasons: Vec<&'static str>,
    /// Of these, the first and the last that a restore withdrew.
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<[u64; 2]>,
}

/// What a stream begins with: something, so that the client knows at once that it is let in.
pub fn put_greeting(out: &mut Vec<u8>) {
    out.extend_from_slice(format!("retry: {RETRY_MS}\n\n").as_bytes());
}

/// A record, of this incarnation. Its id is its offset: who comes back with it goes on after it.
pub fn put_record(out: &mut Vec<u8>, record: &Record<'_>, incarnation: u64) {
    let kind = word(record.kind);
    let data = Data {
        offset: record.offset,
        incarnation,
        time_ms: record.time_ms,
        kind,
        host: record.host,
        sandbox: record.sandbox,
        payload: STANDARD.encode(record.payload),
        body: record.is_purged.then_some("purged"),
    };
    put_event(out, record.offset, kind, &data);
}

/// The records from `from` up to and not including `to` cannot be read any more, why, and which of them a restore withdrew. Who comes back
/// goes on behind them.
pub fn put_gap(
    out: &mut Vec<u8>,
    from: u64,
    to: u64,
    causes: Causes,
    withdrawn: Option<Withdrawn>,
) {
    let last = to.saturating_sub(1);
    let data = Missing {
        kind: GAP,
        first: from,
        last,
        reasons: causes.iter().map(Cause::word).collect(),
        withdrawn: withdrawn.map(|part| [part.from, part.to.saturating_sub(1)]),
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
            is_purged: false,
        };
        assert_eq!(
            text(|out| put_record(out, &record, 1)),
            "id: 7\nevent: event\ndata: {\"offset\":7,\"incarnation\":1,\"time_ms\":1764300000123,\"kind\":\"event\",\
             \"host\":\"edge-1\",\"sandbox\":\"build-7\",\"payload\":\"Cg0AIGFueSBieXRlcyD/\"}\n\n"
        );
        let report = Record {
            kind: RecordKind::Report,
            sandbox: None,
            payload: b"",
            ..record
        };
        let report = text(|out| put_record(out, &report, 2));
        assert!(report.contains("event: report\n"), "{report}");
        assert!(
            report.contains("\"sandbox\":null,\"payload\":\"\""),
            "{report}"
        );
    }

    #[test]
    fn a_gap_names_its_first_and_its_last_offset_and_its_id_is_the_last() {
        let causes = Causes::from(Cause::Age).with(Cause::Purge);
        assert_eq!(
            text(|out| put_gap(out, 3, 9, causes, None)),
            "id: 8\nevent: gap\ndata: {\"kind\":\"gap\",\"first\":3,\"last\":8,\"reasons\":[\"age\",\"purge\"]}\n\n"
        );
        let part = Withdrawn {
            from: 5,
            to: 9,
            by: 2,
        };
        assert_eq!(
            text(|out| put_gap(out, 3, 9, Causes::UNKNOWN, Some(part))),
            "id: 8\nevent: gap\ndata: {\"kind\":\"gap\",\"first\":3,\"last\":8,\"reasons\":[],\"withdrawn\":[5,8]}\n\n"
        );
    }

    #[test]
    fn a_purged_body_is_named() {
        let record = Record {
            offset: 7,
            time_ms: 1,
            kind: RecordKind::Event,
            host: "edge-1",
            sandbox: None,
            payload: b"head",
            is_purged: true,
        };
        let said = text(|out| put_record(out, &record, 1));
        assert!(said.contains(r#""body":"purged"}"#), "{said}");
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
