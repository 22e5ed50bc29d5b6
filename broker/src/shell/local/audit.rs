//! The audit trail: its rows, what was signed of it, proofs, and the change of its key.

use anyhow::Context as _;
use axum::{
    Extension,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use protocol::{
    audit::{SignedCheckpoint, TlogProof},
    id::hex,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, ok},
    route::query,
};
use crate::{
    drive::{Peer, Plane},
    shell::store::{
        AUDIT_ROWS_MAX, AuditFilter, AuditRow, CHECKPOINTS_LISTED_MAX, CheckpointRow, Inconsistent,
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(default)]
    from: u64,
    limit: Option<u32>,
    name: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    since_ms: u64,
    until_ms: Option<u64>,
    #[serde(default)]
    newest: bool,
}

pub(super) async fn list(
    State(api): State<Api>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Answer {
    let wanted = query(wanted)?;
    let filter = AuditFilter {
        from: wanted.from,
        limit: wanted.limit.unwrap_or(AUDIT_ROWS_MAX),
        name: wanted.name,
        subject: wanted.subject,
        since_ms: wanted.since_ms,
        until_ms: wanted.until_ms,
        is_newest: wanted.newest,
    };
    let look = move |plane: &Plane| plane.store().audit_filtered(&filter);
    let (rows, next) = api.plane.blocking(look).await?;
    let rows: Vec<Value> = rows.iter().map(row_json).collect();
    ok(json!({ "rows": rows, "next": next }))
}

fn row_json(row: &AuditRow) -> Value {
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
}

pub(super) async fn keys(State(api): State<Api>) -> Answer {
    let keys = api
        .plane
        .blocking(|plane| plane.store().audit_keys())
        .await?;
    let keys: Vec<Value> = keys
        .iter()
        .map(|(from_size, vkey)| json!({ "from_size": from_size, "vkey": vkey.to_string() }))
        .collect();
    ok(json!({ "keys": keys }))
}

/// Signs what is not signed yet, and gives the newest checkpoint.
pub(super) async fn checkpoint(State(api): State<Api>) -> Answer {
    let signed = api.plane.blocking(Plane::sign_audit).await;
    ok(checkpoint_json(&signed.map_err(refused)?))
}

fn checkpoint_json(row: &CheckpointRow) -> Value {
    json!({ "size": row.size, "time_ms": row.time_ms, "note": row.note })
}

/// A trail that was tampered with is told to whoever asks; what the disk refuses is in the log.
fn refused(error: anyhow::Error) -> No {
    match error.downcast_ref::<Inconsistent>() {
        Some(fault) => No::new(
            StatusCode::CONFLICT,
            "audit_inconsistent",
            format!(
                "{fault}. Nothing is signed any more: keep the data directory as it is, and compare it with a saved checkpoint or a \
                 backup (`outhaul audit verify`)"
            ),
        ),
        None => error.into(),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sizes {
    #[serde(default)]
    from_size: u64,
    limit: Option<u32>,
}

pub(super) async fn checkpoints(
    State(api): State<Api>,
    sizes: Result<Query<Sizes>, QueryRejection>,
) -> Answer {
    let Sizes { from_size, limit } = query(sizes)?;
    let limit = limit.unwrap_or(CHECKPOINTS_LISTED_MAX);
    let look = move |plane: &Plane| plane.store().audit_checkpoints(from_size, limit);
    let rows = api.plane.blocking(look).await?;
    let rows: Vec<Value> = rows.iter().map(checkpoint_json).collect();
    ok(json!({ "checkpoints": rows }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Range {
    from: u64,
    to: u64,
}

pub(super) async fn openings(
    State(api): State<Api>,
    range: Result<Query<Range>, QueryRejection>,
) -> Answer {
    let Range { from, to } = query(range)?;
    let look = move |plane: &Plane| plane.store().audit_openings(from, to);
    let found = api.plane.blocking(look).await?;
    let found: Vec<Value> = found
        .iter()
        .map(|opening| {
            json!({
                "seq": opening.seq,
                "field": opening.field,
                "salt": hex(&opening.salt),
                "value": opening.value,
            })
        })
        .collect();
    ok(json!({ "openings": found }))
}

/// A row's proof, against a checkpoint that is signed now if it must be.
pub(super) async fn proof(State(api): State<Api>, Path(seq): Path<u64>) -> Answer {
    let prove = move |plane: &Plane| {
        let mut signed = plane.store().newest_checkpoint()?;
        if signed.as_ref().is_none_or(|row| row.size <= seq) {
            signed = Some(plane.sign_audit()?);
        }
        let Some(signed) = signed.filter(|row| row.size > seq) else {
            return Ok(None);
        };
        let Some(row) = plane.store().audit_rows(seq, 1)?.pop() else {
            return Ok(None);
        };
        let proof = TlogProof {
            leaf: row.leaf().to_bytes(),
            index: seq,
            hashes: plane.store().audit_inclusion(seq, signed.size)?,
            checkpoint: SignedCheckpoint::parse(&signed.note).context("read checkpoint")?,
        };
        Ok(Some((proof.to_string(), row)))
    };
    match api.plane.blocking(prove).await.map_err(refused)? {
        Some((proof, row)) => ok(json!({ "proof": proof, "row": row_json(&row) })),
        None => Err(No::new(
            StatusCode::NOT_FOUND,
            "row_unknown",
            format!("the audit trail has no row {seq}: see `outhaul audit list`"),
        )),
    }
}

pub(super) async fn rotate_key(State(api): State<Api>, Extension(peer): Extension<Peer>) -> Answer {
    let rotate = move |plane: &Plane| plane.rotate_audit_key(&peer);
    let row = api.plane.blocking(rotate).await.map_err(refused)?;
    let mut answer = checkpoint_json(&row);
    let keys = api
        .plane
        .blocking(|plane| plane.store().audit_keys())
        .await?;
    if let (Some((_, vkey)), Some(object)) = (keys.last(), answer.as_object_mut()) {
        object.insert("vkey".to_owned(), vkey.to_string().into());
    }
    ok(answer)
}
