//! What a power cut spares of all that is not durable: nothing, everything, and much between.

use crate::random::Random;

/// What becomes of everything that is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing of it is kept.
    Nothing,
    /// All of it.
    All,
    /// The last change alone.
    Last,
    /// All but the first change.
    AllButFirst,
    /// The first changes, up to a random one.
    Prefix,
    /// Files have grown, and their data is zeros.
    GrowthOnly,
    /// Data is there as far as the file was long before.
    NoGrowth,
    /// Of each write its first sectors.
    Heads,
    /// Of each write its last sectors.
    Tails,
    /// A coin for each change.
    Changes,
    /// A coin for each sector of each change.
    Sectors,
    /// Nearly all sectors.
    FewLost,
}

impl Fate {
    pub(crate) const EVERY: [Self; 12] = [
        Self::Nothing,
        Self::All,
        Self::Last,
        Self::AllButFirst,
        Self::Prefix,
        Self::GrowthOnly,
        Self::NoGrowth,
        Self::Heads,
        Self::Tails,
        Self::Changes,
        Self::Sectors,
        Self::FewLost,
    ];

    /// Which of `count` changes are kept, where each is kept whole.
    pub(crate) fn whole(self, count: usize, random: &mut Random) -> Vec<bool> {
        let prefix = random.below(count + 1);
        (0..count)
            .map(|at| match self {
                Self::Nothing => false,
                Self::All | Self::GrowthOnly | Self::NoGrowth => true,
                Self::Last => at + 1 == count,
                Self::AllButFirst => at > 0,
                Self::Prefix => at < prefix,
                Self::Heads | Self::Tails | Self::Changes | Self::Sectors => random.below(2) == 0,
                Self::FewLost => random.below(8) > 0,
            })
            .collect()
    }

    /// Which of `sectors` sectors of a write are kept, given what [`Fate::whole`] said of it.
    pub(crate) fn sectors(self, is_kept: bool, sectors: usize, random: &mut Random) -> Vec<bool> {
        let edge = random.below(sectors + 1);
        (0..sectors)
            .map(|at| match self {
                Self::Heads => at < edge,
                Self::Tails => at >= edge,
                Self::Sectors => random.below(2) == 0,
                Self::FewLost => random.below(8) > 0,
                Self::GrowthOnly => false,
                Self::Nothing
                | Self::All
                | Self::Last
                | Self::AllButFirst
                | Self::Prefix
                | Self::NoGrowth
                | Self::Changes => is_kept,
            })
            .collect()
    }

    /// After how many of `count` changes the size on disk is what it is.
    pub(crate) fn size(self, kept: &[bool], random: &mut Random) -> usize {
        let count = kept.len();
        match self {
            Self::Nothing | Self::NoGrowth => 0,
            Self::All | Self::Last | Self::AllButFirst | Self::GrowthOnly => count,
            Self::Prefix => kept.iter().filter(|kept| **kept).count(),
            Self::Heads | Self::Tails | Self::Changes | Self::Sectors | Self::FewLost => {
                if random.below(2) == 0 {
                    count
                } else {
                    random.below(count + 1)
                }
            }
        }
    }
}
