//! A reader over MQTT whose session is kept: it comes back once, takes every message, and notes what it is about to acknowledge.

use std::num::NonZeroU16;

use anyhow::{Context as _, ensure};
use protocol::mqtt::{
    Ack, ClientPacket, Connect, Disconnect, List, PacketId, Qos, ReasonCode, Subscribe,
    Subscription,
};
use tests::{
    client::{Client, Said},
    wait,
    world::World,
};

use crate::notes::Reading;

/// Its name, and its client's.
pub(crate) const NAME: &str = "siem";
/// Messages on their way to it.
const WINDOW: u16 = 16;

pub(crate) struct Reader {
    token: String,
    pub(crate) noted: Reading,
}

impl Reader {
    /// Subscribes to everything that sandboxes say from now on, leaves, and comes back.
    pub(crate) fn new(world: &World, token: String) -> anyhow::Result<(Self, Client)> {
        let mut reader = Self {
            token,
            noted: Reading {
                name: NAME.to_owned(),
                ..Reading::default()
            },
        };
        let mut client = reader.dial(world)?;
        let filters = [Subscription::new("v1/+/+/events", Qos::AtLeastOnce)];
        let subscribe = Subscribe::new(PacketId::MIN, List::from(&filters));
        client.send(&ClientPacket::Subscribe(subscribe))?;
        let said = client.receive()?;
        ensure!(
            matches!(&said, Said::SubAck(codes) if codes == &[1]),
            "{said:?}"
        );
        client.send(&ClientPacket::Disconnect(Disconnect::new(
            ReasonCode::SUCCESS,
        )))?;
        drop(client);
        // Its seat is free only after its session was written down.
        let client = reader.dial(world)?;
        reader.noted.kept_ns = wait::unix_ns();
        Ok((reader, client))
    }

    /// Takes and acknowledges messages until the connection ends.
    pub(crate) fn run(&mut self, client: &mut Client) {
        let _ = self.read(client);
    }

    fn read(&mut self, client: &mut Client) -> anyhow::Result<()> {
        loop {
            let message = client.receive_message()?;
            let id = message.id.context("no identifier")?;
            self.noted
                .acknowledged
                .push((message.offset, wait::unix_ns()));
            client.send(&ClientPacket::Ack(Ack::puback(id, ReasonCode::SUCCESS)))?;
        }
    }

    pub(crate) fn dial(&self, world: &World) -> anyhow::Result<Client> {
        let mut client = Client::dial(world.port, &world.path("broker/keys/ca.crt"))?;
        let mut connect = Connect::new(NAME, 30);
        connect.user_name = Some(NAME);
        connect.password = Some(self.token.as_bytes());
        connect.clean_start = false;
        connect.session_expiry_secs = 3600;
        connect.receive_maximum = NonZeroU16::new(WINDOW).context("a window")?;
        client.send(&ClientPacket::Connect(connect))?;
        let said = client.receive()?;
        ensure!(said == Said::ConnAck(ReasonCode::SUCCESS), "{said:?}");
        Ok(client)
    }
}
