//! The issuer keys on disk: `issuer.key` signs tokens; `issuer.past` says whose tokens still count, and what the broker is called.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, ensure};
use protocol::{
    id::hex,
    key::{Issuer, Public, Secret},
    key_change::IssuerSuccession,
    signed,
    time::UnixMillis,
    token::{HostTerms, mint_host},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keys::{DataDir, fill_random, load_or_make, read_secret, write_secret};
use crate::core::issuer::{PAST_MAX, Past, accepted, after_rotation, overlap};

/// The key that signs.
const KEY_FILE: &str = "issuer.key";
/// The keys before it. There is none before the first rotation.
const PAST_FILE: &str = "issuer.past";

/// The broker's issuer keys, and its name in tokens.
#[derive(Debug)]
pub struct Issuers {
    /// None for a broker that is gone with its process.
    directory: Option<DataDir>,
    audience: String,
    held: RwLock<Held>,
    /// Counts the emergencies since this start: a token that was checked before one may not count any more.
    voided: AtomicU64,
}

#[derive(Debug)]
struct Held {
    current: Secret<Issuer>,
    since: Option<UnixMillis>,
    past: Vec<Past>,
}

/// What a rotation is about to do, for the record that comes before it.
#[derive(Debug)]
pub struct Rotation {
    /// The key that signed until now.
    pub before: Public<Issuer>,
    /// The one that signs from now on.
    pub after: Public<Issuer>,
    /// Until when the old one's tokens are accepted; none if they are void at once.
    pub until: Option<UnixMillis>,
    /// The old key's word for the new one: a signed [`IssuerSuccession`].
    pub succession: Vec<u8>,
}

/// A key, and what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key.
    pub key: Public<Issuer>,
    /// Since when it signs, if that is known: not of a broker's first.
    pub since: Option<UnixMillis>,
    /// Until when its tokens are accepted; none of the current one.
    pub until: Option<UnixMillis>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    audience: String,
    since_ms: u64,
    past: Vec<StoredPast>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPast {
    key: String,
    until_ms: u64,
}

impl Issuers {
    /// Reads them; makes the first in a directory that was never used.
    ///
    /// # Errors
    /// A file is open to others, is not ours, or is missing where it has been.
    pub fn open(directory: &DataDir) -> anyhow::Result<Self> {
        let current = load_or_make(directory, KEY_FILE)?;
        let path = directory.key(PAST_FILE);
        let stored = read_secret(&path)?;
        let read = || format!("read {}", path.display());
        let (audience, since, past) = match stored {
            None => (audience_of(&current), None, Vec::new()),
            Some(text) => read_past(&text).with_context(read)?,
        };
        Ok(Self {
            directory: Some(directory.clone()),
            audience,
            held: RwLock::new(Held {
                current,
                since,
                past,
            }),
            voided: AtomicU64::new(0),
        })
    }

    /// One that is kept nowhere.
    #[must_use]
    pub fn of(current: Secret<Issuer>) -> Self {
        Self {
            directory: None,
            audience: audience_of(&current),
            held: RwLock::new(Held {
                current,
                since: None,
                past: Vec::new(),
            }),
            voided: AtomicU64::new(0),
        }
    }

    /// The broker's name in tokens: its first key's. It stays when the key is followed by another.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The keys whose tokens are accepted at `now`.
    #[must_use]
    pub fn accepted(&self, now: UnixMillis) -> Vec<Public<Issuer>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        accepted(held.current.public(), &held.past, now).collect()
    }

    /// How often all tokens were made void since this start.
    #[must_use]
    pub fn voided(&self) -> u64 {
        self.voided.load(Ordering::Acquire)
    }

    /// The key that signs, and those whose tokens are accepted at `now`.
    #[must_use]
    pub fn list(&self, now: UnixMillis) -> Vec<Listed> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let current = Listed {
            key: held.current.public(),
            since: held.since,
            until: None,
        };
        let past = held.past.iter().rev().filter(|one| one.until >= now);
        let past = past.map(|one| Listed {
            key: one.key,
            since: None,
            until: Some(one.until),
        });
        [current].into_iter().chain(past).collect()
    }

    /// Signs a connection token.
    #[must_use]
    pub fn mint(&self, terms: &HostTerms<'_>) -> Vec<u8> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        mint_host(&held.current, terms)
    }

    /// Makes the next key and signs with it from now on; `record` comes first. With `is_void` no token from before counts any more.
    /// Blocks.
    ///
    /// # Errors
    /// `record` or the disk refuses, or it was rotated too often.
    pub fn rotate(
        &self,
        now: UnixMillis,
        is_void: bool,
        record: impl FnOnce(&Rotation) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut seed = Zeroizing::new([0; 32]);
        fill_random(&mut *seed)?;
        let next = Secret::<Issuer>::from_seed(&seed);
        // Held to the end: no token may be signed with a key that is on its way out and not on the list.
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let before = held.current.public();
        let past = after_rotation(&held.past, before, is_void, now);
        let past = past.with_context(|| {
            format!("the issuer key was rotated more than {PAST_MAX} times within the hour: wait until older tokens have ended, or say --now")
        })?;
        let until = (!is_void).then(|| overlap(now));
        let word = IssuerSuccession {
            audience: self.audience.clone(),
            key: next.public(),
            time: now,
            until: until.unwrap_or(now),
        };
        record(&Rotation {
            before,
            after: next.public(),
            until,
            succession: signed::sign(&held.current, &word, b""),
        })?;
        if let Some(directory) = &self.directory {
            self.write(directory, &next, &past, now)?;
        }
        *held = Held {
            current: next,
            since: Some(now),
            past,
        };
        if is_void {
            self.voided.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// The list first: a crash between the two leaves the old key in use, and on the list, which changes nothing.
    fn write(
        &self,
        directory: &DataDir,
        next: &Secret<Issuer>,
        past: &[Past],
        now: UnixMillis,
    ) -> anyhow::Result<()> {
        let stored = Stored {
            audience: self.audience.clone(),
            since_ms: now.0,
            past: past
                .iter()
                .map(|one| StoredPast {
                    key: one.key.to_string(),
                    until_ms: one.until.0,
                })
                .collect(),
        };
        let text = serde_json::to_vec_pretty(&stored).context("write the issuer's keys")?;
        write_secret(&directory.key(PAST_FILE), &text)?;
        write_secret(&directory.key(KEY_FILE), next.to_file_text().as_bytes())
    }
}

fn audience_of(key: &Secret<Issuer>) -> String {
    format!("outhaul-{}", hex(&key.public().id()))
}

fn read_past(text: &str) -> anyhow::Result<(String, Option<UnixMillis>, Vec<Past>)> {
    let stored: Stored = serde_json::from_str(text).context("it is not ours")?;
    ensure!(stored.past.len() <= PAST_MAX, "it lists too many keys");
    let past = stored.past.iter().map(|one| {
        let key = one.key.parse().context("it lists what is no key")?;
        let until = UnixMillis(one.until_ms);
        Ok(Past { key, until })
    });
    let past = past.collect::<anyhow::Result<_>>()?;
    Ok((stored.audience, Some(UnixMillis(stored.since_ms)), past))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn keys(issuers: &Issuers) -> Vec<Public<Issuer>> {
        issuers.accepted(NOW)
    }

    #[test]
    fn a_rotation_is_recorded_first_signed_by_the_old_key_and_outlives_a_restart() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        let issuers = Issuers::open(&directory).unwrap();
        let (first, audience) = (keys(&issuers), issuers.audience().to_owned());
        let refused = issuers.rotate(NOW, false, |_| anyhow::bail!("no record"));
        assert!(refused.is_err());
        assert_eq!(keys(&issuers), first, "no record, no rotation");
        issuers
            .rotate(NOW, false, |rotation| {
                let word = &rotation.succession;
                let said = signed::verify::<IssuerSuccession>(word, &first, b"").unwrap();
                assert_eq!(said.value().key, rotation.after);
                assert_eq!(said.value().audience, audience);
                Ok(())
            })
            .unwrap();
        assert_eq!(keys(&issuers).len(), 2);
        assert_eq!(keys(&issuers)[1..], first);
        let again = Issuers::open(&directory).unwrap();
        assert_eq!(keys(&again), keys(&issuers));
        assert_eq!(again.audience(), audience, "the broker's name stays");
        assert_eq!(again.list(NOW).len(), 2);
        again.rotate(NOW, true, |_| Ok(())).unwrap();
        assert_eq!((keys(&again).len(), again.voided()), (1, 1));
        let last = Issuers::open(&directory).unwrap();
        assert_eq!(keys(&last), keys(&again));
        assert_eq!(last.audience(), audience);
    }

    #[test]
    fn a_crash_between_the_two_files_leaves_the_old_key_in_use() {
        let place = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&place.path().join("data")).unwrap();
        let issuers = Issuers::open(&directory).unwrap();
        let (before, old) = (
            keys(&issuers),
            std::fs::read(directory.key(KEY_FILE)).unwrap(),
        );
        issuers.rotate(NOW, false, |_| Ok(())).unwrap();
        write_secret(&directory.key(KEY_FILE), &old).unwrap();
        let again = Issuers::open(&directory).unwrap();
        assert_eq!(again.list(NOW)[0].key, before[0]);
        again.rotate(NOW, false, |_| Ok(())).unwrap();
        assert!(keys(&again).contains(&before[0]));
    }
}
