//! End to end: the programs we ship, a real engine, real TLS, a real disk, started as users start them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "in a test a failed step is a failed test"
)]

mod access;
mod audit;
mod backup;
mod bad_input;
mod boundary;
mod bundle;
mod certificates;
mod commands;
mod identity;
mod offline;
mod quickstart;
mod readers;
mod restart;
mod rotation;
mod secrets;
mod sse;
mod stream;
mod token;
mod witness;
