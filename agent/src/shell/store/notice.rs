//! What passes between a running operator and its owner's commands, which are other processes: through files of the state directory.
//!
//! The operator writes how it does and what its witness found; the owner's `accept-restore` writes what was accepted, and the operator
//! takes it up. Only the operator changes what it keeps.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::{ACCEPTED, EVIDENCE, LOCK, STATUS, Store, WITNESS, file};
use crate::core::status::{STATUS_BYTES_MAX, Status};
use crate::core::witness::{Stop, Witness, stored};

/// What an owner accepted is a hash.
const ACCEPTED_BYTES: usize = 32;

impl Store {
    /// Writes how the operator does. It is not synced: after a power cut there is another operator with another status.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_status(&self, json: &[u8]) -> anyhow::Result<()> {
        replace(&self.dir.join(STATUS), json)
    }

    /// What the owner accepted of the broker's audit trail, if anything waits.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load_accepted(&self) -> anyhow::Result<Option<[u8; ACCEPTED_BYTES]>> {
        let bytes = file::read(&self.dir.join(ACCEPTED), ACCEPTED_BYTES)?;
        Ok(bytes.and_then(|bytes| bytes.as_slice().try_into().ok()))
    }

    /// What the owner accepted was taken up.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove_accepted(&self) -> anyhow::Result<()> {
        file::remove(&self.dir.join(ACCEPTED))
    }

    /// Puts the notes that stopped this host where a person finds them, as the text that was signed, and says where. Each time its owner
    /// accepts and it is stopped again there are some more; they are small, and theirs to remove.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn save_evidence(&self, witness: &Witness, stop: &Stop) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(EVIDENCE);
        file::make_dir(&dir)?;
        let kept = witness.kept.as_ref().map(|kept| ("kept", &kept.note));
        let other = stop.other.as_ref().map(|other| ("other", &other.note));
        for (name, note) in [kept, Some(("shown", &stop.offered.note)), other]
            .into_iter()
            .flatten()
        {
            let path = dir.join(format!("{}-{name}.note", stop.since.0));
            replace(&path, note.to_string().as_bytes())?;
        }
        Ok(dir)
    }
}

/// What a host keeps of the broker's audit trail, without taking its lock: for those who only look.
///
/// # Errors
/// If the file is damaged or cannot be read.
pub fn read_witness(dir: &Path) -> anyhow::Result<Witness> {
    let path = dir.join(WITNESS);
    match file::read(&path, stored::BYTES_MAX)? {
        None => Ok(Witness::default()),
        Some(bytes) => Witness::from_bytes(&bytes)
            .ok_or_else(|| file::damaged(&path, "it is not a witness of this version")),
    }
}

/// Writes down what the owner accepts, for the operator to take up.
///
/// # Errors
/// If it is not on disk.
pub fn write_accepted(dir: &Path, digest: &[u8; ACCEPTED_BYTES]) -> anyhow::Result<()> {
    file::write(&dir.join(ACCEPTED), digest)
}

/// How the operator did when it last said so; nothing if it never did.
///
/// # Errors
/// If the file cannot be read or says nothing that is understood.
pub fn read_status(dir: &Path) -> anyhow::Result<Option<Status>> {
    let path = dir.join(STATUS);
    let describe = || format!("read {}", path.display());
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(describe),
    };
    let mut bytes = Vec::new();
    file.take(STATUS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .with_context(describe)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("read {}: it was written by another version", path.display()))
        .map(Some)
}

/// Whether an operator uses this state directory: it holds the lock as long as it lives.
///
/// # Errors
/// If there is no state directory, or its lock cannot be looked at.
pub fn is_running(dir: &Path) -> anyhow::Result<bool> {
    let path = dir.join(LOCK);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}

/// Replaces a plain file of mode 0600, whole.
fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let unfinished = path.with_extension("new");
    let write = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&unfinished)?
            .write_all(bytes)?;
        fs::rename(&unfinished, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}
