//! `outhaul`: the broker, and the command line that talks to it.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use broker::cli::{Cli, serve};
use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

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
    match cli.server()? {
        Some(config) => {
            let mut builder = Builder::new_multi_thread();
            runtime(builder.worker_threads(config.workers))?.block_on(serve(config))
        }
        None => runtime(&mut Builder::new_current_thread())?.block_on(cli.execute()),
    }
}

fn runtime(builder: &mut Builder) -> anyhow::Result<Runtime> {
    builder.enable_all().build().context("start runtime")
}

fn is_reader_gone(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
