//! `outhaul-agent`: the operator of a host.

use std::io::{self, Write as _};
use std::process::ExitCode;

use agent::cli::{Cli, Command};
use agent::config::Config;
use agent::drive;
use agent::egress::{self, EgressOptions};
use agent::owner::{self, Answer};
use agent::shell::bundle::Bundle;
use agent::shell::log;
use anyhow::Context as _;
use clap::Parser as _;

fn main() -> ExitCode {
    match decide().and_then(run) {
        Ok(code) => code,
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
    /// It was done on the way; with what exit code.
    Done(ExitCode),
}

/// Works for as long as the program lives. Nothing of the command line is on the stack below it.
fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Run(config) => drive::run(&config)?,
        Task::Egress(options) => egress::run(*options)?,
        Task::Done(code) => return Ok(code),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the command line and the settings, and does what takes but a moment. Never inlined: what it needs of the stack, 20 KB, is
/// given back before the program goes to work.
#[inline(never)]
fn decide() -> anyhow::Result<Task> {
    let cli = Cli::parse();
    let answer = match cli.command {
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
            Answer { text, code: 0 }
        }
        Command::Identity { json, raw } => owner::identity(&Cli::settle(cli.config, raw)?, json)?,
        Command::Status { json, raw } => owner::status(&Cli::settle(cli.config, raw)?, json)?,
        Command::AcceptRestore { yes, raw } => {
            owner::accept_restore(&Cli::settle(cli.config, raw)?, yes)?
        }
        Command::Completions { shell } => {
            say(&Cli::completions(shell))?;
            return Ok(Task::Done(ExitCode::SUCCESS));
        }
    };
    say(answer.text.as_bytes())?;
    Ok(Task::Done(ExitCode::from(answer.code)))
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

fn say(bytes: &[u8]) -> anyhow::Result<()> {
    io::stdout()
        .write_all(bytes)
        .context("write to standard output")
}
