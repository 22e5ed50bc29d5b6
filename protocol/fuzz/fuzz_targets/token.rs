//! Tokens, as the gate meets them: bytes of strangers, and what a host that holds good keys may put into one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor,
    id::{HostId, SandboxId},
    key::{Holder, Public},
    limits::{
        HOST_TOKEN_LIFE_S_MAX, LEEWAY_S, SANDBOX_TOKEN_LIFE_S_MAX, SCOPE_ENTRIES_MAX,
        TOKEN_BYTES_MAX,
    },
    scope::Permission,
    time::UnixMillis,
    token::{self, Claims, Grant, TokenError},
};
use protocol_fuzz::{
    edit::edited,
    filter,
    input::Input,
    item::Item,
    quiet,
    seal::{is_worth_signing, seal},
    world::{self, AUDIENCE, HOST, ISSUER, NOW},
};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 6 {
        0 => strangers_bytes(input.rest()),
        1 => good_one_changed(&world::HOST_TOKEN, input),
        2 => good_one_changed(&world::SANDBOX_TOKEN, input),
        3 => host_claims(input),
        4 => sandbox_claims(&world::HOST_TOKEN, input),
        _ => {
            let parent = seal(ISSUER, token::TYP, input.chunk(), b"", None);
            sandbox_claims(&parent, input);
        }
    }
});

/// Nobody makes a token without the issuer's key.
fn strangers_bytes(token: &[u8]) {
    let is_good = token == *world::HOST_TOKEN || token == *world::SANDBOX_TOKEN;
    assert_eq!(check(token, NOW).is_some(), is_good);
    peek(token);
}

/// A token with any change is no token.
fn good_one_changed(good: &[u8], input: Input<'_>) {
    let token = edited(good, input);
    assert_eq!(check(&token, NOW).is_some(), token == good);
    peek(&token);
}

/// The issuer signed it, whatever it is: the check says exactly what `SPEC.md` 4.2 says.
fn host_claims(mut input: Input<'_>) {
    let now = clock(&mut input);
    let payload = input.rest();
    if !is_worth_signing(payload, decodes(payload)) {
        return;
    }
    let token = seal(ISSUER, token::TYP, payload, b"", None);
    let granted = check(&token, now);
    let claims = peek(&token).filter(|claims| host_claims_are_good(claims, now));
    assert_eq!(granted.is_some(), claims.is_some());
    if let (Some(grant), Some(claims)) = (granted, claims) {
        grants_what_it_says(&grant, &claims, claims.generation);
    }
}

/// The host signed it, under a parent that its issuer signed.
fn sandbox_claims(parent: &[u8], mut input: Input<'_>) {
    let now = clock(&mut input);
    let payload = input.rest();
    if !is_worth_signing(payload, decodes(payload)) {
        return;
    }
    let token = seal(HOST, token::TYP, payload, b"", Some(parent));
    let granted = check(&token, now);
    let above = peek(parent).filter(|claims| host_claims_are_good(claims, now));
    let claims = peek(&token).filter(|claims| {
        above
            .as_ref()
            .is_some_and(|above| sandbox_claims_are_good(claims, above, now))
    });
    assert_eq!(granted.is_some(), claims.is_some());
    if let (Some(grant), Some(claims), Some(above)) = (granted, claims, above) {
        grants_what_it_says(&grant, &claims, above.generation);
        assert!(claims.expires_s <= above.expires_s);
    }
}

fn decodes(payload: &[u8]) -> bool {
    cbor::from_slice::<Claims>(payload, TOKEN_BYTES_MAX).is_ok()
}

/// From an hour and a half before the tokens of this world to as much after.
fn clock(input: &mut Input<'_>) -> UnixMillis {
    let offset_s = u64::from(input.u16() % 10_800);
    UnixMillis(NOW.0 - 5_400_000 + offset_s * 1000)
}

fn check(token: &[u8], now: UnixMillis) -> Option<Grant> {
    let checked = token::check(token, &[world::public(ISSUER)], AUDIENCE, now);
    checked.map_err(quiet::check::<TokenError>).ok()
}

/// What can be read of a token is all that it says: CBOR in its one encoding, with claims that encode to what was signed.
fn peek(token: &[u8]) -> Option<Claims> {
    let claims = token::peek(token).map_err(quiet::check).ok()?;
    assert!(token.len() <= TOKEN_BYTES_MAX);
    let Some(Item::Array(parts)) = Item::read(token) else {
        panic!("not in its one encoding");
    };
    let [
        Item::Bytes(_),
        Item::Map(parent),
        Item::Bytes(payload),
        Item::Bytes(signature),
    ] = parts.as_slice()
    else {
        panic!("not an envelope");
    };
    assert!(parent.len() <= 1 && signature.len() == 64);
    assert_eq!(*payload, cbor::to_vec(&claims));
    assert!(Item::read(payload).is_some());
    Some(claims)
}

fn grants_what_it_says(grant: &Grant, claims: &Claims, generation: Option<u64>) {
    assert_eq!(grant.subject.to_string(), claims.subject);
    assert_eq!(grant.holder.as_bytes(), &*claims.confirmation.key.x);
    assert_eq!(grant.expires_s, claims.expires_s);
    assert_eq!(grant.scope, claims.scope);
    assert_eq!(grant.id, *claims.id);
    assert_eq!(Some(grant.generation), generation);
    let entries = grant.scope.entries();
    assert!(entries.len() <= SCOPE_ENTRIES_MAX);
    for (filter, permissions) in entries {
        assert!(filter::is_filter(filter) && (1..=2).contains(&permissions.len()));
    }
}

/// Steps 4 to 6 of `SPEC.md` 4.2, and the longest life.
fn host_claims_are_good(claims: &Claims, now: UnixMillis) -> bool {
    HostId::new(&claims.subject).is_ok()
        && claims.generation.is_some()
        && dates_are_good(claims, now)
        && life_s(claims) <= HOST_TOKEN_LIFE_S_MAX.into()
        && key_is_good(claims)
}

/// Steps 8 to 10.
fn sandbox_claims_are_good(claims: &Claims, above: &Claims, now: UnixMillis) -> bool {
    let Some((host, sandbox)) = claims.subject.split_once('/') else {
        return false;
    };
    let own = format!("v1/{}/events", claims.subject);
    let is_delegated = above.delegable.as_ref().is_some_and(|scope| {
        scope.entries().iter().any(|(rule, permissions)| {
            permissions.contains(&Permission::Pub) && filter::covers(rule, &own)
        })
    });
    *above.confirmation.key.x == *world::public::<Holder>(HOST).as_bytes()
        && host == above.subject
        && claims.issuer == above.subject
        && SandboxId::new(sandbox).is_ok()
        && claims.delegable.is_none()
        && claims.generation.is_none()
        && claims.expires_s <= above.expires_s
        && life_s(claims) <= SANDBOX_TOKEN_LIFE_S_MAX.into()
        && claims.scope.entries() == [(own, vec![Permission::Pub])]
        && is_delegated
        && dates_are_good(claims, now)
        && key_is_good(claims)
}

fn dates_are_good(claims: &Claims, now: UnixMillis) -> bool {
    let (now, leeway) = (i128::from(now.0 / 1000), i128::from(LEEWAY_S));
    let starts = claims.not_before_s.unwrap_or(0).max(claims.issued_s);
    claims.audience == AUDIENCE
        && now < i128::from(claims.expires_s) + leeway
        && now + leeway >= i128::from(starts)
}

fn life_s(claims: &Claims) -> i128 {
    i128::from(claims.expires_s) - i128::from(claims.issued_s)
}

fn key_is_good(claims: &Claims) -> bool {
    let key = &claims.confirmation.key;
    key.kty == 1 && key.crv == 6 && Public::<Holder>::from_bytes(&key.x).is_ok()
}
