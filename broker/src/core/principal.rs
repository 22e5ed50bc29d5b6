//! Who is connected, from a verified token whose key was proven, or from a reader's token.

use std::fmt;

use protocol::{
    id::{HostId, ReaderName},
    possession::{Nonce, is_proven},
    scope::Scope,
    token::{Grant, Subject},
};

use super::reader::{Reader, Rights};

/// Whose connection it is: one at a time for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A host's operator, or a sandbox.
    Subject(Subject),
    /// A reader or bench principal, under one of its client ids.
    Reader {
        /// What the owner calls it.
        name: ReaderName,
        /// Its client id; a reader may have several connections.
        id: String,
    },
}

impl Who {
    /// The host or sandbox, if it is one.
    #[must_use]
    pub const fn subject(&self) -> Option<&Subject> {
        match self {
            Self::Subject(subject) => Some(subject),
            Self::Reader { .. } => None,
        }
    }

    /// The host that it is, or is of.
    #[must_use]
    pub fn host(&self) -> Option<&HostId> {
        self.subject().map(Subject::host)
    }

    /// The reader, if it is one.
    #[must_use]
    pub const fn reader(&self) -> Option<&ReaderName> {
        match self {
            Self::Subject(_) => None,
            Self::Reader { name, .. } => Some(name),
        }
    }
}

/// As logs and the audit trail name it: a client id is its client's to choose, and stays out.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subject(subject) => write!(f, "{subject}"),
            Self::Reader { name, .. } => write!(f, "reader:{name}"),
        }
    }
}

/// Who is connected, and what it may do. To have one is proof: [`Principal::prove`] and [`Principal::reader`] make them.
#[derive(Clone, Debug)]
pub struct Principal {
    who: Who,
    scope: Scope,
    expires_s: u64,
    is_bench: bool,
}

impl Principal {
    /// What `grant` grants, if `proof` answers `challenge` with the key that it names.
    #[must_use]
    pub fn prove(grant: Grant, challenge: &Nonce, proof: &[u8]) -> Option<Self> {
        is_proven(&grant.holder, challenge, proof).then_some(Self {
            who: Who::Subject(grant.subject),
            scope: grant.scope,
            expires_s: grant.expires_s,
            is_bench: false,
        })
    }

    /// What a reader may, under the client id `id`.
    #[must_use]
    pub fn reader(reader: &Reader, id: String) -> Self {
        Self {
            who: Who::Reader {
                name: reader.name().clone(),
                id,
            },
            scope: reader.rights().scope(),
            // A token's own end, without the leeway that clocks of hosts need: it was made by this broker's clock.
            expires_s: (reader.expires_ms() / 1000).saturating_sub(protocol::limits::LEEWAY_S),
            is_bench: *reader.rights() == Rights::Bench,
        }
    }

    /// Whose connection it is.
    #[must_use]
    pub const fn who(&self) -> &Who {
        &self.who
    }

    /// What its token permits.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// When its token ends, in seconds since 1970.
    #[must_use]
    pub const fn expires_s(&self) -> u64 {
        self.expires_s
    }

    /// Whether it is here for load tests.
    #[must_use]
    pub const fn is_bench(&self) -> bool {
        self.is_bench
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

    #[test]
    fn a_readers_name_is_shown_and_its_client_id_is_not() {
        let who = Who::Reader {
            name: ReaderName::new("grafana").unwrap(),
            id: "secret-looking".to_owned(),
        };
        assert_eq!(who.to_string(), "reader:grafana");
        assert_eq!((who.host(), who.subject()), (None, None));
    }
}
