//! The Merkle tree of RFC 6962 §2.1, as far as an appender needs it: hashes, and the right edge.

use sha2::{Digest as _, Sha256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// What stands at the right edge of the largest tree: one complete subtree for each bit of its size.
pub const PEAKS_MAX: usize = 64;

/// The hash of a leaf: `SHA-256(0x00 ‖ leaf)`.
#[must_use]
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new()
        .chain_update([0])
        .chain_update(leaf)
        .finalize()
        .into()
}

/// The hash of a node: `SHA-256(0x01 ‖ left ‖ right)`.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new()
        .chain_update([1])
        .chain_update(left)
        .chain_update(right)
        .finalize()
        .into()
}

/// The root of a tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// A complete subtree of 2^`level` leaves, the `index`th of its size from the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// How high it stands; leaves are 0.
    pub level: u8,
    /// Its place among those of its level, from zero.
    pub index: u64,
}

/// The complete subtrees that make up leaves `start..end`, from the left. `start` has to be a multiple of the largest power of two
/// that `end - start` holds, as every range is that the recursions of RFC 6962 come to.
pub fn cover(start: u64, end: u64) -> impl Iterator<Item = Node> {
    let mut start = start;
    std::iter::from_fn(move || {
        let level = end.checked_sub(start)?.checked_ilog2()?;
        let node = Node {
            level: u8::try_from(level).unwrap_or(u8::MAX),
            index: start >> level,
        };
        start += 1 << level;
        Some(node)
    })
}

/// The root over complete subtrees, from the left.
#[must_use]
pub fn fold(peaks: &[Hash]) -> Hash {
    let mut peaks = peaks.iter().rev();
    let Some(last) = peaks.next() else {
        return empty_root();
    };
    peaks.fold(*last, |right, left| node_hash(left, &right))
}

/// The right edge of a tree that grows: all that appending takes, at most [`PEAKS_MAX`] hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

impl Frontier {
    /// The edge of an empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of a tree of `size` leaves, whose complete subtrees, [`cover`]`(0, size)`, have the hashes `peaks`. `None` if there are
    /// more or fewer.
    #[must_use]
    pub fn from_peaks(size: u64, peaks: Vec<Hash>) -> Option<Self> {
        let fits = u32::try_from(peaks.len()).is_ok_and(|count| count == size.count_ones());
        fits.then_some(Self { size, peaks })
    }

    /// How many leaves there are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its hash.
    pub fn push(&mut self, leaf: Hash) {
        self.push_with(leaf, |_, _| {});
    }

    /// Appends a leaf by its hash, and tells each subtree that it completes, the leaf itself first.
    pub fn push_with(&mut self, leaf: Hash, mut complete: impl FnMut(Node, &Hash)) {
        let mut hash = leaf;
        let mut node = Node {
            level: 0,
            index: self.size,
        };
        complete(node, &hash);
        while node.index & 1 == 1 {
            let Some(left) = self.peaks.pop() else { break };
            hash = node_hash(&left, &hash);
            node = Node {
                level: node.level + 1,
                index: node.index >> 1,
            };
            complete(node, &hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Hash {
        fold(&self.peaks)
    }
}
