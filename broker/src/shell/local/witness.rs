//! What hosts have to say of the audit trail.

use axum::extract::State;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, ok},
};
use crate::{drive::Plane, shell::store::WitnessRow};

pub(super) async fn list(State(api): State<Api>) -> Answer {
    let rows = api
        .plane
        .blocking(|plane: &Plane| plane.store().witnesses())
        .await?;
    let rows: Vec<Value> = rows.iter().map(witness_json).collect();
    ok(json!({ "witnesses": rows }))
}

fn witness_json(row: &WitnessRow) -> Value {
    let (size, note, time_ms) = match &row.cosigned {
        Some((size, note, time_ms)) => (Some(size), Some(note), Some(time_ms)),
        None => (None, None, None),
    };
    json!({
        "host": row.host,
        "size": size,
        "cosigned_ms": time_ms,
        "note": note,
        "conflict": row.conflict,
    })
}
