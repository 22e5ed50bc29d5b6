//! Certificates: which there are, and the authority's rotation.

use axum::{Extension, extract::State, http::StatusCode};
use protocol::bundle::fingerprint;
use serde_json::{Value, json};

use super::{
    Api,
    answer::{Answer, No, ok},
};
use crate::{drive::Peer, shell::certificate::Place};

pub(super) async fn list(State(api): State<Api>) -> Answer {
    ok(shown(&api))
}

pub(super) async fn rotate(State(api): State<Api>, Extension(peer): Extension<Peer>) -> Answer {
    refuse_if_not_ours(&api)?;
    let certificates = api.certificates.clone();
    api.plane
        .blocking(move |plane| plane.rotate_authority(&certificates, &peer.actor()))
        .await?;
    ok(shown(&api))
}

pub(super) async fn retire(State(api): State<Api>, Extension(peer): Extension<Peer>) -> Answer {
    refuse_if_not_ours(&api)?;
    let certificates = api.certificates.clone();
    api.plane
        .blocking(move |plane| plane.retire_authorities(&certificates, &peer.actor()))
        .await?;
    ok(shown(&api))
}

fn refuse_if_not_ours(api: &Api) -> Result<(), No> {
    let facts = api.plane.certificates();
    if facts
        .authorities
        .first()
        .is_some_and(|one| one.place == Place::Current)
    {
        return Ok(());
    }
    Err(No::new(
        StatusCode::CONFLICT,
        "authority_not_ours",
        "the broker's certificate comes from files (tls.certificate): change its authority where it is issued, and tls.authority here",
    ))
}

fn shown(api: &Api) -> Value {
    let facts = api.plane.certificates();
    let authorities: Vec<Value> = facts
        .authorities
        .iter()
        .map(|one| {
            json!({
                "place": match one.place {
                    Place::Current => "current",
                    Place::Past => "past",
                    Place::File => "file",
                },
                "fingerprint": fingerprint(&one.der),
                "not_after_ms": one.not_after.0,
                "pem": one.pem,
            })
        })
        .collect();
    json!({
        "authorities": authorities,
        "server": {
            "fingerprint": fingerprint(&facts.server),
            "not_after_ms": facts.expiry.server.0,
        },
    })
}
