//! The broker's issuer keys, and their rotation.

use axum::{Extension, body::Bytes, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, ok},
    host::read,
};
use crate::drive::Peer;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    /// Tokens of the old key are void at once.
    #[serde(default)]
    now: bool,
}

pub(super) async fn list(State(api): State<Api>) -> Answer {
    ok(shown(&api))
}

pub(super) async fn rotate_issuer(
    State(api): State<Api>,
    Extension(peer): Extension<Peer>,
    body: Bytes,
) -> Answer {
    let Rotate { now } = read(&body)?;
    api.plane
        .blocking(move |plane| plane.rotate_issuer(now, &peer.actor()))
        .await?;
    ok(shown(&api))
}

fn shown(api: &Api) -> Value {
    let issuers = api.plane.issuer_keys();
    let keys: Vec<Value> = issuers
        .iter()
        .map(|one| {
            json!({
                "role": "issuer",
                "key": one.key.to_string(),
                "state": if one.until.is_none() { "current" } else { "past" },
                "since_ms": one.since.map(|time| time.0),
                "until_ms": one.until.map(|time| time.0),
            })
        })
        .collect();
    json!({ "audience": api.plane.audience(), "keys": keys })
}
