//! The witness on disk.

use protocol::audit::SignedCheckpoint;
use protocol::limits::WITNESS_NOTE_BYTES_MAX;
use protocol::time::UnixMillis;
use serde::{Deserialize, Serialize};

use super::{Kept, Other, Stop, Why, Witness};

/// The version of the file.
const VERSION: u64 = 1;

/// The longest file, in bytes: three notes, two keys, and room.
pub const BYTES_MAX: usize = 4 * WITNESS_NOTE_BYTES_MAX + 2048;

/// Nobody knows when a checkpoint was shown first: no word for a restore undoes it.
const UNKNOWN: UnixMillis = UnixMillis(u64::MAX);

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u64,
    kept: Option<StoredKept>,
    stop: Option<StoredStop>,
}

#[derive(Serialize, Deserialize)]
struct StoredKept {
    vkey: String,
    note: String,
    /// An earlier version wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at: Option<UnixMillis>,
}

#[derive(Serialize, Deserialize)]
struct StoredStop {
    why: u64,
    since: UnixMillis,
    offered: StoredKept,
    other: Option<StoredOther>,
}

#[derive(Serialize, Deserialize)]
struct StoredOther {
    name: String,
    note: String,
}

impl Witness {
    /// What is written to disk.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let stop = self.stop.as_ref().map(|stop| StoredStop {
            why: number(stop.why),
            since: stop.since,
            offered: store(&stop.offered),
            other: stop.other.as_ref().map(|other| StoredOther {
                name: other.name.clone(),
                note: other.note.to_string(),
            }),
        });
        protocol::cbor::to_vec(&Stored {
            version: VERSION,
            kept: self.kept.as_ref().map(store),
            stop,
        })
    }

    /// Reads what [`Witness::to_bytes`] wrote; nothing if it is anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let stored: Stored = protocol::cbor::from_slice(bytes, BYTES_MAX).ok()?;
        if stored.version != VERSION {
            return None;
        }
        let kept = match &stored.kept {
            Some(kept) => Some(load(kept)?),
            None => None,
        };
        let stop = match stored.stop {
            Some(stop) => Some(load_stop(stop)?),
            None => None,
        };
        Some(Self { kept, stop })
    }
}

fn store(kept: &Kept) -> StoredKept {
    StoredKept {
        vkey: kept.vkey.to_string(),
        note: kept.note.to_string(),
        at: (kept.at != UNKNOWN).then_some(kept.at),
    }
}

fn load(stored: &StoredKept) -> Option<Kept> {
    Some(Kept {
        at: stored.at.unwrap_or(UNKNOWN),
        vkey: stored.vkey.parse().ok()?,
        note: SignedCheckpoint::parse(&stored.note).ok()?,
    })
}

fn load_stop(stored: StoredStop) -> Option<Stop> {
    let other = match stored.other {
        Some(other) => Some(Other {
            name: other.name,
            note: SignedCheckpoint::parse(&other.note).ok()?,
        }),
        None => None,
    };
    Some(Stop {
        why: why(stored.why)?,
        since: stored.since,
        offered: load(&stored.offered)?,
        other,
    })
}

fn number(why: Why) -> u64 {
    match why {
        Why::Behind => 1,
        Why::Rewritten => 2,
        Why::SplitView => 3,
        Why::OtherKey => 4,
    }
}

fn why(number: u64) -> Option<Why> {
    match number {
        1 => Some(Why::Behind),
        2 => Some(Why::Rewritten),
        3 => Some(Why::SplitView),
        4 => Some(Why::OtherKey),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use protocol::audit::{Checkpoint, Vkey};
    use protocol::key::Secret;
    use zeroize::Zeroizing;

    use super::*;

    #[derive(Serialize)]
    struct Earlier {
        version: u64,
        kept: EarlierKept,
        stop: Option<()>,
    }

    #[derive(Serialize)]
    struct EarlierKept {
        vkey: String,
        note: String,
    }

    #[test]
    fn what_an_earlier_version_kept_is_read_and_undone_by_no_word_for_a_restore() {
        let key = Secret::from_seed(&Zeroizing::new([1; 32]));
        let checkpoint = Checkpoint::new("b/audit", 3, [7; 32]).unwrap();
        let note = SignedCheckpoint::sign(checkpoint, &[&key]);
        let vkey = Vkey::new("b/audit", key.public()).unwrap();
        let earlier = Earlier {
            version: VERSION,
            kept: EarlierKept {
                vkey: vkey.to_string(),
                note: note.to_string(),
            },
            stop: None,
        };
        let witness = Witness::from_bytes(&protocol::cbor::to_vec(&earlier)).unwrap();
        let kept = Some(Kept {
            at: UNKNOWN,
            vkey,
            note,
        });
        assert_eq!(witness, Witness { kept, stop: None });
        assert_eq!(Witness::from_bytes(&witness.to_bytes()), Some(witness));
    }
}
