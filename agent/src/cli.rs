//! The command line. Parsing it does nothing; what it says becomes settings in one place.

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Config, RawConfig};

const EXAMPLES: &str = "\
Examples:
  outhaul-agent run --bundle ./edge-1 --policy ./policy.toml
  outhaul-agent egress --bundle ./edge-1
  outhaul-agent config --print --bundle ./edge-1 > agent.toml
  outhaul-agent status
  outhaul-agent identity --bundle ./edge-1

Exit codes: 0 ended as asked, 1 failed, 2 wrong usage; `status` has more, see its help.";

/// The Outhaul operator: runs sandboxes on this host for those you allow, and dials out only.
#[derive(Debug, Parser)]
#[command(name = "outhaul-agent", version, about, after_help = EXAMPLES)]
pub struct Cli {
    /// Settings file; the environment (OUTHAUL_AGENT_…) and flags win over it
    #[arg(long, global = true, env = "OUTHAUL_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrol this host if it is new, connect, and run what dispatchers you listed ask for
    ///
    /// Opens no port. Sandboxes keep running when this program is stopped, and are taken up again when it is back.
    /// The first start redeems the install key, in the bundle or in the state directory, which is used up and removed then.
    Run(RawConfig),
    /// Serve sandboxes their one way out, to the broker and nowhere else
    ///
    /// A process of its own, so that restarting the operator cuts no stream. Start it beside `run`, with the same settings. In a
    /// container it needs `--pid host`, to see which process of a sandbox asks.
    Egress(RawConfig),
    /// Show the settings that are in force
    Config {
        /// Print them as a settings file
        #[arg(long, required = true)]
        print: bool,
        /// The settings.
        #[command(flatten)]
        raw: RawConfig,
    },
    /// Show who this host is and whom it trusts: its keys, the dispatchers it obeys, the broker's authority, the audit key it witnesses
    Identity {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The settings.
        #[command(flatten)]
        raw: RawConfig,
    },
    /// Show how the operator does: connected or why not, its token, what runs, and what its witness found
    ///
    /// Reads what the operator last wrote to the state directory; nothing is asked over a network.
    /// Exit codes: 0 connected and at work, 1 it cannot be told, 3 not connected, 4 no operator runs,
    /// 5 stopped by the witness: the broker's audit trail contradicts what was seen of it before.
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The settings.
        #[command(flatten)]
        raw: RawConfig,
    },
    /// After a restore of the broker: show what went backwards, and go on from what it shows now
    ///
    /// This host keeps the newest checkpoint of the broker's audit trail. When the broker shows one that does not go on from it, the host
    /// obeys no command until its owner decides here. Ask whoever runs the broker whether it was restored; if it was not, its history was
    /// rewritten, and the notes in the state directory's `evidence` folder show it.
    AcceptRestore {
        /// Go on; without this, nothing is changed
        #[arg(long)]
        yes: bool,
        /// The settings.
        #[command(flatten)]
        raw: RawConfig,
    },
    /// Print a script that completes this program's arguments in your shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Cli {
    /// Decides the settings of a command: its flags and environment, over the settings file.
    ///
    /// # Errors
    /// If the file cannot be read, or a setting means nothing.
    pub fn settle(config: Option<PathBuf>, raw: RawConfig) -> anyhow::Result<Config> {
        let under = match config {
            Some(path) => RawConfig::read(&path)?,
            None => RawConfig::default(),
        };
        Config::try_from(raw.over(under))
    }

    /// The completion script.
    #[must_use]
    pub fn completions(shell: Shell) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Self::command(), "outhaul-agent", &mut script);
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_understood() {
        for words in [
            &[
                "run",
                "--bundle",
                "b",
                "--state-dir",
                "s",
                "--policy",
                "p",
                "--shim",
                "x",
            ][..],
            &[
                "run",
                "--proxy",
                "http://p:1",
                "--docker-socket",
                "/d",
                "--run-dir",
                "/r",
            ],
            &[
                "egress",
                "--run-dir",
                "/r",
                "--broker",
                "b:1",
                "--config",
                "f",
            ],
            &["config", "--print"],
            &["identity", "--json"],
            &["status", "--json", "--state-dir", "s"],
            &["accept-restore", "--yes"],
            &["completions", "bash"],
        ] {
            let line = std::iter::once("outhaul-agent").chain(words.iter().copied());
            assert!(Cli::try_parse_from(line).is_ok(), "{words:?}");
        }
        for words in [&[][..], &["config"], &["run", "--token", "x"], &["launch"]] {
            let line = std::iter::once("outhaul-agent").chain(words.iter().copied());
            assert!(Cli::try_parse_from(line).is_err(), "{words:?}");
        }
    }

    #[test]
    fn completions_know_the_commands() {
        let script = String::from_utf8(Cli::completions(Shell::Bash)).unwrap();
        assert!(script.contains("egress") && script.contains("--state-dir"));
    }
}
