//! The journal: what it keeps, what it dropped, and purging.

use axum::{Extension, body::Bytes, extract::State};
use protocol::{id::SandboxId, time::UnixMillis};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, ok},
    host::{read, read_host},
};
use crate::{
    drive::{Peer, Purge},
    shell::store::DroppedRow,
};

pub(super) async fn show(State(api): State<Api>) -> Answer {
    let look =
        |plane: &crate::drive::Plane| Ok((plane.journal().inventory()?, plane.store().dropped()?));
    let (inventory, dropped) = api.plane.blocking(look).await?;
    let segments: Vec<Value> = inventory
        .segments
        .iter()
        .map(|kept| {
            json!({
                "first_offset": kept.first,
                "end_offset": kept.end,
                "bytes": kept.bytes,
                "records": kept.records,
                "first_ms": kept.first_ms,
                "last_ms": kept.last_ms,
                "damaged": !kept.is_whole,
            })
        })
        .collect();
    let hosts: Vec<Value> = inventory
        .hosts
        .iter()
        .map(
            |(host, count)| json!({ "host": host, "records": count.records, "bytes": count.bytes }),
        )
        .collect();
    let limits = api.plane.retention();
    let journal = api.plane.journal();
    ok(json!({
        "limits": {
            "age_ms": limits.age_ms,
            "bytes": limits.bytes,
            "host_bytes": limits.host_bytes,
        },
        "oldest_offset": journal.oldest(),
        "next_offset": journal.next_offset(),
        "oldest_ms": inventory.segments.iter().find_map(|kept| kept.first_ms),
        "newest_ms": inventory.segments.iter().rev().find_map(|kept| kept.last_ms),
        "bytes": inventory.segments.iter().map(|kept| kept.bytes).sum::<u64>(),
        "segments": segments,
        "hosts": hosts,
        "dropped": dropped.iter().map(dropped_json).collect::<Vec<_>>(),
    }))
}

fn dropped_json(row: &DroppedRow) -> Value {
    json!({
        "host": row.host,
        "reason": row.cause,
        "from_offset": row.from_offset,
        "to_offset": row.to_offset,
        "first_ms": row.first_ms,
        "last_ms": row.last_ms,
        "records": row.records,
        "bytes": row.bytes,
        "dropped_ms": row.dropped_ms,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    host: String,
    sandbox: Option<String>,
    before_ms: Option<u64>,
}

pub(super) async fn purge(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let wanted: Wanted = read(&body)?;
    let sandbox = wanted.sandbox.as_deref().map(SandboxId::new).transpose();
    let purge = Purge {
        host: read_host(&wanted.host)?,
        sandbox: sandbox.map_err(|bad| No::bad(format!("sandbox: {bad}")))?,
        before: wanted.before_ms.map(UnixMillis),
    };
    peer.reach(&purge.host)?;
    let purged = api.plane.purge(purge, peer).await?;
    let damaged: Vec<Value> = purged
        .damaged
        .iter()
        .map(|(first, end)| json!({ "first_offset": first, "end_offset": end }))
        .collect();
    ok(json!({
        "records": purged.gone.iter().map(|gone| gone.count.records).sum::<u64>(),
        "bytes": purged.gone.iter().map(|gone| gone.count.bytes).sum::<u64>(),
        "damaged": damaged,
    }))
}
