//! One leaf, its way to the root, and who signed that root, in one text (C2SP `tlog-proof`). The leaf's bytes are its extra data.

use std::fmt;

use super::checkpoint::SignedCheckpoint;
use super::leaf::{LEAF_BYTES_MAX, Leaf};
use super::note::{BadNote, NOTE_BYTES_MAX};
use super::proof::{BadProof, PROOF_HASHES_MAX, check_inclusion};
use super::tree::{Hash, leaf_hash};
use super::{decimal, from_base64, hash_from_base64, to_base64};

/// The longest proof, in bytes: a leaf in base64, a hash for each level, a checkpoint.
pub const PROOF_BYTES_MAX: usize =
    LEAF_BYTES_MAX / 3 * 4 + PROOF_HASHES_MAX * 45 + NOTE_BYTES_MAX + 128;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// That a leaf is in the log, not yet verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The leaf's bytes.
    pub leaf: Vec<u8>,
    /// Its place, from zero.
    pub index: u64,
    /// The way to the root, from the leaf up; at most [`PROOF_HASHES_MAX`].
    pub hashes: Vec<Hash>,
    /// A state of the log that has the leaf.
    pub checkpoint: SignedCheckpoint,
}

impl TlogProof {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`BadNote`] if it is not one in the one form that it has.
    pub fn parse(text: &str) -> Result<Self, BadNote> {
        if text.len() > PROOF_BYTES_MAX {
            return Err(BadNote::TooLong);
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(BadNote::Malformed)?;
        let checkpoint = SignedCheckpoint::parse(checkpoint)?;
        let mut lines = head.split('\n');
        let mut after = |prefix: &str| lines.next().and_then(|line| line.strip_prefix(prefix));
        after(FIRST_LINE)
            .filter(|rest| rest.is_empty())
            .ok_or(BadNote::Malformed)?;
        let leaf = after("extra ")
            .and_then(from_base64)
            .ok_or(BadNote::Malformed)?;
        let index = after("index ")
            .and_then(decimal)
            .ok_or(BadNote::Malformed)?;
        if lines.clone().count() > PROOF_HASHES_MAX {
            return Err(BadNote::TooLong);
        }
        let hashes = lines
            .map(|line| hash_from_base64(line).ok_or(BadNote::Malformed))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            leaf,
            index,
            hashes,
            checkpoint,
        })
    }

    /// The leaf, if it stands at its place below the checkpoint's root. Who signed that is for the caller to check.
    ///
    /// # Errors
    /// [`BadProof::NotIncluded`].
    pub fn check(&self) -> Result<Leaf<'_>, BadProof> {
        let checkpoint = self.checkpoint.unverified();
        check_inclusion(
            &leaf_hash(&self.leaf),
            self.index,
            checkpoint.size(),
            &self.hashes,
            checkpoint.root(),
        )?;
        let leaf = Leaf::from_bytes(&self.leaf).map_err(|_| BadProof::NotIncluded)?;
        if leaf.seq != self.index {
            return Err(BadProof::NotIncluded);
        }
        Ok(leaf)
    }
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nextra {}", to_base64(&self.leaf))?;
        writeln!(f, "index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", to_base64(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}
