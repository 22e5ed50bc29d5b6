//! `outhaul ps`: sandboxes, as the broker has them.

use super::{Context, api, units};
use crate::shell::clock;

#[derive(Debug, clap::Args)]
pub(super) struct PsArgs {
    /// Those that have ended, too
    #[arg(long, short = 'a')]
    all: bool,
}

pub(super) async fn execute(context: &Context, args: &PsArgs) -> anyhow::Result<u8> {
    let sandboxes = api::sandboxes(&context.client, args.all).await?;
    if context.output.is_json() {
        context.output.json(&sandboxes)?;
        return Ok(0);
    }
    let now = clock::unix();
    let rows: Vec<Vec<String>> = sandboxes.iter().map(|sandbox| row(sandbox, now)).collect();
    let header = [
        "SANDBOX", "HOST", "IMAGE", "STATE", "CREATED", "UPDATED", "DETAIL",
    ];
    context.output.table(&header, &rows)?;
    Ok(0)
}

fn row(sandbox: &api::Sandbox, now: protocol::time::UnixMillis) -> Vec<String> {
    let code = sandbox
        .exit_code
        .map_or_else(String::new, |code| format!(" ({code})"));
    let why = [sandbox.reason.as_deref(), sandbox.detail.as_deref()];
    let why: Vec<&str> = why
        .into_iter()
        .flatten()
        .filter(|text| !text.is_empty())
        .collect();
    vec![
        sandbox.sandbox.to_string(),
        sandbox.host.to_string(),
        sandbox.image.clone().unwrap_or_default(),
        format!("{}{code}", sandbox.state),
        units::ago(sandbox.created_ms, now),
        units::ago(sandbox.updated_ms, now),
        why.join(": "),
    ]
}
