//! Rows of the audit trail, as the broker tells them. To be sure of them, export and verify.

use std::time::Duration;

use anyhow::Context as _;
use protocol::time::UnixMillis;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cli::{Context, client::is_unreachable, terminal::one_line, units},
    core::span::Moment,
    shell::clock,
};

/// The most rows that one question brings.
const PAGE_ROWS: u32 = 500;
/// How long to wait before asking for more: a row is older than this before anybody acts on it.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Which {
    /// Only what is called so; `host.*` is everything that starts with `host.`
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only what is about this host, HOST/SANDBOX, reader or key
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Only of this time or later: 2026-11-28T05:00:00Z, 2026-11-28, or 10m for so long ago
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// The first rows from this one on, and not the last
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
    /// How many rows at the most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ShowArgs {
    /// The row
    #[arg(value_name = "SEQ")]
    seq: u64,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct FollowArgs {
    #[command(flatten)]
    which: Which,
    /// Begin with this row: 0 for all of them [default: what is written from now on]
    #[arg(long, value_name = "SEQ")]
    from: Option<u64>,
}

/// A row.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) time_ms: u64,
    pub(super) name: String,
    pub(super) subject: String,
    pub(super) actor: String,
    /// JSON, as the text that was hashed.
    pub(super) fields: String,
    pub(super) prev: String,
    pub(super) hash: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    pub(super) next: u64,
}

impl Row {
    fn as_json(&self) -> Value {
        let fields = serde_json::from_str(&self.fields);
        json!({
            "seq": self.seq,
            "time": units::date(UnixMillis(self.time_ms)),
            "time_ms": self.time_ms,
            "name": self.name,
            "subject": self.subject,
            "actor": self.actor,
            "fields": fields.unwrap_or_else(|_| Value::String(self.fields.clone())),
            "hash": self.hash,
        })
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.seq.to_string(),
            units::date(UnixMillis(self.time_ms)),
            self.name.clone(),
            self.subject.clone(),
            self.actor.clone(),
            self.fields.clone(),
        ]
    }
}

/// Rows from `from` on, as many as one question brings.
pub(super) async fn page(
    context: &Context,
    from: u64,
    limit: u32,
    rest: &str,
) -> anyhow::Result<Page> {
    context
        .client
        .get(&format!("/v1/audit?from={from}&limit={limit}{rest}"))
        .await
        .context("read the audit trail")
}

impl Which {
    fn query(&self) -> String {
        let mut query = String::new();
        for (name, value) in [("name", &self.name), ("subject", &self.subject)] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", escape(value)));
            }
        }
        query
    }
}

/// Percent-encodes what is not plain in a query (RFC 3986 §2.3).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~*/:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

pub(super) async fn list(context: &Context, args: ListArgs) -> anyhow::Result<u8> {
    let now = clock::unix();
    let mut query = args.which.query();
    if let Some(since) = args.since {
        query.push_str(&format!("&since_ms={}", since.at(now).0));
    }
    if let Some(until) = args.until {
        query.push_str(&format!("&until_ms={}", until.at(now).0));
    }
    if args.from.is_none() {
        query.push_str("&newest=true");
    }
    let found = page(context, args.from.unwrap_or(0), args.limit, &query).await?;
    if context.output.is_json() {
        let rows: Vec<Value> = found.rows.iter().map(Row::as_json).collect();
        context.output.json(&rows)?;
        return Ok(0);
    }
    let rows: Vec<_> = found.rows.iter().map(Row::cells).collect();
    let header = ["SEQ", "TIME", "NAME", "SUBJECT", "ACTOR", "FIELDS"];
    context.output.table(&header, &rows)?;
    Ok(0)
}

pub(super) async fn show(context: &Context, args: &ShowArgs) -> anyhow::Result<u8> {
    let found = page(context, args.seq, 1, "").await?;
    let row = found
        .rows
        .first()
        .filter(|row| row.seq == args.seq)
        .with_context(|| {
            format!(
                "the audit trail has no row {}: see `outhaul audit list`",
                args.seq
            )
        })?;
    let openings: Openings = context
        .client
        .get(&format!(
            "/v1/audit/openings?from={}&to={}",
            args.seq,
            args.seq.saturating_add(1)
        ))
        .await
        .context("read the row's values")?;
    let mut value = row.as_json();
    if let Some(object) = value.as_object_mut() {
        object.insert("prev".to_owned(), row.prev.clone().into());
        object.insert("openings".to_owned(), json!(openings.openings));
    }
    if context.output.is_json() {
        context.output.json(&value)?;
        return Ok(0);
    }
    let text = serde_json::to_string_pretty(&value).context("show the row")?;
    context
        .output
        .text(&format!("{}\n", crate::cli::terminal::json_safe(&text)))?;
    Ok(0)
}

/// Values that rows commit to.
#[derive(Debug, Deserialize)]
pub(super) struct Openings {
    pub(super) openings: Vec<Value>,
}

/// Asks again and again: a broker that restarts is asked until it answers, from where it stopped.
pub(super) async fn follow(context: &Context, args: FollowArgs) -> anyhow::Result<u8> {
    let query = args.which.query();
    let mut from = args.from;
    let mut is_away = false;
    loop {
        let asked = match from {
            Some(from) => page(context, from, PAGE_ROWS, &query).await,
            // Nothing but where the trail ends.
            None => page(context, 0, 1, "&newest=true").await,
        };
        let found = match asked {
            Ok(found) => found,
            // From the start it is an error to say; later the broker restarts.
            Err(error) if from.is_some() && is_unreachable(&error) => {
                if !is_away {
                    context
                        .output
                        .remark("the broker is away; waiting for it")?;
                }
                is_away = true;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        is_away = false;
        if from.replace(found.next).is_none() {
            continue;
        }
        for row in &found.rows {
            if context.output.is_json() {
                context.output.json(&row.as_json())?;
            } else {
                let line = one_line(&row.cells().join("  "));
                context.output.text(&format!("{line}\n"))?;
            }
        }
        if found.rows.len() < PAGE_ROWS as usize {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_one_value_of_the_query() {
        let which = Which {
            name: Some("host.*".to_owned()),
            subject: Some("a b&c=d/e\u{e9}".to_owned()),
        };
        assert_eq!(which.query(), "&name=host.*&subject=a%20b%26c%3Dd/e%C3%A9");
    }
}
