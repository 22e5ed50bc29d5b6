//! A dispatcher's key is followed by another, or revokes one.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use protocol::{
    id::hex,
    key::{Dispatcher, Public, Secret},
    key_change::{Change, NextKey, RevokedKey, Statement},
    limits::COMMAND_LIFE_MS_MAX,
};
use serde::Serialize;
use serde_json::json;

use super::{default_name, make_key};
use crate::{
    cli::{Context, api, order, place, units},
    shell::clock,
};

/// The end of the name of a key that the broker may not have heard of yet.
const NEXT: &str = "next";

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RotateArgs {
    /// How long the old key is obeyed beside the new one, at most 7d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = units::parse_duration)]
    overlap: Duration,
    /// What the broker calls the new key [default: your user name and the key's thumbprint]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

#[derive(Serialize)]
struct Submission<'a> {
    statement: String,
    name: &'a str,
}

pub(super) async fn rotate(context: &Context, args: &RotateArgs) -> anyhow::Result<u8> {
    let overlap_ms = u64::try_from(args.overlap.as_millis()).unwrap_or(u64::MAX);
    if overlap_ms > COMMAND_LIFE_MS_MAX {
        bail!(
            "rotate the dispatcher key: commands live for 7 days at most, and so does the overlap"
        );
    }
    let path = context.key_path()?;
    let old = order::read_key(&path)?;
    // Made and on disk before anybody hears of it; what an earlier attempt left is taken up.
    let next_path = path.with_extension(NEXT);
    if !place::is_taken(&next_path) {
        make_key(&next_path)?;
    }
    let next = order::read_key(&next_path)?.public();
    let name = args
        .name
        .clone()
        .unwrap_or_else(|| default_name(context.user(), &next));
    let now = clock::unix();
    let until = now.plus(args.overlap);
    let doing = "rotate the dispatcher key (the old one is still yours; run this again)";
    let known = api::dispatchers(&context.client).await.context(doing)?;
    // An earlier attempt may have come as far as the broker, and ended the old key.
    if known.iter().all(|known| known.key != next.to_string()) {
        let change = Change::Next(NextKey { key: next, until });
        submit(context, &old, Statement { change, time: now }, &name)
            .await
            .context(doing)?;
    }
    put_in_place(&next_path, &path)?;
    if context.output.is_json() {
        context.output.json(&json!({
            "key": next.to_string(), "name": name, "before": old.public().to_string(), "path": path, "until_ms": until.0,
        }))?;
        return Ok(0);
    }
    context.output.text(&format!("{next}\n"))?;
    context.output.remark(&format!(
        "this key signs from now on, as {name}; hosts obey {} beside it until {}",
        old.public(),
        units::date(until)
    ))?;
    context.output.remark(
        "bundles and policies that list the old key may stay as they are: hosts keep what they learned. New ones should list the new key",
    )?;
    Ok(0)
}

pub(super) async fn revoke(context: &Context, key: Public<Dispatcher>) -> anyhow::Result<u8> {
    let own = order::read_key(&context.key_path()?)?;
    if own.public() == key {
        bail!(
            "revoke a dispatcher's key: this is your own. Have another dispatcher revoke it; or follow it by a new one with `outhaul \
             dispatcher rotate --overlap 0s`; or have hosts' owners take it off their lists"
        );
    }
    let statement = Statement {
        change: Change::Revoke(RevokedKey { key }),
        time: clock::unix(),
    };
    submit(context, &own, statement, "revoked")
        .await
        .context("revoke a dispatcher's key")?;
    if context.output.is_json() {
        context
            .output
            .json(&json!({ "key": key.to_string(), "by": own.public().to_string() }))?;
        return Ok(0);
    }
    context.output.text(&format!("{key}\n"))?;
    context.output.remark(
        "hosts that list your key obey it no more, nor any key that it named. On others their owner takes it off policy.toml",
    )?;
    Ok(0)
}

pub(super) async fn submit(
    context: &Context,
    key: &Secret<Dispatcher>,
    statement: Statement,
    name: &str,
) -> anyhow::Result<()> {
    let submission = Submission {
        statement: hex(&statement.sign(key)),
        name,
    };
    let _: serde_json::Value = context
        .client
        .post("/v1/dispatchers/statements", &submission)
        .await?;
    Ok(())
}

/// The new key takes the old one's place, which is then nowhere.
fn put_in_place(next: &Path, path: &Path) -> anyhow::Result<()> {
    fs::rename(next, path).with_context(|| {
        let (next, path) = (next.display(), path.display());
        format!("the new key is in force, and in {next}: move it to {path}")
    })?;
    place::sync_dir(place::directory_of(path))
}
