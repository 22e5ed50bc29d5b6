//! `outhaul dispatcher`: the key that signs this user's commands.

mod accept_restore;
mod rotate;

use std::path::Path;

use anyhow::Context as _;
use protocol::{
    id::hex,
    key::{Dispatcher, Public, Secret},
    time::UnixMillis,
};
use serde::Serialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Context, api, order, place, units};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum DispatcherCommand {
    /// Make the key that signs your commands, and register its public half with the broker
    ///
    /// The key stays in your own configuration (mode 0600); the broker never has it, and cannot launch anything without it.
    /// A key that is there is kept, never overwritten: run this again to register it with another broker.
    #[command(
        after_help = "Example:\n  outhaul dispatcher init\n  outhaul dispatcher init --name ci --offline"
    )]
    Init(InitArgs),
    /// Register somebody else's public key, so that the broker relays what they sign
    ///
    /// They make it with `outhaul dispatcher init --offline`, which prints it, and keep the secret half. A host obeys it once its bundle or
    /// its policy.toml lists it; hosts that they add themselves obey it from the start.
    #[command(after_help = "Example:\n  outhaul dispatcher add ohd1_... --name ci")]
    Add {
        /// The public key, as `outhaul dispatcher init --offline` prints it
        #[arg(value_name = "KEY")]
        key: Public<Dispatcher>,
        /// What the broker calls it, in lists and in the audit trail
        #[arg(long, value_name = "NAME")]
        name: String,
    },
    /// List the dispatchers whose commands the broker relays
    #[command(after_help = "Example:\n  outhaul dispatcher list --json")]
    List,
    /// Follow your key by a new one: hosts obey it without anybody visiting them
    ///
    /// Your key signs for the new one; hosts that are connected learn it now, others when they come back. The old key is obeyed for the
    /// overlap, so that commands on their way still count, and is not kept here. If it stops half way, run it again. For a key that
    /// somebody else may have, this is not enough: see `outhaul dispatcher revoke`.
    #[command(
        after_help = "Examples:\n  outhaul dispatcher rotate\n  outhaul dispatcher rotate --overlap 7d --name ada-2027"
    )]
    Rotate(rotate::RotateArgs),
    /// Have hosts obey another dispatcher's key no more, nor any key that it named
    ///
    /// Signed with your own key, which the hosts must list too; nobody can revoke his own. Hosts that are connected hear of it now, others
    /// before any further command. It is not taken back: only a host's owner can have that key obeyed again, by taking it off the list
    /// and adding it anew. Whoever the revoked key belonged to makes another with `outhaul dispatcher init`, and hosts' owners list it.
    #[command(after_help = "Example:\n  outhaul dispatcher revoke ohd1_... --yes")]
    Revoke {
        /// Its public key, as `outhaul dispatcher list` shows it
        #[arg(value_name = "KEY")]
        key: Public<Dispatcher>,
        /// Do it
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Say that the broker was restored and that this was meant: hosts that list your key obey commands again
    ///
    /// A broker that was restored from a backup shows hosts less of its audit trail than they have seen, as one would that hides something.
    /// So they stop obeying, until each one's owner runs `outhaul-agent accept-restore`, or a dispatcher whom they list signs this: it
    /// names the time of the restore and the trail as it is now. Hosts that are connected go on at once, others when they come back. What a
    /// host has seen since the restore is not undone by it. Without --yes it shows what would be signed.
    #[command(
        after_help = "Examples:\n  outhaul dispatcher accept-restore\n  outhaul dispatcher accept-restore --yes\n\nExit codes: 0 signed, 1 only shown, or an error"
    )]
    AcceptRestore {
        /// Sign it
        #[arg(long)]
        yes: bool,
    },
    /// Take a dispatcher's right away: the broker relays its commands no more
    ///
    /// What it signed and no host has answered yet reaches nobody any more. Hosts go on listing it until they get a new bundle, or
    /// their policy is changed; but nothing reaches them. To have hosts themselves obey it no more, revoke it.
    #[command(after_help = "Example:\n  outhaul dispatcher remove ohd1_...")]
    Remove {
        /// Its public key, as `outhaul dispatcher list` shows it
        #[arg(value_name = "KEY")]
        key: Public<Dispatcher>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct InitArgs {
    /// What the broker calls this key, in lists and in the audit trail [default: your user name and the key's thumbprint]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Make the key only; register it later, by running this again
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Registration<'a> {
    key: String,
    name: &'a str,
}

pub(super) async fn execute(context: &Context, command: DispatcherCommand) -> anyhow::Result<u8> {
    match command {
        DispatcherCommand::Init(args) => init(context, &args).await,
        DispatcherCommand::Add { key, name } => add(context, &key, &name).await,
        DispatcherCommand::List => list(context).await,
        DispatcherCommand::Rotate(args) => rotate::rotate(context, &args).await,
        DispatcherCommand::Revoke { key, .. } => rotate::revoke(context, key).await,
        DispatcherCommand::AcceptRestore { yes } => {
            accept_restore::accept_restore(context, yes).await
        }
        DispatcherCommand::Remove { key } => remove(context, &key).await,
    }
}

async fn init(context: &Context, args: &InitArgs) -> anyhow::Result<u8> {
    let path = context.key_path()?;
    let is_new = !place::is_taken(&path);
    let public = if is_new {
        make_key(&path)?
    } else {
        order::read_key(&path)?.public()
    };
    let what = if is_new { "made" } else { "kept" };
    context
        .output
        .remark(&format!("{what} dispatcher key {}", path.display()))?;
    let registered = if args.offline {
        None
    } else {
        Some(register(context, &public, args.name.as_deref()).await?)
    };
    if context.output.is_json() {
        context.output.json(&json!({
            "key": public.to_string(), "path": path, "made": is_new, "registered": registered,
        }))?;
    } else {
        context.output.text(&format!("{public}\n"))?;
    }
    Ok(0)
}

/// Makes a key file, which must not exist.
fn make_key(path: &Path) -> anyhow::Result<Public<Dispatcher>> {
    let directory = place::directory_of(path);
    place::make_private_dir(directory)?;
    let seed = Zeroizing::new(order::random::<32>()?);
    let key = Secret::<Dispatcher>::from_seed(&seed);
    place::write_new(path, 0o600, key.to_file_text().as_bytes())?;
    place::sync_dir(directory)?;
    Ok(key.public())
}

/// Tells the broker of the key, unless it knows it: the name it goes by.
async fn register(
    context: &Context,
    key: &Public<Dispatcher>,
    name: Option<&str>,
) -> anyhow::Result<String> {
    let doing = "register the dispatcher key (it is made; run `outhaul dispatcher init` again to register it)";
    let known = api::dispatchers(&context.client).await.context(doing)?;
    if let Some(known) = known.iter().find(|known| known.key == key.to_string()) {
        context
            .output
            .remark(&format!("the broker knows it already, as {}", known.name))?;
        return Ok(known.name.clone());
    }
    let name = name.map_or_else(|| default_name(context.user(), key), str::to_owned);
    let registration = Registration {
        key: key.to_string(),
        name: &name,
    };
    let _: serde_json::Value = context
        .client
        .post("/v1/dispatchers", &registration)
        .await
        .context(doing)?;
    context.output.remark(&format!(
        "registered it as {name}; hosts that you add from now on obey it"
    ))?;
    Ok(name)
}

/// `ada-fca05495`: names are unique at a broker, and people have several machines.
fn default_name(user: Option<&str>, key: &Public<Dispatcher>) -> String {
    let [a, b, c, d, ..] = key.id();
    let user: String = user
        .unwrap_or("dispatcher")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        .take(32)
        .collect();
    format!("{user}-{}", hex(&[a, b, c, d]))
}

async fn add(context: &Context, key: &Public<Dispatcher>, name: &str) -> anyhow::Result<u8> {
    let registration = Registration {
        key: key.to_string(),
        name,
    };
    let answer: serde_json::Value = context
        .client
        .post("/v1/dispatchers", &registration)
        .await
        .with_context(|| format!("register dispatcher {name}"))?;
    if context.output.is_json() {
        context.output.json(&answer)?;
    } else {
        context.output.text(&format!("{key}\n"))?;
        context
            .output
            .remark("hosts obey it once their bundle or their policy.toml lists it")?;
    }
    Ok(0)
}

async fn remove(context: &Context, key: &Public<Dispatcher>) -> anyhow::Result<u8> {
    let answer: serde_json::Value = context
        .client
        .delete(&format!("/v1/dispatchers/{key}"))
        .await
        .context("remove dispatcher")?;
    if context.output.is_json() {
        context.output.json(&answer)?;
    } else {
        context.output.text(&format!("{key}\n"))?;
    }
    Ok(0)
}

async fn list(context: &Context) -> anyhow::Result<u8> {
    let dispatchers = api::dispatchers(&context.client).await?;
    if context.output.is_json() {
        context.output.json(&dispatchers)?;
        return Ok(0);
    }
    let own = context
        .key_path()
        .and_then(|path| order::read_key(&path))
        .map(|key| key.public().to_string())
        .ok();
    let now = clock::unix();
    let rows: Vec<Vec<String>> = dispatchers
        .into_iter()
        .map(|dispatcher| {
            let end = dispatcher
                .until_ms
                .map(|until| units::date(UnixMillis(until)));
            let is_own = own.as_ref() == Some(&dispatcher.key);
            let mark = if is_own { "yes" } else { "" };
            vec![
                dispatcher.name,
                dispatcher.key,
                units::ago(dispatcher.added_ms, now),
                end.unwrap_or_default(),
                mark.to_owned(),
            ]
        })
        .collect();
    context
        .output
        .table(&["NAME", "KEY", "ADDED", "ENDS", "YOURS"], &rows)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::super::known_hosts::tests::secret;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_closed_to_others_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("outhaul").join(order::KEY_FILE);
        let key = make_key(&path).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(make_key(&path).is_err());
        assert_eq!(order::read_key(&path).unwrap().public(), key);
    }

    #[test]
    fn a_default_name_is_short_plain_and_of_this_key() {
        let key = secret::<Dispatcher>(1).public();
        let name = default_name(Some("ada\u{1b}[2J lovelace"), &key);
        assert!(name.starts_with("ada2Jlovelace-"), "{name}");
        assert_ne!(
            name,
            default_name(Some("ada2Jlovelace"), &secret(2).public())
        );
        assert!(default_name(None, &key).starts_with("dispatcher-"));
        assert!(default_name(Some(&"x".repeat(500)), &key).len() <= 64);
    }
}
