//! The operator at work: the one loop between what `core` decides and what `shell` does.
//!
//! The loop never waits for anything but news. It runs the session's effects, takes commands in, keeps the outbox moving, and starts
//! one task for each sandbox. Small files are written here, in the order that matters: a command before its acknowledgement, a
//! report before it is sent.

mod commands;
mod engine;
mod reports;
mod said;
mod sandbox;
mod session;
mod site;
mod start;
mod status;
mod trust;
mod witness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_lite::future::or;
use protocol::id::{CommandId, SandboxId};
use smol::channel::{Receiver, Sender, bounded};
use smol::{Task, Timer};

use crate::config::Config;
use crate::core::dispatcher::Dispatchers;
use crate::core::host::{Down, Effect, Event, Host};
use crate::core::intake::Memory;
use crate::core::outbox::Outbox;
use crate::core::reconcile::{Action, Recorded, Seen, reconcile};
use crate::shell::mqtt::{AckHandle, DownReason, Link, LinkEvent};
use crate::shell::server_time::random;
use crate::shell::tokio::{block_on, spawn};
use reports::Unstored;
use said::Said;
use sandbox::{Begin, CONTROL_MAX, Control};
use site::{MAIL_MAX, Mail, Site};
use status::Standing;

/// How often the host says that it is alive, and looks after its memory.
const STATUS_EVERY: Duration = Duration::from_secs(60);

/// How often a host that its witness stopped looks whether its owner accepts what stopped it: somebody waits for that.
const ACCEPTED_EVERY: Duration = Duration::from_secs(1);

/// How long the end of the program waits for the link to close.
const LEAVE_WAIT_MAX: Duration = Duration::from_secs(2);

/// What the broker calls its time in CONNACK, in milliseconds.
const SERVER_TIME: &str = "server-time";

/// Runs the operator until SIGTERM or SIGINT. Sandboxes keep running when it ends.
///
/// # Errors
/// If it cannot start, or cannot be enrolled.
pub fn run(config: &Config) -> anyhow::Result<()> {
    start::protect_memory();
    let signal = start::signal_pipe()?;
    let (mail, letters) = bounded(MAIL_MAX);
    let (look, looks) = bounded(1);
    let site = Arc::new(start::open(config, mail, look)?);
    let watch = spawn(engine::watch(Arc::clone(&site), looks));
    let drive = Drive::new(site, letters, watch)?;
    block_on(drive.run(signal)).context("run the operator")?
}

/// A sandbox's task, and whom its end will answer.
#[derive(Debug)]
struct Attendant {
    control: Sender<Control>,
    /// Stop commands that are settled when it is gone.
    stops: Vec<CommandId>,
    _task: Task<()>,
}

/// What woke the loop.
enum Input {
    Link(LinkEvent),
    Mail(Mail),
    Timeout,
    Signal,
}

/// The loop and what only it touches.
struct Drive {
    site: Arc<Site>,
    letters: Receiver<Mail>,
    host: Host,
    link: Option<(u64, Link)>,
    outbox: Outbox,
    memory: Memory,
    /// Whom this host obeys.
    dispatchers: Dispatchers,
    attendants: BTreeMap<SandboxId, Attendant>,
    /// Containers that are being swept.
    sweeping: BTreeSet<String>,
    /// Outcomes that the disk did not take yet.
    unstored: VecDeque<Unstored>,
    /// Commands that were not acknowledged yet, for want of room or disk: as many as the broker may send before that.
    deferred: VecDeque<(Vec<u8>, AckHandle)>,
    /// Why they were put off.
    said_deferred: Said,
    /// Why a statement about dispatchers changed nothing.
    said_statement: Said,
    /// Why the link went down last.
    said: Said,
    /// How the operator does, for its owner.
    standing: Standing,
    /// Something of that changed.
    is_status_due: bool,
    /// Why that could not be written.
    said_status: Said,
    /// Why what the owner accepted could not be taken up.
    said_accepted: Said,
    status_at: Instant,
    /// Something changed that the next status shall say at once.
    status_owed: bool,
    /// What the last status said of the engine.
    said_engine: bool,
    retry_at: Option<Instant>,
    /// A number for this start of the operator.
    start: [u8; 8],
    ignored: u64,
    /// What was found on disk was compared with the engine once.
    is_settled: bool,
    tasks: Vec<Task<()>>,
    exchange: Option<Task<()>>,
}

impl Drive {
    fn new(site: Arc<Site>, letters: Receiver<Mail>, watch: Task<()>) -> anyhow::Result<Self> {
        let (owed, next) = site.store.load_outbox()?;
        let commands = site.store.load_commands()?;
        let memory = Memory::new(
            commands
                .iter()
                .map(|record| (record.id, record.remembered())),
        );
        let now = site.time.now();
        let (enrolled, token) = {
            let identity = site.identity();
            let token = identity.token_life().filter(|_| site.time.is_fixed());
            (identity.current.is_some(), token)
        };
        let host = Host::new(enrolled, token, now, draw());
        let mut drive = Self {
            outbox: Outbox::new(owed.iter().copied(), next),
            memory,
            dispatchers: start::open_dispatchers(&site)?,
            host,
            link: None,
            attendants: BTreeMap::new(),
            sweeping: BTreeSet::new(),
            unstored: VecDeque::new(),
            deferred: VecDeque::new(),
            said_deferred: Said::default(),
            said_statement: Said::default(),
            said: Said::default(),
            standing: Standing::new(now.unix, site.time.skew_ms()),
            is_status_due: true,
            said_status: Said::default(),
            said_accepted: Said::default(),
            status_at: now.mono + STATUS_EVERY,
            status_owed: false,
            said_engine: false,
            retry_at: None,
            start: random()?,
            ignored: 0,
            is_settled: false,
            tasks: vec![watch],
            exchange: None,
            letters,
            site,
        };
        drive.settle_from_outbox(&owed)?;
        drive.mark_told();
        Ok(drive)
    }

    /// The loop.
    async fn run(mut self, signal: smol::Async<UnixStream>) -> anyhow::Result<()> {
        let generation = self.site.identity().generation();
        tracing::info!(host = %self.site.host, broker = self.site.broker, generation, "operator started");
        loop {
            while let Some(effect) = self.host.poll_effect() {
                self.run_effect(effect)?;
            }
            self.take_accepted();
            self.write_status();
            match self.next(&signal).await {
                Input::Link(event) => self.on_link(event),
                Input::Mail(mail) => {
                    self.is_status_due = true;
                    self.on_mail(mail)?;
                }
                Input::Timeout => self.on_timeout(),
                Input::Signal => return self.leave().await,
            }
        }
    }

    async fn next(&self, signal: &smol::Async<UnixStream>) -> Input {
        let link = async {
            match &self.link {
                Some((_, link)) => Input::Link(link.next().await),
                None => smol::future::pending().await,
            }
        };
        let mail = async {
            match self.letters.recv().await {
                Ok(mail) => Input::Mail(mail),
                Err(_) => smol::future::pending().await,
            }
        };
        let timeout = async {
            Timer::at(self.timeout()).await;
            Input::Timeout
        };
        let signal = async {
            match signal.readable().await {
                Ok(()) | Err(_) => Input::Signal,
            }
        };
        or(signal, or(link, or(mail, timeout))).await
    }

    fn timeout(&self) -> Instant {
        let now = self.site.time.now().mono;
        let outbox = self.outbox.poll_timeout(now);
        let is_stopped = self.site.witness().stop.is_some();
        [
            Some(self.host.poll_timeout()),
            is_stopped.then_some(now + ACCEPTED_EVERY),
            Some(self.status_at),
            outbox,
            self.retry_at,
        ]
        .into_iter()
        .flatten()
        .fold(now + STATUS_EVERY, Instant::min)
    }

    fn tell(&mut self, event: Event) {
        self.host.handle(event, self.site.time.now(), draw());
    }

    fn run_effect(&mut self, effect: Effect) -> anyhow::Result<()> {
        match effect {
            Effect::Prepare { attempt } => {
                let event = session::prepare(&self.site, attempt);
                self.tell(event);
            }
            Effect::Challenge { attempt } => {
                self.exchange = Some(session::challenge(Arc::clone(&self.site), attempt));
            }
            Effect::Exchange {
                attempt,
                nonce,
                show,
            } => {
                let site = Arc::clone(&self.site);
                self.exchange = Some(session::redeem(site, attempt, nonce, show));
            }
            Effect::Adopt {
                attempt,
                token,
                generation,
            } => {
                let event = session::adopt(&self.site, attempt, token, generation);
                self.tell(event);
            }
            Effect::Remint => {
                for attendant in self.attendants.values() {
                    // Full means that it has enough to do, and mints on its own timer.
                    let _ = attendant.control.try_send(Control::Remint);
                }
            }
            Effect::Connect { attempt } => {
                self.link = Some((attempt, session::connect(&self.site)));
            }
            Effect::Present { attempt } => self.present(attempt),
            Effect::Close { attempt } => {
                if let Some((number, link)) = &self.link
                    && *number == attempt
                {
                    link.close();
                }
            }
            Effect::GiveUp(refusal) => {
                self.site.store.remove_identity()?;
                bail!(
                    "enrol host {}: the broker refused: {refusal}: {}",
                    self.site.host,
                    session::remedy(refusal, &self.site.host)
                );
            }
        }
        Ok(())
    }

    fn present(&mut self, attempt: u64) {
        let Some((number, link)) = &self.link else {
            return;
        };
        let identity = self.site.identity();
        if let (true, Some(current)) = (*number == attempt, &identity.current)
            && let Err(error) = link.present(&current.token)
        {
            // The session's deadline ends the link, and the next one begins with the fresh token.
            tracing::warn!("present the fresh token: {error}");
        }
    }

    fn on_link(&mut self, event: LinkEvent) {
        let Some((attempt, _)) = &self.link else {
            return;
        };
        let attempt = *attempt;
        match event {
            LinkEvent::Up(session) => {
                let time = session
                    .user_properties
                    .iter()
                    .find(|(name, _)| name == SERVER_TIME);
                if let Some(Ok(time)) = time.map(|(_, value)| value.parse()) {
                    self.site.time.learn(protocol::time::UnixMillis(time));
                }
            }
            LinkEvent::Subscribed => {
                let now = self.site.time.now().unix;
                self.standing.skew_ms = self.site.time.skew_ms();
                self.standing.turned(Ok(()), now);
                self.is_status_due = true;
                tracing::info!(skew_ms = self.standing.skew_ms, "connected");
                self.said.clear();
                self.tell(Event::LinkUp { attempt });
                self.outbox.link_lost();
                // What changed while nobody listened is looked at, and the host says so.
                self.site.look_at_engine();
                self.status_owed = true;
            }
            LinkEvent::Message { payload, ack, .. } => {
                self.take_command(payload, ack);
            }
            LinkEvent::Acked { seq } => self.on_acked(seq),
            LinkEvent::PublishRefused { seq, code } => self.on_refused(seq, code),
            LinkEvent::Renewed => self.tell(Event::Renewed { attempt }),
            LinkEvent::Down(why) => {
                self.link = None;
                self.outbox.link_lost();
                // The broker offers them again on the next link.
                self.deferred.clear();
                let now = self.site.time.now().unix;
                self.standing.turned(Err(why.to_string()), now);
                self.is_status_due = true;
                if why != DownReason::Closed {
                    let told = session::why_down(&why, &self.site.host);
                    self.said.warn("not connected", told);
                }
                self.tell(Event::LinkDown {
                    attempt,
                    why: down(&why),
                });
            }
        }
        self.pump();
    }

    fn on_mail(&mut self, mail: Mail) -> anyhow::Result<()> {
        match mail {
            Mail::Session(event) => self.tell(event),
            Mail::Report { news, class, done } => self.on_report(Unstored {
                news: *news,
                class,
                done,
            }),
            Mail::Listed(found) => {
                let seen: Vec<Seen> = found.iter().map(engine::seen).collect();
                self.reconcile(&seen);
                self.status_owed |= !self.said_engine;
            }
            Mail::EngineSilent => self.status_owed = true,
            Mail::Gone(sandbox) => self.on_gone(&sandbox),
            Mail::Fatal(error) => return Err(error),
        }
        self.pump();
        Ok(())
    }

    fn on_timeout(&mut self) {
        let now = self.site.time.now();
        self.host.handle_timeout(now, draw());
        if self.retry_at.is_some_and(|at| now.mono >= at) {
            self.store_again();
            self.take_deferred();
        }
        if now.mono >= self.status_at {
            self.is_status_due = true;
            self.status_at = now.mono + STATUS_EVERY;
            self.forget_commands(now.unix);
            self.status_owed = true;
        }
        self.pump();
    }

    /// Compares what is written down with what the engine shows, and does what follows.
    fn reconcile(&mut self, seen: &[Seen]) {
        let recorded: BTreeMap<SandboxId, Recorded> = self
            .site
            .records()
            .values()
            .map(|record| {
                let recorded = Recorded {
                    command: record.command,
                    stage: record.stage(),
                    attended: self.attendants.contains_key(&record.sandbox),
                };
                (record.sandbox.clone(), recorded)
            })
            .collect();
        self.sweeping
            .retain(|container| seen.iter().any(|s| s.container == *container));
        for action in reconcile(&recorded, seen) {
            match action {
                Action::Sweep { container, sandbox } => {
                    let is_known = recorded.contains_key(&sandbox);
                    let command = seen
                        .iter()
                        .find(|s| s.container == container)
                        .map(|s| s.command);
                    self.sweep(container, sandbox, command.filter(|_| !is_known));
                }
                Action::Relaunch { sandbox } => self.relaunch(&sandbox),
                Action::Adopt { sandbox, container } => {
                    tracing::info!(%sandbox, "sandbox adopted");
                    self.attend(&sandbox, Begin::Watch { container });
                }
                Action::Finish { sandbox, container } => {
                    self.attend(&sandbox, Begin::Finish { container });
                }
                Action::Lose { sandbox } => self.attend(&sandbox, Begin::Lose),
            }
        }
        if !self.is_settled {
            self.is_settled = true;
            self.take_up_commands();
        }
    }

    /// Starts the task of a sandbox that has a record.
    fn attend(&mut self, sandbox: &SandboxId, begin: Begin) {
        let Some(record) = self.site.records().get(sandbox).cloned() else {
            return;
        };
        let (control, orders) = bounded(CONTROL_MAX);
        let task = spawn(sandbox::attend(
            Arc::clone(&self.site),
            record,
            begin,
            orders,
        ));
        let attendant = Attendant {
            control,
            stops: Vec::new(),
            _task: task,
        };
        self.attendants.insert(sandbox.clone(), attendant);
    }

    /// Leaves sandboxes running, and the link cleanly.
    async fn leave(mut self) -> anyhow::Result<()> {
        tracing::info!(
            sandboxes = self.attendants.len(),
            "operator ends; sandboxes keep running"
        );
        self.tell(Event::Stop);
        while let Some(effect) = self.host.poll_effect() {
            self.run_effect(effect)?;
        }
        if let Some((_, link)) = &self.link {
            let closed = async { while !matches!(link.next().await, LinkEvent::Down(_)) {} };
            let give_up = async {
                Timer::after(LEAVE_WAIT_MAX).await;
            };
            or(closed, give_up).await;
        }
        self.save_time();
        Ok(())
    }

    /// The broker's time is kept for the next start. Best effort: without it that start asks the broker.
    fn save_time(&self) {
        let mut identity = self.site.identity();
        if identity.current.is_some() {
            identity.fix = self.site.time.fix();
            if let Err(error) = self.site.store.save_identity(&identity) {
                tracing::warn!("{error:#}");
            }
        }
    }
}

/// Why a link ended, as far as the session needs to know.
fn down(why: &DownReason) -> Down {
    match why {
        DownReason::Refused { code } | DownReason::Disconnected { code } => Down::Code(*code),
        DownReason::Closed => Down::Closed,
        DownReason::Network(_)
        | DownReason::Tls(_)
        | DownReason::Timeout(_)
        | DownReason::Protocol(_)
        | DownReason::Local(_) => Down::Lost,
    }
}

/// A uniform random number; the longest wait if the kernel has none.
fn draw() -> u64 {
    random().map_or(u64::MAX, u64::from_le_bytes)
}
