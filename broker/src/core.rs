//! What the broker decides: plain functions and values. No clock, no files, no sockets.

pub mod acl;
pub mod audit;
pub mod backup;
pub mod catch_up;
pub mod challenge;
pub mod crowd;
pub mod dedup;
pub mod exchange;
pub mod expiry;
pub mod gate;
pub mod histogram;
pub mod hosts;
pub mod incarnation;
pub mod issuer;
pub mod journal;
pub mod lag;
pub mod network;
pub mod presence;
pub mod principal;
pub mod proxy_protocol;
pub mod reader;
pub mod retention;
pub mod room;
pub mod sandbox;
pub mod span;
pub mod sse;
