//! Judging a backup offline: everything in it, changing nothing.

use std::{fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, bail, ensure};
use protocol::id::hex;

use super::{Step, file};
use crate::{
    core::{
        backup::{
            Copied, Hex, JOURNAL_DIR, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest, STORE_FILE,
            SUM_FILE,
        },
        incarnation::History,
    },
    shell::{
        journal::{Contents, Extent, Extents, read_through},
        store::{self, StoreFacts},
    },
};

/// A backup that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The manifest's hash.
    pub blake3: Hex<32>,
    /// What its store holds.
    pub store: StoreFacts,
    /// What its journal holds.
    pub contents: Contents,
}

impl Found {
    /// Its incarnations.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.store.history
    }
}

/// Checks everything. Blocks.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(dir: &Path, told: &mut dyn FnMut(Step)) -> anyhow::Result<Found> {
    let (manifest, blake3) = read_manifest(dir)?;
    let (store_path, journal) = (dir.join(STORE_FILE), dir.join(JOURNAL_DIR));
    let all = manifest.bytes();
    let mut done = 0;
    let mut tell = |what, bytes| {
        done += bytes;
        told(Step { what, done, all });
    };
    for segment in &manifest.segments {
        let path = extent(segment.first, segment.bytes).path(&journal);
        expect(&path, segment.bytes, segment.blake3)?;
        tell("hashing", segment.bytes);
    }
    expect(&store_path, manifest.store.bytes, manifest.store.blake3)?;
    done = 0;
    let contents = read_through(&journal, &extents(&manifest), |bytes| {
        done += bytes;
        told(Step {
            what: "reading the journal",
            done,
            all,
        });
    })?;
    if (contents.records, &contents.gaps) != (manifest.records, &manifest.gaps) {
        bail!(
            "{JOURNAL_DIR}: it does not hold the records that {MANIFEST_FILE} names, though its bytes are those that were hashed"
        );
    }
    let store = store::inspect(&store_path).context(STORE_FILE)?;
    judge(&manifest, &store)?;
    Ok(Found {
        manifest,
        blake3,
        store,
        contents,
    })
}

/// What is to be read of its journal.
pub(super) fn extents(manifest: &Manifest) -> Extents {
    let segments = manifest.segments.iter();
    Extents {
        segments: segments.map(|one| extent(one.first, one.bytes)).collect(),
        next: manifest.end_offset,
    }
}

fn extent(first: u64, bytes: u64) -> Extent {
    Extent { first, bytes }
}

fn read_manifest(dir: &Path) -> anyhow::Result<(Manifest, Hex<32>)> {
    let read = |name: &str, bytes_max: usize| -> anyhow::Result<Vec<u8>> {
        let path = dir.join(name);
        let mut content = Vec::new();
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        // One byte more shows that there is more.
        let bytes_max = u64::try_from(bytes_max)?.saturating_add(1);
        let read = file.take(bytes_max).read_to_end(&mut content);
        read.with_context(|| format!("read {}", path.display()))?;
        Ok(content)
    };
    let json = read(MANIFEST_FILE, MANIFEST_BYTES_MAX)?;
    let sum = read(SUM_FILE, 256)?;
    let blake3 = *blake3::hash(&json).as_bytes();
    Ok((Manifest::read(&json, &blake3, &sum)?, Hex(blake3)))
}

fn expect(path: &Path, bytes: u64, blake3: Hex<32>) -> anyhow::Result<()> {
    let found = file::hash(path)?;
    ensure!(
        found == Copied { bytes, blake3 },
        "{}: it is not the file that was written: {} bytes with the hash {}, where the manifest names {bytes} with {blake3}",
        path.display(),
        found.bytes,
        found.blake3
    );
    Ok(())
}

/// Whether the store and the journal are of one broker, and belong to the manifest.
fn judge(manifest: &Manifest, store: &StoreFacts) -> anyhow::Result<()> {
    ensure!(
        store.offsets_end <= manifest.end_offset,
        "{STORE_FILE}: it names offsets up to {}, and the journal ends at {}",
        store.offsets_end,
        manifest.end_offset
    );
    let current = store.history.current();
    ensure!(
        (current.number, current.id) == (manifest.incarnation, manifest.incarnation_id.0),
        "{STORE_FILE}: it is of incarnation {} ({}), and the manifest names {} ({})",
        current.number,
        hex(&current.id),
        manifest.incarnation,
        manifest.incarnation_id
    );
    ensure!(
        current.first <= manifest.end_offset,
        "{STORE_FILE}: its incarnation begins at offset {}, and the journal ends at {}",
        current.first,
        manifest.end_offset
    );
    if let Some(fault) = store.audit.broken {
        bail!(
            "{STORE_FILE}: the audit trail breaks at row {}: {fault:?}",
            store.audit.rows
        );
    }
    Ok(())
}
