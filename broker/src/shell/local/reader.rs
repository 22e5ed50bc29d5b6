//! The local API's routes for readers.

use std::time::Duration;

use axum::{
    Extension,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
};
use protocol::id::{ReaderName, SandboxId};
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
    let add = move |plane: &crate::drive::Plane| plane.add_reader(&named, rights, life, &peer);
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
    let remove = move |plane: &crate::drive::Plane| plane.remove_reader(&named, &peer);
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
    let words: Vec<&str> = new.may.iter().map(String::as_str).collect();
    let host = new.host.as_deref().map(read_host).transpose()?;
    let sandbox = new
        .sandbox
        .as_deref()
        .map(SandboxId::new)
        .transpose()
        .map_err(|bad| No::bad(format!("sandbox: {bad}")))?;
    Rights::from_words(&words, host, sandbox).map_err(|bad| No::bad(bad.to_string()))
}

fn reader_json(row: &ReaderRow) -> Value {
    let (host, sandbox) = row.account.rights.limits();
    json!({
        "name": row.account.name,
        "may": row.account.rights.words(),
        "host": host,
        "sandbox": sandbox,
        "added_ms": row.added_ms,
        "expires_ms": row.account.expires_ms,
    })
}
