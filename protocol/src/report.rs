//! Reports: host to platform. Signed by the host's key, bound to its report topic, numbered by the host.

use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    command::Content,
    id::{CommandId, HostId, SandboxId},
    key::{Host, Public, Sandbox, Secret},
    limits::{
        BATCH_BODY_BYTES_MAX, BATCH_HEAD_BYTES_MAX, DETAIL_BYTES_MAX, MESSAGE_BYTES_MAX,
        REPORT_NAME_BYTES_MAX, REPORT_SANDBOXES_MAX,
    },
    signed::{self, Message, Typ, Verified, VerifyError},
    time::UnixMillis,
    topic::Topic,
};

int_word! {
    /// Why a command was refused or a sandbox failed: stable words that a user can act on.
    pub open enum Reason {
        /// The host owner's policy says no; the detail names the rule.
        1 => PolicyRefused = "policy_refused",
        /// The engine has no such image, and may not or cannot pull it.
        2 => ImageNotFound = "image_not_found",
        /// The pull failed.
        3 => ImagePullFailed = "image_pull_failed",
        /// The image is not the one that was asked for.
        4 => DigestMismatch = "digest_mismatch",
        /// A source is not readable by the sandbox's user.
        5 => SourceUnreadable = "source_unreadable",
        /// It did not start in time.
        6 => StartTimeout = "start_timeout",
        /// It started, but its shim did not announce its key in time.
        7 => NoFirstEvent = "no_first_event",
        /// It used more memory than its limit.
        8 => OomKilled = "oom_killed",
        /// It lived longer than its limit.
        9 => DeadlineExceeded = "deadline_exceeded",
        /// The engine does not answer.
        10 => EngineUnavailable = "engine_unavailable",
        /// What the engine made is not what was asked for.
        11 => SpecMismatch = "spec_mismatch",
        /// The host's disk is full.
        12 => DiskFull = "disk_full",
        /// A quota of the host is used up.
        13 => QuotaExceeded = "quota_exceeded",
        /// The host is full now.
        14 => Busy = "busy",
        /// A sandbox of that id or isolation key exists.
        15 => Conflict = "conflict",
        /// No such sandbox here.
        16 => NotFound = "not_found",
        /// The engine refused to make or start it; the detail says why.
        17 => EngineRefused = "engine_refused",
        /// It was stopped by a command.
        18 => Stopped = "stopped",
        /// It vanished: its container is gone, and nobody here removed it.
        19 => Lost = "lost",
    }
}

int_word! {
    /// Where a sandbox stands.
    pub open enum State {
        /// Being made.
        1 => Creating = "creating",
        /// At work.
        2 => Running = "running",
        /// Frozen by the host's owner.
        3 => Paused = "paused",
        /// Ended by itself, with an exit code.
        4 => Finished = "finished",
        /// Did not start, or was ended, with a reason.
        5 => Failed = "failed",
        /// The engine cannot be asked: neither running nor failed.
        6 => Unknown = "unknown",
    }
}

impl State {
    /// Whether it will change no more.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Finished | Self::Failed => true,
            Self::Creating | Self::Running | Self::Paused | Self::Unknown | Self::Other(_) => false,
        }
    }
}

int_map! {
    /// A command was refused; nothing was done.
    pub open struct Refused {
        /// Which.
        1 => req command: CommandId,
        /// About which sandbox.
        2 => req sandbox: SandboxId,
        /// Why.
        3 => req reason: Reason,
        /// For a person: the rule that refused, what to do.
        4 => req detail: String,
    }
}

int_map! {
    /// A sandbox is at work. This binds its key to it: whoever trusts the host's key can check its events.
    pub open struct Launched {
        /// The command that asked for it.
        1 => req command: CommandId,
        /// Which.
        2 => req sandbox: SandboxId,
        /// The key its shim made.
        3 => req key: Public<Sandbox>,
        /// The engine's id of the image, `sha256:…`.
        4 => req image: String,
        /// The engine's id of the container.
        5 => req container: String,
        /// What its events carry, after the host's cap.
        6 => req content: Content,
    }
}

int_map! {
    /// A sandbox has ended: by itself if there is an exit code and no reason.
    pub open struct Ended {
        /// The command that asked for it, if it is known.
        1 => opt command: CommandId,
        /// Which.
        2 => req sandbox: SandboxId,
        /// [`State::Finished`] or [`State::Failed`].
        3 => req state: State,
        /// What the runtime recorded.
        4 => opt exit_code: u64,
        /// Why, unless it ended by itself.
        5 => opt reason: Reason,
        /// For a person.
        6 => req detail: String,
    }
}

int_map! {
    /// A batch that a container left unsent, verbatim: the operator can pass it on, and cannot alter it.
    pub open struct Forwarded {
        /// Whose.
        1 => req sandbox: SandboxId,
        /// The signed head and the body.
        2 => req batch: ByteBuf,
    }
}

int_map! {
    /// A stop was carried out, or there was nothing left to stop.
    pub open struct Stopped {
        /// The command that asked for it.
        1 => req command: CommandId,
        /// Which.
        2 => req sandbox: SandboxId,
    }
}

int_map! {
    /// One sandbox as the host sees it.
    pub open struct Sighting {
        /// Which.
        1 => req sandbox: SandboxId,
        /// Where it stands.
        2 => req state: State,
    }
}

int_map! {
    /// What the operator found when it came back, and that it is alive ever since.
    pub open struct Status {
        /// The generation of the host's key.
        1 => req generation: u64,
        /// The operator's version.
        2 => req version: String,
        /// A number for this start of the operator.
        3 => req start: ByteArray<8>,
        /// Whether the engine answers.
        4 => req engine: bool,
        /// The sandboxes it knows.
        5 => req sandboxes: Vec<Sighting>,
        /// How far the host's wall clock is ahead of what it knows of the broker's, in milliseconds; negative if it is behind. Nothing on
        /// the host goes by that clock. (Not 64: a golden vector gave that label to something that readers skip.)
        65 => opt skew_ms: i64,
    }
}

int_choice! {
    /// What a report says.
    pub open enum News {
        /// A command was refused.
        1 => Refused(Refused),
        /// A sandbox is at work.
        2 => Launched(Launched),
        /// A sandbox has ended.
        3 => Ended(Ended),
        /// A stop was carried out.
        4 => Stopped(Stopped),
        /// What a container left unsent.
        5 => Forwarded(Forwarded),
        /// The host, whole.
        6 => Status(Status),
    }
}

impl News {
    /// The sandbox it is about, if it is about one.
    #[must_use]
    pub fn sandbox(&self) -> Option<&SandboxId> {
        match self {
            Self::Refused(Refused { sandbox, .. })
            | Self::Launched(Launched { sandbox, .. })
            | Self::Ended(Ended { sandbox, .. })
            | Self::Stopped(Stopped { sandbox, .. })
            | Self::Forwarded(Forwarded { sandbox, .. }) => Some(sandbox),
            Self::Status(_) | Self::Other(_) => None,
        }
    }

    /// The command that it settles, if it settles one: the broker stops re-sending that.
    #[must_use]
    pub fn settles(&self) -> Option<CommandId> {
        match self {
            Self::Refused(Refused { command, .. })
            | Self::Launched(Launched { command, .. })
            | Self::Stopped(Stopped { command, .. }) => Some(*command),
            Self::Ended(ended) => ended.command,
            Self::Forwarded(_) | Self::Status(_) | Self::Other(_) => None,
        }
    }

    /// Whether everything in it is as short as it must be.
    fn is_bounded(&self) -> bool {
        match self {
            Self::Refused(Refused { detail, .. }) | Self::Ended(Ended { detail, .. }) => {
                detail.len() <= DETAIL_BYTES_MAX
            }
            Self::Launched(Launched {
                image, container, ..
            }) => image.len().max(container.len()) <= REPORT_NAME_BYTES_MAX,
            Self::Forwarded(Forwarded { batch, .. }) => {
                batch.len() <= BATCH_HEAD_BYTES_MAX + BATCH_BODY_BYTES_MAX
            }
            Self::Status(Status {
                version, sandboxes, ..
            }) => version.len() <= REPORT_NAME_BYTES_MAX && sandboxes.len() <= REPORT_SANDBOXES_MAX,
            Self::Stopped(_) | Self::Other(_) => true,
        }
    }

    /// Its name in logs and tables.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Launched(_) => "launched",
            Self::Ended(_) => "ended",
            Self::Stopped(_) => "stopped",
            Self::Forwarded(_) => "forwarded",
            Self::Status(_) => "status",
            Self::Other(_) => "other",
        }
    }
}

int_map! {
    /// A report.
    pub open struct Report {
        /// Who says so.
        1 => req host: HostId,
        /// Counts up by one over the life of the host's state directory.
        2 => req number: u64,
        /// When, by the host's notion of the broker's time.
        3 => req time: UnixMillis,
        /// What.
        4 => req news: News,
    }
}

impl Message for Report {
    const TYP: Typ = Typ::Text("application/vnd.outhaul.report+cbor");
    type Signer = Host;
    const BYTES_MAX: usize = MESSAGE_BYTES_MAX;
}

/// Signs a report for its host's topic.
#[must_use]
pub fn sign(key: &Secret<Host>, report: &Report) -> Vec<u8> {
    signed::sign(key, report, topic_of(&report.host).as_bytes())
}

/// Checks that one of the host's keys signed `bytes` as its report.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(
    bytes: &[u8],
    keys: &[Public<Host>],
    host: &HostId,
) -> Result<Verified<Report, Host>, VerifyError> {
    let verified = signed::verify::<Report>(bytes, keys, topic_of(host).as_bytes())?;
    let report = verified.value();
    if report.host == *host && report.news.is_bounded() {
        Ok(verified)
    } else {
        Err(VerifyError::Envelope)
    }
}

/// Cuts a text for a person to what a report may carry, at a character.
#[must_use]
pub fn detail(text: &str) -> String {
    let mut end = text.len().min(DETAIL_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

fn topic_of(host: &HostId) -> String {
    Topic::Reports(host.clone()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        key::seeded,
        limits::{ID_BYTES_MAX, PACKET_BYTES_MAX},
    };

    fn every_news() -> Vec<News> {
        let sandbox = SandboxId::new("build-7").unwrap();
        let command = CommandId([1; 16]);
        let detail = String::from("why");
        vec![
            News::Refused(Refused {
                command,
                sandbox: sandbox.clone(),
                reason: Reason::Busy,
                detail: detail.clone(),
            }),
            News::Launched(Launched {
                command,
                sandbox: sandbox.clone(),
                key: seeded::<Sandbox>(2).public(),
                image: "sha256:00".into(),
                container: "00".into(),
                content: Content::Full,
            }),
            News::Ended(Ended {
                command: None,
                sandbox: sandbox.clone(),
                state: State::Finished,
                exit_code: Some(3),
                reason: None,
                detail,
            }),
            News::Stopped(Stopped {
                command,
                sandbox: sandbox.clone(),
            }),
            News::Forwarded(Forwarded {
                sandbox: sandbox.clone(),
                batch: ByteBuf::from(vec![1, 2, 3]),
            }),
            News::Status(Status {
                generation: 1,
                version: "0".into(),
                start: [0; 8].into(),
                engine: true,
                sandboxes: vec![Sighting {
                    sandbox,
                    state: State::Running,
                }],
                skew_ms: Some(-7),
            }),
        ]
    }

    #[test]
    fn every_report_round_trips_and_is_bound_to_its_host() {
        let key = seeded::<Host>(1);
        let host = HostId::new("edge-1").unwrap();
        for news in every_news() {
            let report = Report {
                host: host.clone(),
                number: 9,
                time: UnixMillis(5),
                news,
            };
            let bytes = sign(&key, &report);
            assert_eq!(
                verify(&bytes, &[key.public()], &host).unwrap().value(),
                &report
            );
            assert!(verify(&bytes, &[key.public()], &HostId::new("edge-2").unwrap()).is_err());
            assert!(verify(&bytes, &[seeded::<Host>(3).public()], &host).is_err());
        }
    }

    #[test]
    fn what_is_longer_than_its_limit_is_refused() {
        let key = seeded::<Host>(1);
        let host = HostId::new("edge-1").unwrap();
        let verifies = |news: News| {
            let report = Report {
                host: host.clone(),
                number: 9,
                time: UnixMillis(5),
                news,
            };
            verify(&sign(&key, &report), &[key.public()], &host).is_ok()
        };
        let sandbox = SandboxId::new("build-7").unwrap();
        let long = |max: usize, over: usize| "x".repeat(max + over);
        for (over, fits) in [(0, true), (1, false)] {
            for mut news in every_news() {
                match &mut news {
                    News::Refused(Refused { detail, .. }) | News::Ended(Ended { detail, .. }) => {
                        *detail = long(DETAIL_BYTES_MAX, over);
                    }
                    News::Launched(launched) => {
                        launched.image = long(REPORT_NAME_BYTES_MAX, 0);
                        launched.container = long(REPORT_NAME_BYTES_MAX, over);
                    }
                    News::Forwarded(forwarded) => {
                        let bytes_max = BATCH_HEAD_BYTES_MAX + BATCH_BODY_BYTES_MAX;
                        forwarded.batch = vec![0; bytes_max + over].into();
                    }
                    News::Status(status) => {
                        let sighting = Sighting {
                            sandbox: sandbox.clone(),
                            state: State::Running,
                        };
                        status.sandboxes = vec![sighting; REPORT_SANDBOXES_MAX + over];
                    }
                    News::Stopped(_) | News::Other(_) => continue,
                }
                let word = news.word();
                assert_eq!(verifies(news), fits, "{word} by {over}");
            }
        }
    }

    #[test]
    fn the_longest_batch_fits_a_report_and_a_packet() {
        let name = "x".repeat(ID_BYTES_MAX);
        let report = Report {
            host: HostId::new(&name).unwrap(),
            number: u64::MAX,
            time: UnixMillis(u64::MAX),
            news: News::Forwarded(Forwarded {
                sandbox: SandboxId::new(&name).unwrap(),
                batch: vec![0; BATCH_HEAD_BYTES_MAX + BATCH_BODY_BYTES_MAX].into(),
            }),
        };
        let bytes = sign(&seeded(1), &report);
        assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{}", bytes.len());
        assert!(bytes.len() + 2 * ID_BYTES_MAX + 32 <= PACKET_BYTES_MAX);
    }

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let text = "é".repeat(DETAIL_BYTES_MAX);
        assert_eq!(detail(&text).len(), DETAIL_BYTES_MAX);
        assert_eq!(detail(&format!("a{text}")).len(), DETAIL_BYTES_MAX - 1);
        assert_eq!(detail("short"), "short");
    }
}
