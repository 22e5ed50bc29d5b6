//! How many files the broker may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this there is no room for the hosts and sandboxes of one ordinary owner, with the door and HTTP beside them.
pub const DESCRIPTORS_MIN: u64 = 4096;

/// Raises the limit of open files as far as this process may, and says what it got. Shells and service managers begin with a limit of
/// 1,024 for the sake of programs older than `poll`.
pub fn raise() {
    let before = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: before.maximum,
        maximum: before.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    // None is as many as there may be.
    let got = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let before = before.current.unwrap_or(u64::MAX);
    if got < DESCRIPTORS_MIN {
        tracing::warn!(
            descriptors = got,
            least = DESCRIPTORS_MIN,
            "few files may be open, and each connection is one: raise the hard limit (`LimitNOFILE=` in systemd, `ulimits` in a \
             compose file, `ulimit -Hn` in a shell)"
        );
    } else {
        tracing::info!(descriptors = got, before, "so many files may be open");
    }
}
