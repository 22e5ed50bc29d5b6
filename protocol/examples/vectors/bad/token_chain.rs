//! Tokens of two links that are refused (`SPEC.md`, 4.2, steps 1 and 7 to 10).

use super::{ENVELOPE, MALFORMED, SIGNATURE, UNKNOWN_KEY, token};
use crate::{
    forge::{Envelope, header},
    item::{Item, Map, bytes, text, uint},
    message::{
        child, cnf, host_claims, host_token, sandbox_claims, sandbox_claims_of, sandbox_token,
        scope, token as envelope,
    },
    vector::Vector,
    world::{HOST_KEY, HOST_KEY_2, ISSUER, NOW_S, SANDBOX_KEY, STRANGER, kid_of, public, weak_key},
};

const CLAIMS: &str = "a claim is not acceptable";
const DELEGATION: &str = "beyond what its parent delegates";

pub(crate) fn all() -> Vec<Vector> {
    let mut all = leaves();
    all.extend(wider());
    all.extend(parents());
    all.extend(signers());
    all.extend(nested());
    all
}

fn refused(name: &str, claims: Map, reason: &str, why: &str) -> Vector {
    token(name, &sandbox_token(claims), reason, why)
}

fn dates(issued: u64, expires: u64) -> Map {
    sandbox_claims()
        .with(6, uint(issued))
        .with(4, uint(expires))
}

/// The leaf by itself.
fn leaves() -> Vec<Vector> {
    let host_of_another = sandbox_claims_of("edge-2", "build-7").with(1, text("edge-1"));
    vec![
        refused(
            "sandbox-token-that-ended-a-minute-ago",
            dates(NOW_S - 900, NOW_S - 60),
            "expired",
            "4.2, 8: exp has not passed, and 1.2: it has when now ≥ exp + 60 s",
        ),
        refused(
            "sandbox-token-issued-61-seconds-from-now",
            dates(NOW_S + 61, NOW_S + 900),
            "not valid yet",
            "4.2, 8: the later of nbf and iat has come",
        ),
        refused(
            "sandbox-token-for-another-audience",
            sandbox_claims().with(3, text("outhaul-elsewhere")),
            "for another audience",
            "4.2, 8: aud is this broker's",
        ),
        refused(
            "sandbox-token-that-names-a-host",
            sandbox_claims().with(2, text("edge-1")),
            CLAIMS,
            "4.2, 8: sub is <host>/<sandbox>",
        ),
        refused(
            "sandbox-token-that-names-three-levels",
            sandbox_claims().with(2, text("edge-1/build-7/x")),
            CLAIMS,
            "4.2, 8: sub is <host>/<sandbox>",
        ),
        refused(
            "sandbox-token-that-names-no-sandbox",
            sandbox_claims().with(2, text("edge-1/")),
            CLAIMS,
            "4.2, 8: sub is <host>/<sandbox>",
        ),
        refused(
            "sandbox-token-for-a-weak-key",
            sandbox_claims().with(8, cnf(&weak_key())),
            CLAIMS,
            "4.2, 10: a key of small order is refused",
        ),
        refused(
            "sandbox-token-with-a-claim-more",
            sandbox_claims().with(10, uint(0)),
            MALFORMED,
            "4.2, 8: nothing in the claims is unknown",
        ),
        refused(
            "sandbox-token-that-lives-for-more-than-15-minutes",
            dates(NOW_S, NOW_S + 901),
            DELEGATION,
            "4.2, 9: exp − iat ≤ SANDBOX_TOKEN_LIFE_S_MAX",
        ),
        refused(
            "sandbox-token-of-another-issuer",
            sandbox_claims().with(1, text("edge-2")),
            DELEGATION,
            "4.2, 9: iss is the parent's sub",
        ),
        refused(
            "sandbox-token-whose-issuer-is-the-broker",
            sandbox_claims().with(1, text("outhaul-vectors")),
            DELEGATION,
            "4.2, 9: iss is the parent's sub",
        ),
        refused(
            "sandbox-token-of-another-host",
            host_of_another,
            DELEGATION,
            "4.2, 9: the host of sub is the parent's sub",
        ),
        refused(
            "sandbox-token-that-delegates",
            sandbox_claims().with(-70001, scope(&[("v1/edge-1/build-7/events", &["pub"])])),
            DELEGATION,
            "4.2, 9: no -70001",
        ),
        refused(
            "sandbox-token-that-delegates-nothing-in-words",
            sandbox_claims().with(-70001, scope(&[])),
            DELEGATION,
            "4.2, 9: no -70001, not even an empty one",
        ),
        refused(
            "sandbox-token-with-a-generation",
            sandbox_claims().with(-70002, uint(1)),
            DELEGATION,
            "4.2, 9: no -70002",
        ),
    ]
}

/// The leaf's scope.
fn wider() -> Vec<Vector> {
    let own = "v1/edge-1/build-7/events";
    let with = |name: &str, entries: &[(&str, &[&str])]| {
        refused(
            name,
            sandbox_claims().with(9, scope(entries)),
            DELEGATION,
            "4.2, 9: the scope is exactly one entry, its own events topic and pub",
        )
    };
    vec![
        with(
            "sandbox-token-for-every-sandbox",
            &[("v1/edge-1/+/events", &["pub"])],
        ),
        with(
            "sandbox-token-for-the-events-of-another",
            &[("v1/edge-1/build-8/events", &["pub"])],
        ),
        with(
            "sandbox-token-for-the-reports-of-its-host",
            &[("v1/edge-1/reports", &["pub"])],
        ),
        with("sandbox-token-that-may-subscribe", &[(own, &["sub"])]),
        with(
            "sandbox-token-that-may-publish-and-subscribe",
            &[(own, &["pub", "sub"])],
        ),
        with(
            "sandbox-token-with-a-second-entry",
            &[(own, &["pub"]), ("v1/edge-1/build-8/events", &["pub"])],
        ),
        with(
            "sandbox-token-with-its-entry-twice",
            &[(own, &["pub"]), (own, &["pub"])],
        ),
        with("sandbox-token-with-an-empty-scope", &[]),
    ]
}

/// What the parent says, and does not say.
fn parents() -> Vec<Vector> {
    let under = |name: &str, parent: Map, claims: Map, reason: &str, why: &str| {
        token(
            name,
            &child(HOST_KEY, claims, &host_token(parent)),
            reason,
            why,
        )
    };
    let delegating = |name: &str, entries: &[(&str, &[&str])]| {
        let parent = host_claims().with(-70001, scope(entries));
        under(
            name,
            parent,
            sandbox_claims(),
            DELEGATION,
            "4.2, 9: the parent's delegable scope covers the leaf's",
        )
    };
    let ends_early = host_claims().with(4, uint(NOW_S + 100));
    let ended = host_claims()
        .with(6, uint(NOW_S - 3660))
        .with(4, uint(NOW_S - 60));
    let early = host_claims().with(5, uint(NOW_S + 61));
    let full = "4.2: the parent is checked in full";
    vec![
        under(
            "sandbox-token-that-outlives-its-parent",
            ends_early,
            sandbox_claims().with(4, uint(NOW_S + 101)),
            DELEGATION,
            "4.2, 9: exp ≤ the parent's",
        ),
        under(
            "sandbox-token-under-a-parent-that-delegates-nothing",
            host_claims().without(-70001),
            sandbox_claims(),
            DELEGATION,
            "4.2, 9: the parent's delegable scope covers the leaf's",
        ),
        delegating("sandbox-token-under-an-empty-delegable-scope", &[]),
        delegating(
            "sandbox-token-under-a-delegable-scope-of-another-sandbox",
            &[("v1/edge-1/build-8/events", &["pub"])],
        ),
        delegating(
            "sandbox-token-under-a-delegable-scope-to-subscribe",
            &[("v1/edge-1/+/events", &["sub"])],
        ),
        delegating(
            "sandbox-token-under-a-delegable-scope-of-fewer-levels",
            &[("v1/edge-1/+", &["pub"])],
        ),
        under(
            "sandbox-token-of-another-host-under-a-delegable-scope-of-all-topics",
            host_claims().with(-70001, scope(&[("#", &["pub"])])),
            sandbox_claims_of("edge-2", "build-7").with(1, text("edge-1")),
            DELEGATION,
            "4.2, 9: the host of sub is the parent's sub",
        ),
        under(
            "sandbox-token-under-a-parent-that-has-ended",
            ended,
            dates(NOW_S - 960, NOW_S - 60),
            "expired",
            full,
        ),
        under(
            "sandbox-token-under-a-parent-that-is-early",
            early,
            sandbox_claims(),
            "not valid yet",
            full,
        ),
        under(
            "sandbox-token-under-a-parent-for-another-audience",
            host_claims().with(3, text("outhaul-elsewhere")),
            sandbox_claims(),
            "for another audience",
            full,
        ),
        under(
            "sandbox-token-under-a-parent-without-a-generation",
            host_claims().without(-70002),
            sandbox_claims(),
            CLAIMS,
            full,
        ),
        under(
            "sandbox-token-under-a-parent-with-a-claim-more",
            host_claims().with(10, uint(0)),
            sandbox_claims(),
            MALFORMED,
            full,
        ),
    ]
}

/// Who signed which link.
fn signers() -> Vec<Vector> {
    let parent = host_token(host_claims());
    let by = |seed: u8| child(seed, sandbox_claims(), &parent);
    let of_a_stranger = envelope(STRANGER, host_claims()).seal();
    let posing = Envelope {
        protected: header(&kid_of(&public(ISSUER)), uint(61)),
        ..envelope(STRANGER, host_claims())
    };
    let leaf = "4.2, 7: the kid is the parent's cnf key's, and the signature verifies with it";
    let of_parent = "4.2, 2: the kid is a known issuer's, and the signature verifies with it";
    vec![
        token(
            "sandbox-token-signed-by-a-stranger",
            &by(STRANGER),
            UNKNOWN_KEY,
            leaf,
        ),
        token(
            "sandbox-token-signed-by-the-issuer",
            &by(ISSUER),
            UNKNOWN_KEY,
            leaf,
        ),
        token(
            "sandbox-token-signed-by-its-own-key",
            &by(SANDBOX_KEY),
            UNKNOWN_KEY,
            leaf,
        ),
        token(
            "sandbox-token-signed-by-the-hosts-next-key",
            &by(HOST_KEY_2),
            UNKNOWN_KEY,
            leaf,
        ),
        token(
            "sandbox-token-under-a-parent-of-a-stranger",
            &child(HOST_KEY, sandbox_claims(), &of_a_stranger),
            UNKNOWN_KEY,
            of_parent,
        ),
        token(
            "sandbox-token-under-a-parent-of-a-stranger-with-the-kid-of-the-issuer",
            &child(HOST_KEY, sandbox_claims(), &posing.seal()),
            SIGNATURE,
            of_parent,
        ),
        token(
            "sandbox-token-without-its-parent",
            &envelope(HOST_KEY, sandbox_claims()).seal(),
            UNKNOWN_KEY,
            of_parent,
        ),
    ]
}

/// What is in the header that is not signed.
fn nested() -> Vec<Vector> {
    let parent = host_token(host_claims());
    let with = |name: &str, unprotected: Item, why: &str| {
        let leaf = Envelope {
            unprotected,
            ..envelope(HOST_KEY, sandbox_claims())
        };
        token(name, &leaf.seal(), ENVELOPE, why)
    };
    let one = |label: i64, value: &[u8]| Map::new(&[(label, value.to_vec())]).encode();
    let two = Map::new(&[(4, bytes(&[0; 8])), (13, parent.clone())]).encode();
    let tagged = [&[0xd2], &parent[..]].concat();
    let only = "1.4: a sandbox token has { 13 => HostToken }, and nothing else";
    vec![
        with(
            "sandbox-token-with-a-parent-inside-its-parent",
            one(13, &sandbox_token(sandbox_claims())),
            "4.2, 1: no third link",
        ),
        with(
            "sandbox-token-with-its-parent-under-another-label",
            one(33, &parent),
            only,
        ),
        with("sandbox-token-with-a-header-beside-its-parent", two, only),
        with(
            "sandbox-token-with-its-parent-in-a-byte-string",
            one(13, &bytes(&parent)),
            only,
        ),
        with(
            "sandbox-token-with-a-tagged-parent",
            one(13, &tagged),
            "1.1: no tags",
        ),
        with(
            "sandbox-token-with-two-parents-in-a-list",
            one(13, &[&[0x82], &parent[..], &parent].concat()),
            only,
        ),
        token(
            "token-with-itself-for-a-parent",
            &child(ISSUER, host_claims(), &parent),
            UNKNOWN_KEY,
            "4.2, 7: the kid is the parent's cnf key's",
        ),
    ]
}
