//! Making a backup, beside a broker that goes on.

use std::path::Path;

use anyhow::{Context as _, ensure};
use protocol::time::UnixMillis;

use super::{
    Step,
    file::{self, Draft},
};
use crate::{
    core::backup::{
        Copied, FORMAT, GAPS_MAX, Hex, JOURNAL_DIR, MANIFEST_FILE, Manifest, STORE_FILE, SUM_FILE,
        Segment, sum_line,
    },
    shell::{
        journal::{Contents, Extents, read_through},
        keys::DataDir,
        store::{self, Snapshot},
    },
};

/// What is backed up, and how it is called.
#[derive(Clone, Debug)]
pub struct Source {
    /// The data directory.
    pub directory: DataDir,
    /// The backup's id, on record already.
    pub id: [u8; 16],
    /// When, by the broker's clock.
    pub made: UnixMillis,
    /// The broker's name in tokens.
    pub audience: String,
    /// Whether the private keys are written to a file of their own.
    pub keys_apart: bool,
}

/// A backup that is complete, beside its place.
#[derive(Debug)]
pub struct Made {
    draft: Draft,
    /// What is in it.
    pub manifest: Manifest,
    /// What the journal's part holds.
    pub contents: Contents,
    /// The manifest's hash: it stands for the whole backup.
    pub blake3: Hex<32>,
    /// Segments that are second names of the journal's own files.
    pub linked: usize,
}

impl Made {
    /// Puts it in its place, durably.
    ///
    /// # Errors
    /// Something is there by now, or the disk refuses.
    pub fn publish(self) -> anyhow::Result<()> {
        self.draft.publish()
    }
}

/// Copies `snapshot`, and the journal as far as `extents`, which were read after it. Blocks.
///
/// # Errors
/// Something is at `to`, the disk refuses, or the journal does not reach as far as the store.
pub fn make(
    to: &Path,
    source: &Source,
    snapshot: Snapshot,
    extents: &Extents,
    told: &mut dyn FnMut(Step),
) -> anyhow::Result<Made> {
    let history = snapshot.history()?;
    let draft = Draft::new(to, &Hex(source.id))?;
    let (store_path, journal) = (
        draft.path().join(STORE_FILE),
        draft.path().join(JOURNAL_DIR),
    );
    snapshot.write(&store_path, |done, all| {
        told(Step {
            what: "copying the store",
            done,
            all,
        });
    })?;
    file::make_dir(&journal)?;
    let (segments, linked) = copy_segments(&source.directory, &journal, extents, told)?;
    file::sync(&journal)?;
    let mut read = 0;
    let all = extents.segments.iter().map(|one| one.bytes).sum();
    let contents = read_through(&journal, extents, |bytes| {
        read += bytes;
        told(Step {
            what: "reading the journal",
            done: read,
            all,
        });
    })?;
    ensure!(
        contents.gaps.len() <= GAPS_MAX,
        "the journal has {} gaps: look into its damage before you rely on a backup of it",
        contents.gaps.len()
    );
    let facts = store::inspect(&store_path).context("judge the store's copy")?;
    ensure!(
        facts.offsets_end <= extents.next,
        "the store names offsets up to {}, and the journal ends at {}: they are not of one broker",
        facts.offsets_end,
        extents.next
    );
    let first = extents.segments.first().context("the journal is empty")?;
    let manifest = Manifest {
        format: FORMAT,
        id: Hex(source.id),
        made_ms: source.made.0,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        audience: source.audience.clone(),
        incarnation: history.current().number,
        incarnation_id: Hex(history.current().id),
        keys_apart: source.keys_apart,
        first_offset: first.first,
        end_offset: extents.next,
        records: contents.records,
        gaps: contents.gaps.clone(),
        store: file::hash(&store_path)?,
        segments,
    };
    let json = manifest.to_json();
    let blake3 = blake3::hash(json.as_bytes());
    let sum = sum_line(blake3.as_bytes());
    file::write_once(&draft.path().join(MANIFEST_FILE), json.as_bytes())?;
    file::write_once(&draft.path().join(SUM_FILE), sum.as_bytes())?;
    Ok(Made {
        draft,
        manifest,
        contents,
        blake3: Hex(*blake3.as_bytes()),
        linked,
    })
}

fn copy_segments(
    directory: &DataDir,
    journal: &Path,
    extents: &Extents,
    told: &mut dyn FnMut(Step),
) -> anyhow::Result<(Vec<Segment>, usize)> {
    let all = extents.segments.iter().map(|one| one.bytes).sum();
    let last = extents.segments.last().map(|last| last.first);
    let (mut segments, mut linked, mut done) = (Vec::new(), 0, 0);
    for extent in &extents.segments {
        let (from, to) = (extent.path(&directory.journal()), extent.path(journal));
        // The last one grows.
        let (Copied { bytes, blake3 }, is_link) = if Some(extent.first) == last {
            (file::copy(&from, &to, extent.bytes)?, false)
        } else {
            file::link_or_copy(&from, &to, extent.bytes)?
        };
        linked += usize::from(is_link);
        segments.push(Segment {
            first: extent.first,
            bytes,
            blake3,
        });
        done += bytes;
        told(Step {
            what: "copying the journal",
            done,
            all,
        });
    }
    Ok((segments, linked))
}
