//! What is logged: a level, and other levels for parts of the program.

use std::str::FromStr;

use tracing::Level;
use tracing::level_filters::LevelFilter;

/// Targets that a filter may name; there are fewer modules.
const TARGETS_MAX: usize = 64;

/// A filter. What it does not name passes at its own level, and not at all if it gives none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    all: LevelFilter,
    /// The longest name first, so that the first that fits is the closest.
    targets: Vec<(String, LevelFilter)>,
}

/// The text is no filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadFilter(&'static str);

impl Filter {
    /// Whether an event of this target and level is logged.
    pub(super) fn passes(&self, target: &str, level: Level) -> bool {
        let named = self.targets.iter().find(|(name, _)| is_in(target, name));
        level <= named.map_or(self.all, |(_, level)| *level)
    }

    /// The most that passes anywhere.
    pub(super) fn max(&self) -> LevelFilter {
        let named = self.targets.iter().map(|(_, level)| *level);
        named.fold(self.all, LevelFilter::max)
    }
}

/// Whether the module `target` is `name` or below it.
fn is_in(target: &str, name: &str) -> bool {
    target
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl FromStr for Filter {
    type Err = BadFilter;
    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let mut filter = Self {
            all: LevelFilter::OFF,
            targets: Vec::new(),
        };
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                Some((name, level)) if !name.is_empty() => {
                    filter.targets.push((name.to_owned(), read_level(level)?));
                }
                Some(_) => return Err(BadFilter("a level without a target before its `=`")),
                None => filter.all = read_level(part)?,
            }
        }
        if filter.targets.len() > TARGETS_MAX {
            return Err(BadFilter("too many targets"));
        }
        filter
            .targets
            .sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        Ok(filter)
    }
}

fn read_level(text: &str) -> Result<LevelFilter, BadFilter> {
    let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_word
        .then(|| text.parse().ok())
        .flatten()
        .ok_or(BadFilter(
            "not a level: off, error, warn, info, debug or trace",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_counts_for_all_and_the_closest_target_before_it() {
        let filter: Filter = "warn,agent=debug,agent::shell=error".parse().unwrap();
        for (target, level, passes) in [
            ("hyper", Level::WARN, true),
            ("hyper", Level::INFO, false),
            ("agent", Level::DEBUG, true),
            ("agent::drive", Level::DEBUG, true),
            ("agent::drive", Level::TRACE, false),
            ("agent::shell::mqtt", Level::WARN, false),
            ("agents", Level::INFO, false),
        ] {
            assert_eq!(filter.passes(target, level), passes, "{target} {level}");
        }
        assert_eq!(filter.max(), LevelFilter::DEBUG);
        let named: Filter = "agent=info".parse().unwrap();
        assert!(
            !named.passes("hyper", Level::ERROR),
            "nothing was said of it"
        );
        assert!(
            !"off"
                .parse::<Filter>()
                .unwrap()
                .passes("agent", Level::ERROR)
        );
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for bad in [
            "",
            "loud",
            "agent=",
            "=info",
            "info,,warn",
            "agent=loud",
            "3",
        ] {
            assert!(bad.parse::<Filter>().is_err(), "{bad:?}");
        }
        let many = vec!["a=info"; TARGETS_MAX + 1].join(",");
        assert!(many.parse::<Filter>().is_err());
    }
}
