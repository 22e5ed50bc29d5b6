//! Restoring a backup into an empty directory: as a new incarnation, on record, and whole or not at all.
//!
//! Everything is put together below `.restoring` in the new directory (which may be a volume of its own, so there is no beside), and
//! moved into place at the end, the store last. A broker refuses to start while `.restoring` is there.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use protocol::time::UnixMillis;

use super::{
    Step,
    check::{Found, extents},
    file,
    sealed::KeyFiles,
};
use crate::{
    core::{
        backup::{Copied, JOURNAL_DIR, STORE_FILE},
        incarnation::Incarnation,
    },
    shell::{
        certificate::{Certificates, TlsFiles},
        journal::begin_at,
        keys::{DataDir, SigningKeys, fill_random, write_secret},
        store::{Store, Voided},
    },
};

/// Where a restore is put together.
const DRAFT: &str = ".restoring";
/// What a file system of its own may have in it from the start.
const LOST: &str = "lost+found";

/// Where the restored broker's private keys come from.
#[derive(Debug)]
pub enum Keys {
    /// From the file that was written beside the backup: hosts go on.
    Restored(KeyFiles),
    /// New ones: every host has to enrol anew.
    New,
}

impl Keys {
    const fn word(&self) -> &'static str {
        match self {
            Self::Restored(_) => "restored",
            Self::New => "new",
        }
    }
}

/// A restore that is done.
#[derive(Debug)]
pub struct Outcome {
    /// The incarnation that begins with it.
    pub incarnation: Incarnation,
    /// What it took away.
    pub voided: Voided,
}

/// Whether a restore into a directory was begun and not finished.
#[derive(Debug)]
pub struct Unfinished(PathBuf);

impl Unfinished {
    /// Of this data directory.
    #[must_use]
    pub fn of(root: &Path) -> Self {
        Self(root.join(DRAFT))
    }

    /// # Errors
    /// There is one.
    pub fn refuse(&self) -> anyhow::Result<()> {
        if self.0.exists() {
            bail!(
                "a restore into this directory was not finished ({} is there): empty the directory, and restore again",
                self.0.display()
            );
        }
        Ok(())
    }
}

/// Restores the backup in `from`, which was `found` whole, into the empty directory `to`. Blocks.
///
/// # Errors
/// `to` is not empty, the keys are another broker's, the clock is wrong, a file has changed meanwhile, or the disk refuses. Nothing that
/// starts is left then.
pub fn restore(
    from: &Path,
    found: &Found,
    to: &Path,
    keys: &Keys,
    actor: &str,
    now: UnixMillis,
    told: &mut dyn FnMut(Step),
) -> anyhow::Result<Outcome> {
    if let Keys::Restored(keys) = keys {
        ensure!(
            keys.audience == found.manifest.audience,
            "the keys are those of {}, and the backup is of {}",
            keys.audience,
            found.manifest.audience
        );
    }
    let mut id = [0; 16];
    fill_random(&mut id)?;
    let next = found.history().next(id, now, found.manifest.restored())?;
    make_empty(to).with_context(|| format!("restore into {}", to.display()))?;
    let draft = to.join(DRAFT);
    file::make_dir(&draft)?;
    let mut fill = || -> anyhow::Result<Voided> {
        fill(from, found, &draft, keys, told)?;
        begin(&draft, &next, keys, actor, now)
    };
    let voided = match fill() {
        Ok(voided) => voided,
        Err(error) => {
            // What cannot be removed keeps a broker from starting there.
            let _ = fs::remove_dir_all(&draft);
            return Err(error);
        }
    };
    put_in_place(&draft, to)?;
    Ok(Outcome {
        incarnation: next,
        voided,
    })
}

fn make_empty(to: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(to) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            file::make_dir(to)?;
            return file::sync(file::parent(to));
        }
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        if name != LOST {
            bail!(
                "it is not empty ({} is there): name a new directory",
                name.to_string_lossy()
            );
        }
    }
    Ok(())
}

fn fill(
    from: &Path,
    found: &Found,
    draft: &Path,
    keys: &Keys,
    told: &mut dyn FnMut(Step),
) -> anyhow::Result<()> {
    let directory = DataDir::open(draft)?;
    match keys {
        Keys::Restored(keys) => {
            for (name, text) in keys.files() {
                write_secret(&directory.key(name), text.as_bytes())?;
            }
            // What a broker reads, or refuses to start without.
            SigningKeys::open(&directory).context("read the restored keys")?;
        }
        Keys::New => {
            // Before there is a store: keys are made in a directory that was never used. The first start signs for its own names.
            SigningKeys::open(&directory)?;
            Certificates::open(
                &directory,
                "localhost",
                &TlsFiles::default(),
                crate::shell::clock::unix(),
            )?;
        }
    }
    let (journal, all) = (directory.journal(), found.manifest.bytes());
    file::make_dir(&journal)?;
    let mut done = 0;
    let mut copy = |source: &Path, target: &Path, expected: Copied| -> anyhow::Result<()> {
        let copied = file::copy(source, target, expected.bytes)?;
        ensure!(
            copied == expected,
            "{} has changed meanwhile",
            source.display()
        );
        done += copied.bytes;
        told(Step {
            what: "copying",
            done,
            all,
        });
        Ok(())
    };
    let wanted = extents(&found.manifest).segments;
    for (extent, segment) in wanted.iter().zip(&found.manifest.segments) {
        let (source, target) = (extent.path(&from.join(JOURNAL_DIR)), extent.path(&journal));
        let (bytes, blake3) = (segment.bytes, segment.blake3);
        copy(&source, &target, Copied { bytes, blake3 })?;
    }
    copy(
        &from.join(STORE_FILE),
        &directory.store(),
        found.manifest.store,
    )
}

/// The new incarnation: in the store, with its row of the audit trail, and as the journal's next offset.
fn begin(
    draft: &Path,
    next: &Incarnation,
    keys: &Keys,
    actor: &str,
    now: UnixMillis,
) -> anyhow::Result<Voided> {
    let directory = DataDir::existing(draft)?;
    begin_at(&directory.journal(), next.first)?;
    let store = Store::open(&directory.store())?;
    let time_ms = store.advance_time(now.0)?;
    let voided = store.begin_incarnation(next, keys.word(), actor, time_ms)?;
    drop(store);
    let log = draft.join(format!("{STORE_FILE}-wal"));
    ensure!(
        !log.exists(),
        "the store was not closed: {} is there",
        log.display()
    );
    file::sync(draft)?;
    Ok(voided)
}

fn put_in_place(draft: &Path, to: &Path) -> anyhow::Result<()> {
    // The store last: it is the mark of a directory that has been used.
    for name in ["keys", JOURNAL_DIR, STORE_FILE] {
        let put = || format!("put {name} in its place");
        fs::rename(draft.join(name), to.join(name)).with_context(put)?;
        file::sync(to)?;
    }
    fs::remove_dir(draft).with_context(|| format!("remove {}", draft.display()))?;
    file::sync(to)
}
