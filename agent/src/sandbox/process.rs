//! The command, as a process: started in its own group, signalled, reaped.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use protocol::event::Kind;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, FdFlags, fcntl_setfd},
    process::{Pid, Signal, WaitOptions, kill_process_group, wait},
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// The environment variable that names the progress descriptor.
pub const PROGRESS_VARIABLE: &str = "OUTHAUL_PROGRESS_FD";

/// As shells have it: found, but cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// As shells have it: not found.
pub const NOT_FOUND: u8 = 127;

/// Signals that are passed on to the command.
const FORWARDED: [(i32, Signal); 6] = [
    (SIGTERM, Signal::TERM),
    (SIGINT, Signal::INT),
    (SIGHUP, Signal::HUP),
    (SIGQUIT, Signal::QUIT),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
];

/// The running command.
#[derive(Debug)]
pub struct Process {
    /// `None`: it was never there; only orphans are reaped.
    pid: Option<Pid>,
    /// What it writes, each with its kind; `None` once it was closed.
    pub outputs: [(Kind, Option<OwnedFd>); 3],
}

impl Process {
    /// Starts `arguments`, with nothing on standard input.
    ///
    /// # Errors
    /// What the system said; [`exit_code_of`] turns it into the exit code that a shell would give.
    pub fn start(arguments: &[String]) -> io::Result<Self> {
        let (program, arguments) = arguments.split_first().ok_or(io::ErrorKind::NotFound)?;
        let (progress, progress_end) = rustix::pipe::pipe()?;
        fcntl_setfd(&progress, FdFlags::CLOEXEC)?;
        let mut child = Command::new(program)
            .args(arguments)
            .env(PROGRESS_VARIABLE, progress_end.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::Other)?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        for output in [stdout.as_ref(), stderr.as_ref(), Some(&progress)]
            .into_iter()
            .flatten()
        {
            fcntl_setfl(output, fcntl_getfl(output)? | OFlags::NONBLOCK)?;
        }
        Ok(Self {
            pid: Some(pid),
            outputs: [
                (Kind::Stdout, stdout),
                (Kind::Stderr, stderr),
                (Kind::Progress, Some(progress)),
            ],
        })
    }

    /// What is left once the command has ended.
    #[must_use]
    pub fn none() -> Self {
        let none = |kind| (kind, None);
        Self {
            pid: None,
            outputs: [Kind::Stdout, Kind::Stderr, Kind::Progress].map(none),
        }
    }

    /// Passes a signal on to the command and all it started in its group. One that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Reaps whatever has ended, ours or an orphan's, and gives the command's exit code once it is among them.
    #[must_use]
    pub fn reap(&self) -> Option<u8> {
        let mut code = None;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if Some(pid) == self.pid {
                let exited = status
                    .exit_status()
                    .or_else(|| status.terminating_signal().map(|s| 128 + s));
                code = exited.map(|code| u8::try_from(code & 0xff).unwrap_or(u8::MAX));
            }
        }
        code
    }
}

/// Reads what is there. `Ok(0)`: its last writer is gone. `WouldBlock`: nothing now.
///
/// # Errors
/// What the system said.
pub fn read(output: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match rustix::io::read(&output, &mut *buffer) {
            Err(Errno::INTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

/// The exit code that a shell gives when a command cannot be started.
#[must_use]
pub fn exit_code_of(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound {
        NOT_FOUND
    } else {
        CANNOT_EXECUTE
    }
}

/// Whether the first process of this pid namespace is neither stopped nor gone: what the engine's health check asks.
#[must_use]
pub fn is_first_alive() -> bool {
    std::fs::read_to_string("/proc/1/stat").is_ok_and(|stat| is_at_work(&stat))
}

/// Reads a `/proc/<pid>/stat`, whose second field is a name in brackets that may hold anything.
fn is_at_work(stat: &str) -> bool {
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('R' | 'S' | 'D'))
}

/// Which signals have come since last asked, and a descriptor that wakes on them.
#[derive(Debug)]
pub struct Signals {
    woken: OwnedFd,
    forwarded: Vec<(Signal, Arc<AtomicBool>)>,
}

impl Signals {
    /// Starts to listen. As a container's first process we would otherwise not even get SIGTERM.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn listen() -> anyhow::Result<Self> {
        let (woken, wake) = std::os::unix::net::UnixStream::pair().context("make a signal pipe")?;
        woken.set_nonblocking(true).context("make a signal pipe")?;
        let mut forwarded = Vec::new();
        for (number, signal) in FORWARDED {
            let came = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(number, came.clone()).context("listen for signals")?;
            forwarded.push((signal, came));
        }
        // Registered after the flags, so that a wake finds its flag set.
        for number in FORWARDED
            .map(|(number, _)| number)
            .into_iter()
            .chain([SIGCHLD])
        {
            let wake = wake.try_clone().context("make a signal pipe")?;
            signal_hook::low_level::pipe::register(number, wake).context("listen for signals")?;
        }
        Ok(Self {
            woken: woken.into(),
            forwarded,
        })
    }

    /// The descriptor to poll.
    #[must_use]
    pub fn woken(&self) -> &OwnedFd {
        &self.woken
    }

    /// The signals to pass on.
    pub fn take(&self) -> Vec<Signal> {
        let mut rubbish = [0; 64];
        while matches!(read(&self.woken, &mut rubbish), Ok(count) if count > 0) {}
        let came = |(signal, came): &(Signal, Arc<AtomicBool>)| {
            came.swap(false, Ordering::Relaxed).then_some(*signal)
        };
        self.forwarded.iter().filter_map(came).collect()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    const TEN_SECONDS: Timespec = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };

    #[test]
    fn a_stopped_or_dead_first_process_is_not_healthy() {
        assert!(is_at_work("1 (outhaul-sandbox) S 0 1 1"));
        assert!(is_at_work("1 (a) Z b) R 0"));
        assert!(
            !is_at_work("1 (outhaul-sandbox) T 0") && !is_at_work("1 (x) Z 0") && !is_at_work("")
        );
    }

    #[test]
    fn the_commands_exit_code_is_seen_though_it_has_a_group_of_its_own() {
        let signals = Signals::listen().unwrap();
        for (script, code) in [("exit 3", 3), ("kill -KILL $$", 128 + 9)] {
            let process = Process::start(&["sh", "-c", script].map(str::to_owned)).unwrap();
            let seen = loop {
                let mut descriptors = [PollFd::new(signals.woken(), PollFlags::IN)];
                match poll(&mut descriptors, Some(&TEN_SECONDS)) {
                    Ok(1) | Err(Errno::INTR) => {}
                    other => panic!("no wake: {other:?}"),
                }
                assert!(signals.take().is_empty());
                if let Some(code) = process.reap() {
                    break code;
                }
            };
            assert_eq!(seen, code, "{script}");
        }
    }

    #[test]
    fn what_cannot_start_has_the_exit_code_of_a_shell() {
        let start = |program: &str| {
            Process::start(&[program.to_owned()]).map_err(|error| exit_code_of(&error))
        };
        assert_eq!(start("/nowhere/at-all").err(), Some(NOT_FOUND));
        assert_eq!(start("/etc/hostname").err(), Some(CANNOT_EXECUTE));
        assert_eq!(
            Process::start(&[])
                .map_err(|error| exit_code_of(&error))
                .err(),
            Some(NOT_FOUND)
        );
    }
}
