//! Listening IP sockets, read from `/proc`: evidence that nothing of ours can be dialled.

use std::{collections::BTreeSet, fs};

/// TCP state LISTEN, as `/proc/net/tcp` prints it.
const LISTEN: &str = "0A";

/// The local addresses on which one of `pids` listens for TCP, or has an unconnected UDP socket bound.
#[must_use]
pub fn listening(pids: &[u32]) -> Vec<String> {
    let mut found = Vec::new();
    for pid in pids {
        let inodes = inodes_of(*pid);
        for (table, listens) in [
            ("tcp", Some(LISTEN)),
            ("tcp6", Some(LISTEN)),
            ("udp", None),
            ("udp6", None),
        ] {
            let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
            for line in text.lines().skip(1) {
                let fields: Vec<_> = line.split_ascii_whitespace().collect();
                let (Some(local), Some(state), Some(inode)) =
                    (fields.get(1), fields.get(3), fields.get(9))
                else {
                    continue;
                };
                if inodes.contains(*inode) && listens.is_none_or(|listens| *state == listens) {
                    found.push(format!("{pid} {table} {local}"));
                }
            }
        }
    }
    found
}

/// The inodes of a process's sockets.
#[must_use]
pub fn inodes_of(pid: u32) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            link.to_string_lossy()
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .collect()
}
