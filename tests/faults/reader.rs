//! A reader over MQTT whose session is kept: it takes every message, acknowledges it, and comes back.

use std::{
    collections::VecDeque,
    num::NonZeroU16,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::ensure;
use protocol::mqtt::{
    Ack, ClientPacket, Connect, List, PacketId, Qos, ReasonCode, Subscribe, Subscription,
};
use tests::{
    client::{Client, Message, Said},
    wait,
    world::World,
};

/// What a reader shares with the test.
#[derive(Default)]
pub(crate) struct Progress {
    /// The greatest offset that it has seen.
    pub(crate) last: AtomicU64,
    /// When its connection breaks, it does not come back.
    pub(crate) is_over: AtomicBool,
}

/// What one connection after the other brought.
#[derive(Default)]
pub(crate) struct Read {
    /// Every message in the order it came, repeats and all.
    pub(crate) messages: Vec<Message>,
    /// One past the last offset whose acknowledgement the broker is known to have taken: it answered a ping behind it.
    confirmed: u64,
    /// Offsets that came again although their acknowledgement was taken.
    pub(crate) needless: Vec<u64>,
}

/// What a reader needs.
#[derive(Clone)]
pub(crate) struct Reader {
    token: String,
    port: u16,
    ca: PathBuf,
}

impl Reader {
    pub(crate) fn new(world: &World) -> Self {
        let file = world.path("siem.token");
        let file = file.to_string_lossy();
        let arguments = ["reader", "add", "siem", "--output", &file];
        world.outhaul_ok(&arguments).unwrap();
        let token = std::fs::read_to_string(&*file).unwrap();
        Self {
            token: token.trim().to_owned(),
            port: world.port,
            ca: world.path("broker/keys/ca.crt"),
        }
    }

    /// Subscribes, so that nothing that comes from now on is missed.
    pub(crate) fn subscribe(&self) {
        let mut client = self.dial().unwrap();
        let filters = [Subscription::new("v1/+/+/events", Qos::AtLeastOnce)];
        let subscribe = Subscribe::new(PacketId::MIN, List::from(&filters));
        client.send(&ClientPacket::Subscribe(subscribe)).unwrap();
        let said = client.receive().unwrap();
        assert!(matches!(&said, Said::SubAck(codes) if codes == &[1]));
    }

    /// Reads until the test is over.
    pub(crate) fn run(&self, shared: &Arc<Progress>) -> Read {
        let mut read = Read::default();
        while !shared.is_over.load(Ordering::Relaxed) {
            // Its connection breaks with the broker.
            let _ = self.read(shared, &mut read);
        }
        read
    }

    fn read(&self, shared: &Progress, read: &mut Read) -> anyhow::Result<()> {
        let mut client = wait::until("the broker to take a reader", || self.dial().ok());
        let mut pinged = VecDeque::new();
        loop {
            let Some(message) = client.receive_message_or_pong()? else {
                read.confirmed = pinged.pop_front().unwrap_or(read.confirmed);
                continue;
            };
            let (id, offset) = (message.id, message.offset);
            if offset < read.confirmed {
                read.needless.push(offset);
            }
            shared.last.fetch_max(offset, Ordering::Relaxed);
            read.messages.push(message);
            if let Some(id) = id {
                let ack = Ack::puback(id, ReasonCode::SUCCESS);
                client.send(&ClientPacket::Ack(ack))?;
                client.send(&ClientPacket::PingReq)?;
                pinged.push_back(offset + 1);
            }
        }
    }

    fn dial(&self) -> anyhow::Result<Client> {
        let mut client = Client::dial(self.port, &self.ca)?;
        let mut connect = Connect::new("siem", 30);
        connect.user_name = Some("siem");
        connect.password = Some(self.token.as_bytes());
        connect.clean_start = false;
        connect.session_expiry_secs = 3600;
        connect.receive_maximum = NonZeroU16::new(16).unwrap();
        client.send(&ClientPacket::Connect(connect))?;
        let said = client.receive()?;
        ensure!(
            matches!(said, Said::ConnAck(ReasonCode::SUCCESS)),
            "{said:?}"
        );
        Ok(client)
    }
}
