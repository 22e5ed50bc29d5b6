//! Room on the disk of the data directory: looked at, held as ballast, and given up where nothing else is left.
//!
//! What is decided about it is decided in [`crate::core::room`].

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use rustix::{
    fs::{FallocateFlags, StatVfsMountFlags, fallocate},
    io::Errno,
};

use crate::core::room::{Disk, SLICES, Shortage, Terms, judge};

/// Free space that a start wants to find, in bytes: a segment's header, the store's log and index, a socket.
const START_BYTES: u64 = 512 * 1024;
/// The ballast's name in the data directory.
const BALLAST: &str = "ballast";

/// The room of one data directory. Cheap to clone. Its methods block on the disk, all but those that say so.
#[derive(Clone, Debug)]
pub struct Room {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    asked_bytes: u64,
    /// [`Shortage`], by its place in [`Shortage::ALL`], from one; zero is none. The gate asks at every publish.
    shortage: AtomicU8,
    seen: Mutex<Seen>,
    refused: [AtomicU64; Waits::ALL.len()],
}

/// What the last look saw.
#[derive(Debug)]
struct Seen {
    disk: Option<Disk>,
    ballast: File,
    /// This file system cannot hold space for a file.
    is_unable: bool,
}

/// What waits while there is a shortage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// A sandbox's batch.
    Event,
    /// A host's report.
    Report,
    /// A message of a load test.
    Bench,
    /// A dispatcher's launch.
    Launch,
    /// A host that comes for the first time.
    Enrolment,
}

impl Waits {
    /// All of them.
    const ALL: [Self; 5] = [
        Self::Event,
        Self::Report,
        Self::Bench,
        Self::Launch,
        Self::Enrolment,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Report => "report",
            Self::Bench => "bench",
            Self::Launch => "launch",
            Self::Enrolment => "enrolment",
        }
    }
}

/// Figures, for whoever watches.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What the last look saw; none if it failed.
    pub disk: Option<Disk>,
    /// What is kept free, in bytes.
    pub reserve_bytes: u64,
    /// What the ballast holds, in bytes.
    pub ballast_bytes: u64,
    /// What was told to wait since the start.
    pub refused: [(&'static str, u64); Waits::ALL.len()],
}

impl Room {
    /// Opens the room of `dir`, which is there, with such a reserve. On a disk that others have filled, the ballast is given up as far as a start needs
    /// it.
    ///
    /// # Errors
    /// The directory cannot be looked at, or takes no file.
    pub fn open(dir: &Path, asked_bytes: u64) -> anyhow::Result<Self> {
        let path = dir.join(BALLAST);
        let ballast = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let room = Self {
            inner: Arc::new(Inner {
                dir: dir.to_owned(),
                asked_bytes,
                shortage: AtomicU8::new(0),
                seen: Mutex::new(Seen {
                    disk: look_at(dir),
                    ballast,
                    is_unable: false,
                }),
                refused: Default::default(),
            }),
        };
        while room.free_bytes() < START_BYTES && room.give_way() {}
        Ok(room)
    }

    /// Looks again, and holds what the ballast lacks if there is room for it. What it says is what [`Room::shortage`] says from now
    /// on.
    pub fn look(&self) -> Option<Shortage> {
        let mut seen = self.seen();
        let before = self.shortage();
        let disk = look_at(&self.inner.dir);
        seen.disk = disk;
        let terms = self.terms(disk);
        let missing = seen.missing(&terms);
        let mut shortage = judge(before, disk, &terms, missing);
        if shortage.is_none() && missing > 0 && seen.hold(terms.ballast_bytes).is_err() {
            // Somebody was faster.
            shortage = Some(Shortage::Bytes);
        }
        self.inner.shortage.store(code(shortage), Ordering::Relaxed);
        if before != shortage {
            let free_bytes = disk.map(|disk| disk.free_bytes);
            let reserve_bytes = terms.reserve_bytes;
            let ballast_bytes = seen.held_bytes();
            match shortage {
                Some(shortage) => {
                    tracing::warn!(
                        free_bytes,
                        reserve_bytes,
                        ballast_bytes,
                        "{}",
                        shortage.advice()
                    );
                }
                None => tracing::info!(
                    free_bytes,
                    reserve_bytes,
                    ballast_bytes,
                    "there is room on the disk again: everything is taken"
                ),
            }
        }
        shortage
    }

    /// Why what can wait has to, as the last look said. Never blocks.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let at = self.inner.shortage.load(Ordering::Relaxed).checked_sub(1)?;
        Shortage::ALL.get(usize::from(at)).copied()
    }

    /// The same for something that came; counted if it has to wait. Never blocks.
    #[must_use]
    pub fn refuse(&self, what: Waits) -> Option<Shortage> {
        let shortage = self.shortage()?;
        if let Some(count) = self.inner.refused.get(what as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(shortage)
    }

    /// Gives up a slice of the ballast, for a write that found no room. `false`: there is none left.
    #[must_use]
    pub fn give_way(&self) -> bool {
        let seen = self.seen();
        let slice = self.terms(seen.disk).ballast_bytes.div_ceil(SLICES).max(1);
        let held_bytes = seen.held_bytes();
        if held_bytes == 0 {
            return false;
        }
        let held_bytes = held_bytes.saturating_sub(slice);
        // Synced: some file systems give freed blocks to nobody before that.
        let given = seen
            .ballast
            .set_len(held_bytes)
            .and_then(|()| seen.ballast.sync_all());
        if let Err(error) = given {
            tracing::error!(%error, "the ballast could not be given up");
            return false;
        }
        self.inner
            .shortage
            .store(code(Some(Shortage::Bytes)), Ordering::Relaxed);
        tracing::warn!(
            held_bytes,
            "the disk is full: some of the ballast was given up, so that what must always work can be written"
        );
        true
    }

    /// Figures, as the last look saw them.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let seen = self.seen();
        Figures {
            disk: seen.disk,
            reserve_bytes: self.terms(seen.disk).reserve_bytes,
            ballast_bytes: seen.held_bytes(),
            refused: Waits::ALL.map(|what| {
                let count = self.inner.refused.get(what as usize);
                let count = count.map_or(0, |count| count.load(Ordering::Relaxed));
                (what.word(), count)
            }),
        }
    }

    fn free_bytes(&self) -> u64 {
        look_at(&self.inner.dir).map_or(u64::MAX, |disk| disk.free_bytes)
    }

    fn terms(&self, disk: Option<Disk>) -> Terms {
        Terms::of(
            disk.map_or(0, |disk| disk.total_bytes),
            self.inner.asked_bytes,
        )
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.inner
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Asked of the file each time: it is what counts.
    fn held_bytes(&self) -> u64 {
        self.ballast.metadata().map_or(0, |ballast| ballast.len())
    }

    fn missing(&self, terms: &Terms) -> u64 {
        if self.is_unable {
            return 0;
        }
        terms.ballast_bytes.saturating_sub(self.held_bytes())
    }

    fn hold(&mut self, bytes: u64) -> anyhow::Result<()> {
        match fallocate(&self.ballast, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => {
                return Err(error).context("hold ballast");
            }
            Err(error) => {
                self.is_unable = true;
                tracing::warn!(
                    %error,
                    "no space can be held on this disk: where others fill it, nothing at all can be written"
                );
                return Ok(());
            }
        }
        self.ballast.sync_all().context("hold ballast")
    }
}

fn look_at(dir: &Path) -> Option<Disk> {
    match rustix::fs::statvfs(dir) {
        Ok(seen) => Some(Disk {
            total_bytes: seen.f_blocks.saturating_mul(seen.f_frsize),
            free_bytes: seen.f_bavail.saturating_mul(seen.f_frsize),
            free_files: (seen.f_files > 0).then_some(seen.f_favail),
            is_read_only: seen.f_flag.contains(StatVfsMountFlags::RDONLY),
        }),
        Err(error) => {
            tracing::debug!(%error, "the data directory could not be looked at");
            None
        }
    }
}

fn code(shortage: Option<Shortage>) -> u8 {
    let at = shortage.and_then(|one| Shortage::ALL.iter().position(|other| *other == one));
    at.map_or(0, |at| u8::try_from(at + 1).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ballast_is_held_on_the_disk_and_given_up_in_slices_to_the_last() {
        let place = tempfile::tempdir().unwrap();
        let room = Room::open(place.path(), 1).unwrap();
        assert_eq!(room.look(), None);
        let held = room.figures().ballast_bytes;
        let blocks =
            |path: &Path| std::os::unix::fs::MetadataExt::blocks(&path.metadata().unwrap());
        let path = place.path().join(BALLAST);
        assert!(held > 0 && blocks(&path) * 512 >= held);
        let mut slices = 0;
        while room.give_way() {
            slices += 1;
            assert_eq!(room.shortage(), Some(Shortage::Bytes), "red at once");
        }
        assert_eq!((slices, blocks(&path)), (SLICES, 0));
        assert_eq!(room.look(), None, "and held again as soon as there is room");
        assert_eq!(room.figures().ballast_bytes, held);
    }

    #[test]
    fn what_waits_is_counted_by_its_kind_and_only_while_it_has_to() {
        let place = tempfile::tempdir().unwrap();
        let room = Room::open(place.path(), 1).unwrap();
        assert_eq!(room.look(), None);
        assert_eq!(room.refuse(Waits::Event), None);
        assert!(room.give_way());
        assert_eq!(room.refuse(Waits::Report), Some(Shortage::Bytes));
        assert_eq!(room.refuse(Waits::Report), Some(Shortage::Bytes));
        let refused = room.figures().refused;
        assert!(
            refused.contains(&("report", 2)) && refused.contains(&("event", 0)),
            "{refused:?}"
        );
    }

    #[test]
    fn a_directory_that_is_gone_is_a_shortage() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("data");
        std::fs::create_dir(&dir).unwrap();
        let room = Room::open(&dir, 1).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(room.look(), Some(Shortage::Unseen));
    }
}
