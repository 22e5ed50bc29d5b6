//! `outhaul logs`: what a sandbox wrote, verified from its first batch on.

use super::{
    Context, api,
    follow::{Follower, Query},
    output::Form,
    run::TAIL_WAIT,
    verify::Start,
    watch::{Phase, Watch},
};

#[derive(Debug, clap::Args)]
pub(super) struct LogsArgs {
    /// Go on until the sandbox ends
    #[arg(long, short = 'f')]
    follow: bool,
    /// The sandbox, or HOST/SANDBOX where two hosts have one of that name
    #[arg(value_name = "SANDBOX")]
    name: api::Name,
}

pub(super) async fn execute(context: &Context, args: LogsArgs) -> anyhow::Result<u8> {
    let found = api::find(&context.client, &args.name).await?;
    let query = Query {
        from: found.first_offset.unwrap_or(0),
        host: Some(found.host.clone()),
        sandbox: Some(found.sandbox.clone()),
        follow: args.follow,
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
            context.output.line(&line, Form::Plain)?;
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
