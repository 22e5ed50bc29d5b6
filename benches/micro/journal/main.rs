//! What keeping records costs: our journal, SQLite and fjall beside each other, in the same run, on the same disk, with the same records.
//!
//! `cargo bench --package benches --bench journal` appends records of 256 bytes in durable commits, opens what was made, and reads it
//! through, each step in a process of its own, so that its memory and its computing time are its own. `-- --check` fails if a limit
//! does not hold; `-- --help` says what else there is. It needs about 8 GB below `--dir`, on the kind of disk that is to be measured.

mod engine;
mod fjall;
mod ours;
mod sqlite;
mod table;
mod usage;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use clap::Parser;

use self::{
    engine::{Engine, Kind, Step},
    table::Figures,
    usage::Used,
};

/// Our journal beside SQLite and fjall: append, open, scan.
#[derive(Debug, Parser)]
struct Arguments {
    /// Records of each engine that are compared.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Records of the journal that is opened and read for the limits.
    #[arg(long, default_value_t = 10_000_000)]
    large: u64,
    /// Records in each durable commit.
    #[arg(long, default_value_t = 256)]
    commit: u64,
    /// Where to measure. A directory of its own is made there, and removed.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Fail if a limit does not hold.
    #[arg(long)]
    check: bool,
    /// One step, in a process of its own: its figures go to standard output.
    #[arg(long, hide = true, num_args = 3, value_names = ["ENGINE", "STEP", "DIR"])]
    measure: Option<Vec<String>>,
    /// What cargo says.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some([engine, step, dir]) = arguments.measure.as_deref() {
        let used = measure(engine.parse()?, step.parse()?, Path::new(dir), &arguments)?;
        say(&used.line())?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = tempfile::Builder::new()
        .prefix("outhaul-journal-bench-")
        .tempdir_in(&arguments.dir)
        .context("make a directory to measure in")?;
    let mut figures = Figures::default();
    for kind in [Kind::Ours, Kind::Sqlite, Kind::Fjall] {
        let dir = place.path().join(kind.word());
        for step in [Step::Append, Step::Open, Step::Scan] {
            let used = in_a_process(kind, step, &dir, arguments.records, arguments.commit)?;
            figures.note(kind, step, arguments.records, used);
        }
        std::fs::remove_dir_all(&dir).context("remove what was measured")?;
    }
    let dir = place.path().join("large");
    for step in [Step::Append, Step::Open, Step::Scan] {
        let used = in_a_process(Kind::Ours, step, &dir, arguments.large, arguments.commit)?;
        figures.note(Kind::Ours, step, arguments.large, used);
    }
    say(&figures.text(arguments.records, arguments.large, arguments.commit))?;
    let holds = figures.holds(arguments.records, arguments.large);
    Ok(if arguments.check && !holds {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn measure(kind: Kind, step: Step, dir: &Path, arguments: &Arguments) -> anyhow::Result<Used> {
    let open = || kind.open(dir);
    match step {
        Step::Append => {
            let mut engine = open()?;
            Used::by(|| append(engine.as_mut(), arguments.records, arguments.commit))
        }
        Step::Open => Used::by(|| open().map(drop)),
        Step::Scan => {
            let mut engine = open()?;
            Used::by(|| {
                let count = engine.scan()?;
                anyhow::ensure!(count == arguments.records, "{count} records were read");
                Ok(())
            })
        }
    }
}

fn append(engine: &mut dyn Engine, records: u64, commit: u64) -> anyhow::Result<()> {
    for first in (0..records).step_by(usize::try_from(commit)?) {
        engine.append(first, commit.min(records - first))?;
    }
    Ok(())
}

fn in_a_process(
    kind: Kind,
    step: Step,
    dir: &Path,
    records: u64,
    commit: u64,
) -> anyhow::Result<Used> {
    let own = std::env::current_exe().context("find this program")?;
    let output = Command::new(own)
        .args(["--measure", kind.word(), step.word()])
        .arg(dir)
        .args(["--records", &records.to_string()])
        .args(["--commit", &commit.to_string()])
        .output()
        .context("start a step")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{kind:?}, {step:?}: {said}");
    Used::parse(&String::from_utf8_lossy(&output.stdout))
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("print the figures")
}
