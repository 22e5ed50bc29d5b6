//! How many seats one host's sandboxes, and one reader's clients, may have at once.

use std::collections::BTreeMap;

use protocol::{
    id::{HostId, ReaderName},
    token::Subject,
};

use crate::core::principal::Who;

/// Sandboxes of one host that are connected at once: many times what a large machine runs, and what a broker of one gigabyte still has
/// room for, at 16 KiB each. The bench of idle connections opens ten thousand.
pub const SANDBOXES_PER_HOST_MAX: usize = 16_384;
/// Connections of one reader at once: each is a cursor that the journal is read for, and a token that leaked gives no more than these.
pub const CONNECTIONS_PER_READER_MAX: usize = 64;
/// The same of one load test, which is there to be many.
pub const BENCH_CONNECTIONS_MAX: usize = 16_384;

/// Counts seats by what they share. What has none is not kept.
#[derive(Debug, Default)]
pub(super) struct Quota {
    counts: BTreeMap<Group, usize>,
}

/// What seats share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    SandboxesOf(HostId),
    ClientsOf(ReaderName),
}

impl Group {
    /// A host's operator shares its one seat with nobody.
    fn of(who: &Who) -> Option<Self> {
        match who {
            Who::Subject(Subject::Host(_)) => None,
            Who::Subject(Subject::Sandbox(host, _)) => Some(Self::SandboxesOf(host.clone())),
            Who::Reader { name, .. } => Some(Self::ClientsOf(name.clone())),
        }
    }

    const fn bound(&self, is_bench: bool) -> usize {
        match self {
            Self::SandboxesOf(_) => SANDBOXES_PER_HOST_MAX,
            Self::ClientsOf(_) if is_bench => BENCH_CONNECTIONS_MAX,
            Self::ClientsOf(_) => CONNECTIONS_PER_READER_MAX,
        }
    }
}

impl Quota {
    /// Counts one seat more, if it may be.
    pub(super) fn take(&mut self, who: &Who, is_bench: bool) -> bool {
        let Some(group) = Group::of(who) else {
            return true;
        };
        let max = group.bound(is_bench);
        let count = self.counts.get(&group).copied().unwrap_or(0);
        if count < max {
            self.counts.insert(group, count + 1);
        }
        count < max
    }

    /// Counts one less.
    pub(super) fn give_back(&mut self, who: &Who) {
        let Some(group) = Group::of(who) else { return };
        if let Some(count) = self.counts.get_mut(&group) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&group);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(text: &str) -> Who {
        match text.strip_prefix("reader:") {
            None => Who::Subject(Subject::parse(text).unwrap()),
            Some(name) => Who::Reader {
                name: ReaderName::new(name).unwrap(),
                id: "any".to_owned(),
            },
        }
    }

    /// How many seats there are for it.
    fn room(quota: &mut Quota, who: &Who, is_bench: bool) -> usize {
        (0..=2 * SANDBOXES_PER_HOST_MAX)
            .take_while(|_| quota.take(who, is_bench))
            .count()
    }

    #[test]
    fn each_kind_has_its_own_bound_and_each_of_it_its_own_count() {
        let mut quota = Quota::default();
        for (text, is_bench, expected) in [
            ("edge-1/a", false, SANDBOXES_PER_HOST_MAX),
            ("edge-1/b", false, 0),
            ("edge-2/a", false, SANDBOXES_PER_HOST_MAX),
            ("reader:siem", false, 64),
            ("reader:other", false, 64),
            ("reader:load", true, BENCH_CONNECTIONS_MAX),
        ] {
            assert_eq!(room(&mut quota, &who(text), is_bench), expected, "{text}");
        }
        assert!(
            quota.take(&who("edge-1"), false),
            "operators are not counted"
        );
    }

    #[test]
    fn what_is_given_back_may_be_taken_again_and_nothing_stays_behind() {
        let mut quota = Quota::default();
        let (reader, operator) = (who("reader:siem"), who("edge-1"));
        assert_eq!(room(&mut quota, &reader, false), 64);
        quota.give_back(&operator);
        assert!(!quota.take(&reader, false));
        quota.give_back(&reader);
        assert!(quota.take(&reader, false) && !quota.take(&reader, false));
        (0..64).for_each(|_| quota.give_back(&reader));
        assert!(quota.is_empty());
        quota.give_back(&reader);
        assert!(quota.is_empty());
    }
}
