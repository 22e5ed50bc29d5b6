//! Text forms: what is printed is read back, and what is read is what would be printed.

use proptest::prelude::*;
use protocol::{
    id::{CommandId, HostId, IsolationKey, SandboxId, SourceName, hex, unhex},
    install_key::InstallKey,
    key::{Audit, Dispatcher, Holder, Host, Issuer, Public, Role, Sandbox, Secret},
    token::Subject,
    topic::Topic,
};
use zeroize::Zeroizing;

use crate::any::{cases, host, sandbox};

/// Both text forms of a key, and that no other role reads them.
fn holds_for_role<R: Role>(seed: [u8; 32]) {
    let key: Secret<R> = Secret::from_seed(&Zeroizing::new(seed));
    let text = key.public().to_string();
    assert_eq!(text.parse(), Ok(key.public()));
    let (prefix, digits) = text.split_once('_').unwrap();
    assert_eq!(prefix, R::PREFIX);
    let upper = format!("{prefix}_{}", digits.to_uppercase());
    assert_eq!(upper.parse(), Ok(key.public()));
    let file = key.to_file_text();
    let again: Secret<R> = Secret::from_file_text(&file).unwrap();
    assert_eq!(again.public(), key.public());
    assert_eq!(*again.to_file_text(), *file);
    let readers = [
        (
            Dispatcher::PREFIX,
            text.parse::<Public<Dispatcher>>().is_ok(),
        ),
        (Issuer::PREFIX, text.parse::<Public<Issuer>>().is_ok()),
        (Audit::PREFIX, text.parse::<Public<Audit>>().is_ok()),
        (Host::PREFIX, text.parse::<Public<Host>>().is_ok()),
        (Sandbox::PREFIX, text.parse::<Public<Sandbox>>().is_ok()),
        (Holder::PREFIX, text.parse::<Public<Holder>>().is_ok()),
    ];
    for (reader, reads) in readers {
        assert_eq!(reads, reader == R::PREFIX, "{reader} reads {text}");
    }
}

/// `[a-z0-9-]{1,64}`, said another way.
fn is_name(text: &str) -> bool {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789-";
    let count = text.chars().count();
    count > 0 && count < 65 && text.chars().all(|letter| LETTERS.contains(letter))
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn keys_round_trip_in_their_own_role_only(seed: [u8; 32]) {
        holds_for_role::<Dispatcher>(seed);
        holds_for_role::<Issuer>(seed);
        holds_for_role::<Audit>(seed);
        holds_for_role::<Host>(seed);
        holds_for_role::<Sandbox>(seed);
        holds_for_role::<Holder>(seed);
    }

    #[test]
    fn any_32_bytes_are_the_one_encoding_of_a_key_or_none(bytes: [u8; 32]) {
        if let Ok(key) = Public::<Host>::from_bytes(&bytes) {
            prop_assert_eq!(key.as_bytes(), &bytes);
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn an_install_key_is_read_as_it_was_written(kid: [u8; 8], secret: [u8; 32], space in "[ \n\t]{0,3}") {
        let key = InstallKey::new(kid, Zeroizing::new(secret));
        let text = key.to_text();
        prop_assert_eq!(text.len(), 67);
        let read = InstallKey::from_text(&format!("{space}{}{space}", *text)).unwrap();
        prop_assert_eq!((read.kid, read.secret()), (key.kid, key.secret()));
        prop_assert_eq!(&*read.to_text(), &*text);
    }

    #[test]
    fn an_install_key_with_one_character_changed_is_refused(
        kid: [u8; 8], secret: [u8; 32], at: prop::sample::Index, to in "[ -~]",
    ) {
        let text = InstallKey::new(kid, Zeroizing::new(secret)).to_text();
        let at = at.index(text.len());
        let changed = format!("{}{to}{}", &text[..at], &text[at + 1..]);
        prop_assume!(changed != *text);
        prop_assert!(InstallKey::from_text(&changed).is_err());
    }

    #[test]
    fn any_text_is_a_name_if_and_only_if_it_is_one(
        text in prop_oneof!["[a-z0-9-]{0,66}", "[a-zA-Z0-9_./-]{0,8}", "\\PC{0,8}"],
    ) {
        let name = is_name(&text).then_some(text.as_str());
        prop_assert!(HostId::new(&text).ok().as_ref().map(HostId::as_str) == name);
        prop_assert!(text.parse().ok().as_ref().map(SandboxId::as_str) == name);
        prop_assert!(SourceName::new(&text).ok().as_ref().map(SourceName::as_str) == name);
        prop_assert!(IsolationKey::new(&text).ok().as_ref().map(IsolationKey::as_str) == name);
    }

    #[test]
    fn hexadecimal_is_read_as_it_was_written(bytes: [u8; 16]) {
        let text = hex(&bytes);
        prop_assert_eq!(&CommandId(bytes).to_string(), &text);
        prop_assert_eq!(unhex(&text), Some(bytes));
        prop_assert_eq!(unhex(&text.to_uppercase()), Some(bytes));
        prop_assert_eq!(unhex::<15>(&text), None);
    }

    #[test]
    fn topics_and_subjects_are_read_as_they_were_written(host in host(), sandbox in sandbox()) {
        for topic in [
            Topic::Commands(host.clone()),
            Topic::Reports(host.clone()),
            Topic::Events(host.clone(), sandbox.clone()),
        ] {
            prop_assert_eq!(Topic::parse(&topic.to_string()), Some(topic));
        }
        for subject in [Subject::Host(host.clone()), Subject::Sandbox(host, sandbox)] {
            prop_assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
    }

    #[test]
    fn what_is_read_as_a_topic_or_subject_is_written_alike(
        text in prop_oneof!["v1(/[a-z]{0,3}){0,4}", "v1/[a-z]{1,2}/(commands|reports|a/events)/?", "[a-z/]{0,8}"],
    ) {
        if let Some(topic) = Topic::parse(&text) {
            prop_assert_eq!(topic.to_string(), text.clone());
        }
        if let Some(subject) = Subject::parse(&text) {
            prop_assert_eq!(subject.to_string(), text);
        }
    }
}
