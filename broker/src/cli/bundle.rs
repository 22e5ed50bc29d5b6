//! A bundle on its way to a host: asked for, checked, and written whole.
//!
//! From the broker come its address, its authority and the install key. What is applied on the host by root is written here, from this
//! program; and that the host obeys exactly those who were asked for is checked before anything is written.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use protocol::{
    bundle::{self, BUNDLE_FILE, CA_FILE, INSTALL_KEY_FILE},
    id::{HostId, hex},
    key::{Dispatcher, Public},
    time::UnixMillis,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Context, order, place, terminal::one_line, units};
use crate::{
    core::bundle::{Facts, File, check, files},
    shell::clock,
};

/// The operator's image, unless another is named: what `deploy/image/build.sh` makes.
const IMAGE: &str = concat!("outhaul-agent:", env!("CARGO_PKG_VERSION"));

#[derive(Debug, clap::Args)]
pub(super) struct BundleArgs {
    /// Where to write the bundle; it must not exist [default: ./NAME-bundle]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The operator's image, as the host's engine will know it; nothing is pulled
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// Another dispatcher that the host obeys, beside you: a public key, ohd1_…; may be repeated
    #[arg(long = "dispatcher", value_name = "KEY")]
    dispatchers: Vec<Public<Dispatcher>>,
    /// Make a bundle for a host that is enrolled: the machine that uses it takes the place of the one it has
    #[arg(long)]
    reissue: bool,
}

/// What the broker is asked for.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    /// The host's name, where the path does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<&'a HostId>,
    /// What runs sandboxes there, for a host that is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    dispatchers: Vec<String>,
    reissue: bool,
}

/// What it answers.
#[derive(Deserialize)]
struct Issued {
    broker: String,
    /// The install key is among them: wiped when dropped.
    #[serde(deserialize_with = "wiped")]
    bundle: BTreeMap<String, Zeroizing<String>>,
    key_fingerprint: String,
    expires_ms: u64,
    /// Why the broker cannot reach itself where hosts will dial it.
    unreachable: Option<String>,
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

/// Asks for a bundle by posting to `path`, and writes it. `kind` is for a host that is new.
pub(super) async fn fetch(
    context: &Context,
    name: &HostId,
    kind: Option<&'static str>,
    args: BundleArgs,
) -> anyhow::Result<u8> {
    let out = args
        .out
        .unwrap_or_else(|| PathBuf::from(format!("{name}-bundle")));
    // Before the broker is asked: an install key that cannot be written down would be lost.
    let place_holder = Facts {
        host: name,
        broker: "broker:1",
        image: &args.image,
    };
    files(&place_holder).context("write bundle")?;
    let draft = Draft::prepare(&out)?;
    let mut dispatchers = vec![
        order::read_key(&context.key_path()?)
            .context("make a bundle: its host would obey nobody")?
            .public(),
    ];
    for other in args.dispatchers {
        if !dispatchers.contains(&other) {
            dispatchers.push(other);
        }
    }
    let request = Request {
        name: kind.is_some().then_some(name),
        kind,
        dispatchers: dispatchers.iter().map(ToString::to_string).collect(),
        reissue: args.reissue,
    };
    let (path, doing) = match kind {
        Some(_) => ("/v1/hosts".to_owned(), "add host"),
        None => (format!("/v1/hosts/{name}/bundle"), "fetch bundle of host"),
    };
    let issued: Issued = context
        .client
        .post(&path, &request)
        .await
        .with_context(|| format!("{doing} {name}"))?;
    judge(name, &issued, &dispatchers).with_context(|| {
        format!(
            "{doing} {name}: the broker's answer is not what was asked for, and nothing was written"
        )
    })?;
    let ours = files(&Facts {
        broker: &issued.broker,
        ..place_holder
    })
    .context("write bundle")?;
    draft.write(&issued.bundle, &ours).with_context(|| {
        format!(
            "nothing of the bundle is left, nor of its install key; once this is mended, `outhaul host bundle {name}` makes \
             another, and voids that one"
        )
    })?;
    say(context, name, &out, &issued, kind.is_some())?;
    Ok(0)
}

/// Whether the broker's part is what was asked for.
fn judge(name: &HostId, issued: &Issued, dispatchers: &[Public<Dispatcher>]) -> anyhow::Result<()> {
    let text = issued
        .bundle
        .get(BUNDLE_FILE)
        .with_context(|| format!("it has no {BUNDLE_FILE}"))?;
    let read: bundle::Bundle =
        toml::from_str(text).with_context(|| format!("read its {BUNDLE_FILE}"))?;
    Ok(check(&read, name, &issued.broker, dispatchers)?)
}

fn say(
    context: &Context,
    name: &HostId,
    out: &Path,
    issued: &Issued,
    is_new: bool,
) -> anyhow::Result<()> {
    let warning = issued.unreachable.as_deref().map(|why| {
        format!(
            "the broker cannot reach itself at {}, where this host will dial it ({}). Behind a NAT that may be nothing; if it is not, \
             the host cannot either: check the name, the port and the firewall",
            one_line(&issued.broker),
            one_line(why)
        )
    });
    if context.output.is_json() {
        return context.output.json(&json!({
            "host": name, "broker": issued.broker, "bundle": out,
            "key_fingerprint": issued.key_fingerprint, "expires_ms": issued.expires_ms, "warning": warning,
        }));
    }
    if let Some(warning) = warning {
        context.output.remark(&format!("warning: {warning}"))?;
    }
    let text = next_steps(name, out, issued, is_new, clock::unix());
    context.output.text(&text)
}

fn next_steps(name: &HostId, out: &Path, issued: &Issued, is_new: bool, now: UnixMillis) -> String {
    let good_for = units::duration(UnixMillis(issued.expires_ms).since(now));
    let begin = match is_new {
        true => format!("Added host {name}. Its bundle"),
        false => format!("A fresh bundle of host {name}, whose unused key before is void,"),
    };
    format!(
        "{begin} is in {out} (install key {fingerprint}, good once, for {good_for}).\n\
         \n\
         Next, for {name}, which needs a way out to {broker}:\n  \
         1. list the images that it may run in policy.toml, which allows nothing as it is\n  \
         2. copy the directory there, over a channel you trust:  scp -pr {out} {name}:\n  \
         3. there, in it:  sudo ./install.sh compose   or   sudo ./install.sh systemd   (README.txt says what they do)\n\
         Then, here:  outhaul host list   and   outhaul run --host {name} IMAGE\n",
        out = out.display(),
        fingerprint = one_line(&issued.key_fingerprint),
        broker = one_line(&issued.broker),
    )
}

/// A bundle on its way: written beside its place, and moved there whole.
#[derive(Debug)]
struct Draft {
    place: PathBuf,
    /// Made already, so that what can fail has failed before there is a key to lose.
    draft: PathBuf,
    done: std::cell::Cell<bool>,
}

impl Draft {
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

    fn write(
        &self,
        brokers: &BTreeMap<String, Zeroizing<String>>,
        ours: &[File],
    ) -> anyhow::Result<()> {
        for file in ours {
            let path = self.draft.join(file.name);
            if let Some(folder) = path.parent().filter(|folder| *folder != self.draft) {
                place::make_private_dir(folder)?;
            }
            place::write_new(&path, file.mode, file.text.as_bytes())?;
        }
        // The names are ours: what the broker calls its files is no path here.
        for (name, mode) in [
            (BUNDLE_FILE, 0o644),
            (CA_FILE, 0o644),
            (INSTALL_KEY_FILE, 0o600),
        ] {
            let Some(text) = brokers.get(name) else {
                bail!("write bundle: the broker sent no {name}");
            };
            place::write_new(&self.draft.join(name), mode, text.as_bytes())?;
        }
        place::sync_dir(&self.draft)?;
        // Fails if a directory with something in it has come there meanwhile.
        std::fs::rename(&self.draft, &self.place)
            .with_context(|| format!("write bundle {}", self.place.display()))?;
        self.done.set(true);
        place::sync_dir(place::directory_of(&self.place))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done.get() {
            // Nothing of a bundle that was not finished stays; if that fails too, the first error is the one to tell.
            let _ = std::fs::remove_dir_all(&self.draft);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use protocol::key::Secret;

    use super::*;

    fn files_of_broker() -> BTreeMap<String, Zeroizing<String>> {
        [
            BUNDLE_FILE,
            CA_FILE,
            INSTALL_KEY_FILE,
            "../escape",
            "compose.yaml",
        ]
        .into_iter()
        .map(|name| (name.to_owned(), Zeroizing::new(format!("broker's {name}"))))
        .collect()
    }

    fn ours() -> Vec<File> {
        files(&Facts {
            host: &host(),
            broker: "broker.example:8443",
            image: IMAGE,
        })
        .unwrap()
    }

    fn host() -> HostId {
        HostId::new("edge-1").unwrap()
    }

    fn issued(bundle: BTreeMap<String, Zeroizing<String>>) -> Issued {
        Issued {
            broker: "broker.example:8443".to_owned(),
            bundle,
            key_fingerprint: "ab12".to_owned(),
            expires_ms: 3_600_000,
            unreachable: None,
        }
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
    fn a_bundle_has_our_files_three_of_the_brokers_and_nothing_that_it_adds() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("edge-1-bundle");
        let draft = Draft::prepare(&out).unwrap();
        draft.write(&files_of_broker(), &ours()).unwrap();
        assert_eq!(
            entries(&out),
            [
                "README.txt",
                "agent.env",
                "bundle.toml",
                "ca.crt",
                "compose.yaml",
                "install.key",
                "install.sh",
                "policy.toml",
                "systemd"
            ]
        );
        assert_eq!(entries(&out.join("systemd")).len(), 3);
        assert_eq!(entries(directory.path()), ["edge-1-bundle"]);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&out), 0o700);
        assert_eq!(mode(&out.join(INSTALL_KEY_FILE)), 0o600);
        assert_eq!(mode(&out.join("install.sh")), 0o755);
        let compose = std::fs::read_to_string(out.join("compose.yaml")).unwrap();
        assert!(
            compose.contains("cap_drop"),
            "what root applies is ours, whatever the broker sends"
        );
        for name in entries(&out)
            .iter()
            .filter(|name| *name != INSTALL_KEY_FILE && *name != "systemd")
        {
            let text = std::fs::read_to_string(out.join(name)).unwrap();
            assert!(
                !text.contains("broker's install.key"),
                "the key is in {name}"
            );
        }
    }

    #[test]
    fn a_bundle_that_is_there_is_never_touched() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Draft::prepare(directory.path()).is_err());
    }

    #[test]
    fn half_a_bundle_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("edge-1-bundle");
        let mut half = files_of_broker();
        half.remove(INSTALL_KEY_FILE);
        let draft = Draft::prepare(&out).unwrap();
        assert!(draft.write(&half, &ours()).is_err());
        drop(draft);
        assert!(entries(directory.path()).is_empty());
    }

    #[test]
    fn a_bundle_with_a_dispatcher_that_nobody_asked_for_is_not_taken() {
        let key = |byte| Secret::<Dispatcher>::from_seed(&Zeroizing::new([byte; 32])).public();
        let text = format!(
            "version = 1\nhost = \"edge-1\"\nkind = \"docker\"\nbroker = \"broker.example:8443\"\nissued_ms = 1\n\
             dispatchers = [\"{}\", \"{}\"]\n",
            key(1),
            key(9)
        );
        let mut sent = files_of_broker();
        sent.insert(BUNDLE_FILE.to_owned(), Zeroizing::new(text));
        let issued = issued(sent);
        let error = judge(&host(), &issued, &[key(1)]).unwrap_err().to_string();
        assert!(error.contains("other dispatchers"), "{error}");
        assert!(judge(&host(), &issued, &[key(1), key(9)]).is_ok());
    }

    #[test]
    fn what_to_do_next_names_the_place_and_never_the_key() {
        let issued = issued(files_of_broker());
        for (is_new, says) in [(true, "Added host edge-1"), (false, "key before is void")] {
            let text = next_steps(&host(), Path::new("/tmp/b"), &issued, is_new, UnixMillis(0));
            assert!(
                text.contains(says)
                    && text.contains("good once, for 1h")
                    && text.contains("scp -pr /tmp/b edge-1:")
                    && !text.contains("broker's"),
                "{text}"
            );
        }
    }
}
