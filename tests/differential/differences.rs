//! What our side and mosquitto 2.0.11 disagree about, and why. Paragraphs are MQTT 5.0's; those of 3.1.1 are named so.

use crate::mosquitto::Answer;

/// One kind of difference.
pub(crate) struct Difference {
    /// Why we refuse it; `taken` if we do not.
    pub(crate) ours: &'static str,
    /// What mosquitto does with it.
    pub(crate) theirs: Answer,
    /// What every such packet shows.
    pub(crate) shows: fn(&[u8]) -> bool,
    /// Who is right, and where that is written.
    pub(crate) why: &'static str,
}

/// Packets that mosquitto takes and we do not.
const fn stricter(ours: &'static str, shows: fn(&[u8]) -> bool, why: &'static str) -> Difference {
    Difference {
        ours,
        theirs: Answer::Taken,
        shows,
        why,
    }
}

/// Packets that we take and mosquitto does not.
const fn laxer(theirs: Answer, shows: fn(&[u8]) -> bool, why: &'static str) -> Difference {
    Difference {
        ours: TAKEN,
        theirs,
        shows,
        why,
    }
}

/// We take it.
pub(crate) const TAKEN: &str = "taken";

/// All of them.
pub(crate) const DIFFERENCES: &[Difference] = &[
    // What mosquitto is lenient about.
    stricter(
        "reserved flags of the fixed header set wrongly",
        |bytes| {
            bytes[0] & 0x0f
                != if matches!(bytes[0] >> 4, 6 | 8 | 10) {
                    2
                } else {
                    0
                }
        },
        "it looks at the flags of some packets only; §2.1.3 [MQTT-2.1.3-1] and 3.1.1 §2.2.2 close the connection for all",
    ),
    stricter(
        "bytes behind the last field",
        |bytes| matches!(bytes[0] >> 4, 4..=7 | 12),
        "it reads acknowledgements and pings from the front and leaves the rest; by §3.4 to §3.7, §3.12 and the same of 3.1.1 there is \
         no rest",
    ),
    stricter(
        "packet sent by the wrong side",
        |bytes| matches!(bytes[0] >> 4, 9 | 11 | 13),
        "it ignores what only a server sends; §2.1.2 and 3.1.1 §2.2.1 give the direction, and a protocol error ends the connection",
    ),
    stricter(
        "length not in its shortest form",
        |bytes| {
            bytes
                .windows(2)
                .any(|pair| pair[0] >= 0x80 && pair[1] & 0x7f == 0)
        },
        "it takes any form; §1.5.5 [MQTT-1.5.5-1] wants the shortest",
    ),
    stricter(
        "duplicate flag on QoS 0",
        |bytes| bytes[0] & 0x0e == 0x08,
        "§3.3.1.1 [MQTT-3.3.1-2] and 3.1.1 §3.3.1.1 forbid it",
    ),
    stricter(
        "reason code not allowed here",
        |bytes| matches!(bytes[0] >> 4, 4..=7),
        "it takes any number in an acknowledgement; §3.4.2.1, §3.5.2.1, §3.6.2.1 and §3.7.2.1 list the codes",
    ),
    stricter(
        "authentication data without a method",
        |bytes| bytes.contains(&0x16),
        "§3.1.2.11.10 forbids it",
    ),
    stricter(
        "property with a value that is not allowed",
        |bytes| {
            bytes
                .windows(2)
                .any(|pair| matches!(pair[0], 0x01 | 0x17 | 0x19) && pair[1] > 1)
        },
        "it takes any byte as a Payload Format Indicator; §3.3.2.3.2 knows 0 and 1",
    ),
    stricter(
        "subscription identifier from a client",
        |bytes| bytes.contains(&0x0b),
        "§3.3.4 [MQTT-3.3.4-6] forbids it",
    ),
    stricter(
        "wildcard in a topic name",
        |bytes| bytes.iter().any(|byte| matches!(byte, b'+' | b'#')),
        "in a Response Topic, which it does not look at; §3.3.2.3.5 [MQTT-3.3.2-14] forbids it",
    ),
    stricter(
        "empty topic",
        |bytes| bytes.windows(3).any(|three| three == [0x08, 0, 0]),
        "a Response Topic again; §4.7.3 [MQTT-4.7.3-1] wants one character at least",
    ),
    stricter(
        "no-local on a shared subscription",
        |bytes| bytes.windows(7).any(|seven| seven == b"$share/"),
        "§3.8.3.1 [MQTT-3.8.3-4] forbids it",
    ),
    stricter(
        "topic filter not valid",
        |bytes| bytes[0] == 0x82 && bytes.ends_with(&[0, 0]),
        "empty filters behind a good one, which it passes over; §4.7.3 [MQTT-4.7.3-1] and 3.1.1 §4.7.3 allow none",
    ),
    stricter(
        "packet ends inside a field",
        |bytes| bytes[0] == 0x82 && bytes.ends_with(&[0, 0]),
        "the same, and then no options: §3.8.3 and 3.1.1 §3.8.3 want them",
    ),
    stricter(
        "unsupported protocol version",
        |bytes| bytes[8] == 0x84,
        "level 4 with the highest bit, by which mosquitto knows another mosquitto as a bridge; no standard has it",
    ),
    // What Outhaul does not offer, and says so in its CONNACK or in SPEC.md 2.3.
    stricter(
        "too many user properties",
        |bytes| bytes.iter().filter(|byte| **byte == 0x26).count() > 8,
        "a bound of ours (SPEC.md 2.3): the standard has none",
    ),
    stricter(
        "QoS 2",
        |bytes| bytes[0] & 0xf6 == 0x34,
        "the CONNACK says Maximum QoS 1 (§3.2.2.3.4): the answer is 0x9B",
    ),
    stricter(
        "a step of QoS 2",
        |bytes| matches!(bytes[0] >> 4, 5..=7),
        "of an exchange that never began; mosquitto lets it pass, we have no QoS 2 at all",
    ),
    stricter(
        "a retained message",
        |bytes| bytes[0] & 0xf1 == 0x31,
        "the CONNACK says Retain Available 0 (§3.2.2.3.5): the answer is 0x9A",
    ),
    stricter(
        "a topic alias",
        |bytes| bytes.contains(&0x23),
        "the CONNACK has no Topic Alias Maximum, which means none (§3.2.2.3.8); mosquitto grants 10",
    ),
    stricter(
        "a subscription identifier",
        |bytes| bytes.contains(&0x0b),
        "the CONNACK says Subscription Identifiers Available 0 (§3.2.2.3.12): the answer is 0xA1",
    ),
    stricter(
        "not a topic name",
        |bytes| bytes[0] >> 4 == 3,
        "our topics are a closed grammar of printable ASCII (SPEC.md 2.2): the answer is 0x90",
    ),
    stricter(
        "asks for what it may not",
        |bytes| bytes[0] >> 4 == 3,
        "a topic of somebody else at QoS 0, or over MQTT 3.1.1, where no PUBACK could say so; this mosquitto has no access control",
    ),
    // What our codec leaves to the gate.
    laxer(
        Answer::Refused(0x8c),
        |bytes| bytes.contains(&0x15),
        "an Authentication Method: mosquitto has none without a plugin, ours is `ace`, and the gate refuses all others with 0x8C too",
    ),
    laxer(
        Answer::Refused(2),
        |bytes| bytes[8] == 4 && bytes[9] & 2 == 0 && bytes[12..14] == [0, 0],
        "3.1.1 §3.1.3.1 [MQTT-3.1.3-8]: no client id and no clean session; the gate takes no empty client id at all",
    ),
    laxer(
        Answer::Closed,
        |bytes| bytes.windows(5).any(|five| five == [0x27, 0, 0, 0, 1]),
        "a Maximum Packet Size of 1, which no CONNACK fits; §3.1.2.11.4 allows it, and the gate refuses less than 256 with 0x95",
    ),
];

/// Where both say why they refuse, and say it with another code.
pub(crate) struct Code {
    /// Our code, and our words for it.
    ours: (u8, &'static [&'static str]),
    theirs: u8,
    /// Who is right, and where that is written.
    pub(crate) why: &'static str,
}

impl Code {
    /// Whether this is the pair.
    pub(crate) fn is(&self, words: &str, ours: u8, theirs: u8) -> bool {
        (self.ours.0, self.theirs) == (ours, theirs) && self.ours.1.contains(&words)
    }
}

const fn code(ours: u8, words: &'static [&'static str], theirs: u8, why: &'static str) -> Code {
    Code {
        ours: (ours, words),
        theirs,
        why,
    }
}

/// All of them.
pub(crate) const CODES: &[Code] = &[
    code(
        0x81,
        &[
            "bytes behind the last field",
            "length not in its shortest form",
            "property not allowed here",
            "reserved flags of the fixed header set wrongly",
            "unknown packet type",
        ],
        0x82,
        "bytes that fit no rule of the form are a malformed packet (§1.2, §2.2.2.2); it says protocol error, as §4.13.1 lets it when it \
         does not tell the two apart",
    ),
    code(
        0x82,
        &[
            "duplicate flag on QoS 0",
            "empty topic",
            "no topic filter",
            "packet identifier zero",
            "property given twice",
            "property with a value that is not allowed",
            "subscription identifier from a client",
            "subscription identifier zero",
            "subscription options not allowed",
        ],
        0x81,
        "well formed, and forbidden: a protocol error, by that word in §2.2.2.2, §3.3.2.1, §3.3.4, §3.8.2.1.2, §3.8.3 and §3.8.3.1; it \
         says malformed packet",
    ),
    code(
        0x81,
        &["length not in its shortest form"],
        0x8c,
        "in a CONNECT with an Authentication Method, which it looks at first",
    ),
    code(
        0x84,
        &["unsupported protocol version"],
        0x01,
        "it answers what it does not know in the form of 3.1.1; §3.1.2.2 of the newer one has 0x84 for it",
    ),
    code(
        0x8f,
        &["topic filter not valid"],
        0x81,
        "the filter's own code (§3.14.2.1), since the packet is well formed",
    ),
    code(
        0x90,
        &["wildcard in a topic name"],
        0x82,
        "the topic name's own code (§3.14.2.1)",
    ),
    code(
        0x94,
        &["a topic alias"],
        0x82,
        "an alias that names nothing yet: §3.3.2.3.4 has 0x94 for one that is not taken, and the CONNACK takes none",
    ),
    code(
        0x94,
        &["topic alias zero"],
        0x81,
        "§3.3.2.3.4 [MQTT-3.3.2-8] forbids it; its own code says what is wrong",
    ),
    code(
        0x95,
        &["too many user properties"],
        0x82,
        "a bound of ours, met before the alias that names nothing, which it refuses",
    ),
    code(
        0x9a,
        &["a retained message"],
        0x82,
        "retained, and by an alias that names nothing: two faults, and each sees the other first",
    ),
    code(
        0x9a,
        &["a retained message"],
        0x94,
        "the same, with an alias past its ten",
    ),
    code(
        0x9b,
        &["QoS 2"],
        0x94,
        "at QoS 2, with an alias past its ten",
    ),
];
