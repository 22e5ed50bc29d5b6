//! When a certificate's end is worth a word: 30, 7 and 1 days before it, each once.

use std::time::Duration;

use protocol::time::UnixMillis;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many days before the end something is said. Thirty are a change window, seven a working week, one a telephone call.
const SAY_AT_DAYS: [u32; 3] = [1, 7, 30];

/// What was said of one end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    said: Option<(UnixMillis, u32)>,
}

impl Watch {
    /// Whether the end of something is to be spoken of now: the days that are left, at the most. To be asked now and then.
    pub fn look(&mut self, not_after: UnixMillis, now: UnixMillis) -> Option<u32> {
        let left = |days: u32| now.plus(DAY * days) >= not_after;
        let days = SAY_AT_DAYS.into_iter().find(|days| left(*days))?;
        let said = self.said.filter(|(end, _)| *end == not_after);
        if said.is_some_and(|(_, said)| said <= days) {
            return None;
        }
        self.said = Some((not_after, days));
        Some(days)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: UnixMillis = UnixMillis(1_800_000_000_000);

    fn before(hours: u64) -> UnixMillis {
        UnixMillis(END.0 - hours * 3_600_000)
    }

    #[test]
    fn each_step_towards_the_end_is_said_once() {
        let mut watch = Watch::default();
        let said: Vec<_> = (0..=24 * 60)
            .rev()
            .filter_map(|hours| watch.look(END, before(hours)).map(|days| (hours, days)))
            .collect();
        assert_eq!(said, [(30 * 24, 30), (7 * 24, 7), (24, 1)]);
        assert_eq!(watch.look(END, UnixMillis(END.0 + 1)), None);
    }

    #[test]
    fn who_looks_late_is_told_the_nearest_step_and_a_new_end_starts_anew() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(END, before(5)), Some(1));
        let next = END.plus(DAY * 20);
        assert_eq!(watch.look(next, before(5)), Some(30));
        assert_eq!(watch.look(next.plus(DAY * 90), before(5)), None);
    }
}
