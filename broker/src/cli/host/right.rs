//! Rights of a host that end, all or some; and what it is called.

use anyhow::Context as _;
use protocol::id::HostId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Context, terminal::one_line};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RenameArgs {
    /// Which
    #[arg(value_name = "NAME")]
    name: HostId,
    /// What to call it: 1 to 64 characters
    #[arg(value_name = "LABEL", required_unless_present = "clear")]
    label: Option<String>,
    /// Call it by its name alone
    #[arg(long, conflicts_with = "label")]
    clear: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RemoveArgs {
    /// Which
    #[arg(value_name = "NAME")]
    name: HostId,
    /// Even if it is connected or has sandboxes; these run on, and nobody hears of them
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RevokeArgs {
    /// Which
    #[arg(value_name = "NAME")]
    name: HostId,
    /// Only its keys up to this generation, and every token that rests on them; if that is its newest one, it needs a new bundle
    #[arg(long, value_name = "N", conflicts_with = "install_key")]
    generation: Option<u64>,
    /// Only its unused install key
    #[arg(long)]
    install_key: bool,
}

#[derive(Deserialize)]
struct Voided {
    needs_bundle: bool,
}

pub(super) async fn rename(context: &Context, args: RenameArgs) -> anyhow::Result<u8> {
    let name = &args.name;
    let body = json!({ "label": args.label });
    let answer: Value = context
        .client
        .post(&format!("/v1/hosts/{name}/label"), &body)
        .await
        .with_context(|| format!("rename host {name}"))?;
    said(context, &answer, || {
        let label = args.label.as_deref().map(one_line);
        label.map_or_else(
            || format!("host {name} has no label any more\n"),
            |label| format!("host {name} is called {label} in lists\n"),
        )
    })
}

pub(super) async fn remove(context: &Context, args: &RemoveArgs) -> anyhow::Result<u8> {
    let name = &args.name;
    let body = json!({ "force": args.force });
    let answer: Value = context
        .client
        .post(&format!("/v1/hosts/{name}/remove"), &body)
        .await
        .with_context(|| format!("remove host {name}"))?;
    said(context, &answer, || {
        format!("removed host {name}; its name is never used again, and its journal stays\n")
    })
}

pub(super) async fn revoke(context: &Context, args: &RevokeArgs) -> anyhow::Result<u8> {
    let name = &args.name;
    if let Some(generation) = args.generation {
        return revoke_generation(context, name, generation).await;
    }
    let (what, doing) = if args.install_key {
        ("revoke-install-key", "revoke the install key of")
    } else {
        ("revoke", "revoke")
    };
    let answer: Value = context
        .client
        .post(&format!("/v1/hosts/{name}/{what}"), &json!({}))
        .await
        .with_context(|| format!("{doing} host {name}"))?;
    said(context, &answer, || {
        if args.install_key {
            format!("the unused install key of host {name} is void\n")
        } else {
            format!("{name}\n")
        }
    })
}

async fn revoke_generation(
    context: &Context,
    name: &HostId,
    generation: u64,
) -> anyhow::Result<u8> {
    let body = json!({ "generation": generation });
    let answer: Value = context
        .client
        .post(&format!("/v1/hosts/{name}/revoke-generation"), &body)
        .await
        .with_context(|| format!("revoke generation {generation} of host {name}"))?;
    let needs_bundle = Voided::deserialize(&answer).is_ok_and(|voided| voided.needs_bundle);
    said(context, &answer, || {
        let next = if needs_bundle {
            format!(
                "\nit was its newest: enrol it again, with a bundle of `outhaul host add {name} --kind docker --reissue`"
            )
        } else {
            String::new()
        };
        format!(
            "nothing counts any more that rests on generation {generation} of host {name} or one before it{next}\n"
        )
    })
}

fn said(context: &Context, answer: &Value, text: impl FnOnce() -> String) -> anyhow::Result<u8> {
    if context.output.is_json() {
        context.output.json(answer)?;
    } else {
        context.output.text(&text())?;
    }
    Ok(0)
}
