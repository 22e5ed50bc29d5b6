//! Tokens of one link that are refused (`SPEC.md`, 4.2, steps 1 to 6).

use super::{ENVELOPE, MALFORMED, NOT_DETERMINISTIC, token};
use crate::{
    item::{Item, Map, array, bytes, int, text, uint},
    message::{cnf, cose_key, entries_of, host_claims, host_token, sandbox_claims, scope, texts},
    vector::Vector,
    world::{HOST_KEY, NOW_S, no_point, non_canonical_key, public, weak_key},
};

const CLAIMS: &str = "a claim is not acceptable";

pub(crate) fn all() -> Vec<Vector> {
    let mut all = dates();
    all.extend(subjects());
    all.extend(keys());
    all.extend(scopes());
    all.extend(encodings());
    all
}

fn refused(name: &str, claims: impl Into<Item>, reason: &str, why: &str) -> Vector {
    token(name, &host_token(claims), reason, why)
}

fn malformed(name: &str, claims: impl Into<Item>, why: &str) -> Vector {
    refused(name, claims, MALFORMED, why)
}

fn dates() -> Vec<Vector> {
    let dates =
        |issued: u64, expires: u64| host_claims().with(6, uint(issued)).with(4, uint(expires));
    let passed = "4.2, 4: exp has not passed, and 1.2: it has when now ≥ exp + 60 s";
    let come =
        "4.2, 4: the later of nbf and iat has come, and 1.2: it has not when now + 60 s < it";
    vec![
        refused(
            "host-token-that-ended-a-minute-ago",
            dates(NOW_S - 3660, NOW_S - 60),
            "expired",
            passed,
        ),
        refused(
            "host-token-that-ended-long-ago",
            dates(0, 3600),
            "expired",
            passed,
        ),
        refused(
            "host-token-issued-61-seconds-from-now",
            dates(NOW_S + 61, NOW_S + 3661),
            "not valid yet",
            come,
        ),
        refused(
            "host-token-whose-not-before-is-61-seconds-from-now",
            host_claims().with(5, uint(NOW_S + 61)),
            "not valid yet",
            come,
        ),
        refused(
            "host-token-issued-later-than-its-not-before",
            dates(NOW_S + 61, NOW_S + 3661).with(5, uint(NOW_S)),
            "not valid yet",
            come,
        ),
        refused(
            "host-token-that-lives-for-more-than-an-hour",
            dates(NOW_S, NOW_S + 3601),
            CLAIMS,
            "4.2, 5: exp − iat ≤ HOST_TOKEN_LIFE_S_MAX",
        ),
        refused(
            "host-token-for-another-audience",
            host_claims().with(3, text("outhaul-elsewhere")),
            "for another audience",
            "4.2, 4: aud is this broker's",
        ),
        refused(
            "host-token-for-an-audience-that-begins-alike",
            host_claims().with(3, text("outhaul-vectors-2")),
            "for another audience",
            "4.2, 4: aud is this broker's",
        ),
    ]
}

fn subjects() -> Vec<Vector> {
    let named = |name: &str, subject: &str| {
        let claims = host_claims().with(2, text(subject));
        refused(name, claims, CLAIMS, "4.2, 5: sub is a host's id")
    };
    vec![
        named("host-token-that-names-nobody", ""),
        named("host-token-that-names-a-sandbox", "edge-1/build-7"),
        named("host-token-that-names-a-host-in-upper-case", "Edge-1"),
        named(
            "host-token-that-names-a-host-of-65-letters",
            &"a".repeat(65),
        ),
        named("host-token-that-names-every-host", "+"),
        refused(
            "host-token-without-a-generation",
            host_claims().without(-70002),
            CLAIMS,
            "4.2, 5: a generation is there",
        ),
        refused(
            "sandbox-token-of-the-issuer",
            sandbox_claims(),
            CLAIMS,
            "4.2, 5: of one link, sub is a host's id; a sandbox's token has a parent",
        ),
    ]
}

fn keys() -> Vec<Vector> {
    let key = |name: &str, key: &[u8], why: &str| {
        refused(name, host_claims().with(8, cnf(key)), CLAIMS, why)
    };
    let of = |name: &str, cose_key: Map| {
        let cnf = Map::new(&[(1, cose_key.into())]);
        refused(
            name,
            host_claims().with(8, cnf),
            CLAIMS,
            "4.2, 6: cnf is an Ed25519 key",
        )
    };
    let own = || cose_key(&public(HOST_KEY));
    let cnf_of = |map: Map| host_claims().with(8, map);
    vec![
        key(
            "host-token-for-a-weak-key",
            &weak_key(),
            "1.3: a key of small order is refused",
        ),
        key(
            "host-token-for-a-key-in-another-encoding",
            &non_canonical_key(),
            "1.3: a key is RFC 8032's encoding of a point, of which there is one",
        ),
        key(
            "host-token-for-a-key-that-is-no-point",
            &no_point(),
            "1.3: a key that is no point of the curve is refused",
        ),
        of(
            "host-token-for-a-key-of-another-type",
            own().with(1, uint(2)),
        ),
        of(
            "host-token-for-a-key-of-another-curve",
            own().with(-1, uint(4)),
        ),
        malformed(
            "host-token-for-a-key-of-31-bytes",
            host_claims().with(8, cnf(&[7; 31])),
            "4: a key has 32 bytes",
        ),
        malformed(
            "host-token-for-a-key-with-a-label-more",
            cnf_of(Map::new(&[(1, own().with(3, int(-19)).into())])),
            "4.2, 3: nothing in the claims is unknown",
        ),
        malformed(
            "host-token-for-the-thumbprint-of-a-key",
            cnf_of(Map::new(&[(3, bytes(&[7; 32]))])),
            "4: cnf is a COSE_Key",
        ),
        malformed(
            "host-token-for-a-key-and-its-kid",
            cnf_of(Map::new(&[(1, own().into()), (3, bytes(&[7; 8]))])),
            "4.2, 3: nothing in the claims is unknown",
        ),
    ]
}

fn scopes() -> Vec<Vector> {
    let with =
        |name: &str, scope: Item, why: &str| malformed(name, host_claims().with(9, scope), why);
    let one = |name: &str, filter: &str, why: &str| with(name, scope(&[(filter, &["pub"])]), why);
    let grammar =
        "4.1: a level is +, # (last only), or visible ASCII without them and $; none is empty";
    let pub_on = |filter: &str| (filter.to_owned(), ());
    let many: Vec<_> = (0..17).map(|n| pub_on(&format!("a/{n}"))).collect();
    let many: Vec<(&str, &[&str])> = many.iter().map(|(f, ())| (&**f, &["pub"][..])).collect();
    let entries = entries_of(&[("a", &["pub"])]);
    let entry = |items: &[Item]| bytes(&array(&[array(items)]));
    let permissions = "4: permissions are [pub], [sub], or [pub, sub] in this order";
    vec![
        with(
            "scope-of-17-entries",
            scope(&many),
            "4: a scope has at most SCOPE_ENTRIES_MAX entries",
        ),
        one("scope-with-an-empty-filter", "", grammar),
        one("scope-with-an-empty-level", "a//b", grammar),
        one("scope-with-a-hash-in-the-middle", "a/#/b", grammar),
        one("scope-with-a-plus-beside-a-letter", "a/+b", grammar),
        one("scope-with-a-topic-of-the-server", "$SYS/#", grammar),
        one("scope-with-a-space", "a b", grammar),
        one("scope-with-a-letter-that-is-not-ascii", "é", grammar),
        one(
            "scope-with-a-filter-of-257-bytes",
            &"a".repeat(257),
            "4.1: a filter has at most TOPIC_BYTES_MAX bytes",
        ),
        with(
            "scope-without-permissions",
            scope(&[("a", &[])]),
            permissions,
        ),
        with(
            "scope-with-an-unknown-permission",
            scope(&[("a", &["all"])]),
            permissions,
        ),
        with(
            "scope-with-a-permission-in-upper-case",
            scope(&[("a", &["PUB"])]),
            permissions,
        ),
        with(
            "scope-with-permissions-in-the-other-order",
            scope(&[("a", &["sub", "pub"])]),
            permissions,
        ),
        with(
            "scope-with-a-permission-twice",
            scope(&[("a", &["pub", "pub"])]),
            permissions,
        ),
        with(
            "scope-with-three-permissions",
            scope(&[("a", &["pub", "sub", "pub"])]),
            permissions,
        ),
        with(
            "scope-with-a-permission-that-is-a-number",
            entry(&[text("a"), array(&[uint(1)])]),
            permissions,
        ),
        with(
            "scope-with-an-entry-of-three",
            entry(&[text("a"), texts(&["pub"]), uint(0)]),
            "4: an entry is a filter and its permissions",
        ),
        with(
            "scope-that-is-not-in-a-byte-string",
            entries.clone(),
            "4: a scope is CBOR in a byte string",
        ),
        with(
            "scope-with-a-byte-behind-it",
            bytes(&[&entries[..], &[0]].concat()),
            "1.1: no bytes after the value",
        ),
        with(
            "scope-of-indefinite-length",
            bytes(&[&[0x9f], &entries[1..], &[0xff]].concat()),
            "1.1: lengths are definite",
        ),
        malformed(
            "delegable-scope-of-17-entries",
            host_claims().with(-70001, scope(&many)),
            "4: a scope has at most SCOPE_ENTRIES_MAX entries",
        ),
    ]
}

fn encodings() -> Vec<Vector> {
    let unknown = "4.2, 3: nothing in the claims is unknown";
    let there = "1.1: what may not be left out must be there";
    let in_order = "1.1: keys of a map are in the bytewise order of their encodings";
    let mut swapped = host_claims();
    let last = swapped.0.len() - 1;
    swapped.0.swap(last - 1, last);
    let mut private_first = host_claims();
    private_first.0.rotate_right(2);
    let filter = |n: usize| format!("{}/{n:02}", "a".repeat(104));
    let filters: Vec<_> = (0..16).map(filter).collect();
    let long: Vec<(&str, &[&str])> = filters.iter().map(|f| (&**f, &["pub"][..])).collect();
    vec![
        malformed(
            "token-with-a-claim-more",
            host_claims().with(10, uint(0)),
            unknown,
        ),
        malformed(
            "token-with-a-newer-claim",
            host_claims().with(64, uint(0)),
            unknown,
        ),
        malformed(
            "token-with-a-private-claim-more",
            host_claims().with(-70003, uint(0)),
            unknown,
        ),
        malformed(
            "token-with-a-claim-that-is-text",
            Map([&host_claims().0[..], &[(text("admin"), uint(1))]].concat()),
            unknown,
        ),
        malformed("token-without-an-end", host_claims().without(4), there),
        malformed("token-without-an-id", host_claims().without(7), there),
        malformed("token-without-a-key", host_claims().without(8), there),
        malformed("token-without-a-scope", host_claims().without(9), there),
        malformed(
            "token-with-an-id-of-7-bytes",
            host_claims().with(7, bytes(&[1; 7])),
            "4: a cti has 8 bytes",
        ),
        malformed(
            "token-with-a-date-that-is-a-float",
            host_claims().with(4, [0xfb, 0x41, 0xda, 0xd2, 0x74, 0x80, 0, 0, 0]),
            "1.1: no floats",
        ),
        malformed(
            "token-with-a-date-that-is-tagged",
            host_claims().with(4, [&[0xc1], &uint(NOW_S + 3600)[..]].concat()),
            "1.1: no tags",
        ),
        refused(
            "token-with-private-claims-out-of-order",
            swapped,
            NOT_DETERMINISTIC,
            in_order,
        ),
        refused(
            "token-with-private-claims-first",
            private_first,
            NOT_DETERMINISTIC,
            in_order,
        ),
        refused(
            "token-of-more-than-2048-bytes",
            host_claims().with(9, scope(&long)),
            ENVELOPE,
            "4.2, 1: at most TOKEN_BYTES_MAX bytes",
        ),
    ]
}
