//! What to do with who asks for a connection token: the part that needs no transaction.
//!
//! [`decide`] checks the nonce, the shape and the proof, and says which of the store's transactions is to judge the rest. Nothing
//! is granted here: the store records first. Words for the wire are few; the reasons in [`Refuse`] are for our own log.

use std::time::Duration;

use protocol::{
    exchange::{Proof, Refusal, Request, Succession},
    key::{Host, Public},
    signed::{self, Verified},
    time::UnixMillis,
};

use serde_bytes::ByteBuf;

use super::{
    catch_up::{Chain, Link, MayNot, may_catch_up, read_chain},
    challenge::BadNonce,
    hosts::{FIRST_GENERATION, HostState, RedeemRefusal, RenewRefusal},
    incarnation::Incarnation,
};

/// A key that a host has or had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// Which of its keys, from 1.
    pub generation: u64,
    /// The key.
    pub key: Public<Host>,
    /// Since when: its first token was minted then, or the host showed it then.
    pub since: UnixMillis,
    /// How it came to be known.
    pub how: Since,
}

/// How a key came to be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The host asked for a token for it.
    Granted,
    /// A link in a chain that the host showed after a restore; it had been followed by then.
    CaughtUp {
        /// The incarnation to which it was shown.
        incarnation: u64,
    },
}

/// What the store knows of the host that a request names.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Where its life stands.
    pub state: HostState,
    /// Every key it had, the first one first; the last is the one it has.
    pub keys: &'a [HostKey],
}

/// The rules that are this broker's.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// How long after its last key came a host may come back: the life of a token, and its owner's window.
    pub away_max: Duration,
    /// The life of the broker that this is.
    pub incarnation: &'a Incarnation,
}

/// What to ask the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Redeem this install key for the request's host and key.
    Redeem {
        /// Which.
        kid: [u8; 8],
        /// SHA-256 of the secret that was presented; to be compared in constant time.
        secret_sha256: [u8; 32],
    },
    /// Renew the host: the request's key, of the request's generation, is signed for by a key that it has or had.
    Renew {
        /// The statement by which the key before names this one, as signed.
        succession: Vec<u8>,
    },
    /// Record these: they lead on from the host's current key. Then grant a token for the last, if it is the request's; else say how far
    /// they led.
    CatchUp(Vec<Link>),
    /// Lock the host: one of its keys has named two successors.
    Lock {
        /// The generation of both.
        generation: u64,
        /// The one that was not known.
        key: Public<Host>,
    },
    /// No, but this is how far the host is known: from there it may show how it went on.
    Behind {
        /// The generation of the last key that is known.
        generation: u64,
    },
    /// No.
    Refuse(Refuse),
}

/// Why a request is refused before the store is asked to change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refuse {
    /// The nonce.
    #[error(transparent)]
    Nonce(#[from] BadNonce),
    /// An enrolment starts at the first generation, and a renewal after it.
    #[error("the generation does not go with the proof")]
    Generation,
    /// No host of that name has a key.
    #[error("the host has never enrolled")]
    Unknown,
    /// Not signed by the key before, or for another host, key or generation.
    #[error("the succession does not show the right to this host")]
    Succession,
    /// The host is locked; whoever asks holds one of its keys.
    #[error("the host is locked")]
    Locked,
    /// The host is revoked; whoever asks holds one of its keys.
    #[error("the host is revoked")]
    Revoked,
    /// It was away for longer than its owner's window.
    #[error("the host was away for longer than the recovery window")]
    TooLate,
    /// It is ahead of us, and no declared restore says why.
    #[error("the host is ahead of this broker, and no restore was declared since its last key")]
    Ahead,
}

impl Refuse {
    /// What the host is told.
    #[must_use]
    pub const fn refusal(self) -> Refusal {
        match self {
            Self::Nonce(_) | Self::Generation => Refusal::Malformed,
            Self::Unknown | Self::Succession | Self::TooLate | Self::Ahead => Refusal::Proof,
            Self::Locked => Refusal::Locked,
            Self::Revoked => Refusal::Revoked,
        }
    }
}

/// Decides what becomes of a request that is signed by the key it asks a token for. An install key is not looked at: the store does, in
/// constant time.
#[must_use]
pub fn decide(
    request: &Verified<Request, Host>,
    nonce: Result<(), BadNonce>,
    host: Option<Known<'_>>,
    terms: Terms<'_>,
    now: UnixMillis,
) -> Decision {
    if let Err(bad) = nonce {
        return Decision::Refuse(bad.into());
    }
    let request = request.value();
    match &request.proof {
        Proof::InstallKey(_) if request.generation != FIRST_GENERATION => {
            Decision::Refuse(Refuse::Generation)
        }
        Proof::InstallKey(proof) => Decision::Redeem {
            kid: proof.kid.into_array(),
            secret_sha256: proof.secret.hash(),
        },
        Proof::HostKey(_) | Proof::HostKeys(_) if request.generation <= FIRST_GENERATION => {
            Decision::Refuse(Refuse::Generation)
        }
        Proof::HostKey(succession) => renew(request, succession, host, terms.away_max, now),
        Proof::HostKeys(links) => {
            // One that reaches a key we know is a renewal like any other: its answer was lost, or it is a clone.
            let last = links.last().map(|last| last.as_slice());
            match renew(request, last.unwrap_or_default(), host, terms.away_max, now) {
                Decision::Refuse(Refuse::Succession) => {
                    judge_chain(request, links, host, terms, now)
                }
                decided => decided,
            }
        }
    }
}

fn renew(
    request: &Request,
    succession: &[u8],
    host: Option<Known<'_>>,
    away_max: Duration,
    now: UnixMillis,
) -> Decision {
    match judge_succession(request, succession, host, away_max, now) {
        Ok(()) => Decision::Renew {
            succession: succession.to_vec(),
        },
        Err(refuse) => Decision::Refuse(refuse),
    }
}

/// A host whose last key we do not know shows how it came to it.
fn judge_chain(
    request: &Request,
    links: &[ByteBuf],
    host: Option<Known<'_>>,
    terms: Terms<'_>,
    now: UnixMillis,
) -> Decision {
    let Some((host, current)) = host.and_then(|host| Some((host, host.keys.last()?))) else {
        return Decision::Refuse(Refuse::Unknown);
    };
    let chain = read_chain(&request.host, host.keys, links);
    if chain == Chain::Foreign {
        return Decision::Refuse(Refuse::Succession);
    }
    if let Err(refuse) = judge_state(host.state) {
        return Decision::Refuse(refuse);
    }
    if let Chain::Fork { generation, key } = chain {
        return Decision::Lock { generation, key };
    }
    match may_catch_up(current, terms.incarnation, terms.away_max, now) {
        Ok(()) => {}
        Err(MayNot::NoRestore) => return Decision::Refuse(Refuse::Ahead),
        Err(MayNot::TooLate) => return Decision::Refuse(Refuse::TooLate),
    }
    match chain {
        Chain::Ahead(links) => Decision::CatchUp(links),
        Chain::Known | Chain::Foreign | Chain::Fork { .. } => Decision::Behind {
            generation: current.generation,
        },
    }
}

const fn judge_state(state: HostState) -> Result<(), Refuse> {
    match state {
        HostState::New => Err(Refuse::Unknown),
        HostState::Locked => Err(Refuse::Locked),
        HostState::Revoked => Err(Refuse::Revoked),
        HostState::Enrolled => Ok(()),
    }
}

/// The proof first, the host's state after it: a stranger learns nothing of a host by asking in its name.
fn judge_succession(
    request: &Request,
    succession: &[u8],
    host: Option<Known<'_>>,
    away_max: Duration,
    now: UnixMillis,
) -> Result<(), Refuse> {
    let host = host.ok_or(Refuse::Unknown)?;
    let current = host.keys.last().ok_or(Refuse::Unknown)?;
    // Any key it ever had may sign: whoever renews from an old one is a clone, and only the store's judgement shows that.
    let keys: Vec<Public<Host>> = host.keys.iter().map(|key| key.key).collect();
    let verified =
        signed::verify::<Succession>(succession, &keys, b"").map_err(|_| Refuse::Succession)?;
    let signer = host
        .keys
        .iter()
        .find(|key| key.key == verified.signer())
        .ok_or(Refuse::Succession)?;
    let named = verified.value();
    let is_this = named.host == request.host
        && named.key == request.key
        && named.generation == request.generation
        && signer.generation.checked_add(1) == Some(request.generation);
    if !is_this {
        return Err(Refuse::Succession);
    }
    judge_state(host.state)?;
    // A machine that was left behind is a clone, however late it comes.
    if request.generation >= current.generation && now > current.since.plus(away_max) {
        return Err(Refuse::TooLate);
    }
    Ok(())
}

/// What a host is told when the store refuses its renewal.
#[must_use]
pub const fn refusal_of_renewal(refusal: RenewRefusal) -> Refusal {
    match refusal {
        RenewRefusal::Locked => Refusal::Locked,
        RenewRefusal::Revoked => Refusal::Revoked,
        RenewRefusal::Unknown
        | RenewRefusal::NotEnrolled
        | RenewRefusal::Ahead
        | RenewRefusal::KeyUsedBefore
        | RenewRefusal::Void => Refusal::Proof,
        // Whoever still waits for this answer asks again, and answers a new challenge then.
        RenewRefusal::Late => Refusal::Malformed,
    }
}

/// What a host is told when the store refuses its install key. The store looks at the host's state only after the secret was right.
#[must_use]
pub const fn refusal_of_redemption(refusal: RedeemRefusal) -> Refusal {
    match refusal {
        RedeemRefusal::HostLocked => Refusal::Locked,
        RedeemRefusal::HostRevoked => Refusal::Revoked,
        RedeemRefusal::Unknown
        | RedeemRefusal::Expired
        | RedeemRefusal::UsedByOther
        | RedeemRefusal::UsedLongAgo
        | RedeemRefusal::Retired
        | RedeemRefusal::KeyUsedBefore => Refusal::InstallKey,
    }
}

#[cfg(test)]
mod tests {
    use protocol::{
        exchange::{sign_request, verify_request},
        id::HostId,
        install_key::InstallKey,
        key::Secret,
    };
    use zeroize::Zeroizing;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const FIRST: Incarnation = Incarnation {
        number: 1,
        id: [1; 16],
        first: 0,
        began: UnixMillis(0),
        restored: None,
    };
    /// An hour's token, and three days.
    const AWAY_MAX: Duration = Duration::from_secs(73 * 3600);
    const TERMS: Terms<'_> = Terms {
        away_max: AWAY_MAX,
        incarnation: &FIRST,
    };

    fn key(byte: u8) -> Secret<Host> {
        Secret::from_seed(&Zeroizing::new([byte; 32]))
    }

    fn edge() -> HostId {
        HostId::new("edge-1").unwrap()
    }

    /// Keys 1, 2, 3 of generations 1, 2, 3, the last since `NOW`.
    fn history() -> Vec<HostKey> {
        (1..=3)
            .map(|byte| HostKey {
                generation: byte.into(),
                key: key(byte).public(),
                since: NOW,
                how: Since::Granted,
            })
            .collect()
    }

    fn succession(host: &HostId, signer: u8, generation: u64, next: u8) -> Vec<u8> {
        let succession = Succession {
            host: host.clone(),
            generation,
            key: key(next).public(),
            time: NOW,
        };
        signed::sign(&key(signer), &succession, b"")
    }

    fn request(new: u8, generation: u64, proof: Proof) -> Verified<Request, Host> {
        let request = Request {
            nonce: [0; 32].into(),
            host: edge(),
            key: key(new).public(),
            generation,
            proof,
            witness: None,
        };
        verify_request(&sign_request(&key(new), &request)).unwrap()
    }

    fn renewal(new: u8, generation: u64, succession: Vec<u8>) -> Verified<Request, Host> {
        request(new, generation, Proof::HostKey(ByteBuf::from(succession)))
    }

    fn decide_at(
        request: &Verified<Request, Host>,
        state: HostState,
        now: UnixMillis,
    ) -> Result<(), Refuse> {
        let keys = history();
        match decide(
            request,
            Ok(()),
            Some(Known { state, keys: &keys }),
            TERMS,
            now,
        ) {
            Decision::Renew { .. } => Ok(()),
            Decision::Refuse(refuse) => Err(refuse),
            Decision::Redeem { .. }
            | Decision::CatchUp(_)
            | Decision::Lock { .. }
            | Decision::Behind { .. } => panic!("this is a renewal"),
        }
    }

    #[test]
    fn in_every_small_world_a_renewal_goes_on_only_with_the_signature_of_the_key_before() {
        for signer in 1..=5_u8 {
            for claimed in 0..=6_u64 {
                for named in 1..=6_u64 {
                    for new in [3, 4, 5] {
                        let request =
                            renewal(new, claimed, succession(&edge(), signer, named, new));
                        let decided = decide_at(&request, HostState::Enrolled, NOW);
                        let expected = if claimed <= 1 {
                            Err(Refuse::Generation)
                        } else if signer <= 3
                            && claimed == named
                            && claimed == u64::from(signer) + 1
                        {
                            Ok(())
                        } else {
                            Err(Refuse::Succession)
                        };
                        assert_eq!(
                            decided, expected,
                            "{signer} signs {named} for {new}, claimed as {claimed}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_succession_for_another_host_or_key_is_refused() {
        let other = HostId::new("edge-2").unwrap();
        for bad in [
            succession(&other, 3, 4, 4),
            succession(&edge(), 3, 4, 5),
            vec![],
            vec![0; 600],
        ] {
            let decided = decide_at(&renewal(4, 4, bad), HostState::Enrolled, NOW);
            assert_eq!(decided, Err(Refuse::Succession));
        }
    }

    #[test]
    fn the_state_of_a_host_is_told_to_holders_of_its_keys_only() {
        let good = renewal(4, 4, succession(&edge(), 3, 4, 4));
        let stranger = renewal(4, 4, succession(&edge(), 9, 4, 4));
        for (state, expected) in [
            (HostState::New, Err(Refuse::Unknown)),
            (HostState::Enrolled, Ok(())),
            (HostState::Locked, Err(Refuse::Locked)),
            (HostState::Revoked, Err(Refuse::Revoked)),
        ] {
            assert_eq!(decide_at(&good, state, NOW), expected);
            assert_eq!(decide_at(&stranger, state, NOW), Err(Refuse::Succession));
        }
        for host in [
            None,
            Some(Known {
                state: HostState::New,
                keys: &[],
            }),
        ] {
            assert_eq!(
                decide(&good, Ok(()), host, TERMS, NOW),
                Decision::Refuse(Refuse::Unknown)
            );
        }
    }

    #[test]
    fn a_host_comes_back_within_the_window_and_not_after_it() {
        let next = renewal(4, 4, succession(&edge(), 3, 4, 4));
        let repeat = renewal(3, 3, succession(&edge(), 2, 3, 3));
        let behind = renewal(5, 2, succession(&edge(), 1, 2, 5));
        let end = NOW.plus(AWAY_MAX);
        let after = UnixMillis(end.0 + 1);
        for request in [&next, &repeat, &behind] {
            assert_eq!(decide_at(request, HostState::Enrolled, end), Ok(()));
        }
        assert_eq!(
            decide_at(&next, HostState::Enrolled, after),
            Err(Refuse::TooLate)
        );
        assert_eq!(
            decide_at(&repeat, HostState::Enrolled, after),
            Err(Refuse::TooLate)
        );
        assert_eq!(
            decide_at(&behind, HostState::Enrolled, after),
            Ok(()),
            "a clone is found out, however late"
        );
    }

    #[test]
    fn an_install_key_goes_to_the_store_hashed_and_for_the_first_generation_only() {
        let install = InstallKey::new([5; 8], Zeroizing::new([6; 32]));
        let proof = || Proof::InstallKey((&install).into());
        let redeem = Decision::Redeem {
            kid: [5; 8],
            secret_sha256: install.secret().hash(),
        };
        for generation in 0..4 {
            let decided = decide(&request(1, generation, proof()), Ok(()), None, TERMS, NOW);
            let expected = if generation == 1 {
                redeem.clone()
            } else {
                Decision::Refuse(Refuse::Generation)
            };
            assert_eq!(decided, expected, "{generation}");
        }
    }

    #[test]
    fn without_a_good_nonce_nothing_else_is_looked_at() {
        let keys = history();
        let known = Some(Known {
            state: HostState::Enrolled,
            keys: &keys,
        });
        let good = renewal(4, 4, succession(&edge(), 3, 4, 4));
        for bad in [BadNonce::Foreign, BadNonce::Stale] {
            let decided = decide(&good, Err(bad), known, TERMS, NOW);
            assert_eq!(decided, Decision::Refuse(Refuse::Nonce(bad)));
            assert_eq!(
                Refuse::Nonce(bad).refusal(),
                Refusal::Malformed,
                "ask for a new challenge"
            );
        }
    }
}
