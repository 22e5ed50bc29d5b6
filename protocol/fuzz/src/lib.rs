//! What the fuzz targets share: a world of fixed keys and names, and small second implementations of what `protocol` must do.
//!
//! The second implementations are written from `SPEC.md`, not from the code they are held against: CBOR, the envelope, covering. They
//! are plain and slow, and where the two disagree, one of them is wrong.

pub mod edit;
pub mod filter;
pub mod input;
pub mod item;
pub mod link;
pub mod quiet;
pub mod seal;
pub mod world;
