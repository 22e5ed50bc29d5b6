//! Rights that are taken away one by one, and what is shown of a host.

use protocol::token::mint_sandbox;

use super::*;
use crate::core::hosts::InstallKeyState;
use crate::core::principal::Who;

/// A token of a sandbox, under a host's token and its key.
fn sandbox_token(plane: &Plane, host_key: u8, parent: &[u8], sandbox: &str) -> Vec<u8> {
    let sandbox = SandboxId::new(sandbox).unwrap();
    let key = secret::<Sandbox>(20).public();
    mint_sandbox(
        &secret(host_key),
        parent,
        &sandbox,
        &key,
        [9; 8],
        plane.now(),
    )
    .unwrap()
}

fn refused(plane: &Plane, token: &[u8]) -> Option<Denied> {
    plane.check_token(token, plane.now()).err()
}

#[tokio::test]
async fn a_revoked_generation_opens_nothing_over_a_restart_too_and_a_new_bundle_does() {
    let (place, plane, first) = enrolled().await;
    let second = renew(&plane, 10, 11, 2).await.unwrap();
    let below = sandbox_token(&plane, 10, &first.token, "build-7");
    assert_eq!(
        refused(&plane, &first.token),
        None,
        "the one before is good"
    );
    let mut withdrawals = plane.withdrawals();
    assert!(!plane.revoke_generation(&edge(), 1, &PEER).unwrap());
    assert_eq!(withdrawals.try_recv().unwrap(), Withdrawn::Some(edge()));
    assert_eq!(refused(&plane, &first.token), Some(Denied::Generation));
    assert_eq!(refused(&plane, &below), Some(Denied::Generation));
    assert_eq!(refused(&plane, &second.token), None);
    assert_eq!(
        renew(&plane, 10, 11, 2).await.unwrap().generation,
        2,
        "its answer was lost"
    );
    assert_eq!(
        renew(&plane, 10, 99, 2).await.unwrap_err(),
        Refusal::Proof,
        "who has a revoked key does not even have its host locked"
    );
    assert!(plane.revoke_generation(&edge(), 2, &PEER).unwrap());
    assert!(matches!(
        plane.revoke_generation(&edge(), 2, &PEER),
        Err(RevokeError::Void { .. })
    ));
    assert!(matches!(
        plane.revoke_generation(&edge(), 3, &PEER),
        Err(RevokeError::Ahead { newest: 2, .. })
    ));
    drop(plane);
    let plane = open_in(place.path()).await;
    assert_eq!(refused(&plane, &second.token), Some(Denied::Generation));
    assert_eq!(renew(&plane, 11, 12, 3).await.unwrap_err(), Refusal::Proof);
    assert_eq!(plane.host_state(&edge()), Some(HostState::Enrolled));
    let install = bundle(&plane, true);
    let third = enroll(&plane, &install, 15).await.unwrap();
    assert_eq!(third.generation, 3);
    assert_eq!(refused(&plane, &third.token), None);
    assert_eq!(refused(&plane, &second.token), Some(Denied::Generation));
    let names = audit_names(&plane);
    let revoked = names
        .iter()
        .filter(|name| *name == "host.generation_revoked");
    assert_eq!(revoked.count(), 2);
}

#[tokio::test]
async fn a_revoked_sandbox_connects_no_more_over_a_restart_too_and_its_neighbours_do() {
    let (place, plane, grant) = enrolled().await;
    let unknown = plane.revoke_sandbox(&edge(), &build(), &PEER);
    assert!(matches!(unknown, Err(RevokeError::Sandbox(..))));
    for (id, sandbox) in [(1, "build-7"), (2, "build-8")] {
        let launch = launch(&plane, id, sandbox);
        plane.submit_command(launch, PEER).await.unwrap();
    }
    let token = |plane: &Plane, sandbox| sandbox_token(plane, 10, &grant.token, sandbox);
    let mut withdrawals = plane.withdrawals();
    plane.revoke_sandbox(&edge(), &build(), &PEER).unwrap();
    assert_eq!(
        withdrawals.try_recv().unwrap(),
        Withdrawn::Sandbox(edge(), build())
    );
    assert!(plane.revoke_sandbox(&edge(), &build(), &PEER).is_err());
    let check = |plane: &Plane| {
        let mine = token(plane, "build-7");
        assert_eq!(refused(plane, &mine), Some(Denied::Sandbox));
        assert_eq!(refused(plane, &token(plane, "build-8")), None);
        assert_eq!(refused(plane, &grant.token), None, "nor its host");
        let who = |text| Who::Subject(Subject::parse(text).unwrap());
        assert!(plane.is_withdrawn(&who("edge-1/build-7")));
        assert!(!plane.is_withdrawn(&who("edge-1/build-8")));
    };
    check(&plane);
    drop(plane);
    let plane = open_in(place.path()).await;
    check(&plane);
    assert!(audit_names(&plane).contains(&"sandbox.revoked".to_owned()));
}

#[tokio::test]
async fn a_revoked_install_key_enrols_nobody_over_a_restart_too() {
    let (place, plane) = plane().await;
    let install = bundle(&plane, false);
    let fingerprint = plane.revoke_install_key(&edge(), &PEER).unwrap();
    assert!(matches!(
        plane.revoke_install_key(&edge(), &PEER),
        Err(RevokeError::NoInstallKey(_))
    ));
    drop(plane);
    let plane = open_in(place.path()).await;
    assert_eq!(
        enroll(&plane, &install, 10).await.unwrap_err(),
        Refusal::InstallKey
    );
    let shown = plane.store().install_keys("edge-1").unwrap();
    assert_eq!(shown[0].fingerprint, fingerprint);
    assert_eq!(shown[0].state, InstallKeyState::Retired);
    assert_eq!(
        audit_names(&plane).last().map(String::as_str),
        Some("host.install_key_revoked")
    );
}

#[tokio::test]
async fn a_removed_host_has_no_rights_and_its_name_and_journal_are_never_anothers() {
    let (place, plane, grant) = enrolled().await;
    let accepted = accept(&plane, &build(), batch(&mut writer(), b"kept")).await;
    assert_eq!(accepted, Accepted::Stored);
    let subject = Subject::Host(edge());
    plane.connected(&subject, 1);
    assert!(matches!(
        plane.remove_host(&edge(), false, &PEER),
        Err(RevokeError::InUse { .. })
    ));
    plane.disconnected(&subject, 1);
    let mut withdrawals = plane.withdrawals();
    plane.remove_host(&edge(), false, &PEER).unwrap();
    assert_eq!(withdrawals.try_recv().unwrap(), Withdrawn::Host(edge()));
    assert!(
        plane.remove_host(&edge(), true, &PEER).is_err(),
        "it is gone"
    );
    let check = |plane: &Plane| {
        assert_eq!(refused(plane, &grant.token), Some(Denied::Revoked));
        assert!(plane.hosts_and_presence().is_empty());
        let dispatchers = [secret::<Dispatcher>(2).public()];
        for reissue in [false, true] {
            let again = plane.add_host(&edge(), HostKind::Docker, &dispatchers, reissue, &PEER);
            assert!(matches!(again, Err(AddError::Revoked(_))));
        }
        let kept = records(plane);
        assert!(kept.iter().any(|record| record.host == "edge-1"));
    };
    check(&plane);
    drop(plane);
    let plane = open_in(place.path()).await;
    check(&plane);
    assert!(audit_names(&plane).contains(&"host.removed".to_owned()));
}

#[tokio::test]
async fn a_host_with_a_sandbox_is_removed_only_where_that_is_meant() {
    let (_place, plane, _) = enrolled().await;
    let launch = launch(&plane, 1, "build-7");
    plane.submit_command(launch, PEER).await.unwrap();
    let refused = plane.remove_host(&edge(), false, &PEER).unwrap_err();
    assert!(refused.to_string().contains("--force"), "{refused}");
    plane.remove_host(&edge(), true, &PEER).unwrap();
}

#[tokio::test]
async fn what_a_removed_dispatcher_signed_reaches_nobody() {
    let (_place, plane, _) = enrolled().await;
    let launch = launch(&plane, 1, "build-7");
    plane.submit_command(launch, PEER).await.unwrap();
    plane.connected(&Subject::Host(edge()), 1);
    assert_eq!(plane.open_commands(&edge()).await.unwrap().len(), 1);
    let mut withdrawals = plane.withdrawals();
    let key = *secret::<Dispatcher>(2).public().as_bytes();
    assert!(plane.remove_dispatcher(&key, &PEER).unwrap());
    assert!(!plane.remove_dispatcher(&key, &PEER).unwrap());
    assert_eq!(
        withdrawals.try_recv().unwrap(),
        Withdrawn::Some(edge()),
        "some of it may wait on the host's link"
    );
    assert!(plane.open_commands(&edge()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_host_that_cannot_be_looked_up_any_more_is_let_in_by_nobody() {
    let (place, plane, grant) = enrolled().await;
    // Somebody breaks the store behind our back.
    let other = rusqlite::Connection::open(place.path().join("state.db")).unwrap();
    other
        .execute_batch("ALTER TABLE host_keys RENAME TO gone")
        .unwrap();
    assert_eq!(
        renew(&plane, 10, 11, 2).await.unwrap_err(),
        Refusal::Unavailable
    );
    assert_eq!(refused(&plane, &grant.token), None, "what was read is true");
    let mut withdrawals = plane.withdrawals();
    // The change itself is on disk; what it left cannot be read.
    assert!(plane.revoke_generation(&edge(), 1, &PEER).is_err());
    assert_eq!(refused(&plane, &grant.token), Some(Denied::Unavailable));
    assert!(plane.is_withdrawn(&Who::Subject(Subject::Host(edge()))));
    assert_eq!(withdrawals.try_recv().unwrap(), Withdrawn::Host(edge()));
}

#[tokio::test]
async fn what_a_host_says_of_its_clock_is_known_until_it_says_something_else() {
    let (_place, plane, _) = enrolled().await;
    assert_eq!(plane.skew(&edge()), None);
    for (number, skew_ms, known) in [
        (1, Some(7_200_000), 7_200_000),
        // An operator from before this was said.
        (2, None, 7_200_000),
        (3, Some(-31_536_000_000), -31_536_000_000),
    ] {
        let news = News::Status(Status {
            generation: 1,
            version: "0".into(),
            start: [0; 8].into(),
            engine: true,
            sandboxes: vec![],
            skew_ms,
        });
        let report = signed_report(10, number, news);
        assert_eq!(plane.accept_report(&edge(), report).await, Accepted::Stored);
        assert_eq!(plane.skew(&edge()).unwrap().ahead_ms, known);
    }
}

#[tokio::test]
async fn a_label_changes_what_a_host_is_called_and_nothing_else() {
    let (_place, plane, grant) = enrolled().await;
    plane.label_host(&edge(), Some("Rack 4"), &PEER).unwrap();
    assert!(matches!(
        plane.label_host(&edge(), Some("Rack 4"), &PEER),
        Err(RevokeError::SameLabel(_))
    ));
    let other = HostId::new("edge-2").unwrap();
    let dispatchers = [secret::<Dispatcher>(2).public()];
    let add = plane.add_host(&other, HostKind::Docker, &dispatchers, false, &PEER);
    assert!(add.is_ok());
    let confusing = plane.label_host(&edge(), Some("edge-2"), &PEER);
    assert!(matches!(confusing, Err(RevokeError::LabelIsName(_))));
    assert_eq!(refused(&plane, &grant.token), None);
    let row = plane.store().host("edge-1").unwrap().unwrap();
    assert_eq!(row.added_by.as_deref(), Some("uid:1000"));
    assert_eq!(row.label.as_deref(), Some("Rack 4"));
    assert!(audit_names(&plane).contains(&"host.renamed".to_owned()));
}
