//! The check of a token and its parent, against `SPEC.md` chapter 4 written down once more: it grants if and only if every rule holds.

use proptest::{collection::vec, option, prelude::*, sample::select};
use protocol::{
    key::{Host, Issuer, Sandbox},
    scope::{Permission, Scope},
    time::UnixMillis,
    token::{Claims, Confirmation, CoseKey, Grant, check, seal_claims},
};

use crate::any::{cases, secret};

const NOW_S: u64 = 1_800_000_000;
const AUDIENCE: &str = "outhaul-1";
/// Seeds of issuers' keys: two that the broker knows, and a stranger's.
const ISSUERS: [u8; 2] = [5, 6];
const HOST_SEED: u8 = 2;

/// A key as it stands in `cnf`, and whether a token may name it.
#[derive(Clone, Copy, Debug)]
struct Key {
    kty: u64,
    crv: u64,
    x: [u8; 32],
    is_good: bool,
}

/// The entries of a scope, and whether a claim may hold them.
#[derive(Clone, Debug)]
struct Entries {
    entries: Vec<(String, Vec<Permission>)>,
    is_good: bool,
}

/// One link, whatever it says.
#[derive(Clone, Debug)]
struct Link {
    signer: u8,
    issuer: String,
    subject: &'static str,
    audience: &'static str,
    expires_s: u64,
    not_before_s: Option<u64>,
    issued_s: u64,
    key: Key,
    scope: Entries,
    delegable: Option<Entries>,
    generation: Option<u64>,
}

impl Link {
    fn claims(&self) -> Claims {
        Claims {
            issuer: self.issuer.clone(),
            subject: self.subject.into(),
            audience: self.audience.into(),
            expires_s: self.expires_s,
            not_before_s: self.not_before_s,
            issued_s: self.issued_s,
            id: [self.signer; 8].into(),
            confirmation: Confirmation {
                key: CoseKey {
                    kty: self.key.kty,
                    crv: self.key.crv,
                    x: self.key.x.into(),
                },
            },
            scope: Scope::new(self.scope.entries.clone()),
            delegable: self
                .delegable
                .clone()
                .map(|delegable| Scope::new(delegable.entries)),
            generation: self.generation,
        }
    }

    fn seal(&self, parent: Option<&[u8]>) -> Vec<u8> {
        seal_claims(&secret::<Host>(self.signer), &self.claims(), parent)
    }

    /// Steps 3, 4 and 6, which are the same for both links.
    fn is_sound(&self, now_ms: u64) -> bool {
        let (now_ms, leeway_ms) = (i128::from(now_ms), 60_000);
        let ms = |date_s: u64| i128::from(date_s) * 1000;
        let starts_s = self.issued_s.max(self.not_before_s.unwrap_or(0));
        let has_ended = now_ms >= ms(self.expires_s) + leeway_ms;
        let has_begun = now_ms + leeway_ms >= ms(starts_s);
        self.scope.is_good
            && self
                .delegable
                .as_ref()
                .is_none_or(|delegable| delegable.is_good)
            && self.audience == AUDIENCE
            && !has_ended
            && has_begun
            && self.key.is_good
    }

    fn lives_at_most(&self, life_s: i128) -> bool {
        i128::from(self.expires_s) - i128::from(self.issued_s) <= life_s
    }

    fn lets_delegate(&self, topic: &str) -> bool {
        let matches = |filter: &str| {
            let (filter, topic): (Vec<_>, Vec<_>) =
                (filter.split('/').collect(), topic.split('/').collect());
            let is_open = filter.last() == Some(&"#");
            let fixed = filter.len() - usize::from(is_open);
            (topic.len() == fixed || is_open && topic.len() > fixed)
                && filter
                    .iter()
                    .zip(&topic)
                    .take(fixed)
                    .all(|(level, name)| level == name || *level == "+")
        };
        let entries = self
            .delegable
            .iter()
            .flat_map(|delegable| &delegable.entries);
        entries
            .into_iter()
            .any(|(filter, given)| given.contains(&Permission::Pub) && matches(filter))
    }
}

/// Steps 1 to 6.
fn host_is_good(host: &Link, now_ms: u64) -> bool {
    ISSUERS.contains(&host.signer)
        && host.is_sound(now_ms)
        && is_name(host.subject)
        && host.generation.is_some()
        && host.lives_at_most(3600)
}

/// Steps 7 to 10.
fn sandbox_is_good(sandbox: &Link, host: &Link, now_ms: u64) -> bool {
    let Some((host_name, sandbox_name)) = sandbox.subject.split_once('/') else {
        return false;
    };
    let topic = format!("v1/{host_name}/{sandbox_name}/events");
    sandbox.signer == HOST_SEED
        && sandbox.is_sound(now_ms)
        && is_name(host_name)
        && is_name(sandbox_name)
        && sandbox.issuer == host.subject
        && host_name == host.subject
        && sandbox.delegable.is_none()
        && sandbox.generation.is_none()
        && sandbox.expires_s <= host.expires_s
        && sandbox.lives_at_most(900)
        && sandbox.scope.entries == [(topic.clone(), vec![Permission::Pub])]
        && host.lets_delegate(&topic)
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Mostly `good`, else one of `others`.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    good: T,
    others: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![24 => Just(good), 1 => select(others)]
}

/// A date near one that matters.
fn date(good_s: u64, near_s: &[u64]) -> impl Strategy<Value = u64> + use<> {
    let near = near_s
        .iter()
        .flat_map(|date| [date - 1, *date, date + 1])
        .chain([0, u64::MAX]);
    prop_oneof![6 => Just(good_s), 1 => select(near.collect::<Vec<_>>())]
}

fn key(seed: u8) -> impl Strategy<Value = Key> {
    let good = Key {
        kty: 1,
        crv: 6,
        x: *secret::<Sandbox>(seed).public().as_bytes(),
        is_good: true,
    };
    let bad = |kty, crv, x| Key {
        kty,
        crv,
        x,
        is_good: false,
    };
    let mut small_order = [0; 32];
    small_order[0] = 1;
    // y = p + 3: the point of y = 3 in its second encoding; and y = 2, of which there is no point.
    let mut second = [0xff; 32];
    (second[0], second[31]) = (0xf0, 0x7f);
    let mut no_point = [0; 32];
    no_point[0] = 2;
    let others = [
        bad(2, 6, good.x),
        bad(1, 4, good.x),
        bad(1, 6, small_order),
        bad(1, 6, second),
        bad(1, 6, no_point),
        bad(1, 6, [0; 32]),
    ];
    mostly(good, others.into())
}

fn entries(all: &[(&str, &[Permission])]) -> Entries {
    let entries = all
        .iter()
        .map(|(filter, given)| ((*filter).to_owned(), given.to_vec()));
    Entries {
        entries: entries.collect(),
        is_good: true,
    }
}

fn bad_entries() -> Vec<Entries> {
    use Permission::{Pub, Sub};
    let bad = |entries: Entries| Entries {
        is_good: false,
        ..entries
    };
    vec![
        bad(entries(&[("v1//events", &[Pub])])),
        bad(entries(&[("v1/#/events", &[Pub])])),
        bad(entries(&[("$share/g/v1", &[Pub])])),
        bad(entries(&[("v1/edge-1/+/events", &[])])),
        bad(entries(&[("v1/edge-1/+/events", &[Sub, Pub])])),
        bad(entries(&[("v1/edge-1/+/events", &[Pub, Pub])])),
        bad(entries(&[("v1", &[Pub][..]); 17])),
    ]
}

fn scope_of_host() -> impl Strategy<Value = Entries> {
    use Permission::{Pub, Sub};
    let good = entries(&[
        ("v1/edge-1/commands", &[Sub]),
        ("v1/edge-1/reports", &[Pub]),
    ]);
    // What an issuer lets a host do is the issuer's to say.
    let mut others = vec![
        entries(&[]),
        entries(&[("#", &[Pub, Sub])]),
        entries(&[("v1", &[Pub][..]); 16]),
    ];
    others.extend(bad_entries());
    mostly(good, others)
}

fn delegable() -> impl Strategy<Value = Option<Entries>> {
    use Permission::{Pub, Sub};
    let mut all: Vec<_> = [
        &[("v1/edge-1/build-7/events", &[Pub][..])][..],
        &[("v1/edge-1/build-8/events", &[Pub])],
        &[("v1/edge-2/+/events", &[Pub])],
        &[("v1/+/+/events", &[Pub])],
        &[("v1/edge-1/+", &[Pub])],
        &[("v1/edge-1/+/events/#", &[Pub])],
        &[("v1/edge-1/#", &[Pub, Sub])],
        &[("#", &[Pub])],
        &[("#", &[Sub])],
        &[("v1/edge-1/+/events", &[Sub])],
        &[
            ("v1/edge-1/+/events", &[Sub]),
            ("v1/edge-1/build-7/+", &[Pub]),
        ],
        &[],
    ]
    .map(entries)
    .into();
    all.extend(bad_entries());
    let others = prop_oneof![1 => Just(None), 9 => select(all).prop_map(Some)];
    let usual = Some(entries(&[("v1/edge-1/+/events", &[Pub])]));
    let all = Some(entries(&[("v1/+/+/events", &[Pub])]));
    prop_oneof![6 => Just(usual), 1 => Just(all), 2 => others]
}

/// Mostly the topic of `subject`, if it can have one.
fn scope_of_sandbox(subject: &str) -> impl Strategy<Value = Entries> + use<> {
    use Permission::{Pub, Sub};
    let own = match subject.split_once('/') {
        Some((host, sandbox)) if !host.is_empty() && !sandbox.is_empty() => {
            format!("v1/{host}/{sandbox}/events")
        }
        _ => "v1/edge-1/build-7/events".into(),
    };
    let own = own.as_str();
    let mut others: Vec<_> = [
        &[(own, &[Sub][..])][..],
        &[(own, &[Pub, Sub])],
        &[("v1/edge-1/build-8/events", &[Pub])],
        &[("v1/edge-1/+/events", &[Pub])],
        &[(own, &[Pub]), (own, &[Pub])],
        &[("#", &[Pub])],
        &[],
    ]
    .map(entries)
    .into();
    others.extend(bad_entries());
    mostly(entries(&[(own, &[Pub])]), others)
}

fn host() -> impl Strategy<Value = Link> {
    let long = prop_oneof![20 => Just(9_usize), 1 => 1200..2000_usize];
    (
        (
            mostly(5, vec![6, 9, HOST_SEED]),
            long,
            mostly("edge-1", vec!["edge-2", "edge-1/build-7", "Edge", ""]),
        ),
        mostly(AUDIENCE, vec!["outhaul-2", ""]),
        date(
            NOW_S + 3000,
            &[NOW_S - 60, NOW_S, NOW_S + 800, NOW_S + 3000],
        ),
        option::weighted(0.3, date(NOW_S, &[NOW_S + 60, NOW_S])),
        date(NOW_S - 600, &[NOW_S, NOW_S + 60]),
        (
            key(HOST_SEED),
            scope_of_host(),
            delegable(),
            mostly(Some(3), vec![None, Some(0)]),
        ),
    )
        .prop_map(
            |(who, audience, expires_s, not_before_s, issued_s, what)| Link {
                signer: who.0,
                issuer: "x".repeat(who.1),
                subject: who.2,
                audience,
                expires_s,
                not_before_s,
                issued_s,
                key: what.0,
                scope: what.1,
                delegable: what.2,
                generation: what.3,
            },
        )
}

fn sandbox() -> impl Strategy<Value = Link> {
    let others = vec![
        "edge-1",
        "edge-1/build-8",
        "edge-1/build-7/x",
        "edge-1/",
        "/build-7",
        "Edge/build-7",
    ];
    prop_oneof![
        24 => Just("edge-1/build-7"),
        4 => Just("edge-2/build-7"),
        1 => select(others),
    ]
    .prop_flat_map(sandbox_of)
}

fn sandbox_of(subject: &'static str) -> impl Strategy<Value = Link> {
    (
        (
            mostly(HOST_SEED, vec![5, 3, 9]),
            mostly("edge-1", vec!["edge-2", AUDIENCE, ""]),
        ),
        mostly(AUDIENCE, vec!["outhaul-2", ""]),
        date(NOW_S + 800, &[NOW_S - 60, NOW_S, NOW_S + 900, NOW_S + 3000]),
        option::weighted(0.3, date(NOW_S, &[NOW_S + 60, NOW_S])),
        date(NOW_S - 100, &[NOW_S, NOW_S + 60, NOW_S - 100]),
        (
            key(3),
            scope_of_sandbox(subject),
            mostly(None, vec![Some(entries(&[]))]),
            mostly(None, vec![Some(3)]),
        ),
    )
        .prop_map(
            move |(who, audience, expires_s, not_before_s, issued_s, what)| Link {
                signer: who.0,
                issuer: who.1.into(),
                subject,
                audience,
                expires_s,
                not_before_s,
                issued_s,
                key: what.0,
                scope: what.1,
                delegable: what.2,
                generation: what.3,
            },
        )
}

fn judge(token: &[u8], now_ms: u64) -> Option<Grant> {
    let issuers = ISSUERS.map(|seed| secret::<Issuer>(seed).public());
    check(token, &issuers, AUDIENCE, UnixMillis(now_ms)).ok()
}

/// Now, somewhere in its second.
fn now_ms() -> impl Strategy<Value = u64> {
    select(&[NOW_S * 1000, NOW_S * 1000 + 1, NOW_S * 1000 + 999][..])
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn a_host_is_granted_what_its_token_says_if_every_rule_holds_and_else_nothing(host in host(), now_ms in now_ms()) {
        let token = host.seal(None);
        let is_good = token.len() <= 2048 && host_is_good(&host, now_ms);
        let grant = judge(&token, now_ms);
        prop_assert_eq!(grant.is_some(), is_good);
        if let Some(grant) = grant {
            prop_assert_eq!(grant.subject.to_string(), host.subject);
            prop_assert_eq!(grant.holder.as_bytes(), &host.key.x);
            prop_assert_eq!(grant.scope.entries(), &host.scope.entries[..]);
            prop_assert_eq!((grant.expires_s, Some(grant.generation)), (host.expires_s, host.generation));
        }
    }

    #[test]
    fn a_sandbox_is_granted_its_own_topic_if_every_rule_holds_for_both_links_and_else_nothing(
        host in host(), sandbox in sandbox(), now_ms in now_ms(),
    ) {
        let token = sandbox.seal(Some(&host.seal(None)));
        let is_good = token.len() <= 2048
            && host_is_good(&host, now_ms)
            && sandbox_is_good(&sandbox, &host, now_ms);
        let grant = judge(&token, now_ms);
        prop_assert_eq!(grant.is_some(), is_good);
        if let Some(grant) = grant {
            prop_assert_eq!(grant.subject.to_string(), sandbox.subject);
            prop_assert_eq!(grant.holder.as_bytes(), &sandbox.key.x);
            prop_assert_eq!(grant.scope.entries(), &sandbox.scope.entries[..]);
            prop_assert_eq!((grant.expires_s, Some(grant.generation)), (sandbox.expires_s, host.generation));
        }
    }

    #[test]
    fn a_third_link_is_refused_whatever_it_says(links in vec(prop_oneof![host(), sandbox()], 3)) {
        let first = links[0].seal(None);
        let second = links[1].seal(Some(&first));
        prop_assert!(judge(&links[2].seal(Some(&second)), NOW_S * 1000).is_none());
    }

    #[test]
    fn a_sandboxs_link_alone_is_refused_whoever_signs_it(sandbox in sandbox(), signer in select(&ISSUERS[..])) {
        let is_host = is_name(sandbox.subject) && sandbox.generation.is_some();
        let sandbox = Link { signer, ..sandbox };
        prop_assert!(is_host || judge(&sandbox.seal(None), NOW_S * 1000).is_none());
    }
}
