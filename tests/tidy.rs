//! Architecture invariants that a compiler does not hold: read from the source, as text.
#![expect(
    clippy::unwrap_used,
    reason = "in a test a failed step is a failed test"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Past this a file names its reason in its module documentation, in a sentence that starts with "Long because".
const FILE_LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A source file: its path from the root, its text, and the same without its tests.
struct Source {
    path: String,
    text: String,
    code: String,
}

/// Every Rust file below these folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut pending: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let code = text
                .split("#[cfg(test)]\nmod tests")
                .next()
                .unwrap_or_default()
                .to_owned();
            let path = path
                .strip_prefix(root())
                .unwrap()
                .to_string_lossy()
                .into_owned();
            found.push(Source { path, text, code });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no sources below {folders:?}");
    found
}

fn all() -> Vec<Source> {
    sources(&[
        "protocol/src",
        "protocol/tests",
        "protocol/examples",
        "protocol/fuzz/src",
        "protocol/fuzz/fuzz_targets",
        "agent/src",
        "broker/src",
        "broker/fuzz/src",
        "broker/fuzz/fuzz_targets",
        "tests",
        "benches",
    ])
}

/// Whether a file holds tests only.
fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.starts_with("broker/fuzz/")
        || ["tests", "examples", "fuzz"]
            .iter()
            .any(|folder| path.starts_with(&format!("protocol/{folder}/")))
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
}

/// Code lines that contain one of `words`, as `path:line: text`, comments left out.
fn lines_with(sources: &[Source], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        for (index, line) in source.code.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                found.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    found
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n{}", found.join("\n"));
}

#[test]
fn core_and_protocol_touch_nothing() {
    let pure: Vec<_> = sources(&["protocol/src", "agent/src/core", "broker/src/core"])
        .into_iter()
        .filter(|source| !is_test(&source.path))
        .collect();
    let words = [
        "async ",
        ".await",
        "tokio::",
        "smol::",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::process",
        "std::os::unix::net",
        "Instant::now",
        "SystemTime::now",
        "getrandom",
        "rustix::",
        "hyper::",
        "rusqlite",
    ];
    assert_none(
        &lines_with(&pure, &words),
        "core and protocol are plain functions of values",
    );
}

#[test]
fn core_does_not_know_shell() {
    let core = sources(&["agent/src/core", "broker/src/core"]);
    assert_none(
        &lines_with(&core, &["shell::", "drive::"]),
        "core never calls shell",
    );
}

#[test]
fn agent_and_broker_do_not_know_each_other_nor_protocol_them() {
    let agent = sources(&["agent/src"]);
    assert_none(
        &lines_with(&agent, &["broker::"]),
        "agent never depends on broker",
    );
    let broker = sources(&["broker/src"]);
    assert_none(
        &lines_with(&broker, &["agent::"]),
        "broker never depends on agent",
    );
    let protocol = sources(&["protocol/src"]);
    assert_none(
        &lines_with(&protocol, &["agent::", "broker::"]),
        "protocol depends on neither",
    );
}

#[test]
fn each_engine_is_named_in_one_place() {
    let named = |folder: &str, words: &[&str], allowed: &[&str]| {
        let mut code = sources(&[folder]);
        code.retain(|source| !is_test(&source.path));
        let mut found = lines_with(&code, words);
        found.retain(|line| !allowed.iter().any(|path| line.starts_with(path)));
        assert_none(&found, &format!("{words:?} belong to {allowed:?}"));
    };
    named("broker/src", &["rumqttd::"], &["broker/src/shell/router"]);
    named("agent/src", &["rumqttc::"], &["agent/src/shell/mqtt"]);
    named(
        "agent/src",
        &["async_compat::", "use tokio::", "(tokio::", " tokio::"],
        &["agent/src/shell/tokio.rs"],
    );
    named(
        "agent/src",
        &["bollard::Docker"],
        &["agent/src/shell/docker"],
    );
    named("broker/src", &["rusqlite::"], &["broker/src/shell/store"]);
}

#[test]
fn one_file_checks_signatures_strictly_and_one_by_one() {
    let mut code = sources(&["protocol/src", "agent/src", "broker/src"]);
    code.retain(|source| !is_test(&source.path));
    assert_none(
        &lines_with(&code, &["verify_batch", "Verifier as _"]),
        "verify_strict, and nothing else",
    );
    code.retain(|source| source.path != "protocol/src/key.rs");
    assert_none(
        &lines_with(&code, &["ed25519_dalek"]),
        "keys and signatures come from protocol::key",
    );
}

#[test]
fn topics_are_built_in_one_file() {
    let mut code = all();
    code.retain(|source| !is_test(&source.path) && source.path != "protocol/src/topic.rs");
    let found = lines_with(&code, &["\"v1/"]);
    assert_none(&found, "topics come from protocol::topic");
}

/// A name with fewer underscores may be anything.
const CLAIM_UNDERSCORES_MIN: usize = 4;

#[test]
fn every_test_that_a_page_names_exists() {
    let code: String = sources(&[
        "protocol/src",
        "protocol/tests",
        "agent/src",
        "broker/src",
        "tests",
        "benches",
    ])
    .into_iter()
    .map(|source| source.text)
    .collect();
    let is_claim = |word: &&str| {
        word.matches('_').count() >= CLAIM_UNDERSCORES_MIN
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let mut missing = Vec::new();
    for page in ["README.md", "ARCHITECTURE.md", "SECURITY.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let named = text.split('`').filter(is_claim);
        missing.extend(
            named
                .filter(|name| !code.contains(&format!("fn {name}(")))
                .map(|name| format!("{page}: {name}")),
        );
    }
    assert_none(&missing, "a page names a test that is not there");
}

#[test]
fn every_file_says_what_it_is_for_and_holds_one_idea() {
    for source in all() {
        assert!(
            source.text.starts_with("//!"),
            "{} has no module documentation",
            source.path
        );
        let lines = source.text.lines().count();
        let reason = source.text.contains("//! Long because");
        assert!(
            lines <= FILE_LINES_MAX || reason,
            "{} has {lines} lines and names no reason",
            source.path
        );
    }
}

#[test]
fn nothing_is_left_half_done() {
    let words = [
        "TODO",
        "FIXME",
        "XXX",
        "#[ignore",
        "dbg!",
        "todo!",
        "unimplemented!",
    ];
    let mut found = Vec::new();
    for source in all() {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        found.extend(
            words
                .iter()
                .filter(|word| source.text.contains(**word))
                .map(|word| format!("{}: {word}", source.path)),
        );
    }
    assert_none(&found, "a marker is not a plan");
}

#[test]
fn tests_wait_on_conditions_not_on_time() {
    let mut found = Vec::new();
    for source in all() {
        if source.path != "tests/tidy.rs"
            && !source.path.starts_with("tests/harness/")
            // A program that runs in a sandbox and has to live for a while.
            && !source.path.ends_with("/probe.rs")
            && source.text.contains("thread::sleep")
        {
            found.push(source.path);
        }
    }
    assert_none(
        &found,
        "wait on a condition with a deadline (tests/harness)",
    );
}

#[test]
fn bad_names_are_not_used() {
    let bad = [
        "utils.rs",
        "util.rs",
        "common.rs",
        "helpers.rs",
        "helper.rs",
        "manager.rs",
        "handler.rs",
        "types.rs",
        "error.rs",
        "mod.rs",
    ];
    let found: Vec<_> = all()
        .into_iter()
        .map(|source| source.path)
        .filter(|path| bad.iter().any(|name| path.ends_with(&format!("/{name}"))))
        .collect();
    assert_none(&found, "a file is named for its one idea");
}

#[test]
fn the_texts_of_the_root_stay_short_and_the_map_is_true() {
    for (name, lines_max) in [
        ("README.md", 150),
        ("ARCHITECTURE.md", 300),
        ("CONTRIBUTING.md", 120),
    ] {
        let text = fs::read_to_string(root().join(name)).unwrap();
        assert!(
            text.lines().count() <= lines_max,
            "{name} is longer than {lines_max} lines"
        );
    }
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for folder in [
        "protocol/src",
        "agent/src",
        "agent/src/core",
        "agent/src/shell",
        "broker/src",
        "broker/src/core",
        "broker/src/shell",
    ] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            assert!(
                !is_source || map.contains(&name),
                "ARCHITECTURE.md's map leaves out {folder}/{name}.rs"
            );
        }
    }
}

/// The numbers of the specification's table of limits, by their names.
fn specified_limits() -> BTreeMap<String, u64> {
    let text = fs::read_to_string(root().join("protocol/SPEC.md")).unwrap();
    let table = text.split("## 11. Limits").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let mut limits = BTreeMap::new();
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let names = cells.next().unwrap().split(", ");
        let values = cells.next().unwrap().split(", ");
        for (name, value) in names.zip(values) {
            if let Ok(value) = value.replace(',', "").parse() {
                limits.insert(name.to_owned(), value);
            }
        }
    }
    limits
}

/// A constant of the code by its line, if that is a product of numbers.
fn limit_of(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.strip_prefix("pub const ")?.split_once(':')?;
    let product = rest.split_once('=')?.1.trim().strip_suffix(';')?;
    let factors = product.split('*');
    let numbers = factors.map(|factor| factor.trim().replace('_', "").parse::<u64>().ok());
    Some((name, numbers.product::<Option<u64>>()?))
}

#[test]
fn every_limit_is_in_the_specification_as_it_is_in_the_code() {
    /// Limits that are kept beside what they bound.
    const OTHERS: [(&str, &str); 4] = [
        ("protocol/src/reader_token.rs", "READER_TOKEN_BYTES_MAX"),
        ("broker/src/core/gate/connect.rs", "CLIENT_ID_BYTES_MAX"),
        ("broker/src/core/gate/connect.rs", "SESSION_EXPIRY_S_MAX"),
        ("broker/src/core/gate/feed.rs", "READ_FILTERS_MAX"),
    ];
    let specified = specified_limits();
    let code = fs::read_to_string(root().join("protocol/src/limits.rs")).unwrap();
    let mut seen = 0;
    for line in code.lines().filter(|line| line.starts_with("pub const ")) {
        let (name, value) = limit_of(line).unwrap_or_else(|| panic!("{line} is no number"));
        assert_eq!(specified.get(name), Some(&value), "{name}");
        seen += 1;
    }
    assert!(seen >= 30, "only {seen} limits were read");
    for (file, name) in OTHERS {
        let code = fs::read_to_string(root().join(file)).unwrap();
        let mut limits = code.lines().filter_map(limit_of);
        let value = limits.find(|(other, _)| *other == name).unwrap().1;
        assert_eq!(specified.get(name), Some(&value), "{name}");
    }
}

#[test]
fn nothing_in_the_project_names_this_machine() {
    let mut found = Vec::new();
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "deploy/quickstart.sh",
        "tests/run.sh",
    ] {
        let text =
            fs::read_to_string(root().join(name)).unwrap_or_else(|_| panic!("{name} is missing"));
        if text.contains("/work/") || text.contains("/root/") {
            found.push(name.to_owned());
        }
    }
    assert_none(&found, "a path of one machine helps nobody on another");
}
