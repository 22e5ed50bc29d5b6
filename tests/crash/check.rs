//! What has to be there after a power cut, given what the clients had been told before it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use broker::{
    core::{hosts::HostState, journal::RecordKind},
    shell::journal::Item,
};
use protocol::{
    id::{HostId, SandboxId},
    key::{Public, Sandbox},
    stream::{Verdict, Verifier},
};

use crate::{
    notes::{Deed, Notes, Reading, Stream},
    recover::Found,
};

/// Checks everything but the signatures of batches: see [`verify_chain`].
pub(crate) fn check(found: &Found, notes: &Notes, cut_ns: u64) -> anyhow::Result<()> {
    is_whole(found)?;
    let mut known = 0;
    for stream in &notes.streams {
        known += check_stream(found, stream, cut_ns)?;
    }
    ensure!(
        found.of_kind(RecordKind::Event).count() == known,
        "the journal has events of nobody"
    );
    check_messages(found, notes, cut_ns)?;
    for (at, step) in notes.steps.iter().enumerate() {
        if step.done_ns < cut_ns {
            let undone = notes.steps[at + 1..]
                .iter()
                .find(|later| undoes(&later.deed, &step.deed));
            let is_sure = undone.is_none_or(|later| later.begun_ns >= cut_ns);
            check_deed(found, &step.deed, is_sure)?;
        }
    }
    match &notes.reading {
        Some(reading) => check_reading(found, reading, cut_ns),
        None => Ok(()),
    }
}

/// The journal accounts for every offset, and the audit trail holds.
fn is_whole(found: &Found) -> anyhow::Result<()> {
    let mut next = 0;
    for item in &found.items {
        let (from, to) = match item {
            Item::Record(record) => (record.offset, record.offset + 1),
            Item::Gap { from, to, .. } => (*from, *to),
        };
        ensure!(from == next && to > from, "offset {from} follows {next}");
        next = to;
    }
    ensure!(
        next == found.next,
        "the journal ends at {next}, and says {}",
        found.next
    );
    let broken = found.audit_check.broken;
    ensure!(broken.is_none(), "the audit trail: {broken:?}");
    Ok(())
}

/// A stream is what its sandbox sent, from the first batch on, each once and in order, and at least up to the last acknowledged.
fn check_stream(found: &Found, stream: &Stream, cut_ns: u64) -> anyhow::Result<usize> {
    let acknowledged = stream
        .acknowledged_ns
        .partition_point(|time| *time < cut_ns);
    let mut count = 0;
    for record in found.of_kind(RecordKind::Event).filter(|record| {
        record.host == stream.host && record.sandbox.as_ref() == Some(&stream.sandbox)
    }) {
        let sent = stream.sent.get(count);
        ensure!(
            sent.is_some_and(|sent| **sent == record.payload),
            "{}: at offset {} stands not its batch {count}",
            stream.sandbox,
            record.offset
        );
        count += 1;
    }
    ensure!(
        count >= acknowledged,
        "{}: {acknowledged} batches were acknowledged, and {count} are there",
        stream.sandbox
    );
    Ok(count)
}

/// The signatures and the chain of a stream, as a reader checks them. [`check_stream`] holds what is found equal to the first batches
/// that were sent: so this, done once for all that was sent, is done for every image.
pub(crate) fn verify_chain(stream: &Stream) -> anyhow::Result<()> {
    let (host, sandbox) = (HostId::new(&stream.host)?, SandboxId::new(&stream.sandbox)?);
    let key = Public::<Sandbox>::from_bytes(&stream.key)?;
    let mut verifier = Verifier::new(&host, &sandbox, key);
    for batch in &stream.sent {
        let verdict = verifier.check(batch).context("verify a batch")?;
        ensure!(matches!(verdict, Verdict::Next(..)), "{verdict:?}");
    }
    Ok(())
}

/// Commands and reports: each once at most, and once if it was acknowledged; a command where its dispatcher was told.
fn check_messages(found: &Found, notes: &Notes, cut_ns: u64) -> anyhow::Result<()> {
    let mut there = BTreeMap::new();
    for kind in [RecordKind::Command, RecordKind::Report] {
        for record in found.of_kind(kind) {
            let before = there.insert((kind, record.payload.as_slice()), record.offset);
            ensure!(
                before.is_none(),
                "{kind:?} {} is there twice",
                record.offset
            );
        }
    }
    for step in &notes.steps {
        let is_due = step.done_ns < cut_ns;
        match &step.deed {
            Deed::Command {
                bytes,
                offset,
                sandbox,
                ..
            } => {
                let at = there.remove(&(RecordKind::Command, bytes.as_slice()));
                ensure!(
                    at == Some(*offset) || !is_due,
                    "the command for {sandbox}, at {offset}, is at {at:?}"
                );
            }
            Deed::Report { bytes, sandbox, .. } => {
                let at = there.remove(&(RecordKind::Report, bytes.as_slice()));
                ensure!(at.is_some() || !is_due, "a report about {sandbox} is gone");
            }
            Deed::Dispatcher { .. }
            | Deed::Enrol { .. }
            | Deed::Revoke { .. }
            | Deed::AddReader { .. }
            | Deed::RemoveReader { .. } => {}
        }
    }
    ensure!(there.is_empty(), "the journal has messages of nobody");
    Ok(())
}

/// Whether `later` takes back what `deed` did.
fn undoes(later: &Deed, deed: &Deed) -> bool {
    match (later, deed) {
        (Deed::Revoke { host }, Deed::Enrol { host: enrolled, .. }) => host == enrolled,
        (Deed::RemoveReader { name }, Deed::AddReader { name: added }) => name == added,
        _ => false,
    }
}

/// What was done is in the store and in the audit trail; `is_sure`: nobody had begun to take it back.
fn check_deed(found: &Found, deed: &Deed, is_sure: bool) -> anyhow::Result<()> {
    match deed {
        Deed::Dispatcher { key } => {
            ensure!(
                found.dispatchers.iter().any(|row| row.public_key == *key),
                "a dispatcher is gone"
            );
            is_recorded(found, "dispatcher.added", None)
        }
        Deed::Enrol { host, key, .. } => {
            let row = found.hosts.iter().find(|row| row.name == *host);
            let row = row.with_context(|| format!("host {host} is gone"))?;
            let is_good =
                row.state == HostState::Enrolled || (!is_sure && row.state == HostState::Revoked);
            ensure!(is_good, "host {host} is {:?}", row.state);
            ensure!(
                found.host_keys.iter().any(|row| row.public_key == *key),
                "the key of {host} is gone"
            );
            is_recorded(found, "host.enrolled", Some(host))
        }
        Deed::Revoke { host } => {
            let row = found.hosts.iter().find(|row| row.name == *host);
            let state = row.map(|row| row.state);
            ensure!(
                state == Some(HostState::Revoked),
                "revoked host {host} is {state:?}"
            );
            is_recorded(found, "host.revoked", Some(host))
        }
        Deed::AddReader { name } => {
            let is_there = found
                .readers
                .iter()
                .any(|row| row.account.name.as_str() == name);
            ensure!(is_there || !is_sure, "reader {name} is gone");
            is_recorded(found, "reader.added", Some(name))
        }
        Deed::RemoveReader { name } => {
            let is_there = found
                .readers
                .iter()
                .any(|row| row.account.name.as_str() == name);
            ensure!(!is_there, "removed reader {name} is back");
            is_recorded(found, "reader.removed", Some(name))
        }
        Deed::Command { host, sandbox, .. } => {
            let is_there = found
                .sandboxes
                .iter()
                .any(|row| row.host == *host && row.id == *sandbox);
            ensure!(is_there, "sandbox {sandbox} is gone");
            is_recorded(
                found,
                "sandbox.launch_requested",
                Some(&format!("{host}/{sandbox}")),
            )
        }
        Deed::Report {
            host,
            sandbox,
            state,
            ..
        } => {
            let row = found
                .sandboxes
                .iter()
                .find(|row| row.host == *host && row.id == *sandbox);
            let stands = row.map(|row| row.state.as_str());
            let is_good = stands == Some(state) || stands == Some("finished");
            ensure!(is_good, "sandbox {sandbox} is {stands:?} and was {state}");
            is_recorded(
                found,
                &format!("sandbox.{state}"),
                Some(&format!("{host}/{sandbox}")),
            )
        }
    }
}

fn is_recorded(found: &Found, name: &str, subject: Option<&str>) -> anyhow::Result<()> {
    let mut rows = found.audit.iter();
    let is_there =
        rows.any(|row| row.name == name && subject.is_none_or(|subject| row.subject == subject));
    ensure!(is_there, "the audit trail has no {name} of {subject:?}");
    Ok(())
}

/// A reader's session is there once it was kept, and its cursor is not past anything that it had not acknowledged.
fn check_reading(found: &Found, reading: &Reading, cut_ns: u64) -> anyhow::Result<()> {
    let Some(session) = &found.session else {
        ensure!(reading.kept_ns >= cut_ns, "the reader's session is gone");
        return Ok(());
    };
    let Some(next) = session.next else {
        bail!("the reader's session has no cursor");
    };
    ensure!(
        next <= found.next,
        "the reader's cursor is at {next}, past the journal's end, {}",
        found.next
    );
    let acknowledged: BTreeMap<_, _> = reading.acknowledged.iter().rev().copied().collect();
    let Some(first) = reading.acknowledged.first() else {
        return Ok(());
    };
    // What came before the first that it got was before its subscription.
    for record in found.of_kind(RecordKind::Event) {
        let is_seen = acknowledged
            .get(&record.offset)
            .is_some_and(|time| *time < cut_ns);
        let is_owed = record.offset >= first.0 && !is_seen;
        ensure!(
            !is_owed || record.offset >= next,
            "the reader's cursor is at {next}, and it has not acknowledged {}",
            record.offset
        );
    }
    Ok(())
}
