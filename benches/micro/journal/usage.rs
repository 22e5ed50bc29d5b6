//! What a step used: time, computing time, memory.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context as _;

/// What a step used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Used {
    pub(crate) wall: Duration,
    /// Of all threads, the kernel's work for them included.
    pub(crate) cpu: Duration,
    /// The most that was resident until the end of the step.
    pub(crate) resident_kib: u64,
}

impl Used {
    /// What this work uses.
    pub(crate) fn by(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let (start, before) = (now(), cpu());
        work()?;
        Ok(Self {
            wall: now() - start,
            cpu: cpu().saturating_sub(before),
            resident_kib: peak_kib()?,
        })
    }

    /// For the process that asked.
    pub(crate) fn line(&self) -> String {
        format!(
            "{} {} {}\n",
            self.wall.as_nanos(),
            self.cpu.as_nanos(),
            self.resident_kib
        )
    }

    /// What [`Self::line`] made.
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [wall, cpu, resident_kib] = numbers[..] else {
            anyhow::bail!("a step said something else: {line}");
        };
        Ok(Self {
            wall: Duration::from_nanos(wall),
            cpu: Duration::from_nanos(cpu),
            resident_kib,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn peak_kib() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("read memory")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = peak.and_then(|peak| peak.split_whitespace().next());
    digits
        .context("read memory")?
        .parse()
        .context("read memory")
}
