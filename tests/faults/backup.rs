//! Backup and restore with the real programs: publishers and a reader at work, a backup made under them, more work, the broker's end,
//! and another life from the backup.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use broker::shell::journal::{Durability, Filter, Item, Journal};
use protocol::{
    id::HostId,
    key::{Dispatcher, Host, Secret},
    stream::{StreamError, Verifier},
};
use serde_json::Value;
use tests::{
    enroll,
    local::{self, Record},
    wait,
    world::World,
};
use zeroize::Zeroizing;

use crate::{
    publisher::{Publisher, Shared},
    reader::{Progress, Reader},
};

const PUBLISHERS: u8 = 3;
/// Batches acknowledged in each part of the story.
const PART: u64 = 300;

fn work(shared: &Shared) {
    let until = shared.acknowledged.load(Ordering::Relaxed) + PART;
    wait::until("more acknowledgements", || {
        (shared.acknowledged.load(Ordering::Relaxed) >= until).then_some(())
    });
}

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().expect(name)
}

fn json(world: &World, arguments: &[&str]) -> Value {
    serde_json::from_str(&world.outhaul_ok(arguments).unwrap()).unwrap()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Every record of a journal that nobody uses, by offset.
fn journal(dir: &Path) -> Vec<(u64, Vec<u8>)> {
    let journal = Journal::open(dir, Durability::Fsync).unwrap();
    let mut reader = journal.reader(0, Filter::default());
    let mut records = Vec::new();
    loop {
        let batch = reader.next_batch(1_000, 1_000_000).unwrap();
        for item in batch.items {
            assert!(matches!(item, Item::Record(_)), "{item:?}");
            if let Item::Record(record) = item {
                records.push((record.offset, record.payload));
            }
        }
        if batch.caught_up {
            return records;
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (dirs, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(dirs.iter().flat_map(|dir| files(dir)));
    found
}

#[test]
fn a_broker_goes_on_from_its_backup_and_says_what_is_gone() {
    let mut world = World::with_broker_flags(&["--allow-readers"]).unwrap();
    let host = HostId::new("edge-1").unwrap();
    let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
    let host_key = Secret::<Host>::from_seed(&Zeroizing::new([102; 32]));
    enroll::add_dispatcher(&world, &dispatcher).unwrap();
    let token = enroll::enroll(&world, &host, &dispatcher, &host_key, &mut Vec::new()).unwrap();
    let publishers: Vec<_> = (1..=PUBLISHERS)
        .map(|number| Publisher::new(&world, &host, number, [102; 32], &token))
        .collect();
    let reader = Reader::new(&world);
    reader.subscribe();
    let (shared, progress) = (Arc::new(Shared::default()), Arc::new(Progress::default()));
    let threads: Vec<_> = publishers
        .iter()
        .map(|publisher| {
            let (publisher, shared) = (publisher.clone(), Arc::clone(&shared));
            std::thread::spawn(move || publisher.run(&shared))
        })
        .collect();
    let reading = std::thread::spawn({
        let progress = Arc::clone(&progress);
        move || reader.run(&progress)
    });
    work(&shared);

    // A backup, under them.
    let (backup, keys, passphrase) = (
        text(&world.path("backup")),
        text(&world.path("keys.sealed")),
        text(&world.path("passphrase")),
    );
    fs::write(&passphrase, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o600)).unwrap();
    let with_keys = ["--keys-to", &keys, "--passphrase-file", &passphrase];
    let acknowledged_before = shared.acknowledged.load(Ordering::Relaxed);
    let made = json(
        &world,
        &[&["backup", "--json", "--to", &backup], &with_keys[..]].concat(),
    );
    let end = number(&made, "end_offset");
    assert!(
        end >= acknowledged_before,
        "all that was acknowledged before it is in it"
    );
    assert_eq!(number(&made, "records"), end);
    let again = world.outhaul_output(&["backup", "--to", &backup]).unwrap();
    assert!(!again.status.success(), "never over another");
    let offline = text(&world.path("broker"));
    let other = text(&world.path("other"));
    let taken = world
        .outhaul_output(&["backup", "--to", &other, "--data-dir", &offline])
        .unwrap();
    assert!(String::from_utf8_lossy(&taken.stderr).contains("another process is using it"));
    assert!(!world.path("other").exists());

    // More work, which the reader acknowledges; and the end.
    work(&shared);
    wait::until("the reader to be past the backup", || {
        (progress.last.load(Ordering::Relaxed) > end).then_some(())
    });
    world.kill_broker();
    let lost_dir = text(&world.path("broker.lost"));
    fs::rename(world.path("broker"), &lost_dir).unwrap();
    let old = journal(&world.path("broker.lost/journal"));

    // One of a broker that does not run: all there is.
    let stopped = text(&world.path("stopped"));
    let offline = [
        "backup",
        "--json",
        "--to",
        &stopped,
        "--data-dir",
        &lost_dir,
    ];
    let made = json(&world, &offline);
    assert_eq!(number(&made, "records"), u64::try_from(old.len()).unwrap());
    world.outhaul_ok(&["backup", "verify", &stopped]).unwrap();

    // Whatever is flipped or missing in it is found.
    for path in files(&world.path("backup")) {
        let whole = fs::read(&path).unwrap();
        let mut bad = whole.clone();
        bad[whole.len() / 2] ^= 4;
        for change in [Some(bad), None] {
            match change {
                Some(bad) => fs::write(&path, bad).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let said = world
                .outhaul_output(&["backup", "verify", &backup])
                .unwrap();
            assert_eq!(said.status.code(), Some(1), "{path:?}");
        }
        fs::write(&path, whole).unwrap();
    }
    let verified = world.outhaul_ok(&["backup", "verify", &backup]).unwrap();
    assert!(verified.starts_with("OK, whole"), "{verified}");

    // Another life.
    let data = text(&world.path("broker"));
    let arguments = ["restore", "--json", "--from", &backup, "--data-dir", &data];
    let without = world.outhaul_output(&arguments).unwrap();
    assert!(String::from_utf8_lossy(&without.stderr).contains("--new-keys"));
    let with_keys = [
        "--keys-from",
        &keys,
        "--passphrase-file",
        &passphrase,
        "--compare",
        &lost_dir,
    ];
    let restored = json(&world, &[&arguments[..], &with_keys[..]].concat());
    let first = number(&restored, "first_offset");
    assert_eq!(number(&restored, "incarnation"), 2);
    assert!(number(&restored, "lost_to") > end && first > number(&restored, "lost_to"));
    world.start_broker().unwrap();
    work(&shared);
    shared.is_over.store(true, Ordering::Relaxed);
    let acknowledged: Vec<_> = threads.into_iter().map(|one| one.join().unwrap()).collect();

    // The journal: what was before the backup's end, once, and what came since; the chain shows what is missing between.
    let records = local::records(&world.socket(), host.as_str()).unwrap();
    let (gaps, records): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| record.kind == 0);
    assert_eq!(gaps.iter().map(|gap| gap.offset).collect::<Vec<_>>(), [end]);
    let pairs: Vec<_> = records
        .iter()
        .map(|one| (one.offset, one.payload.clone()))
        .collect();
    let before = |pairs: &[(u64, Vec<u8>)]| -> Vec<_> {
        pairs
            .iter()
            .filter(|(offset, _)| *offset < end)
            .cloned()
            .collect()
    };
    assert!(
        before(&pairs) == before(&old),
        "every record below {end}, as it was"
    );
    assert!(
        records
            .iter()
            .all(|one| one.offset < end || one.offset >= first)
    );
    let lost: BTreeSet<&[u8]> = old
        .iter()
        .filter(|(offset, _)| *offset >= end)
        .map(|(_, payload)| payload.as_slice())
        .collect();
    for (publisher, sent) in publishers.iter().zip(&acknowledged) {
        let of_it = |records: &[Record]| -> Vec<Vec<u8>> {
            let of_it = records
                .iter()
                .filter(|one| one.sandbox == publisher.sandbox.as_str());
            of_it.map(|one| one.payload.clone()).collect()
        };
        let kept = of_it(&records);
        let all: BTreeSet<&[u8]> = kept.iter().map(Vec::as_slice).collect();
        assert_eq!(all.len(), kept.len(), "each once");
        for batch in sent {
            assert!(all.contains(batch.as_slice()) || lost.contains(batch.as_slice()));
        }
        let gone = sent
            .iter()
            .filter(|batch| !all.contains(batch.as_slice()))
            .count();
        let mut verifier = Verifier::new(&publisher.host, &publisher.sandbox, publisher.key());
        let first_fault = kept.iter().find_map(|batch| verifier.check(batch).err());
        match first_fault {
            Some(StreamError::Gap { expected, found }) => {
                assert_eq!(usize::try_from(found - expected).unwrap(), gone);
            }
            other => assert!(other.is_none() && gone == 0, "{other:?}, {gone} gone"),
        }
    }

    // The reader: never another content under an offset it had, and one word on what was withdrawn.
    let last = records.last().unwrap().offset;
    wait::until("the reader to be through", || {
        (progress.last.load(Ordering::Relaxed) >= last).then_some(())
    });
    progress.is_over.store(true, Ordering::Relaxed);
    world.kill_broker();
    world.start_broker().unwrap();
    let mut read = BTreeMap::new();
    let mut told = Vec::new();
    for message in reading.join().unwrap().messages {
        assert_eq!(
            message.incarnation,
            if message.offset < first { 1 } else { 2 }
        );
        told.extend(
            message
                .withdrawn
                .map(|range| (range, message.gap, message.offset)),
        );
        let before = read.insert(message.offset, message.payload.clone());
        assert!(before.is_none_or(|before| before == message.payload));
    }
    let range = format!("{end}-{}", first - 1);
    assert!(!told.is_empty(), "it was told");
    for told in told {
        assert_eq!(told, (range.clone(), Some(range.clone()), first));
    }
    let kept: BTreeMap<_, _> = pairs.iter().cloned().collect();
    for (offset, payload) in &kept {
        assert!(read.get(offset) == Some(payload), "offset {offset}");
    }
    let old: BTreeMap<_, _> = old.iter().cloned().collect();
    let of_old = read.iter().filter(|(offset, _)| **offset < first);
    assert!(
        of_old
            .clone()
            .all(|(offset, payload)| old.get(offset) == Some(payload))
    );

    // A cursor that the old incarnation gave, past the backup's end.
    let from = (end + 1).to_string();
    let listed = world
        .outhaul_output(&["events", "--json", "--from", &from])
        .unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let first_line: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    assert_eq!(
        (
            first_line["type"].as_str(),
            number(&first_line, "by_incarnation")
        ),
        (Some("withdrawn"), 2)
    );
    assert_eq!(
        (number(&first_line, "from"), number(&first_line, "to")),
        (end, first - 1)
    );
    let audit = local::get_json(&world.socket(), "/v1/audit").unwrap();
    let names: Vec<_> = audit["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].clone())
        .collect();
    let at = |name: &str| names.iter().position(|one| one == name);
    assert!(at("backup.made") < at("broker.restored"), "{names:?}");
    let status = local::get_json(&world.socket(), "/v1/status").unwrap();
    assert_eq!(number(&status, "incarnation"), 2);
    println!(
        "{} records in the backup, {} lost with the old incarnation, {} since",
        end,
        lost.len(),
        records.len() - usize::try_from(end).unwrap()
    );
}
