//! One honest message of each kind as a map, to be changed, and the envelope around it (`SPEC.md`, 1.4).

use crate::{
    forge::Envelope,
    item::{Item, Map, TRUE, array, bytes, int, text, uint},
    world::{
        AUDIENCE, DISPATCHER, HOST, HOST_KEY, HOST_KEY_2, ISSUER, NOW_MS, NOW_S, SANDBOX,
        SANDBOX_KEY, public,
    },
};

pub(crate) const COMMANDS: &str = "v1/edge-1/commands";
pub(crate) const REPORTS: &str = "v1/edge-1/reports";
pub(crate) const EVENTS: &str = "v1/edge-1/build-7/events";
pub(crate) const EXCHANGE: &str = "/v1/exchange";

pub(crate) fn typ(word: &str) -> Item {
    text(&format!("application/vnd.outhaul.{word}+cbor"))
}

// Tokens.

pub(crate) fn token(seed: u8, claims: impl Into<Item>) -> Envelope {
    Envelope::new(seed, uint(61), "", claims)
}

pub(crate) fn host_token(claims: impl Into<Item>) -> Vec<u8> {
    token(ISSUER, claims).seal()
}

/// A token with another inside.
pub(crate) fn child(seed: u8, claims: impl Into<Item>, parent: &[u8]) -> Vec<u8> {
    Envelope {
        unprotected: Map::new(&[(13, parent.to_vec())]).into(),
        ..token(seed, claims)
    }
    .seal()
}

pub(crate) fn sandbox_token(claims: impl Into<Item>) -> Vec<u8> {
    child(HOST_KEY, claims, &host_token(host_claims()))
}

pub(crate) fn host_claims() -> Map {
    host_claims_of(HOST)
}

pub(crate) fn host_claims_of(host: &str) -> Map {
    Map::new(&[
        (1, text(AUDIENCE)),
        (2, text(host)),
        (3, text(AUDIENCE)),
        (4, uint(NOW_S + 3600)),
        (6, uint(NOW_S)),
        (7, bytes(&[1; 8])),
        (8, cnf(&public(HOST_KEY))),
        (
            9,
            scope(&[
                (&format!("v1/{host}/commands"), &["sub"]),
                (&format!("v1/{host}/reports"), &["pub"]),
            ]),
        ),
        (-70001, scope(&[(&format!("v1/{host}/+/events"), &["pub"])])),
        (-70002, uint(1)),
    ])
}

pub(crate) fn sandbox_claims() -> Map {
    sandbox_claims_of(HOST, SANDBOX)
}

pub(crate) fn sandbox_claims_of(host: &str, sandbox: &str) -> Map {
    Map::new(&[
        (1, text(host)),
        (2, text(&format!("{host}/{sandbox}"))),
        (3, text(AUDIENCE)),
        (4, uint(NOW_S + 900)),
        (6, uint(NOW_S)),
        (7, bytes(&[2; 8])),
        (8, cnf(&public(SANDBOX_KEY))),
        (
            9,
            scope(&[(&format!("v1/{host}/{sandbox}/events"), &["pub"])]),
        ),
    ])
}

pub(crate) fn cnf(key: &[u8]) -> Item {
    Map::new(&[(1, cose_key(key).into())]).into()
}

pub(crate) fn cose_key(key: &[u8]) -> Map {
    Map::new(&[(1, uint(1)), (-1, uint(6)), (-2, bytes(key))])
}

/// A scope in its byte string.
pub(crate) fn scope(entries: &[(&str, &[&str])]) -> Item {
    bytes(&entries_of(entries))
}

pub(crate) fn entries_of(entries: &[(&str, &[&str])]) -> Item {
    let entry = |(filter, permissions): &(&str, &[&str])| {
        let permissions: Vec<_> = permissions.iter().map(|one| text(one)).collect();
        array(&[text(filter), array(&permissions)])
    };
    array(&entries.iter().map(entry).collect::<Vec<_>>())
}

// Commands.

pub(crate) fn command_envelope(payload: impl Into<Item>) -> Envelope {
    Envelope::new(DISPATCHER, typ("command"), COMMANDS, payload)
}

pub(crate) fn signed_command(payload: impl Into<Item>) -> Vec<u8> {
    command_envelope(payload).seal()
}

/// A command that is good for a minute.
pub(crate) fn command(order: Item) -> Map {
    Map::new(&[
        (1, bytes(&[3; 16])),
        (2, text(HOST)),
        (3, uint(NOW_MS)),
        (4, uint(NOW_MS + 60_000)),
        (5, order),
    ])
}

pub(crate) fn stop_command() -> Map {
    command(order(2, stop()))
}

pub(crate) fn launch_command(launch: Map) -> Map {
    command(order(1, launch))
}

pub(crate) fn order(label: u64, body: impl Into<Item>) -> Item {
    array(&[uint(label), body.into()])
}

pub(crate) fn stop() -> Map {
    Map::new(&[(1, text(SANDBOX)), (2, uint(10))])
}

pub(crate) fn launch() -> Map {
    Map::new(&[
        (1, text(SANDBOX)),
        (2, text("tool:1")),
        (3, texts(&["make", "test"])),
        (4, variables(&[("LANG", "C")])),
        (5, texts(&["checkout"])),
        (6, limits().into()),
        (7, uint(1)),
    ])
}

pub(crate) fn limits() -> Map {
    let limits = [1000, 1 << 30, 256, 1 << 30, 3600];
    Map::new(&[1, 2, 3, 4, 5].map(|label: u8| (label.into(), uint(limits[usize::from(label) - 1]))))
}

pub(crate) fn texts(all: &[&str]) -> Item {
    array(&all.iter().map(|one| text(one)).collect::<Vec<_>>())
}

pub(crate) fn variables(all: &[(&str, &str)]) -> Item {
    let variable = |(name, value): &(&str, &str)| texts(&[name, value]);
    array(&all.iter().map(variable).collect::<Vec<_>>())
}

// Reports.

pub(crate) fn report_envelope(payload: impl Into<Item>) -> Envelope {
    Envelope::new(HOST_KEY, typ("report"), REPORTS, payload)
}

pub(crate) fn signed_report(payload: impl Into<Item>) -> Vec<u8> {
    report_envelope(payload).seal()
}

pub(crate) fn report(label: u64, body: impl Into<Item>) -> Map {
    Map::new(&[
        (1, text(HOST)),
        (2, uint(7)),
        (3, uint(NOW_MS)),
        (4, order(label, body)),
    ])
}

pub(crate) fn refused() -> Map {
    Map::new(&[
        (1, bytes(&[3; 16])),
        (2, text(SANDBOX)),
        (3, uint(1)),
        (4, text("images")),
    ])
}

pub(crate) fn launched() -> Map {
    Map::new(&[
        (1, bytes(&[3; 16])),
        (2, text(SANDBOX)),
        (3, bytes(&public(SANDBOX_KEY))),
        (4, text("sha256:9f86d081")),
        (5, text("0123456789ab")),
        (6, uint(1)),
    ])
}

/// What must be there, and no more.
pub(crate) fn ended() -> Map {
    Map::new(&[(2, text(SANDBOX)), (3, uint(4)), (6, text(""))])
}

pub(crate) fn stopped() -> Map {
    Map::new(&[(1, bytes(&[3; 16])), (2, text(SANDBOX))])
}

pub(crate) fn forwarded(batch: &[u8]) -> Map {
    Map::new(&[(1, text(SANDBOX)), (2, bytes(batch))])
}

pub(crate) fn status(sightings: &[Item]) -> Map {
    Map::new(&[
        (1, uint(1)),
        (2, text("0.1.0")),
        (3, bytes(&[4; 8])),
        (4, vec![TRUE]),
        (5, array(sightings)),
    ])
}

pub(crate) fn sighting(sandbox: &str, state: u64) -> Map {
    Map::new(&[(1, text(sandbox)), (2, uint(state))])
}

// The exchange.

pub(crate) fn request_envelope(payload: impl Into<Item>) -> Envelope {
    Envelope::new(HOST_KEY, typ("exchange"), EXCHANGE, payload)
}

/// An enrolment.
pub(crate) fn request() -> Map {
    Map::new(&[
        (1, bytes(&[5; 32])),
        (2, text(HOST)),
        (3, bytes(&public(HOST_KEY))),
        (4, uint(1)),
        (5, order(1, install_proof())),
    ])
}

pub(crate) fn install_proof() -> Map {
    Map::new(&[(1, bytes(&[6; 8])), (2, bytes(&[7; 32]))])
}

pub(crate) fn succession_envelope(seed: u8, payload: impl Into<Item>) -> Envelope {
    Envelope::new(seed, typ("succession"), "", payload)
}

/// From the first key to the second.
pub(crate) fn succession() -> Map {
    succession_to(2, HOST_KEY_2)
}

pub(crate) fn succession_to(generation: u64, seed: u8) -> Map {
    Map::new(&[
        (1, text(HOST)),
        (2, uint(generation)),
        (3, bytes(&public(seed))),
        (4, uint(NOW_MS)),
    ])
}

pub(crate) fn challenge() -> Map {
    Map::new(&[(1, bytes(&[5; 32])), (2, uint(NOW_MS))])
}

pub(crate) fn grant() -> Map {
    let token = bytes(&host_token(host_claims()));
    Map::new(&[(1, token), (2, uint(NOW_MS)), (3, uint(1))])
}

pub(crate) fn refusal(word: u64) -> Map {
    Map::new(&[(1, uint(word)), (2, uint(NOW_MS))])
}

/// One of everything that may be skipped.
pub(crate) fn skippable() -> Item {
    let map = Map::new(&[(0, text("é")), (-1, bytes(&[0]))]);
    array(&[
        uint(u64::MAX),
        int(i64::MIN),
        map.into(),
        vec![crate::item::FALSE],
        vec![crate::item::NULL],
    ])
}
