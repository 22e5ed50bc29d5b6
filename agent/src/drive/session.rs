//! Carries out what the session asks for, each exchange in a task of its own.

use std::sync::Arc;

use anyhow::Context as _;
use protocol::exchange::Refusal;
use protocol::possession::prove;
use protocol::topic::Topic;
use smol::Task;

use super::site::{Mail, Site};
use crate::core::chain::Show;
use crate::core::host::identity::life_of;
use crate::core::host::{Event, Failure};
use crate::shell::exchange::{self, ExchangeError};
use crate::shell::mqtt::{Link, LinkOptions, Prover, UP_WAIT_MAX};
use crate::shell::server_time::random;
use crate::shell::tokio::spawn;

/// Keep-alive on the link: with it a dead link is noticed within a minute.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// Makes and persists the pending key.
pub(super) fn prepare(site: &Site, attempt: u64) -> Event {
    let made = (|| {
        let seed = zeroize::Zeroizing::new(random()?);
        let now = site.time.now().unix;
        let mut identity = site.identity();
        if identity.prepare(&seed, now)
            && let Err(error) = site.store.save_identity(&identity)
        {
            // What is not on disk was never made: the next attempt makes another.
            identity.pending = None;
            return Err(error);
        }
        anyhow::Ok(())
    })();
    match made {
        Ok(()) => Event::Prepared { attempt },
        Err(error) => {
            tracing::error!("make the host's next key: {error:#}");
            let failure = Failure::NotPersisted;
            Event::ExchangeFailed { attempt, failure }
        }
    }
}

/// Puts the granted token and its key in force.
pub(super) fn adopt(site: &Site, attempt: u64, token: Vec<u8>, generation: u64) -> Event {
    let adopted = (|| {
        let mut identity = site.identity();
        let was_enrolled = identity.current.is_some();
        // Before the key is in force: from then on nothing else tells how it came to be.
        if let Some(link) = identity.link() {
            site.store.save_link(link)?;
        }
        identity
            .adopt(token, generation)
            .context("take the broker's grant")?;
        identity.fix = site.time.fix();
        // If the disk fails now, memory is ahead of it: the next start sends the pending key again, and gets the same grant.
        site.store.save_identity(&identity)?;
        anyhow::Ok((was_enrolled, identity.generation()))
    })();
    match adopted {
        Ok((was_enrolled, generation)) => {
            if !was_enrolled {
                enrolled(site);
            }
            site.said().clear();
            tracing::info!(generation, "the host has a fresh token");
            Event::Adopted { attempt }
        }
        Err(error) => {
            tracing::error!("{error:#}");
            let failure = Failure::NotPersisted;
            Event::ExchangeFailed { attempt, failure }
        }
    }
}

/// The install key is used up: a copy on disk would only be mistaken for something of worth.
fn enrolled(site: &Site) {
    tracing::info!(host = %site.host, "this host is enrolled");
    match site.bundle.remove_install_key() {
        Ok(true) => tracing::info!("the install key is used up and was removed from the bundle"),
        Ok(false) => {}
        Err(error) => tracing::warn!("{error:#}; it is used up: remove it by hand"),
    }
}

/// Asks the broker for a challenge.
pub(super) fn challenge(site: Arc<Site>, attempt: u64) -> Task<()> {
    spawn(async move {
        let event = match exchange::challenge(&site.exchange()).await {
            Ok(challenge) => {
                site.time.learn(challenge.time);
                let nonce = challenge.nonce.into_array();
                Event::Challenged { attempt, nonce }
            }
            Err(error) => failed(&site, attempt, &error),
        };
        let _ = site.mail.send(Mail::Session(event)).await;
    })
}

/// Asks the broker for a token.
pub(super) fn redeem(site: Arc<Site>, attempt: u64, nonce: [u8; 32], show: Show) -> Task<()> {
    spawn(async move {
        let mail = match request(&site, nonce, show) {
            Err(error) => Mail::Fatal(error),
            Ok(request) => Mail::Session(match exchange::redeem(&site.exchange(), request).await {
                Ok(grant) => {
                    site.time.learn(grant.time);
                    site.learn_authorities(&grant.authorities.unwrap_or_default());
                    let token = grant.token.into_vec();
                    match life_of(&token) {
                        Some(life) => Event::Granted {
                            attempt,
                            generation: grant.generation,
                            token,
                            life,
                        },
                        None => {
                            tracing::warn!("the broker's grant holds no token");
                            let failure = Failure::Unreachable;
                            Event::ExchangeFailed { attempt, failure }
                        }
                    }
                }
                Err(error) => failed(&site, attempt, &error),
            }),
        };
        let _ = site.mail.send(mail).await;
    })
}

/// The request with the proof that fits. The install key is read only when it is needed, and not kept.
fn request(site: &Site, nonce: [u8; 32], show: Show) -> anyhow::Result<Vec<u8>> {
    let is_enrolled = site.identity().current.is_some();
    let install_key = if is_enrolled {
        None
    } else {
        Some(site.bundle.install_key()?)
    };
    let chain = match show {
        Show::Last => None,
        Show::Chain { after } => Some(site.store.load_chain(after)?),
    };
    site.identity()
        .request(nonce, install_key.as_ref(), chain)
        .context("ask for a token: no key is pending")
}

fn failed(site: &Site, attempt: u64, error: &ExchangeError) -> Event {
    let failure = match error {
        ExchangeError::Refused {
            reason,
            time,
            known,
        } => {
            site.time.learn(*time);
            if let Some(generation) = known {
                tracing::info!(
                    generation,
                    "the broker was restored from a backup: it is shown how this host's keys followed each other since"
                );
                return Event::ExchangeFailed {
                    attempt,
                    failure: Failure::Refused {
                        refusal: *reason,
                        known: *known,
                    },
                };
            }
            Failure::Refused {
                refusal: *reason,
                known: None,
            }
        }
        ExchangeError::Failed(_) => Failure::Unreachable,
    };
    let why = match error {
        ExchangeError::Refused { reason, .. } => format!("{error}: {}", remedy(*reason)),
        ExchangeError::Failed(_) => error.to_string(),
    };
    site.said().warn("no fresh token", why);
    Event::ExchangeFailed { attempt, failure }
}

/// What a person can do about a refusal.
pub(super) fn remedy(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Malformed => "the challenge was too old, or the versions do not fit",
        Refusal::InstallKey => {
            "the install key is unknown, used, retired or expired: fetch a fresh bundle with `outhaul host add`"
        }
        Refusal::Proof => {
            "this host's key is not one that the broker knows, or the host was away for too long. If the broker was restored from a \
             backup from before this host was added, or without `outhaul restore`, it cannot know it. Make a fresh bundle with `outhaul \
             host add NAME --reissue`, move the state directory away, and start the operator with that bundle"
        }
        Refusal::Locked => {
            "two operators used this identity; find the other one, then have the host unlocked with `outhaul host unlock`"
        }
        Refusal::Revoked => "this host was removed from the broker",
        Refusal::Unavailable => "the broker cannot say now",
        Refusal::Other(_) => {
            "the broker is newer than this operator and gives a reason that it does not know: update it"
        }
    }
}

/// Opens a link under the current token.
pub(super) fn connect(site: &Arc<Site>) -> Link {
    let token = site
        .identity()
        .current
        .as_ref()
        .map(|current| current.token.clone())
        .unwrap_or_default();
    let prover = Arc::clone(site);
    Link::open(LinkOptions {
        authority: site.broker.clone(),
        proxy: site.proxy.clone(),
        tls: site.clients().mqtt,
        client_id: site.host.to_string(),
        token,
        prove: Prover::new(move |challenge| answer(&prover, challenge)),
        keep_alive: KEEP_ALIVE,
        subscribe: Some(Topic::Commands(site.host.clone()).to_string()),
        up_wait: UP_WAIT_MAX,
    })
}

/// Proves possession of the current key. Without one, or without random bytes, an answer that proves nothing.
fn answer(site: &Site, challenge: &[u8; 8]) -> [u8; 72] {
    match (random(), &site.identity().current) {
        (Ok(own), Some(current)) => prove(&current.key, challenge, &own),
        (Ok(_) | Err(_), _) => [0; 72],
    }
}
