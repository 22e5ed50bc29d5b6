//! What holds for any contents: messages round trip, filters cover what they say, token chains and streams are judged as `SPEC.md` judges
//! them. Each oracle is written from the specification, without a look at our code.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a failed step is a failed test"
)]

mod any;
mod chain;
mod command;
mod covering;
mod message;
mod sign1;
mod stream;
mod text;
mod token;
