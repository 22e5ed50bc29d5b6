//! Tests of the tree over the audit trail, and of what is signed of it.

use protocol::audit::{
    Frontier, SignedCheckpoint, Vkey,
    proof::{check_consistency, check_inclusion},
};
use protocol::key::{Audit, Secret};
use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::tests::{NOW, open};
use super::*;

const ORIGIN: &str = "outhaul-1/audit";

fn secret(byte: u8) -> Secret<Audit> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn vkey(byte: u8) -> Vkey<Audit> {
    Vkey::new(ORIGIN, secret(byte).public()).unwrap()
}

fn write_rows(store: &Store, count: u64) {
    for number in 0..count {
        let fields = json!({ "number": number });
        let entry = AuditEntry {
            time_ms: NOW,
            name: "content.read",
            subject: "s",
            actor: "a",
            fields: &fields,
        };
        store.record_audit(&entry).unwrap();
    }
}

fn tampered(place: &TempDir, sql: &str) {
    let connection = Connection::open(place.path().join("outhaul.db")).unwrap();
    connection
        .execute_batch("DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete")
        .unwrap();
    connection.execute_batch(sql).unwrap();
}

#[test]
fn the_tree_grows_with_the_rows_and_proves_each_of_them() {
    let (_place, store) = open();
    let mut frontier = Frontier::new();
    for size in 1..=20 {
        write_rows(&store, 1);
        let row = store.audit_rows(size - 1, 1).unwrap().pop().unwrap();
        frontier.push(row.hash);
        let check = store.audit_verify().unwrap();
        assert_eq!((check.rows, check.broken), (size, None));
        assert_eq!(check.root, frontier.root());
        for old in 1..=size {
            let hashes = store.audit_consistency(old, size).unwrap();
            let mut before = Frontier::new();
            for row in store.audit_rows(0, u32::try_from(old).unwrap()).unwrap() {
                before.push(row.hash);
            }
            let (old_root, root) = (before.root(), frontier.root());
            assert_eq!(
                check_consistency(old, size, &hashes, &old_root, &root),
                Ok(())
            );
            let row = store.audit_rows(old - 1, 1).unwrap().pop().unwrap();
            let hashes = store.audit_inclusion(old - 1, size).unwrap();
            assert_eq!(
                check_inclusion(&row.hash, old - 1, size, &hashes, &root),
                Ok(())
            );
        }
    }
}

#[test]
fn the_rows_of_an_older_store_get_their_tree_at_the_next_start() {
    for rows in [0, 1, 2, 3, 8, 13] {
        let (place, store) = open();
        write_rows(&store, rows);
        let whole = store.audit_verify().unwrap();
        let path = place.path().join("outhaul.db");
        let connection = Connection::open(&path).unwrap();
        // Nothing, and what a fill that was cut off after four rows leaves.
        for sql in [
            "DELETE FROM audit_node",
            "DELETE FROM audit_node WHERE (idx + 1) << level > 4",
        ] {
            connection.execute_batch(sql).unwrap();
            let again = Store::open(&path).unwrap();
            let check = again.audit_verify().unwrap();
            assert_eq!(
                (check.root, check.broken),
                (whole.root, None),
                "{rows} {sql}"
            );
        }
    }
}

#[test]
fn a_tree_that_is_not_that_of_its_rows_shows() {
    let (place, store) = open();
    write_rows(&store, 4);
    tampered(
        &place,
        "UPDATE audit_node SET hash = zeroblob(32) WHERE level = 2",
    );
    assert_eq!(store.audit_verify().unwrap().broken, Some(AuditFault::Tree));
}

#[test]
fn a_checkpoint_is_signed_once_for_each_size_and_verifies() {
    let (_place, store) = open();
    write_rows(&store, 3);
    let first = store.sign_checkpoint(NOW, &secret(1), ORIGIN).unwrap();
    let again = store.sign_checkpoint(NOW + 9, &secret(1), ORIGIN).unwrap();
    assert_eq!(again, first, "nothing new to sign");
    write_rows(&store, 1);
    let second = store.sign_checkpoint(NOW, &secret(1), ORIGIN).unwrap();
    assert_eq!((first.size, second.size), (3, 4));
    let note = SignedCheckpoint::parse(&second.note).unwrap();
    let told = note.verify(&vkey(1)).unwrap();
    assert_eq!(*told.root(), store.audit_verify().unwrap().root);
    assert_eq!(store.audit_checkpoints(0, 9).unwrap(), [first, second]);
}

#[test]
fn nothing_is_signed_that_does_not_go_on_from_what_was_signed_before() {
    let shorter = Inconsistent::Shorter { rows: 4, signed: 5 };
    let changed = Inconsistent::Changed { signed: 5 };
    let forged = Inconsistent::Forged { signed: 5 };
    for (sql, expected) in [
        ("DELETE FROM audit WHERE seq = 4", shorter),
        (
            "UPDATE audit SET hash = zeroblob(32) WHERE seq = 4",
            changed.clone(),
        ),
        (
            "UPDATE audit_node SET hash = zeroblob(32) WHERE level = 2",
            changed,
        ),
        (
            "UPDATE audit_checkpoint SET note = replace(note, '/audit', '/audit2')",
            forged.clone(),
        ),
        ("UPDATE audit_checkpoint SET note = 'x'", forged),
    ] {
        let (place, store) = open();
        write_rows(&store, 5);
        let signed = store.sign_checkpoint(NOW, &secret(1), ORIGIN).unwrap();
        tampered(&place, sql);
        for error in [
            store.sign_checkpoint(NOW, &secret(1), ORIGIN).unwrap_err(),
            store
                .hand_over_audit(NOW, "uid:0", (&secret(1), &secret(2)), ORIGIN)
                .unwrap_err(),
        ] {
            assert_eq!(
                error.downcast_ref::<Inconsistent>(),
                Some(&expected),
                "{sql}"
            );
        }
        let kept = store.audit_checkpoints(0, 9).unwrap();
        assert_eq!((kept.len(), kept[0].size), (1, signed.size), "{sql}");
    }
}

#[test]
fn a_key_hands_over_in_one_transaction_with_its_row_and_both_signatures() {
    let (_place, store) = open();
    store.begin_audit_keys(&vkey(1)).unwrap();
    write_rows(&store, 2);
    let row = store
        .hand_over_audit(NOW, "uid:0", (&secret(1), &secret(2)), ORIGIN)
        .unwrap();
    assert_eq!(row.size, 3);
    let note = SignedCheckpoint::parse(&row.note).unwrap();
    for byte in [1, 2] {
        assert!(note.verify(&vkey(byte)).is_ok(), "{byte}");
    }
    assert_eq!(store.audit_keys().unwrap(), [(0, vkey(1)), (3, vkey(2))]);
    write_rows(&store, 1);
    let old = store.sign_checkpoint(NOW, &secret(3), ORIGIN).unwrap_err();
    assert!(old.downcast_ref::<Inconsistent>().is_some(), "a third key");
    assert!(store.sign_checkpoint(NOW, &secret(2), ORIGIN).is_ok());
}

#[test]
fn of_days_long_past_one_checkpoint_is_kept_and_every_change_of_keys() {
    const DAY: u64 = 86_400_000;
    let (_place, store) = open();
    store.begin_audit_keys(&vkey(1)).unwrap();
    let days = NOW - NOW % DAY;
    for hour in 0..48 {
        write_rows(&store, 1);
        store
            .sign_checkpoint(days + hour * DAY / 24, &secret(1), ORIGIN)
            .unwrap();
    }
    store
        .hand_over_audit(days + 2 * DAY, "uid:0", (&secret(1), &secret(2)), ORIGIN)
        .unwrap();
    write_rows(&store, 1);
    store
        .sign_checkpoint(days + 2 * DAY + 1, &secret(2), ORIGIN)
        .unwrap();
    write_rows(&store, 1);
    store
        .sign_checkpoint(days + 12 * DAY, &secret(2), ORIGIN)
        .unwrap();
    let sizes: Vec<_> = store
        .audit_checkpoints(0, 999)
        .unwrap()
        .iter()
        .map(|row| row.size)
        .collect();
    assert_eq!(sizes, [24, 48, 49, 50, 51]);
}

#[test]
fn rows_are_found_by_name_subject_and_time_and_say_where_to_go_on() {
    let (_place, store) = open();
    for (name, subject, time_ms) in [
        ("host.enrolled", "edge-1", 10),
        ("host.locked", "edge-2", 20),
        ("hosts", "edge-1", 30),
        ("host.locked", "edge-1", 40),
    ] {
        let fields = json!({});
        let entry = AuditEntry {
            time_ms,
            name,
            subject,
            actor: "a",
            fields: &fields,
        };
        store.record_audit(&entry).unwrap();
    }
    let found = |filter: AuditFilter| {
        let (rows, next) = store.audit_filtered(&filter).unwrap();
        (rows.iter().map(|row| row.seq).collect::<Vec<_>>(), next)
    };
    let all = || AuditFilter {
        limit: 9,
        ..AuditFilter::default()
    };
    let named = |name: &str| AuditFilter {
        name: Some(name.to_owned()),
        ..all()
    };
    assert_eq!(found(all()), (vec![0, 1, 2, 3], 4));
    assert_eq!(found(named("host.locked")), (vec![1, 3], 4));
    assert_eq!(found(named("host.*")), (vec![0, 1, 3], 4));
    let two = AuditFilter {
        limit: 2,
        ..named("host.*")
    };
    assert_eq!(found(two.clone()), (vec![0, 1], 2));
    let newest = AuditFilter {
        is_newest: true,
        ..two
    };
    assert_eq!(found(newest), (vec![1, 3], 4));
    let subject = Some("edge-1".to_owned());
    let timed = AuditFilter {
        subject,
        since_ms: 20,
        until_ms: Some(40),
        ..all()
    };
    assert_eq!(found(timed), (vec![2], 4));
    assert_eq!(found(AuditFilter { from: 7, ..all() }), (vec![], 7));
}

#[test]
fn a_row_is_never_dated_before_the_one_before_it() {
    let (_place, store) = open();
    for time_ms in [NOW, NOW - 5_000, NOW + 1] {
        let fields = json!({});
        let entry = AuditEntry {
            time_ms,
            name: "n",
            subject: "s",
            actor: "a",
            fields: &fields,
        };
        store.record_audit(&entry).unwrap();
    }
    let times: Vec<_> = store
        .audit_rows(0, 9)
        .unwrap()
        .iter()
        .map(|row| row.time_ms)
        .collect();
    assert_eq!(times, [NOW, NOW, NOW + 1]);
}

#[test]
fn a_value_that_may_be_withheld_is_beside_its_row_and_not_in_it() {
    let (_place, store) = open();
    let fields = json!({ "to": may_be_withheld("/backup/monday"), "keys": true });
    let entry = AuditEntry {
        time_ms: NOW,
        name: "backup.made",
        subject: "s",
        actor: "a",
        fields: &fields,
    };
    store.record_audit(&entry).unwrap();
    store.record_audit(&entry).unwrap();
    let rows = store.audit_rows(0, 9).unwrap();
    let openings = store.audit_openings(0, 9).unwrap();
    assert_eq!(openings.len(), 2);
    assert_ne!(openings[0].salt, openings[1].salt);
    for (row, opening) in rows.iter().zip(&openings) {
        assert!(!row.fields.contains("monday") && row.fields.contains("\"keys\":true"));
        assert_eq!(
            (opening.seq, opening.value.as_str()),
            (row.seq, "/backup/monday")
        );
        let opens = crate::core::trail::opens(&row.fields, "to", &opening.salt, &opening.value);
        assert!(opens);
    }
    assert_eq!(store.audit_openings(1, 2).unwrap().len(), 1);
}

/// Transactions in the write-ahead log since it was last begun anew: each ends with one frame that says how large the database is
/// (<https://www.sqlite.org/fileformat2.html#walformat>), and with `synchronous=FULL` each is one sync.
fn commits(place: &TempDir) -> usize {
    const HEAD: usize = 32;
    const FRAME_HEAD: usize = 24;
    let log = std::fs::read(place.path().join("outhaul.db-wal")).unwrap();
    let page = u32::from_be_bytes(log[8..12].try_into().unwrap());
    let salts = &log[16..24];
    log[HEAD..]
        .chunks_exact(FRAME_HEAD + usize::try_from(page).unwrap())
        // Frames from before the log was begun anew have other salts.
        .take_while(|frame| &frame[8..16] == salts)
        .filter(|frame| frame[4..8] != [0; 4])
        .count()
}

#[test]
fn a_change_its_row_and_its_tree_are_one_transaction_and_so_one_sync() {
    let (place, store) = open();
    write_rows(&store, 7);
    let before = commits(&place);
    // Completes subtrees of two, four and eight rows.
    write_rows(&store, 1);
    assert_eq!(commits(&place) - before, 1, "a row alone");
    let row = DispatcherRow {
        public_key: *secret(1).public().as_bytes(),
        name: "ada".to_owned(),
        added_ms: NOW,
        added_by: "uid:0".to_owned(),
        until_ms: None,
    };
    let before = commits(&place);
    assert!(store.add_dispatcher(&row).unwrap());
    assert_eq!(commits(&place) - before, 1, "a change with its row");
    assert_eq!(store.audit_size().unwrap(), 9);
}
