//! `outhaul run`: launch a sandbox, follow it, and end as it ends.

use std::time::Duration;

use anyhow::{Context as _, bail};
use protocol::{
    command::{Content, Launch, Limits, Order, Stop},
    event::Kind,
    id::{HostId, IsolationKey, SandboxId, SourceName},
    key::{Dispatcher, Secret},
    limits::LEEWAY_S,
    report::{News, Refused, State},
};
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::{
    Context, api,
    follow::{Follower, Query},
    order::{self, Sent},
    output::Form,
    render, units,
    verify::{Line, Start, What},
    watch::{Phase, Watch, reason_text, verdict},
};
use crate::shell::clock;

/// How long after a sandbox's end its last output may arrive: its host forwards what was left unsent.
pub(super) const TAIL_WAIT: Duration = Duration::from_secs(10);
/// How long to wait, again and again, for a sandbox that its host says it is making (pulling an image takes its time).
const CREATING_WAIT: Duration = Duration::from_secs(15);
/// How long after a command's end its host's answer may still arrive.
const ANSWER_WAIT: Duration = Duration::from_secs(LEEWAY_S);
/// Between the request to end and the end, where a sandbox is stopped by Ctrl-C.
const STOP_GRACE_S: u64 = 10;
/// How long the command that stops it is valid: it is meant now.
const STOP_LIFE: Duration = Duration::from_secs(10 * 60);
/// What a shell says of a program that ended by Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The host to run on; may be left out where there is only one
    #[arg(long, value_name = "HOST")]
    host: Option<HostId>,
    /// The sandbox's name, new on its host [default: the image's name and random letters]
    #[arg(long, value_name = "NAME")]
    name: Option<SandboxId>,
    /// A read-only directory of the host, by the name its owner's policy gives it; shows at /sources/NAME (repeatable)
    #[arg(long = "source", value_name = "NAME")]
    sources: Vec<SourceName>,
    /// An environment variable (repeatable). Not for secrets: the host's engine shows it to whoever asks
    #[arg(long = "env", short = 'e', value_name = "NAME=VALUE", value_parser = variable)]
    environment: Vec<(String, String)>,
    /// Processors, such as 2 or 0.5
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = units::parse_cpus)]
    cpus: u64,
    /// Memory, such as 512MiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::parse_bytes)]
    memory: u64,
    /// Processes and threads
    #[arg(long, value_name = "COUNT", default_value_t = 256)]
    pids: u64,
    /// Scratch space, such as 2GiB; it dies with the sandbox
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::parse_bytes)]
    scratch: u64,
    /// The longest it may live, such as 30m
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = units::parse_duration)]
    life: Duration,
    /// What of its output may leave the host: metadata (sizes and exit codes), redacted or full. The host's policy caps it
    #[arg(long, value_name = "POLICY", default_value = "metadata", value_parser = content)]
    content: Content,
    /// At most one sandbox with this key runs on the host at a time
    #[arg(long, value_name = "KEY")]
    isolation: Option<IsolationKey>,
    /// How long the command waits for a host that is away, before it is void
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = units::parse_duration)]
    expires: Duration,
    /// Do not follow: print the sandbox's name and return
    #[arg(long, short = 'd')]
    detach: bool,
    /// The image, as the host's policy lists it, and the command with its arguments [default: the image's own command]
    #[arg(value_names = ["IMAGE", "ARGS"], required = true, num_args = 1.., trailing_var_arg = true, allow_hyphen_values = true)]
    image: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write NAME=VALUE"),
    }
}

fn content(text: &str) -> Result<Content, &'static str> {
    Content::from_word(text).ok_or("one of metadata, redacted, full")
}

impl RunArgs {
    fn launch(&self) -> anyhow::Result<Launch> {
        let (image, arguments) = self.image.split_first().context("which image?")?;
        // `run IMAGE -- COMMAND` is what people type for `run IMAGE COMMAND`.
        let arguments = match arguments {
            [dashes, rest @ ..] if dashes == "--" => rest,
            all => all,
        };
        let sandbox = match &self.name {
            Some(name) => name.clone(),
            None => order::name(image, order::random()?)?,
        };
        Ok(Launch {
            sandbox,
            image: image.clone(),
            arguments: arguments.to_vec(),
            environment: self.environment.clone(),
            sources: self.sources.clone(),
            limits: Limits {
                cpu_millis: self.cpus,
                memory_bytes: self.memory,
                pids: self.pids,
                scratch_bytes: self.scratch,
                life_s: self.life.as_secs(),
            },
            content: self.content,
            isolation: self.isolation.clone(),
        })
    }
}

/// How long a session waits; shorter in tests.
#[derive(Clone, Copy, Debug)]
struct Patience {
    tail: Duration,
    answer: Duration,
}

pub(super) async fn execute(context: &mut Context, args: RunArgs) -> anyhow::Result<u8> {
    let patience = Patience {
        tail: TAIL_WAIT,
        answer: ANSWER_WAIT,
    };
    launch(context, args, patience).await
}

async fn launch(context: &mut Context, args: RunArgs, patience: Patience) -> anyhow::Result<u8> {
    let key = order::read_key(&context.key_path()?)?;
    let launch = args.launch()?;
    let sandbox = launch.sandbox.clone();
    let host = choose_host(context, args.host.clone()).await?;
    // From here on Ctrl-C is ours: between the command's way out and the first look at it nothing must be lost.
    let interrupts = Interrupts::new()?;
    let sent = order::send(
        &context.client,
        &key,
        &host,
        Order::Launch(launch),
        args.expires,
    )
    .await
    .with_context(|| format!("launch {sandbox} on {host}"))?;
    if args.detach {
        if context.output.is_json() {
            context.output.json(&json!({
                "host": host, "sandbox": sandbox, "command": sent.id.to_string(), "offset": sent.offset,
            }))?;
        } else {
            context.output.text(&format!("{sandbox}\n"))?;
        }
        return Ok(0);
    }
    let query = Query {
        from: sent.offset,
        to: None,
        host: Some(host.clone()),
        sandbox: Some(sandbox.clone()),
        follow: true,
    };
    let client = context.client.clone();
    let session = Session {
        follower: Follower::new(client, context.known_hosts()?, query, Start::Origin),
        watch: Watch::new(host.clone(), sandbox.clone(), Some(sent.id)),
        due: Some(Instant::now() + args.expires + patience.answer),
        context,
        key,
        host,
        sandbox,
        sent,
        asked: args.content,
        patience,
        was_stopped: false,
        is_stopped: false,
    };
    session.follow(interrupts).await
}

async fn choose_host(context: &Context, asked: Option<HostId>) -> anyhow::Result<HostId> {
    let hosts = api::hosts(&context.client, false).await?;
    let host = match asked {
        Some(host) => host,
        None => api::only_host(&hosts)?,
    };
    let known = hosts.iter().find(|known| known.name == host.as_str());
    if known.is_some_and(|known| !known.connected) {
        context.output.remark(&format!(
            "{host} is not connected now; the command waits for it until it expires"
        ))?;
    }
    Ok(host)
}

/// What a session hears next.
enum Heard {
    Lines(Vec<Line>),
    Interrupt,
    Due,
}

/// A sandbox that is followed to its end.
struct Session<'a> {
    context: &'a mut Context,
    key: Secret<Dispatcher>,
    host: HostId,
    sandbox: SandboxId,
    sent: Sent,
    asked: Content,
    follower: Follower,
    watch: Watch,
    /// When waiting for the next step is over; none while the sandbox is at work.
    due: Option<Instant>,
    patience: Patience,
    /// Ctrl-C was pressed once.
    was_stopped: bool,
    /// The host says that it stopped it; its end should follow.
    is_stopped: bool,
}

impl Session<'_> {
    async fn follow(mut self, mut interrupts: Interrupts) -> anyhow::Result<u8> {
        let waiting = format!("{}: waiting for {}", self.sandbox, self.host);
        self.context.output.begin(&waiting);
        loop {
            match self.hear(&mut interrupts).await? {
                Heard::Lines(lines) => {
                    for line in lines {
                        self.line(&line)?;
                    }
                }
                Heard::Interrupt if self.was_stopped => return self.detach(),
                Heard::Interrupt => self.stop().await?,
                Heard::Due => self.due().await?,
            }
            if let Some(code) = self.outcome()? {
                return Ok(code);
            }
        }
    }

    async fn hear(&mut self, interrupts: &mut Interrupts) -> anyhow::Result<Heard> {
        let due = self.due;
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = interrupts.next() => Ok(Heard::Interrupt),
            lines = self.follower.next() => Ok(Heard::Lines(lines?.unwrap_or_default())),
            () = due => Ok(Heard::Due),
        }
    }

    fn line(&mut self, line: &Line) -> anyhow::Result<()> {
        let before = std::mem::discriminant(self.watch.phase());
        self.watch.note(line);
        if let What::Event(told) = &line.what
            && told.kind == Kind::Progress
            && let Some(progress) = render::progress(&told.data)
        {
            self.context.output.progress(&progress);
        }
        // The error that ends us says it.
        let is_said_later = matches!(&line.what, What::Report(News::Refused(refused)) if refused.command == self.sent.id);
        if !is_said_later || self.context.output.is_json() {
            self.context.output.line(line, Form::Plain)?;
        }
        if let What::Distrusted(_) = line.what {
            bail!(
                "follow {}: nothing that {} says can be verified; it may be at work all the same",
                self.sandbox,
                self.host
            );
        }
        if std::mem::discriminant(self.watch.phase()) != before {
            self.changed()?;
        }
        if matches!(line.what, What::Report(News::Stopped(_)))
            && matches!(self.watch.phase(), Phase::Waiting | Phase::Running(_))
        {
            self.is_stopped = true;
            self.due = Some(Instant::now() + self.patience.tail);
        }
        Ok(())
    }

    /// The sandbox has come a step further.
    fn changed(&mut self) -> anyhow::Result<()> {
        match self.watch.phase() {
            Phase::Running(content) => {
                self.due = self.is_stopped.then(|| Instant::now() + self.patience.tail);
                let (content, host) = (*content, &self.host);
                if content == Content::Metadata {
                    let how = if self.asked == Content::Metadata {
                        "ask for more with --content full".to_owned()
                    } else {
                        format!("the policy of {host} allows no more")
                    };
                    self.context.output.remark(&format!(
                        "output stays on {host} (content: metadata); {how}"
                    ))?;
                }
                let running = format!("{}: running on {}", self.sandbox, self.host);
                self.context.output.begin(&running);
            }
            Phase::Ended(_) => self.due = Some(Instant::now() + self.patience.tail),
            Phase::Waiting | Phase::Refused(_) => {}
        }
        Ok(())
    }

    /// Whether it is over, and with which exit code.
    fn outcome(&mut self) -> anyhow::Result<Option<u8>> {
        match self.watch.phase() {
            Phase::Refused(Refused { reason, detail, .. }) => {
                bail!(
                    "{} refused to launch {}: {}",
                    self.host,
                    self.sandbox,
                    reason_text(*reason, detail)
                )
            }
            Phase::Ended(ended) => {
                let is_whole = !self.watch.was_launched()
                    || self.follower.follow().is_closed(&self.host, &self.sandbox);
                let is_late = self.due.is_none_or(|due| due <= Instant::now());
                if !is_whole && !is_late {
                    return Ok(None);
                }
                let verdict = verdict(ended, is_whole, self.follower.follow().failures());
                self.context.output.end();
                let withheld = self.watch.withheld();
                if withheld.bytes > 0 {
                    self.context
                        .output
                        .remark(&format!("{withheld} stayed on {}", self.host))?;
                }
                if let Some(remark) = verdict.remark {
                    let text = format!("{} {}: {remark}", self.sandbox, ended.state);
                    self.context.output.remark(&text)?;
                }
                Ok(Some(verdict.code))
            }
            Phase::Waiting | Phase::Running(_) => Ok(None),
        }
    }

    /// Waiting took too long: for the launch, or for the end of the output, which [`Self::outcome`] judges.
    async fn due(&mut self) -> anyhow::Result<()> {
        if !matches!(self.watch.phase(), Phase::Waiting | Phase::Running(_)) {
            return Ok(());
        }
        if self.is_stopped {
            bail!(
                "{} stopped {} and did not report its end",
                self.host,
                self.sandbox
            );
        }
        let found = api::sandbox(&self.context.client, &self.host, &self.sandbox).await?;
        if found.state == State::Creating.word() && found.first_offset.is_some() {
            self.due = Some(Instant::now() + CREATING_WAIT);
            let creating = format!("{}: being made on {}", self.sandbox, self.host);
            self.context.output.begin(&creating);
            return Ok(());
        }
        bail!(
            "{} did not take the command before it expired ({} ago); is it connected? See `outhaul host list`",
            self.host,
            units::duration(clock::unix().since(self.sent.expires))
        )
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.was_stopped = true;
        self.context.output.remark(&format!(
            "stopping {} (Ctrl-C again to leave it and return)",
            self.sandbox
        ))?;
        let stop = Order::Stop(Stop {
            sandbox: self.sandbox.clone(),
            grace_s: STOP_GRACE_S,
        });
        order::send(&self.context.client, &self.key, &self.host, stop, STOP_LIFE)
            .await
            .with_context(|| format!("stop {}", self.sandbox))?;
        self.context
            .output
            .begin(&format!("{}: stopping", self.sandbox));
        Ok(())
    }

    fn detach(self) -> anyhow::Result<u8> {
        self.context.output.end();
        let (host, sandbox) = (&self.host, &self.sandbox);
        self.context.output.remark(&format!(
            "left {sandbox}, which may still run: see `outhaul ps`, `outhaul logs -f {host}/{sandbox}`"
        ))?;
        Ok(EXIT_INTERRUPTED)
    }
}

/// Ctrl-C, and what a supervisor sends.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("listen for signals")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
