//! Where a case takes place: a real broker, a host that is attacked or attacks, another that stands by, and what is looked at after.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{
    id::{CommandId, HostId, SandboxId},
    key::{Dispatcher, Host, Issuer, Role, Secret},
    possession,
    stream::{Writer, stream_id},
    time::UnixMillis,
    token::{self, HostTerms},
    topic::Topic,
};
use rustls::ClientConfig;
use tests::{
    client::tls_config,
    enroll, local,
    secrets::Secrets,
    wait,
    world::{BrokerTerms, World},
};
use zeroize::Zeroizing;

use crate::{
    bystander::Bystander,
    bytes::{Hello, auth},
    counters::{Counters, Expected},
    wire::Wire,
};

/// What a case may leave of the broker's memory, in bytes, unless it says otherwise. An allocator keeps some of what it had.
pub(crate) const MEMORY_GROWTH_MAX: u64 = 24 << 20;
/// What the broker logs here: all that is ours, so that what it never writes down shows.
const LOG: &str = "broker=trace,protocol=trace,info";

/// The host whose operator and sandboxes the cases play.
pub(crate) const HOST: &str = "edge-b";
/// The host that stands by.
const NEIGHBOUR: &str = "edge-a";

/// See the module.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) bystander: Bystander,
    pub(crate) secrets: Secrets,
    /// See [`MEMORY_GROWTH_MAX`].
    pub(crate) memory_growth_max: u64,
    config: Arc<ClientConfig>,
    issuer: Secret<Issuer>,
    audience: String,
    host_token: Vec<u8>,
    before: Counters,
    expected: Expected,
    made: u32,
}

/// Who may connect: a subject, its token and the seed of its key.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) subject: String,
    pub(crate) token: Vec<u8>,
    pub(crate) seed: [u8; 32],
}

impl Credentials {
    pub(crate) fn key<R: Role>(&self) -> Secret<R> {
        Secret::from_seed(&Zeroizing::new(self.seed))
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello::new(&self.subject, &self.token)
    }

    /// The topic of a sandbox's events, or of a host's reports.
    pub(crate) fn topic(&self) -> String {
        match self.subject.split_once('/') {
            Some((host, sandbox)) => {
                Topic::Events(host_id(host), SandboxId::new(sandbox).unwrap()).to_string()
            }
            None => Topic::Reports(host_id(&self.subject)).to_string(),
        }
    }

    /// The topic of a host's commands.
    pub(crate) fn commands(&self) -> String {
        let host = self.subject.split('/').next().unwrap_or_default();
        Topic::Commands(host_id(host)).to_string()
    }

    /// A writer of its sandbox's stream.
    pub(crate) fn writer(&self) -> Writer {
        let (host, sandbox) = self.subject.split_once('/').unwrap();
        let stream = stream_id(&host_id(host), &SandboxId::new(sandbox).unwrap());
        Writer::new(self.key(), stream, [2; 8])
    }

    /// A first batch of its sandbox's stream, empty.
    pub(crate) fn batch(&self) -> Vec<u8> {
        self.writer().seal(wait::now(), false)
    }
}

pub(crate) fn host_id(name: &str) -> HostId {
    HostId::new(name).unwrap()
}

/// Key seeds that no other key has, and that can be found in a log.
fn seed(number: u32) -> [u8; 32] {
    let mut seed = *b"a seed that nobody may write....";
    seed[28..].copy_from_slice(&number.to_be_bytes());
    // The end is what is looked for, so it must differ from that of every other text.
    seed[16..24].copy_from_slice(&[0xA5, 0x5A, 0xC3, 0x3C, 0x96, 0x69, 0xF0, 0x0F]);
    seed
}

pub(crate) fn dispatcher() -> Secret<Dispatcher> {
    Secret::from_seed(&Zeroizing::new(seed(0)))
}

/// Runs a case, and looks at everything after it.
pub(crate) fn run(case: impl FnOnce(&mut Site)) {
    run_on(BrokerTerms::default(), case);
}

/// The same against a broker on other terms.
pub(crate) fn run_on(terms: BrokerTerms<'_>, case: impl FnOnce(&mut Site)) {
    let mut site = Site::open(terms);
    let memory = site.memory();
    case(&mut site);
    site.look_after(memory);
}

impl Site {
    pub(crate) fn open(terms: BrokerTerms<'_>) -> Self {
        let mut world = World::empty().unwrap();
        world
            .start_broker_with(BrokerTerms {
                log: terms.log.or(Some(LOG)),
                ..terms
            })
            .unwrap();
        enroll::add_dispatcher(&world, &dispatcher()).unwrap();
        let mut kept = vec![seed(0).to_vec(), seed(1).to_vec(), seed(2).to_vec()];
        let enrolled = [(HOST, 1), (NEIGHBOUR, 2)].map(|(name, number)| {
            let key = Secret::from_seed(&Zeroizing::new(seed(number)));
            enroll::enroll(&world, &host_id(name), &dispatcher(), &key, &mut kept).unwrap()
        });
        let [host_token, neighbour_token] = enrolled;
        kept.extend([host_token.clone(), neighbour_token.clone()]);
        let mut secrets = Secrets::default();
        secrets.extend(&kept);
        let issuer = fs::read_to_string(world.path("broker/keys/issuer.key")).unwrap();
        let audience = local::get_json(&world.socket(), "/v1/status").unwrap()["audience"]
            .as_str()
            .unwrap()
            .to_owned();
        let config = Arc::new(tls_config(&ca(&world), &[b"mqtt"]).unwrap());
        let neighbour = Credentials {
            subject: NEIGHBOUR.to_owned(),
            token: neighbour_token,
            seed: seed(2),
        };
        let sandbox = sandbox_of(&neighbour, "by", seed(3), wait::now());
        secrets.add(&sandbox.token);
        let bystander = Bystander::new(&world, &config, &neighbour, &sandbox);
        let mut site = Self {
            before: Counters::read(&world.socket()),
            world,
            bystander,
            secrets,
            memory_growth_max: MEMORY_GROWTH_MAX,
            config,
            issuer: Secret::from_file_text(&issuer).unwrap(),
            audience,
            host_token,
            expected: Expected::default(),
            made: 10,
        };
        site.is_well();
        site
    }

    // ---- who may connect

    fn number(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    /// The host's operator.
    pub(crate) fn host(&self) -> Credentials {
        Credentials {
            subject: HOST.to_owned(),
            token: self.host_token.clone(),
            seed: seed(1),
        }
    }

    /// A sandbox of the host, a new one each time.
    pub(crate) fn sandbox(&mut self) -> Credentials {
        let number = self.number();
        let sandbox = sandbox_of(
            &self.host(),
            &format!("build-{number}"),
            seed(number),
            wait::now(),
        );
        self.keep(&sandbox);
        sandbox
    }

    /// A token of the host that the broker itself would not have made: another issuer, audience, host, time.
    pub(crate) fn minted(&mut self, terms: &Minted<'_>) -> Credentials {
        let key = Secret::<Host>::from_seed(&Zeroizing::new(seed(1)));
        let token = token::mint_host(
            terms.issuer.unwrap_or(&self.issuer),
            &HostTerms {
                audience: terms.audience.unwrap_or(&self.audience),
                host: &host_id(terms.host),
                key: key.public(),
                generation: terms.generation,
                id: [9; 8],
                issued: terms.issued,
                life_s: terms.life_s,
            },
        );
        let credentials = Credentials {
            subject: terms.host.to_owned(),
            token,
            seed: seed(1),
        };
        self.keep(&credentials);
        credentials
    }

    pub(crate) fn issuer(&self) -> &Secret<Issuer> {
        &self.issuer
    }

    pub(crate) fn keep(&mut self, credentials: &Credentials) {
        self.secrets.add(&credentials.token);
        self.secrets.add(&credentials.seed);
    }

    // ---- connections

    pub(crate) fn ca(&self) -> PathBuf {
        ca(&self.world)
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.world.port)).unwrap()
    }

    /// TLS, and nothing said yet.
    pub(crate) fn dial(&self) -> Wire {
        Wire::over(self.tcp(), Arc::clone(&self.config)).unwrap()
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Sends a CONNECT and proves possession; what comes then.
    pub(crate) fn greet(&mut self, hello: &Hello, who: &Credentials) -> (Wire, Vec<u8>) {
        let mut wire = self.dial();
        let answer = self.greet_over(&mut wire, hello, who);
        (wire, answer)
    }

    /// The same over a connection that is there.
    pub(crate) fn greet_over(
        &mut self,
        wire: &mut Wire,
        hello: &Hello,
        who: &Credentials,
    ) -> Vec<u8> {
        wire.send(&hello.bytes());
        let (answer, proof) = prove(wire, who);
        if let Some(proof) = proof {
            self.secrets.add(&proof);
        }
        answer
    }

    /// Online.
    pub(crate) fn online(&mut self, who: &Credentials) -> Wire {
        self.online_with(&who.hello(), who)
    }

    /// Online with a CONNECT of one's own.
    #[track_caller]
    pub(crate) fn online_with(&mut self, hello: &Hello, who: &Credentials) -> Wire {
        let (wire, answer) = self.greet(hello, who);
        assert_eq!(answer.get(..1), Some([0x20].as_slice()), "a CONNACK");
        assert_eq!(answer.get(3), Some(&0), "it is welcome");
        wire
    }

    /// The host's operator, online and subscribed to its commands.
    pub(crate) fn subscribed(&mut self, hello: &Hello) -> Wire {
        let host = self.host();
        let mut wire = self.online_with(hello, &host);
        let filter = host.commands();
        wire.says(
            &crate::bytes::subscribe(1, &[&filter]),
            &crate::bytes::suback(1, &[1]),
        );
        wire
    }

    /// Submits a command for the host, as its dispatcher would: its bytes.
    pub(crate) fn command(&mut self) -> Vec<u8> {
        let number = self.number();
        let bytes = crate::bystander::launch(&host_id(HOST), number, wait::now());
        self.submit(&bytes).unwrap();
        bytes
    }

    pub(crate) fn submit(&self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        local::post(
            &self.world.socket(),
            "/v1/commands",
            "application/cbor",
            bytes,
        )
    }

    /// Names and subjects of the audit trail.
    pub(crate) fn audit(&self) -> Vec<(String, String)> {
        let rows = local::get_json(&self.world.socket(), "/v1/audit?from=0").unwrap();
        let rows = rows["rows"].as_array().unwrap().clone();
        rows.iter()
            .map(|row| {
                let of = |name: &str| row[name].as_str().unwrap().to_owned();
                (of("name"), of("subject"))
            })
            .collect()
    }

    // ---- what is to be counted

    /// One connection ends with this reason.
    pub(crate) fn ended(&mut self, reason: u8, why: &str) {
        self.ended_many(reason, why, 1);
    }

    pub(crate) fn ended_many(&mut self, reason: u8, why: &str, count: u64) {
        self.counts(&ended_series(&format!("0x{reason:02X}"), why), count, count);
    }

    /// So many connections are closed without a word.
    pub(crate) fn closed(&mut self, why: &str, count: u64) {
        self.counts(&ended_series("none", why), count, count);
    }

    /// So many packets are refused while their connections go on.
    pub(crate) fn packets(&mut self, reason: u8, count: u64) {
        let series = format!("outhaul_gate_packets_refused_total{{reason=\"0x{reason:02X}\"}}");
        self.counts(&series, count, count);
    }

    /// A token opens nothing.
    pub(crate) fn token(&mut self, why: &str) {
        let series = format!("outhaul_gate_tokens_refused_total{{why=\"{why}\"}}");
        self.counts(&series, 1, 1);
    }

    pub(crate) fn counts(&mut self, series: &str, least: u64, most: u64) {
        self.expected.add(series.to_owned(), least, most);
    }

    pub(crate) fn counted(&self, series: &str) -> u64 {
        let now = Counters::read(&self.world.socket());
        now.of(series) - self.before.of(series)
    }

    /// One series less others, of one look; at no time more than it was.
    pub(crate) fn counted_less(&self, series: &str, others: &[&str]) -> u64 {
        let now = Counters::read(&self.world.socket());
        let since = |series: &&str| now.of(series) - self.before.of(series);
        since(&series).saturating_sub(others.iter().map(since).sum())
    }

    // ---- rows of a table

    /// A stranger sends this, and that is all it is told.
    #[track_caller]
    pub(crate) fn stranger(&mut self, bytes: &[u8], reason: u8, why: &str) {
        let mut wire = self.dial();
        wire.send(bytes);
        wire.ends(&crate::bytes::connack(reason));
        self.ended(reason, why);
    }

    /// A sandbox that is online sends this, and is told that it ends.
    #[track_caller]
    pub(crate) fn sandbox_is_ended(&mut self, bytes: &[u8], reason: u8, why: &str) {
        let who = self.sandbox();
        self.is_ended(&who, bytes, reason, why);
    }

    /// Somebody who is online sends this, and is told that it ends.
    #[track_caller]
    pub(crate) fn is_ended(&mut self, who: &Credentials, bytes: &[u8], reason: u8, why: &str) {
        let mut wire = self.online(who);
        wire.send(bytes);
        wire.ends(&crate::bytes::disconnect(reason));
        self.ended(reason, why);
    }

    // ---- what must hold, whatever happened

    /// The bystander is served within a second: a ping, a command through the router, an event into the journal.
    #[track_caller]
    pub(crate) fn is_well(&mut self) {
        self.bystander.is_served(&self.world.socket());
    }

    /// What the broker has in memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let pid = self.world.broker_pid().unwrap();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kilobytes << 10
    }

    fn look_after(mut self, memory: u64) {
        self.is_well();
        let settled = wait::until_ok(COUNTED_WAIT, || {
            let counted = Counters::read(&self.world.socket()).refusals_since(&self.before);
            let wrong = self.expected.compare(&counted);
            if wrong.is_empty() { Ok(()) } else { Err(wrong) }
        });
        if let Err(wrong) = settled {
            panic!("{}", wrong.join("\n"));
        }
        let growth = self.memory().saturating_sub(memory);
        assert!(
            growth <= self.memory_growth_max,
            "the broker has {growth} bytes more than before"
        );
        self.is_discreet();
        assert!(!self.world.broker_has_ended());
    }

    /// No secret was written down, and nothing panicked.
    pub(crate) fn is_discreet(&self) {
        let (log, data) = (self.world.path("log"), self.world.path("broker"));
        let found = self.secrets.found_below(&[&log, &data]).unwrap();
        assert!(found.is_empty(), "secrets were written: {found:?}");
        let log = self.world.log("broker");
        assert!(!log.contains("panicked"), "something panicked");
    }
}

/// How long the last connection may take to be counted: it is discarded for a second first.
const COUNTED_WAIT: Duration = Duration::from_secs(5);

/// See [`Site::minted`].
pub(crate) struct Minted<'a> {
    pub(crate) issuer: Option<&'a Secret<Issuer>>,
    pub(crate) audience: Option<&'a str>,
    pub(crate) host: &'a str,
    pub(crate) generation: u64,
    pub(crate) issued: UnixMillis,
    pub(crate) life_s: u64,
}

impl Minted<'_> {
    /// As the broker would make it now.
    pub(crate) fn good() -> Self {
        Self {
            issuer: None,
            audience: None,
            host: HOST,
            generation: 1,
            issued: wait::now(),
            life_s: 3600,
        }
    }
}

/// Answers the challenge that `wire` brings, if it brings one: what comes then, and the proof.
pub(crate) fn prove(wire: &mut Wire, who: &Credentials) -> (Vec<u8>, Option<Vec<u8>>) {
    let answer = wire.packet();
    let Some(nonce) = nonce_of(&answer) else {
        return (answer, None);
    };
    let proof = possession::prove(&who.key::<Host>(), &nonce, &[7; 8]).to_vec();
    wire.send(&auth(0x18, &proof));
    (wire.packet(), Some(proof))
}

/// The nonce of a challenge; it stands at the end.
pub(crate) fn nonce_of(packet: &[u8]) -> Option<[u8; 8]> {
    packet
        .strip_prefix(&[0xF0])
        .and_then(|rest| rest.last_chunk::<8>())
        .copied()
}

/// What a sandbox of `host` has.
pub(crate) fn sandbox_of(
    host: &Credentials,
    name: &str,
    seed: [u8; 32],
    now: UnixMillis,
) -> Credentials {
    let key = Secret::<protocol::key::Sandbox>::from_seed(&Zeroizing::new(seed));
    let sandbox = SandboxId::new(name).unwrap();
    let token = token::mint_sandbox(
        &host.key(),
        &host.token,
        &sandbox,
        &key.public(),
        [2; 8],
        now,
    );
    Credentials {
        subject: format!("{}/{name}", host.subject),
        token: token.unwrap(),
        seed,
    }
}

pub(crate) fn command_id(number: u32) -> CommandId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    CommandId(id)
}

fn ended_series(reason: &str, why: &str) -> String {
    format!("outhaul_gate_connections_ended_total{{reason=\"{reason}\",why=\"{why}\"}}")
}

fn ca(world: &World) -> PathBuf {
    world.path("broker/keys/ca.crt")
}

/// The broker's files.
pub(crate) fn data(world: &World, name: &str) -> PathBuf {
    Path::new(&world.path("broker")).join(name)
}
