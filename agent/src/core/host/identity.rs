//! Who this host is: its keys, its generation, its token. What is persisted, and what is signed with it, as values.
//!
//! The order that keeps a host from being lost: a new key is *pending* on disk before anyone hears of it, the same pending key and
//! the same succession are sent again until an answer comes, and only a grant makes it the current one.

use std::fmt;

use protocol::exchange::{self, Proof, Request, Succession, Witnessing};
use protocol::id::HostId;
use protocol::install_key::InstallKey;
use protocol::key::{Host, Public, Secret};
use protocol::signed;
use protocol::time::UnixMillis;
use protocol::token;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::core::chain::{Link, shown};
use crate::core::time::Fix;
use crate::core::witness::Witness;

/// The current key, its generation, and the token that names it.
pub struct Current {
    /// The host's key.
    pub key: Secret<Host>,
    /// Its generation, from 1.
    pub generation: u64,
    /// The last token granted for it.
    pub token: Vec<u8>,
}

/// A key that the broker may or may not have heard of.
pub struct Pending {
    /// The key.
    pub key: Secret<Host>,
    /// The generation it asks for.
    pub generation: u64,
    /// The current key's word for it; none at enrolment.
    pub succession: Option<Vec<u8>>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Current(generation {})", self.generation)
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending(generation {})", self.generation)
    }
}

/// Everything that makes this host this host.
pub struct Identity {
    /// Its id, from the bundle.
    pub host: HostId,
    /// The key it enrolled with: the anchor by which anybody verifies what it ever signed. None until enrolled.
    pub first: Option<Public<Host>>,
    /// None until enrolled.
    pub current: Option<Current>,
    /// A key on its way.
    pub pending: Option<Pending>,
    /// When the broker last told the time.
    pub fix: Option<Fix>,
}

/// Why a grant was not adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// No key is pending: the grant answers nothing we asked.
    #[error("no key is pending")]
    NothingPending,
    /// The grant is for another generation, key or host than the pending one: the broker misbehaves.
    #[error("the grant is not for the key that was sent")]
    Other,
}

impl Identity {
    /// A host that is not enrolled yet.
    #[must_use]
    pub fn new(host: HostId) -> Self {
        Self {
            host,
            first: None,
            current: None,
            pending: None,
            fix: None,
        }
    }

    /// The generation of the current key; 0 before enrolment.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current
            .as_ref()
            .map_or(0, |current| current.generation)
    }

    /// Makes a pending key of `seed`, unless one is pending already: that one is sent again. True if there is something to persist.
    pub fn prepare(&mut self, seed: &Zeroizing<[u8; 32]>, now: UnixMillis) -> bool {
        if self.pending.is_some() {
            return false;
        }
        let key = Secret::from_seed(seed);
        let generation = self.generation().saturating_add(1);
        let succession = self.current.as_ref().map(|current| {
            let succession = Succession {
                host: self.host.clone(),
                generation,
                key: key.public(),
                time: now,
            };
            signed::sign(&current.key, &succession, b"")
        });
        self.pending = Some(Pending {
            key,
            generation,
            succession,
        });
        true
    }

    /// The signed request for a token: with the install key before enrolment, with the succession ever after; or, where `chain` is what
    /// was kept of the successions before, with these and with as much of the way to the pending key as fits. Nothing if no key is
    /// pending, or if this is an enrolment and there is no install key. It shows what `witness` kept, cosigned at `now`.
    #[must_use]
    pub fn request(
        &self,
        nonce: [u8; 32],
        install_key: Option<&InstallKey>,
        chain: Option<Vec<Link>>,
        witness: &Witness,
        now: UnixMillis,
    ) -> Option<Vec<u8>> {
        let pending = self.pending.as_ref()?;
        let proof = match (&pending.succession, chain) {
            (Some(succession), None) => Proof::HostKey(succession.clone().into()),
            (Some(succession), Some(chain)) => {
                let last = Link {
                    generation: pending.generation,
                    succession: succession.clone().into(),
                };
                // Behind what was kept; alone, if nothing was.
                let links = shown(chain.into_iter().chain([last]), None);
                Proof::HostKeys(links.into_iter().map(|link| link.succession).collect())
            }
            (None, _) => {
                let install_key = install_key?;
                Proof::InstallKey(install_key.into())
            }
        };
        let request = Request {
            nonce: nonce.into(),
            host: self.host.clone(),
            key: pending.key.public(),
            generation: pending.generation,
            proof,
            witness: Some(Witnessing {
                note: witness.cosigned(&self.host, &pending.key, now),
            }),
        };
        Some(exchange::sign_request(&pending.key, &request))
    }

    /// The succession to the pending key: to be kept before the key is adopted.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        let pending = self.pending.as_ref()?;
        Some(Link {
            generation: pending.generation,
            succession: pending.succession.clone()?.into(),
        })
    }

    /// Puts the pending key in the place of the current one, under `token`.
    ///
    /// # Errors
    /// [`AdoptError`]; nothing changes then.
    pub fn adopt(&mut self, token: Vec<u8>, generation: u64) -> Result<(), AdoptError> {
        let pending = self.pending.as_ref().ok_or(AdoptError::NothingPending)?;
        let claims = token::peek(&token).map_err(|_| AdoptError::Other)?;
        // Whoever enrols in the place of an earlier machine is of a later generation than it could know.
        let is_expected =
            generation == pending.generation || (pending.succession.is_none() && generation > 0);
        let is_ours = is_expected
            && claims.generation == Some(generation)
            && claims.subject == self.host.as_str()
            && *claims.confirmation.key.x == *pending.key.public().as_bytes();
        if !is_ours {
            return Err(AdoptError::Other);
        }
        if let Some(Pending { key, .. }) = self.pending.take() {
            self.first.get_or_insert_with(|| key.public());
            self.current = Some(Current {
                key,
                generation,
                token,
            });
        }
        Ok(())
    }

    /// The life of the current token.
    #[must_use]
    pub fn token_life(&self) -> Option<(UnixMillis, UnixMillis)> {
        life_of(&self.current.as_ref()?.token)
    }

    /// The current public key.
    #[must_use]
    pub fn public(&self) -> Option<Public<Host>> {
        Some(self.current.as_ref()?.key.public())
    }

    /// What is written to disk. The bytes are secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let stored = Stored {
            version: VERSION,
            host: self.host.clone(),
            first: self.first,
            current: self.current.as_ref().map(|current| StoredCurrent {
                key: current.key.to_file_text().to_string(),
                generation: current.generation,
                token: current.token.clone(),
            }),
            pending: self.pending.as_ref().map(|pending| StoredPending {
                key: pending.key.to_file_text().to_string(),
                generation: pending.generation,
                succession: pending.succession.clone(),
            }),
            fix: self.fix.clone(),
        };
        Zeroizing::new(protocol::cbor::to_vec(&stored))
    }

    /// Reads what [`Identity::to_bytes`] wrote; nothing if it is anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = protocol::cbor::from_slice(bytes, BYTES_MAX).ok()?;
        if stored.version != VERSION {
            return None;
        }
        let current = match stored.current.as_ref() {
            None => None,
            Some(current) => Some(Current {
                key: Secret::from_file_text(&current.key).ok()?,
                generation: current.generation,
                token: current.token.clone(),
            }),
        };
        let pending = match stored.pending.as_ref() {
            None => None,
            Some(pending) => Some(Pending {
                key: Secret::from_file_text(&pending.key).ok()?,
                generation: pending.generation,
                succession: pending.succession.clone(),
            }),
        };
        Some(Self {
            host: stored.host,
            first: stored.first,
            current,
            pending,
            fix: stored.fix,
        })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("host", &self.host)
            .field("generation", &self.generation())
            .finish_non_exhaustive()
    }
}

/// When a token was issued and when it ends, unproven.
#[must_use]
pub fn life_of(token: &[u8]) -> Option<(UnixMillis, UnixMillis)> {
    let claims = token::peek(token).ok()?;
    let millis = |seconds: u64| UnixMillis(seconds.saturating_mul(1000));
    Some((millis(claims.issued_s), millis(claims.expires_s)))
}

/// The version of the identity file.
const VERSION: u64 = 1;

/// The longest identity file, in bytes: two keys, a token, a succession, and room.
const BYTES_MAX: usize = 16 * 1024;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u64,
    host: HostId,
    first: Option<Public<Host>>,
    current: Option<StoredCurrent>,
    pending: Option<StoredPending>,
    fix: Option<Fix>,
}

#[derive(Serialize, Deserialize)]
struct StoredCurrent {
    key: String,
    generation: u64,
    #[serde(with = "serde_bytes")]
    token: Vec<u8>,
}

impl Drop for StoredCurrent {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

#[derive(Serialize, Deserialize)]
struct StoredPending {
    key: String,
    generation: u64,
    #[serde(with = "serde_bytes")]
    succession: Option<Vec<u8>>,
}

impl Drop for StoredPending {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.key);
    }
}

#[cfg(test)]
mod tests {
    use protocol::audit::{Checkpoint, SignedCheckpoint, Vkey};
    use protocol::exchange::{follow, verify_request};
    use protocol::key::{Audit, Issuer};
    use protocol::limits::ID_BYTES_MAX;
    use protocol::token::{HostTerms, mint_host};

    use super::*;
    use crate::core::witness::Kept;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn seed(byte: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([byte; 32])
    }

    fn install_key() -> InstallKey {
        InstallKey::new([1; 8], seed(9))
    }

    fn grant(identity: &Identity) -> Vec<u8> {
        let pending = identity.pending.as_ref().unwrap();
        mint_host(
            &Secret::<Issuer>::from_seed(&seed(0xee)),
            &HostTerms {
                audience: "broker",
                host: &identity.host,
                key: pending.key.public(),
                generation: pending.generation,
                id: [1; 8],
                issued: NOW,
                life_s: 3600,
            },
        )
    }

    fn enrolled() -> Identity {
        enrolled_as("edge-1")
    }

    fn enrolled_as(name: &str) -> Identity {
        let mut identity = Identity::new(HostId::new(name).unwrap());
        assert!(identity.prepare(&seed(1), NOW));
        let token = grant(&identity);
        identity.adopt(token, 1).unwrap();
        identity
    }

    #[test]
    fn a_host_enrols_with_its_install_key_and_renews_with_its_last_key() {
        let mut identity = Identity::new(HostId::new("edge-1").unwrap());
        assert!(
            identity
                .request(
                    [0; 32],
                    Some(&install_key()),
                    None,
                    &Witness::default(),
                    NOW
                )
                .is_none(),
            "nothing pending"
        );
        identity.prepare(&seed(1), NOW);
        assert!(
            identity
                .request([0; 32], None, None, &Witness::default(), NOW)
                .is_none(),
            "no install key"
        );
        let request = identity
            .request(
                [0; 32],
                Some(&install_key()),
                None,
                &Witness::default(),
                NOW,
            )
            .unwrap();
        let request = verify_request(&request).unwrap().into_value();
        assert_eq!(request.generation, 1);
        assert!(matches!(request.proof, Proof::InstallKey(_)));

        let mut identity = enrolled();
        let first = identity.public().unwrap();
        identity.prepare(&seed(2), NOW);
        let request = identity
            .request(
                [0; 32],
                Some(&install_key()),
                None,
                &Witness::default(),
                NOW,
            )
            .unwrap();
        let request = verify_request(&request).unwrap().into_value();
        let Proof::HostKey(succession) = request.proof else {
            panic!("renewal is by succession")
        };
        let keys = follow(&identity.host, first, 1, [succession.as_slice()]).unwrap();
        assert_eq!(keys.last(), Some(&(2, request.key)));
    }

    #[test]
    fn a_host_that_takes_the_place_of_another_machine_adopts_the_generation_it_is_given() {
        let mut identity = Identity::new(HostId::new("edge-1").unwrap());
        identity.prepare(&seed(1), NOW);
        identity.pending.as_mut().unwrap().generation = 4;
        let token = grant(&identity);
        identity.pending.as_mut().unwrap().generation = 1;
        assert_eq!(identity.adopt(token.clone(), 3), Err(AdoptError::Other));
        identity.adopt(token, 4).unwrap();
        assert_eq!(identity.generation(), 4);
        identity.prepare(&seed(2), NOW);
        assert_eq!(identity.link().unwrap().generation, 5);
        // At a renewal there is nothing to choose.
        identity.pending.as_mut().unwrap().generation = 6;
        let token = grant(&identity);
        identity.pending.as_mut().unwrap().generation = 5;
        assert_eq!(identity.adopt(token, 6), Err(AdoptError::Other));
    }

    /// One whose checkpoint is as long as any: the longest name, and an audit key that was just followed by another.
    fn wordy_witness() -> Witness {
        let origin = "o".repeat(ID_BYTES_MAX);
        let keys = [1, 2].map(|byte| Secret::<Audit>::from_seed(&seed(byte)));
        let checkpoint = Checkpoint::new(&origin, u64::MAX, [7; 32]).unwrap();
        Witness {
            kept: Some(Kept {
                at: NOW,
                vkey: Vkey::new(&origin, keys[1].public()).unwrap(),
                note: SignedCheckpoint::sign(checkpoint, &[&keys[0], &keys[1]]),
            }),
            stop: None,
        }
    }

    #[test]
    fn a_chain_is_shown_as_far_as_it_fits_beside_the_checkpoint_and_leads_to_the_pending_key() {
        let witness = wordy_witness();
        let mut identity = enrolled_as(&"h".repeat(ID_BYTES_MAX));
        let mut kept = Vec::new();
        for byte in 2..=60 {
            identity.prepare(&seed(byte), NOW);
            kept.extend(identity.link());
            let token = grant(&identity);
            identity.adopt(token, u64::from(byte)).unwrap();
        }
        identity.prepare(&seed(61), NOW);
        let known = |at: usize| seeded_public(u8::try_from(at).unwrap());
        for from in [1_usize, 30, 37, 38, 59, 60] {
            let chain = kept[from - 1..].to_vec();
            let request = identity
                .request([0; 32], None, Some(chain), &witness, NOW)
                .unwrap();
            assert!(request.len() <= protocol::limits::EXCHANGE_BYTES_MAX);
            let request = verify_request(&request).unwrap().into_value();
            assert!(request.witness.unwrap().note.is_some());
            let Proof::HostKeys(links) = request.proof else {
                panic!("a chain is shown")
            };
            let first = u64::try_from(from).unwrap();
            let links = links.iter().map(|link| link.as_slice());
            let keys = follow(&identity.host, known(from), first, links).unwrap();
            let reached = keys.last().unwrap();
            assert_eq!(reached.0, 61.min(first + 24));
            assert_eq!(reached.1 == request.key, reached.0 == 61);
        }
    }

    fn seeded_public(byte: u8) -> Public<Host> {
        Secret::<Host>::from_seed(&seed(byte)).public()
    }

    #[test]
    fn the_same_pending_key_is_sent_again_after_a_restart() {
        let mut identity = enrolled();
        identity.prepare(&seed(2), NOW);
        let first = identity
            .request([0; 32], None, None, &Witness::default(), NOW)
            .unwrap();
        let mut restarted = Identity::from_bytes(&identity.to_bytes()).unwrap();
        assert!(
            !restarted.prepare(&seed(3), UnixMillis(NOW.0 + 99)),
            "nothing new to persist"
        );
        assert_eq!(
            restarted
                .request([0; 32], None, None, &Witness::default(), NOW)
                .unwrap(),
            first
        );
    }

    #[test]
    fn only_a_grant_for_the_pending_key_is_adopted() {
        let mut identity = enrolled();
        let old_token = identity.current.as_ref().unwrap().token.clone();
        assert_eq!(
            identity.adopt(old_token.clone(), 1),
            Err(AdoptError::NothingPending)
        );
        identity.prepare(&seed(2), NOW);
        let token = grant(&identity);
        assert_eq!(
            identity.adopt(old_token, 2),
            Err(AdoptError::Other),
            "the last key's"
        );
        assert_eq!(
            identity.adopt(token.clone(), 3),
            Err(AdoptError::Other),
            "another generation"
        );
        assert_eq!(identity.adopt(vec![1, 2, 3], 2), Err(AdoptError::Other));
        assert_eq!(identity.generation(), 1);
        let first = identity.public();
        identity.adopt(token, 2).unwrap();
        assert_eq!(identity.generation(), 2);
        assert_eq!(identity.first, first, "the anchor stays");
        assert!(identity.pending.is_none());
    }

    #[test]
    fn an_identity_round_trips_and_does_not_print_its_keys() {
        let mut identity = enrolled();
        identity.prepare(&seed(2), NOW);
        identity.fix = Some(Fix {
            server: NOW,
            boot_ms: 5,
            boot_id: "b".into(),
        });
        let bytes = identity.to_bytes();
        let read = Identity::from_bytes(&bytes).unwrap();
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(
            read.token_life(),
            Some((NOW, UnixMillis(NOW.0 + 3_600_000)))
        );
        assert!(Identity::from_bytes(&bytes[1..]).is_none());
        assert!(!format!("{identity:?}").contains("secret"));
    }
}
