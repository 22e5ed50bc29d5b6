//! One batch: as the gate takes it apart, unsigned bytes and all; as a reader checks it; and its events.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor,
    event::{Event, Events},
    limits::{BATCH_BODY_BYTES_MAX, BATCH_EVENTS_MAX, BATCH_HEAD_BYTES_MAX, EVENT_DATA_BYTES_MAX},
    stream::{self, Batch, BatchError, Head, StreamError, Verdict, Verifier, Writer, stream_id},
};
use protocol_fuzz::{
    edit::edited,
    input::Input,
    item::Item,
    quiet,
    seal::{is_worth_signing, seal},
    world::{self, NOW, SANDBOX},
};

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => strangers_bytes(input.rest()),
        1 => good_one_changed(input),
        2 => head(input),
        3 => body(input),
        _ => {
            let count = input.u16().into();
            events(input.rest(), count);
        }
    }
});

fn strangers_bytes(payload: &[u8]) {
    assert!(check(payload).is_none());
    parse(payload);
}

/// The first batch of a stream with any change is not its first batch.
fn good_one_changed(input: Input<'_>) {
    let mut writer = Writer::new(
        world::owned(SANDBOX),
        stream_id(&world::host(), &world::sandbox()),
        [2; 8],
    );
    for data in [&b"hello"[..], b"world"] {
        let line = Event {
            time: NOW,
            kind: protocol::event::Kind::Stdout,
            flags: 0,
            size: 6,
            value: 0,
            data,
        };
        assert!(writer.push(&line));
    }
    let good = writer.seal(NOW, false);
    let payload = edited(&good, input);
    assert_eq!(check(&payload).is_some(), payload == good);
    parse(&payload);
}

/// The sandbox signed this head, whatever it is: the gate takes it exactly if it is as `SPEC.md` 8.5 says.
fn head(mut input: Input<'_>) {
    let payload = input.chunk();
    let body = input.rest();
    let read = cbor::from_slice::<Head>(payload, BATCH_HEAD_BYTES_MAX).ok();
    if !is_worth_signing(payload, read.is_some()) {
        return;
    }
    let signed = seal(SANDBOX, stream::TYP, payload, b"", None);
    let is_good = |head: &Head| signed.len() <= BATCH_HEAD_BYTES_MAX && is_sound(head, body);
    let bytes = [&signed[..], body].concat();
    assert_eq!(parse(&bytes), read.filter(is_good));
    check(&bytes);
}

/// The sandbox signed this body, with a head that fits it: it is taken exactly if it is as many events as the head says.
fn body(mut input: Input<'_>) {
    let count = u64::from(input.u16());
    let body = input.rest();
    let head = Head {
        stream: stream_id(&world::host(), &world::sandbox()).into(),
        epoch: 1,
        batch: 0,
        first: 0,
        count,
        previous: [0; 32].into(),
        body_hash: (*blake3::hash(body).as_bytes()).into(),
        body_bytes: body.len() as u64,
        time: NOW,
        token: Some([2; 8].into()),
        closing: None,
    };
    let expected = events(body, count) && is_sound(&head, body);
    if !is_worth_signing(body, expected) {
        return;
    }
    let signed = seal(SANDBOX, stream::TYP, &cbor::to_vec(&head), b"", None);
    let bytes = [&signed[..], body].concat();
    assert_eq!(check(&bytes).is_some(), expected);
}

fn parse(payload: &[u8]) -> Option<Head> {
    let batch = Batch::parse(payload)
        .map_err(quiet::check::<BatchError>)
        .ok()?;
    let signed_bytes = payload.len() - batch.body.len();
    assert!(signed_bytes <= BATCH_HEAD_BYTES_MAX && is_sound(&batch.head, batch.body));
    assert_eq!(
        batch.body.as_ptr_range(),
        payload[signed_bytes..].as_ptr_range()
    );
    assert_eq!(batch.head_bytes, &payload[..signed_bytes]);
    assert_eq!(
        batch.head_hash(),
        *blake3::hash(&payload[..signed_bytes]).as_bytes()
    );
    assert!(Item::read(&payload[..signed_bytes]).is_some());
    Some(batch.head)
}

fn check(payload: &[u8]) -> Option<Head> {
    let mut verifier = Verifier::new(&world::host(), &world::sandbox(), world::public(SANDBOX));
    match verifier.check(payload) {
        Ok(Verdict::Next(head, events)) => {
            assert_eq!(events.count() as u64, head.count);
            assert_eq!(verifier.events(), head.count);
            assert_eq!(verifier.is_closed(), head.closing.is_some());
            Some(head)
        }
        Ok(Verdict::Again | Verdict::Purged(_)) => {
            panic!("nothing came before, and its body is there")
        }
        Err(error) => {
            quiet::check::<StreamError>(error);
            assert!(verifier.events() == 0 && !verifier.is_closed());
            None
        }
    }
}

/// The rules of `SPEC.md` 8.5.
fn is_sound(head: &Head, body: &[u8]) -> bool {
    body.len() as u64 == head.body_bytes
        && body.len() <= BATCH_BODY_BYTES_MAX
        && head.count <= BATCH_EVENTS_MAX as u64
        && u128::from(head.first) + u128::from(head.count) <= u64::MAX.into()
        && head.batch < u64::MAX
        && head.epoch > 0
        && (head.batch == 0) == head.token.is_some()
        && head.closing.is_none_or(|closing| closing)
}

/// Whether a body is so many events: as our reader says, which must be as the items in it say.
fn events(body: &[u8], count: u64) -> bool {
    let read = Events::parse(body, count).map_err(quiet::check).ok();
    let expected = Item::read(body).is_some_and(|item| match item {
        Item::Array(all) => {
            all.len() as u64 == count && all.len() <= BATCH_EVENTS_MAX && all.iter().all(is_event)
        }
        _ => false,
    });
    assert_eq!(read.is_some(), expected);
    if let Some(events) = read {
        let mut again = Item::Array(Vec::new()).to_vec();
        let mut total = 0;
        for event in events {
            total += 1;
            event.encode(&mut again);
            let place = event.data.as_ptr_range();
            let within = body.as_ptr_range();
            assert!(
                within.start <= place.start && place.end <= within.end,
                "borrowed"
            );
        }
        assert_eq!(total, count);
        let head_bytes = body.len() - (again.len() - 1);
        assert_eq!(again[1..], body[head_bytes..]);
    }
    expected
}

fn is_event(item: &Item) -> bool {
    let Item::Array(parts) = item else {
        return false;
    };
    let Some((Item::Bytes(data), numbers)) = parts.split_last() else {
        return false;
    };
    numbers.len() == 5
        && numbers.iter().all(|number| matches!(number, Item::Uint(_)))
        && data.len() <= EVENT_DATA_BYTES_MAX
}
