//! Who speaks in the vectors, and when. All of it is public, the secrets too.

use ed25519_dalek::SigningKey;
use protocol::id::hex;
use sha2::{Digest as _, Sha256};

pub(crate) const HOST: &str = "edge-1";
pub(crate) const SANDBOX: &str = "build-7";
pub(crate) const AUDIENCE: &str = "outhaul-vectors";
pub(crate) const NOW_S: u64 = 1_800_000_000;
pub(crate) const NOW_MS: u64 = NOW_S * 1000;

/// Keys are made of seeds: this byte, 32 times.
pub(crate) const ISSUER: u8 = 0x0a;
/// The host's key of generation 1, 2 and 3.
pub(crate) const HOST_KEY: u8 = 0x0b;
pub(crate) const HOST_KEY_2: u8 = 0x1b;
pub(crate) const HOST_KEY_3: u8 = 0x2b;
pub(crate) const DISPATCHER: u8 = 0x0c;
pub(crate) const SANDBOX_KEY: u8 = 0x0d;
/// Whom nobody trusts.
pub(crate) const STRANGER: u8 = 0x0e;

pub(crate) fn secret(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) fn public(seed: u8) -> [u8; 32] {
    secret(seed).verifying_key().to_bytes()
}

/// The first 8 bytes of the thumbprint (`SPEC.md`, 1.3).
pub(crate) fn kid_of(key: &[u8]) -> Vec<u8> {
    let cose_key = [&[0xa3, 1, 1, 0x20, 6, 0x21, 0x58, 0x20], key].concat();
    Sha256::digest(cose_key)[..8].to_vec()
}

/// A key as people write it.
pub(crate) fn key_text(prefix: &str, seed: u8) -> String {
    format!("{prefix}_{}", hex(&public(seed)))
}

/// An id as long as it may be.
pub(crate) fn longest_id() -> String {
    "a-0".repeat(21) + "z"
}

/// 32 bytes that start with these and go on with zeros.
pub(crate) fn bytes_32(front: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..front.len()].copy_from_slice(front);
    bytes
}

/// The neutral point: a key of order 1.
pub(crate) fn weak_key() -> [u8; 32] {
    bytes_32(&[1])
}

/// y = p + 3, which is y = 3 once more.
pub(crate) fn non_canonical_key() -> [u8; 32] {
    let mut key = [0xff; 32];
    (key[0], key[31]) = (0xf0, 0x7f);
    key
}

/// y = 2, for which the curve has no point.
pub(crate) fn no_point() -> [u8; 32] {
    bytes_32(&[2])
}
