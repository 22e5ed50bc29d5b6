//! A whole stream file: the input puts one together from what a host, a sandbox, a dispatcher and a liar may sign, and the check must
//! find the first item that `SPEC.md` 10 refuses, and no other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor, command,
    exchange::Succession,
    hole::{Cause, Causes, Hole},
    id::{CommandId, HostId, SandboxId},
    key::{Host, Public, Sandbox},
    limits::BATCHES_WAITING_MAX,
    record::{Kind, Opening, Reader, Record},
    report::{self, Ended, Forwarded, Launched, News, Report, State, Stopped},
    signed::{self, Message as _},
    stream::{Batch, Verdict, Verifier, Writer, stream_id},
    stream_file::{Check, Fault, Why},
    time::UnixMillis,
};
use protocol_fuzz::{
    edit::edited,
    input::Input,
    quiet,
    seal::seal,
    world::{self, DISPATCHER, HOST, NOW, SANDBOX, STRANGER},
};

/// Records of one input. Each may cost a few signatures.
const RECORDS_MAX: usize = 24;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let judges_commands = match input.byte() % 3 {
        0 => return strangers_bytes(input.rest()),
        one => one == 1,
    };
    let dispatchers = judges_commands.then(|| vec![world::public(DISPATCHER)]);
    let mut check = Check::new(opening(), world::public(HOST), dispatchers);
    let mut rules = Rules::new(judges_commands);
    let mut author = Author::new();
    for _ in 0..RECORDS_MAX {
        if input.is_empty() {
            break;
        }
        let record = author.record(&mut input);
        let expected = rules.judge(&record);
        let found = check.record(&record);
        assert_eq!(found.map_err(item_of), expected);
        if expected.is_err() {
            return;
        }
        assert_eq!(check.found().items, rules.item + 1);
        assert_eq!(check.host_keys(), rules.keys);
        assert_eq!(check.is_whole(), rules.is_whole());
    }
    let expected = rules
        .waiting
        .first()
        .map_or(Ok(()), |(item, ..)| Err(*item));
    assert_eq!(check.finish().map_err(item_of), expected);
});

fn item_of(fault: Fault) -> u64 {
    quiet::check::<Fault>(fault);
    quiet::check::<Why>(fault.why);
    fault.item
}

/// A file in which nobody signed whom we trust says nothing good of a sandbox's events.
fn strangers_bytes(bytes: &[u8]) {
    let mut reader = Reader::default();
    reader.push(bytes);
    let Ok(Some(opening)) = reader.take_opening() else {
        return;
    };
    let mut check = Check::new(opening, world::public(STRANGER), Some(Vec::new()));
    while let Ok(Some(record)) = reader.take() {
        if check.record(&record).is_err() {
            break;
        }
    }
    let found = check.found();
    assert_eq!((found.batches, found.reports, found.commands), (0, 0, 0));
    assert!(check.stream().is_none() && !check.is_whole());
}

fn opening() -> Opening {
    Opening {
        is_part: false,
        host: world::host(),
        sandbox: world::sandbox(),
    }
}

/// Writes records that are good, nearly good, or not at all.
struct Author {
    writer: Writer,
    batches: Vec<Vec<u8>>,
    offset: u64,
}

impl Author {
    fn new() -> Self {
        let stream = stream_id(&world::host(), &world::sandbox());
        Self {
            writer: Writer::new(world::owned(SANDBOX), stream, [2; 8]),
            batches: Vec::new(),
            offset: 0,
        }
    }

    fn record(&mut self, input: &mut Input<'_>) -> Record {
        let (kind, payload) = match input.byte() % 12 {
            0 => (Kind::Succession, succession(input)),
            1 => (Kind::Report, launched(input)),
            2 => (Kind::Report, self.forwarded(input)),
            3 => (Kind::Report, settled(input)),
            4..=6 => (Kind::Batch, self.next_batch(input)),
            7 => (Kind::Batch, self.old_batch(input)),
            8 => (Kind::Command, command(input)),
            9 if input.byte() % 2 == 0 => (Kind::Gap, hole(input)),
            9 => (Kind::Head, head_of(&self.next_batch(input))),
            10 => (Kind::Batch, input.chunk().to_vec()),
            _ => {
                let kind = Kind::ALL[usize::from(input.byte()) % Kind::ALL.len()];
                (kind, input.chunk().to_vec())
            }
        };
        self.filed(kind, payload, input)
    }

    /// A record where it belongs; or with something changed, if the next byte says so.
    fn filed(&mut self, kind: Kind, payload: Vec<u8>, input: &mut Input<'_>) -> Record {
        let is_dated = !matches!(kind, Kind::Succession | Kind::Gap);
        let mut record = Record {
            offset: 0,
            received: if is_dated { NOW } else { UnixMillis(0) },
            kind,
            host: (kind != Kind::Gap).then(world::host),
            sandbox: is_dated.then(world::sandbox),
            payload,
        };
        if kind != Kind::Succession {
            self.offset += 1;
            record.offset = self.offset;
        }
        match input.byte() {
            200 => record.offset = input.byte().into(),
            201 => record.received.0 ^= 1,
            202 => record.host = HostId::new("edge-2").ok(),
            203 => record.sandbox = SandboxId::new("build-8").ok(),
            204 => record.sandbox = None,
            205 => record.payload = edited(&record.payload, Input::new(input.chunk())),
            206 => record.payload.clear(),
            _ => {}
        }
        record
    }

    fn next_batch(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let batch = self.writer.seal(NOW, input.byte() == 1);
        self.batches.push(batch.clone());
        batch
    }

    fn old_batch(&self, input: &mut Input<'_>) -> Vec<u8> {
        let at = usize::from(input.byte()) % self.batches.len().max(1);
        self.batches.get(at).cloned().unwrap_or_default()
    }

    fn forwarded(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let batch = match input.byte() % 2 {
            0 => self.old_batch(input),
            _ => self.next_batch(input),
        };
        let sandbox = a_sandbox(input);
        let batch = batch.into();
        by_a_host(News::Forwarded(Forwarded { sandbox, batch }), input)
    }
}

/// Nothing, or how far it goes and why.
fn hole(input: &mut Input<'_>) -> Vec<u8> {
    let (to, bits) = (u64::from(input.byte()), input.byte());
    let causes = Cause::ALL
        .iter()
        .filter(|cause| bits & 1 << cause.label() != 0);
    let causes = causes.fold(Causes::UNKNOWN, |causes, cause| causes.with(*cause));
    if bits == 0 {
        Vec::new()
    } else {
        Hole { to, causes }.encode()
    }
}

/// The signed head that a batch begins with.
fn head_of(batch: &[u8]) -> Vec<u8> {
    let body = Batch::parse(batch).expect("a batch of our own").body;
    batch[..batch.len() - body.len()].to_vec()
}

/// One of the host's keys, or a stranger's, which a succession may make the host's.
fn a_seed(input: &mut Input<'_>) -> u8 {
    HOST + 16 * (input.byte() % 4)
}

/// This sandbox, or another of the same host.
fn a_sandbox(input: &mut Input<'_>) -> SandboxId {
    match input.byte() {
        1 => SandboxId::new("build-8").expect("a good name"),
        _ => world::sandbox(),
    }
}

fn succession(input: &mut Input<'_>) -> Vec<u8> {
    let signer = a_seed(input);
    let succession = Succession {
        host: world::host(),
        generation: input.byte().into(),
        key: world::public(a_seed(input)),
        time: NOW,
    };
    seal(
        signer,
        Succession::TYP,
        &cbor::to_vec(&succession),
        b"",
        None,
    )
}

fn by_a_host(news: News, input: &mut Input<'_>) -> Vec<u8> {
    let report = Report {
        host: world::host(),
        number: 1,
        time: NOW,
        news,
    };
    report::sign(world::secret(a_seed(input)), &report)
}

fn launched(input: &mut Input<'_>) -> Vec<u8> {
    let sandbox = a_sandbox(input);
    let news = News::Launched(Launched {
        command: CommandId([1; 16]),
        sandbox,
        key: world::public(SANDBOX.wrapping_add(input.byte() % 2)),
        image: String::new(),
        container: String::new(),
        content: command::Content::Full,
    });
    by_a_host(news, input)
}

fn settled(input: &mut Input<'_>) -> Vec<u8> {
    let sandbox = a_sandbox(input);
    let news = match input.byte() % 2 {
        0 => News::Stopped(Stopped {
            command: CommandId([1; 16]),
            sandbox,
        }),
        _ => News::Ended(Ended {
            command: None,
            sandbox,
            state: State::Finished,
            exit_code: Some(0),
            reason: None,
            detail: String::new(),
        }),
    };
    by_a_host(news, input)
}

fn command(input: &mut Input<'_>) -> Vec<u8> {
    let command = command::Command {
        id: CommandId([1; 16]),
        host: world::host(),
        issued: UnixMillis(0),
        expires: UnixMillis(input.u16().into()),
        order: command::Order::Stop(command::Stop {
            sandbox: world::sandbox(),
            grace_s: 1,
        }),
    };
    command::sign(world::secret(DISPATCHER ^ (input.byte() & 1)), &command)
}

/// The algorithm of `SPEC.md` 10. Single messages are other targets' matter: they are verified by `protocol` here too.
struct Rules {
    judges_commands: bool,
    item: u64,
    keys: Vec<Public<Host>>,
    generation: Option<u64>,
    offset: Option<u64>,
    sandbox_key: Option<Public<Sandbox>>,
    verifier: Option<Verifier>,
    waiting: Vec<(u64, bool, Vec<u8>)>,
}

impl Rules {
    fn new(judges_commands: bool) -> Self {
        Self {
            judges_commands,
            item: 0,
            keys: vec![world::public(HOST)],
            generation: None,
            offset: None,
            sandbox_key: None,
            verifier: None,
            waiting: Vec::new(),
        }
    }

    fn is_whole(&self) -> bool {
        self.verifier.as_ref().is_some_and(Verifier::is_closed)
    }

    /// The item that is at fault, if one is.
    fn judge(&mut self, record: &Record) -> Result<(), u64> {
        self.item += 1;
        let names = match record.kind {
            Kind::Gap => (None, None),
            Kind::Succession => (Some(world::host()), None),
            Kind::Batch | Kind::Head | Kind::Report | Kind::Command => {
                (Some(world::host()), Some(world::sandbox()))
            }
        };
        self.demand((record.host.clone(), record.sandbox.clone()) == names)?;
        if record.kind == Kind::Succession {
            self.demand(record.offset == 0 && record.received.0 == 0 && self.offset.is_none())?;
            return self.succession(&record.payload);
        }
        self.demand(self.offset.is_none_or(|before| before < record.offset))?;
        self.offset = Some(record.offset);
        match record.kind {
            Kind::Gap => {
                let says =
                    Hole::decode(&record.payload).is_some_and(|hole| hole.to > record.offset);
                self.demand((says || record.payload.is_empty()) && record.received.0 == 0)
            }
            Kind::Batch => self.batch(self.item, false, &record.payload),
            Kind::Head => self.batch(self.item, true, &record.payload),
            Kind::Report => self.report(&record.payload),
            Kind::Command => {
                let keys = [world::public(DISPATCHER)];
                let is_good = command::verify_undated(&record.payload, &keys, &world::host());
                self.demand(!self.judges_commands || is_good.is_ok())
            }
            Kind::Succession => unreachable!("it came first"),
        }
    }

    fn demand(&self, is_met: bool) -> Result<(), u64> {
        if is_met { Ok(()) } else { Err(self.item) }
    }

    fn succession(&mut self, payload: &[u8]) -> Result<(), u64> {
        let last = *self.keys.last().expect("the anchor stays");
        let named = signed::verify::<Succession>(payload, &[last], b"").map_err(|_| self.item)?;
        let named = named.into_value();
        self.demand(named.host == world::host())?;
        let before = self.generation.map(u128::from);
        self.demand(before.is_none_or(|before| before + 1 == named.generation.into()))?;
        self.generation = Some(named.generation);
        self.keys.push(named.key);
        Ok(())
    }

    fn report(&mut self, payload: &[u8]) -> Result<(), u64> {
        let report = report::verify(payload, &self.keys, &world::host()).map_err(|_| self.item)?;
        match report.into_value().news {
            News::Launched(launched) if launched.sandbox == world::sandbox() => {
                self.launched(launched.key)
            }
            News::Forwarded(forwarded) if forwarded.sandbox == world::sandbox() => {
                self.batch(self.item, false, &forwarded.batch)
            }
            News::Ended(ended) if ended.sandbox == world::sandbox() => {
                self.waiting.first().map_or(Ok(()), |(item, ..)| Err(*item))
            }
            _ => Ok(()),
        }
    }

    fn launched(&mut self, key: Public<Sandbox>) -> Result<(), u64> {
        if let Some(known) = self.sandbox_key {
            return self.demand(known == key);
        }
        self.sandbox_key = Some(key);
        self.verifier = Some(Verifier::new(&world::host(), &world::sandbox(), key));
        let waiting = std::mem::take(&mut self.waiting);
        waiting
            .iter()
            .try_for_each(|(item, is_head, payload)| self.batch(*item, *is_head, payload))
    }

    fn batch(&mut self, item: u64, is_head: bool, payload: &[u8]) -> Result<(), u64> {
        let Some(verifier) = &mut self.verifier else {
            self.demand(self.waiting.len() < BATCHES_WAITING_MAX)?;
            self.waiting.push((item, is_head, payload.to_vec()));
            return Ok(());
        };
        let verdict = if is_head {
            verifier.check_head(payload)
        } else {
            verifier.check(payload)
        };
        match verdict {
            Ok(Verdict::Next(..) | Verdict::Purged(_) | Verdict::Again) => Ok(()),
            Err(_) => Err(item),
        }
    }
}
