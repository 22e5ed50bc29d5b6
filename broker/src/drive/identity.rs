//! Who the hosts are: enrolment, renewal, revocation.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use protocol::{
    exchange::{Challenge, Grant, Proof, Refusal, Request, verify_request},
    id::{HostId, SandboxId},
    key::{Host, Public},
    signed::{self, Verified},
    time::UnixMillis,
    token::HostTerms,
};
use serde_bytes::ByteBuf;

use super::witness::{self, Asked};
use super::{Peer, Plane, REPORT_KEYS_MAX, Standing, Withdrawn};
use crate::{
    core::{
        catch_up::Link,
        exchange::{
            Decision, HostKey, Known, Since, Terms, decide, refusal_of_redemption,
            refusal_of_renewal,
        },
        hosts::HostState,
    },
    shell::{
        keys::fill_random,
        room::Waits,
        store::{CaughtUp, HostKeyRow, HostRow, Redeem, Redeemed, Renewed, Store},
    },
};

/// What a host is told that gets no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct No {
    /// Why.
    pub reason: Refusal,
    /// How far this broker knows the host's keys, where it may show how they went on.
    pub known: Option<u64>,
}

impl No {
    const fn behind(generation: u64) -> Self {
        Self {
            reason: Refusal::Proof,
            known: Some(generation),
        }
    }
}

impl From<Refusal> for No {
    fn from(reason: Refusal) -> Self {
        Self {
            reason,
            known: None,
        }
    }
}

/// Reads what is known of every host.
pub(super) fn load(store: &Store) -> anyhow::Result<BTreeMap<HostId, Standing>> {
    let mut hosts = BTreeMap::new();
    for row in store.hosts()? {
        let host = HostId::new(&row.name).context("read a host's name")?;
        hosts.insert(host, standing(store, &row)?);
    }
    Ok(hosts)
}

fn standing(store: &Store, row: &HostRow) -> anyhow::Result<Standing> {
    let mut keys = read_keys(&store.host_keys(&row.name)?)?;
    keys.drain(..keys.len().saturating_sub(REPORT_KEYS_MAX));
    Ok(Standing {
        state: row.state,
        keys,
        void_generation: row.void_generation,
        revoked_sandboxes: store
            .revoked_sandboxes(&row.name)?
            .iter()
            .map(|sandbox| SandboxId::new(sandbox).context("read a sandbox's name"))
            .collect::<anyhow::Result<_>>()?,
        is_removed: row.removed_ms.is_some(),
        is_unread: false,
    })
}

fn read_keys(rows: &[HostKeyRow]) -> anyhow::Result<Vec<HostKey>> {
    rows.iter()
        .map(|row| {
            let key = Public::from_bytes(&row.public_key).context("read a host's key")?;
            Ok(HostKey {
                generation: row.generation,
                key,
                since: UnixMillis(row.enrolled_ms),
                how: match row.caught_up {
                    None => Since::Granted,
                    Some(incarnation) => Since::CaughtUp { incarnation },
                },
            })
        })
        .collect()
}

impl Plane {
    /// A nonce, and the time.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn challenge(&self) -> anyhow::Result<Challenge> {
        let mut random = [0; 8];
        fill_random(&mut random)?;
        let time = self.now();
        Ok(Challenge {
            nonce: self.inner.challenges.issue(time, random).into(),
            time,
        })
    }

    /// Enrols or renews a host: records, then grants.
    ///
    /// # Errors
    /// What the host is to be told. Why, our own log says.
    pub async fn exchange(&self, request: Vec<u8>) -> Result<Grant, No> {
        let Ok(_turn) = self.inner.exchanges.acquire().await else {
            return Err(Refusal::Unavailable.into());
        };
        let plane = self.clone();
        // Runs to its end even if the host hangs up: what is recorded must be known here too.
        let work = tokio::task::spawn_blocking(move || plane.judge_exchange(&request));
        match work.await.context("judge exchange").flatten() {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a token exchange failed");
                Err(Refusal::Unavailable.into())
            }
        }
    }

    fn judge_exchange(&self, bytes: &[u8]) -> anyhow::Result<Result<Grant, No>> {
        let now = self.now();
        // The nonce first: a stranger's bytes then cost a hash and no signature.
        let Ok(claimed) = signed::peek::<Request>(bytes) else {
            return Ok(Err(Refusal::Malformed.into()));
        };
        let nonce = self.inner.challenges.check(&claimed.nonce, now);
        let asked = match nonce {
            Ok(asked) => asked,
            Err(bad) => {
                tracing::debug!(reason = %bad, "exchange refused");
                return Ok(Err(Refusal::Malformed.into()));
            }
        };
        let Ok(request) = verify_request(bytes) else {
            return Ok(Err(Refusal::Malformed.into()));
        };
        if let Some(shown) = &request.value().witness
            && Asked::read(shown).is_err()
        {
            return Ok(Err(Refusal::Malformed.into()));
        }
        let host = &request.value().host;
        let (row, keys) = match &request.value().proof {
            Proof::InstallKey(_) => (None, Vec::new()),
            Proof::HostKey(_) | Proof::HostKeys(_) => (
                self.store().host(host.as_str())?,
                read_keys(&self.store().host_keys(host.as_str())?)?,
            ),
        };
        let known = row.map(|row| Known {
            state: row.state,
            keys: &keys,
        });
        let terms = Terms {
            away_max: self.away_max(),
            incarnation: self.history().current(),
        };
        match decide(&request, Ok(()), known, terms, now) {
            // A renewal keeps its link, by which it can be told to stop; a newcomer can wait.
            Decision::Redeem { .. } if self.room().refuse(Waits::Enrolment).is_some() => {
                Ok(Err(Refusal::Unavailable.into()))
            }
            Decision::Redeem { kid, secret_sha256 } => {
                self.redeem(&request, &kid, &secret_sha256, now)
            }
            Decision::Renew { succession } => self.renew(&request, &succession, asked, now),
            Decision::CatchUp(links) => self.catch_up(request.value(), &links, now),
            Decision::Lock { generation, key } => {
                let host = &request.value().host;
                let key = key.as_bytes();
                if !self
                    .store()
                    .lock_forked_host(host.as_str(), generation, key, now.0)?
                {
                    return Ok(Err(Refusal::Proof.into()));
                }
                self.locked(host)?;
                Ok(Err(Refusal::Locked.into()))
            }
            Decision::Behind { generation } => Ok(Err(No::behind(generation))),
            Decision::Refuse(refuse) => {
                tracing::debug!(reason = %refuse, "exchange refused");
                Ok(Err(refuse.refusal().into()))
            }
        }
    }

    /// A host that is ahead of a restored broker: its keys are recorded, and it gets a token once they reach the one it asks for.
    fn catch_up(
        &self,
        request: &Request,
        links: &[Link],
        now: UnixMillis,
    ) -> anyhow::Result<Result<Grant, No>> {
        let host = &request.host;
        let is_request =
            |link: &&Link| link.key == request.key && link.generation == request.generation;
        let granted = links.last().filter(is_request).map(|link| link.key);
        let recorded = self.store().catch_up_host(
            host.as_str(),
            links,
            granted.as_ref().map(Public::as_bytes),
            self.history().current().number,
            now.0,
        )?;
        let CaughtUp::To(generation) = recorded else {
            return Ok(Err(Refusal::Proof.into()));
        };
        self.reload(host)?;
        tracing::info!(%host, generation, "a host showed how its keys followed each other since the backup");
        match granted {
            Some(_) => Ok(Ok(self.grant(request, generation, now)?)),
            None => Ok(Err(No::behind(generation))),
        }
    }

    fn locked(&self, host: &HostId) -> anyhow::Result<()> {
        self.reload(host)?;
        self.withdraw(Withdrawn::Host(host.clone()));
        tracing::warn!(%host, "a host was locked: two machines use its identity");
        Ok(())
    }

    fn redeem(
        &self,
        request: &Verified<Request, Host>,
        kid: &[u8; 8],
        secret_sha256: &[u8; 32],
        now: UnixMillis,
    ) -> anyhow::Result<Result<Grant, No>> {
        let request = request.value();
        let redeem = Redeem {
            kid,
            secret_sha256,
            host: request.host.as_str(),
            public_key: request.key.as_bytes(),
            again_ms: u64::try_from(self.away_max().as_millis()).unwrap_or(u64::MAX),
        };
        match self.store().redeem_install_key(&redeem, now.0)? {
            Redeemed::Now(enrolled) => {
                self.reload(&request.host)?;
                tracing::info!(generation = enrolled.generation, "a host enrolled");
                Ok(Ok(self.grant(request, enrolled.generation, now)?))
            }
            Redeemed::AlreadySame(enrolled) => {
                Ok(Ok(self.grant(request, enrolled.generation, now)?))
            }
            Redeemed::Refused(refusal) => {
                tracing::debug!(reason = ?refusal, "an install key was refused");
                Ok(Err(refusal_of_redemption(refusal).into()))
            }
        }
    }

    fn renew(
        &self,
        request: &Verified<Request, Host>,
        succession: &[u8],
        asked: UnixMillis,
        now: UnixMillis,
    ) -> anyhow::Result<Result<Grant, No>> {
        let request = request.value();
        let (host, key) = (&request.host, request.key);
        match self.store().renew_host(
            host.as_str(),
            request.generation,
            key.as_bytes(),
            succession,
            asked.0,
            now.0,
        )? {
            Renewed::Advanced { generation } => {
                self.reload(host)?;
                Ok(Ok(self.grant(request, generation, now)?))
            }
            Renewed::Repeated { generation } => Ok(Ok(self.grant(request, generation, now)?)),
            Renewed::Locked(sign) => {
                tracing::debug!(sign = ?sign, "a clone showed");
                self.locked(host)?;
                Ok(Err(Refusal::Locked.into()))
            }
            Renewed::Refused(refusal) => {
                tracing::debug!(reason = ?refusal, "a renewal was refused");
                Ok(Err(refusal_of_renewal(refusal).into()))
            }
        }
    }

    /// How long after its last key came a host may come back: a token's life, and its owner's window.
    fn away_max(&self) -> Duration {
        self.inner
            .parts
            .recovery_window
            .saturating_add(self.inner.parts.token_life)
    }

    fn grant(&self, request: &Request, generation: u64, now: UnixMillis) -> anyhow::Result<Grant> {
        let (host, key) = (&request.host, request.key);
        let asked = request
            .witness
            .as_ref()
            .and_then(|shown| Asked::read(shown).ok());
        let trail = asked
            .map(|asked| self.trail_for(host, key, &asked, now))
            .transpose()?;
        let mut id = [0; 8];
        fill_random(&mut id)?;
        let terms = HostTerms {
            audience: &self.inner.audience,
            host,
            key,
            generation,
            id,
            issued: now,
            life_s: self.inner.parts.token_life.as_secs(),
        };
        let mut grant = Grant {
            token: ByteBuf::from(self.inner.parts.issuer.mint(&terms)),
            time: now,
            generation,
            authorities: Some(self.authorities()),
            trail,
        };
        witness::fit(&mut grant);
        Ok(grant)
    }

    /// Unlocks a locked host: the key it had counts again. `false`: it is not locked. Blocks.
    ///
    /// # Errors
    /// The store failed.
    pub fn unlock_host(&self, host: &HostId, peer: &Peer) -> anyhow::Result<bool> {
        let changed = self
            .store()
            .unlock_host(host.as_str(), &peer.actor(), self.now().0)?;
        self.reload(host)?;
        Ok(changed)
    }

    /// Revokes a host for good, and has its links closed. `false`: there is none, or it is revoked. Blocks.
    ///
    /// # Errors
    /// The store failed.
    pub fn revoke_host(&self, host: &HostId, peer: &Peer) -> anyhow::Result<bool> {
        let changed = self
            .store()
            .revoke_host(host.as_str(), &peer.actor(), self.now().0)?;
        self.reload(host)?;
        if changed {
            self.withdraw(Withdrawn::Host(host.clone()));
        }
        Ok(changed)
    }

    /// Where a host's life stands; none if there is no such host.
    pub(super) fn host_state(&self, host: &HostId) -> Option<HostState> {
        let hosts = self
            .inner
            .hosts
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        hosts.get(host).map(|standing| standing.state)
    }

    /// The keys whose reports are taken, the current one last.
    pub(super) fn report_keys(&self, host: &HostId) -> Vec<HostKey> {
        let hosts = self
            .inner
            .hosts
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        hosts
            .get(host)
            .map(|standing| standing.keys.clone())
            .unwrap_or_default()
    }

    /// What the store says of a host counts from here on. Under the lock from the look to the change, so that the older of two
    /// looks never wins.
    pub(super) fn reload(&self, host: &HostId) -> anyhow::Result<()> {
        let mut hosts = self
            .inner
            .hosts
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match self
            .store()
            .host(host.as_str())
            .and_then(|row| row.map(|row| standing(self.store(), &row)).transpose())
        {
            Ok(Some(standing)) => {
                hosts.insert(host.clone(), standing);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                // What is known may be more than is true: closed until a new start can read it.
                if let Some(standing) = hosts.get_mut(host) {
                    standing.is_unread = true;
                }
                drop(hosts);
                self.withdraw(Withdrawn::Host(host.clone()));
                Err(error).with_context(|| format!("read host {host}"))
            }
        }
    }

    pub(super) fn withdraw(&self, withdrawn: Withdrawn) {
        // Nobody listens only where there is no gate.
        let _ = self.inner.withdrawn.send(withdrawn);
    }
}
