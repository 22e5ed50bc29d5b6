//! The control plane's API on the TLS port, for holders of access tokens: who asks, before anything else is looked at, and how much of
//! it at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
};
use protocol::id::AccessName;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    core::{access::BadAccess, sse::bearer},
    drive::{Peer, Plane},
    shell::{listener::Stay, metrics::Metrics},
};

/// Requests and streams of one token at once: a token that leaked gets no more than these, and others are served beside it.
const REQUESTS_PER_TOKEN_MAX: usize = 32;
/// How long a request may take until its answer begins, its body included: the command line waits no longer either.
const REQUEST_WAIT: Duration = Duration::from_secs(30);

/// What a request is let in by.
#[derive(Clone, Debug)]
struct Desk {
    plane: Plane,
    metrics: Arc<Metrics>,
    turns: Arc<Turns>,
}

/// The API's routes, behind the look at who asks.
pub(super) fn guarded(api: Router, plane: Plane, metrics: Arc<Metrics>) -> Router {
    let desk = Desk {
        plane,
        metrics,
        turns: Arc::default(),
    };
    // Only on routes that are there: strangers' other requests are answered as ever.
    api.route_layer(from_fn_with_state(desk, let_in))
}

async fn let_in(
    State(desk): State<Desk>,
    Extension(stay): Extension<Arc<Stay>>,
    mut request: Request,
    next: Next,
) -> Response {
    let response = match desk.admit(request.headers(), stay) {
        Ok((peer, visit)) => {
            let fields = request.extensions_mut();
            fields.insert(peer);
            // Held until the answer begins; a stream holds it to its end.
            fields.insert(Arc::clone(&visit));
            match timeout(REQUEST_WAIT, next.run(request)).await {
                Ok(response) => response,
                Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
            }
        }
        Err(refused) => refused.into_response(),
    };
    without_store(response)
}

/// Why a request is not let in.
struct Refused {
    status: StatusCode,
    /// What a client is to show (RFC 6750 §3).
    challenge: Option<&'static str>,
    code: &'static str,
    message: &'static str,
}

impl Desk {
    fn admit(&self, headers: &HeaderMap, stay: Arc<Stay>) -> Result<(Peer, Arc<Visit>), Refused> {
        let mut shown = headers.get_all(header::AUTHORIZATION).iter();
        // Of two, one might be looked at here and the other elsewhere.
        let token = match (shown.next(), shown.next()) {
            (Some(one), None) => bearer(one.as_bytes()),
            _ => None,
        };
        let Some(token) = token else {
            self.metrics.refuse_token("no_access");
            return Err(Refused::token("Bearer", "token_missing", MISSING));
        };
        let holder = self.plane.check_access(token).map_err(|bad| {
            self.metrics.refuse_token(bad.word());
            let (code, message) = match bad {
                BadAccess::Unknown => ("token_unknown", UNKNOWN),
                BadAccess::Expired => ("token_expired", EXPIRED),
            };
            Refused::token("Bearer error=\"invalid_token\"", code, message)
        })?;
        let Some(turn) = Turns::take(&self.turns, holder.name()) else {
            self.metrics.refuse_request("too_many");
            return Err(Refused {
                status: StatusCode::TOO_MANY_REQUESTS,
                challenge: None,
                code: "too_many_requests",
                message: "as many requests and streams of this token are open as may be: end one of them",
            });
        };
        let visit = Visit { stay, _turn: turn };
        Ok((Peer::Token(holder), Arc::new(visit)))
    }
}

const MISSING: &str = "show one access token: Authorization: Bearer oat1_…";
const UNKNOWN: &str = "the broker does not know this access token: it was revoked, is another broker's, or was not copied whole. Ask the \
                       broker's owner for one: `outhaul access add NAME`";
const EXPIRED: &str =
    "this access token has expired: ask the broker's owner for another: `outhaul access add NAME`";

impl Refused {
    const fn token(challenge: &'static str, code: &'static str, message: &'static str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            challenge: Some(challenge),
            code,
            message,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(challenge) = self.challenge {
            let fields = response.headers_mut();
            fields.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static(challenge),
            );
            // Whoever guesses pays for a handshake each time.
            fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What is answered here is nobody else's to keep.
fn without_store(mut response: Response) -> Response {
    let no_store = HeaderValue::from_static("no-store");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, no_store);
    response
}

/// A request of a token's holder, and the connection that it came by.
#[derive(Debug)]
pub(in crate::shell) struct Visit {
    stay: Arc<Stay>,
    _turn: Turn,
}

impl Visit {
    /// A stream begins: it takes no room that strangers need, and has no end in sight.
    pub(in crate::shell) fn settle(&self) {
        self.stay.settle();
    }

    /// Its connection ends after this, whatever is still unsent.
    pub(in crate::shell) fn end_within(&self, wait: Duration) {
        self.stay.end_within(wait);
    }

    /// Resolves when the connection is gone.
    pub(in crate::shell) async fn over(&self) {
        self.stay.over().await;
    }
}

/// How many requests each token has open. What has none is not kept.
#[derive(Debug, Default)]
struct Turns(Mutex<BTreeMap<AccessName, usize>>);

/// One of them. Given back when dropped.
#[derive(Debug)]
struct Turn {
    turns: Arc<Turns>,
    name: AccessName,
}

impl Turns {
    fn take(turns: &Arc<Self>, name: &AccessName) -> Option<Turn> {
        let mut counts = turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(name).copied().unwrap_or(0);
        if count >= REQUESTS_PER_TOKEN_MAX {
            return None;
        }
        counts.insert(name.clone(), count + 1);
        Some(Turn {
            turns: Arc::clone(turns),
            name: name.clone(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_its_own_turns_and_gets_them_back() {
        let turns = Arc::new(Turns::default());
        let name = |text| AccessName::new(text).unwrap();
        let take = |text| Turns::take(&turns, &name(text));
        let mut held: Vec<Turn> = (0..).map_while(|_: usize| take("ada")).collect();
        assert_eq!(held.len(), REQUESTS_PER_TOKEN_MAX);
        assert!(take("bob").is_some());
        held.pop();
        assert!(take("ada").is_some());
        drop(held);
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
