//! Stream files whose reports, commands and batches do not hold together (`SPEC.md`, chapter 10).

use super::{MALFORMED, SIGNATURE, UNKNOWN_KEY, stream::refused};
use crate::{
    file::{BATCH, File, launched_report, opening_of_part, record, record_at, succession_record},
    forge::Envelope,
    item::{array, bytes, text, uint},
    message::{
        COMMANDS, REPORTS, command_envelope, forwarded, launched, report, signed_report,
        stop_command, stopped, typ,
    },
    stream::{Chain, batch, exited, line, started, three},
    vector::Vector,
    world::{DISPATCHER, HOST_KEY, HOST_KEY_2, NOW_MS, STRANGER, key_text, public},
};

const NO_KEY: &str = "events: no report of the host names the key that signs them";

pub(crate) fn all() -> Vec<Vector> {
    let mut all = reports();
    all.extend(waiting());
    all.extend(commands());
    all.extend(chains());
    all.extend(parts());
    all
}

fn reports() -> Vec<Vector> {
    let by = |seed: u8, topic: &str, report: crate::item::Map| {
        Envelope::new(seed, typ("report"), topic, report).seal()
    };
    let at = |name: &str, report: &[u8], reason: &str, why: &str| {
        refused(
            name,
            File::launched().report(report),
            2,
            &format!("a report: {reason}"),
            why,
        )
    };
    let verifies = "10, 4: a report verifies with a key of the chain";
    let other_key = launched().with(3, bytes(&public(STRANGER)));
    let mut flipped = signed_report(report(4, stopped()));
    let end = flipped.len() - 1;
    flipped[end] ^= 1;
    let too_many = report(4, stopped()).with(5, uint(0));
    vec![
        at(
            "report-of-a-stranger-in-a-file",
            &by(STRANGER, REPORTS, report(4, stopped())),
            UNKNOWN_KEY,
            verifies,
        ),
        at(
            "report-with-one-bit-flipped-in-a-file",
            &flipped,
            SIGNATURE,
            verifies,
        ),
        at(
            "report-of-another-host-in-a-file",
            &by(
                HOST_KEY,
                "v1/edge-2/reports",
                report(4, stopped()).with(1, text("edge-2")),
            ),
            SIGNATURE,
            verifies,
        ),
        at(
            "report-by-a-key-whose-succession-is-missing",
            &by(HOST_KEY_2, REPORTS, report(4, stopped())),
            UNKNOWN_KEY,
            verifies,
        ),
        at(
            "report-that-is-malformed-in-a-file",
            &signed_report(too_many),
            MALFORMED,
            "9: labels 0 to 63 are never skipped",
        ),
        at(
            "report-that-is-a-command",
            &command_envelope(stop_command()).seal(),
            "not a signed message of this kind",
            verifies,
        ),
        refused(
            "report-that-names-another-key",
            File::launched().report(&signed_report(report(2, other_key))),
            2,
            "a report that names another key for a sandbox that has one",
            "10, 4: a later launched report names the same key",
        ),
    ]
}

/// Batches that wait for the report that names their key.
fn waiting() -> Vec<Vector> {
    let [one, two, last] = three();
    let stranger = launched().with(3, bytes(&public(STRANGER)));
    let passed_on = signed_report(report(5, forwarded(&two)));
    let not_signed = "events: the head is not signed by the sandbox's key";
    let judged = "10, 4: batches that wait are judged at the launched report, and the first bad one is the item";
    let waits_at_end = "10: batches that still wait at the end are bad, the first of them the item";
    // Short names, so that the file is short.
    let mut many = File::starting(array(&[
        text("outhaul-stream"),
        uint(1),
        text("h"),
        text("s"),
    ]));
    for offset in 0..1025 {
        many = many.raw(&record_at(offset, 0, BATCH, ("h", "s"), b""));
    }
    vec![
        refused(
            "batches-whose-key-no-report-names",
            File::new().batches([&one, &two, &last]),
            1,
            NO_KEY,
            waits_at_end,
        ),
        refused(
            "forwarded-batch-whose-key-no-report-names",
            File::new().report(&passed_on),
            1,
            NO_KEY,
            waits_at_end,
        ),
        refused(
            "batches-that-still-wait-when-their-sandbox-has-ended",
            File::new().batches([&one, &two]).ended(),
            1,
            NO_KEY,
            "10, 4: at an ended report no batch waits",
        ),
        refused(
            "batches-whose-key-is-named-only-after-their-sandbox-has-ended",
            File::new()
                .batches([&one, &two])
                .ended()
                .report(&launched_report()),
            1,
            NO_KEY,
            "10, 4: at an ended report no batch waits, whatever comes later",
        ),
        refused(
            "batch-before-a-report-that-names-another-key",
            File::new()
                .batch(&one)
                .report(&signed_report(report(2, stranger))),
            1,
            not_signed,
            judged,
        ),
        refused(
            "batches-that-wait-and-do-not-follow",
            File::new()
                .batches([&one, &last])
                .report(&launched_report()),
            2,
            "events: batches are missing: expected batch 1, found 2",
            judged,
        ),
        refused(
            "batches-that-wait-in-great-number",
            many,
            1025,
            NO_KEY,
            "10, 5: at most 1024 wait; what they hold is not looked at before",
        ),
    ]
}

/// Judged only when the dispatchers' keys are given.
fn commands() -> Vec<Vector> {
    let refused_at = |name: &str, command: &[u8], reason: &str, why: &str| {
        refused(
            name,
            File::launched().command(command),
            2,
            &format!("command: {reason}"),
            why,
        )
        .with("dispatcher_key", key_text("ohd1", DISPATCHER))
    };
    let verifies = "10, 6: with dispatchers' keys, a command verifies for this host's topic";
    let by_stranger = Envelope::new(STRANGER, typ("command"), COMMANDS, stop_command());
    let elsewhere = Envelope::new(
        DISPATCHER,
        typ("command"),
        "v1/edge-2/commands",
        stop_command().with(2, text("edge-2")),
    );
    let long = stop_command().with(4, uint(NOW_MS + 604_800_001));
    vec![
        refused_at(
            "command-of-a-stranger-in-a-file",
            &by_stranger.seal(),
            UNKNOWN_KEY,
            verifies,
        ),
        refused_at(
            "command-for-another-host-in-a-file",
            &elsewhere.seal(),
            SIGNATURE,
            verifies,
        ),
        refused_at(
            "command-that-is-none-in-a-file",
            b"",
            "not a signed message of this kind",
            verifies,
        ),
        refused_at(
            "command-that-lives-for-too-long-in-a-file",
            &command_envelope(long).seal(),
            "expired",
            "10, 6: expires − issued ≤ COMMAND_LIFE_MS_MAX, whatever the time is",
        ),
    ]
}

/// A part may begin anywhere, and nothing more.
fn parts() -> Vec<Vector> {
    let [one, two, last] = three();
    let fork = {
        let mut chain = Chain::new();
        chain.next(&[started()]);
        chain.next(&[line("another world")])
    };
    let stranger = {
        let mut signed = one.clone();
        let end = signed.len() - array(&[started(), line("hello")]).len() - 1;
        signed[end] ^= 1;
        signed
    };
    vec![
        refused(
            "part-without-a-batch-in-the-middle",
            File::part().batches([&one, &last]),
            3,
            "events: batches are missing: expected batch 1, found 2",
            "8.7, 8: of a part too, behind its first batch",
        ),
        refused(
            "part-with-a-fork-of-its-first-batch",
            File::part().batches([&two, &fork]),
            3,
            "events: the batch does not follow from the one before it",
            "8.7, 7: of a part too, from its first batch on",
        ),
        refused(
            "part-whose-earlier-batch-is-not-signed",
            File::part().batches([&two, &stranger]),
            3,
            "events: the head is not signed by the sandbox's key",
            "10, 5: a batch before a part's first is signed all the same",
        ),
        refused(
            "part-without-the-report-that-names-the-key",
            File::starting(opening_of_part()).batches([&two, &last]),
            1,
            NO_KEY,
            "10: batches that still wait at the end are bad, the first of them n",
        ),
    ]
}

/// 8.7 within a file.
fn chains() -> Vec<Vector> {
    let [one, two, last] = three();
    let forwarded_report = |batch: &[u8]| signed_report(report(5, forwarded(batch)));
    let fork = Chain::new().next(&[started()]);
    let mut chain = Chain::new();
    chain.next(&[started(), line("hello")]);
    let other_stream = chain.head(&[]).with(1, bytes(&[0; 16]));
    let mut purged = two.clone();
    let end = purged.len() - 1;
    purged[end] ^= 1;
    let missing = "events: batches are missing: expected batch 1, found 2";
    let follows = "events: the batch does not follow from the one before it";
    let mut after = Chain {
        batch: 3,
        first: 4,
        ..Chain::new()
    };
    let body = array(&[exited(0)]);
    after.previous = *blake3::hash(&last[..last.len() - body.len()]).as_bytes();
    vec![
        refused(
            "stream-without-its-first-batch",
            File::launched().batches([&two, &last]),
            2,
            "events: batches are missing: expected batch 0, found 1",
            "8.7, 8",
        ),
        refused(
            "stream-without-a-batch-in-the-middle",
            File::launched().batches([&one, &last]),
            3,
            missing,
            "8.7, 8",
        ),
        refused(
            "stream-whose-hole-lost-a-batch",
            File::launched().batch(&one).hole().batch(&last),
            4,
            missing,
            "10, 7: if a hole lost a batch, the chain shows it",
        ),
        refused(
            "stream-with-batches-in-the-wrong-order",
            File::launched().batches([&one, &last, &two]),
            3,
            missing,
            "8.7, 8",
        ),
        refused(
            "stream-with-a-fork",
            File::launched().batches([&one, &fork]),
            3,
            follows,
            "8.7, 7",
        ),
        refused(
            "stream-with-a-forwarded-fork",
            File::launched()
                .batch(&one)
                .report(&forwarded_report(&fork)),
            3,
            follows,
            "10, 4: a forwarded batch is judged as if it had been published",
        ),
        refused(
            "stream-with-a-forwarded-batch-that-is-none",
            File::launched().report(&forwarded_report(b"")),
            2,
            "events: batch: not a signed message of this kind",
            "10, 4: a forwarded batch is judged as if it had been published",
        ),
        refused(
            "stream-with-a-batch-of-another-stream",
            File::launched()
                .batch(&one)
                .raw(&record(99, BATCH, &batch(other_stream, &[0x80]))),
            3,
            "events: the batch belongs to another stream",
            "8.7, 4",
        ),
        refused(
            "stream-with-a-batch-whose-body-is-another",
            File::launched().batches([&one, &purged]),
            3,
            "events: the body is not the one that was signed",
            "8.7, 10",
        ),
        refused(
            "stream-that-goes-on-after-its-closing-batch",
            File::launched().batches([&one, &two, &last, &after.next(&[])]),
            5,
            "events: a batch after the closing one",
            "8.7, 5",
        ),
        Vector::stream(
            "stream-of-a-host-with-another-key",
            &File::launched().batches([&one]).bytes(),
        )
        .with("host_key", key_text("ohh1", STRANGER))
        .refused(
            &format!("item 1: a report: {UNKNOWN_KEY}"),
            "10: the anchor is the host's first key",
        ),
        refused(
            "succession-record-that-is-empty",
            File::new().raw(&succession_record(b"")),
            1,
            "a succession: not a signed message of this kind",
            "10, 2: a succession is signed",
        ),
    ]
}
