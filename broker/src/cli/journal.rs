//! `outhaul journal`: what the broker keeps, what it dropped and why, and purging what sandboxes said.

use anyhow::Context as _;
use protocol::{
    id::{HostId, SandboxId},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Context, units};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum JournalCommand {
    /// Show what the journal keeps of each host, its limits, and what it dropped
    ///
    /// Limits are set in [journal] of broker.toml, or by `outhaul serve --journal-keep-days` and its like.
    #[command(after_help = "Examples:\n  outhaul journal show\n  outhaul journal show --json")]
    Show,
    /// Purge what sandboxes said: the bodies of their events go, for good
    ///
    /// The signed heads stay: what is left still shows how many events there were, when, in which order, and that none is missing. Every
    /// reader is told that the body was purged. What the host forwarded for a sandbox that had ended goes with it. Commands and other
    /// reports stay. When it returns, the bytes are gone from the journal's files; copies elsewhere, and backups, are yours to look
    /// after. It is in the audit trail.
    #[command(
        after_help = "Examples:\n  outhaul journal purge --host edge-1 --sandbox build-7 --yes\n  outhaul journal purge --host edge-1 --older-than 30d --yes"
    )]
    Purge(PurgeArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct PurgeArgs {
    /// Of this host
    #[arg(long, value_name = "HOST")]
    host: HostId,
    /// Of this sandbox only
    #[arg(long, value_name = "SANDBOX")]
    sandbox: Option<SandboxId>,
    /// Only what the broker took so long ago, or longer: 90s, 12h, 30d
    #[arg(long, value_name = "AGE", value_parser = units::parse_duration)]
    older_than: Option<std::time::Duration>,
    /// Only what the broker took before this time, in milliseconds since 1970
    #[arg(long, value_name = "MS", conflicts_with = "older_than")]
    before_ms: Option<u64>,
    /// Do it
    #[arg(long, required = true)]
    yes: bool,
}

#[derive(Debug, Deserialize)]
struct Shown {
    limits: Limits,
    oldest_offset: u64,
    next_offset: u64,
    oldest_ms: Option<u64>,
    newest_ms: Option<u64>,
    bytes: u64,
    segments: Vec<Segment>,
    hosts: Vec<HostBytes>,
    dropped: Vec<Dropped>,
}

#[derive(Debug, Deserialize)]
struct Limits {
    age_ms: Option<u64>,
    bytes: Option<u64>,
    host_bytes: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Segment {
    damaged: bool,
}

#[derive(Debug, Deserialize)]
struct HostBytes {
    host: String,
    records: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Dropped {
    host: String,
    reason: String,
    from_offset: u64,
    to_offset: u64,
    first_ms: u64,
    last_ms: u64,
    records: u64,
    bytes: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Purged {
    records: u64,
    bytes: u64,
    damaged: Vec<Damaged>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Damaged {
    first_offset: u64,
    end_offset: u64,
}

pub(super) async fn execute(context: &Context, command: JournalCommand) -> anyhow::Result<u8> {
    match command {
        JournalCommand::Show => show(context).await,
        JournalCommand::Purge(args) => purge(context, &args).await,
    }
}

async fn show(context: &Context) -> anyhow::Result<u8> {
    let shown: Value = context
        .client
        .get("/v1/journal")
        .await
        .context("ask for the journal")?;
    if context.output.is_json() {
        context.output.json(&shown)?;
        return Ok(0);
    }
    let shown: Shown = serde_json::from_value(shown).context("read the broker's answer")?;
    let rows = |rows: &[(&str, String)]| -> String {
        rows.iter()
            .map(|(name, value)| format!("{name:<9} {value}\n"))
            .collect()
    };
    context
        .output
        .text(&rows(&summary(&shown, clock::unix())))?;
    if !shown.hosts.is_empty() {
        context.output.text("\n")?;
        let hosts: Vec<_> = shown.hosts.iter().map(host_row).collect();
        context.output.table(&["HOST", "RECORDS", "KEPT"], &hosts)?;
    }
    if !shown.dropped.is_empty() {
        context.output.text("\n")?;
        let dropped: Vec<_> = shown.dropped.iter().map(dropped_row).collect();
        let header = [
            "HOST",
            "DROPPED FOR",
            "RECORDS",
            "BYTES",
            "FROM",
            "TO",
            "WITHIN OFFSETS",
        ];
        context.output.table(&header, &dropped)?;
    }
    Ok(0)
}

fn summary(shown: &Shown, now: UnixMillis) -> Vec<(&'static str, String)> {
    let date = |ms: Option<u64>| match ms {
        Some(ms) => format!("{} ({})", units::date(UnixMillis(ms)), units::ago(ms, now)),
        None => "-".to_owned(),
    };
    let limit = |bytes: Option<u64>| bytes.map_or_else(|| "no limit".to_owned(), units::bytes);
    let Limits {
        age_ms,
        bytes,
        host_bytes,
    } = shown.limits;
    let days = age_ms.map_or_else(
        || "no limit".to_owned(),
        |ms| format!("{} days", ms / 86_400_000),
    );
    let mut rows = vec![
        (
            "kept",
            format!(
                "{} in {} files",
                units::bytes(shown.bytes),
                shown.segments.len()
            ),
        ),
        (
            "limits",
            format!(
                "{days}; {} in all; {} for each host",
                limit(bytes),
                limit(host_bytes)
            ),
        ),
        (
            "offsets",
            format!("{} to {}", shown.oldest_offset, shown.next_offset),
        ),
        ("oldest", date(shown.oldest_ms)),
        ("newest", date(shown.newest_ms)),
    ];
    let damaged = shown
        .segments
        .iter()
        .filter(|segment| segment.damaged)
        .count();
    if damaged > 0 {
        rows.push((
            "damaged",
            format!("{damaged} files cannot be read to their end"),
        ));
    }
    rows
}

fn host_row(host: &HostBytes) -> Vec<String> {
    vec![
        host.host.clone(),
        host.records.to_string(),
        units::bytes(host.bytes),
    ]
}

fn dropped_row(row: &Dropped) -> Vec<String> {
    let host = if row.host.is_empty() {
        "(unreadable)"
    } else {
        &row.host
    };
    let reason = match row.reason.as_str() {
        "age" => "its age",
        "bytes" => "all hosts' bytes",
        "host" => "its host's bytes",
        "purge" => "a purge",
        other => other,
    };
    vec![
        host.to_owned(),
        reason.to_owned(),
        row.records.to_string(),
        units::bytes(row.bytes),
        units::date(UnixMillis(row.first_ms)),
        units::date(UnixMillis(row.last_ms)),
        format!("{}-{}", row.from_offset, row.to_offset.saturating_sub(1)),
    ]
}

async fn purge(context: &Context, args: &PurgeArgs) -> anyhow::Result<u8> {
    let before_ms = match (args.before_ms, args.older_than) {
        (None, Some(age)) => {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Some(clock::unix().0.saturating_sub(age_ms))
        }
        (before_ms, _) => before_ms,
    };
    let request = json!({ "host": args.host, "sandbox": args.sandbox, "before_ms": before_ms });
    let purged: Purged = context
        .client
        .post("/v1/journal/purge", &request)
        .await
        .with_context(|| format!("purge events of host {}", args.host))?;
    if context.output.is_json() {
        context.output.json(&purged)?;
    } else {
        let bytes = units::bytes(purged.bytes);
        context
            .output
            .text(&format!("purged {} records ({bytes})\n", purged.records))?;
    }
    for Damaged {
        first_offset,
        end_offset,
    } in &purged.damaged
    {
        context.output.remark(&format!(
            "warning: records {first_offset} to {} are in a damaged file, which was not touched: bodies in it stay until it is too old",
            end_offset.saturating_sub(1)
        ))?;
    }
    Ok(u8::from(!purged.damaged.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_says_limits_ages_and_reasons_in_words() {
        let answer = json!({
            "limits": { "age_ms": 30 * 86_400_000_u64, "bytes": 16_u64 << 30, "host_bytes": null },
            "oldest_offset": 7, "next_offset": 90, "oldest_ms": 1_800_000_000_000_u64, "newest_ms": null, "bytes": 2048,
            "segments": [{ "damaged": true }, { "damaged": false }],
            "hosts": [{ "host": "edge-1", "records": 83, "bytes": 1024 }],
            "dropped": [{
                "host": "", "reason": "age", "from_offset": 0, "to_offset": 7, "first_ms": 0, "last_ms": 1,
                "records": 7, "bytes": 512, "dropped_ms": 5,
            }],
        });
        let shown: Shown = serde_json::from_value(answer).unwrap();
        let rows = summary(&shown, UnixMillis(1_800_000_060_000));
        let text: String = rows
            .iter()
            .map(|(name, value)| format!("{name}={value};"))
            .collect();
        for part in [
            "30 days; 16.0 GiB in all; no limit for each host",
            "offsets=7 to 90",
            "oldest=2027-01-15",
            "newest=-",
            "1 files cannot be read",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let row = dropped_row(&shown.dropped[0]);
        assert_eq!(
            (row[0].as_str(), row[1].as_str(), row[6].as_str()),
            ("(unreadable)", "its age", "0-6")
        );
    }
}
