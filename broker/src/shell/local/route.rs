//! The routes of the local API, and those that need few words.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, Query, RawPathParams, Request, State, rejection::QueryRejection,
    },
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, delete, get, post},
};
use protocol::{
    id::{HostId, SandboxId},
    limits::PACKET_BYTES_MAX,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api, access,
    answer::{Answer, Code, HOST_NOT_ALLOWED, No, ok},
    audit, backup, certificate, host, journal, key, reader, records, right, witness,
};
use crate::{
    core::access::{About, Action, Refusal, Rights},
    drive::{Extra, Peer},
    shell::{
        metrics::{CONTENT_TYPE, Metrics, exposition},
        store::SandboxRow,
    },
};

/// The longest request body, in bytes: a command fills a packet at most.
const BODY_BYTES_MAX: usize = 2 * PACKET_BYTES_MAX;

/// Every route, for who is at the socket: nothing is there that the table of actions does not have.
pub(super) fn routes(api: Api) -> Router {
    served(api)
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
}

/// The same without an answer to what is no route: for a port that serves more than this.
pub(super) fn served(api: Api) -> Router {
    let mut router = Router::new();
    for action in Action::ALL {
        let permit = from_fn_with_state((api.metrics.clone(), *action), permit);
        router = router.route(action.path(), handler(*action).route_layer(permit));
    }
    router
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

fn handler(action: Action) -> MethodRouter<Api> {
    match action {
        Action::ListHosts => get(host::list),
        Action::AddHost => post(host::add),
        Action::FetchBundle => post(host::bundle),
        Action::ShowHost => get(right::show),
        Action::LabelHost => post(right::label),
        Action::RemoveHost => post(right::remove),
        Action::RevokeGeneration => post(right::revoke_generation),
        Action::RevokeInstallKey => post(right::revoke_install_key),
        Action::ListHostKeys => get(host::keys),
        Action::UnlockHost => post(host::unlock),
        Action::RevokeHost => post(host::revoke),
        Action::ListDispatchers => get(host::list_dispatchers),
        Action::AddDispatcher => post(host::add_dispatcher),
        Action::AddStatement => post(host::add_statement),
        Action::RemoveDispatcher => delete(host::remove_dispatcher),
        Action::ListReaders => get(reader::list),
        Action::AddReader => post(reader::add),
        Action::RemoveReader => delete(reader::remove),
        Action::ListAccess => get(access::list),
        Action::AddAccess => post(access::add),
        Action::RevokeAccess => delete(access::revoke),
        Action::WhoAmI => get(access::who_am_i),
        Action::ListCertificates => get(certificate::list),
        Action::RotateCertificates => post(certificate::rotate),
        Action::RetireCertificates => post(certificate::retire),
        Action::ListKeys => get(key::list),
        Action::RotateIssuer => post(key::rotate_issuer),
        Action::ShowJournal => get(journal::show),
        Action::PurgeJournal => post(journal::purge),
        Action::SubmitCommand => post(submit),
        Action::ListSandboxes => get(list_sandboxes),
        Action::ShowSandbox => get(sandbox),
        Action::RevokeSandbox => post(right::revoke_sandbox),
        Action::ReadRecords => get(records::stream),
        Action::ListIncarnations => get(backup::history),
        Action::BeginBackup => post(backup::begin),
        Action::ShowExtents => get(backup::extents),
        Action::FindOffset => get(records::offset),
        Action::ListAudit => get(audit::list),
        Action::ListAuditKeys => get(audit::keys),
        Action::SignCheckpoint => post(audit::checkpoint),
        Action::ListCheckpoints => get(audit::checkpoints),
        Action::ListOpenings => get(audit::openings),
        Action::ListWitnesses => get(witness::list),
        Action::ProveRow => get(audit::proof),
        Action::RotateAuditKey => post(audit::rotate_key),
        Action::ShowStatus => get(status),
        Action::ShowMetrics => get(metrics),
    }
}

/// Whether who asks may: before a byte of the request's body is read, and before anything is looked up.
async fn permit(
    State((metrics, action)): State<(Arc<Metrics>, Action)>,
    parts: RawPathParams,
    request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>();
    let refusal = match peer.map(Peer::holder) {
        Some(None) => return next.run(request).await,
        Some(Some(holder)) => refuse(holder.rights(), action, &parts).err(),
        // Nobody said who asks: then nobody may.
        None => Some(Refusal::Machine),
    };
    if let Some(refusal) = refusal {
        metrics.refuse_request(refusal.word());
        return No::from(refusal).into_response();
    }
    let response = next.run(request).await;
    let code = response.extensions().get::<Code>();
    if code.is_some_and(|Code(code)| *code == HOST_NOT_ALLOWED) {
        // The body, or the query, named another.
        metrics.refuse_request("other_host");
    }
    response
}

fn refuse(rights: &Rights, action: Action, parts: &RawPathParams) -> Result<(), Refusal> {
    rights.permit(action)?;
    match (action.about(), &rights.host) {
        (About::InPath, Some(own)) => {
            let mut named = parts.iter().filter(|(name, _)| *name == "host");
            let host = named.next().and_then(|(_, host)| HostId::new(host).ok());
            // What is no host's name is not this one's.
            let other = || Refusal::OtherHost(own.clone());
            rights.reach(&host.ok_or_else(other)?)
        }
        (About::InPath, None)
        | (About::NoHost | About::Listed | About::Named | About::AllHosts, _) => Ok(()),
    }
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
    Extension(peer): Extension<Peer>,
    which: Result<Query<Which>, QueryRejection>,
) -> Answer {
    let all = query(which)?.all;
    // What the caller has just read from the journal must show here too.
    api.plane.followed().await;
    let rows = api
        .plane
        .blocking(move |plane| plane.store().list_sandboxes(all))
        .await?;
    let seen = rows.iter().filter(|row| host::sees(&peer, &row.host));
    let sandboxes: Vec<Value> = seen.map(sandbox_json).collect();
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

async fn status(State(api): State<Api>, Extension(peer): Extension<Peer>) -> Answer {
    let health = api.plane.health().await;
    let connected = match peer.only_host() {
        None => api.plane.connected_hosts(),
        Some(own) => usize::from(api.plane.is_connected(own)),
    };
    ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "audience": api.plane.audience(),
        "address": api.plane.address(),
        "durability": health.durability,
        "reasons": health.reasons,
        "next_offset": api.plane.journal().next_offset(),
        "incarnation": api.plane.history().current().number,
        "connected_hosts": connected,
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

#[cfg(test)]
mod tests {
    #[test]
    fn no_route_is_made_beside_the_table() {
        // In two parts, or this would be one.
        let made = concat!(".rou", "te(");
        assert_eq!(include_str!("route.rs").matches(made).count(), 1);
        for other in [include_str!("../local.rs"), include_str!("access.rs")] {
            assert!(!other.contains(made));
        }
    }
}
