//! Enrolment, renewal, and what becomes of a host whose rights end.

use std::sync::Arc;

use protocol::topic::Topic;

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
    };
    let refused = plane.exchange(sign_request(&key, &request)).await;
    assert_eq!(refused.unwrap_err().reason, Refusal::Malformed);
    assert_eq!(
        plane.exchange(vec![0; 100]).await.unwrap_err(),
        Refusal::Malformed.into()
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
    assert!(plane.unlock_host(&edge(), PEER).unwrap());
    assert!(plane.check_token(&third.token, now).is_ok());
    assert!(plane.revoke_host(&edge(), PEER).unwrap());
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
        plane.add_host(&edge(), HostKind::Docker, dispatchers, reissue, PEER)
    };
    assert!(matches!(add(false, &dispatchers), Err(AddError::Exists(_))));
    assert!(matches!(add(true, &[]), Err(AddError::NoDispatcher)));
    let install = bundle(&plane, true);
    let again = enroll(&plane, &install, 15).await.unwrap();
    assert_eq!(again.generation, 2);
    assert!(renew(&plane, 15, 16, 3).await.is_ok());
}
