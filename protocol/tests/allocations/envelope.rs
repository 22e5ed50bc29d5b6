//! The second door, signed messages: hostile payloads that somebody signed, hostile envelopes that nobody did, all at the price of their own
//! length. Envelopes are built by hand here, as `SPEC.md` 1.4 has them, since ours signs nothing hostile.

use ed25519_dalek::{Signer as _, SigningKey};
use protocol::{
    command,
    exchange::{self, Succession},
    key::{Dispatcher, Host, Issuer, Role, Sandbox},
    limits::{EXCHANGE_BYTES_MAX, MESSAGE_BYTES_MAX, TOKEN_BYTES_MAX},
    report, signed,
    stream::Verifier,
    token,
};

use crate::{
    cost,
    hostile::{Fits, bombs, twists},
    item::Item,
    sample::{self, AUDIENCE, NOW, Sample, samples, secret, spare},
};

/// How one kind of message is signed, and the doors it comes in by.
struct Kind {
    /// The samples that are of this kind.
    names: &'static [&'static str],
    typ: &'static [u8],
    seed: u8,
    kid: [u8; 8],
    aad: &'static [u8],
    parent: Option<Vec<u8>>,
    bytes_max: usize,
    doors: &'static [Door],
}

/// Whether what came is taken.
type Door = fn(&[u8]) -> bool;

const COMMAND: Door =
    |bytes| command::verify(bytes, &[public::<Dispatcher>(1)], &sample::host(), NOW).is_ok();
const REPORT: Door = |bytes| report::verify(bytes, &[public::<Host>(2)], &sample::host()).is_ok();
const TOKEN: Door = |bytes| token::check(bytes, &[public::<Issuer>(5)], AUDIENCE, NOW).is_ok();

fn kinds() -> Vec<Kind> {
    let kind = |names, typ, seed, kid, aad: &'static str, bytes_max, doors| Kind {
        names,
        typ,
        seed,
        kid,
        aad: aad.as_bytes(),
        parent: None,
        bytes_max,
        doors,
    };
    let mut kinds = vec![
        kind(
            &["host token"],
            &[0x18, 61],
            5,
            public::<Issuer>(5).id(),
            "",
            TOKEN_BYTES_MAX,
            &[TOKEN, |bytes| token::peek(bytes).is_ok()],
        ),
        kind(
            &["launch", "stop"],
            b"\x78\x24application/vnd.outhaul.command+cbor",
            1,
            public::<Dispatcher>(1).id(),
            "v1/edge-1/commands",
            MESSAGE_BYTES_MAX,
            &[COMMAND, |bytes| {
                signed::peek::<command::Command>(bytes).is_ok()
            }],
        ),
        kind(
            &[
                "refused",
                "launched",
                "ended",
                "stopped",
                "forwarded",
                "status",
            ],
            b"\x78\x23application/vnd.outhaul.report+cbor",
            2,
            public::<Host>(2).id(),
            "v1/edge-1/reports",
            MESSAGE_BYTES_MAX,
            &[REPORT, |bytes| {
                signed::peek::<report::Report>(bytes).is_ok()
            }],
        ),
        kind(
            &["enrolment", "renewal"],
            b"\x78\x25application/vnd.outhaul.exchange+cbor",
            2,
            public::<Host>(2).id(),
            "/v1/exchange",
            EXCHANGE_BYTES_MAX,
            &[|bytes| exchange::verify_request(bytes).is_ok()],
        ),
        kind(
            &["succession"],
            b"\x78\x27application/vnd.outhaul.succession+cbor",
            2,
            public::<Host>(2).id(),
            "",
            512,
            &[|bytes| signed::verify::<Succession>(bytes, &[public(2)], b"").is_ok()],
        ),
        kind(
            &["head"],
            b"\x78\x22application/vnd.outhaul.batch+cbor",
            3,
            public::<Sandbox>(3).id(),
            "",
            512,
            // The body that the sample's head announces is not here: no head is taken.
            &[|bytes| {
                Verifier::new(&sample::host(), &sample::sandbox(), public(3))
                    .check(bytes)
                    .is_ok()
            }],
        ),
    ];
    let parent = kinds[0].seal(&sample_of("host token").item.encode());
    kinds.push(Kind {
        parent: Some(parent),
        ..kind(
            &["sandbox token"],
            &[0x18, 61],
            2,
            public::<Host>(2).id(),
            "",
            TOKEN_BYTES_MAX,
            &[TOKEN],
        )
    });
    kinds
}

fn public<R: Role>(seed: u8) -> protocol::key::Public<R> {
    secret(seed).public()
}

fn sample_of(name: &str) -> Sample {
    samples()
        .into_iter()
        .find(|sample| sample.name == name)
        .unwrap()
}

impl Kind {
    /// An envelope around `payload`, whatever that is.
    fn envelope(&self, payload: &[u8]) -> Item {
        let protected = Item::Map(vec![
            Item::Plain(vec![1]),
            Item::Plain(vec![0x32]),
            Item::Plain(vec![4]),
            Item::Bytes(self.kid.to_vec()),
            Item::Plain(vec![16]),
            Item::Plain(self.typ.to_vec()),
        ]);
        let parts = [
            Item::Text(b"Signature1".to_vec()),
            Item::Bytes(protected.encode()),
            Item::Bytes(self.aad.to_vec()),
            Item::Bytes(payload.to_vec()),
        ];
        let key = SigningKey::from_bytes(&[self.seed; 32]);
        let signature = key.sign(&Item::Array(parts.into()).encode());
        let parent = self.parent.iter();
        let unprotected = parent.flat_map(|parent| [Item::Plain(vec![13]), Item::parse(parent)]);
        Item::Array(vec![
            Item::Inside(Box::new(protected)),
            Item::Map(unprotected.collect()),
            Item::Bytes(payload.to_vec()),
            Item::Bytes(signature.to_bytes().to_vec()),
        ])
    }

    fn seal(&self, payload: &[u8]) -> Vec<u8> {
        self.envelope(payload).encode()
    }

    fn samples(&self) -> impl Iterator<Item = Sample> {
        self.names.iter().map(|name| sample_of(name))
    }

    /// Brings `bytes` to every door, holds the cost, and says whether one of them took it.
    fn is_taken(&self, name: &str, bytes: &[u8], what: &str) -> bool {
        let is_taken = |door: &Door| {
            let (is_taken, cost) = cost::of(|| door(bytes));
            let length = bytes.len() as u64;
            // In all, one may look for the key in it, copy it to be verified, and read it: never two of these at a time.
            assert!(
                cost.peak <= length + spare(name) && cost.total <= 3 * length + spare(name),
                "{name}: {what} of {length} bytes: {cost:?}"
            );
            is_taken
        };
        self.doors.iter().filter(|door| is_taken(door)).count() > 0
    }
}

#[test]
fn what_is_signed_by_hand_here_is_taken() {
    for kind in kinds() {
        for sample in kind.samples().filter(|sample| sample.name != "head") {
            let bytes = kind.seal(&sample.item.encode());
            assert!(
                kind.is_taken(sample.name, &bytes, "honest"),
                "{}",
                sample.name
            );
        }
    }
}

#[test]
fn a_signature_does_not_make_a_bomb_dearer() {
    for kind in kinds() {
        for sample in kind.samples() {
            let room = kind.bytes_max - kind.seal(&sample.item.encode()).len() - 8;
            let bombs = bombs(room);
            let large = |place: &Vec<usize>| {
                let item = sample.item.at(place);
                place.is_empty()
                    || matches!(item, Item::Array(_) | Item::Inside(_) | Item::Bytes(_))
            };
            for place in sample.item.places().into_iter().filter(large) {
                let twists = twists(&sample.item.at(&place));
                for hostile in bombs.iter().chain(&twists) {
                    let payload = sample.item.with(&place, &hostile.item).encode();
                    let bytes = kind.seal(&payload);
                    assert!(bytes.len() <= kind.bytes_max, "it is read");
                    let is_taken = kind.is_taken(sample.name, &bytes, hostile.what);
                    let what = hostile.what;
                    assert!(
                        !is_taken || hostile.fits == Fits::Somewhere,
                        "{}: {what}",
                        sample.name
                    );
                }
            }
        }
    }
}

#[test]
fn an_envelope_that_nobody_signed_is_refused_at_the_price_of_its_own_length() {
    for kind in kinds() {
        let sample = kind.samples().next().unwrap();
        let envelope = kind.envelope(&sample.item.encode());
        let honest = envelope.encode();
        let room = kind.bytes_max - honest.len();
        let bombs = bombs(room);
        for place in envelope.places() {
            let twists = twists(&envelope.at(&place));
            for hostile in bombs.iter().chain(&twists) {
                let bytes = envelope.with(&place, &hostile.item).encode();
                let is_taken = kind.is_taken(sample.name, &bytes, hostile.what);
                let what = hostile.what;
                assert!(!is_taken || bytes == honest, "{}: {what}", sample.name);
            }
        }
    }
}
