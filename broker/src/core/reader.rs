//! Readers and bench principals: who shows which token, and what it opens.
//!
//! A reader's token is a bearer secret, since ordinary MQTT clients cannot prove possession of a key. So the broker's owner has to
//! turn readers on, each token ends, and none of them opens anything that a host or a sandbox may do.

use std::collections::BTreeMap;

use protocol::{
    id::{HostId, ReaderName, SandboxId},
    reader_token::ReaderToken,
    scope::{Permission, Scope},
    time::UnixMillis,
    topic::{BENCH, ReadFilter},
};
use subtle::ConstantTimeEq as _;

/// The longest life of a reader's token, in days: past a year nobody remembers who holds it.
pub const READER_DAYS_MAX: u64 = 366;

/// What a reader may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read what the journal holds, and the broker's metrics.
    Read {
        /// Events of sandboxes.
        events: bool,
        /// Reports of hosts.
        reports: bool,
        /// The broker's metrics.
        metrics: bool,
        /// Of this host only.
        host: Option<HostId>,
        /// Events of this sandbox only.
        sandbox: Option<SandboxId>,
    },
    /// Publish and subscribe below `bench/`, and nothing else: load tests.
    Bench,
}

/// Why words say nothing that a reader may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRights {
    /// None, or one that is not known: what it restricts must not be lost.
    #[error("a reader may: events, reports, metrics; or bench")]
    Words,
    /// Load tests and something else.
    #[error("who runs load tests may nothing else")]
    Mixed,
    /// A sandbox of no host.
    #[error("a sandbox is named with its host")]
    Sandbox,
}

impl Rights {
    /// Reads them from words: `events`, `reports`, `metrics`; or `bench` alone.
    ///
    /// # Errors
    /// [`BadRights`].
    pub fn from_words(
        words: &[&str],
        host: Option<HostId>,
        sandbox: Option<SandboxId>,
    ) -> Result<Self, BadRights> {
        let has = |word| words.contains(&word);
        let is_known = |word: &&str| ["events", "reports", "metrics", "bench"].contains(word);
        if words.is_empty() || !words.iter().all(is_known) {
            return Err(BadRights::Words);
        }
        if has("bench") {
            let is_alone = words.len() == 1 && host.is_none() && sandbox.is_none();
            return is_alone.then_some(Self::Bench).ok_or(BadRights::Mixed);
        }
        if sandbox.is_some() && host.is_none() {
            return Err(BadRights::Sandbox);
        }
        Ok(Self::Read {
            events: has("events"),
            reports: has("reports"),
            metrics: has("metrics"),
            host,
            sandbox,
        })
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> Vec<&'static str> {
        let Self::Read {
            events,
            reports,
            metrics,
            ..
        } = self
        else {
            return vec!["bench"];
        };
        let words = [
            ("events", events),
            ("reports", reports),
            ("metrics", metrics),
        ];
        let said = words.into_iter().filter(|(_, has)| **has);
        said.map(|(word, _)| word).collect()
    }

    /// The host and the sandbox that they are limited to.
    #[must_use]
    pub const fn limits(&self) -> (Option<&HostId>, Option<&SandboxId>) {
        match self {
            Self::Bench => (None, None),
            Self::Read { host, sandbox, .. } => (host.as_ref(), sandbox.as_ref()),
        }
    }

    /// The topic filters that they open.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self {
            Self::Bench => Scope::new(vec![(
                BENCH.to_owned(),
                vec![Permission::Pub, Permission::Sub],
            )]),
            Self::Read {
                events,
                reports,
                metrics: _,
                host,
                sandbox,
            } => {
                let events = events.then(|| ReadFilter::Events {
                    host: host.clone(),
                    sandbox: sandbox.clone(),
                });
                let reports = reports.then(|| ReadFilter::Reports { host: host.clone() });
                let filters = events.into_iter().chain(reports);
                Scope::new(
                    filters
                        .map(|filter| (filter.to_string(), vec![Permission::Sub]))
                        .collect(),
                )
            }
        }
    }
}

/// What is known of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What the owner calls it.
    pub name: ReaderName,
    /// The SHA-256 of its token's secret.
    pub secret_sha256: [u8; 32],
    /// What it may.
    pub rights: Rights,
    /// When its token ends, in milliseconds since 1970.
    pub expires_ms: u64,
}

/// All readers, by their token's kid.
pub type Accounts = BTreeMap<[u8; 8], Account>;

/// Who may be let in at all: what the owner turned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Readers.
    pub readers: bool,
    /// Bench principals.
    pub bench: bool,
    /// People and programs with an access token, over HTTPS.
    pub access: bool,
}

impl Admitted {
    /// Whether anybody is let in with a reader token.
    #[must_use]
    pub const fn any(self) -> bool {
        self.readers || self.bench
    }
}

/// A reader whose token was good. Made by [`check`] only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    name: ReaderName,
    rights: Rights,
    expires_ms: u64,
}

impl Reader {
    /// What the owner calls it.
    #[must_use]
    pub const fn name(&self) -> &ReaderName {
        &self.name
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

/// Why a reader's token opens nothing. The wire shows none of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadReader {
    /// Not a token, or of nobody known: removed, or never added.
    #[error("reader token: not of a reader known here")]
    Unknown,
    /// Its time is over.
    #[error("reader token: expired")]
    Expired,
    /// The owner has not turned its kind on.
    #[error("reader token: readers of its kind are turned off")]
    Off,
}

/// Checks a token as it was shown. An unknown kid takes the same work as a known one.
///
/// # Errors
/// [`BadReader`].
pub fn check(
    shown: &[u8],
    accounts: &Accounts,
    admitted: Admitted,
    now: UnixMillis,
) -> Result<Reader, BadReader> {
    let text = std::str::from_utf8(shown).map_err(|_| BadReader::Unknown)?;
    let token = ReaderToken::from_text(text).map_err(|_| BadReader::Unknown)?;
    let account = accounts.get(&token.kid);
    let expected = account.map_or(&[0; 32], |account| &account.secret_sha256);
    let is_right = bool::from(token.hash().ct_eq(expected));
    let account = account.filter(|_| is_right).ok_or(BadReader::Unknown)?;
    if now.0 >= account.expires_ms {
        return Err(BadReader::Expired);
    }
    let is_on = match account.rights {
        Rights::Read { .. } => admitted.readers,
        Rights::Bench => admitted.bench,
    };
    if !is_on {
        return Err(BadReader::Off);
    }
    Ok(Reader {
        name: account.name.clone(),
        rights: account.rights.clone(),
        expires_ms: account.expires_ms,
    })
}

#[cfg(test)]
pub(crate) mod tests;
