//! One connection: a request, an answer, then bytes both ways.

use std::time::Duration;

use anyhow::Context as _;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, future, io};
use smol::net::unix::UnixStream;

use super::{
    EgressOptions, peer,
    request::{self, Denial, REQUEST_BYTES_MAX},
};
use crate::shell::transport::{DIAL_WAIT_MAX, dial_tcp, within};

/// How long a peer may take to say what it wants.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(5);

/// Serves one peer until either side is done.
///
/// # Errors
/// What went wrong, for the log; the peer has been told what concerns it.
pub(super) async fn serve(mut peer: UnixStream, options: &EgressOptions) -> anyhow::Result<()> {
    let asked = within(REQUEST_WAIT_MAX, read_head(&mut peer))
        .await
        .unwrap_or(Err(Denial::Malformed));
    let verdict = if peer::is_first_process(&peer) {
        asked.and_then(|head| request::check(&head, &options.broker))
    } else {
        Err(Denial::Peer)
    };
    if let Err(denial) = verdict {
        answer(&mut peer, denial.status(), &denial.to_string()).await?;
        return Err(denial).context("refuse a way out");
    }
    match dial_tcp(&options.broker, options.proxy.as_ref(), DIAL_WAIT_MAX).await {
        Ok(broker) => {
            answer(&mut peer, 200, "connected").await?;
            relay(peer, broker).await;
            Ok(())
        }
        Err(error) => {
            answer(&mut peer, 502, "broker_unreachable").await?;
            Err(error).context("reach the broker for a sandbox")
        }
    }
}

/// Reads up to and with the empty line; byte by byte, since what follows belongs to TLS, and it is short.
async fn read_head(peer: &mut UnixStream) -> Result<Vec<u8>, Denial> {
    let mut head = Vec::with_capacity(128);
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if head.len() == REQUEST_BYTES_MAX || peer.read_exact(&mut byte).await.is_err() {
            return Err(Denial::Malformed);
        }
        head.extend_from_slice(&byte);
    }
    Ok(head)
}

async fn answer(peer: &mut UnixStream, status: u16, word: &str) -> anyhow::Result<()> {
    let head = format!("HTTP/1.1 {status} {word}\r\n\r\n");
    peer.write_all(head.as_bytes())
        .await
        .context("answer a sandbox")
}

/// Copies both ways until one side ends or breaks. MQTT has no half-closed state: when one side is done, so is the other.
async fn relay(peer: UnixStream, broker: smol::net::TcpStream) {
    let up = io::copy(peer.clone(), broker.clone());
    let down = io::copy(broker, peer);
    let _ = future::or(up, down).await;
}
