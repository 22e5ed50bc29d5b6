//! Whose rights were taken away, as everyone with a link of theirs hears it.

use protocol::{
    id::{HostId, ReaderName, SandboxId},
    token::Subject,
};

use crate::core::principal::Who;

/// Whose rights were taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// A host's, and with it those of its sandboxes.
    Host(HostId),
    /// A sandbox's.
    Sandbox(HostId, SandboxId),
    /// Some of a host's: its links, and those of its sandboxes, are to come again, and to be looked at anew.
    Some(HostId),
    /// A reader's.
    Reader(ReaderName),
    /// Every host's token: the key that signed them counts no more. Who still has rights gets another.
    Tokens,
}

impl Withdrawn {
    /// Whether it is about this one.
    #[must_use]
    pub fn concerns(&self, who: &Who) -> bool {
        match self {
            Self::Host(host) | Self::Some(host) => who.host() == Some(host),
            Self::Sandbox(host, sandbox) => {
                matches!(who.subject(), Some(Subject::Sandbox(h, s)) if h == host && s == sandbox)
            }
            Self::Reader(reader) => who.reader() == Some(reader),
            Self::Tokens => who.host().is_some(),
        }
    }
}
