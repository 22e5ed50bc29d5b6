//! From a CONNECT to a connection that is welcome: the verdict on what was shown, the proof, the admission.

use std::time::{Duration, Instant};

use protocol::{
    limits::LEEWAY_S,
    mqtt::{Auth, ReasonCode},
    possession::Nonce,
    time::{Now, is_expired},
    token::Grant,
};

use super::{
    Effect, Kept, METHOD, Online, Phase, Principal, Refusal, Session, TOKEN_WAIT_MAX,
    connect::{self, Claim, Terms, Welcome},
};
use crate::core::reader::Reader;

pub(super) const UNPROVEN: Refusal = Refusal::new(
    ReasonCode::NOT_AUTHORIZED,
    "did not prove that it holds its token's key",
);

/// Whether `auth` is this step of our method (MQTT 5.0 §4.12: the method never changes).
pub(super) fn check_step(auth: &Auth<'_>, step: ReasonCode) -> Result<(), Refusal> {
    if auth.method != Some(METHOD) {
        let reason = ReasonCode::BAD_AUTHENTICATION_METHOD;
        return Err(Refusal::new(reason, "changes its authentication method"));
    }
    if auth.reason != step {
        let reason = ReasonCode::PROTOCOL_ERROR;
        return Err(Refusal::new(reason, "a step of authentication out of turn"));
    }
    Ok(())
}

/// When a token that ends at `expires_s` ends a connection, leeway included; `None` if that is past.
pub(super) fn end_of(expires_s: u64, now: Now) -> Option<Instant> {
    if is_expired(expires_s, now.unix) {
        return None;
    }
    let end_ms = expires_s.saturating_add(LEEWAY_S).saturating_mul(1000);
    let left = Duration::from_millis(end_ms.saturating_sub(now.unix.0));
    now.mono.checked_add(left.min(TOKEN_WAIT_MAX))
}

impl Session {
    /// Takes the verdict on a token: what it grants, or what to answer. `nonce` comes from the system's generator.
    pub fn checked(&mut self, verdict: Result<Grant, ReasonCode>, nonce: Nonce) {
        if let Phase::Online(online) = &mut self.phase {
            if let Err(refusal) = online.checked(verdict, nonce, &mut self.wire) {
                self.refuse(refusal);
            }
            return;
        }
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Checking { until, terms } => {
                let grant = match verdict {
                    Ok(grant) if terms.claim == Claim::Subject(grant.subject.clone()) => Ok(grant),
                    Ok(_) => Err((
                        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID,
                        "its client id is not its token's subject",
                    )),
                    Err(reason) => Err((reason, "its token is refused")),
                };
                match grant {
                    Ok(grant) => {
                        let reason = ReasonCode::CONTINUE_AUTHENTICATION;
                        self.wire.auth(reason, Some(&nonce));
                        self.phase = Phase::WaitProof {
                            until,
                            terms,
                            grant: Box::new(grant),
                            nonce,
                        };
                    }
                    Err((reason, why)) => {
                        self.phase = Phase::Checking { until, terms };
                        self.refuse(Refusal::new(reason, why));
                    }
                }
            }
            other => self.phase = other,
        }
    }

    pub(super) fn prove(&mut self, auth: &Auth<'_>) -> Result<(), Refusal> {
        check_step(auth, ReasonCode::CONTINUE_AUTHENTICATION)?;
        let Phase::WaitProof {
            until,
            terms,
            grant,
            nonce,
        } = &self.phase
        else {
            debug_assert!(false, "the phase was looked at before");
            return Ok(());
        };
        let proof = auth.data.unwrap_or_default();
        let Some(principal) = Principal::prove((**grant).clone(), nonce, proof) else {
            return Err(UNPROVEN);
        };
        let (until, terms) = (*until, terms.clone());
        self.admit(until, terms, principal, None);
        Ok(())
    }

    /// Takes the verdict on a reader's token. `random` comes from the system's generator.
    pub fn checked_reader(&mut self, verdict: Result<Reader, ReasonCode>, random: [u8; 8]) {
        let Phase::Checking { until, terms } = &self.phase else {
            debug_assert!(self.is_closed(), "no token was to be checked");
            return;
        };
        let Claim::Reader { user, client_id } = &terms.claim else {
            debug_assert!(false, "a reader's token is shown by readers");
            return;
        };
        let reader = match verdict {
            // Told apart in our log alone: whoever guesses is told one thing.
            Ok(reader) if reader.name().as_str() == user => reader,
            Ok(_) => {
                let reason = ReasonCode::NOT_AUTHORIZED;
                return self.refuse(Refusal::new(reason, "another reader's token"));
            }
            Err(reason) => return self.refuse(Refusal::new(reason, "its token is refused")),
        };
        let Some(id) = connect::reader_id(&reader, client_id, random) else {
            let reason = ReasonCode::CLIENT_IDENTIFIER_NOT_VALID;
            return self.refuse(Refusal::new(reason, "its client id is not its own"));
        };
        let assigned = client_id.is_empty().then(|| id.clone());
        let (until, terms) = (*until, terms.clone());
        self.admit(until, terms, Principal::reader(&reader, id), assigned);
    }

    fn admit(
        &mut self,
        until: Instant,
        terms: Box<Terms>,
        principal: Principal,
        assigned: Option<String>,
    ) {
        self.wire.effect(Effect::Admit {
            who: principal.who().clone(),
            resume: !terms.is_clean,
        });
        self.phase = Phase::Admitting {
            until,
            terms,
            principal: Box::new(principal),
            assigned,
        };
    }

    /// The client's older connection is gone: it is told that it is welcome. `kept` is what was kept of an older session of it, if it
    /// wants that.
    pub fn admitted(&mut self, kept: Option<Kept>, now: Now) {
        let Phase::Admitting {
            terms,
            principal,
            assigned,
            ..
        } = &self.phase
        else {
            debug_assert!(self.is_closed(), "only who asked for admission is admitted");
            return;
        };
        let Some(expires) = end_of(principal.expires_s(), now) else {
            let reason = ReasonCode::NOT_AUTHORIZED;
            return self.refuse(Refusal::new(reason, "its token ended meanwhile"));
        };
        let says = Welcome {
            durability: self.offer.durability,
            now: now.unix,
            assigned: assigned.as_deref(),
            is_resumed: kept.is_some(),
        };
        connect::welcome(terms, says, &mut self.wire.output);
        let mut online = Online::new(terms, (**principal).clone(), expires, now.mono);
        let resumed = kept.map_or(Ok(()), |kept| online.resume(kept, &mut self.wire));
        self.phase = Phase::Online(Box::new(online));
        if let Err(refusal) = resumed {
            self.refuse(refusal);
        }
    }
}
