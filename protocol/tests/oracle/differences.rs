//! Where the two decoders differ, why, and who is right by the standard. Paragraphs are MQTT 5.0's; those of 3.1.1 are named so.

/// One kind of difference.
pub(crate) struct Difference {
    /// What we make of the packet, or how we refuse it.
    pub(crate) ours: &'static str,
    /// The same of the other.
    pub(crate) theirs: &'static str,
    /// The packets where it is found.
    pub(crate) kinds: &'static [&'static str],
    /// What every such packet shows.
    pub(crate) shows: fn(&[u8]) -> bool,
    /// Who is right, and where that is written.
    pub(crate) why: &'static str,
}

const ANY: &[&str] = &[
    "CONNECT",
    "PUBLISH",
    "PUBACK",
    "PUBREC",
    "PUBREL",
    "PUBCOMP",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "PINGREQ",
    "DISCONNECT",
    "AUTH",
];

/// All of them.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        ours: "reserved flags of the fixed header set wrongly",
        theirs: TAKEN,
        kinds: ANY,
        shows: |bytes| {
            bytes[0] & 0x0f
                != if matches!(bytes[0] >> 4, 6 | 8 | 10) {
                    2
                } else {
                    0
                }
        },
        why: "it does not look at them; §2.1.3 [MQTT-2.1.3-1] and 3.1.1 §2.2.2 close the connection",
    },
    Difference {
        ours: "length not in its shortest form",
        theirs: TAKEN,
        kinds: ANY,
        shows: |bytes| has(bytes, |pair| pair[0] >= 0x80 && pair[1] & 0x7f == 0),
        why: "it takes any form; §1.5.5 [MQTT-1.5.5-1] wants the shortest",
    },
    Difference {
        ours: "text with bytes that are not allowed",
        theirs: TAKEN,
        kinds: &[
            "CONNECT",
            "PUBLISH",
            "PUBACK",
            "PUBREC",
            "PUBREL",
            "PUBCOMP",
            "SUBSCRIBE",
            "UNSUBSCRIBE",
            "DISCONNECT",
            "AUTH",
        ],
        shows: |bytes| {
            bytes[1..]
                .iter()
                .any(|byte| *byte < 0x20 || *byte == 0x7f || *byte >= 0xc2)
        },
        why: "it wants UTF-8 only; U+0000 is malformed by §1.5.4 [MQTT-1.5.4-2] and 3.1.1 §1.5.3, the other control characters and the \
              non-characters may be refused by the same paragraphs, and we do",
    },
    Difference {
        ours: "QoS 3",
        theirs: TAKEN,
        kinds: &["CONNECT"],
        shows: |bytes| connect_flags(bytes) & 0x1c == 0x1c,
        why: "a will of QoS 3, which it reads as 0; §3.1.2.6 [MQTT-3.1.2-12] and 3.1.1 §3.1.2.6 forbid it",
    },
    Difference {
        ours: "connect flags not allowed",
        theirs: TAKEN,
        kinds: &["CONNECT"],
        shows: |bytes| {
            let flags = connect_flags(bytes);
            let lonely_password = bytes[8] == 4 && flags & 0xc0 == 0x40;
            flags & 1 != 0 || flags & 4 == 0 && flags & 0x38 != 0 || lonely_password
        },
        why: "it takes the reserved bit and a will's flags without a will; §3.1.2.3 [MQTT-3.1.2-3], §3.1.2.6 [-11] and §3.1.2.7 [-13] \
              and the same of 3.1.1 forbid them",
    },
    Difference {
        ours: "wildcard in a topic name",
        theirs: TAKEN,
        kinds: &["CONNECT", "PUBLISH"],
        shows: |bytes| bytes.iter().any(|byte| matches!(byte, b'+' | b'#')),
        why: "it looks at no topic; §3.3.2.1 [MQTT-3.3.2-2], §3.3.2.3.5 [MQTT-3.3.2-14] and 3.1.1 §3.3.2.1 allow none",
    },
    Difference {
        ours: "empty topic",
        theirs: TAKEN,
        kinds: &["CONNECT", "PUBLISH"],
        shows: |bytes| has(bytes, |pair| pair == [0, 0]),
        why: "it leaves that to its connection, or to nobody (a Response Topic, 3.1.1); §4.7.3 [MQTT-4.7.3-1] and 3.1.1 §4.7.3 want \
              one character at least, unless an alias stands for it",
    },
    Difference {
        ours: "duplicate flag on QoS 0",
        theirs: TAKEN,
        kinds: &["PUBLISH"],
        shows: |bytes| bytes[0] & 0x0e == 0x08,
        why: "§3.3.1.1 [MQTT-3.3.1-2] and 3.1.1 §3.3.1.1 forbid it",
    },
    Difference {
        ours: "packet identifier zero",
        theirs: TAKEN,
        kinds: &["PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"],
        shows: |bytes| has(bytes, |pair| pair == [0, 0]),
        why: "§2.2.1 [MQTT-2.2.1-3], [-4] and 3.1.1 §2.3.1 want another",
    },
    Difference {
        ours: "bytes behind the last field",
        theirs: TAKEN,
        kinds: &["PUBACK", "PUBREC", "PUBREL", "PUBCOMP"],
        shows: |bytes| bytes[1] > 2,
        why: "it reads MQTT 5's reason code in 3.1.1, whose §3.4 to §3.7 have a remaining length of 2",
    },
    Difference {
        ours: "reserved subscription options set",
        theirs: TAKEN,
        kinds: &["SUBSCRIBE"],
        shows: |bytes| bytes.iter().any(|byte| *byte & 0xfc != 0),
        why: "it reads MQTT 5's options in 3.1.1, whose §3.8.3 [MQTT-3-8.3-4] reserves six bits",
    },
    Difference {
        ours: "topic filter not valid",
        theirs: TAKEN,
        kinds: &["SUBSCRIBE", "UNSUBSCRIBE"],
        shows: |bytes| {
            bytes.iter().any(|byte| matches!(byte, b'+' | b'#'))
                || has(bytes, |pair| pair == [0, 0])
        },
        why: "it looks at no filter but a shared one; §4.7.1 [MQTT-4.7.1-1], [-2], §4.7.3 and the same of 3.1.1 say where a wildcard \
              may stand, and that a filter is not empty",
    },
    Difference {
        ours: "reason code not allowed here",
        theirs: TAKEN,
        kinds: &["AUTH"],
        shows: |bytes| bytes[1] == 0 || bytes[2] == 0,
        why: "success, from a client; by §3.15.2.1 only a server says it",
    },
    Difference {
        ours: "authentication data without a method",
        theirs: TAKEN,
        kinds: &["CONNECT"],
        shows: |bytes| bytes.contains(&0x16),
        why: "§3.1.2.11.10 forbids it",
    },
    Difference {
        ours: "too many user properties",
        theirs: TAKEN,
        kinds: &[
            "CONNECT",
            "PUBLISH",
            "PUBACK",
            "PUBREC",
            "PUBREL",
            "PUBCOMP",
            "SUBSCRIBE",
            "UNSUBSCRIBE",
            "DISCONNECT",
        ],
        shows: |bytes| bytes.iter().filter(|byte| **byte == 0x26).count() > 8,
        why: "a bound of ours (SPEC.md 2.3): the standard has none",
    },
    Difference {
        ours: "property not allowed here",
        theirs: TAKEN,
        kinds: &["DISCONNECT"],
        shows: |bytes| bytes.contains(&0x1c),
        why: "a Server Reference, from a client; §3.14.2.2.5 gives it to the server",
    },
    Difference {
        ours: "packet ends inside a field",
        theirs: TAKEN,
        kinds: &["PUBLISH"],
        shows: |bytes| {
            usize::from(bytes[3]) + 2 + if bytes[0] & 6 == 0 { 0 } else { 2 }
                == usize::from(bytes[1])
        },
        why: "no Property Length; §3.3.2.3.1 wants one, of zero if there are none",
    },
    Difference {
        ours: "subscription identifier from a client",
        theirs: TAKEN,
        kinds: &["PUBLISH"],
        shows: |bytes| bytes.contains(&0x0b),
        why: "§3.3.4 [MQTT-3.3.4-6] forbids it",
    },
    Difference {
        ours: "no-local on a shared subscription",
        theirs: TAKEN,
        kinds: &["SUBSCRIBE"],
        shows: |bytes| holds(bytes, b"$share/"),
        why: "§3.8.3.1 [MQTT-3.8.3-4] forbids it",
    },
    Difference {
        ours: "property given twice",
        theirs: TAKEN,
        kinds: &["SUBSCRIBE"],
        shows: |bytes| bytes.iter().filter(|byte| **byte == 0x0b).count() > 1,
        why: "two Subscription Identifiers; §3.8.2.1.2 forbids that",
    },
    Difference {
        ours: TAKEN,
        theirs: "refused: ProtocolError",
        kinds: &["CONNECT"],
        shows: |bytes| connect_flags(bytes) & 0xc0 == 0x40,
        why: "a password without a user name, which MQTT 5 allows (§3.1.2.9) and 3.1.1 does not",
    },
    Difference {
        ours: TAKEN,
        theirs: "refused: MalformedPacket",
        kinds: &["SUBSCRIBE"],
        shows: |bytes| holds(bytes, b"$share"),
        why: "a share name with a wildcard in it, or no filter behind it (§4.8.2 [MQTT-4.8.2-1], [-2]); we leave shared subscriptions \
              to the gate, which grants none, whatever their form",
    },
    Difference {
        ours: TAKEN,
        theirs: "panics",
        kinds: &["CONNECT"],
        shows: |bytes| holds(bytes, &[0x22, 0, 0]),
        why: "a Topic Alias Maximum of 0, which §3.1.2.11.5 allows; it makes a table of no entries, and panics",
    },
];

/// It takes the packet.
pub(crate) const TAKEN: &str = "taken";

fn has(bytes: &[u8], is: impl Fn([u8; 2]) -> bool) -> bool {
    bytes.windows(2).any(|pair| is([pair[0], pair[1]]))
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Behind a remaining length of any form, the protocol's name and its level.
fn connect_flags(bytes: &[u8]) -> u8 {
    let name = bytes.windows(4).position(|window| window == b"MQTT");
    bytes[name.unwrap() + 5]
}
