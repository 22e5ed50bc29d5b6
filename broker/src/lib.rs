//! broker
pub mod cli;
pub mod config;
pub mod core;
pub mod drive;
pub mod serve;
pub mod shell;
