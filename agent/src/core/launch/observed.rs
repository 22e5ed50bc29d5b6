//! A container of ours, as the engine shows it.

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use protocol::{
    command::Content,
    id::{CommandId, HostId, IsolationKey, SandboxId, unhex},
    time::UnixMillis,
};

use super::{
    LABEL_COMMAND, LABEL_CONTENT, LABEL_HOST, LABEL_ISOLATION, LABEL_LIFE, LABEL_SANDBOX,
    LABEL_SPEC,
};
use crate::core::reconcile::{Doing, Seen};

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    Created,
    /// Running.
    Running,
    /// Frozen by the host's owner.
    Paused,
    /// Ended, or being removed.
    Exited,
}

/// A container that carries our host's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The engine's id.
    pub container: String,
    /// The engine's id of its image.
    pub image: String,
    /// The sandbox it is.
    pub sandbox: SandboxId,
    /// The command that asked for it.
    pub command: CommandId,
    /// Its isolation key.
    pub isolation: Option<IsolationKey>,
    /// What its events carry.
    pub content: Content,
    /// How long it may live, in seconds.
    pub life_s: u64,
    /// The hash of its specification.
    pub spec: String,
    /// What it is doing.
    pub phase: Phase,
    /// Its exit code, once it has ended.
    pub exit_code: Option<u64>,
    /// Whether the engine saw it use more memory than its limit. It misses some (about one in six on control groups v1, when
    /// several run out at once), so `false` beside the exit code 137 proves nothing.
    pub oom: bool,
    /// When it started, by the engine's clock.
    pub started: Option<UnixMillis>,
}

/// The container is not one of this host's sandboxes: do not touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the container does not carry the labels of a sandbox of this host")]
pub struct NotOurs;

impl Observed {
    /// Reads what the engine says of a container.
    ///
    /// # Errors
    /// [`NotOurs`], unless it carries all labels of a sandbox of `host`.
    pub fn read(host: &HostId, inspected: &ContainerInspectResponse) -> Result<Self, NotOurs> {
        let labels = inspected
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref())
            .ok_or(NotOurs)?;
        let label = |name: &str| labels.get(name).map(String::as_str);
        let need = |name: &str| label(name).ok_or(NotOurs);
        if need(LABEL_HOST)? != host.as_str() {
            return Err(NotOurs);
        }
        let isolation = match label(LABEL_ISOLATION) {
            None => None,
            Some(text) => Some(IsolationKey::new(text).map_err(|_| NotOurs)?),
        };
        let state = inspected.state.as_ref();
        let phase = phase(state.and_then(|state| state.status));
        let exit_code = state
            .and_then(|state| state.exit_code)
            .and_then(|code| u64::try_from(code).ok())
            .filter(|_| phase == Phase::Exited);
        Ok(Self {
            container: inspected.id.clone().ok_or(NotOurs)?,
            image: inspected.image.clone().unwrap_or_default(),
            sandbox: SandboxId::new(need(LABEL_SANDBOX)?).map_err(|_| NotOurs)?,
            command: unhex(need(LABEL_COMMAND)?).map(CommandId).ok_or(NotOurs)?,
            isolation,
            content: Content::from_word(need(LABEL_CONTENT)?).ok_or(NotOurs)?,
            life_s: need(LABEL_LIFE)?.parse().map_err(|_| NotOurs)?,
            spec: need(LABEL_SPEC)?.to_owned(),
            phase,
            exit_code,
            oom: state.and_then(|state| state.oom_killed) == Some(true),
            started: state
                .and_then(|state| state.started_at.as_deref())
                .and_then(unix_millis),
        })
    }
}

impl From<&Observed> for Seen {
    fn from(observed: &Observed) -> Self {
        Self {
            container: observed.container.clone(),
            sandbox: observed.sandbox.clone(),
            command: observed.command,
            doing: match observed.phase {
                Phase::Created => Doing::Created,
                Phase::Running | Phase::Paused => Doing::Running,
                Phase::Exited => Doing::Exited,
            },
        }
    }
}

fn phase(status: Option<ContainerStateStatusEnum>) -> Phase {
    match status {
        Some(ContainerStateStatusEnum::CREATED) => Phase::Created,
        Some(ContainerStateStatusEnum::PAUSED) => Phase::Paused,
        Some(
            ContainerStateStatusEnum::EXITED
            | ContainerStateStatusEnum::DEAD
            | ContainerStateStatusEnum::REMOVING,
        ) => Phase::Exited,
        // What we do not understand may still be running: the safe reading.
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING
            | ContainerStateStatusEnum::EMPTY,
        )
        | None => Phase::Running,
    }
}

/// Reads a time as engines write it (RFC 3339). Year 1 is Go for "never".
fn unix_millis(text: &str) -> Option<UnixMillis> {
    let (date, rest) = text.split_once('T')?;
    let sign_at = rest.find(['Z', '+', '-'])?;
    let (time, zone) = rest.split_at_checked(sign_at)?;
    let [year, month, day] = numbers(date, '-')?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(whole, ':')?;
    let is_date =
        (1970..10_000).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let seconds =
        ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - offset_s(zone)?;
    u64::try_from(seconds * 1000 + millis).ok().map(UnixMillis)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let is_number = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    });
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

fn offset_s(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let [hour, minute, _] = numbers(&format!("{rest}:0"), ':')?;
    (hour < 24 && minute < 60).then_some(sign * (hour * 3600 + minute * 60))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. The year is counted from March, so that the odd day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fixture, host};
    use super::*;

    #[test]
    fn a_sandbox_is_read_from_its_labels() {
        let observed = Observed::read(&host(), &fixture()).unwrap();
        assert_eq!(observed.sandbox.as_str(), "build-7");
        assert_eq!(observed.command, CommandId([7; 16]));
        assert_eq!(
            (observed.content, observed.life_s),
            (Content::Redacted, 86_400)
        );
        assert_eq!(
            observed.isolation.as_ref().map(IsolationKey::as_str),
            Some("ticket-9")
        );
        assert_eq!((observed.phase, observed.exit_code), (Phase::Created, None));
        assert_eq!((observed.oom, observed.started), (false, None));
    }

    #[test]
    fn a_container_without_all_our_labels_is_not_ours() {
        assert_eq!(
            Observed::read(&HostId::new("edge-2").unwrap(), &fixture()),
            Err(NotOurs)
        );
        for label in [
            LABEL_HOST,
            LABEL_SANDBOX,
            LABEL_COMMAND,
            LABEL_CONTENT,
            LABEL_LIFE,
            LABEL_SPEC,
        ] {
            let mut without = fixture();
            without
                .config
                .as_mut()
                .unwrap()
                .labels
                .as_mut()
                .unwrap()
                .remove(label);
            assert_eq!(Observed::read(&host(), &without), Err(NotOurs), "{label}");
        }
    }

    #[test]
    fn an_exit_code_counts_once_it_has_ended() {
        let mut inspected = fixture();
        let state = inspected.state.as_mut().unwrap();
        state.status = Some(ContainerStateStatusEnum::RUNNING);
        state.started_at = Some("2026-11-23T09:22:05.919245586Z".into());
        let running = Observed::read(&host(), &inspected).unwrap();
        assert_eq!((running.phase, running.exit_code), (Phase::Running, None));
        assert_eq!(running.started, Some(UnixMillis(1_795_425_725_919)));
        let state = inspected.state.as_mut().unwrap();
        state.status = Some(ContainerStateStatusEnum::EXITED);
        state.exit_code = Some(137);
        state.oom_killed = Some(true);
        let ended = Observed::read(&host(), &inspected).unwrap();
        assert_eq!(
            (ended.phase, ended.exit_code, ended.oom),
            (Phase::Exited, Some(137), true)
        );
    }

    #[test]
    fn engine_times_are_read() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00.5Z", Some(951_825_600_500)),
            (
                "2026-11-23T10:22:05.919245586+01:00",
                Some(1_795_425_725_919),
            ),
            ("2026-11-23T04:52:05-04:30", Some(1_795_425_725_000)),
            ("0001-01-01T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-23", None),
            ("2026-11-23T10:22Z", None),
            ("2026-11-23T10:22:05é", None),
            ("", None),
        ] {
            assert_eq!(unix_millis(text), millis.map(UnixMillis), "{text}");
        }
    }
}
