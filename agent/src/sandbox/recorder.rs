//! Turns what the command writes into signed batches. Pure: time and bytes come in, sealed batches go out.
//!
//! Lines become events. A line that is longer than an event, or that waits too long for its end, is split, and every part but the
//! last says that it goes on; so the bytes can be put together again exactly. What the content policy holds back never leaves this
//! file: only sizes do.

use std::{collections::VecDeque, time::Duration};

use protocol::{
    command::Content,
    event::{Event, FLAG_CONTINUED, Kind},
    key::{Sandbox, Secret},
    limits::{
        BATCH_EVENTS_MAX, BATCH_EVENTS_NORMAL, BATCH_WAIT_MS_MAX, EVENT_DATA_BYTES_MAX,
        HEARTBEAT_WAIT_MS,
    },
    stream::Writer,
    time::UnixMillis,
};
use serde::Serialize;
use serde_json::Value;

/// How long part of a line waits for the rest.
const LINE_WAIT: Duration = Duration::from_millis(BATCH_WAIT_MS_MAX);
/// How long a batch waits for more events.
const BATCH_WAIT: Duration = Duration::from_millis(BATCH_WAIT_MS_MAX);
/// How long the stream may be silent. A heartbeat is an empty batch: it says that all was well until then, and nothing was held back.
const HEARTBEAT_WAIT: Duration = Duration::from_millis(HEARTBEAT_WAIT_MS);

/// A sealed batch and its number.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Counts up by one.
    pub number: u64,
    /// The MQTT payload.
    pub payload: Vec<u8>,
}

/// The recorder of one sandbox.
#[derive(Debug)]
pub struct Recorder {
    writer: Writer,
    content: Content,
    stdout: Line,
    stderr: Line,
    progress: Line,
    /// When the first event of the batch under way was added.
    batch_since: Option<UnixMillis>,
    /// When the last batch was sealed; none before the first event.
    sealed_at: Option<UnixMillis>,
    /// Whether batches wait to be sent, so that bigger ones are better.
    pressed: bool,
    /// Whether there is room for more; without it events are counted, not kept.
    full: bool,
    lost: Lost,
    number: u64,
    sealed: VecDeque<Sealed>,
}

/// A line under way.
#[derive(Debug, Default)]
struct Line {
    bytes: Vec<u8>,
    since: Option<UnixMillis>,
}

/// What was dropped for want of room.
#[derive(Debug, Default)]
struct Lost {
    events: u64,
    bytes: u64,
}

/// What a progress object may show under `metadata`.
#[derive(Serialize)]
struct Counters {
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

impl Recorder {
    /// A recorder that writes with `writer` and lets through what `content` allows.
    #[must_use]
    pub fn new(writer: Writer, content: Content) -> Self {
        Self {
            writer,
            content,
            stdout: Line::default(),
            stderr: Line::default(),
            progress: Line::default(),
            batch_since: None,
            sealed_at: None,
            pressed: false,
            full: false,
            lost: Lost::default(),
            number: 0,
            sealed: VecDeque::new(),
        }
    }

    /// The sandbox's key, to prove possession of.
    #[must_use]
    pub fn key(&self) -> &Secret<Sandbox> {
        self.writer.key()
    }

    /// The next sealed batch.
    pub fn take(&mut self) -> Option<Sealed> {
        self.sealed.pop_front()
    }

    /// Says whether batches wait to be sent (`pressed`), and whether there is no room for more (`full`).
    pub fn press(&mut self, pressed: bool, full: bool) {
        self.pressed = pressed;
        self.full = full;
    }

    /// The command was started.
    pub fn started(&mut self, now: UnixMillis) {
        self.add(now, Kind::Started, 0, 0, 0, b"");
    }

    /// The command wrote `bytes` to its standard output, standard error or progress descriptor.
    pub fn wrote(&mut self, kind: Kind, bytes: &[u8], now: UnixMillis) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(end);
            self.extend(kind, line, now);
            self.end_line(kind, 0, now);
            rest = after.get(1..).unwrap_or_default();
        }
        self.extend(kind, rest, now);
    }

    /// The command ended; nothing more will be written. Seals the closing batch.
    pub fn exited(&mut self, code: u64, now: UnixMillis) {
        for kind in [Kind::Stdout, Kind::Stderr, Kind::Progress] {
            if !self.line(kind).bytes.is_empty() {
                self.end_line(kind, FLAG_CONTINUED, now);
            }
        }
        // The last word is worth a little more than the limit.
        self.full = false;
        self.tell_lost(now);
        self.add(now, Kind::Exited, 0, 0, code, b"");
        self.seal(now, true);
    }

    /// Flushes what has waited long enough.
    pub fn tick(&mut self, now: UnixMillis) {
        for kind in [Kind::Stdout, Kind::Stderr] {
            if self
                .line(kind)
                .since
                .is_some_and(|since| now.since(since) >= LINE_WAIT)
            {
                self.end_line(kind, FLAG_CONTINUED, now);
            }
        }
        self.tell_lost(now);
        if self
            .batch_since
            .is_some_and(|since| now.since(since) >= BATCH_WAIT)
            || self.heartbeat_due().is_some_and(|due| now >= due)
        {
            self.seal(now, false);
        }
    }

    /// When the silence has lasted long enough. While earlier batches wait to be sent there is nothing to add to them.
    fn heartbeat_due(&self) -> Option<UnixMillis> {
        let is_silent = self.batch_since.is_none() && !self.pressed && !self.full;
        self.sealed_at
            .filter(|_| is_silent)
            .map(|at| at.plus(HEARTBEAT_WAIT))
    }

    /// When [`Recorder::tick`] has something to do.
    #[must_use]
    pub fn timeout(&self) -> Option<UnixMillis> {
        let lines =
            [&self.stdout, &self.stderr].map(|line| line.since.map(|since| since.plus(LINE_WAIT)));
        let batch = self.batch_since.map(|since| since.plus(BATCH_WAIT));
        lines
            .into_iter()
            .chain([batch, self.heartbeat_due()])
            .flatten()
            .min()
    }

    fn line(&mut self, kind: Kind) -> &mut Line {
        match kind {
            Kind::Stderr => &mut self.stderr,
            Kind::Progress => &mut self.progress,
            Kind::Stdout | Kind::Started | Kind::Exited | Kind::Gap | Kind::Other(_) => {
                &mut self.stdout
            }
        }
    }

    fn extend(&mut self, kind: Kind, bytes: &[u8], now: UnixMillis) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let line = self.line(kind);
            let room = EVENT_DATA_BYTES_MAX.saturating_sub(line.bytes.len());
            let (part, after) = rest.split_at(rest.len().min(room));
            line.bytes.extend_from_slice(part);
            line.since.get_or_insert(now);
            if !after.is_empty() {
                self.end_line(kind, FLAG_CONTINUED, now);
            }
            rest = after;
        }
    }

    /// Makes an event of the line under way. `flags` says whether the line itself goes on.
    fn end_line(&mut self, kind: Kind, flags: u64, now: UnixMillis) {
        let line = self.line(kind);
        let since = line.since.take().unwrap_or(now);
        let bytes = std::mem::take(&mut line.bytes);
        let newline = u64::from(flags & FLAG_CONTINUED == 0);
        let size = bytes.len() as u64 + newline;
        let counters;
        let data: &[u8] = match (self.content, kind) {
            (Content::Full, _) => &bytes,
            // Masking is not built yet, so `redacted` shows what `metadata` does: less, never more.
            (Content::Metadata | Content::Redacted, Kind::Progress) => {
                counters = counters_of(&bytes);
                &counters
            }
            (Content::Metadata | Content::Redacted, _) => b"",
        };
        self.add(since, kind, flags, size, 0, data);
        // Keep the line's buffer: it is used again at once.
        let mut bytes = bytes;
        bytes.clear();
        self.line(kind).bytes = bytes;
    }

    fn add(
        &mut self,
        time: UnixMillis,
        kind: Kind,
        flags: u64,
        size: u64,
        value: u64,
        data: &[u8],
    ) {
        if self.full {
            self.lost.events += 1;
            self.lost.bytes += size;
            return;
        }
        self.tell_lost(time);
        let event = Event {
            time,
            kind,
            flags,
            size,
            value,
            data,
        };
        if !self.writer.push(&event) {
            self.seal(time, false);
            let added = self.writer.push(&event);
            debug_assert!(added, "an event fits an empty batch");
        }
        self.batch_since.get_or_insert(time);
        let enough = if self.pressed {
            BATCH_EVENTS_MAX
        } else {
            BATCH_EVENTS_NORMAL
        };
        if self.writer.pending() >= enough {
            self.seal(time, false);
        }
    }

    /// Once there is room again, says what was dropped.
    fn tell_lost(&mut self, now: UnixMillis) {
        if self.full || self.lost.events == 0 {
            return;
        }
        let lost = std::mem::take(&mut self.lost);
        self.add(now, Kind::Gap, 0, lost.bytes, lost.events, b"");
    }

    fn seal(&mut self, now: UnixMillis, closing: bool) {
        let payload = self.writer.seal(now, closing);
        self.sealed.push_back(Sealed {
            number: self.number,
            payload,
        });
        self.number += 1;
        self.batch_since = None;
        self.sealed_at = (!closing).then_some(now);
    }
}

/// `done` and `total` of a progress object, each if it is a count; nothing else of it.
fn counters_of(line: &[u8]) -> Vec<u8> {
    let Ok(Value::Object(said)) = serde_json::from_slice(line) else {
        return Vec::new();
    };
    let count = |name: &str| said.get(name).and_then(Value::as_u64);
    let counters = Counters {
        done: count("done"),
        total: count("total"),
    };
    serde_json::to_vec(&counters).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use protocol::{
        id::{HostId, SandboxId},
        stream::{Verdict, Verifier, stream_id},
    };
    use zeroize::Zeroizing;

    use super::*;

    const T0: UnixMillis = UnixMillis(1_800_000_000_000);

    struct World {
        recorder: Recorder,
        verifier: Verifier,
    }

    /// An event, owned: kind, flags, size, value, data.
    type Seen = (Kind, u64, u64, u64, Vec<u8>);

    fn world(content: Content) -> World {
        let (host, sandbox) = (
            HostId::new("edge-1").unwrap(),
            SandboxId::new("build-7").unwrap(),
        );
        let key = Secret::from_seed(&Zeroizing::new([7; 32]));
        let verifier = Verifier::new(&host, &sandbox, key.public());
        let writer = Writer::new(key, stream_id(&host, &sandbox), [1; 8]);
        World {
            recorder: Recorder::new(writer, content),
            verifier,
        }
    }

    impl World {
        fn sealed(&mut self) -> Vec<Seen> {
            let mut seen = Vec::new();
            while let Some(batch) = self.recorder.take() {
                let Verdict::Next(_, events) = self.verifier.check(&batch.payload).unwrap() else {
                    panic!("a batch came twice");
                };
                seen.extend(events.map(|e| (e.kind, e.flags, e.size, e.value, e.data.to_vec())));
            }
            seen
        }
    }

    /// The bytes that the events of a kind stand for.
    fn joined(events: &[Seen], kind: Kind) -> Vec<u8> {
        let mut out = Vec::new();
        for (_, flags, _, _, data) in events.iter().filter(|event| event.0 == kind) {
            out.extend_from_slice(data);
            if flags & FLAG_CONTINUED == 0 {
                out.push(b'\n');
            }
        }
        out
    }

    #[test]
    fn output_can_be_put_together_again_byte_for_byte_however_it_was_cut() {
        let long = vec![b'x'; 3 * EVENT_DATA_BYTES_MAX + 5];
        let binary: Vec<u8> = (0..=255).collect();
        for text in [
            &b"one\ntwo\n"[..],
            b"no end",
            b"\n\n",
            b"",
            &long,
            &binary,
            b"a\r\nb",
        ] {
            for cut in [1, 7, 4096, usize::MAX] {
                let mut world = world(Content::Full);
                for part in text.chunks(cut.min(text.len().max(1))) {
                    world.recorder.wrote(Kind::Stdout, part, T0);
                }
                world.recorder.exited(0, T0);
                assert_eq!(joined(&world.sealed(), Kind::Stdout), text);
            }
        }
    }

    #[test]
    fn under_metadata_no_byte_of_the_output_leaves() {
        for content in [Content::Metadata, Content::Redacted] {
            let mut world = world(content);
            world.recorder.wrote(Kind::Stdout, b"secret\n", T0);
            world.recorder.wrote(Kind::Stderr, b"secret", T0);
            world.recorder.wrote(
                Kind::Progress,
                b"{\"done\":3,\"total\":9,\"file\":\"secret\"}\n",
                T0,
            );
            world
                .recorder
                .wrote(Kind::Progress, b"{\"done\":\"secret\"}\nsecret\n", T0);
            world.recorder.exited(3, T0);
            let events = world.sealed();
            assert!(
                events
                    .iter()
                    .all(|event| !event.4.windows(6).any(|w| w == b"secret"))
            );
            assert_eq!(events[0], (Kind::Stdout, 0, 7, 0, vec![]));
            assert_eq!(events[1].4, b"{\"done\":3,\"total\":9}");
            assert_eq!(
                events.last().map(|event| (event.0, event.3)),
                Some((Kind::Exited, 3))
            );
        }
    }

    #[test]
    fn a_batch_is_sealed_when_it_is_full_or_has_waited_and_not_before() {
        let mut world = world(Content::Full);
        for _ in 0..BATCH_EVENTS_NORMAL - 1 {
            world.recorder.wrote(Kind::Stdout, b"x\n", T0);
        }
        assert!(world.recorder.take().is_none());
        assert_eq!(world.recorder.timeout(), Some(T0.plus(BATCH_WAIT)));
        world.recorder.tick(UnixMillis(T0.0 + 99));
        assert!(world.recorder.take().is_none());
        world.recorder.wrote(Kind::Stdout, b"x\n", T0);
        assert_eq!(world.sealed().len(), BATCH_EVENTS_NORMAL);
        world.recorder.wrote(Kind::Stdout, b"x\n", T0);
        world.recorder.tick(UnixMillis(T0.0 + 100));
        assert_eq!(world.sealed().len(), 1);
    }

    #[test]
    fn a_silent_stream_has_a_heartbeat_once_a_minute_until_it_ends() {
        let mut world = world(Content::Full);
        assert_eq!(world.recorder.timeout(), None, "nothing was said yet");
        world.recorder.started(T0);
        let sealed = T0.plus(BATCH_WAIT);
        world.recorder.tick(sealed);
        assert_eq!(world.sealed().len(), 1);
        let due = sealed.plus(HEARTBEAT_WAIT);
        assert_eq!(world.recorder.timeout(), Some(due));
        world.recorder.tick(UnixMillis(due.0 - 1));
        assert!(world.recorder.take().is_none());
        world.recorder.tick(due);
        let heartbeat = world.recorder.take().unwrap();
        let Ok(Verdict::Next(head, events)) = world.verifier.check(&heartbeat.payload) else {
            panic!("it follows")
        };
        assert_eq!((head.count, events.count(), head.closing), (0, 0, None));
        assert_eq!(world.recorder.timeout(), Some(due.plus(HEARTBEAT_WAIT)));
        world.recorder.exited(0, due);
        assert_eq!(
            world.recorder.timeout(),
            None,
            "nothing comes after the last"
        );
    }

    #[test]
    fn while_batches_wait_there_is_no_heartbeat() {
        let mut world = world(Content::Full);
        world.recorder.started(T0);
        world.recorder.tick(T0.plus(BATCH_WAIT));
        for (pressed, full) in [(true, false), (false, true)] {
            world.recorder.press(pressed, full);
            assert_eq!(world.recorder.timeout(), None);
        }
        world.recorder.press(false, false);
        assert!(world.recorder.timeout().is_some());
    }

    #[test]
    fn of_a_progress_object_each_count_is_shown_and_nothing_else() {
        for (said, shown) in [
            (
                r#"{"done":3,"total":9,"what":"secret"}"#,
                r#"{"done":3,"total":9}"#,
            ),
            (r#"{"done":3,"total":"secret"}"#, r#"{"done":3}"#),
            (r#"{"done":-3,"total":9}"#, r#"{"total":9}"#),
            (r#"{"done":1.5}"#, "{}"),
            ("secret", ""),
            ("[1,2]", ""),
        ] {
            assert_eq!(counters_of(said.as_bytes()), shown.as_bytes(), "{said}");
        }
    }

    #[test]
    fn a_prompt_without_a_newline_is_seen_within_two_waits() {
        let mut world = world(Content::Full);
        world.recorder.wrote(Kind::Stdout, b"password? ", T0);
        world.recorder.tick(UnixMillis(T0.0 + 100));
        world.recorder.tick(UnixMillis(T0.0 + 200));
        assert_eq!(
            world.sealed(),
            [(Kind::Stdout, FLAG_CONTINUED, 10, 0, b"password? ".to_vec())]
        );
    }

    #[test]
    fn what_there_was_no_room_for_is_said() {
        let mut world = world(Content::Full);
        world.recorder.press(true, true);
        world.recorder.wrote(Kind::Stdout, b"lost\nlost\n", T0);
        world.recorder.press(true, false);
        world.recorder.wrote(Kind::Stdout, b"kept\n", T0);
        world.recorder.press(true, true);
        world.recorder.wrote(Kind::Stdout, b"lost\n", T0);
        world.recorder.exited(0, T0);
        let events = world.sealed();
        let kinds: Vec<_> = events
            .iter()
            .map(|event| (event.0, event.3, event.2))
            .collect();
        assert_eq!(
            kinds,
            [
                (Kind::Gap, 2, 10),
                (Kind::Stdout, 0, 5),
                (Kind::Gap, 1, 5),
                (Kind::Exited, 0, 0)
            ]
        );
    }
}
