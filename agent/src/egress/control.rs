//! How the operator tells the egress process of a sandbox: one JSON line each way on a unix socket of mode 0600.

use std::{path::Path, rc::Rc, time::Duration};

use anyhow::Context as _;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use protocol::id::SandboxId;
use serde::{Deserialize, Serialize};
use smol::{
    LocalExecutor,
    net::unix::{UnixListener, UnixStream},
};

use super::sockets::{self, Sockets};
use crate::shell::transport::within;

/// The control socket's name in the run directory.
pub const CONTROL_SOCKET: &str = "egress.sock";

/// The longest request, in bytes: a verb and an id of 64.
const LINE_BYTES_MAX: usize = 256;
/// How long a request may take to arrive.
const LINE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the operator asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    /// Listen on the socket of a sandbox.
    Open(String),
    /// Listen no more.
    Close(String),
}

/// What it is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    /// Done.
    Ok(bool),
    /// Not done, and why.
    Error(String),
}

pub(super) fn listen(run_dir: &Path) -> anyhow::Result<UnixListener> {
    sockets::bind(&run_dir.join(CONTROL_SOCKET), 0o600)
}

pub(super) async fn serve(
    listener: UnixListener,
    sockets: Rc<Sockets>,
    executor: Rc<LocalExecutor<'static>>,
) {
    while let Ok((peer, _)) = listener.accept().await {
        let sockets = sockets.clone();
        let serving = async move {
            if let Err(error) = answer(peer, &sockets).await {
                tracing::warn!("answer the operator: {error:#}");
            }
        };
        executor.spawn(serving).detach();
    }
}

async fn answer(mut peer: UnixStream, sockets: &Sockets) -> anyhow::Result<()> {
    let line = within(LINE_WAIT_MAX, read_line(&mut peer))
        .await
        .context("the request did not arrive in time")??;
    let answer = match carry_out(&line, sockets) {
        Ok(()) => Answer::Ok(true),
        Err(error) => Answer::Error(format!("{error:#}")),
    };
    let mut text = serde_json::to_vec(&answer).context("encode the answer")?;
    text.push(b'\n');
    peer.write_all(&text).await.context("write the answer")
}

fn carry_out(line: &[u8], sockets: &Sockets) -> anyhow::Result<()> {
    let id = |text: String| SandboxId::new(&text).context("name a sandbox");
    match serde_json::from_slice(line).context("read the request")? {
        Request::Open(sandbox) => sockets.open(&id(sandbox)?),
        Request::Close(sandbox) => {
            sockets.close(&id(sandbox)?);
            Ok(())
        }
    }
}

async fn read_line(peer: &mut UnixStream) -> anyhow::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    loop {
        let mut byte = [0];
        peer.read_exact(&mut byte)
            .await
            .context("read the request")?;
        if byte == *b"\n" {
            return Ok(line);
        }
        anyhow::ensure!(line.len() < LINE_BYTES_MAX, "the request is too long");
        line.extend_from_slice(&byte);
    }
}
