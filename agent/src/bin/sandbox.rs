//! `outhaul-sandbox`: the first process of a sandbox. It is mounted by the operator and has no settings of its own.

use std::process::ExitCode;

use agent::sandbox::{process::is_first_alive, run, say};

const USAGE: &str = "\
outhaul-sandbox: the first process of an Outhaul sandbox

usage:
  outhaul-sandbox run -- COMMAND [ARGUMENT…]   run COMMAND and stream what it writes, signed
  outhaul-sandbox health                       exit 0 if the sandbox's first process is at work
  outhaul-sandbox --version

The operator starts it; it reads /run/outhaul/in and writes /run/outhaul/out. It ends with COMMAND's exit code,
126 if COMMAND cannot be executed, 127 if it is not found, 125 if it fails itself.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", "--", command @ ..] if !command.is_empty() => {
            let command = arguments.get(2..).unwrap_or_default();
            match run::run(command) {
                Ok(code) => ExitCode::from(code),
                Err(error) => {
                    say(&format!("{error:#}"));
                    ExitCode::from(run::OWN_FAILURE)
                }
            }
        }
        ["health"] if is_first_alive() => ExitCode::SUCCESS,
        ["health"] => ExitCode::FAILURE,
        ["--version"] => {
            say(env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            say(USAGE);
            ExitCode::from(2)
        }
    }
}
