//! A sandbox that publishes signed, chained batches of all sizes over one connection, and notes when each was acknowledged.

use std::{collections::VecDeque, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    event::{Event, Kind},
    id::{HostId, SandboxId},
    key::{Host, Sandbox, Secret},
    limits::EVENT_DATA_BYTES_MAX,
    mqtt::{ClientPacket, Delivery, PacketId, Publish, ReasonCode},
    stream::{Writer, stream_id},
    token,
    topic::Topic,
};
use serde_bytes::ByteBuf;
use tests::{
    client::{Client, Said},
    wait,
    world::World,
};
use zeroize::Zeroizing;

use crate::{notes::Stream, random::Random};

/// Batches in flight.
const WINDOW: usize = 8;

/// How large its batches are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sizes {
    /// Most are small, some are as large as they may be.
    Mixed,
    /// As large as they may be.
    Full,
}

/// One sandbox, which goes on where it was.
pub(crate) struct Publisher {
    topic: String,
    client_id: String,
    seed: [u8; 32],
    token: Vec<u8>,
    port: u16,
    ca: PathBuf,
    writer: Writer,
    random: Random,
    pub(crate) noted: Stream,
}

impl Publisher {
    pub(crate) fn new(
        world: &World,
        host: &HostId,
        number: u8,
        host_key: &Secret<Host>,
        host_token: &[u8],
    ) -> Self {
        let sandbox = SandboxId::new(&format!("build-{number}")).unwrap();
        let seed = [number; 32];
        let secret = Secret::<Sandbox>::from_seed(&Zeroizing::new(seed));
        let key = secret.public();
        let id = [number; 8];
        let token = token::mint_sandbox(host_key, host_token, &sandbox, &key, id, wait::now());
        Self {
            topic: Topic::Events(host.clone(), sandbox.clone()).to_string(),
            client_id: format!("{host}/{sandbox}"),
            seed,
            token: token.unwrap(),
            port: world.port,
            ca: world.path("broker/keys/ca.crt"),
            writer: Writer::new(secret, stream_id(host, &sandbox), [1; 8]),
            random: Random::new(number.into()),
            noted: Stream {
                host: host.to_string(),
                sandbox: sandbox.to_string(),
                key: *key.as_bytes(),
                ..Stream::default()
            },
        }
    }

    /// Publishes until `is_enough` says so, and waits for every acknowledgement.
    pub(crate) fn run(
        &mut self,
        sizes: Sizes,
        is_enough: impl Fn(usize) -> bool,
    ) -> anyhow::Result<()> {
        let secret = Secret::<Sandbox>::from_seed(&Zeroizing::new(self.seed));
        let mut client = Client::dial(self.port, &self.ca)?;
        let said = client.connect(&self.client_id, &self.token, &secret)?;
        ensure!(said == Said::ConnAck(ReasonCode::SUCCESS), "{said:?}");
        let mut in_flight = VecDeque::new();
        let (mut sent, mut next_id) = (0, 1);
        loop {
            while in_flight.len() < WINDOW && !is_enough(sent) {
                let batch = self.batch(sizes);
                let id = PacketId::new(next_id).context("an identifier")?;
                next_id = if next_id == u16::MAX { 1 } else { next_id + 1 };
                let publish = Publish::new(&self.topic, Delivery::at_least_once(id), &batch);
                client.send(&ClientPacket::Publish(publish))?;
                self.noted.sent.push(ByteBuf::from(batch));
                in_flight.push_back(id);
                sent += 1;
            }
            if in_flight.pop_front().is_none() {
                return Ok(());
            }
            match client.receive()? {
                Said::PubAck(ReasonCode::SUCCESS) => {
                    self.noted.acknowledged_ns.push(wait::unix_ns());
                }
                other => bail!("the broker said {other:?}"),
            }
        }
    }

    fn batch(&mut self, sizes: Sizes) -> Vec<u8> {
        let events = match sizes {
            Sizes::Full => usize::MAX,
            Sizes::Mixed if self.random.below(24) == 0 => usize::MAX,
            Sizes::Mixed => 1 + self.random.below(6),
        };
        for _ in 0..events {
            let len = match sizes {
                Sizes::Full => EVENT_DATA_BYTES_MAX,
                Sizes::Mixed => 1 + self.random.below(700),
            };
            // Not zeros: a sector that was not written has to look different.
            let data: Vec<u8> = (0..len.div_ceil(8))
                .flat_map(|_| self.random.next().to_le_bytes())
                .take(len)
                .collect();
            let event = Event {
                time: wait::now(),
                kind: Kind::Stdout,
                flags: 0,
                size: u64::try_from(len).unwrap(),
                value: 0,
                data: &data,
            };
            if !self.writer.push(&event) {
                break;
            }
        }
        self.writer.seal(wait::now(), false)
    }
}
