//! Everything that the operator starts from: read once, and whatever is wrong with it is found here.

use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use protocol::bundle::CA_FILE;
use signal_hook::consts::{SIGINT, SIGTERM};
use smol::channel::Sender;

use super::site::{Mail, Site};
use super::trust::Trust;
use crate::config::Config;
use crate::core::dispatcher::Dispatchers;
use crate::core::host::identity::Identity;
use crate::core::policy::Policy;
use crate::shell::bundle::Bundle;
use crate::shell::rundir::RunDir;
use crate::shell::server_time::ServerTime;
use crate::shell::store::{self, Store};

/// Other processes of the same user shall not read the host's key from memory, nor a core file hold it.
pub(super) fn protect_memory() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("protect the operator's memory: {error}");
    }
}

/// A socket that becomes readable when the process is asked to end.
pub(super) fn signal_pipe() -> anyhow::Result<smol::Async<UnixStream>> {
    let (woken, wake) = UnixStream::pair().context("make a signal pipe")?;
    for signal in [SIGTERM, SIGINT] {
        let wake = wake.try_clone().context("make a signal pipe")?;
        signal_hook::low_level::pipe::register(signal, wake).context("listen for signals")?;
    }
    smol::Async::new(woken).context("watch the signal pipe")
}

/// Reads everything that the operator starts from. Whatever is wrong with it is found here.
pub(super) fn open(config: &Config, mail: Sender<Mail>, look: Sender<()>) -> anyhow::Result<Site> {
    let bundle = Bundle::read(config.bundle()?)?.with_state_dir(&config.state_dir);
    let policy = read_policy(config)?;
    let secrets = [
        &config.state_dir,
        &config.run_dir,
        &config.docker_socket,
        &bundle.dir,
    ];
    let secrets: Vec<_> = secrets.into_iter().cloned().collect();
    let secret_paths: Vec<_> = secrets.iter().map(std::path::PathBuf::as_path).collect();
    let policy_name = config
        .policy
        .as_ref()
        .map_or_else(String::new, |path| path.display().to_string());
    policy.check_sources(&secret_paths, &policy_name)?;
    let store = Store::open(&config.state_dir)?;
    let identity = match store.load_identity()? {
        Some(identity) => {
            store::check_host(&config.state_dir, &identity.host, &bundle.host)?;
            identity
        }
        None => Identity::new(bundle.host.clone()),
    };
    if identity.current.is_none() {
        // Read now only to say at once what is wrong with it.
        bundle.install_key()?;
    }
    let run_dir = RunDir::open(&config.run_dir, &config.shim)?;
    let time = ServerTime::new(bundle.issued, identity.fix.clone());
    let trust = Trust::open(&bundle.ca, &store, Arc::new(time.clone()))
        .with_context(|| format!("read {}", bundle.dir.join(CA_FILE).display()))?;
    let witness = store.load_witness()?;
    let records = store.load_sandboxes()?;
    Ok(Site {
        host: bundle.host.clone(),
        broker: bundle.broker.clone(),
        policy,
        secrets,
        docker_socket: config.docker_socket.clone(),
        run_dir,
        time,
        proxy: config.proxy.clone(),
        trust: Mutex::new(trust),
        mail,
        look,
        identity: Mutex::new(identity),
        records: Mutex::new(
            records
                .into_iter()
                .map(|r| (r.sandbox.clone(), r))
                .collect(),
        ),
        engine: Mutex::new(None),
        engine_answers: AtomicBool::new(false),
        said: Mutex::default(),
        witness: Mutex::new(witness),
        audit_vkey: bundle.audit_vkey.clone(),
        other_witnesses: Mutex::default(),
        bundle,
        store,
    })
}

/// Whom the host obeys: its owner's list, and what became of those keys since. The list is written down, with its dates.
pub(super) fn open_dispatchers(site: &Site) -> anyhow::Result<Dispatchers> {
    let earlier = site.store.load_dispatchers()?;
    let listed = site.bundle.dispatchers.iter();
    let listed = listed.chain(site.policy.dispatchers()).copied();
    let now = site.time.now().unix;
    let dispatchers = Dispatchers::open(listed, earlier.clone(), site.bundle.issued, now);
    if earlier.as_ref() != Some(dispatchers.learned()) {
        site.store.save_dispatchers(dispatchers.learned())?;
    }
    let obeyed = dispatchers.obeyed(now);
    let obeyed: Vec<_> = obeyed.iter().map(ToString::to_string).collect();
    tracing::info!(dispatchers = obeyed.join(" "), "whom this host obeys");
    Ok(dispatchers)
}

fn read_policy(config: &Config) -> anyhow::Result<Policy> {
    match &config.policy {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read policy {}", path.display()))?;
            Ok(Policy::parse(&text, &path.display().to_string())?)
        }
        None => {
            tracing::warn!(
                "no policy: nothing may run on this host until --policy names a file that allows it"
            );
            Ok(Policy::default())
        }
    }
}
