//! Server-sent events as WHATWG HTML has them (§9.2), read strictly: what its parser would pass over in silence is an error here. And the
//! real curl, which brings them.

use std::{
    io::Read,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::world::World;

/// How long the next event may take.
const EVENT_WAIT: Duration = Duration::from_secs(30);

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The last event id, this one's own included.
    pub id: u64,
    /// What it is.
    pub kind: String,
    /// What it says.
    pub data: Value,
}

/// Takes a stream apart.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    id: Option<String>,
    kind: String,
    data: Vec<String>,
    /// The last event id, which is what a client comes back with. Blocks without data move it too.
    pub last_id: String,
    /// Comments, which are for people.
    pub comments: Vec<String>,
    /// How long a client should wait before it comes back.
    pub retry_ms: Option<u64>,
}

impl Parser {
    /// Takes bytes, and gives the events that they complete.
    ///
    /// # Errors
    /// They are no stream of events, or one that a lenient reader alone would take.
    pub fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Event>> {
        let mut events = Vec::new();
        for byte in bytes {
            match byte {
                b'\r' => bail!("a carriage return: ours end lines with a line feed alone"),
                b'\n' => {
                    let line = String::from_utf8(std::mem::take(&mut self.line))?;
                    events.extend(self.line(&line)?);
                }
                other => self.line.push(*other),
            }
        }
        Ok(events)
    }

    /// Whether nothing is left half said.
    #[must_use]
    pub fn is_between_events(&self) -> bool {
        self.line.is_empty() && self.id.is_none() && self.data.is_empty()
    }

    fn line(&mut self, line: &str) -> anyhow::Result<Option<Event>> {
        if line.is_empty() {
            return self.dispatch();
        }
        if let Some(comment) = line.strip_prefix(": ") {
            self.comments.push(comment.to_owned());
            return Ok(None);
        }
        let (field, value) = line.split_once(": ").context("a line without a field")?;
        match field {
            "id" => {
                anyhow::ensure!(self.id.is_none() && !value.contains('\0'), "{line}");
                self.id = Some(value.to_owned());
            }
            "event" => {
                anyhow::ensure!(self.kind.is_empty(), "two kinds: {line}");
                value.clone_into(&mut self.kind);
            }
            "data" => self.data.push(value.to_owned()),
            "retry" => self.retry_ms = Some(value.parse()?),
            other => bail!("a field that is none: {other}"),
        }
        Ok(None)
    }

    fn dispatch(&mut self) -> anyhow::Result<Option<Event>> {
        let (kind, data) = (
            std::mem::take(&mut self.kind),
            std::mem::take(&mut self.data),
        );
        if let Some(id) = self.id.take() {
            self.last_id = id;
        }
        if data.is_empty() {
            anyhow::ensure!(kind.is_empty(), "an event without data is none");
            return Ok(None);
        }
        anyhow::ensure!(data.len() == 1, "data on more than one line");
        Ok(Some(Event {
            id: self.last_id.parse().context("an id that is no offset")?,
            kind,
            data: serde_json::from_str(&data.concat())?,
        }))
    }
}

/// curl, reading a stream.
#[derive(Debug)]
pub struct Curl {
    child: Child,
    pieces: Receiver<Vec<u8>>,
    ready: std::collections::VecDeque<Event>,
    /// What came so far.
    pub parser: Parser,
}

/// curl, as the README has it: the token comes from a file, and never as an argument.
#[must_use]
pub fn curl(world: &World, header: &Path, query: &str, more: &[&str]) -> Command {
    let ca = world.path("broker/keys/ca.crt");
    curl_at(world.port, &ca, header, query, more)
}

fn curl_at(port: u16, ca: &Path, header: &Path, query: &str, more: &[&str]) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["-sSN", "--cacert"])
        .arg(ca)
        .args(["-H", &format!("@{}", header.display())])
        .args(more)
        .arg(format!("https://localhost:{port}/v1/events{query}"))
        .stdin(Stdio::null());
    curl
}

impl Curl {
    /// Begins to read; after the event `last_id`, if there is one.
    ///
    /// # Errors
    /// curl cannot be started.
    pub fn begin(
        world: &World,
        header: &Path,
        query: &str,
        last_id: Option<&str>,
    ) -> anyhow::Result<Self> {
        let ca = world.path("broker/keys/ca.crt");
        Self::begin_at(world.port, &ca, header, query, last_id)
    }

    /// The same, of a world that is elsewhere.
    ///
    /// # Errors
    /// curl cannot be started.
    pub fn begin_at(
        port: u16,
        ca: &Path,
        header: &Path,
        query: &str,
        last_id: Option<&str>,
    ) -> anyhow::Result<Self> {
        let last = last_id.map(|id| format!("Last-Event-ID: {id}"));
        let mut more = vec!["-H", "Accept: text/event-stream"];
        more.extend(last.iter().flat_map(|last| ["-H", last]));
        let mut child = curl_at(port, ca, header, query, &more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start curl")?;
        let mut stdout = child.stdout.take().context("its output")?;
        let (sender, pieces) = channel();
        std::thread::spawn(move || {
            let mut piece = [0; 16 * 1024];
            while let Ok(count @ 1..) = stdout.read(&mut piece) {
                let piece = piece.get(..count).unwrap_or_default().to_vec();
                if sender.send(piece).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            pieces,
            ready: std::collections::VecDeque::new(),
            parser: Parser::default(),
        })
    }

    /// The next event; none at the end.
    ///
    /// # Errors
    /// What comes is no stream of events, or nothing comes in time.
    pub fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if !self.next_piece()? {
                return Ok(None);
            }
        }
    }

    /// Waits for something to come, an event or not. `false`: it has ended.
    ///
    /// # Errors
    /// As [`Self::next_event`].
    pub fn next_piece(&mut self) -> anyhow::Result<bool> {
        match self.pieces.recv_timeout(EVENT_WAIT) {
            Ok(piece) => {
                self.ready.extend(self.parser.push(&piece)?);
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => bail!("nothing came in time"),
        }
    }

    /// So many events.
    ///
    /// # Errors
    /// As [`Self::next_event`], or there are not as many.
    pub fn take(&mut self, count: usize) -> anyhow::Result<Vec<Event>> {
        (0..count)
            .map(|_| self.next_event()?.context("the stream ended"))
            .collect()
    }

    /// Reads to the end: what was still to come, what curl exits with, and what it says.
    ///
    /// # Errors
    /// As [`Self::next_event`].
    pub fn end(mut self) -> anyhow::Result<(Vec<Event>, Option<i32>, Parser)> {
        let mut events = Vec::new();
        while let Some(event) = self.next_event()? {
            events.push(event);
        }
        let code = self.child.wait()?.code();
        Ok((events, code, std::mem::take(&mut self.parser)))
    }
}

impl Drop for Curl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
