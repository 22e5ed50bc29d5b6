//! Writes the seed corpus: `cargo run --example seeds`, here, after a step has changed.

use std::{fs, path::Path};

use broker_fuzz::play::{
    ONLINE, READER, READERS, SANDBOX,
    Step::{self, *},
    WILLING,
};
use protocol_fuzz::input::chunk;

fn main() {
    let handshake = [
        step(Connect, &[0]),
        step(Verdict, &[0]),
        step(Proof, &[0]),
        step(Admitted, &[]),
    ]
    .concat();
    let publish = |number: u8, twists: u8| {
        step(
            Publish,
            &[twists, 0, number, 0, 0, 4, b'd', b'a', b't', b'a'],
        )
    };
    let stored = |which: u8| step(Stored, &[which]);
    let subscribe = step(Subscribe, &[0, 1, 0, 0, 0]);
    let deliver = |which: u8| step(Deliver, &[which, 1]);
    let puback = step(PubAck, &[0, 0]);
    let wait_s = |quarter: u8| step(Wait, &[0x40, quarter]);

    write(
        "handshake",
        0,
        &[&handshake, &step(Ping, &[]), &step(Disconnect, &[0])],
    );
    write(
        "handshake-byte-by-byte",
        SANDBOX | 1 << 3,
        &[&handshake, &publish(1, 0), &stored(0)],
    );
    write(
        "renewal-in-the-middle",
        ONLINE,
        &[
            &publish(1, 0),
            &step(Renew, &[0]),
            &step(Verdict, &[0]),
            &publish(2, 0),
            &step(Proof, &[0]),
            &publish(3, 0),
            &stored(2),
            &stored(0),
            &stored(0x40),
        ],
    );
    write(
        "renewal-that-takes-rights-away",
        ONLINE,
        &[
            &subscribe,
            &step(Attached, &[0]),
            &step(Renew, &[0]),
            &step(Verdict, &[2]),
            &step(Proof, &[0]),
        ],
    );
    write(
        "publishes-of-all-kinds",
        SANDBOX | ONLINE | WILLING,
        &[
            &publish(1, 0),
            &publish(2, 1),
            &publish(3, 16),
            &step(Publish, &[0, 0, 4, 2, 0, 0]),
            &publish(5, 8),
        ],
    );
    write(
        "commands-and-their-answers",
        ONLINE,
        &[
            &subscribe,
            &step(Attached, &[2, 1, 1, 2, 1]),
            &deliver(2),
            &deliver(3),
            &puback,
            &deliver(4),
            &puback,
            &puback,
            &step(Flush, &[0, 0]),
            &step(Unsubscribe, &[0, 2, 0, 0]),
            &subscribe,
            &step(Attached, &[0x80]),
        ],
    );
    write(
        "a-narrow-window",
        0,
        &[
            &step(Connect, &[1, 0, 30, 0, 1]),
            &step(Verdict, &[0]),
            &step(Proof, &[0]),
            &step(Admitted, &[]),
            &subscribe,
            &step(Attached, &[3, 1, 1, 2, 1, 3, 1]),
            &puback,
            &puback,
            &deliver(4),
            &deliver(5),
            &puback,
            &puback,
        ],
    );
    write(
        "commands-too-large-for-it",
        0,
        &[
            &step(Connect, &[2, 1, 44]),
            &step(Verdict, &[0]),
            &step(Proof, &[0]),
            &step(Admitted, &[]),
            &subscribe,
            &step(Attached, &[2, 1, 9, 2, 1]),
            &deliver(3),
            &step(Deliver, &[4, 9]),
        ],
    );
    write(
        "commands-nobody-reads",
        ONLINE,
        &[
            &subscribe,
            &step(Attached, &[4, 1, 255, 2, 255, 3, 255, 4, 255]),
            &step(Flush, &[0xff, 0xff]),
            &step(Flush, &[0, 0]),
        ],
    );
    write(
        "a-hundred-and-thirty-publishes",
        SANDBOX | ONLINE,
        &[&step(Burst, &[130, 0])],
    );
    write(
        "a-flood-at-qos-0",
        ONLINE,
        &[
            &step(Burst, &[130, 1]),
            &step(Flush, &[0, 0]),
            &stored(1),
            &stored(0),
            &stored(0),
        ],
    );
    write(
        "silence",
        ONLINE,
        &[&wait_s(11), &step(Ping, &[]), &wait_s(12)],
    );
    write(
        "a-renewal-shorter-than-silence",
        0,
        &[
            &step(Connect, &[1, 0, 2, 0, 9]),
            &step(Verdict, &[0]),
            &step(Proof, &[0]),
            &step(Admitted, &[]),
            &step(Renew, &[0]),
            &step(Verdict, &[0]),
            &step(Wait, &[0x08, 0]),
            &step(Wait, &[0x04, 0]),
        ],
    );
    write(
        "a-token-that-ends",
        0,
        &[
            &step(Connect, &[0]),
            &step(Verdict, &[8]),
            &step(Proof, &[0]),
            &step(Admitted, &[]),
            &publish(1, 0),
            &wait_s(15),
            &wait_s(1),
        ],
    );
    write(
        "refused-in-every-way",
        ONLINE,
        &[
            &step(
                Subscribe,
                &[
                    0, 1, 8, 1, 0, 5, 0, 6, 0, 8, 0, 9, 0, 0, 1, 0, 0, 0, 0, 0, 0,
                ],
            ),
            &step(Publish, &[0, 0, 4, 2, 0, 0]),
            &step(Publish, &[0, 0, 5, 3, 0, 0]),
        ],
    );
    write("mqtt-3-1-1", 0, &[&step(Connect, &[4 | 8])]);
    write("a-will", 0, &[&step(Connect, &[16, 0, 0])]);
    write(
        "taken-over",
        ONLINE,
        &[&publish(1, 0), &step(End, &[0]), &stored(0)],
    );
    write(
        "not-mqtt",
        0,
        &[&step(Raw, &chunk(b"GET / HTTP/1.1\r\n\r\n"))],
    );
    write(
        "raw-packets",
        ONLINE,
        &[&step(Raw, &chunk(&[0xc0, 0, 0x40, 2, 0, 1, 0xe0, 2, 4, 0]))],
    );
    write(
        "too-large-before-it-is-known",
        0,
        &[&step(Raw, &chunk(&[0x10, 0xff, 0xff, 0x7f]))],
    );
    readers();
}

/// Of readers and load tests.
fn readers() {
    // All events and reports at QoS 1, from the oldest on.
    let subscribe = step(SubscribeReader, &[1, 1, 1, 0, 0, 2, 0]);
    let records = |count: u8, which: u8| step(Records, &[count - 1, which, 0, 2]);
    let puback = |which: u8| step(PubAck, &[0, which]);
    let again = |connect: &[u8]| {
        [
            step(Reconnect, &[]),
            step(ConnectReader, connect),
            step(VerdictReader, &[0]),
            step(Admitted, &[]),
        ]
        .concat()
    };
    let online = READERS | READER | ONLINE;

    for (name, connect) in [
        ("reader-connects", &[0][..]),
        ("reader-connects-to-stay", &[2]),
        ("reader-connects-for-long", &[2 | 16, 0xff, 0xff]),
        ("reader-connects-by-mqtt-3-1-1", &[1]),
        ("reader-connects-by-mqtt-3-1-1-to-stay", &[1 | 2]),
        ("reader-is-given-a-client-id", &[64, 0]),
        ("reader-takes-anothers-client-id", &[64, 4]),
        ("reader-has-another-name", &[128, 0]),
        ("reader-has-no-password", &[128, 2]),
        ("reader-has-a-method-too", &[128, 3]),
    ] {
        let connect = step(ConnectReader, connect);
        let rest = [
            step(VerdictReader, &[0]),
            step(Admitted, &[]),
            subscribe.clone(),
        ];
        let rest = rest.concat();
        write(
            name,
            READERS,
            &[&connect, &rest, &records(3, 0), &puback(1)],
        );
        write(&format!("{name}-turned-off"), 0, &[&connect, &rest]);
    }
    write(
        "reader-has-a-bad-token",
        READERS,
        &[&step(ConnectReader, &[0]), &step(VerdictReader, &[0x40])],
    );
    write(
        "reader-has-anothers-token",
        READERS,
        &[&step(ConnectReader, &[0]), &step(VerdictReader, &[0x20])],
    );
    for rights in 0..8 {
        write(
            &format!("reader-with-rights-{rights}"),
            READERS,
            &[
                &step(ConnectReader, &[2]),
                &step(VerdictReader, &[rights]),
                &step(Admitted, &[]),
                &step(SubscribeReader, &[1, 0, 0, 0, 0]),
                &step(SubscribeReader, &[1, 1, 0, 2, 1]),
                &step(SubscribeReader, &[1, 0, 2, 1, 1, 5, 0, 4, 0]),
                &records(2, 0),
                &records(2, 1),
                &records(2, 2),
                &records(2, 4),
            ],
        );
    }
    write(
        "a-token-of-a-reader-that-ends",
        READERS,
        &[
            &step(ConnectReader, &[0]),
            &step(VerdictReader, &[8]),
            &step(Admitted, &[]),
            &subscribe,
            &step(Wait, &[0x40, 1]),
        ],
    );
    write(
        "records-in-and-out-of-the-filters",
        online,
        &[
            &subscribe,
            &records(2, 0),
            &records(1, 1),
            &step(Missed, &[3]),
            &records(2, 4),
            &step(LookedAt, &[9]),
            &puback(3),
            &puback(0),
            &puback(0),
        ],
    );
    write(
        "a-break-and-on-from-what-was-not-acknowledged",
        online,
        &[
            &subscribe,
            &records(5, 0),
            &puback(0),
            &puback(2),
            &again(&[2]),
            &records(6, 0),
            &puback(1),
            &again(&[2]),
            &records(2, 0),
        ],
    );
    write(
        "a-break-and-a-clean-start",
        online,
        &[
            &subscribe,
            &records(3, 0),
            &again(&[0]),
            &subscribe,
            &records(2, 0),
        ],
    );
    write(
        "a-break-and-fewer-rights",
        online,
        &[
            &subscribe,
            &step(Reconnect, &[]),
            &step(ConnectReader, &[2]),
            &step(VerdictReader, &[3]),
            &step(Admitted, &[]),
        ],
    );
    write(
        "a-break-by-mqtt-3-1-1",
        READERS,
        &[
            &step(ConnectReader, &[3]),
            &step(VerdictReader, &[0]),
            &step(Admitted, &[]),
            &subscribe,
            &records(3, 0),
            &step(Missed, &[3]),
            &records(3, 2),
            &puback(1),
            &again(&[3]),
            &records(3, 0),
        ],
    );
    write(
        "subscribed-again-to-what-is-older",
        online,
        &[
            &step(SubscribeReader, &[1, 0, 0, 0, 0]),
            &records(2, 0),
            &step(UnsubscribeReader, &[2, 0, 0]),
            &subscribe,
            &records(2, 0),
            &puback(2),
            &again(&[2]),
            &records(2, 0),
        ],
    );
    write(
        "unsubscribed-with-records-on-their-way",
        online,
        &[
            &subscribe,
            &records(2, 0),
            &step(UnsubscribeReader, &[2, 1, 0, 2]),
            &step(Missed, &[3]),
            &again(&[2]),
            &subscribe,
            &records(2, 0),
        ],
    );
    write(
        "a-gap-while-nothing-is-subscribed",
        online,
        &[
            &subscribe,
            &records(1, 0),
            &step(UnsubscribeReader, &[2, 1, 0, 2]),
            &step(Missed, &[3]),
            &subscribe,
            &records(2, 0),
        ],
    );
    write(
        "one-filter-confirmed-and-one-not",
        online,
        &[
            &step(SubscribeReader, &[1, 1, 1, 0, 1, 3, 0]),
            &records(2, 0),
            &records(2, 3),
            &step(UnsubscribeReader, &[2, 0, 3]),
            &records(64, 0),
        ],
    );
    write(
        "a-narrow-window-of-a-reader",
        READERS,
        &[
            &step(ConnectReader, &[2 | 4, 2]),
            &step(VerdictReader, &[0]),
            &step(Admitted, &[]),
            &subscribe,
            &records(9, 0),
            &puback(1),
            &records(9, 0),
            &puback(0),
            &records(9, 0),
        ],
    );
    write(
        "records-too-large-for-it",
        READERS,
        &[
            &step(ConnectReader, &[2 | 32, 1, 44]),
            &step(VerdictReader, &[0]),
            &step(Admitted, &[]),
            &subscribe,
            &step(Missed, &[3]),
            &step(Records, &[1, 0, 0, 9]),
            &records(1, 0),
        ],
    );
    write(
        "records-nobody-reads",
        online,
        &[
            &step(SubscribeReader, &[1, 1, 0, 0, 1]),
            &step(Records, &[9, 0, 0, 255]),
            &step(Records, &[9, 0, 0, 255]),
            &step(Flush, &[0, 0]),
            &step(Records, &[9, 0, 0, 255]),
        ],
    );
    write(
        "packet-identifiers-that-meet",
        online,
        &[
            &subscribe,
            &records(1, 0),
            &step(Records, &[0, 0, 0x81, 1]),
            &puback(0),
            &again(&[2]),
            &step(Records, &[0, 0, 0, 1]),
        ],
    );
    let filters: Vec<_> = (0..9)
        .map(|first: u8| {
            let filters: Vec<_> = (0..8).flat_map(|at| [30 + first * 8 + at, 0]).collect();
            step(SubscribeReader, &[&[1, 0, 7], filters.as_slice()].concat())
        })
        .collect();
    write(
        "too-many-filters",
        online,
        &[&filters.concat(), &records(1, 2)],
    );
    write(
        "load-tests",
        online | SANDBOX,
        &[
            &step(SubscribeReader, &[1, 1, 2, 1, 0, 8, 1, 0, 0]),
            &step(Publish, &[0, 0, 1, 0, 0, 1, b'x']),
            &step(Stored, &[0]),
            &records(2, 1),
            &records(2, 5),
            &step(Publish, &[0, 0, 1, 15, 0, 1, b'x']),
        ],
    );
    for (name, outcome) in [("stored", 0), ("refused", 0x80)] {
        write(
            &format!("load-tests-by-mqtt-3-1-1-{name}"),
            READERS,
            &[
                &step(ConnectReader, &[1]),
                &step(VerdictReader, &[1]),
                &step(Admitted, &[]),
                &step(SubscribeReader, &[1, 0, 2, 1, 0, 11, 0, 0, 0]),
                &step(Publish, &[0, 0, 1, 0, 0, 1, b'x']),
                &step(Stored, &[outcome]),
                &step(Publish, &[0, 0, 1, 15, 0, 1, b'x']),
            ],
        );
    }
    for (name, twists) in [("never", 1), ("later", 0xff)] {
        write(
            &format!("disconnected-to-be-kept-{name}"),
            online,
            &[
                &subscribe,
                &records(2, 0),
                &step(Disconnect, &[twists]),
                &again(&[2]),
                &records(2, 0),
            ],
        );
    }
    write(
        "asks-for-what-it-may-not-until-it-is-enough",
        online,
        &[
            &step(SubscribeReader, &[1, 0, 0, 11, 0]),
            &step(SubscribeReader, &[1, 0, 0, 12, 0]),
            &step(SubscribeReader, &[1, 1, 1, 0, 0, 13, 0]),
            &again(&[2]),
            &records(2, 0),
        ],
    );
}

fn step(step: Step, arguments: &[u8]) -> Vec<u8> {
    [&[step as u8], arguments].concat()
}

fn write(name: &str, manner: u8, steps: &[&[u8]]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/session");
    fs::create_dir_all(&folder).expect("make the corpus folder");
    fs::write(
        folder.join(name),
        [&[manner], steps.concat().as_slice()].concat(),
    )
    .expect("write a seed");
}
