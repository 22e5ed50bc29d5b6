//! `outhaul events`: everything that hosts, sandboxes and dispatchers said, in the order the broker took it.

use protocol::id::{HostId, SandboxId};

use super::{
    Context, api,
    follow::{Follower, Query},
    order,
    output::Form,
    verify::Start,
};
use crate::{core::span::Moment, shell::clock};

#[derive(Debug, clap::Args)]
pub(super) struct EventsArgs {
    /// Only this host's
    #[arg(long, value_name = "HOST")]
    host: Option<HostId>,
    /// Only this sandbox's
    #[arg(long, value_name = "SANDBOX")]
    sandbox: Option<SandboxId>,
    /// Wait for new ones, without end
    #[arg(long, short = 'f')]
    follow: bool,
    /// Start at this record [default: the first; with --follow, the next]
    #[arg(long, value_name = "OFFSET", conflicts_with = "since")]
    from: Option<u64>,
    /// Start with what came at this time or later, by the broker's clock: 2026-11-28T05:00:00Z, 2026-11-28, or 10m for so long ago
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// End before what came at this time or later
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<Moment>,
}

pub(super) async fn execute(context: &Context, args: EventsArgs) -> anyhow::Result<u8> {
    let now = clock::unix();
    let to = match args.until {
        Some(until) => Some(api::offset_since(&context.client, until.at(now)).await?),
        None => None,
    };
    let from = match (args.from, args.since) {
        (Some(from), _) => from,
        (None, Some(since)) => api::offset_since(&context.client, since.at(now)).await?,
        (None, None) if args.follow => api::status(&context.client).await?.next_offset,
        (None, None) => 0,
    };
    let start = if from == 0 {
        Start::Origin
    } else {
        Start::Midway
    };
    let query = Query {
        from,
        to,
        host: args.host,
        sandbox: args.sandbox,
        follow: args.follow,
    };
    let client = context.client.clone();
    let mut follower = Follower::new(client, context.known_hosts()?, query, start);
    // Whose commands the broker relays is its own word; a command's signature is still the dispatcher's.
    let registered = api::dispatchers(&context.client).await?;
    let own = context
        .key_path()
        .and_then(|path| order::read_key(&path))
        .map(|key| key.public());
    let dispatchers = registered
        .iter()
        .filter_map(|dispatcher| dispatcher.key.parse().ok())
        .chain(own.ok())
        .collect();
    follower.follow_mut().set_dispatchers(dispatchers);
    while let Some(lines) = follower.next().await? {
        for line in lines {
            context.output.line(&line, Form::Listing)?;
        }
    }
    Ok(u8::from(follower.follow().failures() > 0))
}
