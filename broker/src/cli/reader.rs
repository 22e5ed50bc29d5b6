//! `outhaul reader`: who may read over the network, by a token.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use protocol::id::{HostId, ReaderName};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Context, login::ends, place, units};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ReaderCommand {
    /// Add a reader, and write its token to a file
    ///
    /// The token is the MQTT password of an ordinary client (the user name is the reader's name), or the bearer token of an HTTPS
    /// request. Whoever has it reads what it opens, until it ends or is removed; hosts and sandboxes never use one. Readers are let in
    /// where `outhaul serve` runs with --allow-readers, load tests with --allow-bench.
    #[command(
        after_help = "Examples:\n  outhaul reader add siem --output siem.token\n  outhaul reader add grafana --may metrics --output grafana.token\n  outhaul reader add load --bench --output load.token\n\nThen, for instance (mosquitto's clients read flags from that file, so the token is not in `ps`):\n  (umask 077; printf -- '-u siem\\n-P %s\\n' \"$(cat siem.token)\" > ~/.config/mosquitto_sub)\n  mosquitto_sub -h broker.example -p 8443 --cafile ca.crt -t 'v1/+/+/events' -q 1"
    )]
    Add(AddArgs),
    /// List the readers
    #[command(after_help = "Example:\n  outhaul reader list --json")]
    List,
    /// Take a reader's rights away: its token opens nothing, and its connections are closed
    #[command(after_help = "Example:\n  outhaul reader remove siem")]
    Remove {
        /// Which
        #[arg(value_name = "NAME")]
        name: ReaderName,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// What it is called, in lists, in the audit trail, and as its MQTT user name
    #[arg(value_name = "NAME")]
    name: ReaderName,
    /// What it may read
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "WHAT",
        default_value = "events,reports"
    )]
    may: Vec<What>,
    /// Of this host only
    #[arg(long, value_name = "HOST")]
    host: Option<HostId>,
    /// Events of this sandbox only
    #[arg(long, value_name = "SANDBOX", requires = "host")]
    sandbox: Option<String>,
    /// It is for load tests: publishes and subscribes below bench/, and nothing else
    #[arg(long, conflicts_with_all = ["may", "host", "sandbox"])]
    bench: bool,
    /// How many days its token is good
    #[arg(long, value_name = "DAYS", default_value_t = 90)]
    days: u64,
    /// Where to write the token; the file must not exist
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    Events,
    Reports,
    Metrics,
}

/// A reader in a list.
#[derive(Debug, Serialize, Deserialize)]
struct Reader {
    name: String,
    may: Vec<String>,
    host: Option<String>,
    sandbox: Option<String>,
    added_ms: u64,
    expires_ms: u64,
}

#[derive(Deserialize)]
struct Readers {
    readers: Vec<Reader>,
}

#[derive(Deserialize)]
struct Made {
    token: String,
    expires_ms: u64,
    /// Whether the broker lets its kind in.
    let_in: bool,
}

pub(super) async fn execute(context: &Context, command: ReaderCommand) -> anyhow::Result<u8> {
    match command {
        ReaderCommand::Add(args) => add(context, &args).await,
        ReaderCommand::List => list(context).await,
        ReaderCommand::Remove { name } => remove(context, &name).await,
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
    let may: Vec<&str> = if args.bench {
        vec!["bench"]
    } else {
        args.may.iter().copied().map(What::word).collect()
    };
    let request = json!({
        "name": args.name, "may": may, "host": args.host, "sandbox": args.sandbox, "days": args.days,
    });
    let made: Made = context
        .client
        .post("/v1/readers", &request)
        .await
        .with_context(|| format!("add reader {}", args.name))?;
    let token = Zeroizing::new(made.token);
    if let Err(error) = place::write_token(&args.output, &token) {
        // Nobody has the token: a reader without one is of no use.
        let undone: anyhow::Result<serde_json::Value> = context
            .client
            .delete(&format!("/v1/readers/{}", args.name))
            .await;
        let undone = match undone {
            Ok(_) => "the reader was removed again",
            Err(_) => "the reader is there: remove it with `outhaul reader remove`",
        };
        return Err(error.context(undone));
    }
    let path = args.output.display();
    context.output.remark(&format!(
        "wrote the token of reader {} to {path}, for {} days: it opens what it may to whoever has it",
        args.name, args.days
    ))?;
    if !made.let_in {
        let flag = if args.bench {
            "--allow-bench"
        } else {
            "--allow-readers"
        };
        context.output.remark(&format!(
            "the broker does not let it in yet: start it with `outhaul serve {flag}`"
        ))?;
    }
    if context.output.is_json() {
        context.output.json(&json!({
            "name": args.name, "path": args.output, "expires_ms": made.expires_ms, "let_in": made.let_in,
        }))?;
    }
    Ok(0)
}

async fn list(context: &Context) -> anyhow::Result<u8> {
    let Readers { readers } = context
        .client
        .get("/v1/readers")
        .await
        .context("list readers")?;
    if context.output.is_json() {
        context.output.json(&readers)?;
        return Ok(0);
    }
    let now = clock::unix();
    let rows: Vec<Vec<String>> = readers
        .into_iter()
        .map(|reader| {
            let of = match (reader.host, reader.sandbox) {
                (Some(host), Some(sandbox)) => format!("{host}/{sandbox}"),
                (Some(host), None) => host,
                (None, _) => "all".to_owned(),
            };
            let ends = ends(reader.expires_ms, now.0);
            vec![
                reader.name,
                reader.may.join(","),
                of,
                units::ago(reader.added_ms, now),
                ends,
            ]
        })
        .collect();
    context
        .output
        .table(&["NAME", "MAY", "OF", "ADDED", "ENDS"], &rows)?;
    Ok(0)
}

async fn remove(context: &Context, name: &ReaderName) -> anyhow::Result<u8> {
    let answer: serde_json::Value = context
        .client
        .delete(&format!("/v1/readers/{name}"))
        .await
        .with_context(|| format!("remove reader {name}"))?;
    if context.output.is_json() {
        context.output.json(&answer)?;
    } else {
        context.output.text(&format!("{name}\n"))?;
    }
    Ok(0)
}

impl What {
    const fn word(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Reports => "reports",
            Self::Metrics => "metrics",
        }
    }
}
