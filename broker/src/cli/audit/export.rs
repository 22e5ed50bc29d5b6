//! `outhaul audit export`: the whole trail in a directory (`SPEC.md`, chapter 14).

use std::{
    fs::{DirBuilder, File},
    io::{BufWriter, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use protocol::audit::{Leaf, Vkey};
use protocol::id::unhex;
use protocol::key::Audit;
use serde::Deserialize;

use super::{
    Signed, keys,
    list::{Openings, Row, page},
    sign, verify,
};
use crate::{
    cli::{Context, place},
    shell::exported::{Export, judge},
};

/// Rows that one question brings.
const PAGE_ROWS: u32 = 500;
/// Checkpoints that one question brings.
const PAGE_CHECKPOINTS: u32 = 500;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExportArgs {
    /// Withhold the values of fields that may be withheld, such as paths: rows still prove, and say that there was a value
    #[arg(long)]
    redact: bool,
    /// A new directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

#[derive(Deserialize)]
struct Checkpoints {
    checkpoints: Vec<Signed>,
}

pub(super) async fn export(context: &Context, args: &ExportArgs) -> anyhow::Result<u8> {
    let exporting = || format!("export the audit trail to {}", args.directory.display());
    ensure!(
        !place::is_taken(&args.directory),
        "{}: something is there already: name a new directory",
        exporting()
    );
    // Everything of one moment: what is signed now, and not the rows that come meanwhile.
    let last = sign(context).await.with_context(exporting)?;
    let keys = keys(context).await?;
    let first = keys.first().context("the audit trail has no key yet")?;
    let vkey: Vkey<Audit> = first.vkey.parse().context("read the first audit key")?;
    DirBuilder::new()
        .mode(0o700)
        .create(&args.directory)
        .with_context(exporting)?;
    write(context, args, &last, &vkey)
        .await
        .with_context(exporting)?;
    // What was written is judged as a stranger would.
    let export = Export::at(&args.directory);
    let report = judge(&export, vkey.clone(), None, None).with_context(exporting)?;
    verify::show(context, &report)?;
    context.output.remark(&format!(
        "written to {0}; anybody can judge it: outhaul audit verify {0} --vkey '{vkey}'",
        args.directory.display()
    ))?;
    Ok(u8::from(!report.is_good()))
}

async fn write(
    context: &Context,
    args: &ExportArgs,
    last: &Signed,
    vkey: &Vkey<Audit>,
) -> anyhow::Result<()> {
    let place = Export::at(&args.directory);
    place::write_new(&place.vkey, 0o600, format!("{vkey}\n").as_bytes())?;
    place::write_new(&place.checkpoint, 0o600, last.note.as_bytes())?;
    place::write_new(&place.readme, 0o600, README.as_bytes())?;
    write_checkpoints(context, &place.checkpoints, last).await?;
    let mut entries = create(&place.entries)?;
    let mut hashes = create(&place.hashes)?;
    let mut openings = match args.redact {
        true => None,
        false => Some(create(&place.openings)?),
    };
    let mut from = 0;
    while from < last.size {
        let found = page(context, from, PAGE_ROWS, "").await?;
        ensure!(!found.rows.is_empty(), "the broker has no row {from}");
        for row in found.rows.iter().filter(|row| row.seq < last.size) {
            let (bytes, hash) = encode(row)?;
            entries.write_all(&bytes)?;
            hashes.write_all(&hash)?;
        }
        if let Some(file) = &mut openings {
            let to = found.next.min(last.size);
            let found: Openings = context
                .client
                .get(&format!("/v1/audit/openings?from={from}&to={to}"))
                .await
                .context("read values of rows")?;
            for opening in &found.openings {
                writeln!(file, "{opening}")?;
            }
        }
        from = found.next;
    }
    for file in [Some(entries), Some(hashes), openings]
        .into_iter()
        .flatten()
    {
        let file = file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        file.sync_all()?;
    }
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    let file = File::create_new(path).with_context(|| format!("make {}", path.display()))?;
    Ok(BufWriter::new(file))
}

/// A row's bytes, and the hash that the broker keeps for it: where they do not agree, whoever verifies will see it.
fn encode(row: &Row) -> anyhow::Result<(Vec<u8>, [u8; 32])> {
    let (prev, hash) = (unhex(&row.prev), unhex(&row.hash));
    let (Some(prev), Some(hash)) = (prev, hash) else {
        anyhow::bail!("the broker's row {} has no hashes", row.seq)
    };
    let leaf = Leaf {
        seq: row.seq,
        time_ms: row.time_ms,
        name: &row.name,
        subject: &row.subject,
        actor: &row.actor,
        fields: &row.fields,
        prev: &prev,
    };
    Ok((leaf.to_bytes(), hash))
}

async fn write_checkpoints(context: &Context, path: &Path, last: &Signed) -> anyhow::Result<()> {
    let mut file = create(path)?;
    let mut from = 0;
    loop {
        let found: Checkpoints = context
            .client
            .get(&format!(
                "/v1/audit/checkpoints?from_size={from}&limit={PAGE_CHECKPOINTS}"
            ))
            .await
            .context("read checkpoints")?;
        let Some(newest) = found.checkpoints.last() else {
            break;
        };
        from = newest.size + 1;
        for signed in &found.checkpoints {
            if signed.size <= last.size {
                writeln!(file, "{}", serde_json::to_string(signed)?)?;
            }
        }
    }
    let file = file
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(())
}

const README: &str = "\
An audit trail of Outhaul, whole, up to the newest checkpoint in here.

  entries.cbor       the rows: a CBOR sequence (RFC 8742) of arrays of seven: number, milliseconds since 1970, name, subject, actor,
                     fields as JSON text, hash of the row before
  hashes.bin         the rows' hashes, 32 bytes each: SHA-256(0x00 || row), the leaves of an RFC 6962 tree
  checkpoints.jsonl  what was signed: one object on each line, whose `note` is a C2SP checkpoint; the smallest first
  checkpoint         the last of them, as it is
  vkey               the key that signed first, as its broker tells: do not believe it from here, have it from elsewhere
  openings.jsonl     values that rows commit to and do not show: SHA-256(salt || value); absent if they were withheld

To verify: outhaul audit verify DIR --vkey KEY [--since SAVED-CHECKPOINT] [--row N]
or, with another program: python3 audit.py DIR --vkey KEY   (protocol/verify in the sources; the rules are in protocol/SPEC.md)

The rows and their signatures show every change, removal and reordering. They cannot show that the end was cut off together with its
checkpoint, or that whoever holds the key wrote all of it anew: a checkpoint that was saved elsewhere, or a witness's, shows that.
";
