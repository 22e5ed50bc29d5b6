//! One outbound connection: name → TCP → (HTTP CONNECT) → TLS 1.3.
//!
//! MQTT and the HTTPS exchange dial the same way; only the ALPN in their [`Tls`] differs. Names are resolved
//! anew at each attempt, every address is tried, and the whole of it has one deadline. Nothing is remembered between
//! attempts: when to try again is decided in `core`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, future};
use futures_rustls::TlsConnector;
use rustls::pki_types::ServerName;
use smol::Timer;
use smol::net::TcpStream;

use super::tls::Tls;

/// A connection whose peer has shown a certificate that our bundle vouches for.
pub type TlsStream = futures_rustls::client::TlsStream<TcpStream>;

/// How long one attempt may take in all: resolve, connect, proxy, handshake. Long enough for a 500 ms link with loss,
/// short enough that a black hole does not look like a hang.
pub const DIAL_WAIT_MAX: Duration = Duration::from_secs(10);

/// How many addresses of a name are tried. More is a misconfigured zone.
const ADDRESSES_MAX: usize = 8;

/// The longest answer head we take from a proxy, in bytes. Real ones are a few hundred.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// The longest `user:password` we take from a credentials file, in bytes.
const PROXY_CREDENTIALS_BYTES_MAX: usize = 1024;

/// An HTTP proxy that connects us onward with `CONNECT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// `host:port` of the proxy; it is spoken to without TLS, as proxies on a host's own network are.
    pub authority: String,
    /// File holding `user:password` on one line, read anew at each attempt. Whether its mode is safe is for
    /// configuration to check.
    pub credentials: Option<PathBuf>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Ours: the configured authority is not `host:port`.
    #[error("{0} is not host:port")]
    Authority(String),
    /// The name has no address, or no resolver answered.
    #[error("resolve {name}: {source}")]
    Resolve {
        /// The host part that was looked up.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address accepted the connection; the last reason.
    #[error("connect to {authority}: {source}")]
    Connect {
        /// Who was called.
        authority: String,
        /// What the last address answered.
        source: io::Error,
    },
    /// Ours: the proxy credentials could not be read.
    #[error("read proxy credentials {}: {reason}", path.display())]
    Credentials {
        /// The configured file.
        path: PathBuf,
        /// Never a part of its content.
        reason: String,
    },
    /// The proxy answered something other than 2xx.
    #[error("{}", proxy_refusal(*status, *authenticated))]
    ProxyRefused {
        /// HTTP status code.
        status: u16,
        /// Whether credentials had been sent.
        authenticated: bool,
    },
    /// The proxy's answer was no HTTP, too long, or cut off.
    #[error("speak to proxy {authority}: {reason}")]
    Proxy {
        /// The proxy.
        authority: String,
        /// What was wrong with it; none of its bytes.
        reason: String,
    },
    /// The handshake failed: wrong CA, wrong name, dates, no TLS 1.3, or an alert.
    #[error("TLS handshake with {authority}: {reason}")]
    Tls {
        /// Who was called.
        authority: String,
        /// What is wrong, and what to do about it where we know.
        reason: String,
    },
    /// The deadline passed.
    #[error("no connection to {authority} within {} s", wait.as_secs_f32())]
    Timeout {
        /// Who was called.
        authority: String,
        /// The deadline that passed.
        wait: Duration,
    },
}

/// Connects to `authority` (`host:port`, IPv6 in brackets), through `proxy` if there is one, and makes the TLS
/// handshake. The server must show a certificate for the host part of `authority`. With a proxy the name is left for
/// the proxy to resolve.
///
/// # Errors
///
/// [`DialError`], at the latest after `wait` ([`DIAL_WAIT_MAX`] outside tests).
pub async fn dial(
    authority: &str,
    proxy: Option<&Proxy>,
    tls: &Tls,
    wait: Duration,
) -> Result<TlsStream, DialError> {
    let attempt = async {
        let (host, _) = host_and_port(authority)?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| DialError::Authority(authority.to_owned()))?;
        let tcp = reach(authority, proxy, wait).await?;
        TlsConnector::from(Arc::clone(tls.config()))
            .connect(name, tcp)
            .await
            .map_err(|source| tls_error(authority, tls, source))
    };
    within(wait, attempt)
        .await
        .unwrap_or_else(|| Err(timeout(authority, wait)))
}

/// The same without TLS: for the egress process, whose peers make their own handshake through it.
///
/// # Errors
///
/// [`DialError`], at the latest after `wait`.
pub async fn dial_tcp(
    authority: &str,
    proxy: Option<&Proxy>,
    wait: Duration,
) -> Result<TcpStream, DialError> {
    within(wait, reach(authority, proxy, wait))
        .await
        .unwrap_or_else(|| Err(timeout(authority, wait)))
}

async fn reach(
    authority: &str,
    proxy: Option<&Proxy>,
    wait: Duration,
) -> Result<TcpStream, DialError> {
    match proxy {
        None => connect(authority, wait).await,
        Some(proxy) => connect_through(proxy, authority, wait).await,
    }
}

fn timeout(authority: &str, wait: Duration) -> DialError {
    DialError::Timeout {
        authority: authority.to_owned(),
        wait,
    }
}

/// `future`, or nothing once `wait` has passed.
pub(crate) async fn within<T>(wait: Duration, future: impl Future<Output = T>) -> Option<T> {
    future::or(async { Some(future.await) }, async {
        Timer::after(wait).await;
        None
    })
    .await
}

/// Splits `host:port`; brackets around an IPv6 address are taken off.
fn host_and_port(authority: &str) -> Result<(&str, u16), DialError> {
    let refuse = || DialError::Authority(authority.to_owned());
    let (host, port) = authority.rsplit_once(':').ok_or_else(refuse)?;
    let port = port.parse().map_err(|_| refuse())?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(refuse)?,
        None if host.contains(':') => return Err(refuse()),
        None => host,
    };
    // The authority becomes a line of the CONNECT request: nothing that could end that line may pass.
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(refuse());
    }
    Ok((host, port))
}

/// A TCP connection to any address of `authority`. Two thirds of `wait` are shared out among the addresses, so that
/// one black hole leaves time for the others and for the handshake.
async fn connect(authority: &str, wait: Duration) -> Result<TcpStream, DialError> {
    let (host, port) = host_and_port(authority)?;
    let resolve_error = |source| DialError::Resolve {
        name: host.to_owned(),
        source,
    };
    let mut addresses = smol::net::resolve((host, port))
        .await
        .map_err(resolve_error)?;
    addresses.truncate(ADDRESSES_MAX);
    let count = u32::try_from(addresses.len()).unwrap_or(1).max(1);
    let share = wait * 2 / 3 / count;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match within(share, connect_to(address)).await {
            Some(Ok(tcp)) => return Ok(tcp),
            Some(Err(error)) => last = error,
            None => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(DialError::Connect {
        authority: authority.to_owned(),
        source: last,
    })
}

/// One address. Small packets leave at once: a PUBACK must not wait for the next one.
async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// A tunnel to `authority` through `proxy` (RFC 9110 §9.3.6).
async fn connect_through(
    proxy: &Proxy,
    authority: &str,
    wait: Duration,
) -> Result<TcpStream, DialError> {
    let broken = |reason: &str| DialError::Proxy {
        authority: proxy.authority.clone(),
        reason: reason.to_owned(),
    };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(path) = &proxy.credentials {
        let credentials = read_credentials(path).await?;
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&base64(&credentials));
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let mut tcp = connect(&proxy.authority, wait).await?;
    tcp.write_all(request.as_bytes())
        .await
        .map_err(|error| broken(&error.kind().to_string()))?;
    let status = read_status(&mut tcp).await.map_err(broken)?;
    if (200..300).contains(&status) {
        return Ok(tcp);
    }
    Err(DialError::ProxyRefused {
        status,
        authenticated: proxy.credentials.is_some(),
    })
}

/// Reads a proxy's answer up to and including its empty line and returns the status. Byte by byte: whatever follows
/// the head belongs to TLS, and the head is short.
async fn read_status(tcp: &mut TcpStream) -> Result<u16, &'static str> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == PROXY_HEAD_BYTES_MAX {
            return Err("the answer's head is longer than 8 KiB");
        }
        let mut byte = [0];
        match tcp.read(&mut byte).await {
            Ok(0) => return Err("it closed the connection instead of answering"),
            Ok(_) => head.extend_from_slice(&byte),
            Err(_) => return Err("the connection broke before it answered"),
        }
    }
    status_of(&head).ok_or("the answer is not HTTP/1")
}

/// The status of `HTTP/1.x NNN …`.
fn status_of(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b" ")?;
    let (digits, rest) = rest.split_at_checked(3)?;
    let ended = matches!(rest.first(), Some(b' ' | b'\r'));
    if !minor.is_ascii_digit() || !ended || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let status = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
    Some(status)
}

/// The `user:password` in `path`, without its line end.
async fn read_credentials(path: &Path) -> Result<Vec<u8>, DialError> {
    let file = path.to_owned();
    let read = smol::unblock(move || {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let limit = PROXY_CREDENTIALS_BYTES_MAX as u64 + 1;
        std::fs::File::open(file)?
            .take(limit)
            .read_to_end(&mut bytes)?;
        Ok::<_, io::Error>(bytes)
    });
    let refuse = |reason: String| DialError::Credentials {
        path: path.to_owned(),
        reason,
    };
    let bytes = read.await.map_err(|error| refuse(error.to_string()))?;
    if bytes.len() > PROXY_CREDENTIALS_BYTES_MAX {
        return Err(refuse("longer than 1 KiB".to_owned()));
    }
    let line = bytes.trim_ascii_end();
    if !line.contains(&b':') || line.iter().any(u8::is_ascii_control) {
        return Err(refuse("not one line user:password".to_owned()));
    }
    Ok(line.to_vec())
}

/// RFC 4648 §4. Used for one header, so not worth a dependency.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0_u32, |group, index| {
            group << 8 | u32::from(chunk.get(index).copied().unwrap_or(0))
        });
        for index in 0..4 {
            let digit = (group >> (18 - 6 * index)) & 63;
            let letter = ALPHABET.get(digit as usize).copied().unwrap_or(b'=');
            let padding = index > chunk.len();
            text.push(char::from(if padding { b'=' } else { letter }));
        }
    }
    text
}

/// A failed handshake: the peer's certificate or protocol, or the network under it.
fn tls_error(authority: &str, tls: &Tls, source: io::Error) -> DialError {
    let authority = authority.to_owned();
    let inner = source.get_ref();
    if let Some(error) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        let reason = tls.explain(error);
        DialError::Tls { authority, reason }
    } else {
        DialError::Connect { authority, source }
    }
}

/// Whether an I/O error is rustls speaking.
pub(crate) fn is_tls(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>())
}

/// What a proxy's status means to the person who must change something.
fn proxy_refusal(status: u16, authenticated: bool) -> String {
    match (status, authenticated) {
        (407, false) => "the proxy asks for credentials, and none are configured (407)".to_owned(),
        (407, true) => "the proxy refuses the configured credentials (407)".to_owned(),
        (403, _) => "the proxy forbids a tunnel to the broker (403)".to_owned(),
        (502..=504, _) => format!("the proxy cannot reach the broker ({status})"),
        _ => format!("the proxy refuses a tunnel to the broker ({status})"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
