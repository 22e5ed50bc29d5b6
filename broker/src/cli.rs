//! The command line `outhaul`: what people and programs type. Parsing does nothing; [`Cli::execute`] does.

mod access;
mod api;
mod audit;
mod backup;
mod bundle;
mod ca;
mod client;
mod dispatcher;
mod events;
mod export_host;
mod export_stream;
#[cfg(test)]
mod fake_broker;
mod follow;
mod host;
mod inspect;
mod journal;
mod key;
mod known_hosts;
mod login;
mod logs;
mod order;
mod output;
mod passphrase;
mod place;
mod ps;
mod reach;
mod reader;
mod render;
mod restore;
mod run;
mod sandbox;
mod stop;
mod terminal;
mod units;
mod verify;
mod verify_stream;
mod watch;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, ServeFlags};

const EXIT_CODES: &str = "\
Exit codes:
  0        done
  1        failed; also: something did not verify
  2        the command line makes no sense
  125      `run`: Outhaul failed (refused, unreachable, not verified), not the sandbox
  126 127  `run`: the sandbox's command cannot be executed, or was not found
  130      `run`: left with Ctrl-C, twice; the sandbox may still run
  other    `run`: the sandbox's own

First steps:
  outhaul serve --public-address NAME:PORT  the broker, on a machine that hosts can reach there
  outhaul dispatcher init                   your key: hosts obey it, the broker never has it
  outhaul host add edge-1 --kind docker     a bundle to install on the host
  outhaul run IMAGE                         once the host is connected: `outhaul host list`";

/// Runs AI-agent sandboxes inside boundaries that their owners govern
///
/// `outhaul serve` is the broker; every other command talks to it over its unix socket, or after `outhaul login` over HTTPS. What hosts and sandboxes said is verified
/// before it is printed: reports with their host's keys (pinned at first sight in ~/.config/outhaul/known_hosts.toml), events with
/// their sandbox's. What does not verify is not shown; a warning says so.
#[derive(Debug, Parser)]
#[command(name = "outhaul", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand knows.
#[derive(Debug, clap::Args)]
struct Shared {
    /// The broker's socket [default: outhaul.sock in its data directory]
    #[arg(long, global = true, env = "OUTHAUL_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    #[command(flatten)]
    place: login::Where,
    /// Your dispatcher key [default: ~/.config/outhaul/dispatcher.key]
    #[arg(
        long,
        global = true,
        env = "OUTHAUL_DISPATCHER_KEY",
        value_name = "FILE"
    )]
    dispatcher_key: Option<PathBuf>,
    /// Print JSON: one value, or one object on each line for what comes bit by bit
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the broker: the channel to hosts and the control plane
    ///
    /// One process, one TLS port for hosts, one unix socket for this command line, one data directory. The first start makes the
    /// keys and the certificate authority, which later starts keep.
    #[command(
        after_help = "Example:\n  outhaul serve --data-dir /var/lib/outhaul --public-address broker.example:8443"
    )]
    Serve(ServeFlags),
    /// Your key: the one that signs what you ask hosts to do
    #[command(subcommand)]
    Dispatcher(dispatcher::DispatcherCommand),
    /// Hosts: where sandboxes run
    #[command(subcommand)]
    Host(host::HostCommand),
    /// Sandboxes: cutting one off
    #[command(subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Readers: who may read over the network, and who may run load tests
    #[command(subcommand)]
    Reader(reader::ReaderCommand),
    /// Access: who may use this broker over HTTPS, as viewer, dispatcher or admin
    #[command(subcommand)]
    Access(access::AccessCommand),
    /// Use a broker on another machine, over HTTPS with an access token
    ///
    /// The token is read from --token-file or from standard input, never from the command line. Once the broker has taken it, every
    /// command that names neither --socket nor --url talks to that broker. URL, authority and token are kept in
    /// ~/.config/outhaul/login.toml, which nobody else may read.
    #[command(
        after_help = "Examples:\n  outhaul login --url https://broker.example:8443 --cafile ca.crt --token-file ada.token\n  outhaul login --url https://broker.example:8443 --cafile ca.crt < ada.token"
    )]
    Login,
    /// Forget the login: commands talk to the broker on this machine again
    #[command(after_help = "Example:\n  outhaul logout")]
    Logout,
    /// Certificates: what hosts trust, and the authority's rotation
    #[command(subcommand)]
    Ca(ca::CaCommand),
    /// Keys that last: which there are, and the issuer's rotation
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Copy the broker's data directory while it runs, so that it can be restored
    ///
    /// The store and the journal, as of one moment, into a new directory, with a manifest that holds the hash of each file. Run it where the
    /// broker runs, as its user. The private keys are apart: --keys-to writes them to a file of their own, under a passphrase. The
    /// audit trail has it before it begins. Segments of the journal that are complete are hard links where that is possible: copy
    /// the backup to another disk. The journal of load tests is not part of it.
    #[command(
        after_help = "Examples:\n  outhaul backup --to /backup/monday\n  outhaul backup --to /backup/monday --keys-to /safe/keys.sealed --passphrase-file /safe/passphrase\n  outhaul backup --data-dir /var/lib/outhaul --to /backup/stopped\n  outhaul backup verify /backup/monday"
    )]
    Backup(backup::BackupArgs),
    /// Make a data directory from a backup: a new incarnation of the broker
    ///
    /// Verifies the backup, and restores it into a new directory. What the broker acknowledged after the backup is gone: its offsets are
    /// withdrawn, never given again, and the restored broker goes on with offsets past all of them. Readers go on from where they
    /// were, and are told what is withdrawn; sandboxes go on with their next batch, and the chain shows which are missing.
    #[command(
        after_help = "Examples:\n  outhaul restore --from /backup/monday --data-dir /var/lib/outhaul --keys-from /safe/keys.sealed\n  outhaul restore --from /backup/monday --data-dir /new --keys-from /safe/keys.sealed --compare /var/lib/outhaul.broken"
    )]
    Restore(restore::RestoreArgs),
    /// The journal: what it keeps, what it dropped and why, and purging
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Launch a sandbox and follow it; the exit code is the sandbox's
    ///
    /// Ctrl-C asks the host to stop the sandbox; a second one leaves it and returns. Everything after IMAGE belongs to the
    /// sandbox's command, so flags go before it.
    #[command(
        after_help = "Examples:\n  outhaul run --host edge-1 --content full tools:1 make test\n  outhaul run --detach --source project --memory 4GiB agent:2"
    )]
    Run(Box<run::RunArgs>),
    /// List sandboxes, as the broker's records have them
    #[command(after_help = "Example:\n  outhaul ps -a")]
    Ps(ps::PsArgs),
    /// Print what a sandbox wrote, verified
    #[command(
        after_help = "Examples:\n  outhaul logs -f tools-k3f7qa\n  outhaul logs edge-1/build-7 > build.log"
    )]
    Logs(logs::LogsArgs),
    /// Stop a sandbox, and wait until it has stopped
    #[command(after_help = "Example:\n  outhaul stop --grace 30s tools-k3f7qa")]
    Stop(stop::StopArgs),
    /// List what hosts, sandboxes and dispatchers said, verified, in the order the broker took it
    #[command(
        after_help = "Examples:\n  outhaul events --follow --host edge-1\n  outhaul events --json --from 1200"
    )]
    Events(events::EventsArgs),
    /// The audit trail: every change of rights, signed, and what proves it
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Print any message, token or key in readable form, with what of it verifies
    ///
    /// Reads what travels between host and platform: tokens, commands, reports, batches of events, the exchange's requests and answers,
    /// and keys as people copy them. Secrets are not shown. It asks no broker.
    #[command(
        after_help = "Examples:\n  outhaul inspect token.bin --key ohi1_…\n  xxd -p command.bin | outhaul inspect --json -"
    )]
    Inspect(inspect::InspectArgs),
    /// Write a sandbox's stream to a file that anybody can judge
    ///
    /// The file holds what the host, the sandbox and dispatchers signed, as it was sent, and the host's chain of keys.
    #[command(
        after_help = "Examples:\n  outhaul export-stream edge-1/build-7 build-7.stream\n  outhaul export-stream --since 1h build-7 build-7.part"
    )]
    ExportStream(export_stream::ExportStreamArgs),
    /// Write the streams of every sandbox of a host, or a part of each, to a directory of such files
    #[command(after_help = "Example:\n  outhaul export-host --since 24h edge-1 yesterday")]
    ExportHost(export_host::ExportHostArgs),
    /// Judge an exported stream, offline, from the host's key alone
    ///
    /// Says whether every event between the first and the last is there, once, in order, as the sandbox sealed it; which item is the
    /// first that does not verify; and what is missing.
    #[command(
        after_help = "Examples:\n  outhaul verify-stream build-7.stream\n  outhaul verify-stream --host-key ohh1_… --json build-7.stream"
    )]
    VerifyStream(verify_stream::VerifyStreamArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  outhaul completions bash > /etc/bash_completion.d/outhaul")]
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
}

impl Cli {
    /// What to run with, if this is the broker itself, to be given to [`serve`]; everything else is one conversation.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn server(&self) -> anyhow::Result<Option<Config>> {
        let Command::Serve(flags) = &self.command else {
            return Ok(None);
        };
        let socket = self.shared.socket.clone();
        let flags = ServeFlags {
            socket,
            ..flags.clone()
        };
        Config::load(flags).map(Some)
    }

    /// The exit code of an error.
    #[must_use]
    pub fn failure(&self) -> u8 {
        match self.command {
            Command::Run(_) => watch::EXIT_OUTHAUL,
            _ => 1,
        }
    }

    /// Does what was asked; the exit code.
    ///
    /// # Errors
    /// What failed, to be printed once.
    pub async fn execute(self) -> anyhow::Result<u8> {
        if let Some(config) = self.server()? {
            return serve(config).await;
        }
        let mut context = match self.command {
            Command::Completions { shell } => return completions(shell),
            _ => Context::new(&self.shared),
        };
        let place = self.shared.place;
        match self.command {
            Command::Dispatcher(command) => dispatcher::execute(&context, command).await,
            Command::Host(command) => host::execute(&context, command).await,
            Command::Access(command) => access::execute(&context, command).await,
            Command::Login => login::login(&context, &place).await,
            Command::Logout => login::logout(&context),
            Command::Sandbox(command) => sandbox::execute(&context, command).await,
            Command::Reader(command) => reader::execute(&context, command).await,
            Command::Ca(command) => ca::execute(&context, command).await,
            Command::Key(command) => key::execute(&context, command).await,
            Command::Backup(args) => backup::execute(&mut context, args).await,
            Command::Restore(args) => restore::execute(&mut context, &args),
            Command::Journal(command) => journal::execute(&context, command).await,
            Command::Run(args) => run::execute(&mut context, *args).await,
            Command::Ps(args) => ps::execute(&context, &args).await,
            Command::Logs(args) => logs::execute(&context, args).await,
            Command::Stop(args) => stop::execute(&mut context, args).await,
            Command::Events(args) => events::execute(&context, args).await,
            Command::Audit(command) => audit::execute(&context, command).await,
            Command::Inspect(args) => inspect::execute(&context, &args),
            Command::ExportHost(args) => export_host::execute(&context, args).await,
            Command::ExportStream(args) => export_stream::execute(&context, args).await,
            Command::VerifyStream(args) => verify_stream::execute(&context, &args),
            Command::Serve(_) | Command::Completions { .. } => Ok(0),
        }
    }
}

/// Is the broker until it is stopped; the exit code.
///
/// # Errors
/// What failed, to be printed once.
pub async fn serve(config: Config) -> anyhow::Result<u8> {
    crate::shell::log::start(config.log.as_deref(), config.log_format)?;
    crate::serve::serve(config).await?;
    Ok(0)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    use std::io::Write as _;
    // Into memory first: the generator panics where it cannot write, as when its reader has gone.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "outhaul", &mut script);
    std::io::stdout()
        .write_all(&script)
        .context("write completions")?;
    Ok(0)
}

/// What a subcommand works with.
#[derive(Debug)]
struct Context {
    client: client::Client,
    output: output::Output,
    environment: place::Environment,
    dispatcher_key: Option<PathBuf>,
}

impl Context {
    fn new(shared: &Shared) -> Self {
        let environment = place::Environment::read();
        let reach = login::reach(&shared.place, shared.socket.clone(), &environment);
        // Whoever asks no broker needs none.
        let reach = reach.unwrap_or_else(|error| reach::Reach::Nowhere(format!("{error:#}")));
        Self {
            client: client::Client::through(reach),
            output: output::Output::new(shared.json),
            environment,
            dispatcher_key: shared.dispatcher_key.clone(),
        }
    }

    /// Where the user's dispatcher key is, or would be.
    fn key_path(&self) -> anyhow::Result<PathBuf> {
        match &self.dispatcher_key {
            Some(path) => Ok(path.clone()),
            None => Ok(self.environment.config_dir()?.join(order::KEY_FILE)),
        }
    }

    /// The keys of hosts that were seen before.
    fn known_hosts(&self) -> anyhow::Result<known_hosts::KnownHosts> {
        Ok(known_hosts::KnownHosts::new(self.environment.config_dir()?))
    }

    /// What the user is called.
    fn user(&self) -> Option<&str> {
        self.environment.user.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_an_example() {
        fn check(command: &clap::Command) {
            for inner in command.get_subcommands() {
                assert!(inner.get_about().is_some(), "{}", inner.get_name());
                if inner.has_subcommands() {
                    check(inner);
                } else {
                    let help = inner.get_after_help().map(ToString::to_string);
                    assert!(
                        help.is_some_and(|help| help.contains("outhaul ")),
                        "{}",
                        inner.get_name()
                    );
                }
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn everything_after_the_image_belongs_to_the_sandbox() {
        let cli = Cli::try_parse_from([
            "outhaul", "run", "--host", "edge-1", "-e", "A=b=c", "web:1", "--json", "-x", "--host",
        ])
        .unwrap();
        assert!(!cli.shared.json);
        assert_eq!(cli.failure(), 125);
        assert!(format!("{:?}", cli.command).contains(r#"["web:1", "--json", "-x", "--host"]"#));
    }

    #[test]
    fn what_makes_no_sense_is_refused_when_parsed() {
        for wrong in [
            &["run"][..],
            &["run", "--memory", "lots", "web:1"],
            &["run", "--host", "Edge_1", "web:1"],
            &["run", "--env", "novalue", "web:1"],
            &["run", "--content", "everything", "web:1"],
            &["host", "add", "edge-1", "--kind", "vm"],
            &["host", "add", "edge 1", "--kind", "docker"],
            &["stop", "a/b/c"],
            &["logs"],
        ] {
            let words = ["outhaul"].iter().chain(wrong);
            let error = Cli::try_parse_from(words).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }
}
