//! What went wrong with the engine, in the words of a report.

use std::{fmt::Write as _, time::Duration};

use bollard::errors::Error;
use protocol::report::Reason;

/// The most of an engine's own words that is passed on, in characters.
const WORDS_MAX: usize = 300;

/// The engine did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct EngineError {
    /// The word for it in a report.
    pub reason: Reason,
    /// For a person: what was being done, and why it failed.
    pub detail: String,
}

impl EngineError {
    pub(super) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    pub(super) fn unavailable(why: &str) -> Self {
        Self::new(
            Reason::EngineUnavailable,
            format!("the engine cannot be used: {why}"),
        )
    }

    pub(super) fn silent(doing: &str, waited: Duration) -> Self {
        Self::new(
            Reason::EngineUnavailable,
            format!("{doing}: no answer within {} s", waited.as_secs()),
        )
    }

    pub(super) fn no_image() -> Self {
        Self::new(
            Reason::ImageNotFound,
            "the engine does not have the image: load it on the host, or let the policy pull what is missing",
        )
    }

    pub(super) fn digest() -> Self {
        Self::new(
            Reason::DigestMismatch,
            "the engine has another image under this reference",
        )
    }

    pub(super) fn not_ours() -> Self {
        Self::new(
            Reason::NotFound,
            "the container is not a sandbox of this host",
        )
    }

    /// A pull that fails is not the engine's fault, unless the engine is not there.
    pub(super) fn while_pulling(self) -> Self {
        let reason = match self.reason {
            Reason::NotFound => Reason::ImageNotFound,
            Reason::DiskFull => Reason::DiskFull,
            _ => Reason::ImagePullFailed,
        };
        Self { reason, ..self }
    }

    /// A start that is not answered has a name of its own.
    pub(super) fn while_starting(self) -> Self {
        let is_late =
            self.reason == Reason::EngineUnavailable && self.detail.contains("no answer within");
        let reason = if is_late {
            Reason::StartTimeout
        } else {
            self.reason
        };
        Self { reason, ..self }
    }
}

/// Reads one of bollard's errors.
pub(super) fn read(doing: &str, error: &Error) -> EngineError {
    match error {
        Error::DockerResponseServerError {
            status_code,
            message,
        } => {
            let reason = if is_disk_full(message) {
                Reason::DiskFull
            } else {
                by_status(*status_code)
            };
            EngineError::new(reason, format!("{doing}: {}", plain(message)))
        }
        // Told in the middle of an answer, as while pulling.
        Error::DockerStreamError { error } | Error::DockerContainerWaitError { error, .. } => {
            let reason = if is_disk_full(error) {
                Reason::DiskFull
            } else {
                Reason::EngineRefused
            };
            EngineError::new(reason, format!("{doing}: {}", plain(error)))
        }
        Error::SocketNotFoundError(_) => EngineError::new(
            Reason::EngineUnavailable,
            format!("{doing}: its socket is not there"),
        ),
        other => {
            let mut words = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                let _ = write!(words, ": {error}");
                cause = error.source();
            }
            EngineError::new(
                Reason::EngineUnavailable,
                format!("{doing}: {}", plain(&words)),
            )
        }
    }
}

/// The engine's words on one line, bounded, without what a terminal would obey.
pub(super) fn plain(words: &str) -> String {
    let is_plain = |c: &char| !c.is_control();
    words
        .trim()
        .chars()
        .map(|c| if c == '\n' { ' ' } else { c })
        .filter(is_plain)
        .take(WORDS_MAX)
        .collect()
}

fn by_status(status: u16) -> Reason {
    match status {
        404 => Reason::NotFound,
        409 => Reason::Conflict,
        _ => Reason::EngineRefused,
    }
}

fn is_disk_full(message: &str) -> bool {
    message.contains("no space left on device") || message.contains("disk quota exceeded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status_code: u16, message: &str) -> EngineError {
        read(
            "make",
            &Error::DockerResponseServerError {
                status_code,
                message: message.into(),
            },
        )
    }

    #[test]
    fn an_engines_answer_becomes_a_word_that_users_can_act_on() {
        for (status, message, reason) in [
            (404, "No such container: x", Reason::NotFound),
            (409, "name in use", Reason::Conflict),
            (400, "invalid", Reason::EngineRefused),
            (500, "write: no space left on device", Reason::DiskFull),
            (500, "runc failed", Reason::EngineRefused),
        ] {
            assert_eq!(answered(status, message).reason, reason, "{message}");
        }
        let gone = read("ping", &Error::SocketNotFoundError("/x".into()));
        assert_eq!(gone.reason, Reason::EngineUnavailable);
        let late = EngineError::silent("start", Duration::from_secs(60));
        assert_eq!(late.clone().while_starting().reason, Reason::StartTimeout);
        assert_eq!(late.while_pulling().reason, Reason::ImagePullFailed);
        assert_eq!(
            answered(404, "no manifest").while_pulling().reason,
            Reason::ImageNotFound
        );
    }

    #[test]
    fn an_engines_words_are_cut_and_cannot_steer_a_terminal() {
        let detail = answered(500, &format!("a\n\x1b[2J{}", "b".repeat(1000))).detail;
        assert!(detail.starts_with("make: a [2Jbbb"), "{detail}");
        assert!(detail.len() < 400 && !detail.contains(['\x1b', '\n']));
    }
}
