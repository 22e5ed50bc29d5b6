//! One MQTT 5 client over TLS 1.3 and a non-blocking socket: cheap, and the same for every broker.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    num::NonZeroU16,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context as _, bail};
use protocol::{
    limits::PACKET_BYTES_MAX,
    mqtt::{
        Ack, AckKind, Delivery, PINGREQ, Publish, Qos, ReasonCode, ServerPacket, Subscribe,
        Subscription, Version, decode_server, frame,
    },
};
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};

use super::{clock, credential::Credential, payload::Payloads};

/// Plaintext taken from TLS at once, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Who connects, and what for.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) client_id: String,
    pub(crate) credential: Credential,
    pub(crate) task: Task,
}

/// What a client is for.
#[derive(Clone)]
pub(crate) enum Task {
    /// It connects, and that is all.
    Idle,
    /// It publishes, once told to start.
    Publish {
        topic: String,
        payloads: Arc<Payloads>,
        /// How many may be unacknowledged.
        window: usize,
    },
    /// It reads.
    Subscribe { filter: String },
}

/// A client.
pub(crate) struct Link {
    socket: TcpStream,
    tls: ClientConnection,
    plan: Plan,
    /// Read, and not yet taken.
    input: Vec<u8>,
    /// To be encrypted and sent.
    output: Vec<u8>,
    is_online: bool,
    is_publishing: bool,
    pub(crate) dialled: Instant,
    /// When it was told that it is welcome, and has what it asked for.
    pub(crate) ready: Option<Instant>,
    sent: usize,
    pub(crate) acknowledged: usize,
    pub(crate) received: usize,
    last_id: u16,
}

impl Link {
    /// A client on a socket that connects by itself.
    pub(crate) fn new(
        socket: TcpStream,
        config: &Arc<ClientConfig>,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        let mut tls = ClientConnection::new(
            Arc::clone(config),
            ServerName::try_from("localhost").context("name the broker")?,
        )?;
        // A window of publishes goes out in one piece.
        tls.set_buffer_limit(None);
        let connect = plan.credential.connect(&plan.client_id)?;
        tls.writer().write_all(&connect)?;
        Ok(Self {
            socket,
            tls,
            plan,
            input: Vec::new(),
            output: Vec::new(),
            is_online: false,
            is_publishing: false,
            dialled: clock::mono(),
            ready: None,
            sent: 0,
            acknowledged: 0,
            received: 0,
            last_id: 0,
        })
    }

    /// Begins to publish.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        self.is_publishing = matches!(self.plan.task, Task::Publish { .. });
        self.refill()?;
        self.flush()
    }

    /// Publishes nothing more.
    pub(crate) const fn stop(&mut self) {
        self.is_publishing = false;
    }

    /// Whether it has published what it had, and all is acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        let is_last = match &self.plan.task {
            Task::Publish { payloads, .. } => !self.is_publishing || self.sent == payloads.len(),
            Task::Idle | Task::Subscribe { .. } => true,
        };
        is_last && self.acknowledged == self.sent
    }

    /// Whether it publishes.
    pub(crate) const fn is_publisher(&self) -> bool {
        matches!(self.plan.task, Task::Publish { .. })
    }

    /// Says that it is still there.
    pub(crate) fn ping(&mut self) -> anyhow::Result<()> {
        self.output.extend_from_slice(&PINGREQ);
        self.flush()
    }

    /// Reads what has come, answers it, and writes what there is room for.
    pub(crate) fn step(&mut self) -> anyhow::Result<()> {
        loop {
            match self.tls.read_tls(&mut &self.socket) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(_) => {
                    let state = self.tls.process_new_packets().context("read TLS")?;
                    let mut left = state.plaintext_bytes_to_read();
                    while left > 0 {
                        let start = self.input.len();
                        self.input.resize(start + left.min(READ_BYTES), 0);
                        let room = self.input.get_mut(start..).unwrap_or_default();
                        let count = self.tls.reader().read(room)?;
                        self.input.truncate(start + count);
                        left -= count;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("read"),
            }
        }
        self.take_packets()?;
        self.refill()?;
        self.flush()
    }

    fn take_packets(&mut self) -> anyhow::Result<()> {
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some(packet) =
            frame(rest, 2 * PACKET_BYTES_MAX).map_err(|error| anyhow::anyhow!("{error}"))?
        {
            let taken = packet.total_bytes();
            let packet =
                decode_server(&packet, Version::V5).map_err(|error| anyhow::anyhow!("{error}"))?;
            self.take(&packet)?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        let taken = input.len() - rest.len();
        self.input = input;
        self.input.drain(..taken);
        if self.input.is_empty() && !self.is_publishing {
            self.input = Vec::new();
        }
        Ok(())
    }

    fn take(&mut self, packet: &ServerPacket<'_>) -> anyhow::Result<()> {
        match packet {
            ServerPacket::Ack(ack) if ack.kind == AckKind::PubAck => {
                if ack.reason.is_error() {
                    bail!("PUBACK {:#04x}", ack.reason.value());
                }
                self.acknowledged += 1;
            }
            ServerPacket::Publish(publish) => {
                self.received += 1;
                if let Some(id) = publish.delivery.packet_id() {
                    Ack::puback(id, ReasonCode::SUCCESS)
                        .encode(Version::V5, &mut self.output)
                        .map_err(|error| anyhow::anyhow!("{error}"))?;
                }
            }
            ServerPacket::Auth(auth) => {
                let answer = self.plan.credential.answer(auth.data.unwrap_or_default())?;
                self.output.extend_from_slice(&answer);
            }
            ServerPacket::ConnAck(connack) if connack.reason.is_error() => {
                bail!("CONNACK {:#04x}", connack.reason.value())
            }
            ServerPacket::ConnAck(_) => {
                self.is_online = true;
                if let Task::Subscribe { filter } = &self.plan.task {
                    let wanted = [Subscription::new(filter, Qos::AtLeastOnce)];
                    Subscribe::new(NonZeroU16::MIN, (&wanted).into())
                        .encode(Version::V5, &mut self.output)
                        .map_err(|error| anyhow::anyhow!("{error}"))?;
                } else {
                    self.ready = Some(clock::mono());
                }
            }
            ServerPacket::SubAck(suback) => {
                if suback.reasons.iter().any(ReasonCode::is_error) {
                    bail!("the subscription is refused");
                }
                self.ready = Some(clock::mono());
            }
            ServerPacket::Disconnect(disconnect) => {
                bail!("DISCONNECT {:#04x}", disconnect.reason.value())
            }
            ServerPacket::PingResp => {}
            ServerPacket::Ack(_) => bail!("a step of QoS 2"),
        }
        Ok(())
    }

    /// Publishes until as many are unacknowledged as may be.
    fn refill(&mut self) -> anyhow::Result<()> {
        let Task::Publish {
            topic,
            payloads,
            window,
        } = &self.plan.task
        else {
            return Ok(());
        };
        while self.is_publishing && self.sent - self.acknowledged < *window {
            let Some(payload) = payloads.get(self.sent) else {
                return Ok(());
            };
            // Acknowledgements come in order, so an id is free long before its turn comes again.
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            let id = NonZeroU16::new(self.last_id).unwrap_or(NonZeroU16::MIN);
            Publish::new(topic, Delivery::at_least_once(id), payload)
                .encode(Version::V5, &mut self.output)
                .map_err(|error| anyhow::anyhow!("encode PUBLISH: {error}"))?;
            self.sent += 1;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if !self.output.is_empty() {
            self.tls.writer().write_all(&self.output)?;
            if self.is_publishing {
                self.output.clear();
            } else {
                self.output = Vec::new();
            }
        }
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut &self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The handshake that opens a socket is not over.
                Err(error) if error.kind() == ErrorKind::NotConnected => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("write"),
            }
        }
        Ok(())
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
