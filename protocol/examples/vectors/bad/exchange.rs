//! Requests, successions and proofs of possession that are refused (`SPEC.md`, chapters 5 and 3).

use super::{ENVELOPE, MALFORMED, SIGNATURE, UNKNOWN_KEY};
use crate::{
    forge::{Envelope, header, plus_order},
    good::proof,
    item::{Map, array, bytes, text, uint},
    message::{
        EXCHANGE, install_proof, order, request, request_envelope, succession, succession_envelope,
        succession_to, typ,
    },
    vector::Vector,
    world::{
        HOST_KEY, HOST_KEY_2, HOST_KEY_3, SANDBOX_KEY, STRANGER, kid_of, non_canonical_key, public,
        secret, weak_key,
    },
};
use ed25519_dalek::Signer as _;

pub(crate) fn all() -> Vec<Vector> {
    let mut all = requests();
    all.extend(successions());
    all.extend(possessions());
    all
}

fn requests() -> Vec<Vector> {
    let refused = |name: &str, bytes: &[u8], reason: &str, why: &str| {
        Vector::exchange("request", name, bytes).refused(reason, why)
    };
    let malformed = |name: &str, request: Map, why: &str| {
        refused(name, &request_envelope(request).seal(), MALFORMED, why)
    };
    let for_another = request().with(3, bytes(&public(STRANGER)));
    let posing = Envelope {
        protected: header(&kid_of(&public(HOST_KEY)), typ("exchange")),
        ..Envelope::new(STRANGER, typ("exchange"), EXCHANGE, request())
    };
    // For the neutral point as a key, R = B·0 and S = 0 fit every message.
    let weak = Envelope {
        protected: header(&kid_of(&weak_key()), typ("exchange")),
        ..request_envelope(request().with(3, bytes(&weak_key())))
    };
    let mut fits_all = [0; 64];
    fits_all[0] = 1;
    let closed = "9: requests are closed";
    let long = request().with(5, order(2, bytes(&[0; 8192])));
    let own = "5: the key the token shall name signs the request";
    vec![
        refused(
            "request-for-the-key-of-another",
            &request_envelope(for_another).seal(),
            UNKNOWN_KEY,
            own,
        ),
        refused(
            "request-signed-by-a-stranger-with-the-kid-of-the-key",
            &posing.seal(),
            SIGNATURE,
            own,
        ),
        refused(
            "request-by-a-key-that-fits-every-message",
            &weak.seal_with(&fits_all),
            MALFORMED,
            "1.3: a key of small order is refused",
        ),
        malformed(
            "request-for-a-key-in-another-encoding",
            request().with(3, bytes(&non_canonical_key())),
            "1.3: a key is RFC 8032's encoding of a point, of which there is one",
        ),
        refused(
            "request-with-a-succession-where-the-request-belongs",
            &succession_envelope(HOST_KEY, succession()).seal(),
            ENVELOPE,
            "1.4: one kind is none of another",
        ),
        refused(
            "request-of-more-than-8192-bytes",
            &request_envelope(long).seal(),
            ENVELOPE,
            "5: a request has at most EXCHANGE_BYTES_MAX bytes",
        ),
        malformed(
            "request-with-a-label-more",
            request().with(6, uint(0)),
            closed,
        ),
        malformed(
            "request-of-a-witness-with-a-label-more",
            request().with(6, Map::new(&[(2, uint(0))])),
            closed,
        ),
        malformed(
            "request-of-a-witness-whose-note-is-bytes",
            request().with(6, Map::new(&[(1, bytes(b"note"))])),
            "5: a note is text",
        ),
        malformed(
            "request-with-a-newer-label",
            request().with(64, uint(0)),
            closed,
        ),
        malformed(
            "request-with-an-unknown-proof",
            request().with(5, order(3, bytes(&[]))),
            closed,
        ),
        malformed(
            "request-with-a-proof-of-one",
            request().with(5, array(&[uint(1)])),
            "1.1: a choice is an array of two",
        ),
        malformed(
            "request-with-a-newer-label-in-its-proof",
            request().with(5, order(1, install_proof().with(64, uint(0)))),
            closed,
        ),
        malformed(
            "request-without-a-proof",
            request().without(5),
            "1.1: what may not be left out must be there",
        ),
        malformed(
            "request-with-a-nonce-of-31-bytes",
            request().with(1, bytes(&[5; 31])),
            "5: a nonce has 32 bytes",
        ),
        malformed(
            "request-with-a-secret-of-33-bytes",
            request().with(5, order(1, install_proof().with(2, bytes(&[7; 33])))),
            "5: a secret has 32 bytes",
        ),
        malformed(
            "request-with-a-kid-of-7-bytes",
            request().with(5, order(1, install_proof().with(1, bytes(&[6; 7])))),
            "5: a kid has 8 bytes",
        ),
        malformed(
            "request-of-a-host-in-upper-case",
            request().with(2, text("Edge-1")),
            "1.2: an id is [a-z0-9-]{1,64}",
        ),
    ]
}

/// From the host's first key, of generation 1.
fn successions() -> Vec<Vector> {
    let refused = |name: &str, seed: u8, succession: Map, reason: &str, why: &str| {
        let bytes = succession_envelope(seed, succession).seal();
        Vector::succession(name, &bytes).refused(reason, why)
    };
    let mut flipped = succession_envelope(HOST_KEY, succession()).signature();
    flipped[40] ^= 1;
    let changed = succession_envelope(HOST_KEY, succession()).seal_with(&flipped);
    let as_request = Envelope {
        protected: header(&kid_of(&public(HOST_KEY)), typ("exchange")),
        ..succession_envelope(HOST_KEY, succession())
    };
    let placed = Envelope {
        aad: EXCHANGE.into(),
        ..succession_envelope(HOST_KEY, succession())
    };
    let last = "5: a succession is signed by the key before it";
    let by_one = "5: a succession counts the generation up by exactly one";
    vec![
        refused(
            "succession-by-a-stranger",
            STRANGER,
            succession(),
            UNKNOWN_KEY,
            last,
        ),
        refused(
            "succession-by-the-new-key-itself",
            HOST_KEY_2,
            succession(),
            UNKNOWN_KEY,
            last,
        ),
        refused(
            "succession-by-a-later-key",
            HOST_KEY_3,
            succession(),
            UNKNOWN_KEY,
            last,
        ),
        Vector::succession("succession-with-one-bit-flipped", &changed).refused(SIGNATURE, last),
        Vector::succession("succession-with-the-typ-of-a-request", &as_request.seal())
            .refused(ENVELOPE, "1.4: one kind is none of another"),
        Vector::succession("succession-signed-for-a-place", &placed.seal())
            .refused(SIGNATURE, "1.4: the external_aad of a succession is empty"),
        refused(
            "succession-of-another-host",
            HOST_KEY,
            succession().with(1, text("edge-2")),
            ENVELOPE,
            "5: a succession names the same host",
        ),
        refused(
            "succession-that-leaves-a-generation-out",
            HOST_KEY,
            succession_to(3, HOST_KEY_2),
            ENVELOPE,
            by_one,
        ),
        refused(
            "succession-of-the-same-generation",
            HOST_KEY,
            succession_to(1, HOST_KEY_2),
            ENVELOPE,
            by_one,
        ),
        refused(
            "succession-of-an-earlier-generation",
            HOST_KEY,
            succession_to(0, HOST_KEY_2),
            ENVELOPE,
            by_one,
        ),
        refused(
            "succession-to-a-weak-key",
            HOST_KEY,
            succession().with(3, bytes(&weak_key())),
            MALFORMED,
            "1.3: a key of small order is refused",
        ),
        refused(
            "succession-with-a-label-more",
            HOST_KEY,
            succession().with(5, uint(0)),
            MALFORMED,
            "9: successions are closed",
        ),
        refused(
            "succession-with-a-newer-label",
            HOST_KEY,
            succession().with(64, uint(0)),
            MALFORMED,
            "9: successions are closed",
        ),
        refused(
            "succession-without-a-time",
            HOST_KEY,
            succession().without(4),
            MALFORMED,
            "1.1: what may not be left out must be there",
        ),
        Vector::succession(
            "succession-behind-the-last-generation",
            &succession_envelope(HOST_KEY, succession_to(0, HOST_KEY_2)).seal(),
        )
        .with("generation", u64::MAX)
        .refused(ENVELOPE, by_one),
    ]
}

fn possessions() -> Vec<Vector> {
    let key = public(SANDBOX_KEY);
    let challenge = [8; 8];
    let good = proof(SANDBOX_KEY, &challenge, &[9; 8]);
    let refused = |name: &str, challenge: &[u8], proof: &[u8], why: &str| {
        Vector::possession(name, &key, challenge, proof).refused("the proof does not hold", why)
    };
    let with_signature =
        |message: &[u8]| [&[9; 8][..], &secret(SANDBOX_KEY).sign(message).to_bytes()].concat();
    let mut other_nonce = good.clone();
    other_nonce[0] ^= 1;
    let mut flipped = good.clone();
    flipped[71] ^= 0x80;
    let mut signature = [0; 64];
    signature.copy_from_slice(&good[8..]);
    let plus = [&good[..8], &plus_order(&signature)].concat();
    let over = "3: the signature is over the broker's nonce, then the client's";
    let length = "3: a proof has 72 bytes";
    vec![
        refused(
            "possession-for-another-nonce-of-the-broker",
            &[7; 8],
            &good,
            over,
        ),
        refused(
            "possession-for-another-nonce-of-the-client",
            &challenge,
            &other_nonce,
            over,
        ),
        refused(
            "possession-with-the-nonces-in-the-other-order",
            &challenge,
            &with_signature(&[[9; 8], challenge].concat()),
            over,
        ),
        refused(
            "possession-over-the-brokers-nonce-alone",
            &challenge,
            &with_signature(&challenge),
            over,
        ),
        refused(
            "possession-of-another-key",
            &challenge,
            &proof(STRANGER, &challenge, &[9; 8]),
            "3: the key that the token's cnf names signs",
        ),
        refused(
            "possession-with-one-bit-flipped",
            &challenge,
            &flipped,
            over,
        ),
        refused(
            "possession-whose-s-is-plus-the-order",
            &challenge,
            &plus,
            "1.3: verify strictly: S < L",
        ),
        refused("possession-of-71-bytes", &challenge, &good[..71], length),
        refused(
            "possession-of-73-bytes",
            &challenge,
            &[&good[..], &[0]].concat(),
            length,
        ),
        refused("possession-of-no-bytes", &challenge, &[], length),
        refused(
            "possession-without-the-nonce-of-the-client",
            &challenge,
            &good[8..],
            length,
        ),
    ]
}
