//! Our side and the real mosquitto, packet by packet: what one of them takes and the other refuses is known, and has its reason.
//!
//! A CONNECT is sent as it is; everything else behind a CONNECT that is welcome, with a ping behind it: taken is what leaves the ping
//! to be answered. On our side a packet of MQTT 5 goes through the gate, as from a host that is online; a CONNECT, and a packet of
//! 3.1.1, through the codec alone, since who may connect has nothing to do with what is well formed.
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

use protocol::mqtt::Version;

use case::cases;
use differences::{DIFFERENCES, Difference, TAKEN};
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
    let mut unexplained = Vec::new();
    for (version, bytes) in &cases {
        let (ours, theirs) = ask_both(&mosquitto, *version, bytes);
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
    println!("{} packets, {taken} of them taken by both", cases.len());
    for (difference, count) in DIFFERENCES.iter().zip(&counts) {
        let Difference {
            ours, theirs, why, ..
        } = difference;
        println!("{count:5}  ours: {ours}; theirs: {theirs:?}: {why}");
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
    assert!(taken > 5_000, "{taken}: the comparison compares too little");
}

fn ask_both(mosquitto: &Mosquitto, version: Version, bytes: &[u8]) -> (gate::Answer, Answer) {
    if bytes[0] >> 4 == CONNECT {
        (
            gate::decode_connect(bytes),
            mosquitto.ask_first(version, bytes),
        )
    } else {
        let ours = match version {
            Version::V5 => gate::ask(bytes),
            Version::V311 => gate::decode_old(bytes),
        };
        (ours, mosquitto.ask(version, bytes))
    }
}

/// Whether both take it, or neither. With which code it is refused is not compared: mosquitto has few.
fn is_same(ours: &gate::Answer, theirs: Answer) -> bool {
    match (ours, theirs) {
        (gate::Answer::Taken, Answer::Taken) => true,
        (gate::Answer::Refused(_), Answer::Refused(_) | Answer::Closed) => true,
        // Who waits for more and who lets go look alike from here.
        (gate::Answer::Ends, Answer::Closed) => true,
        _ => false,
    }
}

fn explains(difference: &Difference, bytes: &[u8], ours: &gate::Answer, theirs: Answer) -> bool {
    let our_words = match ours {
        gate::Answer::Taken => TAKEN,
        gate::Answer::Refused(why) => why,
        gate::Answer::Ends => return false,
    };
    difference.ours == our_words && difference.theirs == theirs && (difference.shows)(bytes)
}
