//! Is there room on the disk for what can wait? What must always work, a revocation and its audit row above all, has a reserve:
//! once free space falls below it, events, reports and load tests wait at their senders, who keep them.
//!
//! Behind the reserve stands the ballast: space that the broker itself holds, and gives up in slices, where somebody else has
//! filled the disk.

/// Whatever reserve is asked for, it is such a part of the disk at most: an eighth, so that a small one can be used at all.
pub const RESERVE_PART: u64 = 8;
/// What can wait is taken again once the reserve is there and such a part of it more, a quarter: no to and fro at the edge.
const RESUME_PART: u64 = 4;
/// Space held against a disk that others fill: what may be queued for the journal (16 MiB), and as much again.
pub const BALLAST_BYTES: u64 = 32 * 1024 * 1024;
/// Of a small disk it is such a part at most.
pub const BALLAST_PART: u64 = 64;
/// The ballast is given up in so many slices: each is plenty for some revocations, and whoever fills the disk may take one.
pub const SLICES: u64 = 16;
/// Files that can still be made. A start makes some ten; below this, what can wait does.
const FILES_MIN: u64 = 64;

/// The file system of the data directory, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size, in bytes.
    pub total_bytes: u64,
    /// What we may still use.
    pub free_bytes: u64,
    /// Files that can still be made; none where the file system has no bound.
    pub free_files: Option<u64>,
    /// Nothing can be written.
    pub is_read_only: bool,
}

/// What is kept free, and what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Below this, what can wait does.
    pub reserve_bytes: u64,
    /// What the ballast weighs when it is whole.
    pub ballast_bytes: u64,
}

impl Terms {
    /// For a disk of this size; `asked_bytes` is what its owner wants as reserve.
    #[must_use]
    pub fn of(total_bytes: u64, asked_bytes: u64) -> Self {
        Self {
            reserve_bytes: asked_bytes.min(total_bytes / RESERVE_PART),
            ballast_bytes: BALLAST_BYTES.min(total_bytes / BALLAST_PART),
        }
    }

    const fn resume_bytes(&self) -> u64 {
        self.reserve_bytes + self.reserve_bytes / RESUME_PART
    }
}

/// Why what can wait has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The reserve is touched.
    Bytes,
    /// Hardly any file can be made.
    Files,
    /// Nothing can be written.
    ReadOnly,
    /// The data directory cannot be looked at.
    Unseen,
}

impl Shortage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bytes, Self::Files, Self::ReadOnly, Self::Unseen];

    /// Whether what must always work can be tried: where nothing can be written, a try would end the journal.
    #[must_use]
    pub const fn leaves_reserve(self) -> bool {
        match self {
            Self::Bytes | Self::Files => true,
            Self::ReadOnly | Self::Unseen => false,
        }
    }

    /// What is wrong and what to do. Strangers may read it: no figures, no paths.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Bytes => {
                "the disk of the data directory is nearly full: free some space; events and reports wait at their senders"
            }
            Self::Files => {
                "the disk of the data directory has hardly any inodes left: remove files; events and reports wait at their senders"
            }
            Self::ReadOnly => {
                "the disk of the data directory is read-only: see the kernel's log, and mount it for writing"
            }
            Self::Unseen => "the data directory cannot be looked at: see the broker's log",
        }
    }
}

/// Whether what can wait has to, now. `before` is what was said last; `missing_bytes` is what the ballast lacks, for which there must
/// be room too before anything else is taken; `disk` is none where the look at it failed.
#[must_use]
pub fn judge(
    before: Option<Shortage>,
    disk: Option<Disk>,
    terms: &Terms,
    missing_bytes: u64,
) -> Option<Shortage> {
    let Some(disk) = disk else {
        return Some(Shortage::Unseen);
    };
    if disk.is_read_only {
        return Some(Shortage::ReadOnly);
    }
    let needed_bytes = if before == Some(Shortage::Bytes) || missing_bytes > 0 {
        terms.resume_bytes().saturating_add(missing_bytes)
    } else {
        terms.reserve_bytes
    };
    if disk.free_bytes < needed_bytes {
        return Some(Shortage::Bytes);
    }
    let needed_files = match before {
        Some(Shortage::Files) => 2 * FILES_MIN,
        Some(Shortage::Bytes | Shortage::ReadOnly | Shortage::Unseen) | None => FILES_MIN,
    };
    (disk.free_files? < needed_files).then_some(Shortage::Files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const GIB: u64 = 1024 * MIB;
    const TERMS: Terms = Terms {
        reserve_bytes: 100,
        ballast_bytes: 10,
    };

    fn disk(free_bytes: u64) -> Disk {
        Disk {
            total_bytes: 1_000,
            free_bytes,
            free_files: Some(1_000),
            is_read_only: false,
        }
    }

    fn befores() -> impl Iterator<Item = Option<Shortage>> {
        Shortage::ALL.into_iter().map(Some).chain([None])
    }

    #[test]
    fn a_disk_of_any_size_leaves_most_of_itself_to_use() {
        for total in [0, 1, MIB, 64 * MIB, GIB, 8 * GIB, 1024 * GIB, u64::MAX] {
            for asked in [0, MIB, 256 * MIB, u64::MAX] {
                let terms = Terms::of(total, asked);
                assert!(
                    terms.resume_bytes() + terms.ballast_bytes <= total / 5,
                    "{total}"
                );
            }
        }
        let terms = Terms::of(1024 * GIB, 256 * MIB);
        assert_eq!(
            terms.reserve_bytes,
            256 * MIB,
            "all of it, of a disk that is large enough"
        );
        assert_eq!(terms.ballast_bytes, BALLAST_BYTES);
    }

    #[test]
    fn below_the_reserve_what_can_wait_waits_and_a_quarter_above_it_no_longer() {
        for free in 0..=200 {
            for missing in [0, 10] {
                for before in befores() {
                    let said = judge(before, Some(disk(free)), &TERMS, missing);
                    let is_short = match (before, missing) {
                        (_, 1..) => free < 125 + missing,
                        (Some(Shortage::Bytes), _) => free < 125,
                        _ => free < 100,
                    };
                    let wanted = is_short.then_some(Shortage::Bytes);
                    assert_eq!(said, wanted, "{free} free, {missing} missing, {before:?}");
                }
            }
        }
    }

    #[test]
    fn it_says_the_same_again_as_long_as_nothing_changes() {
        for free in 0..=200 {
            for free_files in [None, Some(0), Some(63), Some(64), Some(127), Some(128)] {
                for before in befores() {
                    let disk = Disk {
                        free_files,
                        ..disk(free)
                    };
                    let first = judge(before, Some(disk), &TERMS, 0);
                    assert_eq!(
                        judge(first, Some(disk), &TERMS, 0),
                        first,
                        "{disk:?} {before:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_disk_that_is_read_only_or_out_of_sight_says_so_whatever_is_free() {
        for before in befores() {
            for free in [0, 1_000] {
                let shut = Disk {
                    is_read_only: true,
                    ..disk(free)
                };
                let said = judge(before, Some(shut), &TERMS, 0);
                assert_eq!(said, Some(Shortage::ReadOnly));
            }
            assert_eq!(judge(before, None, &TERMS, 0), Some(Shortage::Unseen));
        }
    }

    #[test]
    fn without_inodes_nothing_new_is_taken_and_a_file_system_without_a_bound_has_enough() {
        let with = |free_files| Disk {
            free_files,
            ..disk(1_000)
        };
        let said = |before, files| judge(before, Some(with(files)), &TERMS, 0);
        assert_eq!(said(None, Some(63)), Some(Shortage::Files));
        assert_eq!(said(None, Some(64)), None);
        assert_eq!(
            said(Some(Shortage::Files), Some(127)),
            Some(Shortage::Files)
        );
        assert_eq!(said(Some(Shortage::Files), Some(128)), None);
        assert_eq!(said(None, None), None);
    }

    #[test]
    fn a_shortage_says_what_to_do_and_only_where_writing_may_work_is_the_reserve_used() {
        for shortage in Shortage::ALL {
            assert!(shortage.advice().contains(": "), "{shortage:?}");
        }
        assert!(Shortage::Bytes.leaves_reserve() && Shortage::Files.leaves_reserve());
        assert!(!Shortage::ReadOnly.leaves_reserve() && !Shortage::Unseen.leaves_reserve());
    }
}
