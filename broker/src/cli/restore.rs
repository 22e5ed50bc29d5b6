//! `outhaul restore`: a backup becomes a data directory again, as a new incarnation that says what is gone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use protocol::time::UnixMillis;
use serde_json::json;

use super::{
    Context,
    backup::{actor, judge, offsets, tell},
    passphrase::{self, Use},
    units,
};
use crate::shell::{
    backup::{self, Found, KeyFiles, Keys, Outcome},
    clock,
    journal::{Lost, lost_after},
    keys::DataDir,
    store::Snapshot,
};

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// A new or empty directory: the restored broker's
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The file that `outhaul backup --keys-to` wrote
    #[arg(long, value_name = "FILE", conflicts_with = "new_keys")]
    keys_from: Option<PathBuf>,
    /// A file with its passphrase, mode 0600 [default: asked for at the terminal]
    #[arg(long, value_name = "FILE", requires = "keys_from")]
    passphrase_file: Option<PathBuf>,
    /// Go on without the keys: new ones are made, and every host has to be added again and enrol anew
    #[arg(long)]
    new_keys: bool,
    /// The data directory that was lost, as far as it can be read: says which acknowledged records are gone
    #[arg(long, value_name = "DIR")]
    compare: Option<PathBuf>,
}

pub(super) fn execute(context: &mut Context, args: &RestoreArgs) -> anyhow::Result<u8> {
    if args.keys_from.is_none() && !args.new_keys {
        bail!(
            "which keys? Name the file that `outhaul backup --keys-to` wrote with --keys-from. Without it the restored broker is a \
             stranger to every host: it gets a new authority and a new issuer key, and each host has to be added again \
             (`outhaul host bundle NAME --reissue`) and enrol anew. To do that on purpose, say --new-keys"
        );
    }
    let found = judge(context, &args.from)?;
    let keys = match &args.keys_from {
        Some(path) => {
            let passphrase = passphrase::read(args.passphrase_file.as_deref(), Use::Known)?;
            Keys::Restored(KeyFiles::open_file(path, &passphrase)?)
        }
        None => Keys::New,
    };
    let lost = match &args.compare {
        Some(old) => {
            Some(compare(&found, old).with_context(|| format!("compare with {}", old.display()))?)
        }
        None => None,
    };
    context.output.begin("restoring");
    let outcome = backup::restore(
        &args.from,
        &found,
        &args.data_dir,
        &keys,
        &actor(),
        clock::unix(),
        &mut |step| tell(context, step),
    );
    context.output.end();
    let outcome = outcome.with_context(|| format!("restore {}", args.from.display()))?;
    say(context, args, &found, &outcome, lost.as_ref())
}

/// What the lost directory still has past the backup's end.
fn compare(found: &Found, old: &Path) -> anyhow::Result<Lost> {
    let directory = DataDir::existing(old)?;
    let current = Snapshot::take(&directory.store())?.history()?;
    if current.current().id != found.manifest.incarnation_id.0 {
        bail!("it is of another incarnation than the backup");
    }
    lost_after(&directory.journal(), found.manifest.end_offset)
}

fn say(
    context: &Context,
    args: &RestoreArgs,
    found: &Found,
    outcome: &Outcome,
    lost: Option<&Lost>,
) -> anyhow::Result<u8> {
    let (manifest, next) = (&found.manifest, &outcome.incarnation);
    let made = units::date(UnixMillis(manifest.made_ms));
    if context.output.is_json() {
        context.output.json(&json!({
            "data_dir": args.data_dir, "backup": manifest.id, "backup_ms": manifest.made_ms,
            "incarnation": next.number, "incarnation_id": crate::core::backup::Hex(next.id),
            "first_offset": next.first, "withdrawn_from": manifest.end_offset,
            "install_keys_retired": outcome.voided.install_keys,
            "access_tokens_revoked": outcome.voided.access_tokens, "new_keys": args.new_keys,
            "lost_records_of": lost.map(|lost| &lost.hosts), "lost_to": lost.map(|lost| lost.end),
        }))?;
        return Ok(0);
    }
    let mut text = format!(
        "restored into {} as incarnation {}, from the backup of {made}\n",
        args.data_dir.display(),
        next.number
    );
    let mut row = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    row("there", &offsets(manifest));
    row("next offset", &next.first.to_string());
    let gone = "whatever was acknowledged after that: events, reports, commands";
    row(
        "gone",
        &format!("offset {} and later, {gone}", manifest.end_offset),
    );
    if let Some(lost) = lost {
        for (host, count) in &lost.hosts {
            row(
                "",
                &format!(
                    "{count} records of {host}, up to offset {}",
                    lost.end.saturating_sub(1)
                ),
            );
        }
        if lost.hosts.is_empty() {
            row("", "nothing, as far as the lost directory can be read");
        }
    }
    context.output.text(&text)?;
    for remark in remarks(args, outcome, &made) {
        context.output.remark(&remark)?;
    }
    Ok(0)
}

fn remarks(args: &RestoreArgs, outcome: &Outcome, made: &str) -> Vec<String> {
    let mut remarks = vec![format!(
        "changes of rights after {made} are undone: hosts that were revoked, dispatchers and readers that were removed since are back; \
         look at `outhaul host list`, `dispatcher list` and `reader list`"
    )];
    remarks.push(format!(
        "hosts that renewed their keys after {made} come back by themselves; any that was added since is unknown: `outhaul host add NAME`, and \
         its new bundle, with an empty state directory, to the host"
    ));
    if outcome.voided.install_keys > 0 {
        remarks.push(format!(
            "{} unused install keys are void, since somebody may have used them after the backup: `outhaul host bundle NAME` makes new ones",
            outcome.voided.install_keys
        ));
    }
    if outcome.voided.access_tokens > 0 {
        remarks.push(format!(
            "{} access tokens are void, since some may have been revoked after the backup: `outhaul access add NAME` makes new ones",
            outcome.voided.access_tokens
        ));
    }
    if args.new_keys {
        remarks.push(
            "the keys are new: no host knows this broker. For each: `outhaul host bundle NAME --reissue`, and its new bundle to the host"
                .to_owned(),
        );
    }
    if !args.new_keys {
        remarks.push(
            "hosts that saw more of the audit trail than the backup has obey nobody: once the broker serves, have a dispatcher whom they list \
             run `outhaul dispatcher accept-restore`"
                .to_owned(),
        );
    }
    remarks.push(format!(
        "start it with `outhaul serve --data-dir {}`",
        args.data_dir.display()
    ));
    remarks
}
