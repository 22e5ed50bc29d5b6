//! Good reports, of this version (`SPEC.md`, chapter 7).

use protocol::report::{Reason, State};
use serde_json::json;

use crate::{
    forge::Envelope,
    item::{FALSE, Map, bytes, int, text, uint},
    message::{
        ended, forwarded, launched, refused, report, sighting, signed_report, status, stopped, typ,
    },
    stream::three,
    vector::Vector,
    world::{HOST_KEY, HOST_KEY_2, key_text, longest_id},
};

fn good(name: &str, report: Map) -> Vector {
    Vector::report(name, &signed_report(report))
}

pub(crate) fn all() -> Vec<Vector> {
    let mut all = reasons();
    all.extend(launches());
    all.extend(ends());
    all.extend(statuses());
    all.push(
        good("stopped", report(4, stopped()))
            .says(json!({"number": 7, "news": "stopped", "sandbox": "build-7"})),
    );
    all.push(
        good("forwarded", report(5, forwarded(&three()[0])))
            .says(json!({"news": "forwarded", "sandbox": "build-7"})),
    );
    all.push(
        good(
            "forwarded-bytes-that-are-no-batch",
            report(5, forwarded(b"whatever it was")),
        )
        .says(json!({"news": "forwarded"})),
    );
    all.push(good(
        "report-with-the-greatest-number",
        report(4, stopped()).with(2, uint(u64::MAX)),
    ));
    all.push(by_a_later_key());
    all.push(with_longest_ids());
    all
}

/// Every reason, each with its word.
fn reasons() -> Vec<Vector> {
    let mut all: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| {
            let body = refused().with(3, uint(reason.label()));
            let name = format!("refused-with-{}", reason.word().replace('_', "-"));
            good(&name, report(1, body))
                .says(json!({"news": "refused", "sandbox": "build-7", "reason": reason.word()}))
        })
        .collect();
    let detail = "é".repeat(256);
    all.push(good(
        "refused-with-a-detail-of-512-bytes",
        report(1, refused().with(4, text(&detail))),
    ));
    all
}

fn launches() -> Vec<Vector> {
    let name = text(&"a".repeat(256));
    let named = launched().with(4, name.clone()).with(5, name);
    let mut all: Vec<_> = [(1, "metadata"), (2, "redacted"), (3, "full")]
        .iter()
        .map(|(label, word)| {
            let body = launched().with(6, uint(*label));
            good(&format!("launched-with-{word}"), report(2, body))
                .says(json!({"news": "launched", "sandbox": "build-7", "content": word}))
        })
        .collect();
    all.push(good("launched-with-names-of-256-bytes", report(2, named)));
    all
}

fn ends() -> Vec<Vector> {
    let command = bytes(&[3; 16]);
    let whole = ended()
        .with(1, command.clone())
        .with(3, uint(5))
        .with(4, uint(137))
        .with(5, uint(8))
        .with(6, text("used more than 1 GiB"));
    vec![
        good("ended-with-the-least", report(3, ended())).says(json!({
            "news": "ended", "state": "finished", "exit_code": null, "reason": null,
        })),
        good("ended-with-everything", report(3, whole)).says(json!({
            "news": "ended", "state": "failed", "exit_code": 137, "reason": "oom_killed",
        })),
        good(
            "ended-by-itself",
            report(3, ended().with(1, command).with(4, uint(3))),
        )
        .says(json!({"state": "finished", "exit_code": 3, "reason": null})),
        good(
            "ended-with-a-state-that-is-no-end",
            report(3, ended().with(3, uint(2))),
        )
        .says(json!({"news": "ended", "state": "running"})),
        good(
            "ended-without-an-exit-code",
            report(3, ended().with(3, uint(5)).with(5, uint(19))),
        )
        .says(json!({"state": "failed", "exit_code": null, "reason": "lost"})),
    ]
}

fn statuses() -> Vec<Vector> {
    let every_state: Vec<_> = State::ALL
        .iter()
        .map(|state| sighting(state.word(), state.label()).encode())
        .collect();
    let many = vec![sighting("a", 2).encode(); 256];
    vec![
        good("status-of-an-empty-host", report(6, status(&[])))
            .says(json!({"news": "status", "sandbox": null, "sandboxes": []})),
        good("status-with-every-state", report(6, status(&every_state))).says(json!({"sandboxes": [
            "creating creating", "running running", "paused paused", "finished finished", "failed failed",
            "unknown unknown",
        ]})),
        good(
            "status-of-a-host-without-its-engine",
            report(6, status(&[]).with(4, [FALSE])),
        ),
        good(
            "status-with-a-version-of-256-bytes",
            report(6, status(&[]).with(2, text(&"1".repeat(256)))),
        ),
        good("status-with-256-sandboxes", report(6, status(&many))),
        good(
            "status-of-a-clock-that-is-ahead",
            report(6, status(&[]).with(65, uint(7_200_000))),
        )
        .says(json!({"news": "status", "skew_ms": 7_200_000})),
        good(
            "status-of-a-clock-that-is-behind",
            report(6, status(&[]).with(65, int(-31_536_000_000))),
        )
        .says(json!({"news": "status", "skew_ms": -31_536_000_000_i64})),
    ]
}

fn by_a_later_key() -> Vector {
    let envelope = Envelope::new(
        HOST_KEY_2,
        typ("report"),
        "v1/edge-1/reports",
        report(6, status(&[]).with(1, uint(2))),
    );
    Vector::report("status-signed-by-the-second-key", &envelope.seal())
        .with("host_key", key_text("ohh1", HOST_KEY_2))
}

fn with_longest_ids() -> Vector {
    let id = longest_id();
    let report = report(4, stopped().with(2, text(&id))).with(1, text(&id));
    let topic = format!("v1/{id}/reports");
    let bytes = Envelope::new(HOST_KEY, typ("report"), &topic, report).seal();
    Vector::report("stopped-with-the-longest-ids", &bytes)
        .with("host", id.clone())
        .says(json!({"sandbox": id}))
}
