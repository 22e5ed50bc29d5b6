//! What the operator decides. Plain functions and structs: no clock, no files, no sockets, no `async`. Time, randomness and
//! observations are arguments; what is to be done comes out as values.
#![warn(
    clippy::wildcard_enum_match_arm,
    clippy::match_wildcard_for_single_variants
)]

pub mod chain;
pub mod detail;
pub mod dispatcher;
pub mod host;
pub mod intake;
pub mod launch;
pub mod outbox;
pub mod pace;
pub mod policy;
pub mod reconcile;
pub mod record;
pub mod rundir;
pub mod status;
pub mod time;
pub mod trust;
pub mod witness;
