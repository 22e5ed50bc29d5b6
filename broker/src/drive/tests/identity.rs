//! Enrolment, renewal, and what becomes of a host whose rights end.

use std::sync::Arc;

use protocol::{id::hex, topic::Topic};

use super::*;

#[tokio::test]
async fn a_used_install_key_is_refused_and_a_lost_answer_is_given_again() {
    let (_place, plane) = plane().await;
    let install = bundle(&plane, false);
    let first = enroll(&plane, &install, 10).await.unwrap();
    assert_eq!(first.generation, 1);
    assert!(
        enroll(&plane, &install, 10).await.is_ok(),
        "the same key, a moment later"
    );
    assert_eq!(
        enroll(&plane, &install, 11).await.unwrap_err(),
        Refusal::InstallKey
    );
    let names = audit_names(&plane);
    assert_eq!(
        names.iter().filter(|name| *name == "host.enrolled").count(),
        1,
        "{names:?}"
    );
    let (token, now) = (&first.token, plane.now());
    let grant = plane.check_token(token, now).unwrap();
    assert!(
        grant
            .scope
            .rule_for(&Topic::Reports(edge()).to_string(), Permission::Pub)
            .is_some()
    );
    let later = now.plus(Duration::from_secs(3_661));
    assert_eq!(
        plane.check_token(token, later).unwrap_err(),
        Denied::Token(TokenError::Expired)
    );
}

#[tokio::test]
async fn of_many_who_redeem_one_key_at_once_exactly_one_enrols() {
    let (_place, plane) = plane().await;
    let install = bundle(&plane, false);
    let install = Arc::new(install);
    let mut tries = tokio::task::JoinSet::new();
    for key in 30..62 {
        let (plane, install) = (plane.clone(), Arc::clone(&install));
        tries.spawn(async move {
            let proof = InstallProof::from(&*install);
            exchange(&plane, key, 1, Proof::InstallKey(proof))
                .await
                .is_ok()
        });
    }
    let won = tries
        .join_all()
        .await
        .into_iter()
        .filter(|won| *won)
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn a_foreign_nonce_and_strange_bytes_are_refused() {
    let (_place, plane) = plane().await;
    let install = bundle(&plane, false);
    let key = secret::<Host>(10);
    let request = Request {
        nonce: [9; 32].into(),
        host: edge(),
        key: key.public(),
        generation: 1,
        proof: Proof::InstallKey((&install).into()),
        witness: None,
    };
    let refused = plane.exchange(sign_request(&key, &request)).await;
    assert_eq!(refused.unwrap_err(), Refusal::Malformed);
    assert_eq!(
        plane.exchange(vec![0; 100]).await.unwrap_err(),
        Refusal::Malformed
    );
    assert!(
        enroll(&plane, &install, 10).await.is_ok(),
        "the key was not spent"
    );
}

#[tokio::test]
async fn a_renewal_counts_on_and_its_clone_is_found_out() {
    let (place, plane, first) = enrolled().await;
    let second = renew(&plane, 10, 11, 2).await.unwrap();
    assert_eq!(
        renew(&plane, 10, 11, 2).await.unwrap().generation,
        2,
        "its answer was lost"
    );
    let now = plane.now();
    assert!(
        plane.check_token(&first.token, now).is_ok(),
        "a live link goes on"
    );
    let third = renew(&plane, 11, 12, 3).await.unwrap();
    assert_eq!(
        plane.check_token(&first.token, now).unwrap_err(),
        Denied::Generation
    );
    assert!(plane.check_token(&second.token, now).is_ok());
    let mut withdrawals = plane.withdrawals();
    assert_eq!(renew(&plane, 11, 99, 3).await.unwrap_err(), Refusal::Locked);
    assert_eq!(withdrawals.try_recv().unwrap(), Withdrawn::Host(edge()));
    assert_eq!(
        plane.check_token(&third.token, now).unwrap_err(),
        Denied::Locked
    );
    assert_eq!(renew(&plane, 12, 13, 4).await.unwrap_err(), Refusal::Locked);
    assert!(audit_names(&plane).contains(&"host.locked".to_owned()));
    drop(plane);
    let plane = open_in(place.path()).await;
    assert_eq!(
        plane.check_token(&third.token, now).unwrap_err(),
        Denied::Locked,
        "over a restart too"
    );
    assert!(plane.unlock_host(&edge(), &PEER).unwrap());
    assert!(plane.check_token(&third.token, now).is_ok());
    assert!(plane.revoke_host(&edge(), &PEER).unwrap());
    assert_eq!(
        plane.check_token(&third.token, now).unwrap_err(),
        Denied::Revoked
    );
}

#[tokio::test]
async fn a_host_that_is_enrolled_is_not_added_again_by_mistake() {
    let (_place, plane, _) = enrolled().await;
    let dispatchers = [secret::<Dispatcher>(2).public()];
    let add = |reissue, dispatchers: &[_]| {
        plane.add_host(&edge(), HostKind::Docker, dispatchers, reissue, &PEER)
    };
    assert!(matches!(add(false, &dispatchers), Err(AddError::Exists(_))));
    assert!(matches!(add(true, &[]), Err(AddError::NoDispatcher)));
    let install = bundle(&plane, true);
    let again = enroll(&plane, &install, 15).await.unwrap();
    assert_eq!(again.generation, 2);
    assert!(renew(&plane, 15, 16, 3).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_bundles_fetched_at_once_exactly_one_enrols() {
    let (_place, plane) = plane().await;
    let mut keys = vec![bundle(&plane, false)];
    let dispatchers = [secret::<Dispatcher>(2).public()];
    let fetches: Vec<_> = (0..100)
        .map(|_| {
            let plane = plane.clone();
            tokio::task::spawn_blocking(move || {
                let fetched = plane.fetch_bundle(&edge(), &dispatchers, false, &PEER);
                InstallKey::from_text(&fetched.unwrap().install_key).unwrap()
            })
        })
        .collect();
    for fetch in fetches {
        keys.push(fetch.await.unwrap());
    }
    let mut enrolled = 0;
    for (install, key) in keys.iter().zip(100..) {
        match enroll(&plane, install, key).await {
            Ok(_) => enrolled += 1,
            Err(refusal) => assert_eq!(refusal, Refusal::InstallKey),
        }
    }
    assert_eq!((enrolled, keys.len()), (1, 101));
    let rows = plane.store().audit_rows(1, 1000).unwrap();
    let issued = rows.iter().filter(|row| row.name == "host.operator_bundle");
    assert_eq!(issued.count(), 101, "each is on record");
    for install in &keys {
        let text = install.to_text();
        let (secret, kid) = (install.secret().hash(), hex(&install.kid));
        let of_the_key = text.rsplit('_').nth(1).unwrap();
        for row in &rows {
            for word in [&**text, of_the_key, &hex(&secret), &hex(&secret[..8]), &kid] {
                assert!(!row.fields.contains(word), "{}: {}", row.name, row.fields);
            }
        }
        let fingerprint = protocol::install_key::fingerprint(&secret);
        assert_eq!(fingerprint.len(), 16, "8 bytes");
        assert!(rows.iter().any(|row| row.fields.contains(&fingerprint)));
    }
}

#[tokio::test]
async fn a_bundle_that_no_host_could_use_is_not_given_out_and_mints_no_key() {
    let dispatchers = [secret::<Dispatcher>(2).public()];
    let without_address: fn(&mut Parts) = |parts| parts.is_address_set = false;
    let uncovered: fn(&mut Parts) = |parts| {
        let mut facts = (**parts.certificates.borrow()).clone();
        facts.covers_public_name = false;
        parts.certificates = watch::channel(Arc::new(facts)).1;
    };
    for (change, says) in [
        (without_address, "public_address"),
        (uncovered, "broker.example:8443"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let plane = open_changed(place.path(), change).await;
        let error = plane
            .add_host(&edge(), HostKind::Docker, &dispatchers, false, &PEER)
            .unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(plane.store().hosts().unwrap().is_empty());
        assert!(!audit_names(&plane).contains(&"host.operator_bundle".to_owned()));
    }
}

#[tokio::test]
async fn a_bundle_is_fetched_again_for_a_host_that_is_there_and_not_yet_enrolled() {
    let (_place, plane) = plane().await;
    let dispatchers = [secret::<Dispatcher>(2).public()];
    let fetch = |reissue| plane.fetch_bundle(&edge(), &dispatchers, reissue, &PEER);
    assert!(matches!(fetch(false), Err(AddError::Unknown(_))));
    let first = bundle(&plane, false);
    let second = InstallKey::from_text(&fetch(false).unwrap().install_key).unwrap();
    assert_eq!(
        enroll(&plane, &first, 10).await.unwrap_err(),
        Refusal::InstallKey
    );
    let grant = enroll(&plane, &second, 11).await.unwrap();
    assert!(matches!(fetch(false), Err(AddError::Exists(_))));
    fetch(true).unwrap();
    let now = plane.now();
    assert!(
        plane.check_token(&grant.token, now).is_ok(),
        "it goes on until the key is used"
    );
}
