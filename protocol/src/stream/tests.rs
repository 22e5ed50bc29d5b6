//! Tests of `stream`.

use super::*;
use crate::{event::Kind, key::seeded};

fn names() -> (HostId, SandboxId) {
    (
        HostId::new("edge-1").unwrap(),
        SandboxId::new("build-7").unwrap(),
    )
}

fn writer() -> Writer {
    let (host, sandbox) = names();
    Writer::new(seeded(0x0d), stream_id(&host, &sandbox), [7; 8])
}

fn verifier() -> Verifier {
    let (host, sandbox) = names();
    Verifier::new(&host, &sandbox, seeded(0x0d).public())
}

fn line(data: &[u8]) -> Event<'_> {
    Event {
        time: UnixMillis(1),
        kind: Kind::Stdout,
        flags: 0,
        size: data.len() as u64,
        value: 0,
        data,
    }
}

/// Batches of 2, 0, 1 events and a closing one.
fn batches() -> Vec<Vec<u8>> {
    let mut writer = writer();
    assert!(writer.push(&line(b"one")) && writer.push(&line(b"two")));
    let mut batches = vec![
        writer.seal(UnixMillis(1), false),
        writer.seal(UnixMillis(2), false),
    ];
    assert!(writer.push(&line(b"three")));
    batches.push(writer.seal(UnixMillis(3), false));
    batches.push(writer.seal(UnixMillis(4), true));
    batches
}

#[test]
fn a_whole_stream_verifies_and_says_that_it_is_whole() {
    let mut verifier = verifier();
    let mut lines = Vec::new();
    for payload in &batches() {
        match verifier.check(payload).unwrap() {
            Verdict::Next(_, events) => lines.extend(events.map(|event| event.data.to_vec())),
            Verdict::Again | Verdict::Purged(_) => panic!("nothing came twice"),
        }
        assert!(
            matches!(verifier.check(payload), Ok(Verdict::Again)),
            "a redelivery"
        );
    }
    assert_eq!(lines, [&b"one"[..], b"two", b"three"]);
    assert!(verifier.is_closed());
    assert_eq!(verifier.events(), 3);
}

#[test]
fn what_is_missing_reordered_or_forked_is_seen() {
    let batches = batches();
    let check = |order: &[usize]| {
        let mut verifier = verifier();
        order
            .iter()
            .try_for_each(|index| verifier.check(&batches[*index]).map(|_| ()))
    };
    assert_eq!(
        check(&[0, 2]),
        Err(StreamError::Gap {
            expected: 1,
            found: 2
        })
    );
    assert_eq!(
        check(&[1]),
        Err(StreamError::Gap {
            expected: 0,
            found: 1
        })
    );
    assert_eq!(check(&[0, 1, 0]), Ok(()), "known by its head");
    let mut other = writer();
    assert!(other.push(&line(b"another")));
    let forked = other.seal(UnixMillis(1), false);
    let mut verifier = verifier();
    verifier.check(&batches[0]).unwrap();
    assert_eq!(verifier.check(&forked).err(), Some(StreamError::Fork));
    let after = other.seal(UnixMillis(9), false);
    assert_eq!(
        verifier.check(&after).err(),
        Some(StreamError::Fork),
        "its past is another"
    );
}

#[test]
fn no_changed_byte_verifies() {
    let payload = &batches()[0];
    for index in 0..payload.len() {
        let mut changed = payload.clone();
        changed[index] ^= 1;
        assert!(verifier().check(&changed).is_err(), "byte {index}");
    }
}

#[test]
fn another_sandboxs_stream_is_refused() {
    let (host, _) = names();
    let sandbox = SandboxId::new("build-8").unwrap();
    let mut other = Verifier::new(&host, &sandbox, seeded(0x0d).public());
    assert_eq!(other.check(&batches()[0]).err(), Some(StreamError::Stream));
    let mut wrong_key = Verifier::new(&host, &names().1, seeded(1).public());
    assert_eq!(
        wrong_key.check(&batches()[0]).err(),
        Some(StreamError::Signature)
    );
}

#[test]
fn a_batch_holds_256_events_of_ordinary_length() {
    let mut writer = writer();
    let data = [b'x'; 216];
    for _ in 0..BATCH_EVENTS_MAX {
        assert!(writer.push(&line(&data)));
    }
    assert!(!writer.push(&line(&data)), "and no more");
    assert!(Batch::parse(&writer.seal(UnixMillis(1), false)).is_ok());
}

#[test]
fn a_batch_is_full_before_it_is_too_long() {
    let mut writer = writer();
    let data = vec![b'x'; 8 * 1024];
    while writer.push(&line(&data)) {}
    let payload = writer.seal(UnixMillis(1), false);
    assert!(Batch::parse(&payload).is_ok());
    while writer.push(&line(b"")) {}
    assert_eq!(writer.pending(), BATCH_EVENTS_MAX);
}

/// The signed head of a batch.
fn head_of(payload: &[u8]) -> &[u8] {
    let body = Batch::parse(payload).unwrap().body;
    &payload[..payload.len() - body.len()]
}

#[test]
fn whichever_bodies_are_purged_the_chain_verifies_and_says_which() {
    let batches = batches();
    for purged in 0..1_u32 << batches.len() {
        let mut verifier = verifier();
        for (at, payload) in batches.iter().enumerate() {
            let is_purged = purged & 1 << at != 0;
            let verdict = if is_purged {
                verifier.check_head(head_of(payload))
            } else {
                verifier.check(payload)
            };
            match verdict.unwrap() {
                Verdict::Purged(head) => assert!(is_purged && head.batch == at as u64),
                Verdict::Next(head, _) => assert!(!is_purged && head.batch == at as u64),
                Verdict::Again => panic!("nothing came twice"),
            }
            assert!(matches!(
                verifier.check_head(head_of(payload)),
                Ok(Verdict::Again)
            ));
            assert!(matches!(verifier.check(payload), Ok(Verdict::Again)));
        }
        assert!(verifier.is_closed());
        assert_eq!(verifier.events(), 3);
    }
}

#[test]
fn a_head_alone_is_no_batch_a_batch_is_no_head_and_a_changed_one_is_neither() {
    let payload = &batches()[0];
    let head = head_of(payload);
    let shape =
        |result: Result<Verdict<'_>, StreamError>| matches!(result, Err(StreamError::Batch(_)));
    assert!(shape(verifier().check(head)));
    assert!(shape(verifier().check_head(payload)));
    assert!(shape(verifier().check_head(&head[..head.len() - 1])));
    for at in 0..head.len() {
        let mut bad = head.to_vec();
        bad[at] ^= 1;
        assert!(verifier().check_head(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn after_removed_batches_a_later_one_is_gone_on_from_and_nothing_else_is() {
    let batches = batches();
    for from in 0..batches.len() {
        let mut verifier = verifier();
        for payload in &batches[..from] {
            verifier.check(payload).unwrap();
        }
        for (at, payload) in batches.iter().enumerate() {
            for form in [&payload[..], head_of(payload)] {
                let mut skipping = verifier.clone();
                assert_eq!(skipping.skip_to(form), at > from, "{from} to {at}");
                let goes_on = at >= from;
                assert_eq!(
                    skipping
                        .check(payload)
                        .is_ok_and(|verdict| matches!(verdict, Verdict::Next(..))),
                    goes_on
                );
            }
        }
        let mut forged = batches[batches.len() - 1].clone();
        let last = head_of(&forged).len() - 1;
        forged[last] ^= 1;
        assert!(!verifier.skip_to(&forged));
    }
}
