//! `outhaul audit`: the record of every change of rights, and what proves it.

mod cosigned;
mod export;
mod list;
mod verify;

use std::path::PathBuf;

use anyhow::Context as _;
use protocol::{
    audit::{SignedCheckpoint, Vkey},
    key::Audit,
};
use serde::{Deserialize, Serialize};

use super::{Context, place};

#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// List rows, the newest last
    #[command(
        after_help = "Examples:\n  outhaul audit list --name 'host.*' --since 24h\n  outhaul audit list --subject edge-1 --limit 1000 --json"
    )]
    List(list::ListArgs),
    /// Show one row with all its fields and hashes
    #[command(after_help = "Example:\n  outhaul audit show 1042")]
    Show(list::ShowArgs),
    /// Print rows as they are written; with --json, one object on each line, for a SIEM
    ///
    /// Goes on through restarts of the broker, and misses nothing: keep the last `seq` that was taken in, and begin at the next one.
    #[command(
        after_help = "Examples:\n  outhaul audit follow --json | logger -t outhaul\n  outhaul audit follow --json --from 1043 >> /var/log/outhaul-audit.jsonl"
    )]
    Follow(list::FollowArgs),
    /// Write the whole trail to a directory that anybody can verify, without a broker and without this program
    ///
    /// Holds every row, their hashes, the checkpoints that were signed, and the first key. README.txt in it says what is what.
    #[command(after_help = "Example:\n  outhaul audit export audit-2026-11")]
    Export(export::ExportArgs),
    /// Verify an exported trail, or the proof of one row, offline
    ///
    /// Asks no broker and reads nothing but what it is given. Says which row is the first that is not as it was written. A trail alone
    /// cannot show that its end was cut off, or that the holder of the key rewrote all of it: keep a checkpoint somewhere else from
    /// time to time (`outhaul audit checkpoint`), and give it with --since.
    #[command(
        after_help = "Examples:\n  outhaul audit verify audit-2026-11 --vkey outhaul.vkey\n  outhaul audit verify audit-2026-11 --vkey outhaul.vkey --since march.checkpoint --row 1042\n  outhaul audit verify row-1042.tlog-proof --vkey outhaul.vkey"
    )]
    Verify(verify::VerifyArgs),
    /// Write the proof that a row is in the trail: its way to a signed root
    #[command(after_help = "Example:\n  outhaul audit prove 1042 row-1042.tlog-proof")]
    Prove(ProveArgs),
    /// Sign the trail as it stands, and print what was signed: a few lines to keep elsewhere
    ///
    /// Whoever holds it can tell later whether anything before it was changed or taken away. It holds hashes only.
    #[command(
        after_help = "Example:\n  outhaul audit checkpoint > march.checkpoint\n  outhaul audit checkpoint --cosigned"
    )]
    Checkpoint(CheckpointArgs),
    /// Print the keys that sign the trail: the first one verifies all of it
    #[command(after_help = "Example:\n  outhaul audit key > outhaul.vkey")]
    Key(KeyArgs),
    /// Make a new key, and hand the trail over to it
    ///
    /// A row says so, and both keys sign a checkpoint that ends with it: whoever knows the first key finds the way to the next.
    #[command(after_help = "Example:\n  outhaul audit rotate-key")]
    RotateKey,
}

#[derive(Debug, clap::Args)]
pub(super) struct ProveArgs {
    /// The row
    #[arg(value_name = "SEQ")]
    seq: u64,
    /// A new file [default: standard output]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct CheckpointArgs {
    /// Sign nothing, and show which hosts have seen the trail and how far, with their signatures of the newest checkpoint that they
    /// cosigned; exit code 1 if one of them saw what the trail does not go on from
    #[arg(long)]
    cosigned: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    /// The key in use, and not the first one
    #[arg(long)]
    current: bool,
}

/// A checkpoint, as the broker tells it.
#[derive(Debug, Deserialize, Serialize)]
struct Signed {
    size: u64,
    time_ms: u64,
    note: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Key {
    from_size: u64,
    vkey: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Proven {
    proof: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Rotated {
    size: u64,
    vkey: String,
    note: String,
}

#[derive(Serialize)]
struct Nothing {}

pub(super) async fn execute(context: &Context, command: AuditCommand) -> anyhow::Result<u8> {
    match command {
        AuditCommand::List(args) => list::list(context, args).await,
        AuditCommand::Show(args) => list::show(context, &args).await,
        AuditCommand::Follow(args) => list::follow(context, args).await,
        AuditCommand::Export(args) => export::export(context, &args).await,
        AuditCommand::Verify(args) => verify::verify(context, &args),
        AuditCommand::Prove(args) => prove(context, &args).await,
        AuditCommand::Checkpoint(args) if args.cosigned => cosigned::cosigned(context).await,
        AuditCommand::Checkpoint(_) => checkpoint(context).await,
        AuditCommand::Key(args) => key(context, &args).await,
        AuditCommand::RotateKey => rotate(context).await,
    }
}

async fn sign(context: &Context) -> anyhow::Result<Signed> {
    let client = &context.client;
    client
        .post("/v1/audit/checkpoint", &Nothing {})
        .await
        .context("sign the audit trail")
}

async fn keys(context: &Context) -> anyhow::Result<Vec<Key>> {
    let found: Keys = context
        .client
        .get("/v1/audit/keys")
        .await
        .context("ask for the audit keys")?;
    Ok(found.keys)
}

/// The newest checkpoint, and the key that signed it.
pub(super) async fn newest(context: &Context) -> anyhow::Result<(Vkey<Audit>, SignedCheckpoint)> {
    let note = SignedCheckpoint::parse(&sign(context).await?.note)?;
    let keys = keys(context).await?;
    let vkey: Vkey<Audit> = keys
        .last()
        .context("the broker names no audit key")?
        .vkey
        .parse()?;
    note.verify(&vkey)?;
    Ok((vkey, note))
}

async fn checkpoint(context: &Context) -> anyhow::Result<u8> {
    let signed = sign(context).await?;
    if context.output.is_json() {
        context.output.json(&signed)?;
    } else {
        context.output.text(&signed.note)?;
    }
    Ok(0)
}

async fn key(context: &Context, args: &KeyArgs) -> anyhow::Result<u8> {
    let keys = keys(context).await?;
    if context.output.is_json() {
        context.output.json(&Keys { keys })?;
        return Ok(0);
    }
    let key = if args.current {
        keys.last()
    } else {
        keys.first()
    };
    let key = key.context("the audit trail has no key yet")?;
    context.output.text(&format!("{}\n", key.vkey))?;
    Ok(0)
}

async fn prove(context: &Context, args: &ProveArgs) -> anyhow::Result<u8> {
    let proving = || format!("prove row {}", args.seq);
    let proven: Proven = context
        .client
        .get(&format!("/v1/audit/proof/{}", args.seq))
        .await
        .with_context(proving)?;
    match &args.file {
        Some(file) => {
            place::write_new(file, 0o600, proven.proof.as_bytes()).with_context(proving)?;
            context.output.remark(&format!(
                "written to {0}; anybody can judge it: outhaul audit verify {0} --vkey KEY",
                file.display()
            ))?;
        }
        None if context.output.is_json() => context.output.json(&proven)?,
        None => context.output.text(&proven.proof)?,
    }
    Ok(0)
}

async fn rotate(context: &Context) -> anyhow::Result<u8> {
    let rotated: Rotated = context
        .client
        .post("/v1/audit/rotate-key", &Nothing {})
        .await
        .context("hand the audit trail over to a new key")?;
    if context.output.is_json() {
        context.output.json(&rotated)?;
        return Ok(0);
    }
    context.output.text(&format!("{}\n", rotated.vkey))?;
    context.output.remark(
        "signs the trail from now on. The first key still verifies all of it; back the keys up again: outhaul backup --keys-to",
    )?;
    Ok(0)
}
