//! Good stream files (`SPEC.md`, chapter 10).

use serde_json::json;

use crate::{
    file::{File, launched_report, record},
    forge::Envelope,
    item::{Item, bytes, text, uint},
    message::{
        REPORTS, ended, forwarded, launched, report, signed_command, signed_report, skippable,
        status, stop_command, succession, succession_envelope, succession_to, typ,
    },
    stream::{Chain, event, exited, line, started, three},
    vector::Vector,
    world::{DISPATCHER, HOST_KEY, HOST_KEY_2, HOST_KEY_3, NOW_MS, STRANGER, key_text, public},
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = whole_and_open();
    all.extend(redelivered());
    all.extend(successions());
    all.extend(orders());
    all.extend(others());
    all.extend(purged());
    all.extend(parts());
    all
}

fn good(name: &str, file: File) -> Vector {
    Vector::stream(name, &file.bytes())
}

fn whole_and_open() -> Vec<Vector> {
    let batches = three();
    let mut restarted = Chain::new();
    let restarted = [
        restarted.next(&[started()]),
        {
            restarted.epoch(2);
            restarted.next(&[started(), line("again")])
        },
        restarted.close(&[exited(0)]),
    ];
    let dropped = Chain::new().close(&[event(6, 4096, 17, b""), event(6, 1, 3, b"")]);
    vec![
        good(
            "stream-that-is-whole",
            File::launched().batches(&batches).ended(),
        )
        .says(json!({
            "whole": true, "items": 6, "batches": 3, "events": 4, "reports": 2, "exit_code": 0,
            "redelivered": 0, "dropped": 0, "commands": 0, "holes": 0,
        })),
        good(
            "stream-that-is-open",
            File::launched().batches(&batches[..2]),
        )
        .says(json!({"whole": false, "batches": 2, "events": 3, "exit_code": null})),
        good("stream-of-nothing-yet", File::new())
            .says(json!({"whole": false, "items": 1, "batches": 0, "events": 0})),
        good(
            "stream-of-a-sandbox-that-said-nothing",
            File::launched().ended(),
        )
        .says(json!({"whole": false, "batches": 0, "reports": 2})),
        good(
            "stream-of-two-epochs",
            File::launched().batches(&restarted).ended(),
        )
        .says(json!({"whole": true, "batches": 3, "events": 4})),
        good(
            "stream-whose-writer-dropped-events",
            File::launched().batch(&dropped).ended(),
        )
        .says(json!({"whole": true, "events": 2, "dropped": 20})),
    ]
}

/// What comes twice, and what comes by way of the operator.
fn redelivered() -> Vec<Vector> {
    let [one, two, last] = three();
    let passed_on = |number: u64, batch: &[u8]| {
        signed_report(report(5, forwarded(batch)).with(2, uint(number)))
    };
    let mut purged = one.clone();
    let length = purged.len();
    purged[length - 6..].fill(0);
    vec![
        good(
            "stream-with-batches-that-came-twice",
            File::launched()
                .batches([&one, &one, &two, &one, &last, &last])
                .ended(),
        )
        .says(json!({"whole": true, "batches": 3, "redelivered": 3, "events": 4})),
        good(
            "stream-with-a-batch-that-came-again-with-another-body",
            File::launched().batches([&one, &purged, &two, &last]),
        )
        .says(json!({"whole": true, "redelivered": 1, "events": 4})),
        good(
            "stream-whose-end-was-forwarded",
            File::launched()
                .batch(&one)
                .report(&passed_on(8, &two))
                .report(&passed_on(9, &last))
                .ended(),
        )
        .says(json!({"whole": true, "batches": 3, "reports": 4})),
        good(
            "stream-that-was-published-and-forwarded",
            File::launched()
                .batches([&one, &two])
                .report(&passed_on(8, &one))
                .report(&passed_on(9, &two))
                .batch(&last)
                .report(&passed_on(10, &last))
                .ended(),
        )
        .says(json!({"whole": true, "batches": 3, "redelivered": 3})),
        good(
            "stream-of-a-sandbox-that-its-operator-launched-twice",
            File::launched()
                .batch(&one)
                .report(&launched_report())
                .batches([&two, &last]),
        )
        .says(json!({"whole": true, "reports": 2})),
    ]
}

fn successions() -> Vec<Vector> {
    let by = |seed: u8, label: u64, body: Item| {
        Envelope::new(seed, typ("report"), REPORTS, report(label, body)).seal()
    };
    let second = succession_envelope(HOST_KEY, succession()).seal();
    let third = succession_envelope(HOST_KEY_2, succession_to(3, HOST_KEY_3)).seal();
    let late = |generation: u64, from: u8, to: u8| {
        succession_envelope(from, succession_to(generation, to)).seal()
    };
    let [one, two, last] = three();
    vec![
        good(
            "stream-across-two-successions",
            File::new()
                .succession(&second)
                .succession(&third)
                .report(&launched_report())
                .batches([&one, &two])
                .report(&by(HOST_KEY_2, 5, forwarded(&last).into()))
                .report(&by(HOST_KEY_3, 3, ended().into())),
        )
        .says(json!({"whole": true, "items": 8, "reports": 3})),
        good(
            "stream-with-a-report-by-the-key-before",
            File::new()
                .succession(&second)
                .report(&by(HOST_KEY_2, 2, launched().into()))
                .report(&by(HOST_KEY, 6, status(&[]).into())),
        )
        .says(json!({"reports": 2})),
        good(
            "stream-whose-chain-begins-at-a-later-generation",
            File::new()
                .succession(&late(8, HOST_KEY, HOST_KEY_2))
                .succession(&late(9, HOST_KEY_2, HOST_KEY_3))
                .report(&by(HOST_KEY_3, 2, launched().into())),
        )
        .says(json!({"reports": 1})),
    ]
}

/// What may come in more than one order, and what may be missing.
fn orders() -> Vec<Vector> {
    let [one, two, last] = three();
    let passed_on = signed_report(report(5, forwarded(&last)));
    let at_the_ends = File::new()
        .raw(&record(0, 2, &launched_report()))
        .raw(&record(1, 1, &one))
        .raw(&record(u64::MAX, 1, &two));
    vec![
        good(
            "stream-with-batches-before-the-report-that-names-their-key",
            File::new()
                .batches([&one, &two])
                .report(&launched_report())
                .batch(&last),
        )
        .says(json!({"whole": true, "batches": 3, "events": 4})),
        good(
            "stream-with-a-forwarded-batch-before-the-report-that-names-its-key",
            File::new()
                .batches([&one, &two])
                .report(&passed_on)
                .report(&launched_report()),
        )
        .says(json!({"whole": true, "batches": 3})),
        good(
            "stream-with-holes-where-no-batch-was-lost",
            File::launched()
                .hole()
                .batches([&one, &two])
                .hole()
                .batch(&last),
        )
        .says(json!({"whole": true, "holes": 2})),
        good("stream-at-the-ends-of-the-journal", at_the_ends)
            .says(json!({"whole": false, "batches": 2})),
    ]
}

/// Files that may begin in the middle.
fn parts() -> Vec<Vector> {
    let [one, two, last] = three();
    let passed_on = signed_report(report(5, forwarded(&one)));
    vec![
        good(
            "part-that-begins-in-the-middle",
            File::part().batches([&two, &last]).ended(),
        )
        .says(json!({"part": true, "whole": false, "batches": 2, "events": 2, "earlier": 0})),
        good(
            "part-with-a-batch-from-before-it-that-came-again",
            File::part().batch(&two).report(&passed_on).batch(&last),
        )
        .says(json!({"part": true, "batches": 2, "events": 2, "earlier": 1})),
        good(
            "part-that-begins-where-its-stream-does",
            File::part().batches([&one, &two, &last]),
        )
        .says(json!({"part": false, "whole": true, "batches": 3, "events": 4})),
        good("part-without-a-batch", File::part())
            .says(json!({"part": true, "batches": 0, "events": 0})),
    ]
}

/// Records that are not judged, or change nothing.
fn others() -> Vec<Vector> {
    let [one, two, last] = three();
    let other = launched()
        .with(2, text("build-8"))
        .with(3, bytes(&public(STRANGER)));
    let expired = stop_command()
        .with(3, uint(NOW_MS - 1_000_000_000))
        .with(4, uint(NOW_MS - 999_000_000));
    vec![
        good(
            "stream-with-a-report-of-another-sandbox",
            File::launched()
                .batch(&one)
                .report(&signed_report(report(2, other)))
                .batches([&two, &last]),
        )
        .says(json!({"whole": true, "reports": 2})),
        good(
            "stream-with-newer-news",
            File::launched()
                .report(&signed_report(report(7, skippable())))
                .batches([&one, &two, &last]),
        )
        .says(json!({"whole": true, "reports": 2})),
        good(
            "stream-with-a-command-that-is-not-judged",
            File::new()
                .command(b"not looked at")
                .report(&launched_report()),
        )
        .says(json!({"commands": 1})),
        good(
            "stream-with-a-command-that-is-judged-and-not-by-its-dates",
            File::new()
                .command(&signed_command(expired))
                .report(&launched_report()),
        )
        .with("dispatcher_key", key_text("ohd1", DISPATCHER))
        .says(json!({"commands": 1})),
    ]
}

/// Bodies that were purged, and holes that say why.
fn purged() -> Vec<Vector> {
    let [one, two, last] = three();
    vec![
        good(
            "stream-whose-bodies-were-purged",
            File::launched().head(&one).head(&two).head(&last).ended(),
        )
        .says(json!({
            "whole": true, "batches": 3, "events": 4, "purged": 3, "purged_events": 4, "exit_code": null,
        })),
        good(
            "stream-of-which-one-body-was-purged",
            File::launched().batch(&one).head(&two).batch(&last),
        )
        .says(json!({"whole": true, "batches": 3, "events": 4, "purged": 1, "purged_events": 1, "exit_code": 0})),
        good(
            "stream-with-a-purged-batch-that-came-twice",
            File::launched()
                .head(&one)
                .batch(&one)
                .batch(&two)
                .head(&two)
                .batch(&last),
        )
        .says(json!({"whole": true, "batches": 3, "redelivered": 2, "purged": 1})),
        good(
            "stream-with-a-purged-batch-before-the-report-that-names-its-key",
            File::new()
                .head(&one)
                .report(&launched_report())
                .batches([&two, &last]),
        )
        .says(json!({"whole": true, "purged": 1})),
        good(
            "stream-with-holes-that-say-why",
            File::launched()
                .removed(28, &[])
                .removed(40, &[0])
                .removed(50, &[1])
                .removed(60, &[0, 1, 2, 3, 4])
                .removed(70, &[4])
                .batches([&one, &two, &last]),
        )
        .says(json!({"whole": true, "holes": 5, "removed": 2})),
    ]
}
