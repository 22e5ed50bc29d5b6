//! A dispatcher says that the broker was restored, and that this was meant.

use anyhow::{Context as _, bail};
use protocol::key_change::{Change, RestoredTrail, Statement};
use serde_json::json;

use super::rotate::submit;
use crate::{
    cli::{Context, api, audit, order, units},
    shell::clock,
};

pub(super) async fn accept_restore(context: &Context, yes: bool) -> anyhow::Result<u8> {
    let doing = "accept a restore of the broker";
    let key = order::read_key(&context.key_path()?)?;
    let history = api::history(&context.client).await.context(doing)?;
    let history =
        history.context("the broker does not say what it was restored from: update it")?;
    let current = history.current();
    let Some(restored) = &current.restored else {
        bail!("{doing}: this broker was not restored from a backup, so there is nothing to accept")
    };
    let (vkey, note) = audit::newest(context).await.context(doing)?;
    let trail = RestoredTrail {
        at: current.began,
        vkey: vkey.to_string(),
        note: note.to_string(),
    };
    let rows = note.unverified().size();
    if yes {
        let (change, time) = (Change::Restored(trail), clock::unix().max(current.began));
        submit(context, &key, Statement { change, time }, "restored")
            .await
            .context(doing)?;
    }
    if context.output.is_json() {
        context.output.json(&json!({
            "signed": yes, "by": key.public().to_string(), "incarnation": current.number, "restored_ms": current.began.0,
            "backup_ms": restored.made.0, "withdrawn_from": restored.end, "rows": rows, "note": note.to_string(),
        }))?;
        return Ok(u8::from(!yes));
    }
    context.output.text(&format!(
        "restored      {}, incarnation {}\nfrom          the backup of {}: what was accepted after it, from offset {} on, is gone\n\
         audit trail   {rows} rows now\n",
        units::date(current.began),
        current.number,
        units::date(restored.made),
        restored.end,
    ))?;
    if !yes {
        context.output.remark(
            "nothing was signed. If you know that this restore was meant, say so: outhaul dispatcher accept-restore --yes",
        )?;
        return Ok(1);
    }
    context.output.remark(
        "signed: hosts that list your key go on from there, at once or when they come back. On others their owner runs \
         `outhaul-agent accept-restore`",
    )?;
    Ok(0)
}
