//! What the broker keeps, and what it says, when it is killed, and when its disk or its clock fails. Faults are real ones: file
//! systems that are full, system calls that fail (strace), a clock that lies (faketime). They need root, as Docker does.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in a test a failed step is a failed test"
)]

mod abort;
mod backup;
mod clock;
mod come_back;
mod disk;
mod fleet;
mod follower;
mod io;
mod kill;
mod mount;
mod operated;
mod operator;
mod outage;
mod publisher;
mod reader;
mod site;
mod start;
