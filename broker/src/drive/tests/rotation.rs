//! Keys that follow each other: the issuer's, the dispatchers', and hosts' that a restored broker does not know.

use protocol::audit::{Checkpoint, SignedCheckpoint, Vkey};
use protocol::key_change::{Change, NextKey, RestoredTrail, RevokedKey, Statement};

use super::restore::{make, restored};
use super::*;
use crate::{drive::StatementRefused, shell::store::Snapshot};

/// Key `n` of the host names `n + 1`, of generation `n - 9` and the next: the first is key 10.
fn link(signer: u8, next: u8) -> Vec<u8> {
    let succession = Succession {
        host: edge(),
        generation: u64::from(signer) - 8,
        key: secret::<Host>(next).public(),
        time: UnixMillis(1),
    };
    signed::sign(&secret::<Host>(signer), &succession, b"")
}

async fn show(plane: &Plane, key: u8, generation: u64, links: Vec<Vec<u8>>) -> Result<Grant, No> {
    let key = secret::<Host>(key);
    let request = Request {
        nonce: plane.challenge().unwrap().nonce,
        host: edge(),
        key: key.public(),
        generation,
        proof: Proof::HostKeys(links.into_iter().map(Into::into).collect()),
        witness: None,
    };
    plane.exchange(sign_request(&key, &request)).await
}

fn behind(generation: u64) -> No {
    No {
        reason: Refusal::Proof,
        known: Some(generation),
    }
}

#[tokio::test]
async fn a_host_that_is_ahead_shows_its_chain_to_a_restored_broker_and_to_no_other() {
    let (place, plane, _) = enrolled().await;
    let snapshot = Snapshot::take(plane.store().path()).unwrap();
    let made = make(place.path(), &plane, snapshot);
    // Keys 11 to 40 come after the backup; of these the old broker knows 11.
    renew(&plane, 10, 11, 2).await.unwrap();
    let chain = |keys: std::ops::Range<u8>| keys.map(|n| link(n, n + 1)).collect::<Vec<_>>();
    let refused = show(&plane, 40, 31, chain(11..35)).await.unwrap_err();
    assert_eq!(refused, Refusal::Proof.into(), "nothing was restored here");
    let (_dir, plane) = restored(place.path(), made).await;
    // A stranger, and who shows links of nobody, learn nothing.
    let refused = show(&plane, 40, 31, chain(30..40)).await.unwrap_err();
    assert_eq!(refused, Refusal::Proof.into());
    let refused = renew(&plane, 39, 40, 31).await.unwrap_err();
    assert_eq!(refused, Refusal::Proof);
    // The chain is longer than a request: two steps, and the first of them twice.
    for _ in 0..2 {
        let step = show(&plane, 40, 31, chain(10..34)).await.unwrap_err();
        assert_eq!(step, behind(25));
    }
    let grant = show(&plane, 40, 31, chain(34..40)).await.unwrap();
    assert_eq!(grant.generation, 31);
    assert!(plane.check_token(&grant.token, plane.now()).is_ok());
    let again = show(&plane, 40, 31, chain(34..40)).await.unwrap();
    assert_eq!(again.generation, 31, "its answer was lost");
    // The whole chain is on record, for whoever verifies what its keys signed.
    let keys = plane.store().host_keys("edge-1").unwrap();
    let links = keys.iter().filter_map(|key| key.succession.as_deref());
    let first = secret::<Host>(10).public();
    let followed = protocol::exchange::follow(&edge(), first, 1, links).unwrap();
    assert_eq!(followed.last(), Some(&(31, secret::<Host>(40).public())));
    let caught_up = |name: &&String| *name == "host.caught_up";
    assert_eq!(audit_names(&plane).iter().filter(caught_up).count(), 2);
    // From here on it is a host like any other: it renews, and a restore explains nothing any more.
    assert!(renew(&plane, 40, 41, 32).await.is_ok());
    let refused = show(&plane, 50, 41, chain(41..50)).await.unwrap_err();
    assert_eq!(refused, Refusal::Proof.into());
}

#[tokio::test]
async fn of_two_machines_that_parted_after_the_backup_the_second_locks_the_host() {
    let (place, plane, _) = enrolled().await;
    let snapshot = Snapshot::take(plane.store().path()).unwrap();
    let made = make(place.path(), &plane, snapshot);
    let (_dir, plane) = restored(place.path(), made).await;
    let one = vec![link(10, 11), link(11, 12)];
    assert!(show(&plane, 12, 3, one).await.is_ok());
    let other = vec![link(10, 21), link(11, 22)];
    let refused = show(&plane, 22, 3, other).await.unwrap_err();
    assert_eq!(refused, Refusal::Locked.into());
    assert!(audit_names(&plane).contains(&"host.locked".to_owned()));
}

#[tokio::test]
async fn an_old_issuer_keys_tokens_count_until_they_end_unless_all_are_void() {
    let (_place, plane, first) = enrolled().await;
    let audience = plane.audience().to_owned();
    plane.rotate_issuer(false, "uid:0").unwrap();
    let now = plane.now();
    assert!(plane.check_token(&first.token, now).is_ok());
    let second = renew(&plane, 10, 11, 2).await.unwrap();
    assert!(plane.check_token(&second.token, now).is_ok());
    assert_eq!(plane.issuer_keys().len(), 2);
    let mut withdrawals = plane.withdrawals();
    plane.rotate_issuer(true, "uid:0").unwrap();
    assert_eq!(withdrawals.try_recv().unwrap(), Withdrawn::Tokens);
    for token in [&first.token, &second.token] {
        let denied = plane.check_token(token, plane.now()).unwrap_err();
        assert_eq!(denied.word(), "signature");
    }
    let third = renew(&plane, 11, 12, 3).await.unwrap();
    assert!(plane.check_token(&third.token, plane.now()).is_ok());
    assert_eq!(plane.audience(), audience);
    let rotated = |name: &&String| *name == "key.rotated";
    assert!(audit_names(&plane).iter().filter(rotated).count() >= 2);
}

#[tokio::test]
async fn a_dispatchers_next_key_is_taken_at_once_and_hosts_hear_of_it_before_any_command() {
    let (_place, plane, _) = enrolled().await;
    let (old, new) = (secret::<Dispatcher>(2), secret::<Dispatcher>(3));
    let now = plane.now();
    let change = Change::Next(NextKey {
        key: new.public(),
        until: now,
    });
    let statement = Statement { change, time: now }.sign(&old);
    let forged = Statement {
        change: Change::Revoke(RevokedKey { key: old.public() }),
        time: now,
    };
    let refused = plane
        .submit_statement(forged.sign(&secret(9)), "x".to_owned(), &PEER)
        .await;
    assert!(matches!(refused, Err(StatementRefused::Statement(_))));
    for _ in 0..2 {
        plane
            .submit_statement(statement.clone(), "ada-2".to_owned(), &PEER)
            .await
            .unwrap();
    }
    assert_eq!(plane.open_commands(&edge()).await.unwrap(), [statement]);
    let rows = plane.store().dispatchers().unwrap();
    assert_eq!(rows.len(), 2);
    let names = audit_names(&plane);
    assert!(
        names.contains(&"dispatcher.rotated".to_owned()),
        "{names:?}"
    );
}

#[tokio::test]
async fn a_word_for_a_restore_is_taken_where_it_names_that_restore_and_this_trail() {
    let (place, plane, _) = enrolled().await;
    let word = |plane: &Plane, at: UnixMillis, changed: bool| {
        let row = plane.sign_audit().unwrap();
        let key = plane.audit_key().current();
        let mut note = SignedCheckpoint::parse(&row.note).unwrap();
        if changed {
            let said = note.unverified();
            let other = Checkpoint::new(said.origin(), said.size(), [1; 32]).unwrap();
            note = SignedCheckpoint::sign(other, &[&key]);
        }
        let vkey = Vkey::new(note.unverified().origin(), key.public()).unwrap();
        let trail = RestoredTrail {
            at,
            vkey: vkey.to_string(),
            note: note.to_string(),
        };
        let (change, time) = (Change::Restored(trail), plane.now());
        Statement { change, time }.sign(&secret::<Dispatcher>(2))
    };
    let say = async |plane: &Plane, bytes: &[u8]| {
        let name = "restored".to_owned();
        plane.submit_statement(bytes.to_vec(), name, &PEER).await
    };
    let began = plane.history().current().began;
    let refused = say(&plane, &word(&plane, began, false)).await;
    assert!(
        matches!(refused, Err(StatementRefused::OtherTrail)),
        "nothing was restored"
    );

    let snapshot = Snapshot::take(plane.store().path()).unwrap();
    let made = make(place.path(), &plane, snapshot);
    let (_dir, plane) = restored(place.path(), made).await;
    let at = plane.history().current().began;
    for wrong in [
        word(&plane, UnixMillis(at.0 - 1), false),
        word(&plane, at, true),
    ] {
        let refused = say(&plane, &wrong).await;
        assert!(matches!(refused, Err(StatementRefused::OtherTrail)));
    }
    let right = word(&plane, at, false);
    for _ in 0..2 {
        say(&plane, &right).await.unwrap();
    }
    assert_eq!(plane.open_commands(&edge()).await.unwrap(), [right]);
}
