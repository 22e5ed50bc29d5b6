//! `outhaul host`: adding hosts, and the bundle that is carried to each.

mod right;
mod show;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use protocol::{
    bundle::{BUNDLE_FILE, CA_FILE, INSTALL_KEY_FILE},
    id::{HostId, hex},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Context, api, order, place, terminal::one_line, units};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum HostCommand {
    /// Add a host, and write the bundle to install there
    ///
    /// The bundle is a directory of three files: where the broker is and whom the host obeys, the only certificate authority it
    /// trusts, and an install key that enrols it, once. Carry it to the host and start `outhaul-agent run --bundle DIR` there.
    /// The host obeys your dispatcher key: make one first with `outhaul dispatcher init`.
    #[command(
        after_help = "Example:\n  outhaul host add edge-1 --kind docker --out ./edge-1-bundle"
    )]
    Add(AddArgs),
    /// List the hosts, and which of them are connected
    #[command(after_help = "Example:\n  outhaul host list --json")]
    List {
        /// Those too that were removed
        #[arg(long)]
        all: bool,
    },
    /// Show a host: its keys, its clock, its sandboxes, its install keys, and who added it
    #[command(after_help = "Example:\n  outhaul host show edge-1")]
    Show {
        /// Which
        #[arg(value_name = "NAME")]
        name: HostId,
    },
    /// Call a host something else in lists, beside its name
    ///
    /// The name itself never changes: topics, tokens, the journal and the audit trail go by it, and so does every command here.
    #[command(
        after_help = "Examples:\n  outhaul host rename edge-1 'Rack 4, Berlin'\n  outhaul host rename edge-1 --clear"
    )]
    Rename(right::RenameArgs),
    /// Take a host that is not needed any more out of the lists
    ///
    /// Its rights end, for good, and its name is never used again; what the journal has of it stays, and so does its audit trail. One that
    /// is connected or has sandboxes is removed with --force only. In an emergency: `outhaul host revoke`, which leaves it in the lists.
    #[command(after_help = "Example:\n  outhaul host remove edge-1")]
    Remove(right::RemoveArgs),
    /// Unlock a host that was locked because two machines used its identity: the key it had counts again
    #[command(after_help = "Example:\n  outhaul host unlock edge-1")]
    Unlock {
        /// Which
        #[arg(value_name = "NAME")]
        name: HostId,
    },
    /// Take a host's rights away for good, and close its connections; its name is never used again
    ///
    /// Or less than all of them: --install-key makes a bundle worthless that nobody has used yet; --generation takes a key back that may
    /// be in other hands, and every one before it. A sandbox alone: `outhaul sandbox revoke`.
    #[command(
        after_help = "Examples:\n  outhaul host revoke edge-1\n  outhaul host revoke edge-1 --generation 7\n  outhaul host revoke edge-1 --install-key"
    )]
    Revoke(right::RevokeArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// The host's name: up to 64 of a-z, 0-9 and '-'
    #[arg(value_name = "NAME")]
    name: HostId,
    /// What runs sandboxes there
    #[arg(long, value_enum)]
    kind: HostKind,
    /// Where to write the bundle; it must not exist [default: ./NAME-bundle]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make a new bundle for a host that is enrolled: the machine that uses it takes the place of the one it has
    #[arg(long)]
    reissue: bool,
}

/// What runs sandboxes on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum HostKind {
    /// A Docker engine
    Docker,
}

impl HostKind {
    fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
        }
    }
}

#[derive(Serialize)]
struct Request<'a> {
    name: &'a HostId,
    kind: &'static str,
    dispatchers: Vec<String>,
    reissue: bool,
}

#[derive(Deserialize)]
struct Added {
    broker: String,
    /// The install key is among them: wiped when dropped.
    #[serde(deserialize_with = "wiped")]
    bundle: BTreeMap<String, Zeroizing<String>>,
    key_fingerprint: String,
    expires_ms: u64,
}

fn wiped<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Zeroizing<String>>, D::Error> {
    let files = BTreeMap::<String, String>::deserialize(deserializer)?;
    Ok(files
        .into_iter()
        .map(|(name, text)| (name, Zeroizing::new(text)))
        .collect())
}

pub(super) async fn execute(context: &Context, command: HostCommand) -> anyhow::Result<u8> {
    match command {
        HostCommand::Add(args) => add(context, args).await,
        HostCommand::List { all } => list(context, all).await,
        HostCommand::Show { name } => show::show(context, &name).await,
        HostCommand::Rename(args) => right::rename(context, args).await,
        HostCommand::Remove(args) => right::remove(context, &args).await,
        HostCommand::Unlock { name } => change(context, &name, "unlock").await,
        HostCommand::Revoke(args) => right::revoke(context, &args).await,
    }
}

async fn add(context: &Context, args: AddArgs) -> anyhow::Result<u8> {
    let name = args.name;
    let out = args
        .out
        .unwrap_or_else(|| PathBuf::from(format!("{name}-bundle")));
    // Before the broker is asked: an install key that cannot be written down would be lost.
    let bundle = Bundle::prepare(&out)?;
    let dispatcher = order::read_key(&context.key_path()?)
        .context("add host: it would obey nobody")?
        .public();
    let request = Request {
        name: &name,
        kind: args.kind.word(),
        dispatchers: vec![dispatcher.to_string()],
        reissue: args.reissue,
    };
    let added: Added = context
        .client
        .post("/v1/hosts", &request)
        .await
        .with_context(|| format!("add host {name}"))?;
    bundle.write(&added.bundle)?;
    if context.output.is_json() {
        context.output.json(&json!({
            "host": name, "broker": added.broker, "bundle": out,
            "key_fingerprint": added.key_fingerprint, "expires_ms": added.expires_ms,
        }))?;
    } else {
        context
            .output
            .text(&next_steps(&name, &out, &added, clock::unix()))?;
    }
    Ok(0)
}

async fn change(context: &Context, name: &HostId, what: &str) -> anyhow::Result<u8> {
    let answer: serde_json::Value = context
        .client
        .post(&format!("/v1/hosts/{name}/{what}"), &json!({}))
        .await
        .with_context(|| format!("{what} host {name}"))?;
    if context.output.is_json() {
        context.output.json(&answer)?;
    } else {
        context.output.text(&format!("{name}\n"))?;
    }
    Ok(0)
}

fn next_steps(name: &HostId, out: &Path, added: &Added, now: UnixMillis) -> String {
    let good_for = units::duration(UnixMillis(added.expires_ms).since(now));
    format!(
        "Added host {name}. Its bundle is in {out} (install key {fingerprint}, good once, for {good_for}).\n\
         \n\
         Next, on {name}, which needs a way out to {broker}:\n  \
         1. copy the directory there, over a channel you trust:  scp -pr {out} {name}:\n  \
         2. write a policy.toml that lists the images it may run\n  \
         3. start the egress process:  outhaul-agent egress --bundle {out_name}\n  \
         4. start the operator:  outhaul-agent run --bundle {out_name} --policy policy.toml\n\
         Then, here:  outhaul host list   and   outhaul run --host {name} IMAGE\n",
        out = out.display(),
        out_name = Path::new(out.file_name().unwrap_or_default()).display(),
        fingerprint = one_line(&added.key_fingerprint),
        broker = one_line(&added.broker),
    )
}

/// A bundle on its way: written beside its place, and moved there whole.
#[derive(Debug)]
struct Bundle {
    place: PathBuf,
    /// Made already, so that what can fail has failed before there is a key to lose.
    draft: PathBuf,
    done: std::cell::Cell<bool>,
}

impl Bundle {
    fn prepare(place: &Path) -> anyhow::Result<Self> {
        if place::is_taken(place) {
            bail!(
                "write bundle: {} exists; name another place with --out",
                place.display()
            );
        }
        let Some(name) = place.file_name() else {
            bail!("write bundle: {} is no name for one", place.display());
        };
        let mut draft_name = std::ffi::OsString::from(".");
        draft_name.push(name);
        draft_name.push(format!(".{}", hex(&order::random::<4>()?)));
        let draft = place.with_file_name(draft_name);
        place::make_private_dir(&draft)?;
        Ok(Self {
            place: place.to_owned(),
            draft,
            done: std::cell::Cell::new(false),
        })
    }

    fn write(&self, files: &BTreeMap<String, Zeroizing<String>>) -> anyhow::Result<()> {
        // The names are ours: what the broker calls its files is no path here.
        for (name, mode) in [
            (BUNDLE_FILE, 0o644),
            (CA_FILE, 0o644),
            (INSTALL_KEY_FILE, 0o600),
        ] {
            let Some(text) = files.get(name) else {
                bail!("write bundle: the broker sent no {name}");
            };
            place::write_new(&self.draft.join(name), mode, text.as_bytes())?;
        }
        place::sync_dir(&self.draft)?;
        // Fails if a directory with something in it has come there meanwhile.
        std::fs::rename(&self.draft, &self.place)
            .with_context(|| format!("write bundle {}", self.place.display()))?;
        self.done.set(true);
        match self.place.parent() {
            Some(parent) if parent.as_os_str().is_empty() => place::sync_dir(Path::new(".")),
            Some(parent) => place::sync_dir(parent),
            None => Ok(()),
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        if !self.done.get() {
            // Nothing of a bundle that was not finished stays; if that fails too, the first error is the one to tell.
            let _ = std::fs::remove_dir_all(&self.draft);
        }
    }
}

async fn list(context: &Context, all: bool) -> anyhow::Result<u8> {
    let hosts = api::hosts(&context.client, all).await?;
    if context.output.is_json() {
        context.output.json(&hosts)?;
        return Ok(0);
    }
    let now = clock::unix();
    let rows: Vec<Vec<String>> = hosts
        .into_iter()
        .map(|host| {
            let seen = match host.last_seen_ms {
                _ if host.connected => "now".to_owned(),
                Some(seen) => units::ago(seen, now),
                None => "never".to_owned(),
            };
            vec![
                host.name,
                host.kind,
                host.state,
                if host.connected { "yes" } else { "no" }.to_owned(),
                host.generation.to_string(),
                seen,
                host.label.unwrap_or_default(),
            ]
        })
        .collect();
    let header = [
        "NAME",
        "KIND",
        "STATE",
        "CONNECTED",
        "GENERATION",
        "LAST SEEN",
        "LABEL",
    ];
    context.output.table(&header, &rows)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn files() -> BTreeMap<String, Zeroizing<String>> {
        [BUNDLE_FILE, CA_FILE, INSTALL_KEY_FILE, "../escape"]
            .into_iter()
            .map(|name| (name.to_owned(), Zeroizing::new(name.to_owned())))
            .collect()
    }

    fn entries(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_bundle_has_its_three_files_and_nothing_that_the_broker_adds() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("edge-1-bundle");
        Bundle::prepare(&out).unwrap().write(&files()).unwrap();
        assert_eq!(entries(&out), ["bundle.toml", "ca.crt", "install.key"]);
        assert_eq!(entries(directory.path()), ["edge-1-bundle"]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&out), 0o700);
        assert_eq!(mode(&out.join(INSTALL_KEY_FILE)), 0o600);
    }

    #[test]
    fn a_bundle_that_is_there_is_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Bundle::prepare(directory.path()).is_err());
    }

    #[test]
    fn half_a_bundle_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("edge-1-bundle");
        let mut half = files();
        half.remove(INSTALL_KEY_FILE);
        assert!(Bundle::prepare(&out).unwrap().write(&half).is_err());
        assert!(entries(directory.path()).is_empty());
    }

    #[test]
    fn what_to_do_next_names_the_place_and_never_the_key() {
        let added = Added {
            broker: "broker.example:8443".to_owned(),
            bundle: files(),
            key_fingerprint: "ab12".to_owned(),
            expires_ms: 3_600_000,
        };
        let name = HostId::new("edge-1").unwrap();
        let text = next_steps(&name, Path::new("/tmp/b"), &added, UnixMillis(0));
        assert!(
            text.contains("good once, for 1h") && text.contains("--bundle b "),
            "{text}"
        );
    }
}
