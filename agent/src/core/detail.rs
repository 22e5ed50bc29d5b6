//! What a report says for a person: our own words, and the engine's, without the names of places on the host.
//!
//! An engine likes to name the path that it stumbled over. The operator's log keeps it; the platform has no business with it.

use protocol::report;

/// What stands in a path's place.
const ELIDED: &str = "(path)";

/// `text` as a report may carry it: without host paths, and no longer than a detail may be.
#[must_use]
pub fn outward(text: &str) -> String {
    report::detail(&without_paths(text))
}

/// Replaces absolute paths: a `/` that begins a word, to the end of that word. What follows `//` is an address and stays, as does an
/// image's name, whose slashes stand inside it.
fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let is_path = c == '/' && begins_word(before) && !after.starts_with('/');
        if is_path {
            out.push_str(ELIDED);
            let end = after.find(ends_path).unwrap_or(after.len());
            rest = after.get(end..).unwrap_or_default();
            before = ')';
        } else {
            out.push(c);
            rest = after;
            before = c;
        }
    }
    out
}

fn begins_word(before: char) -> bool {
    before.is_whitespace()
        || matches!(
            before,
            '"' | '\'' | '`' | '(' | '[' | '{' | '<' | '=' | ':' | ',' | ';'
        )
}

fn ends_path(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '"' | '\'' | '`' | ')' | ']' | '}' | '>' | ':' | ',' | ';'
        )
}

#[cfg(test)]
mod tests {
    use protocol::limits::DETAIL_BYTES_MAX;

    use super::*;

    #[test]
    fn no_path_of_the_host_leaves_it() {
        for (said, told) in [
            (
                "bind source path does not exist: /srv/secret/project",
                "bind source path does not exist: (path)",
            ),
            (
                "error while mounting \"/var/lib/docker/overlay2/x\": denied",
                "error while mounting \"(path)\": denied",
            ),
            (
                "/a:/b,/c (/d) [/e]",
                "(path):(path),(path) ((path)) [(path)]",
            ),
            ("source=/home/ada/x", "source=(path)"),
            ("/", "(path)"),
        ] {
            assert_eq!(outward(said), told);
        }
    }

    #[test]
    fn images_addresses_and_rules_stay() {
        for said in [
            "pull registry.example/team/tools:1: not found",
            "Get \"https://registry.example/v2/\": no such host",
            "asked for 4.000, this host gives at most 2.000",
            "read and/or write",
            "ünïcode → stays",
        ] {
            assert_eq!(outward(said), said);
        }
    }

    #[test]
    fn a_detail_is_cut_after_its_paths_are_gone() {
        let path = format!("x: /{}", "p".repeat(4 * DETAIL_BYTES_MAX));
        assert_eq!(outward(&path), "x: (path)");
        assert_eq!(
            outward(&"y".repeat(4 * DETAIL_BYTES_MAX)).len(),
            DETAIL_BYTES_MAX
        );
    }
}
