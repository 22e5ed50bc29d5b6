//! One file, whole or not at all, and known to be what was written.
//!
//! A file is 8 bytes of magic, 32 of BLAKE3 over the rest, and the rest.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, anyhow, ensure};

/// How every file begins; the last digit is the version of this layout.
const MAGIC: &[u8; 8] = b"outhaul1";
const HEAD_BYTES: usize = MAGIC.len() + 32;
/// The end of the name of a file that is not finished.
const UNFINISHED: &str = ".new";

/// Makes a directory of mode 0700 and everything above it, or checks that the one there is open to nobody else.
pub(super) fn make_dir(path: &Path) -> anyhow::Result<()> {
    let describe = || format!("make state directory {}", path.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(describe)?;
    let mode = fs::metadata(path).with_context(describe)?.mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "state directory {} is open to other users (mode {mode:04o}): it holds the host's key; run `chmod 700 {}`",
        path.display(),
        path.display()
    );
    Ok(())
}

/// Removes what a crash left unfinished.
pub(super) fn remove_leftovers(dir: &Path) -> anyhow::Result<()> {
    for name in names(dir)? {
        if name.ends_with(UNFINISHED) {
            remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// The finished files of a directory, in order.
pub(super) fn list(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = names(dir)?;
    names.retain(|name| !name.ends_with(UNFINISHED));
    names.sort_unstable();
    Ok(names)
}

fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let describe = || format!("list {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(describe)? {
        let entry = entry.with_context(describe)?;
        if entry.file_type().with_context(describe)?.is_file() {
            let name = entry.file_name().into_string();
            names.push(name.map_err(|_| anyhow!("{}: a name is not UTF-8", dir.display()))?);
        }
    }
    Ok(names)
}

/// Replaces a file by one that holds `payload`. When this returns it is on disk.
pub(super) fn write(path: &Path, payload: &[u8]) -> anyhow::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let written = write_new(Path::new(&unfinished), payload)
        .and_then(|()| fs::rename(&unfinished, path))
        .and_then(|()| sync_name(path));
    if written.is_err() {
        // Best effort: on a full disk the room is wanted back, and a leftover is removed at the next start anyway.
        let _ = fs::remove_file(&unfinished);
    }
    written.with_context(|| format!("write {}", path.display()))
}

fn write_new(path: &Path, payload: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(MAGIC)?;
    file.write_all(blake3::hash(payload).as_bytes())?;
    file.write_all(payload)?;
    file.sync_all()
}

/// What a file holds; nothing if there is none.
pub(super) fn read(
    path: &Path,
    bytes_max: usize,
) -> anyhow::Result<Option<zeroize::Zeroizing<Vec<u8>>>> {
    let describe = || format!("read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(describe),
    };
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let limit = (HEAD_BYTES + bytes_max) as u64 + 1;
    file.take(limit)
        .read_to_end(&mut bytes)
        .with_context(describe)?;
    let payload = bytes
        .strip_prefix(MAGIC)
        .and_then(|rest| rest.split_first_chunk::<32>())
        .filter(|(hash, payload)| payload.len() <= bytes_max && blake3::hash(payload) == **hash)
        .map(|(_, payload)| payload.to_vec())
        .ok_or_else(|| damaged(path, "its checksum does not match"))?;
    Ok(Some(zeroize::Zeroizing::new(payload)))
}

/// Moves a file; nothing happens if there is none.
pub(super) fn rename(from: &Path, to: &Path) -> anyhow::Result<()> {
    let renamed = fs::rename(from, to).or_else(absent_is_fine);
    renamed
        .and_then(|()| sync_name(to))
        .with_context(|| format!("rename {}", from.display()))
}

/// Removes a file; nothing happens if there is none. Not synced: everything here may safely be found again.
pub(super) fn remove(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path)
        .or_else(absent_is_fine)
        .with_context(|| format!("remove {}", path.display()))
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

/// Makes the name of a file durable, and what was synced in it before.
fn sync_name(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    match OpenOptions::new().write(true).open(path) {
        Ok(file) => confirm(&file),
        Err(error) => absent_is_fine(error),
    }
}

/// When ext4 gives a file system up it aborts its journal, and a sync that comes a moment later finds nothing to wait for and succeeds.
/// A request that has to begin a transaction fails from the abort on: here, for room that the file has already.
fn confirm(file: &File) -> io::Result<()> {
    use rustix::{fs::FallocateFlags, io::Errno};
    loop {
        return match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, 1) {
            // That there is no room, or no such request, does not say that the sync failed.
            Ok(()) | Err(Errno::NOSPC | Errno::DQUOT | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// What to say about a file that is not what we wrote.
pub(super) fn damaged(path: &Path, how: &str) -> anyhow::Error {
    anyhow!(
        "{} is damaged: {how}. Restore it from a backup; or move it away to go on without what it said, after reading \
         what that costs in the manual (for `identity`: this host must be enrolled again with a new bundle)",
        path.display()
    )
}
