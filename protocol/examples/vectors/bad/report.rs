//! Reports that are well made and are refused for what they say (`SPEC.md`, chapter 7).

use super::{ENVELOPE, MALFORMED, TOO_LONG, UNKNOWN_KEY, report as refused_report};
use crate::{
    forge::Envelope,
    item::{Map, bytes, text, uint},
    message::{
        REPORTS, ended, launched, refused, report, sighting, signed_report, status, stopped, typ,
    },
    vector::Vector,
    world::{HOST_KEY_2, SANDBOX_KEY, STRANGER, no_point, non_canonical_key, weak_key},
};

pub(crate) fn all() -> Vec<Vector> {
    let mut all = bounds();
    all.extend(shapes());
    all.extend(signers());
    all
}

fn bounds() -> Vec<Vector> {
    let refused_for = |name: &str, report: Map, why: &str| {
        refused_report(name, &signed_report(report), ENVELOPE, why)
    };
    let detail = "7: texts for a person have at most DETAIL_BYTES_MAX bytes";
    let letters = text(&"é".repeat(257));
    let long = || text(&"a".repeat(257));
    let name = "7: ids of images and containers, and the version, have at most REPORT_NAME_BYTES_MAX bytes";
    vec![
        refused_for(
            "report-that-names-another-host",
            report(4, stopped()).with(1, text("edge-2")),
            "7: a report is of the host whose topic it is signed for",
        ),
        refused_for(
            "refused-with-a-detail-of-513-bytes",
            report(1, refused().with(4, text(&"a".repeat(513)))),
            detail,
        ),
        refused_for(
            "ended-with-a-detail-of-513-bytes",
            report(3, ended().with(6, text(&"a".repeat(513)))),
            detail,
        ),
        refused_for(
            "refused-with-a-detail-of-257-letters-of-two-bytes",
            report(1, refused().with(4, letters)),
            detail,
        ),
        refused_for(
            "launched-with-an-image-of-257-bytes",
            report(2, launched().with(4, long())),
            name,
        ),
        refused_for(
            "launched-with-a-container-of-257-bytes",
            report(2, launched().with(5, long())),
            name,
        ),
        refused_for(
            "status-with-a-version-of-257-bytes",
            report(6, status(&[]).with(2, long())),
            name,
        ),
        refused_report(
            "status-with-257-sandboxes",
            &signed_report(report(6, status(&vec![sighting("a", 2).encode(); 257]))),
            TOO_LONG,
            "7: a status lists at most REPORT_SANDBOXES_MAX sandboxes",
        ),
    ]
}

fn shapes() -> Vec<Vector> {
    let malformed = |name: &str, report: Map, why: &str| {
        refused_report(name, &signed_report(report), MALFORMED, why)
    };
    let key = |name: &str, key: &[u8], why: &str| {
        malformed(name, report(2, launched().with(3, bytes(key))), why)
    };
    let there = "1.1: what may not be left out must be there";
    vec![
        key(
            "launched-with-a-weak-key",
            &weak_key(),
            "1.3: a key of small order is refused",
        ),
        key(
            "launched-with-a-key-in-another-encoding",
            &non_canonical_key(),
            "1.3: a key is RFC 8032's encoding of a point, of which there is one",
        ),
        key(
            "launched-with-a-key-that-is-no-point",
            &no_point(),
            "1.3: a key that is no point of the curve is refused",
        ),
        key(
            "launched-with-a-key-of-33-bytes",
            &[7; 33],
            "1.2: a key has 32 bytes",
        ),
        malformed(
            "launched-with-unknown-content",
            report(2, launched().with(6, uint(4))),
            "9: a content is a restriction, so an unknown one is refused",
        ),
        malformed(
            "launched-with-the-content-0",
            report(2, launched().with(6, uint(0))),
            "9: a content is a restriction, so an unknown one is refused",
        ),
        malformed(
            "launched-without-a-key",
            report(2, launched().without(3)),
            there,
        ),
        malformed(
            "ended-without-a-state",
            report(3, ended().without(3)),
            there,
        ),
        malformed(
            "ended-with-null-for-its-exit-code",
            report(3, ended().with(4, [crate::item::NULL])),
            "1.1: what is left out is not there; null is another value",
        ),
        malformed(
            "ended-with-a-negative-exit-code",
            report(3, ended().with(4, crate::item::int(-1))),
            "7: an exit code is an unsigned integer",
        ),
        malformed(
            "stopped-with-a-command-id-of-15-bytes",
            report(4, stopped().with(1, bytes(&[3; 15]))),
            "7: a command's id has 16 bytes",
        ),
        malformed(
            "stopped-with-a-sandbox-in-upper-case",
            report(4, stopped().with(2, text("Build-7"))),
            "1.2: an id is [a-z0-9-]{1,64}",
        ),
        malformed(
            "status-with-a-start-of-7-bytes",
            report(6, status(&[]).with(3, bytes(&[4; 7]))),
            "7: a start has 8 bytes",
        ),
        malformed(
            "status-with-1-for-true",
            report(6, status(&[]).with(4, uint(1))),
            "7: whether the engine answers is true or false",
        ),
        malformed(
            "status-with-null-for-false",
            report(6, status(&[]).with(4, [crate::item::NULL])),
            "7: whether the engine answers is true or false",
        ),
        malformed(
            "status-with-a-text-for-its-clock",
            report(6, status(&[]).with(65, text("late"))),
            "7: how far a clock is ahead is a number of milliseconds",
        ),
    ]
}

fn signers() -> Vec<Vector> {
    let by = |seed: u8| Envelope::new(seed, typ("report"), REPORTS, report(4, stopped())).seal();
    let why = "7: a key of the host signs its reports";
    vec![
        refused_report("report-of-a-stranger", &by(STRANGER), UNKNOWN_KEY, why),
        refused_report("report-of-a-sandbox", &by(SANDBOX_KEY), UNKNOWN_KEY, why),
        refused_report(
            "report-of-a-key-that-no-succession-names",
            &by(HOST_KEY_2),
            UNKNOWN_KEY,
            why,
        ),
    ]
}
