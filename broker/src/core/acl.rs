//! What a principal may publish and subscribe to. Default deny: what is not allowed here, by a named rule, is refused.
//!
//! Three things must agree: the topic is in the grammar ([`Topic`]), it is the principal's own by its subject, and a filter of the
//! token's scope covers it. Structured names are compared, never parts of strings.

use protocol::{
    limits::TOPIC_BYTES_MAX,
    mqtt::ReasonCode,
    scope::Permission,
    token::Subject,
    topic::{ReadFilter, Topic, is_bench_filter, is_bench_topic},
};

use super::principal::{Principal, Who};

/// Levels of a topic that we look at; our own have four. Past that it is no topic of anybody's.
const TOPIC_LEVELS_MAX: usize = 8;

/// What a principal asks to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Publish to this topic name.
    Publish(&'a str),
    /// Subscribe to this filter.
    Subscribe(&'a str),
}

/// Where a topic or a filter leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A host's or sandbox's own topic.
    Own(Topic),
    /// Records of the journal, for a reader.
    Records(ReadFilter),
    /// The journal's partition for load tests.
    Bench,
}

/// Whether it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Yes.
    Allow {
        /// The filter of the scope that says so.
        rule: &'a str,
        /// Where it leads.
        place: Place,
    },
    /// No.
    Refuse {
        /// What to answer.
        reason: ReasonCode,
        /// What to note; never a word of what was asked for.
        why: &'static str,
    },
}

/// Decides.
#[must_use]
pub fn decide<'a>(principal: &'a Principal, action: Action<'_>) -> Decision<'a> {
    match action {
        Action::Publish(topic) => decide_publish(principal, topic),
        Action::Subscribe(filter) => decide_subscribe(principal, filter),
    }
}

fn decide_publish<'a>(principal: &'a Principal, topic: &str) -> Decision<'a> {
    if !is_name(topic) {
        return refuse(ReasonCode::TOPIC_NAME_INVALID, "not a topic name");
    }
    let place = match principal.who() {
        Who::Subject(subject) => Topic::parse(topic)
            .filter(|topic| may_publish(subject, topic))
            .map(Place::Own),
        Who::Reader { .. } => {
            (principal.is_bench() && is_bench_topic(topic)).then_some(Place::Bench)
        }
    };
    allow(principal, place, topic, Permission::Pub)
}

fn decide_subscribe<'a>(principal: &'a Principal, filter: &str) -> Decision<'a> {
    if filter.starts_with("$share/") {
        let reason = ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED;
        return refuse(reason, "a shared subscription");
    }
    let place = match principal.who() {
        Who::Subject(subject) => {
            let is_host = matches!(subject, Subject::Host(_));
            if is_host && !filter.starts_with('$') && filter.contains(['+', '#']) {
                let reason = ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED;
                return refuse(reason, "a subscription with wildcards");
            }
            Topic::parse(filter)
                .filter(|topic| may_subscribe(subject, topic))
                .map(Place::Own)
        }
        Who::Reader { .. } if principal.is_bench() => {
            is_bench_filter(filter).then_some(Place::Bench)
        }
        Who::Reader { .. } => ReadFilter::parse(filter).map(Place::Records),
    };
    allow(principal, place, filter, Permission::Sub)
}

/// The last word is the scope's.
fn allow<'a>(
    principal: &'a Principal,
    place: Option<Place>,
    text: &str,
    permission: Permission,
) -> Decision<'a> {
    let rule = principal.scope().rule_for(text, permission);
    match (place, rule) {
        (Some(place), Some(rule)) => Decision::Allow { rule, place },
        (None, _) => refuse(ReasonCode::NOT_AUTHORIZED, "not a topic of its own"),
        (Some(_), None) => refuse(ReasonCode::NOT_AUTHORIZED, "not in its token's scope"),
    }
}

const fn refuse<'a>(reason: ReasonCode, why: &'static str) -> Decision<'a> {
    Decision::Refuse { reason, why }
}

/// Whether a subject of this kind ever publishes there, whatever its token says. Commands come in over the local API only.
fn may_publish(subject: &Subject, topic: &Topic) -> bool {
    match (subject, topic) {
        (Subject::Host(own), Topic::Reports(host)) => own == host,
        (Subject::Sandbox(own, own_sandbox), Topic::Events(host, sandbox)) => {
            own == host && own_sandbox == sandbox
        }
        (Subject::Host(_), Topic::Commands(_) | Topic::Events(..))
        | (Subject::Sandbox(..), Topic::Commands(_) | Topic::Reports(_)) => false,
    }
}

/// Whether a subject of this kind ever subscribes to it, whatever its token says.
fn may_subscribe(subject: &Subject, topic: &Topic) -> bool {
    match (subject, topic) {
        (Subject::Host(own), Topic::Commands(host)) => own == host,
        (Subject::Host(_), Topic::Reports(_) | Topic::Events(..)) | (Subject::Sandbox(..), _) => {
            false
        }
    }
}

/// Whether `topic` could be the name of a topic of ours at all.
fn is_name(topic: &str) -> bool {
    topic.len() <= TOPIC_BYTES_MAX
        && topic.split('/').count() <= TOPIC_LEVELS_MAX
        && topic
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'+' && b != b'#')
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            principal::tests::principal,
            reader::{
                Reader, Rights,
                tests::{everything, reader},
            },
        },
        *,
    };
    use protocol::scope::Scope;

    fn reader_of_bench() -> Reader {
        reader(&Rights::Bench)
    }

    fn reason(decision: &Decision<'_>) -> Option<ReasonCode> {
        match decision {
            Decision::Allow { .. } => None,
            Decision::Refuse { reason, .. } => Some(*reason),
        }
    }

    fn host_scope() -> Scope {
        Scope::new(vec![
            ("v1/a/commands".to_owned(), vec![Permission::Sub]),
            ("v1/a/reports".to_owned(), vec![Permission::Pub]),
        ])
    }

    fn sandbox_scope() -> Scope {
        Scope::one("v1/a/x/events".to_owned(), Permission::Pub)
    }

    /// Every text of up to five levels over a small alphabet.
    fn texts() -> Vec<String> {
        let levels = [
            "v1", "a", "b", "x", "commands", "reports", "events", "+", "#", "",
        ];
        let mut all = Vec::new();
        let mut last = vec![Vec::new()];
        for _ in 0..4 {
            last = last
                .iter()
                .flat_map(|front: &Vec<&str>| {
                    levels.map(|level| [front.as_slice(), &[level]].concat())
                })
                .collect();
            all.extend(last.iter().map(|levels| levels.join("/")));
        }
        all
    }

    #[test]
    fn of_every_small_topic_a_principal_of_ours_may_use_exactly_its_own() {
        let host = principal("a", host_scope());
        let sandbox = principal("a/x", sandbox_scope());
        for text in texts() {
            let allowed = |principal, action| reason(&decide(principal, action)).is_none();
            let (publish, subscribe) = (Action::Publish(&text), Action::Subscribe(&text));
            assert_eq!(allowed(&host, publish), text == "v1/a/reports", "{text}");
            assert_eq!(allowed(&host, subscribe), text == "v1/a/commands", "{text}");
            assert_eq!(
                allowed(&sandbox, publish),
                text == "v1/a/x/events",
                "{text}"
            );
            assert!(!allowed(&sandbox, subscribe), "{text}");
        }
    }

    /// Every scope of up to two entries: what is allowed is what the subject may by its kind *and* an entry permits.
    #[test]
    fn no_scope_widens_what_a_subject_is() {
        let filters = [
            "#",
            "v1/#",
            "v1/+/commands",
            "v1/+/+/events",
            "v1/b/reports",
            "v1/a/reports",
        ];
        let permissions = [vec![Permission::Pub], vec![Permission::Sub]];
        let entries: Vec<_> = filters
            .iter()
            .flat_map(|filter| permissions.clone().map(|p| ((*filter).to_owned(), p)))
            .collect();
        let topics = [
            "v1/a/commands",
            "v1/a/reports",
            "v1/a/x/events",
            "v1/a/y/events",
            "v1/b/reports",
            "v1/b/commands",
        ];
        for one in &entries {
            for other in &entries {
                let scope = Scope::new(vec![one.clone(), other.clone()]);
                for (subject, publishes, subscribes) in [
                    ("a", "v1/a/reports", Some("v1/a/commands")),
                    ("a/x", "v1/a/x/events", None),
                ] {
                    let principal = principal(subject, scope.clone());
                    for topic in topics {
                        let may =
                            topic == publishes && scope.rule_for(topic, Permission::Pub).is_some();
                        let decision = decide(&principal, Action::Publish(topic));
                        assert_eq!(
                            reason(&decision).is_none(),
                            may,
                            "{subject} {topic} {scope:?}"
                        );
                        let may = Some(topic) == subscribes
                            && scope.rule_for(topic, Permission::Sub).is_some();
                        let decision = decide(&principal, Action::Subscribe(topic));
                        assert_eq!(
                            reason(&decision).is_none(),
                            may,
                            "{subject} {topic} {scope:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn an_empty_scope_allows_nothing() {
        for (subject, action) in [
            ("a", Action::Publish("v1/a/reports")),
            ("a", Action::Subscribe("v1/a/commands")),
            ("a/x", Action::Publish("v1/a/x/events")),
        ] {
            let principal = principal(subject, Scope::default());
            let decision = decide(&principal, action);
            assert_eq!(reason(&decision), Some(ReasonCode::NOT_AUTHORIZED));
        }
    }

    #[test]
    fn what_is_allowed_names_its_rule_and_its_topic() {
        let scope = Scope::one("v1/a/+/events".to_owned(), Permission::Pub);
        let principal = principal("a/x", scope);
        let topic = Topic::parse("v1/a/x/events").unwrap();
        assert_eq!(
            decide(&principal, Action::Publish("v1/a/x/events")),
            Decision::Allow {
                rule: "v1/a/+/events",
                place: Place::Own(topic)
            }
        );
    }

    #[test]
    fn a_refusal_has_the_code_of_its_kind() {
        let (host, sandbox) = (
            principal("a", host_scope()),
            principal("a/x", sandbox_scope()),
        );
        let long = "a/".repeat(200);
        let deep = "a/".repeat(9);
        for (topic, code) in [
            ("é/x", ReasonCode::TOPIC_NAME_INVALID),
            ("v1/a/+/events", ReasonCode::TOPIC_NAME_INVALID),
            ("v1/a b/reports", ReasonCode::TOPIC_NAME_INVALID),
            (long.as_str(), ReasonCode::TOPIC_NAME_INVALID),
            (deep.as_str(), ReasonCode::TOPIC_NAME_INVALID),
            ("$SYS/x", ReasonCode::NOT_AUTHORIZED),
            ("$CONTROL/x", ReasonCode::NOT_AUTHORIZED),
            ("$share/g/v1/a/reports", ReasonCode::NOT_AUTHORIZED),
            ("v1/b/reports", ReasonCode::NOT_AUTHORIZED),
        ] {
            assert_eq!(
                reason(&decide(&host, Action::Publish(topic))),
                Some(code),
                "{topic}"
            );
        }
        for (filter, host_code, sandbox_code) in [
            (
                "#",
                ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
                ReasonCode::NOT_AUTHORIZED,
            ),
            (
                "v1/+/commands",
                ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED,
                ReasonCode::NOT_AUTHORIZED,
            ),
            (
                "$SYS/#",
                ReasonCode::NOT_AUTHORIZED,
                ReasonCode::NOT_AUTHORIZED,
            ),
            (
                "v1/b/commands",
                ReasonCode::NOT_AUTHORIZED,
                ReasonCode::NOT_AUTHORIZED,
            ),
            (
                "$share/g/v1/a/commands",
                ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
                ReasonCode::SHARED_SUBSCRIPTIONS_NOT_SUPPORTED,
            ),
        ] {
            assert_eq!(
                reason(&decide(&host, Action::Subscribe(filter))),
                Some(host_code),
                "{filter}"
            );
            assert_eq!(
                reason(&decide(&sandbox, Action::Subscribe(filter))),
                Some(sandbox_code),
                "{filter}"
            );
        }
    }

    #[test]
    fn a_reader_reads_what_its_rights_cover_and_publishes_nothing() {
        let reader = Principal::reader(&reader(&everything()), String::new());
        let bench = Principal::reader(&reader_of_bench(), String::new());
        for text in texts() {
            let allowed = |principal, action| reason(&decide(principal, action)).is_none();
            let (publish, subscribe) = (Action::Publish(&text), Action::Subscribe(&text));
            assert!(!allowed(&reader, publish), "{text}");
            assert_eq!(
                allowed(&reader, subscribe),
                ReadFilter::parse(&text).is_some(),
                "{text}"
            );
            assert!(
                !allowed(&bench, publish) && !allowed(&bench, subscribe),
                "{text}"
            );
        }
        for (text, publish, subscribe) in [
            ("bench/a/b", true, true),
            ("bench/+/b", false, true),
            ("bench/#", false, true),
            ("bench", false, false),
            ("bench/$a", false, false),
        ] {
            let may = |action| reason(&decide(&bench, action)).is_none();
            assert_eq!(may(Action::Publish(text)), publish, "{text}");
            assert_eq!(may(Action::Subscribe(text)), subscribe, "{text}");
            let reads = |action| reason(&decide(&reader, action)).is_none();
            assert!(!reads(Action::Publish(text)) && !reads(Action::Subscribe(text)));
        }
    }
}
