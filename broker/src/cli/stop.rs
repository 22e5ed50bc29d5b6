//! `outhaul stop`: end a sandbox, and wait until its host says that it has ended.

use std::time::Duration;

use anyhow::{Context as _, bail};
use protocol::{
    command::{Order, Stop},
    id::CommandId,
    limits::LEEWAY_S,
    report::News,
};
use serde_json::json;

use super::{
    Context, api,
    follow::{Follower, Query},
    order, units,
    verify::{Line, Start, What},
    watch::reason_text,
};

#[derive(Debug, clap::Args)]
pub(super) struct StopArgs {
    /// Between the request to end and the end
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = units::parse_duration)]
    grace: Duration,
    /// How long the command waits for a host that is away, before it is void
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = units::parse_duration)]
    expires: Duration,
    /// The sandbox, or HOST/SANDBOX where two hosts have one of that name
    #[arg(value_name = "SANDBOX")]
    name: api::Name,
}

pub(super) async fn execute(context: &mut Context, args: StopArgs) -> anyhow::Result<u8> {
    let key = order::read_key(&context.key_path()?)?;
    let found = api::find(&context.client, &args.name).await?;
    let (host, sandbox) = (found.host, found.sandbox);
    let stop = Order::Stop(Stop {
        sandbox: sandbox.clone(),
        grace_s: args.grace.as_secs(),
    });
    let sent = order::send(&context.client, &key, &host, stop, args.expires)
        .await
        .with_context(|| format!("stop {sandbox} on {host}"))?;
    let query = Query {
        from: sent.offset,
        to: None,
        host: Some(host.clone()),
        sandbox: Some(sandbox.clone()),
        follow: true,
    };
    let client = context.client.clone();
    let follower = Follower::new(client, context.known_hosts()?, query, Start::Origin);
    context
        .output
        .begin(&format!("{sandbox}: waiting for {host} to stop it"));
    let wait = args.expires + args.grace + Duration::from_secs(LEEWAY_S);
    let answer = tokio::time::timeout(wait, answered(context, follower, sent.id)).await;
    context.output.end();
    match answer {
        Err(_) => bail!(
            "{host} did not say that it stopped {sandbox}: is it connected? See `outhaul host list`"
        ),
        Ok(answer) => answer?,
    }
    if context.output.is_json() {
        let stopped = json!({ "host": host, "sandbox": sandbox, "stopped": true });
        context.output.json(&stopped)?;
    } else {
        context.output.text(&format!("{sandbox}\n"))?;
    }
    Ok(0)
}

/// Waits for what the host says to our command.
async fn answered(
    context: &Context,
    mut follower: Follower,
    command: CommandId,
) -> anyhow::Result<()> {
    while let Some(lines) = follower.next().await? {
        for line in lines {
            if is_answer(&line, command)? {
                return Ok(());
            }
            if let What::Note(text) | What::Distrusted(text) = &line.what {
                context.output.remark(text)?;
            }
        }
    }
    bail!("the records ended before the host answered")
}

fn is_answer(line: &Line, command: CommandId) -> anyhow::Result<bool> {
    match &line.what {
        What::Report(News::Stopped(stopped)) => Ok(stopped.command == command),
        What::Report(News::Refused(refused)) if refused.command == command => bail!(
            "{} was not stopped: {}",
            refused.sandbox,
            reason_text(refused.reason, &refused.detail)
        ),
        What::Unverified(why @ super::verify::Unverified::Report(_)) => {
            bail!("the host's answer cannot be verified: {why}")
        }
        What::Event(_)
        | What::Report(_)
        | What::Asked { .. }
        | What::Unverified(_)
        | What::Distrusted(_)
        | What::Missing(_)
        | What::Purged { .. }
        | What::Withdrawn(_)
        | What::Note(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::verify::tests::{TIME, host, sandbox};
    use super::*;
    use protocol::report::{Reason, Refused, Stopped};

    const OURS: CommandId = CommandId([1; 16]);

    fn answer(news: News) -> anyhow::Result<bool> {
        let line = Line {
            offset: 1,
            incarnation: 0,
            time: TIME,
            host: Some(host()),
            sandbox: Some(sandbox()),
            what: What::Report(news),
        };
        is_answer(&line, OURS)
    }

    #[test]
    fn only_the_answer_to_our_command_counts() {
        let stopped = |command| {
            answer(News::Stopped(Stopped {
                command,
                sandbox: sandbox(),
            }))
        };
        assert!(stopped(OURS).unwrap());
        assert!(!stopped(CommandId([2; 16])).unwrap());
        let refused = |command| {
            answer(News::Refused(Refused {
                command,
                sandbox: sandbox(),
                reason: Reason::NotFound,
                detail: String::new(),
            }))
        };
        assert!(refused(OURS).is_err());
        assert!(!refused(CommandId([2; 16])).unwrap());
    }
}
