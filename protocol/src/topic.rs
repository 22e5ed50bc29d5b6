//! Topics: a closed grammar, built and read here and nowhere else.

use std::fmt;

use crate::{
    id::{HostId, SandboxId},
    limits::TOPIC_BYTES_MAX,
    scope::{covers, is_filter},
};

/// The filter that covers every topic of load tests.
pub const BENCH: &str = "bench/#";

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

/// What a reader may subscribe to. A wildcard stands for a whole name, and the last level is always said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReadFilter {
    /// `v1/<host>/<sandbox>/events`, with `+` for any host or any sandbox.
    Events {
        /// Of this host; none for any.
        host: Option<HostId>,
        /// Of this sandbox; none for any.
        sandbox: Option<SandboxId>,
    },
    /// `v1/<host>/reports`, with `+` for any host.
    Reports {
        /// Of this host; none for any.
        host: Option<HostId>,
    },
}

impl ReadFilter {
    /// Reads a topic filter; anything else is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TOPIC_BYTES_MAX {
            return None;
        }
        let mut levels = text.split('/');
        if levels.next()? != "v1" {
            return None;
        }
        let host = match levels.next()? {
            "+" => None,
            host => Some(HostId::new(host).ok()?),
        };
        match (levels.next()?, levels.next(), levels.next()) {
            ("reports", None, None) => Some(Self::Reports { host }),
            ("+", Some("events"), None) => Some(Self::Events {
                host,
                sandbox: None,
            }),
            (sandbox, Some("events"), None) => Some(Self::Events {
                host,
                sandbox: Some(SandboxId::new(sandbox).ok()?),
            }),
            _ => None,
        }
    }
}

impl fmt::Display for ReadFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |host: &Option<HostId>| host.as_ref().map_or("+", HostId::as_str).to_owned();
        match self {
            Self::Events { host, sandbox } => {
                let sandbox = sandbox.as_ref().map_or("+", SandboxId::as_str);
                write!(f, "v1/{}/{sandbox}/events", name(host))
            }
            Self::Reports { host } => write!(f, "v1/{}/reports", name(host)),
        }
    }
}

/// Whether `text` is the name of a topic of load tests: below `bench/`, no empty level, graphic ASCII without `+`, `#` and `$`.
#[must_use]
pub fn is_bench_topic(text: &str) -> bool {
    is_bench_filter(text) && !text.contains(['+', '#'])
}

/// Whether `text` is a topic filter that matches topics of load tests only.
#[must_use]
pub fn is_bench_filter(text: &str) -> bool {
    is_filter(text) && text != "bench" && covers(BENCH, text)
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

    #[test]
    fn what_a_reader_may_subscribe_to_round_trips_and_nothing_else_is_read() {
        for text in [
            "v1/+/+/events",
            "v1/edge-1/+/events",
            "v1/+/build-7/events",
            "v1/edge-1/build-7/events",
            "v1/+/reports",
            "v1/edge-1/reports",
        ] {
            let filter = ReadFilter::parse(text).map(|filter| filter.to_string());
            assert_eq!(filter.as_deref(), Some(text));
        }
        for bad in [
            "",
            "#",
            "v1/#",
            "v1/+/#",
            "+/+/+/events",
            "v1/+/commands",
            "v1/edge-1/commands",
            "v1/+/+/+",
            "v1/+/+/events/#",
            "v1/+x/reports",
            "v1//reports",
            "$share/g/v1/+/+/events",
            "bench/a",
        ] {
            assert_eq!(ReadFilter::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn load_tests_have_their_own_tree_and_cannot_leave_it() {
        for (text, topic, filter) in [
            ("bench/a", true, true),
            ("bench/a/b.c/D_1", true, true),
            ("bench/+/x", false, true),
            ("bench/#", false, true),
            ("bench", false, false),
            ("bench/", false, false),
            ("bench//a", false, false),
            ("benchmark/a", false, false),
            ("#", false, false),
            ("+/a", false, false),
            ("v1/a/reports", false, false),
            ("$share/g/bench/a", false, false),
            ("bench/$SYS", false, false),
            ("bench/é", false, false),
        ] {
            assert_eq!(
                (is_bench_topic(text), is_bench_filter(text)),
                (topic, filter),
                "{text}"
            );
        }
    }
}
