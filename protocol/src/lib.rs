//! What Outhaul's operator, sandbox and broker say to each other, and how each proves who said it.
//!
//! Pure: no I/O, no clock, no runtime. Bytes from a stranger come in through two doors only: [`cbor::from_slice`] for what a
//! connection already vouches for, and [`signed::Envelope`] for what a signature vouches for. Acting on a message needs a
//! [`signed::Verified`] value, and only a checked signature makes one.
#![warn(missing_docs)]
#![warn(
    clippy::wildcard_enum_match_arm,
    clippy::match_wildcard_for_single_variants
)]

#[macro_use]
mod int_map;

pub mod access_token;
pub mod audit;
pub mod bundle;
pub mod cbor;
pub mod command;
pub mod event;
pub mod exchange;
pub mod hole;
pub mod id;
pub mod install_key;
pub mod key;
pub mod key_change;
pub mod limits;
pub mod mqtt;
pub mod possession;
pub mod reader_token;
pub mod record;
pub mod report;
pub mod scope;
mod secret_text;
pub mod signed;
pub mod stream;
pub mod stream_file;
pub mod time;
pub mod token;
pub mod topic;
