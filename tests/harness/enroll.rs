//! A host without an operator: added over the local API and enrolled over HTTPS, so that a test holds its key and its token.

use std::{net::TcpStream, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use protocol::{
    cbor,
    exchange::{
        CHALLENGE_PATH, CONTENT_TYPE, Challenge, EXCHANGE_PATH, Grant, Proof, Refused, Request,
        sign_request,
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
    let install_key = add_host(world, name, dispatcher)?;
    keep.push(install_key.to_text().as_bytes().to_vec());
    let request = Request {
        nonce: challenge(world)?.nonce,
        host: name.clone(),
        key: key.public(),
        generation: 1,
        proof: Proof::InstallKey((&install_key).into()),
        witness: None,
    };
    match exchange(world, &sign_request(key, &request))? {
        Ok(grant) => Ok(grant.token.into_vec()),
        Err(refused) => anyhow::bail!("enrol {name}: {}", refused.reason),
    }
}

/// Adds a host that obeys `dispatcher`; the install key of its bundle.
///
/// # Errors
/// If the broker refuses.
pub fn add_host(
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

/// A challenge.
///
/// # Errors
/// If the broker gives none.
pub fn challenge(world: &World) -> anyhow::Result<Challenge> {
    let (status, body) = ask(world, CHALLENGE_PATH, &[])?;
    anyhow::ensure!(status == 200, "ask for a challenge: {status}");
    cbor::from_slice(&body, EXCHANGE_BYTES_MAX).map_err(|error| anyhow::anyhow!("{error}"))
}

/// What the broker says to a signed request: a grant, or why not.
///
/// # Errors
/// If it says neither.
pub fn exchange(world: &World, request: &[u8]) -> anyhow::Result<Result<Grant, Refused>> {
    let (status, body) = ask(world, EXCHANGE_PATH, request)?;
    let bad = |error| anyhow::anyhow!("{status}: {error}");
    if status == 200 {
        let grant = cbor::from_slice(&body, EXCHANGE_BYTES_MAX).map_err(bad)?;
        return Ok(Ok(grant));
    }
    let refused = cbor::from_slice(&body, EXCHANGE_BYTES_MAX).map_err(bad)?;
    Ok(Err(refused))
}

fn ask(world: &World, path: &str, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
    answer(world.port, &world.path("broker/keys/ca.crt"), path, body)
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
