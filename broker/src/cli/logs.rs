//! `outhaul logs`: what a sandbox wrote, verified from its first batch on.

use super::{
    Context, api,
    follow::{Follower, Query},
    output::Form,
    run::TAIL_WAIT,
    verify::{Start, What},
    watch::{Phase, Watch},
};
use crate::{core::span::Moment, shell::clock};

#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// Go on until the sandbox ends
    #[arg(long, short = 'f')]
    follow: bool,
    /// Show what came at this time or later, by the broker's clock: 2026-11-28T05:00:00Z, 2026-11-28, or 10m for so long ago. What was
    /// before is verified all the same
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// The sandbox, or HOST/SANDBOX where two hosts have one of that name
    #[arg(value_name = "SANDBOX")]
    name: api::Name,
}

pub(super) async fn execute(context: &Context, args: LogsArgs) -> anyhow::Result<u8> {
    let found = api::find(&context.client, &args.name).await?;
    let query = Query {
        from: found.first_offset.unwrap_or(0),
        to: None,
        host: Some(found.host.clone()),
        sandbox: Some(found.sandbox.clone()),
        follow: args.follow,
    };
    let shown_from = match args.since {
        Some(since) => api::offset_since(&context.client, since.at(clock::unix())).await?,
        None => 0,
    };
    let client = context.client.clone();
    let mut follower = Follower::new(client, context.known_hosts()?, query, Start::Origin);
    let mut watch = Watch::new(found.host.clone(), found.sandbox.clone(), None);
    let is_closed = |follower: &Follower| follower.follow().is_closed(&found.host, &found.sandbox);
    loop {
        let is_over = matches!(watch.phase(), Phase::Ended(_) | Phase::Refused(_));
        let is_whole = is_over && (!watch.was_launched() || is_closed(&follower));
        let lines = if !args.follow {
            follower.next().await?
        } else if is_whole {
            None
        } else if is_over {
            let last = tokio::time::timeout(TAIL_WAIT, follower.next()).await;
            last.unwrap_or(Ok(None))?
        } else {
            follower.next().await?
        };
        let Some(lines) = lines else { break };
        for line in lines {
            watch.note(&line);
            let is_old = line.offset < shown_from && matches!(line.what, What::Event(_));
            if !is_old {
                context.output.line(&line, Form::Plain)?;
            }
        }
    }
    remark(context, &watch, is_closed(&follower))?;
    let lost_its_end = matches!(watch.phase(), Phase::Ended(ended) if ended.reason.is_none())
        && watch.was_launched()
        && !is_closed(&follower);
    Ok(u8::from(follower.follow().failures() > 0 || lost_its_end))
}

fn remark(context: &Context, watch: &Watch, is_closed: bool) -> anyhow::Result<()> {
    let withheld = watch.withheld();
    if withheld.bytes > 0 {
        context.output.remark(&format!(
            "{withheld} stayed on the host, by its content policy"
        ))?;
    }
    if matches!(watch.phase(), Phase::Ended(_)) && watch.was_launched() && !is_closed {
        context
            .output
            .remark("warning: the end of its output did not arrive")?;
    }
    Ok(())
}
