//! The state directory: everything that must outlive the operator. Mode 0700, files 0600.
//!
//! One small file for each thing, replaced whole: written beside its place, synced, renamed, and the directory synced, so that after
//! a power cut there is the old one or the new one. Each carries a checksum; what does not match it is an error that names the file,
//! and is never quietly reset: a host that forgets what it owes is worse than one that asks for help.

mod chain;
mod file;
mod notice;

pub use notice::{is_running, read_status, read_witness, write_accepted};

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use protocol::cbor;
use protocol::id::{CommandId, HostId, SandboxId};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::core::dispatcher;
use crate::core::host::identity::Identity;
use crate::core::outbox::Class;
use crate::core::record::{CommandRecord, SandboxRecord};
use crate::core::trust::Learned;
use crate::core::witness::Witness;

/// The longest file in the store, in bytes: a signed command or a forwarded batch, with what stands around it.
const FILE_BYTES_MAX: usize = 160 * 1024;

/// Who the host is.
const IDENTITY: &str = "identity";
/// Which certificate authorities the broker named.
const AUTHORITIES: &str = "authorities";
/// What the host keeps of the broker's audit trail.
const WITNESS: &str = "witness";
/// What its owner accepted of it.
const ACCEPTED: &str = "accepted";
/// The notes that stopped it, for whoever is to judge.
const EVIDENCE: &str = "evidence";
/// How the operator does, for whoever looks.
const STATUS: &str = "status.json";
/// Held while an operator runs.
const LOCK: &str = "lock";
/// Whom the host obeys beside those that its owner lists, and whom no more.
const DISPATCHERS: &str = "dispatchers";
/// How the host's keys followed each other, in parts.
const SUCCESSIONS: &str = "successions";
/// Commands, by id.
const COMMANDS: &str = "commands";
/// Sandboxes, by id.
const SANDBOXES: &str = "sandboxes";
/// Reports that are owed, by number.
const OUTBOX: &str = "outbox";
/// The end of the name of the last report when it is owed no more: it keeps its number from being given twice.
const SENT: &str = ".sent";

/// An open state directory. No other operator can open it while this lives.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    /// One past the highest report number ever given.
    next_report: AtomicU64,
    _lock: fs::File,
}

/// A report as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredReport {
    class: u64,
    #[serde(with = "serde_bytes")]
    signed: Vec<u8>,
}

impl Store {
    /// Opens the state directory, making it if there is none.
    ///
    /// # Errors
    /// If it cannot be made, is open to others, or another operator uses it.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        file::make_dir(dir)?;
        for inner in [SUCCESSIONS, COMMANDS, SANDBOXES, OUTBOX] {
            file::make_dir(&dir.join(inner))?;
        }
        let lock = lock(dir)?;
        for inner in ["", SUCCESSIONS, COMMANDS, SANDBOXES, OUTBOX] {
            file::remove_leftovers(&dir.join(inner))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            next_report: AtomicU64::new(0),
            _lock: lock,
        })
    }

    /// Who this host is, if it was ever set up.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read.
    pub fn load_identity(&self) -> anyhow::Result<Option<Identity>> {
        read_identity(&self.dir)
    }

    /// Writes who this host is.
    ///
    /// # Errors
    /// If it is not on disk; the old one is then.
    pub fn save_identity(&self, identity: &Identity) -> anyhow::Result<()> {
        file::write(&self.dir.join(IDENTITY), &identity.to_bytes())
    }

    /// Forgets a host that could not be enrolled.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove_identity(&self) -> anyhow::Result<()> {
        file::remove(&self.dir.join(IDENTITY))
    }

    /// Which certificate authorities the broker named, if it ever did.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read.
    pub fn load_learned(&self) -> anyhow::Result<Option<Learned>> {
        let path = self.dir.join(AUTHORITIES);
        let Some(bytes) = file::read(&path, FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        let learned = cbor::from_slice(&bytes, FILE_BYTES_MAX);
        learned
            .map(Some)
            .map_err(|_| file::damaged(&path, "it is of another version"))
    }

    /// Writes down which certificate authorities the broker named.
    ///
    /// # Errors
    /// If it is not on disk; the old ones are then.
    pub fn save_learned(&self, learned: &Learned) -> anyhow::Result<()> {
        file::write(&self.dir.join(AUTHORITIES), &cbor::to_vec(learned))
    }

    /// What this host keeps of the broker's audit trail.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read.
    pub fn load_witness(&self) -> anyhow::Result<Witness> {
        read_witness(&self.dir)
    }

    /// Writes down what this host keeps of the broker's audit trail.
    ///
    /// # Errors
    /// If it is not on disk; the old one is then.
    pub fn save_witness(&self, witness: &Witness) -> anyhow::Result<()> {
        file::write(&self.dir.join(WITNESS), &witness.to_bytes())
    }

    /// What dispatchers said about each other's keys, if anything was ever written down.
    ///
    /// # Errors
    /// If the file is damaged or cannot be read.
    pub fn load_dispatchers(&self) -> anyhow::Result<Option<dispatcher::Learned>> {
        read_dispatchers(&self.dir)
    }

    /// Writes down what dispatchers said.
    ///
    /// # Errors
    /// If it is not on disk; the old state is then.
    pub fn save_dispatchers(&self, learned: &dispatcher::Learned) -> anyhow::Result<()> {
        file::write(&self.dir.join(DISPATCHERS), &cbor::to_vec(learned))
    }

    /// Every command that is remembered.
    ///
    /// # Errors
    /// If one is damaged.
    pub fn load_commands(&self) -> anyhow::Result<Vec<CommandRecord>> {
        file::list(&self.dir.join(COMMANDS))?
            .into_iter()
            .map(|name| load(&self.dir.join(COMMANDS).join(name)))
            .collect()
    }

    /// One remembered command.
    ///
    /// # Errors
    /// If it is not there or damaged.
    pub fn load_command(&self, id: CommandId) -> anyhow::Result<CommandRecord> {
        load(&self.command_path(id))
    }

    /// Remembers a command, or what became of it.
    ///
    /// # Errors
    /// If it is not on disk.
    pub fn save_command(&self, record: &CommandRecord) -> anyhow::Result<()> {
        file::write(&self.command_path(record.id), &cbor::to_vec(record))
    }

    /// Forgets a command.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove_command(&self, id: CommandId) -> anyhow::Result<()> {
        file::remove(&self.command_path(id))
    }

    /// Every sandbox that is not gone.
    ///
    /// # Errors
    /// If one is damaged.
    pub fn load_sandboxes(&self) -> anyhow::Result<Vec<SandboxRecord>> {
        file::list(&self.dir.join(SANDBOXES))?
            .into_iter()
            .map(|name| load(&self.dir.join(SANDBOXES).join(name)))
            .collect()
    }

    /// Writes a sandbox down.
    ///
    /// # Errors
    /// If it is not on disk.
    pub fn save_sandbox(&self, record: &SandboxRecord) -> anyhow::Result<()> {
        file::write(&self.sandbox_path(&record.sandbox), &cbor::to_vec(record))
    }

    /// Forgets a sandbox that is gone.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove_sandbox(&self, sandbox: &SandboxId) -> anyhow::Result<()> {
        file::remove(&self.sandbox_path(sandbox))
    }

    /// The reports that are owed, and one past the highest number ever given.
    ///
    /// # Errors
    /// If one is damaged.
    pub fn load_outbox(&self) -> anyhow::Result<(Vec<(u64, Class)>, u64)> {
        let (mut owed, mut next) = (Vec::new(), 0);
        for name in file::list(&self.dir.join(OUTBOX))? {
            let digits = name.strip_suffix(SENT).unwrap_or(&name);
            let path = self.dir.join(OUTBOX).join(&name);
            let number: u64 = digits
                .parse()
                .map_err(|_| file::damaged(&path, "its name is no report number"))?;
            next = next.max(number.saturating_add(1));
            if digits.len() == name.len() {
                let report: StoredReport = load(&path)?;
                owed.push((number, class_of(report.class)));
            }
        }
        self.next_report.store(next, Ordering::Relaxed);
        Ok((owed, next))
    }

    /// Writes a report down, before it is sent.
    ///
    /// # Errors
    /// If it is not on disk.
    pub fn save_report(&self, number: u64, class: Class, signed: &[u8]) -> anyhow::Result<()> {
        let report = StoredReport {
            class: class_number(class),
            signed: signed.to_vec(),
        };
        file::write(&self.report_path(number), &cbor::to_vec(&report))?;
        let before = self
            .next_report
            .fetch_max(number.saturating_add(1), Ordering::Relaxed);
        if let (Some(last), true) = (before.checked_sub(1), before <= number) {
            file::remove(&self.sent_path(last))?;
        }
        Ok(())
    }

    /// The bytes of a report.
    ///
    /// # Errors
    /// If it is not there or damaged.
    pub fn load_report(&self, number: u64) -> anyhow::Result<Vec<u8>> {
        load::<StoredReport>(&self.report_path(number)).map(|report| report.signed)
    }

    /// A report that is owed no more. The newest leaves its number behind.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove_report(&self, number: u64) -> anyhow::Result<()> {
        let is_newest = self.next_report.load(Ordering::Relaxed) == number.saturating_add(1);
        if is_newest {
            file::rename(&self.report_path(number), &self.sent_path(number))
        } else {
            file::remove(&self.report_path(number))
        }
    }

    /// Where everything is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn command_path(&self, id: CommandId) -> PathBuf {
        self.dir.join(COMMANDS).join(id.to_string())
    }

    fn sandbox_path(&self, sandbox: &SandboxId) -> PathBuf {
        self.dir.join(SANDBOXES).join(sandbox.as_str())
    }

    fn report_path(&self, number: u64) -> PathBuf {
        self.dir.join(OUTBOX).join(format!("{number:020}"))
    }

    fn sent_path(&self, number: u64) -> PathBuf {
        self.dir.join(OUTBOX).join(format!("{number:020}{SENT}"))
    }
}

/// Reads who a host is without taking its lock: for those who only look.
///
/// # Errors
/// If the file is damaged or cannot be read.
pub fn read_identity(dir: &Path) -> anyhow::Result<Option<Identity>> {
    let path = dir.join(IDENTITY);
    match file::read(&path, FILE_BYTES_MAX)? {
        None => Ok(None),
        Some(bytes) => Identity::from_bytes(&bytes)
            .map(Some)
            .ok_or_else(|| file::damaged(&path, "it is not an identity of this version")),
    }
}

/// Reads what dispatchers said about each other's keys, for those who only look.
///
/// # Errors
/// If the file is damaged or cannot be read.
pub fn read_dispatchers(dir: &Path) -> anyhow::Result<Option<dispatcher::Learned>> {
    let path = dir.join(DISPATCHERS);
    let Some(bytes) = file::read(&path, FILE_BYTES_MAX)? else {
        return Ok(None);
    };
    let learned = cbor::from_slice(&bytes, FILE_BYTES_MAX);
    learned
        .map(Some)
        .map_err(|_| file::damaged(&path, "it is of another version"))
}

/// Refuses a state directory that belongs to another host than the bundle.
///
/// # Errors
/// If it does.
pub fn check_host(dir: &Path, found: &HostId, bundle: &HostId) -> anyhow::Result<()> {
    ensure!(
        found == bundle,
        "state directory {} belongs to host {found}, and the bundle is for host {bundle}: use another --state-dir, or \
         the bundle of {found}",
        dir.display()
    );
    Ok(())
}

fn lock(dir: &Path) -> anyhow::Result<fs::File> {
    let path = dir.join(LOCK);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .with_context(|| format!("open {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => bail!(
            "another operator uses the state directory {}: stop it first, or use another --state-dir",
            dir.display()
        ),
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

fn load<T: Serialize + DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = file::read(path, FILE_BYTES_MAX)?
        .with_context(|| format!("read {}: no such file", path.display()))?;
    cbor::from_slice(&bytes, FILE_BYTES_MAX)
        .map_err(|_| file::damaged(path, "it is of another version"))
}

fn class_number(class: Class) -> u64 {
    match class {
        Class::Outcome => 1,
        Class::Forwarded => 2,
        Class::Status => 3,
    }
}

fn class_of(number: u64) -> Class {
    match number {
        2 => Class::Forwarded,
        3 => Class::Status,
        _ => Class::Outcome,
    }
}

#[cfg(test)]
mod tests;
