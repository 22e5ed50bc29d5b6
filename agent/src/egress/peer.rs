//! Whether the process at the other end of a socket is a container's first one.

use std::{fs, os::fd::AsFd};

/// Whether the peer is pid 1 of a pid namespace below ours: the shim, and not the command that it runs.
///
/// The socket is mounted into one sandbox only, so a first process that reaches it is that sandbox's.
pub(super) fn is_first_process(socket: impl AsFd) -> bool {
    let Ok(credentials) = rustix::net::sockopt::socket_peercred(socket) else {
        return false;
    };
    let pid = credentials.pid.as_raw_nonzero();
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| is_first(&status))
}

/// Whether a `/proc/<pid>/status` names a pid in more than one namespace, the innermost being 1.
fn is_first(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))
        .is_some_and(|pids| {
            let mut pids = pids.split_ascii_whitespace();
            pids.next().is_some() && pids.next_back() == Some("1")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_process_of_an_inner_namespace_counts() {
        assert!(is_first("Name:\tx\nNSpid:\t4711\t1\nSeccomp:\t2\n"));
        assert!(is_first("NSpid:\t4711\t9\t1\n"));
        assert!(!is_first("NSpid:\t4711\t12\n"), "the command");
        assert!(!is_first("NSpid:\t1\n"), "the host's own init");
        assert!(!is_first("NSpid:\t4711\n"), "a process of the host");
        assert!(!is_first("NSpid:\n") && !is_first(""));
    }

    #[test]
    fn a_process_of_the_host_is_refused() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_first_process(&one));
    }
}
