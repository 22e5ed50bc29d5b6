//! What a stranger's bytes cost to read: their own length, and little more. Held for every message, with every kind of hostile value at
//! every place, by counting what is allocated.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test a failed step is a failed test"
)]

mod audit;
mod batch;
mod cost;
mod envelope;
mod hostile;
mod item;
mod packet;
mod payload;
mod record;
mod sample;
mod text;
