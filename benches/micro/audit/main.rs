//! What verifying an exported audit trail costs: a million rows, as `outhaul audit verify` judges them, beside SHA-256 of the same bytes.
//!
//! `cargo bench --package benches --bench audit` writes an export of ordinary rows with a checkpoint every 1000, judges it in a process
//! of its own, hashes its file in another, and prints seconds, memory and their ratio. `-- --check` fails if a limit does not hold: 5 s
//! and 100 MB for a million rows.

#[path = "../journal/usage.rs"]
mod usage;

use std::{
    fs::{self, File},
    io::{BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, ensure};
use broker::shell::exported::{Export, judge};
use clap::Parser;
use protocol::{
    audit::{Checkpoint, Frontier, Leaf, NO_LEAF, SignedCheckpoint, Vkey, tree::leaf_hash},
    key::{Audit, Secret},
};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use self::usage::Used;

/// What a million rows may take on one core, in seconds.
const SECONDS_MAX: f64 = 5.0;
/// And how much memory, in KiB.
const RESIDENT_KIB_MAX: u64 = 100_000_000 / 1024;
const ORIGIN: &str = "outhaul-bench/audit";
const CHECKPOINT_EVERY: u64 = 1000;

/// Verifying an exported audit trail.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Where to measure. A directory of its own is made there, and removed.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
    /// Fail if a limit does not hold.
    #[arg(long)]
    check: bool,
    /// One step, in a process of its own: its figures go to standard output.
    #[arg(long, hide = true, num_args = 2, value_names = ["STEP", "DIR"])]
    measure: Option<Vec<String>>,
    /// What cargo says.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some([step, dir]) = arguments.measure.as_deref() {
        let used = measure(step, Path::new(dir), arguments.rows)?;
        say(&used.line())?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = tempfile::Builder::new()
        .prefix("outhaul-audit-bench-")
        .tempdir_in(&arguments.dir)
        .context("make a directory to measure in")?;
    let export = Export::at(place.path());
    write(&export, arguments.rows)?;
    let bytes = fs::metadata(&export.entries)?.len();
    let verified = in_a_process("verify", place.path(), arguments.rows)?;
    let hashed = in_a_process("sha256", place.path(), arguments.rows)?;
    let (seconds, reference) = (verified.cpu.as_secs_f64(), hashed.cpu.as_secs_f64());
    say(&format!(
        "{} rows, {bytes} bytes\n\
         verify   {seconds:6.2} s of CPU, {:6.2} s in all, {} KiB resident\n\
         sha256   {reference:6.2} s of CPU, {:6.2} s in all, {} KiB resident (of the same bytes, in one go)\n\
         ratio    {:6.2}\n",
        arguments.rows,
        verified.wall.as_secs_f64(),
        verified.resident_kib,
        hashed.wall.as_secs_f64(),
        hashed.resident_kib,
        seconds / reference,
    ))?;
    let holds = seconds <= SECONDS_MAX && verified.resident_kib <= RESIDENT_KIB_MAX;
    if arguments.check && !holds {
        say(&format!(
            "a limit does not hold: {SECONDS_MAX} s of CPU, {RESIDENT_KIB_MAX} KiB\n"
        ))?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn key() -> Secret<Audit> {
    Secret::from_seed(&Zeroizing::new([1; 32]))
}

/// An export whose rows are those of launches: some 330 bytes each.
fn write(export: &Export, rows: u64) -> anyhow::Result<()> {
    let key = key();
    let mut entries = BufWriter::new(File::create_new(&export.entries)?);
    let mut hashes = BufWriter::new(File::create_new(&export.hashes)?);
    let mut notes = BufWriter::new(File::create_new(&export.checkpoints)?);
    let (mut frontier, mut prev) = (Frontier::new(), NO_LEAF);
    for seq in 0..rows {
        let fields = format!(
            r#"{{"command":"{seq:032x}","dispatcher":"ohd1_{seq:064x}","expires_ms":{},"image":"registry.example/tools:1"}}"#,
            1_700_000_060_000 + seq
        );
        let row = Leaf {
            seq,
            time_ms: 1_700_000_000_000 + seq,
            name: "sandbox.launch_requested",
            subject: "edge-1/build-7",
            actor: "uid:1000",
            fields: &fields,
            prev: &prev,
        }
        .to_bytes();
        prev = leaf_hash(&row);
        frontier.push(prev);
        entries.write_all(&row)?;
        hashes.write_all(&prev)?;
        if frontier.size() % CHECKPOINT_EVERY == 0 || frontier.size() == rows {
            let checkpoint = Checkpoint::new(ORIGIN, frontier.size(), frontier.root())?;
            let note = SignedCheckpoint::sign(checkpoint, &[&key]).to_string();
            let line = json!({ "size": frontier.size(), "time_ms": 0, "note": note });
            writeln!(notes, "{line}")?;
        }
    }
    for file in [entries, hashes, notes] {
        file.into_inner().context("write the export")?.sync_all()?;
    }
    Ok(())
}

fn measure(step: &str, dir: &Path, rows: u64) -> anyhow::Result<Used> {
    let export = Export::at(dir);
    Used::by(|| match step {
        "verify" => {
            let vkey = Vkey::new(ORIGIN, key().public())?;
            let report = judge(&export, vkey, None, None)?;
            ensure!(report.is_good(), "it does not verify: {:?}", report.bad);
            ensure!(report.trail.signed() == rows, "it is not all there");
            Ok(())
        }
        _ => {
            let mut file = File::open(&export.entries)?;
            let mut piece = vec![0; 1024 * 1024];
            let mut hash = Sha256::new();
            loop {
                let read = file.read(&mut piece)?;
                if read == 0 {
                    break;
                }
                hash.update(piece.get(..read).unwrap_or_default());
            }
            ensure!(hash.finalize().len() == 32, "a hash");
            Ok(())
        }
    })
}

fn in_a_process(step: &str, dir: &Path, rows: u64) -> anyhow::Result<Used> {
    let program = std::env::current_exe().context("find this program")?;
    let output = Command::new(program)
        .args(["--measure", step])
        .arg(dir)
        .args(["--rows", &rows.to_string()])
        .output()
        .with_context(|| format!("measure {step}"))?;
    ensure!(
        output.status.success(),
        "{step}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Used::parse(&String::from_utf8_lossy(&output.stdout))
}

fn say(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("print the figures")
}
