//! Enrolment of a host, by the same exchange over HTTPS that operators use.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use protocol::{
    cbor,
    exchange::{
        CHALLENGE_PATH, CONTENT_TYPE, Challenge, EXCHANGE_PATH, Grant, InstallProof, Proof,
        Request, sign_request,
    },
    id::HostId,
    install_key::InstallKey,
    key::{Host, Secret},
    limits::EXCHANGE_BYTES_MAX,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};

use super::tls;

/// Redeems the install key; the host's connection token.
pub(crate) fn enrol(
    port: u16,
    ca: &Path,
    host: &HostId,
    key: &Secret<Host>,
    install: &InstallKey,
) -> anyhow::Result<Vec<u8>> {
    let config = tls::client(ca, b"http/1.1")?;
    let challenge = post(port, &config, CHALLENGE_PATH, &[])?;
    let challenge: Challenge = cbor::from_slice(&challenge, EXCHANGE_BYTES_MAX)?;
    let request = Request {
        nonce: challenge.nonce,
        host: host.clone(),
        key: key.public(),
        generation: 1,
        proof: Proof::InstallKey(InstallProof::from(install)),
        witness: None,
    };
    let grant = post(port, &config, EXCHANGE_PATH, &sign_request(key, &request))?;
    let grant: Grant = cbor::from_slice(&grant, EXCHANGE_BYTES_MAX)?;
    Ok(grant.token.into_vec())
}

fn post(port: u16, config: &Arc<ClientConfig>, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let tls = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?;
    let tcp = TcpStream::connect(("127.0.0.1", port)).context("dial the broker")?;
    // As the operator does.
    tcp.set_nodelay(true)?;
    let mut stream = StreamOwned::new(tls, tcp);
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        // Closed without a word of TLS; the length says whether all is there.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error).context("read the answer"),
    }
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .context("no HTTP answer")?;
    let body = answer.split_off(end + 4);
    let status = String::from_utf8_lossy(&answer);
    let status = status.split_ascii_whitespace().nth(1).unwrap_or_default();
    anyhow::ensure!(status.starts_with('2'), "POST {path}: {status}");
    Ok(body)
}
