//! The Outhaul operator and its sandbox shim. Both only ever dial out.
//!
//! [`core`] decides, [`shell`] acts, [`drive`] is the one loop between them. [`egress`] is a process of its own, and [`sandbox`]
//! is the shim, which runs inside a sandbox and shares nothing with the operator but the protocol.

pub mod cli;
pub mod config;
pub mod core;
pub mod drive;
pub mod egress;
pub mod owner;
pub mod sandbox;
pub mod shell;
