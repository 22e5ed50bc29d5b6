//! Removing a directory that a sandbox has filled, however deep, and nothing that it links to.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use rustix::{
    fs::{AtFlags, Dir, Mode, fchmod, renameat, unlinkat},
    io::Errno,
};

use super::hostile::open_dir;

/// Descriptors, and frames of the stack, that one pass takes. What lies deeper is moved up and met again.
const DEPTH_MAX: usize = 32;
/// Passes over one directory. Each takes at least [`DEPTH_MAX`] levels off.
const PASSES_MAX: u32 = 100_000;

/// Removes `name` from a directory that only we write to; that it is not there is as good.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut moved = 0;
    for _ in 0..PASSES_MAX {
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTDIR) => return Ok(unlinkat(parent, name, AtFlags::empty())?),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let top = open_dir(parent, name)?;
        empty(top.as_fd(), top.as_fd(), DEPTH_MAX, &mut moved)?;
    }
    Err(io::Error::other("the directory does not get empty"))
}

/// Removes what is in `dir`. Directories that are too deep are moved to `top`, under names counted by `moved`.
fn empty(
    dir: BorrowedFd<'_>,
    top: BorrowedFd<'_>,
    depth: usize,
    moved: &mut u64,
) -> io::Result<()> {
    // Fails for a directory that is not ours; then the next call says why.
    let _ = fchmod(dir, Mode::RWXU);
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if [&b"."[..], b".."].contains(&name.to_bytes()) {
            continue;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        if depth == 0 {
            *moved += 1;
            renameat(dir, name, top, format!(".deep-{moved}"))?;
            continue;
        }
        let child = open_dir(dir, name)?;
        empty(child.as_fd(), top, depth - 1, moved)?;
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            // Not empty: something was moved into it, or it is met again in the next pass.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
