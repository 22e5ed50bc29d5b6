//! How the command line reaches a broker: over its unix socket, or over HTTPS with an access token.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use protocol::{access_token::AccessToken, bundle::fingerprint};
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::client::Unreachable;
use crate::config::Authority;

/// How long a connection and its TLS handshake may take.
const CONNECT_WAIT: Duration = Duration::from_secs(15);
/// The port of HTTPS, where a URL names none.
const PORT: u16 = 443;
/// The longest file of authorities read, in bytes: a few dozen, and a login that holds it is no longer than a secret file may be.
const CA_BYTES_MAX: u64 = 48 * 1024;
/// How many of the trusted authorities an error names.
const NAMED_MAX: usize = 3;

/// Where the broker is.
#[derive(Debug)]
pub(crate) enum Reach {
    /// Behind its socket, on this machine.
    Socket(PathBuf),
    /// On the network.
    Https(Remote),
    /// Nowhere, and why: for commands that need none.
    Nowhere(String),
}

/// A connection, whichever way.
pub(crate) trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

impl Reach {
    /// Connects.
    pub(crate) async fn connect(&self) -> anyhow::Result<Box<dyn Link>> {
        match self {
            Self::Socket(path) => {
                let stream = UnixStream::connect(path).await;
                Ok(Box::new(stream.map_err(|error| at_socket(path, error))?))
            }
            Self::Https(remote) => remote.connect().await,
            Self::Nowhere(why) => bail!("{why}"),
        }
    }

    /// What stands in the `Host` header.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Https(remote) => remote.url.authority(),
            Self::Socket(_) | Self::Nowhere(_) => "localhost".to_owned(),
        }
    }

    /// The access token, where one is to be shown.
    pub(crate) fn token(&self) -> Option<&str> {
        match self {
            Self::Https(remote) => Some(&remote.token),
            Self::Socket(_) | Self::Nowhere(_) => None,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Https(remote) => write!(f, "{}", remote.url),
            Self::Nowhere(_) => f.write_str("nowhere"),
        }
    }
}

/// `https://name:port`, and nothing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url(Authority);

impl Url {
    /// As it stands behind `https://`.
    fn authority(&self) -> String {
        self.0.to_string()
    }
}

impl std::str::FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            "not a broker's URL: write https://broker.example:8443, as its --public-address has it"
                .to_owned()
        };
        let rest = text.strip_prefix("https://").ok_or_else(bad)?;
        let mut authority: Authority = rest
            .strip_suffix('/')
            .unwrap_or(rest)
            .parse()
            .map_err(|_| bad())?;
        if authority.port == 0 {
            authority.port = PORT;
        }
        Ok(Self(authority))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

/// A broker on the network: where, whom we trust there, and what we show.
pub(crate) struct Remote {
    url: Url,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    /// The trusted authorities' fingerprints, for a person.
    trusted: String,
    token: Zeroizing<String>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.url).finish()
    }
}

impl Remote {
    /// The broker at `url`, if it shows a certificate that leads to one of the authorities in `ca_pem`; `token` is an access token's text.
    ///
    /// # Errors
    /// There is no authority in it, or the token is not one.
    pub(crate) fn new(url: Url, ca_pem: &[u8], token: &str) -> anyhow::Result<Self> {
        let (mut roots, mut prints) = (RootCertStore::empty(), Vec::new());
        for certificate in CertificateDer::pem_slice_iter(ca_pem) {
            let certificate = certificate.context("read the broker's authority")?;
            prints.push(fingerprint(&certificate));
            roots
                .add(certificate)
                .context("read the broker's authority")?;
        }
        ensure!(
            !prints.is_empty(),
            "there is no certificate in the file of the broker's authority: `outhaul ca list --pem` on its machine prints it"
        );
        let token = AccessToken::from_text(token).context("read the access token")?;
        let name = ServerName::try_from(url.0.name.clone());
        let name = name.context("read the broker's name")?;
        Ok(Self {
            url,
            name,
            tls: Arc::new(tls(roots)?),
            trusted: named(&prints),
            token: token.to_text(),
        })
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Link>> {
        let connecting = async {
            let (name, port) = (self.url.0.name.as_str(), self.url.0.port);
            let stream = TcpStream::connect((name, port)).await.map_err(|error| {
                anyhow::Error::from(Unreachable::Away {
                    place: self.url.to_string(),
                    reason: error.to_string(),
                })
            })?;
            stream.set_nodelay(true).context("set up the connection")?;
            let connector = TlsConnector::from(Arc::clone(&self.tls));
            let stream = connector.connect(self.name.clone(), stream).await;
            Ok(Box::new(stream.map_err(|error| self.refused(&error))?) as Box<dyn Link>)
        };
        let in_time = timeout(CONNECT_WAIT, connecting).await;
        in_time.unwrap_or_else(|_| {
            Err(Unreachable::Away {
                place: self.url.to_string(),
                reason: format!("no answer in {} s", CONNECT_WAIT.as_secs()),
            }
            .into())
        })
    }

    /// What is wrong with what the broker shows; else it broke off, and may come back.
    fn refused(&self, error: &io::Error) -> anyhow::Error {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(error @ rustls::Error::InvalidCertificate(why)) = inner else {
            return Unreachable::Broken {
                place: self.url.to_string(),
                reason: error.to_string(),
            }
            .into();
        };
        let (url, trusted) = (&self.url, &self.trusted);
        match why {
            // A bad signature is an authority of the same name with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => anyhow::anyhow!(
                "the certificate that {url} shows leads to no authority that you trust there (SHA-256 {trusted}), and nothing was sent. If \
                 the broker has a new authority, get what `outhaul ca list --pem` prints on its machine, and name it with --cafile in \
                 `outhaul login`; if it has not, somebody stands between"
            ),
            CertificateError::NotValidForNameContext { presented, .. } => anyhow::anyhow!(
                "the certificate that {url} shows is for {}: use that name, which is the broker's --public-address",
                presented.join(", ").replace('"', "")
            ),
            CertificateError::ExpiredContext { .. } | CertificateError::Expired => {
                anyhow::anyhow!(
                    "the certificate that {url} shows has ended: the broker's log says why it has no fresh one. If it has, this machine's \
                     clock is ahead"
                )
            }
            CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet => {
                anyhow::anyhow!(
                    "the certificate that {url} shows does not count yet: this machine's clock is behind"
                )
            }
            _ => anyhow::anyhow!("{url}: {error} (trusted: SHA-256 {trusted})"),
        }
    }
}

/// Only these authorities, TLS 1.3 only, nothing that outlives the command.
fn tls(roots: RootCertStore) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .context("choose TLS 1.3")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn named(prints: &[String]) -> String {
    let mut text = prints
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(" or ");
    if prints.len() > NAMED_MAX {
        text.push_str(&format!(" or {} more", prints.len() - NAMED_MAX));
    }
    text
}

/// Reads a file of authorities.
pub(crate) fn read_ca(path: &Path) -> anyhow::Result<String> {
    let context = || format!("read the broker's authority {}", path.display());
    let length = path.metadata().with_context(context)?.len();
    ensure!(length <= CA_BYTES_MAX, "{}: too long", context());
    std::fs::read_to_string(path).with_context(context)
}

fn at_socket(path: &Path, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Unreachable::Missing(path.to_owned()).into()
        }
        io::ErrorKind::PermissionDenied => closed(path),
        _ => anyhow::Error::new(error).context(format!("connect to broker at {}", path.display())),
    }
}

/// Says whose the socket is that may not be used: its own owner, or that of the directory that hides it.
fn closed(socket: &Path) -> anyhow::Error {
    use std::os::unix::fs::MetadataExt as _;
    let owner = socket
        .ancestors()
        .find_map(|path| Some((path, path.metadata().ok()?.uid())));
    match owner {
        Some((path, uid)) => {
            let name = if uid == 0 { " (root)" } else { "" };
            anyhow::anyhow!(
                "permission denied at {}: {} belongs to user {uid}{name}, and the broker serves its owner only; run this as that user, or \
                 ask them for an access token and `outhaul login`",
                socket.display(),
                path.display(),
            )
        }
        None => anyhow::anyhow!("permission denied at {}", socket.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_brokers_url_is_https_a_name_and_a_port_and_nothing_else() {
        for (text, shown) in [
            ("https://broker.example:8443", "https://broker.example:8443"),
            ("https://broker.example/", "https://broker.example:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), shown);
        }
        for bad in [
            "http://broker.example:8443",
            "broker.example:8443",
            "https://",
            "https://user@broker.example",
            "https://broker.example:8443/v1",
            "https://broker.example:0",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_an_authority_or_a_whole_token_there_is_no_broker() {
        let url: Url = "https://broker.example".parse().unwrap();
        let error = Remote::new(url, b"no certificate", "").unwrap_err();
        assert!(error.to_string().contains("ca list --pem"), "{error:#}");
    }

    #[test]
    fn a_closed_socket_names_its_owner() {
        let error = closed(Path::new("/no-such-directory/outhaul.sock"));
        assert!(
            error.to_string().contains("/ belongs to user 0 (root)"),
            "{error}"
        );
    }
}
