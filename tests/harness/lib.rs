//! Shared by the tests: starts the programs we ship as users start them, and looks at what they do.
//!
//! Nothing here stands in for a part of ours. The one thing it plays is the enemy: see [`hostile`].

pub mod bearer;
pub mod client;
pub mod docker;
pub mod enroll;
pub mod hostile;
pub mod local;
pub mod programs;
pub mod python;
pub mod secrets;
pub mod sockets;
pub mod sse;
pub mod wait;
pub mod wiretap;
pub mod world;
