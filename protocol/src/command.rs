//! Commands: dispatcher to host. Signed by a dispatcher, bound to the host's command topic, with an absolute expiry and an id.
//!
//! What a command cannot say is as much the design as what it can: there is no path, no mount, no device, no capability, no
//! namespace and no network here. It names an image, arguments, sources by name, and limits.

use crate::{
    id::{CommandId, HostId, IsolationKey, SandboxId, SourceName},
    key::{Dispatcher, Public, Secret},
    limits::{
        ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, COMMAND_LIFE_MS_MAX, ENVIRONMENT_MAX, LEEWAY_S,
        MESSAGE_BYTES_MAX, SOURCES_MAX,
    },
    signed::{self, Message, Typ, Verified, VerifyError},
    time::UnixMillis,
    topic::Topic,
};

int_word! {
    /// What of its output a sandbox's events carry.
    pub enum Content {
        /// Kinds, sizes, exit codes and progress counters.
        1 => Metadata = "metadata",
        /// Known secret shapes and leased values masked at the source.
        2 => Redacted = "redacted",
        /// Everything.
        3 => Full = "full",
    }
}

int_map! {
    /// What a sandbox may use.
    pub struct Limits {
        /// Thousandths of a processor.
        1 => req cpu_millis: u64,
        /// Memory, in bytes; swap is the same, so there is none.
        2 => req memory_bytes: u64,
        /// Processes and threads.
        3 => req pids: u64,
        /// Scratch space, in bytes.
        4 => req scratch_bytes: u64,
        /// Life, in seconds.
        5 => req life_s: u64,
    }
}

impl Default for Limits {
    /// 1 processor, 1 GiB of memory, 256 processes, 1 GiB of scratch, 24 hours.
    fn default() -> Self {
        Self {
            cpu_millis: 1000,
            memory_bytes: 1 << 30,
            pids: 256,
            scratch_bytes: 1 << 30,
            life_s: 24 * 3600,
        }
    }
}

int_map! {
    /// A sandbox to launch.
    pub struct Launch {
        /// Its id, new on its host.
        1 => req sandbox: SandboxId,
        /// Its image: `name[:tag]`, `name@sha256:…`, or the engine's own `sha256:…` id.
        2 => req image: String,
        /// The command and its arguments; the image's own if empty.
        3 => req arguments: Vec<String>,
        /// Environment. Not for secrets: the engine shows it to whoever asks.
        4 => req environment: Vec<(String, String)>,
        /// Read-only sources, by the names that the host owner's policy gives them.
        5 => req sources: Vec<SourceName>,
        /// What it may use.
        6 => req limits: Limits,
        /// What its events carry; the host's policy caps it.
        7 => req content: Content,
        /// One key, one sandbox at a time.
        8 => opt isolation: IsolationKey,
    }
}

int_map! {
    /// A sandbox to stop.
    pub struct Stop {
        /// Which.
        1 => req sandbox: SandboxId,
        /// Seconds between the request to end and the end.
        2 => req grace_s: u64,
    }
}

int_choice! {
    /// What a host is asked to do.
    pub enum Order {
        /// Launch a sandbox.
        1 => Launch(Launch),
        /// Stop a sandbox.
        2 => Stop(Stop),
    }
}

impl Order {
    /// The sandbox it is about.
    #[must_use]
    pub fn sandbox(&self) -> &SandboxId {
        match self {
            Self::Launch(launch) => &launch.sandbox,
            Self::Stop(stop) => &stop.sandbox,
        }
    }

    /// Its name in logs and tables.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Launch(_) => "launch",
            Self::Stop(_) => "stop",
        }
    }
}

int_map! {
    /// A command.
    pub struct Command {
        /// Its id, for replay checks and correlation.
        1 => req id: CommandId,
        /// The one host it is for.
        2 => req host: HostId,
        /// When it was signed.
        3 => req issued: UnixMillis,
        /// When it is void.
        4 => req expires: UnixMillis,
        /// What to do.
        5 => req order: Order,
    }
}

impl Message for Command {
    const TYP: Typ = Typ::Text("application/vnd.outhaul.command+cbor");
    type Signer = Dispatcher;
    const BYTES_MAX: usize = MESSAGE_BYTES_MAX;
}

/// Why a command was refused before anyone asked what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not signed by a listed dispatcher, for this host's topic.
    #[error("command: {0}")]
    Unverified(#[from] VerifyError),
    /// For another host.
    #[error("command: for another host")]
    Host,
    /// Its time is over, or it lives longer than any command may.
    #[error("command: expired")]
    Expired,
    /// Dated in the future.
    #[error("command: not valid yet")]
    Early,
    /// More arguments, sources or bytes than allowed, or an image name that is none.
    #[error("command: out of bounds")]
    Bounds,
}

/// Signs a command for its host's topic.
#[must_use]
pub fn sign(key: &Secret<Dispatcher>, command: &Command) -> Vec<u8> {
    signed::sign(key, command, topic_of(&command.host).as_bytes())
}

/// Checks that a listed dispatcher signed `bytes` for `host`, and that it is time for it. Whether it is a replay, the caller's
/// memory tells.
///
/// # Errors
/// [`CommandError`].
pub fn verify(
    bytes: &[u8],
    dispatchers: &[Public<Dispatcher>],
    host: &HostId,
    now: UnixMillis,
) -> Result<Verified<Command, Dispatcher>, CommandError> {
    let verified = verify_undated(bytes, dispatchers, host)?;
    let command = verified.value();
    if now.0 >= command.expires.0.saturating_add(LEEWAY_S * 1000) {
        return Err(CommandError::Expired);
    }
    if now.0.saturating_add(LEEWAY_S * 1000) < command.issued.0 {
        return Err(CommandError::Early);
    }
    Ok(verified)
}

/// Checks everything of a command but whether it is time for it: for those who read it later.
///
/// # Errors
/// [`CommandError`].
pub fn verify_undated(
    bytes: &[u8],
    dispatchers: &[Public<Dispatcher>],
    host: &HostId,
) -> Result<Verified<Command, Dispatcher>, CommandError> {
    let verified = signed::verify::<Command>(bytes, dispatchers, topic_of(host).as_bytes())?;
    let command = verified.value();
    if command.host != *host {
        return Err(CommandError::Host);
    }
    if command.expires.0.saturating_sub(command.issued.0) > COMMAND_LIFE_MS_MAX {
        return Err(CommandError::Expired);
    }
    if !is_within_bounds(&command.order) {
        return Err(CommandError::Bounds);
    }
    Ok(verified)
}

fn topic_of(host: &HostId) -> String {
    Topic::Commands(host.clone()).to_string()
}

fn is_within_bounds(order: &Order) -> bool {
    let Order::Launch(launch) = order else {
        return true;
    };
    let is_text = |text: &str| text.len() <= ARGUMENT_BYTES_MAX && !text.contains('\0');
    let is_variable = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    let limits = &launch.limits;
    is_image(&launch.image)
        && launch.arguments.len() <= ARGUMENTS_MAX
        && launch.arguments.iter().all(|argument| is_text(argument))
        && launch.environment.len() <= ENVIRONMENT_MAX
        && launch
            .environment
            .iter()
            .all(|(name, value)| is_variable(name) && is_text(value))
        && launch.sources.len() <= SOURCES_MAX
        && [
            limits.cpu_millis,
            limits.memory_bytes,
            limits.pids,
            limits.scratch_bytes,
            limits.life_s,
        ]
        .iter()
        .all(|limit| (1..=i64::MAX as u64).contains(limit))
}

/// Whether `text` looks like an image reference: visible ASCII without what a shell, a URL or a path would take for its own.
#[must_use]
pub fn is_image(text: &str) -> bool {
    (1..=512).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b))
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
        && !text.contains("//")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cbor::CborError, key::seeded};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn host(name: &str) -> HostId {
        HostId::new(name).unwrap()
    }

    fn launch() -> Launch {
        Launch {
            sandbox: SandboxId::new("build-7").unwrap(),
            image: "tool:1".into(),
            arguments: vec!["true".into()],
            environment: vec![("A".into(), "b".into())],
            sources: vec![],
            limits: Limits::default(),
            content: Content::Metadata,
            isolation: None,
        }
    }

    fn command(order: Order) -> Command {
        Command {
            id: CommandId([1; 16]),
            host: host("edge-1"),
            issued: NOW,
            expires: UnixMillis(NOW.0 + 60_000),
            order,
        }
    }

    #[test]
    fn a_listed_dispatchers_command_is_accepted_by_its_host_in_its_time_only() {
        let key = seeded::<Dispatcher>(1);
        let listed = [key.public()];
        let bytes = sign(&key, &command(Order::Launch(launch())));
        let check = |keys: &[_], host: &HostId, now| {
            verify(&bytes, keys, host, UnixMillis(now)).map(|_| ())
        };
        let edge = host("edge-1");
        assert_eq!(check(&listed, &edge, NOW.0), Ok(()));
        assert_eq!(
            check(&[], &edge, NOW.0),
            Err(CommandError::Unverified(VerifyError::UnknownKey))
        );
        assert_eq!(
            check(&listed, &host("edge-2"), NOW.0),
            Err(CommandError::Unverified(VerifyError::Signature)),
            "another host's topic is not what was signed"
        );
        assert_eq!(check(&listed, &edge, NOW.0 + 119_999), Ok(()));
        assert_eq!(
            check(&listed, &edge, NOW.0 + 120_000),
            Err(CommandError::Expired)
        );
        assert_eq!(
            check(&listed, &edge, NOW.0 - 60_001),
            Err(CommandError::Early)
        );
    }

    #[test]
    fn a_command_that_would_live_too_long_is_refused() {
        let key = seeded::<Dispatcher>(1);
        let mut long = command(Order::Launch(launch()));
        long.expires = UnixMillis(NOW.0 + COMMAND_LIFE_MS_MAX + 1);
        assert_eq!(
            verify(&sign(&key, &long), &[key.public()], &host("edge-1"), NOW).err(),
            Some(CommandError::Expired)
        );
    }

    #[test]
    fn a_command_with_more_arguments_than_any_list_holds_is_not_even_read() {
        let key = seeded::<Dispatcher>(1);
        let verify = |count| {
            let mut launch = launch();
            launch.arguments = vec![String::new(); count];
            let bytes = sign(&key, &command(Order::Launch(launch)));
            verify(&bytes, &[key.public()], &host("edge-1"), NOW).err()
        };
        let unread = VerifyError::Payload(CborError::TooLong);
        assert_eq!(verify(ARGUMENTS_MAX), None);
        assert_eq!(
            verify(ARGUMENTS_MAX + 1),
            Some(CommandError::Unverified(unread))
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let changes: [fn(&mut Launch); 9] = [
            |l| l.image = String::new(),
            |l| l.image = "../etc".into(),
            |l| l.image = "a b".into(),
            |l| l.arguments = vec!["nul\0".into()],
            |l| l.environment = vec![("A".into(), String::new()); ENVIRONMENT_MAX + 1],
            |l| l.sources = vec![SourceName::new("code").unwrap(); SOURCES_MAX + 1],
            |l| l.environment = vec![("A=B".into(), String::new())],
            |l| l.limits.pids = 0,
            |l| l.limits.memory_bytes = u64::MAX,
        ];
        let key = seeded::<Dispatcher>(1);
        for (index, change) in changes.iter().enumerate() {
            let mut bad = launch();
            change(&mut bad);
            let bytes = sign(&key, &command(Order::Launch(bad)));
            assert_eq!(
                verify(&bytes, &[key.public()], &host("edge-1"), NOW).err(),
                Some(CommandError::Bounds),
                "change {index}"
            );
        }
    }
}
