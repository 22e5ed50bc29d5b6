//! Connections over a pipe, with a real plane, journal, store and router behind them.

mod deaf;
mod fairness;
mod readers;
mod rights;
mod room;

use protocol::{
    command::{self, Command, Content, Launch, Limits, Order},
    event::{Event, Kind},
    exchange::{Proof, Request, sign_request},
    id::{CommandId, HostId, SandboxId},
    install_key::InstallKey,
    key::{Dispatcher, Host, Role, Sandbox, Secret},
    mqtt::{
        Ack, Auth, ClientPacket, Connect, Delivery as Quality, Disconnect, List, PacketId, Publish,
        Qos, RetainHandling, Subscribe, Subscription, Version,
    },
    possession::prove,
    stream::{Writer, stream_id},
    time::UnixMillis,
    token::mint_sandbox,
};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use zeroize::Zeroizing;

use super::*;
use crate::{
    core::{
        gate::{
            METHOD, STRANGER_WAIT,
            tests::{Said, said_in, token_data},
        },
        reader::Admitted,
    },
    drive::{Parts, Peer},
    shell::{
        audit_key::AuditKey,
        journal::{Durability, Journal},
        places::Places,
        registry::close_withdrawn,
        router::{self, Router},
        store::{DispatcherRow, HostKind, Store},
    },
};

/// Nothing here takes as long.
const DEADLINE: Duration = Duration::from_secs(20);
const PEER: Peer = Peer::Local { uid: 1000 };
const HOST_KEY: u8 = 10;
const SANDBOX_KEY: u8 = 20;

pub(crate) fn secret<R: Role>(byte: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn edge() -> HostId {
    HostId::new("edge-1").unwrap()
}

/// A broker behind its gate, with one enrolled host.
pub(crate) struct World {
    pub(crate) gate: Gate,
    host_token: Vec<u8>,
    /// Removed with the world.
    _place: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("state.db")).unwrap();
        let directory = crate::shell::keys::DataDir::open(&place.path().join("identity")).unwrap();
        let audit = AuditKey::open(&directory, secret(6), &store, "outhaul-1").unwrap();
        let parts = Parts {
            store,
            audit,
            room: crate::shell::room::Room::open(place.path(), 1).unwrap(),
            journal: Journal::open(&place.path().join("journal"), Durability::Fsync).unwrap(),
            bench: Some(
                Journal::open_bench(&place.path().join("journal-bench"), Durability::Fsync)
                    .unwrap(),
            ),
            places: Places::open(&place.path().join("places")).unwrap(),
            admitted: Admitted {
                readers: true,
                bench: true,
                access: true,
            },
            retention: crate::core::retention::Limits::default(),
            router: Router::spawn(router::default_config()).await.unwrap(),
            issuer: crate::shell::issuer::Issuers::of(secret(1)),
            recovery_window: Duration::from_secs(3600),
            token_life: Duration::from_secs(3600),
            install_key_life: Duration::from_secs(3600),
            address: "broker.example:8443".to_owned(),
            is_address_set: true,
            certificates: crate::shell::certificate::Facts::sample(),
        };
        let plane = Plane::open(parts).unwrap();
        let gate = Gate {
            plane,
            registry: Registry::default(),
            metrics: Arc::new(Metrics::new()),
            offer: Offer {
                durability: "fsync",
                readers: true,
            },
        };
        tokio::spawn(close_withdrawn(gate.registry.clone(), gate.plane.clone()));
        let host_token = enroll(&gate.plane).await;
        Self {
            gate,
            host_token,
            _place: place,
        }
    }

    fn sandbox_token(&self, sandbox: &str) -> Vec<u8> {
        let sandbox = SandboxId::new(sandbox).unwrap();
        let key = secret::<Sandbox>(SANDBOX_KEY).public();
        let now = self.gate.plane.now();
        mint_sandbox(
            &secret(HOST_KEY),
            &self.host_token,
            &sandbox,
            &key,
            [9; 8],
            now,
        )
        .unwrap()
    }

    /// The client's end of a new connection.
    fn dial(&self) -> Client<DuplexStream> {
        self.dial_until(clock::mono() + STRANGER_WAIT)
    }

    fn dial_until(&self, until: Instant) -> Client<DuplexStream> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(self.gate.clone().serve(far, until, ()));
        Client::new(near)
    }

    async fn host(&self) -> Client<DuplexStream> {
        let mut client = self.dial();
        let said = client
            .login::<Host>("edge-1", &self.host_token, HOST_KEY)
            .await;
        assert_eq!(said, Said::ConnAck(0));
        client
    }

    async fn sandbox(&self, sandbox: &str) -> Client<DuplexStream> {
        let mut client = self.dial();
        self.login_sandbox(&mut client, sandbox).await;
        client
    }

    pub(crate) async fn login_sandbox<S>(&self, client: &mut Client<S>, sandbox: &str)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (id, token) = (format!("edge-1/{sandbox}"), self.sandbox_token(sandbox));
        let said = client.login::<Sandbox>(&id, &token, SANDBOX_KEY).await;
        assert_eq!(said, Said::ConnAck(0));
    }

    async fn submit(&self, id: u8, sandbox: &str) -> Vec<u8> {
        let launch = Launch {
            sandbox: SandboxId::new(sandbox).unwrap(),
            image: "tool:1".into(),
            arguments: vec![],
            environment: vec![],
            sources: vec![],
            limits: Limits::default(),
            content: Content::Full,
            isolation: None,
        };
        let issued = self.gate.plane.now();
        let command = Command {
            id: CommandId([id; 16]),
            host: edge(),
            issued,
            expires: issued.plus(Duration::from_secs(600)),
            order: Order::Launch(launch),
        };
        let bytes = command::sign(&secret(2), &command);
        self.gate
            .plane
            .submit_command(bytes.clone(), PEER)
            .await
            .unwrap();
        bytes
    }
}

async fn enroll(plane: &Plane) -> Vec<u8> {
    let dispatcher = secret::<Dispatcher>(2).public();
    let row = DispatcherRow {
        public_key: *dispatcher.as_bytes(),
        name: "ada".to_owned(),
        added_ms: 1,
        added_by: "uid:1000".to_owned(),
        until_ms: None,
    };
    assert!(plane.store().add_dispatcher(&row).unwrap());
    let added = plane
        .add_host(&edge(), HostKind::Docker, &[dispatcher], false, &PEER)
        .unwrap();
    let install = InstallKey::from_text(&added.install_key).unwrap();
    let key = secret::<Host>(HOST_KEY);
    let request = Request {
        nonce: plane.challenge().unwrap().nonce,
        host: edge(),
        key: key.public(),
        generation: 1,
        proof: Proof::InstallKey((&install).into()),
        witness: None,
    };
    let grant = plane.exchange(sign_request(&key, &request)).await.unwrap();
    grant.token.into_vec()
}

/// The other end of a connection.
pub(crate) struct Client<S> {
    stream: S,
    input: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self {
            stream,
            input: Vec::new(),
        }
    }

    /// Through the handshake, up to CONNACK.
    async fn login<R: Role>(&mut self, client_id: &str, token: &[u8], key: u8) -> Said {
        let data = token_data(token);
        let mut connect = Connect::new(client_id, 30);
        connect.auth_method = Some(METHOD);
        connect.auth_data = Some(&data);
        self.send(ClientPacket::Connect(connect)).await;
        let nonce = match self.next().await.unwrap() {
            Said::Auth(0x18, nonce) => nonce.try_into().unwrap(),
            other => return other,
        };
        self.prove::<R>(key, &nonce).await;
        self.next().await.unwrap()
    }

    async fn prove<R: Role>(&mut self, key: u8, nonce: &[u8; 8]) {
        let proof = prove(&secret::<R>(key), nonce, &[7; 8]);
        let auth = Auth::new(ReasonCode::CONTINUE_AUTHENTICATION, METHOD, Some(&proof));
        self.send(ClientPacket::Auth(auth)).await;
    }

    async fn send(&mut self, packet: ClientPacket<'_>) {
        let mut bytes = Vec::new();
        packet.encode(Version::V5, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn subscribe(&mut self) {
        let commands = [Subscription {
            filter: "v1/edge-1/commands",
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }];
        let subscribe = Subscribe::new(PacketId::MIN, List::from(&commands));
        self.send(ClientPacket::Subscribe(subscribe)).await;
        assert_eq!(self.next().await, Some(Said::SubAck(1, vec![1])));
    }

    /// The next packet; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Said> {
        timeout(DEADLINE, self.read_packet()).await.unwrap()
    }

    async fn read_packet(&mut self) -> Option<Said> {
        loop {
            if let Some(packet) = frame(&self.input, usize::MAX).unwrap() {
                let said = said_in(&packet);
                let taken = packet.total_bytes();
                self.input.drain(..taken);
                return Some(said);
            }
            match self.stream.read_buf(&mut self.input).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

/// Batches of a sandbox's stream, in order.
fn batches(sandbox: &str, count: usize) -> Vec<Vec<u8>> {
    let sandbox = SandboxId::new(sandbox).unwrap();
    let mut writer = Writer::new(secret(SANDBOX_KEY), stream_id(&edge(), &sandbox), [7; 8]);
    let event = Event {
        time: UnixMillis(1),
        kind: Kind::Stdout,
        flags: 0,
        size: 5,
        value: 0,
        data: b"hello",
    };
    let mut seal = || {
        assert!(writer.push(&event));
        writer.seal(UnixMillis(1), false)
    };
    (0..count).map(|_| seal()).collect()
}

fn numbered(number: usize) -> PacketId {
    PacketId::new(u16::try_from(number).unwrap()).unwrap()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = clock::mono() + DEADLINE;
    while !is_so() {
        assert!(clock::mono() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_burst_of_batches_is_acknowledged_in_order_and_shares_the_journals_commits() {
    let world = World::new().await;
    let mut client = world.sandbox("build-7").await;
    let before = world.gate.plane.journal().commit_stats();
    let batches = batches("build-7", 100);
    let mut bytes = Vec::new();
    for (number, batch) in batches.iter().enumerate() {
        let quality = Quality::at_least_once(numbered(number + 1));
        let publish = Publish::new("v1/edge-1/build-7/events", quality, batch);
        publish.encode(Version::V5, &mut bytes).unwrap();
    }
    client.stream.write_all(&bytes).await.unwrap();
    for number in 1..=100 {
        assert_eq!(client.next().await, Some(Said::PubAck(number, 0)));
    }
    let after = world.gate.plane.journal().commit_stats();
    assert_eq!(after.records - before.records, 100);
    assert!(after.fsyncs - before.fsyncs < 50, "{before:?} {after:?}");
    assert_eq!(world.gate.metrics.stored.count(), 100);
}

#[tokio::test]
async fn a_batch_sent_again_is_acknowledged_and_garbage_is_not() {
    let world = World::new().await;
    let mut client = world.sandbox("build-7").await;
    let batch = &batches("build-7", 1)[0];
    for (number, payload, code) in [
        (1, batch.as_slice(), 0),
        (2, batch, 0),
        (3, b"garbage", 0x99),
    ] {
        let quality = Quality::at_least_once(numbered(number));
        let publish = Publish::new("v1/edge-1/build-7/events", quality, payload);
        client.send(ClientPacket::Publish(publish)).await;
        let number = u16::try_from(number).unwrap();
        assert_eq!(client.next().await, Some(Said::PubAck(number, code)));
    }
}

#[tokio::test]
async fn what_was_begun_is_stored_though_its_client_is_gone() {
    let world = World::new().await;
    let mut client = world.sandbox("build-7").await;
    for (number, batch) in batches("build-7", 20).iter().enumerate() {
        let quality = Quality::at_least_once(numbered(number + 1));
        let publish = Publish::new("v1/edge-1/build-7/events", quality, batch);
        client.send(ClientPacket::Publish(publish)).await;
    }
    drop(client);
    let journal = world.gate.plane.journal().clone();
    until("all are stored", || journal.commit_stats().records >= 20).await;
}

#[tokio::test]
async fn a_newcomer_takes_the_seat_and_the_old_one_is_told_first() {
    let world = World::new().await;
    let mut old = world.host().await;
    let mut new = world.host().await;
    assert_eq!(old.next().await, Some(Said::Disconnect(0x8E)));
    assert_eq!(old.next().await, None);
    assert!(world.gate.plane.is_connected(&edge()));
    assert_eq!(world.gate.registry.count(), 1);
    new.send(ClientPacket::PingReq).await;
    assert_eq!(new.next().await, Some(Said::Pong));
}

#[tokio::test]
async fn a_host_that_redials_on_and_on_is_subscribed_each_time() {
    let world = World::new().await;
    let open = world.submit(1, "build-7").await;
    for _ in 0..9 {
        let mut client = world.host().await;
        client.subscribe().await;
        assert_eq!(client.next().await, Some(Said::Publish(1, open.clone())));
    }
    world.gate.plane.router().probe().await.unwrap();
}

#[tokio::test]
async fn too_many_takeovers_get_0x9f_and_the_one_that_sits_stays() {
    let world = World::new().await;
    let mut last = world.host().await;
    let refused = loop {
        let mut client = world.dial();
        match client
            .login::<Host>("edge-1", &world.host_token, HOST_KEY)
            .await
        {
            Said::ConnAck(0) => last = client,
            other => break other,
        }
    };
    assert_eq!(refused, Said::ConnAck(0x9F));
    last.send(ClientPacket::PingReq).await;
    assert_eq!(last.next().await, Some(Said::Pong));
}

#[tokio::test]
async fn a_revoked_host_and_its_sandboxes_get_0x98_and_do_not_come_back() {
    let world = World::new().await;
    let (mut host, mut sandbox) = (world.host().await, world.sandbox("build-7").await);
    assert!(world.gate.plane.revoke_host(&edge(), &PEER).unwrap());
    assert_eq!(host.next().await, Some(Said::Disconnect(0x98)));
    assert_eq!(sandbox.next().await, Some(Said::Disconnect(0x98)));
    let mut client = world.dial();
    let said = client
        .login::<Host>("edge-1", &world.host_token, HOST_KEY)
        .await;
    assert_eq!(said, Said::ConnAck(0x87));
    until("nobody is left", || world.gate.registry.count() == 0).await;
    assert!(!world.gate.plane.is_connected(&edge()));
}

#[tokio::test]
async fn somebody_elses_key_gets_0x87() {
    let world = World::new().await;
    let mut client = world.dial();
    let said = client.login::<Host>("edge-1", &world.host_token, 99).await;
    assert_eq!(said, Said::ConnAck(0x87));
    assert_eq!(client.next().await, None);
    until("it is counted", || {
        world.gate.metrics.refused(ReasonCode::NOT_AUTHORIZED) == 1
    })
    .await;
}

#[tokio::test]
async fn a_command_comes_live_and_again_until_it_is_settled() {
    let world = World::new().await;
    let mut host = world.host().await;
    host.subscribe().await;
    let one = world.submit(1, "build-7").await;
    assert_eq!(host.next().await, Some(Said::Publish(1, one.clone())));
    let ack = Ack::puback(PacketId::MIN, ReasonCode::SUCCESS);
    host.send(ClientPacket::Ack(ack)).await;
    let two = world.submit(2, "build-8").await;
    assert_eq!(host.next().await, Some(Said::Publish(2, two.clone())));
    let goodbye = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
    host.send(ClientPacket::Disconnect(goodbye)).await;
    assert_eq!(host.next().await, None);
    // Acknowledged is not settled: only a report does that.
    let mut host = world.host().await;
    host.subscribe().await;
    assert_eq!(host.next().await, Some(Said::Publish(1, one)));
    assert_eq!(host.next().await, Some(Said::Publish(2, two)));
}

#[tokio::test]
async fn a_link_is_renewed_with_a_fresh_token() {
    let world = World::new().await;
    let mut client = world.sandbox("build-7").await;
    let data = token_data(&world.sandbox_token("build-7"));
    let auth = Auth::new(ReasonCode::RE_AUTHENTICATE, METHOD, Some(&data));
    client.send(ClientPacket::Auth(auth)).await;
    let Some(Said::Auth(0x18, nonce)) = client.next().await else {
        panic!("no challenge");
    };
    client
        .prove::<Sandbox>(SANDBOX_KEY, &nonce.try_into().unwrap())
        .await;
    assert_eq!(client.next().await, Some(Said::Auth(0, Vec::new())));
}

#[tokio::test]
async fn a_connect_that_dribbles_ends_at_its_deadline() {
    let world = World::new().await;
    let mut client = world.dial_until(clock::mono() + Duration::from_millis(50));
    client.stream.write_all(&[0x10]).await.unwrap();
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_packet_in_single_bytes_is_a_packet() {
    let world = World::new().await;
    let mut client = world.sandbox("build-7").await;
    let batch = &batches("build-7", 1)[0];
    let mut bytes = Vec::new();
    Publish::new(
        "v1/edge-1/build-7/events",
        Quality::at_least_once(numbered(1)),
        batch,
    )
    .encode(Version::V5, &mut bytes)
    .unwrap();
    for byte in bytes {
        client.stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(client.next().await, Some(Said::PubAck(1, 0)));
}

#[tokio::test]
async fn the_last_word_is_read_by_a_client_that_is_still_sending() {
    let world = World::new().await;
    let mut client = world.sandbox("build-7").await;
    client.stream.write_all(&[0xC1, 0]).await.unwrap();
    let counted = || world.gate.metrics.ended.count() == 1;
    until("it is on its way out", counted).await;
    // More than fits the pipe: it goes only if somebody still reads. A socket closed in its face would be reset.
    client.stream.write_all(&[0; 300_000]).await.unwrap();
    assert_eq!(client.next().await, Some(Said::Disconnect(0x81)));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_host_revoked_between_its_token_and_its_proof_is_not_admitted() {
    let world = World::new().await;
    let mut client = world.dial();
    let data = token_data(&world.host_token);
    let mut connect = Connect::new("edge-1", 30);
    connect.auth_method = Some(METHOD);
    connect.auth_data = Some(&data);
    client.send(ClientPacket::Connect(connect)).await;
    let Some(Said::Auth(0x18, nonce)) = client.next().await else {
        panic!("no challenge");
    };
    // Nobody is in the registry yet, so nobody is told.
    assert!(world.gate.plane.revoke_host(&edge(), &PEER).unwrap());
    client
        .prove::<Host>(HOST_KEY, &nonce.try_into().unwrap())
        .await;
    assert_eq!(client.next().await, Some(Said::ConnAck(0x87)));
    assert_eq!(client.next().await, None);
    until("its seat is free", || world.gate.registry.count() == 0).await;
    assert!(!world.gate.plane.is_connected(&edge()));
}

#[tokio::test]
async fn pings_that_are_never_answered_because_nobody_reads_are_not_read_either() {
    let world = World::new().await;
    let mut client = world.sandbox("build-7").await;
    let pings = [0xC0, 0].repeat(512);
    let flood = async {
        let mut sent = 0_usize;
        while sent < 64 * 1024 * 1024 {
            client.stream.write_all(&pings).await.unwrap();
            sent += pings.len();
        }
    };
    // It stalls once the pipe and both buffers are full.
    assert!(timeout(Duration::from_millis(300), flood).await.is_err());
    assert_eq!(client.next().await, Some(Said::Pong));
}

#[tokio::test]
async fn who_leaves_frees_its_seat_and_is_counted_once() {
    let world = World::new().await;
    drop(world.sandbox("build-7").await);
    until("its seat is free", || world.gate.registry.count() == 0).await;
    let metrics = &world.gate.metrics;
    until("it is counted", || metrics.ended.count() == 1).await;
    assert_eq!(metrics.admitted.count(), 1);
}
