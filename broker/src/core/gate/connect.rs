//! What a CONNECT must look like, and what our CONNACK says that we do not do.

use std::num::{NonZeroU16, NonZeroU32};

use protocol::{
    limits::{PACKET_BYTES_MAX, RECEIVE_MAXIMUM, TOKEN_BYTES_MAX},
    mqtt::{ConnAck, Connect, List, Qos, ReasonCode, Version, Will},
    time::UnixMillis,
    token::Subject,
};

use super::Refusal;

/// The only authentication method (RFC 9431).
pub const METHOD: &str = "ace";
/// The longest keep-alive, in seconds: how long a broken link may pass for a good one, less the half that MQTT adds.
pub const KEEP_ALIVE_S_MAX: u16 = 60;
/// The least a client must be able to receive, in bytes: our CONNACK with room to spare.
pub const CLIENT_PACKET_BYTES_MIN: u32 = 256;

/// What a client's CONNECT settles for the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    /// Who it says it is. It must turn out to be its token's subject.
    pub(super) subject: Subject,
    /// Seconds; not zero.
    pub(super) keep_alive_s: u16,
    /// How many commands may be unacknowledged: the client's Receive Maximum, or ours if that is less.
    pub(super) window: usize,
    /// The largest packet that the client takes, in bytes.
    pub(super) packet_bytes_max: usize,
}

/// Judges a CONNECT; with its terms comes the token.
pub(super) fn judge<'a>(connect: &Connect<'a>) -> Result<(Terms, &'a [u8]), Refusal> {
    if connect.version != Version::V5 {
        let reason = ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
        return Err(Refusal::new(reason, "not MQTT 5"));
    }
    if connect.user_name.is_some() || connect.password.is_some() {
        let reason = ReasonCode::BAD_USER_NAME_OR_PASSWORD;
        return Err(Refusal::new(reason, "a user name or password"));
    }
    if connect.auth_method != Some(METHOD) {
        let reason = ReasonCode::BAD_AUTHENTICATION_METHOD;
        return Err(Refusal::new(reason, "not our authentication method"));
    }
    if let Some(will) = &connect.will {
        return Err(Refusal::new(will_reason(will), "a will"));
    }
    let Some(subject) = Subject::parse(connect.client_id) else {
        let reason = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
        return Err(Refusal::new(reason, "not a client id of ours"));
    };
    let packet_bytes_max = connect.packet_bytes_max.map_or(u32::MAX, NonZeroU32::get);
    if packet_bytes_max < CLIENT_PACKET_BYTES_MIN {
        let reason = ReasonCode::PACKET_TOO_LARGE;
        return Err(Refusal::new(reason, "takes too small packets"));
    }
    let terms = Terms {
        subject,
        keep_alive_s: match connect.keep_alive_secs {
            asked @ 1..=KEEP_ALIVE_S_MAX => asked,
            _ => KEEP_ALIVE_S_MAX,
        },
        window: usize::from(connect.receive_maximum.get().min(RECEIVE_MAXIMUM)),
        packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
    };
    Ok((terms, token_of(connect.auth_data)?))
}

/// Reads `u16 length ‖ token`, and nothing behind it (RFC 9431 §2.2.4.2, without the signature of its other option).
pub(super) fn token_of(data: Option<&[u8]>) -> Result<&[u8], Refusal> {
    data.and_then(|data| data.split_first_chunk::<2>())
        .filter(|(length, token)| usize::from(u16::from_be_bytes(**length)) == token.len())
        .map(|(_, token)| token)
        .filter(|token| (1..=TOKEN_BYTES_MAX).contains(&token.len()))
        .ok_or(Refusal::new(ReasonCode::NOT_AUTHORIZED, "no token"))
}

/// No will is taken; the code says what is wrong with it first.
fn will_reason(will: &Will<'_>) -> ReasonCode {
    if will.retain {
        return ReasonCode::RETAIN_NOT_SUPPORTED;
    }
    if will.qos == Qos::ExactlyOnce {
        return ReasonCode::QOS_NOT_SUPPORTED;
    }
    if !will.topic.is_ascii() {
        return ReasonCode::TOPIC_NAME_INVALID;
    }
    ReasonCode::NOT_AUTHORIZED
}

/// The CONNACK of a connection that is welcome.
pub(super) fn welcome(terms: &Terms, durability: &str, now: UnixMillis, output: &mut Vec<u8>) {
    let server_time = now.0.to_string();
    let properties = [
        ("durability", durability),
        ("server-time", server_time.as_str()),
    ];
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.session_expiry_secs = Some(0);
    connack.receive_maximum = NonZeroU16::new(RECEIVE_MAXIMUM);
    connack.qos_max = Some(Qos::AtLeastOnce);
    connack.retain_available = Some(false);
    connack.packet_bytes_max = u32::try_from(PACKET_BYTES_MAX)
        .ok()
        .and_then(NonZeroU32::new);
    connack.wildcard_available = Some(false);
    connack.subscription_id_available = Some(false);
    connack.shared_available = Some(false);
    connack.server_keep_alive_secs = Some(terms.keep_alive_s);
    connack.auth_method = Some(METHOD);
    connack.user_properties = List::from(&properties);
    let written = connack.encode(Version::V5, output);
    debug_assert!(written.is_ok(), "our own CONNACK is short");
}

/// What a CONNACK may say of a refusal (MQTT 5.0 §3.2.2.2); the rest has its nearest.
pub(super) fn connack_reason(reason: ReasonCode) -> ReasonCode {
    match reason {
        ReasonCode::SERVER_SHUTTING_DOWN => ReasonCode::SERVER_UNAVAILABLE,
        ReasonCode::SESSION_TAKEN_OVER => ReasonCode::SERVER_BUSY,
        ReasonCode::ADMINISTRATIVE_ACTION | ReasonCode::MAXIMUM_CONNECT_TIME => {
            ReasonCode::NOT_AUTHORIZED
        }
        ReasonCode::TOPIC_ALIAS_INVALID
        | ReasonCode::TOPIC_FILTER_INVALID
        | ReasonCode::RECEIVE_MAXIMUM_EXCEEDED
        | ReasonCode::KEEP_ALIVE_TIMEOUT => ReasonCode::PROTOCOL_ERROR,
        other => other,
    }
}
