//! Good messages of every kind, and a few that a newer peer might send.

use protocol::{
    cbor,
    command::{Command, Content, Launch, Limits, Order, Stop},
    event::{self, Event, FLAG_CONTINUED},
    exchange::{
        self, Challenge, Cosigned, Grant, Handover, InstallProof, Proof, Refusal, Request,
        Succession, Trail, Witnessing,
    },
    id::{CommandId, IsolationKey, SourceName},
    install_key::InstallKey,
    key::{Host, Sandbox},
    report::{
        Ended, Forwarded, Launched, News, Reason, Refused, Report, Sighting, State, Status, Stopped,
    },
    signed::Message as _,
    stream::{Writer, stream_id},
    time::UnixMillis,
};
use protocol_fuzz::{
    item::Item,
    seal::seal,
    world::{self, HOST, NOW, SANDBOX},
};
use zeroize::Zeroizing;

pub fn launch() -> Launch {
    Launch {
        sandbox: world::sandbox(),
        image: "registry.example/tool:1".into(),
        arguments: vec!["tool".into(), "--fast".into()],
        environment: vec![("MODE".into(), "quick".into())],
        sources: vec![SourceName::new("docs").expect("a good name")],
        limits: Limits::default(),
        content: Content::Full,
        isolation: Some(IsolationKey::new("tenant-3").expect("a good name")),
    }
}

pub fn stop() -> Stop {
    Stop {
        sandbox: world::sandbox(),
        grace_s: 10,
    }
}

pub fn a_command(order: Order) -> Command {
    Command {
        id: CommandId([1; 16]),
        host: world::host(),
        issued: NOW,
        expires: UnixMillis(NOW.0 + 60_000),
        order,
    }
}

pub fn every_news() -> Vec<News> {
    let (command, sandbox) = (CommandId([1; 16]), world::sandbox());
    vec![
        News::Refused(Refused {
            command,
            sandbox: sandbox.clone(),
            reason: Reason::PolicyRefused,
            detail: "limits.cpus: asked for 4.000".into(),
        }),
        News::Launched(Launched {
            command,
            sandbox: sandbox.clone(),
            key: world::public::<Sandbox>(SANDBOX),
            image: "sha256:9f".into(),
            container: "c0ffee".into(),
            content: Content::Metadata,
        }),
        News::Ended(Ended {
            command: Some(command),
            sandbox: sandbox.clone(),
            state: State::Failed,
            exit_code: Some(137),
            reason: Some(Reason::OomKilled),
            detail: String::new(),
        }),
        News::Stopped(Stopped {
            command,
            sandbox: sandbox.clone(),
        }),
        News::Forwarded(Forwarded {
            sandbox: sandbox.clone(),
            batch: batches()[0].clone().into(),
        }),
        News::Status(Status {
            generation: 3,
            version: "0.1.0".into(),
            start: [4; 8].into(),
            engine: true,
            sandboxes: vec![Sighting {
                sandbox,
                state: State::Running,
            }],
            skew_ms: Some(-7_200_000),
        }),
    ]
}

pub fn a_report(news: News) -> Report {
    Report {
        host: world::host(),
        number: 9,
        time: NOW,
        news,
    }
}

pub fn succession(next: u8, generation: u64) -> Vec<u8> {
    cbor::to_vec(&Succession {
        host: world::host(),
        generation,
        key: world::public(next),
        time: NOW,
    })
}

pub fn requests() -> [Request; 2] {
    let key = InstallKey::new([5; 8], Zeroizing::new([6; 32]));
    let by_last_key = seal(HOST, Succession::TYP, &succession(HOST, 4), b"", None);
    let request = |generation, proof| Request {
        nonce: [9; 32].into(),
        host: world::host(),
        key: world::public::<Host>(HOST),
        generation,
        proof,
        witness: Some(Witnessing {
            note: Some("b/audit\n1\nAA==\n".to_owned()),
        }),
    };
    [
        request(1, Proof::InstallKey(InstallProof::from(&key))),
        request(4, Proof::HostKey(by_last_key.into())),
    ]
}

pub fn challenge() -> Challenge {
    Challenge {
        nonce: [9; 32].into(),
        time: NOW,
    }
}

/// The state of an audit trail; what its texts say is not the message's to judge.
pub fn trail() -> Trail {
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

pub fn grant() -> Grant {
    Grant {
        token: world::HOST_TOKEN.clone().into(),
        time: NOW,
        generation: 3,
        authorities: Some(vec![vec![0x30, 0].into(), vec![0x30, 1, 0].into()]),
        trail: Some(trail()),
    }
}

pub fn refused() -> exchange::Refused {
    exchange::Refused {
        reason: Refusal::Locked,
        time: NOW,
        generation: Some(300),
    }
}

/// The map `payload` with pairs that we do not know: one of each kind of item.
pub fn cbor_with_more(payload: &[u8]) -> Vec<u8> {
    let Some(Item::Map(mut pairs)) = Item::read(payload) else {
        panic!("a message is a map");
    };
    let items = vec![
        Item::Negative(7),
        Item::Bytes(vec![1, 2]),
        Item::Text("new".into()),
        Item::Map(vec![(Item::Uint(1), Item::Simple(0xf6))]),
    ];
    pairs.push((Item::Uint(64), Item::Simple(0xf5)));
    pairs.push((Item::Uint(1000), Item::Array(items)));
    Item::Map(pairs).to_vec()
}

/// The same report with news that no reader of today knows.
pub fn of_unknown_kind(payload: &[u8]) -> Vec<u8> {
    let mut item = Item::read(payload).expect("a good report");
    let body = Item::Map(vec![(Item::Uint(1), Item::Text("more".into()))]);
    *item.label_mut(4).expect("a report has news") = Item::Array(vec![Item::Uint(7), body]);
    item.to_vec()
}

pub fn line(data: &[u8]) -> Event<'_> {
    Event {
        time: NOW,
        kind: event::Kind::Stdout,
        flags: FLAG_CONTINUED,
        size: data.len() as u64,
        value: 0,
        data,
    }
}

/// A batch of two events, one of none, and a closing one.
pub fn batches() -> Vec<Vec<u8>> {
    let stream = stream_id(&world::host(), &world::sandbox());
    let mut writer = Writer::new(world::owned(SANDBOX), stream, [2; 8]);
    assert!(writer.push(&line(b"hello")) && writer.push(&line(b"")));
    let first = writer.seal(NOW, false);
    let heartbeat = writer.seal(NOW, false);
    vec![first, heartbeat, writer.seal(NOW, true)]
}
