//! The recording: the real broker under strace, at work for real clients over real TLS.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use protocol::{
    command::{self, Command, Content, Launch, Limits, Order},
    id::{CommandId, HostId, SandboxId},
    key::{Dispatcher, Host, Sandbox, Secret},
    mqtt::{ClientPacket, Delivery, PacketId, Publish, ReasonCode},
    report::{self, Ended, Launched, News, Report, State},
    topic::Topic,
};
use serde_bytes::ByteBuf;
use serde_json::json;
use tests::{
    client::{Client, Said},
    enroll, local, wait,
    world::{BrokerTerms, World},
};
use zeroize::Zeroizing;

use crate::{
    notes::{Deed, Notes, Step},
    publisher::{Publisher, Sizes},
    reader::{self, Reader},
    recording::{self, DATA, Operation},
};

/// Sandboxes that publish.
const PUBLISHERS: u8 = 3;
/// Batches of each in one life of the broker.
const BATCHES: usize = 60;
/// Rounds of the control plane in one life of the broker.
const ROUNDS: u64 = 4;
/// Lives of the broker: the second opens what the first left.
const LIVES: u64 = 2;
/// So much is in the journal's segment before the recording of a roll begins, in bytes: one of 64 MiB is nearly full.
const NEARLY_FULL_BYTES: u64 = 63 * 1024 * 1024;
/// Batches of the largest size in the recording of a roll: 1.7 MiB, so the roll is somewhere in the middle.
const ROLL_BATCHES: usize = 30;

/// A recording of fewer calls is none: something was not traced.
const OPERATIONS_MIN: usize = 40;

/// A recording, read.
pub(crate) struct Recording {
    /// What was on the disk for long before it began.
    pub(crate) base: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) notes: Notes,
}

impl Recording {
    /// Reads what [`record`] or [`record_roll`] left.
    pub(crate) fn load(place: &Path) -> anyhow::Result<Self> {
        let root = fs::read_to_string(place.join("root")).context("read where it was recorded")?;
        let notes = fs::read(place.join("notes.cbor")).context("read the notes")?;
        let mut operations = Vec::new();
        for life in 1.. {
            let trace = trace_of(place, life);
            if !trace.exists() {
                break;
            }
            operations.extend(recording::read(&trace, &root)?);
        }
        ensure!(
            operations.len() > OPERATIONS_MIN,
            "{} operations",
            operations.len()
        );
        let mut base = Vec::new();
        if place.join("base").exists() {
            read_tree(&place.join("base"), DATA, &mut base)?;
        }
        Ok(Self {
            base,
            operations,
            notes: serde_cbor::from_slice(&notes).context("read the notes")?,
        })
    }
}

fn trace_of(place: &Path, life: u64) -> PathBuf {
    place.join(format!("trace-{life}"))
}

fn secret<R: protocol::key::Role>(byte: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([byte; 32]))
}

/// A broker under strace, and who works with it.
struct Site<'a> {
    world: World,
    place: &'a Path,
    durability: &'a str,
    host: HostId,
    token: Vec<u8>,
    reports: u64,
    steps: Vec<Step>,
}

/// Everything: from a directory that is not there yet, over two lives of the broker, with all that the control plane does.
pub(crate) fn record(place: &Path, durability: &str) -> anyhow::Result<()> {
    let mut site = Site::new(place, durability)?;
    site.start_traced(1)?;
    site.begin()?;
    let token = site.add_reader(reader::NAME)?;
    let (mut reader, client) = Reader::new(&site.world, token)?;
    let mut client = Some(client);
    let mut publishers: Vec<_> = (1..=PUBLISHERS)
        .map(|number| site.publisher(number))
        .collect();
    for life in 1..=LIVES {
        if life > 1 {
            site.start_traced(life)?;
        }
        let mut reading = match client.take() {
            Some(client) => client,
            None => reader.dial(&site.world)?,
        };
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let publishing: Vec<_> = publishers
                .iter_mut()
                .map(|one| scope.spawn(|| one.run(Sizes::Mixed, |sent| sent >= BATCHES)))
                .collect();
            // Until its connection ends with the broker.
            scope.spawn(|| reader.run(&mut reading));
            let mut worked = Ok(());
            for round in 0..ROUNDS {
                worked = worked.and_then(|()| site.round((life - 1) * ROUNDS + round));
            }
            for one in publishing {
                let published = one
                    .join()
                    .map_err(|_| anyhow::anyhow!("a publisher panicked"))?;
                worked = worked.and(published);
            }
            site.stop_traced(life)?;
            worked
        })?;
    }
    let streams = publishers.into_iter().map(|one| one.noted).collect();
    site.write_notes(Notes {
        streams,
        reading: Some(reader.noted),
        ..Notes::default()
    })
}

/// The roll from one segment to the next. What comes before is not recorded: it was there for long.
pub(crate) fn record_roll(place: &Path, durability: &str) -> anyhow::Result<()> {
    let mut site = Site::new(place, durability)?;
    site.start(&[])?;
    site.begin()?;
    let mut publishers = [1, 2].map(|number| site.publisher(number));
    let segment = site
        .world
        .path(DATA)
        .join("journal/00000000000000000000.seg");
    publishers[0].run(Sizes::Full, |_| {
        fs::metadata(&segment).is_ok_and(|segment| segment.len() >= NEARLY_FULL_BYTES)
    })?;
    site.world.stop_broker()?;
    copy_tree(&site.world.path(DATA), &place.join("base"))?;
    site.start_traced(1)?;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let [large, mixed] = &mut publishers;
        let publishing = [
            scope.spawn(|| large.run(Sizes::Full, |sent| sent >= ROLL_BATCHES)),
            scope.spawn(|| mixed.run(Sizes::Mixed, |sent| sent >= BATCHES)),
        ];
        for one in publishing {
            one.join()
                .map_err(|_| anyhow::anyhow!("a publisher panicked"))??;
        }
        Ok(())
    })?;
    site.stop_traced(1)?;
    let segments = fs::read_dir(site.world.path(DATA).join("journal"))?
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "seg"));
    ensure!(
        segments.count() == 2,
        "the journal did not roll to a second segment"
    );
    let streams = publishers.into_iter().map(|one| one.noted).collect();
    site.write_notes(Notes {
        streams,
        ..Notes::default()
    })
}

impl<'a> Site<'a> {
    fn new(place: &'a Path, durability: &'a str) -> anyhow::Result<Self> {
        let world = World::empty()?;
        let root = world.dir.path().to_string_lossy().into_owned();
        fs::write(place.join("root"), root).context("write where it is recorded")?;
        Ok(Self {
            world,
            place,
            durability,
            host: HostId::new("edge-1").unwrap(),
            token: Vec::new(),
            reports: 0,
            steps: Vec::new(),
        })
    }

    fn start(&mut self, under: &[&str]) -> anyhow::Result<()> {
        self.world.start_broker_with(BrokerTerms {
            flags: &["--allow-readers", "--durability", self.durability],
            under,
            ..BrokerTerms::default()
        })
    }

    fn start_traced(&mut self, life: u64) -> anyhow::Result<()> {
        let trace = trace_of(self.place, life);
        fs::create_dir(&trace).context("make the trace's directory")?;
        let out = trace.join("t");
        let under = recording::tracer(&out.to_string_lossy());
        let under: Vec<_> = under.iter().map(String::as_str).collect();
        self.start(&under)
            .context("start the broker under strace, which has to be installed, and allowed to trace (ptrace)")
    }

    fn stop_traced(&mut self, life: u64) -> anyhow::Result<()> {
        self.world.stop_broker()?;
        let trace = trace_of(self.place, life);
        wait::until("the trace to be complete", || {
            recording::is_complete(&trace).then_some(())
        });
        Ok(())
    }

    fn note(&mut self, begun_ns: u64, deed: Deed) {
        self.steps.push(Step {
            begun_ns,
            done_ns: wait::unix_ns(),
            deed,
        });
    }

    fn write_notes(self, notes: Notes) -> anyhow::Result<()> {
        let notes = Notes {
            steps: self.steps,
            ..notes
        };
        let bytes = serde_cbor::to_vec(&notes).context("write the notes")?;
        fs::write(self.place.join("notes.cbor"), bytes).context("write the notes")
    }

    /// A dispatcher, and the host whose sandboxes publish.
    fn begin(&mut self) -> anyhow::Result<()> {
        let dispatcher = secret::<Dispatcher>(101);
        let begun = wait::unix_ns();
        enroll::add_dispatcher(&self.world, &dispatcher)?;
        let key = *dispatcher.public().as_bytes();
        self.note(begun, Deed::Dispatcher { key });
        self.token = self.enrol(&self.host.clone(), 102)?;
        Ok(())
    }

    fn publisher(&self, number: u8) -> Publisher {
        Publisher::new(&self.world, &self.host, number, &secret(102), &self.token)
    }

    fn enrol(&mut self, host: &HostId, seed: u8) -> anyhow::Result<Vec<u8>> {
        let key = secret::<Host>(seed);
        let mut install_keys = Vec::new();
        let begun = wait::unix_ns();
        let token = enroll::enroll(&self.world, host, &secret(101), &key, &mut install_keys)?;
        let install_key = install_keys.pop().context("no install key")?;
        let deed = Deed::Enrol {
            host: host.to_string(),
            key: *key.public().as_bytes(),
            install_key: String::from_utf8(install_key)?,
        };
        self.note(begun, deed);
        Ok(token)
    }

    fn add_reader(&mut self, name: &str) -> anyhow::Result<String> {
        let body = json!({ "name": name, "may": ["events"], "days": 1 }).to_string();
        let begun = wait::unix_ns();
        let answer = local::post(
            &self.world.socket(),
            "/v1/readers",
            "application/json",
            body.as_bytes(),
        )?;
        let name = name.to_owned();
        self.note(begun, Deed::AddReader { name });
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let token = answer.get("token").and_then(serde_json::Value::as_str);
        Ok(token.context("no token")?.to_owned())
    }

    fn remove_reader(&mut self, name: &str) -> anyhow::Result<()> {
        let begun = wait::unix_ns();
        let stream = UnixStream::connect(self.world.socket())?;
        let path = format!("/v1/readers/{name}");
        let (status, _) = local::http(stream, "DELETE", &path, "application/json", b"")?;
        ensure!(status == 200, "DELETE {path}: {status}");
        let name = name.to_owned();
        self.note(begun, Deed::RemoveReader { name });
        Ok(())
    }

    fn revoke(&mut self, host: &HostId) -> anyhow::Result<()> {
        let begun = wait::unix_ns();
        let path = format!("/v1/hosts/{host}/revoke");
        local::post(&self.world.socket(), &path, "application/json", b"")?;
        let host = host.to_string();
        self.note(begun, Deed::Revoke { host });
        Ok(())
    }

    /// What the control plane does, once.
    fn round(&mut self, round: u64) -> anyhow::Result<()> {
        let small = u8::try_from(round)?;
        let guest = HostId::new(&format!("guest-{round}")).unwrap();
        self.enrol(&guest, 150 + small)?;
        self.add_reader(&format!("reader-{round}"))?;
        let (id, sandbox) = (CommandId([small; 16]), format!("run-{round}"));
        self.command(id, &SandboxId::new(&sandbox).unwrap())?;
        self.report(id, &SandboxId::new(&sandbox).unwrap(), State::Running)?;
        if round.is_multiple_of(2) {
            self.revoke(&guest)?;
            self.report(id, &SandboxId::new(&sandbox).unwrap(), State::Finished)?;
        } else {
            self.remove_reader(&format!("reader-{}", round - 1))?;
        }
        Ok(())
    }

    fn command(&mut self, id: CommandId, sandbox: &SandboxId) -> anyhow::Result<()> {
        let now = wait::now();
        let command = Command {
            id,
            host: self.host.clone(),
            issued: now,
            expires: now.plus(std::time::Duration::from_secs(600)),
            order: Order::Launch(Launch {
                sandbox: sandbox.clone(),
                image: "tool:1".into(),
                arguments: vec![],
                environment: vec![],
                sources: vec![],
                limits: Limits::default(),
                content: Content::Full,
                isolation: None,
            }),
        };
        let bytes = command::sign(&secret(101), &command);
        let begun = wait::unix_ns();
        let socket = self.world.socket();
        let answer = local::post(&socket, "/v1/commands", "application/octet-stream", &bytes)?;
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let offset = answer.get("offset").and_then(serde_json::Value::as_u64);
        let deed = Deed::Command {
            host: self.host.to_string(),
            sandbox: sandbox.to_string(),
            bytes: ByteBuf::from(bytes),
            offset: offset.context("no offset")?,
        };
        self.note(begun, deed);
        Ok(())
    }

    fn report(&mut self, id: CommandId, sandbox: &SandboxId, state: State) -> anyhow::Result<()> {
        self.reports += 1;
        let news = if state == State::Running {
            News::Launched(Launched {
                command: id,
                sandbox: sandbox.clone(),
                key: secret::<Sandbox>(77).public(),
                image: "sha256:00".into(),
                container: sandbox.to_string(),
                content: Content::Full,
            })
        } else {
            News::Ended(Ended {
                command: Some(id),
                sandbox: sandbox.clone(),
                state,
                exit_code: Some(0),
                reason: None,
                detail: String::new(),
            })
        };
        let report = Report {
            host: self.host.clone(),
            number: self.reports,
            time: wait::now(),
            news,
        };
        let key = secret::<Host>(102);
        let bytes = report::sign(&key, &report);
        let mut client = Client::dial(self.world.port, &self.world.path("broker/keys/ca.crt"))?;
        let said = client.connect(self.host.as_str(), &self.token, &key)?;
        ensure!(said == Said::ConnAck(ReasonCode::SUCCESS), "{said:?}");
        let topic = Topic::Reports(self.host.clone()).to_string();
        let delivery = Delivery::at_least_once(PacketId::MIN);
        let begun = wait::unix_ns();
        client.send(&ClientPacket::Publish(Publish::new(
            &topic, delivery, &bytes,
        )))?;
        let said = client.receive()?;
        ensure!(said == Said::PubAck(ReasonCode::SUCCESS), "{said:?}");
        let deed = Deed::Report {
            host: self.host.to_string(),
            sandbox: sandbox.to_string(),
            state: state.word().to_owned(),
            bytes: ByteBuf::from(bytes),
        };
        self.note(begun, deed);
        Ok(())
    }
}

fn copy_tree(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&from, &to)?;
        } else if kind.is_file() {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

fn read_tree(
    place: &Path,
    path: &str,
    into: &mut Vec<(String, Option<Vec<u8>>)>,
) -> anyhow::Result<()> {
    into.push((path.to_owned(), None));
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let path = format!("{path}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read_tree(&entry.path(), &path, into)?;
        } else {
            into.push((path, Some(fs::read(entry.path())?)));
        }
    }
    Ok(())
}
