//! The run directory: where the operator, the egress process and a sandbox meet.
//!
//! ```text
//! RUN/                     0700 (0711 where the engine maps the sandbox's user to another)
//!   shim.bin               the shim, staged once
//!   egress.sock            the egress process's control socket
//!   <sandbox>/             0711
//!     in/                  0755, the operator's; the sandbox sees it read-only
//!       outhaul-sandbox launch.json ca.crt token egress.sock
//!     out/                 the sandbox's: everything in it is hostile
//!       key spool/
//! ```

use std::path::{Path, PathBuf};

use protocol::id::SandboxId;

/// The part of a sandbox's directory that the operator writes.
pub const IN: &str = "in";
/// The part that the sandbox writes.
pub const OUT: &str = "out";
/// Where [`IN`] is inside the sandbox, read-only.
pub const INSIDE_IN: &str = "/run/outhaul/in";
/// Where [`OUT`] is inside the sandbox.
pub const INSIDE_OUT: &str = "/run/outhaul/out";
/// The shim, in [`IN`].
pub const SHIM_FILE: &str = "outhaul-sandbox";
/// What the shim is told, in [`IN`].
pub const LAUNCH_FILE: &str = "launch.json";
/// The broker's authority, in [`IN`].
pub const CA_FILE: &str = "ca.crt";
/// The sandbox's token, in [`IN`].
pub const TOKEN_FILE: &str = "token";
/// The shim's public key, in [`OUT`].
pub const KEY_FILE: &str = "key";
/// Batches that the shim could not send yet, in [`OUT`].
pub const SPOOL_DIR: &str = "spool";
/// The staged shim. No sandbox is called so: an id has no dot.
pub const STAGED_SHIM: &str = "shim.bin";

/// The longest text of a public key, in bytes; a key is about 70.
pub const KEY_BYTES_MAX: usize = 256;

/// The longest name of a batch, in digits: a 64-bit number.
const BATCH_DIGITS_MAX: usize = 20;
/// The shortest.
const BATCH_DIGITS_MIN: usize = 8;

/// A sandbox's directory.
#[must_use]
pub fn sandbox_dir(run: &Path, sandbox: &SandboxId) -> PathBuf {
    run.join(sandbox.as_str())
}

/// The number of a batch, by the name of its file: digits and nothing else.
#[must_use]
pub fn batch_number(name: &[u8]) -> Option<u64> {
    let is_number = (BATCH_DIGITS_MIN..=BATCH_DIGITS_MAX).contains(&name.len())
        && name.iter().all(u8::is_ascii_digit);
    if !is_number {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

/// Whether a user may read (and for a directory, enter) what has this mode and owner. `None` is a user about whom nothing is
/// known but that it is neither the owner nor in the group.
#[must_use]
pub fn may_read(user: Option<(u32, u32)>, owner: (u32, u32), mode: u32, is_dir: bool) -> bool {
    let shift = match user {
        Some((uid, _)) if uid == owner.0 => 6,
        Some((_, gid)) if gid == owner.1 => 3,
        Some(_) | None => 0,
    };
    let need = if is_dir { 0o5 } else { 0o4 };
    (mode >> shift) & need == need
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_name_a_batch() {
        assert_eq!(batch_number(b"00000007"), Some(7));
        assert_eq!(batch_number(b"0000000000000012"), Some(12));
        for bad in [
            &b"7"[..],
            b"",
            b"+0000007",
            b"0000000a",
            b"../00007",
            b"00000007.new",
            b"99999999999999999999",
            b"000000000000000000001",
        ] {
            assert_eq!(batch_number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_first_class_that_fits_decides_as_the_kernel_does() {
        let sandbox = Some((10_001, 10_001));
        for (user, owner, mode, is_dir, readable) in [
            (sandbox, (0, 0), 0o755, true, true),
            (sandbox, (0, 0), 0o750, true, false),
            (sandbox, (0, 0), 0o754, true, false),
            (sandbox, (0, 0), 0o644, false, true),
            (sandbox, (0, 10_001), 0o750, true, true),
            (sandbox, (0, 10_001), 0o707, true, false),
            (sandbox, (10_001, 0), 0o077, true, false),
            (sandbox, (10_001, 0), 0o500, true, true),
            (None, (0, 0), 0o750, true, false),
            (None, (0, 0), 0o755, true, true),
        ] {
            assert_eq!(
                may_read(user, owner, mode, is_dir),
                readable,
                "{owner:?} {mode:o}"
            );
        }
    }

    #[test]
    fn the_operator_and_the_shim_call_everything_the_same() {
        use crate::sandbox::launch as shim;
        assert_eq!((INSIDE_IN, INSIDE_OUT), (shim::IN_DIR, shim::OUT_DIR));
        assert_eq!(
            (SHIM_FILE, LAUNCH_FILE, CA_FILE),
            (shim::SHIM_FILE, shim::LAUNCH_FILE, shim::CA_FILE)
        );
        assert_eq!(
            (TOKEN_FILE, KEY_FILE, SPOOL_DIR),
            (shim::TOKEN_FILE, shim::KEY_FILE, shim::SPOOL_DIR)
        );
    }

    #[test]
    fn no_sandbox_can_be_called_as_the_staged_shim() {
        assert!(SandboxId::new(STAGED_SHIM).is_err());
    }
}
