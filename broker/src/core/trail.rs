//! Judging an audit trail that somebody exported: row by row, with nothing but the first key that signed it.
//!
//! Rows come with the list of their hashes. The signed roots vouch for the list, and the list says which row is the first that is not as
//! it was written: without it, a change would show, and not where.

use protocol::audit::{BadNote, Checkpoint, Frontier, Hash, Leaf, NO_LEAF, SignedCheckpoint, Vkey};
use protocol::key::Audit;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Bytes of the salt of a field that may be withheld.
pub const SALT_BYTES: usize = 16;

/// What is wrong with a trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no row.
    #[error("it is not a row in the one form that rows have")]
    Unreadable,
    /// A row with another number.
    #[error("another row stands in its place: rows are missing, or in another order")]
    Misplaced,
    /// The end came too early.
    #[error("it is missing: the file ends before it, and more rows were signed")]
    Truncated,
    /// Not what the list of hashes has.
    #[error("it is not as it was written")]
    Altered,
    /// It does not name the hash of the row before.
    #[error("it does not follow from the row before")]
    Unchained,
    /// A change of keys that the old and the new key do not both sign.
    #[error("it hands over to another key, and no checkpoint by both keys ends with it")]
    HandOver,
    /// A value that was disclosed is not what was committed to.
    #[error("a disclosed value, or its salt, is not what the row commits to")]
    Opening,
}

impl Fault {
    /// In a word, for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Misplaced => "misplaced",
            Self::Truncated => "truncated",
            Self::Altered => "altered",
            Self::Unchained => "unchained",
            Self::HandOver => "handover",
            Self::Opening => "opening",
        }
    }
}

/// A checkpoint does not stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    /// The key that signs the trail at this place did not sign it.
    #[error("it is not signed with the key that signs the trail there: {0}")]
    Signature(BadNote),
    /// Its root is another.
    #[error("its root is not that of these rows")]
    Root,
    /// It covers more rows than there are.
    #[error("it covers rows that are not there")]
    Beyond,
}

/// A trail as far as it was read.
#[derive(Debug)]
pub struct Trail {
    hashes: Frontier,
    last: Hash,
    latest_ms: u64,
    keys: Vec<(u64, Vkey<Audit>)>,
    /// The key that the last row hands over to.
    next: Option<Vkey<Audit>>,
    bad: Option<(u64, Fault)>,
    went_back: Option<u64>,
    signed: u64,
}

/// The fields of a row that hands over.
#[derive(Deserialize)]
struct HandOver {
    key: String,
    old: String,
    new: String,
}

impl Trail {
    /// The beginning of the trail whose first key is `vkey`.
    #[must_use]
    pub fn new(vkey: Vkey<Audit>) -> Self {
        Self {
            hashes: Frontier::new(),
            last: NO_LEAF,
            latest_ms: 0,
            keys: vec![(0, vkey)],
            next: None,
            bad: None,
            went_back: None,
            signed: 0,
        }
    }

    /// Rows so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.hashes.size()
    }

    /// Rows that a checkpoint covers.
    #[must_use]
    pub fn signed(&self) -> u64 {
        self.signed
    }

    /// The root over the rows so far.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.hashes.root()
    }

    /// The keys that signed it, and from how many rows on each does.
    #[must_use]
    pub fn keys(&self) -> &[(u64, Vkey<Audit>)] {
        &self.keys
    }

    /// The first row that is not as it was written, if any.
    #[must_use]
    pub fn bad(&self) -> Option<(u64, Fault)> {
        self.bad
    }

    /// The first row that is dated before an earlier one. A broker dates none so since it keeps the tree; a trail from before may have
    /// some.
    #[must_use]
    pub fn went_back(&self) -> Option<u64> {
        self.went_back
    }

    /// The next row: what the list says its hash is, and its bytes, where there are any that can be told apart.
    pub fn push(&mut self, hash: &Hash, bytes: Result<&[u8], Fault>) {
        self.expect_handed();
        if self.bad.is_none() {
            let judged = bytes.and_then(|bytes| self.judge(hash, bytes));
            self.bad = judged.err().map(|fault| (self.rows(), fault));
        }
        self.last = *hash;
        self.hashes.push(*hash);
    }

    fn judge(&mut self, hash: &Hash, bytes: &[u8]) -> Result<(), Fault> {
        let leaf = Leaf::from_bytes(bytes).map_err(|_| Fault::Unreadable)?;
        if leaf.seq != self.rows() {
            return Err(Fault::Misplaced);
        }
        if protocol::audit::tree::leaf_hash(bytes) != *hash {
            return Err(Fault::Altered);
        }
        if *leaf.prev != self.last {
            return Err(Fault::Unchained);
        }
        if leaf.time_ms < self.latest_ms && self.went_back.is_none() {
            self.went_back = Some(leaf.seq);
        }
        self.latest_ms = self.latest_ms.max(leaf.time_ms);
        self.next = self.hands_over(&leaf)?;
        Ok(())
    }

    fn hands_over(&self, leaf: &Leaf<'_>) -> Result<Option<Vkey<Audit>>, Fault> {
        let Some((_, current)) = self.keys.last() else {
            return Ok(None);
        };
        if leaf.name != "key.rotated" || leaf.subject != current.name() {
            return Ok(None);
        }
        let said: HandOver = serde_json::from_str(leaf.fields).map_err(|_| Fault::HandOver)?;
        if said.key != "audit" || said.old != current.to_string() {
            return Err(Fault::HandOver);
        }
        said.new.parse().map(Some).map_err(|_| Fault::HandOver)
    }

    /// Whoever goes on after a change of keys, or ends there, without a checkpoint by both has not shown it.
    fn expect_handed(&mut self) {
        if self.next.take().is_some() && self.bad.is_none() {
            self.bad = Some((self.rows().saturating_sub(1), Fault::HandOver));
        }
    }

    /// A checkpoint over all rows so far.
    ///
    /// # Errors
    /// [`Unsigned`]: nothing vouches for the rows after the checkpoint before this one.
    pub fn checkpoint(&mut self, note: &SignedCheckpoint) -> Result<(), Unsigned> {
        let Some((_, current)) = self.keys.last() else {
            return Err(Unsigned::Root);
        };
        let told: &Checkpoint = note.verify(current).map_err(Unsigned::Signature)?;
        if told.size() > self.rows() {
            return Err(Unsigned::Beyond);
        }
        if told.size() != self.rows() || *told.root() != self.root() {
            return Err(Unsigned::Root);
        }
        self.signed = self.rows();
        // An ordinary checkpoint may end at the same row; the one that hands over is still to come then.
        if let Some(next) = self.next.as_ref().filter(|next| note.verify(next).is_ok()) {
            self.keys.push((self.rows(), next.clone()));
            self.next = None;
        }
        Ok(())
    }

    /// The end: no row and no checkpoint follows.
    pub fn finish(&mut self) {
        self.expect_handed();
    }
}

/// What a row has in the place of a value that may be withheld: a hash over salt and value.
#[must_use]
pub fn commitment(salt: &[u8; SALT_BYTES], value: &str) -> Value {
    let hash: Hash = Sha256::new()
        .chain_update(salt)
        .chain_update(value)
        .finalize()
        .into();
    let mut object = Map::new();
    object.insert("sha256".to_owned(), protocol::id::hex(&hash).into());
    Value::Object(object)
}

/// Whether the row with these fields committed to `value` with `salt`, as its field `name`.
#[must_use]
pub fn opens(fields: &str, name: &str, salt: &[u8; SALT_BYTES], value: &str) -> bool {
    serde_json::from_str::<Map<String, Value>>(fields)
        .is_ok_and(|fields| fields.get(name) == Some(&commitment(salt, value)))
}

#[cfg(test)]
mod tests;
