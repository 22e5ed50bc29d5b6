//! Tests of `verify`.

use super::super::known_hosts::tests::secret;
use super::*;
use protocol::{
    command::{self, Content, Order, Stop},
    id::CommandId,
    report::{Ended, Forwarded, Launched, Reason, Report, State},
    stream::{Writer, stream_id},
};

pub(crate) const TIME: UnixMillis = UnixMillis(1_800_000_000_000);
const HOST_KEY: u8 = 1;
const SANDBOX_KEY: u8 = 2;

pub(crate) fn host() -> HostId {
    HostId::new("edge-1").unwrap()
}

pub(crate) fn sandbox() -> SandboxId {
    SandboxId::new("build-7").unwrap()
}

fn record(kind: record::Kind, payload: Vec<u8>) -> Record {
    Record {
        offset: 1,
        received: TIME,
        kind,
        host: Some(host()),
        sandbox: Some(sandbox()),
        payload,
    }
}

pub(crate) fn report_by(key: u8, news: News) -> Record {
    let report = Report {
        host: host(),
        number: 1,
        time: TIME,
        news,
    };
    record(
        record::Kind::Report,
        report::sign(&secret::<Host>(key), &report),
    )
}

pub(crate) fn launched_news(content: Content) -> News {
    News::Launched(Launched {
        command: CommandId([1; 16]),
        sandbox: sandbox(),
        key: secret(SANDBOX_KEY).public(),
        image: "sha256:00".into(),
        container: "00".into(),
        content,
    })
}

pub(crate) fn launched() -> Record {
    report_by(HOST_KEY, launched_news(Content::Full))
}

pub(crate) fn ended_news(exit_code: Option<u64>, reason: Option<Reason>) -> News {
    News::Ended(Ended {
        command: Some(CommandId([1; 16])),
        sandbox: sandbox(),
        state: if reason.is_some() {
            State::Failed
        } else {
            State::Finished
        },
        exit_code,
        reason,
        detail: String::new(),
    })
}

pub(crate) fn ended() -> Record {
    report_by(HOST_KEY, ended_news(Some(0), None))
}

pub(crate) fn batch(payload: Vec<u8>) -> Record {
    record(record::Kind::Batch, payload)
}

fn forwarded(payload: &[u8]) -> Record {
    report_by(
        HOST_KEY,
        News::Forwarded(Forwarded {
            sandbox: sandbox(),
            batch: payload.to_vec().into(),
        }),
    )
}

/// Batches of one line each, the last one closing.
pub(crate) fn batches(lines: &[&str]) -> Vec<Vec<u8>> {
    let mut writer = Writer::new(secret(SANDBOX_KEY), stream_id(&host(), &sandbox()), [7; 8]);
    lines
        .iter()
        .enumerate()
        .map(|(index, line)| {
            let event = Event {
                time: TIME,
                kind: Kind::Stdout,
                flags: 0,
                size: line.len() as u64,
                value: 0,
                data: line.as_bytes(),
            };
            assert!(writer.push(&event));
            writer.seal(TIME, index + 1 == lines.len())
        })
        .collect()
}

fn follow(start: Start) -> Follow {
    let mut follow = Follow::new(start);
    follow.set_keys(host(), vec![secret(HOST_KEY).public()]);
    follow
}

/// What a reader sees of these records.
fn shown(follow: &mut Follow, records: &[Record]) -> Vec<String> {
    records
        .iter()
        .flat_map(|record| follow.read(record))
        .map(|line| match line.what {
            What::Event(told) => String::from_utf8(told.data).unwrap(),
            What::Report(news) => format!("<{}>", news.word()),
            What::Asked { order, .. } => format!("<asked {order}>"),
            What::Unverified(why) => format!("!{why}"),
            What::Distrusted(_)
            | What::Missing(_)
            | What::Purged { .. }
            | What::Withdrawn(_)
            | What::Note(_) => "?".to_owned(),
        })
        .collect()
}

#[test]
fn a_whole_run_is_shown_in_order_and_known_to_be_whole() {
    let batches = batches(&["one", "two"]);
    let mut follow = follow(Start::Origin);
    let records = [
        launched(),
        batch(batches[0].clone()),
        batch(batches[1].clone()),
        ended(),
    ];
    assert_eq!(
        shown(&mut follow, &records),
        ["<launched>", "one", "two", "<ended>"]
    );
    assert!(follow.is_closed(&host(), &sandbox()));
    assert_eq!(follow.failures(), 0);
}

#[test]
fn events_that_overtake_their_report_wait_for_it() {
    let batches = batches(&["one", "two"]);
    let mut follow = follow(Start::Origin);
    assert!(shown(&mut follow, &[batch(batches[0].clone())]).is_empty());
    assert_eq!(
        shown(&mut follow, &[launched(), batch(batches[1].clone())]),
        ["<launched>", "one", "two"]
    );
}

#[test]
fn no_more_events_wait_than_there_is_room_for() {
    let lines = vec!["x"; BATCHES_WAITING_MAX + 5];
    let mut follow = follow(Start::Origin);
    let records: Vec<Record> = batches(&lines).into_iter().map(batch).collect();
    assert_eq!(
        shown(&mut follow, &records),
        [format!("!{}", Unverified::NoKey)]
    );
}

#[test]
fn what_comes_again_or_is_forwarded_is_shown_once() {
    let batches = batches(&["one", "two", "three"]);
    let mut follow = follow(Start::Origin);
    let records = [
        launched(),
        batch(batches[0].clone()),
        batch(batches[1].clone()),
        batch(batches[1].clone()),
        ended(),
        forwarded(&batches[0]),
        forwarded(&batches[1]),
        forwarded(&batches[2]),
        batch(batches[2].clone()),
    ];
    assert_eq!(
        shown(&mut follow, &records),
        ["<launched>", "one", "two", "<ended>", "three"]
    );
    assert!(follow.is_closed(&host(), &sandbox()));
    assert_eq!(follow.failures(), 0);
}

#[test]
fn a_missing_batch_is_told_once_and_nothing_after_it_is_shown() {
    let batches = batches(&["one", "two", "three", "four"]);
    let mut follow = follow(Start::Origin);
    let records = [
        launched(),
        batch(batches[0].clone()),
        batch(batches[2].clone()),
        batch(batches[3].clone()),
        ended(),
    ];
    assert_eq!(
        shown(&mut follow, &records),
        [
            "<launched>",
            "one",
            "!events: batches are missing: expected batch 1, found 2",
            "!events: 1 more batches that do not verify",
            "<ended>"
        ]
    );
    assert!(follow.failures() > 0 && !follow.is_closed(&host(), &sandbox()));
}

#[test]
fn an_invented_batch_is_told_and_the_true_ones_go_on() {
    let batches = batches(&["one", "two"]);
    let mut invented = batches[0].clone();
    *invented.last_mut().unwrap() ^= 1;
    let mut follow = follow(Start::Origin);
    let records = [
        launched(),
        batch(invented),
        batch(batches[0].clone()),
        batch(batches[1].clone()),
    ];
    assert_eq!(
        shown(&mut follow, &records),
        [
            "<launched>",
            "!events: the body is not the one that was signed",
            "one",
            "two"
        ]
    );
    assert_eq!(follow.failures(), 1);
}

#[test]
fn a_report_of_an_unknown_key_asks_for_newer_keys_first() {
    let mut follow = follow(Start::Origin);
    let newer = report_by(9, launched_news(Content::Full));
    assert_eq!(follow.need(&launched()), None);
    assert_eq!(follow.need(&newer), Some(Need::Keys(host())));
    assert_eq!(
        shown(&mut follow, std::slice::from_ref(&newer)),
        ["!a report: signed by a key that is not listed"]
    );
    follow.set_keys(host(), vec![secret(HOST_KEY).public(), secret(9).public()]);
    assert_eq!(follow.need(&newer), None);
    assert_eq!(shown(&mut follow, &[newer]), ["<launched>"]);
}

#[test]
fn a_changed_report_is_told() {
    let mut changed = launched();
    *changed.payload.last_mut().unwrap() ^= 1;
    assert_eq!(
        shown(&mut follow(Start::Origin), &[changed]),
        ["!a report: the signature does not verify"]
    );
}

#[test]
fn a_second_key_for_one_sandbox_is_refused() {
    let mut other = launched_news(Content::Full);
    if let News::Launched(launched) = &mut other {
        launched.key = secret(8).public();
    }
    let batches = batches(&["one"]);
    let records = [
        launched(),
        report_by(HOST_KEY, other),
        batch(batches[0].clone()),
    ];
    let shown = shown(&mut follow(Start::Origin), &records);
    assert!(shown.contains(&format!("!{}", Unverified::OtherKey)));
    assert!(shown.contains(&"one".to_owned()));
}

#[test]
fn where_reading_began_midway_the_history_is_asked_for_once() {
    let batches = batches(&["one", "two"]);
    let mut midway = follow(Start::Midway);
    let second = batch(batches[1].clone());
    assert_eq!(midway.need(&second), Some(Need::History(host(), sandbox())));
    let _history = shown(&mut midway, &[launched(), batch(batches[0].clone())]);
    assert_eq!(midway.need(&second), None);
    assert_eq!(shown(&mut midway, std::slice::from_ref(&second)), ["two"]);
    assert_eq!(follow(Start::Origin).need(&second), None);
}

#[test]
fn a_command_is_shown_with_its_signer_where_that_was_asked_for() {
    let key = secret::<Dispatcher>(5);
    let asked = Command {
        id: CommandId([3; 16]),
        host: host(),
        issued: TIME,
        expires: TIME,
        order: Order::Stop(Stop {
            sandbox: sandbox(),
            grace_s: 10,
        }),
    };
    let asked = record(record::Kind::Command, command::sign(&key, &asked));
    let mut follow = follow(Start::Origin);
    assert!(shown(&mut follow, std::slice::from_ref(&asked)).is_empty());
    follow.set_dispatchers(Vec::new());
    assert_eq!(
        shown(&mut follow, std::slice::from_ref(&asked)),
        ["!a command: signed by a key that is not listed"]
    );
    follow.set_dispatchers(vec![key.public()]);
    assert_eq!(shown(&mut follow, &[asked]), ["<asked stop>"]);
}

#[test]
fn sandboxes_that_were_forgotten_cost_no_memory() {
    let mut follow = follow(Start::Midway);
    for index in 0..STREAMS_MAX + 10 {
        let mut event = batch(batches(&["x"])[0].clone());
        event.sandbox = SandboxId::new(&format!("s-{index}")).ok();
        follow.read(&event);
    }
    assert_eq!(follow.streams.len(), STREAMS_MAX);
    assert_eq!(follow.order.len(), STREAMS_MAX);
}

#[test]
fn the_hosts_report_says_whether_output_stays_there() {
    for content in [Content::Metadata, Content::Full] {
        let mut follow = follow(Start::Origin);
        follow.read(&report_by(HOST_KEY, launched_news(content)));
        let lines = follow.read(&batch(batches(&[""])[0].clone()));
        let What::Event(told) = &lines[0].what else {
            panic!("a batch has an event");
        };
        assert_eq!(told.withheld, content == Content::Metadata);
    }
}
