//! What a plane knows that was restored from a backup: what the backup's journal holds, and nothing that came after.

use super::*;
use crate::shell::{
    backup::{self, Keys, Source},
    keys::DataDir,
    store::Snapshot,
};

/// Restores `made` of `plane` into a new directory, and opens that.
pub(super) async fn restored(place: &Path, made: backup::Made) -> (TempDir, Plane) {
    made.publish().unwrap();
    let from = place.join("backup");
    let found = backup::check(&from, &mut |_| {}).unwrap();
    let into = tempfile::tempdir().unwrap();
    let now = clock::unix();
    backup::restore(
        &from,
        &found,
        into.path(),
        &Keys::New,
        "uid:0",
        now,
        &mut |_| {},
    )
    .unwrap();
    let plane = open_in(into.path()).await;
    (into, plane)
}

pub(super) fn make(place: &Path, plane: &Plane, snapshot: Snapshot) -> backup::Made {
    let source = Source {
        directory: DataDir::existing(place).unwrap(),
        id: [7; 16],
        made: plane.now(),
        audience: plane.audience().to_owned(),
        keys_apart: false,
    };
    let extents = plane.journal().extents();
    backup::make(
        &place.join("backup"),
        &source,
        snapshot,
        &extents,
        &mut |_| {},
    )
    .unwrap()
}

#[tokio::test]
async fn what_the_store_had_not_followed_yet_is_put_there_from_the_journal() {
    let (place, plane, _) = enrolled().await;
    let command = launch(&plane, 1, "build-7");
    plane.submit_command(command, PEER).await.unwrap();
    let snapshot = Snapshot::take(plane.store().path()).unwrap();
    // Between the store's moment and the journal's.
    let report = signed_report(10, 1, launched(1));
    assert_eq!(
        plane.accept_report(&edge(), report.clone()).await,
        Accepted::Stored
    );
    let made = make(place.path(), &plane, snapshot);
    let (_into, plane) = restored(place.path(), made).await;
    assert_eq!(state(&plane).0, "running");
    assert!(plane.open_commands(&edge()).await.unwrap().is_empty());
    assert_eq!(plane.accept_report(&edge(), report).await, Accepted::Again);
}

#[tokio::test]
async fn batches_from_before_the_backup_are_known_and_the_next_one_is_taken_whatever_is_missing() {
    let (place, plane, _) = enrolled().await;
    let mut writer = writer();
    let [one, two, three] = ["1", "2", "3"].map(|text| batch(&mut writer, text.as_bytes()));
    let mut fork = super::writer();
    let forked = batch(&mut fork, b"other");
    let take = async |plane: &Plane, bytes: &[u8]| accept(plane, &build(), bytes.to_vec()).await;
    assert_eq!(take(&plane, &one).await, Accepted::Stored);
    let snapshot = Snapshot::take(plane.store().path()).unwrap();
    let made = make(place.path(), &plane, snapshot);
    assert_eq!(take(&plane, &two).await, Accepted::Stored);
    let (_into, plane) = restored(place.path(), made).await;
    let first = plane.history().current().first;
    assert_eq!(plane.journal().next_offset(), first);
    assert_eq!(take(&plane, &one).await, Accepted::Again);
    assert_eq!(take(&plane, &forked).await, Accepted::Fork);
    // The second was acknowledged, so its sandbox does not have it any more.
    assert_eq!(take(&plane, &three).await, Accepted::Stored);
    let batch = plane
        .journal()
        .reader(0, Filter::default())
        .next_batch(9, 1 << 20);
    let items = batch.unwrap().items.into_iter();
    let offsets: Vec<_> = items
        .map(|item| match item {
            Item::Record(record) => (record.offset, record.payload),
            Item::Gap { from, to, .. } => (from, to.to_string().into_bytes()),
        })
        .collect();
    let gap = first.to_string().into_bytes();
    assert_eq!(offsets, [(0, one), (1, gap), (first, three)]);
    assert!(
        audit_names(&plane)
            .iter()
            .any(|name| name == "broker.restored")
    );
}
