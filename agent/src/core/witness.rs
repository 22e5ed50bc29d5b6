//! This host as witness of the broker's audit trail: what it keeps of it, and what it makes of what it is shown.
//!
//! With every renewal the broker shows its newest checkpoint. It must go on from the one that is kept here, and from those that other
//! hosts cosigned; then it is kept in that one's place, and cosigned with the next request. If it does not, the broker has lost or
//! rewritten history, or shows two of them: the host stops obeying commands until its owner decides. What is judged are notes that the
//! broker's own audit key signed, so both of a pair that contradicts itself are evidence against whoever holds that key, and nobody's
//! word is needed for it, not even that of the other host.
//!
//! A dispatcher whom the owner lists may say that the broker was restored, and from which checkpoint on it is to be believed again. That
//! undoes what was seen until the restore, and nothing that was seen since.
//!
//! The first checkpoint is taken on trust, under the bundle's audit key if it names one, else under the key that signed it.

pub mod stored;

use protocol::audit::note::{self, BadNote};
use protocol::audit::proof::check_consistency;
use protocol::audit::{Checkpoint, SignedCheckpoint, Vkey, cosignature};
use protocol::exchange::{Cosigned, Trail};
use protocol::id::HostId;
use protocol::key::{Audit, Host, Secret};
use protocol::key_change::RestoredTrail;
use protocol::time::UnixMillis;
use serde_bytes::ByteArray;

/// A checkpoint, and the audit key that signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// When it was shown here first, by the broker's clock.
    pub at: UnixMillis,
    /// The key.
    pub vkey: Vkey<Audit>,
    /// The checkpoint, with the signatures of the trail's keys alone.
    pub note: SignedCheckpoint,
}

/// A checkpoint that another host cosigned, as the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// Which host; that it was this one is the broker's word.
    pub name: String,
    /// The checkpoint.
    pub note: SignedCheckpoint,
}

/// What contradicts what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Fewer rows than were seen before: a restore from a backup, or rows that were taken away.
    Behind,
    /// As many rows or more, and not the same ones.
    Rewritten,
    /// Another host saw what this trail does not go on from, or more rows than it has.
    SplitView,
    /// Signed by an audit key that the one known here does not vouch for.
    OtherKey,
}

impl Why {
    /// In a word, for programs.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Rewritten => "rewritten",
            Self::SplitView => "split_view",
            Self::OtherKey => "other_key",
        }
    }

    /// For a person.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Behind => {
                "the broker shows fewer rows than this host has seen: it was restored from a backup, or rows were taken away"
            }
            Self::Rewritten => {
                "the broker's trail does not go on from the one that this host has seen: rows were changed"
            }
            Self::SplitView => {
                "another host has seen a trail that this one does not go on from: there are two histories, or rows were taken away"
            }
            Self::OtherKey => {
                "the broker's trail is signed by an audit key that the one known here does not vouch for"
            }
        }
    }
}

/// The witness has stopped the host, and on what evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What is wrong.
    pub why: Why,
    /// Since when, by the broker's clock.
    pub since: UnixMillis,
    /// What the broker showed.
    pub offered: Kept,
    /// What another host had seen, if that is what contradicts it.
    pub other: Option<Other>,
}

impl Stop {
    /// Names what the owner is asked to accept: whoever accepts it has seen it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(self.offered.note.to_string().as_bytes()).as_bytes()
    }
}

/// A witness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// The last checkpoint that went on from all before.
    pub kept: Option<Kept>,
    /// Why the host obeys nobody now.
    pub stop: Option<Stop>,
}

/// What a look at the trail came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What is kept: nothing to write down.
    Same,
    /// It goes on from what is kept, or is the first. This is to be on disk before the grant is used or anything is cosigned.
    Grown(Witness),
    /// It does not. This is to be on disk, and the owner is to be told.
    Stopped(Witness),
    /// The host was stopped before, and its owner has not decided.
    StillStopped,
}

/// Why the trail cannot be judged: the grant that came with it is not used, and the broker is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTrail {
    /// The broker shows none.
    #[error(
        "the broker shows no checkpoint of its audit trail: it may be older than this operator, update it"
    )]
    Missing,
    /// Longer than the protocol allows.
    #[error("what the broker shows of its audit trail is longer than its limit")]
    TooLong,
    /// Its checkpoint is none.
    #[error("the broker's checkpoint is {0}")]
    Note(#[from] BadNote),
}

/// Another checkpoint than the one that stands was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what was accepted is not what this host was stopped by: look at `outhaul-agent status` again"
)]
pub struct NotThat;

/// A dispatcher's word for a restore changes nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotUndone {
    /// Its checkpoint is none.
    #[error("the checkpoint in it is {0}")]
    Note(#[from] BadNote),
    /// What this host keeps, it was shown after that restore: the word was taken before, or came too late.
    #[error("this host has seen the audit trail since that restore")]
    Seen,
}

impl Witness {
    /// Judges what the broker shows. `pin` is the audit key that the bundle names, and counts until something is kept.
    ///
    /// # Errors
    /// [`BadTrail`] if it shows nothing that can be judged.
    pub fn judge(
        &self,
        trail: Option<&Trail>,
        pin: Option<&Vkey<Audit>>,
        now: UnixMillis,
    ) -> Result<Verdict, BadTrail> {
        let trail = trail.ok_or(BadTrail::Missing)?;
        if !trail.is_bounded() {
            return Err(BadTrail::TooLong);
        }
        let vkey: Vkey<Audit> = trail.vkey.parse()?;
        let note = SignedCheckpoint::parse(&trail.note)?;
        note.verify(&vkey)?;
        let offered = Kept {
            at: now,
            note: own_lines(&note)?,
            vkey,
        };
        if self.stop.is_some() {
            return Ok(Verdict::StillStopped);
        }
        let known = self.kept.as_ref().map(|kept| &kept.vkey).or(pin);
        let keys = follow(known.unwrap_or(&offered.vkey), trail);
        let contradiction = if keys.contains(&offered.vkey) {
            self.contradiction(&offered, &keys, trail)
        } else {
            Some((Why::OtherKey, None))
        };
        if let Some((why, other)) = contradiction {
            return Ok(Verdict::Stopped(Self {
                kept: self.kept.clone(),
                stop: Some(Stop {
                    why,
                    since: now,
                    offered,
                    other,
                }),
            }));
        }
        let is_same = self.kept.as_ref().is_some_and(|kept| {
            kept.vkey == offered.vkey && kept.checkpoint() == offered.checkpoint()
        });
        if is_same {
            return Ok(Verdict::Same);
        }
        Ok(Verdict::Grown(Self {
            kept: Some(offered),
            stop: None,
        }))
    }

    /// What contradicts `offered`: what is kept, or what others kept under one of `keys`.
    fn contradiction(
        &self,
        offered: &Kept,
        keys: &[Vkey<Audit>],
        trail: &Trail,
    ) -> Option<(Why, Option<Other>)> {
        let new = offered.checkpoint();
        if let Some(kept) = &self.kept {
            let old = kept.checkpoint();
            if new.size() < old.size() {
                return Some((Why::Behind, None));
            }
            if !goes_on(old, new, &trail.proof) {
                return Some((Why::Rewritten, None));
            }
        }
        let contradicts = |one: &Cosigned| {
            let other = read_other(one, keys)?;
            let is_fine = goes_on(other.note.unverified(), new, &one.proof);
            (!is_fine).then_some(other)
        };
        let other = trail.others.iter().find_map(contradicts)?;
        Some((Why::SplitView, Some(other)))
    }

    /// What the next request shows: the kept checkpoint, cosigned with the key that signs the request. While the host is stopped it is
    /// shown and not cosigned: nothing is said about today.
    #[must_use]
    pub fn cosigned(&self, host: &HostId, key: &Secret<Host>, now: UnixMillis) -> Option<String> {
        let mut note = self.kept.as_ref()?.note.clone();
        if self.stop.is_none()
            && let Ok(line) =
                cosignature::cosign(note.unverified(), host.as_str(), key, now.seconds())
        {
            // Of ours there is none yet, and those of the trail leave room.
            let _ = note.add(line);
        }
        Some(note.to_string())
    }

    /// The owner accepts what the host was stopped by, named by [`Stop::digest`]: the witness goes on from there. Nothing changes on
    /// disk yet.
    ///
    /// # Errors
    /// [`NotThat`].
    pub fn accept(&self, digest: &[u8; 32], now: UnixMillis) -> Result<Self, NotThat> {
        match &self.stop {
            Some(stop) if stop.digest() == *digest => Ok(Self {
                kept: Some(Kept {
                    at: now,
                    ..stop.offered.clone()
                }),
                stop: None,
            }),
            Some(_) | None => Err(NotThat),
        }
    }

    /// A dispatcher whom this host obeys says that the broker was restored: the witness goes on from the checkpoint in it, stopped or not.
    /// Nothing changes on disk yet.
    ///
    /// # Errors
    /// [`NotUndone`].
    pub fn restored(&self, restored: &RestoredTrail, now: UnixMillis) -> Result<Self, NotUndone> {
        let (vkey, note) = restored.checkpoint()?;
        // Else whoever holds such a word back could use it later to have anything undone.
        if self
            .kept
            .as_ref()
            .is_some_and(|kept| kept.at >= restored.at)
        {
            return Err(NotUndone::Seen);
        }
        Ok(Self {
            kept: Some(Kept {
                at: now.max(restored.at),
                note: own_lines(&note)?,
                vkey,
            }),
            stop: None,
        })
    }

    /// What whoever sends a command is told while the host is stopped.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let stop = self.stop.as_ref()?;
        Some(format!(
            "witness: {}. This host obeys nobody until its owner decides (`outhaul-agent accept-restore`), \
             or, after a restore, a dispatcher that it lists (`outhaul dispatcher accept-restore`)",
            stop.why.text()
        ))
    }
}

impl Kept {
    /// What it says. It was verified when it was kept.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        self.note.unverified()
    }
}

/// The names and sizes of what other hosts cosigned and this trail goes on from, for the owner.
#[must_use]
pub fn others(trail: &Trail) -> Vec<(String, u64)> {
    let read = |one: &Cosigned| {
        let note = SignedCheckpoint::parse(&one.note).ok()?;
        Some((cosigner(&note)?, note.unverified().size()))
    };
    trail.others.iter().filter_map(read).collect()
}

/// Whether the trail `new` begins with the trail `old`.
fn goes_on(old: &Checkpoint, new: &Checkpoint, proof: &[ByteArray<32>]) -> bool {
    if old.size() == new.size() {
        return old.root() == new.root();
    }
    let hashes: Vec<_> = proof.iter().map(|hash| hash.into_array()).collect();
    old.size() < new.size()
        && check_consistency(old.size(), new.size(), &hashes, old.root(), new.root()).is_ok()
}

/// The audit keys from `known` on, each vouched for by the one before: both signed one checkpoint. The trail's own is the last, if the
/// way leads there.
fn follow(known: &Vkey<Audit>, trail: &Trail) -> Vec<Vkey<Audit>> {
    let mut keys = vec![known.clone()];
    let steps = trail.handovers.iter().map(|one| (&one.note, &one.vkey));
    for (note, next) in steps.chain([(&trail.note, &trail.vkey)]) {
        let (Ok(note), Ok(next)) = (SignedCheckpoint::parse(note), next.parse::<Vkey<Audit>>())
        else {
            continue;
        };
        let vouches = |key: &Vkey<Audit>| note.verify(key).is_ok();
        let is_next = keys.last().is_some_and(vouches) && vouches(&next);
        if is_next && !keys.contains(&next) {
            keys.push(next);
        }
    }
    keys
}

/// A checkpoint that another host kept, if one of the trail's keys signed it: what none signed is no evidence of anything.
fn read_other(one: &Cosigned, keys: &[Vkey<Audit>]) -> Option<Other> {
    let note = SignedCheckpoint::parse(&one.note).ok()?;
    keys.iter()
        .any(|key| note.verify(key).is_ok())
        .then_some(())?;
    let name = cosigner(&note).unwrap_or_else(|| "a host without a name".to_owned());
    Some(Other { name, note })
}

/// Who says to have cosigned a checkpoint.
fn cosigner(note: &SignedCheckpoint) -> Option<String> {
    let origin = note.unverified().origin();
    let line = note
        .signatures()
        .iter()
        .find(|line| line.name() != origin)?;
    Some(line.name().to_owned())
}

/// The note without what others signed: that is shown to this host, not kept by it.
fn own_lines(note: &SignedCheckpoint) -> Result<SignedCheckpoint, BadNote> {
    let origin = note.unverified().origin();
    let lines: Vec<_> = note
        .signatures()
        .iter()
        .filter(|line| line.name() == origin)
        .cloned()
        .collect();
    SignedCheckpoint::parse(&note::format(&note.unverified().to_string(), &lines))
}

#[cfg(test)]
mod tests;
