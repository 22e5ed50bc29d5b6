//! The shim's one loop.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use protocol::{
    event::Kind,
    key::{Public, Sandbox, Secret},
    stream::{Writer, stream_id},
    time::UnixMillis,
    token,
    topic::Topic,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
    process::{DumpableBehavior, set_dumpable_behavior},
};
use zeroize::Zeroizing;

use super::{
    clock::Clock,
    launch::{self, CA_FILE, IN_DIR, KEY_FILE, OUT_DIR, SPOOL_DIR, TOKEN_FILE, Task},
    link::{Link, Route},
    process::{self, Process, Signals},
    recorder::Recorder,
    session::Outcome,
    spool::Spool,
};
use crate::{egress::SANDBOX_SOCKET, shell::tls::Tls};

/// How long the operator may take to vouch for our key.
const TOKEN_WAIT_MAX: Duration = Duration::from_secs(60);
/// How much is read from an output at a time, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Batches that wait for a live link before the command is made to wait too.
const UNSENT_MAX: usize = 256;
/// What is still read from each output once the command has ended, in bytes. A grandchild may hold it open, and write for ever.
const LAST_BYTES_MAX: usize = 1 << 20;
/// The exit code when we ourselves fail.
pub const OWN_FAILURE: u8 = 125;

/// Runs the command, streams what it writes, and gives its exit code.
///
/// # Errors
/// If we cannot do our part: no launch file, no key, no token in time. The command was not started then.
pub fn run(arguments: &[String]) -> anyhow::Result<u8> {
    // The command has our user id: without this it could read our memory, and the key in it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("close our memory to others")?;
    let signals = Signals::listen()?;
    let task = launch::read(Path::new(IN_DIR))?;
    let clock = Clock::new(task.launch.boot_unix_ms);
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|error| anyhow::anyhow!("draw a key: {error}"))?;
    let key = Secret::<Sandbox>::from_seed(&seed);
    let watch = watch_tokens()?;
    announce(&key.public())?;
    let Some(token_id) = wait_for_token(&key.public(), &watch, &signals, clock)? else {
        return Ok(128 + 15);
    };
    let writer = Writer::new(key, stream_id(&task.host, &task.sandbox), token_id);
    let spool_bytes = usize::try_from(task.launch.spool_bytes).unwrap_or(usize::MAX);
    let spool =
        Spool::open(Path::new(OUT_DIR).join(SPOOL_DIR), spool_bytes).context("make the spool")?;
    let mut shim = Shim {
        recorder: Recorder::new(writer, task.content),
        spool,
        link: Link::new(route(&task, clock)?, clock.now()),
        clock,
        signals,
        watch,
    };
    let code = shim.serve(arguments);
    shim.drain(Duration::from_millis(task.launch.drain_ms))?;
    code
}

struct Shim {
    recorder: Recorder,
    spool: Spool,
    link: Link,
    clock: Clock,
    signals: Signals,
    watch: OwnedFd,
}

impl Shim {
    /// From the command's start to its end.
    fn serve(&mut self, arguments: &[String]) -> anyhow::Result<u8> {
        let mut process = match Process::start(arguments) {
            Ok(process) => process,
            Err(error) => {
                let now = self.clock.now();
                let program = arguments.first().map_or("the command", String::as_str);
                let line = format!("outhaul-sandbox: start {program}: {error}\n");
                self.recorder.wrote(Kind::Stderr, line.as_bytes(), now);
                let code = process::exit_code_of(&error);
                self.recorder.exited(code.into(), now);
                return Ok(code);
            }
        };
        self.recorder.started(self.clock.now());
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.wait(&process, None)?;
            for signal in self.signals.take() {
                process.signal(signal);
            }
            let code = process.reap();
            if code.is_some() || self.has_room() {
                let bytes_max = if code.is_some() {
                    LAST_BYTES_MAX
                } else {
                    READ_BYTES
                };
                self.read_outputs(&mut process, &mut buffer, bytes_max);
            }
            if let Some(code) = code {
                self.recorder.exited(code.into(), self.clock.now());
                return Ok(code);
            }
            self.turn()?;
        }
    }

    /// Sends what is left, as long as there is time.
    fn drain(&mut self, wait: Duration) -> anyhow::Result<()> {
        let until = self.clock.now().plus(wait);
        let ended = Process::none();
        self.turn()?;
        while !self.spool.is_empty() && self.clock.now() < until {
            self.wait(&ended, Some(until))?;
            let _ = self.signals.take();
            let _ = ended.reap();
            self.turn()?;
        }
        self.link.close(self.clock.now());
        Ok(())
    }

    /// Whether the command's output can be taken: with a link up, it may have to wait for the broker.
    fn has_room(&mut self) -> bool {
        self.link.session().is_none() || (self.spool.unsent() < UNSENT_MAX && !self.spool.is_full())
    }

    fn read_outputs(&mut self, process: &mut Process, buffer: &mut [u8], bytes_max: usize) {
        let now = self.clock.now();
        for (kind, output) in &mut process.outputs {
            let mut left = bytes_max;
            while let Some(open) = output.as_ref().filter(|_| left > 0) {
                match process::read(open, buffer) {
                    Ok(count) if count > 0 => {
                        self.recorder
                            .wrote(*kind, buffer.get(..count).unwrap_or_default(), now);
                        left = left.saturating_sub(count);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Ok(_) | Err(_) => *output = None,
                }
            }
        }
    }

    /// Moves what is sealed into the spool, and from there to the broker, and hears what it says.
    fn turn(&mut self) -> anyhow::Result<()> {
        let now = self.clock.now();
        self.recorder.tick(now);
        while let Some(batch) = self.recorder.take() {
            self.spool.push(batch);
        }
        loop {
            let outcomes = self.link.drive(self.recorder.key(), random()?, now);
            for outcome in outcomes {
                match outcome {
                    Outcome::Up => {}
                    Outcome::Acknowledged(number) => self.spool.acknowledge(number),
                    Outcome::Rejected(number, reason) => {
                        super::say(&format!(
                            "the broker refuses batch {number}: {}",
                            reason.name()
                        ));
                        self.spool.acknowledge(number);
                    }
                    Outcome::Down(_) => self.spool.unsend(),
                }
            }
            if !self.publish() {
                break;
            }
        }
        self.recorder
            .press(self.spool.unsent() > 0, self.spool.is_full());
        Ok(())
    }

    /// Hands batches to a live session while it has room; `false` if there was nothing to hand on.
    fn publish(&mut self) -> bool {
        let mut any = false;
        let Some(session) = self.link.session() else {
            return false;
        };
        while session.has_room() {
            match self.spool.take_next() {
                Some(Ok((number, payload))) => session.publish(number, &payload),
                Some(Err(error)) => super::say(&format!("a spooled batch is lost: {error}")),
                None => break,
            }
            any = true;
        }
        any
    }

    /// Waits until there is something to do.
    fn wait(&mut self, process: &Process, until: Option<UnixMillis>) -> anyhow::Result<()> {
        let has_room = self.has_room();
        let deadline = [self.recorder.timeout(), Some(self.link.timeout()), until]
            .into_iter()
            .flatten()
            .min();
        let wait = deadline.map(|deadline| timespec(deadline.since(self.clock.now())));
        let mut descriptors = vec![
            PollFd::new(self.signals.woken(), PollFlags::IN),
            PollFd::new(&self.watch, PollFlags::IN),
        ];
        let outputs = process
            .outputs
            .iter()
            .filter_map(|(_, output)| output.as_ref());
        if has_room {
            descriptors.extend(outputs.map(|output| PollFd::new(output, PollFlags::IN)));
        }
        let link = self.link.poll();
        if let Some((socket, writes)) = &link {
            let flags = if *writes {
                PollFlags::IN | PollFlags::OUT
            } else {
                PollFlags::IN
            };
            descriptors.push(PollFd::from_borrowed_fd(socket.as_fd(), flags));
        }
        match poll(&mut descriptors, wait.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
        drop(descriptors);
        drop(link);
        if is_changed(&self.watch) {
            self.link.token_changed(self.clock.now());
        }
        Ok(())
    }
}

fn route(task: &Task, clock: Clock) -> anyhow::Result<Route> {
    let in_dir = Path::new(IN_DIR);
    let ca = fs::read(in_dir.join(CA_FILE)).context("read the broker's CA")?;
    Ok(Route {
        socket: in_dir.join(SANDBOX_SOCKET),
        broker: task.launch.broker.clone(),
        tls: Tls::new(&ca, b"mqtt", clock.for_tls())?,
        client_id: format!("{}/{}", task.host, task.sandbox),
        topic: Topic::Events(task.host.clone(), task.sandbox.clone()).to_string(),
        token: in_dir.join(TOKEN_FILE),
    })
}

/// Writes our public key where the operator looks for it, whole or not at all.
fn announce(key: &Public<Sandbox>) -> anyhow::Result<()> {
    let path = Path::new(OUT_DIR).join(KEY_FILE);
    let part = path.with_extension("part");
    fs::write(&part, format!("{key}\n")).with_context(|| format!("write {}", part.display()))?;
    fs::rename(&part, &path).with_context(|| format!("write {}", path.display()))
}

/// Waits for a token that names our key, and gives its id. `None`: we were told to end first.
fn wait_for_token(
    key: &Public<Sandbox>,
    watch: &OwnedFd,
    signals: &Signals,
    clock: Clock,
) -> anyhow::Result<Option<[u8; 8]>> {
    let until = clock.now().plus(TOKEN_WAIT_MAX);
    let path = Path::new(IN_DIR).join(TOKEN_FILE);
    loop {
        if let Ok(bytes) = fs::read(&path) {
            let claims = token::peek(&bytes).context("read the token")?;
            anyhow::ensure!(
                *claims.confirmation.key.x == *key.as_bytes(),
                "the token is for another key"
            );
            return Ok(Some(claims.id.into_array()));
        }
        let left = until.since(clock.now());
        anyhow::ensure!(
            !left.is_zero(),
            "the operator did not vouch for our key within {} s",
            TOKEN_WAIT_MAX.as_secs()
        );
        let mut descriptors = [
            PollFd::new(watch, PollFlags::IN),
            PollFd::new(signals.woken(), PollFlags::IN),
        ];
        let _ = poll(&mut descriptors, Some(&timespec(left)));
        is_changed(watch);
        if !signals.take().is_empty() {
            return Ok(None);
        }
    }
}

/// Wakes when the operator puts a file in place.
fn watch_tokens() -> anyhow::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .context("watch for tokens")?;
    inotify::add_watch(&watch, IN_DIR, inotify::WatchFlags::MOVED_TO)
        .context("watch for tokens")?;
    Ok(watch)
}

/// Whether something came, and forgets it.
fn is_changed(watch: &OwnedFd) -> bool {
    let mut rubbish = [0; 4096];
    let mut changed = false;
    while matches!(process::read(watch, &mut rubbish), Ok(count) if count > 0) {
        changed = true;
    }
    changed
}

fn random() -> anyhow::Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("draw a random number: {error}"))
}

/// A wait, rounded up so that what it waits for is due when it ends.
fn timespec(wait: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait.subsec_nanos()),
    }
}
