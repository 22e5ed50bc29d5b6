//! What a failed write says of the disk.

use std::fmt;

use rusqlite::ErrorCode;

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No room. The change was rolled back.
    Full,
    /// Nothing can be written. The change was rolled back.
    ReadOnly,
    /// A write or a sync failed: nobody knows what is on the disk.
    Failed,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.advice())
    }
}

impl Trouble {
    /// What this error says of the disk, if it is about the disk.
    pub(super) fn of(error: &anyhow::Error) -> Option<Self> {
        let code = error
            .downcast_ref::<rusqlite::Error>()?
            .sqlite_error_code()?;
        match code {
            ErrorCode::DiskFull => Some(Self::Full),
            ErrorCode::ReadOnly => Some(Self::ReadOnly),
            ErrorCode::SystemIoFailure => Some(Self::Failed),
            _ => None,
        }
    }

    /// What is wrong and what to do. Strangers may read it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Full => "the store finds no room on the disk: free some space",
            Self::ReadOnly => {
                "the store cannot write: see that its disk and its files can be written"
            }
            Self::Failed => {
                "the store could not write or sync: see the kernel's log, and start the broker again"
            }
        }
    }
}
