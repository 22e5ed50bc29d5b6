//! Hosts and dispatchers: who may run work, and who may ask for it.

use std::str::FromStr as _;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use protocol::{
    bundle::{BUNDLE_FILE, CA_FILE, INSTALL_KEY_FILE},
    id::{HostId, hex},
    key::{Dispatcher, Host, Public},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, created, ok},
    route::query,
};
use crate::{
    core::hosts::HostState,
    drive::{Added, Peer, Plane, kind_word},
    shell::{
        hairpin,
        store::{DispatcherRow, HostKind, HostRow},
    },
};

/// The longest name of a dispatcher, in bytes.
const DISPATCHER_NAME_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewHost {
    name: String,
    kind: String,
    dispatchers: Vec<String>,
    /// A new bundle for a host that is enrolled: its next machine takes the place of the one it has.
    #[serde(default)]
    reissue: bool,
}

pub(super) async fn add(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let new: NewHost = read(&body)?;
    let host = read_host(&new.name)?;
    peer.reach(&host)?;
    let kind = match new.kind.as_str() {
        "docker" => HostKind::Docker,
        "kubernetes" => HostKind::Kubernetes,
        _ => return Err(No::bad("kind is docker or kubernetes")),
    };
    let dispatchers = read_dispatchers(&new.dispatchers)?;
    let reissue = new.reissue;
    let named = host.clone();
    let added = api
        .plane
        .blocking(move |plane| Ok(plane.add_host(&named, kind, &dispatchers, reissue, &peer)))
        .await??;
    created(bundle_json(&api.plane, &host, &added).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBundle {
    dispatchers: Vec<String>,
    #[serde(default)]
    reissue: bool,
}

pub(super) async fn bundle(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(host): Path<String>,
    body: Bytes,
) -> Answer {
    let new: NewBundle = read(&body)?;
    let host = read_host(&host)?;
    let dispatchers = read_dispatchers(&new.dispatchers)?;
    let named = host.clone();
    let fetched = api
        .plane
        .blocking(move |plane| Ok(plane.fetch_bundle(&named, &dispatchers, new.reissue, &peer)))
        .await??;
    created(bundle_json(&api.plane, &host, &fetched).await)
}

async fn bundle_json(plane: &Plane, host: &HostId, added: &Added) -> Value {
    let reached = hairpin::reach(plane.address(), &plane.certificates()).await;
    json!({
        "host": host,
        "kind": kind_word(added.kind),
        "broker": plane.address(),
        "bundle": {
            BUNDLE_FILE: added.bundle_toml,
            CA_FILE: added.authority_pem,
            INSTALL_KEY_FILE: *added.install_key,
        },
        "key_fingerprint": added.fingerprint,
        "expires_ms": added.expires.0,
        "unreachable": reached.err().map(|error| format!("{error:#}")),
    })
}

fn read_dispatchers(texts: &[String]) -> Result<Vec<Public<Dispatcher>>, No> {
    let mut dispatchers = Vec::new();
    for text in texts {
        let key = read_dispatcher(text)?;
        if !dispatchers.contains(&key) {
            dispatchers.push(key);
        }
    }
    Ok(dispatchers)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    /// Those too that were removed.
    #[serde(default)]
    all: bool,
}

pub(super) async fn list(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    listed: Result<Query<Listed>, QueryRejection>,
) -> Answer {
    let all = query(listed)?.all;
    let rows = api.plane.blocking(|plane| plane.store().hosts()).await?;
    let shown = rows
        .iter()
        .filter(|row| sees(&peer, &row.name) && (all || row.removed_ms.is_none()));
    let hosts: Vec<Value> = shown.map(|row| host_json(&api.plane, row)).collect();
    ok(json!({ "hosts": hosts }))
}

pub(super) fn host_json(plane: &Plane, row: &HostRow) -> Value {
    let id = HostId::new(&row.name).ok();
    let state = match (row.state, row.removed_ms) {
        (_, Some(_)) => "removed",
        (HostState::New, None) => "new",
        (HostState::Enrolled, None) => "enrolled",
        (HostState::Locked, None) => "locked",
        (HostState::Revoked, None) => "revoked",
    };
    json!({
        "name": row.name,
        "label": row.label,
        "kind": kind_word(row.kind),
        "state": state,
        "connected": id.as_ref().is_some_and(|id| plane.is_connected(id)),
        "generation": row.generation,
        "created_ms": row.created_ms,
        "last_seen_ms": id.as_ref().and_then(|id| plane.last_seen(id)).map(|time| time.0),
    })
}

pub(super) async fn keys(State(api): State<Api>, Path(host): Path<String>) -> Answer {
    let host = read_host(&host)?;
    let named = host.to_string();
    let looked = move |plane: &Plane| {
        Ok(match plane.store().host(&named)? {
            Some(_) => Some(plane.store().host_keys(&named)?),
            None => None,
        })
    };
    let rows = api
        .plane
        .blocking(looked)
        .await?
        .ok_or_else(|| unknown(&host))?;
    let keys: Vec<Value> = rows
        .iter()
        .filter_map(|row| {
            let key = Public::<Host>::from_bytes(&row.public_key).ok()?;
            Some(json!({
                "generation": row.generation,
                "key": key.to_string(),
                "succession": row.succession.as_deref().map(hex),
            }))
        })
        .collect();
    ok(json!({ "keys": keys }))
}

pub(super) async fn unlock(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(host): Path<String>,
) -> Answer {
    let host = read_host(&host)?;
    let named = host.clone();
    if api
        .plane
        .blocking(move |plane| plane.unlock_host(&named, &peer))
        .await?
    {
        return ok(json!({ "host": host }));
    }
    Err(No::new(
        StatusCode::CONFLICT,
        "host_not_locked",
        format!("host {host} is not locked"),
    ))
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(host): Path<String>,
) -> Answer {
    let host = read_host(&host)?;
    let named = host.clone();
    if api
        .plane
        .blocking(move |plane| plane.revoke_host(&named, &peer))
        .await?
    {
        return ok(json!({ "host": host }));
    }
    Err(unknown(&host))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDispatcher {
    key: String,
    name: String,
}

pub(super) async fn add_dispatcher(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let new: NewDispatcher = read(&body)?;
    let key = read_dispatcher(&new.key)?;
    check_name(&new.name)?;
    let row = DispatcherRow {
        public_key: *key.as_bytes(),
        name: new.name.clone(),
        added_ms: api.plane.now().0,
        added_by: peer.actor(),
        until_ms: None,
    };
    let answer = json!({ "key": key.to_string(), "name": new.name, "added_ms": row.added_ms });
    if api
        .plane
        .blocking(move |plane| plane.store().add_dispatcher(&row))
        .await?
    {
        return created(answer);
    }
    Err(No::new(
        StatusCode::CONFLICT,
        "dispatcher_exists",
        "a dispatcher with this key or this name is registered: see `outhaul dispatcher list`",
    ))
}

fn check_name(name: &str) -> Result<(), No> {
    let is_long = name.is_empty() || name.len() > DISPATCHER_NAME_BYTES_MAX;
    if is_long || name.chars().any(char::is_control) {
        return Err(No::bad(format!(
            "a dispatcher's name has 1 to {DISPATCHER_NAME_BYTES_MAX} bytes, none of them control characters"
        )));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStatement {
    /// The statement, as hexadecimal digits.
    statement: String,
    /// What a new key is called.
    name: String,
}

/// Takes what a dispatcher says about keys.
pub(super) async fn add_statement(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let new: NewStatement = read(&body)?;
    check_name(&new.name)?;
    let bytes = unhex_any(&new.statement)
        .ok_or_else(|| No::bad("a statement is written in hexadecimal digits"))?;
    api.plane.submit_statement(bytes, new.name, &peer).await?;
    list_dispatchers(State(api)).await
}

fn unhex_any(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

pub(super) async fn list_dispatchers(State(api): State<Api>) -> Answer {
    let rows = api
        .plane
        .blocking(|plane| plane.store().dispatchers())
        .await?;
    let dispatchers: Vec<Value> = rows
        .iter()
        .filter_map(|row| {
            let key = Public::<Dispatcher>::from_bytes(&row.public_key).ok()?;
            Some(json!({
                "key": key.to_string(),
                "name": row.name,
                "added_ms": row.added_ms,
                "until_ms": row.until_ms,
            }))
        })
        .collect();
    ok(json!({ "dispatchers": dispatchers }))
}

pub(super) async fn remove_dispatcher(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(key): Path<String>,
) -> Answer {
    let key = read_dispatcher(&key)?;
    let remove = move |plane: &Plane| plane.remove_dispatcher(key.as_bytes(), &peer);
    if api.plane.blocking(remove).await? {
        return ok(json!({ "key": key.to_string() }));
    }
    Err(No::new(
        StatusCode::NOT_FOUND,
        "dispatcher_unknown",
        "no dispatcher has this key",
    ))
}

/// Whether what is of a host of this name is shown to `peer`.
pub(super) fn sees(peer: &Peer, host: &str) -> bool {
    peer.only_host().is_none_or(|own| own.as_str() == host)
}

pub(super) fn read_host(text: &str) -> Result<HostId, No> {
    HostId::new(text).map_err(|bad| No::bad(format!("host: {bad}")))
}

fn read_dispatcher(text: &str) -> Result<Public<Dispatcher>, No> {
    Public::from_str(text)
        .map_err(|_| No::bad("a dispatcher's key starts with ohd1_ and is copied whole"))
}

pub(super) fn read<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, No> {
    serde_json::from_slice(body)
        .map_err(|error| No::bad(format!("the request is not what it should be: {error}")))
}

pub(super) fn unknown(host: &HostId) -> No {
    No::new(
        StatusCode::NOT_FOUND,
        "host_unknown",
        format!("no host is called {host}: add it with `outhaul host add {host} --kind docker`"),
    )
}
