//! What the fuzz target of the gate needs: a client and a shell that do as the fuzzer says, and a model that watches.
//!
//! The gate and what it is made of touch nothing but `protocol`, so those files of the broker are compiled here by themselves: the
//! same source, without SQLite, TLS and the router, none of which is tried here.

/// The broker's own `core`, as far as the gate needs it. A module that the gate comes to need is added here.
#[path = "../../src/core"]
pub mod core {
    pub mod acl;
    pub mod gate;
    pub mod incarnation;
    pub mod principal;
    pub mod reader;
}

pub mod client;
pub mod link;
pub mod model;
pub mod play;
pub mod world;
