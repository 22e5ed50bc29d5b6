//! Our side and the real mosquitto, packet by packet: what one of them takes and the other refuses is known, and has its reason.
//!
//! A CONNECT is sent as it is; everything else behind a CONNECT that is welcome, with a ping behind it: taken is what leaves the ping
//! to be answered. On our side it goes through the gate: as from a load test that is online with a password, in both versions, and in
//! MQTT 5 as from a host too. A CONNECT goes through the codec alone, since who may connect has nothing to do with what is well formed.
//! Where both say why they refuse, their codes are compared.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test a failed step is a failed test"
)]

// The packets are those that the codec is held against mqtt-protocol-core with.
#[path = "../../protocol/tests/oracle/base.rs"]
mod base;
#[path = "../../protocol/tests/oracle/case.rs"]
mod case;
mod differences;
mod gate;
mod mosquitto;

use std::collections::BTreeMap;

use protocol::mqtt::Version;

use case::cases;
use differences::{CODES, DIFFERENCES, Difference, TAKEN};
use gate::Peer;
use mosquitto::{Answer, Mosquitto};

const CONNECT: u8 = 1;

#[test]
fn every_difference_from_mosquitto_is_explained() {
    let version = Mosquitto::version();
    println!("{version}");
    let mosquitto = Mosquitto::start();
    let mut cases = cases();
    cases.retain(|(_, bytes)| !bytes.is_empty());
    let mut taken = 0;
    let mut counts = vec![0; DIFFERENCES.len()];
    let mut codes = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (version, bytes) in &cases {
        let theirs = ask_mosquitto(&mosquitto, *version, bytes);
        for ours in ask_us(*version, bytes) {
            if let (gate::Answer::Refused(why, Some(code)), Answer::Refused(their_code)) =
                (&ours, theirs)
                && *code != their_code
            {
                let key = (why.clone(), *code, their_code);
                codes.entry(key).or_insert((0, bytes)).0 += 1;
            }
            if is_same(&ours, theirs) {
                taken += usize::from(theirs == Answer::Taken);
            } else if let Some(at) = DIFFERENCES
                .iter()
                .position(|one| explains(one, bytes, &ours, theirs))
            {
                counts[at] += 1;
            } else {
                unexplained.push(format!(
                    "{version:?}: ours {ours:?}, theirs {theirs:?}: {bytes:02x?}"
                ));
            }
        }
    }
    println!("{} packets, {taken} answers the same: taken", cases.len());
    for (difference, count) in DIFFERENCES.iter().zip(&counts) {
        let Difference {
            ours, theirs, why, ..
        } = difference;
        println!("{count:5}  ours: {ours}; theirs: {theirs:?}: {why}");
    }
    for ((why, ours, theirs), (count, bytes)) in &codes {
        let known = CODES.iter().find(|code| code.is(why, *ours, *theirs));
        let reason = known.map_or("unexplained", |code| code.why);
        println!("{count:5}  ours: {ours:#04x}, {why}; theirs: {theirs:#04x}: {reason}");
        if known.is_none() {
            unexplained.push(format!(
                "ours {ours:#04x}, {why}, theirs {theirs:#04x}: {bytes:02x?}"
            ));
        }
    }
    let some: Vec<_> = unexplained.iter().take(20).map(String::as_str).collect();
    assert!(
        some.is_empty(),
        "{} unexplained, by {version}; the table is for 2.0.11:\n{}",
        unexplained.len(),
        some.join("\n")
    );
    for (difference, count) in DIFFERENCES.iter().zip(&counts) {
        assert!(
            *count > 0,
            "no packet shows this any more: {}",
            difference.why
        );
    }
    for code in CODES {
        let mut shown = codes.keys();
        let is_shown = shown.any(|(why, ours, theirs)| code.is(why, *ours, *theirs));
        assert!(
            is_shown,
            "no packet shows these codes any more: {}",
            code.why
        );
    }
    assert!(taken > 5_000, "{taken}: the comparison compares too little");
}

/// What each of our clients is answered.
fn ask_us(version: Version, bytes: &[u8]) -> Vec<gate::Answer> {
    match version {
        _ if bytes[0] >> 4 == CONNECT => vec![gate::decode_connect(bytes)],
        Version::V5 => [Peer::Host, Peer::Bench]
            .map(|peer| gate::ask(peer, version, bytes))
            .into(),
        Version::V311 => vec![gate::ask(Peer::Bench, version, bytes)],
    }
}

fn ask_mosquitto(mosquitto: &Mosquitto, version: Version, bytes: &[u8]) -> Answer {
    if bytes[0] >> 4 == CONNECT {
        mosquitto.ask_first(version, bytes)
    } else {
        mosquitto.ask(version, bytes)
    }
}

/// Whether both take it, or neither.
fn is_same(ours: &gate::Answer, theirs: Answer) -> bool {
    match (ours, theirs) {
        (gate::Answer::Taken, Answer::Taken) => true,
        (gate::Answer::Refused(..), Answer::Refused(_) | Answer::Closed) => true,
        // Who waits for more and who lets go look alike from here.
        (gate::Answer::Ends, Answer::Closed) => true,
        _ => false,
    }
}

fn explains(difference: &Difference, bytes: &[u8], ours: &gate::Answer, theirs: Answer) -> bool {
    let our_words = match ours {
        gate::Answer::Taken => TAKEN,
        gate::Answer::Refused(why, _) => why,
        gate::Answer::Ends => return false,
    };
    difference.ours == our_words && difference.theirs == theirs && (difference.shows)(bytes)
}
