//! What a reader asks for over HTTPS, and whether it may: its query and two headers, decided by the same rules as a subscription.

use protocol::{
    id::{HostId, SandboxId},
    topic::ReadFilter,
};
use serde::Deserialize;

use crate::core::{
    acl::{self, Action, Decision},
    gate::Start,
    principal::Principal,
    reader::Rights,
    span::{BadMoment, Moment},
};

/// The query of a request, as it came.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    host: Option<String>,
    sandbox: Option<String>,
    kind: Option<String>,
    from: Option<String>,
    since: Option<String>,
}

/// What is to be read, and from where on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// A record is wanted that any of these admits. Never none.
    pub selected: Vec<Selected>,
    /// Where to begin.
    pub begin: Begin,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At a place in the journal.
    With(Start),
    /// With the first record that came at this time or later.
    Since(Moment),
}

/// Which records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// What the reader's rights were held against.
    pub filter: ReadFilter,
    /// Of these, the records of this sandbox, or about it.
    pub sandbox: Option<SandboxId>,
}

/// Why it gets nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The host is no name.
    #[error("host is not a name: a-z, 0-9 and -, at most 64")]
    Host,
    /// The sandbox is no name.
    #[error("sandbox is not a name: a-z, 0-9 and -, at most 64")]
    Sandbox,
    /// Another kind.
    #[error("kind is event or report; without it both, as far as the token opens them")]
    Kind,
    /// No place to begin at.
    #[error("from is an offset, oldest or newest")]
    From,
    /// No time.
    #[error("since: {BadMoment}")]
    Since,
    /// Two places.
    #[error("from and since are two places to begin at: say one")]
    Both,
    /// The id that it came back with is none of ours.
    #[error("Last-Event-ID is not the id of an event of this stream: an offset")]
    LastEventId,
    /// No token opens commands.
    #[error("commands are between dispatchers and hosts: no reader's token opens them")]
    Commands,
    /// Its own token does not open that.
    #[error("this token does not open that: see `outhaul reader list` for what it may")]
    Rights,
}

impl Refusal {
    /// Whether it was understood, and may not be.
    #[must_use]
    pub const fn is_forbidden(self) -> bool {
        match self {
            Self::Commands | Self::Rights => true,
            Self::Host
            | Self::Sandbox
            | Self::Kind
            | Self::From
            | Self::Since
            | Self::Both
            | Self::LastEventId => false,
        }
    }
}

impl Asked {
    /// Decides. What is not asked for is narrowed to what the reader may; what is asked for and not its to read is refused.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn decide(
        &self,
        principal: &Principal,
        rights: &Rights,
        last_event_id: Option<&str>,
    ) -> Result<Ask, Refusal> {
        let host = self.host.as_deref().map(HostId::new).transpose();
        let host = host.map_err(|_| Refusal::Host)?;
        let sandbox = self.sandbox.as_deref().map(SandboxId::new).transpose();
        let sandbox = sandbox.map_err(|_| Refusal::Sandbox)?;
        let begin = match last_event_id.filter(|id| !id.is_empty()) {
            // It says where it is, and comes back to the address that it began with.
            Some(id) => {
                let seen = offset(id).ok_or(Refusal::LastEventId)?;
                Begin::With(Start::Offset(seen.saturating_add(1)))
            }
            None => self.begin()?,
        };
        let (own_host, own_sandbox) = rights.limits();
        let host = host.or_else(|| own_host.cloned());
        let events = Selected {
            filter: ReadFilter::Events {
                host: host.clone(),
                sandbox: sandbox.clone().or_else(|| own_sandbox.cloned()),
            },
            sandbox: sandbox.clone().or_else(|| own_sandbox.cloned()),
        };
        let reports = Selected {
            filter: ReadFilter::Reports { host },
            sandbox,
        };
        let asked = match self.kind.as_deref() {
            None => vec![events, reports],
            Some("event") => vec![events],
            Some("report") => vec![reports],
            Some("command") => return Err(Refusal::Commands),
            Some(_) => return Err(Refusal::Kind),
        };
        let may = |selected: &Selected| {
            let filter = selected.filter.to_string();
            let decision = acl::decide(principal, Action::Subscribe(&filter));
            matches!(decision, Decision::Allow { .. })
        };
        let selected: Vec<_> = asked.into_iter().filter(may).collect();
        if selected.is_empty() {
            return Err(Refusal::Rights);
        }
        Ok(Ask { selected, begin })
    }

    fn begin(&self) -> Result<Begin, Refusal> {
        let start = match (self.from.as_deref(), self.since.as_deref()) {
            (Some(_), Some(_)) => return Err(Refusal::Both),
            (None, Some(time)) => {
                let time = time.parse().map_err(|BadMoment| Refusal::Since)?;
                return Ok(Begin::Since(time));
            }
            (None | Some("newest"), None) => Start::Now,
            (Some("oldest"), None) => Start::Oldest,
            (Some(text), None) => Start::Offset(offset(text).ok_or(Refusal::From)?),
        };
        Ok(Begin::With(start))
    }
}

/// An offset as we write them: `+7` is none.
fn offset(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Whether a client that says this in `Accept` takes a stream of events (RFC 9110 §12.5.1). The most exact of its words counts.
#[must_use]
pub fn accepts(accept: &str) -> bool {
    let mut best = (0, false);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let exactness = match name.as_str() {
            super::CONTENT_TYPE => 3,
            "text/*" => 2,
            "*/*" => 1,
            _ => continue,
        };
        let is_refused = parts.any(|part| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|q| q <= 0.0))
        });
        if exactness > best.0 {
            best = (exactness, !is_refused);
        }
    }
    best.1
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1); the scheme's letters may be of either case (RFC 9110 §11.1).
#[must_use]
pub fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = authorization.split_first_chunk::<7>()?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::reader::tests::reader;

    fn asked(pairs: &[(&str, &str)]) -> Asked {
        let of = |name| {
            let mut found = pairs.iter().filter(|(key, _)| *key == name);
            found.next().map(|(_, value)| (*value).to_owned())
        };
        Asked {
            host: of("host"),
            sandbox: of("sandbox"),
            kind: of("kind"),
            from: of("from"),
            since: of("since"),
        }
    }

    fn decide(rights: &Rights, pairs: &[(&str, &str)]) -> Result<Ask, Refusal> {
        let principal = Principal::reader(&reader(rights), "any".to_owned());
        asked(pairs).decide(&principal, rights, None)
    }

    fn rights(words: &[&str], host: Option<&str>, sandbox: Option<&str>) -> Rights {
        let host = host.map(|host| HostId::new(host).unwrap());
        let sandbox = sandbox.map(|sandbox| SandboxId::new(sandbox).unwrap());
        Rights::from_words(words, host, sandbox).unwrap()
    }

    /// What is selected, in words: the filter, and the sandbox behind it.
    fn words(ask: Result<Ask, Refusal>) -> Result<Vec<String>, Refusal> {
        let word = |selected: &Selected| {
            let sandbox = selected.sandbox.as_ref().map_or("*", SandboxId::as_str);
            format!("{} {sandbox}", selected.filter)
        };
        ask.map(|ask| ask.selected.iter().map(word).collect())
    }

    /// Every kind of rights against every question about two hosts and two sandboxes: what is read is what was asked for, and no record
    /// is admitted that the rights do not open.
    #[test]
    fn nobody_is_given_more_than_its_rights_or_other_than_it_asked() {
        let names = [None, Some("a"), Some("b")];
        let kinds = [None, Some("event"), Some("report"), Some("command")];
        for may in [
            &["events"][..],
            &["reports"],
            &["events", "reports"],
            &["metrics"],
        ] {
            for (own_host, own_sandbox) in [(None, None), (Some("a"), None), (Some("a"), Some("a"))]
            {
                let rights = rights(may, own_host, own_sandbox);
                for (host, sandbox, kind) in names.iter().flat_map(|host| {
                    names
                        .iter()
                        .flat_map(move |sandbox| kinds.map(|kind| (*host, *sandbox, kind)))
                }) {
                    let pairs: Vec<_> = [("host", host), ("sandbox", sandbox), ("kind", kind)]
                        .into_iter()
                        .filter_map(|(name, value)| Some((name, value?)))
                        .collect();
                    let fits = |own: Option<&str>, asked: Option<&str>| {
                        own.is_none() || asked.is_none() || own == asked
                    };
                    let is_open = |word: &str| {
                        may.contains(&format!("{word}s").as_str())
                            && kind.is_none_or(|kind| kind == word)
                            && fits(own_host, host)
                            && (word == "report" || fits(own_sandbox, sandbox))
                    };
                    let ask = decide(&rights, &pairs);
                    let expected = is_open("event") || is_open("report");
                    assert_eq!(ask.is_ok(), expected, "{rights:?} {pairs:?}");
                    let Ok(ask) = ask else { continue };
                    for selected in &ask.selected {
                        let (word, of_host) = match &selected.filter {
                            ReadFilter::Events { host, sandbox } => {
                                assert_eq!(*sandbox, selected.sandbox);
                                assert!(own_sandbox.is_none() || sandbox.is_some());
                                ("event", host)
                            }
                            ReadFilter::Reports { host } => ("report", host),
                        };
                        let of_host = of_host.as_ref().map(HostId::as_str);
                        let of_sandbox = selected.sandbox.as_ref().map(SandboxId::as_str);
                        assert!(may.contains(&format!("{word}s").as_str()));
                        assert!(kind.is_none_or(|kind| kind == word));
                        assert_eq!(of_host, host.or(own_host));
                        assert!(own_host.is_none_or(|own| Some(own) == of_host));
                        assert!(sandbox.is_none() || of_sandbox == sandbox);
                        if word == "event" {
                            assert!(own_sandbox.is_none_or(|own| Some(own) == of_sandbox));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_said_is_as_wide_as_the_token_and_what_is_said_is_as_narrow_as_it_says() {
        let all = rights(&["events", "reports"], None, None);
        let one = rights(&["events"], Some("a"), Some("x"));
        for (rights, pairs, expected) in [
            (&all, &[][..], &["v1/+/+/events *", "v1/+/reports *"][..]),
            (
                &all,
                &[("host", "a"), ("sandbox", "x")],
                &["v1/a/x/events x", "v1/a/reports x"],
            ),
            (
                &all,
                &[("sandbox", "x"), ("kind", "event")],
                &["v1/+/x/events x"],
            ),
            (&one, &[], &["v1/a/x/events x"]),
        ] {
            assert_eq!(words(decide(rights, pairs)).unwrap(), expected, "{pairs:?}");
        }
        for pairs in [[("host", "b")], [("sandbox", "y")], [("kind", "report")]] {
            assert_eq!(decide(&one, &pairs), Err(Refusal::Rights), "{pairs:?}");
        }
        let metrics = rights(&["metrics"], None, None);
        assert_eq!(decide(&metrics, &[]), Err(Refusal::Rights));
        assert_eq!(decide(&Rights::Bench, &[]), Err(Refusal::Rights));
    }

    #[test]
    fn a_question_that_is_none_is_told_what_is_wrong_with_it() {
        let all = rights(&["events", "reports"], None, None);
        for (name, value, refusal) in [
            ("host", "Edge", Refusal::Host),
            ("host", "", Refusal::Host),
            ("sandbox", "a/b", Refusal::Sandbox),
            ("kind", "gap", Refusal::Kind),
            ("kind", "command", Refusal::Commands),
            ("from", "-1", Refusal::From),
            ("from", "+1", Refusal::From),
            ("from", "", Refusal::From),
            ("since", "", Refusal::Since),
            ("since", "soon", Refusal::Since),
            ("from", "99999999999999999999", Refusal::From),
        ] {
            assert_eq!(decide(&all, &[(name, value)]), Err(refusal), "{value:?}");
        }
    }

    #[test]
    fn it_begins_where_it_says_and_goes_on_after_the_last_event_it_had() {
        let all = rights(&["events"], None, None);
        let principal = Principal::reader(&reader(&all), "any".to_owned());
        for (from, last, expected) in [
            (None, None, Ok(Start::Now)),
            (Some("newest"), None, Ok(Start::Now)),
            (Some("oldest"), None, Ok(Start::Oldest)),
            (Some("0"), None, Ok(Start::Offset(0))),
            (Some("oldest"), Some("41"), Ok(Start::Offset(42))),
            (None, Some(""), Ok(Start::Now)),
            (None, Some("x"), Err(Refusal::LastEventId)),
            (
                None,
                Some("18446744073709551615"),
                Ok(Start::Offset(u64::MAX)),
            ),
        ] {
            let pairs: Vec<_> = from.map(|from| ("from", from)).into_iter().collect();
            let ask = asked(&pairs).decide(&principal, &all, last);
            let begin = ask.map(|ask| ask.begin);
            assert_eq!(begin, expected.map(Begin::With), "{from:?} {last:?}");
        }
        let since = decide(&all, &[("since", "10m")]).unwrap().begin;
        let ten_minutes = std::time::Duration::from_secs(600);
        assert_eq!(since, Begin::Since(Moment::Ago(ten_minutes)));
        let both = [("since", "10m"), ("from", "0")];
        assert_eq!(decide(&all, &both), Err(Refusal::Both));
    }

    #[test]
    fn the_most_exact_word_of_accept_counts() {
        for (accept, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream; charset=utf-8", true),
            ("text/html, text/*;q=0.1", true),
            ("*/*", true),
            ("text/event-stream;q=0, */*", false),
            ("*/*, text/event-stream; q=0.0", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(accepts(accept), expected, "{accept:?}");
        }
    }

    #[test]
    fn a_bearer_token_is_what_stands_behind_the_word() {
        assert_eq!(bearer(b"Bearer ort1_x"), Some(&b"ort1_x"[..]));
        assert_eq!(bearer(b"bearer  ort1_x "), Some(&b"ort1_x"[..]));
        for other in [&b"Basic ort1_x"[..], b"Bearer", b"", b"Bearerort1_x"] {
            assert_eq!(bearer(other), None);
        }
    }
}
