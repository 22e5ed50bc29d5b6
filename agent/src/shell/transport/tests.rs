//! Dialling, against a TLS server and a proxy of our own on the loopback.

use std::io::Write as _;

use futures_rustls::TlsAcceptor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use smol::net::TcpListener;

use super::*;
use crate::shell::tokio::{block_on, spawn};

/// 2030-01-01: inside the validity of the test certificates whatever this machine's clock says.
const IN_TIME: u64 = 1_893_456_000;

/// 2100-01-01: after it.
const TOO_LATE: u64 = 4_102_444_800;

/// 2010-01-01: before it.
const TOO_EARLY: u64 = 1_262_304_000;

/// A clock that stands still, in Unix seconds.
#[derive(Debug)]
struct Stopped(u64);

impl TimeProvider for Stopped {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
    }
}

/// A CA made for one test, and a server it vouches for as `localhost`.
pub(crate) struct Pki {
    pub(crate) ca_pem: String,
    server: Arc<ServerConfig>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let leaf = params.signed_by(&key, &ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        server.alpn_protocols = vec![b"mqtt".to_vec(), b"http/1.1".to_vec()];
        Self {
            ca_pem: ca.pem(),
            server: Arc::new(server),
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    pub(crate) fn client(&self) -> Tls {
        self.client_at(IN_TIME)
    }

    fn client_at(&self, unix: u64) -> Tls {
        Tls::new(self.ca_pem.as_bytes(), b"mqtt", Arc::new(Stopped(unix))).unwrap()
    }
}

/// A listener on the loopback, and its authority by the name in the certificate.
pub(crate) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("localhost:{port}"))
}

/// A proxy that reads one request head, answers with `answer`, and on a 200 passes bytes on to the authority asked
/// for. The task yields the request head.
pub(crate) fn proxy(listener: TcpListener, answer: &'static str) -> smol::Task<String> {
    spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            near.read_exact(&mut byte).await.unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        near.write_all(answer.as_bytes()).await.unwrap();
        if answer.contains(" 200 ") {
            let authority = head.split(' ').nth(1).unwrap();
            let far = TcpStream::connect(authority).await.unwrap();
            let up = smol::io::copy(near.clone(), far.clone());
            let down = smol::io::copy(far, near);
            let pipes = future::or(up, down);
            spawn(async move { drop(pipes.await) }).detach();
        }
        head
    })
}

const WAIT: Duration = Duration::from_secs(5);

/// Dials a server of `pki` with `client`'s trust; yields what the dial said.
async fn dial_server(pki: &Pki, client: Tls, host: &str) -> Result<TlsStream, DialError> {
    let (listener, authority) = listen().await;
    let acceptor = pki.acceptor();
    let server = spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        drop(acceptor.accept(tcp).await);
    });
    let authority = authority.replace("localhost", host);
    let dialled = dial(&authority, None, &client, WAIT).await;
    drop(server);
    dialled
}

#[test]
fn a_server_our_ca_vouches_for_is_reached_with_tls_1_3_and_our_alpn() {
    block_on(async {
        let pki = Pki::new();
        let stream = dial_server(&pki, pki.client(), "localhost").await.unwrap();
        let (_, tls) = stream.get_ref();
        assert_eq!(
            tls.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
        assert_eq!(tls.alpn_protocol(), Some(b"mqtt".as_slice()));
    })
    .unwrap();
}

/// What a person reads about a handshake that failed.
fn reason(dialled: Result<TlsStream, DialError>) -> String {
    let error = dialled.unwrap_err();
    assert!(matches!(error, DialError::Tls { .. }), "{error}");
    error.to_string()
}

#[test]
fn another_ca_another_name_and_a_date_that_does_not_fit_say_what_was_expected_and_what_to_do() {
    block_on(async {
        let pki = Pki::new();
        let other = Pki::new();
        let said = reason(dial_server(&pki, other.client(), "localhost").await);
        let pin = CertificateDer::from_pem_slice(other.ca_pem.as_bytes()).unwrap();
        let pin = protocol::bundle::fingerprint(&pin);
        for part in [pin.as_str(), "outhaul ca list --pem", "ca.crt", "proxy"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = reason(dial_server(&pki, pki.client(), "127.0.0.1").await);
        for part in ["DnsName(localhost)", "not for 127.0.0.1", "public_address"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = reason(dial_server(&pki, pki.client_at(TOO_LATE), "localhost").await);
        assert!(said.contains("ended 21915 days ago"), "{said}");
        let said = reason(dial_server(&pki, pki.client_at(TOO_EARLY), "localhost").await);
        assert!(
            said.contains("counts in 3652 days only") && said.contains("clock"),
            "{said}"
        );
    })
    .unwrap();
}

#[test]
fn a_bundle_without_a_certificate_is_refused() {
    assert!(Tls::new(b"no PEM here", b"mqtt", Arc::new(Stopped(IN_TIME))).is_err());
}

#[test]
fn every_authority_in_a_bundle_is_trusted_and_all_of_them_are_named() {
    block_on(async {
        let pki = Pki::new();
        let others: String = (0..3).map(|_| Pki::new().ca_pem).collect();
        let both = others.clone()
            + &crate::shell::tls::to_pem(
                &CertificateDer::from_pem_slice(pki.ca_pem.as_bytes()).unwrap(),
            );
        let client =
            |pem: &str| Tls::new(pem.as_bytes(), b"mqtt", Arc::new(Stopped(IN_TIME))).unwrap();
        assert!(dial_server(&pki, client(&both), "localhost").await.is_ok());
        let many = others + &Pki::new().ca_pem + &Pki::new().ca_pem;
        let said = reason(dial_server(&pki, client(&many), "localhost").await);
        assert!(said.contains(" or 2 more)"), "{said}");
    })
    .unwrap();
}

#[test]
fn nobody_listening_is_a_connect_error_and_an_unknown_name_a_resolve_error() {
    block_on(async {
        let pki = Pki::new();
        let (listener, authority) = listen().await;
        drop(listener);
        let refused = dial(&authority, None, &pki.client(), WAIT).await;
        assert!(matches!(refused, Err(DialError::Connect { .. })));
        let unknown = dial("no-such-host.invalid:1", None, &pki.client(), WAIT).await;
        assert!(matches!(unknown, Err(DialError::Resolve { .. })));
    })
    .unwrap();
}

#[test]
fn a_server_that_never_answers_the_handshake_costs_one_deadline() {
    block_on(async {
        let pki = Pki::new();
        let (_listener, authority) = listen().await;
        let wait = Duration::from_millis(50);
        let silent = dial(&authority, None, &pki.client(), wait).await;
        assert!(matches!(silent, Err(DialError::Timeout { .. })));
    })
    .unwrap();
}

#[test]
fn a_proxy_connects_us_onward_with_credentials_from_a_file() {
    block_on(async {
        let pki = Pki::new();
        let (listener, authority) = listen().await;
        let acceptor = pki.acceptor();
        let server = spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            acceptor.accept(tcp).await.map(drop)
        });
        let (listener, proxy_authority) = listen().await;
        let seen = proxy(
            listener,
            "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n",
        );
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "aladdin:opensesame").unwrap();
        let proxy = Proxy {
            authority: proxy_authority,
            credentials: Some(file.path().to_owned()),
        };
        let stream = dial(&authority, Some(&proxy), &pki.client(), WAIT).await;
        server.await.unwrap();
        stream.unwrap();
        assert_eq!(
            seen.await,
            format!(
                "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\
                 Proxy-Authorization: Basic YWxhZGRpbjpvcGVuc2VzYW1l\r\n\r\n"
            )
        );
    })
    .unwrap();
}

#[test]
fn a_proxys_refusal_says_what_to_do_and_its_nonsense_is_bounded() {
    let endless: &'static str = Box::leak(format!("HTTP/1.1 200 {}", "x".repeat(9000)).into());
    let cases = [
        ("HTTP/1.1 407 Who are you\r\n\r\n", "asks for credentials"),
        ("HTTP/1.0 403 No\r\n\r\n", "forbids"),
        ("HTTP/1.1 503\r\n\r\n", "cannot reach"),
        ("SSH-2.0-x\r\n\r\n", "not HTTP"),
        ("HTTP/1.1 200", "closed the connection"),
        (endless, "longer than 8 KiB"),
    ];
    for (answer, meaning) in cases {
        block_on(async {
            let (listener, authority) = listen().await;
            let answering = spawn(async move {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let _ = tcp.read(&mut [0; 1024]).await;
                let _ = tcp.write_all(answer.as_bytes()).await;
                let _ = tcp.shutdown(std::net::Shutdown::Write);
                tcp
            });
            let proxy = Proxy {
                authority,
                credentials: None,
            };
            let dialled = dial("localhost:1", Some(&proxy), &Pki::new().client(), WAIT).await;
            drop(answering.await);
            let error = dialled.unwrap_err().to_string();
            assert!(error.contains(meaning), "{error}");
            assert!(!error.contains("Who are you"), "{error}");
        })
        .unwrap();
    }
}

#[test]
fn an_authority_is_a_host_and_a_port_and_nothing_else() {
    assert_eq!(host_and_port("a.b:1").unwrap(), ("a.b", 1));
    assert_eq!(host_and_port("[::1]:8443").unwrap(), ("::1", 8443));
    for bad in [
        "a",
        "a:",
        ":1",
        "a:65536",
        "::1:1",
        "[::1:1",
        "a b:1",
        "a\r\nX: y:1",
        "a@b:1",
    ] {
        assert!(host_and_port(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_status_line_is_read_strictly() {
    assert_eq!(status_of(b"HTTP/1.1 200 OK\r\n\r\n"), Some(200));
    assert_eq!(status_of(b"HTTP/1.0 407\r\n\r\n"), Some(407));
    for bad in [
        &b"HTTP/2 200\r\n"[..],
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000\r\n",
        b"HTTP/1.1 -20 \r\n",
        b"",
    ] {
        assert_eq!(status_of(bad), None);
    }
}

#[test]
fn credentials_are_one_short_line() {
    let read = |content: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        smol::block_on(read_credentials(file.path()))
    };
    assert_eq!(read(b"user:pass word\r\n").unwrap(), b"user:pass word");
    for bad in [&b"user"[..], b"a:b\nc:d\n", &[b':'; 1025]] {
        let error = read(bad).unwrap_err().to_string();
        assert!(!error.contains("c:d"), "{error}");
    }
}

#[test]
fn base64_agrees_with_rfc_4648() {
    let vectors = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];
    for (plain, coded) in vectors {
        assert_eq!(base64(plain.as_bytes()), coded);
    }
}
