//! Tokens: their claims, and each link of the chain by itself.

use protocol::{
    key::{Host, Issuer, Public},
    limits::TOKEN_BYTES_MAX,
    scope::{Permission, Scope},
    signed::{Envelope, VerifyError},
    time::{UnixMillis, is_early, is_expired},
    token::{self, Claims, TokenError},
};

use super::{
    finding::{Fields, Inspection, Node, Outcome, date_s, hex, text},
    given::{Keys, wanted},
};
use crate::cli::units;

pub(super) fn inspect(bytes: &[u8], keys: &Keys, now: UnixMillis) -> Option<Inspection> {
    if !Envelope::is_at_front(bytes, token::TYP) {
        return None;
    }
    let mut found = Inspection::new("host token", bytes.len());
    let leaf = Envelope::parse_token(bytes, token::TYP, TOKEN_BYTES_MAX);
    let (leaf, claims) = match (leaf, token::peek(bytes)) {
        (Ok(leaf), Ok(claims)) => (leaf, claims),
        (Err(_), Ok(_)) => return None,
        (_, Err(error)) => {
            found.check("form", Outcome::Bad, error.to_string());
            return Some(found);
        }
    };
    let Some(parent_bytes) = leaf.parent else {
        signature_of_issuer(&mut found, &leaf, keys);
        dates(&mut found, &claims, now);
        rules(&mut found, bytes, &claims, keys);
        found.fields = fields(&claims);
        return Some(found);
    };
    found.kind = "sandbox token";
    let parent_claims = token::peek(parent_bytes).ok();
    let host_key = parent_claims
        .as_ref()
        .and_then(|claims| Public::<Host>::from_bytes(&claims.confirmation.key.x).ok());
    signature_of_host(&mut found, &leaf, host_key);
    dates(&mut found, &claims, now);
    rules(&mut found, bytes, &claims, keys);
    found.fields = fields(&claims);
    if let Some(parent) = inspect_parent(parent_bytes, parent_claims.as_ref(), keys, now) {
        found.nest("parent", parent);
    }
    Some(found)
}

fn inspect_parent(
    bytes: &[u8],
    claims: Option<&Claims>,
    keys: &Keys,
    now: UnixMillis,
) -> Option<Inspection> {
    let mut found = Inspection::new("host token", bytes.len());
    let envelope = Envelope::parse(bytes, token::TYP, TOKEN_BYTES_MAX).ok()?;
    signature_of_issuer(&mut found, &envelope, keys);
    match claims {
        None => found.check("form", Outcome::Bad, "its claims cannot be read"),
        Some(claims) => {
            dates(&mut found, claims, now);
            found.fields = fields(claims);
        }
    }
    Some(found)
}

fn signature_of_issuer(found: &mut Inspection, envelope: &Envelope<'_>, keys: &Keys) {
    match envelope.verify(&keys.issuers, b"") {
        Ok(key) => found.check("signature", Outcome::Good, format!("by the issuer {key}")),
        Err(VerifyError::UnknownKey) => {
            found.check("signature", Outcome::Open, wanted::<Issuer>(envelope.kid));
        }
        Err(error) => found.check("signature", Outcome::Bad, error.to_string()),
    }
}

fn signature_of_host(found: &mut Inspection, envelope: &Envelope<'_>, key: Option<Public<Host>>) {
    match envelope.verify(key.as_slice(), b"") {
        Ok(key) => {
            found.check(
                "signature",
                Outcome::Good,
                format!("by the key that its parent names, {key}"),
            );
        }
        Err(error) => found.check("signature", Outcome::Bad, error.to_string()),
    }
}

fn dates(found: &mut Inspection, claims: &Claims, now: UnixMillis) {
    let until = UnixMillis(claims.expires_s.saturating_mul(1000));
    let starts = claims.not_before_s.unwrap_or(0).max(claims.issued_s);
    let (outcome, why) = if is_expired(claims.expires_s, now) {
        (
            Outcome::Bad,
            format!("ended {} ago", units::duration(now.since(until))),
        )
    } else if is_early(starts, now) {
        (Outcome::Bad, "not valid yet".to_owned())
    } else {
        (
            Outcome::Good,
            format!("ends in {}", units::duration(until.since(now))),
        )
    };
    found.check("dates", outcome, why);
}

/// What the gate would say of the whole at the moment it was issued, when only its rules can refuse it.
fn rules(found: &mut Inspection, bytes: &[u8], claims: &Claims, keys: &Keys) {
    let issued = UnixMillis(claims.issued_s.saturating_mul(1000));
    match token::check(bytes, &keys.issuers, &claims.audience, issued) {
        Ok(_) => found.check("rules", Outcome::Good, "as the gate would have it"),
        Err(TokenError::Envelope(VerifyError::UnknownKey)) => {
            found.check(
                "rules",
                Outcome::Open,
                "not judged without the issuer's key",
            );
        }
        Err(error) => found.check("rules", Outcome::Bad, error.to_string()),
    }
}

fn fields(claims: &Claims) -> Fields {
    let mut fields = vec![
        ("issuer", text(&claims.issuer)),
        ("subject", text(&claims.subject)),
        ("audience", text(&claims.audience)),
        ("issued", date_s(claims.issued_s)),
        ("expires", date_s(claims.expires_s)),
    ];
    if let Some(not_before) = claims.not_before_s {
        fields.push(("not before", date_s(not_before)));
    }
    fields.push(("id", hex(&*claims.id)));
    fields.push(("holder", hex(&*claims.confirmation.key.x)));
    fields.push(("scope", scope(&claims.scope)));
    if let Some(delegable) = &claims.delegable {
        fields.push(("delegable", scope(delegable)));
    }
    if let Some(generation) = claims.generation {
        fields.push(("generation", Node::Number(generation)));
    }
    fields
}

fn word(permission: Permission) -> &'static str {
    match permission {
        Permission::Pub => "pub",
        Permission::Sub => "sub",
    }
}

fn scope(scope: &Scope) -> Node {
    let entry = |(filter, permissions): &(String, Vec<Permission>)| {
        let permissions: Vec<&str> = permissions
            .iter()
            .map(|permission| word(*permission))
            .collect();
        text(&format!("{} {filter}", permissions.join("+")))
    };
    Node::List(scope.entries().iter().map(entry).collect())
}
