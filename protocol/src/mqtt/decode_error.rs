//! Why a packet is refused: always the peer's fault, and never with a word of what the peer sent.

use super::reason::ReasonCode;

/// What is wrong with the bytes a peer sent. One byte, no content; [`DecodeError::reason`] is what to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The packet is larger than we take, by what its header declares.
    #[error("packet too large")]
    TooLarge,
    /// A variable byte integer goes on past four bytes (MQTT 5.0 §1.5.5).
    #[error("length longer than four bytes")]
    LengthMalformed,
    /// A variable byte integer takes more bytes than it needs (MQTT 5.0 §1.5.5; MQTT 3.1.1 allows it).
    #[error("length not in its shortest form")]
    LengthNotMinimal,
    /// Packet type 0, or AUTH in MQTT 3.1.1 (MQTT 5.0 §2.1.2).
    #[error("unknown packet type")]
    UnknownPacket,
    /// The flags beside the packet type are not those of this type (MQTT 5.0 §2.1.3).
    #[error("reserved flags of the fixed header set wrongly")]
    ReservedFlags,
    /// A packet that only the other side may send (MQTT 5.0 §2.1.2).
    #[error("packet sent by the wrong side")]
    WrongDirection,
    /// A field reaches past the end of its packet, or a property past the end of its section.
    #[error("packet ends inside a field")]
    Truncated,
    /// Bytes are left over behind the last field.
    #[error("bytes behind the last field")]
    TrailingBytes,
    /// A text is not UTF-8, or holds a control character or a non-character (MQTT 5.0 §1.5.4).
    #[error("text with bytes that are not allowed")]
    BadText,
    /// A packet identifier of zero (MQTT 5.0 §2.2.1).
    #[error("packet identifier zero")]
    PacketIdZero,
    /// A property that does not exist, or not in this packet (MQTT 5.0 §2.2.2.2).
    #[error("property not allowed here")]
    PropertyNotAllowed,
    /// A property twice that may be there once (MQTT 5.0 §2.2.2.2).
    #[error("property given twice")]
    PropertyTwice,
    /// A property with a value that it may not have.
    #[error("property with a value that is not allowed")]
    PropertyValue,
    /// More user properties than [`USER_PROPERTIES_MAX`](super::USER_PROPERTIES_MAX).
    #[error("too many user properties")]
    TooManyUserProperties,
    /// A reason code that this packet may not carry from this side (MQTT 5.0 §2.4).
    #[error("reason code not allowed here")]
    ReasonNotAllowed,
    /// CONNECT for a protocol that is neither MQTT 5.0 nor 3.1.1 (MQTT 5.0 §3.1.2.2).
    #[error("unsupported protocol version")]
    UnsupportedVersion,
    /// CONNECT or CONNACK flags that contradict each other or are reserved (MQTT 5.0 §3.1.2.3, §3.2.2.1).
    #[error("connect flags not allowed")]
    ConnectFlags,
    /// Receive Maximum of zero (MQTT 5.0 §3.1.2.11.3).
    #[error("receive maximum zero")]
    ReceiveMaximumZero,
    /// Maximum Packet Size of zero (MQTT 5.0 §3.1.2.11.4).
    #[error("maximum packet size zero")]
    PacketMaximumZero,
    /// Authentication data without a method (MQTT 5.0 §3.1.2.11.10).
    #[error("authentication data without a method")]
    AuthDataWithoutMethod,
    /// AUTH without an authentication method (MQTT 5.0 §3.15.2.2.2).
    #[error("authentication method missing")]
    AuthMethodMissing,
    /// QoS 3, which does not exist (MQTT 5.0 §3.3.1.2).
    #[error("QoS 3")]
    QosThree,
    /// The DUP flag on a message that is never sent twice (MQTT 5.0 §3.3.1.1).
    #[error("duplicate flag on QoS 0")]
    DupOnQosZero,
    /// A topic of no characters, and no alias to stand for it (MQTT 5.0 §3.3.2.1, §4.7.3).
    #[error("empty topic")]
    TopicEmpty,
    /// A topic name with a wildcard in it (MQTT 5.0 §3.3.2.1).
    #[error("wildcard in a topic name")]
    TopicWildcard,
    /// Topic alias zero (MQTT 5.0 §3.3.2.3.4).
    #[error("topic alias zero")]
    TopicAliasZero,
    /// A client's PUBLISH with a subscription identifier (MQTT 5.0 §3.3.4).
    #[error("subscription identifier from a client")]
    SubscriptionIdFromClient,
    /// A subscription identifier of zero (MQTT 5.0 §3.8.2.1.2).
    #[error("subscription identifier zero")]
    SubscriptionIdZero,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter, or their answer without a code (MQTT 5.0 §3.8.3).
    #[error("no topic filter")]
    NoFilters,
    /// An empty filter, or one with a wildcard that is not a level by itself (MQTT 5.0 §4.7.1).
    #[error("topic filter not valid")]
    FilterInvalid,
    /// Reserved bits in the options of a subscription (MQTT 5.0 §3.8.3.1).
    #[error("reserved subscription options set")]
    SubscriptionReserved,
    /// QoS 3 or retain handling 3 in the options of a subscription (MQTT 5.0 §3.8.3.1).
    #[error("subscription options not allowed")]
    SubscriptionOptions,
    /// No Local on a shared subscription (MQTT 5.0 §3.8.3.1).
    #[error("no-local on a shared subscription")]
    NoLocalOnShared,
}

impl DecodeError {
    /// The MQTT 5 reason code to answer with, in a CONNACK before the link is up and in a DISCONNECT after
    /// (MQTT 5.0 §4.13). Over MQTT 3.1.1 the answer is a closed connection.
    pub const fn reason(self) -> ReasonCode {
        match self {
            Self::LengthMalformed
            | Self::LengthNotMinimal
            | Self::UnknownPacket
            | Self::ReservedFlags
            | Self::Truncated
            | Self::TrailingBytes
            | Self::BadText
            | Self::PropertyNotAllowed
            | Self::ConnectFlags
            | Self::QosThree
            | Self::SubscriptionReserved => ReasonCode::MALFORMED_PACKET,
            Self::WrongDirection
            | Self::PacketIdZero
            | Self::PropertyTwice
            | Self::PropertyValue
            | Self::ReasonNotAllowed
            | Self::ReceiveMaximumZero
            | Self::PacketMaximumZero
            | Self::AuthDataWithoutMethod
            | Self::AuthMethodMissing
            | Self::DupOnQosZero
            | Self::TopicEmpty
            | Self::SubscriptionIdFromClient
            | Self::SubscriptionIdZero
            | Self::NoFilters
            | Self::SubscriptionOptions
            | Self::NoLocalOnShared => ReasonCode::PROTOCOL_ERROR,
            Self::UnsupportedVersion => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            Self::FilterInvalid => ReasonCode::TOPIC_FILTER_INVALID,
            Self::TopicWildcard => ReasonCode::TOPIC_NAME_INVALID,
            Self::TopicAliasZero => ReasonCode::TOPIC_ALIAS_INVALID,
            Self::TooLarge | Self::TooManyUserProperties => ReasonCode::PACKET_TOO_LARGE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_an_error_is_one_byte() {
        assert_eq!(size_of::<DecodeError>(), 1);
    }

    #[test]
    fn mqtt_hostile_cases_have_their_reason_codes() {
        for (error, code) in [
            (DecodeError::LengthMalformed, 0x81),
            (DecodeError::TooLarge, 0x95),
            (DecodeError::UnsupportedVersion, 0x84),
            (DecodeError::TooManyUserProperties, 0x95),
            (DecodeError::PropertyTwice, 0x82),
            (DecodeError::PropertyNotAllowed, 0x81),
            (DecodeError::TopicWildcard, 0x90),
            (DecodeError::TopicEmpty, 0x82),
            (DecodeError::BadText, 0x81),
            (DecodeError::QosThree, 0x81),
            (DecodeError::TopicAliasZero, 0x94),
            (DecodeError::SubscriptionIdFromClient, 0x82),
            (DecodeError::FilterInvalid, 0x8F),
            (DecodeError::WrongDirection, 0x82),
        ] {
            assert_eq!(error.reason().value(), code, "{error}");
        }
    }
}
