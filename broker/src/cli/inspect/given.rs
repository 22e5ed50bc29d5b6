//! The keys that the user gives to verify with.

use protocol::key::{BadKey, Dispatcher, Host, Issuer, KeyId, Public, Role, Sandbox};

/// A public key of any role that signs messages.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum GivenKey {
    Issuer(Public<Issuer>),
    Dispatcher(Public<Dispatcher>),
    Host(Public<Host>),
    Sandbox(Public<Sandbox>),
}

impl std::str::FromStr for GivenKey {
    type Err = BadKey;

    fn from_str(text: &str) -> Result<Self, BadKey> {
        match text.trim().split('_').next() {
            Some(Issuer::PREFIX) => text.parse().map(Self::Issuer),
            Some(Dispatcher::PREFIX) => text.parse().map(Self::Dispatcher),
            Some(Host::PREFIX) => text.parse().map(Self::Host),
            Some(Sandbox::PREFIX) => text.parse().map(Self::Sandbox),
            _ => Err(BadKey::Malformed),
        }
    }
}

/// The same, by role.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub(super) issuers: Vec<Public<Issuer>>,
    pub(super) dispatchers: Vec<Public<Dispatcher>>,
    pub(super) hosts: Vec<Public<Host>>,
    pub(super) sandboxes: Vec<Public<Sandbox>>,
}

impl Keys {
    pub(super) fn of(given: &[GivenKey]) -> Self {
        let mut keys = Self::default();
        for key in given {
            match key {
                GivenKey::Issuer(key) => keys.issuers.push(*key),
                GivenKey::Dispatcher(key) => keys.dispatchers.push(*key),
                GivenKey::Host(key) => keys.hosts.push(*key),
                GivenKey::Sandbox(key) => keys.sandboxes.push(*key),
            }
        }
        keys
    }
}

/// What to say of a signature whose key was not given.
pub(super) fn wanted<R: Role>(kid: KeyId) -> String {
    format!(
        "by the key with id {}: give it with --key {}_…",
        protocol::id::hex(&kid),
        R::PREFIX
    )
}
