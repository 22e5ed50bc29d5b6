//! Access for people and programs: who shows which token, what role it gives, and what that role may do.
//!
//! Three roles, each of which may do what the one before it may: a viewer reads, a dispatcher also hands in commands (which its own key
//! signs, and hosts judge), an admin also changes who may do what. Any of them may be limited to one host. Whatever the table in
//! [`action`] does not give is denied, and what needs the broker's machine no token gives.

pub mod action;

use std::{collections::BTreeMap, fmt};

use protocol::{
    access_token::AccessToken,
    id::{AccessName, HostId},
    time::UnixMillis,
};
use subtle::ConstantTimeEq as _;

pub use action::{About, Action};

/// The longest life of an access token, in days: past a year nobody remembers who holds it.
pub const ACCESS_DAYS_MAX: u64 = 366;
/// Tokens at once: all of them are kept in memory, and a list of more nobody reads.
pub const ACCESS_MAX: u32 = 256;

/// What a token's holder is. Each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads: lists, records, events, the audit trail.
    Viewer,
    /// Hands in commands too.
    Dispatcher,
    /// Changes who may do what, too.
    Admin,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Dispatcher, Self::Admin];

    /// As people write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Dispatcher => "dispatcher",
            Self::Admin => "admin",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.word() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a token gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// As whom.
    pub role: Role,
    /// On this host only.
    pub host: Option<HostId>,
}

/// Why something is not done for a token. The text tells its holder what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It needs the broker's files.
    #[error(
        "this needs the broker's own machine, and no access token gives it: run it there, as the broker's user"
    )]
    Machine,
    /// The role does not suffice.
    #[error(
        "the role {has} does not suffice, this needs {needs}: ask the broker's owner for a token from `outhaul access add NAME --role \
         {needs}`"
    )]
    Role {
        /// What the token has.
        has: Role,
        /// What would do.
        needs: Role,
    },
    /// It is about every host, and the token is for one.
    #[error("this concerns all hosts, and the token is for host {0} only")]
    AllHosts(HostId),
    /// It is about another host than the token's.
    #[error("the token is for host {0} only")]
    OtherHost(HostId),
}

impl Refusal {
    /// In a word, to be counted by.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Role { .. } => "role",
            Self::AllHosts(_) => "all_hosts",
            Self::OtherHost(_) => "other_host",
        }
    }
}

impl Rights {
    /// Whether `action` may be done at all: of the host it names, if it names one, [`Rights::reach`] says.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn permit(&self, action: Action) -> Result<(), Refusal> {
        let needs = action.role().ok_or(Refusal::Machine)?;
        if self.role < needs {
            return Err(Refusal::Role {
                has: self.role,
                needs,
            });
        }
        match (&self.host, action.about()) {
            (Some(host), About::AllHosts) => Err(Refusal::AllHosts(host.clone())),
            (Some(_), About::NoHost | About::Listed | About::InPath | About::Named) | (None, _) => {
                Ok(())
            }
        }
    }

    /// Whether anything of this host may be touched or seen. Asked before it is looked for, so that nobody learns which hosts there are.
    ///
    /// # Errors
    /// [`Refusal::OtherHost`].
    pub fn reach(&self, host: &HostId) -> Result<(), Refusal> {
        match &self.host {
            Some(own) if own != host => Err(Refusal::OtherHost(own.clone())),
            Some(_) | None => Ok(()),
        }
    }
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What the owner calls who holds it.
    pub name: AccessName,
    /// The SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
    /// What it gives.
    pub rights: Rights,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// All tokens, by their kid.
pub type Accounts = BTreeMap<[u8; 8], Account>;

/// Who showed a token that was good. Made by [`check`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    name: AccessName,
    kid: [u8; 8],
    rights: Rights,
    expires_ms: u64,
}

impl Holder {
    /// What the owner calls it.
    #[must_use]
    pub const fn name(&self) -> &AccessName {
        &self.name
    }

    /// Names its token; no secret.
    #[must_use]
    pub const fn kid(&self) -> &[u8; 8] {
        &self.kid
    }

    /// What it may.
    #[must_use]
    pub const fn rights(&self) -> &Rights {
        &self.rights
    }

    /// When its token ends, in milliseconds since 1970.
    #[must_use]
    pub const fn expires_ms(&self) -> u64 {
        self.expires_ms
    }
}

/// Why a token opens nothing. Only who shows the right secret hears that it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAccess {
    /// Not a token, or of nobody known: revoked, or never given.
    #[error("access token: not one that is known here")]
    Unknown,
    /// Its time is over.
    #[error("access token: expired")]
    Expired,
}

impl BadAccess {
    /// In a word, to be counted by.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown_access",
            Self::Expired => "expired_access",
        }
    }
}

/// Checks a token as it was shown. An unknown kid takes the same work as a known one.
///
/// # Errors
/// [`BadAccess`].
pub fn check(shown: &[u8], accounts: &Accounts, now: UnixMillis) -> Result<Holder, BadAccess> {
    let text = std::str::from_utf8(shown).map_err(|_| BadAccess::Unknown)?;
    let token = AccessToken::from_text(text).map_err(|_| BadAccess::Unknown)?;
    let account = accounts.get(&token.kid);
    let expected = account.map_or(&[0; 32], |account| &account.secret_sha256);
    let is_right = bool::from(token.hash().ct_eq(expected));
    let account = account.filter(|_| is_right).ok_or(BadAccess::Unknown)?;
    if now.0 >= account.expires_ms {
        return Err(BadAccess::Expired);
    }
    Ok(Holder {
        name: account.name.clone(),
        kid: token.kid,
        rights: account.rights.clone(),
        expires_ms: account.expires_ms,
    })
}

#[cfg(test)]
mod tests;
