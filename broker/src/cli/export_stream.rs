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
    report,
    stream_file::{Check, Fault},
    time::UnixMillis,
};

use super::{
    Context,
    api::{self, HostKey},
    follow::{Query, Records},
    known_hosts, verify_stream,
};

#[derive(Debug, clap::Args)]
pub(super) struct ExportStreamArgs {
    /// The sandbox, or HOST/SANDBOX where two hosts have one of that name
    #[arg(value_name = "SANDBOX")]
    name: api::Name,
    /// A new file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn execute(context: &Context, args: ExportStreamArgs) -> anyhow::Result<u8> {
    anyhow::ensure!(
        !super::place::is_taken(&args.file),
        "export to {}: a file is there already",
        args.file.display()
    );
    let found = api::find(&context.client, &args.name).await?;
    let query = Query {
        from: found.first_offset.unwrap_or(0),
        to: None,
        host: Some(found.host.clone()),
        sandbox: Some(found.sandbox.clone()),
        follow: false,
    };
    let listed = api::host_keys(&context.client, &found.host).await?;
    let first_report = first_report(context, &query).await?;
    let chain = chain_of(&listed, &found.host, first_report.as_ref())
        .with_context(|| format!("export {}/{}", found.host, found.sandbox))?;
    let opening = Opening {
        host: found.host,
        sandbox: found.sandbox,
    };
    let mut check = Check::new(opening, chain.anchor, None);
    let exporting = || format!("export to {}", args.file.display());
    let directory = match args.file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let new = tempfile::NamedTempFile::new_in(directory).with_context(exporting)?;
    let mut writer = BufWriter::new(new);
    let fault = write(context, &mut writer, &mut check, chain.links, query)
        .await
        .with_context(exporting)?;
    let new = writer.into_inner().map_err(|error| error.into_error());
    let new = new.with_context(exporting)?;
    new.as_file().sync_all().with_context(exporting)?;
    new.persist_noclobber(&args.file)
        .map_err(|error| error.error)
        .with_context(exporting)?;
    verify_stream::show(context, &check, fault)?;
    context.output.remark(&format!(
        "written to {}; anybody can judge it: outhaul verify-stream --host-key {} {}",
        args.file.display(),
        chain.anchor,
        args.file.display()
    ))?;
    if context.known_hosts()?.anchor(&check.opening().host)? != Some(chain.anchor) {
        context.output.remark(
            "warning: that key is the broker's word: compare it with what `outhaul-agent identity` prints on the host",
        )?;
    }
    Ok(u8::from(fault.is_some()))
}

/// Writes the whole file; what of it does not verify. That is written too: it is evidence.
async fn write(
    context: &Context,
    out: &mut impl std::io::Write,
    check: &mut Check,
    links: Vec<Vec<u8>>,
    query: Query,
) -> anyhow::Result<Option<Fault>> {
    let host = check.opening().host.clone();
    let successions = links.into_iter().map(|payload| Record {
        offset: 0,
        received: UnixMillis(0),
        kind: Kind::Succession,
        host: Some(host.clone()),
        sandbox: None,
        payload,
    });
    out.write_all(&check.opening().encode())?;
    let mut fault = None;
    let mut put = |record: &Record| {
        if fault.is_none() {
            fault = check.record(record).err();
        }
        out.write_all(&record.encode())
    };
    let mut records = Records::new(context.client.clone(), query);
    for succession in successions {
        put(&succession)?;
    }
    while let Some(record) = records.next().await? {
        put(&record)?;
    }
    Ok(fault.or_else(|| check.finish().err()))
}

/// The first report that concerns the sandbox: it shows which of the host's chains of keys signed its stream.
async fn first_report(context: &Context, query: &Query) -> anyhow::Result<Option<Record>> {
    let mut records = Records::new(context.client.clone(), query.clone());
    while let Some(record) = records.next().await? {
        if record.kind == Kind::Report {
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
        last = Some(Chain { anchor, links });
        if is_signer {
            break;
        }
    }
    last.with_context(|| format!("host {host} has not enrolled yet: there is nothing to export"))
}
