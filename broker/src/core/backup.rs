//! What a backup says of itself: its manifest, and when that makes sense.
//!
//! A backup is a directory:
//!
//! ```text
//! manifest.json     this: what is in it, and the BLAKE3 hash of each file
//! manifest.blake3   the hash of manifest.json, as `b3sum` writes it
//! state.db          the store, as of one moment
//! journal/*.seg     the journal, up to an offset that is past everything the store names
//! ```
//!
//! **The rule.** The store follows the journal: what a crash leaves out of the store is put there from the journal at the next start.
//! So a copy is consistent when its journal reaches at least as far as its store. The store's moment is fixed first (a
//! read transaction), then the journal's committed end is read, and then both are copied, each as of its moment. What the journal
//! has past the store's moment, the first start after a restore puts into the store, as after a crash.
//!
//! Private keys are never in it.

use protocol::{
    id::{hex, unhex},
    time::UnixMillis,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    incarnation::Restored,
    journal::{HEADER_BYTES, records_max},
};

/// The format written and read here.
pub const FORMAT: u32 = 1;
/// The longest manifest, in bytes: twenty thousand segments, which is more than a terabyte.
pub const MANIFEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Gaps that a manifest names. Past that a journal is not worth a backup without a person's look.
pub const GAPS_MAX: usize = 4_096;
/// The manifest's file.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The file with the manifest's hash.
pub const SUM_FILE: &str = "manifest.blake3";
/// The store's file.
pub const STORE_FILE: &str = "state.db";
/// The journal's directory.
pub const JOURNAL_DIR: &str = "journal";

/// Bytes, written as hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const N: usize>(pub [u8; N]);

impl<const N: usize> std::fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex(&self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = unhex(&text).filter(|bytes| hex(bytes) == text);
        bytes
            .map(Self)
            .ok_or_else(|| D::Error::custom("not lower-case hexadecimal of the right length"))
    }
}

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Its id: the audit trail names it, before it is made and where it is restored.
    pub id: Hex<16>,
    /// When the store's copy was begun, by the broker's clock.
    pub made_ms: u64,
    /// The program that made it.
    pub version: String,
    /// The broker's name in tokens: its issuer key's.
    pub audience: String,
    /// The incarnation that the broker was in.
    pub incarnation: u64,
    /// That incarnation's id.
    pub incarnation_id: Hex<16>,
    /// Whether the private keys were written to a file of their own at the same time.
    pub keys_apart: bool,
    /// The first offset of the journal.
    pub first_offset: u64,
    /// The first offset that is not in it any more.
    pub end_offset: u64,
    /// Records that it holds.
    pub records: u64,
    /// What could not be read when it was made: it is as damaged as the journal was, and no more.
    pub gaps: Vec<Gap>,
    /// The store.
    pub store: Copied,
    /// The journal, in the order of offsets.
    pub segments: Vec<Segment>,
}

/// A file of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copied {
    /// Its length.
    pub bytes: u64,
    /// Its hash.
    pub blake3: Hex<32>,
}

/// A segment of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Its first offset, which names its file.
    pub first: u64,
    /// Its length.
    pub bytes: u64,
    /// Its hash.
    pub blake3: Hex<32>,
}

/// Offsets whose records cannot be read: damaged, or never there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The first.
    pub from: u64,
    /// The first that is there again.
    pub to: u64,
}

/// Why bytes are no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// More than one holds.
    #[error("{MANIFEST_FILE} is longer than {MANIFEST_BYTES_MAX} bytes")]
    Long,
    /// The hash beside it is another's, or is none.
    #[error("{MANIFEST_FILE} is not what {SUM_FILE} says: one of them has changed")]
    Sum,
    /// It is no JSON of ours.
    #[error("{MANIFEST_FILE} cannot be read: {0}")]
    Text(String),
    /// Another program's.
    #[error(
        "{MANIFEST_FILE} has format {0}, and this program reads format {FORMAT}: use the program that made it, or a newer one"
    )]
    Format(u32),
    /// It says what cannot be.
    #[error("{MANIFEST_FILE} contradicts itself: {0}")]
    Sense(&'static str),
}

/// What [`SUM_FILE`] holds for a manifest with this hash.
#[must_use]
pub fn sum_line(hash: &[u8; 32]) -> String {
    format!("{}  {MANIFEST_FILE}\n", hex(hash))
}

impl Manifest {
    /// Its file's content.
    #[must_use]
    pub fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{text}\n")
    }

    /// Reads [`MANIFEST_FILE`], whose hash is `hash`, beside what stands in [`SUM_FILE`].
    ///
    /// # Errors
    /// [`BadManifest`].
    pub fn read(json: &[u8], hash: &[u8; 32], sum: &[u8]) -> Result<Self, BadManifest> {
        if json.len() > MANIFEST_BYTES_MAX {
            return Err(BadManifest::Long);
        }
        if sum != sum_line(hash).as_bytes() {
            return Err(BadManifest::Sum);
        }
        Self::parse(json)
    }

    fn parse(json: &[u8]) -> Result<Self, BadManifest> {
        // The format first: one of another version may have other fields.
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        let bad = |error: serde_json::Error| BadManifest::Text(error.to_string());
        let Version { format } = serde_json::from_slice(json).map_err(bad)?;
        if format != FORMAT {
            return Err(BadManifest::Format(format));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(bad)?;
        manifest.check().map_err(BadManifest::Sense)?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), &'static str> {
        let ascend = |pair: &[Segment]| matches!(pair, [one, next] if one.first < next.first);
        if !self.segments.windows(2).all(ascend) {
            return Err("its segments are out of order");
        }
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return Err("it has no segment");
        };
        if first.first != self.first_offset || last.first > self.end_offset {
            return Err("its offsets are not those of its segments");
        }
        let header = u64::try_from(HEADER_BYTES).unwrap_or(u64::MAX);
        if self.segments.iter().any(|segment| segment.bytes < header) {
            return Err("a segment is too short to be one");
        }
        let apart = |pair: &[Gap]| matches!(pair, [one, next] if one.to < next.from);
        let inside = |gap: &Gap| {
            self.first_offset <= gap.from && gap.from < gap.to && gap.to <= self.end_offset
        };
        if self.gaps.len() > GAPS_MAX
            || !self.gaps.windows(2).all(apart)
            || !self.gaps.iter().all(inside)
        {
            return Err("its gaps are out of order");
        }
        // Inside and apart, so no sum is too great.
        let missing: u64 = self.gaps.iter().map(|gap| gap.to - gap.from).sum();
        if self.end_offset - self.first_offset - missing != self.records {
            return Err("its records are not those between its offsets");
        }
        let fits = |bytes| records_max(usize::try_from(bytes).unwrap_or(usize::MAX));
        let room = self.segments.iter().map(|segment| fits(segment.bytes));
        if room.fold(0, u64::saturating_add) < self.records {
            return Err("its records do not fit into its segments");
        }
        Ok(())
    }

    /// What an incarnation rests on that is restored from it.
    #[must_use]
    pub const fn restored(&self) -> Restored {
        Restored {
            backup: self.id.0,
            made: UnixMillis(self.made_ms),
            end: self.end_offset,
        }
    }

    /// The bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.bytes);
        segments.fold(self.store.bytes, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn manifest() -> Manifest {
        let segment = |first, bytes| Segment {
            first,
            bytes,
            blake3: Hex([7; 32]),
        };
        Manifest {
            format: FORMAT,
            id: Hex([1; 16]),
            made_ms: 1_790_000_000_000,
            version: "0.1.0".to_owned(),
            audience: "outhaul-00".to_owned(),
            incarnation: 1,
            incarnation_id: Hex([2; 16]),
            keys_apart: false,
            first_offset: 10,
            end_offset: 40,
            records: 25,
            gaps: vec![Gap { from: 12, to: 15 }, Gap { from: 18, to: 20 }],
            store: Copied {
                bytes: 4096,
                blake3: Hex([8; 32]),
            },
            segments: vec![segment(10, 5_000), segment(30, 5_000)],
        }
    }

    fn sum(json: &[u8]) -> ([u8; 32], Vec<u8>) {
        let hash = *blake3::hash(json).as_bytes();
        (hash, sum_line(&hash).into_bytes())
    }

    #[test]
    fn a_manifest_reads_back_as_it_was_written() {
        let json = manifest().to_json().into_bytes();
        let (hash, sum) = sum(&json);
        assert_eq!(Manifest::read(&json, &hash, &sum), Ok(manifest()));
    }

    #[test]
    fn every_flipped_bit_of_a_manifest_and_of_its_sum_is_noticed() {
        let json = manifest().to_json().into_bytes();
        let (hash, sum) = sum(&json);
        for bit in 0..json.len() * 8 {
            let mut bad = json.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let hash = *blake3::hash(&bad).as_bytes();
            assert_eq!(Manifest::read(&bad, &hash, &sum), Err(BadManifest::Sum));
        }
        for bit in 0..sum.len() * 8 {
            let mut bad = sum.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Manifest::read(&json, &hash, &bad), Err(BadManifest::Sum));
        }
    }

    #[test]
    fn what_contradicts_itself_is_no_manifest() {
        type Change = fn(&mut Manifest);
        let changes: [Change; 12] = [
            |bad| bad.segments.reverse(),
            |bad| bad.segments.clear(),
            |bad| bad.segments[1].first = 10,
            |bad| bad.segments[0].bytes = 23,
            |bad| bad.first_offset = 9,
            |bad| bad.end_offset = 29,
            |bad| bad.records = 26,
            |bad| bad.gaps.reverse(),
            |bad| bad.gaps[1].to = 41,
            |bad| bad.gaps[0].from = 9,
            |bad| bad.gaps[1] = Gap { from: 15, to: 17 },
            |bad| (bad.segments[0].bytes, bad.segments[1].bytes) = (24, 24),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut bad = manifest();
            change(&mut bad);
            let read = Manifest::parse(bad.to_json().as_bytes());
            assert!(matches!(read, Err(BadManifest::Sense(_))), "{at}: {read:?}");
        }
    }

    #[test]
    fn another_format_and_unknown_fields_are_refused_with_a_word() {
        let mut newer = manifest();
        newer.format = 2;
        assert_eq!(
            Manifest::parse(newer.to_json().as_bytes()),
            Err(BadManifest::Format(2))
        );
        let more = manifest().to_json().replacen('{', "{\"more\": 1,", 1);
        assert!(matches!(
            Manifest::parse(more.as_bytes()),
            Err(BadManifest::Text(_))
        ));
        let loud = manifest().to_json().replace("0707", "070A");
        assert!(matches!(
            Manifest::parse(loud.as_bytes()),
            Err(BadManifest::Text(_))
        ));
        let long = vec![b' '; MANIFEST_BYTES_MAX + 1];
        let (hash, sum) = sum(&long);
        assert_eq!(Manifest::read(&long, &hash, &sum), Err(BadManifest::Long));
    }

    proptest! {
        #[test]
        fn strange_bytes_and_strange_numbers_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            numbers in proptest::array::uniform8(any::<u64>()),
        ) {
            let _ = Manifest::parse(&bytes);
            let [first, end, records, from, to, one, two, length] = numbers;
            let mut strange = manifest();
            (strange.first_offset, strange.end_offset, strange.records) = (first, end, records);
            strange.gaps[0] = Gap { from, to };
            (strange.segments[0].first, strange.segments[1].first) = (one, two);
            strange.segments[0].bytes = length;
            let _ = Manifest::parse(strange.to_json().as_bytes());
        }
    }
}
