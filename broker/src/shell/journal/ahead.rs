//! Room on the disk, taken before anything is written: a write that finds none would end the journal, and what it carries was accepted
//! already.
//!
//! Where each commit is synced, the room is filled with zeros too. A sync of bytes that only take the place of others writes those bytes;
//! one of a file that grew has the file system commit its own journal besides, which costs half as much again in CPU and in time.

use std::{fs::File, io::ErrorKind, os::unix::fs::FileExt as _};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use super::Durability;
use crate::shell::room::Room;

/// How far ahead of what is written room is taken, in bytes. Once nobody may fill the journal any more, some hundred commands to stop
/// still fit in it.
const AHEAD_BYTES: u64 = 256 * 1024;

/// How far room has been taken in the segment that is written.
#[derive(Debug)]
pub(super) struct Ahead {
    durability: Durability,
    /// The segment, by its first offset.
    first: u64,
    to_bytes: u64,
    /// This file system takes none ahead.
    is_unable: bool,
}

impl Ahead {
    pub(super) const fn new(durability: Durability) -> Self {
        Self {
            durability,
            first: 0,
            to_bytes: 0,
            is_unable: false,
        }
    }

    /// Takes room for what is to be written at `from` in the segment `first`, out of the ballast if there is no other. What is past that
    /// reads as zeros, if it reads as anything.
    ///
    /// # Errors
    /// There is none, or the disk refuses. Nothing was written but zeros.
    pub(super) fn take(
        &mut self,
        file: &File,
        first: u64,
        from: u64,
        bytes: u64,
        ballast: Option<&Room>,
    ) -> anyhow::Result<()> {
        let end = from.saturating_add(bytes);
        if self.first != first {
            self.first = first;
            self.to_bytes = 0;
        }
        while self.to_bytes < end && !self.is_unable {
            let wanted = end.saturating_add(AHEAD_BYTES);
            match fallocate(file, FallocateFlags::KEEP_SIZE, from, wanted - from) {
                Ok(()) => {
                    self.to_bytes = wanted;
                    self.fill(file, end)?;
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOSPC | Errno::DQUOT) if ballast.is_some_and(Room::give_way) => {}
                Err(Errno::NOSPC | Errno::DQUOT) => {
                    anyhow::bail!("no room is left on the disk: free some")
                }
                // The write itself will say what is wrong, if anything is.
                Err(_) => self.is_unable = true,
            }
        }
        Ok(())
    }

    /// Fills what was taken past `end` with zeros. Where there is no room for them after all, it goes without.
    fn fill(&self, file: &File, end: u64) -> anyhow::Result<()> {
        match self.durability {
            Durability::Os => Ok(()),
            Durability::Fsync => {
                let zeros = vec![0; usize::try_from(self.to_bytes.saturating_sub(end))?];
                match file.write_all_at(&zeros, end) {
                    Err(error) if !is_full(&error) => Err(error.into()),
                    Ok(()) | Err(_) => Ok(()),
                }
            }
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
