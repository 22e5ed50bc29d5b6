//! A broker in an enemy's hands: it holds every file of the real one, answers at its address, lets the operator in, and sends it
//! whatever it likes.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    num::NonZeroU16,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use protocol::mqtt::{
    Ack, Auth, ClientPacket, ConnAck, Delivery, PINGRESP, Publish, ReasonCode, SubAck, Version,
    decode_client, frame,
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{client::Packets, wait};

/// How long a read waits before commands are looked for.
const READ_WAIT: Duration = Duration::from_millis(50);

/// The hostile broker.
#[derive(Debug)]
pub struct Hostile {
    commands: Option<Sender<Vec<u8>>>,
    acknowledged: Receiver<u16>,
    thread: Option<JoinHandle<()>>,
    sent: u16,
}

impl Hostile {
    /// Listens at the real broker's port with the real broker's certificate and key. The real one must be gone.
    ///
    /// # Errors
    /// If the files or the port cannot be had.
    pub fn start(port: u16, broker_files: &Path, topic: String) -> anyhow::Result<Self> {
        let config = server_config(broker_files)?;
        let listener = TcpListener::bind(("127.0.0.1", port)).context("take the broker's place")?;
        listener.set_nonblocking(true)?;
        let (commands, to_send) = mpsc::channel::<Vec<u8>>();
        let (acknowledgements, acknowledged) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // One connection at a time is enough: there is one operator. It ends when the test drops its sender.
            let mut ended = false;
            while !ended {
                let tcp = wait::until("the operator to dial the hostile broker", || {
                    listener.accept().ok()
                })
                .0;
                // An operator that breaks off dials again.
                ended = serve(tcp, config.clone(), &topic, &to_send, &acknowledgements).is_ok();
            }
        });
        Ok(Self {
            commands: Some(commands),
            acknowledged,
            thread: Some(thread),
            sent: 0,
        })
    }

    /// Sends a command to the operator, and waits until the operator has acknowledged that it got it.
    ///
    /// # Errors
    /// If it does not within a minute.
    pub fn command(&mut self, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.sent += 1;
        let commands = self
            .commands
            .as_ref()
            .context("the hostile broker has ended")?;
        commands
            .send(bytes)
            .context("the hostile broker has ended")?;
        let id = self
            .acknowledged
            .recv_timeout(Duration::from_secs(60))
            .context("the operator acknowledges nothing")?;
        anyhow::ensure!(
            id == self.sent,
            "the operator acknowledges {id}, not {}",
            self.sent
        );
        Ok(())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves one connection; returns in peace once the test is over.
fn serve(
    tcp: TcpStream,
    config: Arc<ServerConfig>,
    topic: &str,
    commands: &Receiver<Vec<u8>>,
    acknowledgements: &Sender<u16>,
) -> anyhow::Result<()> {
    tcp.set_nonblocking(false)?;
    tcp.set_read_timeout(Some(READ_WAIT))?;
    let mut packets = Packets::new(StreamOwned::new(ServerConnection::new(config)?, tcp));
    let mut subscribed = false;
    let mut id = NonZeroU16::MIN;
    loop {
        match packets.receive() {
            Ok(bytes) => {
                let frame = frame(&bytes, bytes.len())
                    .ok()
                    .flatten()
                    .context("read a packet")?;
                let packet = decode_client(&frame, Version::V5)
                    .map_err(|error| anyhow::anyhow!("{error}"))?;
                if let ClientPacket::Ack(ack) = &packet {
                    acknowledgements
                        .send(ack.id.get())
                        .context("tell the test")?;
                }
                subscribed |= matches!(packet, ClientPacket::Subscribe(_));
                packets.send(&answer(&packet)?)?;
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error),
        }
        if !subscribed {
            continue;
        }
        match commands.try_recv() {
            Ok(payload) => {
                let mut out = Vec::new();
                let publish = Publish::new(topic, Delivery::at_least_once(id), &payload);
                publish
                    .encode(Version::V5, &mut out)
                    .map_err(|error| anyhow::anyhow!("{error}"))?;
                packets.send(&out)?;
                id = id.checked_add(1).unwrap_or(NonZeroU16::MIN);
            }
            Err(mpsc::TryRecvError::Empty) => {}
            Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

/// What a broker that believes everything says.
fn answer(packet: &ClientPacket<'_>) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let encoded = match packet {
        ClientPacket::Connect(_) => {
            Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, "ace", Some(&[5; 8])).encode(&mut out)
        }
        ClientPacket::Auth(_) => {
            let mut connack = ConnAck::new(ReasonCode::SUCCESS);
            connack.auth_method = Some("ace");
            connack.encode(Version::V5, &mut out)
        }
        ClientPacket::Subscribe(subscribe) => {
            SubAck::to_subscribe(subscribe.id, (&[ReasonCode::GRANTED_QOS_1]).into())
                .encode(Version::V5, &mut out)
        }
        ClientPacket::Publish(publish) => match publish.delivery.packet_id() {
            Some(id) => Ack::puback(id, ReasonCode::SUCCESS).encode(Version::V5, &mut out),
            None => Ok(()),
        },
        ClientPacket::PingReq => {
            out.extend_from_slice(&PINGRESP);
            Ok(())
        }
        ClientPacket::Ack(_) | ClientPacket::Unsubscribe(_) | ClientPacket::Disconnect(_) => Ok(()),
    };
    encoded.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(out)
}

fn is_timeout(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        )
    })
}

fn server_config(broker_files: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let certificate =
        fs::read(broker_files.join("server.crt")).context("read the broker's certificate")?;
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(broker_files.join("server.key"))
        .context("read the broker's key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    Ok(Arc::new(config))
}
