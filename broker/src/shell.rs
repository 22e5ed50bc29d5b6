//! What the broker does: one file for each thing that can fail by itself.

pub mod audit_key;
pub mod backup;
pub mod certificate;
pub mod clock;
pub mod confirm;
pub mod connection;
pub mod descriptors;
pub mod exported;
pub mod hairpin;
pub mod http;
pub mod issuer;
pub mod journal;
pub mod keys;
pub mod listener;
pub mod local;
pub mod log;
pub mod metrics;
pub mod places;
pub mod registry;
pub mod room;
pub mod router;
pub mod store;
