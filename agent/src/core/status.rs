//! How the operator does, as it tells its owner: written to a file when something changes, read by `outhaul-agent status`.

use std::fmt::Write as _;

use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::time::Rfc3339;
use super::witness::{Kept, Stop, Witness};

/// The longest status file that is read, in bytes: 256 sandboxes, 128 dispatchers, three notes.
pub const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// The version of the file.
pub const VERSION: u64 = 1;

/// How the operator does. Times are the broker's, in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u64,
    /// The operator's version.
    pub operator: String,
    /// This host.
    pub host: String,
    /// The broker, `name:port`.
    pub broker: String,
    /// Since when this operator runs.
    pub started_ms: UnixMillis,
    /// Its connection.
    pub connection: Connection,
    /// The generation of the host's key; 0 before it is enrolled.
    pub generation: u64,
    /// The life of its token.
    pub token: Option<Life>,
    /// Why there is no fresh token, if one was asked for and did not come; with what to do.
    pub token_trouble: Option<String>,
    /// How far the host's clock is ahead of the broker's, in milliseconds.
    pub skew_ms: i64,
    /// Whether the engine answers.
    pub engine: bool,
    /// What runs here, or is about to.
    pub sandboxes: Vec<String>,
    /// Whom this host obeys.
    pub dispatchers: Vec<String>,
    /// What it makes of the broker's audit trail.
    pub witness: Witnessed,
}

/// Whether there is a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Whether it is up.
    pub connected: bool,
    /// Since when it is as it is.
    pub since_ms: UnixMillis,
    /// Why it is not up.
    pub why: Option<String>,
}

/// A token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// When it was issued: the last renewal.
    pub issued_ms: UnixMillis,
    /// When it ends.
    pub expires_ms: UnixMillis,
}

/// A checkpoint, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Rows.
    pub size: u64,
    /// The key of the trail.
    pub vkey: String,
    /// The signed note.
    pub note: String,
}

/// What the witness has to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnessed {
    /// The last checkpoint that went on from all before.
    pub kept: Option<Shown>,
    /// What other hosts cosigned, as the broker showed it last: name and rows.
    pub others: Vec<(String, u64)>,
    /// Why this host obeys nobody.
    pub stopped: Option<Stopped>,
}

/// Why the witness stopped this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// In a word.
    pub reason: String,
    /// For a person.
    pub text: String,
    /// Since when.
    pub since_ms: UnixMillis,
    /// What the broker showed.
    pub shown: Shown,
    /// What another host had seen: its name, and the signed note.
    pub other: Option<(String, String)>,
}

/// How a host does, in a word and an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Connected, and obeys its dispatchers.
    Well,
    /// The operator runs, and has no connection.
    NotConnected,
    /// No operator runs.
    NotRunning,
    /// The operator runs, and its witness stopped it.
    Stopped,
}

impl Verdict {
    /// What is so.
    #[must_use]
    pub fn of(status: Option<&Status>, is_running: bool) -> Self {
        match status {
            Some(status) if is_running => {
                if status.witness.stopped.is_some() {
                    Self::Stopped
                } else if status.connection.connected {
                    Self::Well
                } else {
                    Self::NotConnected
                }
            }
            // It holds its lock a moment before it says how it does.
            None if is_running => Self::NotConnected,
            Some(_) | None => Self::NotRunning,
        }
    }

    /// The exit code of `status`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::NotConnected => 3,
            Self::NotRunning => 4,
            Self::Stopped => 5,
        }
    }

    /// In a word, for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Well => "connected",
            Self::NotConnected => "not_connected",
            Self::NotRunning => "not_running",
            Self::Stopped => "stopped_by_witness",
        }
    }
}

impl Witnessed {
    /// What this witness has to say.
    #[must_use]
    pub fn of(witness: &Witness, others: &[(String, u64)]) -> Self {
        Self {
            kept: witness.kept.as_ref().map(shown),
            others: others.to_vec(),
            stopped: witness.stop.as_ref().map(stopped),
        }
    }
}

fn shown(kept: &Kept) -> Shown {
    Shown {
        size: kept.checkpoint().size(),
        vkey: kept.vkey.to_string(),
        note: kept.note.to_string(),
    }
}

fn stopped(stop: &Stop) -> Stopped {
    Stopped {
        reason: stop.why.word().to_owned(),
        text: stop.why.text().to_owned(),
        since_ms: stop.since,
        shown: shown(&stop.offered),
        other: stop
            .other
            .as_ref()
            .map(|other| (other.name.clone(), other.note.to_string())),
    }
}

/// The status for a person. `status` is what the operator said last, whether or not it still runs.
#[must_use]
pub fn text(status: Option<&Status>, is_running: bool) -> String {
    let mut text = String::new();
    let verdict = Verdict::of(status, is_running);
    let Some(status) = status else {
        return match verdict {
            Verdict::NotConnected => "operator    it is starting\n".to_owned(),
            Verdict::Well | Verdict::NotRunning | Verdict::Stopped => {
                "operator    not running: start it with `outhaul-agent run`\n".to_owned()
            }
        };
    };
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    if verdict == Verdict::NotRunning {
        row(
            "operator",
            "NOT RUNNING: start it with `outhaul-agent run`. This is what it said last:".to_owned(),
        );
    }
    let at = |time: UnixMillis| Rfc3339(time).to_string();
    row(
        "host",
        format!("{}, key generation {}", status.host, status.generation),
    );
    row("broker", status.broker.clone());
    let connection = &status.connection;
    let since = at(connection.since_ms);
    row(
        "connection",
        match (connection.connected, &connection.why) {
            (true, _) => format!("up since {since}"),
            (false, Some(why)) => format!("DOWN since {since}: {why}"),
            (false, None) => format!("not up yet, since {since}"),
        },
    );
    row(
        "token",
        match &status.token {
            Some(life) => format!(
                "issued {}, ends {}",
                at(life.issued_ms),
                at(life.expires_ms)
            ),
            None => "none".to_owned(),
        },
    );
    if let Some(trouble) = &status.token_trouble {
        row("", format!("no fresh one: {trouble}"));
    }
    row("clock", clock(status.skew_ms));
    let engine = if status.engine {
        "answers"
    } else {
        "does not answer: no sandbox can be started"
    };
    row("engine", engine.to_owned());
    let names = status.sandboxes.join(" ");
    row(
        "sandboxes",
        format!("{} {names}", status.sandboxes.len())
            .trim_end()
            .to_owned(),
    );
    let obeyed = if status.dispatchers.is_empty() {
        "nobody".to_owned()
    } else {
        status.dispatchers.join(" ")
    };
    row("obeys", obeyed);
    for (name, value) in witness_rows(&status.witness) {
        row(name, value);
    }
    row(
        "version",
        format!(
            "{}, running since {}",
            status.operator,
            at(status.started_ms)
        ),
    );
    text
}

fn clock(skew_ms: i64) -> String {
    match skew_ms {
        0 => "as the broker's".to_owned(),
        1.. => format!("{skew_ms} ms ahead of the broker's"),
        _ => format!("{} ms behind the broker's", skew_ms.unsigned_abs()),
    }
}

/// What the witness says, as rows of a table.
#[must_use]
pub fn witness_rows(witness: &Witnessed) -> Vec<(&'static str, String)> {
    let rows = |shown: &Shown| format!("{} rows, root {}", shown.size, root(&shown.note));
    let kept = witness
        .kept
        .as_ref()
        .map_or_else(|| "nothing".to_owned(), rows);
    let Some(stopped) = &witness.stopped else {
        let seen: Vec<_> = witness
            .others
            .iter()
            .map(|(name, size)| format!("{name} ({size} rows)"))
            .collect();
        let others = if seen.is_empty() {
            "no other host was shown".to_owned()
        } else {
            format!("in accord with {}", seen.join(", "))
        };
        return vec![("witness", format!("keeps {kept}; {others}"))];
    };
    let mut table = vec![
        (
            "witness",
            format!(
                "STOPPED since {}: {}",
                Rfc3339(stopped.since_ms),
                stopped.text
            ),
        ),
        ("", format!("this host has seen {kept}")),
        ("", format!("the broker shows   {}", rows(&stopped.shown))),
    ];
    if let Some((name, note)) = &stopped.other {
        let size = note.lines().nth(1).unwrap_or_default();
        table.push((
            "",
            format!("{name} has seen {size} rows, root {}", root(note)),
        ));
    }
    table.push((
        "",
        "no command is obeyed; to go on from what the broker shows: `outhaul-agent accept-restore`"
            .to_owned(),
    ));
    table
}

/// The root that a note names: its third line.
fn root(note: &str) -> &str {
    note.lines().nth(2).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "b/audit\n7\nAAAA\n\n\u{2014} b/audit AAAA\n";

    fn shown(size: u64) -> Shown {
        Shown {
            size,
            vkey: "b/audit+01+AA".into(),
            note: NOTE.into(),
        }
    }

    fn status() -> Status {
        Status {
            version: VERSION,
            operator: "0.1.0".into(),
            host: "edge-1".into(),
            broker: "broker:8443".into(),
            started_ms: UnixMillis(0),
            connection: Connection {
                connected: true,
                since_ms: UnixMillis(1000),
                why: None,
            },
            generation: 3,
            token: Some(Life {
                issued_ms: UnixMillis(0),
                expires_ms: UnixMillis(3_600_000),
            }),
            token_trouble: None,
            skew_ms: -12,
            engine: true,
            sandboxes: vec!["build-7".into()],
            dispatchers: vec!["ohd1_x".into()],
            witness: Witnessed {
                kept: Some(shown(7)),
                others: vec![("edge-2".into(), 5)],
                stopped: None,
            },
        }
    }

    fn stopped() -> Status {
        let mut status = status();
        status.witness.stopped = Some(Stopped {
            reason: "behind".into(),
            text: "rows are gone".into(),
            since_ms: UnixMillis(0),
            shown: shown(5),
            other: Some(("edge-2".into(), NOTE.into())),
        });
        status
    }

    #[test]
    fn every_state_has_its_word_and_its_exit_code() {
        let (well, stopped) = (status(), stopped());
        let mut down = status();
        down.connection = Connection {
            connected: false,
            since_ms: UnixMillis(0),
            why: Some("refused".into()),
        };
        for (status, is_running, expected, code) in [
            (Some(&well), true, Verdict::Well, 0),
            (Some(&down), true, Verdict::NotConnected, 3),
            (None, true, Verdict::NotConnected, 3),
            (Some(&well), false, Verdict::NotRunning, 4),
            (Some(&stopped), false, Verdict::NotRunning, 4),
            (None, false, Verdict::NotRunning, 4),
            (Some(&stopped), true, Verdict::Stopped, 5),
        ] {
            let verdict = Verdict::of(status, is_running);
            assert_eq!((verdict, verdict.exit_code()), (expected, code));
        }
        assert!(text(Some(&down), true).contains("DOWN since 1970-01-01T00:00:00.000Z: refused"));
        assert!(text(Some(&well), false).starts_with("operator    NOT RUNNING"));
        assert!(text(None, false).contains("not running"));
    }

    #[test]
    fn a_stopped_witness_shows_both_trails_and_what_to_do() {
        let text = text(Some(&stopped()), true);
        for part in [
            "STOPPED",
            "has seen 7 rows",
            "shows   5 rows",
            "edge-2 has seen 7 rows",
            "accept-restore",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_status_is_read_as_it_was_written_and_the_largest_fits_its_file() {
        for one in [status(), stopped()] {
            let json = serde_json::to_vec(&one).unwrap();
            assert_eq!(serde_json::from_slice::<Status>(&json).unwrap(), one);
        }
        let mut large = stopped();
        large.sandboxes = vec!["s".repeat(64); protocol::limits::REPORT_SANDBOXES_MAX];
        large.dispatchers = vec!["d".repeat(70); 2 * protocol::limits::DISPATCHERS_MAX];
        let length = serde_json::to_vec(&large).unwrap().len();
        assert!(
            u64::try_from(length + 8 * 1024).unwrap() < STATUS_BYTES_MAX,
            "{length}"
        );
    }
}
