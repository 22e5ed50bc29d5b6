//! `outhaul access`: who may use this broker over HTTPS, in which role.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use protocol::id::{AccessName, HostId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Context, login::ends, place, units};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum AccessCommand {
    /// Give a person or a program access over HTTPS, and write the token to a file
    ///
    /// A viewer reads: lists, records, events, the audit trail. A dispatcher also hands in commands, signed by a dispatcher key that hosts
    /// obey: the token alone starts nothing. An admin also changes who may do what. What needs the broker's files (backups, keys) no token
    /// gives. Tokens are taken where `outhaul serve` runs with --allow-access; what is done with one is in the audit trail under its name.
    #[command(
        after_help = "Examples:\n  outhaul access add ada --role dispatcher --output ada.token\n  outhaul access add ci --role viewer --host edge-1 --days 7 --output ci.token\n\nThen, on another machine, with what `outhaul ca list --pem` prints here:\n  outhaul login --url https://broker.example:8443 --cafile ca.crt --token-file ada.token"
    )]
    Add(AddArgs),
    /// List who has access
    #[command(after_help = "Example:\n  outhaul access list --json")]
    List,
    /// Take a token away: it opens nothing any more, and what it follows ends
    #[command(after_help = "Example:\n  outhaul access revoke ada")]
    Revoke {
        /// Which
        #[arg(value_name = "NAME")]
        name: AccessName,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// Whose it is, as lists and the audit trail are to say
    #[arg(value_name = "NAME")]
    name: AccessName,
    /// What its holder is
    #[arg(long, value_enum)]
    role: RoleWord,
    /// On this host only: no other shows
    #[arg(long, value_name = "HOST")]
    host: Option<HostId>,
    /// How many days it is good
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u64,
    /// Where to write the token; the file must not exist
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleWord {
    Viewer,
    Dispatcher,
    Admin,
}

impl RoleWord {
    const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Dispatcher => "dispatcher",
            Self::Admin => "admin",
        }
    }
}

/// A token in a list.
#[derive(Debug, Serialize, Deserialize)]
struct Access {
    name: String,
    role: String,
    host: Option<String>,
    added_by: String,
    added_ms: u64,
    expires_ms: u64,
}

#[derive(Deserialize)]
struct Listed {
    access: Vec<Access>,
}

#[derive(Deserialize)]
struct Made {
    token: String,
    expires_ms: u64,
    /// Whether the broker takes access tokens.
    let_in: bool,
}

pub(super) async fn execute(context: &Context, command: AccessCommand) -> anyhow::Result<u8> {
    match command {
        AccessCommand::Add(args) => add(context, &args).await,
        AccessCommand::List => list(context).await,
        AccessCommand::Revoke { name } => revoke(context, &name).await,
    }
}

async fn add(context: &Context, args: &AddArgs) -> anyhow::Result<u8> {
    // Looked at before anything is made: a token that cannot be written down is lost.
    if place::is_taken(&args.output) {
        bail!(
            "{} is there: tokens are never written over another file",
            args.output.display()
        );
    }
    let request = json!({
        "name": args.name, "role": args.role.word(), "host": args.host, "days": args.days,
    });
    let made: Made = context
        .client
        .post("/v1/access", &request)
        .await
        .with_context(|| format!("give access to {}", args.name))?;
    let token = Zeroizing::new(made.token);
    if let Err(error) = place::write_token(&args.output, &token) {
        // Nobody has the token: it is of no use.
        let undone: anyhow::Result<serde_json::Value> = context
            .client
            .delete(&format!("/v1/access/{}", args.name))
            .await;
        let undone = match undone {
            Ok(_) => "the token was revoked again",
            Err(_) => "the token is there: revoke it with `outhaul access revoke`",
        };
        return Err(error.context(undone));
    }
    context.output.remark(&format!(
        "wrote the access token of {} to {}; it ends {}",
        args.name,
        args.output.display(),
        ends(made.expires_ms, clock::unix().0)
    ))?;
    if !made.let_in {
        context.output.remark(
            "the broker takes no access tokens yet: start it with `outhaul serve --allow-access`",
        )?;
    }
    if context.output.is_json() {
        context.output.json(&json!({
            "name": args.name, "path": args.output, "expires_ms": made.expires_ms, "let_in": made.let_in,
        }))?;
    }
    Ok(0)
}

async fn list(context: &Context) -> anyhow::Result<u8> {
    let Listed { access } = context
        .client
        .get("/v1/access")
        .await
        .context("list access tokens")?;
    if context.output.is_json() {
        context.output.json(&access)?;
        return Ok(0);
    }
    let now = clock::unix();
    let rows: Vec<Vec<String>> = access
        .into_iter()
        .map(|one| {
            vec![
                one.name,
                one.role,
                one.host.unwrap_or_else(|| "all".to_owned()),
                one.added_by,
                units::ago(one.added_ms, now),
                ends(one.expires_ms, now.0),
            ]
        })
        .collect();
    let header = ["NAME", "ROLE", "HOSTS", "ADDED BY", "ADDED", "ENDS"];
    context.output.table(&header, &rows)?;
    Ok(0)
}

async fn revoke(context: &Context, name: &AccessName) -> anyhow::Result<u8> {
    let answer: serde_json::Value = context
        .client
        .delete(&format!("/v1/access/{name}"))
        .await
        .with_context(|| format!("revoke the access token of {name}"))?;
    if context.output.is_json() {
        context.output.json(&answer)?;
    } else {
        context.output.text(&format!("{name}\n"))?;
    }
    Ok(0)
}
