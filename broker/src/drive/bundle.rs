//! Bundles: adding a host, and fetching again what is carried to it.

use anyhow::Context as _;
use protocol::{
    bundle::{self, Bundle},
    id::HostId,
    install_key::{InstallKey, fingerprint},
    key::{Dispatcher, Public},
    limits::DISPATCHERS_MAX,
    time::UnixMillis,
};
use zeroize::Zeroizing;

use super::{Peer, Plane};
use crate::shell::{
    keys::fill_random,
    store::{AddHost, AddRefusal, HostKind, NewHost},
};

/// A bundle, made: the three files that are the broker's to make, and what to show of them.
pub struct Added {
    /// What the host runs sandboxes with.
    pub kind: HostKind,
    /// `bundle.toml`.
    pub bundle_toml: String,
    /// `ca.crt`.
    pub authority_pem: String,
    /// `install.key`. The one secret here; wiped on drop.
    pub install_key: Zeroizing<String>,
    /// The key's fingerprint, as the audit trail has it.
    pub fingerprint: String,
    /// When the install key ends unused.
    pub expires: UnixMillis,
}

impl std::fmt::Debug for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Added({})", self.fingerprint)
    }
}

/// Why a host was not added. The text tells a person what to do.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// A host that obeys nobody is of no use.
    #[error(
        "a bundle names the dispatchers that its host obeys: run `outhaul dispatcher init`, and name its key"
    )]
    NoDispatcher,
    /// More than a bundle holds.
    #[error("a bundle names at most {DISPATCHERS_MAX} dispatchers")]
    ManyDispatchers,
    /// It is there, and in use.
    #[error(
        "host {0} is enrolled, and goes on; whoever uses a new bundle takes the place of its machine. To have one all the same, say \
         --reissue"
    )]
    Exists(HostId),
    /// There is no such host.
    #[error("no host is called {0}: add it with `outhaul host add {0} --kind docker`")]
    Unknown(HostId),
    /// Nobody said where hosts find the broker.
    #[error(
        "the broker does not know where hosts find it, and every bundle says that: set public_address in its configuration (or \
         OUTHAUL_PUBLIC_ADDRESS, or --public-address NAME:PORT of `outhaul serve`) and start it again"
    )]
    NoAddress,
    /// Hosts would refuse the broker.
    #[error(
        "the broker's certificate is not for {0}, where bundles say that it is, and hosts would refuse it: have a certificate issued \
         for that name, or change public_address"
    )]
    NotCovered(String),
    /// It is locked.
    #[error(
        "host {0} is locked, since two machines used its identity: find the other one, then unlock it with `outhaul host unlock {0}`"
    )]
    Locked(HostId),
    /// It was revoked.
    #[error("host {0} is revoked, and its name is never used again: choose another")]
    Revoked(HostId),
    /// It is of the other kind.
    #[error("host {0} is enrolled as the other kind")]
    OtherKind(HostId),
    /// The store failed.
    #[error("the host could not be recorded: see the broker's log")]
    Failed(#[source] anyhow::Error),
}

impl Plane {
    /// Adds a host and makes its bundle; one that was added and never came gets a fresh bundle, and its old install key is void.
    /// For one that is enrolled, `reissue` must say that this is meant. Blocks.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add_host(
        &self,
        host: &HostId,
        kind: HostKind,
        dispatchers: &[Public<Dispatcher>],
        reissue: bool,
        peer: &Peer,
    ) -> Result<Added, AddError> {
        if dispatchers.is_empty() {
            return Err(AddError::NoDispatcher);
        }
        if dispatchers.len() > DISPATCHERS_MAX {
            return Err(AddError::ManyDispatchers);
        }
        self.check_address()?;
        let now = self.now();
        let (mut kid, mut secret) = ([0; 8], Zeroizing::new([0; 32]));
        fill_random(&mut kid)
            .and_then(|()| fill_random(&mut *secret))
            .map_err(AddError::Failed)?;
        let key = InstallKey::new(kid, secret);
        let new = NewHost {
            name: host.to_string(),
            kind,
            kid,
            secret_sha256: key.secret().hash(),
            expires_ms: now.plus(self.inner.parts.install_key_life).0,
            replace: reissue,
        };
        match self
            .store()
            .add_host(&new, &peer.actor(), now.0)
            .map_err(AddError::Failed)?
        {
            AddHost::Added | AddHost::Reissued { .. } => {}
            AddHost::Refused(AddRefusal::Enrolled) => return Err(AddError::Exists(host.clone())),
            AddHost::Refused(AddRefusal::Locked) => return Err(AddError::Locked(host.clone())),
            AddHost::Refused(AddRefusal::Revoked) => return Err(AddError::Revoked(host.clone())),
            AddHost::Refused(AddRefusal::OtherKind) => {
                return Err(AddError::OtherKind(host.clone()));
            }
        }
        self.reload(host).map_err(AddError::Failed)?;
        let audit_vkey = self.audit_vkey().map_err(AddError::Failed)?;
        let bundle = Bundle {
            version: bundle::VERSION,
            host: host.to_string(),
            kind: kind_word(kind).to_owned(),
            broker: self.inner.parts.address.clone(),
            issued_ms: now.0,
            dispatchers: dispatchers.iter().map(ToString::to_string).collect(),
            audit_vkey: Some(audit_vkey),
        };
        let bundle_toml = toml::to_string(&bundle).context("write bundle");
        Ok(Added {
            kind,
            bundle_toml: bundle_toml.map_err(AddError::Failed)?,
            authority_pem: self.certificates().authorities_pem(),
            install_key: Zeroizing::new(format!("{}\n", *key.to_text())),
            fingerprint: fingerprint(&new.secret_sha256),
            expires: UnixMillis(new.expires_ms),
        })
    }

    /// Fetches the bundle of a host that was added, again: a fresh install key, and the unused one before it is void. Blocks.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn fetch_bundle(
        &self,
        host: &HostId,
        dispatchers: &[Public<Dispatcher>],
        reissue: bool,
        peer: &Peer,
    ) -> Result<Added, AddError> {
        let row = self
            .store()
            .host(host.as_str())
            .map_err(AddError::Failed)?
            .ok_or_else(|| AddError::Unknown(host.clone()))?;
        self.add_host(host, row.kind, dispatchers, reissue, peer)
    }

    /// Whether a host could find the broker by a bundle, and believe it.
    fn check_address(&self) -> Result<(), AddError> {
        let parts = &self.inner.parts;
        if !parts.is_address_set {
            return Err(AddError::NoAddress);
        }
        if !self.certificates().covers_public_name {
            return Err(AddError::NotCovered(parts.address.clone()));
        }
        Ok(())
    }
}

/// The word for a kind, in bundles and lists.
#[must_use]
pub(crate) const fn kind_word(kind: HostKind) -> &'static str {
    match kind {
        HostKind::Docker => "docker",
        HostKind::Kubernetes => "kubernetes",
    }
}
