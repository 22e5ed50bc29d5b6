//! Who a host is, and who only says so: redeeming install keys and renewing host keys.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A host's generation after its first enrolment. Zero is a host that has never enrolled.
pub const FIRST_GENERATION: u64 = 1;

/// Where a host's life stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostState {
    /// Added, and its operator has not come yet.
    New,
    /// Has a key.
    Enrolled,
    /// Two machines said they were this host; nobody is until a person decides.
    Locked,
    /// Gone for good. Its name is never used again.
    Revoked,
}

/// Where an install key's life stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstallKeyState {
    /// Can be redeemed.
    New,
    /// Was redeemed.
    Used,
    /// Can no longer be redeemed: a newer one was made, or the host was revoked.
    Retired,
}

/// What the store knows about a host's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Where its life stands.
    pub state: HostState,
    /// Counts its keys, from [`FIRST_GENERATION`].
    pub generation: u64,
    /// The key it has now, if it ever enrolled.
    pub public_key: Option<[u8; 32]>,
    /// Its keys up to this generation were revoked; zero is none.
    pub void_generation: u64,
}

impl Identity {
    /// Whether the key of this generation was revoked: nothing that rests on it counts.
    #[must_use]
    pub const fn is_void(&self, generation: u64) -> bool {
        generation <= self.void_generation
    }
}

/// What to do with a host that presents a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is the next key: record it.
    Advance,
    /// It is the key it has: give the same answer again.
    Repeat,
    /// Two machines hold this host's keys: lock it.
    Clone(CloneSign),
    /// No, and nothing changes.
    Refuse(RenewRefusal),
}

/// How a clone gave itself away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneSign {
    /// Two new keys for one generation: both machines renewed from the same state.
    OtherKey,
    /// A machine that was left behind, or an old backup.
    OldGeneration,
}

/// Why a host's renewal is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewRefusal {
    /// No host has this name.
    Unknown,
    /// It never enrolled.
    NotEnrolled,
    /// It is locked, until a person unlocks it.
    Locked,
    /// It is revoked.
    Revoked,
    /// It skipped a generation: this store is older than the host (a restored backup), or it lies.
    Ahead,
    /// The new key is not new.
    KeyUsedBefore,
    /// That generation was revoked, or the one before it that signed for it.
    Void,
    /// A request of long ago that was held up on its way: this very key was recorded, and so was the next one.
    Late,
}

/// What is on record of the key and the generation that a host presents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nobody ever had this key.
    Never,
    /// It was a host's: this one's in another generation, or another one's.
    Elsewhere,
    /// It is this host's key of this very generation. `next_ms`: when the generation after it was recorded, in milliseconds since 1970.
    Here {
        /// None: it is the newest.
        next_ms: Option<u64>,
    },
}

/// Judge a host's renewal.
///
/// The caller has verified the host's proof: the request is fresh and signed by a key this host once had, so a stranger
/// cannot have a host locked. `asked_ms` is when the challenge was given that the request answers, in milliseconds since 1970.
///
/// An older generation is a clone's, with one exception: a request for a key that is on record, which answers a challenge from
/// before the next key was, may be the host's own and have been held up on its way. It gets nothing, and locks nobody: a clone
/// that was taken for one asks again, answers a new challenge then, and is found out.
#[must_use]
pub fn judge_renewal(
    identity: &Identity,
    generation: u64,
    public_key: &[u8; 32],
    seen: Seen,
    asked_ms: u64,
) -> Renewal {
    match identity.state {
        HostState::New => return Renewal::Refuse(RenewRefusal::NotEnrolled),
        HostState::Locked => return Renewal::Refuse(RenewRefusal::Locked),
        HostState::Revoked => return Renewal::Refuse(RenewRefusal::Revoked),
        HostState::Enrolled => {}
    }
    let Some(current) = identity.public_key else {
        debug_assert!(false, "an enrolled host has a key");
        return Renewal::Refuse(RenewRefusal::NotEnrolled);
    };
    // Before anything a clone could be known by: whoever has a revoked key shall not have its host locked with it.
    let is_current = generation == identity.generation && *public_key == current;
    let is_signer_void = identity.is_void(generation.saturating_sub(1)) && !is_current;
    if identity.void_generation > 0 && (identity.is_void(generation) || is_signer_void) {
        return Renewal::Refuse(RenewRefusal::Void);
    }
    if generation < identity.generation {
        return match seen {
            Seen::Here {
                next_ms: Some(next_ms),
            } if asked_ms <= next_ms => Renewal::Refuse(RenewRefusal::Late),
            Seen::Here { .. } | Seen::Elsewhere | Seen::Never => {
                Renewal::Clone(CloneSign::OldGeneration)
            }
        };
    }
    if generation == identity.generation {
        return if *public_key == current {
            Renewal::Repeat
        } else {
            Renewal::Clone(CloneSign::OtherKey)
        };
    }
    if identity.generation.checked_add(1) != Some(generation) {
        return Renewal::Refuse(RenewRefusal::Ahead);
    }
    if *public_key == current || seen != Seen::Never {
        return Renewal::Refuse(RenewRefusal::KeyUsedBefore);
    }
    Renewal::Advance
}

/// What the store knows about an install key and its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallKeyFacts {
    /// Where its life stands.
    pub state: InstallKeyState,
    /// When it ends unused, milliseconds since 1970.
    pub expires_ms: u64,
    /// The key it was redeemed for, and until when that key gets its grant again, in milliseconds since 1970: as long as a host may
    /// be away.
    pub used: Option<([u8; 32], u64)>,
    /// Whether any host ever had the public key that is presented now.
    pub public_key_known: bool,
    /// The host it is for.
    pub host: Identity,
}

/// What to do with someone who presents an install key's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// Enrol the host with this public key.
    Enrol,
    /// It was, for this key, and the host has no other since: give the same answer again. The first one may have been lost on its
    /// way, and who holds the key could renew with it as well.
    Repeat,
    /// No.
    Refuse(RedeemRefusal),
}

/// Why an install key is refused. Peers are told none of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedeemRefusal {
    /// No such key, or not its secret.
    Unknown,
    /// Its time is over.
    Expired,
    /// Redeemed already, by someone else: somebody has a key that was meant for one machine.
    UsedByOther,
    /// Redeemed already, by the same key, too long ago or since renewed.
    UsedLongAgo,
    /// A newer one was made.
    Retired,
    /// The public key is not new: a key belongs to one host and one generation.
    KeyUsedBefore,
    /// The host is locked.
    HostLocked,
    /// The host is revoked.
    HostRevoked,
}

/// Judge who presents an install key with the right secret.
#[must_use]
pub fn judge_redemption(key: &InstallKeyFacts, public_key: &[u8; 32], now_ms: u64) -> Redemption {
    match key.host.state {
        HostState::Locked => return Redemption::Refuse(RedeemRefusal::HostLocked),
        HostState::Revoked => return Redemption::Refuse(RedeemRefusal::HostRevoked),
        HostState::New | HostState::Enrolled => {}
    }
    match (key.state, key.used) {
        (InstallKeyState::New, _) if key.expires_ms <= now_ms => {
            Redemption::Refuse(RedeemRefusal::Expired)
        }
        (InstallKeyState::New, _) if key.public_key_known => {
            Redemption::Refuse(RedeemRefusal::KeyUsedBefore)
        }
        (InstallKeyState::New, _) => Redemption::Enrol,
        (InstallKeyState::Retired, _) => Redemption::Refuse(RedeemRefusal::Retired),
        (InstallKeyState::Used, Some((bound, until_ms))) if bound == *public_key => {
            let is_its_key =
                key.host.public_key == Some(bound) && !key.host.is_void(key.host.generation);
            if now_ms <= until_ms && is_its_key {
                Redemption::Repeat
            } else {
                Redemption::Refuse(RedeemRefusal::UsedLongAgo)
            }
        }
        (InstallKeyState::Used, _) => Redemption::Refuse(RedeemRefusal::UsedByOther),
    }
}

/// Is the presented secret's hash the stored one? In a time that does not tell how much of it is right.
#[must_use]
pub fn secret_matches(stored: &[u8; 32], presented: &[u8; 32]) -> bool {
    stored.ct_eq(presented).into()
}

/// What the audit trail calls an install key: 8 bytes of a hash over its stored hash, as hexadecimal digits. It shows that
/// two rows are about one key, and nothing of the key.
#[must_use]
pub fn fingerprint(secret_sha256: &[u8; 32]) -> String {
    Sha256::digest(secret_sha256)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [HostState; 4] = [
        HostState::New,
        HostState::Enrolled,
        HostState::Locked,
        HostState::Revoked,
    ];
    const KEYS: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];
    /// What is on record of the presented key, and when its challenge was given; the next key came at 100.
    const SEEN: [(Seen, u64); 7] = [
        (Seen::Never, 0),
        (Seen::Elsewhere, 0),
        (Seen::Elsewhere, 101),
        (Seen::Here { next_ms: None }, 0),
        (Seen::Here { next_ms: Some(100) }, 99),
        (Seen::Here { next_ms: Some(100) }, 100),
        (Seen::Here { next_ms: Some(100) }, 101),
    ];

    #[test]
    fn in_every_small_world_only_the_next_generation_with_a_new_key_advances() {
        for state in STATES {
            for current in 1..4_u64 {
                for generation in 0..6_u64 {
                    for key in KEYS {
                        for (seen, asked_ms) in SEEN {
                            let used_before = seen != Seen::Never;
                            let is_late = matches!(seen, Seen::Here { next_ms: Some(next_ms) } if asked_ms <= next_ms);
                            let identity = Identity {
                                state,
                                generation: current,
                                public_key: Some(KEYS[0]),
                                void_generation: 0,
                            };
                            let expected = match state {
                                HostState::New => Renewal::Refuse(RenewRefusal::NotEnrolled),
                                HostState::Locked => Renewal::Refuse(RenewRefusal::Locked),
                                HostState::Revoked => Renewal::Refuse(RenewRefusal::Revoked),
                                HostState::Enrolled => match generation.cmp(&current) {
                                    std::cmp::Ordering::Less if is_late => {
                                        Renewal::Refuse(RenewRefusal::Late)
                                    }
                                    std::cmp::Ordering::Less => {
                                        Renewal::Clone(CloneSign::OldGeneration)
                                    }
                                    std::cmp::Ordering::Equal if key == KEYS[0] => Renewal::Repeat,
                                    std::cmp::Ordering::Equal => {
                                        Renewal::Clone(CloneSign::OtherKey)
                                    }
                                    std::cmp::Ordering::Greater if generation > current + 1 => {
                                        Renewal::Refuse(RenewRefusal::Ahead)
                                    }
                                    std::cmp::Ordering::Greater
                                        if key == KEYS[0] || used_before =>
                                    {
                                        Renewal::Refuse(RenewRefusal::KeyUsedBefore)
                                    }
                                    std::cmp::Ordering::Greater => Renewal::Advance,
                                },
                            };
                            let judged = judge_renewal(&identity, generation, &key, seen, asked_ms);
                            assert_eq!(
                                judged, expected,
                                "{identity:?} {generation} {key:?} {seen:?} {asked_ms}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_host_renewed_from_two_machines_is_found_out_whoever_comes_first() {
        // Both hold generation 1; each makes its own key for generation 2.
        for (first, second) in [(KEYS[1], KEYS[2]), (KEYS[2], KEYS[1])] {
            let before = Identity {
                state: HostState::Enrolled,
                generation: 1,
                public_key: Some(KEYS[0]),
                void_generation: 0,
            };
            assert_eq!(
                judge_renewal(&before, 2, &first, Seen::Never, 5),
                Renewal::Advance
            );
            let after = Identity {
                generation: 2,
                public_key: Some(first),
                ..before
            };
            let newest = Seen::Here { next_ms: None };
            assert_eq!(judge_renewal(&after, 2, &first, newest, 5), Renewal::Repeat);
            assert_eq!(
                judge_renewal(&after, 2, &second, Seen::Never, 5),
                Renewal::Clone(CloneSign::OtherKey)
            );
        }
    }

    #[test]
    fn a_request_that_was_held_up_locks_nobody_and_gets_nothing_while_a_clone_that_asks_anew_is_found_out()
     {
        let host = Identity {
            state: HostState::Enrolled,
            generation: 3,
            public_key: Some(KEYS[2]),
            void_generation: 0,
        };
        // The key of generation 2 is on record, and generation 3 came at 100.
        let seen = Seen::Here { next_ms: Some(100) };
        assert_eq!(
            judge_renewal(&host, 2, &KEYS[1], seen, 100),
            Renewal::Refuse(RenewRefusal::Late)
        );
        assert_eq!(
            judge_renewal(&host, 2, &KEYS[1], seen, 101),
            Renewal::Clone(CloneSign::OldGeneration)
        );
        for seen in [Seen::Never, Seen::Elsewhere] {
            assert_eq!(
                judge_renewal(&host, 2, &KEYS[0], seen, 1),
                Renewal::Clone(CloneSign::OldGeneration),
                "a key that no machine of ours ever sent for it"
            );
        }
    }

    #[test]
    fn in_every_small_world_only_a_new_unexpired_key_of_a_host_in_use_enrols() {
        const AGAIN_MS: u64 = 900;
        let uses = [None, Some((KEYS[0], AGAIN_MS)), Some((KEYS[1], AGAIN_MS))];
        let times = [50, 100, 101, AGAIN_MS, AGAIN_MS + 1];
        for state in [
            InstallKeyState::New,
            InstallKeyState::Used,
            InstallKeyState::Retired,
        ] {
            for (host_state, used) in STATES
                .into_iter()
                .flat_map(|state| uses.map(|used| (state, used)))
            {
                for (now_ms, host_key) in times
                    .into_iter()
                    .flat_map(|now| [None, Some(KEYS[0])].map(|key| (now, key)))
                {
                    let host = Identity {
                        state: host_state,
                        generation: 1,
                        public_key: host_key,
                        void_generation: 0,
                    };
                    let public_key_known = host_key.is_some();
                    let facts = InstallKeyFacts {
                        state,
                        expires_ms: 101,
                        used,
                        public_key_known,
                        host,
                    };
                    let judged = judge_redemption(&facts, &KEYS[0], now_ms);
                    let in_use = matches!(host_state, HostState::New | HostState::Enrolled);
                    let enrols = in_use
                        && state == InstallKeyState::New
                        && now_ms < 101
                        && !public_key_known;
                    let repeats = in_use
                        && state == InstallKeyState::Used
                        && used == Some((KEYS[0], AGAIN_MS))
                        && host_key == Some(KEYS[0])
                        && now_ms <= AGAIN_MS;
                    assert_eq!(judged == Redemption::Enrol, enrols, "{facts:?} at {now_ms}");
                    assert_eq!(
                        judged == Redemption::Repeat,
                        repeats,
                        "{facts:?} at {now_ms}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_used_install_key_is_refused_to_another_public_key_and_that_is_told_apart() {
        let host = Identity {
            state: HostState::Enrolled,
            generation: 1,
            public_key: Some(KEYS[0]),
            void_generation: 0,
        };
        let facts = InstallKeyFacts {
            state: InstallKeyState::Used,
            expires_ms: 500,
            used: Some((KEYS[0], 100)),
            public_key_known: false,
            host,
        };
        assert_eq!(
            judge_redemption(&facts, &KEYS[1], 101),
            Redemption::Refuse(RedeemRefusal::UsedByOther)
        );
    }

    #[test]
    fn in_every_small_world_a_revoked_generation_neither_renews_nor_locks_and_the_next_install_key_counts()
     {
        for void in 0..4_u64 {
            let host = Identity {
                state: HostState::Enrolled,
                generation: 2,
                public_key: Some(KEYS[1]),
                void_generation: void,
            };
            for generation in 1..5_u64 {
                for key in KEYS {
                    for (seen, asked_ms) in SEEN {
                        let judged = judge_renewal(&host, generation, &key, seen, asked_ms);
                        let is_current = generation == 2 && key == KEYS[1];
                        // Signed by the key before it.
                        let is_void = generation <= void || (generation - 1 <= void && !is_current);
                        if void > 0 && is_void {
                            assert_eq!(judged, Renewal::Refuse(RenewRefusal::Void));
                        } else {
                            assert_ne!(judged, Renewal::Refuse(RenewRefusal::Void));
                        }
                    }
                }
            }
            let facts = |state, used| InstallKeyFacts {
                state,
                expires_ms: 500,
                used,
                public_key_known: false,
                host,
            };
            let new = facts(InstallKeyState::New, None);
            assert_eq!(judge_redemption(&new, &KEYS[2], 1), Redemption::Enrol);
            let again = facts(InstallKeyState::Used, Some((KEYS[1], 500)));
            let repeats = judge_redemption(&again, &KEYS[1], 1) == Redemption::Repeat;
            assert_eq!(repeats, void < 2, "{void}");
        }
    }

    #[test]
    fn a_secret_matches_itself_alone() {
        for bit in 0..256 {
            let mut other = KEYS[0];
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!secret_matches(&KEYS[0], &other));
        }
        assert!(secret_matches(&KEYS[0], &KEYS[0]));
    }
}
