//! The parts of the shim, `outhaul-sandbox`: the first process of a sandbox.
//!
//! One thread, one poll loop, no runtime. It makes its key in memory, starts the command once the operator has vouched for that key,
//! and streams what the command writes as signed, chained batches over its own publish-only connection.

pub mod clock;
pub mod launch;
pub mod link;
pub mod process;
pub mod recorder;
pub mod run;
pub mod session;
pub mod spool;

/// One line on standard error: the sandbox's own log, for whoever runs it by hand. The engine keeps no copy.
#[expect(clippy::print_stderr, reason = "the shim has no other log")]
pub fn say(line: &str) {
    eprintln!("outhaul-sandbox: {line}");
}
