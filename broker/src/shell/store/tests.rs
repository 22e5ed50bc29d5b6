//! Tests of `store`.

use super::*;
use crate::core::hosts::{CloneSign, HostState, RedeemRefusal, RenewRefusal};
use tempfile::TempDir;

pub(super) const NOW: u64 = 1_700_000_000_000;
const SECRET: [u8; 32] = [9; 32];
const AGAIN_MS: u64 = 73 * 3_600_000;
pub(super) const KEY: [u8; 32] = [1; 32];

pub(super) fn open() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("outhaul.db")).unwrap();
    (dir, store)
}

fn new_host(name: &str, kid: u8) -> NewHost {
    let expires_ms = NOW + 1_000;
    NewHost {
        name: name.to_owned(),
        kind: HostKind::Docker,
        kid: [kid; 8],
        secret_sha256: SECRET,
        expires_ms,
        replace: true,
    }
}

fn redeem<'a>(kid: &'a [u8; 8], public_key: &'a [u8; 32]) -> Redeem<'a> {
    Redeem {
        kid,
        secret_sha256: &SECRET,
        host: "edge-1",
        public_key,
        again_ms: AGAIN_MS,
    }
}

pub(super) fn enrolled() -> (TempDir, Store) {
    let (dir, store) = open();
    assert_eq!(
        store
            .add_host(&new_host("edge-1", 1), "uid:0", NOW)
            .unwrap(),
        AddHost::Added
    );
    let redeemed = store
        .redeem_install_key(&redeem(&[1; 8], &KEY), NOW)
        .unwrap();
    assert_eq!(redeemed, Redeemed::Now(edge_1(1)));
    (dir, store)
}

/// A host whose bundle nobody has used.
pub(super) fn with_unused_key() -> (TempDir, Store) {
    let (dir, store) = open();
    let added = store.add_host(&new_host("edge-1", 1), "uid:0", NOW);
    assert_eq!(added.unwrap(), AddHost::Added);
    (dir, store)
}

fn edge_1(generation: u64) -> Enrolled {
    Enrolled {
        host: "edge-1".to_owned(),
        kind: HostKind::Docker,
        generation,
    }
}

pub(super) fn audit_names(store: &Store) -> Vec<String> {
    let check = store.audit_verify().unwrap();
    assert_eq!(check.broken, None);
    let rows = store.audit_rows(0, 100).unwrap();
    assert_eq!(rows.len() as u64, check.rows);
    rows.into_iter().map(|row| row.name).collect()
}

#[test]
fn of_a_hundred_parallel_redeemers_exactly_one_wins() {
    let (dir, store) = open();
    store
        .add_host(&new_host("edge-1", 1), "uid:0", NOW)
        .unwrap();
    // Two connections: the statement decides, not the lock around one of them.
    let stores = [
        store.clone(),
        Store::open(&dir.path().join("outhaul.db")).unwrap(),
    ];
    let start = std::sync::Barrier::new(100);
    let outcomes: Vec<Redeemed> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100_u8)
            .map(|number| {
                let (store, start) = (&stores[usize::from(number % 2)], &start);
                scope.spawn(move || {
                    start.wait();
                    store
                        .redeem_install_key(&redeem(&[1; 8], &[number; 32]), NOW)
                        .unwrap()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let winners: Vec<_> = (0..100_u8)
        .filter(|&n| outcomes[usize::from(n)] == Redeemed::Now(edge_1(1)))
        .collect();
    assert_eq!(winners.len(), 1);
    let lost = outcomes
        .iter()
        .filter(|outcome| **outcome == Redeemed::Refused(RedeemRefusal::UsedByOther));
    assert_eq!(lost.count(), 99);
    assert_eq!(
        store.host("edge-1").unwrap().unwrap().public_key,
        Some([winners[0]; 32])
    );
    assert_eq!(store.host_keys("edge-1").unwrap().len(), 1);
    assert_eq!(
        audit_names(&store),
        [
            "host.operator_bundle",
            "host.enrolled",
            "host.enrolment_refused"
        ]
    );
}

#[test]
fn a_lost_answer_is_given_again_to_the_same_key_for_as_long_as_a_host_may_be_away() {
    let (_dir, store) = enrolled();
    for (after, expected) in [
        (0, Redeemed::AlreadySame(edge_1(1))),
        (AGAIN_MS, Redeemed::AlreadySame(edge_1(1))),
        (AGAIN_MS + 1, Redeemed::Refused(RedeemRefusal::UsedLongAgo)),
    ] {
        assert_eq!(
            store
                .redeem_install_key(&redeem(&[1; 8], &KEY), NOW + after)
                .unwrap(),
            expected
        );
    }
    assert_eq!(
        audit_names(&store),
        ["host.operator_bundle", "host.enrolled"]
    );
}

#[test]
fn without_the_secret_of_this_host_nothing_is_redeemed_and_nothing_is_written() {
    let (_dir, store) = open();
    store
        .add_host(&new_host("edge-1", 1), "uid:0", NOW)
        .unwrap();
    let good = redeem(&[1; 8], &KEY);
    for bad in [
        Redeem {
            kid: &[2; 8],
            ..good
        },
        Redeem {
            kid: &[2; 8],
            secret_sha256: &[0; 32],
            ..good
        },
        Redeem {
            secret_sha256: &[8; 32],
            ..good
        },
        Redeem {
            host: "edge-2",
            ..good
        },
        Redeem {
            host: "",
            secret_sha256: &[0; 32],
            ..good
        },
        Redeem {
            kid: &[2; 8],
            host: "",
            secret_sha256: &[0; 32],
            ..good
        },
    ] {
        let redeemed = store.redeem_install_key(&bad, NOW).unwrap();
        assert_eq!(
            redeemed,
            Redeemed::Refused(RedeemRefusal::Unknown),
            "{bad:?}"
        );
    }
    assert_eq!(audit_names(&store), ["host.operator_bundle"]);
    assert_eq!(
        store.redeem_install_key(&good, NOW).unwrap(),
        Redeemed::Now(edge_1(1))
    );
}

#[test]
fn an_expired_key_is_refused() {
    let (_dir, store) = open();
    store
        .add_host(&new_host("edge-1", 1), "uid:0", NOW)
        .unwrap();
    let redeemed = store
        .redeem_install_key(&redeem(&[1; 8], &KEY), NOW + 1_000)
        .unwrap();
    assert_eq!(redeemed, Redeemed::Refused(RedeemRefusal::Expired));
    assert_eq!(store.host("edge-1").unwrap().unwrap().state, HostState::New);
}

#[test]
fn adding_again_retires_the_unused_key() {
    let (_dir, store) = open();
    store
        .add_host(&new_host("edge-1", 1), "uid:0", NOW)
        .unwrap();
    assert_eq!(
        store
            .add_host(&new_host("edge-1", 2), "uid:0", NOW)
            .unwrap(),
        AddHost::Reissued { retired: 1 }
    );
    let old = store
        .redeem_install_key(&redeem(&[1; 8], &KEY), NOW)
        .unwrap();
    assert_eq!(old, Redeemed::Refused(RedeemRefusal::Retired));
    assert_eq!(
        store
            .redeem_install_key(&redeem(&[2; 8], &KEY), NOW)
            .unwrap(),
        Redeemed::Now(edge_1(1))
    );
    let fields = store.audit_rows(1, 1).unwrap().pop().unwrap().fields;
    assert!(
        fields.contains(&crate::core::hosts::fingerprint(&SECRET)),
        "{fields}"
    );
    assert!(
        !fields.contains(&hex(&SECRET[..4])) && !fields.contains(&hex(&[2; 8])),
        "no part of the key: {fields}"
    );
}

#[test]
fn an_enrolled_host_gets_no_key_that_was_not_meant_to_replace_it() {
    let (_dir, store) = enrolled();
    let before = audit_names(&store);
    let new = NewHost {
        replace: false,
        ..new_host("edge-1", 2)
    };
    assert_eq!(
        store.add_host(&new, "uid:0", NOW).unwrap(),
        AddHost::Refused(AddRefusal::Enrolled)
    );
    assert_eq!(audit_names(&store), before);
    let redeemed = store.redeem_install_key(&redeem(&[2; 8], &KEY), NOW);
    assert_eq!(redeemed.unwrap(), Redeemed::Refused(RedeemRefusal::Unknown));
}

#[test]
fn a_second_install_of_an_enrolled_host_begins_a_new_chain_with_a_new_key() {
    let (_dir, store) = enrolled();
    assert_eq!(
        store
            .add_host(&new_host("edge-1", 2), "uid:0", NOW)
            .unwrap(),
        AddHost::Reissued { retired: 0 }
    );
    assert_eq!(
        store.host("edge-1").unwrap().unwrap().public_key,
        Some(KEY),
        "the operator keeps running"
    );
    let same = store
        .redeem_install_key(&redeem(&[2; 8], &KEY), NOW)
        .unwrap();
    assert_eq!(same, Redeemed::Refused(RedeemRefusal::KeyUsedBefore));
    assert_eq!(
        store
            .redeem_install_key(&redeem(&[2; 8], &[2; 32]), NOW)
            .unwrap(),
        Redeemed::Now(edge_1(2))
    );
    assert_eq!(
        store
            .renew_host("edge-1", 1, &KEY, b"s", NOW, NOW + 1)
            .unwrap(),
        Renewed::Refused(RenewRefusal::Late),
        "asked before the new key came: held up on its way"
    );
    assert_eq!(
        store
            .renew_host("edge-1", 1, &KEY, b"s", NOW + 1, NOW + 1)
            .unwrap(),
        Renewed::Locked(CloneSign::OldGeneration)
    );
}

#[test]
fn renewals_advance_repeat_and_give_clones_away() {
    let (_dir, store) = enrolled();
    for generation in 2..5 {
        let key = [u8::try_from(generation).unwrap(); 32];
        for expected in [
            Renewed::Advanced { generation },
            Renewed::Repeated { generation },
        ] {
            assert_eq!(
                store
                    .renew_host("edge-1", generation, &key, b"signed", NOW, NOW)
                    .unwrap(),
                expected
            );
        }
    }
    let keys = store.host_keys("edge-1").unwrap();
    assert_eq!(
        keys.iter().map(|key| key.generation).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    assert_eq!(keys[0].succession, None);
    assert_eq!(keys[3].succession.as_deref(), Some(&b"signed"[..]));

    let refused = [
        (6, [9; 32], RenewRefusal::Ahead),
        (5, [2; 32], RenewRefusal::KeyUsedBefore),
    ];
    for (generation, key, refusal) in refused {
        assert_eq!(
            store
                .renew_host("edge-1", generation, &key, b"", NOW, NOW)
                .unwrap(),
            Renewed::Refused(refusal)
        );
    }
    assert_eq!(
        store.renew_host("edge-2", 1, &KEY, b"", NOW, NOW).unwrap(),
        Renewed::Refused(RenewRefusal::Unknown)
    );

    let other = store
        .renew_host("edge-1", 4, &[44; 32], b"", NOW, NOW)
        .unwrap();
    assert_eq!(other, Renewed::Locked(CloneSign::OtherKey));
    let after = store
        .renew_host("edge-1", 5, &[5; 32], b"", NOW, NOW)
        .unwrap();
    assert_eq!(after, Renewed::Refused(RenewRefusal::Locked));
    assert_eq!(
        store.host("edge-1").unwrap().unwrap().state,
        HostState::Locked
    );

    assert!(store.unlock_host("edge-1", "uid:0", NOW).unwrap());
    assert!(!store.unlock_host("edge-1", "uid:0", NOW).unwrap());
    assert_eq!(
        store
            .renew_host("edge-1", 5, &[5; 32], b"", NOW, NOW)
            .unwrap(),
        Renewed::Advanced { generation: 5 }
    );
    let names = audit_names(&store);
    assert_eq!(
        names[2..],
        [
            "key.rotated",
            "key.rotated",
            "key.rotated",
            "host.locked",
            "host.unlocked",
            "key.rotated"
        ]
    );
}

#[test]
fn a_revoked_name_is_never_used_again() {
    let (_dir, store) = enrolled();
    store
        .add_host(&new_host("edge-1", 2), "uid:0", NOW)
        .unwrap();
    assert!(store.revoke_host("edge-1", "uid:0", NOW).unwrap());
    assert!(!store.revoke_host("edge-1", "uid:0", NOW).unwrap());
    let revoked = store.audit_rows(3, 9).unwrap();
    assert_eq!(
        (revoked.len(), revoked[0].fields.as_str()),
        (1, r#"{"install_keys_retired":1}"#)
    );
    assert!(!store.unlock_host("edge-1", "uid:0", NOW).unwrap());
    let again = store
        .add_host(&new_host("edge-1", 3), "uid:0", NOW)
        .unwrap();
    assert_eq!(again, AddHost::Refused(AddRefusal::Revoked));
    let redeemed = store
        .redeem_install_key(&redeem(&[2; 8], &[2; 32]), NOW)
        .unwrap();
    assert_eq!(redeemed, Redeemed::Refused(RedeemRefusal::HostRevoked));
    assert_eq!(
        store
            .renew_host("edge-1", 2, &[2; 32], b"", NOW, NOW)
            .unwrap(),
        Renewed::Refused(RenewRefusal::Revoked)
    );
}

#[test]
fn a_locked_host_gets_no_install_key_and_redeems_none() {
    let (_dir, store) = enrolled();
    store
        .add_host(&new_host("edge-1", 2), "uid:0", NOW)
        .unwrap();
    assert!(
        store
            .lock_host("edge-1", "seen twice", "uid:0", NOW)
            .unwrap()
    );
    let added = store
        .add_host(&new_host("edge-1", 3), "uid:0", NOW)
        .unwrap();
    assert_eq!(added, AddHost::Refused(AddRefusal::Locked));
    let redeemed = store
        .redeem_install_key(&redeem(&[2; 8], &[2; 32]), NOW)
        .unwrap();
    assert_eq!(redeemed, Redeemed::Refused(RedeemRefusal::HostLocked));
}

#[test]
fn names_that_are_not_ids_are_refused() {
    let (_dir, store) = open();
    for name in ["", "Edge", "a/b", "a b", "ü", &"a".repeat(65)] {
        assert!(
            store.add_host(&new_host(name, 1), "uid:0", NOW).is_err(),
            "{name}"
        );
    }
    assert_eq!(audit_names(&store), [""; 0], "no row without its change");
    store
        .add_host(&new_host(&"a-9".repeat(21), 1), "uid:0", NOW)
        .unwrap();
}

#[test]
fn a_change_that_fails_leaves_no_audit_row_and_an_audit_row_that_fails_leaves_no_change() {
    let (_dir, store) = open();
    store
        .add_host(&new_host("edge-1", 1), "uid:0", NOW)
        .unwrap();
    assert!(
        store
            .add_host(&new_host("edge-2", 1), "uid:0", NOW)
            .is_err(),
        "the kid is taken"
    );
    assert!(
        store
            .add_host(&new_host("edge-3", 3), &"x".repeat(300), NOW)
            .is_err(),
        "the actor is too long"
    );
    assert_eq!(store.hosts().unwrap().len(), 1);
    assert_eq!(audit_names(&store), ["host.operator_bundle"]);
}

#[test]
fn time_never_goes_back_not_even_over_a_restart() {
    let (dir, store) = open();
    assert_eq!(store.advance_time(50).unwrap(), 50);
    assert_eq!(store.advance_time(40).unwrap(), 50);
    drop(store);
    let store = Store::open(&dir.path().join("outhaul.db")).unwrap();
    assert_eq!(store.advance_time(10).unwrap(), 50);
    assert_eq!(store.advance_time(60).unwrap(), 60);
}

#[test]
fn the_store_is_its_owners_alone_and_survives_reopening() {
    let (dir, store) = enrolled();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            entry.path()
        );
    }
    drop(store);
    let store = Store::open(&dir.path().join("outhaul.db")).unwrap();
    assert_eq!(store.host("edge-1").unwrap().unwrap().public_key, Some(KEY));
    let synchronous: i64 = store
        .connection
        .lock()
        .unwrap()
        .query_row("PRAGMA synchronous", [], |row| row.get(0))
        .unwrap();
    assert_eq!(synchronous, 2, "full");
}

#[test]
fn a_store_of_a_newer_program_is_refused() {
    let (dir, store) = open();
    store
        .connection
        .lock()
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    drop(store);
    let error = Store::open(&dir.path().join("outhaul.db")).unwrap_err();
    assert!(format!("{error:#}").contains("version 99"), "{error:#}");
}
