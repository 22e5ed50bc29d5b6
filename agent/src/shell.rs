//! Where the operator touches the world. Each file does one kind of I/O, can fail by itself, and decides nothing that
//! `core` could decide.

pub mod bundle;
pub mod docker;
pub mod egress_control;
pub mod exchange;
pub mod log;
pub mod mqtt;
pub mod rundir;
pub mod server_time;
pub mod store;
pub mod tls;
pub mod tokio;
pub mod transport;
