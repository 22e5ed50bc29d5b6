//! The fuzzer's bytes as a story: who connects, and what happens then, step by step.

use std::time::Duration;

use protocol::mqtt::{PINGREQ, ReasonCode};
use protocol_fuzz::input::Input;

use crate::{
    client,
    core::gate::Outcome,
    link::Link,
    world::{self, Who},
};

/// What can happen. Each is one byte of the input, then what it needs. New steps go last: the others keep their numbers, and the
/// corpus its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// Bytes of the client's, as they are.
    Raw,
    /// CONNECT.
    Connect,
    /// The verdict on a token.
    Verdict,
    /// The answer to a challenge.
    Proof,
    /// The older connection is gone.
    Admitted,
    /// PUBLISH.
    Publish,
    /// A payload is stored, or not.
    Stored,
    /// SUBSCRIBE.
    Subscribe,
    /// The host is attached, or not.
    Attached,
    /// A command comes.
    Deliver,
    /// PUBACK.
    PubAck,
    /// Time passes.
    Wait,
    /// The client reads.
    Flush,
    /// AUTH with a fresh token.
    Renew,
    /// PINGREQ.
    Ping,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// DISCONNECT.
    Disconnect,
    /// An end from outside.
    End,
    /// Many publishes of one form.
    Burst,
    /// CONNECT of a reader.
    ConnectReader,
    /// The verdict on a reader's token.
    VerdictReader,
    /// SUBSCRIBE of a reader.
    SubscribeReader,
    /// UNSUBSCRIBE of a reader.
    UnsubscribeReader,
    /// Records of the journal, for a reader.
    Records,
    /// Records of the journal that cannot be read.
    Missed,
    /// The reader's journal was looked at, and nothing was found.
    LookedAt,
    /// The link breaks, if it did not end, and the same reader comes again.
    Reconnect,
}

impl Step {
    /// All, by number.
    pub const ALL: [Self; 27] = [
        Self::Raw,
        Self::Connect,
        Self::Verdict,
        Self::Proof,
        Self::Admitted,
        Self::Publish,
        Self::Stored,
        Self::Subscribe,
        Self::Attached,
        Self::Deliver,
        Self::PubAck,
        Self::Wait,
        Self::Flush,
        Self::Renew,
        Self::Ping,
        Self::Unsubscribe,
        Self::Disconnect,
        Self::End,
        Self::Burst,
        Self::ConnectReader,
        Self::VerdictReader,
        Self::SubscribeReader,
        Self::UnsubscribeReader,
        Self::Records,
        Self::Missed,
        Self::LookedAt,
        Self::Reconnect,
    ];
}

/// First byte of a story: the client is a sandbox, not a host.
pub const SANDBOX: u8 = 1;
/// It begins behind the handshake.
pub const ONLINE: u8 = 2;
/// Whatever the session asks for is done at once.
pub const WILLING: u8 = 4;
/// Readers are let in.
pub const READERS: u8 = 0x80;
/// It is a reader that begins behind its handshake.
pub const READER: u8 = 0x40;

/// How much may happen to a session that has ended. It must not care.
const STEPS_PAST_THE_END_MAX: usize = 4;

/// Plays one story. The rest of its first byte says how the client's bytes are cut.
pub fn play(data: &[u8]) {
    let mut input = Input::new(data);
    let manner = input.byte();
    let who = if manner & SANDBOX == 0 {
        Who::Host
    } else {
        Who::Sandbox
    };
    let stride = usize::from(manner >> 3 & 7);
    let mut link = Link::new(who, stride, manner & WILLING != 0, manner & READERS != 0);
    match (manner & ONLINE != 0, manner & READER != 0) {
        (true, true) if manner & READERS != 0 => {
            // Its session is kept, and whether it is of load tests is for the first bit to say.
            let connect = client::connect_reader(&mut Input::new(&[2]));
            link.handshake_reader(&connect, manner & SANDBOX);
        }
        (true, false) => link.handshake(&client::connect(who, &mut Input::new(&[]))),
        _ => {}
    }
    let mut steps_past_the_end = 0;
    while !input.is_empty() && steps_past_the_end < STEPS_PAST_THE_END_MAX {
        steps_past_the_end += usize::from(link.is_over());
        if let Some(step) = Step::ALL.get(usize::from(input.byte() & 0x1f)) {
            take(*step, &mut link, &mut input);
        }
    }
    link.outwait();
}

fn take(step: Step, link: &mut Link, input: &mut Input<'_>) {
    let (who, version) = (link.who, link.version());
    match step {
        Step::Raw => link.hear(input.chunk()),
        Step::Connect => link.hear(&client::connect(who, input)),
        Step::Verdict => {
            let twists = input.byte();
            let reason = match twists & 0xc0 {
                0x40 => Some(ReasonCode::NOT_AUTHORIZED),
                0x80 => Some(ReasonCode::SERVER_UNAVAILABLE),
                _ => None,
            };
            let grant = world::grant(who, twists, link.now.unix);
            link.answer_token(reason.map_or(Ok(grant), Err));
        }
        Step::Proof => link.hear(&client::proof(input.byte())),
        Step::Admitted => link.admit(),
        Step::Publish => link.hear(&client::publish(link.own_topic(), version, input)),
        Step::Stored => {
            let which = input.byte();
            let outcome = match which >> 6 {
                0 => Outcome::Stored,
                1 => Outcome::Invalid,
                2 => Outcome::Busy,
                _ => Outcome::Failed,
            };
            link.store(usize::from(which & 0x3f), outcome);
        }
        Step::Subscribe => link.hear(&client::subscribe(version, input)),
        Step::Attached => {
            let count = input.byte();
            let open = (0..count & 0x7f).map(|_| command(input)).collect();
            link.attach((count < 0x80).then_some(open));
        }
        Step::Deliver => link.deliver(command(input)),
        Step::PubAck => {
            let number = input.u16();
            let known = link.unacknowledged(number.into());
            let number = if number & 0x8000 == 0 {
                known.unwrap_or(number)
            } else {
                number
            };
            link.hear(&client::puback(version, number));
        }
        Step::Wait => {
            let amount = input.u16();
            let duration = if amount & 0x4000 == 0 {
                Duration::from_millis(u64::from(amount & 0x3fff))
            } else {
                Duration::from_secs(u64::from(amount & 0x3fff) * 4)
            };
            link.wait(duration, amount & 0x8000 == 0);
        }
        Step::Flush => {
            let bytes = input.u16();
            link.flush(if bytes == 0 { usize::MAX } else { bytes.into() });
        }
        Step::Renew => link.hear(&client::renew(input.byte())),
        Step::Ping => link.hear(&PINGREQ),
        Step::Unsubscribe => link.hear(&client::unsubscribe(version, input)),
        Step::Disconnect => link.hear(&client::disconnect(version, input.byte())),
        Step::End => link.end(match input.byte() % 3 {
            0 => ReasonCode::SESSION_TAKEN_OVER,
            1 => ReasonCode::ADMINISTRATIVE_ACTION,
            _ => ReasonCode::SERVER_SHUTTING_DOWN,
        }),
        Step::Burst => burst(link, input),
        Step::ConnectReader => link.hear(&client::connect_reader(input)),
        Step::VerdictReader => {
            let twists = input.byte();
            link.answer_reader(match twists & 0xc0 {
                0x40 => Err(ReasonCode::NOT_AUTHORIZED),
                0x80 => Err(ReasonCode::SERVER_UNAVAILABLE),
                _ => Ok(world::reader(twists, link.now.unix)),
            });
        }
        Step::SubscribeReader => link.hear(&client::subscribe_reader(version, input)),
        Step::UnsubscribeReader => link.hear(&client::unsubscribe_reader(version, input)),
        Step::Records => records(link, input),
        Step::Missed => link.miss(input.byte()),
        Step::LookedAt => link.look(input.byte()),
        Step::Reconnect => link.reconnect(),
    }
}

/// Many publishes that differ by their packet identifier only: what reaches the bounds on their number.
fn burst(link: &mut Link, input: &mut Input<'_>) {
    let (count, twists) = (input.byte(), input.byte());
    for number in 1..=count {
        let publish = [twists, 1, number, 0, 0, 0];
        link.hear(&client::publish(
            link.own_topic(),
            link.version(),
            &mut Input::new(&publish),
        ));
        if link.is_over() {
            return;
        }
    }
}

/// Topics of records.
const RECORDS: [&str; 7] = [
    "v1/edge-1/build-7/events",
    "bench/a",
    "v1/edge-1/reports",
    "v1/edge-2/build-7/events",
    "v1/edge-2/reports",
    "bench/a/b",
    "bench/c",
];

/// Records as one batch: how many, of which topic, how far from the last, and how long.
fn records(link: &mut Link, input: &mut Input<'_>) {
    let (count, which, step, length) = (input.byte(), input.byte(), input.byte(), input.byte());
    let topic = RECORDS[usize::from(which) % RECORDS.len()];
    // A step of 65,535 makes packet identifiers meet.
    let step = match step & 0x80 {
        0 => u64::from(step),
        _ => u64::from(u16::MAX) * u64::from(step & 7) - u64::from(step & 7 != 0),
    };
    link.records(
        usize::from(count & 0x3f) + 1,
        topic,
        step,
        usize::from(length) * 200,
    );
}

/// A command: what it is by a byte, and how long by another, up to what a message may be.
fn command(input: &mut Input<'_>) -> Vec<u8> {
    let (which, length) = (input.byte(), input.byte());
    vec![which; usize::from(length) * 240]
}
