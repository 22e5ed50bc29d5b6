//! The verifier that is none of our code: `protocol/verify`, run by the Python that `tests/run.sh` sets up.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::Context as _;

use crate::programs::root;

/// Runs a script of `protocol/verify` to its end.
///
/// # Errors
/// If there is no Python to run it with.
pub fn run(script: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    run_file(&root().join("protocol/verify").join(script), arguments)
}

/// Runs any script to its end.
///
/// # Errors
/// If there is no Python to run it with.
pub fn run_file(script: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    Command::new(interpreter())
        .arg(script)
        .args(arguments)
        .output()
        .with_context(|| format!("run {}: `tests/run.sh` makes it", interpreter().display()))
}

/// The environment with the packages of `protocol/verify/requirements.txt` and `tests/e2e/requirements.txt`.
fn interpreter() -> PathBuf {
    root().join("target/tools/python/bin/python3")
}
