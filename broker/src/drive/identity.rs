//! Who the hosts are: bundles, enrolment, renewal, revocation.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use protocol::{
    bundle::{self, Bundle},
    exchange::{Challenge, Grant, Proof, Refusal, Request, verify_request},
    id::{HostId, SandboxId, hex},
    install_key::{InstallKey, fingerprint},
    key::{Dispatcher, Host, Issuer, Public, Secret},
    limits::DISPATCHERS_MAX,
    signed::{self, Verified},
    time::UnixMillis,
    token::{HostTerms, mint_host},
};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use super::witness::{self, Asked};
use super::{Peer, Plane, REPORT_KEYS_MAX, Standing, Withdrawn};
use crate::{
    core::{
        exchange::{Decision, HostKey, Known, decide, refusal_of_redemption, refusal_of_renewal},
        hosts::HostState,
    },
    shell::{
        keys::fill_random,
        room::Waits,
        store::{
            AddHost, AddRefusal, HostKeyRow, HostKind, HostRow, NewHost, Redeem, Redeemed, Renewed,
            Store,
        },
    },
};

/// A bundle, made: the three files that are the broker's to make, and what to show of them.
pub struct Added {
    /// What the host runs sandboxes with.
    pub kind: HostKind,
    /// `bundle.toml`.
    pub bundle_toml: String,
    /// `ca.crt`.
    pub authority_pem: String,
    /// `install.key`. The one secret here; wiped on drop.
    pub install_key: Zeroizing<String>,
    /// The key's fingerprint, as the audit trail has it.
    pub fingerprint: String,
    /// When the install key ends unused.
    pub expires: UnixMillis,
}

impl std::fmt::Debug for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Added({})", self.fingerprint)
    }
}

/// Why a host was not added. The text tells a person what to do.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// A host that obeys nobody is of no use.
    #[error(
        "a bundle names the dispatchers that its host obeys: run `outhaul dispatcher init`, and name its key"
    )]
    NoDispatcher,
    /// More than a bundle holds.
    #[error("a bundle names at most {DISPATCHERS_MAX} dispatchers")]
    ManyDispatchers,
    /// It is there, and in use.
    #[error(
        "host {0} is enrolled, and goes on; whoever uses a new bundle takes the place of its machine. To have one all the same, say \
         --reissue"
    )]
    Exists(HostId),
    /// There is no such host.
    #[error("no host is called {0}: add it with `outhaul host add {0} --kind docker`")]
    Unknown(HostId),
    /// Nobody said where hosts find the broker.
    #[error(
        "the broker does not know where hosts find it, and every bundle says that: set public_address in its configuration (or \
         OUTHAUL_PUBLIC_ADDRESS, or --public-address NAME:PORT of `outhaul serve`) and start it again"
    )]
    NoAddress,
    /// Hosts would refuse the broker.
    #[error(
        "the broker's certificate is not for {0}, where bundles say that it is, and hosts would refuse it: have a certificate issued \
         for that name, or change public_address"
    )]
    NotCovered(String),
    /// It is locked.
    #[error(
        "host {0} is locked, since two machines used its identity: find the other one, then unlock it with `outhaul host unlock {0}`"
    )]
    Locked(HostId),
    /// It was revoked.
    #[error("host {0} is revoked, and its name is never used again: choose another")]
    Revoked(HostId),
    /// It is of the other kind.
    #[error("host {0} is enrolled as the other kind")]
    OtherKind(HostId),
    /// The store failed.
    #[error("the host could not be recorded: see the broker's log")]
    Failed(#[source] anyhow::Error),
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
            })
        })
        .collect()
}

/// What a broker with this issuer's key is called in tokens.
#[must_use]
pub fn audience(issuer: &Secret<Issuer>) -> String {
    format!("outhaul-{}", hex(&issuer.public().id()))
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
    pub async fn exchange(&self, request: Vec<u8>) -> Result<Grant, Refusal> {
        let Ok(_turn) = self.inner.exchanges.acquire().await else {
            return Err(Refusal::Unavailable);
        };
        let plane = self.clone();
        // Runs to its end even if the host hangs up: what is recorded must be known here too.
        let work = tokio::task::spawn_blocking(move || plane.judge_exchange(&request));
        match work.await.context("judge exchange").flatten() {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "a token exchange failed");
                Err(Refusal::Unavailable)
            }
        }
    }

    fn judge_exchange(&self, bytes: &[u8]) -> anyhow::Result<Result<Grant, Refusal>> {
        let now = self.now();
        // The nonce first: a stranger's bytes then cost a hash and no signature.
        let Ok(claimed) = signed::peek::<Request>(bytes) else {
            return Ok(Err(Refusal::Malformed));
        };
        let nonce = self.inner.challenges.check(&claimed.nonce, now);
        let asked = match nonce {
            Ok(asked) => asked,
            Err(bad) => {
                tracing::debug!(reason = %bad, "exchange refused");
                return Ok(Err(Refusal::Malformed));
            }
        };
        let Ok(request) = verify_request(bytes) else {
            return Ok(Err(Refusal::Malformed));
        };
        if let Some(shown) = &request.value().witness
            && Asked::read(shown).is_err()
        {
            return Ok(Err(Refusal::Malformed));
        }
        let host = &request.value().host;
        let (row, keys) = match &request.value().proof {
            Proof::InstallKey(_) => (None, Vec::new()),
            Proof::HostKey(_) => (
                self.store().host(host.as_str())?,
                read_keys(&self.store().host_keys(host.as_str())?)?,
            ),
        };
        let known = row.map(|row| Known {
            state: row.state,
            keys: &keys,
        });
        match decide(&request, Ok(()), known, self.away_max(), now) {
            // A renewal keeps its link, by which it can be told to stop; a newcomer can wait.
            Decision::Redeem { .. } if self.room().refuse(Waits::Enrolment).is_some() => {
                Ok(Err(Refusal::Unavailable))
            }
            Decision::Redeem { kid, secret_sha256 } => {
                self.redeem(&request, &kid, &secret_sha256, now)
            }
            Decision::Renew { succession } => self.renew(&request, &succession, asked, now),
            Decision::Refuse(refuse) => {
                tracing::debug!(reason = %refuse, "exchange refused");
                Ok(Err(refuse.refusal()))
            }
        }
    }

    fn redeem(
        &self,
        request: &Verified<Request, Host>,
        kid: &[u8; 8],
        secret_sha256: &[u8; 32],
        now: UnixMillis,
    ) -> anyhow::Result<Result<Grant, Refusal>> {
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
                Ok(Err(refusal_of_redemption(refusal)))
            }
        }
    }

    fn renew(
        &self,
        request: &Verified<Request, Host>,
        succession: &[u8],
        asked: UnixMillis,
        now: UnixMillis,
    ) -> anyhow::Result<Result<Grant, Refusal>> {
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
                self.reload(host)?;
                self.withdraw(Withdrawn::Host(host.clone()));
                tracing::warn!(sign = ?sign, "a host was locked: two machines use its identity");
                Ok(Err(Refusal::Locked))
            }
            Renewed::Refused(refusal) => {
                tracing::debug!(reason = ?refusal, "a renewal was refused");
                Ok(Err(refusal_of_renewal(refusal)))
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
            token: ByteBuf::from(mint_host(&self.inner.parts.issuer, &terms)),
            time: now,
            generation,
            authorities: Some(self.authorities()),
            trail,
        };
        witness::fit(&mut grant);
        Ok(grant)
    }

    /// Adds a host and makes its bundle; one that was added and never came gets a fresh bundle, and its old install key is void.
    /// For one that is enrolled, `reissue` must say that this is meant. Blocks.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add_host(
        &self,
        host: &HostId,
        kind: HostKind,
        dispatchers: &[Public<Dispatcher>],
        reissue: bool,
        peer: &Peer,
    ) -> Result<Added, AddError> {
        if dispatchers.is_empty() {
            return Err(AddError::NoDispatcher);
        }
        if dispatchers.len() > DISPATCHERS_MAX {
            return Err(AddError::ManyDispatchers);
        }
        self.check_address()?;
        let now = self.now();
        let (mut kid, mut secret) = ([0; 8], Zeroizing::new([0; 32]));
        fill_random(&mut kid)
            .and_then(|()| fill_random(&mut *secret))
            .map_err(AddError::Failed)?;
        let key = InstallKey::new(kid, secret);
        let new = NewHost {
            name: host.to_string(),
            kind,
            kid,
            secret_sha256: key.secret().hash(),
            expires_ms: now.plus(self.inner.parts.install_key_life).0,
            replace: reissue,
        };
        match self
            .store()
            .add_host(&new, &peer.actor(), now.0)
            .map_err(AddError::Failed)?
        {
            AddHost::Added | AddHost::Reissued { .. } => {}
            AddHost::Refused(AddRefusal::Enrolled) => return Err(AddError::Exists(host.clone())),
            AddHost::Refused(AddRefusal::Locked) => return Err(AddError::Locked(host.clone())),
            AddHost::Refused(AddRefusal::Revoked) => return Err(AddError::Revoked(host.clone())),
            AddHost::Refused(AddRefusal::OtherKind) => {
                return Err(AddError::OtherKind(host.clone()));
            }
        }
        self.reload(host).map_err(AddError::Failed)?;
        let audit_vkey = self.audit_vkey().map_err(AddError::Failed)?;
        let bundle = Bundle {
            version: bundle::VERSION,
            host: host.to_string(),
            kind: kind_word(kind).to_owned(),
            broker: self.inner.parts.address.clone(),
            issued_ms: now.0,
            dispatchers: dispatchers.iter().map(ToString::to_string).collect(),
            audit_vkey: Some(audit_vkey),
        };
        let bundle_toml = toml::to_string(&bundle).context("write bundle");
        Ok(Added {
            kind,
            bundle_toml: bundle_toml.map_err(AddError::Failed)?,
            authority_pem: self.certificates().authorities_pem(),
            install_key: Zeroizing::new(format!("{}\n", *key.to_text())),
            fingerprint: fingerprint(&new.secret_sha256),
            expires: UnixMillis(new.expires_ms),
        })
    }

    /// Fetches the bundle of a host that was added, again: a fresh install key, and the unused one before it is void. Blocks.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn fetch_bundle(
        &self,
        host: &HostId,
        dispatchers: &[Public<Dispatcher>],
        reissue: bool,
        peer: &Peer,
    ) -> Result<Added, AddError> {
        let row = self
            .store()
            .host(host.as_str())
            .map_err(AddError::Failed)?
            .ok_or_else(|| AddError::Unknown(host.clone()))?;
        self.add_host(host, row.kind, dispatchers, reissue, peer)
    }

    /// Whether a host could find the broker by a bundle, and believe it.
    fn check_address(&self) -> Result<(), AddError> {
        let parts = &self.inner.parts;
        if !parts.is_address_set {
            return Err(AddError::NoAddress);
        }
        if !self.certificates().covers_public_name {
            return Err(AddError::NotCovered(parts.address.clone()));
        }
        Ok(())
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

/// The word for a kind, in bundles and lists.
#[must_use]
pub(crate) const fn kind_word(kind: HostKind) -> &'static str {
    match kind {
        HostKind::Docker => "docker",
        HostKind::Kubernetes => "kubernetes",
    }
}
