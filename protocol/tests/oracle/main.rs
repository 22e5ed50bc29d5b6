//! Our MQTT decoder beside one that shares nothing with it, mqtt-protocol-core: over thousands of packets, good and spoilt, of both
//! versions, both say the same, field by field, or the difference is known and has its reason.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    reason = "in a test a failed step is a failed test, and a copy costs nothing"
)]

mod base;
mod case;
mod differences;
mod ours;
mod outcome;
mod theirs;

use case::cases;
use differences::{DIFFERENCES, Difference, TAKEN};
use outcome::Outcome;

const KINDS: [&str; 16] = [
    "type 0",
    "CONNECT",
    "CONNACK",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "SUBACK",
    "UNSUBSCRIBE",
    "UNSUBACK",
    "PINGREQ",
    "PINGRESP",
    "DISCONNECT",
    "AUTH",
];

#[test]
fn every_difference_from_another_decoder_is_explained() {
    // Its panics are expected, one of the differences; ours would fail the test by what they say.
    std::panic::set_hook(Box::new(|_| {}));
    let cases = cases();
    let mut taken = 0;
    let mut counts = vec![0; DIFFERENCES.len()];
    let mut unexplained = Vec::new();
    for (version, bytes) in &cases {
        let ours = ours::read(*version, bytes);
        let theirs = theirs::read(*version, bytes);
        if is_same(&ours, &theirs) {
            taken += usize::from(matches!(ours, Outcome::Taken(_)));
        } else if let Some(at) = DIFFERENCES
            .iter()
            .position(|one| explains(one, bytes, &ours, &theirs))
        {
            counts[at] += 1;
        } else {
            unexplained.push(format!(
                "{version:?} {}: ours {ours:?}, theirs {theirs:?}: {bytes:02x?}",
                kind(bytes)
            ));
        }
    }
    drop(std::panic::take_hook());
    println!(
        "{} packets, {taken} of them taken by both with the same content",
        cases.len()
    );
    for (difference, count) in DIFFERENCES.iter().zip(&counts) {
        println!(
            "{count:5}  ours: {}; theirs: {}: {}",
            difference.ours, difference.theirs, difference.why
        );
    }
    let some: Vec<_> = unexplained.iter().take(20).map(String::as_str).collect();
    assert!(
        some.is_empty(),
        "{} unexplained:\n{}",
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
    assert!(
        taken > 10_000,
        "{taken}: the comparison compares too little"
    );
}

/// Whether both mean the same. Which of two faults of a packet is named first is not compared.
fn is_same(ours: &Outcome, theirs: &Outcome) -> bool {
    match (ours, theirs) {
        (Outcome::Incomplete, Outcome::Incomplete) | (Outcome::Refused(_), Outcome::Refused(_)) => {
            true
        }
        (Outcome::Taken(ours), Outcome::Taken(theirs)) => ours == theirs,
        _ => false,
    }
}

fn explains(difference: &Difference, bytes: &[u8], ours: &Outcome, theirs: &Outcome) -> bool {
    let our_words = match ours {
        Outcome::Taken(_) => TAKEN,
        Outcome::Refused(why) => why,
        Outcome::Incomplete | Outcome::Panicked => return false,
    };
    // What both take is the same or it is a fault: no difference of content is explained.
    let is_content = matches!((ours, theirs), (Outcome::Taken(_), Outcome::Taken(_)));
    !is_content
        && difference.ours == our_words
        && difference.theirs == theirs.name()
        && difference.kinds.contains(&kind(bytes))
        && (difference.shows)(bytes)
}

fn kind(bytes: &[u8]) -> &'static str {
    bytes
        .first()
        .map_or("nothing", |first| KINDS[usize::from(first >> 4)])
}
