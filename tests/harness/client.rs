//! A plain MQTT 5 client over TLS, blocking, that sends whatever a test tells it to.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use protocol::{
    key::{Role, Secret},
    limits::PACKET_BYTES_MAX,
    mqtt::{
        Auth, ClientPacket, Connect, Delivery, PacketId, ReasonCode, ServerPacket, Version,
        decode_server, frame,
    },
    possession,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};

/// How long an answer may take.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// Whole packets over a byte stream.
#[derive(Debug)]
pub struct Packets<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Packets<S> {
    /// Packets over `stream`.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .context("send a packet")
    }

    /// The bytes of the next packet.
    ///
    /// # Errors
    /// If the connection ends, or nothing comes in time.
    pub fn receive(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(frame) = frame(&self.buffer, PACKET_BYTES_MAX * 2)
                .map_err(|error| anyhow::anyhow!("{error}"))?
            {
                let rest = self.buffer.split_off(frame.total_bytes());
                return Ok(std::mem::replace(&mut self.buffer, rest));
            }
            let mut part = [0; 4096];
            let count = self.stream.read(&mut part).context("receive a packet")?;
            anyhow::ensure!(count > 0, "the connection ended");
            self.buffer
                .extend_from_slice(part.get(..count).unwrap_or_default());
        }
    }
}

/// How a client of ours dials: TLS 1.3, this authority, and these protocols.
///
/// # Errors
/// If the authority cannot be read.
pub fn tls_config(ca: &Path, protocols: &[&[u8]]) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).context("read the CA")? {
        roots.add(certificate.context("read the CA")?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(config)
}

/// What a broker said, as far as tests ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// CONNACK with its reason.
    ConnAck(ReasonCode),
    /// AUTH with its data.
    Auth(Vec<u8>),
    /// PUBACK with its reason.
    PubAck(ReasonCode),
    /// SUBACK with its reasons.
    SubAck(Vec<u8>),
    /// DISCONNECT with its reason.
    Disconnect(ReasonCode),
    /// A message.
    Publish(Vec<u8>),
    /// PINGRESP.
    Pong,
}

/// A message for a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Names it in the acknowledgement; none at QoS 0.
    pub id: Option<PacketId>,
    /// It may have been sent before.
    pub is_repeat: bool,
    /// Its offset in the journal.
    pub offset: u64,
    /// The incarnation that gave it.
    pub incarnation: u64,
    /// Offsets before it that cannot be read any more, `first-last`.
    pub gap: Option<String>,
    /// Those of them that a restore withdrew, `first-last`.
    pub withdrawn: Option<String>,
    /// What was published.
    pub payload: Vec<u8>,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    packets: Packets<StreamOwned<ClientConnection, TcpStream>>,
}

impl Client {
    /// A TLS connection, nothing said yet.
    ///
    /// # Errors
    /// If the broker cannot be reached, or its certificate does not follow from `ca`.
    pub fn dial(port: u16, ca: &Path) -> anyhow::Result<Self> {
        let config = tls_config(ca, &[b"mqtt"])?;
        let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
        let tcp = TcpStream::connect(("127.0.0.1", port)).context("dial the broker")?;
        tcp.set_read_timeout(Some(ANSWER_WAIT))?;
        tcp.set_nodelay(true)?;
        Ok(Self {
            packets: Packets::new(StreamOwned::new(tls, tcp)),
        })
    }

    /// The certificate that the broker shows, DER, once the handshake is done.
    ///
    /// # Errors
    /// If there is no handshake: most likely it does not follow from the authority that was named.
    pub fn server_certificate(&mut self) -> anyhow::Result<Vec<u8>> {
        let StreamOwned { conn, sock } = &mut self.packets.stream;
        while conn.is_handshaking() {
            conn.complete_io(sock).context("make the TLS handshake")?;
        }
        let shown = conn.peer_certificates().and_then(<[_]>::first);
        Ok(shown.context("no certificate")?.to_vec())
    }

    /// Connects with a token and proves possession of its key; what the broker says to that.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn connect<R: Role>(
        &mut self,
        client_id: &str,
        token: &[u8],
        key: &Secret<R>,
    ) -> anyhow::Result<Said> {
        let length = u16::try_from(token.len())?;
        let data = [&length.to_be_bytes(), token].concat();
        let mut connect = Connect::new(client_id, 30);
        connect.auth_method = Some("ace");
        connect.auth_data = Some(&data);
        self.send(&ClientPacket::Connect(connect))?;
        match self.receive()? {
            Said::Auth(challenge) => {
                let challenge = challenge
                    .as_slice()
                    .try_into()
                    .context("read the challenge")?;
                let proof = possession::prove(key, &challenge, &[7; 8]);
                self.send(&ClientPacket::Auth(Auth::new(
                    ReasonCode::CONTINUE_AUTHENTICATION,
                    "ace",
                    Some(&proof),
                )))?;
                self.receive()
            }
            said => Ok(said),
        }
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, packet: &ClientPacket<'_>) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        packet
            .encode(Version::V5, &mut bytes)
            .map_err(|error| anyhow::anyhow!("{error}"))?;
        self.packets.send(&bytes)
    }

    /// The next message for a reader; whatever else comes is passed over.
    ///
    /// # Errors
    /// If the connection ends, or nothing comes in time.
    pub fn receive_message(&mut self) -> anyhow::Result<Message> {
        loop {
            if let Some(message) = self.receive_message_or_pong()? {
                return Ok(message);
            }
        }
    }

    /// The next message for a reader, or none for a PINGRESP; whatever else comes is passed over.
    ///
    /// # Errors
    /// If the connection ends, or nothing comes in time.
    pub fn receive_message_or_pong(&mut self) -> anyhow::Result<Option<Message>> {
        loop {
            let bytes = self.packets.receive()?;
            let frame = frame(&bytes, bytes.len()).ok().flatten();
            let packet = decode_server(&frame.context("read a packet")?, Version::V5)
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            let publish = match packet {
                ServerPacket::Publish(publish) => publish,
                ServerPacket::PingResp => return Ok(None),
                _ => continue,
            };
            let property = |name| {
                let mut properties = publish.properties.user_properties.iter();
                let found = properties.find(|(key, _)| *key == name);
                found.map(|(_, value)| value)
            };
            return Ok(Some(Message {
                id: publish.delivery.packet_id(),
                is_repeat: matches!(publish.delivery, Delivery::AtLeastOnce { dup: true, .. }),
                offset: property("offset").context("no offset")?.parse()?,
                incarnation: property("incarnation").context("no incarnation")?.parse()?,
                gap: property("gap").map(str::to_owned),
                withdrawn: property("withdrawn").map(str::to_owned),
                payload: publish.payload.to_vec(),
            }));
        }
    }

    /// What the broker says next.
    ///
    /// # Errors
    /// If the connection ends, or nothing comes in time.
    pub fn receive(&mut self) -> anyhow::Result<Said> {
        let bytes = self.packets.receive()?;
        let frame = frame(&bytes, bytes.len())
            .ok()
            .flatten()
            .context("read a packet")?;
        let packet =
            decode_server(&frame, Version::V5).map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(match packet {
            ServerPacket::ConnAck(connack) => Said::ConnAck(connack.reason),
            ServerPacket::Auth(auth) => Said::Auth(auth.data.unwrap_or_default().to_vec()),
            ServerPacket::Ack(ack) => Said::PubAck(ack.reason),
            ServerPacket::SubAck(suback) => {
                Said::SubAck(suback.reasons.iter().map(ReasonCode::value).collect())
            }
            ServerPacket::Disconnect(disconnect) => Said::Disconnect(disconnect.reason),
            ServerPacket::Publish(publish) => Said::Publish(publish.payload.to_vec()),
            ServerPacket::PingResp => Said::Pong,
        })
    }
}
