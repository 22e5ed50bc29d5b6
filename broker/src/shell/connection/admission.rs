//! Who is let in: the verdict on what was shown, and the seat.

use protocol::{mqtt::ReasonCode, token::Subject};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, OnlineParts};
use crate::{
    core::principal::Who,
    drive::{Denied, Plane},
    shell::{
        clock,
        keys::fill_random,
        registry::{NoSeat, TOKENS_VOID, withdrawn_why},
    },
};

/// Tells the plane who is here, and who no longer.
pub(super) struct Presence {
    plane: Plane,
    subject: Subject,
    number: u64,
}

impl Presence {
    fn new(plane: &Plane, subject: &Subject, number: u64) -> Self {
        plane.connected(subject, number);
        Self {
            plane: plane.clone(),
            subject: subject.clone(),
            number,
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.plane.disconnected(&self.subject, self.number);
    }
}

impl<S, G> Connection<S, G>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    G: Send,
{
    pub(super) fn check(&mut self, token: &[u8]) {
        let mut nonce = [0; 8];
        // Before the look: one that is made void meanwhile is found out when its holder has a seat.
        self.voided = self.gate.plane.tokens_voided();
        let verdict = match self.gate.plane.check_token(token, self.gate.plane.now()) {
            Ok(grant) if fill_random(&mut nonce).is_ok() => {
                self.generation = Some(grant.generation);
                Ok(grant)
            }
            Ok(_) | Err(Denied::Unavailable) => Err(ReasonCode::SERVER_UNAVAILABLE),
            Err(denied) => {
                tracing::debug!(%denied, "a token is refused");
                self.gate.metrics.refuse_token(denied.word());
                Err(ReasonCode::NOT_AUTHORIZED)
            }
        };
        self.session.checked(verdict, nonce);
    }

    pub(super) fn check_reader(&mut self, shown: &[u8]) {
        let mut random = [0; 8];
        let plane = &self.gate.plane;
        let verdict = match plane.check_reader(shown, plane.now()) {
            Ok(reader) if fill_random(&mut random).is_ok() => Ok(reader),
            Ok(_) => Err(ReasonCode::SERVER_UNAVAILABLE),
            Err(bad) => {
                tracing::debug!(%bad, "a reader is refused");
                self.gate.metrics.refuse_token(Denied::from(bad).word());
                Err(ReasonCode::NOT_AUTHORIZED)
            }
        };
        self.session.checked_reader(verdict, random);
    }

    /// Takes the seat of the principal. Presence moves to the new number before the old connection is told, so that it never ends.
    pub(super) async fn admit(&mut self, who: &Who, resume: bool) {
        let is_bench = who
            .reader()
            .is_some_and(|name| self.gate.plane.is_load_test(name));
        let claim = self.gate.registry.claim(who, is_bench, clock::mono());
        let claim = match claim.await {
            Ok(claim) => claim,
            Err(no_seat) => return self.turn_away(no_seat),
        };
        let number = claim.number();
        let presence = who
            .subject()
            .map(|subject| Presence::new(&self.gate.plane, subject, number));
        match claim.evict().await {
            Ok(seat) => {
                self.online = Some(OnlineParts {
                    _presence: presence,
                    who: who.clone(),
                    seat,
                    is_told: false,
                });
            }
            Err(no_seat) => return self.turn_away(no_seat),
        }
        // From here on a revocation finds us in the registry; one that came before is found here.
        if self.gate.plane.is_withdrawn(who) {
            let reason = ReasonCode::NOT_AUTHORIZED;
            return self.session.end(reason, withdrawn_why(who));
        }
        if let (Some(subject), Some(generation)) = (who.subject(), self.generation)
            && self.gate.plane.is_void(subject, generation)
        {
            let reason = ReasonCode::NOT_AUTHORIZED;
            return self.session.end(reason, "its token is refused");
        }
        if who.subject().is_some() && self.voided != self.gate.plane.tokens_voided() {
            let reason = ReasonCode::ADMINISTRATIVE_ACTION;
            return self.session.end(reason, TOKENS_VOID);
        }
        let kept = match who {
            Who::Subject(_) => None,
            Who::Reader { name, id } => {
                // The one before it has kept its place: it is gone.
                match self.gate.plane.take_up_session(name, id, resume).await {
                    Ok(kept) => kept,
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(error, "a reader's session could not be read");
                        let reason = ReasonCode::SERVER_UNAVAILABLE;
                        return self.session.end(reason, "its session cannot be read");
                    }
                }
            }
        };
        self.is_resumed = kept.is_some();
        let now = self.now();
        self.session.admitted(kept, now);
        if let (Who::Reader { name, id }, Some(_)) = (who, self.session.keep()) {
            self.place_file = self.gate.plane.take_place(name, id, self.is_resumed).await;
        }
        if self.session.is_online() {
            self.stranger = None;
            self.gate.metrics.admitted.add();
            tracing::info!(%who, "connected");
        }
    }

    fn turn_away(&mut self, no_seat: NoSeat) {
        let (reason, why) = match no_seat {
            NoSeat::TooOften => (ReasonCode::CONNECTION_RATE_EXCEEDED, "taken over too often"),
            NoSeat::TooMany => (
                ReasonCode::QUOTA_EXCEEDED,
                "as many of its kind are connected as may be",
            ),
            NoSeat::Taken => (ReasonCode::SERVER_BUSY, "its older connection does not go"),
        };
        self.session.end(reason, why);
    }
}
