//! What the clients saw, and when: by the same clock that strace writes down. What was acknowledged before the power was cut must be there.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Something asked of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// This dispatcher was registered.
    Dispatcher {
        key: [u8; 32],
    },
    /// This host was added and enrolled with this key, by this install key.
    Enrol {
        host: String,
        key: [u8; 32],
        install_key: String,
    },
    Revoke {
        host: String,
    },
    AddReader {
        name: String,
    },
    RemoveReader {
        name: String,
    },
    /// Of the local API: a launch of this sandbox.
    Command {
        host: String,
        sandbox: String,
        bytes: ByteBuf,
        offset: u64,
    },
    /// Of the host's connection; after it the sandbox is in this state, or past it.
    Report {
        host: String,
        sandbox: String,
        state: String,
        bytes: ByteBuf,
    },
}

/// A deed with when it was begun, and when its answer had come.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) begun_ns: u64,
    pub(crate) done_ns: u64,
    pub(crate) deed: Deed,
}

/// What one sandbox published.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) host: String,
    pub(crate) sandbox: String,
    pub(crate) key: [u8; 32],
    /// Every batch, in order.
    pub(crate) sent: Vec<ByteBuf>,
    /// When the acknowledgement of each had come.
    pub(crate) acknowledged_ns: Vec<u64>,
}

/// What a reader with a kept session did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) name: String,
    /// When it had come back to its session once: that was kept, then.
    pub(crate) kept_ns: u64,
    /// Offsets that it acknowledged, each with when it was about to.
    pub(crate) acknowledged: Vec<(u64, u64)>,
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Notes {
    pub(crate) steps: Vec<Step>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) reading: Option<Reading>,
}
