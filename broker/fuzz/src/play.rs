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
}

impl Step {
    /// All, by number.
    pub const ALL: [Self; 19] = [
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
    ];
}

/// First byte of a story: the client is a sandbox, not a host.
pub const SANDBOX: u8 = 1;
/// It begins behind the handshake.
pub const ONLINE: u8 = 2;
/// Whatever the session asks for is done at once.
pub const WILLING: u8 = 4;

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
    let mut link = Link::new(who, usize::from(manner >> 3), manner & WILLING != 0);
    if manner & ONLINE != 0 {
        link.handshake(&client::connect(who, &mut Input::new(&[])));
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
        Step::Publish => link.hear(&client::publish(who, version, input)),
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
    }
}

/// Many publishes that differ by their packet identifier only: what reaches the bounds on their number.
fn burst(link: &mut Link, input: &mut Input<'_>) {
    let (count, twists) = (input.byte(), input.byte());
    for number in 1..=count {
        let publish = [twists, 1, number, 0, 0, 0];
        link.hear(&client::publish(
            link.who,
            link.version(),
            &mut Input::new(&publish),
        ));
        if link.is_over() {
            return;
        }
    }
}

/// A command: what it is by a byte, and how long by another, up to what a message may be.
fn command(input: &mut Input<'_>) -> Vec<u8> {
    let (which, length) = (input.byte(), input.byte());
    vec![which; usize::from(length) * 240]
}
