//! Backups of a small data directory, and what becomes of them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::*;
use crate::{
    core::journal::{Entry, RecordKind},
    shell::{
        certificate::{Certificates, TlsFiles},
        journal::{Durability, Filter, Item, Journal},
        keys::{DataDir, SigningKeys},
        store::Snapshot,
    },
};

const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const WORDS: &str = "correct horse battery";
const AUDIENCE: &str = "outhaul-00";

/// A data directory with a journal in it, open.
struct Place {
    dir: tempfile::TempDir,
    directory: DataDir,
    journal: Journal,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("data");
        let directory = DataDir::open(&root).unwrap();
        SigningKeys::open(&directory).unwrap();
        Certificates::open(&directory, "localhost", &TlsFiles::default(), NOW).unwrap();
        Self::open(dir, directory)
    }

    fn open(dir: tempfile::TempDir, directory: DataDir) -> Self {
        let journal = Journal::open(&directory.journal(), Durability::Fsync).unwrap();
        let store = Store::open(&directory.store()).unwrap();
        Self {
            dir,
            directory,
            journal,
            store,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn append(&self, count: u64) {
        for number in 0..count {
            let entry = Entry {
                kind: RecordKind::Event,
                host: "edge-1",
                sandbox: Some("build-7"),
                time_ms: number,
                payload: b"batch",
            };
            self.journal.append(entry).await.unwrap();
        }
    }

    fn back_up(&self, name: &str) -> anyhow::Result<Made> {
        let id = [3; 16];
        record(&self.store, id, name, true, "uid:0", NOW)?;
        let source = Source {
            directory: self.directory.clone(),
            id,
            made: NOW,
            audience: AUDIENCE.to_owned(),
            keys_apart: true,
        };
        let snapshot = Snapshot::take(&self.directory.store())?;
        let extents = self.journal.extents();
        make(&self.path(name), &source, snapshot, &extents, &mut |_| {})
    }

    fn keys(&self) -> KeyFiles {
        KeyFiles::read(&self.directory, AUDIENCE, NOW).unwrap()
    }

    fn restore(&self, to: &str, keys: &Keys) -> anyhow::Result<Outcome> {
        let (from, to) = (self.path("backup"), self.path(to));
        let found = check(&from, &mut |_| {})?;
        restore(&from, &found, &to, keys, "uid:0", NOW, &mut |_| {})
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_backup_holds_what_was_committed_before_and_nothing_that_came_after() {
    let place = Place::new();
    place.append(5).await;
    let made = place.back_up("backup").unwrap();
    place.append(7).await;
    made.publish().unwrap();
    let found = check(&place.path("backup"), &mut |_| {}).unwrap();
    let manifest = &found.manifest;
    assert_eq!((manifest.first_offset, manifest.end_offset), (0, 5));
    assert_eq!((manifest.records, found.contents.hosts["edge-1"]), (5, 5));
    assert_eq!(
        found.store.audit.rows, 1,
        "it is on record before it begins"
    );
    for path in files(&place.path("backup")) {
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{path:?}"
        );
    }
    for dir in ["backup", "backup/journal"] {
        let mode = fs::metadata(place.path(dir)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
    let error = place.back_up("backup").unwrap_err();
    assert!(
        format!("{error:#}").contains("never overwrites"),
        "{error:#}"
    );
    assert!(check(&place.path("backup"), &mut |_| {}).is_ok());
}

#[tokio::test]
async fn a_backup_that_is_given_up_leaves_nothing() {
    let place = Place::new();
    place.append(1).await;
    drop(place.back_up("backup").unwrap());
    let left: Vec<_> = fs::read_dir(place.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn a_flipped_bit_in_any_file_a_cut_and_a_missing_file_are_found() {
    let place = Place::new();
    place.append(3).await;
    place.back_up("backup").unwrap().publish().unwrap();
    let all = files(&place.path("backup"));
    assert_eq!(all.len(), 4, "{all:?}");
    for path in all {
        let whole = fs::read(&path).unwrap();
        let steps = (whole.len() / 50).max(1);
        for at in (0..whole.len()).step_by(steps) {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(&path, bad).unwrap();
            let said = check(&place.path("backup"), &mut |_| {});
            assert!(said.is_err(), "{path:?} byte {at}");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(
            check(&place.path("backup"), &mut |_| {}).is_err(),
            "{path:?} cut"
        );
        fs::remove_file(&path).unwrap();
        let error = check(&place.path("backup"), &mut |_| {}).unwrap_err();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(format!("{error:#}").contains(&name), "{error:#}");
        fs::write(&path, whole).unwrap();
    }
    assert!(check(&place.path("backup"), &mut |_| {}).is_ok());
}

#[tokio::test]
async fn a_store_that_is_ahead_of_the_journal_makes_no_backup() {
    let place = Place::new();
    place.append(3).await;
    let extents = place.journal.extents();
    let snapshot = || Snapshot::take(&place.directory.store()).unwrap();
    let source = Source {
        directory: place.directory.clone(),
        id: [4; 16],
        made: NOW,
        audience: AUDIENCE.to_owned(),
        keys_apart: false,
    };
    let made = make(
        &place.path("good"),
        &source,
        snapshot(),
        &extents,
        &mut |_| {},
    );
    assert!(made.is_ok());
    place.store.name_an_offset(3);
    let error = make(
        &place.path("bad"),
        &source,
        snapshot(),
        &extents,
        &mut |_| {},
    )
    .unwrap_err();
    assert!(
        format!("{error:#}").contains("not of one broker"),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_restored_journal_goes_on_past_everything_and_shows_what_is_withdrawn() {
    let place = Place::new();
    place.append(5).await;
    place.back_up("backup").unwrap().publish().unwrap();
    place.append(2).await;
    let outcome = place.restore("new", &Keys::Restored(place.keys())).unwrap();
    let next = &outcome.incarnation;
    assert_eq!((next.number, next.first > 1_000_000), (2, true));
    let directory = DataDir::open(&place.path("new")).unwrap();
    for name in place.keys().names() {
        let (old, new) = (place.directory.key(name), directory.key(name));
        assert_eq!(fs::read(old).unwrap(), fs::read(new).unwrap());
    }
    let restored = Place::open(tempfile::tempdir().unwrap(), directory);
    assert_eq!(restored.store.history().unwrap().current(), next);
    restored.append(1).await;
    let batch = restored
        .journal
        .reader(3, Filter::default())
        .next_batch(9, 9_999);
    let offsets: Vec<_> = batch
        .unwrap()
        .items
        .into_iter()
        .map(|item| match item {
            Item::Record(record) => (record.offset, record.offset + 1),
            Item::Gap { from, to, .. } => (from, to),
        })
        .collect();
    let first = next.first;
    assert_eq!(offsets, [(3, 4), (4, 5), (5, first), (first, first + 1)]);
    // It can be backed up and restored again.
    restored.back_up("backup").unwrap().publish().unwrap();
    let found = check(&restored.path("backup"), &mut |_| {}).unwrap();
    assert_eq!((found.manifest.records, found.manifest.gaps.len()), (6, 1));
}

#[tokio::test]
async fn a_restore_goes_into_an_empty_directory_with_the_brokers_own_keys_or_not_at_all() {
    let place = Place::new();
    place.append(1).await;
    place.back_up("backup").unwrap().publish().unwrap();
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/x"), b"").unwrap();
    let error = place.restore("full", &Keys::New).unwrap_err();
    assert!(format!("{error:#}").contains("not empty"), "{error:#}");
    let mut others = place.keys();
    others.audience = "outhaul-ff".to_owned();
    let error = place.restore("new", &Keys::Restored(others)).unwrap_err();
    assert!(format!("{error:#}").contains("outhaul-ff"), "{error:#}");
    assert!(!place.path("new").exists());
    // Without the keys there are new ones.
    place.restore("new", &Keys::New).unwrap();
    let directory = DataDir::open(&place.path("new")).unwrap();
    assert!(SigningKeys::open(&directory).is_ok());
    assert_ne!(
        fs::read(directory.key("ca.key")).unwrap(),
        fs::read(place.directory.key("ca.key")).unwrap()
    );
    // One that was not finished does not start.
    fs::create_dir(place.path("new/.restoring")).unwrap();
    let error = DataDir::open(&place.path("new")).unwrap_err();
    assert!(
        format!("{error:#}").contains("was not finished"),
        "{error:#}"
    );
}

#[test]
fn keys_are_read_whole_and_come_back() {
    let place = Place::new();
    let keys = place.keys();
    assert_eq!(
        keys.names(),
        [
            "audit.key",
            "ca.crt",
            "ca.key",
            "issuer.key",
            "server.crt",
            "server.key"
        ]
    );
    let path = place.path("keys.sealed");
    write_once(&path, &keys.seal(WORDS).unwrap()).unwrap();
    assert!(KeyFiles::open_file(&path, WORDS).unwrap() == keys);
    assert!(write_once(&path, b"").is_err());
    let error = KeyFiles::open_file(&path, "another passphrase").unwrap_err();
    assert!(format!("{error:#}").contains("passphrase"), "{error:#}");
}
