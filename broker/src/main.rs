//! `outhaul`: the broker, and the command line that talks to it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use broker::cli::Cli;
use clap::Parser as _;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with code 0. Nobody is left to tell if they cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
        }
    };
    let failure = cli.failure();
    match execute(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // `outhaul events | head` has what it wants: no complaint.
            if !is_reader_gone(&error) {
                let _ = writeln!(io::stderr(), "outhaul: {error:#}");
            }
            ExitCode::from(failure)
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<u8> {
    let mut builder = if cli.is_server() {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    };
    let runtime = builder.enable_all().build().context("start runtime")?;
    runtime.block_on(cli.execute())
}

fn is_reader_gone(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
