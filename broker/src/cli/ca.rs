//! `outhaul ca`: which authorities hosts trust, and how the broker's own is followed by the next.

use anyhow::Context as _;
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{Context, units};
use crate::shell::clock;

#[derive(Debug, clap::Subcommand)]
pub(super) enum CaCommand {
    /// List the authorities that hosts are to trust, and when they and the server certificate end
    #[command(after_help = "Examples:\n  outhaul ca list\n  outhaul ca list --pem > ca.crt")]
    List {
        /// Print the certificates themselves: the `ca.crt` of a bundle
        #[arg(long)]
        pem: bool,
    },
    /// Follow the broker's authority with a new one, now
    ///
    /// It does so by itself two years before the end. The old authority certifies the new one: hosts that know only the old one go on
    /// connecting, learn of the new one when they renew their token (within the hour), and need no new bundle. Live connections are
    /// not touched.
    #[command(after_help = "Example:\n  outhaul ca rotate")]
    Rotate,
    /// Forget the authorities before the one in use
    ///
    /// Hosts that have not been heard of since the rotation cannot connect any more, until their bundle's ca.crt is replaced by what
    /// `outhaul ca list --pem` prints. For when an old key may be in other hands; else let them end by themselves. A host goes on
    /// trusting what its own bundle names: replace ca.crt there, too.
    #[command(after_help = "Example:\n  outhaul ca rotate && outhaul ca retire --yes")]
    Retire {
        /// Do it
        #[arg(long, required = true)]
        yes: bool,
    },
}

/// The broker's answer.
#[derive(Debug, Deserialize, Serialize)]
struct Certificates {
    authorities: Vec<Authority>,
    server: Server,
}

#[derive(Debug, Deserialize, Serialize)]
struct Authority {
    place: String,
    fingerprint: String,
    not_after_ms: u64,
    pem: String,
}

#[derive(Debug, Deserialize, Serialize)]
struct Server {
    fingerprint: String,
    not_after_ms: u64,
}

#[derive(Serialize)]
struct Nothing {}

pub(super) async fn execute(context: &Context, command: CaCommand) -> anyhow::Result<u8> {
    let (path, doing) = match command {
        CaCommand::List { pem } => {
            let found: Certificates = context
                .client
                .get("/v1/certificates")
                .await
                .context("list certificates")?;
            if pem {
                let all: String = found.authorities.into_iter().map(|one| one.pem).collect();
                context.output.text(&all)?;
                return Ok(0);
            }
            return show(context, &found);
        }
        CaCommand::Rotate => ("/v1/certificates/rotate", "rotate the authority"),
        CaCommand::Retire { .. } => ("/v1/certificates/retire", "retire authorities"),
    };
    let found: Certificates = context
        .client
        .post(path, &Nothing {})
        .await
        .context(doing)?;
    show(context, &found)
}

fn show(context: &Context, found: &Certificates) -> anyhow::Result<u8> {
    if context.output.is_json() {
        context.output.json(found)?;
        return Ok(0);
    }
    let now = clock::unix();
    let row = |place: &str, not_after_ms: u64, fingerprint: &str| {
        let left = UnixMillis(not_after_ms).since(now).as_secs() / (24 * 3600);
        let date = units::date(UnixMillis(not_after_ms));
        let day = date.get(..10).unwrap_or_default();
        let end = format!("{day} ({left} days)");
        vec![place.to_owned(), end, fingerprint.to_owned()]
    };
    let mut rows = vec![row(
        "server",
        found.server.not_after_ms,
        &found.server.fingerprint,
    )];
    for one in &found.authorities {
        let place = match one.place.as_str() {
            "current" => "authority",
            "past" => "authority before",
            _ => "authority from file",
        };
        rows.push(row(place, one.not_after_ms, &one.fingerprint));
    }
    context
        .output
        .table(&["CERTIFICATE", "ENDS", "SHA-256"], &rows)?;
    Ok(0)
}
