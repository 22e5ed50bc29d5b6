//! `outhaul backup`: a copy of the data directory that a broker can be restored from, made while it runs, and judged anywhere.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use protocol::{id::hex, time::UnixMillis};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Context,
    passphrase::{self, Use},
    place,
    render::Progress,
    units,
};
use crate::{
    core::backup::{Gap, Hex, Manifest},
    shell::{
        backup::{self, Found, KeyFiles, Made, Source, Step},
        clock,
        journal::{Contents, Durability, Extent, Extents, Journal},
        keys::{DataDir, SigningKeys, fill_random},
        store::{Snapshot, Store},
    },
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct BackupArgs {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    #[command(flatten)]
    make: MakeArgs,
}

#[derive(Debug, clap::Args)]
struct MakeArgs {
    /// A new directory for the backup
    #[arg(long, value_name = "DIR", required = true)]
    to: Option<PathBuf>,
    /// Write the broker's private keys to this new file, under a passphrase; without it they are not backed up
    #[arg(long, value_name = "FILE")]
    keys_to: Option<PathBuf>,
    /// A file with the passphrase, mode 0600 [default: asked for at the terminal]
    #[arg(long, value_name = "FILE", requires = "keys_to")]
    passphrase_file: Option<PathBuf>,
    /// Back up this data directory, which no broker uses; without it the broker behind the socket is asked
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum BackupCommand {
    /// Judge a backup, offline: every hash, every record, the store and its audit trail
    ///
    /// Says what is in it, and what is wrong first; then the exit code is 1.
    #[command(after_help = "Example:\n  outhaul backup verify /backup/monday")]
    Verify {
        /// The backup
        #[arg(value_name = "DIR")]
        path: PathBuf,
    },
}

/// What the broker says of itself when a backup begins.
#[derive(Deserialize)]
struct Begun {
    data_dir: PathBuf,
    audience: String,
    incarnation_id: Hex<16>,
    made_ms: u64,
}

#[derive(Deserialize)]
struct Committed {
    segments: Vec<CommittedSegment>,
    next: u64,
}

#[derive(Deserialize)]
struct CommittedSegment {
    first: u64,
    bytes: u64,
}

pub(super) async fn execute(context: &mut Context, args: BackupArgs) -> anyhow::Result<u8> {
    if let Some(BackupCommand::Verify { path }) = args.command {
        return verify(context, &path);
    }
    let to = args.make.to.as_deref().context("--to is missing")?;
    let to = std::path::absolute(to).with_context(|| format!("find {}", to.display()))?;
    let keys_to = args.make.keys_to.as_deref();
    // Looked at before anything is recorded or asked.
    for path in [Some(to.as_path()), keys_to].into_iter().flatten() {
        if place::is_taken(path) {
            bail!(
                "{} is there: a backup never overwrites anything",
                path.display()
            );
        }
    }
    let passphrase = match keys_to {
        Some(_) => Some(passphrase::read(
            args.make.passphrase_file.as_deref(),
            Use::New,
        )?),
        None => None,
    };
    let mut id = [0; 16];
    fill_random(&mut id)?;
    let order = Order {
        to: &to,
        id,
        keys_apart: keys_to.is_some(),
    };
    context.output.begin("backing up");
    let (source, made) = match &args.make.data_dir {
        Some(directory) => offline(context, &order, directory),
        None => online(context, &order).await,
    }
    .with_context(|| format!("back up to {}", to.display()))?;
    let sealed = match &passphrase {
        Some(passphrase) => {
            let keys = KeyFiles::read(&source.directory, &source.audience, source.made)?;
            Some(keys.seal(passphrase).context("seal the private keys")?)
        }
        None => None,
    };
    if let (Some(path), Some(sealed)) = (keys_to, sealed) {
        backup::write_once(path, &sealed)?;
    }
    let shown = Shown::of(&to, &made);
    if let Err(error) = made.publish() {
        if let Some(path) = keys_to {
            // Of a backup that is not there.
            let _ = std::fs::remove_file(path);
        }
        return Err(error);
    }
    context.output.end();
    shown.say(context, keys_to)
}

struct Order<'a> {
    to: &'a Path,
    id: [u8; 16],
    keys_apart: bool,
}

impl Order<'_> {
    fn place(&self) -> String {
        self.to.to_string_lossy().into_owned()
    }
}

/// Asks the broker for its word on what is committed, and copies that much.
async fn online(context: &mut Context, order: &Order<'_>) -> anyhow::Result<(Source, Made)> {
    let request = json!({ "id": Hex(order.id), "to": order.place(), "keys": order.keys_apart });
    let begun: Begun = context.client.post("/v1/backups", &request).await?;
    let directory = DataDir::existing(&begun.data_dir).context(
        "look at the broker's data directory: run this where the broker runs, as its user",
    )?;
    // The store's moment first, and then how far the journal is: so the journal reaches at least as far.
    let snapshot = Snapshot::take(&directory.store())?;
    if snapshot.history()?.current().id != begun.incarnation_id.0 {
        bail!(
            "{} is the data directory of another broker: run this where the broker runs",
            begun.data_dir.display()
        );
    }
    let committed: Committed = context.client.get("/v1/backups/extents").await?;
    let segments = committed.segments.iter();
    let extents = Extents {
        segments: segments
            .map(|one| Extent {
                first: one.first,
                bytes: one.bytes,
            })
            .collect(),
        next: committed.next,
    };
    let source = Source {
        directory,
        id: order.id,
        made: UnixMillis(begun.made_ms),
        audience: begun.audience,
        keys_apart: order.keys_apart,
    };
    let made = backup::make(order.to, &source, snapshot, &extents, &mut |step| {
        tell(context, step)
    })?;
    Ok((source, made))
}

/// Does the same with a directory that no broker uses, and keeps brokers out meanwhile.
fn offline(
    context: &mut Context,
    order: &Order<'_>,
    root: &Path,
) -> anyhow::Result<(Source, Made)> {
    let directory = DataDir::existing(root)?;
    let journal = Journal::open(&directory.journal(), Durability::Fsync)
        .context("take the data directory: while a broker uses it, leave --data-dir out, and the broker is asked")?;
    let keys = SigningKeys::open(&directory)?;
    let store = Store::open(&directory.store())?;
    let now = UnixMillis(store.advance_time(clock::unix().0)?);
    backup::record(
        &store,
        order.id,
        &order.place(),
        order.keys_apart,
        &actor(),
        now,
    )?;
    let source = Source {
        audience: keys.issuer.audience().to_owned(),
        directory,
        id: order.id,
        made: now,
        keys_apart: order.keys_apart,
    };
    let snapshot = Snapshot::take(store.path())?;
    let extents = journal.extents();
    let made = backup::make(order.to, &source, snapshot, &extents, &mut |step| {
        tell(context, step)
    })?;
    Ok((source, made))
}

/// Who does it, as the audit trail names them.
pub(super) fn actor() -> String {
    format!("uid:{}", rustix::process::getuid().as_raw())
}

pub(super) fn tell(context: &mut Context, step: Step) {
    context.output.progress(&Progress {
        steps: Some((step.done, step.all)),
        message: step.what.to_owned(),
    });
}

fn verify(context: &mut Context, path: &Path) -> anyhow::Result<u8> {
    let found = judge(context, path)?;
    if context.output.is_json() {
        context.output.json(&found_json(path, &found))?;
        return Ok(0);
    }
    let mut text = format!("OK, whole: {}\n", path.display());
    rows(&mut text, &facts(&found.manifest, &found.contents));
    let store = &found.store;
    rows(
        &mut text,
        &[
            (
                "store",
                format!(
                    "{} hosts, {} sandboxes, {} readers",
                    store.hosts, store.sandboxes, store.readers
                ),
            ),
            (
                "audit trail",
                format!(
                    "{} rows, chained; its end is {}",
                    store.audit.rows,
                    hex(&store.audit.head)
                ),
            ),
            (
                "blake3",
                format!(
                    "{} (of the manifest: it stands for all of it)",
                    found.blake3
                ),
            ),
        ],
    );
    context.output.text(&text)?;
    Ok(0)
}

/// Checks everything, showing how far it is.
pub(super) fn judge(context: &mut Context, path: &Path) -> anyhow::Result<Found> {
    context.output.begin("verifying");
    let found = backup::check(path, &mut |step| tell(context, step));
    context.output.end();
    found.with_context(|| format!("verify backup {}", path.display()))
}

type Row = (&'static str, String);

fn rows(text: &mut String, rows: &[Row]) {
    for (name, value) in rows {
        text.push_str(&format!("  {name:<12} {value}\n"));
    }
}

fn facts(manifest: &Manifest, contents: &Contents) -> Vec<Row> {
    let mut facts = vec![
        (
            "made",
            format!(
                "{} by outhaul {}",
                units::date(UnixMillis(manifest.made_ms)),
                manifest.version
            ),
        ),
        ("id", manifest.id.to_string()),
        (
            "broker",
            format!(
                "{}, incarnation {}",
                manifest.audience, manifest.incarnation
            ),
        ),
        ("offsets", offsets(manifest)),
        (
            "size",
            format!(
                "{} in {} segments and the store",
                units::bytes(manifest.bytes()),
                manifest.segments.len()
            ),
        ),
    ];
    let hosts: Vec<_> = contents
        .hosts
        .iter()
        .map(|(host, count)| format!("{host} {count}"))
        .collect();
    if !hosts.is_empty() {
        facts.push(("records of", hosts.join(", ")));
    }
    let keys = match manifest.keys_apart {
        true => "not in it; they were written to a file of their own",
        false => "not in it, and not written anywhere: keep another copy of keys/",
    };
    facts.push(("private keys", keys.to_owned()));
    for Gap { from, to } in &manifest.gaps {
        let gap = format!(
            "offsets {from} to {}: as in the journal it was made of",
            to - 1
        );
        facts.push(("no records", gap));
    }
    facts
}

pub(super) fn offsets(manifest: &Manifest) -> String {
    match manifest.end_offset.checked_sub(1) {
        Some(last) if manifest.records > 0 => {
            format!(
                "{} to {last}, {} records",
                manifest.first_offset, manifest.records
            )
        }
        _ => "no record yet".to_owned(),
    }
}

fn found_json(path: &Path, found: &Found) -> Value {
    let mut value = manifest_json(path, &found.manifest, found.blake3);
    if let Some(value) = value.as_object_mut() {
        value.insert("verdict".to_owned(), "whole".into());
        value.insert("records_of".to_owned(), json!(found.contents.hosts));
        let store = &found.store;
        value.insert(
            "store".to_owned(),
            json!({
                "hosts": store.hosts, "sandboxes": store.sandboxes, "readers": store.readers,
                "audit_rows": store.audit.rows, "audit_head": hex(&store.audit.head),
            }),
        );
    }
    value
}

fn manifest_json(path: &Path, manifest: &Manifest, blake3: Hex<32>) -> Value {
    json!({
        "path": path, "id": manifest.id, "made_ms": manifest.made_ms, "version": manifest.version,
        "audience": manifest.audience, "incarnation": manifest.incarnation, "incarnation_id": manifest.incarnation_id,
        "first_offset": manifest.first_offset, "end_offset": manifest.end_offset, "records": manifest.records,
        "gaps": manifest.gaps, "segments": manifest.segments.len(), "bytes": manifest.bytes(),
        "keys_apart": manifest.keys_apart, "manifest_blake3": blake3,
    })
}

/// What is said of a backup that was made, taken before it moves.
struct Shown {
    path: PathBuf,
    manifest: Manifest,
    contents: Contents,
    blake3: Hex<32>,
    linked: usize,
}

impl Shown {
    fn of(to: &Path, made: &Made) -> Self {
        Self {
            path: to.to_owned(),
            manifest: made.manifest.clone(),
            contents: made.contents.clone(),
            blake3: made.blake3,
            linked: made.linked,
        }
    }

    fn say(&self, context: &Context, keys_to: Option<&Path>) -> anyhow::Result<u8> {
        if context.output.is_json() {
            let mut value = manifest_json(&self.path, &self.manifest, self.blake3);
            if let Some(value) = value.as_object_mut() {
                value.insert("linked_segments".to_owned(), self.linked.into());
                value.insert("keys_path".to_owned(), json!(keys_to));
            }
            context.output.json(&value)?;
            return Ok(0);
        }
        let mut text = format!("backed up to {}\n", self.path.display());
        rows(&mut text, &facts(&self.manifest, &self.contents));
        rows(
            &mut text,
            &[(
                "blake3",
                format!(
                    "{} (note it elsewhere: it stands for all of it)",
                    self.blake3
                ),
            )],
        );
        context.output.text(&text)?;
        if self.linked > 0 {
            context.output.remark(&format!(
                "{} segments share their blocks with the broker's own files: copy the backup to another disk, and verify it there",
                self.linked
            ))?;
        }
        match keys_to {
            Some(path) => context.output.remark(&format!(
                "the private keys are in {}: keep it apart from the backup, and its passphrase apart from both",
                path.display()
            ))?,
            None => context.output.remark(
                "the private keys are not in it: without them every host would have to enrol anew (--keys-to writes them)",
            )?,
        }
        Ok(0)
    }
}
