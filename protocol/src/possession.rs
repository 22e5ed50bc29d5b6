//! Proof that a peer holds the key its token names (RFC 9431 §2.2.4.2, the nonce challenge).
//!
//! The broker sends 8 bytes; the client signs them with 8 of its own behind. A `Sig_structure` is longer than 16 bytes and starts
//! with 0x84, so a challenge can never be a message, nor a message a challenge.

use crate::key::{Holder, Public, Role, Secret};

/// What the broker sends to be signed.
pub type Nonce = [u8; 8];

/// The client's nonce and its signature over both nonces.
pub const PROOF_BYTES: usize = 72;

/// Answers a challenge. `own` comes from the system's generator.
#[must_use]
pub fn prove<R: Role>(key: &Secret<R>, challenge: &Nonce, own: &Nonce) -> [u8; PROOF_BYTES] {
    let signature = key.sign(&both(challenge, own));
    let mut proof = [0; PROOF_BYTES];
    let (nonce_part, signature_part) = proof.split_at_mut(own.len());
    nonce_part.copy_from_slice(own);
    signature_part.copy_from_slice(&signature);
    proof
}

/// Whether `proof` answers `challenge` with the key that the token names.
#[must_use]
pub fn is_proven(key: &Public<Holder>, challenge: &Nonce, proof: &[u8]) -> bool {
    let Some((own, signature)) = proof.split_first_chunk::<8>() else {
        return false;
    };
    let Ok(signature) = <&[u8; 64]>::try_from(signature) else {
        return false;
    };
    key.verify(&both(challenge, own), signature).is_ok()
}

fn both(challenge: &Nonce, own: &Nonce) -> [u8; 16] {
    let mut message = [0; 16];
    let (first, second) = message.split_at_mut(8);
    first.copy_from_slice(challenge);
    second.copy_from_slice(own);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Sandbox, seeded};

    #[test]
    fn a_proof_holds_for_its_challenge_and_key_only() {
        let key = seeded::<Sandbox>(1);
        let proof = prove(&key, &[1; 8], &[2; 8]);
        let holder = key.public().as_holder();
        assert!(is_proven(&holder, &[1; 8], &proof));
        assert!(!is_proven(&holder, &[3; 8], &proof));
        assert!(!is_proven(
            &seeded::<Sandbox>(2).public().as_holder(),
            &[1; 8],
            &proof
        ));
        assert!(!is_proven(&holder, &[1; 8], &proof[..71]));
        assert!(!is_proven(&holder, &[1; 8], &[]));
    }
}
