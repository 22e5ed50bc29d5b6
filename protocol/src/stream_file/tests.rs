//! Tests of the stream file's check.

use super::*;
use crate::{
    command::{Command, Content, Order, Stop},
    id::{CommandId, HostId, SandboxId},
    key::{Sandbox, Secret, seeded},
    record::Reader,
    report::{Ended, Forwarded, Refused, Report, State, Status},
    stream::{Batch, Writer, stream_id},
    time::UnixMillis,
};

const TIME: UnixMillis = UnixMillis(1_800_000_000_000);

fn opening() -> Opening {
    Opening {
        is_part: false,
        host: HostId::new("edge-1").unwrap(),
        sandbox: SandboxId::new("build-7").unwrap(),
    }
}

fn host_key(generation: u8) -> Secret<Host> {
    seeded(0x10 + generation)
}

fn sandbox_key() -> Secret<Sandbox> {
    seeded(0x0d)
}

fn record(kind: Kind, payload: Vec<u8>) -> Record {
    let Opening { host, sandbox, .. } = opening();
    let (sandbox, received) = if kind == Kind::Succession {
        (None, UnixMillis(0))
    } else {
        (Some(sandbox), TIME)
    };
    let host = Some(host);
    Record {
        offset: 0,
        received,
        kind,
        host,
        sandbox,
        payload,
    }
}

fn succession(generation: u8) -> Record {
    let succession = Succession {
        host: opening().host,
        generation: generation.into(),
        key: host_key(generation).public(),
        time: TIME,
    };
    let signed = signed::sign(&host_key(generation - 1), &succession, b"");
    record(Kind::Succession, signed)
}

fn report_by(generation: u8, news: News) -> Record {
    let report = Report {
        host: opening().host,
        number: 1,
        time: TIME,
        news,
    };
    let signed = report::sign(&host_key(generation), &report);
    record(Kind::Report, signed)
}

fn launched(key: Public<Sandbox>) -> News {
    News::Launched(Launched {
        command: CommandId([1; 16]),
        sandbox: opening().sandbox,
        key,
        image: "sha256:00".into(),
        container: "00".into(),
        content: Content::Full,
    })
}

fn ended() -> News {
    News::Ended(Ended {
        command: None,
        sandbox: opening().sandbox,
        state: State::Finished,
        exit_code: Some(3),
        reason: None,
        detail: String::new(),
    })
}

fn event(kind: EventKind, value: u64) -> Event<'static> {
    Event {
        time: TIME,
        kind,
        flags: 0,
        size: 0,
        value,
        data: b"",
    }
}

/// Batches of 2, 1 and 2 events; the last is closing.
fn batches() -> Vec<Vec<u8>> {
    let Opening { host, sandbox, .. } = opening();
    let mut writer = Writer::new(sandbox_key(), stream_id(&host, &sandbox), [7; 8]);
    let mut seal = |events: &[Event<'_>], closing| {
        assert!(events.iter().all(|event| writer.push(event)));
        writer.seal(TIME, closing)
    };
    vec![
        seal(
            &[event(EventKind::Started, 0), event(EventKind::Stdout, 0)],
            false,
        ),
        seal(&[event(EventKind::Gap, 9)], false),
        seal(
            &[event(EventKind::Stdout, 0), event(EventKind::Exited, 3)],
            true,
        ),
    ]
}

fn batch(index: usize) -> Record {
    record(Kind::Batch, batches()[index].clone())
}

fn forwarded(index: usize) -> Record {
    let news = News::Forwarded(Forwarded {
        sandbox: opening().sandbox,
        batch: batches()[index].clone().into(),
    });
    report_by(2, news)
}

/// A whole file, numbered: a succession, a report, three batches, a report.
fn good() -> Vec<Record> {
    vec![
        succession(2),
        report_by(1, launched(sandbox_key().public())),
        batch(0),
        batch(1),
        batch(2),
        report_by(2, ended()),
    ]
}

/// Judges records, with offsets given to all but successions.
fn check(records: Vec<Record>) -> Result<Check, Fault> {
    check_with(records, None)
}

fn check_with(
    records: Vec<Record>,
    dispatchers: Option<Vec<Public<Dispatcher>>>,
) -> Result<Check, Fault> {
    let mut check = Check::new(opening(), host_key(1).public(), dispatchers);
    for (index, mut record) in records.into_iter().enumerate() {
        if record.kind != Kind::Succession {
            record.offset = index as u64 * 10;
        }
        check.record(&record)?;
    }
    check.finish()?;
    Ok(check)
}

fn fault(records: Vec<Record>) -> (u64, Why) {
    let fault = check(records).unwrap_err();
    (fault.item, fault.why)
}

#[test]
fn a_whole_file_verifies_and_says_what_is_in_it() {
    let check = check(good()).unwrap();
    assert!(check.is_whole());
    assert_eq!(check.stream().unwrap().events(), 5);
    assert_eq!(
        check.found(),
        &Found {
            items: 7,
            batches: 3,
            purged: 0,
            purged_events: 0,
            redelivered: 0,
            earlier: 0,
            dropped: 9,
            exit_code: Some(3),
            reports: 2,
            commands: 0,
            holes: 0,
            removed: 0,
        }
    );
    assert_eq!(check.host_keys().len(), 2);
}

#[test]
fn without_its_closing_batch_it_is_open() {
    let mut records = good();
    records.remove(4);
    assert!(!check(records).unwrap().is_whole());
}

#[test]
fn batches_may_come_before_their_report_and_again_inside_another() {
    let mut records = good();
    records.swap(1, 3);
    records.swap(1, 2);
    records.insert(5, forwarded(0));
    let check = check(records).unwrap();
    assert_eq!((check.found().batches, check.found().redelivered), (3, 1));
}

#[test]
fn leftovers_that_were_forwarded_count_as_published() {
    let records = vec![
        succession(2),
        report_by(1, launched(sandbox_key().public())),
        batch(0),
        forwarded(1),
        forwarded(2),
        report_by(2, ended()),
    ];
    assert!(check(records).unwrap().is_whole());
}

#[test]
fn the_first_item_that_is_missing_forged_or_moved_is_named() {
    let without = |index: usize| {
        let mut records = good();
        records.remove(index);
        fault(records)
    };
    assert_eq!(without(0), (5, Why::Report(VerifyError::UnknownKey)));
    assert_eq!(without(1), (2, Why::NoKey));
    let gap = StreamError::Gap {
        expected: 1,
        found: 2,
    };
    assert_eq!(without(3), (4, Why::Stream(gap)));
    let swapped = |one: usize, other: usize| {
        let mut records = good();
        records.swap(one, other);
        fault(records)
    };
    assert_eq!(swapped(0, 1), (2, Why::Late));
    let mut forged = good();
    if let Some(last) = forged[3].payload.last_mut() {
        *last ^= 1;
    }
    assert_eq!(fault(forged), (4, Why::Stream(StreamError::Body)));
    let mut renamed = good();
    renamed.insert(2, report_by(1, launched(seeded::<Sandbox>(9).public())));
    assert_eq!(fault(renamed), (3, Why::OtherKey));
}

#[test]
fn what_is_not_of_this_sandbox_has_no_place() {
    let with = |change: fn(&mut Record)| {
        let mut records = good();
        change(&mut records[2]);
        fault(records)
    };
    assert_eq!(
        with(|record| record.host = HostId::new("edge-2").ok()),
        (3, Why::Elsewhere)
    );
    assert_eq!(with(|record| record.sandbox = None), (3, Why::Elsewhere));
    let mut of_another = good();
    let refused = News::Refused(Refused {
        command: CommandId([2; 16]),
        sandbox: SandboxId::new("build-8").unwrap(),
        reason: report::Reason::Busy,
        detail: String::new(),
    });
    of_another.insert(2, report_by(1, refused));
    assert!(check(of_another).is_ok(), "left aside");
}

#[test]
fn a_chain_of_host_keys_leaves_out_none_and_begins_at_the_anchor() {
    assert_eq!(
        fault(vec![succession(3)]),
        (1, Why::Succession(VerifyError::UnknownKey))
    );
    let again = vec![succession(2), succession(2)];
    assert_eq!(fault(again), (2, Why::Succession(VerifyError::UnknownKey)));
    let mut skips = Succession {
        host: opening().host,
        generation: 9,
        key: host_key(3).public(),
        time: TIME,
    };
    let sign = |succession: &Succession| {
        record(
            Kind::Succession,
            signed::sign(&host_key(2), succession, b""),
        )
    };
    assert_eq!(fault(vec![succession(2), sign(&skips)]), (2, Why::Chain));
    skips.generation = 3;
    assert!(check(vec![succession(2), sign(&skips)]).is_ok());
}

#[test]
fn holes_are_counted_and_offsets_go_up() {
    let hole = || Record {
        offset: 0,
        received: UnixMillis(0),
        kind: Kind::Gap,
        host: None,
        sandbox: None,
        payload: Vec::new(),
    };
    let mut records = good();
    records.insert(2, hole());
    assert_eq!(check(records).unwrap().found().holes, 1);
    let filled = Record {
        payload: vec![1],
        ..hole()
    };
    assert_eq!(fault(vec![filled]), (1, Why::Hole));
    let mut check = Check::new(opening(), host_key(1).public(), None);
    assert!(check.record(&batch(0)).is_ok());
    let twice = check.record(&batch(1)).unwrap_err();
    assert_eq!((twice.item, twice.why), (2, Why::Offset));
}

#[test]
fn commands_are_judged_by_the_dispatchers_that_are_given() {
    let key = seeded::<Dispatcher>(5);
    let command = Command {
        id: CommandId([1; 16]),
        host: opening().host,
        issued: TIME,
        expires: TIME,
        order: Order::Stop(Stop {
            sandbox: opening().sandbox,
            grace_s: 1,
        }),
    };
    let records = || vec![record(Kind::Command, command::sign(&key, &command))];
    let judged =
        |dispatchers| check_with(records(), dispatchers).map(|check| check.found().commands);
    assert_eq!(judged(None), Ok(1));
    assert_eq!(judged(Some(vec![key.public()])), Ok(1));
    assert!(judged(Some(vec![seeded(6).public()])).is_err());
}

#[test]
fn what_waits_for_its_report_is_bounded() {
    let records = (0..=BATCHES_WAITING_MAX)
        .map(|_| record(Kind::Batch, vec![0]))
        .collect();
    assert_eq!(fault(records), (BATCHES_WAITING_MAX as u64 + 1, Why::NoKey));
}

#[test]
fn a_file_is_read_back_as_it_was_written() {
    let mut bytes = opening().encode();
    bytes.extend(good().iter().flat_map(Record::encode));
    let mut reader = Reader::default();
    reader.push(&bytes);
    assert_eq!(reader.take_opening(), Ok(Some(opening())));
    for expected in good() {
        assert_eq!(reader.take(), Ok(Some(expected)));
    }
    assert!(reader.is_empty());
}

#[test]
fn a_status_says_nothing_of_the_sandbox() {
    let mut records = good();
    let status = Status {
        generation: 1,
        version: "0".into(),
        start: [0; 8].into(),
        engine: true,
        sandboxes: Vec::new(),
        skew_ms: None,
    };
    records.insert(2, report_by(1, News::Status(status)));
    assert!(check(records).is_ok());
}

#[test]
fn a_file_whose_bodies_were_purged_verifies_and_says_how_many_events_say_nothing() {
    let purged: Vec<_> = good()
        .into_iter()
        .map(|record| match Batch::parse(&record.payload) {
            Ok(batch) if record.kind == Kind::Batch => {
                let head_bytes = record.payload.len() - batch.body.len();
                let mut record = Record {
                    kind: Kind::Head,
                    ..record
                };
                record.payload.truncate(head_bytes);
                record
            }
            _ => record,
        })
        .collect();
    let check = check(purged).unwrap();
    assert!(check.is_whole());
    let found = check.found();
    assert_eq!(
        (found.batches, found.exit_code, found.dropped),
        (3, None, 0)
    );
    assert_eq!(found.purged_events, check.stream().unwrap().events());
    assert_eq!(found.purged, 3);
}

#[test]
fn a_hole_says_how_far_it_goes_and_why_or_nothing() {
    use crate::hole::{Cause, Causes};
    let hole = |payload| Record {
        offset: 5,
        received: UnixMillis(0),
        kind: Kind::Gap,
        host: None,
        sandbox: None,
        payload,
    };
    let said = |to, causes: Causes| hole(Hole { to, causes }.encode());
    for (record, removed) in [
        (hole(vec![]), 0),
        (said(9, Causes::UNKNOWN), 0),
        (said(9, Cause::Damage.into()), 0),
        (said(9, Cause::Age.into()), 1),
        (said(9, Causes::from(Cause::Age).with(Cause::Damage)), 0),
    ] {
        let mut check = Check::new(opening(), host_key(1).public(), None);
        check.record(&record).unwrap();
        assert_eq!((check.found().holes, check.found().removed), (1, removed));
    }
    for record in [said(5, Cause::Age.into()), hole(vec![0x81])] {
        let mut check = Check::new(opening(), host_key(1).public(), None);
        assert_eq!(check.record(&record).unwrap_err().why, Why::Hole);
    }
}
