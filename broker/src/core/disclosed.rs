//! To whom content was disclosed lately, and whether that is in the audit trail already.
//!
//! Every reading has a row that names who read and what, no older than [`WINDOW_MS`] when it begins. Reading the same again costs no row
//! meanwhile, and of many things at once the rest are one row: so nobody who may read can have the broker write without end.

use std::collections::{BTreeMap, BTreeSet};

use protocol::time::UnixMillis;

/// How long a row speaks for readings of the same by the same.
pub const WINDOW_MS: u64 = 60_000;
/// Rows of one actor within a window, before [`EVERYTHING`] stands for the rest.
pub const ROWS_MAX: usize = 32;
/// Actors that are remembered; past that those whose window is over are forgotten first, and a forgotten one only gets rows anew.
pub const ACTORS_MAX: usize = 4_096;
/// What a row names that stands for anything that its actor may read.
pub const EVERYTHING: &str = "*";

/// What has its row.
#[derive(Debug, Default)]
pub struct Disclosed {
    actors: BTreeMap<String, Lately>,
}

#[derive(Debug)]
struct Lately {
    since: UnixMillis,
    subjects: BTreeSet<String>,
}

impl Disclosed {
    /// Begins a reading of `subject` by `actor`: what its row is to name, or none if a row speaks for it already.
    ///
    /// If the row cannot be written, say so with [`Disclosed::forget`].
    pub fn begin(&mut self, actor: &str, subject: &str, now: UnixMillis) -> Option<String> {
        let is_over = |lately: &Lately| now.0.abs_diff(lately.since.0) >= WINDOW_MS;
        if self.actors.len() >= ACTORS_MAX && !self.actors.contains_key(actor) {
            self.actors.retain(|_, lately| !is_over(lately));
            if self.actors.len() >= ACTORS_MAX {
                self.actors.pop_first();
            }
        }
        let lately = self
            .actors
            .entry(actor.to_owned())
            .or_insert_with(|| Lately {
                since: now,
                subjects: BTreeSet::new(),
            });
        if is_over(lately) {
            lately.since = now;
            lately.subjects.clear();
        }
        let subjects = &mut lately.subjects;
        if subjects.contains(subject) || subjects.contains(EVERYTHING) {
            return None;
        }
        let named = if subjects.len() < ROWS_MAX {
            subject
        } else {
            EVERYTHING
        };
        subjects.insert(named.to_owned());
        Some(named.to_owned())
    }

    /// A row was not written: the next reading tries again.
    pub fn forget(&mut self, actor: &str) {
        self.actors.remove(actor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn later(ms: u64) -> UnixMillis {
        UnixMillis(NOW.0 + ms)
    }

    #[test]
    fn a_row_speaks_for_the_same_reading_for_a_minute_and_for_no_other() {
        let mut disclosed = Disclosed::default();
        let mut begin = |actor, subject, at| disclosed.begin(actor, subject, at);
        assert_eq!(begin("uid:0", "edge-1/a", NOW).as_deref(), Some("edge-1/a"));
        assert_eq!(begin("uid:0", "edge-1/a", later(WINDOW_MS - 1)), None);
        assert!(begin("uid:0", "edge-1/b", later(1)).is_some());
        assert!(begin("token:ada", "edge-1/a", later(1)).is_some());
        assert!(begin("uid:0", "edge-1/a", later(WINDOW_MS)).is_some());
        // A clock that was set back does not keep anybody from the record.
        assert!(begin("token:ada", "edge-1/a", UnixMillis(5)).is_some());
    }

    #[test]
    fn of_many_readings_at_once_the_rest_are_one_row() {
        let mut disclosed = Disclosed::default();
        let rows: Vec<String> = (0..10 * ROWS_MAX)
            .filter_map(|number| disclosed.begin("uid:0", &format!("edge-1/{number}"), NOW))
            .collect();
        assert_eq!(rows.len(), ROWS_MAX + 1);
        assert_eq!(rows.last().unwrap(), EVERYTHING);
        assert!(disclosed.begin("uid:1", "edge-1/0", NOW).is_some());
    }

    #[test]
    fn what_was_not_written_is_tried_again_and_memory_is_bounded() {
        let mut disclosed = Disclosed::default();
        assert!(disclosed.begin("uid:0", "edge-1", NOW).is_some());
        disclosed.forget("uid:0");
        assert!(disclosed.begin("uid:0", "edge-1", NOW).is_some());
        for number in 0..2 * ACTORS_MAX {
            assert!(
                disclosed
                    .begin(&format!("token:{number}"), "*", NOW)
                    .is_some()
            );
        }
        assert!(disclosed.actors.len() <= ACTORS_MAX);
    }
}
