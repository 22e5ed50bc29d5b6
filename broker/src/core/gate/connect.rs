//! What a CONNECT must look like, and what our CONNACK says that we do not do.

use std::num::{NonZeroU16, NonZeroU32};

use protocol::{
    id::hex,
    limits::{PACKET_BYTES_MAX, RECEIVE_MAXIMUM, TOKEN_BYTES_MAX},
    mqtt::{ConnAck, Connect, List, Qos, ReasonCode, Version},
    time::UnixMillis,
    token::Subject,
};

use super::Refusal;
use crate::core::reader::{Reader, Rights};

/// The only authentication method (RFC 9431).
pub const METHOD: &str = "ace";
/// The longest keep-alive, in seconds: how long a broken link may pass for a good one, less the half that MQTT adds.
pub const KEEP_ALIVE_S_MAX: u16 = 60;
/// The least a client must be able to receive, in bytes: our CONNACK with room to spare.
pub const CLIENT_PACKET_BYTES_MIN: u32 = 256;

/// The longest time that a reader's session is kept while it is away, in seconds: a week.
pub const SESSION_EXPIRY_S_MAX: u32 = 7 * 24 * 3600;
/// The longest client id, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

/// What a client's CONNECT settles for the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) version: Version,
    /// Who it says it is.
    pub(super) claim: Claim,
    /// What was kept of an older session is forgotten.
    pub(super) is_clean: bool,
    /// How long its session is kept while it is away, in seconds.
    pub(super) session_expiry_s: u32,
    /// Seconds; not zero.
    pub(super) keep_alive_s: u16,
    /// How many messages may be unacknowledged: the client's Receive Maximum, or ours if that is less.
    pub(super) window: usize,
    /// The largest packet that the client takes, in bytes.
    pub(super) packet_bytes_max: usize,
}

/// Who a client says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A host or a sandbox: its token's subject.
    Subject(Subject),
    /// A reader: its user name is the reader's.
    Reader {
        user: String,
        /// Empty: any will do.
        client_id: String,
    },
}

/// What a client shows for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown<'a> {
    /// A host's or sandbox's token, to be proven.
    Token(&'a [u8]),
    /// A reader's.
    Password(&'a [u8]),
}

/// Judges a CONNECT; with its terms comes what it shows. Readers and MQTT 3.1.1 are let this far only where they are turned on.
pub(super) fn judge<'a>(
    connect: &Connect<'a>,
    readers: bool,
) -> Result<(Terms, Shown<'a>), Refusal> {
    let has_password = connect.user_name.is_some() || connect.password.is_some();
    if connect.version != Version::V5 && !readers {
        let reason = ReasonCode::UNSUPPORTED_PROTOCOL_VERSION;
        return Err(Refusal::new(reason, "not MQTT 5"));
    }
    let (claim, shown) = if has_password || connect.version != Version::V5 {
        judge_reader(connect, readers)?
    } else {
        judge_subject(connect)?
    };
    let packet_bytes_max = connect.packet_bytes_max.map_or(u32::MAX, NonZeroU32::get);
    if packet_bytes_max < CLIENT_PACKET_BYTES_MIN {
        let reason = ReasonCode::PACKET_TOO_LARGE;
        return Err(Refusal::new(reason, "takes too small packets"));
    }
    let is_reader = matches!(claim, Claim::Reader { .. });
    let terms = Terms {
        version: connect.version,
        is_clean: connect.clean_start || !is_reader,
        session_expiry_s: if is_reader {
            connect.session_expiry_secs.min(SESSION_EXPIRY_S_MAX)
        } else {
            0
        },
        claim,
        keep_alive_s: keep_alive_s(connect),
        window: usize::from(connect.receive_maximum.get().min(RECEIVE_MAXIMUM)),
        packet_bytes_max: usize::try_from(packet_bytes_max).unwrap_or(usize::MAX),
    };
    Ok((terms, shown))
}

/// A client of MQTT 5 is told what it gets. One of MQTT 3.1.1 cannot be told, so it gets what it asked for; zero, no limit there, is
/// as long as there are seconds for.
const fn keep_alive_s(connect: &Connect<'_>) -> u16 {
    match (connect.version, connect.keep_alive_secs) {
        (_, asked @ 1..=KEEP_ALIVE_S_MAX) => asked,
        (Version::V5, _) => KEEP_ALIVE_S_MAX,
        (Version::V311, 0) => u16::MAX,
        (Version::V311, asked) => asked,
    }
}

fn judge_subject<'a>(connect: &Connect<'a>) -> Result<(Claim, Shown<'a>), Refusal> {
    if connect.auth_method != Some(METHOD) {
        let reason = ReasonCode::BAD_AUTHENTICATION_METHOD;
        return Err(Refusal::new(reason, "not our authentication method"));
    }
    refuse_will(connect)?;
    let Some(subject) = Subject::parse(connect.client_id) else {
        let reason = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
        return Err(Refusal::new(reason, "not a client id of ours"));
    };
    let token = token_of(connect.auth_data)?;
    Ok((Claim::Subject(subject), Shown::Token(token)))
}

fn judge_reader<'a>(connect: &Connect<'a>, readers: bool) -> Result<(Claim, Shown<'a>), Refusal> {
    const NO: Refusal = Refusal::new(
        ReasonCode::BAD_USER_NAME_OR_PASSWORD,
        "a user name or password",
    );
    if !readers {
        return Err(NO);
    }
    if connect.auth_method.is_some() {
        let reason = ReasonCode::BAD_AUTHENTICATION_METHOD;
        return Err(Refusal::new(reason, "a password and another method"));
    }
    refuse_will(connect)?;
    let (Some(user), Some(password)) = (connect.user_name, connect.password) else {
        return Err(NO);
    };
    let is_client_id = connect.client_id.len() <= CLIENT_ID_BYTES_MAX
        && connect
            .client_id
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"+#$".contains(&b));
    // Without a name a session could not be found again (MQTT 5.0 §3.1.3.1).
    let is_lost = connect.client_id.is_empty() && !connect.clean_start;
    if !is_client_id || is_lost {
        let reason = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
        return Err(Refusal::new(reason, "not a client id for a reader"));
    }
    let claim = Claim::Reader {
        user: user.to_owned(),
        client_id: connect.client_id.to_owned(),
    };
    Ok((claim, Shown::Password(password)))
}

/// The client id of a reader: its name, or its name, a slash and more; so that nobody takes another's session, and two terminals do not
/// evict each other. A bench tool may call its clients what it likes. `random` makes the one that was left open.
pub(super) fn reader_id(reader: &Reader, asked: &str, random: [u8; 8]) -> Option<String> {
    let name = reader.name().as_str();
    if asked.is_empty() {
        return Some(format!("{name}/{}", hex(&random)));
    }
    let is_own = asked.strip_prefix(name).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('/').is_some_and(|id| !id.is_empty())
    });
    (is_own || *reader.rights() == Rights::Bench).then(|| asked.to_owned())
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
fn refuse_will(connect: &Connect<'_>) -> Result<(), Refusal> {
    let Some(will) = &connect.will else {
        return Ok(());
    };
    let reason = if will.retain {
        ReasonCode::RETAIN_NOT_SUPPORTED
    } else if will.qos == Qos::ExactlyOnce {
        ReasonCode::QOS_NOT_SUPPORTED
    } else if will.topic.is_ascii() {
        ReasonCode::NOT_AUTHORIZED
    } else {
        ReasonCode::TOPIC_NAME_INVALID
    };
    Err(Refusal::new(reason, "a will"))
}

/// What is said in a CONNACK besides the terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Welcome<'a> {
    pub(super) durability: &'a str,
    pub(super) now: UnixMillis,
    /// The client id that was made for it.
    pub(super) assigned: Option<&'a str>,
    /// Its older session goes on.
    pub(super) is_resumed: bool,
}

/// The CONNACK of a connection that is welcome.
pub(super) fn welcome(terms: &Terms, says: Welcome<'_>, output: &mut Vec<u8>) {
    let is_reader = matches!(terms.claim, Claim::Reader { .. });
    let server_time = says.now.0.to_string();
    let properties = [
        ("durability", says.durability),
        ("server-time", server_time.as_str()),
    ];
    let mut connack = ConnAck::new(ReasonCode::SUCCESS);
    connack.session_present = says.is_resumed;
    connack.session_expiry_secs = Some(terms.session_expiry_s);
    connack.receive_maximum = NonZeroU16::new(RECEIVE_MAXIMUM);
    connack.qos_max = Some(Qos::AtLeastOnce);
    connack.retain_available = Some(false);
    connack.packet_bytes_max = u32::try_from(PACKET_BYTES_MAX)
        .ok()
        .and_then(NonZeroU32::new);
    connack.assigned_client_id = says.assigned;
    connack.wildcard_available = Some(is_reader);
    connack.subscription_id_available = Some(false);
    connack.shared_available = Some(false);
    connack.server_keep_alive_secs = Some(terms.keep_alive_s);
    connack.auth_method = (!is_reader).then_some(METHOD);
    connack.user_properties = List::from(&properties);
    let written = connack.encode(terms.version, output);
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
