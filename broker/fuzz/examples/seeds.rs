//! Writes the seed corpus: `cargo run --example seeds`, here, after a step has changed.

use std::{fs, path::Path};

use broker_fuzz::play::{
    ONLINE, SANDBOX,
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
