//! Hostile cases: what strangers, and those who got in, may send, and what the gate answers. Each case is named by its number in
//! README.md, which says what it is and what is expected; [`table`] holds the two together.
//!
//! Every case runs against a broker process of its own, over TLS. After it a bystander must still be served within a second, the
//! broker's memory must be where it was, exactly the expected refusals must have been counted, and no secret may have been written:
//! see [`site`].
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in a test a failed step is a failed test"
)]

mod access;
mod bearer;
mod bystander;
mod bytes;
mod connect;
mod control;
mod counters;
mod more;
mod publish;
mod readers;
mod site;
mod sse;
mod subscribe;
mod system;
mod table;
mod takeover;
mod transport;
mod wire;
