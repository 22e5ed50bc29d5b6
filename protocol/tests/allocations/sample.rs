//! One honest message of each kind, to be broken.

use protocol::{
    cbor::{self, CborError},
    command::{Command, Content, Launch, Limits, Order, Stop},
    exchange::{
        Challenge, Cosigned, Grant, Handover, InstallProof, Proof, Refusal, Refused, Request,
        Succession, Trail,
    },
    id::{CommandId, HostId, SandboxId, SourceName},
    install_key::InstallKey,
    key::{Host, Role, Sandbox, Secret},
    limits::{BATCH_HEAD_BYTES_MAX, EXCHANGE_BYTES_MAX, MESSAGE_BYTES_MAX, TOKEN_BYTES_MAX},
    report::{self, Ended, Forwarded, Launched, News, Report, Sighting, State, Status, Stopped},
    scope::{Permission, Scope},
    stream::{self, Head},
    time::UnixMillis,
    token::{Claims, Confirmation, CoseKey},
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::{
    cost::{SPARE_BYTES, SPARE_BYTES_WITH_LISTS},
    item::{Item, Place},
};

pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
pub(crate) const AUDIENCE: &str = "outhaul-0011223344556677";

/// A message, and the door that it comes in by when a connection vouches for it.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) item: Item,
    pub(crate) bytes_max: usize,
    pub(crate) read: fn(&[u8], usize) -> Result<(), CborError>,
    /// What it may cost beyond its length, in bytes.
    pub(crate) spare: u64,
    /// Where a value is that a reader of today skips.
    pub(crate) skipped: Option<Place>,
}

impl Sample {
    fn of<T: Serialize + DeserializeOwned>(
        name: &'static str,
        bytes_max: usize,
        value: &T,
    ) -> Self {
        Self {
            name,
            item: Item::parse(&cbor::to_vec(value)),
            bytes_max,
            read: |bytes, bytes_max| cbor::from_slice::<T>(bytes, bytes_max).map(drop),
            spare: spare(name),
            skipped: None,
        }
    }

    /// Claims, whose scopes are looked into: they are bytes that hold a list.
    fn of_claims(name: &'static str, claims: &Claims) -> Self {
        let mut sample = Self::of(name, TOKEN_BYTES_MAX, claims);
        let pairs = sample.item.children();
        for (number, pair) in pairs.chunks(2).enumerate() {
            let is_scope = pair[0].encode() == [9] || pair[0].encode() == [0x3a, 0, 1, 0x11, 0x70];
            if let (true, Item::Bytes(bytes)) = (is_scope, &pair[1]) {
                let inside = Item::Inside(Box::new(Item::parse(bytes)));
                sample.item = sample.item.with(&[2 * number + 1], &inside);
            }
        }
        sample
    }

    /// With a pair more in the map at `place`, as a newer writer would add it.
    fn with_skipped_pair(mut self, name: &'static str, place: &[usize]) -> Self {
        let mut pairs = self.item.at(place).children();
        let value = [0x83, 1, 0xa1, 0x61, b'k', 0x41, 7, 0x61, b't'];
        pairs.extend([Item::Plain(vec![0x18, 64]), Item::parse(&value)]);
        self.name = name;
        self.skipped = Some([place, &[pairs.len() - 1]].concat());
        self.item = self.item.with(place, &Item::Map(pairs));
        self
    }
}

/// What a message may cost beyond its length, in bytes.
pub(crate) fn spare(name: &str) -> u64 {
    match name {
        "host token" | "sandbox token" | "launch" | "status" | "grant" | "catching up" => {
            SPARE_BYTES_WITH_LISTS
        }
        _ => SPARE_BYTES,
    }
}

/// One of each.
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = vec![
        Sample::of_claims("host token", &host_claims()),
        Sample::of_claims("sandbox token", &sandbox_claims()),
        Sample::of("head", BATCH_HEAD_BYTES_MAX, &batch_head()),
        Sample::of("succession", EXCHANGE_BYTES_MAX, &succession()),
    ];
    for (name, order) in orders() {
        samples.push(Sample::of(name, MESSAGE_BYTES_MAX, &command(order)));
    }
    for (name, news) in news() {
        samples.push(Sample::of(name, MESSAGE_BYTES_MAX, &report(news)));
    }
    for (name, proof) in proofs() {
        samples.push(Sample::of(name, EXCHANGE_BYTES_MAX, &request(proof)));
    }
    samples.extend(answers());
    let (_, status) = news().remove(5);
    let status = || Sample::of("status", MESSAGE_BYTES_MAX, &report(status.clone()));
    samples.push(status().with_skipped_pair("report with a pair more", &[]));
    samples.push(status().with_skipped_pair("sighting with a pair more", &[7, 1, 9, 0]));
    samples
}

pub(crate) fn secret<R: Role>(byte: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

pub(crate) fn host() -> HostId {
    HostId::new("edge-1").unwrap()
}

pub(crate) fn sandbox() -> SandboxId {
    SandboxId::new("build-7").unwrap()
}

pub(crate) fn host_claims() -> Claims {
    Claims {
        issuer: AUDIENCE.into(),
        subject: "edge-1".into(),
        audience: AUDIENCE.into(),
        expires_s: NOW.seconds() + 600,
        not_before_s: Some(NOW.seconds()),
        issued_s: NOW.seconds(),
        id: [1; 8].into(),
        confirmation: Confirmation {
            key: CoseKey {
                kty: 1,
                crv: 6,
                x: (*secret::<Host>(2).public().as_bytes()).into(),
            },
        },
        scope: Scope::new(vec![
            ("v1/edge-1/commands".into(), vec![Permission::Sub]),
            ("v1/edge-1/reports".into(), vec![Permission::Pub]),
        ]),
        delegable: Some(Scope::one("v1/edge-1/+/events".into(), Permission::Pub)),
        generation: Some(3),
    }
}

pub(crate) fn sandbox_claims() -> Claims {
    let mut claims = host_claims();
    claims.issuer = "edge-1".into();
    claims.subject = "edge-1/build-7".into();
    claims.confirmation.key.x = (*secret::<Sandbox>(3).public().as_bytes()).into();
    claims.scope = Scope::one("v1/edge-1/build-7/events".into(), Permission::Pub);
    claims.delegable = None;
    claims.generation = None;
    claims
}

pub(crate) fn batch_head() -> Head {
    Head {
        stream: stream::stream_id(&host(), &sandbox()).into(),
        epoch: 1,
        batch: 0,
        first: 0,
        count: 1,
        previous: [0; 32].into(),
        body_hash: [7; 32].into(),
        body_bytes: 100,
        time: NOW,
        token: Some([8; 8].into()),
        closing: Some(true),
    }
}

pub(crate) fn command(order: Order) -> Command {
    Command {
        id: CommandId([1; 16]),
        host: host(),
        issued: NOW,
        expires: UnixMillis(NOW.0 + 60_000),
        order,
    }
}

pub(crate) fn orders() -> [(&'static str, Order); 2] {
    let launch = Launch {
        sandbox: sandbox(),
        image: "tool:1".into(),
        arguments: vec!["make".into(), "all".into()],
        environment: vec![("A".into(), "b".into()), ("C".into(), String::new())],
        sources: vec![SourceName::new("code").unwrap()],
        limits: Limits::default(),
        content: Content::Full,
        isolation: Some("key".parse().unwrap()),
    };
    let stop = Stop {
        sandbox: sandbox(),
        grace_s: 5,
    };
    [
        ("launch", Order::Launch(launch)),
        ("stop", Order::Stop(stop)),
    ]
}

pub(crate) fn report(news: News) -> Report {
    Report {
        host: host(),
        number: 9,
        time: NOW,
        news,
    }
}

pub(crate) fn news() -> Vec<(&'static str, News)> {
    let (command, sandbox, detail) = (CommandId([1; 16]), sandbox(), String::from("why"));
    let sighting = Sighting {
        sandbox: sandbox.clone(),
        state: State::Running,
    };
    let all = [
        News::Refused(report::Refused {
            command,
            sandbox: sandbox.clone(),
            reason: report::Reason::Busy,
            detail: detail.clone(),
        }),
        News::Launched(Launched {
            command,
            sandbox: sandbox.clone(),
            key: secret::<Sandbox>(3).public(),
            image: "sha256:00".into(),
            container: "00".into(),
            content: Content::Full,
        }),
        News::Ended(Ended {
            command: Some(command),
            sandbox: sandbox.clone(),
            state: State::Failed,
            exit_code: Some(3),
            reason: Some(report::Reason::OomKilled),
            detail,
        }),
        News::Stopped(Stopped {
            command,
            sandbox: sandbox.clone(),
        }),
        News::Forwarded(Forwarded {
            sandbox,
            batch: vec![1, 2, 3].into(),
        }),
        News::Status(Status {
            generation: 1,
            version: "0".into(),
            start: [0; 8].into(),
            engine: true,
            sandboxes: vec![sighting.clone(), sighting],
            skew_ms: Some(-1),
        }),
    ];
    all.map(|news| (news.word(), news)).into()
}

pub(crate) fn succession() -> Succession {
    Succession {
        host: host(),
        generation: 4,
        key: secret::<Host>(4).public(),
        time: NOW,
    }
}

/// The state of an audit trail; what its texts say is not the message's to judge.
pub(crate) fn trail() -> Trail {
    let note = "b/audit\n1\nAA==\n".to_owned();
    Trail {
        note: note.clone(),
        vkey: "b/audit+01020304+AQ==".to_owned(),
        proof: vec![[1; 32].into(), [2; 32].into()],
        others: vec![Cosigned {
            note: note.clone(),
            proof: vec![[3; 32].into()],
        }],
        handovers: vec![Handover {
            note,
            vkey: "b/audit+05060708+AQ==".to_owned(),
        }],
    }
}

pub(crate) fn request(proof: Proof) -> Request {
    Request {
        nonce: [9; 32].into(),
        host: host(),
        key: secret::<Host>(2).public(),
        generation: 1,
        proof,
        // With nothing in it, it would be a request too: what is broken here must show.
        witness: None,
    }
}

pub(crate) fn proofs() -> [(&'static str, Proof); 3] {
    let key = InstallKey::new([5; 8], Zeroizing::new([6; 32]));
    [
        ("enrolment", Proof::InstallKey(InstallProof::from(&key))),
        ("renewal", Proof::HostKey(vec![0x84, 1, 2].into())),
        (
            "catching up",
            Proof::HostKeys(vec![vec![0x84, 1, 2].into(), vec![0x84, 3].into()]),
        ),
    ]
}

fn answers() -> [Sample; 3] {
    let challenge = Challenge {
        nonce: [9; 32].into(),
        time: NOW,
    };
    let grant = Grant {
        token: vec![0x84, 1, 2].into(),
        time: NOW,
        generation: 3,
        // Two: behind a label that is cut short, one would be a value to skip.
        authorities: Some(vec![vec![0x30, 0].into(), vec![0x30, 1, 0].into()]),
        trail: Some(trail()),
    };
    let refused = Refused {
        reason: Refusal::Locked,
        time: NOW,
        generation: Some(300),
    };
    [
        Sample::of("challenge", EXCHANGE_BYTES_MAX, &challenge),
        Sample::of("grant", EXCHANGE_BYTES_MAX, &grant),
        Sample::of("refusal", EXCHANGE_BYTES_MAX, &refused),
    ]
}
