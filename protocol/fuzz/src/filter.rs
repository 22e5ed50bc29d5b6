//! Topic filters from the words of `SPEC.md` 4.1 and MQTT 5.0 §4.7, the slow way.

use protocol::limits::TOPIC_BYTES_MAX;

/// Whether a scope may hold this filter.
pub fn is_filter(text: &str) -> bool {
    let levels: Vec<_> = text.split('/').collect();
    let (last, front) = levels.split_last().expect("a split has one part at least");
    text.len() <= TOPIC_BYTES_MAX
        && is_level(last)
        && front.iter().all(|l| is_level(l) && *l != "#")
}

fn is_level(level: &str) -> bool {
    let is_plain = |c: char| c.is_ascii() && c > ' ' && c < '\x7f' && !"+#$".contains(c);
    matches!(level, "+" | "#") || (!level.is_empty() && level.chars().all(is_plain))
}

/// Whether every topic that `filter` matches is matched by `rule`.
pub fn covers(rule: &str, filter: &str) -> bool {
    let split = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    is_filter(rule) && is_filter(filter) && levels_cover(&split(rule), &split(filter))
}

fn levels_cover(rule: &[String], filter: &[String]) -> bool {
    match (rule, filter) {
        ([], []) => true,
        ([all], _) if all == "#" => true,
        ([one, rule @ ..], [other, filter @ ..]) => {
            let level_covers = one == other || (one == "+" && other != "#");
            level_covers && levels_cover(rule, filter)
        }
        _ => false,
    }
}

/// Whether a topic without wildcards is one of those that `filter` means.
pub fn matches(filter: &str, topic: &str) -> bool {
    match (filter.split_once('/'), topic.split_once('/')) {
        _ if filter == "#" => true,
        (Some((level, filter)), Some((name, topic))) => {
            (level == "+" || level == name) && matches(filter, topic)
        }
        // `a/#` means `a` too.
        (Some((level, "#")), None) => level == "+" || level == topic,
        (None, None) => filter == "+" || filter == topic,
        _ => false,
    }
}
