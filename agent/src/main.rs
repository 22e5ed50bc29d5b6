//! `outhaul-agent`: the operator of a host.

use std::io::{self, Write as _};
use std::process::ExitCode;

use agent::cli::{Cli, Command};
use agent::config::Config;
use agent::drive;
use agent::egress::{self, EgressOptions};
use agent::shell::bundle::Bundle;
use agent::shell::{log, store};
use anyhow::Context as _;
use clap::Parser as _;

fn main() -> ExitCode {
    match decide().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The one place where errors are shown; if standard error is gone there is nobody to tell.
            let _ = writeln!(io::stderr(), "outhaul-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is left to do once the command line was read.
enum Task {
    Run(Box<Config>),
    Egress(Box<EgressOptions>),
    /// It was done on the way.
    Done,
}

/// Works for as long as the program lives. Nothing of the command line is on the stack below it.
fn run(task: Task) -> anyhow::Result<()> {
    match task {
        Task::Run(config) => drive::run(&config),
        Task::Egress(options) => egress::run(*options),
        Task::Done => Ok(()),
    }
}

/// Reads the command line and the settings, and does what takes but a moment. Never inlined: what it needs of the stack, 20 KB, is
/// given back before the program goes to work.
#[inline(never)]
fn decide() -> anyhow::Result<Task> {
    let cli = Cli::parse();
    match cli.command {
        Command::Run(raw) => {
            let config = Cli::settle(cli.config, raw)?;
            log::start(&config.log, config.log_format)?;
            return Ok(Task::Run(Box::new(config)));
        }
        Command::Egress(raw) => {
            let config = Cli::settle(cli.config, raw)?;
            log::start(&config.log, config.log_format)?;
            return Ok(Task::Egress(Box::new(egress_options(config)?)));
        }
        Command::Config { print: _, raw } => {
            let config = Cli::settle(cli.config, raw)?;
            let text = toml::to_string(&config.to_raw()).context("write the settings")?;
            say(text.as_bytes())
        }
        Command::Identity { json, raw } => identity(&Cli::settle(cli.config, raw)?, json),
        Command::Completions { shell } => say(&Cli::completions(shell)),
    }?;
    Ok(Task::Done)
}

fn egress_options(config: Config) -> anyhow::Result<EgressOptions> {
    let broker = match config.broker {
        Some(broker) => broker,
        None => {
            Bundle::read(
                config
                    .bundle()
                    .context("no broker: name it with --broker, or")?,
            )?
            .broker
        }
    };
    Ok(EgressOptions {
        run_dir: config.run_dir,
        broker,
        proxy: config.proxy,
    })
}

fn identity(config: &Config, json: bool) -> anyhow::Result<()> {
    let dir = &config.state_dir;
    let identity = store::read_identity(dir)?.with_context(|| {
        format!(
            "this host is not enrolled: {} holds no identity",
            dir.display()
        )
    })?;
    let key = identity.public().map(|key| key.to_string());
    let first_key = identity.first.map(|key| key.to_string());
    let (host, generation) = (&identity.host, identity.generation());
    let text = if json {
        let value = serde_json::json!({
            "host": host.as_str(), "generation": generation, "key": key, "first_key": first_key,
        });
        format!("{value}\n")
    } else {
        let shown =
            |key: Option<String>| key.unwrap_or_else(|| "none: not enrolled yet".to_owned());
        format!(
            "host        {host}\ngeneration  {generation}\nkey         {}\nfirst key   {}\n",
            shown(key),
            shown(first_key)
        )
    };
    say(text.as_bytes())
}

fn say(bytes: &[u8]) -> anyhow::Result<()> {
    io::stdout()
        .write_all(bytes)
        .context("write to standard output")
}
