//! Reason codes, MQTT 5.0 §2.4: one byte that says how something went.

use std::fmt;

/// How something went, as MQTT 5.0 §2.4 counts it. Below `0x80` it went well.
///
/// Only the values that the standard names can exist: the decoder refuses all others, and in each packet all that §3 does
/// not list for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReasonCode(u8);

impl ReasonCode {
    /// The byte on the wire.
    pub const fn value(self) -> u8 {
        self.0
    }

    /// Whether this says that something failed (MQTT 5.0 §2.4: `0x80` and up).
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// The code of `byte`, if it is one of `allowed`.
    pub(super) fn among(byte: u8, allowed: &[Self]) -> Option<Self> {
        allowed.iter().copied().find(|code| code.0 == byte)
    }

    /// The code of a byte that was checked with [`ReasonCode::among`] before.
    pub(super) const fn checked_before(byte: u8) -> Self {
        Self(byte)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.0, self.name())
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names the codes once: a constant each, and the text that is printed for it.
macro_rules! reason_codes {
    ($($name:ident = $value:literal, $text:literal;)*) => {
        /// The codes of MQTT 5.0 §2.4, table 2-6.
        impl ReasonCode {
            $(
                #[doc = concat!("`", stringify!($value), "`: ", $text, ".")]
                pub const $name: Self = Self($value);
            )*

            /// Every code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The code in words, as the standard names it.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($value => $text,)*
                    _ => "unknown",
                }
            }
        }
    };
}

reason_codes! {
    SUCCESS = 0x00, "success";
    GRANTED_QOS_1 = 0x01, "granted QoS 1";
    GRANTED_QOS_2 = 0x02, "granted QoS 2";
    DISCONNECT_WITH_WILL = 0x04, "disconnect with will message";
    NO_MATCHING_SUBSCRIBERS = 0x10, "no matching subscribers";
    NO_SUBSCRIPTION_EXISTED = 0x11, "no subscription existed";
    CONTINUE_AUTHENTICATION = 0x18, "continue authentication";
    RE_AUTHENTICATE = 0x19, "re-authenticate";
    UNSPECIFIED_ERROR = 0x80, "unspecified error";
    MALFORMED_PACKET = 0x81, "malformed packet";
    PROTOCOL_ERROR = 0x82, "protocol error";
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83, "implementation specific error";
    UNSUPPORTED_PROTOCOL_VERSION = 0x84, "unsupported protocol version";
    CLIENT_IDENTIFIER_NOT_VALID = 0x85, "client identifier not valid";
    BAD_USER_NAME_OR_PASSWORD = 0x86, "bad user name or password";
    NOT_AUTHORIZED = 0x87, "not authorized";
    SERVER_UNAVAILABLE = 0x88, "server unavailable";
    SERVER_BUSY = 0x89, "server busy";
    BANNED = 0x8A, "banned";
    SERVER_SHUTTING_DOWN = 0x8B, "server shutting down";
    BAD_AUTHENTICATION_METHOD = 0x8C, "bad authentication method";
    KEEP_ALIVE_TIMEOUT = 0x8D, "keep alive timeout";
    SESSION_TAKEN_OVER = 0x8E, "session taken over";
    TOPIC_FILTER_INVALID = 0x8F, "topic filter invalid";
    TOPIC_NAME_INVALID = 0x90, "topic name invalid";
    PACKET_IDENTIFIER_IN_USE = 0x91, "packet identifier in use";
    PACKET_IDENTIFIER_NOT_FOUND = 0x92, "packet identifier not found";
    RECEIVE_MAXIMUM_EXCEEDED = 0x93, "receive maximum exceeded";
    TOPIC_ALIAS_INVALID = 0x94, "topic alias invalid";
    PACKET_TOO_LARGE = 0x95, "packet too large";
    MESSAGE_RATE_TOO_HIGH = 0x96, "message rate too high";
    QUOTA_EXCEEDED = 0x97, "quota exceeded";
    ADMINISTRATIVE_ACTION = 0x98, "administrative action";
    PAYLOAD_FORMAT_INVALID = 0x99, "payload format invalid";
    RETAIN_NOT_SUPPORTED = 0x9A, "retain not supported";
    QOS_NOT_SUPPORTED = 0x9B, "QoS not supported";
    USE_ANOTHER_SERVER = 0x9C, "use another server";
    SERVER_MOVED = 0x9D, "server moved";
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E, "shared subscriptions not supported";
    CONNECTION_RATE_EXCEEDED = 0x9F, "connection rate exceeded";
    MAXIMUM_CONNECT_TIME = 0xA0, "maximum connect time";
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1, "subscription identifiers not supported";
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2, "wildcard subscriptions not supported";
}

/// Other names that the standard gives to `0x00`.
impl ReasonCode {
    /// `0x00` in a DISCONNECT: normal disconnection.
    pub const NORMAL_DISCONNECTION: Self = Self::SUCCESS;
    /// `0x00` in a SUBACK: granted QoS 0.
    pub const GRANTED_QOS_0: Self = Self::SUCCESS;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mqtt_codes_ascend_and_each_has_a_name() {
        assert!(ReasonCode::ALL.is_sorted_by(|a, b| a < b));
        assert_eq!(ReasonCode::ALL.len(), 43);
        for code in ReasonCode::ALL {
            assert_ne!(code.name(), "unknown");
            assert_eq!(
                ReasonCode::among(code.value(), ReasonCode::ALL),
                Some(*code)
            );
        }
    }

    #[test]
    fn mqtt_a_code_outside_the_allowed_set_does_not_exist() {
        assert_eq!(
            ReasonCode::among(0x87, &[ReasonCode::SUCCESS, ReasonCode::BANNED]),
            None
        );
        assert_eq!(ReasonCode::among(0x03, ReasonCode::ALL), None);
    }

    #[test]
    fn mqtt_errors_begin_at_0x80() {
        assert!(!ReasonCode::RE_AUTHENTICATE.is_error());
        assert!(ReasonCode::UNSPECIFIED_ERROR.is_error());
        assert_eq!(
            ReasonCode::NOT_AUTHORIZED.to_string(),
            "0x87 not authorized"
        );
    }
}
