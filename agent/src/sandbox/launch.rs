//! What the operator tells the shim: `launch.json` in the read-only part of the run directory, and where everything lies.

use std::{fs, path::Path};

use anyhow::Context as _;
use protocol::{
    command::Content,
    id::{HostId, SandboxId},
};
use serde::{Deserialize, Serialize};

/// Where the operator's files are mounted, read-only.
pub const IN_DIR: &str = "/run/outhaul/in";
/// Where the sandbox's own files are mounted.
pub const OUT_DIR: &str = "/run/outhaul/out";
/// The shim itself, in [`IN_DIR`].
pub const SHIM_FILE: &str = "outhaul-sandbox";
/// [`Launch`] as JSON, in [`IN_DIR`].
pub const LAUNCH_FILE: &str = "launch.json";
/// The broker's authority, PEM, in [`IN_DIR`].
pub const CA_FILE: &str = "ca.crt";
/// The sandbox's token, in [`IN_DIR`].
pub const TOKEN_FILE: &str = "token";
/// The shim's public key, in [`OUT_DIR`].
pub const KEY_FILE: &str = "key";
/// The spool, in [`OUT_DIR`].
pub const SPOOL_DIR: &str = "spool";

/// The version of `launch.json` that this release writes and reads.
pub const VERSION: u32 = 1;

/// How a sandbox is to stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// [`VERSION`].
    pub version: u32,
    /// The host.
    pub host: String,
    /// The sandbox.
    pub sandbox: String,
    /// The broker's authority, `name:port`.
    pub broker: String,
    /// What events carry: a word of [`Content`].
    pub content: String,
    /// How long the end may wait for what is unsent, in milliseconds.
    pub drain_ms: u64,
    /// Room for what is unsent, in bytes.
    pub spool_bytes: u64,
    /// The broker's time less the time since boot, in milliseconds: with it the sandbox needs no true clock.
    pub boot_unix_ms: u64,
}

/// A [`Launch`] whose names were checked.
#[derive(Clone, Debug)]
pub struct Task {
    /// The host.
    pub host: HostId,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// What events carry.
    pub content: Content,
    /// The rest, as it was read.
    pub launch: Launch,
}

/// Reads `launch.json`.
///
/// # Errors
/// If it is not there, of another version, or names what cannot be.
pub fn read(in_dir: &Path) -> anyhow::Result<Task> {
    let path = in_dir.join(LAUNCH_FILE);
    let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    let launch: Launch =
        serde_json::from_slice(&text).with_context(|| format!("read {}", path.display()))?;
    anyhow::ensure!(
        launch.version == VERSION,
        "launch.json is of version {}, not {VERSION}",
        launch.version
    );
    Ok(Task {
        host: HostId::new(&launch.host).context("read the host's name")?,
        sandbox: SandboxId::new(&launch.sandbox).context("read the sandbox's name")?,
        content: Content::from_word(&launch.content).context("read the content policy")?,
        launch,
    })
}
