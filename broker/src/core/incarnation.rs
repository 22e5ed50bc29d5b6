//! Incarnations: what an offset means after a restore.
//!
//! A broker that is restored from a backup has forgotten what it took after it. The offsets of those records were seen: readers
//! acknowledged them, people wrote them down. So none of them is ever given again: the restored broker begins a new incarnation, whose
//! offsets start past everything that any earlier one can have given, and what lies between is *withdrawn*. An offset alone
//! then says which incarnation gave it, and a cursor that an older one gave is answered with a gap, never with something else.
//!
//! Past everything: an incarnation that begins at the millisecond `t` since 1970 starts at `1,000 × t`. A broker that takes at most
//! a million records a second, over its life, stays below what begins at any later millisecond, from whichever backup and however often:
//! nothing has to be known of the incarnations that were lost. The first starts at 0, and all stay within the whole numbers of JSON
//! (2^53) until the year 2255.

use protocol::time::UnixMillis;

/// Offsets set aside for each millisecond since 1970. More than a journal takes: each record is checked, copied and synced.
const OFFSETS_PER_MS: u64 = 1_000;

/// One life of the journal's offsets, from one restore to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// From 1, one more at each restore.
    pub number: u64,
    /// Drawn at its beginning: two restores of one backup have the same number.
    pub id: [u8; 16],
    /// Its first offset.
    pub first: u64,
    /// When it began; 0 for the first.
    pub began: UnixMillis,
    /// What it was restored from; none for the first.
    pub restored: Option<Restored>,
}

/// A backup, as far as an incarnation rests on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Its id.
    pub backup: [u8; 16],
    /// When it was made.
    pub made: UnixMillis,
    /// The first offset that it does not hold.
    pub end: u64,
}

/// Offsets that were given, and whose records are gone with an older incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// The first of them.
    pub from: u64,
    /// The first offset that is not: where the next incarnation starts.
    pub to: u64,
    /// The incarnation that withdrew them.
    pub by: u64,
}

/// Why no incarnation can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotBegin {
    /// A wrong clock might give offsets a second time.
    #[error(
        "the clock shows a time before the backup was made: set it first, since the new incarnation's offsets follow from it"
    )]
    Clock,
    /// Nothing of ours.
    #[error("the backup's offsets are beyond those of its time")]
    Offsets,
}

/// Every incarnation of a journal, the current one last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    past: Vec<Incarnation>,
    current: Incarnation,
}

impl History {
    /// Puts it together: at least one, each starting past what the one before it left. `None`: they do not follow from each other.
    #[must_use]
    pub fn new(mut incarnations: Vec<Incarnation>) -> Option<Self> {
        let follows = |pair: &[Incarnation]| match pair {
            [before, next] => next.restored.is_some_and(|restored| {
                next.number > before.number
                    && before.first <= restored.end
                    && restored.end < next.first
            }),
            _ => false,
        };
        let begins = incarnations
            .first()
            .is_some_and(|first| first.restored.is_none());
        if !begins || !incarnations.windows(2).all(follows) {
            return None;
        }
        let current = incarnations.pop()?;
        Some(Self {
            past: incarnations,
            current,
        })
    }

    /// The one that is.
    #[must_use]
    pub const fn current(&self) -> &Incarnation {
        &self.current
    }

    /// All of them, in their order.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Incarnation> {
        self.past.iter().chain([&self.current])
    }

    /// The incarnation that follows, of a journal restored from `backup` at `now`.
    ///
    /// # Errors
    /// [`CannotBegin`].
    pub fn next(
        &self,
        id: [u8; 16],
        now: UnixMillis,
        backup: Restored,
    ) -> Result<Incarnation, CannotBegin> {
        if now < backup.made {
            return Err(CannotBegin::Clock);
        }
        let first = now.0.saturating_mul(OFFSETS_PER_MS);
        if first <= backup.end || backup.end < self.current.first {
            return Err(CannotBegin::Offsets);
        }
        Ok(Incarnation {
            number: self.current.number.saturating_add(1),
            id,
            first,
            began: now,
            restored: Some(backup),
        })
    }

    /// The number of the incarnation that gave `offset`, or, if that is withdrawn, of the one that withdrew it.
    #[must_use]
    pub fn of(&self, offset: u64) -> u64 {
        let ends = self.all().zip(self.all().skip(1));
        let kept = ends.map(|(one, next)| {
            (
                one.number,
                next.restored.map_or(next.first, |restored| restored.end),
            )
        });
        let found = kept.into_iter().find(|(_, end)| offset < *end);
        found.map_or(self.current.number, |(number, _)| number)
    }

    /// What is withdrawn, in the order of its offsets.
    pub fn withdrawn(&self) -> impl Iterator<Item = Withdrawn> {
        self.all().filter_map(|one| {
            let restored = one.restored?;
            Some(Withdrawn {
                from: restored.end,
                to: one.first,
                by: one.number,
            })
        })
    }

    /// The last withdrawal that the offsets from `from` up to and not including `to` touch, as far as they do.
    #[must_use]
    pub fn withdrawn_in(&self, from: u64, to: u64) -> Option<Withdrawn> {
        let parts = self.withdrawn().map(|part| Withdrawn {
            from: part.from.max(from),
            to: part.to.min(to),
            by: part.by,
        });
        parts.filter(|part| part.from < part.to).last()
    }

    /// A gap from `from` up to and not including `to`, cut where a withdrawal begins or ends: each piece in the same form.
    #[must_use]
    pub fn pieces(&self, from: u64, to: u64) -> Vec<(u64, u64)> {
        let edges = self.withdrawn().flat_map(|part| [part.from, part.to]);
        let inside = edges.filter(|edge| (from.saturating_add(1)..to).contains(edge));
        let firsts: Vec<_> = [from].into_iter().chain(inside).collect();
        let ends = firsts.iter().skip(1).copied().chain([to]);
        firsts.iter().copied().zip(ends).collect()
    }

    /// The offset `count` records before `end`, where what is withdrawn holds none.
    #[must_use]
    pub fn back(&self, end: u64, count: u64) -> u64 {
        let (mut end, mut left) = (end, count);
        for one in self.all().rev() {
            let have = end.saturating_sub(one.first);
            match one.restored {
                Some(restored) if have < left => {
                    left -= have;
                    end = restored.end;
                }
                Some(_) | None => return one.first.max(end.saturating_sub(left)),
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A second of 2026, in milliseconds.
    const NOW: u64 = 1_790_000_000_000;

    fn first() -> Incarnation {
        Incarnation {
            number: 1,
            id: [1; 16],
            first: 0,
            began: UnixMillis(0),
            restored: None,
        }
    }

    fn backup(made: u64, end: u64) -> Restored {
        Restored {
            backup: [9; 16],
            made: UnixMillis(made),
            end,
        }
    }

    fn restored(history: &History, now: u64, end: u64) -> History {
        let next = history.next([2; 16], UnixMillis(now), backup(now, end));
        History::new(history.all().cloned().chain([next.unwrap()]).collect()).unwrap()
    }

    /// Two restores: records 0 to 99, 20 of the second incarnation, and the third.
    fn thrice() -> (History, u64, u64) {
        let history = restored(&History::new(vec![first()]).unwrap(), NOW, 100);
        let second = history.current().first;
        let history = restored(&history, NOW + 60_000, second + 20);
        let third = history.current().first;
        (history, second, third)
    }

    #[test]
    fn every_offset_is_of_one_incarnation_and_what_is_withdrawn_of_the_one_that_withdrew_it() {
        let (history, second, third) = thrice();
        let cases = [
            (0, 1),
            (99, 1),
            (100, 2),
            (second - 1, 2),
            (second, 2),
            (second + 19, 2),
            (second + 20, 3),
            (third, 3),
            (u64::MAX, 3),
        ];
        for (offset, number) in cases {
            assert_eq!(history.of(offset), number, "{offset}");
        }
        let all: Vec<_> = history.withdrawn().collect();
        let part = |from, to, by| Withdrawn { from, to, by };
        assert_eq!(all, [part(100, second, 2), part(second + 20, third, 3)]);
    }

    #[test]
    fn a_gap_tells_its_withdrawals_apart_from_damage() {
        let (history, second, third) = thrice();
        let touched = |from, to| {
            history
                .withdrawn_in(from, to)
                .map(|part| (part.from, part.to, part.by))
        };
        assert_eq!(touched(0, 100), None);
        assert_eq!(touched(90, second), Some((100, second, 2)));
        assert_eq!(touched(200, second), Some((200, second, 2)));
        assert_eq!(touched(90, third), Some((second + 20, third, 3)));
        assert_eq!(touched(second, second + 20), None);
        assert_eq!(history.pieces(90, second), [(90, 100), (100, second)]);
        assert_eq!(history.pieces(100, second), [(100, second)]);
        assert_eq!(
            history.pieces(90, third),
            [
                (90, 100),
                (100, second),
                (second, second + 20),
                (second + 20, third)
            ]
        );
        assert_eq!(history.pieces(5, 9), [(5, 9)]);
    }

    #[test]
    fn counting_back_skips_what_is_withdrawn() {
        let (history, second, third) = thrice();
        for (count, expected) in [
            (0, third + 7),
            (7, third),
            (8, second + 19),
            (27, second),
            (28, 99),
            (127, 0),
            (200_000, 0),
        ] {
            assert_eq!(history.back(third + 7, count), expected, "{count}");
        }
        let once = History::new(vec![first()]).unwrap();
        assert_eq!((once.back(10, 3), once.back(2, 3)), (7, 0));
    }

    #[test]
    fn a_clock_before_the_backup_begins_nothing() {
        let history = History::new(vec![first()]).unwrap();
        let early = history.next([2; 16], UnixMillis(NOW - 1), backup(NOW, 7));
        assert_eq!(early, Err(CannotBegin::Clock));
        let beyond = history.next([2; 16], UnixMillis(NOW), backup(NOW, u64::MAX));
        assert_eq!(beyond, Err(CannotBegin::Offsets));
    }

    #[test]
    fn incarnations_that_do_not_follow_from_each_other_are_no_history() {
        let (history, ..) = thrice();
        let all: Vec<_> = history.all().cloned().collect();
        assert!(History::new(all.clone()).is_some());
        assert_eq!(History::new(Vec::new()), None);
        assert_eq!(History::new(all[1..].to_vec()), None);
        assert_eq!(
            History::new(vec![all[0].clone(), all[2].clone(), all[1].clone()]),
            None
        );
        let mut short = all;
        short[1].first = 100;
        assert_eq!(History::new(short), None);
    }

    proptest! {
        /// Restores of one backup, some time apart, while each incarnation takes as many records as it may.
        #[test]
        fn no_offset_is_given_twice_whichever_backup_is_restored(
            end in 0_u64..1_000_000_000,
            lives in proptest::collection::vec((1_u64..1_000_000_000, 0_u64..=1_000), 1..20),
        ) {
            let history = History::new(vec![first()]).unwrap();
            let (mut now, mut given) = (NOW, end);
            for (life_ms, per_ms) in lives {
                // Always from the first backup: nothing is known of what came after it.
                let next = history.next([2; 16], UnixMillis(now), backup(NOW, end)).unwrap();
                prop_assert!(next.first >= given, "{} after {given}", next.first);
                given = next.first + life_ms * per_ms;
                now += life_ms;
            }
        }
    }
}
