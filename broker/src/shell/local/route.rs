//! The routes of the local API, and those that need few words.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use protocol::{
    id::{SandboxId, hex},
    limits::PACKET_BYTES_MAX,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, ok},
    backup, certificate, host, journal, key, reader, records,
};
use crate::{
    drive::{Extra, Peer},
    shell::{
        metrics::{CONTENT_TYPE, exposition},
        store::{AUDIT_ROWS_MAX, SandboxRow},
    },
};

/// The longest request body, in bytes: a command fills a packet at most.
const BODY_BYTES_MAX: usize = 2 * PACKET_BYTES_MAX;

pub(super) fn routes(api: Api) -> Router {
    Router::new()
        .route("/v1/hosts", get(host::list).post(host::add))
        .route("/v1/hosts/{host}/keys", get(host::keys))
        .route("/v1/hosts/{host}/unlock", post(host::unlock))
        .route("/v1/hosts/{host}/revoke", post(host::revoke))
        .route(
            "/v1/dispatchers",
            get(host::list_dispatchers).post(host::add_dispatcher),
        )
        .route("/v1/dispatchers/statements", post(host::add_statement))
        .route("/v1/dispatchers/{key}", delete(host::remove_dispatcher))
        .route("/v1/readers", get(reader::list).post(reader::add))
        .route("/v1/readers/{name}", delete(reader::remove))
        .route("/v1/certificates", get(certificate::list))
        .route("/v1/certificates/rotate", post(certificate::rotate))
        .route("/v1/certificates/retire", post(certificate::retire))
        .route("/v1/keys", get(key::list))
        .route("/v1/keys/issuer/rotate", post(key::rotate_issuer))
        .route("/v1/journal", get(journal::show))
        .route("/v1/journal/purge", post(journal::purge))
        .route("/v1/commands", post(submit))
        .route("/v1/sandboxes", get(list_sandboxes))
        .route("/v1/sandboxes/{host}/{sandbox}", get(sandbox))
        .route("/v1/records", get(records::stream))
        .route("/v1/incarnations", get(backup::history))
        .route("/v1/backups", post(backup::begin))
        .route("/v1/backups/extents", get(backup::extents))
        .route("/v1/offset", get(records::offset))
        .route("/v1/audit", get(audit))
        .route("/v1/status", get(status))
        .route("/v1/metrics", get(metrics))
        .fallback(|| async {
            No::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such thing here",
            )
        })
        .method_not_allowed_fallback(|| async {
            No::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this cannot be done with it",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

async fn submit(State(api): State<Api>, Extension(peer): Extension<Peer>, body: Bytes) -> Answer {
    let offset = api.plane.submit_command(body.into(), peer).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "offset": offset }))).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    all: bool,
}

async fn list_sandboxes(
    State(api): State<Api>,
    which: Result<Query<Which>, QueryRejection>,
) -> Answer {
    let all = query(which)?.all;
    // What the caller has just read from the journal must show here too.
    api.plane.followed().await;
    let rows = api
        .plane
        .blocking(move |plane| plane.store().list_sandboxes(all))
        .await?;
    let sandboxes: Vec<Value> = rows.iter().map(sandbox_json).collect();
    ok(json!({ "sandboxes": sandboxes }))
}

async fn sandbox(State(api): State<Api>, Path((host, sandbox)): Path<(String, String)>) -> Answer {
    let host = host::read_host(&host)?;
    let sandbox = SandboxId::new(&sandbox).map_err(|bad| No::bad(format!("sandbox: {bad}")))?;
    let (h, s) = (host.to_string(), sandbox.to_string());
    api.plane.followed().await;
    match api
        .plane
        .blocking(move |plane| plane.store().sandbox(&h, &s))
        .await?
    {
        Some(row) => ok(sandbox_json(&row)),
        None => Err(No::new(
            StatusCode::NOT_FOUND,
            "sandbox_unknown",
            format!("host {host} has no sandbox {sandbox}: see `outhaul ps -a`"),
        )),
    }
}

fn sandbox_json(row: &SandboxRow) -> Value {
    let extra = Extra::of(row);
    json!({
        "host": row.host,
        "sandbox": row.id,
        "image": row.image,
        "state": row.state,
        "reason": row.reason,
        "exit_code": row.exit_code,
        "detail": extra.text,
        "created_ms": row.created_ms,
        "updated_ms": row.updated_ms,
        "first_offset": extra.first_offset,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    #[serde(default)]
    from: u64,
    limit: Option<u32>,
}

async fn audit(State(api): State<Api>, rows: Result<Query<Rows>, QueryRejection>) -> Answer {
    let Rows { from, limit } = query(rows)?;
    let limit = limit.unwrap_or(AUDIT_ROWS_MAX);
    let rows = api
        .plane
        .blocking(move |plane| plane.store().audit_rows(from, limit))
        .await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "seq": row.seq,
                "time_ms": row.time_ms,
                "name": row.name,
                "subject": row.subject,
                "actor": row.actor,
                // As text, as it was hashed: read anew it might hash to something else.
                "fields": row.fields,
                "prev": hex(&row.prev),
                "hash": hex(&row.hash),
            })
        })
        .collect();
    ok(json!({ "rows": rows }))
}

async fn status(State(api): State<Api>) -> Answer {
    let health = api.plane.health().await;
    ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "audience": api.plane.audience(),
        "address": api.plane.address(),
        "durability": health.durability,
        "reasons": health.reasons,
        "next_offset": api.plane.journal().next_offset(),
        "incarnation": api.plane.history().current().number,
        "connected_hosts": api.plane.connected_hosts(),
    }))
}

async fn metrics(State(api): State<Api>) -> Response {
    let kind = [(header::CONTENT_TYPE, CONTENT_TYPE)];
    (kind, exposition(&api.plane, &api.metrics).await).into_response()
}

pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, No> {
    query
        .map(|Query(query)| query)
        .map_err(|error| No::bad(error.body_text()))
}
