//! `outhaul sandbox`: what is done to one sandbox without asking its host.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Context, api};

#[derive(Debug, clap::Subcommand)]
pub(super) enum SandboxCommand {
    /// Cut a sandbox off: the broker takes nothing more from it, whatever its host says
    ///
    /// Its connection is closed at once, and no token opens one again. Its container runs on, since only a signed command ends that:
    /// `outhaul stop`. What it has not sent, its operator may still forward; that is kept, as evidence.
    #[command(after_help = "Example:\n  outhaul sandbox revoke edge-1/build-7")]
    Revoke {
        /// Which: SANDBOX, or HOST/SANDBOX
        #[arg(value_name = "[HOST/]SANDBOX")]
        name: api::Name,
    },
}

pub(super) async fn execute(context: &Context, command: SandboxCommand) -> anyhow::Result<u8> {
    let SandboxCommand::Revoke { name } = command;
    let found = api::find(&context.client, &name).await?;
    let (host, sandbox) = (&found.host, &found.sandbox);
    let answer: Value = context
        .client
        .post(
            &format!("/v1/sandboxes/{host}/{sandbox}/revoke"),
            &json!({}),
        )
        .await
        .with_context(|| format!("revoke sandbox {host}/{sandbox}"))?;
    if context.output.is_json() {
        context.output.json(&answer)?;
    } else {
        context.output.text(&format!(
            "sandbox {host}/{sandbox} is cut off; it runs until it ends: outhaul stop {host}/{sandbox}\n"
        ))?;
    }
    Ok(0)
}
