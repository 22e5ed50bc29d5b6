//! `outhaul-agent egress`: the one way out of a sandbox.
//!
//! A sandbox has no network. Its run directory holds a unix socket on which this process listens, and this process connects whoever
//! may ask to the broker's one authority, byte for byte: TLS is between the shim and the broker. It is a process of its own so that
//! restarting the operator cuts no stream, and after a restart of its own it finds its sockets again in the run directory.
//!
//! It must share the engine's pid namespace: that the peer is a container's first process is read from `/proc`.

mod control;
mod peer;
mod relay;
pub mod request;
mod sockets;

use std::{os::unix::net::UnixStream, path::PathBuf, rc::Rc};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use smol::LocalExecutor;

use crate::shell::transport::Proxy;

pub use control::CONTROL_SOCKET;
pub use sockets::SANDBOX_SOCKET;

/// The process id of a pid namespace's first process.
const FIRST_PROCESS: u32 = 1;

/// What the egress process needs to know.
#[derive(Clone, Debug)]
pub struct EgressOptions {
    /// The run directory that it shares with the operator.
    pub run_dir: PathBuf,
    /// The broker's authority, `name:port`: the only one it ever dials.
    pub broker: String,
    /// The way to the broker, if not direct.
    pub proxy: Option<Proxy>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// If the run directory cannot be used, another egress process already serves it, or this is the first process of a container, which
/// sees no sandbox's processes.
pub fn run(options: EgressOptions) -> anyhow::Result<()> {
    // Every sandbox would be refused, and nobody would know why.
    anyhow::ensure!(
        std::process::id() != FIRST_PROCESS,
        "start egress: in a pid namespace of its own it cannot see who asks for a way out: share the host's (compose: `pid: host`)"
    );
    let executor = Rc::new(LocalExecutor::new());
    let woken = signal_pipe()?;
    smol::block_on(executor.run(async {
        let _lock = sockets::lock(&options.run_dir)?;
        let options = Rc::new(options);
        let sockets = Rc::new(sockets::Sockets::new(options.clone(), executor.clone()));
        sockets.open_all()?;
        let control = control::listen(&options.run_dir)?;
        let serving = executor.spawn(control::serve(control, sockets.clone(), executor.clone()));
        tracing::info!(run_dir = %options.run_dir.display(), broker = options.broker, "egress is ready");
        woken.readable().await.context("wait for a signal")?;
        serving.cancel().await;
        Ok(())
    }))
}

/// A socket that becomes readable when the process is asked to end.
fn signal_pipe() -> anyhow::Result<smol::Async<UnixStream>> {
    let (woken, wake) = UnixStream::pair().context("make a signal pipe")?;
    for signal in [SIGTERM, SIGINT] {
        let wake = wake.try_clone().context("make a signal pipe")?;
        signal_hook::low_level::pipe::register(signal, wake).context("listen for signals")?;
    }
    smol::Async::new(woken).context("watch the signal pipe")
}
