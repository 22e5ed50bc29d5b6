//! Whom a host obeys, in small worlds: who may say what, in which order, and what its owner's list undoes.

use protocol::audit::{Checkpoint, SignedCheckpoint, Vkey};
use protocol::key::{Audit, Secret};
use protocol::key_change::{NextKey, RevokedKey};
use zeroize::Zeroizing;

use super::*;

const START: UnixMillis = UnixMillis(1_800_000_000_000);
const HOUR_MS: u64 = 3_600_000;

fn secret(byte: u8) -> Secret<Dispatcher> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn key(byte: u8) -> Public<Dispatcher> {
    secret(byte).public()
}

fn at(hours: u64) -> UnixMillis {
    UnixMillis(START.0 + hours * HOUR_MS)
}

/// Said at an hour; the old key is obeyed for one more.
fn next(signer: u8, to: u8, hour: u64) -> Vec<u8> {
    let until = at(hour + 1);
    let change = Change::Next(NextKey {
        key: key(to),
        until,
    });
    let time = at(hour);
    Statement { change, time }.sign(&secret(signer))
}

fn revoke(signer: u8, which: u8, hour: u64) -> Vec<u8> {
    let change = Change::Revoke(RevokedKey { key: key(which) });
    let time = at(hour);
    Statement { change, time }.sign(&secret(signer))
}

fn listing(list: &[u8]) -> Dispatchers {
    Dispatchers::open(list.iter().map(|byte| key(*byte)), None, START, at(100))
}

fn obeyed(dispatchers: &Dispatchers, now: UnixMillis) -> Vec<u8> {
    let obeyed = dispatchers.obeyed(now);
    (1..100)
        .filter(|byte| obeyed.contains(&key(*byte)))
        .collect()
}

/// The same after a restart, with this list.
fn restart(before: &Dispatchers, list: &[u8], now: UnixMillis) -> Dispatchers {
    let bytes = protocol::cbor::to_vec(before.learned());
    let learned = protocol::cbor::from_slice(&bytes, 1 << 20).unwrap();
    let list = list.iter().map(|byte| key(*byte));
    Dispatchers::open(list, Some(learned), START, now)
}

#[test]
fn an_old_key_is_obeyed_for_its_overlap_and_its_successor_from_the_first() {
    let mut host = listing(&[1, 2]);
    host.take(&next(1, 11, 5), at(5)).unwrap();
    assert_eq!(obeyed(&host, at(6)), [1, 2, 11]);
    assert_eq!(obeyed(&host, UnixMillis(at(6).0 + 1)), [2, 11]);
    assert_eq!(host.take(&next(1, 11, 5), at(5)), Err(NoChange::Again));
    assert_eq!(host, restart(&host, &[1, 2], at(500)));
}

#[test]
fn a_host_that_was_away_follows_a_chain_long_after_each_overlap() {
    let chain: Vec<_> = (1..9).map(|n| next(n, n + 1, u64::from(n))).collect();
    let mut host = listing(&[1]);
    for statement in &chain {
        host.take(statement, at(4000)).unwrap();
    }
    assert_eq!(obeyed(&host, at(4000)), [9]);
    // In another order what cannot be verified waits for its next coming.
    let mut host = listing(&[1]);
    for statement in chain.iter().rev().cycle().take(64) {
        let _ = host.take(statement, at(4000));
    }
    assert_eq!(obeyed(&host, at(4000)), [9]);
}

#[test]
fn in_every_small_world_only_who_is_obeyed_changes_anything() {
    // Of keys 1 to 4 the owner lists 1 and 2; 1 was followed by 3 at hour 5. Who signs what, during the overlap and after it.
    for (hour, may) in [(6, &[1, 2, 3][..]), (8, &[2, 3])] {
        for signer in 1..=5_u8 {
            for about in 1..=5_u8 {
                for statement in [next(signer, about, hour), revoke(signer, about, hour)] {
                    let mut host = listing(&[1, 2]);
                    host.take(&next(1, 3, 5), at(5)).unwrap();
                    let before = host.clone();
                    let taken = host.take(&statement, at(hour));
                    if !may.contains(&signer) || signer == about {
                        assert!(matches!(taken, Err(NoChange::Statement(_))));
                    }
                    match taken {
                        Ok(Changed::Followed { .. }) => {
                            assert!(signer != 1, "it named its successor");
                            assert!(obeyed(&host, at(hour)).contains(&about) || about == 1);
                        }
                        Ok(Changed::Revoked { .. }) => {
                            let left = obeyed(&host, at(hour));
                            assert!(!left.contains(&about) && about <= 3);
                            assert!(about != 1 || !left.contains(&3), "what it named goes too");
                        }
                        Ok(Changed::Restored { .. }) => panic!("nobody said so"),
                        Err(_) => assert_eq!(host, before),
                    }
                }
            }
        }
    }
}

#[test]
fn only_who_is_obeyed_may_say_that_the_broker_was_restored_and_nothing_of_it_is_kept_here() {
    let audit = Secret::<Audit>::from_seed(&Zeroizing::new([7; 32]));
    let vkey = Vkey::new("b/audit", audit.public()).unwrap();
    let checkpoint = Checkpoint::new("b/audit", 3, [9; 32]).unwrap();
    let trail = RestoredTrail {
        at: at(5),
        vkey: vkey.to_string(),
        note: SignedCheckpoint::sign(checkpoint, &[&audit]).to_string(),
    };
    let restored = |signer: u8| {
        let change = Change::Restored(trail.clone());
        Statement {
            change,
            time: at(6),
        }
        .sign(&secret(signer))
    };
    let mut host = listing(&[1, 2]);
    host.take(&next(1, 3, 5), at(5)).unwrap();
    host.take(&revoke(1, 2, 5), at(5)).unwrap();
    let before = host.clone();
    for signer in 1..=4 {
        let taken = host.take(&restored(signer), at(8));
        let by = key(signer);
        let trail = trail.clone();
        match signer {
            3 => assert_eq!(taken, Ok(Changed::Restored { trail, by })),
            _ => assert!(matches!(taken, Err(NoChange::Statement(_)))),
        }
        assert_eq!(host, before);
    }
}

#[test]
fn a_stolen_key_is_revoked_with_every_key_that_it_named() {
    let mut host = listing(&[1, 2]);
    for (signer, to) in [(1, 11), (11, 12), (12, 13)] {
        host.take(&next(signer, to, 5), at(5)).unwrap();
    }
    host.take(&revoke(2, 1, 5), at(5)).unwrap();
    assert_eq!(obeyed(&host, at(5)), [2]);
    assert_eq!(host.take(&revoke(2, 1, 6), at(6)), Err(NoChange::Again));
    assert_eq!(host.take(&next(2, 13, 6), at(6)), Err(NoChange::Revoked));
    // It comes back by no word of anybody, and by no restart.
    assert_eq!(obeyed(&restart(&host, &[1, 2], at(9)), at(9)), [2]);
}

#[test]
fn a_key_names_one_successor_and_a_second_one_is_not_believed() {
    let mut host = listing(&[1]);
    host.take(&next(1, 11, 5), at(5)).unwrap();
    assert_eq!(host.take(&next(1, 12, 5), at(5)), Err(NoChange::Fork));
    assert_eq!(obeyed(&host, at(5)), [1, 11]);
}

#[test]
fn the_owners_hand_ends_whatever_was_said() {
    let mut host = listing(&[1, 2]);
    host.take(&next(1, 11, 5), at(5)).unwrap();
    host.take(&revoke(2, 11, 6), at(6)).unwrap();
    assert_eq!(obeyed(&host, at(8)), [2]);
    // Key 11 is listed: no word of before counts against it, nor does it when it comes again.
    let listed = restart(&host, &[1, 2, 11], at(10));
    assert_eq!(obeyed(&listed, at(10)), [2, 11]);
    let mut again = listed;
    assert_eq!(again.take(&revoke(2, 11, 6), at(11)), Err(NoChange::Owner));
    again.take(&revoke(2, 11, 12), at(12)).unwrap();
    assert_eq!(obeyed(&again, at(12)), [2]);
    // Taken off the list and put there again.
    let off = restart(&again, &[2], at(20));
    assert_eq!(obeyed(&off, at(20)), [2]);
    let mut back = restart(&off, &[1, 2], at(30));
    assert_eq!(obeyed(&back, at(30)), [1, 2]);
    // What it said before it was listed names its successor still, and does not end it.
    back.take(&next(1, 11, 5), at(31)).unwrap();
    assert_eq!(obeyed(&back, at(31)), [1, 2, 11]);
    // And who is obeyed by the word of a key alone goes with that key.
    assert_eq!(obeyed(&restart(&back, &[2], at(40)), at(40)), [2]);
}

#[test]
fn a_key_that_the_bundle_lists_is_listed_since_the_bundle_was_made() {
    let mut host = listing(&[1]);
    assert!(host.take(&next(1, 11, 50), at(100)).is_ok());
    assert_eq!(obeyed(&host, at(100)), [11]);
    let mut late = Dispatchers::open([key(1)], None, at(60), at(100));
    late.take(&next(1, 11, 50), at(100)).unwrap();
    assert_eq!(obeyed(&late, at(100)), [1, 11], "the owner's list is newer");
}

#[test]
fn there_is_room_for_so_many_statements_and_no_more() {
    let mut host = listing(&[1]);
    for n in 1..=64 {
        host.take(&next(n, n + 1, 5), at(5)).unwrap();
    }
    assert_eq!(host.take(&next(65, 66, 5), at(5)), Err(NoChange::Full));
}
