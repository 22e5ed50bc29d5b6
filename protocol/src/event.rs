//! Events: what a sandbox says of its work. A batch's body is a CBOR array of them.
//!
//! An event is an array of six: `[time, kind, flags, size, value, data]`. They are read straight from the body, borrowed, with nothing
//! allocated; lengths and integers must be in their shortest form, as everywhere.

use crate::{
    cbor::head::{self, Reader},
    limits::{BATCH_EVENTS_MAX, EVENT_DATA_BYTES_MAX},
    time::UnixMillis,
};

int_word! {
    /// What an event tells.
    pub open enum Kind {
        /// The command was started.
        1 => Started = "started",
        /// A line, or part of one, of its standard output.
        2 => Stdout = "stdout",
        /// A line, or part of one, of its standard error.
        3 => Stderr = "stderr",
        /// Progress that it reported: a JSON object.
        4 => Progress = "progress",
        /// It ended; `value` is the exit code.
        5 => Exited = "exited",
        /// Events were dropped because the spool was full; `value` counts them, `size` their bytes.
        6 => Gap = "gap",
    }
}

/// Flag: the line goes on in the next event of its kind.
pub const FLAG_CONTINUED: u64 = 1;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When, by the sandbox's clock.
    pub time: UnixMillis,
    /// What.
    pub kind: Kind,
    /// [`FLAG_CONTINUED`] or none.
    pub flags: u64,
    /// Bytes that the command wrote, whatever the content policy lets through.
    pub size: u64,
    /// A number that depends on the kind.
    pub value: u64,
    /// What the content policy lets through.
    pub data: &'a [u8],
}

impl Event<'_> {
    /// Appends the encoding to a body under way.
    pub fn encode(&self, out: &mut Vec<u8>) {
        head::put_array(out, 6);
        head::put_uint(out, self.time.0);
        head::put_uint(out, self.kind.label());
        head::put_uint(out, self.flags);
        head::put_uint(out, self.size);
        head::put_uint(out, self.value);
        head::put_bytes(out, self.data);
    }
}

/// The body is not a list of events, or not as many as its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not the list of events that its head announces")]
pub struct BadBody;

/// The events of a body, checked whole before the first is handed out.
#[derive(Clone, Copy, Debug)]
pub struct Events<'a> {
    encoded: &'a [u8],
    left: u64,
}

impl<'a> Events<'a> {
    /// Checks a whole body that announces `count` events.
    ///
    /// # Errors
    /// [`BadBody`].
    pub fn parse(body: &'a [u8], count: u64) -> Result<Self, BadBody> {
        if count > BATCH_EVENTS_MAX as u64 {
            return Err(BadBody);
        }
        let mut reader = Reader::new(body);
        if reader.array() != Some(count) {
            return Err(BadBody);
        }
        let events = Self {
            encoded: reader.rest(),
            left: count,
        };
        for _ in 0..count {
            read(&mut reader).ok_or(BadBody)?;
        }
        if reader.rest().is_empty() {
            Ok(events)
        } else {
            Err(BadBody)
        }
    }
}

impl<'a> Iterator for Events<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(self.encoded);
        let event = read(&mut reader)?;
        self.encoded = reader.rest();
        Some(event)
    }
}

fn read<'a>(reader: &mut Reader<'a>) -> Option<Event<'a>> {
    if reader.array()? != 6 {
        return None;
    }
    let time = UnixMillis(reader.uint()?);
    let event = Event {
        time,
        kind: Kind::from_label(reader.uint()?)?,
        flags: reader.uint()?,
        size: reader.uint()?,
        value: reader.uint()?,
        data: reader.bytes()?,
    };
    (event.data.len() <= EVENT_DATA_BYTES_MAX).then_some(event)
}

/// The head of a body of `count` events.
pub(crate) fn body_head(count: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(3);
    head::put_array(&mut out, count);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(events: &[Event<'_>]) -> Vec<u8> {
        let mut out = body_head(events.len());
        events.iter().for_each(|event| event.encode(&mut out));
        out
    }

    const LINE: Event<'_> = Event {
        time: UnixMillis(1_800_000_000_000),
        kind: Kind::Stdout,
        flags: FLAG_CONTINUED,
        size: 5,
        value: 0,
        data: b"hello",
    };

    #[test]
    fn events_round_trip() {
        let events = [
            LINE,
            Event {
                kind: Kind::Exited,
                value: 3,
                data: b"",
                ..LINE
            },
        ];
        let bytes = body(&events);
        let read: Vec<_> = Events::parse(&bytes, 2).unwrap().collect();
        assert_eq!(read, events);
        assert_eq!(Events::parse(&body(&[]), 0).unwrap().count(), 0);
    }

    #[test]
    fn a_body_that_is_not_what_its_head_says_is_refused_whole() {
        let good = body(&[LINE]);
        assert!(Events::parse(&good, 2).is_err());
        assert!(Events::parse(&[&good[..], &[0]].concat(), 1).is_err());
        for length in 0..good.len() {
            assert!(Events::parse(&good[..length], 1).is_err());
        }
        let long = vec![0; EVENT_DATA_BYTES_MAX + 1];
        assert!(
            Events::parse(
                &body(&[Event {
                    data: &long,
                    ..LINE
                }]),
                1
            )
            .is_err()
        );
        assert!(Events::parse(&body(&[LINE; 257]), 257).is_err());
        let text_for_bytes: Vec<u8> = good
            .iter()
            .map(|b| if *b == 0x45 { 0x65 } else { *b })
            .collect();
        assert!(Events::parse(&text_for_bytes, 1).is_err());
    }
}
