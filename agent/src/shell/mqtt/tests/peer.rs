//! A broker written by hand, for one test each.

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use futures_rustls::server::TlsStream;
use smol::net::{TcpListener, TcpStream};

use super::*;

pub(super) const NONCE: [u8; 8] = *b"nonce-8b";

/// A broker for one test.
pub(super) struct TestBroker {
    pub(super) pki: Pki,
    pub(super) listener: TcpListener,
    pub(super) authority: String,
}

/// Its end of one connection.
pub(super) struct Peer(pub(super) TlsStream<TcpStream>);

impl TestBroker {
    pub(super) async fn start() -> Self {
        let (listener, authority) = listen().await;
        Self {
            pki: Pki::new(),
            listener,
            authority,
        }
    }

    pub(super) fn options(&self) -> LinkOptions {
        LinkOptions {
            authority: self.authority.clone(),
            proxy: None,
            tls: self.pki.client(),
            client_id: "edge-1".to_owned(),
            token: b"token".to_vec(),
            prove: Prover::new(|nonce| {
                let mut proof = [7; 72];
                proof[..8].copy_from_slice(nonce);
                proof
            }),
            keep_alive: Duration::from_secs(30),
            subscribe: None,
            up_wait: Duration::from_secs(5),
        }
    }

    /// Lets little wait unread on the connections to come: by itself the kernel holds megabytes, as loopback's segments are long and
    /// its send buffer is a number of segments.
    pub(super) fn with_short_buffers(self) -> Self {
        let socket = socket2::SockRef::from(&self.listener);
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.set_tcp_mss(536).unwrap();
        self
    }

    pub(super) async fn accept(&self) -> Peer {
        let (tcp, _) = self.listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Peer(self.pki.acceptor().accept(tcp).await.unwrap())
    }

    /// A link that is up, and the broker's end of it.
    pub(super) async fn connected(&self, options: LinkOptions) -> (Link, Peer) {
        let link = Link::open(options);
        let mut peer = self.accept().await;
        peer.challenge().await;
        peer.send(&connack(0, &[])).await;
        assert!(matches!(next(&link).await, LinkEvent::Up(_)));
        (link, peer)
    }
}

impl Peer {
    /// First byte and body of the next packet; nothing when the client is gone.
    pub(super) async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.0.read_exact(&mut byte).await.ok()?;
        let first = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            self.0.read_exact(&mut byte).await.ok()?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.ok()?;
        Some((first, body))
    }

    pub(super) async fn send(&mut self, packet: &[u8]) {
        self.0.write_all(packet).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// CONNECT, challenge, proof. Yields the CONNECT's body.
    pub(super) async fn challenge(&mut self) -> Vec<u8> {
        let (first, connect) = self.receive().await.unwrap();
        assert_eq!(first, 0x10);
        self.send(&auth(0x18, &NONCE)).await;
        self.expect_proof().await;
        connect
    }

    pub(super) async fn expect_proof(&mut self) {
        let mut proof = [7; 72];
        proof[..8].copy_from_slice(&NONCE);
        assert_eq!(self.receive().await.unwrap(), split(&auth(0x18, &proof)));
    }

    /// Packet id and payload of the next PUBLISH.
    pub(super) async fn publish(&mut self) -> (u16, Vec<u8>) {
        let (first, body) = self.receive().await.unwrap();
        assert_eq!(first, 0x32, "QoS 1, neither DUP nor retain");
        let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
        assert_eq!(&body[2..2 + topic], b"v1/edge-1/reports");
        let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
        (id, body[5 + topic..].to_vec())
    }
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128, "one byte of length is enough here");
    [&[first, u8::try_from(body.len()).unwrap()], body].concat()
}

pub(super) fn split(packet: &[u8]) -> (u8, Vec<u8>) {
    (packet[0], packet[2..].to_vec())
}

pub(super) fn properties(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Method `ace`, and data if there is any.
pub(super) fn auth_bytes(data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x15\0\x03ace".to_vec();
    if !data.is_empty() {
        bytes.extend([0x16, 0, u8::try_from(data.len()).unwrap()]);
        bytes.extend(data);
    }
    bytes
}

pub(super) fn auth(code: u8, data: &[u8]) -> Vec<u8> {
    packet(
        0xf0,
        &[&[code][..], &properties(&auth_bytes(data))].concat(),
    )
}

pub(super) fn connack(code: u8, more: &[u8]) -> Vec<u8> {
    let all = [&auth_bytes(&[]), more].concat();
    packet(0x20, &[&[0, code][..], &properties(&all)].concat())
}

pub(super) fn puback(id: u16, code: u8) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    packet(0x40, &[high, low, code, 0])
}

pub(super) fn command(id: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    packet(
        0x32,
        &[b"\0\x12v1/edge-1/commands", &[high, low, 0][..], payload].concat(),
    )
}
