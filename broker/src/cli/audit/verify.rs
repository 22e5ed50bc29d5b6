//! `outhaul audit verify`: judges an exported trail or one row's proof, offline. It asks no broker and believes none.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use protocol::{
    audit::{
        Leaf, SignedCheckpoint, TlogProof, Vkey, note::NOTE_BYTES_MAX, tlog_proof::PROOF_BYTES_MAX,
    },
    id::hex,
    key::Audit,
    time::UnixMillis,
};
use serde_json::{Value, json};

use crate::{
    cli::{Context, terminal::one_line, units},
    core::trail::Unsigned,
    shell::exported::{Bad, Export, Report, judge},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct VerifyArgs {
    /// The key that signed first, from whoever runs the broker and not from the export: `outhaul audit key` prints it. The text, or a
    /// file that holds it. For a proof, the key that signed its checkpoint
    #[arg(long, value_name = "KEY")]
    vkey: String,
    /// A checkpoint that you saved earlier: the trail must go on from it
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Print this row, and say whether it is in the trail
    #[arg(long, value_name = "SEQ")]
    row: Option<u64>,
    /// What `outhaul audit export` or `outhaul audit prove` wrote
    #[arg(value_name = "PATH")]
    path: PathBuf,
}

pub(super) fn verify(context: &Context, args: &VerifyArgs) -> anyhow::Result<u8> {
    let verifying = || format!("verify {}", args.path.display());
    let vkey = read_vkey(&args.vkey)?;
    if args.path.is_dir() {
        let since = args.since.as_deref().map(read_note).transpose()?;
        let export = Export::at(&args.path);
        let report = judge(&export, vkey, since, args.row).with_context(verifying)?;
        show(context, &report)?;
        return Ok(u8::from(!report.is_good()));
    }
    if args.since.is_some() || args.row.is_some() {
        bail!(
            "{}: --since and --row are for an exported directory; this is the proof of one row",
            verifying()
        );
    }
    verify_proof(context, &args.path, &vkey).with_context(verifying)
}

fn read_vkey(given: &str) -> anyhow::Result<Vkey<Audit>> {
    if let Ok(vkey) = given.parse() {
        return Ok(vkey);
    }
    let text = read_short(Path::new(given), 1024)
        .with_context(|| format!("--vkey: neither a key nor a file that can be read: {given}"))?;
    text.parse()
        .with_context(|| format!("--vkey: {given} holds no key as `outhaul audit key` prints it"))
}

fn read_note(path: &Path) -> anyhow::Result<SignedCheckpoint> {
    let reading = || format!("read the saved checkpoint {}", path.display());
    let text = read_short(path, NOTE_BYTES_MAX).with_context(reading)?;
    SignedCheckpoint::parse(&text).with_context(reading)
}

fn read_short(path: &Path, bytes_max: usize) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    file.take(bytes_max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > bytes_max {
        bail!("it is longer than {bytes_max} bytes");
    }
    Ok(text)
}

/// The row that was asked for.
fn row_of(report: &Report) -> Option<Value> {
    let bytes = report.row.as_ref()?;
    Leaf::from_bytes(bytes).ok().map(|leaf| row_json(&leaf))
}

fn row_json(leaf: &Leaf<'_>) -> Value {
    let fields = serde_json::from_str(leaf.fields);
    json!({
        "seq": leaf.seq,
        "time": units::date(UnixMillis(leaf.time_ms)),
        "time_ms": leaf.time_ms,
        "name": leaf.name,
        "subject": leaf.subject,
        "actor": leaf.actor,
        "fields": fields.unwrap_or_else(|_| Value::String(leaf.fields.to_owned())),
        "hash": hex(&leaf.hash()),
    })
}

pub(super) fn show(context: &Context, report: &Report) -> anyhow::Result<()> {
    if context.output.is_json() {
        context.output.json(&as_json(report))
    } else {
        context.output.text(&as_text(report))
    }
}

fn as_json(report: &Report) -> Value {
    let trail = &report.trail;
    let keys: Vec<Value> = trail
        .keys()
        .iter()
        .map(|(from, vkey)| json!({ "from_size": from, "vkey": vkey.to_string() }))
        .collect();
    let (bad, why) = match &report.bad {
        None => (None, None),
        Some(Bad::Row(row, fault)) => (Some(*row), Some(fault.word())),
        Some(Bad::Checkpoint(signed, _, _)) => (Some(*signed), Some("checkpoint")),
        Some(Bad::Nothing) => (Some(0), Some("unsigned")),
        Some(Bad::Saved(_, Unsigned::Beyond)) => (Some(trail.rows()), Some("truncated")),
        Some(Bad::Saved(..)) => (None, Some("saved_checkpoint")),
    };
    json!({
        "ok": report.is_good(),
        "rows": trail.rows(),
        "signed": trail.signed(),
        "root": hex(&trail.root()),
        "keys": keys,
        "first_bad": bad,
        "why": why,
        "since": report.saved,
        "opened": report.opened,
        "clock_went_back": trail.went_back(),
        "row": row_of(report),
    })
}

fn as_text(report: &Report) -> String {
    let trail = &report.trail;
    let (rows, signed) = (trail.rows(), trail.signed());
    let mut text = match &report.bad {
        None => format!("OK: {rows} rows, {signed} of them signed\n"),
        Some(Bad::Row(row, fault)) => {
            format!("BAD, row {row}: {fault}\nthe {row} rows before it are as they were written\n")
        }
        Some(Bad::Checkpoint(signed, size, why)) => format!(
            "BAD, row {signed}: nothing vouches for it and those after it: the checkpoint of {size} rows does not stand: {why}\n"
        ),
        Some(Bad::Nothing) => "BAD, row 0: nothing in here is signed\n".to_owned(),
        Some(Bad::Saved(size, Unsigned::Beyond)) => format!(
            "BAD, row {rows}: it is missing: the saved checkpoint covers {size} rows, and the trail ends after {rows}\n"
        ),
        Some(Bad::Saved(size, why)) => format!(
            "BAD: this is not the trail that was saved: the saved checkpoint of {size} rows does not stand: {why}\n"
        ),
    };
    text.push_str(&format!("root      {}\n", hex(&trail.root())));
    for (from, vkey) in trail.keys() {
        text.push_str(&format!("key       {vkey}, from row {from} on\n"));
    }
    match report.saved {
        Some(size) => text.push_str(&format!(
            "since     goes on from the saved checkpoint of {size} rows\n"
        )),
        None => text.push_str(
            "since     no saved checkpoint was given: that the end was cut off, or all of it rewritten by its key's holder, would not show\n",
        ),
    }
    if report.opened > 0 {
        text.push_str(&format!(
            "values    {} that rows only commit to are told, and fit\n",
            report.opened
        ));
    }
    if let Some(row) = trail.went_back() {
        text.push_str(&format!(
            "warning   row {row} is dated before an earlier one: the broker's clock went back, or an older broker wrote it down late\n"
        ));
    }
    if let Some(row) = row_of(report) {
        text.push_str(&format!("row       {}\n", one_line(&row.to_string())));
    }
    text
}

fn verify_proof(context: &Context, path: &Path, vkey: &Vkey<Audit>) -> anyhow::Result<u8> {
    let text = read_short(path, PROOF_BYTES_MAX)?;
    let proof = TlogProof::parse(&text)
        .context("neither an exported directory nor a proof of one row (tlog-proof)")?;
    let checked = proof.check().map_err(|bad| bad.to_string());
    let signed = proof
        .checkpoint
        .verify(vkey)
        .map_err(|bad| format!("its checkpoint is not signed with this key: {bad}"));
    let verdict = match (&checked, &signed) {
        (Err(why), _) | (_, Err(why)) => Err(why),
        (Ok(leaf), Ok(checkpoint)) => Ok((leaf, checkpoint)),
    };
    if context.output.is_json() {
        context.output.json(&match verdict {
            Ok((leaf, checkpoint)) => {
                json!({ "ok": true, "row": row_json(leaf), "size": checkpoint.size() })
            }
            Err(why) => json!({ "ok": false, "why": why }),
        })?;
    } else {
        context.output.text(&match verdict {
            Ok((leaf, checkpoint)) => format!(
                "OK: row {} is among the first {} of {}\nrow       {}\n",
                leaf.seq,
                checkpoint.size(),
                checkpoint.origin(),
                one_line(&row_json(leaf).to_string())
            ),
            Err(why) => format!("BAD: {why}\n"),
        })?;
    }
    Ok(u8::from(verdict.is_err()))
}
