//! The shim's way to the broker: the egress socket, a CONNECT, TLS, and the session inside. Non-blocking; polled by the one loop.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::AsFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use protocol::{
    key::{Sandbox, Secret},
    possession::Nonce,
    time::UnixMillis,
    token,
};
use rustls::{ClientConnection, pki_types::ServerName};

use super::session::{Outcome, Session};
use crate::shell::tls::Tls;

/// The first wait after a link is gone; it doubles up to [`RETRY_MAX`], with jitter over all of it.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How long tunnel, handshake and authentication may take together.
const UP_WAIT_MAX: Duration = Duration::from_secs(20);
/// The longest answer of the egress process, in bytes.
const ANSWER_BYTES_MAX: usize = 512;

/// What does not change from one attempt to the next.
#[derive(Debug)]
pub struct Route {
    /// The egress socket.
    pub socket: PathBuf,
    /// The broker's authority, `name:port`.
    pub broker: String,
    /// Trusts the broker's CA, and nothing else.
    pub tls: Tls,
    /// `<host>/<sandbox>`.
    pub client_id: String,
    /// The sandbox's event topic.
    pub topic: String,
    /// Where the operator puts the token.
    pub token: PathBuf,
}

#[derive(Debug)]
enum Stage {
    /// Not before `until`.
    Waiting { until: UnixMillis },
    /// The egress process was asked.
    Tunnel {
        socket: UnixStream,
        answer: Vec<u8>,
        until: UnixMillis,
    },
    /// Bytes flow; `until` is gone once the session is up.
    Open {
        socket: UnixStream,
        tls: Box<ClientConnection>,
        session: Box<Session>,
        until: Option<UnixMillis>,
    },
}

/// The link, through all its attempts.
#[derive(Debug)]
pub struct Link {
    route: Route,
    stage: Stage,
    retry: Duration,
}

impl Link {
    /// A link that dials at once.
    #[must_use]
    pub fn new(route: Route, now: UnixMillis) -> Self {
        Self {
            route,
            stage: Stage::Waiting { until: now },
            retry: RETRY_MIN,
        }
    }

    /// The descriptor to poll, and whether to wait for room to write.
    #[must_use]
    pub fn poll(&self) -> Option<(impl AsFd + '_, bool)> {
        match &self.stage {
            Stage::Waiting { .. } => None,
            Stage::Tunnel { socket, .. } => Some((socket, false)),
            Stage::Open {
                socket,
                tls,
                session,
                ..
            } => Some((socket, tls.wants_write() || !session.out().is_empty())),
        }
    }

    /// The live session.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Open { session, .. } if session.is_up() => Some(session),
            Stage::Open { .. } | Stage::Waiting { .. } | Stage::Tunnel { .. } => None,
        }
    }

    /// When [`Link::drive`] has something to do though nothing came.
    #[must_use]
    pub fn timeout(&self) -> UnixMillis {
        match &self.stage {
            Stage::Waiting { until } | Stage::Tunnel { until, .. } => *until,
            Stage::Open { session, until, .. } => until.unwrap_or_else(|| session.timeout()),
        }
    }

    /// There is a fresh token: present it, or dial with it.
    pub fn token_changed(&mut self, now: UnixMillis) {
        let token = std::fs::read(&self.route.token).unwrap_or_default();
        match &mut self.stage {
            Stage::Waiting { until } => *until = now,
            Stage::Open { session, .. } => session.renew(&token),
            Stage::Tunnel { .. } => {}
        }
    }

    /// Moves as far as it goes without waiting. `random` feeds nonces and jitter.
    pub fn drive(&mut self, key: &Secret<Sandbox>, random: u64, now: UnixMillis) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        match self.step(key, random, now, &mut outcomes) {
            Ok(()) => {}
            Err(error) => {
                if self.session().is_some() {
                    outcomes.push(Outcome::Down(protocol::mqtt::ReasonCode::UNSPECIFIED_ERROR));
                }
                super::say(&format!("link to the broker: {error:#}"));
                self.wait(random, now);
            }
        }
        if outcomes.contains(&Outcome::Up) {
            self.retry = RETRY_MIN;
        }
        outcomes
    }

    fn step(
        &mut self,
        key: &Secret<Sandbox>,
        random: u64,
        now: UnixMillis,
        outcomes: &mut Vec<Outcome>,
    ) -> anyhow::Result<()> {
        if let Stage::Waiting { until } = &self.stage {
            if now < *until {
                return Ok(());
            }
            self.stage = self.dial(now)?;
        }
        if let Stage::Tunnel {
            socket,
            answer,
            until,
        } = &mut self.stage
        {
            anyhow::ensure!(now < *until, "the egress process does not answer");
            if !read_answer(socket, answer)? {
                return Ok(());
            }
            let socket = socket.try_clone().context("keep the socket")?;
            self.stage = self.open(socket, now)?;
        }
        if let Stage::Open {
            socket,
            tls,
            session,
            until,
        } = &mut self.stage
        {
            anyhow::ensure!(
                until.is_none_or(|until| now < until),
                "the broker does not answer"
            );
            anyhow::ensure!(session.tick(now), "the broker has gone quiet");
            exchange(
                socket,
                (&self.route.tls, tls),
                session,
                key,
                &random.to_be_bytes(),
                now,
                outcomes,
            )?;
            if session.is_up() {
                *until = None;
            }
            let down = outcomes.iter().find_map(|outcome| match outcome {
                Outcome::Down(reason) => Some(*reason),
                Outcome::Up | Outcome::Acknowledged(_) | Outcome::Rejected(..) => None,
            });
            if let Some(reason) = down {
                anyhow::bail!("the broker ended it: {}", reason.name());
            }
        }
        Ok(())
    }

    /// Ends the connection in order, as far as that goes without waiting.
    pub fn close(&mut self, now: UnixMillis) {
        if let Stage::Open {
            socket,
            tls,
            session,
            ..
        } = &mut self.stage
        {
            session.close();
            let _ = write(socket, tls, session, now);
            tls.send_close_notify();
            let _ = tls.write_tls(socket);
        }
    }

    fn dial(&self, now: UnixMillis) -> anyhow::Result<Stage> {
        let token = std::fs::read(&self.route.token).context("read the token")?;
        let ends_s = token::peek(&token).context("read the token")?.expires_s;
        // Nobody presents a token it knows to be expired: the operator will write a fresh one.
        anyhow::ensure!(
            now.seconds() < ends_s,
            "the token has expired, and there is no fresh one yet"
        );
        let mut socket =
            UnixStream::connect(&self.route.socket).context("reach the egress process")?;
        let broker = &self.route.broker;
        write!(
            socket,
            "CONNECT {broker} HTTP/1.1\r\nHost: {broker}\r\n\r\n"
        )
        .context("ask the egress process")?;
        socket
            .set_nonblocking(true)
            .context("ask the egress process")?;
        Ok(Stage::Tunnel {
            socket,
            answer: Vec::new(),
            until: now.plus(UP_WAIT_MAX),
        })
    }

    fn open(&self, socket: UnixStream, now: UnixMillis) -> anyhow::Result<Stage> {
        let name = self
            .route
            .broker
            .rsplit_once(':')
            .map_or("", |(name, _)| name);
        let name = name
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(name).context("read the broker's name")?;
        let tls = ClientConnection::new(Arc::clone(self.route.tls.config()), name)
            .context("start TLS")?;
        let token = std::fs::read(&self.route.token).context("read the token")?;
        let session = Session::new(&self.route.client_id, self.route.topic.clone(), &token, now);
        Ok(Stage::Open {
            socket,
            tls: Box::new(tls),
            session: Box::new(session),
            until: Some(now.plus(UP_WAIT_MAX)),
        })
    }

    /// Waits for a random part of a span that doubles: sandboxes that were cut together must not come back together.
    fn wait(&mut self, random: u64, now: UnixMillis) {
        let span = u64::try_from(self.retry.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        self.stage = Stage::Waiting {
            until: now.plus(Duration::from_millis(1 + random % span)),
        };
        self.retry = (self.retry * 2).min(RETRY_MAX);
    }
}

/// Reads the egress process's answer; `true` once it is whole and says yes.
fn read_answer(socket: &mut UnixStream, answer: &mut Vec<u8>) -> anyhow::Result<bool> {
    while !answer.ends_with(b"\r\n\r\n") {
        anyhow::ensure!(
            answer.len() < ANSWER_BYTES_MAX,
            "the egress process answers too much"
        );
        let mut byte = [0];
        match socket.read(&mut byte) {
            Ok(0) => anyhow::bail!("the egress process closed the door"),
            Ok(_) => answer.extend_from_slice(&byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("hear the egress process"),
        }
    }
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(true);
    }
    let word = String::from_utf8_lossy(answer);
    let word = word
        .lines()
        .next()
        .and_then(|line| line.get(9..))
        .unwrap_or("no answer")
        .to_owned();
    anyhow::bail!("the egress process refuses: {word}")
}

/// Reads what is there, lets the session answer, writes what fits.
fn exchange(
    socket: &mut UnixStream,
    (trust, tls): (&Tls, &mut ClientConnection),
    session: &mut Session,
    key: &Secret<Sandbox>,
    nonce: &Nonce,
    now: UnixMillis,
    outcomes: &mut Vec<Outcome>,
) -> anyhow::Result<()> {
    let mut plain = [0; 4096];
    loop {
        let ended = match tls.read_tls(socket) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("read"),
        };
        tls.process_new_packets()
            .map_err(|error| anyhow::anyhow!("TLS: {}", trust.explain(&error)))?;
        loop {
            match tls.reader().read(&mut plain) {
                Ok(0) => break,
                Ok(count) => outcomes.extend(session.feed(
                    plain.get(..count).unwrap_or_default(),
                    key,
                    nonce,
                    now,
                )),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("read"),
            }
        }
        anyhow::ensure!(!ended, "the connection ended");
    }
    write(socket, tls, session, now)
}

fn write(
    socket: &mut UnixStream,
    tls: &mut ClientConnection,
    session: &mut Session,
    now: UnixMillis,
) -> anyhow::Result<()> {
    loop {
        if !tls.is_handshaking() && !session.out().is_empty() {
            // It takes what fits its buffer, and nothing when that is full: then the socket is the bottleneck.
            let count = tls.writer().write(session.out()).context("write")?;
            session.written(count, now);
        }
        if !tls.wants_write() {
            return Ok(());
        }
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).context("write"),
        }
    }
}
