//! The data directory's secrets: files that only their owner reads, written whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use protocol::key::{Audit, Role, Secret};
use rustix::{fs::Access, io::Errno};
use zeroize::Zeroizing;

use super::{backup::Unfinished, issuer::Issuers};

/// The longest file read here, in bytes. Keys and certificates are a few hundred.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The data directory: where everything is.
#[derive(Clone, Debug)]
pub struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// Opens the data directory, or makes it, closed to others.
    ///
    /// # Errors
    /// It is open to others, is not ours, or cannot be made.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        // Absolute, so that messages name a place that can be found again.
        let root = std::path::absolute(root)
            .with_context(|| format!("find data directory {}", root.display()))?;
        let directory = Self { root };
        Unfinished::of(&directory.root).refuse()?;
        for path in [directory.root.clone(), directory.keys()] {
            make_private(&path)
                .with_context(|| format!("open data directory {}", path.display()))?;
        }
        Ok(directory)
    }

    /// Opens one that is there, and makes nothing.
    ///
    /// # Errors
    /// There is none that a broker has used.
    pub fn existing(root: &Path) -> anyhow::Result<Self> {
        let directory = Self {
            root: std::path::absolute(root)?,
        };
        if !directory.is_used() {
            bail!(
                "{} is not the data directory of a broker: it has no state.db",
                root.display()
            );
        }
        Ok(directory)
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file below `keys/`.
    #[must_use]
    pub fn key(&self, name: &str) -> PathBuf {
        self.keys().join(name)
    }

    /// The store's file. It is made after the keys, so where it is, they have been.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.root.join("state.db")
    }

    /// The journal's directory.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The directory of the places of readers.
    #[must_use]
    pub fn places(&self) -> PathBuf {
        self.root.join("places")
    }

    /// The directory of the journal's partition for load tests.
    #[must_use]
    pub fn bench(&self) -> PathBuf {
        self.root.join("journal-bench")
    }

    /// Whether this directory has served before.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.store().exists()
    }

    fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }
}

/// The broker's signing keys.
#[derive(Debug)]
pub struct SigningKeys {
    /// Sign connection tokens.
    pub issuer: Issuers,
    /// Signs checkpoints of the audit trail.
    pub audit: Secret<Audit>,
}

impl SigningKeys {
    /// Reads the signing keys; makes them in a directory that was never used.
    ///
    /// # Errors
    /// A file is open to others, is not a key of its kind, or is missing where it has been.
    pub fn open(directory: &DataDir) -> anyhow::Result<Self> {
        Ok(Self {
            issuer: Issuers::open(directory)?,
            audit: load_or_make(directory, "audit.key")?,
        })
    }
}

pub(super) fn load_or_make<R: Role>(directory: &DataDir, name: &str) -> anyhow::Result<Secret<R>> {
    let path = directory.key(name);
    if let Some(text) = read_secret(&path)? {
        return Secret::from_file_text(&text)
            .with_context(|| format!("read key {}", path.display()));
    }
    refuse_to_replace(directory, &path)?;
    let mut seed = Zeroizing::new([0; 32]);
    fill_random(&mut *seed)?;
    let secret = Secret::from_seed(&seed);
    write_secret(&path, secret.to_file_text().as_bytes())?;
    Ok(secret)
}

/// A new key in the place of a lost one would strand every host without a word: that is for a person to decide.
///
/// # Errors
/// The directory has served before, and `path` is not there.
pub(super) fn refuse_to_replace(directory: &DataDir, path: &Path) -> anyhow::Result<()> {
    if directory.is_used() {
        bail!(
            "{} is missing from a data directory that has been used: restore it from a backup",
            path.display()
        );
    }
    Ok(())
}

/// Bytes from the system's generator.
///
/// # Errors
/// It gives none.
pub fn fill_random(bytes: &mut [u8]) -> anyhow::Result<()> {
    getrandom::fill(bytes)
        .map_err(|error| anyhow::anyhow!("read the system's random generator: {error}"))
}

/// Reads a secret file; `None` if there is none.
///
/// # Errors
/// Others may read it, or it cannot be read.
pub fn read_secret(path: &Path) -> anyhow::Result<Option<Zeroizing<String>>> {
    let read = || -> anyhow::Result<Option<Zeroizing<String>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        // Of the open file, not of the path, which may be another's by now.
        let mode = file.metadata()?.mode() & 0o777;
        if mode & 0o077 != 0 {
            bail!(
                "others may read it (mode {mode:03o}); run: chmod 600 {}",
                path.display()
            );
        }
        let mut text = Zeroizing::new(String::new());
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(text))
    };
    read().with_context(|| format!("read {}", path.display()))
}

/// Writes a file that only its owner reads, whole or not at all, and durably.
///
/// # Errors
/// The disk refuses.
pub fn write_secret(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let directory = path.parent().context("it has no directory")?;
        let name = path.file_name().context("it has no name")?;
        let mut draft_name = std::ffi::OsString::from(".new-");
        draft_name.push(name);
        let draft = directory.join(draft_name);
        // Left by a crash; never one of another process, since the data directory has one.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(directory)?.sync_all()?;
        Ok(())
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Removes a file, durably; nothing happens if there is none.
///
/// # Errors
/// The disk refuses.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    let remove = || -> anyhow::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        let directory = path.parent().context("it has no directory")?;
        File::open(directory)?.sync_all()?;
        Ok(())
    };
    remove().with_context(|| format!("remove {}", path.display()))
}

fn make_private(path: &Path) -> anyhow::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            if let Some(parent) = path.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        found => {
            let found = found?;
            if !found.is_dir() {
                bail!("it is not a directory");
            }
            let (owner, us) = (found.uid(), rustix::process::geteuid().as_raw());
            if owner != us {
                bail!(
                    "it belongs to user {owner}, and this is user {us}: serve as its owner, or run: chown -R {us} {}",
                    path.display()
                );
            }
            let mode = found.mode() & 0o777;
            if mode & 0o077 != 0 {
                bail!(
                    "others may look into it (mode {mode:03o}); run: chmod 700 {}",
                    path.display()
                );
            }
        }
    }
    check_writable(path)
}

/// Said here, and not by whatever is written first.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    match rustix::fs::access(path, wanted) {
        Ok(()) => Ok(()),
        Err(Errno::ROFS) => {
            bail!("its file system is read-only: see the kernel's log, and mount it for writing")
        }
        Err(Errno::ACCESS) => bail!(
            "its owner may not write into it; run: chmod 700 {}",
            path.display()
        ),
        Err(error) => Err(error).context("see whether it can be written"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_closed_to_others_and_stay() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("a/b");
        let first = SigningKeys::open(&DataDir::open(&root).unwrap()).unwrap();
        let again = SigningKeys::open(&DataDir::open(&root).unwrap()).unwrap();
        let keys = |keys: &SigningKeys| keys.issuer.accepted(protocol::time::UnixMillis(0));
        assert_eq!(keys(&first), keys(&again));
        assert_eq!(first.audit.public(), again.audit.public());
        assert_eq!((mode(&root), mode(&root.join("keys"))), (0o700, 0o700));
        assert_eq!(mode(&root.join("keys/issuer.key")), 0o600);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused_with_the_command_that_closes_it() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        SigningKeys::open(&directory).unwrap();
        let path = directory.key("issuer.key");
        chmod(&path, 0o640);
        let error = format!("{:#}", SigningKeys::open(&directory).unwrap_err());
        assert!(
            error.contains(&format!("chmod 600 {}", path.display())),
            "{error}"
        );
        chmod(&path, 0o600);
        assert!(SigningKeys::open(&directory).is_ok());
        chmod(&place.path().join("data"), 0o755);
        let error = format!(
            "{:#}",
            DataDir::open(&place.path().join("data")).unwrap_err()
        );
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_lost_key_of_a_used_directory_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        SigningKeys::open(&directory).unwrap();
        fs::write(directory.store(), b"").unwrap();
        fs::remove_file(directory.key("issuer.key")).unwrap();
        let error = format!("{:#}", SigningKeys::open(&directory).unwrap_err());
        assert!(error.contains("restore it from a backup"), "{error}");
        assert!(!directory.key("issuer.key").exists());
    }

    #[test]
    fn a_key_of_another_kind_is_refused_and_not_shown() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        SigningKeys::open(&directory).unwrap();
        fs::copy(directory.key("audit.key"), directory.key("issuer.key")).unwrap();
        let error = format!("{:#}", SigningKeys::open(&directory).unwrap_err());
        assert!(
            error.contains("issuer.key") && !error.contains("_secret_"),
            "{error}"
        );
    }
}
