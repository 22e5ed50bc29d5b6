//! The control plane over HTTPS, asked with an access token, byte by byte as anybody could.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::Value;

use crate::{client::tls_config, world::World};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its head, as it came.
    pub head: String,
    /// Its body, as it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The word of a refusal.
    #[must_use]
    pub fn code(&self) -> String {
        let json = self.json();
        let code = json.pointer("/error/code").and_then(Value::as_str);
        code.unwrap_or_default().to_owned()
    }
}

/// Asks with `token`, if there is one.
///
/// # Errors
/// If nobody answers.
pub fn ask(
    world: &World,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: &[u8],
) -> anyhow::Result<Answer> {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n{}\r\n",
        body.len(),
        token.unwrap_or_default()
    );
    send(world, &[head.as_bytes(), body].concat())
}

/// Sends bytes of one's own, and reads to the end. (HTTP/1.0, or with `Connection: close`.)
///
/// # Errors
/// If nobody answers.
pub fn send(world: &World, request: &[u8]) -> anyhow::Result<Answer> {
    let config = tls_config(&world.path("broker/keys/ca.crt"), &[b"http/1.1"])?;
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let tcp = TcpStream::connect(("127.0.0.1", world.port)).context("dial the broker")?;
    tcp.set_read_timeout(Some(ANSWER_WAIT))?;
    let mut stream = StreamOwned::new(tls, tcp);
    // Whoever is refused early may be cut off before all of it is sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .with_context(|| format!("no HTTP answer: {read:?}"))?;
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .context("no HTTP status")?;
    Ok(Answer {
        status,
        head,
        body: body.to_vec(),
    })
}
