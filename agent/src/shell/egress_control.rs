//! Asks the egress process to listen for a sandbox, or to listen no more: one JSON line each way on its control socket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use protocol::id::SandboxId;
use serde::Deserialize;
use smol::net::unix::UnixStream;

use super::transport::within;

/// The control socket, in the run directory.
pub const CONTROL_SOCKET: &str = "egress.sock";

/// How long the egress process may take. It answers from memory.
pub const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);

/// The longest answer, in bytes: an error of one line.
const ANSWER_BYTES_MAX: u64 = 4 * 1024;

#[derive(Deserialize)]
struct Answer {
    ok: Option<bool>,
    error: Option<String>,
}

/// Opens the sandbox's socket, `in/egress.sock`.
///
/// # Errors
/// If the egress process does not run, does not answer in time, or cannot.
pub async fn open(run_dir: &Path, sandbox: &SandboxId) -> anyhow::Result<()> {
    ask(run_dir, "open", sandbox).await
}

/// Closes the sandbox's socket.
///
/// # Errors
/// If the egress process does not run, does not answer in time, or cannot.
pub async fn close(run_dir: &Path, sandbox: &SandboxId) -> anyhow::Result<()> {
    ask(run_dir, "close", sandbox).await
}

async fn ask(run_dir: &Path, verb: &str, sandbox: &SandboxId) -> anyhow::Result<()> {
    let answer = async {
        let path = run_dir.join(CONTROL_SOCKET);
        let mut socket = UnixStream::connect(&path).await.with_context(|| {
            format!(
                "connect to {} (does `outhaul-agent egress` run?)",
                path.display()
            )
        })?;
        // An id needs no escaping.
        let line = format!("{{\"{verb}\":\"{sandbox}\"}}\n");
        socket.write_all(line.as_bytes()).await.context("write")?;
        let mut bytes = Vec::new();
        let mut bounded = socket.take(ANSWER_BYTES_MAX);
        bounded.read_to_end(&mut bytes).await.context("read")?;
        let answer: Answer = serde_json::from_slice(&bytes).context("read the answer")?;
        if let Some(error) = answer.error {
            bail!("{error}");
        }
        ensure!(answer.ok == Some(true), "it did not say that it did");
        Ok(())
    };
    let describe = || format!("ask the egress process to {verb} the socket of {sandbox}");
    within(ANSWER_WAIT_MAX, answer)
        .await
        .with_context(|| format!("no answer within {} s", ANSWER_WAIT_MAX.as_secs()))
        .flatten()
        .with_context(describe)
}

#[cfg(test)]
mod tests {
    use smol::net::unix::UnixListener;
    use tempfile::TempDir;

    use super::*;

    /// Asks a process that answers with `reply`; returns what it was asked, too.
    fn ask_one(reply: &'static [u8]) -> (String, anyhow::Result<()>) {
        let dir = TempDir::new().unwrap();
        smol::block_on(async {
            let listener = UnixListener::bind(dir.path().join(CONTROL_SOCKET)).unwrap();
            let serving = async {
                let (mut peer, _) = listener.accept().await.unwrap();
                let mut line = Vec::new();
                let mut byte = [0];
                while peer.read_exact(&mut byte).await.is_ok() && byte != *b"\n" {
                    line.push(byte[0]);
                }
                peer.write_all(reply).await.unwrap();
                String::from_utf8(line).unwrap()
            };
            let sandbox = SandboxId::new("build-7").unwrap();
            futures_lite::future::zip(serving, open(dir.path(), &sandbox)).await
        })
    }

    #[test]
    fn one_line_goes_and_one_comes() {
        let (asked, result) = ask_one(b"{\"ok\":true}\n");
        assert_eq!(asked, r#"{"open":"build-7"}"#);
        result.unwrap();
    }

    #[test]
    fn refusals_and_nonsense_are_errors() {
        for reply in [
            &b"{\"error\":\"disk full\"}\n"[..],
            b"{\"ok\":false}\n",
            b"",
            b"x",
            b"{}",
        ] {
            let error = ask_one(reply).1.unwrap_err();
            let text = format!("{error:#}");
            assert!(
                text.starts_with("ask the egress process to open the socket of build-7"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_egress_process_that_does_not_run_is_named() {
        let dir = TempDir::new().unwrap();
        let sandbox = SandboxId::new("a").unwrap();
        let error = smol::block_on(close(dir.path(), &sandbox)).unwrap_err();
        assert!(format!("{error:#}").contains("does `outhaul-agent egress` run?"));
    }
}
