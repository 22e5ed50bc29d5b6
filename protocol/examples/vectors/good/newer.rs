//! Open messages from a writer that is newer than this version (`SPEC.md`, chapter 9). A reader of today takes them.

use serde_json::json;

use crate::{
    item::{Item, Map, TRUE, array, bytes, int, nested, text, uint},
    message::{
        challenge, ended, forwarded, grant, launched, refusal, refused, report, sighting,
        signed_report, skippable, status, stopped,
    },
    vector::Vector,
};

fn good(name: &str, report: Map) -> Vector {
    Vector::report(name, &signed_report(report))
}

pub(crate) fn all() -> Vec<Vector> {
    let mut all = labels();
    all.extend(shapes());
    all.extend(words());
    all.extend(answers());
    all
}

/// Label 64 in every map that is open.
fn labels() -> Vec<Vector> {
    let newer = |map: Map| map.with(64, skippable());
    let sighting = newer(sighting("build-7", 2)).encode();
    vec![
        good("report-with-a-newer-label", newer(report(4, stopped())))
            .says(json!({"number": 7, "news": "stopped", "sandbox": "build-7"})),
        good("refused-with-a-newer-label", report(1, newer(refused())))
            .says(json!({"reason": "policy_refused"})),
        good("launched-with-a-newer-label", report(2, newer(launched())))
            .says(json!({"content": "metadata"})),
        good("ended-with-a-newer-label", report(3, newer(ended())))
            .says(json!({"state": "finished"})),
        good("stopped-with-a-newer-label", report(4, newer(stopped())))
            .says(json!({"news": "stopped"})),
        good(
            "forwarded-with-a-newer-label",
            report(5, newer(forwarded(b""))),
        )
        .says(json!({"news": "forwarded"})),
        good("status-with-a-newer-label", report(6, newer(status(&[]))))
            .says(json!({"news": "status"})),
        good(
            "sighting-with-a-newer-label",
            report(6, status(&[sighting])),
        )
        .says(json!({"sandboxes": ["build-7 running"]})),
        good(
            "report-with-newer-labels-at-every-depth",
            newer(report(3, newer(ended()))).with(1000, text("and one more")),
        )
        .says(json!({"news": "ended", "state": "finished"})),
        good(
            "report-with-a-newer-label-of-eight-bytes",
            report(4, stopped()).with(i64::MAX, uint(0)),
        )
        .says(json!({"news": "stopped"})),
    ]
}

/// What a skipped value may be.
fn shapes() -> Vec<Vector> {
    let holding = |name: &str, value: Item| {
        good(name, report(4, stopped()).with(64, value)).says(json!({"news": "stopped"}))
    };
    let keys = Map(vec![
        (uint(7), uint(0)),
        (int(-1), vec![TRUE]),
        (vec![0x61, b'a'], uint(1)),
        (vec![0x61, b'b'], bytes(b"x")),
    ]);
    let full = |labels: std::ops::Range<i64>| {
        Map(labels.map(|n| (uint(n.unsigned_abs()), uint(0))).collect())
    };
    let mut wide = report(4, stopped());
    for label in 64..83 {
        wide = wide.with(label, uint(0));
    }
    vec![
        holding(
            "report-that-nests-eight-deep-where-it-is-skipped",
            nested(8),
        ),
        holding(
            "report-with-keys-of-both-kinds-where-it-is-skipped",
            keys.encode(),
        ),
        holding(
            "report-with-an-array-of-257-items-where-it-is-skipped",
            array(&vec![uint(0); 257]),
        ),
        holding(
            "report-with-a-map-of-23-pairs-where-it-is-skipped",
            full(0..23).encode(),
        ),
        good("report-with-a-map-of-23-pairs", wide).says(json!({"news": "stopped"})),
        good("other-news-that-nests-eight-deep", report(7, nested(8)))
            .says(json!({"news": "other", "sandbox": null})),
    ]
}

/// Words and choices that are not known yet.
fn words() -> Vec<Vector> {
    vec![
        good("other-news", report(7, skippable())).says(json!({"news": "other"})),
        good("other-news-with-a-label-below-64", report(63, uint(0)))
            .says(json!({"news": "other"})),
        good("other-news-with-the-label-0", report(0, text(""))).says(json!({"news": "other"})),
        good(
            "other-news-with-the-greatest-label",
            report(u64::MAX, [TRUE]),
        )
        .says(json!({"news": "other"})),
        good(
            "refused-with-a-newer-reason",
            report(1, refused().with(3, uint(20))),
        )
        .says(json!({"news": "refused", "reason": "other"})),
        good(
            "refused-with-the-reason-0",
            report(1, refused().with(3, uint(0))),
        )
        .says(json!({"reason": "other"})),
        good(
            "ended-with-a-newer-state-and-reason",
            report(3, ended().with(3, uint(7)).with(5, uint(u64::MAX))),
        )
        .says(json!({"news": "ended", "state": "other", "reason": "other"})),
        good(
            "status-with-a-newer-state",
            report(6, status(&[sighting("build-7", 99).encode()])),
        )
        .says(json!({"sandboxes": ["build-7 other"]})),
    ]
}

/// The exchange's answers are open too.
fn answers() -> Vec<Vector> {
    let newer = |map: Map| map.with(64, skippable()).encode();
    vec![
        Vector::exchange(
            "challenge",
            "challenge-with-a-newer-label",
            &newer(challenge()),
        ),
        Vector::exchange("grant", "grant-with-a-newer-label", &newer(grant())),
        Vector::exchange("refused", "refusal-with-a-newer-label", &newer(refusal(6)))
            .says(json!({"reason": "unavailable"})),
        Vector::exchange("refused", "refusal-with-a-newer-word", &refusal(7).encode())
            .says(json!({"reason": "other"})),
    ]
}
