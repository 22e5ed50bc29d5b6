//! Good messages of the token exchange (`SPEC.md`, chapter 5), and proofs of possession (chapter 3).

use ed25519_dalek::Signer as _;
use protocol::exchange::Refusal;
use serde_json::json;

use crate::{
    forge::Envelope,
    item::{Item, Map, array, bytes, text, uint},
    message::{
        EXCHANGE, challenge, grant, order, refusal, request, request_envelope, succession,
        succession_envelope, succession_to, typ,
    },
    vector::Vector,
    world::{
        HOST_KEY, HOST_KEY_2, HOST_KEY_3, NOW_MS, SANDBOX_KEY, key_text, longest_id, public, secret,
    },
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = requests();
    all.extend(successions());
    all.extend(answers());
    all.extend(possessions());
    all
}

fn requests() -> Vec<Vector> {
    let succession = succession_envelope(HOST_KEY, succession()).seal();
    let renewal = request()
        .with(3, bytes(&public(HOST_KEY_2)))
        .with(4, uint(2))
        .with(5, order(2, bytes(&succession)));
    let renewal = Envelope::new(HOST_KEY_2, typ("exchange"), EXCHANGE, renewal);
    let second = succession_envelope(HOST_KEY_2, succession_to(3, HOST_KEY_3)).seal();
    let chain = array(&[bytes(&succession), bytes(&second)]);
    let by_chain = request()
        .with(3, bytes(&public(HOST_KEY_3)))
        .with(4, uint(3))
        .with(5, order(3, chain));
    let by_chain = Envelope::new(HOST_KEY_3, typ("exchange"), EXCHANGE, by_chain);
    let longest = request().with(2, text(&longest_id()));
    let good = |name: &str, bytes: &[u8]| Vector::exchange("request", name, bytes);
    vec![
        good("enrolment", &request_envelope(request()).seal())
            .says(json!({"host": "edge-1", "generation": 1, "proof": "install_key"})),
        good("renewal", &renewal.seal())
            .says(json!({"host": "edge-1", "generation": 2, "proof": "succession"})),
        good("renewal-by-a-chain", &by_chain.seal())
            .says(json!({"host": "edge-1", "generation": 3, "proof": "successions"})),
        good(
            "request-of-a-witness-that-kept-nothing-yet",
            &request_envelope(request().with(6, Map::new(&[]))).seal(),
        )
        .says(json!({"host": "edge-1", "generation": 1})),
        good(
            "request-of-a-witness",
            &request_envelope(request().with(6, Map::new(&[(1, text(NOTE))]))).seal(),
        )
        .says(json!({"host": "edge-1", "generation": 1})),
        good(
            "enrolment-with-the-longest-host",
            &request_envelope(longest).seal(),
        ),
    ]
}

fn successions() -> Vec<Vector> {
    let third = succession_envelope(HOST_KEY_2, succession_to(3, HOST_KEY_3));
    let last = succession_envelope(HOST_KEY, succession_to(1_000_000, HOST_KEY_2));
    vec![
        Vector::succession(
            "succession-to-the-second-key",
            &succession_envelope(HOST_KEY, succession()).seal(),
        )
        .says(json!({"generation": 2, "key": key_text("ohh1", HOST_KEY_2)})),
        Vector::succession("succession-to-the-third-key", &third.seal())
            .with("host_key", key_text("ohh1", HOST_KEY_2))
            .with("generation", 2)
            .says(json!({"generation": 3, "key": key_text("ohh1", HOST_KEY_3)})),
        Vector::succession("succession-of-a-late-generation", &last.seal())
            .with("generation", 999_999)
            .says(json!({"generation": 1_000_000})),
    ]
}

fn answers() -> Vec<Vector> {
    let mut all = vec![
        Vector::exchange("challenge", "challenge", &challenge().encode())
            .says(json!({"time_ms": NOW_MS})),
        Vector::exchange("grant", "grant", &grant().encode())
            .says(json!({"time_ms": NOW_MS, "generation": 1})),
        Vector::exchange(
            "grant",
            "grant-with-authorities",
            &with_authorities(2).encode(),
        )
        .says(json!({"generation": 1, "authorities": 2})),
        Vector::exchange(
            "grant",
            "grant-with-no-authorities",
            &with_authorities(0).encode(),
        )
        .says(json!({"generation": 1, "authorities": 0})),
        Vector::exchange(
            "grant",
            "grant-with-a-trail",
            &grant().with(66, trail(0, 0)).encode(),
        )
        .says(json!({"generation": 1, "others": 0, "handovers": 0})),
        Vector::exchange(
            "grant",
            "grant-with-a-trail-others-and-handovers",
            &grant().with(66, trail(2, 1)).encode(),
        )
        .says(json!({"generation": 1, "others": 2, "handovers": 1})),
    ];
    let known = refusal(3).with(65, uint(300)).encode();
    all.push(
        Vector::exchange("refused", "refusal-of-a-broker-that-is-behind", &known)
            .says(json!({"reason": "proof_refused", "generation": 300})),
    );
    all.extend(Refusal::ALL.iter().map(|word| {
        let name = format!("refusal-{}", word.word().replace('_', "-"));
        Vector::exchange("refused", &name, &refusal(word.label()).encode())
            .says(json!({"reason": word.word(), "time_ms": NOW_MS}))
    }));
    all
}

/// What a checkpoint looks like: what it says is not the exchange's to judge.
pub(crate) const NOTE: &str = "outhaul-1/audit\n1\nAAAA\n\n\u{2014} outhaul-1/audit AAAA\n";

/// A grant that shows the audit trail, with so many checkpoints of other hosts and changes of the key.
pub(crate) fn trail(others: usize, handovers: usize) -> Map {
    let hash = || bytes(&[7; 32]);
    let vkey = || text("outhaul-1/audit+01020304+AAAA");
    let cosigned = Map::new(&[(1, text(NOTE)), (2, array(&[hash(), hash()]))]);
    let handover = Map::new(&[(1, text(NOTE)), (2, vkey())]);
    Map::new(&[
        (1, text(NOTE)),
        (2, vkey()),
        (3, array(&[hash(), hash(), hash()])),
        (4, array(&vec![cosigned.encode(); others])),
        (5, array(&vec![handover.encode(); handovers])),
    ])
}

/// A grant that names certificate authorities: what is in them is not the exchange's to judge.
fn with_authorities(count: u8) -> Map {
    let list: Vec<Item> = (0..count).map(|n| bytes(&[0x30, 1, n])).collect();
    grant().with(65, array(&list))
}

fn possessions() -> Vec<Vector> {
    [
        ("possession-of-a-hosts-key", HOST_KEY),
        ("possession-of-a-sandboxs-key", SANDBOX_KEY),
    ]
    .map(|(name, seed)| {
        let proof = proof(seed, &[8; 8], &[9; 8]);
        Vector::possession(name, &public(seed), &[8; 8], &proof)
    })
    .into()
}

/// The client's nonce and its signature over both.
pub(crate) fn proof(seed: u8, challenge: &[u8; 8], own: &[u8; 8]) -> Vec<u8> {
    let signature = secret(seed).sign(&[*challenge, *own].concat());
    [&own[..], &signature.to_bytes()].concat()
}
