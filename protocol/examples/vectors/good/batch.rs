//! Good batches, each judged by a reader that has seen what is `before` (`SPEC.md`, 8.7).

use serde_json::json;

use crate::{
    item::{Item, array, bytes, uint},
    stream::{Chain, batch, event, exited, line, started, three, tiny},
    vector::Vector,
    world::NOW_MS,
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = first();
    all.extend(later());
    all.extend(again());
    all
}

fn first() -> Vec<Vector> {
    let first = |name: &str, events: &[Item]| Vector::batch(name, &Chain::new().next(events));
    let flagged = |flags: u64| {
        let mut numbers = [NOW_MS, 2, flags, 6, 0].map(uint).to_vec();
        numbers.push(bytes(b"part"));
        array(&numbers)
    };
    let kinds = [
        started(),
        line("out"),
        event(3, 4, 0, b"err"),
        event(4, 24, 0, br#"{"done":1,"total":2}"#),
        event(2, 300, 0, b""),
        event(6, 4096, 17, b""),
        exited(255),
    ];
    let newer = [
        event(7, 1, 2, b"x"),
        event(u64::MAX, 0, 0, b""),
        event(0, 0, 0, b""),
    ];
    let mut later = Chain::new();
    later.epoch(3);
    vec![
        first("batch-of-two-events", &[started(), line("hello")]).says(json!({
            "epoch": 1, "batch": 0, "first": 0, "count": 2, "closing": false,
            "events": ["started", "stdout"],
        })),
        first("batch-without-events", &[]).says(json!({"count": 0})),
        first("batch-of-256-events", &vec![tiny(); 256]).says(json!({"count": 256})),
        first(
            "batch-with-the-longest-event",
            &[event(2, 8193, 0, &[0; 8192])],
        ),
        first("batch-with-every-kind-of-event", &kinds).says(json!({"events": [
            "started", "stdout", "stderr", "progress", "stdout", "gap", "exited",
        ]})),
        first("batch-with-newer-kinds-of-events", &newer)
            .says(json!({"events": ["other", "other", "other"]})),
        first(
            "batch-with-a-line-that-goes-on-and-flags-that-mean-nothing-yet",
            &[flagged(1), flagged(0), flagged(u64::MAX)],
        ),
        Vector::batch(
            "batch-that-is-the-only-one",
            &Chain::new().close(&[exited(0)]),
        )
        .says(json!({"closing": true})),
        Vector::batch(
            "batch-without-events-that-is-the-only-one",
            &Chain::new().close(&[]),
        )
        .says(json!({"closing": true, "count": 0})),
        Vector::batch("first-batch-of-a-later-epoch", &later.next(&[started()]))
            .says(json!({"epoch": 3, "batch": 0})),
    ]
}

fn later() -> Vec<Vector> {
    let [one, two, last] = three();
    let mut chain = Chain::new();
    let first = chain.next(&[started(), line("hello")]);
    chain.epoch(2);
    let restarted = chain.next(&[started()]);
    chain.epoch(9);
    let skipped = chain.next(&[started()]);
    vec![
        Vector::batch_after("second-batch", &[&one], &two)
            .says(json!({"epoch": 1, "batch": 1, "first": 2, "count": 1})),
        Vector::batch_after("closing-batch", &[&one, &two], &last)
            .says(json!({"batch": 2, "first": 3, "closing": true})),
        Vector::batch_after("first-batch-of-the-second-epoch", &[&first], &restarted)
            .says(json!({"epoch": 2, "batch": 0, "first": 2, "count": 1})),
        Vector::batch_after(
            "epoch-that-leaves-some-out",
            &[&first, &restarted],
            &skipped,
        )
        .says(json!({"epoch": 9, "batch": 0, "first": 3})),
    ]
}

/// Redelivered: told by the head, whatever the body is now.
fn again() -> Vec<Vector> {
    let [one, two, last] = three();
    let mut other_body = one.clone();
    if let Some(byte) = other_body.last_mut() {
        *byte ^= 1;
    }
    let mut other_signature = Chain::new().head(&[]);
    other_signature = other_signature.with(9, uint(0));
    let heartbeat = batch(other_signature, &[0x80]);
    let says_again = |vector: Vector| vector.says(json!({"again": true}));
    vec![
        says_again(Vector::batch_after("batch-that-comes-again", &[&one], &one)),
        says_again(Vector::batch_after(
            "batch-that-comes-again-later",
            &[&one, &two],
            &one,
        )),
        says_again(Vector::batch_after(
            "batch-that-comes-again-after-the-closing-one",
            &[&one, &two, &last],
            &two,
        )),
        says_again(Vector::batch_after(
            "closing-batch-that-comes-again",
            &[&one, &two, &last],
            &last,
        )),
        says_again(Vector::batch_after(
            "batch-that-comes-again-with-another-body-of-its-length",
            &[&one],
            &other_body,
        )),
        Vector::batch("batch-from-a-clock-at-1970", &heartbeat),
    ]
}
