//! A session, the client at its other end, and the shell around it: all that the fuzzer moves. The model looks on.

use std::time::{Duration, Instant};

use protocol::{
    mqtt::{DecodeError, ReasonCode, ServerPacket, Version, decode_server, frame},
    time::Now,
    token::Grant,
};

use crate::{
    client,
    core::{
        gate::{
            Effect, Kept, Message, OUTPUT_BYTES_MAX, Offer, Outcome, STRANGER_WAIT, Session, Start,
            Ticket,
        },
        reader::Reader,
    },
    model::{Cause, Model},
    world::{self, NONCE, UNIX, Who},
};

/// What may ever wait to be sent, in bytes: what stops the gate from reading and encoding, the packet that crosses that line, and
/// the answers to what had been read by then.
const WAITING_BYTES_MAX: usize = OUTPUT_BYTES_MAX + 2 * 64 * 1024;

/// Bytes of records that the shell hands over at once.
const BATCH_BYTES_MAX: usize = 128 * 1024;
/// The oldest record that the journal keeps.
const OLDEST: u64 = 5;
/// Where the journal ends at first.
const END: u64 = 200;

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
    readers: bool,
    journal: Journal,
    /// What the shell keeps of the reader's session, and what the model knows of it.
    kept: Option<Kept>,
}

/// The journal, as far as the reader's place in it goes.
#[derive(Debug)]
struct Journal {
    end: u64,
    /// The next record that is read for it.
    position: Option<u64>,
    /// Where it is to begin; told as soon as the call is over, as by the shell.
    asked: Option<Start>,
}

/// What the session asked for and was not told.
#[derive(Debug, Default)]
struct Questions {
    token: bool,
    reader: bool,
    admit: bool,
    resume: bool,
    attach: bool,
    stores: Vec<Ticket>,
}

impl Link {
    /// A connection of which nothing has come.
    pub fn new(who: Who, stride: usize, is_willing: bool, readers: bool) -> Self {
        let mono = Instant::now();
        let until = mono + STRANGER_WAIT;
        Self {
            who,
            now: Now { mono, unix: UNIX },
            session: Session::new(offer(readers), until),
            model: Model::new(who, until, readers),
            buffer: Vec::new(),
            seen: 0,
            stride,
            is_willing,
            questions: Questions::default(),
            readers,
            journal: Journal {
                end: END,
                position: None,
                asked: None,
            },
            kept: None,
        }
    }

    /// The one topic that the client may publish to, or one of those of load tests.
    pub fn own_topic(&self) -> &'static str {
        if self.model.is_reader() {
            "bench/a/b"
        } else {
            self.who.own_topic()
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

    /// Through the whole handshake of a reader, which must work.
    pub fn handshake_reader(&mut self, connect: &[u8], rights: u8) {
        self.hear(connect);
        self.answer_reader(Ok(world::reader(rights, self.now.unix)));
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
        self.answer_reader(Ok(world::reader(0, self.now.unix)));
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
            let kept = self.kept.take().filter(|_| self.questions.resume);
            self.settle(&Cause::Admitted(kept.clone()), |session, now| {
                session.admitted(kept, now);
            });
        }
    }

    /// The verdict on the reader's token, if it is asked for.
    pub fn answer_reader(&mut self, verdict: Result<Reader, ReasonCode>) {
        if std::mem::take(&mut self.questions.reader) {
            self.settle(&Cause::VerdictReader(verdict.clone()), |session, _| {
                session.checked_reader(verdict, NONCE);
            });
        }
    }

    /// Where its journal is read from.
    fn follow(&mut self) {
        while let Some(from) = self.journal.asked.take() {
            let offset = match from {
                Start::Now => self.journal.end,
                Start::Oldest => OLDEST,
                Start::Offset(offset) => offset.min(self.journal.end),
            };
            self.journal.position = Some(offset);
            self.settle(&Cause::Following(offset), |session, _| {
                session.following(offset);
            });
        }
    }

    /// A batch of records, as many as there is room for, each `step` behind the last.
    pub fn records(&mut self, count: usize, topic: &'static str, step: u64, length: usize) {
        let room = self.session.room();
        let bytes_max = BATCH_BYTES_MAX / length.max(1);
        for _ in 0..count.min(room).min(bytes_max.max(1)) {
            let Some(position) = self.journal.position else {
                return;
            };
            let offset = position + step;
            let payload = vec![7; length];
            self.advance(offset + 1);
            self.settle(
                &Cause::Record(offset, topic, payload.clone()),
                |session, _| {
                    session.record(Message {
                        offset,
                        incarnation: 1,
                        topic,
                        payload: &payload,
                        is_purged: false,
});
                },
            );
        }
    }

    /// So many records are gone.
    pub fn miss(&mut self, count: u8) {
        if let Some(from) = self.journal.position {
            let to = from + u64::from(count) + 1;
            self.advance(to);
            self.settle(&Cause::Missed(from, to), |session, _| {
                session.missed(from, to, protocol::hole::Causes::UNKNOWN, None)
            });
        }
    }

    /// So many records are of others.
    pub fn look(&mut self, count: u8) {
        if let Some(from) = self.journal.position {
            let to = from + u64::from(count);
            self.advance(to);
            self.settle(&Cause::LookedAt(to), |session, _| session.looked_at(to));
        }
    }

    fn advance(&mut self, to: u64) {
        self.journal.position = Some(to);
        self.journal.end = self.journal.end.max(to);
    }

    /// The link breaks if it is up, and another takes its place; what is kept of a reader's session waits for it.
    pub fn reconnect(&mut self) {
        self.end(ReasonCode::SESSION_TAKEN_OVER);
        if self.model.is_reader() && self.model.was_online() {
            self.kept = self.session.keep().map(|(kept, _)| kept);
        }
        let until = self.now.mono + STRANGER_WAIT;
        self.session = Session::new(offer(self.readers), until);
        self.model = Model::again(&self.model, until);
        self.buffer.clear();
        self.seen = 0;
        self.questions = Questions::default();
        (self.journal.position, self.journal.asked) = (None, None);
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
            self.model.after_the_end(&self.session);
            return;
        }
        self.model.before(cause, self.now);
        call(&mut self.session, self.now);
        while let Some(effect) = self.session.poll_effect() {
            self.model.effect(&effect, cause);
            match effect {
                Effect::CheckToken(_) => self.questions.token = true,
                Effect::CheckReader(_) => self.questions.reader = true,
                Effect::Admit { resume, .. } => {
                    (self.questions.admit, self.questions.resume) = (true, resume);
                }
                Effect::Store { ticket, .. } => self.questions.stores.push(ticket),
                Effect::Subscribe(_) => self.questions.attach = true,
                Effect::Follow { from, .. } => self.journal.asked = Some(from),
                Effect::Unsubscribe | Effect::Keep | Effect::Skip(_) | Effect::Refused(_) | Effect::Close(_) => {}
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
        self.follow();
    }
}

const fn offer(readers: bool) -> Offer {
    Offer {
        durability: "fsync",
        readers,
    }
}
