//! What a token permits: AIF-MQTT (RFC 9237, RFC 9431 §3), a list of `[topic filter, [permissions]]`.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    cbor,
    limits::{SCOPE_ENTRIES_MAX, TOKEN_BYTES_MAX, TOPIC_BYTES_MAX},
};

/// What may be done on a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Publish.
    Pub,
    /// Subscribe.
    Sub,
}

/// A list of permissions. Default deny: an empty scope permits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Vec<(String, Vec<Permission>)>);

impl Scope {
    /// A scope of `entries`.
    #[must_use]
    pub fn new(entries: Vec<(String, Vec<Permission>)>) -> Self {
        Self(entries)
    }

    /// One permission on one filter.
    #[must_use]
    pub fn one(filter: String, permission: Permission) -> Self {
        Self(vec![(filter, vec![permission])])
    }

    /// Whether `permission` on *all* that `filter` matches is permitted; the filter that covers it is the rule.
    #[must_use]
    pub fn rule_for(&self, filter: &str, permission: Permission) -> Option<&str> {
        self.0
            .iter()
            .find(|(rule, permissions)| permissions.contains(&permission) && covers(rule, filter))
            .map(|(rule, _)| rule.as_str())
    }

    /// Whether every permission of `child` is covered by one of ours.
    #[must_use]
    pub fn covers(&self, child: &Self) -> bool {
        child.0.iter().all(|(filter, permissions)| {
            permissions
                .iter()
                .all(|permission| self.rule_for(filter, *permission).is_some())
        })
    }

    /// The entries, as they were written.
    #[must_use]
    pub fn entries(&self) -> &[(String, Vec<Permission>)] {
        &self.0
    }

    fn is_within_bounds(&self) -> bool {
        self.0.len() <= SCOPE_ENTRIES_MAX
            && self.0.iter().all(|(filter, permissions)| {
                is_filter(filter)
                    && matches!(
                        permissions.as_slice(),
                        [_] | [Permission::Pub, Permission::Sub]
                    )
            })
    }
}

/// Whether `text` is a topic filter that a scope may hold: no empty level, wildcards alone in their level, `#` last, nothing that
/// starts with `$`.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    let is_level = |level: &str| {
        !level.is_empty()
            && (level == "+"
                || level == "#"
                || level
                    .bytes()
                    .all(|b| b.is_ascii_graphic() && !b"+#$".contains(&b)))
    };
    text.len() <= TOPIC_BYTES_MAX
        && text.split('/').all(is_level)
        && text.split('/').rev().skip(1).all(|level| level != "#")
}

/// Whether every topic that `filter` matches is matched by `rule`. Covering, not matching: `a/+` covers `a/b`, never the reverse. A
/// topic without wildcards is covered by what matches it.
#[must_use]
pub fn covers(rule: &str, filter: &str) -> bool {
    if !is_filter(filter) {
        return false;
    }
    let mut rule = rule.split('/');
    let mut filter = filter.split('/');
    loop {
        match (rule.next(), filter.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(level)) if level != "#" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// In a claim it is a byte string that holds the encoded list (RFC 9431 §3).
impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&cbor::to_vec(&self.0))
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        let scope = Self(cbor::from_slice(&bytes, TOKEN_BYTES_MAX).map_err(D::Error::custom)?);
        if scope.is_within_bounds() {
            Ok(scope)
        } else {
            Err(D::Error::custom("scope out of bounds"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEVELS: [&str; 4] = ["a", "b", "+", "#"];

    /// Every filter and every topic of up to three levels over a small alphabet.
    fn small_world() -> (Vec<String>, Vec<String>) {
        let mut all = vec![String::new()];
        let mut last = vec![String::new()];
        for _ in 0..3 {
            last = last
                .iter()
                .flat_map(|front| {
                    LEVELS.iter().map(move |level| {
                        if front.is_empty() {
                            (*level).to_owned()
                        } else {
                            format!("{front}/{level}")
                        }
                    })
                })
                .collect();
            all.extend(last.clone());
        }
        let filters: Vec<_> = all.into_iter().filter(|text| is_filter(text)).collect();
        let topics = filters
            .iter()
            .filter(|text| !text.contains(['+', '#']))
            .cloned()
            .collect();
        (filters, topics)
    }

    /// MQTT 5.0 §4.7, straight from its words.
    fn matches(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.split_first(), topic.split_first()) {
            (Some((&"#", _)), _) | (None, None) => true,
            (Some((level, filter)), Some((name, topic))) => {
                (*level == "+" || level == name) && matches(filter, topic)
            }
            _ => false,
        }
    }

    #[test]
    fn covering_means_every_topic_of_the_one_is_a_topic_of_the_other() {
        let (filters, topics) = small_world();
        let set = |filter: &str| -> Vec<bool> {
            let filter: Vec<_> = filter.split('/').collect();
            topics
                .iter()
                .map(|topic| matches(&filter, &topic.split('/').collect::<Vec<_>>()))
                .collect()
        };
        let sets: Vec<_> = filters.iter().map(|filter| set(filter)).collect();
        for (rule, rule_set) in filters.iter().zip(&sets) {
            for (filter, filter_set) in filters.iter().zip(&sets) {
                let within = filter_set
                    .iter()
                    .zip(rule_set)
                    .all(|(one, other)| !one || *other);
                if covers(rule, filter) {
                    assert!(within, "{rule} does not cover {filter}");
                } else if !filter.contains('#') && !rule.contains('#') {
                    assert!(!within, "{rule} covers {filter}");
                }
            }
        }
    }

    #[test]
    fn a_filter_outside_the_grammar_is_covered_by_nothing() {
        for bad in [
            "",
            "a//b",
            "/a",
            "a/",
            "a/#/b",
            "a#",
            "+a",
            "$SYS/x",
            "$share/g/a",
            "a b",
            "é",
            "a\0",
        ] {
            assert!(!is_filter(bad) && !covers("#", bad), "{bad:?}");
        }
    }

    #[test]
    fn pub_does_not_imply_sub() {
        let scope = Scope::one("v1/edge-1/+/events".into(), Permission::Pub);
        assert!(scope.covers(&Scope::one("v1/edge-1/a/events".into(), Permission::Pub)));
        assert!(!scope.covers(&Scope::one("v1/edge-1/a/events".into(), Permission::Sub)));
        assert!(!scope.covers(&Scope::one("v1/+/a/events".into(), Permission::Pub)));
        assert!(!scope.covers(&Scope::one("#".into(), Permission::Pub)));
        assert!(!Scope::default().covers(&scope) && scope.covers(&Scope::default()));
    }
}
