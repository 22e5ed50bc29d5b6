//! Good commands (`SPEC.md`, chapter 6).

use serde_json::json;

use crate::{
    forge::Envelope,
    item::{Item, Map, array, text, uint},
    message::{
        command, launch, launch_command, limits, order, signed_command, stop, stop_command, texts,
        typ, variables,
    },
    vector::Vector,
    world::{DISPATCHER, NOW_MS, longest_id},
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = dated();
    all.extend(launches());
    all.push(with_longest_ids());
    all
}

fn dated() -> Vec<Vector> {
    let good = |name: &str, command: Map| Vector::command(name, &signed_command(command));
    let dates =
        |issued: u64, expires: u64| stop_command().with(3, uint(issued)).with(4, uint(expires));
    vec![
        good("stop", stop_command()).says(json!({
            "id": "03030303030303030303030303030303", "order": "stop", "sandbox": "build-7",
        })),
        good(
            "stop-without-grace",
            command(order(2, stop().with(2, uint(0)))),
        ),
        good(
            "command-that-lives-for-seven-days",
            dates(NOW_MS, NOW_MS + 604_800_000),
        ),
        good(
            "command-in-the-last-millisecond-of-leeway",
            dates(NOW_MS - 90_000, NOW_MS - 59_999),
        ),
        good(
            "command-issued-a-minute-from-now",
            dates(NOW_MS + 60_000, NOW_MS + 90_000),
        ),
    ]
}

fn launches() -> Vec<Vector> {
    let good = |name: &str, launch: Map| {
        Vector::command(name, &signed_command(launch_command(launch)))
            .says(json!({"order": "launch", "sandbox": "build-7"}))
    };
    let empty = || array(&[]);
    let many = |count: usize, item: Item| array(&vec![item; count]);
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let every_limit = |limit: u64| Map::new(&[1, 2, 3, 4, 5].map(|label| (label, uint(limit))));
    let bare = launch().with(3, empty()).with(4, empty()).with(5, empty());
    vec![
        good("launch", launch()),
        good("launch-with-the-least", bare),
        good(
            "launch-with-an-isolation-key",
            launch().with(8, text("tenant-3")),
        ),
        good("launch-with-redacted-content", launch().with(7, uint(2))),
        good("launch-with-full-content", launch().with(7, uint(3))),
        good(
            "launch-of-an-image-by-name-and-digest",
            launch().with(
                2,
                text(&format!("registry.example:5000/Team/tool@sha256:{digest}")),
            ),
        ),
        good(
            "launch-of-an-image-by-id",
            launch().with(2, text(&format!("sha256:{digest}"))),
        ),
        good(
            "launch-of-an-image-with-the-longest-name",
            launch().with(2, text(&"a".repeat(512))),
        ),
        good(
            "launch-with-the-least-limits",
            launch().with(6, every_limit(1)),
        ),
        good(
            "launch-with-the-greatest-limits",
            launch().with(6, every_limit(i64::MAX.unsigned_abs())),
        ),
        good(
            "launch-with-256-arguments",
            launch().with(3, many(256, text(""))),
        ),
        good(
            "launch-with-text-that-is-not-ascii",
            launch().with(3, texts(&["žluťoučký", "kůň", "🐎", "\n"])),
        ),
        good(
            "launch-with-128-variables",
            launch().with(4, many(128, texts(&["_a1", ""]))),
        ),
        good(
            "launch-with-variables-of-every-shape",
            launch().with(4, variables(&[("_", "a=b"), ("A", "é\n"), ("a_9Z", " ")])),
        ),
        good(
            "launch-with-16-sources",
            launch().with(5, many(16, text("s"))),
        ),
        good(
            "launch-with-a-processor-of-less-than-one",
            launch().with(6, limits().with(1, uint(1))),
        ),
    ]
}

fn with_longest_ids() -> Vector {
    let id = longest_id();
    let launch = launch()
        .with(1, text(&id))
        .with(5, texts(&[&id]))
        .with(8, text(&id));
    let topic = format!("v1/{id}/commands");
    let command = launch_command(launch).with(2, text(&id));
    let bytes = Envelope::new(DISPATCHER, typ("command"), &topic, command).seal();
    Vector::command("launch-with-the-longest-ids", &bytes).with("host", id)
}
