//! A host without an operator: added over the local API and enrolled over HTTPS, so that a test holds its key and its token.

use std::{net::TcpStream, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use protocol::{
    cbor,
    exchange::{
        CHALLENGE_PATH, CONTENT_TYPE, Challenge, EXCHANGE_PATH, Grant, Proof, Request, sign_request,
    },
    id::HostId,
    install_key::InstallKey,
    key::{Dispatcher, Host, Secret},
    limits::EXCHANGE_BYTES_MAX,
};
use rustls::{ClientConnection, StreamOwned, pki_types::ServerName};
use serde_json::json;

use crate::{client::tls_config, local, world::World};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// Registers a dispatcher.
///
/// # Errors
/// If the broker refuses.
pub fn add_dispatcher(world: &World, key: &Secret<Dispatcher>) -> anyhow::Result<()> {
    let body = json!({ "key": key.public().to_string(), "name": "ada" }).to_string();
    let kind = "application/json";
    local::post(&world.socket(), "/v1/dispatchers", kind, body.as_bytes())?;
    Ok(())
}

/// Adds a host that obeys `dispatcher`, and enrols it with `key`; its connection token. Its install key goes to `keep`.
///
/// # Errors
/// If the broker refuses.
pub fn enroll(
    world: &World,
    name: &HostId,
    dispatcher: &Secret<Dispatcher>,
    key: &Secret<Host>,
    keep: &mut Vec<Vec<u8>>,
) -> anyhow::Result<Vec<u8>> {
    let install_key = add(world, name, dispatcher)?;
    keep.push(install_key.to_text().as_bytes().to_vec());
    let ca = world.path("broker/keys/ca.crt");
    let challenge = ask(world.port, &ca, CHALLENGE_PATH, &[])?;
    let challenge: Challenge = cbor::from_slice(&challenge, EXCHANGE_BYTES_MAX)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let request = Request {
        nonce: challenge.nonce,
        host: name.clone(),
        key: key.public(),
        generation: 1,
        proof: Proof::InstallKey((&install_key).into()),
    };
    let grant = ask(world.port, &ca, EXCHANGE_PATH, &sign_request(key, &request))?;
    let grant: Grant =
        cbor::from_slice(&grant, EXCHANGE_BYTES_MAX).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(grant.token.into_vec())
}

/// Adds a host that obeys `dispatcher`; its install key.
///
/// # Errors
/// If the broker refuses.
pub fn add(
    world: &World,
    name: &HostId,
    dispatcher: &Secret<Dispatcher>,
) -> anyhow::Result<InstallKey> {
    let dispatchers = [dispatcher.public().to_string()];
    let body = json!({ "name": name, "kind": "docker", "dispatchers": dispatchers }).to_string();
    let kind = "application/json";
    let added = local::post(&world.socket(), "/v1/hosts", kind, body.as_bytes())?;
    let added: serde_json::Value = serde_json::from_slice(&added)?;
    let install_key = added
        .pointer("/bundle/install.key")
        .and_then(serde_json::Value::as_str)
        .context("no install key in the bundle")?;
    InstallKey::from_text(install_key.trim())
        .map_err(|error| anyhow::anyhow!("{error}"))
        .context("read the install key")
}

fn ask(port: u16, ca: &Path, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let (status, body) = answer(port, ca, path, body)?;
    anyhow::ensure!(status == 200, "POST {path}: {status}");
    Ok(body)
}

/// A question of the token exchange: the status, and the body of the answer.
///
/// # Errors
/// If nobody answers.
pub fn answer(port: u16, ca: &Path, path: &str, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
    let config = tls_config(ca, &[b"http/1.1"])?;
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let tcp = TcpStream::connect(("127.0.0.1", port)).context("dial the broker")?;
    tcp.set_read_timeout(Some(ANSWER_WAIT))?;
    let stream = StreamOwned::new(tls, tcp);
    local::http(stream, "POST", path, CONTENT_TYPE, body)
}
