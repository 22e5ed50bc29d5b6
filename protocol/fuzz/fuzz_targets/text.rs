//! Everything that comes as text: keys, install keys, reader tokens, ids, topics, filters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    command,
    id::{self, HostId, IsolationKey, SandboxId, SourceName},
    install_key::InstallKey,
    key::{Audit, Dispatcher, Host, Issuer, Public, Role, Sandbox, Secret},
    limits::DETAIL_BYTES_MAX,
    possession,
    reader_token::ReaderToken,
    report,
    scope::{self, Permission, Scope},
    token::Subject,
    topic::{self, Topic},
};
use protocol_fuzz::{
    filter,
    input::Input,
    quiet,
    world::{self, HOST, SANDBOX},
};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.byte();
    match kind % 6 {
        0 => proof(input.rest()),
        1 => public_key_bytes(input.rest()),
        2 => filters(input),
        kind => {
            let Ok(text) = std::str::from_utf8(input.rest()) else {
                return;
            };
            match kind {
                3 => keys(text),
                4 => secrets(text),
                _ => names(text),
            }
        }
    }
});

/// Only the holder proves possession, and of its own challenge.
fn proof(proof: &[u8]) {
    let holder = world::public::<Sandbox>(SANDBOX).as_holder();
    let good = possession::prove(world::secret::<Sandbox>(SANDBOX), &[1; 8], &[2; 8]);
    assert_eq!(
        possession::is_proven(&holder, &[1; 8], proof),
        proof == good
    );
    assert!(!possession::is_proven(&holder, &[3; 8], proof));
    let other = world::public::<Host>(HOST).as_holder();
    assert!(!possession::is_proven(&other, &[1; 8], proof));
}

/// A key has one encoding: what is read is written alike.
fn public_key_bytes(bytes: &[u8]) {
    let Ok(bytes) = <&[u8; 32]>::try_from(bytes) else {
        return;
    };
    match Public::<Host>::from_bytes(bytes) {
        Ok(key) => {
            assert_eq!(key.as_bytes(), bytes);
            assert!(is_below_p(bytes));
            assert_eq!(key.to_string().parse(), Ok(key));
            assert_eq!(key.thumbprint()[..8], key.id());
        }
        Err(error) => quiet::check(error),
    }
}

/// Whether y, which is all but the last bit, is a number of the field: below 2²⁵⁵ − 19.
fn is_below_p(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    y[31] &= 0x7f;
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    y.iter().rev().lt(p.iter().rev())
}

fn keys(text: &str) {
    let read = [
        key::<Audit>(text),
        key::<Dispatcher>(text),
        key::<Host>(text),
        key::<Issuer>(text),
        key::<Sandbox>(text),
    ];
    assert!(
        read.into_iter().filter(|is_one| *is_one).count() <= 1,
        "a key has one role"
    );
}

/// Whether `text` is a key of this role, public or secret. Digits are written in lower case and read in either.
fn key<R: Role>(text: &str) -> bool {
    let public = text.parse::<Public<R>>();
    if let Ok(key) = public {
        let digits = text
            .trim()
            .strip_prefix(R::PREFIX)
            .expect("a key says whose it is");
        assert_eq!(
            key.to_string(),
            format!("{}{}", R::PREFIX, digits.to_ascii_lowercase())
        );
    }
    let secret = Secret::<R>::from_file_text(text);
    if let Ok(secret) = &secret {
        let start = format!("{}_secret_", R::PREFIX);
        let digits = text
            .trim()
            .strip_prefix(&start)
            .expect("a secret says that it is one");
        let written = format!("{start}{}\n", digits.to_ascii_lowercase());
        assert_eq!(*secret.to_file_text(), written);
        assert_eq!(format!("{secret:?}"), format!("{start}(redacted)"));
    }
    public.map_err(quiet::check).is_ok() || secret.map_err(quiet::check).is_ok()
}

/// An install key has one text, and so has a reader token; none is both.
fn secrets(text: &str) {
    let key = InstallKey::from_text(text);
    let token = ReaderToken::from_text(text);
    assert!(key.is_err() || token.is_err());
    match key {
        Ok(key) => {
            assert_eq!(*key.to_text(), text.trim());
            assert!(!format!("{key:?}").contains(&text.trim()[5..]));
        }
        Err(error) => quiet::check(error),
    }
    match token {
        Ok(token) => {
            assert_eq!(*token.to_text(), text.trim());
            assert!(!format!("{token:?}").contains(&text.trim()[5..]));
        }
        Err(error) => quiet::check(error),
    }
}

fn names(text: &str) {
    let is_name = (1..=64).contains(&text.len())
        && text
            .chars()
            .all(|c| c == '-' || c.is_ascii_digit() || c.is_ascii_lowercase());
    let read = HostId::new(text);
    assert_eq!(
        read.as_ref().is_ok_and(|name| name.as_str() == text),
        is_name
    );
    assert_eq!(SandboxId::new(text).is_ok(), is_name);
    assert_eq!(SourceName::new(text).is_ok(), is_name);
    assert_eq!(IsolationKey::new(text).is_ok(), is_name);
    if let Err(error) = read {
        quiet::check(error);
    }
    if let Some(topic) = Topic::parse(text) {
        assert_eq!(topic.to_string(), text);
        assert!(filter::is_filter(text) && !text.contains(['+', '#']));
        let is_event = matches!(topic, Topic::Events(..));
        assert_eq!(
            filter::matches(&topic::events_of_host(topic.host()), text),
            is_event
        );
    }
    if let Some(subject) = Subject::parse(text) {
        assert_eq!(subject.to_string(), text);
    }
    if let Some(bytes) = id::unhex::<4>(text) {
        assert_eq!(id::hex(&bytes), text.to_ascii_lowercase());
    }
    if command::is_image(text) {
        assert!(text.len() <= 512 && text.chars().all(|c| c.is_ascii_graphic()));
    }
    let cut = report::detail(text);
    assert!(text.starts_with(&cut) && cut.len() <= DETAIL_BYTES_MAX);
    assert!(cut == text || cut.len() > DETAIL_BYTES_MAX - 4);
}

/// Covering is what its name says, for three texts of any kind.
fn filters(mut input: Input<'_>) {
    let mut text = || std::str::from_utf8(input.chunk()).unwrap_or_default();
    let (rule, other, name) = (text(), text(), text());
    for text in [rule, other, name] {
        assert_eq!(scope::is_filter(text), filter::is_filter(text));
    }
    let one = Scope::one(rule.to_owned(), Permission::Pub);
    let covers = one.rule_for(other, Permission::Pub).is_some();
    assert!(one.rule_for(other, Permission::Sub).is_none());
    assert_eq!(
        one.covers(&Scope::one(other.to_owned(), Permission::Pub)),
        covers
    );
    if !scope::is_filter(rule) {
        return;
    }
    assert_eq!(covers, filter::covers(rule, other));
    let is_topic = scope::is_filter(name) && !name.contains(['+', '#']);
    if is_topic && covers && filter::matches(other, name) {
        assert!(filter::matches(rule, name));
    }
    if is_topic {
        assert_eq!(
            one.rule_for(name, Permission::Pub).is_some(),
            filter::matches(rule, name)
        );
    }
}
