//! Every message is read as what was written, whatever it says within its limits.

use proptest::{collection::vec, option, prelude::*};
use protocol::{
    cbor, command,
    event::{Event, Events, Kind},
    exchange::{
        self, Challenge, Cosigned, Grant, Handover, InstallProof, Proof, Refusal, Refused, Request,
        Succession, Trail, Witnessing,
    },
    install_key::InstallKey,
    key::{Dispatcher, Host, Sandbox},
    limits::{
        BATCH_BODY_BYTES_MAX, BATCH_HEAD_BYTES_MAX, DETAIL_BYTES_MAX, EXCHANGE_BYTES_MAX,
        MESSAGE_BYTES_MAX,
    },
    record::{self, Record},
    report::{
        self, Ended, Forwarded, Launched, News, Reason, Report, Sighting, State, Status, Stopped,
    },
    signed,
    stream::{Batch, Head, Writer},
    time::UnixMillis,
};
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::any::{
    cases, command, command_id, content, host, number, public, sandbox, secret, text, time,
};

/// What an encoding says, and that it says it in its one way.
fn again<T: Serialize + DeserializeOwned>(value: &T, bytes_max: usize) -> T {
    let bytes = cbor::to_vec(value);
    let read: T = cbor::from_slice(&bytes, bytes_max).unwrap();
    assert_eq!(cbor::to_vec(&read), bytes);
    read
}

/// A word of today, or one of tomorrow.
fn word<T: Copy + std::fmt::Debug + 'static>(
    all: &'static [T],
    from_label: fn(u64) -> Option<T>,
) -> impl Strategy<Value = T> {
    let tomorrow = number().prop_filter_map("no number of a word", from_label);
    prop_oneof![9 => prop::sample::select(all), 1 => tomorrow]
}

fn news() -> impl Strategy<Value = News> {
    let detail = || text().prop_map(|text| report::detail(&text.repeat(8)));
    let reason = || word(Reason::ALL, Reason::from_label);
    let state = || word(State::ALL, State::from_label);
    let sighting = (sandbox(), state()).prop_map(|(sandbox, state)| Sighting { sandbox, state });
    let engine_name = "[a-z0-9:]{0,256}";
    let batch = vec(any::<u8>(), 0..400);
    prop_oneof![
        (command_id(), sandbox(), reason(), detail()).prop_map(
            |(command, sandbox, reason, detail)| {
                News::Refused(report::Refused {
                    command,
                    sandbox,
                    reason,
                    detail,
                })
            }
        ),
        (
            command_id(),
            sandbox(),
            public(),
            engine_name,
            engine_name,
            content()
        )
            .prop_map(|(command, sandbox, key, image, container, content)| {
                News::Launched(Launched {
                    command,
                    sandbox,
                    key,
                    image,
                    container,
                    content,
                })
            }),
        (
            option::of(command_id()),
            sandbox(),
            state(),
            option::of(number()),
            option::of(reason()),
            detail()
        )
            .prop_map(|(command, sandbox, state, exit_code, reason, detail)| {
                News::Ended(Ended {
                    command,
                    sandbox,
                    state,
                    exit_code,
                    reason,
                    detail,
                })
            }),
        (command_id(), sandbox())
            .prop_map(|(command, sandbox)| News::Stopped(Stopped { command, sandbox })),
        (sandbox(), batch).prop_map(|(sandbox, batch)| News::Forwarded(Forwarded {
            sandbox,
            batch: batch.into()
        })),
        (
            number(),
            engine_name,
            any::<[u8; 8]>(),
            any::<bool>(),
            vec(sighting, 0..20),
            option::of(any::<i64>())
        )
            .prop_map(|(generation, version, start, engine, sandboxes, skew_ms)| {
                let start = start.into();
                News::Status(Status {
                    generation,
                    version,
                    start,
                    engine,
                    sandboxes,
                    skew_ms,
                })
            }),
    ]
}

fn proof() -> impl Strategy<Value = Proof> {
    let install_key = any::<([u8; 8], [u8; 32])>().prop_map(|(kid, secret)| {
        let key = InstallKey::new(kid, Zeroizing::new(secret));
        Proof::InstallKey(InstallProof::from(&key))
    });
    let succession = vec(any::<u8>(), 0..512).prop_map(|bytes| Proof::HostKey(bytes.into()));
    let chain = vec(vec(any::<u8>(), 0..300), 0..8)
        .prop_map(|links| Proof::HostKeys(links.into_iter().map(Into::into).collect()));
    prop_oneof![install_key, succession, chain]
}

fn trail() -> impl Strategy<Value = Trail> {
    let note = || "\\PC{0,60}";
    let hashes = || vec(any::<[u8; 32]>().prop_map(Into::into), 0..9);
    let cosigned = (note(), hashes()).prop_map(|(note, proof)| Cosigned { note, proof });
    let handover = (note(), note()).prop_map(|(note, vkey)| Handover { note, vkey });
    (
        note(),
        note(),
        hashes(),
        vec(cosigned, 0..4),
        vec(handover, 0..4),
    )
        .prop_map(|(note, vkey, proof, others, handovers)| Trail {
            note,
            vkey,
            proof,
            others,
            handovers,
        })
}

/// An event without its data.
fn event() -> impl Strategy<Value = Event<'static>> {
    let kind = word(Kind::ALL, Kind::from_label);
    (time(), kind, number(), number(), number()).prop_map(|(time, kind, flags, size, value)| {
        let data = b"";
        Event {
            time,
            kind,
            flags,
            size,
            value,
            data,
        }
    })
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_command_is_read_as_it_was_written(command in command()) {
        let key = secret::<Dispatcher>(1);
        let bytes = command::sign(&key, &command);
        prop_assert!(bytes.len() <= MESSAGE_BYTES_MAX);
        let read = command::verify(&bytes, &[key.public()], &command.host, command.issued).unwrap();
        prop_assert_eq!(read.value(), &command);
        prop_assert_eq!(&signed::peek::<command::Command>(&bytes).unwrap(), &command);
        prop_assert_eq!(again(&command, MESSAGE_BYTES_MAX), command);
    }

    #[test]
    fn a_report_is_read_as_it_was_written(host in host(), number in number(), time in time(), news in news()) {
        let key = secret::<Host>(1);
        let report = Report { host, number, time, news };
        let bytes = report::sign(&key, &report);
        let read = report::verify(&bytes, &[key.public()], &report.host).unwrap();
        prop_assert_eq!(read.value(), &report);
        prop_assert_eq!(again(&report, MESSAGE_BYTES_MAX), report);
    }

    #[test]
    fn a_detail_is_cut_at_a_character_and_no_earlier_than_it_must_be(text in ".{0,700}") {
        let cut = report::detail(&text);
        prop_assert!(text.starts_with(&cut) && cut.len() <= DETAIL_BYTES_MAX);
        let next = text[cut.len()..].chars().next();
        prop_assert!(next.is_none_or(|next| cut.len() + next.len_utf8() > DETAIL_BYTES_MAX));
    }

    #[test]
    fn a_request_is_read_as_it_was_written(
        nonce: [u8; 32], host in host(), seed: u8, generation in number(), proof in proof(),
        witness in option::of(option::of(".{0,300}")),
    ) {
        let key = secret::<Host>(seed);
        let witness = witness.map(|note| Witnessing { note });
        let request = Request { nonce: nonce.into(), host, key: key.public(), generation, proof, witness };
        let read = exchange::verify_request(&exchange::sign_request(&key, &request)).unwrap();
        prop_assert_eq!(read.value(), &request);
        prop_assert_eq!(again(&request, EXCHANGE_BYTES_MAX), request);
    }

    #[test]
    fn a_succession_is_read_as_it_was_written(
        host in host(), generation in number(), key in public(), time in time(),
    ) {
        let last = secret::<Host>(1);
        let succession = Succession { host, generation, key, time };
        let read = signed::verify::<Succession>(&signed::sign(&last, &succession, b""), &[last.public()], b"").unwrap();
        prop_assert_eq!(read.value(), &succession);
    }

    #[test]
    fn an_answer_of_the_exchange_is_read_as_it_was_written(
        nonce: [u8; 32], time in time(), token in vec(any::<u8>(), 0..512), generation in number(),
        authorities in option::of(vec(vec(any::<u8>(), 0..200), 0..5)),
        trail in option::of(trail()), reason in word(Refusal::ALL, Refusal::from_label),
        known in option::of(number()),
    ) {
        let challenge = Challenge { nonce: nonce.into(), time };
        prop_assert_eq!(again(&challenge, EXCHANGE_BYTES_MAX), challenge);
        let authorities = authorities.map(|list| list.into_iter().map(Into::into).collect());
        let grant = Grant { token: token.into(), time, generation, authorities, trail };
        prop_assert_eq!(again(&grant, EXCHANGE_BYTES_MAX), grant);
        let refused = Refused { reason, time, generation: known };
        prop_assert_eq!(again(&refused, EXCHANGE_BYTES_MAX), refused);
    }

    #[test]
    fn a_head_is_read_as_it_was_written(
        hashes: ([u8; 16], [u8; 32], [u8; 32]),
        numbers in [number(), number(), number(), number(), number()],
        time in time(), token: Option<[u8; 8]>, closing: Option<bool>,
    ) {
        let [epoch, batch, first, count, body_bytes] = numbers;
        let head = Head {
            stream: hashes.0.into(), epoch, batch, first, count, previous: hashes.1.into(),
            body_hash: hashes.2.into(), body_bytes, time, token: token.map(Into::into), closing,
        };
        prop_assert_eq!(again(&head, BATCH_HEAD_BYTES_MAX), head);
    }

    #[test]
    fn events_come_out_of_a_batch_as_they_went_in(
        events in vec((event(), vec(any::<u8>(), 0..300)), 0..40), time in number(), closing: bool,
    ) {
        let mut writer = Writer::new(secret::<Sandbox>(3), [7; 16], [8; 8]);
        let events: Vec<Event<'_>> = events.iter().map(|(event, data)| Event { data, ..*event }).collect();
        for event in &events {
            prop_assert!(writer.push(event));
        }
        let payload = writer.seal(UnixMillis(time), closing);
        let batch = Batch::parse(&payload).unwrap();
        prop_assert_eq!(batch.head.closing, closing.then_some(true));
        prop_assert_eq!(batch.head.body_bytes, batch.body.len() as u64);
        let read: Vec<_> = Events::parse(batch.body, batch.head.count).unwrap().collect();
        prop_assert_eq!(read, events);
    }

    #[test]
    fn what_fits_into_a_batch_is_a_good_batch(sizes in vec(prop_oneof![0..40_usize, 0..=8192_usize], 0..300)) {
        let mut writer = Writer::new(secret::<Sandbox>(3), [7; 16], [8; 8]);
        let data = vec![b'x'; 8192];
        let mut count = 0;
        for size in sizes {
            let event = Event {
                time: UnixMillis(u64::MAX), kind: Kind::Stdout, flags: u64::MAX, size: u64::MAX, value: u64::MAX,
                data: &data[..size],
            };
            count += u64::from(writer.push(&event));
        }
        let payload = writer.seal(UnixMillis(u64::MAX), true);
        let batch = Batch::parse(&payload).unwrap();
        prop_assert_eq!(batch.head.count, count);
        prop_assert!(batch.body.len() <= BATCH_BODY_BYTES_MAX);
        prop_assert_eq!(Events::parse(batch.body, count).unwrap().count() as u64, count);
    }

    #[test]
    fn records_come_out_as_they_went_in_however_they_are_cut(
        records in vec((number(), time(), 1..5_u64, host(), option::of(sandbox()), vec(any::<u8>(), 0..200)), 0..6),
        pieces in vec(1..300_usize, 1..40),
    ) {
        let records: Vec<_> = records.into_iter().map(|(offset, received, kind, host, sandbox, payload)| {
            let kind = record::Kind::from_label(kind).unwrap();
            Record { offset, received, kind, host: Some(host), sandbox, payload }
        }).collect();
        let bytes: Vec<u8> = records.iter().flat_map(Record::encode).collect();
        let mut reader = record::Reader::default();
        let (mut rest, mut read) = (&bytes[..], Vec::new());
        for piece in pieces.iter().cycle() {
            let (piece, behind) = rest.split_at((*piece).min(rest.len()));
            reader.push(piece);
            while let Some(record) = reader.take().unwrap() {
                read.push(record);
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(reader.is_empty());
        prop_assert_eq!(read, records);
    }
}
