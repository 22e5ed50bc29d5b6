//! A whole stream: the input writes batches, forges heads with the right key, and delivers all of it in any order, changed or not.
//! After each delivery the verifier must stand where the state of `SPEC.md` 8.7 stands.
#![no_main]

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor,
    event::{Event, Kind},
    stream::{self, Batch, Head, StreamError, Verdict, Verifier, Writer, stream_id},
    time::UnixMillis,
};
use protocol_fuzz::{
    edit::edited,
    input::Input,
    quiet,
    seal::seal,
    world::{self, HOST, NOW, SANDBOX},
};

/// Steps of one input. Each may cost a signature.
const STEPS_MAX: usize = 24;
/// What a forgetful verifier remembers.
const HEADS_FEW: usize = 2;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
});

struct World {
    writer: Writer,
    sealed: Vec<Vec<u8>>,
    verifier: Verifier,
    forgetful: Verifier,
    state: State,
}

impl World {
    fn new() -> Self {
        let stream = stream_id(&world::host(), &world::sandbox());
        let (host, sandbox, key) = (world::host(), world::sandbox(), world::public(SANDBOX));
        Self {
            writer: Writer::new(world::owned(SANDBOX), stream, [2; 8]),
            sealed: Vec::new(),
            verifier: Verifier::new(&host, &sandbox, key),
            forgetful: Verifier::remembering(&host, &sandbox, key, HEADS_FEW),
            state: State::new(stream),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 8 {
            0 => self.push(input),
            1 => self.seal(false),
            2 => self.seal(true),
            3 => self.forge(input),
            4 => {
                self.seal(false);
                self.deliver(&self.sealed[self.sealed.len() - 1].clone());
            }
            5 | 6 => {
                if let Some(payload) = self.pick(input) {
                    self.deliver(&payload);
                }
            }
            _ => {
                if let Some(payload) = self.pick(input) {
                    self.deliver(&edited(&payload, Input::new(input.chunk())));
                }
            }
        }
    }

    fn push(&mut self, input: &mut Input<'_>) {
        let kind = Kind::from_label(input.byte().into()).expect("kinds are open");
        let data = input.chunk();
        let event = Event {
            time: UnixMillis(input.u16().into()),
            kind,
            flags: 0,
            size: data.len() as u64,
            value: 0,
            data,
        };
        let before = self.writer.pending();
        let taken = self.writer.push(&event);
        assert_eq!(self.writer.pending(), before + usize::from(taken));
    }

    fn seal(&mut self, closing: bool) {
        let payload = self.writer.seal(NOW, closing);
        assert_eq!(self.writer.pending(), 0);
        assert!(
            Batch::parse(&payload).is_ok(),
            "what our writer writes our gate takes"
        );
        self.sealed.push(payload);
    }

    /// Another head by the right key, or nearly: a batch of this stream with some of its numbers changed, or one that goes on from
    /// where the verifier stands.
    fn forge(&mut self, input: &mut Input<'_>) {
        let mut head = self.state.next_head(input.byte() & 1 == 1);
        let body = if input.byte() & 1 == 0 {
            vec![0x80]
        } else {
            input.chunk().to_vec()
        };
        head.body_hash = (*blake3::hash(&body).as_bytes()).into();
        head.body_bytes = body.len() as u64;
        let changes = input.byte();
        let mut change = |bit: u8, number: &mut u64| {
            if changes & bit != 0 {
                *number = number.wrapping_add(u64::from(input.byte())).wrapping_sub(2);
            }
        };
        change(1, &mut head.epoch);
        change(2, &mut head.batch);
        change(4, &mut head.first);
        change(8, &mut head.count);
        change(16, &mut head.body_bytes);
        if changes & 32 != 0 {
            head.previous[0] ^= 1;
        }
        if changes & 64 != 0 {
            head.stream[15] ^= 1;
        }
        head.closing = (changes & 128 != 0).then_some(true);
        head.token = (head.batch == 0).then(|| [3; 8].into());
        let seed = if input.byte() == 1 { HOST } else { SANDBOX };
        let signed = seal(seed, stream::TYP, &cbor::to_vec(&head), b"", None);
        self.sealed.push([signed, body].concat());
    }

    fn pick(&self, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let at = usize::from(input.byte());
        self.sealed.get(at % self.sealed.len().max(1)).cloned()
    }

    fn deliver(&mut self, payload: &[u8]) {
        let is_forgotten = self.state.is_forgotten(payload);
        let expected = self.state.judge(payload);
        self.check(payload, expected, |world| &mut world.verifier);
        // A head that is forgotten is a fork, or comes after the end.
        let expected = if is_forgotten {
            Expected::Bad
        } else {
            expected
        };
        self.check(payload, expected, |world| &mut world.forgetful);
    }

    fn check(
        &mut self,
        payload: &[u8],
        expected: Expected,
        verifier: impl Fn(&mut Self) -> &mut Verifier,
    ) {
        let verifier = verifier(self);
        let before = verifier.events();
        match verifier.check(payload) {
            Ok(Verdict::Next(head, events)) => {
                assert_eq!(expected, Expected::Next);
                assert_eq!(events.count() as u64, head.count);
                assert_eq!(verifier.events(), before + head.count);
            }
            Ok(Verdict::Purged(_)) => panic!("a body that is there is read"),
            Ok(Verdict::Again) => assert_eq!(expected, Expected::Again),
            Err(error) => {
                quiet::check::<StreamError>(error);
                assert_eq!(expected, Expected::Bad, "{error}");
            }
        }
        let (events, closed) = (verifier.events(), verifier.is_closed());
        assert_eq!((events, closed), (self.state.events, self.state.closed));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Next,
    Again,
    Bad,
}

/// The state of `SPEC.md` 8.7, by its names.
struct State {
    stream: [u8; 16],
    epoch: u64,
    next: u64,
    events: u64,
    previous: [u8; 32],
    closed: bool,
    seen: Vec<[u8; 32]>,
}

impl State {
    fn new(stream: [u8; 16]) -> Self {
        Self {
            stream,
            epoch: 1,
            next: 0,
            events: 0,
            previous: [0; 32],
            closed: false,
            seen: Vec::new(),
        }
    }

    /// The steps of 8.7. What the head and the body are by themselves is `batch`'s to judge.
    fn judge(&mut self, payload: &[u8]) -> Expected {
        let Ok(batch) = Batch::parse(payload) else {
            return Expected::Bad;
        };
        let hash = batch.head_hash();
        let Batch { head, body, .. } = batch;
        if self.seen.contains(&hash) {
            return Expected::Again;
        }
        let signed = &payload[..payload.len() - body.len()];
        let expected = if head.epoch > self.epoch {
            0
        } else {
            self.next
        };
        let is_good = *head.stream == self.stream
            && !self.closed
            && head.epoch >= self.epoch
            && head.batch == expected
            && head.first == self.events
            && *head.previous == self.previous
            && *blake3::hash(body).as_bytes() == *head.body_hash
            && protocol::event::Events::parse(body, head.count).is_ok()
            && signed == seal(SANDBOX, stream::TYP, &cbor::to_vec(&head), b"", None);
        if !is_good {
            return Expected::Bad;
        }
        self.epoch = head.epoch;
        self.next = head.batch + 1;
        self.events += head.count;
        self.previous = hash;
        self.seen.push(hash);
        self.closed = head.closing == Some(true);
        Expected::Next
    }

    /// Whether this was seen, and by now a verifier that remembers few heads does not know it any more.
    fn is_forgotten(&self, payload: &[u8]) -> bool {
        let forgotten = self.seen.len().saturating_sub(HEADS_FEW);
        let Ok(batch) = Batch::parse(payload) else {
            return false;
        };
        self.seen[..forgotten].contains(&batch.head_hash())
    }

    /// The head that would be next, without events; of the next epoch if the writer started again.
    fn next_head(&self, again: bool) -> Head {
        Head {
            stream: self.stream.into(),
            epoch: self.epoch.saturating_add(again.into()),
            batch: if again { 0 } else { self.next },
            first: self.events,
            count: 0,
            previous: self.previous.into(),
            body_hash: [0; 32].into(),
            body_bytes: 0,
            time: NOW,
            token: None,
            closing: None,
        }
    }
}
