//! That a leaf is in a tree, and that one tree is the beginning of another (RFC 6962 §2.1.1 and §2.1.2).
//!
//! Proofs are made from whoever knows the hashes of complete subtrees, and verified as RFC 9162 §2.1.3.2 and §2.1.4.2 say.

use super::tree::{Hash, Node, cover, fold, node_hash};

/// The hashes of the longest proof: one for each level, and one more for consistency.
pub const PROOF_HASHES_MAX: usize = 65;

/// A proof does not show what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// The leaf is not below the root.
    #[error("the row is not in the tree")]
    NotIncluded,
    /// The smaller tree is not the beginning of the larger.
    #[error("the smaller tree is not the beginning of the larger")]
    Inconsistent,
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// What `source` could not give.
pub fn root<E>(size: u64, source: &mut impl FnMut(Node) -> Result<Hash, E>) -> Result<Hash, E> {
    range(0, size, source)
}

/// The way from leaf `index` to the root over `size` leaves: the sibling's hash at each step, from the leaf up. Empty if there is no such
/// leaf.
///
/// # Errors
/// What `source` could not give: the hash of a complete subtree among the first `size` leaves.
pub fn inclusion<E>(
    index: u64,
    size: u64,
    source: &mut impl FnMut(Node) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut hashes = Vec::new();
    if index >= size {
        return Ok(hashes);
    }
    let (mut start, mut end) = (0, size);
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            hashes.push(range(middle, end, source)?);
            end = middle;
        } else {
            hashes.push(range(start, middle, source)?);
            start = middle;
        }
    }
    hashes.reverse();
    Ok(hashes)
}

/// That the tree of the first `old` leaves is the beginning of the tree of the first `new`. Empty where there is nothing to show: nothing
/// before, the same size, or `old` the larger.
///
/// # Errors
/// What `source` could not give: the hash of a complete subtree among the first `new` leaves.
pub fn consistency<E>(
    old: u64,
    new: u64,
    source: &mut impl FnMut(Node) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let mut hashes = Vec::new();
    if old == 0 || old >= new {
        return Ok(hashes);
    }
    let (mut start, mut end) = (0, new);
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            hashes.push(range(middle, end, source)?);
            end = middle;
        } else {
            hashes.push(range(start, middle, source)?);
            start = middle;
        }
    }
    // The old tree's own root is known to whoever asks, if it is one complete subtree.
    if start > 0 {
        hashes.push(range(start, end, source)?);
    }
    hashes.reverse();
    Ok(hashes)
}

/// Whether `hashes` lead from the leaf `leaf`, the `index`th, to the root over `size` leaves (RFC 9162 §2.1.3.2).
///
/// # Errors
/// [`BadProof::NotIncluded`].
pub fn check_inclusion(
    leaf: &Hash,
    index: u64,
    size: u64,
    hashes: &[Hash],
    root: &Hash,
) -> Result<(), BadProof> {
    if index >= size {
        return Err(BadProof::NotIncluded);
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in hashes {
        if last == 0 {
            return Err(BadProof::NotIncluded);
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    if last == 0 && hash == *root {
        Ok(())
    } else {
        Err(BadProof::NotIncluded)
    }
}

/// Whether `hashes` show that the tree of `old` leaves is the beginning of the tree of `new` (RFC 9162 §2.1.4.2). Every tree goes on from
/// the empty one, whatever root is claimed for that: there the proof is empty, and says nothing of `new_root`.
///
/// # Errors
/// [`BadProof::Inconsistent`].
pub fn check_consistency(
    old: u64,
    new: u64,
    hashes: &[Hash],
    old_root: &Hash,
    new_root: &Hash,
) -> Result<(), BadProof> {
    let is_good = if old == 0 {
        hashes.is_empty() && *old_root == super::tree::empty_root()
    } else if old == new {
        hashes.is_empty() && old_root == new_root
    } else {
        old < new && leads_to_both(old, new, hashes, old_root, new_root)
    };
    is_good.then_some(()).ok_or(BadProof::Inconsistent)
}

fn leads_to_both(old: u64, new: u64, hashes: &[Hash], old_root: &Hash, new_root: &Hash) -> bool {
    let (first, rest) = if old.is_power_of_two() {
        (old_root, hashes)
    } else {
        match hashes.split_first() {
            Some(found) => found,
            None => return false,
        }
    };
    let (mut at, mut last) = (old - 1, new - 1);
    while at & 1 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut old_hash, mut new_hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            new_hash = node_hash(sibling, &new_hash);
            while at & 1 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            new_hash = node_hash(&new_hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

/// The root over leaves `start..end`.
fn range<E>(
    start: u64,
    end: u64,
    source: &mut impl FnMut(Node) -> Result<Hash, E>,
) -> Result<Hash, E> {
    let peaks = cover(start, end)
        .map(source)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(fold(&peaks))
}

/// The largest power of two below `count`, which is at least 2: where RFC 6962 splits a tree.
fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}
