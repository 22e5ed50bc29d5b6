//! Every role, every action, every host.

use super::*;
use zeroize::Zeroizing;

const END_MS: u64 = 1_000_000_000_000;

fn host(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// What each role may beyond the one before it, written out once more: whoever adds an action says here whose it is.
const GIVEN: [(Role, &[Action]); 3] = [
    (
        Role::Viewer,
        &[
            Action::ListHosts,
            Action::ShowHost,
            Action::ListHostKeys,
            Action::ListDispatchers,
            Action::ListReaders,
            Action::ListAccess,
            Action::WhoAmI,
            Action::ListCertificates,
            Action::ListKeys,
            Action::ShowJournal,
            Action::ListSandboxes,
            Action::ShowSandbox,
            Action::ReadRecords,
            Action::ListIncarnations,
            Action::FindOffset,
            Action::ListAudit,
            Action::ListAuditKeys,
            Action::SignCheckpoint,
            Action::ListCheckpoints,
            Action::ListOpenings,
            Action::ListWitnesses,
            Action::ProveRow,
            Action::ShowStatus,
            Action::ShowMetrics,
        ],
    ),
    (
        Role::Dispatcher,
        &[Action::SubmitCommand, Action::AddStatement],
    ),
    (
        Role::Admin,
        &[
            Action::AddHost,
            Action::FetchBundle,
            Action::LabelHost,
            Action::RemoveHost,
            Action::RevokeGeneration,
            Action::RevokeInstallKey,
            Action::RevokeSandbox,
            Action::UnlockHost,
            Action::RevokeHost,
            Action::AddDispatcher,
            Action::RemoveDispatcher,
            Action::AddReader,
            Action::RemoveReader,
            Action::AddAccess,
            Action::RevokeAccess,
            Action::RotateCertificates,
            Action::RetireCertificates,
            Action::PurgeJournal,
        ],
    ),
];

/// What a token of one host may be used for, if its role suffices.
const OF_ONE_HOST: [Action; 25] = [
    Action::ListKeys,
    Action::ListAuditKeys,
    Action::ListHosts,
    Action::AddHost,
    Action::FetchBundle,
    Action::ShowHost,
    Action::LabelHost,
    Action::RemoveHost,
    Action::RevokeGeneration,
    Action::RevokeInstallKey,
    Action::RevokeSandbox,
    Action::ListHostKeys,
    Action::UnlockHost,
    Action::RevokeHost,
    Action::ListDispatchers,
    Action::WhoAmI,
    Action::ListCertificates,
    Action::PurgeJournal,
    Action::SubmitCommand,
    Action::ListSandboxes,
    Action::ShowSandbox,
    Action::ReadRecords,
    Action::ListIncarnations,
    Action::FindOffset,
    Action::ShowStatus,
];

#[test]
fn each_role_may_what_the_table_gives_it_on_its_hosts_and_nothing_else() {
    for role in Role::ALL {
        for own in [None, Some(host("edge-1"))] {
            let rights = Rights { role, host: own };
            for action in Action::ALL {
                let mut given = GIVEN.iter().filter(|(least, _)| *least <= role);
                let is_given = given.any(|(_, actions)| actions.contains(action));
                let is_reached = rights.host.is_none() || OF_ONE_HOST.contains(action);
                let said = rights.permit(*action);
                assert_eq!(
                    said.is_ok(),
                    is_given && is_reached,
                    "{rights:?} {action:?}"
                );
            }
        }
    }
}

#[test]
fn what_needs_the_machine_no_token_gives() {
    let admin = Rights {
        role: Role::Admin,
        host: None,
    };
    let machine = [
        Action::BeginBackup,
        Action::ShowExtents,
        Action::RotateAuditKey,
        Action::RotateIssuer,
    ];
    for action in machine {
        assert_eq!(admin.permit(action), Err(Refusal::Machine));
    }
    let refused = Action::ALL
        .iter()
        .filter(|one| admin.permit(**one).is_err());
    assert_eq!(refused.count(), machine.len());
}

#[test]
fn a_token_of_one_host_reaches_that_one_whatever_is_asked() {
    let (own, other) = (host("edge-1"), host("edge-2"));
    let limited = Rights {
        role: Role::Admin,
        host: Some(own.clone()),
    };
    assert_eq!(limited.reach(&own), Ok(()));
    assert_eq!(limited.reach(&other), Err(Refusal::OtherHost(own.clone())));
    let all = Rights {
        role: Role::Viewer,
        host: None,
    };
    assert!(all.reach(&own).is_ok() && all.reach(&other).is_ok());
}

#[test]
fn what_is_about_a_host_in_the_path_has_one_there_and_nothing_else_has() {
    for action in Action::ALL {
        let names_host = action.path().contains("{host}");
        assert_eq!(names_host, action.about() == About::InPath, "{action:?}");
    }
    let mut routes: Vec<_> = Action::ALL
        .iter()
        .map(|action| (action.method(), action.path()))
        .collect();
    routes.sort_unstable();
    routes.dedup();
    assert_eq!(routes.len(), Action::ALL.len(), "two actions on one route");
}

#[test]
fn only_the_token_itself_in_its_time_is_known() {
    let token = |byte: u8| AccessToken::new([byte; 8], Zeroizing::new([byte; 32]));
    let account = Account {
        name: AccessName::new("ada").unwrap(),
        secret_sha256: token(1).hash(),
        rights: Rights {
            role: Role::Viewer,
            host: None,
        },
        expires_ms: END_MS,
    };
    let accounts = Accounts::from([([1; 8], account)]);
    let at = |text: &[u8], ms| check(text, &accounts, UnixMillis(ms)).map(|_| ());
    let own = token(1).to_text();
    assert_eq!(at(own.as_bytes(), END_MS - 1), Ok(()));
    assert_eq!(at(own.as_bytes(), END_MS), Err(BadAccess::Expired));
    let forged = AccessToken::new([1; 8], Zeroizing::new([2; 32])).to_text();
    // Who does not have the secret hears nothing of its end.
    assert_eq!(at(forged.as_bytes(), END_MS), Err(BadAccess::Unknown));
    for other in [token(2).to_text().as_bytes(), b"", &[0xff; 67]] {
        assert_eq!(at(other, 0), Err(BadAccess::Unknown));
    }
    let reader = own.replacen("oat1", "ort1", 1);
    assert_eq!(at(reader.as_bytes(), 0), Err(BadAccess::Unknown));
}

#[test]
fn roles_are_read_as_they_are_written() {
    for role in Role::ALL {
        assert_eq!(Role::from_word(role.word()), Some(role));
    }
    for other in ["", "root", "Admin", "viewer,admin"] {
        assert_eq!(Role::from_word(other), None);
    }
}
