//! The port, with real TLS on the loopback.

use std::net::Ipv4Addr;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::{
    core::{gate::tests::Said, proxy_protocol::header},
    shell::{
        certificate::{Certificates, TlsFiles},
        connection::tests::{Client, World},
        keys::DataDir,
    },
};

/// Nothing here takes as long.
const DEADLINE: Duration = Duration::from_secs(20);

/// A client whose HTTP requests never end.
const SLOW: [u8; 4] = [192, 0, 2, 66];

struct Port {
    world: World,
    address: SocketAddr,
    authority: String,
    _place: tempfile::TempDir,
}

impl Port {
    async fn open() -> Self {
        Self::open_behind(&[]).await
    }

    /// A port that takes PROXY headers from these.
    async fn open_behind(proxies: &[&str]) -> Self {
        let world = World::new().await;
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        let certificates =
            Certificates::open(&directory, "localhost", &TlsFiles::default(), clock::unix())
                .unwrap();
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |mut stream: TlsStream<TcpStream>, peer: SocketAddr, stay| async move {
            if peer.ip() == IpAddr::from(SLOW) {
                std::future::pending::<()>().await;
            }
            drop::<Arc<Stay>>(stay);
            stream.write_all(b"http").await.unwrap();
            stream.shutdown().await.unwrap();
        };
        tokio::spawn(serve(
            listener,
            certificates.current(),
            world.gate.clone(),
            proxies.iter().map(|range| range.parse().unwrap()).collect(),
            answer,
        ));
        Self {
            world,
            address,
            authority: certificates.facts().borrow().authorities_pem(),
            _place: place,
        }
    }

    async fn dial(&self, alpn: &[&str]) -> io::Result<client::TlsStream<TcpStream>> {
        self.dial_after(&[], alpn).await
    }

    /// Sends `first`, and makes the handshake behind it.
    async fn dial_after(
        &self,
        first: &[u8],
        alpn: &[&str],
    ) -> io::Result<client::TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut stream = TcpStream::connect(self.address).await?;
        stream.write_all(first).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

async fn read_all(mut stream: client::TlsStream<TcpStream>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    // Who closes without a word does not end TLS either.
    drop(read);
    bytes
}

#[test]
fn a_fleet_connects_before_the_first_of_it_is_accepted() {
    const FLEET: usize = 1_000;
    /// Past a full backlog the kernel drops the first packet, and the client sends it again after a second.
    const NO_REPEAT: Duration = Duration::from_millis(900);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = listener.local_addr().unwrap();
    let fleet: io::Result<Vec<_>> = (0..FLEET)
        .map(|_| std::net::TcpStream::connect_timeout(&address, NO_REPEAT))
        .collect();
    assert_eq!(fleet.unwrap().len(), FLEET);
}

#[tokio::test]
async fn mqtt_is_spoken_by_alpn_and_by_its_first_byte() {
    let port = Port::open().await;
    for alpn in [&["mqtt"][..], &[]] {
        let mut client = Client::new(port.dial(alpn).await.unwrap());
        port.world.login_sandbox(&mut client, "build-7").await;
    }
    assert_eq!(port.world.gate.metrics.mqtt.count(), 2);
}

#[tokio::test]
async fn http_is_spoken_by_alpn_and_by_its_first_byte() {
    let port = Port::open().await;
    let by_alpn = port.dial(&["http/1.1"]).await.unwrap();
    assert_eq!(read_all(by_alpn).await, b"http");
    let mut by_byte = port.dial(&[]).await.unwrap();
    by_byte.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    assert_eq!(read_all(by_byte).await, b"http");
    assert_eq!(port.world.gate.metrics.http.count(), 2);
}

#[tokio::test]
async fn what_is_neither_is_closed_without_a_word() {
    let port = Port::open().await;
    for first in [&b"\0\0\0"[..], b"\x16\x03\x01", b" GET"] {
        let mut stream = port.dial(&[]).await.unwrap();
        stream.write_all(first).await.unwrap();
        assert_eq!(read_all(stream).await, b"");
    }
    let mut stream = port.dial(&["mqtt"]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(read_all(stream).await, b"", "it agreed to speak MQTT");
}

#[tokio::test]
async fn an_alpn_of_neither_is_refused_by_tls() {
    let port = Port::open().await;
    assert!(port.dial(&["h2"]).await.is_err());
}

#[tokio::test]
async fn clients_that_say_nothing_hold_nobody_up() {
    let port = Port::open().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(port.address).await.unwrap());
    }
    let mut dribbling = TcpStream::connect(port.address).await.unwrap();
    dribbling.write_all(&[0x16]).await.unwrap();
    let login = async {
        let mut client = Client::new(port.dial(&["mqtt"]).await.unwrap());
        port.world.login_sandbox(&mut client, "build-7").await;
    };
    timeout(STRANGER_WAIT / 2, login).await.unwrap();
    let began = clock::mono();
    let mut byte = [0; 1];
    let closed = timeout(DEADLINE, dribbling.read(&mut byte)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert!(clock::mono() - began < STRANGER_WAIT + Duration::from_secs(2));
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let port = Port::open().await;
    let mut stream = port.dial(&["mqtt"]).await.unwrap();
    let mut bytes = Vec::new();
    protocol::mqtt::Connect::new("edge-1", 30)
        .encode(&mut bytes)
        .unwrap();
    bytes.resize(30_000, 0xAA);
    stream.write_all(&bytes).await.unwrap();
    let mut client = Client::new(stream);
    assert_eq!(client.next().await, Some(Said::ConnAck(0x8C)));
    assert_eq!(client.next().await, None);
}

/// A header of TCP over IPv4 from an address.
fn from(address: [u8; 4]) -> Vec<u8> {
    let rest = [127, 0, 0, 1, 0xC3, 0x50, 0x20, 0xFB];
    header(0x21, 0x11, &[&address[..], &rest].concat())
}

#[tokio::test]
async fn behind_a_load_balancer_each_client_has_its_own_share_and_the_balancer_none() {
    let port = Port::open_behind(&["10.0.0.0/8", "127.0.0.1"]).await;
    // A crowd that has its share and more; it says one byte and holds its room.
    let mut crowd = Vec::new();
    for _ in 0..=STRANGERS_PER_ADDRESS_MAX {
        let mut stream = TcpStream::connect(port.address).await.unwrap();
        stream.write_all(&from([192, 0, 2, 1])).await.unwrap();
        stream.write_all(&[0x16]).await.unwrap();
        crowd.push(stream);
    }
    let others = async {
        for last in 2..5 {
            let stream = port.dial_after(&from([192, 0, 2, last]), &["mqtt"]).await;
            let mut client = Client::new(stream.unwrap());
            let name = format!("build-{last}");
            port.world.login_sandbox(&mut client, &name).await;
        }
    };
    timeout(STRANGER_WAIT / 2, others).await.unwrap();
    let late = from([192, 0, 2, 1]);
    let delayed = port.dial_after(&late, &["mqtt"]);
    let delayed = timeout(Duration::from_millis(300), delayed).await;
    assert!(delayed.is_err(), "its own crowd is before it");
    // The balancer's own look, and one of whom it knows nothing, are its own address's.
    for own in [header(0x20, 0, &[]), header(0x21, 0, &[])] {
        assert!(port.dial_after(&own, &["http/1.1"]).await.is_ok());
    }
    assert_eq!(port.world.gate.metrics.proxy_failed.count(), 0);
}

#[tokio::test]
async fn case_106_a_load_balancer_that_does_not_say_whose_a_connection_is_is_not_served() {
    let port = Port::open_behind(&["127.0.0.1"]).await;
    assert!(port.dial(&["mqtt"]).await.is_err(), "no header");
    let v1 = b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 8443\r\n";
    assert!(port.dial_after(v1, &["mqtt"]).await.is_err(), "version 1");
    let long = header(0x21, 0x11, &[0; 2000]);
    assert!(port.dial_after(&long, &["mqtt"]).await.is_err(), "too long");
    let mut half = TcpStream::connect(port.address).await.unwrap();
    half.write_all(&from([192, 0, 2, 1])[..20]).await.unwrap();
    let began = clock::mono();
    let closed = timeout(DEADLINE, half.read(&mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "half a header");
    assert!(clock::mono() - began < STRANGER_WAIT + Duration::from_secs(2));
    assert_eq!(port.world.gate.metrics.proxy_failed.count(), 4);
}

#[tokio::test]
async fn case_106_a_header_from_anyone_else_is_refused() {
    let port = Port::open_behind(&["10.0.0.0/8"]).await;
    let dialled = port.dial_after(&from([192, 0, 2, 1]), &["mqtt"]).await;
    assert!(dialled.is_err());
    assert!(port.dial(&["mqtt"]).await.is_ok());
}

#[tokio::test]
async fn http_that_never_ends_takes_no_more_room_than_its_addresss_share() {
    let port = Arc::new(Port::open_behind(&["127.0.0.1"]).await);
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..=HTTP_MAX {
        let port = Arc::clone(&port);
        slow.spawn(async move {
            let stream = port.dial_after(&from(SLOW), &["http/1.1"]).await;
            std::future::pending::<()>().await;
            drop(stream);
        });
    }
    // As many as may are in, and have begun to take up the room.
    while port.world.gate.metrics.http.count() < STRANGERS_PER_ADDRESS_MAX as u64 {
        tokio::task::yield_now().await;
    }
    let first = from([192, 0, 2, 1]);
    let other = port.dial_after(&first, &["http/1.1"]);
    let other = timeout(STRANGER_WAIT / 2, other).await.unwrap().unwrap();
    assert_eq!(read_all(other).await, b"http");
    let in_room = port.world.gate.metrics.http.count();
    assert_eq!(in_room, STRANGERS_PER_ADDRESS_MAX as u64 + 1);
}

#[test]
fn a_client_that_is_gone_before_it_is_accepted_makes_nobody_wait() {
    let of = |code| is_of_one_client(&io::Error::from_raw_os_error(code));
    let (aborted, too_many, in_all) = (103, 24, 23);
    assert!(of(aborted));
    assert!(!of(too_many) && !of(in_all), "out of descriptors: a pause");
}
