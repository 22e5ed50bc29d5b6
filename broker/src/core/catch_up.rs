//! A host that is ahead of us: what a chain of its successions says, and whether it may bring us up to date.
//!
//! A broker that was restored from a backup knows a key that the host has long replaced. The host shows how its keys followed each
//! other from there; each link is signed by the key before it, so nothing has to be believed. This holds only where a declared restore
//! explains why we are behind. Otherwise a host that is ahead of us stays refused: somebody's copy of a broker is no broker.

use std::time::Duration;

use protocol::{
    exchange::Succession,
    id::HostId,
    key::{Host, Public},
    limits::SUCCESSIONS_MAX,
    signed,
    time::UnixMillis,
};
use serde_bytes::ByteBuf;

use super::{
    exchange::{HostKey, Since},
    incarnation::Incarnation,
};

/// A succession that leads on from what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The generation of the key it names.
    pub generation: u64,
    /// That key.
    pub key: Public<Host>,
    /// As signed.
    pub succession: Vec<u8>,
}

/// What a chain of successions says to who knows the host's earlier keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Nothing: none is signed by a key that is known, or they do not follow from each other.
    Foreign,
    /// It is the host's, and leads to nothing that is not known.
    Known,
    /// It leads on from the current key.
    Ahead(Vec<Link>),
    /// A key of the host's named another successor than the one that is known: two machines hold the host's keys.
    Fork {
        /// Of which generation.
        generation: u64,
        /// The successor that is not known.
        key: Public<Host>,
    },
}

/// Reads a chain. `keys` is every key that the host had, the first one first.
#[must_use]
pub fn read_chain(host: &HostId, keys: &[HostKey], links: &[ByteBuf]) -> Chain {
    let mut ahead: Vec<Link> = Vec::new();
    let mut is_ours = false;
    for link in links.iter().take(SUCCESSIONS_MAX) {
        let Some(next) = read_link(host, keys, &ahead, link) else {
            // What follows a link that cannot be judged cannot be judged either.
            break;
        };
        is_ours = true;
        match keys
            .iter()
            .find(|known| known.generation == next.generation)
        {
            Some(known) if known.key == next.key => {}
            Some(_) => {
                return Chain::Fork {
                    generation: next.generation,
                    key: next.key,
                };
            }
            None => ahead.push(next),
        }
    }
    match (is_ours, ahead.is_empty()) {
        (false, _) => Chain::Foreign,
        (true, true) => Chain::Known,
        (true, false) => Chain::Ahead(ahead),
    }
}

/// One link, signed by a key that is known or that a link before it named.
fn read_link(host: &HostId, keys: &[HostKey], ahead: &[Link], link: &[u8]) -> Option<Link> {
    let claimed: Succession = signed::peek(link).ok()?;
    let before = claimed.generation.checked_sub(1)?;
    let of_known = keys.iter().find(|known| known.generation == before);
    let of_new = ahead.iter().find(|new| new.generation == before);
    let signer = of_known
        .map(|known| known.key)
        .or_else(|| of_new.map(|new| new.key))?;
    let next = signed::verify::<Succession>(link, &[signer], b"").ok()?;
    let next = next.into_value();
    (next.host == *host).then(|| Link {
        generation: next.generation,
        key: next.key,
        succession: link.to_vec(),
    })
}

/// Whether a host whose current key is `current` may bring us up to date: why not, if not.
///
/// A declared restore must explain that we are behind: the key was recorded before it, or came by way of it already. And the host must
/// not have been away for longer than its owner's window, neither when the backup was made nor since the restore.
///
/// # Errors
/// [`MayNot`].
pub fn may_catch_up(
    current: &HostKey,
    incarnation: &Incarnation,
    away_max: Duration,
    now: UnixMillis,
) -> Result<(), MayNot> {
    let restored = incarnation.restored.ok_or(MayNot::NoRestore)?;
    let last_good = |since: UnixMillis| since.plus(away_max);
    match current.how {
        Since::CaughtUp { incarnation: by } if by == incarnation.number => {}
        Since::Granted | Since::CaughtUp { .. } => {
            if current.since > incarnation.began {
                return Err(MayNot::NoRestore);
            }
            if restored.made > last_good(current.since) {
                return Err(MayNot::TooLate);
            }
        }
    }
    if now > last_good(incarnation.began) {
        return Err(MayNot::TooLate);
    }
    Ok(())
}

/// Why a host may not bring us up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayNot {
    /// No restore explains it.
    NoRestore,
    /// It was away for too long.
    TooLate,
}

#[cfg(test)]
mod tests;
