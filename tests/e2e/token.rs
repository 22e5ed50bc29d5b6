//! What a sandbox's token is good for: publishing to its own topic, and nothing else.

use std::{fs, num::NonZeroU16};

use protocol::{
    id::SandboxId,
    key::{Host, Issuer, Sandbox, Secret},
    mqtt::{ClientPacket, Delivery, Publish, Qos, ReasonCode, Subscribe, Subscription},
    stream::{Writer, stream_id},
    time::UnixMillis,
    token::{self, HostTerms},
    topic::Topic,
};
use tests::{
    client::{Client, Said},
    world::World,
};

const SANDBOX: &str = "build-7";

/// A sandbox's credentials, made with the broker's own issuer key: the gate has no reason to doubt them.
struct Credentials {
    world: World,
    token: Vec<u8>,
    seed: zeroize::Zeroizing<[u8; 32]>,
}

impl Credentials {
    fn new() -> Self {
        let mut world = World::with_broker().unwrap();
        world.add_host().unwrap();
        world.write_policy("").unwrap();
        // The host must be enrolled for its name to mean anything; its operator does that.
        tests::docker::ensure_image().unwrap();
        world.start_egress().unwrap();
        world.start_operator().unwrap();
        world.wait_connected();
        let issuer = fs::read_to_string(world.path("broker/keys/issuer.key")).unwrap();
        let issuer = Secret::<Issuer>::from_file_text(&issuer).unwrap();
        let audience = tests::local::get_json(&world.socket(), "/v1/status").unwrap();
        let host_key: Secret<Host> = Secret::from_seed(&zeroize::Zeroizing::new([3; 32]));
        let now = now();
        let parent = token::mint_host(
            &issuer,
            &HostTerms {
                audience: audience["audience"].as_str().unwrap(),
                host: &world.host_id(),
                key: host_key.public(),
                generation: 1,
                id: [1; 8],
                issued: now,
                life_s: 3600,
            },
        );
        let seed = zeroize::Zeroizing::new([4; 32]);
        let key: Secret<Sandbox> = Secret::from_seed(&seed);
        let sandbox = SandboxId::new(SANDBOX).unwrap();
        let token =
            token::mint_sandbox(&host_key, &parent, &sandbox, &key.public(), [2; 8], now).unwrap();
        Self { world, token, seed }
    }

    fn key(&self) -> Secret<Sandbox> {
        Secret::from_seed(&self.seed)
    }

    fn connected(&self) -> Client {
        let mut client =
            Client::dial(self.world.port, &self.world.path("broker/keys/ca.crt")).unwrap();
        let id = format!("{}/{SANDBOX}", self.world.host);
        assert_eq!(
            client.connect(&id, &self.token, &self.key()).unwrap(),
            Said::ConnAck(ReasonCode::SUCCESS)
        );
        client
    }

    fn topic(&self) -> String {
        Topic::Events(self.world.host_id(), SandboxId::new(SANDBOX).unwrap()).to_string()
    }

    fn batch(&self) -> Vec<u8> {
        let stream = stream_id(&self.world.host_id(), &SandboxId::new(SANDBOX).unwrap());
        Writer::new(self.key(), stream, [2; 8]).seal(now(), false)
    }
}

fn now() -> UnixMillis {
    let now = fs::metadata("/proc/self")
        .and_then(|metadata| metadata.modified())
        .unwrap();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    UnixMillis(u64::try_from(since.as_millis()).unwrap())
}

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

#[test]
fn a_sandbox_may_publish_to_its_own_topic_and_nowhere_else() {
    let credentials = Credentials::new();
    let mut client = credentials.connected();
    let publish = |client: &mut Client, topic: &str, number: u16, payload: &[u8]| {
        client
            .send(&ClientPacket::Publish(Publish::new(
                topic,
                Delivery::at_least_once(id(number)),
                payload,
            )))
            .unwrap();
        client.receive().unwrap()
    };
    let batch = credentials.batch();
    let own = credentials.topic();
    assert_eq!(
        publish(&mut client, &own, 1, &batch),
        Said::PubAck(ReasonCode::SUCCESS)
    );
    assert_eq!(
        publish(&mut client, &own, 2, &batch),
        Said::PubAck(ReasonCode::SUCCESS),
        "a redelivery"
    );
    let host = &credentials.world.host;
    let elsewhere = [
        format!("v1/{host}/other/events"),
        format!("v1/{host}/reports"),
        format!("v1/{host}/commands"),
    ];
    for (number, topic) in (3..).zip(&elsewhere) {
        let mut client = credentials.connected();
        assert_eq!(
            publish(&mut client, topic, number, &batch),
            Said::PubAck(ReasonCode::NOT_AUTHORIZED),
            "{topic}"
        );
    }
}

#[test]
fn a_sandbox_may_subscribe_to_nothing() {
    let credentials = Credentials::new();
    let host = &credentials.world.host;
    let own = credentials.topic();
    for filter in [
        own.as_str(),
        &format!("v1/{host}/commands"),
        &format!("v1/{host}/reports"),
    ] {
        let mut client = credentials.connected();
        let subscriptions = [Subscription::new(filter, Qos::AtLeastOnce)];
        client
            .send(&ClientPacket::Subscribe(Subscribe::new(
                id(1),
                (&subscriptions).into(),
            )))
            .unwrap();
        assert_eq!(
            client.receive().unwrap(),
            Said::SubAck(vec![ReasonCode::NOT_AUTHORIZED.value()]),
            "{filter}"
        );
    }
}

#[test]
fn a_token_without_its_key_or_under_another_name_opens_nothing() {
    let credentials = Credentials::new();
    let ca = credentials.world.path("broker/keys/ca.crt");
    let connect = |name: &str, key: &Secret<Sandbox>| {
        let mut client = Client::dial(credentials.world.port, &ca).unwrap();
        client
            .connect(
                &format!("{}/{name}", credentials.world.host),
                &credentials.token,
                key,
            )
            .unwrap()
    };
    let stolen = Secret::from_seed(&zeroize::Zeroizing::new([9; 32]));
    assert_eq!(
        connect(SANDBOX, &stolen),
        Said::ConnAck(ReasonCode::NOT_AUTHORIZED)
    );
    assert_eq!(
        connect("build-8", &credentials.key()),
        Said::ConnAck(ReasonCode::CLIENT_IDENTIFIER_NOT_VALID)
    );
    assert_eq!(
        connect(SANDBOX, &credentials.key()),
        Said::ConnAck(ReasonCode::SUCCESS)
    );
}
