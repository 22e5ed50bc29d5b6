//! Who is connected, from a verified token whose key was proven.

use protocol::{
    possession::{Nonce, is_proven},
    scope::Scope,
    token::{Grant, Subject},
};

/// Who is connected, and what it may do. To have one is proof: [`Principal::prove`] is the only way to make it.
#[derive(Clone, Debug)]
pub struct Principal {
    grant: Grant,
}

impl Principal {
    /// What `grant` grants, if `proof` answers `challenge` with the key that it names.
    #[must_use]
    pub fn prove(grant: Grant, challenge: &Nonce, proof: &[u8]) -> Option<Self> {
        is_proven(&grant.holder, challenge, proof).then_some(Self { grant })
    }

    /// Whom its token names.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        &self.grant.subject
    }

    /// What its token permits.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.grant.scope
    }

    /// When its token ends, in seconds since 1970.
    #[must_use]
    pub const fn expires_s(&self) -> u64 {
        self.grant.expires_s
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use protocol::{
        key::{Host, Secret},
        possession::prove,
    };
    use zeroize::Zeroizing;

    pub(crate) fn key(byte: u8) -> Secret<Host> {
        Secret::from_seed(&Zeroizing::new([byte; 32]))
    }

    pub(crate) fn grant(subject: &str, scope: Scope, expires_s: u64) -> Grant {
        Grant {
            subject: Subject::parse(subject).unwrap(),
            holder: key(1).public().as_holder(),
            expires_s,
            scope,
            id: [1; 8],
            generation: 1,
        }
    }

    pub(crate) fn principal(subject: &str, scope: Scope) -> Principal {
        let proof = prove(&key(1), &[2; 8], &[3; 8]);
        Principal::prove(grant(subject, scope, u64::MAX), &[2; 8], &proof).unwrap()
    }

    #[test]
    fn without_the_key_there_is_no_principal() {
        let grant = grant("edge-1", Scope::default(), 0);
        let proof = prove(&key(9), &[2; 8], &[3; 8]);
        assert!(Principal::prove(grant.clone(), &[2; 8], &proof).is_none());
        let proof = prove(&key(1), &[2; 8], &[3; 8]);
        assert!(Principal::prove(grant.clone(), &[4; 8], &proof).is_none());
        assert!(Principal::prove(grant, &[2; 8], &proof).is_some());
    }
}
