//! Who is let in, and to what.

use super::*;
use zeroize::Zeroizing;

const ALL: Admitted = Admitted {
    readers: true,
    bench: true,
    access: false,
};
const END_MS: u64 = 1_000_000_000_000;

pub(crate) fn everything() -> Rights {
    Rights::Read {
        events: true,
        reports: true,
        metrics: true,
        host: None,
        sandbox: None,
    }
}

fn token(byte: u8) -> ReaderToken {
    ReaderToken::new([byte; 8], Zeroizing::new([byte; 32]))
}

fn accounts(rights: &Rights) -> Accounts {
    let account = Account {
        name: ReaderName::new("grafana").unwrap(),
        secret_sha256: token(1).hash(),
        rights: rights.clone(),
        expires_ms: END_MS,
    };
    Accounts::from([([1; 8], account)])
}

pub(crate) fn reader(rights: &Rights) -> Reader {
    let shown = token(1).to_text();
    check(shown.as_bytes(), &accounts(rights), ALL, UnixMillis(0)).unwrap()
}

#[test]
fn only_the_token_itself_in_its_time_is_let_in_and_only_what_is_turned_on() {
    for rights in [everything(), Rights::Bench] {
        let accounts = accounts(&rights);
        let at = |text: &str, admitted, ms| {
            check(text.as_bytes(), &accounts, admitted, UnixMillis(ms)).map(|_| ())
        };
        let (own, other) = (token(1).to_text(), token(2).to_text());
        assert_eq!(at(&own, ALL, END_MS - 1), Ok(()));
        assert_eq!(at(&own, ALL, END_MS), Err(BadReader::Expired));
        assert_eq!(at(&other, ALL, 0), Err(BadReader::Unknown));
        assert_eq!(at("", ALL, 0), Err(BadReader::Unknown));
        assert_eq!(at(&own, Admitted::default(), 0), Err(BadReader::Off));
        let forged = ReaderToken::new([1; 8], Zeroizing::new([2; 32])).to_text();
        assert_eq!(at(&forged, ALL, 0), Err(BadReader::Unknown));
        let half = Admitted {
            readers: rights != Rights::Bench,
            bench: rights == Rights::Bench,
            access: true,
        };
        assert_eq!(at(&own, half, 0), Ok(()));
        let other_half = Admitted {
            readers: half.bench,
            bench: half.readers,
            access: true,
        };
        assert_eq!(at(&own, other_half, 0), Err(BadReader::Off));
    }
    let bytes = check(&[0xff; 67], &accounts(&everything()), ALL, UnixMillis(0));
    assert_eq!(bytes, Err(BadReader::Unknown));
}

#[test]
fn rights_open_what_they_say_and_nothing_beside_it() {
    let of_one = Rights::Read {
        events: true,
        reports: false,
        metrics: true,
        host: Some(HostId::new("edge-1").unwrap()),
        sandbox: None,
    };
    for (rights, filter, permission, may) in [
        (everything(), "v1/+/+/events", Permission::Sub, true),
        (everything(), "v1/edge-1/reports", Permission::Sub, true),
        (everything(), "v1/edge-1/commands", Permission::Sub, false),
        (everything(), "v1/+/+/events", Permission::Pub, false),
        (everything(), "bench/a", Permission::Sub, false),
        (everything(), "#", Permission::Sub, false),
        (of_one.clone(), "v1/edge-1/+/events", Permission::Sub, true),
        (of_one.clone(), "v1/edge-1/a/events", Permission::Sub, true),
        (of_one.clone(), "v1/+/+/events", Permission::Sub, false),
        (
            of_one.clone(),
            "v1/edge-10/+/events",
            Permission::Sub,
            false,
        ),
        (of_one, "v1/edge-1/reports", Permission::Sub, false),
        (Rights::Bench, "bench/a", Permission::Pub, true),
        (Rights::Bench, "bench/#", Permission::Sub, true),
        (Rights::Bench, "v1/+/+/events", Permission::Sub, false),
    ] {
        let rule = rights.scope().rule_for(filter, permission).is_some();
        assert_eq!(rule, may, "{rights:?} {filter} {permission:?}");
    }
}

/// Every set of words, with every limit: what is read is what is said, and what is not known is nothing.
#[test]
fn rights_are_read_from_their_words_and_say_them_again() {
    let all = ["events", "reports", "metrics", "bench", "everything"];
    let (host, sandbox) = (HostId::new("edge-1").ok(), SandboxId::new("a").ok());
    for set in 0..32_u32 {
        let words: Vec<&str> = (0..5)
            .filter(|bit| set >> bit & 1 == 1)
            .map(|bit| all[bit])
            .collect();
        for (host, sandbox) in [
            (None, None),
            (host.clone(), None),
            (host.clone(), sandbox.clone()),
            (None, sandbox.clone()),
        ] {
            let rights = Rights::from_words(&words, host.clone(), sandbox.clone());
            let is_load = words == ["bench"] && host.is_none() && sandbox.is_none();
            let is_read = set != 0 && set < 8 && (sandbox.is_none() || host.is_some());
            assert_eq!(rights.is_ok(), is_load || is_read, "{words:?}");
            if let Ok(rights) = rights {
                assert_eq!(rights.words(), words);
                assert_eq!(rights.limits(), (host.as_ref(), sandbox.as_ref()));
            }
        }
    }
}
