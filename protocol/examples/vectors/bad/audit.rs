//! Rows, checkpoints, cosignatures and proofs of the audit trail that are refused (`SPEC.md`, 14).

use crate::{
    item::{array, bytes, head_of_width, text, uint},
    note::{
        AUDIT, COSIGNER, LOG, NEXT_AUDIT, ORIGIN, WITNESS, base64, checkpoint, cosigned, leaves,
        line, node, note, proof, root, row, rows, signed, vkey,
    },
    vector::Vector,
    world::HOST_KEY,
};

const MALFORMED: &str = "not well-formed";
const SIGNATURE: &str = "the signature does not verify";
const NOT_INCLUDED: &str = "the row is not in the tree";

pub(crate) fn all() -> Vec<Vector> {
    let mut all = bad_rows();
    all.extend(bad_forms());
    all.extend(bad_signatures());
    all.extend(bad_proofs());
    all
}

fn bad_rows() -> Vec<Vector> {
    let refused = |name: &str, bytes: &[u8], reason: &str, why: &str| {
        Vector::audit_row(name, bytes).refused(reason, why)
    };
    let good = row(0, &[0; 32]);
    let fields = |seq: Vec<u8>, prev: Vec<u8>| {
        let texts = ["host.enrolled", "edge-1", "host:edge-1", "{}"].map(text);
        array(&[&[seq, uint(1)], texts.as_slice(), &[prev]].concat())
    };
    let wide = fields(head_of_width(0, 7, 1), bytes(&[0; 32]));
    let shape = "14.1: an array of seven in deterministic encoding";
    vec![
        refused(
            "audit-row-cut-short",
            &good[..good.len() - 1],
            MALFORMED,
            shape,
        ),
        refused(
            "audit-row-with-a-byte-behind-it",
            &[&good[..], &[0]].concat(),
            MALFORMED,
            shape,
        ),
        refused(
            "audit-row-with-a-short-prev",
            &row(0, &[0; 31]),
            MALFORMED,
            shape,
        ),
        refused(
            "audit-row-whose-number-is-not-in-its-shortest-form",
            &wide,
            "not in deterministic encoding",
            shape,
        ),
        refused(
            "audit-row-of-six",
            &array(&vec![uint(0); 6]),
            MALFORMED,
            shape,
        ),
    ]
}

fn bad_forms() -> Vec<Vector> {
    let key = vkey(ORIGIN, LOG, AUDIT);
    let refused = |name: &str, text: &str, why: &str| {
        Vector::checkpoint(name, text, &key).refused(MALFORMED, why)
    };
    // Signed as it stands, so that nothing but its form is wrong.
    let signed_as = |text: &str| note(text, &[signed(AUDIT, text)]);
    let root = base64(&root(&leaves(5)));
    let good = signed_as(&checkpoint(5));
    let lines = "14.2: three lines: origin, number of rows, root in base64";
    let form = "14.2: a signed-note, in its one form";
    vec![
        refused(
            "checkpoint-with-a-leading-zero",
            &signed_as(&format!("{ORIGIN}\n05\n{root}\n")),
            lines,
        ),
        refused(
            "checkpoint-with-a-sign",
            &signed_as(&format!("{ORIGIN}\n+5\n{root}\n")),
            lines,
        ),
        refused(
            "checkpoint-of-2-64-rows",
            &signed_as(&format!("{ORIGIN}\n18446744073709551616\n{root}\n")),
            lines,
        ),
        refused(
            "checkpoint-with-an-extension",
            &signed_as(&format!("{ORIGIN}\n5\n{root}\nmore\n")),
            lines,
        ),
        refused(
            "checkpoint-without-a-root",
            &signed_as(&format!("{ORIGIN}\n5\n")),
            lines,
        ),
        refused(
            "checkpoint-with-a-root-of-31-bytes",
            &signed_as(&format!("{ORIGIN}\n5\n{}\n", base64(&[7; 31]))),
            lines,
        ),
        refused(
            "checkpoint-without-a-signature",
            &format!("{}\n", checkpoint(5)),
            form,
        ),
        refused("checkpoint-without-its-last-newline", good.trim_end(), form),
        refused(
            "checkpoint-with-a-newline-behind-it",
            &format!("{good}\n"),
            form,
        ),
        refused(
            "checkpoint-with-a-hyphen-for-the-dash",
            &good.replacen('\u{2014}', "-", 1),
            form,
        ),
        refused(
            "checkpoint-with-a-carriage-return",
            &good.replacen('\n', "\r\n", 1),
            form,
        ),
        refused(
            "checkpoint-whose-signature-lacks-its-padding",
            &format!("{}\n", good.trim_end().trim_end_matches('=')),
            form,
        ),
    ]
}

fn bad_signatures() -> Vec<Vector> {
    let (five, six) = (checkpoint(5), checkpoint(6));
    let log_key = vkey(ORIGIN, LOG, AUDIT);
    let witness = vkey(WITNESS, COSIGNER, HOST_KEY);
    let of_log = |name: &str, text: &str, reason: &str, why: &str| {
        Vector::checkpoint(name, text, &log_key).refused(reason, why)
    };
    let of_witness = |name: &str, line: String, why: &str| {
        let text = note(&five, &[signed(AUDIT, &five), line]);
        Vector::cosignature(name, &text, &witness).refused(SIGNATURE, why)
    };
    let other_text = note(&five, &[signed(AUDIT, &six)]);
    let one_bad = note(
        &five,
        &[signed(AUDIT, &five), line(ORIGIN, LOG, AUDIT, &[7; 64])],
    );
    let elsewhere = five.replacen("vectors", "others", 1);
    let verifies = "14.2: a line in a known key's name that does not verify makes the note bad";
    let timed = "14.2: a witness cosigns with its time (tlog-cosignature)";
    vec![
        of_log(
            "checkpoint-whose-signature-is-of-another",
            &other_text,
            SIGNATURE,
            verifies,
        ),
        of_log(
            "checkpoint-with-one-bad-signature-of-two",
            &one_bad,
            SIGNATURE,
            verifies,
        ),
        of_log(
            "checkpoint-of-another-key",
            &note(&five, &[signed(NEXT_AUDIT, &five)]),
            "not signed with this key",
            "14.2: the log's key signs",
        ),
        of_log(
            "checkpoint-of-another-log",
            &note(&elsewhere, &[signed(AUDIT, &elsewhere)]),
            "of another log",
            "14.2: the log's key signs in the origin's name",
        ),
        of_witness(
            "cosignature-of-another-checkpoint",
            cosigned(HOST_KEY, &six, 1_800_000_060),
            timed,
        ),
        of_witness(
            "cosignature-without-a-time",
            line(WITNESS, COSIGNER, HOST_KEY, &[7; 64]),
            timed,
        ),
        of_witness(
            "cosignature-after-the-end-of-time",
            cosigned(HOST_KEY, &five, 1 << 63),
            timed,
        ),
    ]
}

fn bad_proofs() -> Vec<Vector> {
    let key = vkey(ORIGIN, LOG, AUDIT);
    let five = checkpoint(5);
    let note = note(&five, &[signed(AUDIT, &five)]);
    let (rows, all) = (rows(5), leaves(5));
    let path = [all[3], node(&all[0], &all[1]), all[4]];
    let refused = |name: &str, text: &str, reason: &str, why: &str| {
        Vector::tlog_proof(name, text, &key).refused(reason, why)
    };
    let good = proof(&rows[2], 2, &path, &note);
    let leads =
        "14.2: one row's proof leads from the row to the checkpoint's root (RFC 6962 2.1.1)";
    let form = "14.2: a tlog-proof, in its one form";
    vec![
        refused(
            "proof-of-another-row",
            &proof(&rows[3], 2, &path, &note),
            NOT_INCLUDED,
            leads,
        ),
        refused(
            "proof-at-another-place",
            &proof(&rows[2], 3, &path, &note),
            NOT_INCLUDED,
            leads,
        ),
        refused(
            "proof-past-the-end",
            &proof(&rows[2], 5, &path, &note),
            NOT_INCLUDED,
            leads,
        ),
        refused(
            "proof-that-is-too-short",
            &proof(&rows[2], 2, &path[..2], &note),
            NOT_INCLUDED,
            leads,
        ),
        refused(
            "proof-that-is-too-long",
            &proof(&rows[2], 2, &[&path[..], &[[7; 32]]].concat(), &note),
            NOT_INCLUDED,
            leads,
        ),
        refused(
            "proof-of-another-version",
            &good.replacen("@v1", "@v2", 1),
            MALFORMED,
            form,
        ),
        refused(
            "proof-with-a-leading-zero",
            &good.replacen("index 2", "index 02", 1),
            MALFORMED,
            form,
        ),
    ]
}
