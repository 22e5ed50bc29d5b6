//! `outhaul host`: adding hosts, fetching what is carried to each, and taking them away.

mod right;
mod show;

use anyhow::Context as _;
use protocol::id::HostId;
use serde_json::json;

use super::{
    Context, api,
    bundle::{self, BundleArgs},
    units,
};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum HostCommand {
    /// Add a host, and write the bundle to install there
    ///
    /// The bundle is a directory with all that makes a machine that host: where the broker is and whom the host obeys, the only
    /// certificate authority it trusts, an install key that enrols it once, a policy to fill in, and a compose project and systemd
    /// units that run the operator bounded and hardened. Carry it to the host and start `install.sh` there; its README.txt says more.
    /// The host obeys your dispatcher key: make one first with `outhaul dispatcher init`.
    #[command(
        after_help = "Example:\n  outhaul host add edge-1 --kind docker --out ./edge-1-bundle"
    )]
    Add(AddArgs),
    /// Fetch the bundle of a host again, with a fresh install key; the unused one before it is void
    ///
    /// For a host that was added and whose install key was lost, ended, or may have been seen. A host that is enrolled needs none, and
    /// goes on: with --reissue it gets one all the same, and the machine that uses it takes the place of the one it has.
    #[command(
        after_help = "Example:\n  outhaul host bundle edge-1 --out ./edge-1-again\n  outhaul host bundle edge-1 --reissue    for a new machine"
    )]
    Bundle {
        /// Which
        #[arg(value_name = "NAME")]
        name: HostId,
        #[command(flatten)]
        args: BundleArgs,
    },
    /// List the hosts, and which of them are connected
    #[command(after_help = "Example:\n  outhaul host list --json")]
    List {
        /// Those too that were removed
        #[arg(long)]
        all: bool,
    },
    /// Show a host: its keys, its clock, its sandboxes, its install keys, and who added it
    #[command(after_help = "Example:\n  outhaul host show edge-1")]
    Show {
        /// Which
        #[arg(value_name = "NAME")]
        name: HostId,
    },
    /// Call a host something else in lists, beside its name
    ///
    /// The name itself never changes: topics, tokens, the journal and the audit trail go by it, and so does every command here.
    #[command(
        after_help = "Examples:\n  outhaul host rename edge-1 'Rack 4, Berlin'\n  outhaul host rename edge-1 --clear"
    )]
    Rename(right::RenameArgs),
    /// Take a host that is not needed any more out of the lists
    ///
    /// Its rights end, for good, and its name is never used again; what the journal has of it stays, and so does its audit trail. One that
    /// is connected or has sandboxes is removed with --force only. In an emergency: `outhaul host revoke`, which leaves it in the lists.
    #[command(after_help = "Example:\n  outhaul host remove edge-1")]
    Remove(right::RemoveArgs),
    /// Unlock a host that was locked because two machines used its identity: the key it had counts again
    #[command(after_help = "Example:\n  outhaul host unlock edge-1")]
    Unlock {
        /// Which
        #[arg(value_name = "NAME")]
        name: HostId,
    },
    /// Take a host's rights away for good, and close its connections; its name is never used again
    ///
    /// Or less than all of them: --install-key makes a bundle worthless that nobody has used yet; --generation takes a key back that may
    /// be in other hands, and every one before it. A sandbox alone: `outhaul sandbox revoke`.
    #[command(
        after_help = "Examples:\n  outhaul host revoke edge-1\n  outhaul host revoke edge-1 --generation 7\n  outhaul host revoke edge-1 --install-key"
    )]
    Revoke(right::RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// The host's name: up to 64 of a-z, 0-9 and '-'
    #[arg(value_name = "NAME")]
    name: HostId,
    /// What runs sandboxes there
    #[arg(long, value_enum)]
    kind: HostKind,
    #[command(flatten)]
    bundle: BundleArgs,
}

/// What runs sandboxes on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum HostKind {
    /// A Docker engine
    Docker,
}

impl HostKind {
    fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
        }
    }
}

pub(super) async fn execute(context: &Context, command: HostCommand) -> anyhow::Result<u8> {
    match command {
        HostCommand::Add(args) => {
            bundle::fetch(context, &args.name, Some(args.kind.word()), args.bundle).await
        }
        HostCommand::Bundle { name, args } => bundle::fetch(context, &name, None, args).await,
        HostCommand::List { all } => list(context, all).await,
        HostCommand::Show { name } => show::show(context, &name).await,
        HostCommand::Rename(args) => right::rename(context, args).await,
        HostCommand::Remove(args) => right::remove(context, &args).await,
        HostCommand::Unlock { name } => change(context, &name, "unlock").await,
        HostCommand::Revoke(args) => right::revoke(context, &args).await,
    }
}

async fn change(context: &Context, name: &HostId, what: &str) -> anyhow::Result<u8> {
    let answer: serde_json::Value = context
        .client
        .post(&format!("/v1/hosts/{name}/{what}"), &json!({}))
        .await
        .with_context(|| format!("{what} host {name}"))?;
    if context.output.is_json() {
        context.output.json(&answer)?;
    } else {
        context.output.text(&format!("{name}\n"))?;
    }
    Ok(0)
}

async fn list(context: &Context, all: bool) -> anyhow::Result<u8> {
    let hosts = api::hosts(&context.client, all).await?;
    if context.output.is_json() {
        context.output.json(&hosts)?;
        return Ok(0);
    }
    let now = clock::unix();
    let rows: Vec<Vec<String>> = hosts
        .into_iter()
        .map(|host| {
            let seen = match host.last_seen_ms {
                _ if host.connected => "now".to_owned(),
                Some(seen) => units::ago(seen, now),
                None => "never".to_owned(),
            };
            vec![
                host.name,
                host.kind,
                host.state,
                if host.connected { "yes" } else { "no" }.to_owned(),
                host.generation.to_string(),
                seen,
                host.label.unwrap_or_default(),
            ]
        })
        .collect();
    let header = [
        "NAME",
        "KIND",
        "STATE",
        "CONNECTED",
        "GENERATION",
        "LAST SEEN",
        "LABEL",
    ];
    context.output.table(&header, &rows)?;
    Ok(0)
}
