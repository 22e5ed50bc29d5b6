//! A broker's process: started, measured from outside, and ended.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

/// How long a broker may take to end by itself.
const END_WAIT: Duration = Duration::from_secs(10);

/// A running process. Ended when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    number: PathBuf,
}

impl Process {
    /// Starts it. What it says goes to `NAME.log` in `dir`, its number to `NAME.pid`: whoever ends us in a hurry finds it there.
    pub(crate) fn start(dir: &Path, name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let path = dir.join(format!("{name}.log"));
        let log = fs::File::create(&path).context("make a log")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let process = Self {
            child,
            log: path,
            number: dir.join(format!("{name}.pid")),
        };
        fs::write(&process.number, process.child.id().to_string())?;
        Ok(process)
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The end of what it said.
    pub(crate) fn last_words(&self) -> String {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        lines
            .get(lines.len().saturating_sub(10)..)
            .unwrap_or_default()
            .join("\n")
    }

    /// The time that its threads have computed so far, the kernel's work for it included.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))
            .context("read the broker's CPU time")?;
        // Its name, in parentheses, may hold anything; what follows are numbers.
        let (_, fields) = stat.rsplit_once(')').context("read the broker's stat")?;
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut ticks = || -> anyhow::Result<u64> {
            Ok(fields.next().context("read the broker's stat")?.parse()?)
        };
        let ticks = ticks()? + ticks()?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_micros(ticks * 1_000_000 / per_second))
    }

    /// Its resident memory, in bytes.
    pub(crate) fn rss(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("read the broker's memory")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("read the broker's memory")?;
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if !super::clock::until(END_WAIT, || !self.is_running()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Its number may soon be another's.
        let _ = fs::remove_file(&self.number);
    }
}
