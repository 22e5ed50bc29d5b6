//! Carries out what the session asks for, each exchange in a task of its own.

use std::sync::Arc;

use anyhow::Context as _;
use protocol::exchange::{Grant, Refusal};
use protocol::id::HostId;
use protocol::possession::prove;
use protocol::topic::Topic;
use smol::Task;

use super::site::{Mail, Site};
use super::witness;
use crate::core::chain::Show;
use crate::core::host::identity::life_of;
use crate::core::host::{Event, Failure, is_refusal};
use crate::core::witness::Witness;
use crate::shell::exchange::{self, ExchangeError};
use crate::shell::mqtt::{DownReason, Link, LinkOptions, Prover, UP_WAIT_MAX};
use crate::shell::server_time::random;
use crate::shell::tokio::spawn;

/// Keep-alive on the link: with it a dead link is noticed within a minute.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(30);

/// MQTT 5.0 §3.14.2.1: another connection has our client id.
const TAKEN_OVER: u8 = 0x8e;

/// An administrator ended the connection.
const ADMINISTRATIVE: u8 = 0x98;

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
        Ok(true) => tracing::info!("the install key is used up and was removed"),
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
        let witness = site.witness().clone();
        let mail = match request(&site, &witness, nonce, show) {
            Err(error) => Mail::Fatal(error),
            Ok(request) => Mail::Session(match exchange::redeem(&site.exchange(), request).await {
                Ok(grant) => granted(&site, &witness, attempt, grant),
                Err(error) => failed(&site, attempt, &error),
            }),
        };
        let _ = site.mail.send(mail).await;
    })
}

/// What a grant is worth. The trail that comes with it is looked at first, and what the host keeps of that is on disk before anything of
/// the grant is used. `witness` is what the broker was shown.
fn granted(site: &Site, witness: &Witness, attempt: u64, grant: Grant) -> Event {
    site.time.learn(grant.time);
    if let Err(failure) = witness::look(site, witness, grant.trail.as_ref()) {
        return Event::ExchangeFailed { attempt, failure };
    }
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

/// The request with the proof that fits. The install key is read only when it is needed, and not kept.
fn request(site: &Site, witness: &Witness, nonce: [u8; 32], show: Show) -> anyhow::Result<Vec<u8>> {
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
    let now = site.time.now().unix;
    site.identity()
        .request(nonce, install_key.as_ref(), chain, witness, now)
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
        ExchangeError::Refused { reason, .. } => {
            format!("{error}: {}", remedy(*reason, &site.host))
        }
        ExchangeError::Failed(_) => error.to_string(),
    };
    site.said().warn("no fresh token", why);
    Event::ExchangeFailed { attempt, failure }
}

/// What a person can do about a refusal.
pub(super) fn remedy(refusal: Refusal, host: &HostId) -> String {
    let text = match refusal {
        Refusal::Malformed => "the challenge was too old, or the versions do not fit",
        Refusal::InstallKey => {
            "the install key is unknown, used, retired or expired: fetch a fresh bundle with `outhaul host bundle`"
        }
        Refusal::Proof => {
            return format!(
                "this host's key is not one that the broker knows, or was revoked, or the host was away for too long. If the broker was \
                 restored from a backup from before this host was added, or without `outhaul restore`, it cannot know it. Make a fresh \
                 bundle with `outhaul host add {host} --kind docker --reissue`, move the state directory away, and start the operator \
                 with that bundle"
            );
        }
        Refusal::Locked => {
            return format!(
                "two operators used this identity; find the other one, then have the host unlocked with `outhaul host unlock {host}`"
            );
        }
        Refusal::Revoked => "this host was revoked or removed at the broker",
        Refusal::Unavailable => "the broker cannot say now",
        Refusal::Other(_) => {
            "the broker is newer than this operator and gives a reason that it does not know: update it"
        }
    };
    text.to_owned()
}

/// Why the link is down, and what a person can do about it where the broker means us.
pub(super) fn why_down(why: &DownReason, host: &HostId) -> String {
    let code = match why {
        DownReason::Refused { code } | DownReason::Disconnected { code } => *code,
        DownReason::Network(_)
        | DownReason::Tls(_)
        | DownReason::Timeout(_)
        | DownReason::Protocol(_)
        | DownReason::Local(_)
        | DownReason::Closed => return why.to_string(),
    };
    let remedy = match code {
        TAKEN_OVER => "another operator connected as this host: find it",
        ADMINISTRATIVE => "its rights were taken away",
        code if is_refusal(code) => "it does not take this host's token",
        _ => return why.to_string(),
    };
    format!(
        "{why}: {remedy}. A fresh token is asked for in a minute or two, if need be; what the broker has on record shows `outhaul host \
         show {host}`, and a host that is locked is unlocked with `outhaul host unlock {host}`"
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do_and_a_lock_how_it_is_undone() {
        let host = HostId::new("edge-1").unwrap();
        for refusal in Refusal::ALL {
            assert!(remedy(*refusal, &host).len() > 20, "{refusal}");
        }
        let locked = remedy(Refusal::Locked, &host);
        assert!(locked.contains("`outhaul host unlock edge-1`"), "{locked}");
        for code in [0x86, 0x87, 0x8a, 0x8c, 0x8e, 0x98] {
            for why in [
                DownReason::Refused { code },
                DownReason::Disconnected { code },
            ] {
                let said = why_down(&why, &host);
                assert!(said.contains("`outhaul host unlock edge-1`"), "{said}");
            }
        }
        let busy = why_down(&DownReason::Refused { code: 0x89 }, &host);
        assert!(!busy.contains("unlock"), "it means everybody: {busy}");
    }
}
