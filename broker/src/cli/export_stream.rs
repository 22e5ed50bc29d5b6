//! `outhaul export-stream`: one sandbox's stream in a file, with all that is needed to judge it offline (`SPEC.md`, chapter 10).

use std::{
    io::BufWriter,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use protocol::{
    exchange,
    id::HostId,
    key::{Host, Public},
    record::{Kind, Opening, Record},
    report::{self, News},
    stream_file::{Check, Fault},
    time::UnixMillis,
};

use super::{
    Context,
    api::{self, HostKey},
    follow::{Query, Records},
    known_hosts, place, verify_stream,
};
use crate::{core::span::Moment, shell::clock};

#[derive(Debug, clap::Args)]
pub(super) struct ExportStreamArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// The sandbox, or HOST/SANDBOX where two hosts have one of that name
    #[arg(value_name = "SANDBOX")]
    name: api::Name,
    /// A new file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Which part, by when it came to the broker. The verdict says what is missing before it, and that the end may be.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct RangeArgs {
    /// Only what came at this time or later: 2026-11-28T05:00:00Z, 2026-11-28, or 10m for so long ago. The verdict then says that
    /// the beginning is not part of the file
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Only what came before this time
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
}

/// Offsets: from the first that is wanted to the first that is not wanted any more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    from: Option<u64>,
    to: Option<u64>,
}

impl RangeArgs {
    /// Where these times stand.
    pub(super) async fn find(self, context: &Context) -> anyhow::Result<Range> {
        let mut range = Range::default();
        for (moment, offset) in [(self.since, &mut range.from), (self.until, &mut range.to)] {
            if let Some(moment) = moment {
                let time = moment.at(clock::unix());
                *offset = Some(api::offset_since(&context.client, time).await?);
            }
        }
        Ok(range)
    }
}

pub(super) async fn execute(context: &Context, args: ExportStreamArgs) -> anyhow::Result<u8> {
    let found = api::find(&context.client, &args.name).await?;
    let range = args.range.find(context).await?;
    let exported = export(context, &found, range, &args.file).await?;
    verify_stream::show(context, &exported.check, exported.fault)?;
    let (file, anchor) = (args.file.display(), exported.anchor);
    context.output.remark(&format!(
        "written to {file}; anybody can judge it: outhaul verify-stream --host-key {anchor} {file}",
    ))?;
    warn_of_anchor(context, &found.host, anchor)?;
    Ok(u8::from(exported.fault.is_some()))
}

/// The broker's word for a host's key is not enough.
pub(super) fn warn_of_anchor(
    context: &Context,
    host: &HostId,
    anchor: Public<Host>,
) -> anyhow::Result<()> {
    if context.known_hosts()?.anchor(host)? != Some(anchor) {
        context.output.remark(
            "warning: that key is the broker's word: compare it with what `outhaul-agent identity` prints on the host",
        )?;
    }
    Ok(())
}

/// A file that was written.
#[derive(Debug)]
pub(super) struct Exported {
    /// What it holds.
    pub(super) check: Check,
    /// What of it does not verify.
    pub(super) fault: Option<Fault>,
    /// The host's first key, by which it was judged.
    pub(super) anchor: Public<Host>,
}

/// Writes what a sandbox said, or a part of it, to a new file.
pub(super) async fn export(
    context: &Context,
    found: &api::Sandbox,
    range: Range,
    file: &Path,
) -> anyhow::Result<Exported> {
    let exporting = || format!("export to {}", file.display());
    anyhow::ensure!(
        !place::is_taken(file),
        "{}: a file is there already",
        exporting()
    );
    let whole = Query {
        to: range.to,
        ..query(found, 0)
    };
    let listed = api::host_keys(&context.client, &found.host).await?;
    let first_report = first_report(context, &whole, |_| true).await?;
    let chain = chain_of(&listed, &found.host, first_report.as_ref())
        .with_context(|| format!("export {}/{}", found.host, found.sandbox))?;
    let part = range.from.filter(|from| *from > whole.from);
    let mut ahead: Vec<Record> = chain
        .links
        .iter()
        .map(|link| succession(found, link))
        .collect();
    if let Some(from) = part {
        // What names the sandbox's key is needed, however long ago it was.
        let before = Query {
            to: Some(from),
            ..whole.clone()
        };
        let names_key = |record: &Record| {
            let report = report::verify(&record.payload, &chain.keys, &found.host);
            report.is_ok_and(|report| matches!(report.value().news, News::Launched(_)))
        };
        ahead.extend(self::first_report(context, &before, names_key).await?);
    }
    let opening = Opening {
        host: found.host.clone(),
        sandbox: found.sandbox.clone(),
        is_part: part.is_some(),
    };
    let mut check = Check::new(opening, chain.anchor, None);
    let new = tempfile::NamedTempFile::new_in(place::directory_of(file)).with_context(exporting)?;
    let mut writer = BufWriter::new(new);
    let wanted = Query {
        from: part.unwrap_or(whole.from),
        ..whole
    };
    let fault = write(context, &mut writer, &mut check, &ahead, wanted)
        .await
        .with_context(exporting)?;
    let new = writer.into_inner().map_err(|error| error.into_error());
    let new = new.with_context(exporting)?;
    new.as_file().sync_all().with_context(exporting)?;
    new.persist_noclobber(file)
        .map_err(|error| error.error)
        .with_context(exporting)?;
    Ok(Exported {
        check,
        fault,
        anchor: chain.anchor,
    })
}

/// Whether a sandbox said anything in that range, or anything was said about it.
pub(super) async fn has_records(
    context: &Context,
    found: &api::Sandbox,
    range: Range,
) -> anyhow::Result<bool> {
    let query = Query {
        to: range.to,
        ..query(found, range.from.unwrap_or(0))
    };
    let mut records = Records::new(context.client.clone(), query);
    while let Some(record) = records.next().await? {
        if record.kind != Kind::Gap {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What concerns a sandbox, from an offset on; never from before its own first.
fn query(found: &api::Sandbox, from: u64) -> Query {
    Query {
        from: found.first_offset.unwrap_or(0).max(from),
        to: None,
        host: Some(found.host.clone()),
        sandbox: Some(found.sandbox.clone()),
        follow: false,
    }
}

fn succession(found: &api::Sandbox, link: &[u8]) -> Record {
    Record {
        offset: 0,
        received: UnixMillis(0),
        kind: Kind::Succession,
        host: Some(found.host.clone()),
        sandbox: None,
        payload: link.to_vec(),
    }
}

/// Writes the whole file; what of it does not verify. That is written too: it is evidence.
async fn write(
    context: &Context,
    out: &mut impl std::io::Write,
    check: &mut Check,
    ahead: &[Record],
    wanted: Query,
) -> anyhow::Result<Option<Fault>> {
    out.write_all(&check.opening().encode())?;
    let mut fault = None;
    let mut put = |record: &Record| {
        if fault.is_none() {
            fault = check.record(record).err();
        }
        out.write_all(&record.encode())
    };
    let mut records = Records::new(context.client.clone(), wanted);
    for record in ahead {
        put(record)?;
    }
    while let Some(record) = records.next().await? {
        put(&record)?;
    }
    Ok(fault.or_else(|| check.finish().err()))
}

/// The first report that concerns the sandbox and is wanted. The first of all shows which of the host's chains of keys signed its stream.
async fn first_report(
    context: &Context,
    query: &Query,
    is_wanted: impl Fn(&Record) -> bool,
) -> anyhow::Result<Option<Record>> {
    let mut records = Records::new(context.client.clone(), query.clone());
    while let Some(record) = records.next().await? {
        if record.kind == Kind::Report && is_wanted(&record) {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// A host's keys from one enrolment to the next.
struct Chain {
    /// The key it enrolled with.
    anchor: Public<Host>,
    /// The signed successions after it.
    links: Vec<Vec<u8>>,
    /// All of them.
    keys: Vec<Public<Host>>,
}

/// The chain whose keys signed `report`; the last one if none did, or if there is no report yet.
fn chain_of(listed: &[HostKey], host: &HostId, report: Option<&Record>) -> anyhow::Result<Chain> {
    let mut last = None;
    for keys in listed.chunk_by(|_, next| next.succession.is_some()) {
        let (first, later) = keys.split_first().context("read the host's keys")?;
        let anchor: Public<Host> = first.key.parse().context("read the host's first key")?;
        let links = later
            .iter()
            .map(known_hosts::link)
            .collect::<Result<Vec<_>, _>>()?;
        let chain = exchange::follow(
            host,
            anchor,
            first.generation,
            links.iter().map(Vec::as_slice),
        )
        .context("follow the host's keys")?;
        let keys: Vec<Public<Host>> = chain.into_iter().map(|(_, key)| key).collect();
        let is_signer =
            report.is_some_and(|report| report::verify(&report.payload, &keys, host).is_ok());
        last = Some(Chain {
            anchor,
            links,
            keys,
        });
        if is_signer {
            break;
        }
    }
    last.with_context(|| format!("host {host} has not enrolled yet: there is nothing to export"))
}
