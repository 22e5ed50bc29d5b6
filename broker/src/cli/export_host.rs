//! `outhaul export-host`: what every sandbox of a host said in a range, a stream file for each.

use std::path::PathBuf;

use anyhow::Context as _;
use protocol::id::HostId;
use serde_json::json;

use super::{
    Context, api,
    export_stream::{RangeArgs, export, has_records, warn_of_anchor},
    verify_stream::{as_json, headline},
};

#[derive(Debug, clap::Args)]
pub(super) struct ExportHostArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// The host
    #[arg(value_name = "HOST")]
    host: HostId,
    /// A directory, made if it is not there: SANDBOX.stream for each sandbox that has anything in the range
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(super) async fn execute(context: &Context, args: ExportHostArgs) -> anyhow::Result<u8> {
    let ExportHostArgs {
        range,
        host,
        directory,
    } = args;
    let range = range.find(context).await?;
    let mut sandboxes = api::sandboxes(&context.client, true).await?;
    sandboxes.retain(|sandbox| sandbox.host == host);
    sandboxes.sort_by(|one, other| one.sandbox.cmp(&other.sandbox));
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("export to {}", directory.display()))?;
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    let mut faults = 0;
    let mut anchors = Vec::new();
    for sandbox in &sandboxes {
        if !has_records(context, sandbox, range).await? {
            continue;
        }
        let file = format!("{}.stream", sandbox.sandbox);
        let exported = export(context, sandbox, range, &directory.join(&file)).await?;
        let (check, fault) = (&exported.check, exported.fault);
        faults += u32::from(fault.is_some());
        if !anchors.contains(&exported.anchor) {
            anchors.push(exported.anchor);
        }
        values.push(json!({ "file": &file, "judged": as_json(check, fault) }));
        rows.push(vec![file, headline(check, fault)]);
    }
    if context.output.is_json() {
        context.output.json(&values)?;
    } else {
        context.output.table(&["FILE", "VERDICT"], &rows)?;
    }
    for anchor in anchors {
        context.output.remark(&format!(
            "anybody can judge them: outhaul verify-stream --host-key {anchor} FILE"
        ))?;
        warn_of_anchor(context, &host, anchor)?;
    }
    Ok(u8::from(faults > 0))
}
