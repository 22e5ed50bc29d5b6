//! A session, the client at its other end, and the shell around it: all that the fuzzer moves. The model looks on.

use std::time::{Duration, Instant};

use protocol::{
    mqtt::{DecodeError, ReasonCode, ServerPacket, Version, decode_server, frame},
    time::Now,
    token::Grant,
};

use crate::{
    client,
    core::gate::{Effect, OUTPUT_BYTES_MAX, Offer, Outcome, STRANGER_WAIT, Session, Ticket},
    model::{Cause, Model},
    world::{self, NONCE, UNIX, Who},
};

/// What may ever wait to be sent, in bytes: what stops the gate from reading and encoding, the packet that crosses that line, and
/// the answers to what had been read by then.
const WAITING_BYTES_MAX: usize = OUTPUT_BYTES_MAX + 2 * 64 * 1024;

/// Readers are turned off: what a stranger may do is tried here.
const OFFER: Offer = Offer {
    durability: "fsync",
    readers: false,
};

/// See the module.
pub struct Link {
    /// Who connects.
    pub who: Who,
    /// Now.
    pub now: Now,
    session: Session,
    model: Model,
    /// Came from the client and is not taken yet.
    buffer: Vec<u8>,
    /// So much of the session's output was looked at.
    seen: usize,
    /// How many bytes of the client's come at a time; 0 for all.
    stride: usize,
    /// Whether questions are answered at once, and well.
    is_willing: bool,
    questions: Questions,
}

/// What the session asked for and was not told.
#[derive(Debug, Default)]
struct Questions {
    token: bool,
    admit: bool,
    attach: bool,
    stores: Vec<Ticket>,
}

impl Link {
    /// A connection of which nothing has come.
    pub fn new(who: Who, stride: usize, is_willing: bool) -> Self {
        let mono = Instant::now();
        let until = mono + STRANGER_WAIT;
        Self {
            who,
            now: Now { mono, unix: UNIX },
            session: Session::new(OFFER, until),
            model: Model::new(who, until),
            buffer: Vec::new(),
            seen: 0,
            stride,
            is_willing,
            questions: Questions::default(),
        }
    }

    /// The version that the client speaks.
    pub fn version(&self) -> Version {
        self.model.version()
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.session.is_closed()
    }

    /// Through the whole handshake, which must work.
    pub fn handshake(&mut self, connect: &[u8]) {
        self.hear(connect);
        self.answer_token(Ok(world::grant(self.who, 0, self.now.unix)));
        self.hear(&client::proof(0));
        self.admit();
        assert!(self.session.is_online(), "who is welcome comes in");
    }

    /// Bytes of the client's arrive.
    pub fn hear(&mut self, bytes: &[u8]) {
        let stride = if self.stride == 0 {
            bytes.len().max(1)
        } else {
            self.stride
        };
        for part in bytes.chunks(stride) {
            self.buffer.extend_from_slice(part);
            self.take_packets();
        }
    }

    /// Takes every whole packet, as the shell does.
    fn take_packets(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = buffer.as_slice();
        while self.session.wants_packets() && !rest.is_empty() {
            match frame(rest, self.session.packet_bytes_max()) {
                Ok(Some(found)) => {
                    rest = &rest[found.total_bytes()..];
                    let decoded = self.model.decode(&found);
                    let kind = found.kind();
                    self.settle(&Cause::Packet(kind, decoded), |session, now| {
                        session.receive(&found, now);
                    });
                }
                Ok(None) => break,
                Err(error) => self.unreadable(error, rest[0]),
            }
            if self.is_willing {
                self.oblige();
            }
        }
        if !self.is_over() {
            self.buffer = rest.to_vec();
            // What waits to be read is less than one packet, or the shell reads no more.
            assert!(
                self.buffer.len() < self.session.packet_bytes_max()
                    || !self.session.wants_packets()
            );
        }
    }

    fn unreadable(&mut self, error: DecodeError, first_byte: u8) {
        self.settle(&Cause::Unreadable(first_byte), |session, _| {
            session.unreadable(error, first_byte);
        });
    }

    /// Answers every question, well.
    fn oblige(&mut self) {
        self.answer_token(Ok(world::grant(self.who, 0, self.now.unix)));
        self.admit();
        self.attach(Some(vec![b"open".to_vec()]));
        while !self.questions.stores.is_empty() {
            self.store(0, Outcome::Stored);
        }
    }

    /// The verdict on the token, if it is asked for.
    pub fn answer_token(&mut self, verdict: Result<Grant, ReasonCode>) {
        if std::mem::take(&mut self.questions.token) {
            self.settle(&Cause::Verdict(verdict.clone()), |session, _| {
                session.checked(verdict, NONCE);
            });
        }
    }

    /// The older connection is gone, if that is waited for.
    pub fn admit(&mut self) {
        if std::mem::take(&mut self.questions.admit) {
            self.settle(&Cause::Admitted, |session, now| session.admitted(None, now));
        }
    }

    /// The host is attached, or could not be, if that is waited for.
    pub fn attach(&mut self, open: Option<Vec<Vec<u8>>>) {
        if std::mem::take(&mut self.questions.attach) {
            self.settle(&Cause::Attached(open.clone()), |session, _| {
                session.subscribed(open);
            });
        }
    }

    /// What became of one of the payloads that wait, if one does.
    pub fn store(&mut self, which: usize, outcome: Outcome) {
        let stores = &mut self.questions.stores;
        if !stores.is_empty() {
            let ticket = stores.remove(which % stores.len());
            self.settle(&Cause::Stored(ticket, outcome), |session, now| {
                session.stored(ticket, outcome, now.mono);
            });
        }
        self.take_packets();
    }

    /// A command comes.
    pub fn deliver(&mut self, command: Vec<u8>) {
        self.settle(&Cause::Deliver(command.clone()), |session, _| {
            session.deliver(command);
        });
    }

    /// The client reads so much of what was sent to it.
    pub fn flush(&mut self, bytes: usize) {
        let output = self.session.output();
        let bytes = bytes.min(output.len());
        output.drain(..bytes);
        self.seen -= bytes;
        self.settle(&Cause::Flushed, |session, _| session.flushed());
        self.take_packets();
    }

    /// Time passes; `is_noticed` says whether anybody looks at the deadlines.
    pub fn wait(&mut self, duration: Duration, is_noticed: bool) {
        self.now.mono += duration;
        self.now.unix = self.now.unix.plus(duration);
        if is_noticed {
            self.settle(&Cause::Timeout, |session, now| {
                session.handle_timeout(now.mono);
            });
        }
    }

    /// It is ended from outside.
    pub fn end(&mut self, reason: ReasonCode) {
        self.settle(&Cause::End, |session, _| {
            session.end(reason, "ended by the fuzzer");
        });
    }

    /// The identifier of a command that the client has not acknowledged, if there is one.
    pub fn unacknowledged(&self, which: usize) -> Option<u16> {
        self.model.unacknowledged(which)
    }

    /// Whatever the state, it ends by itself: nobody acts any more, but time goes on.
    pub fn outwait(&mut self) {
        let mut left = 4;
        while let Some(deadline) = self.session.poll_timeout() {
            assert!(left > 0, "a state without an end");
            left -= 1;
            self.wait(deadline.saturating_duration_since(self.now.mono), true);
        }
    }

    /// One call, and everything that comes of it.
    fn settle(&mut self, cause: &Cause<'_>, call: impl FnOnce(&mut Session, Now)) {
        if self.is_over() {
            call(&mut self.session, self.now);
            assert_eq!(self.session.poll_effect(), None, "nothing is to be done");
            assert_eq!(self.session.output().len(), self.seen, "nothing is said");
            return;
        }
        self.model.before(cause, self.now);
        call(&mut self.session, self.now);
        while let Some(effect) = self.session.poll_effect() {
            self.model.effect(&effect, cause);
            match effect {
                Effect::CheckToken(_) => self.questions.token = true,
                Effect::Admit { .. } => self.questions.admit = true,
                Effect::Store { ticket, .. } => self.questions.stores.push(ticket),
                Effect::Subscribe(_) => self.questions.attach = true,
                Effect::CheckReader(_) | Effect::Follow { .. } => {
                    panic!("readers are turned off")
                }
                Effect::Unsubscribe | Effect::Skip(_) | Effect::Refused(_) | Effect::Close(_) => {}
            }
        }
        let version = self.version();
        let output = self.session.output();
        assert!(output.len() <= WAITING_BYTES_MAX, "output has a bound");
        while let Some(found) = frame(&output[self.seen..], usize::MAX).expect("our own packets") {
            let bytes = found.total_bytes();
            self.seen += bytes;
            let said = decode_server(&found, version).unwrap_or_else(|error| {
                panic!("{:?} of ours, by {cause:?}: {error}", found.kind())
            });
            self.model.said(&said, bytes, cause, self.now);
            if let ServerPacket::Disconnect(_) = said {
                assert_eq!(self.seen, output.len(), "a DISCONNECT is the last packet");
            }
        }
        assert_eq!(self.seen, output.len(), "packets are written whole");
        let waiting = output.len();
        self.model.after(&self.session, waiting, cause, self.now);
    }
}
