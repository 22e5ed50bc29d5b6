//! Whether a sync that succeeded can be believed.
//!
//! When ext4 gives a file system up, it aborts its own journal, and what a running transaction would have carried is gone. An
//! `fdatasync` that comes to wait for that transaction a moment later finds nothing to wait for, and succeeds (Linux 6.18: three in a
//! hundred aborts under load lost a write so). What has to *begin* a transaction fails from the abort on, so a request of that kind, made
//! after the sync, tells: if it succeeds, there was no abort when the sync returned.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Asks for room that the byte `at` of `file` has already, about a microsecond. Nothing changes.
///
/// # Errors
/// The file system takes no changes any more: what was synced last may not be on the disk. That there is no room, or that it knows no
/// such request, is not an error.
pub fn confirm(file: &File, at: u64) -> io::Result<()> {
    loop {
        return match fallocate(file, FallocateFlags::KEEP_SIZE, at, 1) {
            Ok(()) | Err(Errno::NOSPC | Errno::DQUOT | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(Errno::INTR) => continue,
            Err(error) => Err(error.into()),
        };
    }
}

/// A file without a name that stands for others on its file system, which must not be opened twice.
#[derive(Debug)]
pub struct Canary {
    file: File,
}

impl Canary {
    /// On the file system of `dir`; gone when dropped.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        Ok(Self { file })
    }

    /// As [`confirm`].
    ///
    /// # Errors
    /// As [`confirm`].
    pub fn confirm(&self) -> io::Result<()> {
        confirm(&self.file, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        os::unix::fs::MetadataExt as _,
    };

    use super::*;

    #[test]
    fn a_healthy_disk_confirms_and_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"bytes").unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.sync_all().unwrap();
        let before = file.metadata().unwrap();
        confirm(&file, 4).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(file.metadata().unwrap().blocks(), before.blocks());
    }

    #[test]
    fn what_cannot_be_changed_is_not_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"bytes").unwrap();
        confirm(&File::open(&path).unwrap(), 0).unwrap_err();
    }

    #[test]
    fn a_canary_confirms_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let canary = Canary::new(dir.path()).unwrap();
        canary.confirm().unwrap();
        canary.confirm().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
