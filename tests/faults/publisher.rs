//! A sandbox that publishes signed, chained batches, and sends again what was not acknowledged, as its shim does.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};
use protocol::{
    event::{Event, Kind},
    id::{HostId, SandboxId},
    key::{Host, Public, Sandbox, Secret},
    mqtt::{ClientPacket, Delivery, PacketId, Publish, ReasonCode},
    stream::{Writer, stream_id},
    token,
    topic::Topic,
};
use tests::{
    client::{Client, Said},
    wait,
    world::World,
};
use zeroize::Zeroizing;

/// Batches in flight.
const WINDOW: usize = 8;

/// What a publisher needs.
#[derive(Clone)]
pub(crate) struct Publisher {
    pub(crate) host: HostId,
    pub(crate) sandbox: SandboxId,
    seed: [u8; 32],
    number: u8,
    host_seed: [u8; 32],
    host_token: Vec<u8>,
    port: u16,
    ca: std::path::PathBuf,
}

/// What all publishers share with the test.
#[derive(Default)]
pub(crate) struct Shared {
    /// Batches that were acknowledged.
    pub(crate) acknowledged: AtomicU64,
    /// Batches that were told to wait.
    pub(crate) waited: AtomicU64,
    /// Batches that were sent, again and again perhaps.
    pub(crate) sent: AtomicU64,
    /// Nothing new is made; what waits is still sent.
    pub(crate) is_over: AtomicBool,
}

impl Publisher {
    pub(crate) fn new(
        world: &World,
        host: &HostId,
        number: u8,
        host_seed: [u8; 32],
        host_token: &[u8],
    ) -> Self {
        let sandbox = SandboxId::new(&format!("build-{number}")).unwrap();
        Self {
            host: host.clone(),
            sandbox,
            seed: [number; 32],
            number,
            host_seed,
            host_token: host_token.to_vec(),
            port: world.port,
            ca: world.path("broker/keys/ca.crt"),
        }
    }

    pub(crate) fn key(&self) -> Public<Sandbox> {
        self.secret().public()
    }

    /// A fresh one each time: they last for minutes, and a thousand kills for longer.
    fn token(&self) -> Vec<u8> {
        let host_key = Secret::<Host>::from_seed(&Zeroizing::new(self.host_seed));
        let token = token::mint_sandbox(
            &host_key,
            &self.host_token,
            &self.sandbox,
            &self.key(),
            [self.number; 8],
            wait::now(),
        );
        token.unwrap()
    }

    fn secret(&self) -> Secret<Sandbox> {
        Secret::from_seed(&Zeroizing::new(self.seed))
    }

    /// A connection that has proven itself.
    pub(crate) fn connect(&self) -> anyhow::Result<Client> {
        let client_id = format!("{}/{}", self.host, self.sandbox);
        let mut client = Client::dial(self.port, &self.ca)?;
        match client.connect(&client_id, &self.token(), &self.secret())? {
            Said::ConnAck(ReasonCode::SUCCESS) => Ok(client),
            other => bail!("the broker said {other:?}"),
        }
    }

    /// Sends one batch over a connection of its own; what the broker said, if it said anything.
    pub(crate) fn publish(&self, batch: &[u8]) -> anyhow::Result<Said> {
        let mut client = self.connect()?;
        let topic = Topic::Events(self.host.clone(), self.sandbox.clone()).to_string();
        let delivery = Delivery::at_least_once(PacketId::MIN);
        client.send(&ClientPacket::Publish(Publish::new(
            &topic, delivery, batch,
        )))?;
        client.receive()
    }

    /// Writes its stream.
    pub(crate) fn writer(&self) -> Writer {
        let stream = stream_id(&self.host, &self.sandbox);
        Writer::new(self.secret(), stream, [1; 8])
    }

    /// Publishes until the test is over and everything is acknowledged; every batch, in order.
    pub(crate) fn run(&self, shared: &Arc<Shared>) -> Vec<Vec<u8>> {
        let mut writer = self.writer();
        let (mut waiting, mut acknowledged) = (VecDeque::new(), Vec::new());
        loop {
            // A broken connection is what this test is about: dial again.
            let _ = self.serve(shared, &mut writer, &mut waiting, &mut acknowledged);
            if waiting.is_empty() && shared.is_over.load(Ordering::Relaxed) {
                return acknowledged;
            }
        }
    }

    /// One connection: sends what waits, then what is new, until it breaks.
    fn serve(
        &self,
        shared: &Shared,
        writer: &mut Writer,
        waiting: &mut VecDeque<Vec<u8>>,
        acknowledged: &mut Vec<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let mut client = wait::until("the broker to take a connection", || self.connect().ok());
        let mut in_flight = 0;
        let mut next_id = 1;
        loop {
            while in_flight < WINDOW {
                if in_flight == waiting.len() {
                    if shared.is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    waiting.push_back(batch(writer));
                }
                let id = PacketId::new(next_id).context("an identifier")?;
                next_id = if next_id == u16::MAX { 1 } else { next_id + 1 };
                let topic = Topic::Events(self.host.clone(), self.sandbox.clone()).to_string();
                let delivery = Delivery::at_least_once(id);
                let publish = Publish::new(&topic, delivery, &waiting[in_flight]);
                client.send(&ClientPacket::Publish(publish))?;
                shared.sent.fetch_add(1, Ordering::Relaxed);
                in_flight += 1;
            }
            if in_flight == 0 {
                return Ok(());
            }
            match client.receive()? {
                Said::PubAck(ReasonCode::SUCCESS) => {
                    acknowledged.extend(waiting.pop_front());
                    in_flight -= 1;
                    shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Said::PubAck(ReasonCode::QUOTA_EXCEEDED) => {
                    shared.waited.fetch_add(1, Ordering::Relaxed);
                    bail!("the broker has no room");
                }
                other => bail!("the broker said {other:?}"),
            }
        }
    }
}

/// One more batch.
pub(crate) fn batch(writer: &mut Writer) -> Vec<u8> {
    let event = Event {
        time: wait::now(),
        kind: Kind::Stdout,
        flags: 0,
        size: 6,
        value: 0,
        data: b"a line",
    };
    assert!(writer.push(&event));
    writer.seal(wait::now(), false)
}
