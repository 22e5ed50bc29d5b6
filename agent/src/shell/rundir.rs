//! The run directory on disk: made, written, read and removed. Its layout is in [`crate::core::rundir`].
//!
//! A sandbox writes to its `out` directory, so whatever is read there may be a link, a pipe, a device or a gigabyte, and may
//! change while it is looked at. Everything goes through descriptors of directories, never follows a link, and is bounded.

mod hostile;
mod remove;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    id::SandboxId,
    key::{Public, Sandbox},
    limits::{PACKET_BYTES_MAX, TOKEN_BYTES_MAX},
};
use rustix::{
    fs::{
        AtFlags, CWD, Dir, Gid, Mode, OFlags, StatVfsMountFlags, Uid, fchmod, fchown, fstat,
        fstatvfs, linkat, mkdirat, openat, renameat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};
use smol::Timer;

use crate::core::rundir::{
    CA_FILE, IN, KEY_BYTES_MAX, KEY_FILE, LAUNCH_FILE, OUT, SHIM_FILE, SPOOL_DIR, STAGED_SHIM,
    TOKEN_FILE, batch_number,
};
use hostile::Owner;

/// How often the shim's key is looked for. It comes about 100 ms after the start, and every wait is felt.
const KEY_POLL: Duration = Duration::from_millis(5);
/// The largest shim that is staged, in bytes; a debug build is about 60 MB.
const SHIM_BYTES_MAX: u64 = 256 << 20;
/// The most leftover batches that are passed on. A spool of 64 MiB holds far fewer of any honest size.
const LEFTOVERS_MAX: usize = 65_536;
/// The most entries of a spool that are looked at.
const SPOOL_ENTRIES_MAX: usize = 4 * LEFTOVERS_MAX;
/// Sandboxes whose directories are listed.
const SANDBOXES_MAX: usize = 4096;

/// The run directory.
#[derive(Clone, Debug)]
pub struct RunDir {
    path: PathBuf,
    dir: Arc<OwnedFd>,
}

/// What is written into a new sandbox's directory.
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// `launch.json`.
    pub launch: &'a [u8],
    /// The broker's authority, PEM.
    pub ca: &'a [u8],
}

/// A batch that a shim left unsent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its place in the order.
    pub number: u64,
    name: OsString,
}

/// The directory of one sandbox.
#[derive(Debug)]
pub struct SandboxDir {
    input: OwnedFd,
    output: OwnedFd,
    owner: Owner,
}

impl RunDir {
    /// Opens the run directory, which is made if it is not there, and stages the shim in it, so that an update of the operator
    /// changes no file that a sandbox executes.
    ///
    /// # Errors
    /// If it cannot be made or is not ours, if programs cannot be run from it, or if the shim cannot be read.
    pub fn open(path: &Path, shim: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        let path =
            std::fs::canonicalize(path).with_context(|| format!("open {}", path.display()))?;
        let dir =
            hostile::open_dir(CWD, &path).with_context(|| format!("open {}", path.display()))?;
        let owner = fstat(&dir)
            .with_context(|| format!("look at {}", path.display()))?
            .st_uid;
        ensure!(
            owner == geteuid().as_raw(),
            "{} belongs to user {owner}: remove it, or run as that user",
            path.display()
        );
        let mount = fstatvfs(&dir).with_context(|| format!("look at {}", path.display()))?;
        ensure!(
            !mount.f_flag.contains(StatVfsMountFlags::NOEXEC),
            "{} is mounted noexec, and the shim runs from it: choose another --run-dir",
            path.display()
        );
        // Root's engine may start containers as a user that must pass through here; nobody else's does.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        fchmod(&dir, Mode::from_raw_mode(mode))
            .with_context(|| format!("protect {}", path.display()))?;
        stage(dir.as_fd(), shim).with_context(|| format!("stage the shim {}", shim.display()))?;
        Ok(Self {
            path,
            dir: Arc::new(dir),
        })
    }

    /// Where it is, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a sandbox's directory, over whatever an interrupted launch has left. `user` is the sandbox's user on this host,
    /// if it is known.
    ///
    /// # Errors
    /// If the disk is full or read-only.
    pub fn create(
        &self,
        sandbox: &SandboxId,
        files: Files<'_>,
        user: Option<(u32, u32)>,
    ) -> anyhow::Result<SandboxDir> {
        remove::remove(self.dir.as_fd(), sandbox.as_str())
            .with_context(|| format!("clear the directory of sandbox {sandbox}"))?;
        self.make(sandbox, files, user)
            .with_context(|| format!("make the directory of sandbox {sandbox}"))
    }

    /// Opens the directory of a sandbox that exists, after a restart.
    ///
    /// # Errors
    /// If it is not there or not as [`RunDir::create`] made it.
    pub fn get(&self, sandbox: &SandboxId) -> anyhow::Result<SandboxDir> {
        let dir = hostile::open_dir(&*self.dir, sandbox.as_str())
            .with_context(|| format!("open the directory of sandbox {sandbox}"))?;
        SandboxDir::open(&dir).with_context(|| format!("open the directory of sandbox {sandbox}"))
    }

    /// The sandboxes that have a directory.
    ///
    /// # Errors
    /// If the run directory cannot be read.
    pub fn list(&self) -> anyhow::Result<Vec<SandboxId>> {
        let mut found = Vec::new();
        for entry in Dir::read_from(&*self.dir)
            .context("list the run directory")?
            .take(SANDBOXES_MAX)
        {
            let entry = entry.context("list the run directory")?;
            if let Some(sandbox) = entry
                .file_name()
                .to_str()
                .ok()
                .and_then(|name| SandboxId::new(name).ok())
            {
                found.push(sandbox);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Removes a sandbox's directory with whatever the sandbox has put there; that there is none is as good. Its container must
    /// be gone. Runs on a thread of its own, for the sandbox decides how much there is to remove.
    ///
    /// # Errors
    /// If something in it cannot be removed, as when the operator is not root and the sandbox made directories.
    pub async fn remove(&self, sandbox: &SandboxId) -> anyhow::Result<()> {
        let (dir, name) = (self.dir.clone(), sandbox.clone());
        smol::unblock(move || remove::remove(dir.as_fd(), name.as_str()))
            .await
            .with_context(|| format!("remove the directory of sandbox {sandbox}"))
    }

    fn make(
        &self,
        sandbox: &SandboxId,
        files: Files<'_>,
        user: Option<(u32, u32)>,
    ) -> anyhow::Result<SandboxDir> {
        let dir = make_dir(self.dir.as_fd(), sandbox.as_str(), 0o711)?;
        let input = make_dir(dir.as_fd(), IN, 0o755)?;
        let output = make_dir(dir.as_fd(), OUT, 0o700)?;
        let spool = make_dir(output.as_fd(), SPOOL_DIR, 0o700)?;
        for dir in [&spool, &output] {
            give(dir.as_fd(), user)?;
        }
        write(input.as_fd(), LAUNCH_FILE, files.launch, 0o644)?;
        write(input.as_fd(), CA_FILE, files.ca, 0o644)?;
        link_shim(self.dir.as_fd(), input.as_fd()).context("place the shim")?;
        SandboxDir::open(&dir)
    }
}

impl SandboxDir {
    fn open(dir: &OwnedFd) -> anyhow::Result<Self> {
        let input = hostile::open_dir(dir, IN).context("open in")?;
        let output = hostile::open_dir(dir, OUT).context("open out")?;
        let owner = Owner::of(
            fstat(&output).context("look at out")?.st_uid,
            geteuid().as_raw(),
        );
        Ok(Self {
            input,
            output,
            owner,
        })
    }

    /// Gives the sandbox its token, whole or not at all.
    ///
    /// # Errors
    /// If the disk is full or read-only; the token that was there stays.
    pub fn write_token(&self, token: &[u8]) -> anyhow::Result<()> {
        ensure!(
            token.len() <= TOKEN_BYTES_MAX,
            "the token is longer than {TOKEN_BYTES_MAX} bytes"
        );
        write(self.input.as_fd(), TOKEN_FILE, token, 0o644).context("write the sandbox's token")
    }

    /// The shim's public key, if it is there.
    ///
    /// # Errors
    /// If what is there is not a key that the sandbox's user wrote.
    pub fn read_key(&self) -> anyhow::Result<Option<Public<Sandbox>>> {
        let Some(bytes) = hostile::read(self.output.as_fd(), KEY_FILE, KEY_BYTES_MAX, self.owner)
            .context("read the sandbox's key")?
        else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes).ok().map(str::trim_end);
        match text.and_then(|text| text.parse().ok()) {
            Some(key) => Ok(Some(key)),
            None => bail!("read the sandbox's key: not a sandbox key"),
        }
    }

    /// Waits until the shim has written its key, for at most `wait_max`; `None` if it did not.
    ///
    /// # Errors
    /// As [`SandboxDir::read_key`]: what is wrong does not get better.
    pub async fn wait_key(&self, wait_max: Duration) -> anyhow::Result<Option<Public<Sandbox>>> {
        let look = async {
            loop {
                if let Some(key) = self.read_key()? {
                    return Ok(Some(key));
                }
                Timer::after(KEY_POLL).await;
            }
        };
        let give_up = async {
            Timer::after(wait_max).await;
            Ok(None)
        };
        futures_lite::future::or(look, give_up).await
    }

    /// The batches that the shim left, in order. Whatever else lies there is not looked at.
    ///
    /// # Errors
    /// If the spool cannot be read. That it is gone is as good as empty: the sandbox may delete it, and the chain will show it.
    pub fn leftovers(&self) -> anyhow::Result<Vec<Leftover>> {
        let Some(spool) = self.spool()? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for entry in Dir::read_from(&spool)
            .context("list the spool")?
            .take(SPOOL_ENTRIES_MAX)
        {
            let name = entry
                .context("list the spool")?
                .file_name()
                .to_bytes()
                .to_vec();
            if let Some(number) = batch_number(&name)
                && found.len() < LEFTOVERS_MAX
            {
                found.push(Leftover {
                    number,
                    name: OsString::from_vec(name),
                });
            }
        }
        found.sort_unstable_by(|a, b| (a.number, &a.name).cmp(&(b.number, &b.name)));
        Ok(found)
    }

    /// A leftover batch, verbatim; `None` if it is gone or empty.
    ///
    /// # Errors
    /// If it is not a file of the sandbox's user, or longer than a packet: skip it.
    pub fn read_leftover(&self, leftover: &Leftover) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(spool) = self.spool()? else {
            return Ok(None);
        };
        let bytes = hostile::read(spool.as_fd(), &leftover.name, PACKET_BYTES_MAX, self.owner)
            .context("read a leftover batch")?;
        Ok(bytes.filter(|bytes| !bytes.is_empty()))
    }

    /// Forgets a leftover batch, once it has been passed on; that it is gone is as good.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove_leftover(&self, leftover: &Leftover) -> anyhow::Result<()> {
        let Some(spool) = self.spool()? else {
            return Ok(());
        };
        match unlinkat(&spool, &leftover.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).context("remove a leftover batch"),
        }
    }

    /// Whether the sandbox keeps more than `bytes_max` in its part, or more files or deeper directories than a shim makes. The
    /// engine sets no limit there, so whoever watches over the sandbox must.
    ///
    /// # Errors
    /// If its part cannot be read.
    pub fn is_over(&self, bytes_max: u64) -> anyhow::Result<bool> {
        hostile::is_over(self.output.as_fd(), bytes_max).context("measure the sandbox's files")
    }

    fn spool(&self) -> anyhow::Result<Option<OwnedFd>> {
        match hostile::open_dir(&self.output, SPOOL_DIR) {
            Ok(spool) => Ok(Some(spool)),
            // Gone, or replaced by a link or a file: the sandbox threw its leftovers away.
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).context("open the spool"),
        }
    }
}

/// Copies the shim into the run directory, whole or not at all.
fn stage(dir: BorrowedFd<'_>, shim: &Path) -> anyhow::Result<()> {
    let source = File::open(shim)?;
    let facts = source.metadata()?;
    ensure!(facts.is_file(), "not a file");
    ensure!(
        facts.len() <= SHIM_BYTES_MAX,
        "larger than {SHIM_BYTES_MAX} bytes"
    );
    let mut source = source.take(SHIM_BYTES_MAX);
    replace(dir, STAGED_SHIM, 0o555, |file| {
        io::copy(&mut source, file).map(drop)
    })
}

/// The same file for every sandbox: one copy on disk and in memory. A file system that cannot link gets a copy.
fn link_shim(run: BorrowedFd<'_>, input: BorrowedFd<'_>) -> anyhow::Result<()> {
    if linkat(run, STAGED_SHIM, input, SHIM_FILE, AtFlags::empty()).is_ok() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut staged = File::from(openat(run, STAGED_SHIM, flags, Mode::empty())?);
    replace(input, SHIM_FILE, 0o555, |file| {
        io::copy(&mut staged, file).map(drop)
    })
}

fn write(dir: BorrowedFd<'_>, name: &str, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    replace(dir, name, mode, |file| file.write_all(bytes)).with_context(|| format!("write {name}"))
}

/// Writes a file beside its place and moves it there. No fsync: what is here is void after a power cut anyway.
fn replace(
    dir: BorrowedFd<'_>,
    name: &str,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> anyhow::Result<()> {
    let new = format!(".{name}.new");
    match unlinkat(dir, &new, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(dir, &new, flags, Mode::from_raw_mode(0o600))?);
    let written = fill(&mut file)
        .and_then(|()| Ok(fchmod(&file, Mode::from_raw_mode(mode))?))
        .and_then(|()| Ok(renameat(dir, &new, dir, name)?));
    if written.is_err() {
        let _ = unlinkat(dir, &new, AtFlags::empty());
    }
    Ok(written?)
}

fn make_dir(parent: BorrowedFd<'_>, name: &str, mode: u32) -> anyhow::Result<OwnedFd> {
    mkdirat(parent, name, Mode::from_raw_mode(0o700)).with_context(|| format!("make {name}"))?;
    let dir = hostile::open_dir(parent, name).with_context(|| format!("open {name}"))?;
    // Whatever the umask is.
    fchmod(&dir, Mode::from_raw_mode(mode)).with_context(|| format!("protect {name}"))?;
    Ok(dir)
}

/// Lets the sandbox's user write to a directory: as its owner where we can make it that, else by its mode. The run directory
/// then keeps others out, for an operator that is not root.
fn give(dir: BorrowedFd<'_>, user: Option<(u32, u32)>) -> anyhow::Result<()> {
    match user {
        Some((uid, gid)) if geteuid().is_root() => {
            fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .context("give out to the sandbox")
        }
        Some(_) | None => {
            fchmod(dir, Mode::from_raw_mode(0o777)).context("give out to the sandbox")
        }
    }
}

#[cfg(test)]
mod tests;
