//! A reader over MQTT whose session is kept: it takes every message, acknowledges it, and comes back.

use std::{
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

    /// Every message in the order it came, repeats and all, until the test is over.
    pub(crate) fn run(&self, shared: &Arc<Progress>) -> Vec<Message> {
        let mut messages = Vec::new();
        while !shared.is_over.load(Ordering::Relaxed) {
            // Its connection breaks with the broker.
            let _ = self.read(shared, &mut messages);
        }
        messages
    }

    fn read(&self, shared: &Progress, messages: &mut Vec<Message>) -> anyhow::Result<()> {
        let mut client = wait::until("the broker to take a reader", || self.dial().ok());
        loop {
            let message = client.receive_message()?;
            let id = message.id;
            shared.last.fetch_max(message.offset, Ordering::Relaxed);
            messages.push(message);
            if let Some(id) = id {
                let ack = Ack::puback(id, ReasonCode::SUCCESS);
                client.send(&ClientPacket::Ack(ack))?;
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
