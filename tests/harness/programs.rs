//! The programs under test: those in `OUTHAUL_BIN`, or built here once.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::Context as _;

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Holds `outhaul`, `outhaul-agent`, `outhaul-sandbox` and `probe`.
    pub dir: PathBuf,
}

impl Programs {
    /// Finds or builds them.
    ///
    /// # Panics
    /// If they cannot be built.
    #[expect(clippy::expect_used, reason = "no test can go on without the programs")]
    pub fn get() -> &'static Self {
        static PROGRAMS: OnceLock<Programs> = OnceLock::new();
        PROGRAMS.get_or_init(|| find_or_build().expect("build the programs"))
    }

    /// The path of one.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap_or_default()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests read one variable, here"
)]
fn find_or_build() -> anyhow::Result<Programs> {
    if let Ok(dir) = std::env::var("OUTHAUL_BIN") {
        return Ok(Programs { dir: dir.into() });
    }
    // Everything static, so that the shim runs in an image that has nothing.
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let status = Command::new("cargo")
        .current_dir(root())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .args([
            "build",
            "--locked",
            "--target",
            TARGET,
            "--target-dir",
            "target/programs",
            "--bins",
        ])
        .args([
            "--package",
            "agent",
            "--package",
            "broker",
            "--package",
            "tests",
        ])
        .status()
        .context("run cargo")?;
    anyhow::ensure!(status.success(), "cargo build failed");
    Ok(Programs {
        dir: root().join("target/programs").join(TARGET).join("debug"),
    })
}
