//! One host, looked at closely; and rights that are taken away, one by one or all of them.

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use protocol::{
    id::{SandboxId, hex},
    key::{Host, Public},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, ok},
    host::{host_json, read, read_host, unknown},
};
use crate::{
    core::hosts::InstallKeyState,
    drive::{Peer, RevokeError},
    shell::store::{HostKeyRow, InstallKeyRow},
};

/// The keys of a host that are shown, the newest ones: it has one more with every renewal. `/v1/hosts/{host}/keys` has all.
const KEYS_SHOWN_MAX: usize = 16;
/// The longest label of a host, in characters, as the store has it.
const LABEL_CHARS_MAX: usize = 64;

pub(super) async fn show(State(api): State<Api>, Path(host): Path<String>) -> Answer {
    let host = read_host(&host)?;
    let named = host.to_string();
    api.plane.followed().await;
    let found = api
        .plane
        .blocking(move |plane| {
            let Some(row) = plane.store().host(&named)? else {
                return Ok(None);
            };
            let keys = plane.store().host_keys(&named)?;
            let install_keys = plane.store().install_keys(&named)?;
            let revoked = plane.store().revoked_sandboxes(&named)?;
            let mut sandboxes = plane.store().list_sandboxes(false)?;
            sandboxes.retain(|sandbox| sandbox.host == named);
            Ok(Some((row, keys, install_keys, revoked, sandboxes)))
        })
        .await?;
    let (row, keys, install_keys, revoked, sandboxes) = found.ok_or_else(|| unknown(&host))?;
    let mut shown = host_json(&api.plane, &row);
    let skew = api.plane.skew(&host);
    let more = json!({
        "added_by": row.added_by,
        "removed_ms": row.removed_ms,
        "void_generation": row.void_generation,
        "keys": keys.iter().rev().take(KEYS_SHOWN_MAX).map(|key| key_json(key, row.void_generation)).collect::<Vec<_>>(),
        "install_keys": install_keys.iter().map(install_key_json).collect::<Vec<_>>(),
        "clock_ahead_ms": skew.map(|skew| skew.ahead_ms),
        "clock_said_ms": skew.map(|skew| skew.said.0),
        "sandboxes": sandboxes
            .iter()
            .map(|sandbox| json!({ "sandbox": sandbox.id, "state": sandbox.state, "image": sandbox.image }))
            .collect::<Vec<_>>(),
        "revoked_sandboxes": revoked,
    });
    if let (Value::Object(shown), Value::Object(more)) = (&mut shown, more) {
        shown.extend(more);
    }
    ok(shown)
}

fn key_json(row: &HostKeyRow, void_generation: u64) -> Value {
    let key = Public::<Host>::from_bytes(&row.public_key).ok();
    json!({
        "generation": row.generation,
        "thumbprint": key.as_ref().map(|key| hex(&key.id())),
        "key": key.map(|key| key.to_string()),
        "since_ms": row.enrolled_ms,
        "by": if row.succession.is_some() { "renewal" } else { "install key" },
        "revoked": row.generation <= void_generation,
    })
}

fn install_key_json(row: &InstallKeyRow) -> Value {
    let state = match row.state {
        InstallKeyState::New => "unused",
        InstallKeyState::Used => "used",
        InstallKeyState::Retired => "void",
    };
    json!({
        "fingerprint": row.fingerprint,
        "state": state,
        "expires_ms": row.expires_ms,
        "used_ms": row.used_ms,
        "misused_ms": row.misused_ms,
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remove {
    /// Even if it is at work.
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(host): Path<String>,
    body: Bytes,
) -> Answer {
    let host = read_host(&host)?;
    let Remove { force } = read_or_default(&body)?;
    let named = host.clone();
    api.plane
        .blocking(move |plane| Ok(plane.remove_host(&named, force, &peer)))
        .await??;
    ok(json!({ "host": host }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Label {
    /// None takes it away.
    label: Option<String>,
}

pub(super) async fn label(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(host): Path<String>,
    body: Bytes,
) -> Answer {
    let host = read_host(&host)?;
    let Label { label } = read(&body)?;
    if let Some(label) = &label
        && ((label.trim() != label || label.is_empty())
            || label.chars().count() > LABEL_CHARS_MAX
            || label.chars().any(char::is_control))
    {
        return Err(No::bad(format!(
            "a label has 1 to {LABEL_CHARS_MAX} characters, none of them a control character, and no space around it"
        )));
    }
    let (named, new) = (host.clone(), label.clone());
    api.plane
        .blocking(move |plane| Ok(plane.label_host(&named, new.as_deref(), &peer)))
        .await??;
    ok(json!({ "host": host, "label": label }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generation {
    generation: u64,
}

pub(super) async fn revoke_generation(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(host): Path<String>,
    body: Bytes,
) -> Answer {
    let host = read_host(&host)?;
    let Generation { generation } = read(&body)?;
    let named = host.clone();
    let needs_bundle = api
        .plane
        .blocking(move |plane| Ok(plane.revoke_generation(&named, generation, &peer)))
        .await??;
    ok(json!({ "host": host, "generation": generation, "needs_bundle": needs_bundle }))
}

pub(super) async fn revoke_install_key(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(host): Path<String>,
) -> Answer {
    let host = read_host(&host)?;
    let named = host.clone();
    let fingerprint = api
        .plane
        .blocking(move |plane| Ok(plane.revoke_install_key(&named, &peer)))
        .await??;
    ok(json!({ "host": host, "key_fingerprint": fingerprint }))
}

pub(super) async fn revoke_sandbox(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path((host, sandbox)): Path<(String, String)>,
) -> Answer {
    let host = read_host(&host)?;
    let sandbox = SandboxId::new(&sandbox).map_err(|bad| No::bad(format!("sandbox: {bad}")))?;
    let named = (host.clone(), sandbox.clone());
    api.plane
        .blocking(move |plane| Ok(plane.revoke_sandbox(&named.0, &named.1, &peer)))
        .await??;
    ok(json!({ "host": host, "sandbox": sandbox }))
}

/// An empty body asks for nothing special.
fn read_or_default<T: Default + for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, No> {
    if body.is_empty() {
        return Ok(T::default());
    }
    read(body)
}

impl From<RevokeError> for No {
    fn from(error: RevokeError) -> Self {
        let (status, code) = match &error {
            RevokeError::Unknown(_) => (StatusCode::NOT_FOUND, "host_unknown"),
            RevokeError::Ahead { .. } => (StatusCode::CONFLICT, "generation_unknown"),
            RevokeError::Void { .. } => (StatusCode::CONFLICT, "generation_revoked"),
            RevokeError::NoInstallKey(_) => (StatusCode::CONFLICT, "install_key_missing"),
            RevokeError::Sandbox(..) => (StatusCode::NOT_FOUND, "sandbox_unknown"),
            RevokeError::InUse { .. } => (StatusCode::CONFLICT, "host_in_use"),
            RevokeError::LabelIsName(_) => (StatusCode::CONFLICT, "label_taken"),
            RevokeError::SameLabel(_) => (StatusCode::CONFLICT, "label_same"),
            RevokeError::Failed(error) => return Self::ours(error),
        };
        Self::new(status, code, error.to_string())
    }
}
