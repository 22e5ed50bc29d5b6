//! How this host's keys followed each other: what a broker is shown that knows an older one.
//!
//! A broker that was restored from a backup knows a key that this host replaced long ago. Each succession is kept, so that the host can
//! show the chain from there to its present key. The chain is kept in parts of [`PART_LINKS`], a small file each: adding a link writes
//! one of them, and the oldest are dropped.

use protocol::limits::SUCCESSIONS_MAX;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Generations in one part: about 4 KiB, a block of most disks.
pub const PART_LINKS: u64 = 16;

/// Parts that are kept: 4,096 links, some four months of renewals, in a megabyte. Who restores an older backup enrols anew.
pub const PARTS_MAX: usize = 256;

/// A succession, by the generation of the key that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// That generation.
    pub generation: u64,
    /// As signed by the key before.
    pub succession: ByteBuf,
}

/// How a host shows its right to a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Show {
    /// By its last key's word for the next.
    #[default]
    Last,
    /// By the chain from a key that the broker knows.
    Chain {
        /// The generation of that key; none before the broker has said it: from the first that is kept.
        after: Option<u64>,
    },
}

/// The number of the part that holds the link of `generation`.
#[must_use]
pub const fn part_of(generation: u64) -> u64 {
    generation / PART_LINKS
}

/// A part with one link more. One of the same generation gives way: it was never granted.
#[must_use]
pub fn with(mut part: Vec<Link>, link: Link) -> Vec<Link> {
    part.retain(|kept| kept.generation < link.generation);
    part.push(link);
    part
}

/// Of links in their order, those to be shown to a broker that knows the key of generation `after`: one request's, without a gap.
#[must_use]
pub fn shown(links: impl IntoIterator<Item = Link>, after: Option<u64>) -> Vec<Link> {
    let mut shown: Vec<Link> = Vec::new();
    for link in links {
        let is_next = match (shown.last(), after) {
            (Some(last), _) => last.generation.checked_add(1) == Some(link.generation),
            (None, Some(after)) => after.checked_add(1) == Some(link.generation),
            (None, None) => true,
        };
        if is_next && shown.len() < SUCCESSIONS_MAX {
            shown.push(link);
        } else if !shown.is_empty() {
            break;
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(generation: u64) -> Link {
        Link {
            generation,
            succession: vec![1].into(),
        }
    }

    fn generations(links: &[Link]) -> Vec<u64> {
        links.iter().map(|link| link.generation).collect()
    }

    #[test]
    fn a_request_shows_the_chain_from_the_key_that_the_broker_knows_without_a_gap() {
        for first in 2..6_u64 {
            for last in first..40_u64 {
                for after in (0..45).map(Some).chain([None]) {
                    let shown = generations(&shown((first..=last).map(link), after));
                    let from = after.map_or(first, |after| after + 1);
                    let expected: Vec<u64> = if from < first {
                        vec![]
                    } else {
                        (from..=last).take(SUCCESSIONS_MAX).collect()
                    };
                    assert_eq!(shown, expected, "{first}..={last} after {after:?}");
                }
            }
        }
        let holed = [2, 3, 5, 6].map(link);
        assert_eq!(generations(&shown(holed.clone(), Some(1))), [2, 3]);
        assert_eq!(generations(&shown(holed, Some(4))), [5, 6]);
    }

    #[test]
    fn a_part_takes_each_generation_once_and_the_last_word_counts() {
        let part = with(with(with(vec![], link(2)), link(3)), link(3));
        assert_eq!(generations(&part), [2, 3]);
        let other = Link {
            succession: vec![2].into(),
            ..link(3)
        };
        assert_eq!(with(part, other.clone()).last(), Some(&other));
        assert_eq!((part_of(15), part_of(16)), (0, 1));
    }
}
