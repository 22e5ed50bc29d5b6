//! The bundle: what a host's owner carries to the host by hand. Three files in a folder.
//!
//! `bundle.toml` says where the broker is and which dispatchers the host obeys; `ca.crt` is the only authority it trusts;
//! `install.key` (mode 0600) enrols it, once. Both crates read the shape here, so that they cannot disagree.

use serde::{Deserialize, Serialize};

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
