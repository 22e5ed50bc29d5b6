//! Topics: a closed grammar, built and read here and nowhere else.

use std::fmt;

use crate::{
    id::{HostId, SandboxId},
    limits::TOPIC_BYTES_MAX,
};

/// Every topic there is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// `v1/<host>/commands`: dispatcher to host.
    Commands(HostId),
    /// `v1/<host>/reports`: host to platform.
    Reports(HostId),
    /// `v1/<host>/<sandbox>/events`: sandbox to platform.
    Events(HostId, SandboxId),
}

impl Topic {
    /// Reads a topic name; anything outside the grammar is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TOPIC_BYTES_MAX {
            return None;
        }
        let mut levels = text.split('/');
        if levels.next()? != "v1" {
            return None;
        }
        let host = HostId::new(levels.next()?).ok()?;
        match (levels.next()?, levels.next(), levels.next()) {
            ("commands", None, None) => Some(Self::Commands(host)),
            ("reports", None, None) => Some(Self::Reports(host)),
            (sandbox, Some("events"), None) => {
                Some(Self::Events(host, SandboxId::new(sandbox).ok()?))
            }
            _ => None,
        }
    }

    /// The host it belongs to.
    #[must_use]
    pub fn host(&self) -> &HostId {
        match self {
            Self::Commands(host) | Self::Reports(host) | Self::Events(host, _) => host,
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commands(host) => write!(f, "v1/{host}/commands"),
            Self::Reports(host) => write!(f, "v1/{host}/reports"),
            Self::Events(host, sandbox) => write!(f, "v1/{host}/{sandbox}/events"),
        }
    }
}

/// The filter that covers the events of every sandbox of one host: what a host's token lets it delegate.
#[must_use]
pub fn events_of_host(host: &HostId) -> String {
    format!("v1/{host}/+/events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_round_trip() {
        for text in [
            "v1/edge-1/commands",
            "v1/edge-1/reports",
            "v1/edge-1/build-7/events",
        ] {
            assert_eq!(
                Topic::parse(text).map(|topic| topic.to_string()).as_deref(),
                Some(text)
            );
        }
    }

    #[test]
    fn what_is_outside_the_grammar_is_no_topic() {
        for bad in [
            "",
            "v1",
            "v1/edge-1",
            "v2/edge-1/commands",
            "/v1/edge-1/commands",
            "v1/edge-1/commands/",
            "v1//commands",
            "v1/+/commands",
            "v1/#",
            "v1/edge-1/+/events",
            "v1/edge-1/build-7/events/x",
            "v1/edge-1/build-7/Events",
            "v1/Edge/commands",
            "$SYS/x",
            "$share/g/v1/edge-1/commands",
            "é/x",
            "v1/edge-1/../events",
            "v1/edge-1/commands\0",
        ] {
            assert_eq!(Topic::parse(bad), None, "{bad:?}");
        }
        assert_eq!(
            Topic::parse(&format!("v1/{}/commands", "a".repeat(300))),
            None
        );
    }
}
