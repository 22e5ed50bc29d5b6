//! `outhaul key`: the keys that last, what each signs, and how the broker's own are followed by the next.

use anyhow::Context as _;
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Context, api, units};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyCommand {
    /// List the keys that last: whose they are, what they sign, since when, and until when older ones count
    ///
    /// Hosts have keys of their own, which follow each other at every renewal: `outhaul host list` counts them.
    #[command(after_help = "Examples:\n  outhaul key list\n  outhaul key list --json")]
    List,
    /// Follow one of the broker's keys by a new one, now
    ///
    /// issuer: signs connection tokens. Hosts notice nothing: tokens of the old key count until they end, at most an hour and a minute later,
    /// and then it is forgotten. If somebody else may have the key, say --now: its tokens are void at once, every host's link and its
    /// sandboxes' are closed, and each host proves its own key and gets a new token, within a minute as a rule.
    ///
    /// The authority has `outhaul ca rotate`, your own key `outhaul dispatcher rotate`.
    #[command(
        after_help = "Examples:\n  outhaul key rotate issuer\n  outhaul key rotate issuer --now"
    )]
    Rotate {
        /// Which
        #[arg(value_enum)]
        key: Rotated,
        /// Somebody else may have it: what it signed counts no more
        #[arg(long)]
        now: bool,
    },
}

/// A key that the broker can follow by another.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum Rotated {
    /// Signs connection tokens
    Issuer,
}

/// The broker's answer.
#[derive(Debug, Deserialize, Serialize)]
struct Keys {
    audience: String,
    keys: Vec<Key>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Key {
    role: String,
    key: String,
    state: String,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
}

/// As much of a certificate authority as is listed here.
#[derive(Debug, Deserialize)]
struct Certificates {
    authorities: Vec<Authority>,
}

#[derive(Debug, Deserialize)]
struct Authority {
    place: String,
    fingerprint: String,
    not_after_ms: u64,
}

pub(super) async fn execute(context: &Context, command: KeyCommand) -> anyhow::Result<u8> {
    match command {
        KeyCommand::List => list(context).await,
        KeyCommand::Rotate {
            key: Rotated::Issuer,
            now,
        } => {
            let body = json!({ "now": now });
            let path = "/v1/keys/issuer/rotate";
            let answer = context.client.post(path, &body).await;
            let keys: Keys = answer.context("rotate the issuer key")?;
            if now {
                context.output.remark(
                    "every host's link is closed: each proves its own key and comes back with a new token; see `outhaul host list`",
                )?;
            }
            show(context, keys)
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<u8> {
    let answer = context.client.get("/v1/keys").await;
    let mut found: Keys = answer.context("list keys")?;
    let certificates: Certificates = context
        .client
        .get("/v1/certificates")
        .await
        .context("list keys: certificates")?;
    found
        .keys
        .extend(certificates.authorities.into_iter().map(|one| Key {
            role: "authority".to_owned(),
            key: format!("SHA-256 {}", one.fingerprint),
            state: one.place,
            since_ms: None,
            until_ms: Some(one.not_after_ms),
        }));
    let dispatchers = api::dispatchers(&context.client).await?;
    found.keys.extend(dispatchers.into_iter().map(|one| {
        Key {
            role: "dispatcher".to_owned(),
            key: one.key,
            state: if one.until_ms.is_some() {
                "past"
            } else {
                "current"
            }
            .to_owned(),
            since_ms: Some(one.added_ms),
            until_ms: one.until_ms,
        }
    }));
    show(context, found)
}

fn show(context: &Context, found: Keys) -> anyhow::Result<u8> {
    if context.output.is_json() {
        context.output.json(&found)?;
        return Ok(0);
    }
    let now = clock::unix();
    let rows: Vec<Vec<String>> = found
        .keys
        .into_iter()
        .map(|one| {
            let signs = match one.role.as_str() {
                "issuer" => "connection tokens",
                "authority" => "the broker's certificate",
                "dispatcher" => "commands",
                "audit" => "the audit trail",
                _ => "",
            };
            let since = one
                .since_ms
                .map_or_else(String::new, |since| units::ago(since, now));
            let until = one
                .until_ms
                .map_or_else(String::new, |until| units::date(UnixMillis(until)));
            vec![one.role, one.state, signs.to_owned(), since, until, one.key]
        })
        .collect();
    context
        .output
        .table(&["ROLE", "STATE", "SIGNS", "SINCE", "UNTIL", "KEY"], &rows)?;
    Ok(0)
}
