//! Tokens: CWTs (RFC 8392) that name their holder's key (`cnf`, RFC 8747) and what it may do (AIF-MQTT).
//!
//! A host's token is signed by the broker's issuer key. A sandbox's is minted by its operator with the host's key, within what the
//! host's own token lets it delegate, and carries that token inside (`kcwt`): the gate checks both links offline, in one pass.
//! Depth is two. A token is worthless without its key: see [`crate::possession`].

use serde_bytes::ByteArray;

use crate::{
    cbor::{self, CborError},
    id::{HostId, SandboxId},
    key::{Holder, Host, Issuer, Public, Role, Secret},
    limits::{HOST_TOKEN_LIFE_S_MAX, SANDBOX_TOKEN_LIFE_S_MAX, TOKEN_BYTES_MAX},
    scope::{Permission, Scope},
    signed::{self, Envelope, Typ, VerifyError},
    time::{UnixMillis, is_early, is_expired},
    topic::{Topic, events_of_host},
};

/// `application/cwt` in the CoAP content format registry.
pub const TYP: Typ = Typ::Number(61);

int_map! {
    /// An Ed25519 key as a `COSE_Key` (RFC 9053 §7.2): `{1: 1, -1: 6, -2: x}`.
    pub struct CoseKey {
        /// Key type, 1 for OKP.
        1 => req kty: u64,
        /// Curve, 6 for Ed25519.
        -1 => req crv: u64,
        /// The public key.
        -2 => req x: ByteArray<32>,
    }
}

int_map! {
    /// Confirmation (RFC 8747): the key that the token is bound to.
    pub struct Confirmation {
        /// The key itself.
        1 => req key: CoseKey,
    }
}

int_map! {
    /// The claims of a token. Dates are in seconds.
    pub struct Claims {
        /// Who issued it: the broker's audience, or the parent's subject.
        1 => req issuer: String,
        /// Whom it names: `<host>` or `<host>/<sandbox>`. Also the MQTT client id.
        2 => req subject: String,
        /// Which broker it is for.
        3 => req audience: String,
        /// When it ends.
        4 => req expires_s: u64,
        /// When it starts, if later than it was issued.
        5 => opt not_before_s: u64,
        /// When it was issued.
        6 => req issued_s: u64,
        /// Its id, for revocation and for the first head of a stream.
        7 => req id: ByteArray<8>,
        /// The holder's key.
        8 => req confirmation: Confirmation,
        /// What it permits.
        9 => req scope: Scope,
        /// What its holder may delegate (a private claim of ours).
        -70001 => opt delegable: Scope,
        /// The generation of the host's key (a private claim of ours).
        -70002 => opt generation: u64,
    }
}

/// Whom a token names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An operator.
    Host(HostId),
    /// A sandbox of a host.
    Sandbox(HostId, SandboxId),
}

impl Subject {
    /// Reads a subject claim.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => Some(Self::Host(HostId::new(text).ok()?)),
            Some((host, sandbox)) => Some(Self::Sandbox(
                HostId::new(host).ok()?,
                SandboxId::new(sandbox).ok()?,
            )),
        }
    }

    /// The host it belongs to.
    #[must_use]
    pub fn host(&self) -> &HostId {
        match self {
            Self::Host(host) | Self::Sandbox(host, _) => host,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(host) => write!(f, "{host}"),
            Self::Sandbox(host, sandbox) => write!(f, "{host}/{sandbox}"),
        }
    }
}

/// What a checked token grants, once possession of `holder` is proven.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Whom it names.
    pub subject: Subject,
    /// The key to prove.
    pub holder: Public<Holder>,
    /// When the connection ends at the latest, in seconds.
    pub expires_s: u64,
    /// What it permits.
    pub scope: Scope,
    /// The token's id.
    pub id: [u8; 8],
    /// The generation of the host's key that it rests on.
    pub generation: u64,
}

/// Why a token was refused. The wire shows none of this; the audit trail does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or not signed by whom it should be.
    #[error("token: {0}")]
    Envelope(#[from] VerifyError),
    /// A claim that makes no sense.
    #[error("token: a claim is not acceptable")]
    Claims,
    /// For another broker.
    #[error("token: for another audience")]
    Audience,
    /// Its time is over.
    #[error("token: expired")]
    Expired,
    /// Its time has not come.
    #[error("token: not valid yet")]
    Early,
    /// It claims more than its parent may give.
    #[error("token: beyond what its parent delegates")]
    Delegation,
}

/// What a host's token says.
#[derive(Clone, Debug)]
pub struct HostTerms<'a> {
    /// The broker's audience, which is also the issuer's name.
    pub audience: &'a str,
    /// The host.
    pub host: &'a HostId,
    /// Its current key.
    pub key: Public<Host>,
    /// The generation of that key.
    pub generation: u64,
    /// The token's id, from the system's generator.
    pub id: [u8; 8],
    /// Now.
    pub issued: UnixMillis,
    /// How long it lives, in seconds.
    pub life_s: u64,
}

/// Mints a host's connection token.
#[must_use]
pub fn mint_host(issuer: &Secret<Issuer>, terms: &HostTerms<'_>) -> Vec<u8> {
    let host = terms.host;
    let claims = Claims {
        issuer: terms.audience.to_owned(),
        subject: host.to_string(),
        audience: terms.audience.to_owned(),
        expires_s: terms.issued.seconds().saturating_add(terms.life_s),
        not_before_s: None,
        issued_s: terms.issued.seconds(),
        id: terms.id.into(),
        confirmation: confirm(terms.key.as_bytes()),
        scope: Scope::new(vec![
            (
                Topic::Commands(host.clone()).to_string(),
                vec![Permission::Sub],
            ),
            (
                Topic::Reports(host.clone()).to_string(),
                vec![Permission::Pub],
            ),
        ]),
        delegable: Some(Scope::one(events_of_host(host), Permission::Pub)),
        generation: Some(terms.generation),
    };
    signed::seal(issuer, TYP, &cbor::to_vec(&claims), b"", None)
}

/// Mints a sandbox's token inside `parent`, the host's own. It lives no longer than its parent, nor than 15 minutes.
///
/// # Errors
/// [`TokenError`] if `parent` cannot be read.
pub fn mint_sandbox(
    host_key: &Secret<Host>,
    parent: &[u8],
    sandbox: &SandboxId,
    key: &Public<crate::key::Sandbox>,
    id: [u8; 8],
    issued: UnixMillis,
) -> Result<Vec<u8>, TokenError> {
    let parent_claims = peek(parent)?;
    let host = HostId::new(&parent_claims.subject).map_err(|_| TokenError::Claims)?;
    let expires_s = issued.seconds().saturating_add(SANDBOX_TOKEN_LIFE_S_MAX);
    let claims = Claims {
        issuer: parent_claims.subject,
        subject: Subject::Sandbox(host.clone(), sandbox.clone()).to_string(),
        audience: parent_claims.audience,
        expires_s: expires_s.min(parent_claims.expires_s),
        not_before_s: None,
        issued_s: issued.seconds(),
        id: id.into(),
        confirmation: confirm(key.as_bytes()),
        scope: Scope::one(
            Topic::Events(host, sandbox.clone()).to_string(),
            Permission::Pub,
        ),
        delegable: None,
        generation: None,
    };
    Ok(signed::seal(
        host_key,
        TYP,
        &cbor::to_vec(&claims),
        b"",
        Some(parent),
    ))
}

/// The claims of a token, unproven: for its holder, who wants to know when it ends.
///
/// # Errors
/// [`TokenError`] if it cannot be read.
pub fn peek(token: &[u8]) -> Result<Claims, TokenError> {
    claims_of(&Envelope::parse_token(token, TYP, TOKEN_BYTES_MAX)?)
}

/// Checks a token and, if it has one, its parent.
///
/// # Errors
/// [`TokenError`] with the first rule that refused it.
pub fn check(
    token: &[u8],
    issuers: &[Public<Issuer>],
    audience: &str,
    now: UnixMillis,
) -> Result<Grant, TokenError> {
    let leaf = Envelope::parse_token(token, TYP, TOKEN_BYTES_MAX)?;
    match leaf.parent {
        None => check_host(&leaf, issuers, audience, now).map(|(grant, _)| grant),
        Some(parent) => {
            let parent = Envelope::parse(parent, TYP, TOKEN_BYTES_MAX)?;
            let (parent_grant, delegable) = check_host(&parent, issuers, audience, now)?;
            check_sandbox(&leaf, &parent_grant, &delegable, audience, now)
        }
    }
}

fn check_host(
    envelope: &Envelope<'_>,
    issuers: &[Public<Issuer>],
    audience: &str,
    now: UnixMillis,
) -> Result<(Grant, Scope), TokenError> {
    envelope.verify(issuers, b"")?;
    let claims = claims_of(envelope)?;
    check_dates(&claims, audience, now)?;
    let subject = Subject::parse(&claims.subject).ok_or(TokenError::Claims)?;
    let (Subject::Host(_), Some(generation)) = (&subject, claims.generation) else {
        return Err(TokenError::Claims);
    };
    if claims.expires_s.saturating_sub(claims.issued_s) > HOST_TOKEN_LIFE_S_MAX {
        return Err(TokenError::Claims);
    }
    let grant = Grant {
        holder: holder_of(&claims)?,
        subject,
        expires_s: claims.expires_s,
        scope: claims.scope,
        id: claims.id.into_array(),
        generation,
    };
    Ok((grant, claims.delegable.unwrap_or_default()))
}

fn check_sandbox(
    envelope: &Envelope<'_>,
    parent: &Grant,
    delegable: &Scope,
    audience: &str,
    now: UnixMillis,
) -> Result<Grant, TokenError> {
    let holder = parent.holder;
    envelope.verify(&[holder.as_host()], b"")?;
    let claims = claims_of(envelope)?;
    check_dates(&claims, audience, now)?;
    let subject = Subject::parse(&claims.subject).ok_or(TokenError::Claims)?;
    let Subject::Sandbox(host, sandbox) = &subject else {
        return Err(TokenError::Claims);
    };
    let own_topic = Topic::Events(host.clone(), sandbox.clone()).to_string();
    let is_within = claims.issuer == parent.subject.to_string()
        && host == parent.subject.host()
        && claims.delegable.is_none()
        && claims.generation.is_none()
        && claims.expires_s <= parent.expires_s
        && claims.expires_s.saturating_sub(claims.issued_s) <= SANDBOX_TOKEN_LIFE_S_MAX
        && claims.scope == Scope::one(own_topic, Permission::Pub)
        && delegable.covers(&claims.scope);
    if !is_within {
        return Err(TokenError::Delegation);
    }
    Ok(Grant {
        holder: holder_of(&claims)?,
        expires_s: claims.expires_s,
        scope: claims.scope,
        id: claims.id.into_array(),
        generation: parent.generation,
        subject,
    })
}

fn check_dates(claims: &Claims, audience: &str, now: UnixMillis) -> Result<(), TokenError> {
    if claims.audience != audience {
        return Err(TokenError::Audience);
    }
    if is_expired(claims.expires_s, now) {
        return Err(TokenError::Expired);
    }
    let starts_s = claims.not_before_s.unwrap_or(0).max(claims.issued_s);
    if is_early(starts_s, now) {
        return Err(TokenError::Early);
    }
    Ok(())
}

fn claims_of(envelope: &Envelope<'_>) -> Result<Claims, TokenError> {
    let payload = |error: CborError| TokenError::Envelope(VerifyError::Payload(error));
    cbor::from_slice(envelope.payload, TOKEN_BYTES_MAX).map_err(payload)
}

fn holder_of(claims: &Claims) -> Result<Public<Holder>, TokenError> {
    let key = &claims.confirmation.key;
    if key.kty != 1 || key.crv != 6 {
        return Err(TokenError::Claims);
    }
    Public::from_bytes(&key.x).map_err(|_| TokenError::Claims)
}

fn confirm(key: &[u8; 32]) -> Confirmation {
    Confirmation {
        key: CoseKey {
            kty: 1,
            crv: 6,
            x: (*key).into(),
        },
    }
}

/// Seals claims as they are, for tests that need a token nobody should mint.
#[doc(hidden)]
#[must_use]
pub fn seal_claims<R: Role>(key: &Secret<R>, claims: &Claims, parent: Option<&[u8]>) -> Vec<u8> {
    signed::seal(key, TYP, &cbor::to_vec(claims), b"", parent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Sandbox, seeded};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const AUDIENCE: &str = "broker-1";

    struct World {
        issuer: Secret<Issuer>,
        host_key: Secret<Host>,
        sandbox_key: Secret<Sandbox>,
        host_token: Vec<u8>,
        sandbox_token: Vec<u8>,
    }

    fn world() -> World {
        let issuer = seeded(0x0b);
        let host_key: Secret<Host> = seeded(0x0c);
        let sandbox_key: Secret<Sandbox> = seeded(0x0d);
        let host = HostId::new("edge-1").unwrap();
        let host_token = mint_host(
            &issuer,
            &HostTerms {
                audience: AUDIENCE,
                host: &host,
                key: host_key.public(),
                generation: 3,
                id: [1; 8],
                issued: NOW,
                life_s: 3600,
            },
        );
        let sandbox = SandboxId::new("build-7").unwrap();
        let sandbox_token = mint_sandbox(
            &host_key,
            &host_token,
            &sandbox,
            &sandbox_key.public(),
            [2; 8],
            NOW,
        )
        .unwrap();
        World {
            issuer,
            host_key,
            sandbox_key,
            host_token,
            sandbox_token,
        }
    }

    fn check_at(world: &World, token: &[u8], now: UnixMillis) -> Result<Grant, TokenError> {
        check(token, &[world.issuer.public()], AUDIENCE, now)
    }

    #[test]
    fn both_kinds_of_token_are_granted_what_they_say() {
        let world = world();
        let host = check_at(&world, &world.host_token, NOW).unwrap();
        assert_eq!(host.subject.to_string(), "edge-1");
        assert_eq!(host.holder, world.host_key.public().as_holder());
        assert!(
            host.scope
                .rule_for("v1/edge-1/commands", Permission::Sub)
                .is_some()
        );
        assert!(
            host.scope
                .rule_for("v1/edge-1/commands", Permission::Pub)
                .is_none()
        );
        let sandbox = check_at(&world, &world.sandbox_token, NOW).unwrap();
        assert_eq!(sandbox.subject.to_string(), "edge-1/build-7");
        assert_eq!(sandbox.holder, world.sandbox_key.public().as_holder());
        assert_eq!(
            (sandbox.generation, sandbox.expires_s),
            (3, NOW.seconds() + 900)
        );
        assert!(
            sandbox
                .scope
                .rule_for("v1/edge-1/build-7/events", Permission::Sub)
                .is_none()
        );
    }

    #[test]
    fn a_token_ends_and_its_child_ends_with_it() {
        let world = world();
        let at = |seconds: u64| UnixMillis(NOW.0 + seconds * 1000);
        assert!(check_at(&world, &world.host_token, at(3659)).is_ok());
        assert_eq!(
            check_at(&world, &world.host_token, at(3660)).unwrap_err(),
            TokenError::Expired
        );
        assert_eq!(
            check_at(&world, &world.sandbox_token, at(960)).unwrap_err(),
            TokenError::Expired
        );
        assert_eq!(
            check_at(&world, &world.host_token, UnixMillis(NOW.0 - 61_000)).unwrap_err(),
            TokenError::Early
        );
    }

    #[test]
    fn another_issuer_audience_or_byte_is_refused() {
        let world = world();
        let stranger = seeded::<Issuer>(9).public();
        let too_long = HOST_TOKEN_LIFE_S_MAX + 1;
        let mut claims = peek(&world.host_token).unwrap();
        claims.expires_s = claims.issued_s + too_long;
        assert_eq!(
            check_at(&world, &seal_claims(&world.issuer, &claims, None), NOW).unwrap_err(),
            TokenError::Claims,
            "a life beyond the longest"
        );
        for token in [&world.host_token, &world.sandbox_token] {
            assert!(check(token, &[stranger], AUDIENCE, NOW).is_err());
            assert_eq!(
                check(token, &[world.issuer.public()], "broker-2", NOW).unwrap_err(),
                TokenError::Audience
            );
            assert!(check_at(&world, &[&token[..], &[0]].concat(), NOW).is_err());
            for index in 0..token.len() {
                let mut changed = token.clone();
                changed[index] ^= 1;
                assert!(check_at(&world, &changed, NOW).is_err(), "byte {index}");
            }
        }
    }

    #[test]
    fn a_child_cannot_take_more_than_its_parent_gives() {
        let world = world();
        let parent = Some(&world.host_token[..]);
        let good = peek(&world.sandbox_token).unwrap();
        let refused = |change: fn(&mut Claims)| {
            let mut claims = good.clone();
            change(&mut claims);
            check_at(&world, &seal_claims(&world.host_key, &claims, parent), NOW).unwrap_err()
        };
        let topic = |topic: &str, permission| Scope::one(topic.to_owned(), permission);
        assert!(check_at(&world, &seal_claims(&world.host_key, &good, parent), NOW).is_ok());
        assert_eq!(
            refused(|c| c.scope = Scope::one("v1/edge-1/build-7/events".into(), Permission::Sub)),
            TokenError::Delegation
        );
        assert_eq!(
            refused(|c| c.scope = Scope::one("v1/edge-1/build-8/events".into(), Permission::Pub)),
            TokenError::Delegation
        );
        assert_eq!(
            refused(|c| c.scope = Scope::one("#".into(), Permission::Pub)),
            TokenError::Delegation
        );
        assert_eq!(
            refused(|c| c.subject = "edge-2/build-7".into()),
            TokenError::Delegation
        );
        assert_eq!(refused(|c| c.subject = "edge-1".into()), TokenError::Claims);
        assert_eq!(
            refused(|c| c.issuer = "edge-2".into()),
            TokenError::Delegation
        );
        assert_eq!(
            refused(|c| c.delegable = Some(c.scope.clone())),
            TokenError::Delegation
        );
        assert_eq!(refused(|c| c.expires_s += 1), TokenError::Delegation);
        let mut stranger = good.clone();
        stranger.scope = topic("v1/edge-1/build-7/events", Permission::Pub);
        let by_stranger = seal_claims(&seeded::<Host>(5), &stranger, parent);
        assert!(check_at(&world, &by_stranger, NOW).is_err());
        let orphan = seal_claims(&world.host_key, &good, None);
        assert!(check_at(&world, &orphan, NOW).is_err());
    }
}
