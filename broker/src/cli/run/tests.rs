//! Tests of `run`.

use clap::Parser as _;
use protocol::{
    command::Command,
    event::Event,
    key::{Host, Public},
    record::{self, Record},
    report::{self, Ended, Launched, Reason, Report},
    signed,
    stream::{Writer, stream_id},
    time::UnixMillis,
};
use std::sync::{Arc, Mutex};

use super::super::{
    Cli, fake_broker::FakeBroker, known_hosts::tests::secret, output::Output, place,
};
use super::*;

const HOST_KEY: u8 = 1;
const DISPATCHER_KEY: u8 = 5;

/// What the fake host does with the command.
#[derive(Clone, Copy)]
enum Fate {
    /// Runs it to this exit code.
    Exit(u64),
    /// The same, but its closing batch never comes; the host says that memory ran out.
    Killed,
    /// Refuses it.
    Refuse,
    /// Runs it, and somebody changes what it said.
    Forge,
    /// Another host's key signs the reports.
    Impostor,
}

/// What the broker hands out after the command came in: records 8 to 11.
fn records(command: &Command, fate: Fate) -> Vec<u8> {
    let (host, sandbox) = (command.host.clone(), command.order.sandbox().clone());
    let record = |offset, kind, payload| Record {
        offset,
        received: UnixMillis(1),
        kind,
        host: Some(host.clone()),
        sandbox: Some(sandbox.clone()),
        payload,
    };
    let signer = match fate {
        Fate::Impostor => 9,
        _ => HOST_KEY,
    };
    let report = |offset, news| {
        let report = Report {
            host: host.clone(),
            number: offset,
            time: UnixMillis(1),
            news,
        };
        let bytes = report::sign(&secret::<Host>(signer), &report);
        record(offset, record::Kind::Report, bytes)
    };
    if let Fate::Refuse = fate {
        let refused = Refused {
            command: command.id,
            sandbox: sandbox.clone(),
            reason: Reason::PolicyRefused,
            detail: "images".to_owned(),
        };
        return report(8, News::Refused(refused)).encode();
    }
    let mut writer = Writer::new(secret(2), stream_id(&host, &sandbox), [0; 8]);
    let line = Event {
        time: UnixMillis(1),
        kind: Kind::Stdout,
        flags: 0,
        size: 3,
        value: 0,
        data: b"hi",
    };
    assert!(writer.push(&line));
    let mut said = writer.seal(UnixMillis(1), false);
    if let Fate::Forge = fate {
        *said.last_mut().unwrap() ^= 1;
    }
    let last = writer.seal(UnixMillis(1), true);
    let (exit_code, reason) = match fate {
        Fate::Exit(code) => (code, None),
        Fate::Killed => (137, Some(Reason::OomKilled)),
        Fate::Refuse | Fate::Forge | Fate::Impostor => (0, None),
    };
    let launched = Launched {
        command: command.id,
        sandbox: sandbox.clone(),
        key: secret(2).public(),
        image: "sha256:00".into(),
        container: "00".into(),
        content: Content::Full,
    };
    let ended = Ended {
        command: Some(command.id),
        sandbox: sandbox.clone(),
        state: State::Finished,
        exit_code: Some(exit_code),
        reason,
        detail: String::new(),
    };
    let mut records = vec![
        report(8, News::Launched(launched)),
        record(9, record::Kind::Batch, said),
        report(10, News::Ended(ended)),
    ];
    if !matches!(fate, Fate::Killed) {
        records.push(record(11, record::Kind::Batch, last));
    }
    records.iter().flat_map(Record::encode).collect()
}

/// A broker with one host, which does this to the first command; and the command.
fn broker(fate: Fate) -> (FakeBroker, Arc<Mutex<Option<Command>>>) {
    let taken = Arc::new(Mutex::new(None));
    let commands = Arc::clone(&taken);
    let broker = FakeBroker::new(move |path, body| {
        match path {
        "/v1/hosts" => br#"{"hosts":[{"name":"edge-1","kind":"docker","state":"enrolled","connected":true,"generation":1,
            "created_ms":1,"last_seen_ms":null}]}"#
            .to_vec(),
        "/v1/commands" => {
            *commands.lock().unwrap() = Some(signed::peek::<Command>(body).unwrap());
            br#"{"offset":7}"#.to_vec()
        }
        "/v1/hosts/edge-1/keys" => {
            let key: Public<Host> = secret(HOST_KEY).public();
            format!(r#"{{"keys":[{{"generation":1,"key":"{key}","succession":null}}]}}"#).into_bytes()
        }
        path if path.starts_with("/v1/records?from=7&follow=true&host=edge-1&sandbox=") => {
            records(commands.lock().unwrap().as_ref().unwrap(), fate)
        }
        path if path.starts_with("/v1/sandboxes/edge-1/") => {
            br#"{"host":"edge-1","sandbox":"a","state":"unknown","created_ms":1,"updated_ms":1}"#.to_vec()
        }
        _ => Vec::new(),
    }
    });
    (broker, taken)
}

async fn run(fate: Fate, flags: &[&str]) -> (anyhow::Result<u8>, Option<Command>) {
    let (broker, taken) = broker(fate);
    let key = broker.path().join("dispatcher.key");
    let text = secret::<Dispatcher>(DISPATCHER_KEY).to_file_text();
    place::write_new(&key, 0o600, text.as_bytes()).unwrap();
    let words = ["outhaul", "run"].iter().chain(flags);
    let cli = Cli::try_parse_from(words).unwrap();
    let super::super::Command::Run(args) = cli.command else {
        panic!("it says run");
    };
    let mut context = Context {
        client: broker.client(),
        output: Output::new(true),
        environment: place::Environment::in_dir(broker.path()),
        dispatcher_key: Some(key),
    };
    let patience = Patience {
        tail: Duration::from_millis(20),
        answer: Duration::from_millis(20),
    };
    let outcome = launch(&mut context, *args, patience).await;
    let command = taken.lock().unwrap().take();
    (outcome, command)
}

#[tokio::test]
async fn run_ends_as_the_sandbox_does() {
    for code in [0, 3, 127] {
        let (outcome, _) = run(Fate::Exit(code), &["web:1"]).await;
        assert_eq!(u64::from(outcome.unwrap()), code);
    }
}

#[tokio::test]
async fn what_was_asked_for_is_what_was_signed() {
    let flags = [
        "--name",
        "build-7",
        "--cpus",
        "0.5",
        "--memory",
        "512MiB",
        "--life",
        "1h",
        "--source",
        "project",
        "-e",
        "A=b",
        "--content",
        "full",
        "--expires",
        "5m",
        "web:1",
        "make",
        "-j2",
    ];
    let (outcome, command) = run(Fate::Exit(0), &flags).await;
    assert_eq!(outcome.unwrap(), 0);
    let command = command.unwrap();
    assert_eq!(command.host.as_str(), "edge-1", "the only one");
    assert_eq!(
        command.expires.since(command.issued),
        Duration::from_secs(300)
    );
    let Order::Launch(launch) = command.order else {
        panic!("it is a launch");
    };
    assert_eq!(launch.sandbox.as_str(), "build-7");
    assert_eq!(
        (launch.image.as_str(), launch.arguments),
        ("web:1", vec!["make".into(), "-j2".into()])
    );
    assert_eq!(launch.environment, [("A".to_owned(), "b".to_owned())]);
    assert_eq!(launch.sources, [SourceName::new("project").unwrap()]);
    assert_eq!(launch.content, Content::Full);
    let limits = launch.limits;
    assert_eq!(
        (
            limits.cpu_millis,
            limits.memory_bytes,
            limits.life_s,
            limits.pids
        ),
        (500, 512 << 20, 3600, 256)
    );
}

#[tokio::test]
async fn a_refusal_is_an_error_that_names_the_rule() {
    let (outcome, _) = run(Fate::Refuse, &["web:1"]).await;
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.starts_with("edge-1 refused to launch web-"),
        "{error}"
    );
    assert!(error.ends_with("policy_refused: images"), "{error}");
}

#[tokio::test]
async fn what_was_forged_is_never_a_success() {
    let (outcome, _) = run(Fate::Forge, &["web:1"]).await;
    assert_eq!(outcome.unwrap(), 125);
}

#[tokio::test]
async fn a_sandbox_that_was_killed_is_waited_for_no_longer_than_its_tail_may_take() {
    let (outcome, _) = run(Fate::Killed, &["web:1"]).await;
    assert_eq!(outcome.unwrap(), 137);
}

#[tokio::test]
async fn reports_of_a_stranger_launch_nothing() {
    let (outcome, _) = run(Fate::Impostor, &["--expires", "1ms", "web:1"]).await;
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("did not take the command"), "{error}");
}

#[tokio::test]
async fn detached_it_returns_at_once() {
    let (outcome, command) = run(Fate::Exit(3), &["--detach", "web:1"]).await;
    assert_eq!(outcome.unwrap(), 0);
    assert!(command.is_some());
}
