//! The engine, asked through its own command line: what it says is the evidence.

use std::process::Command;

use anyhow::Context as _;

use crate::programs::root;

/// The image of the tests: busybox and git, from this machine's own packages.
pub const IMAGE: &str = "outhaul-e2e:1";

/// Runs `docker` and gives what it prints.
///
/// # Errors
/// If it fails; with what it said.
pub fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .context("run docker")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "docker {}: {said}",
        arguments.join(" ")
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Builds the image if it is not there.
///
/// # Errors
/// If it cannot be built.
pub fn ensure_image() -> anyhow::Result<()> {
    if docker(&["image", "inspect", IMAGE]).is_ok() {
        return Ok(());
    }
    let status = Command::new(root().join("deploy/quickstart/image.sh"))
        .arg(IMAGE)
        .status()
        .context("build the image")?;
    anyhow::ensure!(status.success(), "deploy/quickstart/image.sh failed");
    Ok(())
}

/// The containers of a host, whatever their state.
#[must_use]
pub fn containers(host: &str) -> Vec<String> {
    let filter = format!("label=outhaul.host={host}");
    let listed = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter]).unwrap_or_default();
    listed.lines().map(str::to_owned).collect()
}

/// One field of a container, by a Go template.
#[must_use]
pub fn inspect(container: &str, template: &str) -> String {
    docker(&["inspect", "--format", template, container]).unwrap_or_default()
}

/// Removes every container of a host.
pub fn remove_containers(host: &str) {
    for container in containers(host) {
        let _ = docker(&["rm", "-f", &container]);
    }
}
