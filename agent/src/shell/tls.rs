//! A TLS client that trusts what this host was told to trust and nothing else, and says what is wrong with what it is shown.
//!
//! No system roots. TLS 1.3 only, ring, no session resumption (a connection lives for hours, and a ticket would outlive our idea of
//! who the broker is). Operator and shim share it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use protocol::bundle::fingerprint;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, KeyProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::SigningKey;
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use super::transport::base64;

/// How many of the trusted authorities an error names.
const NAMED_MAX: usize = 3;

/// Characters of base64 on a line of PEM (RFC 7468).
const PEM_LINE: usize = 64;

/// Whom a connection trusts, and how it speaks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// The trusted authorities' fingerprints, for a person.
    trusted: Arc<str>,
}

impl Tls {
    /// Trusts the certificates in `ca_pem`, and speaks `alpn`.
    ///
    /// `time` feeds the checks of validity dates: a host's own clock may be wrong by years (`server_now` is right).
    ///
    /// # Errors
    /// When there is no certificate in it, or one that cannot be read.
    pub fn new(ca_pem: &[u8], alpn: &[u8], time: Arc<dyn TimeProvider>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        let mut prints: Vec<String> = Vec::new();
        for certificate in certificates(ca_pem)? {
            prints.push(fingerprint(&certificate));
            roots.add(certificate).context("read CA certificate")?;
        }
        anyhow::ensure!(!roots.is_empty(), "CA bundle holds no certificate");
        let provider = CryptoProvider {
            key_provider: &NoClientKeys,
            ..rustls::crypto::ring::default_provider()
        };
        let mut config = ClientConfig::builder_with_details(Arc::new(provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .context("choose TLS 1.3")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            trusted: named(&prints).into(),
        })
    }

    /// The client's configuration.
    #[must_use]
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// What is wrong, and what to do about it where we know.
    #[must_use]
    pub fn explain(&self, error: &Error) -> String {
        let Error::InvalidCertificate(why) = error else {
            return error.to_string();
        };
        let trusted = &self.trusted;
        match why {
            // A bad signature is an authority of the same name with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "the certificate it shows leads to no authority that this host trusts (SHA-256 {trusted}). If the broker has a new \
                 authority, put what `outhaul ca list --pem` prints on its machine into the bundle's ca.crt; if a proxy on the way \
                 opens TLS, have it leave this address alone; else somebody stands between"
            ),
            CertificateError::NotValidForNameContext {
                expected,
                presented,
            } => format!(
                "the certificate it shows is for {}, and not for {}: the broker's public_address must be what bundle.toml has as \
                 `broker`",
                // As the library shows them: DnsName(\"a.example\").
                presented.join(", ").replace('"', ""),
                expected.to_str()
            ),
            CertificateError::ExpiredContext { time, not_after } => format!(
                "the certificate it shows ended {} ago: the broker's log says why it has no fresh one. If it has, this host's clock \
                 is ahead",
                span(*not_after, *time)
            ),
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "the certificate it shows counts in {} only: this host's clock is behind, or the broker's was ahead. Set it right",
                span(*time, *not_before)
            ),
            _ => format!("{error} (this host trusts SHA-256 {trusted})"),
        }
    }
}

fn named(prints: &[String]) -> String {
    let mut text = prints
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(" or ");
    if prints.len() > NAMED_MAX {
        let _ = write!(text, " or {} more", prints.len() - NAMED_MAX);
    }
    text
}

/// From one time to a later one, as people say it.
fn span(from: UnixTime, to: UnixTime) -> String {
    let seconds = Duration::from_secs(to.as_secs().saturating_sub(from.as_secs())).as_secs();
    match seconds / 3600 {
        0 => format!("{} min", seconds / 60),
        hours @ 1..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

/// The certificates in a text.
///
/// # Errors
/// When one cannot be read.
pub fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .context("read CA bundle")
}

/// A certificate as text (RFC 7468).
#[must_use]
pub fn to_pem(der: &[u8]) -> String {
    let text = base64(der);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(PEM_LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// We prove who we are inside the connection, never in TLS: what would sign there is left out.
#[derive(Debug)]
struct NoClientKeys;

impl KeyProvider for NoClientKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("no client certificates".to_owned()))
    }
}
