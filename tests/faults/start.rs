//! Data directories that a broker cannot serve, or not yet: half made, unwritable, of another version.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::{
        fs::{FileExt as _, PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use tests::{
    local,
    programs::Programs,
    wait,
    world::{BrokerTerms, World},
};

use crate::{
    mount::{self, Kind, Mount},
    site::Site,
};

/// The steps of a first start: the calls that change what a directory holds, or make it last. Of the many of the last kind, which are the
/// store's, every ninth.
const CALLS: [(&str, usize); 9] = [
    ("fsync,fdatasync", 1),
    ("mkdir,mkdirat", 1),
    ("rename,renameat,renameat2", 1),
    ("unlink,unlinkat", 1),
    ("ftruncate", 1),
    ("fchmod,chmod", 1),
    ("fallocate", 1),
    ("bind", 1),
    ("pwrite64", 9),
];
/// Starts at once.
const THREADS: usize = 3;
/// More calls of one kind than a first start makes.
const STEPS_MAX: usize = 500;
/// Nobody's user id.
const NOBODY: u32 = 65_534;

/// A first start that is killed right before its call number `step` of these. `None`: it makes fewer, and serves.
fn killed_at(calls: &str, step: usize) -> Option<World> {
    let world = World::empty().unwrap();
    let mut strace = Command::new("strace")
        .args(["-f", "-o", "/dev/null"])
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:signal=KILL:when={step}")])
        .arg(Programs::get().path("outhaul"))
        .args(world.serve_arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace; `tests/run.sh` installs it");
    let socket = world.socket();
    let is_served = wait::until("a start to end, or to serve", || {
        if strace.try_wait().unwrap().is_some() {
            return Some(false);
        }
        local::get(&socket, "/v1/status").is_ok().then_some(true)
    });
    if is_served && let Ok(pid) = local::peer(&socket) {
        // It may have come to that step by now.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    strace.wait().unwrap();
    (!is_served).then_some(world)
}

#[test]
fn a_first_start_that_is_killed_before_any_of_its_steps_is_completed_by_the_next() {
    let (next, killed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some((calls, stride)) = CALLS.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for step in (1..STEPS_MAX).step_by(*stride) {
                        let Some(mut world) = killed_at(calls, step) else {
                            break;
                        };
                        killed.fetch_add(1, Ordering::Relaxed);
                        if let Err(error) = world.start_broker() {
                            panic!("killed at {calls} number {step}: {error:#}");
                        }
                        world.add_host().unwrap();
                        world.kill_broker();
                    }
                }
            });
        }
    });
    let killed = killed.into_inner();
    println!("killed {killed} times");
    assert!(killed > 40, "only {killed} times: were the calls seen?");
}

#[test]
fn a_first_start_on_a_full_disk_says_what_to_do_and_the_next_one_goes_on_from_there() {
    let mount = Mount::new(Kind::Tmpfs, 16);
    let mut world = World::empty().unwrap();
    mount::link(&mount.data(), &world.path("broker"));
    mount.fill();
    let error = format!("{:#}", world.start_broker().unwrap_err());
    for words in ["free some space", "No space left on device"] {
        assert!(error.contains(words), "{words} is not in {error}");
    }
    mount.free();
    world.start_broker().unwrap();
    world.add_host().unwrap();
    // Before its disk goes.
    world.kill_broker();
}

/// Every file below a directory, but those that hold nothing: locks, the store's index, space.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(path) = pending.pop() {
        let holds_nothing = ["lock", "ballast", "state.db-shm"];
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.is_file() && !holds_nothing.iter().any(|name| path.ends_with(name)) {
            let content = fs::read(&path).unwrap();
            found.insert(path.to_string_lossy().into_owned(), content);
        }
    }
    found
}

/// A broker that was served, and ended.
fn served() -> World {
    let mut world = World::with_broker().unwrap();
    world.add_host().unwrap();
    world.kill_broker();
    world
}

/// It does not start, says this, and nothing has changed.
fn refuses(world: &mut World, words: &[&str]) {
    let data = world.path("broker");
    let before = files(&data);
    let error = format!("{:#}", world.start_broker().unwrap_err());
    for words in words {
        assert!(error.contains(words), "{words} is not in {error}");
    }
    let after = files(&data);
    assert!(
        before.keys().eq(after.keys()),
        "{:?} and now {:?}",
        before.keys(),
        after.keys()
    );
    for (path, content) in &before {
        assert!(after[path] == *content, "{path} has changed");
    }
}

#[test]
fn a_data_directory_of_somebody_else_is_refused_with_the_command_that_mends_it() {
    let mut world = served();
    let data = world.path("broker");
    chown(&data, Some(NOBODY), None).unwrap();
    let words = [
        "it belongs to user 65534, and this is user 0",
        "chown -R 0 ",
    ];
    refuses(&mut world, &words);
    chown(&data, Some(0), None).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o770)).unwrap();
    let words = "others may look into it (mode 770); run: chmod 700 ";
    refuses(&mut world, &[words]);
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    world.start_broker().unwrap();
}

#[test]
fn a_data_directory_that_its_owner_may_not_write_is_refused_with_the_command_that_mends_it() {
    let world = World::empty().unwrap();
    let data = world.path("broker");
    fs::create_dir(&data).unwrap();
    chown(&data, Some(NOBODY), None).unwrap();
    fs::set_permissions(&data, Permissions::from_mode(0o500)).unwrap();
    // Where anybody may run it.
    let program = world.path("outhaul");
    fs::copy(Programs::get().path("outhaul"), &program).unwrap();
    let serve = || {
        let mut command = Command::new(&program);
        let command_of_nobody = command.args(world.serve_arguments()).uid(NOBODY);
        command_of_nobody.stdin(Stdio::null());
        command
    };
    let output = serve().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    let words = format!(
        "its owner may not write into it; run: chmod 700 {}",
        data.display()
    );
    assert!(said.contains(&words), "{said}");
    // The command that it named.
    fs::set_permissions(&data, Permissions::from_mode(0o700)).unwrap();
    let mut broker = serve();
    let broker = broker.stdout(Stdio::null()).stderr(Stdio::null());
    let mut broker = broker.spawn().unwrap();
    wait::until("it to serve", || {
        local::get(&world.socket(), "/v1/status").ok()
    });
    broker.kill().unwrap();
    broker.wait().unwrap();
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_nothing_is_touched() {
    let mut world = served();
    let store = rusqlite::Connection::open(world.path("broker/state.db")).unwrap();
    store.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let words = [
        "the store has version 99",
        "a newer program wrote it. Run that one, or restore a backup",
    ];
    refuses(&mut world, &words);
}

#[test]
fn a_journal_of_a_newer_program_is_refused_and_nothing_is_touched() {
    let site = Site::new(None, BrokerTerms::default());
    let publishing = site.publish();
    publishing.wait_acknowledged(5);
    publishing.finish();
    let mut world = site.world;
    world.kill_broker();
    let segment = world.path("broker/journal").join(format!("{:020}.seg", 0));
    let bytes = fs::read(&segment).unwrap();
    // Version, first offset, and the checksum over all before it: `core/journal.rs`.
    let mut header: Vec<u8> = bytes[..20].to_vec();
    header[8..12].copy_from_slice(&3_u32.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    let file = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&header, 0).unwrap();
    let words = [
        "segment has format version 3, and this program reads versions 1 and 2",
        "run the program that wrote it",
    ];
    refuses(&mut world, &words);
    // One that holds no record yet is not ours to write over either.
    file.set_len(24).unwrap();
    refuses(&mut world, &words);
}

#[test]
fn a_store_of_the_first_version_is_brought_up_to_date_with_all_it_holds() {
    const ROWS: &str = "INSERT INTO hosts VALUES ('old-1', 'docker', 1, 'new', 0, NULL);
        INSERT INTO dispatchers VALUES (zeroblob(32), 'ada', 1, 0);
        INSERT INTO sandboxes (host, id, state, ended, created_ms, updated_ms)
            VALUES ('old-1', 'build-7', 'running', 0, 1, 1);";
    let mut world = served();
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let _ = fs::remove_file(world.path("broker").join(name));
    }
    let path = world.path("broker/state.db");
    let first = include_str!("../../broker/src/shell/store/schema_1.sql");
    let store = rusqlite::Connection::open(&path).unwrap();
    store.execute_batch(first).unwrap();
    store.execute_batch(ROWS).unwrap();
    store.pragma_update(None, "user_version", 1).unwrap();
    drop(store);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    world.broker_flags = vec!["--allow-readers".to_owned()];
    world.start_broker().unwrap();
    let hosts = world.outhaul_ok(&["host", "list"]).unwrap();
    assert!(hosts.contains("old-1"), "{hosts}");
    let sandboxes = world.outhaul_ok(&["ps"]).unwrap();
    assert!(sandboxes.contains("build-7"), "{sandboxes}");
    // What the first version had no table for.
    let token = world.path("siem.token");
    let token = token.to_string_lossy();
    world
        .outhaul_ok(&["reader", "add", "siem", "--output", &token])
        .unwrap();
}
