//! Whom this host obeys: the dispatchers that its owner lists, and what became of their keys since.
//!
//! A dispatcher's key is followed by another when the old one says so, and is obeyed no more when another dispatcher revokes it. Such
//! statements come on the command topic; the broker can hold them back, and make none. Each is kept, in the order in which it was
//! taken.
//!
//! The owner's list has the last word. What was said ends a key only if it was said after the owner listed that key: who takes a
//! key off the list and, at a later start, puts it there again, has it obeyed whatever was said before. And who is obeyed only because
//! a listed key named it is obeyed no more when that key is taken off the list.

use protocol::key::{Dispatcher, Public};
use protocol::key_change::{Change, RestoredTrail, Statement, StatementError};
use protocol::limits::{LEEWAY_S, STATEMENTS_MAX};
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What was learned, as it is persisted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    listed: Vec<Listed>,
    statements: Vec<Taken>,
}

/// A key on the owner's list, and since when it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    key: Public<Dispatcher>,
    since: UnixMillis,
}

/// A statement, and when it was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Taken {
    statement: ByteBuf,
    at: UnixMillis,
}

/// Whom the host obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatchers {
    learned: Learned,
    known: Vec<Known>,
}

/// A key, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    key: Public<Dispatcher>,
    /// Since when the owner lists it.
    listed: Option<UnixMillis>,
    /// The key that named it.
    named_by: Option<Public<Dispatcher>>,
    /// The key that it named.
    next: Option<Public<Dispatcher>>,
    /// When it is obeyed no more, being followed by another.
    until: Option<UnixMillis>,
    is_revoked: bool,
}

impl Known {
    fn is_obeyed(&self, at: UnixMillis) -> bool {
        !self.is_revoked && self.until.is_none_or(|until| at <= until)
    }
}

/// What a statement changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// One key is followed by another.
    Followed {
        /// The key that said so.
        key: Public<Dispatcher>,
        /// Its successor.
        next: Public<Dispatcher>,
        /// Until when the first is obeyed beside it; for as long as the owner lists it, if the owner did so after it was said.
        until: Option<UnixMillis>,
    },
    /// A key is obeyed no more.
    Revoked {
        /// Which.
        key: Public<Dispatcher>,
        /// Who said so.
        by: Public<Dispatcher>,
    },
    /// Nothing here: it is for the witness, who keeps what comes of it.
    Restored {
        /// The trail to go on from.
        trail: RestoredTrail,
        /// Who said so.
        by: Public<Dispatcher>,
    },
}

/// Why a statement changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChange {
    /// It is not said by a dispatcher that is obeyed, or may not be said.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// It was taken before.
    #[error("it was taken before")]
    Again,
    /// Its signer named another successor before.
    #[error("its signer named another successor before: somebody else may have that key")]
    Fork,
    /// The key it is about is not obeyed here.
    #[error("the key it is about is not obeyed here")]
    Unknown,
    /// The key it names was revoked.
    #[error("the key it names was revoked")]
    Revoked,
    /// The owner listed the key after it was said.
    #[error("the owner of this host listed the key after it was said")]
    Owner,
    /// There is no room for more.
    #[error(
        "{STATEMENTS_MAX} statements are kept already: list the present keys in the policy, and start anew"
    )]
    Full,
}

impl Dispatchers {
    /// From the owner's list as it is at `now`, and what was learned before. A key that is new on the list is there since `now`; at the
    /// first start since `first`, when the bundle was made.
    #[must_use]
    pub fn open(
        list: impl IntoIterator<Item = Public<Dispatcher>>,
        earlier: Option<Learned>,
        first: UnixMillis,
        now: UnixMillis,
    ) -> Self {
        let new_since = if earlier.is_some() { now } else { first };
        let earlier = earlier.unwrap_or_default();
        let mut learned = Learned::default();
        for key in list {
            let before = earlier.listed.iter().find(|listed| listed.key == key);
            let since = before.map_or(new_since, |listed| listed.since);
            if learned.listed.iter().all(|listed| listed.key != key) {
                learned.listed.push(Listed { key, since });
            }
        }
        let mut dispatchers = Self {
            known: learned.listed.iter().map(known).collect(),
            learned,
        };
        // By the list as it is now: a word of a key that is not on it, and was named by none that is, is worth nothing any more.
        for taken in earlier.statements {
            let _ = dispatchers.take(&taken.statement, taken.at);
        }
        dispatchers
    }

    /// The keys that are obeyed at `at`.
    #[must_use]
    pub fn obeyed(&self, at: UnixMillis) -> Vec<Public<Dispatcher>> {
        let obeyed = self.known.iter().filter(|known| known.is_obeyed(at));
        obeyed.map(|known| known.key).collect()
    }

    /// What is to be persisted.
    #[must_use]
    pub const fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Takes a statement that came at `now`. What it returns is true here at once; the caller keeps [`Dispatchers::learned`], on disk.
    ///
    /// # Errors
    /// [`NoChange`], and nothing changes.
    pub fn take(&mut self, statement: &[u8], now: UnixMillis) -> Result<Changed, NoChange> {
        let taken = &self.learned.statements;
        if taken.iter().any(|taken| taken.statement == statement) {
            return Err(NoChange::Again);
        }
        let is_full = taken.len() >= STATEMENTS_MAX;
        // Whoever is obeyed no more has nothing to say, whatever date is on it.
        let verified = Statement::verify(statement, &self.obeyed(now), now)?;
        let (signer, said) = (verified.signer(), verified.into_value());
        let changed = match said.change {
            Change::Restored(trail) => return Ok(Changed::Restored { trail, by: signer }),
            Change::Next(_) | Change::Revoke(_) if is_full => return Err(NoChange::Full),
            Change::Next(next) => self.follow(signer, next.key, next.until, said.time)?,
            Change::Revoke(revoked) => self.revoke(signer, revoked.key, said.time)?,
        };
        self.learned.statements.push(Taken {
            statement: ByteBuf::from(statement.to_vec()),
            at: now,
        });
        Ok(changed)
    }

    fn follow(
        &mut self,
        signer: Public<Dispatcher>,
        next: Public<Dispatcher>,
        until: UnixMillis,
        said: UnixMillis,
    ) -> Result<Changed, NoChange> {
        if self.find(next).is_some_and(|known| known.is_revoked) {
            return Err(NoChange::Revoked);
        }
        let is_new = self.find(next).is_none();
        let known = self.find_mut(signer).ok_or(NoChange::Unknown)?;
        match known.next {
            Some(before) if before == next => return Err(NoChange::Again),
            Some(_) => return Err(NoChange::Fork),
            None => {}
        }
        known.next = Some(next);
        // One that the owner listed later goes on.
        if !known.listed.is_some_and(|listed| is_before(said, listed)) {
            known.until = Some(until);
        }
        let until = known.until;
        if is_new {
            self.known.push(Known {
                key: next,
                listed: None,
                named_by: Some(signer),
                next: None,
                until: None,
                is_revoked: false,
            });
        }
        Ok(Changed::Followed {
            key: signer,
            next,
            until,
        })
    }

    fn revoke(
        &mut self,
        signer: Public<Dispatcher>,
        key: Public<Dispatcher>,
        said: UnixMillis,
    ) -> Result<Changed, NoChange> {
        let known = self.find_mut(key).ok_or(NoChange::Unknown)?;
        if known.is_revoked {
            return Err(NoChange::Again);
        }
        if known.listed.is_some_and(|listed| is_before(said, listed)) {
            return Err(NoChange::Owner);
        }
        known.is_revoked = true;
        // Whoever holds a stolen key may have named another of his own; what a revoked key named goes with it.
        let mut fallen = vec![key];
        while let Some(by) = fallen.pop() {
            for known in &mut self.known {
                let is_named = known.named_by == Some(by) && known.listed.is_none();
                if is_named && !known.is_revoked {
                    known.is_revoked = true;
                    fallen.push(known.key);
                }
            }
        }
        Ok(Changed::Revoked { key, by: signer })
    }

    fn find(&self, key: Public<Dispatcher>) -> Option<&Known> {
        self.known.iter().find(|known| known.key == key)
    }

    fn find_mut(&mut self, key: Public<Dispatcher>) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.key == key)
    }
}

fn known(listed: &Listed) -> Known {
    Known {
        key: listed.key,
        listed: Some(listed.since),
        named_by: None,
        next: None,
        until: None,
        is_revoked: false,
    }
}

/// Whether something was said before the owner listed a key, for all that clocks differ: in doubt it was not.
const fn is_before(said: UnixMillis, listed: UnixMillis) -> bool {
    said.0.saturating_add(LEEWAY_S * 1000) < listed.0
}

#[cfg(test)]
mod tests;
