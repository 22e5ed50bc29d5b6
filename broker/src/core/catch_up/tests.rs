//! Chains of successions, in small worlds.

use protocol::key::Secret;
use zeroize::Zeroizing;

use super::super::incarnation::Restored;
use super::*;

const HOUR_MS: u64 = 3_600_000;
/// An hour's token, and three days.
const AWAY_MAX: Duration = Duration::from_secs(73 * 3600);
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

fn secret(byte: u8) -> Secret<Host> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn edge() -> HostId {
    HostId::new("edge-1").unwrap()
}

fn known(last: u8) -> Vec<HostKey> {
    (1..=last)
        .map(|byte| HostKey {
            generation: byte.into(),
            key: secret(byte).public(),
            since: NOW,
            how: Since::Granted,
        })
        .collect()
}

/// `signer` names `next`, of `generation`.
fn link_of(host: &HostId, signer: u8, generation: u64, next: u8) -> ByteBuf {
    let succession = Succession {
        host: host.clone(),
        generation,
        key: secret(next).public(),
        time: NOW,
    };
    signed::sign(&secret(signer), &succession, b"").into()
}

/// The true chain: key `n` names `n + 1`.
fn chain(range: std::ops::Range<u8>) -> Vec<ByteBuf> {
    range
        .map(|n| link_of(&edge(), n, u64::from(n) + 1, n + 1))
        .collect()
}

#[test]
fn in_every_small_world_a_chain_leads_on_from_the_current_key_or_nowhere() {
    for last in 1..=5_u8 {
        let keys = known(last);
        for from in 1..=7_u8 {
            for to in from..=8_u8 {
                let read = read_chain(&edge(), &keys, &chain(from..to));
                let expected: Vec<u64> = (last..to).map(|n| u64::from(n) + 1).collect();
                match read {
                    Chain::Foreign => assert!(from == to || from > last, "{last} {from} {to}"),
                    Chain::Known => assert!(from < to && to <= last, "{last} {from} {to}"),
                    Chain::Ahead(links) => {
                        assert!(from <= last && to > last, "{last} {from} {to}");
                        let found: Vec<u64> = links.iter().map(|link| link.generation).collect();
                        assert_eq!(found, expected);
                        for link in links {
                            let named = u8::try_from(link.generation).unwrap();
                            assert_eq!(link.key, secret(named).public());
                        }
                    }
                    Chain::Fork { .. } => panic!("{last} {from} {to}"),
                }
            }
        }
    }
}

#[test]
fn wherever_two_chains_part_after_a_key_that_is_known_the_host_is_forked() {
    // The known chain is 1 to 5. A clone parted from it after key `at`, with keys 11, 12, … of its own.
    for at in 1..5_u8 {
        let mut links = chain(1..at);
        links.push(link_of(&edge(), at, u64::from(at) + 1, 11));
        links.push(link_of(&edge(), 11, u64::from(at) + 2, 12));
        for skip in 0..links.len() {
            let read = read_chain(&edge(), &known(5), &links[skip..]);
            let generation = u64::from(at) + 1;
            let expected = if skip < usize::from(at) {
                let key = secret(11).public();
                Chain::Fork { generation, key }
            } else {
                Chain::Foreign
            };
            assert_eq!(read, expected, "parted after {at}, {skip} skipped");
        }
    }
    // After the last known key there is no telling: who comes first is the host, and the other one forks.
    let other = [link_of(&edge(), 5, 6, 11)];
    assert!(matches!(
        read_chain(&edge(), &known(5), &other),
        Chain::Ahead(_)
    ));
    assert!(matches!(
        read_chain(&edge(), &known(6), &other),
        Chain::Fork { .. }
    ));
}

#[test]
fn a_chain_ends_at_the_first_link_that_does_not_hold() {
    let other = HostId::new("edge-2").unwrap();
    let bad = [
        link_of(&other, 4, 5, 5),
        link_of(&edge(), 3, 5, 5),
        link_of(&edge(), 4, 6, 6),
        link_of(&edge(), 9, 5, 5),
        ByteBuf::from(vec![0; 600]),
        ByteBuf::new(),
    ];
    for bad in bad {
        let mut links = chain(2..4);
        links.push(bad.clone());
        links.extend(chain(4..6));
        let Chain::Ahead(ahead) = read_chain(&edge(), &known(3), &links) else {
            panic!("{bad:?}");
        };
        // Of these, 3 to 4; and behind the bad one nothing, though key 4 would vouch for more.
        assert_eq!(ahead.len(), 1, "{bad:?}");
        assert_eq!(read_chain(&edge(), &known(3), &[bad]), Chain::Foreign);
    }
}

#[test]
fn of_a_longer_chain_than_fits_a_request_the_rest_is_not_looked_at() {
    let links = chain(1..60);
    let Chain::Ahead(ahead) = read_chain(&edge(), &known(1), &links) else {
        panic!("it leads on");
    };
    assert_eq!(ahead.len(), SUCCESSIONS_MAX);
}

#[test]
fn only_a_declared_restore_after_the_key_lets_a_host_that_is_ahead_in() {
    let first = Incarnation {
        number: 1,
        id: [1; 16],
        first: 0,
        began: UnixMillis(0),
        restored: None,
    };
    let restored = |made: u64, began: u64| Incarnation {
        number: 2,
        began: UnixMillis(NOW.0 + began),
        restored: Some(Restored {
            backup: [2; 16],
            made: UnixMillis(NOW.0 + made),
            end: 7,
        }),
        ..first.clone()
    };
    let key = |since: u64, how| HostKey {
        since: UnixMillis(NOW.0 + since),
        how,
        ..known(1)[0]
    };
    let judge = |key: &HostKey, incarnation: &Incarnation, now: u64| {
        may_catch_up(key, incarnation, AWAY_MAX, UnixMillis(NOW.0 + now))
    };
    let recorded = key(0, Since::Granted);
    assert_eq!(judge(&recorded, &first, 0), Err(MayNot::NoRestore));
    assert_eq!(judge(&recorded, &restored(0, 10), 20), Ok(()));
    let later = key(11, Since::Granted);
    assert_eq!(judge(&later, &restored(0, 10), 20), Err(MayNot::NoRestore));
    // A chain longer than a request: each part rests on the part before, in this incarnation alone.
    let part = key(11, Since::CaughtUp { incarnation: 2 });
    assert_eq!(judge(&part, &restored(0, 10), 20), Ok(()));
    let earlier = key(11, Since::CaughtUp { incarnation: 1 });
    assert_eq!(
        judge(&earlier, &restored(0, 10), 20),
        Err(MayNot::NoRestore)
    );
    // The window counts to the backup, and again from the restore.
    let window_ms = 73 * HOUR_MS;
    for (made, began, now, expected) in [
        (window_ms, window_ms, window_ms, Ok(())),
        (
            window_ms + 1,
            window_ms + 1,
            window_ms + 1,
            Err(MayNot::TooLate),
        ),
        (0, 500 * HOUR_MS, 500 * HOUR_MS + window_ms, Ok(())),
        (
            0,
            500 * HOUR_MS,
            500 * HOUR_MS + window_ms + 1,
            Err(MayNot::TooLate),
        ),
    ] {
        assert_eq!(judge(&recorded, &restored(made, began), now), expected);
    }
}
