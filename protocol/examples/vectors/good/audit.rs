//! Good rows, checkpoints, cosignatures and proofs of the audit trail (`SPEC.md`, 14).

use protocol::id::hex;
use serde_json::json;

use crate::{
    note::{
        AUDIT, COSIGNER, LOG, NEXT_AUDIT, ORIGIN, WITNESS, checkpoint, cosigned, leaf, leaves,
        node, note, proof, rows, signed, vkey,
    },
    vector::Vector,
    world::HOST_KEY,
};

pub(crate) fn all() -> Vec<Vector> {
    let rows = rows(5);
    let row = |name: &str, index: usize| {
        Vector::audit_row(name, &rows[index])
            .says(json!({ "seq": index, "hash": hex(&leaf(&rows[index])) }))
    };
    let five = checkpoint(5);
    let by_both = note(&five, &[signed(AUDIT, &five), signed(NEXT_AUDIT, &five)]);
    let witnessed = [
        signed(AUDIT, &five),
        cosigned(HOST_KEY, &five, 1_800_000_060),
        cosigned(HOST_KEY, &five, 1_800_000_030),
    ];
    let witnessed = note(&five, &witnessed);
    let all = leaves(5);
    // Five leaves: four below one node, and one.
    let to_third = [all[3], node(&all[0], &all[1]), all[4]];
    let left = node(&node(&all[0], &all[1]), &node(&all[2], &all[3]));
    let size = |count: u64| {
        let text = checkpoint(count);
        note(&text, &[signed(AUDIT, &text)])
    };
    let says = |count: u64| json!({ "size": count });
    let log_key = vkey(ORIGIN, LOG, AUDIT);
    vec![
        row("audit-row-first", 0),
        row("audit-row", 4),
        Vector::checkpoint("checkpoint", &size(5), &log_key).says(says(5)),
        Vector::checkpoint("checkpoint-of-no-rows", &size(0), &log_key).says(says(0)),
        Vector::checkpoint("checkpoint-of-one-row", &size(1), &log_key).says(says(1)),
        Vector::checkpoint("checkpoint-by-two-keys", &by_both, &log_key).says(says(5)),
        Vector::checkpoint(
            "checkpoint-by-two-keys-for-the-second",
            &by_both,
            &vkey(ORIGIN, LOG, NEXT_AUDIT),
        )
        .says(says(5)),
        Vector::checkpoint("checkpoint-with-cosignatures", &witnessed, &log_key).says(says(5)),
        Vector::cosignature(
            "cosignature",
            &witnessed,
            &vkey(WITNESS, COSIGNER, HOST_KEY),
        )
        .says(json!({ "time_s": 1_800_000_060 })),
        Vector::tlog_proof(
            "proof-of-a-row",
            &proof(&rows[2], 2, &to_third, &size(5)),
            &log_key,
        )
        .says(json!({ "seq": 2, "size": 5 })),
        Vector::tlog_proof(
            "proof-of-the-last-row",
            &proof(&rows[4], 4, &[left], &size(5)),
            &log_key,
        )
        .says(json!({ "seq": 4, "size": 5 })),
        Vector::tlog_proof(
            "proof-of-the-only-row",
            &proof(&rows[0], 0, &[], &size(1)),
            &log_key,
        )
        .says(json!({ "seq": 0, "size": 1 })),
    ]
}
