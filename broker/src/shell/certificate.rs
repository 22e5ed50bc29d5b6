//! The certificates: what the one port shows, and which authorities hosts are to trust.
//!
//! Either the broker is its own authority (`authority`), which stays, travels in every bundle and every grant, and signs a server
//! certificate for this machine (`server`); or both come from files that someone else issues (`file`). Whatever changes, changes for
//! new connections; live ones are never touched.

mod authority;
mod file;
mod pem;
mod server;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use protocol::{
    limits::{AUTHORITIES_BYTES_MAX, AUTHORITIES_MAX},
    time::UnixMillis,
};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
    server::NoServerSessionStorage,
    sign::CertifiedKey,
};
use tokio::sync::watch;

use super::keys::DataDir;
use authority::Authority;
use pem::Certificate;

pub use file::{ServerFiles, TlsFiles};

/// What is spoken on the one port (RFC 7301).
pub const ALPN: [&[u8]; 2] = [b"mqtt", b"http/1.1"];

/// Everything counts from this long before it was made. A host without a clock of its own has only the last time that the broker
/// told, and may come back after the longest recovery window (90 days), having missed a renewal and a rotation: it must still
/// connect, and learns the time.
const BACKDATED: Duration = Duration::from_secs(100 * 24 * 3600);

/// The certificates, and what the listener serves with them.
#[derive(Debug)]
pub struct Certificates {
    directory: DataDir,
    names: Vec<String>,
    files: TlsFiles,
    kept: Mutex<Kept>,
    current: watch::Sender<Arc<ServerConfig>>,
    facts: watch::Sender<Arc<Facts>>,
}

/// What the next look is compared with.
#[derive(Debug)]
struct Kept {
    /// None where the server's certificate comes from files.
    own: Option<Authority>,
    /// Of the owner's file, as last read whole.
    announced: Vec<Certificate>,
    /// What is served.
    chain: Vec<CertificateDer<'static>>,
}

/// What others may know of the certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Which authorities hosts are to trust: the one in use first.
    pub authorities: Vec<AuthorityFact>,
    /// The server's certificate, DER.
    pub server: Vec<u8>,
    /// Whether it is for the name that hosts are told to dial.
    pub covers_public_name: bool,
    /// When what is served ends.
    pub expiry: Expiry,
}

/// One authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFact {
    /// Where it stands.
    pub place: Place,
    /// Its certificate, DER.
    pub der: Vec<u8>,
    /// The same, PEM.
    pub pem: String,
    /// When it ends.
    pub not_after: UnixMillis,
}

/// Where an authority stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The broker's own, which signs.
    Current,
    /// One that the broker had before.
    Past,
    /// The owner's, from a file.
    File,
}

/// When what is served ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The server's certificate.
    pub server: UnixMillis,
    /// The authority that it leads to.
    pub authority: UnixMillis,
}

/// What a look at the disk gave.
struct Material {
    server: CertifiedKey,
    facts: Facts,
}

impl Facts {
    /// Facts of nothing, for tests that look at other things.
    #[cfg(test)]
    pub(crate) fn sample() -> watch::Receiver<Arc<Self>> {
        let authority = AuthorityFact {
            place: Place::Current,
            der: vec![0x30, 0],
            pem: "pem".to_owned(),
            not_after: UnixMillis(u64::MAX),
        };
        let expiry = Expiry {
            server: UnixMillis(u64::MAX),
            authority: UnixMillis(u64::MAX),
        };
        let facts = Self {
            authorities: vec![authority],
            server: vec![0x30, 0],
            covers_public_name: true,
            expiry,
        };
        watch::channel(Arc::new(facts)).1
    }

    /// The authorities as text: the `ca.crt` of bundles.
    #[must_use]
    pub fn authorities_pem(&self) -> String {
        self.authorities
            .iter()
            .map(|one| one.pem.as_str())
            .collect()
    }
}

impl Certificates {
    /// Opens the authority, or makes it in a directory that was never used, and sees to a server certificate that covers
    /// `public_name`, this machine's name, and the loopback; or reads `files`.
    ///
    /// # Errors
    /// A file is open to others or damaged, the authority is missing where it has been, the disk refuses, or the owner's files do not
    /// fit: each in one sentence.
    pub fn open(
        directory: &DataDir,
        public_name: &str,
        files: &TlsFiles,
        now: UnixMillis,
    ) -> anyhow::Result<Self> {
        let names = names(public_name, &host_name());
        let announced = match &files.authority {
            Some(path) => file::load_authorities(path, now)?,
            None => Vec::new(),
        };
        let own = match files.server {
            Some(_) => None,
            None => Some(Authority::open(directory, now)?),
        };
        let mut kept = Kept {
            own,
            announced,
            chain: Vec::new(),
        };
        let Material { server, facts } = look(directory, &names, files, &kept, now)?;
        kept.chain.clone_from(&server.cert);
        Ok(Self {
            current: watch::Sender::new(Arc::new(config(server)?)),
            facts: watch::Sender::new(Arc::new(facts)),
            directory: directory.clone(),
            names,
            files: files.clone(),
            kept: Mutex::new(kept),
        })
    }

    /// What new connections are served with, always the newest.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// What others may know, always the newest.
    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Arc<Facts>> {
        self.facts.subscribe()
    }

    /// When what is served ends.
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        self.facts.borrow().expiry
    }

    /// Looks at everything anew: signs the server certificate if its end is near, reads files that have changed, leaves out what has
    /// ended. Whether anything is served otherwise now. To be called now and then. Blocks on the disk.
    ///
    /// # Errors
    /// A file does not fit, or the disk refuses; what is in use stays.
    pub fn refresh(&self, now: UnixMillis) -> anyhow::Result<bool> {
        let mut kept = self.kept();
        let read = match &self.files.authority {
            Some(path) => file::load_authorities(path, now).map(|found| kept.announced = found),
            None => Ok(()),
        };
        let has_changed = self.take(&mut kept, now)?;
        // Said last: a bad file of the owner's must not keep our own certificate from being signed anew.
        read.map(|()| has_changed)
    }

    /// Whether it is time to make the next authority. Never, where it is not ours to make.
    #[must_use]
    pub fn is_rotation_due(&self, now: UnixMillis) -> bool {
        let kept = self.kept();
        kept.own.as_ref().is_some_and(|own| own.is_ending(now))
    }

    /// Makes the next authority, and serves under it from now on. Who trusts the one before, or the new one, connects. `record` gets
    /// the new certificate before it is in force. Blocks on the disk.
    ///
    /// # Errors
    /// The authority is not ours, `record` fails, or the disk refuses.
    pub fn rotate(
        &self,
        now: UnixMillis,
        record: impl FnOnce(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut kept = self.kept();
        let next = own(&mut kept)?.rotate(&self.directory, now, |der| record(der))?;
        kept.own = Some(next);
        self.take(&mut kept, now)?;
        Ok(())
    }

    /// Forgets the authorities before this one; how many. Hosts that trust only them cannot connect any more. Blocks on the disk.
    ///
    /// # Errors
    /// The authority is not ours, or the disk refuses.
    pub fn retire(&self, now: UnixMillis) -> anyhow::Result<usize> {
        let mut kept = self.kept();
        let count = own(&mut kept)?.retire(&self.directory)?;
        self.take(&mut kept, now)?;
        Ok(count)
    }

    /// Serves what is on disk; whether that is something new.
    fn take(&self, kept: &mut Kept, now: UnixMillis) -> anyhow::Result<bool> {
        let Material { server, facts } =
            look(&self.directory, &self.names, &self.files, kept, now)?;
        let is_new = kept.chain != server.cert;
        if is_new {
            kept.chain.clone_from(&server.cert);
            self.current.send_replace(Arc::new(config(server)?));
        }
        let has_changed = self.facts.send_if_modified(|old| {
            let differs = **old != facts;
            if differs {
                *old = Arc::new(facts);
            }
            differs
        });
        Ok(is_new || has_changed)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn own(kept: &mut Kept) -> anyhow::Result<&mut Authority> {
    match &mut kept.own {
        Some(own) => Ok(own),
        None => bail!(
            "the certificate comes from files (tls.certificate): its authority is not this broker's to change"
        ),
    }
}

/// What is to be served, by what is on disk.
fn look(
    directory: &DataDir,
    names: &[String],
    files: &TlsFiles,
    kept: &Kept,
    now: UnixMillis,
) -> anyhow::Result<Material> {
    let announced = kept.announced.iter().map(|one| fact(Place::File, one));
    let (leaf, server, authority, authorities) = match (&kept.own, &files.server, &files.authority)
    {
        (Some(own), ..) => {
            let (leaf, server) = server::load_or_issue(directory, own, names, now)?;
            let mut all = vec![fact(Place::Current, &own.certificate)];
            all.extend(announced);
            let past = own.past.iter().filter(|past| past.is_live(now));
            all.extend(past.map(|past| fact(Place::Past, &past.certificate)));
            (leaf, server, own.certificate.not_after, bounded(all))
        }
        (None, Some(server), Some(path)) => {
            let name = names.first().context("read public_address")?;
            let found = file::load(server, path, &kept.announced, name, now)?;
            (
                found.leaf,
                found.server,
                found.authority_not_after,
                announced.collect(),
            )
        }
        (None, Some(_) | None, _) => bail!("tls.certificate needs tls.authority"),
    };
    Ok(Material {
        facts: Facts {
            authorities,
            expiry: Expiry {
                server: leaf.not_after,
                authority,
            },
            covers_public_name: names.first().is_some_and(|name| file::covers(&leaf, name)),
            server: leaf.der.to_vec(),
        },
        server,
    })
}

fn fact(place: Place, one: &Certificate) -> AuthorityFact {
    AuthorityFact {
        place,
        der: one.der.to_vec(),
        pem: one.pem.clone(),
        not_after: one.not_after,
    }
}

/// As many as a grant may name; the oldest go first.
fn bounded(mut all: Vec<AuthorityFact>) -> Vec<AuthorityFact> {
    all.truncate(AUTHORITIES_MAX);
    while all.iter().map(|one| one.der.len()).sum::<usize>() > AUTHORITIES_BYTES_MAX {
        all.pop();
    }
    all
}

/// TLS 1.3 and nothing older. No resumption: a ticket would outlive a rotation and cost memory for each connection, and no
/// early data, which can be replayed.
fn config(server: CertifiedKey) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("configure TLS 1.3")?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(server)));
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Who the server is: what hosts were told, what this machine calls itself, and the loopback. Names that no certificate can
/// carry are left out, but for the first.
fn names(public_name: &str, host_name: &str) -> Vec<String> {
    let mut names = vec![public_name.to_owned()];
    let loopback = [
        IpAddr::from(Ipv4Addr::LOCALHOST).to_string(),
        IpAddr::from(Ipv6Addr::LOCALHOST).to_string(),
    ];
    let own = [host_name.to_owned(), "localhost".to_owned()]
        .into_iter()
        .chain(loopback);
    for name in own.filter(|name| ServerName::try_from(name.as_str()).is_ok()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// This machine's name, as the kernel has it; `localhost` where it does not say.
#[must_use]
pub fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_ascii_lowercase();
    if name.is_empty() || ServerName::try_from(name.as_str()).is_err() {
        "localhost".to_owned()
    } else {
        name
    }
}

fn before(now: UnixMillis, duration: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now.0).saturating_sub(duration)
}

fn after(now: UnixMillis, duration: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(now.plus(duration).0)
}
