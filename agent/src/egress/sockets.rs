//! One listening unix socket for each sandbox, found again after a restart.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Context as _;
use protocol::id::SandboxId;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use smol::{LocalExecutor, Task, net::unix::UnixListener};

use super::{EgressOptions, relay};

/// The socket's name in a sandbox's `in` directory.
pub const SANDBOX_SOCKET: &str = "egress.sock";

/// Connections at once from one sandbox: a shim needs one, and a second while it redials.
const CONNECTIONS_MAX: usize = 4;

/// Sandboxes at once. A host runs a few dozen.
const SANDBOXES_MAX: usize = 1024;

/// Makes sure that there is one egress process for a run directory.
pub(super) fn lock(run_dir: &Path) -> anyhow::Result<OwnedFd> {
    make(run_dir)?;
    let path = run_dir.join("egress.lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(&path, flags, Mode::from_raw_mode(0o600)).with_context(|| {
        format!(
            "open {}: is the run directory there and ours?",
            path.display()
        )
    })?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).with_context(|| {
        format!(
            "lock {}: another egress process serves this run directory",
            path.display()
        )
    })?;
    Ok(file)
}

/// Makes the run directory if the operator has not yet: whichever of us starts first does. Others may pass through it, not list it.
fn make(run_dir: &Path) -> anyhow::Result<()> {
    let private_then_passable = [(run_dir.parent(), 0o700), (Some(run_dir), 0o711)];
    for (dir, mode) in private_then_passable {
        let Some(dir) = dir.filter(|dir| !dir.exists()) else {
            continue;
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(dir)
            .with_context(|| format!("make {}", dir.display()))?;
    }
    Ok(())
}

/// The sockets that are open.
pub(super) struct Sockets {
    options: Rc<EgressOptions>,
    executor: Rc<LocalExecutor<'static>>,
    open: RefCell<BTreeMap<SandboxId, Task<()>>>,
}

impl Sockets {
    pub(super) fn new(options: Rc<EgressOptions>, executor: Rc<LocalExecutor<'static>>) -> Self {
        Self {
            options,
            executor,
            open: RefCell::default(),
        }
    }

    /// Opens the socket of every sandbox in the run directory.
    pub(super) fn open_all(&self) -> anyhow::Result<()> {
        let run_dir = &self.options.run_dir;
        let entries =
            fs::read_dir(run_dir).with_context(|| format!("list {}", run_dir.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(sandbox) = name.to_str().and_then(|name| SandboxId::new(name).ok()) else {
                continue;
            };
            if let Err(error) = self.open(&sandbox) {
                tracing::warn!(%sandbox, "no way out for a sandbox: {error:#}");
            }
        }
        Ok(())
    }

    /// Opens a sandbox's socket; open already is as good.
    pub(super) fn open(&self, sandbox: &SandboxId) -> anyhow::Result<()> {
        let mut open = self.open.borrow_mut();
        if open.contains_key(sandbox) {
            return Ok(());
        }
        anyhow::ensure!(
            open.len() < SANDBOXES_MAX,
            "more than {SANDBOXES_MAX} sandboxes"
        );
        let listener = bind(&self.path(sandbox), 0o666)?;
        let accepting = accept(
            listener,
            sandbox.clone(),
            self.options.clone(),
            self.executor.clone(),
        );
        open.insert(sandbox.clone(), self.executor.spawn(accepting));
        Ok(())
    }

    /// Closes a sandbox's socket. What is connected stays so until it ends.
    pub(super) fn close(&self, sandbox: &SandboxId) {
        self.open.borrow_mut().remove(sandbox);
        let _ = fs::remove_file(self.path(sandbox));
    }

    fn path(&self, sandbox: &SandboxId) -> PathBuf {
        self.options
            .run_dir
            .join(sandbox.as_str())
            .join("in")
            .join(SANDBOX_SOCKET)
    }
}

/// Listens at `path`, in place of whatever a process before us left there.
pub(super) fn bind(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("remove {}", path.display()));
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {}", path.display()))?;
    Ok(listener)
}

async fn accept(
    listener: UnixListener,
    sandbox: SandboxId,
    options: Rc<EgressOptions>,
    executor: Rc<LocalExecutor<'static>>,
) {
    let connected = Rc::new(Cell::new(0));
    let denied = Rc::new(Cell::new(0_u64));
    while let Ok((peer, _)) = listener.accept().await {
        if connected.get() >= CONNECTIONS_MAX {
            // Not a word: a sandbox that floods us gets a closed door, and the next in the queue gets its turn.
            drop(peer);
            smol::future::yield_now().await;
            continue;
        }
        connected.set(connected.get() + 1);
        let (connected, denied) = (connected.clone(), denied.clone());
        let (sandbox, options) = (sandbox.clone(), options.clone());
        let serving = async move {
            if let Err(error) = relay::serve(peer, &options).await {
                denied.set(denied.get() + 1);
                // A sandbox must not be able to fill the log: the 1st, 2nd, 4th, 8th … are written.
                if denied.get().is_power_of_two() {
                    tracing::warn!(%sandbox, denied = denied.get(), "{error:#}");
                }
            }
            connected.set(connected.get() - 1);
        };
        executor.spawn(serving).detach();
    }
}
