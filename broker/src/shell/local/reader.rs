//! The local API's routes for readers.

use std::time::Duration;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use protocol::id::{HostId, ReaderName, SandboxId};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, created, ok},
    host::{read, read_host},
};
use crate::{
    core::reader::{READER_DAYS_MAX, Rights},
    drive::Peer,
    shell::store::ReaderRow,
};

const DAY_S: u64 = 24 * 3600;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewReader {
    name: String,
    /// `events`, `reports`, `metrics`; or `bench` alone.
    may: Vec<String>,
    host: Option<String>,
    sandbox: Option<String>,
    days: u64,
}

pub(super) async fn add(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let new: NewReader = read(&body)?;
    let name = read_name(&new.name)?;
    let rights = read_rights(&new)?;
    if !(1..=READER_DAYS_MAX).contains(&new.days) {
        return Err(No::bad(format!(
            "a reader's token lasts 1 to {READER_DAYS_MAX} days"
        )));
    }
    let is_on = match rights {
        Rights::Bench => api.plane.admitted().bench,
        Rights::Read { .. } => api.plane.admitted().readers,
    };
    let life = Duration::from_secs(new.days * DAY_S);
    let named = name.clone();
    let add = move |plane: &crate::drive::Plane| plane.add_reader(&named, rights, life, peer);
    let Some(made) = api.plane.blocking(add).await? else {
        return Err(No::new(
            StatusCode::CONFLICT,
            "reader_exists",
            format!("a reader called {name} is there: remove it first, or choose another name"),
        ));
    };
    created(json!({
        "name": name,
        "token": *made.token.to_text(),
        "expires_ms": made.expires.0,
        "let_in": is_on,
    }))
}

pub(super) async fn list(State(api): State<Api>) -> Answer {
    let rows = api.plane.blocking(crate::drive::Plane::readers).await?;
    let readers: Vec<Value> = rows.iter().map(reader_json).collect();
    ok(json!({ "readers": readers }))
}

pub(super) async fn remove(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Answer {
    let name = read_name(&name)?;
    let named = name.clone();
    let remove = move |plane: &crate::drive::Plane| plane.remove_reader(&named, peer);
    if api.plane.blocking(remove).await? {
        return ok(json!({ "name": name }));
    }
    Err(No::new(
        StatusCode::NOT_FOUND,
        "reader_unknown",
        format!("no reader is called {name}: see `outhaul reader list`"),
    ))
}

fn read_name(text: &str) -> Result<ReaderName, No> {
    ReaderName::new(text).map_err(|bad| No::bad(format!("reader: {bad}")))
}

fn read_rights(new: &NewReader) -> Result<Rights, No> {
    let has = |word: &str| new.may.iter().any(|one| one == word);
    let known = ["events", "reports", "metrics", "bench"];
    if new.may.is_empty() || !new.may.iter().all(|word| known.contains(&word.as_str())) {
        return Err(No::bad("a reader may: events, reports, metrics; or bench"));
    }
    if has("bench") {
        if new.may.len() > 1 || new.host.is_some() || new.sandbox.is_some() {
            return Err(No::bad("who runs load tests may nothing else"));
        }
        return Ok(Rights::Bench);
    }
    if new.sandbox.is_some() && new.host.is_none() {
        return Err(No::bad("a sandbox is named with its host"));
    }
    let host = new.host.as_deref().map(read_host).transpose()?;
    let sandbox = new
        .sandbox
        .as_deref()
        .map(SandboxId::new)
        .transpose()
        .map_err(|bad| No::bad(format!("sandbox: {bad}")))?;
    Ok(Rights::Read {
        events: has("events"),
        reports: has("reports"),
        metrics: has("metrics"),
        host,
        sandbox,
    })
}

fn reader_json(row: &ReaderRow) -> Value {
    let may: Vec<&str> = match &row.account.rights {
        Rights::Bench => vec!["bench"],
        Rights::Read {
            events,
            reports,
            metrics,
            ..
        } => [
            ("events", events),
            ("reports", reports),
            ("metrics", metrics),
        ]
        .into_iter()
        .filter(|(_, has)| **has)
        .map(|(word, _)| word)
        .collect(),
    };
    let (host, sandbox): (Option<&HostId>, Option<&SandboxId>) = match &row.account.rights {
        Rights::Bench => (None, None),
        Rights::Read { host, sandbox, .. } => (host.as_ref(), sandbox.as_ref()),
    };
    json!({
        "name": row.account.name,
        "may": may,
        "host": host,
        "sandbox": sandbox,
        "added_ms": row.added_ms,
        "expires_ms": row.account.expires_ms,
    })
}
