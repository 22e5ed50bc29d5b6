//! Room on the disk, taken before anything is written: a write that finds none would end the journal, and what it carries was accepted
//! already.

use std::fs::File;

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

use crate::shell::room::Room;

/// How far ahead of what is written room is taken, in bytes. Once nobody may fill the journal any more, some hundred commands to stop
/// still fit in it.
const AHEAD_BYTES: u64 = 256 * 1024;

/// How far room has been taken in the segment that is written.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// The segment, by its first offset.
    first: u64,
    to_bytes: u64,
    /// This file system takes none ahead.
    is_unable: bool,
}

impl Ahead {
    /// Takes room for what is to be written at `from` in the segment `first`, out of the ballast if there is no other. The length of
    /// the file stays what it is: recovery goes by it.
    ///
    /// # Errors
    /// There is none. Nothing was written.
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
                Ok(()) => self.to_bytes = wanted,
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
}
