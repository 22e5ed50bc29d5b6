//! Verified lines as text: a sandbox's own output, a listing, or JSON.

use crate::core::incarnation::Withdrawn;
use protocol::{
    event::Kind,
    hole::{Cause, Hole},
    id::{HostId, SandboxId},
    report::{News, State},
};
use serde_json::{Value, json};

use super::{
    terminal::{json_safe, one_line, visible},
    units,
    verify::{Line, Told, What, short},
    watch::reason_text,
};

/// Which of our outputs a person looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terminals {
    /// Standard output is a terminal.
    pub(crate) stdout: bool,
    /// Standard error is a terminal.
    pub(crate) stderr: bool,
}

/// What goes where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    /// To standard output.
    pub(crate) stdout: Vec<u8>,
    /// To standard error.
    pub(crate) stderr: Vec<u8>,
}

/// A line of one sandbox that is followed: its output as its own, everything else as a remark on standard error.
pub(crate) fn plain(line: &Line, terminals: Terminals) -> Piece {
    let mut piece = Piece::default();
    match &line.what {
        What::Event(told) => match told.kind {
            Kind::Stdout => piece.stdout = output(told, terminals.stdout),
            Kind::Stderr => piece.stderr = output(told, terminals.stderr),
            Kind::Gap => piece.stderr = remark(&format!("warning: {}", dropped(told))),
            Kind::Started | Kind::Progress | Kind::Exited | Kind::Other(_) => {}
        },
        What::Unverified(why) => {
            piece.stderr = remark(&format!("WARNING: not verified, not shown: {why}"));
        }
        What::Distrusted(why) => piece.stderr = remark(&format!("WARNING: {why}")),
        What::Missing(hole) => piece.stderr = remark(&format!("warning: {}", missing(*hole))),
        What::Purged { events } => piece.stderr = remark(&purged(*events)),
        What::Withdrawn(part) => piece.stderr = remark(&format!("warning: {}", withdrawn(*part))),
        What::Note(note) => piece.stderr = remark(note),
        What::Report(News::Refused(refused)) => {
            let why = reason_text(refused.reason, &refused.detail);
            piece.stderr = remark(&format!("{} was refused: {why}", refused.sandbox));
        }
        What::Report(_) | What::Asked { .. } => {}
    }
    piece
}

/// A message of our own.
pub(crate) fn remark(text: &str) -> Vec<u8> {
    format!("outhaul: {text}\n").into_bytes()
}

fn output(told: &Told, is_terminal: bool) -> Vec<u8> {
    if told.withheld {
        return Vec::new();
    }
    let mut bytes = if is_terminal {
        visible(&told.data).into_bytes()
    } else {
        told.data.clone()
    };
    if !told.continued && told.data.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    bytes
}

fn dropped(told: &Told) -> String {
    format!(
        "{} events ({}) were dropped in the sandbox, since its spool was full",
        told.value,
        units::bytes(told.size)
    )
}

/// A line of a listing: when, whose, what.
pub(crate) fn listed(line: &Line) -> String {
    let host = line.host.as_ref().map_or("-", HostId::as_str);
    let place = match &line.sandbox {
        Some(sandbox) => format!("{host}/{sandbox}"),
        None => host.to_owned(),
    };
    let (word, text) = words(line);
    let text = if text.is_empty() {
        text
    } else {
        format!("  {text}")
    };
    // A gap has no time of its own.
    let time = if line.time.0 == 0 {
        "-".to_owned()
    } else {
        units::date(line.time)
    };
    format!("{time}  {place}  {word}{text}\n")
}

fn words(line: &Line) -> (&'static str, String) {
    match &line.what {
        What::Event(told) => (told.kind.word(), event_text(told)),
        What::Report(news) => (news.word(), news_text(news)),
        What::Asked { order, signer } => ("asked", format!("{order} by {}", short(signer))),
        What::Unverified(why) => ("WARNING", format!("not verified, not shown: {why}")),
        What::Distrusted(why) => ("WARNING", why.clone()),
        What::Missing(hole) => ("warning", missing(*hole)),
        What::Purged { events } => ("purged", purged(*events)),
        What::Withdrawn(part) => ("warning", withdrawn(*part)),
        What::Note(note) => ("note", note.clone()),
    }
}

fn purged(events: u64) -> String {
    format!("the body of a batch of {events} events was purged by the broker's owner")
}

/// By the broker's own word.
fn missing(hole: Option<Hole>) -> String {
    let Some(Hole { to, causes }) = hole else {
        return "records are missing from the journal".to_owned();
    };
    let reasons: Vec<&str> = causes
        .iter()
        .map(|cause| match cause {
            Cause::Damage => "damaged",
            Cause::Age => "removed for their age",
            Cause::Bytes => "removed for the bytes of all hosts",
            Cause::Host => "removed for their host's bytes",
            Cause::Purge => "purged",
        })
        .collect();
    let reasons = if reasons.is_empty() {
        "it is not known why".to_owned()
    } else {
        reasons.join("; ")
    };
    format!("records before {to} are missing from the journal: {reasons}")
}

fn event_text(told: &Told) -> String {
    match told.kind {
        Kind::Started => String::new(),
        Kind::Stdout | Kind::Stderr if told.withheld => {
            format!("({} stay on the host)", units::bytes(told.size))
        }
        Kind::Stdout | Kind::Stderr | Kind::Progress => {
            one_line(String::from_utf8_lossy(&told.data).trim_end_matches(['\n', '\r']))
        }
        Kind::Exited => format!("code {}", told.value),
        Kind::Gap => dropped(told),
        Kind::Other(label) => newer("kind of event", label),
    }
}

/// What a restore took back, in words.
fn withdrawn(part: Withdrawn) -> String {
    format!(
        "the broker was restored from a backup: the offsets {} to {} are withdrawn by incarnation {}, and what they held is gone",
        part.from,
        part.to.saturating_sub(1),
        part.by
    )
}

/// What a newer program than this one said, in words.
fn newer(what: &str, label: u64) -> String {
    format!("({what} {label}, which this version does not know)")
}

fn news_text(news: &News) -> String {
    match news {
        News::Refused(refused) => reason_text(refused.reason, &refused.detail),
        News::Launched(launched) => {
            format!(
                "image {} content {}",
                one_line(&launched.image),
                launched.content
            )
        }
        News::Ended(ended) => {
            let code = ended
                .exit_code
                .map_or_else(String::new, |code| format!(" code {code}"));
            let why = ended.reason.map_or_else(String::new, |reason| {
                format!(" ({})", reason_text(reason, &ended.detail))
            });
            format!("{}{code}{why}", ended.state)
        }
        News::Stopped(_) | News::Forwarded(_) => String::new(),
        News::Other(label) => newer("report", *label),
        News::Status(status) => {
            let running = status
                .sandboxes
                .iter()
                .filter(|sighting| sighting.state == State::Running)
                .count();
            format!(
                "operator {} generation {} engine {} running {running}",
                one_line(&status.version),
                status.generation,
                if status.engine { "up" } else { "down" },
            )
        }
    }
}

/// A line as one JSON object.
pub(crate) fn json(line: &Line) -> String {
    let mut object = match &line.what {
        What::Event(told) => event_json(told),
        What::Report(news) => news_json(news),
        What::Asked { order, signer } => {
            json!({ "type": "asked", "order": order, "signer": signer.to_string() })
        }
        What::Unverified(why) => json!({ "type": "unverified", "reason": why.to_string() }),
        What::Distrusted(why) => json!({ "type": "distrusted", "reason": why }),
        What::Missing(hole) => json!({
            "type": "missing",
            "to_offset": hole.map(|hole| hole.to),
            "reasons": hole.map_or_else(Vec::new, |hole| hole.causes.iter().map(Cause::word).collect()),
        }),
        What::Purged { events } => json!({ "type": "purged", "events": events }),
        What::Withdrawn(part) => json!({
            "type": "withdrawn", "from": part.from, "to": part.to.saturating_sub(1), "by_incarnation": part.by,
        }),
        What::Note(note) => json!({ "type": "note", "text": note }),
    };
    if let Some(object) = object.as_object_mut() {
        object.insert("offset".to_owned(), line.offset.into());
        if line.incarnation > 0 {
            object.insert("incarnation".to_owned(), line.incarnation.into());
        }
        object.insert("time_ms".to_owned(), line.time.0.into());
        let host = line.host.as_ref().map(HostId::as_str);
        object.insert("host".to_owned(), host.into());
        let sandbox = line.sandbox.as_ref().map(SandboxId::as_str);
        object.insert("sandbox".to_owned(), sandbox.into());
    }
    format!("{}\n", json_safe(&object.to_string()))
}

fn event_json(told: &Told) -> Value {
    let kind = told.kind.word();
    match told.kind {
        Kind::Started => json!({ "type": kind }),
        Kind::Stdout | Kind::Stderr => match std::str::from_utf8(&told.data) {
            Ok(text) => {
                json!({ "type": kind, "data": text, "bytes": told.size, "continued": told.continued, "withheld": told.withheld })
            }
            Err(_) => {
                let digits = protocol::id::hex(&told.data);
                json!({ "type": kind, "data_hex": digits, "bytes": told.size, "continued": told.continued, "withheld": told.withheld })
            }
        },
        Kind::Progress => json!({
            "type": kind,
            "progress": serde_json::from_slice::<Value>(&told.data).unwrap_or(Value::Null),
        }),
        Kind::Exited => json!({ "type": kind, "code": told.value }),
        Kind::Gap => json!({ "type": kind, "events": told.value, "bytes": told.size }),
        Kind::Other(label) => json!({ "type": kind, "label": label }),
    }
}

fn news_json(news: &News) -> Value {
    let kind = news.word();
    match news {
        News::Refused(refused) => json!({
            "type": kind, "command": refused.command.to_string(),
            "reason": refused.reason.word(), "detail": refused.detail,
        }),
        News::Launched(launched) => json!({
            "type": kind, "command": launched.command.to_string(), "key": launched.key.to_string(),
            "image": launched.image, "container": launched.container, "content": launched.content.word(),
        }),
        News::Ended(ended) => json!({
            "type": kind, "command": ended.command.map(|command| command.to_string()), "state": ended.state.word(),
            "exit_code": ended.exit_code, "reason": ended.reason.map(|reason| reason.word()), "detail": ended.detail,
        }),
        News::Stopped(stopped) => json!({ "type": kind, "command": stopped.command.to_string() }),
        News::Forwarded(_) => json!({ "type": kind }),
        News::Other(label) => json!({ "type": kind, "label": label }),
        News::Status(status) => {
            let sandboxes: Vec<Value> = status
                .sandboxes
                .iter()
                .map(|seen| json!({ "sandbox": seen.sandbox.as_str(), "state": seen.state.word() }))
                .collect();
            json!({
                "type": kind, "generation": status.generation, "version": status.version,
                "engine": status.engine, "sandboxes": sandboxes,
            })
        }
    }
}

/// How far a sandbox says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Steps done and steps in all, if it counts them.
    pub(crate) steps: Option<(u64, u64)>,
    /// In words, safe to show.
    pub(crate) message: String,
}

/// Reads a progress event: an object with `done` (or `current`), `total` and `message`, each of which may be missing.
pub(crate) fn progress(data: &[u8]) -> Option<Progress> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let number = |names: &[&str]| names.iter().find_map(|name| value.get(name)?.as_u64());
    let total = number(&["total"]).filter(|total| *total > 0);
    let message = value.get("message").and_then(Value::as_str).unwrap_or("");
    Some(Progress {
        steps: number(&["done", "current"])
            .zip(total)
            .map(|(done, total)| (done.min(total), total)),
        message: one_line(message),
    })
}

#[cfg(test)]
mod tests {
    use super::super::verify::{
        Unverified,
        tests::{TIME, ended_news, host, sandbox},
    };
    use super::*;
    use protocol::report::Reason;

    const FILES: Terminals = Terminals {
        stdout: false,
        stderr: false,
    };
    const SCREEN: Terminals = Terminals {
        stdout: true,
        stderr: true,
    };

    fn line(what: What) -> Line {
        Line {
            offset: 7,
            incarnation: 0,
            time: TIME,
            host: Some(host()),
            sandbox: Some(sandbox()),
            what,
        }
    }

    fn told(kind: Kind, data: &[u8]) -> Told {
        Told {
            kind,
            continued: false,
            size: data.len() as u64,
            value: 0,
            data: data.to_vec(),
            withheld: false,
        }
    }

    #[test]
    fn output_goes_where_the_sandbox_sent_it() {
        let out = plain(&line(What::Event(told(Kind::Stdout, b"a"))), FILES);
        assert_eq!((&out.stdout[..], &out.stderr[..]), (&b"a\n"[..], &b""[..]));
        let err = plain(&line(What::Event(told(Kind::Stderr, b"b"))), FILES);
        assert_eq!((&err.stdout[..], &err.stderr[..]), (&b""[..], &b"b\n"[..]));
    }

    #[test]
    fn bytes_are_raw_in_a_file_and_tame_on_a_screen() {
        let wild = line(What::Event(told(Kind::Stdout, b"\x1b[2J\xff")));
        assert_eq!(plain(&wild, FILES).stdout, b"\x1b[2J\xff\n");
        assert_eq!(plain(&wild, SCREEN).stdout, b"^[[2J\\xff\n");
    }

    #[test]
    fn each_line_ends_once() {
        let text = |told: Told| plain(&line(What::Event(told)), FILES).stdout;
        assert_eq!(text(told(Kind::Stdout, b"a\n")), b"a\n");
        assert_eq!(text(told(Kind::Stdout, b"")), b"\n", "an empty line");
        let part = Told {
            continued: true,
            ..told(Kind::Stdout, b"half")
        };
        assert_eq!(text(part), b"half");
    }

    #[test]
    fn what_stays_on_the_host_prints_nothing() {
        let withheld = Told {
            size: 100,
            withheld: true,
            ..told(Kind::Stdout, b"")
        };
        assert_eq!(
            plain(&line(What::Event(withheld.clone())), FILES),
            Piece::default()
        );
        assert!(
            listed(&line(What::Event(withheld))).ends_with("stdout  (100 B stay on the host)\n")
        );
    }

    #[test]
    fn what_does_not_verify_is_a_warning_with_its_reason() {
        let bad = line(What::Unverified(Unverified::NoKey));
        let text = String::from_utf8(plain(&bad, FILES).stderr).unwrap();
        assert!(
            text.starts_with("outhaul: WARNING: not verified, not shown: events:"),
            "{text}"
        );
        assert!(json(&bad).contains("\"type\":\"unverified\""));
    }

    #[test]
    fn a_listing_says_when_whose_and_what() {
        let ended = line(What::Report(ended_news(Some(137), Some(Reason::OomKilled))));
        assert_eq!(
            listed(&ended),
            "2027-01-15T08:00:00.000Z  edge-1/build-7  ended  failed code 137 (oom_killed)\n"
        );
        let two = line(What::Event(told(Kind::Stdout, b"a\nb\x1b[31m")));
        assert!(listed(&two).ends_with("stdout  a b^[[31m\n"));
    }

    #[test]
    fn json_is_one_object_on_one_line() {
        let read = |what| -> Value {
            let text = json(&line(what));
            assert_eq!(text.matches('\n').count(), 1);
            serde_json::from_str(&text).unwrap()
        };
        let event = read(What::Event(told(Kind::Stdout, b"a\n")));
        assert_eq!(event["data"], "a\n");
        assert_eq!(
            (&event["host"], &event["offset"]),
            (&json!("edge-1"), &json!(7))
        );
        assert_eq!(
            read(What::Event(told(Kind::Stderr, b"\xff")))["data_hex"],
            "ff"
        );
        assert_eq!(
            read(What::Report(ended_news(Some(3), None)))["exit_code"],
            3
        );
    }

    #[test]
    fn progress_is_read_from_whatever_is_there() {
        assert_eq!(
            progress(br#"{"done":3,"total":10,"message":"tests"}"#),
            Some(Progress {
                steps: Some((3, 10)),
                message: "tests".into()
            })
        );
        assert_eq!(
            progress(br#"{"current":12,"total":10}"#).unwrap().steps,
            Some((10, 10))
        );
        assert_eq!(progress(br#"{"total":0,"done":0}"#).unwrap().steps, None);
        assert_eq!(
            progress("{\"message\":\"\u{9b}2J\"}".as_bytes())
                .unwrap()
                .message,
            "\\u{9b}2J"
        );
        assert_eq!(progress(b"not json"), None);
    }
}
