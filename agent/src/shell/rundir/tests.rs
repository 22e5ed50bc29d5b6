//! Tests of `rundir`.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
};

use protocol::key::Secret;
use rustix::fs::FileType;
use tempfile::TempDir;

use super::*;

struct Place {
    tmp: TempDir,
    run: RunDir,
}

const FILES: Files<'_> = Files {
    launch: b"{}",
    ca: b"PEM",
};

fn sandbox() -> SandboxId {
    SandboxId::new("build-7").unwrap()
}

/// A run directory, and in it a sandbox whose user is our own if we cannot make it another's.
fn place() -> Place {
    let tmp = tempfile::tempdir().unwrap();
    let shim = tmp.path().join("shim");
    fs::write(&shim, "#!/bin/true\n").unwrap();
    let run = RunDir::open(&tmp.path().join("state/run"), &shim).unwrap();
    Place { tmp, run }
}

impl Place {
    fn path(&self, rest: &str) -> PathBuf {
        self.run.path().join("build-7").join(rest)
    }

    /// Writes as the sandbox would: a file of the directory's owner.
    fn plant(&self, rest: &str, bytes: &[u8]) {
        write_as_sandbox(&self.path(rest), bytes);
    }
}

fn write_as_sandbox(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    if geteuid().is_root() {
        std::os::unix::fs::chown(path, Some(10_001), Some(10_001)).unwrap();
    }
}

/// Where tests do not run as root, files are our own and no other's: the owner check is then about nothing.
fn create(place: &Place) -> SandboxDir {
    let mut dir = place
        .run
        .create(&sandbox(), FILES, Some((10_001, 10_001)))
        .unwrap();
    if !geteuid().is_root() {
        dir.owner = Owner::User(geteuid().as_raw());
    }
    dir
}

fn key_text() -> String {
    Secret::<Sandbox>::from_seed(&[3; 32].into())
        .public()
        .to_string()
}

#[test]
fn a_sandbox_finds_its_files_and_may_write_to_one_place_only() {
    let place = place();
    let dir = create(&place);
    dir.write_token(b"one").unwrap();
    dir.write_token(b"two").unwrap();
    let mode = |rest: &str| fs::metadata(place.path(rest)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(""), 0o711);
    assert_eq!(mode("in"), 0o755);
    assert_eq!(mode("in/outhaul-sandbox"), 0o555);
    for (file, bytes) in [("launch.json", "{}"), ("ca.crt", "PEM"), ("token", "two")] {
        assert_eq!(mode(&format!("in/{file}")), 0o644, "{file}");
        assert_eq!(
            fs::read_to_string(place.path("in").join(file)).unwrap(),
            bytes,
            "{file}"
        );
    }
    assert_eq!(
        fs::read_dir(place.path("in")).unwrap().count(),
        4,
        "nothing half-written stays"
    );
    for place_of_sandbox in ["out", "out/spool"] {
        if geteuid().is_root() {
            assert_eq!(
                fs::metadata(place.path(place_of_sandbox)).unwrap().uid(),
                10_001
            );
            assert_eq!(mode(place_of_sandbox), 0o700);
        } else {
            assert_eq!(mode(place_of_sandbox), 0o777);
        }
    }
}

#[test]
fn the_shim_is_one_file_for_all_sandboxes_and_survives_its_own_update() {
    let place = place();
    create(&place);
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    let first = inode(place.path("in/outhaul-sandbox"));
    assert_eq!(first, inode(place.run.path().join(STAGED_SHIM)));
    let shim = place.tmp.path().join("shim");
    fs::write(&shim, "new").unwrap();
    RunDir::open(place.run.path(), &shim).unwrap();
    assert_eq!(
        fs::read_to_string(place.path("in/outhaul-sandbox")).unwrap(),
        "#!/bin/true\n"
    );
    assert_ne!(first, inode(place.run.path().join(STAGED_SHIM)));
}

#[test]
fn a_key_is_read_when_it_comes() {
    let place = place();
    let dir = create(&place);
    assert_eq!(dir.read_key().unwrap(), None);
    assert_eq!(
        smol::block_on(dir.wait_key(Duration::from_millis(20))).unwrap(),
        None
    );
    let writing = async {
        smol::future::yield_now().await;
        place.plant("out/key", format!("{}\n", key_text()).as_bytes());
    };
    let both = futures_lite::future::zip(dir.wait_key(Duration::from_secs(10)), writing);
    let (key, ()) = smol::block_on(both);
    assert_eq!(key.unwrap().map(|key| key.to_string()), Some(key_text()));
}

#[test]
fn what_a_sandbox_plants_instead_of_its_key_is_refused() {
    let place = place();
    let secret = place.tmp.path().join("secret");
    // The sandbox's own by accident, so that the link alone is what is wrong.
    write_as_sandbox(&secret, key_text().as_bytes());
    let out = |rest: &str| place.path("out").join(rest);
    let plants: [(&str, &dyn Fn()); 6] = [
        ("link", &|| symlink(&secret, out("key")).unwrap()),
        ("pipe", &|| {
            rustix::fs::mknodat(CWD, out("key"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        }),
        ("directory", &|| fs::create_dir(out("key")).unwrap()),
        ("too long", &|| {
            place.plant("out/key", &[b'a'; KEY_BYTES_MAX + 1])
        }),
        ("no key", &|| place.plant("out/key", b"ohs1_nonsense")),
        ("bytes", &|| place.plant("out/key", &[0xff; 64])),
    ];
    for (what, plant) in plants {
        let dir = create(&place);
        plant();
        let error = format!("{:#}", dir.read_key().unwrap_err());
        assert!(
            !error.contains("nonsense") && !error.contains("ohs1"),
            "{what}: {error}"
        );
    }
}

#[test]
fn a_key_that_another_user_wrote_is_refused() {
    let place = place();
    let mut dir = create(&place);
    place.plant("out/key", key_text().as_bytes());
    assert!(dir.read_key().unwrap().is_some());
    let own = fs::metadata(place.path("out/key")).unwrap().uid();
    for owner in [Owner::User(own + 1), Owner::NotUser(own)] {
        dir.owner = owner;
        assert!(dir.read_key().is_err(), "{owner:?}");
    }
    dir.owner = Owner::NotUser(own + 1);
    assert_eq!(dir.read_key().is_ok(), own != 0);
}

#[test]
fn leftovers_are_listed_in_order_and_nothing_else_is() {
    let place = place();
    let dir = create(&place);
    for name in [
        "0000000000000010",
        "0000000000000002",
        "00000003",
        "note",
        "0000000000000004.new",
    ] {
        place.plant(&format!("out/spool/{name}"), name.as_bytes());
    }
    let elsewhere = place.tmp.path().join("elsewhere");
    write_as_sandbox(&elsewhere, b"x");
    symlink(&elsewhere, place.path("out/spool/0000000000000005")).unwrap();
    place.plant("out/spool/0000000000000006", &vec![0; PACKET_BYTES_MAX + 1]);
    let dir = if geteuid().is_root() {
        place.run.get(&sandbox()).unwrap()
    } else {
        dir
    };
    let found = dir.leftovers().unwrap();
    let numbers: Vec<u64> = found.iter().map(|leftover| leftover.number).collect();
    assert_eq!(numbers, [2, 3, 5, 6, 10]);
    let readable: Vec<u64> = found
        .iter()
        .filter(|leftover| {
            dir.read_leftover(leftover)
                .is_ok_and(|bytes| bytes.is_some())
        })
        .map(|leftover| leftover.number)
        .collect();
    assert_eq!(readable, [2, 3, 10], "a link and a giant are skipped");
    for leftover in &found {
        dir.remove_leftover(leftover).unwrap();
        dir.remove_leftover(leftover).unwrap();
    }
    assert_eq!(dir.leftovers().unwrap(), []);
    assert!(elsewhere.exists());
}

#[test]
fn a_spool_that_was_thrown_away_is_empty() {
    let place = place();
    let dir = create(&place);
    fs::remove_dir(place.path("out/spool")).unwrap();
    assert_eq!(dir.leftovers().unwrap(), []);
    let elsewhere = place.tmp.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    write_as_sandbox(&elsewhere.join("00000001"), b"x");
    symlink(&elsewhere, place.path("out/spool")).unwrap();
    assert_eq!(dir.leftovers().unwrap(), []);
}

#[test]
fn removing_follows_no_link_and_stops_at_no_depth() {
    let place = place();
    create(&place);
    let precious = place.tmp.path().join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "x").unwrap();
    symlink(&precious, place.path("out/spool/link")).unwrap();
    symlink(&precious, place.path("out/link")).unwrap();
    // Deeper than any path can be written down.
    let mut dir = hostile::open_dir(CWD, place.path("out")).unwrap();
    for _ in 0..3000 {
        mkdirat(&dir, "deep", Mode::RWXU).unwrap();
        dir = hostile::open_dir(&dir, "deep").unwrap();
    }
    drop(dir);
    smol::block_on(place.run.remove(&sandbox())).unwrap();
    assert!(!place.path("").exists());
    assert!(precious.join("file").exists());
    smol::block_on(place.run.remove(&sandbox())).unwrap();
    assert_eq!(place.run.list().unwrap(), []);
}

#[test]
fn a_directory_that_an_interrupted_launch_left_is_made_anew() {
    let place = place();
    create(&place);
    place.plant("out/key", key_text().as_bytes());
    let dir = create(&place);
    assert_eq!(
        dir.read_key().unwrap(),
        None,
        "an old key is not the new shim's"
    );
    assert_eq!(place.run.list().unwrap(), [sandbox()]);
}

#[test]
fn a_sandbox_that_fills_the_disk_is_noticed() {
    let place = place();
    let dir = create(&place);
    place.plant("out/spool/00000001", &[1; 4096]);
    assert!(!dir.is_over(1 << 20).unwrap());
    place.plant("out/big", &vec![1; 2 << 20]);
    assert!(dir.is_over(1 << 20).unwrap());
    fs::remove_file(place.path("out/big")).unwrap();
    fs::create_dir_all(place.path("out/a/b/c/d/e/f")).unwrap();
    assert!(dir.is_over(1 << 20).unwrap(), "deeper than a shim goes");
}

#[test]
fn a_shim_that_is_missing_is_noticed_before_any_launch() {
    let tmp = tempfile::tempdir().unwrap();
    let shim = tmp.path().join("none");
    let error = RunDir::open(&tmp.path().join("run"), &shim).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("stage the shim "),
        "{error:#}"
    );
    assert!(
        RunDir::open(&tmp.path().join("run"), tmp.path()).is_err(),
        "a directory is no shim"
    );
}

#[test]
fn a_place_where_no_program_runs_is_refused() {
    // Wherever this machine has such a place; it is refused before anything in it is touched.
    for place in ["/proc", "/sys", "/dev/shm", "/run"] {
        let is_noexec = rustix::fs::statvfs(place)
            .is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC));
        let is_ours = fs::metadata(place).is_ok_and(|facts| facts.uid() == geteuid().as_raw());
        if is_noexec && is_ours {
            let error = RunDir::open(Path::new(place), Path::new("/none")).unwrap_err();
            assert!(
                format!("{error:#}").contains("noexec"),
                "{place}: {error:#}"
            );
        }
    }
}
