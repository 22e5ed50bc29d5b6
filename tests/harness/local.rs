//! HTTP asked with nothing but a stream, the broker's local API above all: HTTP/1.0, so that an answer ends where the connection does.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

/// The body of a GET, which must succeed.
///
/// # Errors
/// If nobody answers, or not with 2xx.
pub fn get(socket: &Path, path: &str) -> anyhow::Result<Vec<u8>> {
    ask(socket, "GET", path, "application/json", b"")
}

/// The same, as JSON.
///
/// # Errors
/// If nobody answers, or not with JSON.
pub fn get_json(socket: &Path, path: &str) -> anyhow::Result<serde_json::Value> {
    serde_json::from_slice(&get(socket, path)?).context("read the answer")
}

/// Sends `body` by POST; the answer's body, if it succeeds.
///
/// # Errors
/// If nobody answers, or not with 2xx; with the answer.
pub fn post(socket: &Path, path: &str, content_type: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    ask(socket, "POST", path, content_type, body)
}

/// Who serves a socket.
///
/// # Errors
/// If nobody does.
pub fn peer(socket: &Path) -> anyhow::Result<rustix::process::Pid> {
    let stream = UnixStream::connect(socket).context("reach the broker")?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).context("ask who serves")?;
    Ok(peer.pid)
}

fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> anyhow::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).context("reach the broker")?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let (status, body) = http(stream, method, path, content_type, body)?;
    anyhow::ensure!(
        (200..300).contains(&status),
        "{method} {path}: {status} {}",
        String::from_utf8_lossy(&body)
    );
    Ok(body)
}

/// One request over any stream, as HTTP/1.0: the status and the body of its answer.
///
/// # Errors
/// If the stream breaks, or what comes is no answer.
pub fn http(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> anyhow::Result<(u16, Vec<u8>)> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: local\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("read the answer")?;
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .context("no HTTP answer")?;
    let (head, body) = answer.split_at(end + 4);
    let status = String::from_utf8_lossy(head)
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no HTTP status")?;
    Ok((status, body.to_vec()))
}

/// One record of the journal.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct Record {
    /// Where it stands.
    pub offset: u64,
    /// When it came, in milliseconds.
    pub time_ms: u64,
    /// 0 gap, 1 event, 2 report, 3 command.
    pub kind: u64,
    /// Whose.
    pub host: String,
    /// Of which sandbox, or empty.
    pub sandbox: String,
    /// What was accepted.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
}

/// Every record of a host, as the journal has it.
///
/// # Errors
/// If the broker does not answer, or not with records.
pub fn records(socket: &Path, host: &str) -> anyhow::Result<Vec<Record>> {
    let body = get(
        socket,
        &format!("/v1/records?from=0&host={host}&follow=false"),
    )?;
    let mut records = Vec::new();
    for record in serde_cbor::Deserializer::from_slice(&body).into_iter() {
        records.push(record.context("read a record")?);
    }
    Ok(records)
}
