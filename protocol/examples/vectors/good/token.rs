//! Good tokens (`SPEC.md`, chapter 4).

use serde_json::json;

use crate::{
    item::{Map, uint},
    message::{
        child, host_claims, host_claims_of, host_token, sandbox_claims, sandbox_claims_of,
        sandbox_token, scope,
    },
    vector::Vector,
    world::{HOST_KEY, NOW_S, longest_id},
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = host();
    all.extend(sandbox());
    all
}

fn host() -> Vec<Vector> {
    let good = |name: &str, claims: Map| Vector::token(name, &host_token(claims));
    let wide: Vec<String> = (0..16).map(|n| format!("v1/edge-1/{n}/+/#")).collect();
    let wide: Vec<(&str, &[&str])> = wide.iter().map(|f| (&**f, &["pub", "sub"][..])).collect();
    let dates =
        |issued: u64, expires: u64| host_claims().with(6, uint(issued)).with(4, uint(expires));
    vec![
        good("host-token", host_claims()).says(json!({
            "subject": "edge-1", "expires_s": NOW_S + 3600, "generation": 1, "id": "0101010101010101",
        })),
        good(
            "host-token-with-a-not-before",
            host_claims().with(5, uint(NOW_S - 10)),
        ),
        good(
            "host-token-in-the-last-second-of-leeway",
            dates(NOW_S - 3659, NOW_S - 59),
        ),
        good(
            "host-token-that-starts-a-minute-from-now",
            dates(NOW_S + 60, NOW_S + 3660),
        ),
        good(
            "host-token-whose-not-before-is-a-minute-from-now",
            host_claims().with(5, uint(NOW_S + 60)),
        ),
        good(
            "host-token-that-delegates-nothing",
            host_claims().without(-70001),
        ),
        good(
            "host-token-with-an-empty-scope",
            host_claims().with(9, scope(&[])),
        ),
        good(
            "host-token-with-sixteen-entries-in-its-scope",
            host_claims().with(9, scope(&wide)),
        ),
        good(
            "host-token-of-a-late-generation",
            host_claims().with(-70002, uint(1_000_000)),
        )
        .says(json!({"generation": 1_000_000})),
        good(
            "host-token-with-the-longest-host",
            host_claims_of(&longest_id()),
        )
        .says(json!({"subject": longest_id()})),
    ]
}

fn sandbox() -> Vec<Vector> {
    let under = |name: &str, parent: Map, claims: Map| {
        Vector::token(name, &child(HOST_KEY, claims, &host_token(parent)))
    };
    let ends_early = host_claims().with(4, uint(NOW_S + 100));
    let (host, sandbox) = (longest_id(), longest_id());
    vec![
        Vector::token("sandbox-token", &sandbox_token(sandbox_claims())).says(json!({
            "subject": "edge-1/build-7", "expires_s": NOW_S + 900, "generation": 1, "id": "0202020202020202",
        })),
        under(
            "sandbox-token-with-a-not-before",
            host_claims(),
            sandbox_claims().with(5, uint(NOW_S)),
        ),
        under(
            "sandbox-token-that-ends-with-its-parent",
            ends_early,
            sandbox_claims().with(4, uint(NOW_S + 100)),
        ),
        under(
            "sandbox-token-under-a-delegable-scope-of-all-topics",
            host_claims().with(-70001, scope(&[("#", &["pub", "sub"])])),
            sandbox_claims(),
        ),
        under(
            "sandbox-token-under-a-delegable-scope-of-its-topic-alone",
            host_claims().with(-70001, scope(&[("v1/edge-1/build-7/events", &["pub"])])),
            sandbox_claims(),
        ),
        under(
            "sandbox-token-with-the-longest-ids",
            host_claims_of(&host),
            sandbox_claims_of(&host, &sandbox),
        )
        .says(json!({"subject": format!("{host}/{sandbox}")})),
    ]
}
