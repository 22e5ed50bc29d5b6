//! Envelopes that are not quite the one of `SPEC.md`, 1.4. Each is signed as it stands, so that its form alone is wrong.

use super::{ENVELOPE, UNKNOWN_KEY, command, report, token};
use crate::{
    forge::{Envelope, header, header_of},
    item::{Item, Map, NULL, array, bytes, head, int, text, uint},
    message::{
        command_envelope, host_claims, host_token, report as a_report, report_envelope,
        signed_command, stop_command, stopped, typ,
    },
    stream::{Chain, head_envelope},
    vector::Vector,
    world::{DISPATCHER, STRANGER, kid_of, public},
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = outside();
    all.extend(headers());
    all.extend(more_headers());
    all.extend(unprotected());
    all.extend(parts());
    all.extend(others());
    all
}

fn envelope() -> Envelope {
    command_envelope(stop_command())
}

fn refused(name: &str, bytes: &[u8], why: &str) -> Vector {
    command(name, bytes, ENVELOPE, why)
}

/// The array and what is around it.
fn outside() -> Vec<Vector> {
    let good = envelope().seal();
    let parts = envelope().parts();
    let [protected, unprotected, payload, signature] = parts.clone();
    let pairs = Map(vec![(protected, unprotected), (payload, signature)]);
    let shape = "1.4: an envelope is an array of four";
    let front = |front: &[u8], bytes: &[u8]| [front, bytes].concat();
    vec![
        refused("envelope-of-nothing", &[], shape),
        refused("envelope-of-three", &array(&parts[..3]), shape),
        refused(
            "envelope-of-five",
            &array(&[&parts[..], &[bytes(&[])]].concat()),
            shape,
        ),
        refused("envelope-that-is-a-map", &pairs.encode(), shape),
        refused("envelope-in-a-byte-string", &bytes(&good), shape),
        refused(
            "envelope-of-indefinite-length",
            &[&[0x9f], &parts.concat()[..], &[0xff]].concat(),
            "1.1: lengths are definite",
        ),
        refused(
            "envelope-whose-head-is-longer-than-needed",
            &front(&[0x98, 4], &parts.concat()),
            "1.1: lengths are in their shortest form",
        ),
        refused(
            "envelope-with-the-tag-18",
            &front(&[0xd2], &good),
            "1.4: an envelope is untagged, and 1.1: no tags",
        ),
        refused(
            "envelope-with-a-byte-behind-it",
            &[&good[..], &[0]].concat(),
            "1.1: no bytes after the value",
        ),
        refused(
            "envelope-twice",
            &[&good[..], &good].concat(),
            "1.1: no bytes after the value",
        ),
        refused(
            "envelope-without-its-last-byte",
            &good[..good.len() - 1],
            "1.4: a signature has 64 bytes, and they must be there",
        ),
    ]
}

fn with_header(protected: Item) -> Vec<u8> {
    Envelope {
        protected,
        ..envelope()
    }
    .seal()
}

fn kid() -> Item {
    bytes(&kid_of(&public(DISPATCHER)))
}

/// What is in the header that is signed.
fn headers() -> Vec<Vector> {
    let alg = int(-19);
    let command = typ("command");
    let header = |pairs: &[(i64, Item)]| with_header(header_of(pairs));
    let these =
        "1.4: the protected header is {1: -19, 4: kid, 16: typ}, these three, in this order";
    vec![
        refused(
            "header-with-the-algorithm-eddsa",
            &header(&[(1, int(-8)), (4, kid()), (16, command.clone())]),
            "1.4: the algorithm is -19; -8 (EdDSA) is refused",
        ),
        refused(
            "header-with-the-algorithm-es256",
            &header(&[(1, int(-7)), (4, kid()), (16, command.clone())]),
            "1.4: the algorithm is -19, and no other",
        ),
        refused(
            "header-with-a-longer-algorithm-number",
            &header(&[(1, vec![0x38, 18]), (4, kid()), (16, command.clone())]),
            "1.1: integers are in their shortest form",
        ),
        refused(
            "header-without-an-algorithm",
            &header(&[(4, kid()), (16, command.clone())]),
            these,
        ),
        refused(
            "header-without-a-kid",
            &header(&[(1, alg.clone()), (16, command.clone())]),
            these,
        ),
        refused(
            "header-without-a-typ",
            &header(&[(1, alg.clone()), (4, kid())]),
            these,
        ),
        refused(
            "header-in-another-order",
            &header(&[(4, kid()), (1, alg.clone()), (16, command.clone())]),
            these,
        ),
        refused(
            "header-with-a-label-more",
            &header(&[
                (1, alg.clone()),
                (3, uint(60)),
                (4, kid()),
                (16, command.clone()),
            ]),
            these,
        ),
        refused(
            "header-with-a-label-twice",
            &header(&[(1, alg.clone()), (4, kid()), (4, kid()), (16, command)]),
            "1.1: each key of a map is there once",
        ),
        refused(
            "header-with-a-kid-of-seven-bytes",
            &header(&[
                (1, alg),
                (4, bytes(&kid_of(&public(DISPATCHER))[..7])),
                (16, typ("command")),
            ]),
            "1.4: a kid has 8 bytes",
        ),
    ]
}

/// Of what kind the message says it is, and whose.
fn more_headers() -> Vec<Vector> {
    let of_typ = |typ: Item| with_header(header(&kid_of(&public(DISPATCHER)), typ));
    let own = envelope().protected;
    let not_bytes = array(&[std::slice::from_ref(&own), &envelope().parts()[1..]].concat());
    let kind = "1.4: 16 is the typ of the message; one kind is none of another";
    vec![
        refused(
            "header-with-the-typ-of-a-report",
            &of_typ(typ("report")),
            kind,
        ),
        refused("header-with-the-typ-of-a-token", &of_typ(uint(61)), kind),
        refused(
            "header-with-a-typ-of-another-version",
            &of_typ(typ("command.v2")),
            "9: a peer that does not know a typ refuses it",
        ),
        refused(
            "header-with-a-typ-in-upper-case",
            &of_typ(text("application/vnd.outhaul.Command+cbor")),
            kind,
        ),
        refused(
            "header-of-indefinite-length",
            &with_header([&[0xbf], &own[1..], &[0xff]].concat()),
            "1.1: lengths are definite",
        ),
        refused(
            "header-with-a-byte-behind-it",
            &with_header([&own[..], &[0]].concat()),
            "1.1: no bytes after the value",
        ),
        refused(
            "header-that-is-empty",
            &with_header(Vec::new()),
            "1.4: the protected header is {1: -19, 4: kid, 16: typ}, these three, in this order",
        ),
        refused(
            "header-that-is-not-in-a-byte-string",
            &not_bytes,
            "1.4: the protected header is a byte string",
        ),
        command(
            "header-with-the-kid-of-a-stranger",
            &with_header(header(&kid_of(&public(STRANGER)), typ("command"))),
            UNKNOWN_KEY,
            "1.4: the kid is one of a trusted key; here the signature is the dispatcher's all the same",
        ),
    ]
}

/// What is in the header that is not signed: anybody could fill it.
fn unprotected() -> Vec<Vector> {
    let with = |unprotected: Map| {
        Envelope {
            unprotected: unprotected.encode(),
            ..envelope()
        }
        .seal()
    };
    let token = host_token(host_claims());
    let why = "1.4: the unprotected header is empty, except a sandbox token's";
    let list = Envelope {
        unprotected: vec![0x80],
        ..envelope()
    };
    vec![
        refused(
            "unprotected-header-with-a-kid",
            &with(Map::new(&[(4, kid())])),
            why,
        ),
        refused(
            "unprotected-header-with-a-label-that-open-messages-skip",
            &with(Map::new(&[(64, uint(0))])),
            why,
        ),
        refused(
            "unprotected-header-with-a-token-in-a-command",
            &with(Map::new(&[(13, token.clone())])),
            why,
        ),
        refused(
            "unprotected-header-with-a-command-in-a-command",
            &with(Map::new(&[(13, signed_command(stop_command()))])),
            why,
        ),
        refused("unprotected-header-that-is-an-array", &list.seal(), why),
        report(
            "unprotected-header-with-a-token-in-a-report",
            &Envelope {
                unprotected: Map::new(&[(13, token)]).encode(),
                ..report_envelope(a_report(4, stopped()))
            }
            .seal(),
            ENVELOPE,
            why,
        ),
    ]
}

/// The payload and the signature.
fn parts() -> Vec<Vector> {
    let [protected, unprotected, payload, signature] = envelope().parts();
    let of = |payload: &Item, signature: &Item| {
        let [protected, unprotected] = [&protected, &unprotected].map(Clone::clone);
        array(&[protected, unprotected, payload.clone(), signature.clone()])
    };
    let raw = envelope().signature();
    let as_text = [head(3, 64), raw.to_vec()].concat();
    let length = "1.4: a signature has 64 bytes";
    let bstr = "1.4: the payload is a byte string";
    vec![
        refused(
            "payload-that-is-detached",
            &of(&vec![NULL], &signature),
            bstr,
        ),
        refused(
            "payload-that-is-not-in-a-byte-string",
            &of(&stop_command().encode(), &signature),
            bstr,
        ),
        refused(
            "payload-of-indefinite-length",
            &of(&[&[0x5f], &payload[..], &[0xff]].concat(), &signature),
            "1.1: lengths are definite",
        ),
        refused(
            "signature-of-63-bytes",
            &of(&payload, &bytes(&raw[..63])),
            length,
        ),
        refused(
            "signature-of-65-bytes",
            &of(&payload, &bytes(&[&raw[..], &[0]].concat())),
            length,
        ),
        refused("signature-of-no-bytes", &of(&payload, &bytes(&[])), length),
        refused("signature-that-is-text", &of(&payload, &as_text), length),
        refused(
            "signature-whose-head-is-longer-than-needed",
            &of(&payload, &[&[0x59, 0, 64], &raw[..]].concat()),
            "1.1: lengths are in their shortest form",
        ),
    ]
}

/// The same of other kinds.
fn others() -> Vec<Vector> {
    let token_bytes = host_token(host_claims());
    let head = head_envelope(Chain::new().head(&[]));
    let batch = |name: &str, head: &[u8], why: &str| {
        Vector::batch(name, &[head, &[0x80]].concat()).refused(&format!("batch: {ENVELOPE}"), why)
    };
    vec![
        token(
            "token-with-the-tags-of-cwt-and-cose",
            &[&[0xd8, 61, 0xd2], &token_bytes[..]].concat(),
            ENVELOPE,
            "1.4: an envelope is untagged, and 1.1: no tags",
        ),
        token(
            "token-with-a-byte-behind-it",
            &[&token_bytes[..], &[0]].concat(),
            ENVELOPE,
            "1.1: no bytes after the value",
        ),
        batch(
            "head-with-the-tag-18",
            &[&[0xd2], &head.seal()[..]].concat(),
            "1.4: an envelope is untagged, and 1.1: no tags",
        ),
        batch(
            "head-with-an-unprotected-header",
            &Envelope {
                unprotected: Map::new(&[(13, token_bytes)]).encode(),
                ..head.clone()
            }
            .seal(),
            "1.4: the unprotected header is empty, except a sandbox token's",
        ),
        batch(
            "head-with-the-typ-of-a-report",
            &Envelope {
                protected: header(&kid_of(&public(head.seed)), typ("report")),
                ..head
            }
            .seal(),
            "1.4: 16 is the typ of the message; one kind is none of another",
        ),
    ]
}
