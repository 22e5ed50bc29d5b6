//! `outhaul verify-stream`: judges an exported stream, offline. It asks no broker and believes none.

use std::{fs::File, io::Read as _, path::PathBuf};

use anyhow::Context as _;
use protocol::{
    key::{Dispatcher, Host, Public},
    record::{BadRecord, Reader},
    stream::StreamError,
    stream_file::{Check, Fault, Why},
};
use serde_json::{Value, json};

use super::{Context, verify::short};

/// What is read from the file at once, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct VerifyStreamArgs {
    /// The host's first key, from its owner: `outhaul-agent identity` prints it [default: the one pinned on this machine]
    #[arg(long, value_name = "KEY")]
    host_key: Option<Public<Host>>,
    /// A dispatcher's key: judge commands too, by this and those that are given with it
    #[arg(long, value_name = "KEY")]
    dispatcher: Vec<Public<Dispatcher>>,
    /// What `outhaul export-stream` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn execute(context: &Context, args: &VerifyStreamArgs) -> anyhow::Result<u8> {
    let judging = || format!("verify {}", args.file.display());
    let mut file = Pieces {
        file: File::open(&args.file).with_context(judging)?,
        reader: Reader::default(),
    };
    let opening = file
        .next(Reader::take_opening)
        .with_context(judging)?
        .and_then(Result::ok)
        .with_context(|| format!("{}: not a stream file of version 1", judging()))?;
    let anchor = match args.host_key {
        Some(key) => key,
        None => context
            .known_hosts()?
            .anchor(&opening.host)
            .with_context(judging)?
            .with_context(|| {
                format!(
                    "{}: no key of {} is pinned on this machine: give the host's first key with --host-key",
                    judging(),
                    opening.host
                )
            })?,
    };
    let dispatchers = (!args.dispatcher.is_empty()).then(|| args.dispatcher.clone());
    let mut check = Check::new(opening, anchor, dispatchers);
    let fault = judge(&mut file, &mut check).with_context(judging)?;
    show(context, &check, fault)?;
    Ok(u8::from(fault.is_some()))
}

/// Judges every record; what did not verify, if anything.
fn judge(file: &mut Pieces, check: &mut Check) -> anyhow::Result<Option<Fault>> {
    while let Some(read) = file.next(Reader::take)? {
        let judged = match read {
            Ok(record) => check.record(&record),
            Err(why) => Err(check.unreadable(why)),
        };
        if let Err(fault) = judged {
            return Ok(Some(fault));
        }
    }
    Ok(check.finish().err())
}

/// A file that is read piece by piece.
struct Pieces {
    file: File,
    reader: Reader,
}

impl Pieces {
    /// The next item, or why there is none; nothing at the end of the file.
    fn next<T>(
        &mut self,
        take: impl Fn(&mut Reader) -> Result<Option<T>, BadRecord>,
    ) -> std::io::Result<Option<Result<T, Why>>> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match take(&mut self.reader) {
                Err(BadRecord) => return Ok(Some(Err(Why::Malformed))),
                Ok(Some(item)) => return Ok(Some(Ok(item))),
                Ok(None) => {}
            }
            let read = self.file.read(&mut piece)?;
            if read == 0 && self.reader.is_empty() {
                return Ok(None);
            }
            if read == 0 {
                return Ok(Some(Err(Why::CutShort)));
            }
            self.reader.push(piece.get(..read).unwrap_or_default());
        }
    }
}

/// Shows the verdict.
pub(super) fn show(context: &Context, check: &Check, fault: Option<Fault>) -> anyhow::Result<()> {
    if context.output.is_json() {
        context.output.json(&as_json(check, fault))
    } else {
        context.output.text(&as_text(check, fault))
    }
}

/// The verdict in a line.
pub(super) fn headline(check: &Check, fault: Option<Fault>) -> String {
    let text = as_text(check, fault);
    text.lines().next().unwrap_or_default().to_owned()
}

fn as_text(check: &Check, fault: Option<Fault>) -> String {
    let found = check.found();
    let events = check.events();
    let what = format!("{events} events in {} batches", found.batches);
    let (host, sandbox) = (&check.opening().host, &check.opening().sandbox);
    let mut text = match fault {
        Some(fault) => format!("BAD, {fault}\nverified before it: {what} of {host}/{sandbox}\n"),
        None if check.misses_beginning() => format!("OK, part: {what} of {host}/{sandbox}\n"),
        None if check.is_whole() => format!("OK, whole: {what} of {host}/{sandbox}\n"),
        None => format!("OK, open: {what} of {host}/{sandbox}\n"),
    };
    let mut row = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    if let Some(key) = check.host_keys().first() {
        let later = check.host_keys().len() - 1;
        row("host key", &format!("{}, and {later} after it", short(key)));
    }
    if let Some(stream) = check.stream() {
        row("sandbox key", &short(&stream.key()));
    }
    if let Some(code) = found.exit_code {
        row("exit code", &code.to_string());
    }
    row("reports", &found.reports.to_string());
    row("commands", &commands(check));
    for missing in missing(check, fault) {
        row("missing", &missing);
    }
    text
}

fn commands(check: &Check) -> String {
    match (check.found().commands, check.judges_commands()) {
        (0, _) => "0".to_owned(),
        (count, true) => format!("{count}, verified"),
        (count, false) => format!("{count}, not judged: give their dispatchers with --dispatcher"),
    }
}

/// What is known to be missing.
fn missing(check: &Check, fault: Option<Fault>) -> Vec<String> {
    let found = check.found();
    let mut missing = Vec::new();
    if let Some(Why::Stream(StreamError::Gap { expected, found })) = fault.map(|fault| fault.why) {
        missing.push(format!("batches {expected} to {}", found - 1));
    }
    if check.misses_beginning() {
        let before = check.stream().map_or(0, |stream| stream.events_before());
        missing.push(format!(
            "the beginning: what came before event {before} is not in this file, and nothing here proves it"
        ));
    }
    if found.earlier > 0 {
        let earlier = found.earlier;
        missing.push(format!(
            "{earlier} batches from before its first one: signed, and delivered again without what they follow"
        ));
    }
    if fault.is_none() && !check.is_whole() {
        missing.push("the closing head, and with it maybe the tail".to_owned());
    }
    if found.dropped > 0 {
        let dropped = found.dropped;
        missing.push(format!(
            "{dropped} events that the sandbox dropped before it sealed them"
        ));
    }
    if found.purged > 0 {
        missing.push(format!(
            "the bodies of {} events in {} batches, purged by the broker's owner: their heads verify",
            found.purged_events, found.purged
        ));
    }
    if found.holes > 0 {
        missing.push(format!(
            "records of the broker, in {} places ({} of them removed by its owner, as it says): if events were among them, the chain \
             shows it",
            found.holes, found.removed
        ));
    }
    missing
}

/// The verdict and all that it rests on.
pub(super) fn as_json(check: &Check, fault: Option<Fault>) -> Value {
    let found = check.found();
    let verdict = match fault {
        Some(_) => "bad",
        None if check.misses_beginning() => "part",
        None if check.is_whole() => "whole",
        None => "open",
    };
    let keys: Vec<String> = check.host_keys().iter().map(ToString::to_string).collect();
    json!({
        "verdict": verdict,
        "item": fault.map(|fault| fault.item),
        "reason": fault.map(|fault| fault.why.to_string()),
        "missing": missing(check, fault),
        "host": check.opening().host, "sandbox": check.opening().sandbox,
        "events": check.events(),
        "events_before": check.stream().map_or(0, |stream| stream.events_before()),
        "has_end": check.is_whole(),
        "batches": found.batches, "purged_batches": found.purged, "purged_events": found.purged_events, "redelivered": found.redelivered,
        "dropped_before_sealing": found.dropped, "exit_code": found.exit_code,
        "reports": found.reports, "commands": found.commands, "commands_judged": check.judges_commands(),
        "journal_holes": found.holes, "journal_removed": found.removed, "items": found.items,
        "host_keys": keys, "sandbox_key": check.stream().map(|stream| stream.key().to_string()),
    })
}

#[cfg(test)]
mod tests;
