//! The local API's routes for backups: a backup is on record before it begins, and then the command line copies what the broker
//! says is committed. The broker itself writes nothing and sees no passphrase.

use axum::{Extension, body::Bytes, extract::State};
use protocol::id::hex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, created, ok},
    host::read,
};
use crate::{
    core::{
        backup::Hex,
        incarnation::{History, Incarnation},
    },
    drive::{Peer, Plane},
    shell::{backup, journal::Extents},
};

/// The longest place of a backup, in bytes: it stands in the audit trail.
const PLACE_BYTES_MAX: usize = 1_024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewBackup {
    id: Hex<16>,
    /// Where it goes, for the record.
    to: String,
    /// Whether the private keys go to a file of their own.
    keys: bool,
}

/// Records that a backup is about to be made.
pub(super) async fn begin(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let NewBackup { id, to, keys } = read(&body)?;
    if to.len() > PLACE_BYTES_MAX {
        return Err(No::bad(format!(
            "the place of a backup has at most {PLACE_BYTES_MAX} bytes"
        )));
    }
    let record = move |plane: &Plane| {
        let now = plane.now();
        backup::record(plane.store(), id.0, &to, keys, &peer.actor(), now)?;
        Ok(now)
    };
    let now = api.plane.blocking(record).await?;
    let store = api.plane.store().path();
    created(json!({
        "data_dir": store.parent(),
        "audience": api.plane.audience(),
        "version": env!("CARGO_PKG_VERSION"),
        "incarnation_id": hex(&api.plane.history().current().id),
        "made_ms": now.0,
    }))
}

/// How far the journal is committed now: asked after the store's copy has its moment.
pub(super) async fn extents(State(api): State<Api>) -> Answer {
    let Extents { segments, next } = api.plane.journal().extents();
    let segments: Vec<Value> = segments
        .iter()
        .map(|one| json!({ "first": one.first, "bytes": one.bytes }))
        .collect();
    ok(json!({ "segments": segments, "next": next }))
}

/// Which offsets are of which incarnation.
pub(super) async fn history(State(api): State<Api>) -> Answer {
    ok(json!({ "incarnations": shown(api.plane.history()) }))
}

fn shown(history: &History) -> Vec<Value> {
    let one = |one: &Incarnation| {
        json!({
            "number": one.number,
            "id": Hex(one.id),
            "first_offset": one.first,
            "began_ms": one.began.0,
            // Up to its own first offset.
            "withdrawn_from": one.restored.map(|restored| restored.end),
            "backup": one.restored.map(|restored| Hex(restored.backup)),
            "backup_ms": one.restored.map(|restored| restored.made.0),
        })
    };
    history.all().map(one).collect()
}
