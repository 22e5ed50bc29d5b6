//! The bundle: what a host's owner carries to the host by hand. Three files of a folder; what lies beside them runs the operator, and is
//! not read by it.
//!
//! `bundle.toml` says where the broker is and which dispatchers the host obeys; `ca.crt` is the only authority it trusts;
//! `install.key` (mode 0600) enrols it, once. Both crates read the shape here, so that they cannot disagree.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// File names inside a bundle.
pub const BUNDLE_FILE: &str = "bundle.toml";
/// The certificate authority of the broker, PEM.
pub const CA_FILE: &str = "ca.crt";
/// The install key, mode 0600.
pub const INSTALL_KEY_FILE: &str = "install.key";

/// The version of the bundle that this release writes and reads.
pub const VERSION: u32 = 1;

/// The contents of `bundle.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// [`VERSION`].
    pub version: u32,
    /// The host's id.
    pub host: String,
    /// `docker` or `kubernetes`.
    pub kind: String,
    /// The broker's authority, `name:port`: the one address that the host dials.
    pub broker: String,
    /// When it was made, in milliseconds: a floor for a host whose clock is behind.
    pub issued_ms: u64,
    /// Public keys of the dispatchers that the host obeys (`ohd1_…`).
    pub dispatchers: Vec<String>,
}

/// A certificate's fingerprint as people compare it, and as `openssl x509 -fingerprint -sha256` prints it: SHA-256 over its DER.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    let pairs: Vec<String> = Sha256::digest(der)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_sha_256_in_pairs() {
        let empty = fingerprint(b"");
        assert!(empty.starts_with("E3:B0:C4:42:98:FC:1C:14"), "{empty}");
        assert_eq!(empty.len(), 32 * 3 - 1);
    }
}
