//! Reading where a sandbox writes.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat},
    io::Errno,
    path::Arg,
};

/// Directories deep that are measured: a shim makes one.
const DEPTH_MAX: usize = 4;
/// Entries that are measured: more than a full spool of the smallest batches.
const ENTRIES_MAX: usize = 200_000;
/// The unit of `st_blocks`, in bytes, whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

/// Whose files a sandbox's part may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This user's.
    User(u32),
    /// Some other user's than this one: a rootless engine decides whose.
    NotUser(u32),
}

impl Owner {
    /// By the owner of the sandbox's directory: ours means that we could not give it away.
    pub(super) fn of(dir_owner: u32, own: u32) -> Self {
        if dir_owner == own {
            Self::NotUser(own)
        } else {
            Self::User(dir_owner)
        }
    }

    fn is(self, uid: u32) -> bool {
        match self {
            Self::User(user) => uid == user,
            Self::NotUser(user) => uid != user && uid != 0,
        }
    }
}

/// Opens a directory; a link is not one.
pub(super) fn open_dir(parent: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Reads a small regular file of the sandbox's user; `None` if there is no such file.
pub(super) fn read(
    dir: BorrowedFd<'_>,
    name: impl Arg,
    bytes_max: usize,
    owner: Owner,
) -> io::Result<Option<Vec<u8>>> {
    // Not blocking: a pipe without a writer would hold us for ever.
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => return Err(refuse("a link")),
        Err(error) => return Err(error.into()),
    };
    let facts = fstat(&file)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
        return Err(refuse("not a regular file"));
    }
    if !owner.is(facts.st_uid) {
        return Err(refuse("not the sandbox's own file"));
    }
    // One more than allowed, so that what grows meanwhile is noticed too.
    let most = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    if bytes.len() > bytes_max {
        return Err(refuse("too long"));
    }
    Ok(Some(bytes))
}

/// Whether a directory holds more than `bytes_max`, or more than is worth counting.
pub(super) fn is_over(dir: BorrowedFd<'_>, bytes_max: u64) -> io::Result<bool> {
    let mut left = Left {
        bytes: bytes_max,
        entries: ENTRIES_MAX,
    };
    Ok(!measure(dir, DEPTH_MAX, &mut left)?)
}

struct Left {
    bytes: u64,
    entries: usize,
}

/// Takes what a directory holds from what is left; `false` once nothing is.
fn measure(dir: BorrowedFd<'_>, depth: usize, left: &mut Left) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes()) {
            continue;
        }
        let facts = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(facts) => facts,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let bytes = u64::try_from(facts.st_blocks)
            .unwrap_or(0)
            .saturating_mul(BLOCK_BYTES);
        let (Some(bytes), Some(entries)) =
            (left.bytes.checked_sub(bytes), left.entries.checked_sub(1))
        else {
            return Ok(false);
        };
        *left = Left { bytes, entries };
        if FileType::from_raw_mode(facts.st_mode) == FileType::Directory {
            if depth == 0 {
                return Ok(false);
            }
            match open_dir(dir, name) {
                Ok(child) if !measure(child.as_fd(), depth - 1, left)? => return Ok(false),
                // Gone or replaced since; or closed to an operator that is not root.
                Ok(_) | Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(true)
}

fn refuse(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
