//! The audit trail as a stranger verifies it: leaves, the Merkle tree over them, and signed statements about its root.
//!
//! The tree is that of RFC 6962 §2.1 with SHA-256. A [`checkpoint`] says how many leaves there are and what their root is, as
//! C2SP's `tlog-checkpoint` writes it; the broker's audit key signs it (`signed-note`), witnesses add their cosignatures
//! (`tlog-cosignature`), and one leaf with its way to the root is a [`tlog_proof`]. Nothing here is ours but the leaf.
//!
//! What is signed as a note starts with a printable character, and a cosignature with `cosignature/v1`; a COSE `Sig_structure` starts
//! with 0x84, which no text does, and a possession challenge is 16 bytes, which is shorter than any of these texts can be. So a key may
//! sign all three, and none can stand for another. That lets a host cosign with the key that it signs its reports with.

pub mod checkpoint;
pub mod cosignature;
pub mod leaf;
pub mod note;
pub mod proof;
pub mod tlog_proof;
pub mod tree;

pub use checkpoint::{Checkpoint, SignedCheckpoint};
pub use leaf::{Leaf, NO_LEAF};
pub use note::{BadNote, NoteRole, SignatureLine, Vkey};
pub use tlog_proof::TlogProof;
pub use tree::{Frontier, Hash};

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// RFC 4648 §4 with padding, as all of these texts have it.
fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The one encoding of some bytes: wrong padding and stray bits at the end are refused. Allocates no more than `text` has.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// Reads base64 of exactly 32 bytes.
fn hash_from_base64(text: &str) -> Option<Hash> {
    from_base64(text)?.try_into().ok()
}

/// Reads a decimal number without leading zeros.
fn decimal(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = text.len() == 1 || !text.starts_with('0');
    (digits && shortest).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
