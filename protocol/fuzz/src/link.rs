//! What must hold of every MQTT packet from either side of a link.

use std::fmt::Debug;

use protocol::{
    limits::{PACKET_BYTES_BEFORE_AUTH_MAX, PACKET_BYTES_MAX},
    mqtt::{DecodeError, EncodeError, Frame, MessageProperties, UserProperties, Version, frame},
};

use crate::{input::Input, quiet};

/// The packets of one side.
pub trait Side {
    /// A packet.
    type Packet<'a>: Copy + PartialEq + Debug;

    /// Decodes one.
    fn decode<'a>(frame: &Frame<'a>, version: Version) -> Result<Self::Packet<'a>, DecodeError>;
    /// Writes it again.
    fn encode(
        packet: &Self::Packet<'_>,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError>;
    /// Whether the link has more room from here on: it is authenticated.
    fn opens_link(packet: &Self::Packet<'_>) -> bool;
    /// The same packet with other secrets and another payload of the same length, taken from `other`.
    fn with_other_secrets<'a>(packet: Self::Packet<'a>, other: &'a [u8]) -> Self::Packet<'a>;
    /// Its texts.
    fn texts<'a>(packet: &Self::Packet<'a>) -> Vec<&'a str>;
}

/// Reads packets from the front of the input until one is refused or incomplete, as our ends of a link do.
pub fn read<S: Side>(data: &[u8]) {
    let mut input = Input::new(data);
    let (version, mut bytes_max) = match input.byte() % 4 {
        0 => (Version::V5, PACKET_BYTES_BEFORE_AUTH_MAX),
        1 => (Version::V5, PACKET_BYTES_MAX),
        2 => (Version::V311, PACKET_BYTES_BEFORE_AUTH_MAX),
        _ => (Version::V311, PACKET_BYTES_MAX),
    };
    let mut buffer = input.rest();
    loop {
        let found = match frame(buffer, bytes_max) {
            Ok(Some(found)) => found,
            Ok(None) => return assert!(buffer.len() < bytes_max, "a full buffer says yes or no"),
            Err(error) => return refused(error),
        };
        let (whole, rest) = buffer.split_at(found.total_bytes());
        check_frame(whole, &found, bytes_max);
        match S::decode(&found, version) {
            Ok(packet) => {
                check_packet::<S>(whole, version);
                if S::opens_link(&packet) {
                    bytes_max = PACKET_BYTES_MAX;
                }
            }
            Err(error) => return refused(error),
        }
        buffer = rest;
    }
}

fn refused(error: DecodeError) {
    quiet::check(error);
    assert!(error.reason().is_error());
}

/// A frame is found once it is whole, is within the limit, and does not depend on what comes behind.
fn check_frame(whole: &[u8], found: &Frame<'_>, bytes_max: usize) {
    assert!(whole.len() <= bytes_max);
    assert_eq!(frame(whole, bytes_max), Ok(Some(*found)));
    assert_eq!(frame(&whole[..whole.len() - 1], bytes_max), Ok(None));
    assert!(frame(whole, whole.len() - 1).is_err());
}

/// The packet that fills `whole` was taken, so it can be written, is then taken again as the same, and is written alike.
fn check_packet<S: Side>(whole: &[u8], version: Version) {
    // MQTT 3.1.1 allows a length in a longer form than it needs.
    assert!(version == Version::V311 || has_shortest_length(whole));
    let again = encoded::<S>(whole, version);
    let other = vec![0; whole.len()];
    let packet = decoded::<S>(whole, version);
    for text in S::texts(&packet) {
        assert!(text.chars().all(is_allowed));
        let (inner, outer) = (text.as_bytes().as_ptr_range(), whole.as_ptr_range());
        assert!(
            outer.start <= inner.start && inner.end <= outer.end,
            "borrowed"
        );
    }
    assert_eq!(
        format!("{packet:?}"),
        format!("{:?}", S::with_other_secrets(packet, &other)),
        "no secret is shown"
    );
    // A DISCONNECT of one byte is written with an empty list of properties behind it.
    assert!(again.len() <= whole.len() + 1);
    assert!(decoded::<S>(&again, version) == packet, "it says the same");
    assert_eq!(encoded::<S>(&again, version), again);
}

/// The packet that is all of `whole`, of which we know that it is good.
fn decoded<S: Side>(whole: &[u8], version: Version) -> S::Packet<'_> {
    let found = frame(whole, whole.len());
    let found = found.ok().flatten().expect("a whole packet is found");
    assert_eq!(found.total_bytes(), whole.len());
    S::decode(&found, version).unwrap_or_else(|error| panic!("a good packet is taken: {error}"))
}

fn encoded<S: Side>(whole: &[u8], version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    S::encode(&decoded::<S>(whole, version), version, &mut out)
        .expect("what was read can be written");
    out
}

/// MQTT 5.0 §1.5.5: the last byte of a length adds something, unless it is the only one.
fn has_shortest_length(whole: &[u8]) -> bool {
    let length = whole[1..].iter().position(|byte| *byte < 0x80);
    length.is_some_and(|last| last == 0 || whole[1 + last] != 0)
}

/// MQTT 5.0 §1.5.4, with what it only advises against.
fn is_allowed(c: char) -> bool {
    let code = u32::from(c);
    let is_none = (0xfdd0..=0xfdef).contains(&code) || code & 0xffff >= 0xfffe;
    !(is_none || code < 0x20 || (0x7f..0xa0).contains(&code))
}

/// The texts of user properties.
pub fn pairs<'a>(properties: &UserProperties<'a>) -> Vec<&'a str> {
    properties
        .iter()
        .flat_map(|(name, value)| [name, value])
        .collect()
}

/// The texts of a message's properties.
pub fn message_texts<'a>(properties: &MessageProperties<'a>) -> Vec<&'a str> {
    let alone = [properties.content_type, properties.response_topic];
    let alone = alone.into_iter().flatten();
    alone.chain(pairs(&properties.user_properties)).collect()
}

/// As many bytes of `other` as `secret` has.
pub fn swapped<'a>(secret: &[u8], other: &'a [u8]) -> &'a [u8] {
    &other[..secret.len()]
}
