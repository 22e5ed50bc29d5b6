//! How a host gets its connection token: challenge, request, grant, over HTTPS.
//!
//! Enrolment and renewal are one exchange that differ in their proof. The request is signed by the *new* key, so that it proves
//! possession of what it asks a token for; the proof shows the right to: an install key, or the host's last key signing its
//! successor. The choice of proofs is open: later ones take new labels.

use serde_bytes::{ByteArray, ByteBuf};

use crate::{
    audit::proof::PROOF_HASHES_MAX,
    id::HostId,
    install_key::{InstallKey, InstallSecret},
    key::{Host, Public, Secret},
    limits::{
        COSIGNED_MAX, EXCHANGE_BYTES_MAX, HANDOVERS_MAX, VKEY_BYTES_MAX, WITNESS_NOTE_BYTES_MAX,
    },
    signed::{self, Message, Typ, VerifyError},
    time::UnixMillis,
};

/// Path of the challenge, by POST.
pub const CHALLENGE_PATH: &str = "/v1/exchange/challenge";
/// Path of the exchange, by POST.
pub const EXCHANGE_PATH: &str = "/v1/exchange";
/// Media type of everything in the exchange.
pub const CONTENT_TYPE: &str = "application/cbor";

int_map! {
    /// What the broker asks to have signed, and its time.
    pub open struct Challenge {
        /// Opaque to the host; good for a minute.
        1 => req nonce: ByteArray<32>,
        /// The broker's time, on which the host's `server_now` rests.
        2 => req time: UnixMillis,
    }
}

int_map! {
    /// An install key, presented.
    pub struct InstallProof {
        /// Which key.
        1 => req kid: ByteArray<8>,
        /// The key itself; it travels inside TLS to the broker that made it, once.
        2 => req secret: InstallSecret,
    }
}

impl From<&InstallKey> for InstallProof {
    fn from(key: &InstallKey) -> Self {
        Self {
            kid: key.kid.into(),
            secret: key.secret().clone(),
        }
    }
}

int_map! {
    /// The host's last key names its successor.
    pub struct Succession {
        /// Whose.
        1 => req host: HostId,
        /// The generation of the new key.
        2 => req generation: u64,
        /// The new key.
        3 => req key: Public<Host>,
        /// When, by the host's notion of the broker's time.
        4 => req time: UnixMillis,
    }
}

impl Message for Succession {
    const TYP: Typ = Typ::Text("application/vnd.outhaul.succession+cbor");
    type Signer = Host;
    const BYTES_MAX: usize = 512;
}

int_choice! {
    /// What shows the right to a token.
    pub enum Proof {
        /// First contact: the install key.
        1 => InstallKey(InstallProof),
        /// Ever after: a signed [`Succession`] by the last key.
        2 => HostKey(ByteBuf),
        /// To a broker that knows an older key than the last, having been restored from a backup: signed [`Succession`]s, in the order
        /// of their generations, at most [`SUCCESSIONS_MAX`](crate::limits::SUCCESSIONS_MAX). The last may be the one to the key that
        /// is asked for; if they do not reach that far, the answer says how far they did ([`Refused::generation`]).
        3 => HostKeys(Vec<ByteBuf>),
    }
}

int_map! {
    /// What a host shows of itself as witness of the audit trail. That it is there asks for a [`Trail`] in the answer.
    pub struct Witnessing {
        /// The checkpoint that it kept, with its cosignature by the key that signs the request: a signed note of at most
        /// [`WITNESS_NOTE_BYTES_MAX`]. None before it kept one.
        1 => opt note: String,
    }
}

int_map! {
    /// A request for a connection token.
    pub struct Request {
        /// The challenge's nonce.
        1 => req nonce: ByteArray<32>,
        /// Who asks.
        2 => req host: HostId,
        /// The key the token shall name; it signs this request.
        3 => req key: Public<Host>,
        /// The generation of that key: 1 at enrolment.
        4 => req generation: u64,
        /// The right to it.
        5 => req proof: Proof,
        /// The host is a witness of the audit trail, and what it kept of it.
        6 => opt witness: Witnessing,
    }
}

impl Message for Request {
    const TYP: Typ = Typ::Text("application/vnd.outhaul.exchange+cbor");
    type Signer = Host;
    const BYTES_MAX: usize = EXCHANGE_BYTES_MAX;
}

int_map! {
    /// A checkpoint that another host cosigned.
    pub open struct Cosigned {
        /// The checkpoint, as that host sent it: a signed note.
        1 => req note: String,
        /// That the newest checkpoint goes on from it (RFC 6962 §2.1.2); empty if it is the newest.
        2 => req proof: Vec<ByteArray<32>>,
    }
}

int_map! {
    /// One audit key gave way to the next.
    pub open struct Handover {
        /// A checkpoint that both signed.
        1 => req note: String,
        /// The next key, as a verifier's key.
        2 => req vkey: String,
    }
}

int_map! {
    /// The state of the audit trail, for a host that witnesses it. Everything in it is bounded as [`Trail::is_bounded`] says.
    pub open struct Trail {
        /// The newest checkpoint: a signed note.
        1 => req note: String,
        /// The audit key that signed it, as a verifier's key.
        2 => req vkey: String,
        /// That it goes on from the checkpoint that the request showed (RFC 6962 §2.1.2). Empty if the request showed none, or this one,
        /// or one that it does not go on from.
        3 => req proof: Vec<ByteArray<32>>,
        /// The last checkpoints that other hosts cosigned, newest first.
        4 => req others: Vec<Cosigned>,
        /// From earlier audit keys to the one that signed, the oldest first.
        5 => req handovers: Vec<Handover>,
    }
}

impl Trail {
    /// Whether nothing in it is longer than it may be.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        let note = |note: &String| note.len() <= WITNESS_NOTE_BYTES_MAX;
        let proof = |proof: &Vec<ByteArray<32>>| proof.len() <= PROOF_HASHES_MAX;
        let vkey = |vkey: &String| vkey.len() <= VKEY_BYTES_MAX;
        note(&self.note)
            && vkey(&self.vkey)
            && proof(&self.proof)
            && self.others.len() <= COSIGNED_MAX
            && self
                .others
                .iter()
                .all(|one| note(&one.note) && proof(&one.proof))
            && self.handovers.len() <= HANDOVERS_MAX
            && self
                .handovers
                .iter()
                .all(|one| note(&one.note) && vkey(&one.vkey))
    }
}

int_map! {
    /// The answer.
    pub open struct Grant {
        /// The connection token.
        1 => req token: ByteBuf,
        /// The broker's time.
        2 => req time: UnixMillis,
        /// The generation that the token rests on.
        3 => req generation: u64,
        /// The certificate authorities (DER) that the host is to trust from now on, beside those of its bundle: within
        /// [`AUTHORITIES_MAX`](crate::limits::AUTHORITIES_MAX) and
        /// [`AUTHORITIES_BYTES_MAX`](crate::limits::AUTHORITIES_BYTES_MAX). So a broker's next one is known before it is needed.
        /// (Not 64: a golden vector gave that label to something that readers skip.)
        65 => opt authorities: Vec<ByteBuf>,
        /// The state of the audit trail, if the host witnesses it.
        66 => opt trail: Trail,
    }
}

int_word! {
    /// Why an exchange was refused, as far as the host needs to know.
    pub open enum Refusal {
        /// The request is not well-formed, or its nonce is too old: ask for a new challenge.
        1 => Malformed = "malformed",
        /// The install key is unknown, used, retired or expired: fetch a new bundle.
        2 => InstallKey = "install_key_refused",
        /// The proof does not show the right to this host.
        3 => Proof = "proof_refused",
        /// The host is locked, since two operators used its identity: its owner unlocks it.
        4 => Locked = "host_locked",
        /// The host was removed or revoked.
        5 => Revoked = "host_revoked",
        /// The broker cannot say now: try later.
        6 => Unavailable = "unavailable",
    }
}

int_map! {
    /// A refusal, as the body of a 4xx or 5xx answer.
    pub open struct Refused {
        /// Why.
        1 => req reason: Refusal,
        /// The broker's time.
        2 => req time: UnixMillis,
        /// With [`Refusal::Proof`], to who showed successions by keys that the broker knows, after a declared restore: the generation up
        /// to which it knows the host's keys by now. From there the host goes on.
        65 => opt generation: u64,
    }
}

/// Checks that a request is signed by the key it asks a token for.
///
/// # Errors
/// [`VerifyError`].
pub fn verify_request(bytes: &[u8]) -> Result<signed::Verified<Request, Host>, VerifyError> {
    let key = signed::peek::<Request>(bytes)?.key;
    signed::verify(bytes, &[key], EXCHANGE_PATH.as_bytes())
}

/// Signs a request with the key it asks a token for.
#[must_use]
pub fn sign_request(key: &Secret<Host>, request: &Request) -> Vec<u8> {
    signed::sign(key, request, EXCHANGE_PATH.as_bytes())
}

/// The key that a chain of successions ends in, starting from `first`, whose generation is `generation`.
///
/// # Errors
/// [`VerifyError`] of the first link that is not signed by the key before it, or does not count up by one.
pub fn follow<'a>(
    host: &HostId,
    first: Public<Host>,
    generation: u64,
    links: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<(u64, Public<Host>)>, VerifyError> {
    let mut keys = vec![(generation, first)];
    let (mut key, mut generation) = (first, generation);
    for link in links {
        let next: Succession = signed::verify(link, &[key], b"")?.into_value();
        if next.host != *host || Some(next.generation) != generation.checked_add(1) {
            return Err(VerifyError::Envelope);
        }
        (key, generation) = (next.key, next.generation);
        keys.push((generation, key));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    use crate::key::seeded;

    fn host() -> HostId {
        HostId::new("edge-1").unwrap()
    }

    fn install_key() -> InstallKey {
        InstallKey::new([5; 8], Zeroizing::new([6; 32]))
    }

    #[test]
    fn an_install_keys_secret_is_not_printed() {
        let proof = Proof::InstallKey(InstallProof::from(&install_key()));
        assert!(format!("{proof:?}").contains("secret: (redacted)"));
    }

    #[test]
    fn a_request_for_somebody_elses_key_is_refused() {
        let own = seeded::<Host>(1);
        let mut request = Request {
            nonce: [0; 32].into(),
            host: host(),
            key: own.public(),
            generation: 1,
            proof: Proof::InstallKey(InstallProof::from(&install_key())),
            witness: None,
        };
        assert!(verify_request(&sign_request(&own, &request)).is_ok());
        request.key = seeded::<Host>(2).public();
        assert!(verify_request(&sign_request(&own, &request)).is_err());
    }

    #[test]
    fn a_trail_with_more_than_the_limits_allow_is_not_bounded() {
        let trail = Trail {
            note: "n".repeat(WITNESS_NOTE_BYTES_MAX),
            vkey: "v".repeat(VKEY_BYTES_MAX),
            proof: vec![[0; 32].into(); PROOF_HASHES_MAX],
            others: vec![
                Cosigned {
                    note: "n".repeat(WITNESS_NOTE_BYTES_MAX),
                    proof: vec![[0; 32].into(); PROOF_HASHES_MAX],
                };
                COSIGNED_MAX
            ],
            handovers: vec![
                Handover {
                    note: "n".repeat(WITNESS_NOTE_BYTES_MAX),
                    vkey: "v".repeat(VKEY_BYTES_MAX),
                };
                HANDOVERS_MAX
            ],
        };
        assert!(trail.is_bounded());
        let longer: [fn(&mut Trail); 9] = [
            |trail| trail.note.push('n'),
            |trail| trail.vkey.push('v'),
            |trail| trail.proof.push([0; 32].into()),
            |trail| trail.others.extend(trail.others.first().cloned()),
            |trail| trail.others[1].note.push('n'),
            |trail| trail.others[1].proof.push([0; 32].into()),
            |trail| trail.handovers.extend(trail.handovers.first().cloned()),
            |trail| trail.handovers[1].note.push('n'),
            |trail| trail.handovers[1].vkey.push('v'),
        ];
        for (index, longer) in longer.iter().enumerate() {
            let mut trail = trail.clone();
            longer(&mut trail);
            assert!(!trail.is_bounded(), "{index}");
        }
    }

    #[test]
    fn a_chain_of_successions_is_followed_link_by_link() {
        let keys: Vec<Secret<Host>> = (1..=4).map(seeded).collect();
        let link = |signer: usize, generation: u64, next: usize| {
            let succession = Succession {
                host: host(),
                generation,
                key: keys[next].public(),
                time: UnixMillis(0),
            };
            signed::sign(&keys[signer], &succession, b"")
        };
        let follow = |links: &[Vec<u8>]| {
            follow(
                &host(),
                keys[0].public(),
                1,
                links.iter().map(Vec::as_slice),
            )
            .map(|keys| keys.len())
        };
        assert_eq!(follow(&[]), Ok(1));
        assert_eq!(follow(&[link(0, 2, 1), link(1, 3, 2)]), Ok(3));
        assert!(
            follow(&[link(0, 2, 1), link(0, 3, 2)]).is_err(),
            "signed by the key before last"
        );
        assert!(follow(&[link(0, 3, 1)]).is_err(), "a generation left out");
        assert!(follow(&[link(3, 2, 1)]).is_err(), "signed by a stranger");
    }
}
