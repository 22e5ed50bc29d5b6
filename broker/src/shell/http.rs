//! HTTP/1.1: on the TLS port, for hosts and probes; and the way that any HTTP connection is served here.
//!
//! Three routes for strangers: `/livez`, `/readyz`, and the token exchange; for readers `/metrics` and `/v1/events`, each for those
//! that may; and where the owner lets access tokens in, the control plane's API for their holders. Everything is bounded: headers, bodies, and the wait for each.

mod access;
mod events;
mod pieces;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use protocol::{
    cbor,
    exchange::{CHALLENGE_PATH, CONTENT_TYPE, EXCHANGE_PATH, Refusal, Refused},
    limits::EXCHANGE_BYTES_MAX,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{
    connection::Gate,
    listener::Stay,
    metrics::{CONTENT_TYPE as CONTENT_TYPE_METRICS, Metrics, exposition},
    registry::Registry,
};
use crate::{
    core::{reader::Rights, sse::bearer},
    drive::{Denied, No, Plane},
};
use events::Streams;

pub(in crate::shell) use access::Visit;
pub(in crate::shell) use pieces::{Broken, Pieces, body};

/// How long the head of a request may take to arrive, and how long a connection may idle between two.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// How long a stranger's request may take, its body included.
const REQUEST_WAIT: Duration = Duration::from_secs(15);
/// Bytes read ahead on one connection: the head of a request must fit.
const BUFFER_BYTES_MAX: usize = 16 * 1024;
/// Headers of one request. Ours have five.
const HEADERS_MAX: usize = 32;

/// What strangers may ask over HTTPS.
#[derive(Clone, Debug)]
pub struct Web {
    routes: Router,
}

/// What the routes answer from. Cheap to clone.
#[derive(Clone, Debug)]
struct Site {
    plane: Plane,
    registry: Registry,
    metrics: Arc<Metrics>,
    streams: Arc<Streams>,
}

impl Web {
    /// The routes, for those who come through `gate`; and with `api` the control plane's, for holders of access tokens.
    #[must_use]
    pub fn new(gate: &Gate, api: Option<Router>) -> Self {
        let site = Site {
            plane: gate.plane.clone(),
            registry: gate.registry.clone(),
            metrics: Arc::clone(&gate.metrics),
            streams: Arc::default(),
        };
        let routes = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route(CHALLENGE_PATH, post(challenge))
            .route(EXCHANGE_PATH, post(exchange))
            .route("/metrics", get(show_metrics))
            .route("/v1/events", get(events::stream))
            .layer(DefaultBodyLimit::max(EXCHANGE_BYTES_MAX))
            .layer(axum::middleware::from_fn(within_time))
            .with_state(site);
        let routes = match api {
            Some(api) => {
                let (plane, metrics) = (gate.plane.clone(), Arc::clone(&gate.metrics));
                routes.merge(access::guarded(api, plane, metrics))
            }
            None => routes,
        };
        Self { routes }
    }

    /// Serves one connection to its end. How long it may live, the listener says, and `stay` may change.
    pub async fn serve<S>(&self, stream: S, stay: Arc<Stay>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = self.routes.clone().layer(Extension(stay));
        if let Err(error) = serve_connection(stream, routes, std::future::pending()).await {
            tracing::trace!(%error, "an HTTPS connection broke");
        }
    }
}

/// Serves HTTP/1.1 on one connection. From when `stop` resolves, what is under way is finished and nothing else is taken.
///
/// # Errors
/// The connection broke, or was not HTTP.
pub(super) async fn serve_connection<S>(
    stream: S,
    routes: Router,
    stop: impl Future<Output = ()>,
) -> Result<(), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT)
            .max_buf_size(BUFFER_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes))
    );
    tokio::select! {
        served = connection.as_mut() => return served,
        () = stop => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn within_time(request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    match timeout(REQUEST_WAIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

/// Alive: this process answers.
async fn livez() -> Response {
    axum::Json(json!({ "status": "ok" })).into_response()
}

/// Ready: what it needs to keep its promises works.
async fn readyz(State(Site { plane, .. }): State<Site>) -> Response {
    let health = plane.health().await;
    let status = if health.reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let expiry = plane.certificates().expiry;
    let body = json!({
        "certificate_not_after_ms": expiry.server.0,
        "authority_not_after_ms": expiry.authority.0,
        "status": if health.reasons.is_empty() { "ready" } else { "not_ready" },
        "durability": health.durability,
        "incarnation": plane.history().current().number,
        "reasons": health.reasons,
    });
    (status, axum::Json(body)).into_response()
}

/// For Prometheus, with a reader's token as bearer token (RFC 6750). What is wrong with it, nobody is told.
async fn show_metrics(State(site): State<Site>, headers: HeaderMap) -> Response {
    let (plane, metrics) = (&site.plane, &*site.metrics);
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| bearer(value.as_bytes()));
    let reader = token.map(|token| plane.check_reader(token, plane.now()));
    let may = match &reader {
        Some(Ok(reader)) => matches!(reader.rights(), Rights::Read { metrics: true, .. }),
        Some(Err(bad)) => {
            metrics.refuse_token(Denied::from(*bad).word());
            false
        }
        None => false,
    };
    let no_store = (header::CACHE_CONTROL, "no-store");
    if may {
        let kind = (header::CONTENT_TYPE, CONTENT_TYPE_METRICS);
        return ([kind, no_store], exposition(plane, metrics).await).into_response();
    }
    let challenge = (header::WWW_AUTHENTICATE, "Bearer");
    (StatusCode::UNAUTHORIZED, [challenge, no_store]).into_response()
}

async fn challenge(State(Site { plane, .. }): State<Site>) -> Response {
    match plane.challenge() {
        Ok(challenge) => cbor_response(StatusCode::OK, cbor::to_vec(&challenge)),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "no challenge could be made");
            refused(&plane, Refusal::Unavailable.into())
        }
    }
}

async fn exchange(State(Site { plane, .. }): State<Site>, request: Bytes) -> Response {
    match plane.exchange(request.into()).await {
        Ok(grant) => cbor_response(StatusCode::OK, cbor::to_vec(&grant)),
        Err(no) => refused(&plane, no),
    }
}

fn refused(plane: &Plane, No { reason, known }: No) -> Response {
    let status = match reason {
        Refusal::Malformed => StatusCode::BAD_REQUEST,
        Refusal::InstallKey | Refusal::Proof | Refusal::Locked | Refusal::Revoked => {
            StatusCode::FORBIDDEN
        }
        Refusal::Unavailable | Refusal::Other(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    cbor_response(
        status,
        cbor::to_vec(&Refused {
            reason,
            time: plane.now(),
            generation: known,
        }),
    )
}

fn cbor_response(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    // Tokens are nobody else's to keep.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
