//! Seeds of what is signed, and of the CBOR inside.

use protocol::{
    cbor,
    command::Order,
    event::Event,
    exchange::{EXCHANGE_PATH, Request},
    key::Dispatcher,
    limits::{ARGUMENTS_MAX, DETAIL_BYTES_MAX, EVENT_DATA_BYTES_MAX, HOST_TOKEN_LIFE_S_MAX},
    report::{News, Report},
    signed::Message as _,
    stream::Batch,
    token,
};
use protocol_fuzz::{
    input::chunk,
    item::Item,
    seal::seal,
    world::{self, HOST, NOW, STRANGER},
};
use serde::Serialize;

use crate::{FLIP, message::*, write};

/// What `token` reads as the middle of its range of time.
const NOON: [u8; 2] = 5400_u16.to_be_bytes();

pub fn token() {
    let (host, sandbox) = (&world::HOST_TOKEN[..], &world::SANDBOX_TOKEN[..]);
    let claims = |token: &[u8]| cbor::to_vec(&token::peek(token).expect("a good token"));
    write("token", "host-token", &[&[0], host]);
    write("token", "sandbox-token", &[&[0], sandbox]);
    write("token", "host-token-with-a-bit-flipped", &[&[1], &FLIP]);
    write("token", "sandbox-token-with-a-bit-flipped", &[&[2], &FLIP]);
    write("token", "host-claims", &[&[3], &NOON, &claims(host)]);
    write("token", "sandbox-claims", &[&[4], &NOON, &claims(sandbox)]);
    // 50 minutes on, a sandbox token that would live longer than its parent.
    let mut late = token::peek(sandbox).expect("a good token");
    late.issued_s += 3000;
    late.expires_s = NOW.seconds() + HOST_TOKEN_LIFE_S_MAX + 1;
    let at = (5400_u16 + 3000).to_be_bytes();
    let late = cbor::to_vec(&late);
    write(
        "token",
        "sandbox-claims-beyond-the-parents",
        &[&[4], &at, &late],
    );
    let both = [chunk(&claims(host)), NOON.to_vec(), claims(sandbox)].concat();
    write("token", "parent-and-sandbox-claims", &[&[5], &both]);
}

pub fn command() {
    let launch = a_command(Order::Launch(launch()));
    let stop = a_command(Order::Stop(stop()));
    let by_stranger = protocol::command::sign(world::secret::<Dispatcher>(STRANGER), &launch);
    let (launch, stop) = (cbor::to_vec(&launch), cbor::to_vec(&stop));
    write("command", "by-a-stranger", &[&[0], &by_stranger]);
    write(
        "command",
        "stop-with-a-bit-flipped",
        &[&[1], &chunk(&stop), &FLIP],
    );
    write(
        "command",
        "launch-with-a-bit-flipped",
        &[&[1], &chunk(&launch), &FLIP],
    );
    write("command", "stop-signed-as-a-report", &[&[2, 0], &stop]);
    write("command", "stop-for-another-host", &[&[2, 2], &stop]);
    write("command", "launch", &[&[3], &launch]);
    write("command", "stop", &[&[3], &stop]);
}

pub fn report() {
    for news in every_news() {
        let word = news.word();
        let payload = cbor::to_vec(&a_report(news));
        write("report", word, &[&[2], &payload]);
        let newer = cbor_with_more(&payload);
        if word == "stopped" {
            write("report", "stopped-by-a-newer-host", &[&[2], &newer]);
            write(
                "report",
                "stopped-with-a-bit-flipped",
                &[&[1], &chunk(&payload), &FLIP],
            );
            let by_stranger = seal(STRANGER, Report::TYP, &payload, b"v1/edge-1/reports", None);
            write("report", "by-a-stranger", &[&[0], &by_stranger]);
            write(
                "report",
                "news-of-a-kind-unknown",
                &[&[2], &of_unknown_kind(&payload)],
            );
        }
    }
}

pub fn exchange() {
    let [enrolment, renewal] = requests().map(|request| cbor::to_vec(&request));
    let by_stranger = seal(
        STRANGER,
        Request::TYP,
        &enrolment,
        EXCHANGE_PATH.as_bytes(),
        None,
    );
    write("exchange", "by-a-stranger", &[&[0], &by_stranger]);
    write(
        "exchange",
        "enrolment-with-a-bit-flipped",
        &[&[1], &chunk(&enrolment), &FLIP],
    );
    write("exchange", "enrolment", &[&[2], &enrolment]);
    write("exchange", "renewal", &[&[2], &renewal]);
    write(
        "exchange",
        "challenge",
        &[&[3], &cbor::to_vec(&challenge())],
    );
    write("exchange", "grant", &[&[3], &cbor::to_vec(&grant())]);
    write("exchange", "refused", &[&[3], &cbor::to_vec(&refused())]);
    let one = [&[0][..], &chunk(&succession(HOST + 1, 4))].concat();
    let two = [&[1][..], &chunk(&succession(HOST + 2, 5))].concat();
    write("exchange", "chain-of-two", &[&[4, 3], &one, &two]);
    write(
        "exchange",
        "chain-at-the-last-generation",
        &[&[4, 255], &one],
    );
}

/// A seed for each type that `cbor` reads, under the number that it has there.
pub fn cbor_items() {
    let put = |kind: u8, name: &str, bytes: &[u8]| write("cbor", name, &[&[kind], bytes]);
    fn vec<T: Serialize>(value: &T) -> Vec<u8> {
        cbor::to_vec(value)
    }
    let [enrolment, renewal] = requests();
    put(0, "command", &vec(&a_command(Order::Stop(stop()))));
    put(1, "launch", &vec(&launch()));
    put(2, "request", &vec(&renewal));
    put(3, "proof", &vec(&enrolment.proof));
    put(4, "succession", &succession(HOST, 4));
    let batches = batches();
    let head = Batch::parse(&batches[0]).expect("a good batch").head;
    put(5, "head", &vec(&head));
    put(
        6,
        "claims",
        &vec(&token::peek(&world::HOST_TOKEN).expect("a good token")),
    );
    put(7, "challenge", &cbor_with_more(&vec(&challenge())));
    put(8, "grant", &vec(&grant()));
    put(9, "refused", &cbor_with_more(&vec(&refused())));
    for news in every_news() {
        match news {
            News::Launched(body) => put(10, "launched", &vec(&body)),
            News::Ended(body) => put(11, "ended", &cbor_with_more(&vec(&body))),
            News::Forwarded(body) => put(12, "forwarded", &vec(&body)),
            News::Stopped(body) => put(13, "stopped", &cbor_with_more(&vec(&body))),
            News::Status(body) => put(14, "status", &cbor_with_more(&vec(&body))),
            News::Refused(_) | News::Other(_) => {}
        }
    }
    put(15, "numbers", &vec(&vec![0_u64, 24, 256, 1 << 16, 1 << 32]));
    put(
        16,
        "pairs",
        &vec(&vec![("yes", Some(true)), ("no", Some(false)), ("", None)]),
    );
    put(17, "negative-number", &vec(&-70_001_i64));
    put(
        18,
        "eight-bytes",
        &vec(&serde_bytes::ByteArray::new([1; 8])),
    );
    put(19, "bytes", &vec(&serde_bytes::ByteBuf::from(vec![1; 30])));
}

/// What the fuzzer would be long in finding: one more than fits.
pub fn past_the_limits() {
    let mut long = launch();
    long.arguments = vec![String::new(); ARGUMENTS_MAX + 1];
    let payload = cbor::to_vec(&a_command(Order::Launch(long)));
    write("command", "launch-with-257-arguments", &[&[3], &payload]);
    let mut odd = launch();
    odd.environment[0].0 = "0MODE".into();
    let payload = cbor::to_vec(&a_command(Order::Launch(odd)));
    write(
        "command",
        "launch-with-a-variable-that-starts-with-a-digit",
        &[&[3], &payload],
    );
    let long = Event {
        data: &[0; EVENT_DATA_BYTES_MAX + 1],
        ..line(b"")
    };
    let mut body = vec![0x81];
    long.encode(&mut body);
    write("batch", "body-with-too-long-an-event", &[&[3, 0, 1], &body]);
    let mut news = every_news().remove(0);
    if let News::Refused(refused) = &mut news {
        refused.detail = "x".repeat(DETAIL_BYTES_MAX + 1);
    }
    let payload = cbor::to_vec(&a_report(news));
    write(
        "report",
        "refused-with-too-long-a-detail",
        &[&[2], &payload],
    );
    for (name, count) in [("256", 256_u16), ("257", 257)] {
        let events = vec![
            Item::Array([vec![Item::Uint(1); 5], vec![Item::Bytes(vec![])]].concat());
            count.into()
        ];
        let body = Item::Array(events).to_vec();
        write(
            "batch",
            &format!("body-{name}-events"),
            &[&[3], &count.to_be_bytes(), &body],
        );
    }
}
