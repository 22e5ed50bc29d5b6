//! Who is connected now. A connection is known by its number: news of one that was replaced changes nothing.

use std::collections::BTreeMap;

use protocol::{id::HostId, token::Subject};

/// Everyone who is connected.
#[derive(Debug, Default)]
pub struct Presence {
    connections: BTreeMap<Subject, u64>,
}

/// What changed for a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was away and is here.
    Came,
    /// It was here, and is under another connection: nothing that anyone must be told.
    Moved,
    /// It was here and is away.
    Left,
    /// Nothing: the news is old.
    None,
}

impl Presence {
    /// Nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            connections: BTreeMap::new(),
        }
    }

    /// `subject` connected, under this number. Numbers count up; a smaller one than known is old news.
    pub fn connected(&mut self, subject: &Subject, connection: u64) -> Change {
        match self.connections.get_mut(subject) {
            None => {
                self.connections.insert(subject.clone(), connection);
                Change::Came
            }
            Some(current) if *current < connection => {
                *current = connection;
                Change::Moved
            }
            Some(_) => Change::None,
        }
    }

    /// The connection with this number ended.
    pub fn disconnected(&mut self, subject: &Subject, connection: u64) -> Change {
        if self.connections.get(subject) != Some(&connection) {
            return Change::None;
        }
        self.connections.remove(subject);
        Change::Left
    }

    /// Whether the operator of `host` is here.
    #[must_use]
    pub fn is_connected(&self, host: &HostId) -> bool {
        self.connections.contains_key(&Subject::Host(host.clone()))
    }

    /// How many operators are here.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.connections
            .keys()
            .filter(|subject| matches!(subject, Subject::Host(_)))
            .count()
    }

    /// Who of `host` is here: its operator, and its sandboxes.
    #[must_use]
    pub fn of_host(&self, host: &HostId) -> Vec<Subject> {
        self.connections
            .keys()
            .filter(|subject| subject.host() == host)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Subject {
        Subject::parse(name).unwrap()
    }

    #[test]
    fn a_takeover_is_no_absence_and_old_news_changes_nothing() {
        let mut presence = Presence::new();
        let edge = host("edge-1");
        assert_eq!(presence.connected(&edge, 1), Change::Came);
        assert_eq!(presence.connected(&edge, 2), Change::Moved);
        assert_eq!(
            presence.disconnected(&edge, 1),
            Change::None,
            "the one that was replaced"
        );
        assert!(presence.is_connected(edge.host()));
        assert_eq!(
            presence.connected(&edge, 1),
            Change::None,
            "late news of it"
        );
        assert_eq!(presence.disconnected(&edge, 2), Change::Left);
        assert_eq!(presence.disconnected(&edge, 2), Change::None);
        assert!(!presence.is_connected(edge.host()));
    }

    #[test]
    fn a_sandbox_is_not_its_host() {
        let mut presence = Presence::new();
        assert_eq!(presence.connected(&host("edge-1/build-7"), 1), Change::Came);
        assert_eq!(presence.hosts(), 0);
        assert!(!presence.is_connected(host("edge-1").host()));
        assert_eq!(
            presence.of_host(host("edge-1").host()),
            [host("edge-1/build-7")]
        );
        assert_eq!(presence.of_host(host("edge").host()), []);
    }
}
