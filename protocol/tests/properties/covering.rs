//! Covering: a rule covers a filter if every topic of the filter is a topic of the rule. Held against sets of topics that are written out.

use proptest::{collection::vec, prelude::*, sample::select};
use protocol::scope::{Permission, Scope, is_filter};

use crate::any::cases;

/// The deepest filter that is tried.
const FILTER_LEVELS_MAX: usize = 4;

/// What the levels of topics are: two that filters name, and one that no filter does.
const NAMES: [&str; 3] = ["a", "b", "z"];

/// Every topic that can tell two filters apart: one level deeper than they, so that a final `#` is seen to have no end.
fn topics() -> Vec<Vec<&'static str>> {
    let mut all = Vec::new();
    let mut last = vec![Vec::new()];
    for _ in 0..=FILTER_LEVELS_MAX {
        last = last
            .iter()
            .flat_map(|front| NAMES.map(|name| [&front[..], &[name]].concat()))
            .collect();
        all.extend(last.clone());
    }
    all
}

/// MQTT 5.0 §4.7, level by level.
fn matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => matches(filter, topic),
        ([level, filter @ ..], [name, topic @ ..]) => level == name && matches(filter, topic),
        _ => false,
    }
}

fn levels(filter: &str) -> Vec<&str> {
    filter.split('/').collect()
}

fn permits(rule: &str, filter: &str) -> bool {
    Scope::one(rule.to_owned(), Permission::Pub)
        .rule_for(filter, Permission::Pub)
        .is_some()
}

fn filter() -> impl Strategy<Value = String> {
    let level = select(&["a", "b", "+"][..]);
    (vec(level, 0..=FILTER_LEVELS_MAX), any::<bool>()).prop_filter_map(
        "an empty filter",
        |(mut levels, is_open)| {
            if is_open || levels.is_empty() {
                levels.truncate(FILTER_LEVELS_MAX - 1);
                levels.push("#");
            }
            Some(levels.join("/"))
        },
    )
}

fn scope() -> impl Strategy<Value = Vec<(String, Vec<Permission>)>> {
    use Permission::{Pub, Sub};
    let permissions = select(vec![vec![Pub], vec![Sub], vec![Pub, Sub]]);
    vec((filter(), permissions), 0..4)
}

/// SPEC 4.1, from its words.
fn is_filter_by_the_words(text: &str) -> bool {
    let levels: Vec<&str> = text.split('/').collect();
    text.len() <= 256
        && levels
            .iter()
            .enumerate()
            .all(|(number, level)| match *level {
                "" => false,
                "+" => true,
                "#" => number + 1 == levels.len(),
                _ => level
                    .chars()
                    .all(|c| ('!'..='~').contains(&c) && !"+#$".contains(c)),
            })
}

proptest! {
    #![proptest_config(cases(2500))]

    // The one exception: every topic has a level, so `+/#` matches what `#` matches, and yet level by level it does not cover it. Nobody
    // writes it, and to refuse it is the safe side.
    #[test]
    fn a_rule_covers_a_filter_if_and_only_if_it_matches_all_that_the_filter_matches(
        rule in filter(), filter in filter(),
    ) {
        let (rule_levels, filter_levels) = (levels(&rule), levels(&filter));
        let is_within = topics()
            .iter()
            .all(|topic| !matches(&filter_levels, topic) || matches(&rule_levels, topic));
        let is_exception = rule == "+/#" && filter == "#";
        prop_assert_eq!(permits(&rule, &filter), is_within && !is_exception);
    }

    #[test]
    fn a_topic_is_permitted_if_and_only_if_it_is_matched(rule in filter(), topic in vec(select(&NAMES[..]), 1..=5)) {
        prop_assert_eq!(permits(&rule, &topic.join("/")), matches(&levels(&rule), &topic));
    }

    #[test]
    fn a_filter_is_what_the_words_say(
        text in prop_oneof!["([ab+#]|[ -~]|/){0,8}", "([a+]/){0,4}[a#]?", "[a-z/]{250,260}", "\\PC{0,6}"],
    ) {
        prop_assert_eq!(is_filter(&text), is_filter_by_the_words(&text));
        if !is_filter(&text) {
            prop_assert!(!permits("#", &text) && !permits(&text, &text));
        }
    }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_scope_covers_another_if_one_entry_covers_each_of_its_permissions(ours in scope(), theirs in scope()) {
        let expected = theirs.iter().all(|(filter, permissions)| {
            permissions.iter().all(|permission| {
                ours.iter().any(|(rule, given)| given.contains(permission) && permits(rule, filter))
            })
        });
        let covers = Scope::new(ours.clone()).covers(&Scope::new(theirs.clone()));
        prop_assert_eq!(covers, expected);
        // The point of it: no topic is gained.
        let may = |scope: &[(String, Vec<Permission>)], topic: &[&str], permission| {
            scope.iter().any(|(filter, given)| given.contains(&permission) && matches(&levels(filter), topic))
        };
        for topic in topics().iter().filter(|_| covers) {
            for permission in [Permission::Pub, Permission::Sub] {
                prop_assert!(!may(&theirs, topic, permission) || may(&ours, topic, permission));
            }
        }
    }

    #[test]
    fn covering_is_transitive_and_every_filter_covers_itself(one in filter(), two in filter(), three in filter()) {
        prop_assert!(permits(&one, &one));
        prop_assert!(!(permits(&one, &two) && permits(&two, &three)) || permits(&one, &three));
    }
}
