//! A file system that the kernel gives up while it is written to: a sync may succeed then though nothing was kept.

use std::{
    fs::OpenOptions,
    io::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use broker::{
    core::journal::{Entry, RecordKind},
    shell::{
        confirm::{Canary, confirm},
        journal::{Durability, Journal},
        store::{Store, Trouble},
    },
};
use tests::wait;
use tokio::runtime::Runtime;

use crate::mount::{Kind, Mount};

/// File systems that are given up. Without the confirmation some of them keep less than it said.
const ROUNDS: u32 = 40;
/// Records of one commit.
const TOGETHER: usize = 6;

#[test]
fn no_sync_is_believed_on_a_file_system_that_was_given_up() {
    let mount = Mount::new(Kind::Ext4, 16);
    let path = mount.data().join("file");
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(path)
        .unwrap();
    file.write_all(b"bytes").unwrap();
    file.sync_all().unwrap();
    let canary = Canary::new(&mount.data()).unwrap();
    confirm(&file, 4).unwrap();
    canary.confirm().unwrap();
    mount.abort();
    confirm(&file, 4).unwrap_err();
    canary.confirm().unwrap_err();
}

#[test]
fn what_the_journal_called_durable_is_there_after_its_file_system_was_given_up() {
    let runtime = Runtime::new().unwrap();
    for round in 0..ROUNDS {
        let mount = Mount::new(Kind::Ext4, 64);
        let dir = mount.data().join("journal");
        let journal = Journal::open(&dir, Durability::Fsync).unwrap();
        let durable = thread::scope(|scope| {
            let appender = scope.spawn(|| runtime.block_on(append_until_it_fails(&journal)));
            abort_at_work(&mount, round, || journal.next_offset());
            appender.join().unwrap()
        });
        drop(journal);
        mount.mount_again("");
        let kept = Journal::open(&dir, Durability::Fsync)
            .unwrap()
            .next_offset();
        assert!(
            kept >= durable,
            "round {round}: {durable} durable, {kept} kept"
        );
    }
}

#[test]
fn what_the_store_called_durable_is_there_after_its_file_system_was_given_up() {
    for round in 0..ROUNDS {
        let mount = Mount::new(Kind::Ext4, 16);
        let path = mount.data().join("store");
        let store = Store::open(&path).unwrap();
        let durable = AtomicU64::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Ok(time_ms) = store.advance_time(durable.load(Ordering::Relaxed) + 1) {
                    durable.store(time_ms, Ordering::Relaxed);
                }
            });
            abort_at_work(&mount, round, || durable.load(Ordering::Relaxed));
        });
        assert_eq!(store.trouble(), Some(Trouble::Failed));
        drop(store);
        mount.mount_again("");
        let kept = Store::open(&path).unwrap().advance_time(0).unwrap();
        let durable = durable.into_inner();
        assert!(
            kept >= durable,
            "round {round}: {durable} durable, {kept} kept"
        );
    }
}

/// Gives the file system up, some way into the work, each round a little further.
fn abort_at_work(mount: &Mount, round: u32, done: impl Fn() -> u64) {
    let some = 50 + u64::from(round);
    wait::until("some work to be done", || (done() >= some).then_some(()));
    mount.abort();
}

/// How many were called durable. Several at once, longer together than what is prepared: each commit grows the file, which is what a sync
/// may be wrong about.
async fn append_until_it_fails(journal: &Journal) -> u64 {
    let payload = [7; 60_000];
    let mut durable = 0;
    loop {
        let entry = Entry {
            kind: RecordKind::Event,
            host: "edge-1",
            sandbox: Some("build-1"),
            time_ms: durable,
            payload: &payload,
        };
        let Ok(mut slot) = journal.reserve(TOGETHER * entry.frame_bytes()).await else {
            return durable;
        };
        for _ in 0..TOGETHER {
            slot.push(&entry).unwrap();
        }
        match slot.submit().await {
            Ok(first) => durable = first + TOGETHER as u64,
            Err(_) => return durable,
        }
    }
}
