//! Files and directories of a backup: closed to others, hashed as they are copied, on the disk before anything names them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::core::backup::{Copied, Hex};

/// Bytes read at once.
const READ_BYTES: usize = 256 * 1024;

/// Copies the first `bytes` bytes of a file into a new one, durably; its hash.
pub(super) fn copy(from: &Path, to: &Path, bytes: u64) -> anyhow::Result<Copied> {
    let copy = || -> anyhow::Result<Copied> {
        let mut out = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        let copied = read(from, bytes, |piece| Ok(out.write_all(piece)?))?;
        out.sync_all()?;
        Ok(copied)
    };
    copy().with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

/// The same for a file that nobody writes into any more: a second name for it, where the file system can. Whether it could.
pub(super) fn link_or_copy(from: &Path, to: &Path, bytes: u64) -> anyhow::Result<(Copied, bool)> {
    let is_whole = fs::metadata(from).is_ok_and(|found| found.len() == bytes);
    if !is_whole || fs::hard_link(from, to).is_err() {
        return Ok((copy(from, to, bytes)?, false));
    }
    // Its mode is the journal's own.
    let hashed = read(to, bytes, |_| Ok(())).with_context(|| format!("read {}", to.display()))?;
    Ok((hashed, true))
}

/// A file's hash.
pub(super) fn hash(path: &Path) -> anyhow::Result<Copied> {
    let hash = || -> anyhow::Result<Copied> {
        let bytes = fs::metadata(path)?.len();
        read(path, bytes, |_| Ok(()))
    };
    hash().with_context(|| format!("read {}", path.display()))
}

fn read(
    path: &Path,
    bytes: u64,
    mut put: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Copied> {
    let mut file = File::open(path)?.take(bytes);
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; READ_BYTES]);
    let mut seen = 0;
    loop {
        let count = file.read(&mut buffer)?;
        let piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        put(piece)?;
        seen += u64::try_from(count)?;
    }
    ensure!(seen == bytes, "it ends after {seen} bytes, not {bytes}");
    Ok(Copied {
        bytes,
        blake3: Hex(*hasher.finalize().as_bytes()),
    })
}

/// Makes a directory that only its owner enters.
pub(super) fn make_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make directory {}", path.display()))
}

/// Waits until the names in a directory are on the disk.
///
/// # Errors
/// The disk refuses.
pub fn sync(path: &Path) -> anyhow::Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("sync directory {}", path.display()))
}

/// Writes a new file of the owner's alone, whole or not at all, durably. Never over another.
///
/// # Errors
/// Something has that name, or the disk refuses.
pub fn write_once(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let write = || -> anyhow::Result<()> {
        let directory = parent(path);
        let mut new = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(directory)?;
        new.write_all(content)?;
        new.as_file().sync_all()?;
        new.persist_noclobber(path)?;
        sync(directory)
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        Some(_) | None => Path::new("."),
    }
}

/// A directory that is being filled, beside where it shall be. Dropped before it is in its place, it is gone.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    place: PathBuf,
}

impl Draft {
    pub(super) fn new(place: &Path, id: &Hex<16>) -> anyhow::Result<Self> {
        if place.symlink_metadata().is_ok() {
            bail!(
                "{} is there: a backup never overwrites anything",
                place.display()
            );
        }
        let name = place.file_name().context("it has no name")?;
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".{id}"));
        let path = parent(place).join(draft);
        make_dir(&path)?;
        Ok(Self {
            path,
            place: place.to_owned(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in its place, durably.
    pub(super) fn publish(self) -> anyhow::Result<()> {
        renameat_with(CWD, &self.path, CWD, &self.place, RenameFlags::NOREPLACE)
            .with_context(|| format!("put {} in its place", self.place.display()))?;
        sync(parent(&self.place))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Not there any more once it is in its place. What cannot be removed has a name that says what it is.
        let _ = fs::remove_dir_all(&self.path);
    }
}
