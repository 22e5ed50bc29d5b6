//! The broker's own certificate authority, and the server certificate it signs.
//!
//! The authority is made at the first start and stays: it is what hosts trust, and it travels in every bundle. The server
//! certificate is a matter of this machine alone: it is signed anew when the names change or its end is near.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use protocol::time::UnixMillis;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::{
    RootCertStore, ServerConfig,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    server::{NoServerSessionStorage, ParsedCertificate},
    sign::CertifiedKey,
};
use tokio::sync::watch;

use super::keys::{DataDir, fill_random, read_secret, refuse_to_replace, write_secret};

/// What is spoken on the one port (RFC 7301).
pub const ALPN: [&[u8]; 2] = [b"mqtt", b"http/1.1"];

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Life of the authority. Hosts keep it for as long as they keep their bundle.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Life of a server certificate.
const SERVER_LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// It is signed anew when this much is left: a broker that is started once a month never shows an old one.
const SERVER_LEFT_MIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// A host whose clock is a day behind still connects, and learns the time.
const BACKDATED: Duration = DAY;

/// The certificates, and what the listener serves with them.
#[derive(Debug)]
pub struct Certificates {
    directory: DataDir,
    authority: Authority,
    names: Vec<String>,
    current: watch::Sender<Arc<ServerConfig>>,
}

#[derive(Debug)]
struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// Opens the authority, or makes it in a directory that was never used, and sees to a server certificate that covers
    /// `public_name`, this machine's name, and the loopback.
    ///
    /// # Errors
    /// A file is open to others or damaged, the authority is missing where it has been, or the disk refuses.
    pub fn open(directory: &DataDir, public_name: &str, now: UnixMillis) -> anyhow::Result<Self> {
        let authority = Authority::open(directory, now)?;
        let names = names(public_name, &host_name());
        let server = match load(directory, &authority, &names, now)? {
            Some(server) => server,
            None => issue(directory, &authority, &names, now)?,
        };
        Ok(Self {
            current: watch::Sender::new(Arc::new(config(server)?)),
            directory: directory.clone(),
            authority,
            names,
        })
    }

    /// The authority's certificate, PEM: the `ca.crt` of bundles.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        &self.authority.pem
    }

    /// What new connections are served with, always the newest.
    #[must_use]
    pub fn current(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.current.subscribe()
    }

    /// Signs the server certificate anew if its end is near; whether it did. To be called now and then. Blocks on the disk.
    ///
    /// # Errors
    /// The disk refuses; the certificate in use stays.
    pub fn renew_if_due(&self, now: UnixMillis) -> anyhow::Result<bool> {
        if load(&self.directory, &self.authority, &self.names, now)?.is_some() {
            return Ok(false);
        }
        let server = issue(&self.directory, &self.authority, &self.names, now)?;
        self.current.send_replace(Arc::new(config(server)?));
        Ok(true)
    }
}

impl Authority {
    fn open(directory: &DataDir, now: UnixMillis) -> anyhow::Result<Self> {
        let (key_path, certificate_path) = (directory.key("ca.key"), directory.key("ca.crt"));
        let (key, pem) = match (read_secret(&key_path)?, read_secret(&certificate_path)?) {
            (Some(key), Some(pem)) => {
                let key = KeyPair::from_pem(&key)
                    .with_context(|| format!("read key {}", key_path.display()))?;
                (key, (*pem).clone())
            }
            (key, _) => {
                let missing = if key.is_none() {
                    &key_path
                } else {
                    &certificate_path
                };
                refuse_to_replace(directory, missing)?;
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                    .context("make the authority's key")?;
                let pem = authority_params(now)?
                    .self_signed(&key)
                    .context("sign the authority")?
                    .pem();
                write_secret(
                    &key_path,
                    zeroize::Zeroizing::new(key.serialize_pem()).as_bytes(),
                )?;
                write_secret(&certificate_path, pem.as_bytes())?;
                (key, pem)
            }
        };
        let read = || format!("read certificate {}", certificate_path.display());
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).with_context(read)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).with_context(read)?;
        Ok(Self { pem, der, issuer })
    }
}

fn authority_params(now: UnixMillis) -> anyhow::Result<CertificateParams> {
    // Two brokers' authorities may stand in one trust store: their names tell them apart.
    let mut tag = [0; 4];
    fill_random(&mut tag)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        format!("Outhaul broker CA {}", protocol::id::hex(&tag)),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = before(now, BACKDATED).into();
    params.not_after = after(now, AUTHORITY_LIFE).into();
    Ok(params)
}

fn issue(
    directory: &DataDir,
    authority: &Authority,
    names: &[String],
    now: UnixMillis,
) -> anyhow::Result<CertifiedKey> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("make the server's key")?;
    let mut params = CertificateParams::new(names).context("name the server certificate")?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Outhaul broker");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = before(now, BACKDATED).into();
    params.not_after = after(now, SERVER_LIFE).into();
    let certificate = params
        .signed_by(&key, &authority.issuer)
        .context("sign the server certificate")?;
    let key_pem = zeroize::Zeroizing::new(key.serialize_pem());
    // Two files, not one step: after a crash between them they do not match, and both are made anew.
    write_secret(&directory.key("server.key"), key_pem.as_bytes())?;
    write_secret(&directory.key("server.crt"), certificate.pem().as_bytes())?;
    certify(key_pem.as_bytes(), certificate.der().clone())
}

/// The server certificate on disk, if it is of this authority, covers `names`, fits its key, and lasts.
fn load(
    directory: &DataDir,
    authority: &Authority,
    names: &[String],
    now: UnixMillis,
) -> anyhow::Result<Option<CertifiedKey>> {
    let (Some(key), Some(pem)) = (
        read_secret(&directory.key("server.key"))?,
        read_secret(&directory.key("server.crt"))?,
    ) else {
        return Ok(None);
    };
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else {
        return Ok(None);
    };
    if !is_good(authority, &der, names, now) {
        return Ok(None);
    }
    let server = certify(key.as_bytes(), der).ok();
    Ok(server.filter(|server| server.keys_match().is_ok()))
}

fn is_good(
    authority: &Authority,
    server: &CertificateDer<'_>,
    names: &[String],
    now: UnixMillis,
) -> bool {
    let mut roots = RootCertStore::empty();
    let Ok(parsed) = ParsedCertificate::try_from(server) else {
        return false;
    };
    let is_lasting = || {
        roots.add(authority.der.clone())?;
        let at = |millis: u64| UnixTime::since_unix_epoch(Duration::from_millis(millis));
        let algorithms = provider().signature_verification_algorithms.all;
        for time in [at(now.0), at(now.plus(SERVER_LEFT_MIN).0)] {
            verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], time, algorithms)?;
        }
        Ok::<(), rustls::Error>(())
    };
    let mut is_lasting = is_lasting;
    let covers = |name: &String| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
    };
    is_lasting().is_ok() && names.iter().all(covers)
}

fn certify(key_pem: &[u8], certificate: CertificateDer<'static>) -> anyhow::Result<CertifiedKey> {
    let key = PrivateKeyDer::from_pem_slice(key_pem).context("read the server's key")?;
    CertifiedKey::from_der(vec![certificate], key, &provider()).context("use the server's key")
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn later(days: u32) -> UnixMillis {
        NOW.plus(DAY * days)
    }

    fn server_crt(directory: &DataDir) -> String {
        fs::read_to_string(directory.key("server.crt")).unwrap()
    }

    #[test]
    fn the_authority_stays_and_the_server_certificate_follows_names_and_time() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        let first = Certificates::open(&directory, "broker.example", NOW).unwrap();
        let issued = server_crt(&directory);
        let again = Certificates::open(&directory, "broker.example", later(1)).unwrap();
        assert_eq!(first.authority_pem(), again.authority_pem());
        assert_eq!(server_crt(&directory), issued, "it is good for long");
        let other = Certificates::open(&directory, "192.0.2.7", later(1)).unwrap();
        assert_eq!(first.authority_pem(), other.authority_pem());
        assert_ne!(server_crt(&directory), issued, "another name");
        let issued = server_crt(&directory);
        assert!(!other.renew_if_due(later(60)).unwrap());
        let mut current = other.current();
        assert!(!current.has_changed().unwrap());
        assert!(
            other.renew_if_due(later(62)).unwrap(),
            "less than 30 of its 90 days are left"
        );
        assert!(current.has_changed().unwrap());
        current.mark_unchanged();
        assert_ne!(server_crt(&directory), issued);
    }

    #[test]
    fn a_key_and_a_certificate_that_do_not_fit_are_made_anew() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        Certificates::open(&directory, "broker.example", NOW).unwrap();
        let stale = fs::read(directory.key("server.key")).unwrap();
        fs::remove_file(directory.key("server.crt")).unwrap();
        Certificates::open(&directory, "broker.example", NOW).unwrap();
        write_secret(&directory.key("server.key"), &stale).unwrap();
        Certificates::open(&directory, "broker.example", NOW).unwrap();
        assert_ne!(fs::read(directory.key("server.key")).unwrap(), stale);
    }

    #[test]
    fn an_authority_lost_from_a_used_directory_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        Certificates::open(&directory, "broker.example", NOW).unwrap();
        fs::write(directory.store(), b"").unwrap();
        fs::remove_file(directory.key("ca.crt")).unwrap();
        let error = format!(
            "{:#}",
            Certificates::open(&directory, "broker.example", NOW).unwrap_err()
        );
        assert!(
            error.contains("ca.crt") && error.contains("backup"),
            "{error}"
        );
    }

    #[test]
    fn the_loopback_is_covered_and_no_name_stands_twice() {
        assert_eq!(
            names("localhost", "box"),
            ["localhost", "box", "127.0.0.1", "::1"]
        );
        assert_eq!(
            names("b.example", "not a name"),
            ["b.example", "localhost", "127.0.0.1", "::1"]
        );
    }
}
