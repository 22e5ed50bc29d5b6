//! What the broker keeps when it is killed: acknowledged means durable, whatever the moment.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a failed step is a failed test"
)]

mod follower;
mod kill;
mod operated;
mod publisher;
mod reader;
