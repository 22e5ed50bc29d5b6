//! The audit trail of a real broker: exported, judged by two programs, and what shows when somebody meddles with it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use protocol::audit::Leaf;
use serde_json::Value;
use tests::{python, wait, world::World};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A broker with some rows: a host, a reader that came and went, a backup, whose path may be withheld.
fn world() -> World {
    let world = World::with_broker().unwrap();
    world.add_host().unwrap();
    for name in ["siem", "console"] {
        let file = world.path(name);
        world
            .outhaul_ok(&["reader", "add", name, "--output", text(&file)])
            .unwrap();
        world.outhaul_ok(&["audit", "checkpoint"]).unwrap();
        world.outhaul_ok(&["reader", "remove", name]).unwrap();
    }
    let backup = world.path("backup");
    world
        .outhaul_ok(&["backup", "--to", text(&backup)])
        .unwrap();
    world
}

/// The trail's first key, in a file.
fn first_key(world: &World) -> PathBuf {
    let file = world.path("vkey");
    let vkey = world.outhaul_ok(&["audit", "key"]).unwrap();
    fs::write(&file, vkey).unwrap();
    file
}

fn export(world: &World, name: &str) -> PathBuf {
    let directory = world.path(name);
    let said = world
        .outhaul_ok(&["audit", "export", text(&directory)])
        .unwrap();
    assert!(said.starts_with("OK: "), "{said}");
    directory
}

/// Whether it verifies, and the first bad row.
type Verdict = (bool, Option<u64>);

/// Of our program and of the stranger's.
fn verdicts(world: &World, path: &Path, vkey: &Path, more: &[&str]) -> [Verdict; 2] {
    let arguments = [&[text(path), "--vkey", text(vkey)], more].concat();
    let ours = [&["audit", "verify", "--json"], arguments.as_slice()].concat();
    let ours = world.outhaul_output(&ours).unwrap();
    let verdict: Value = serde_json::from_slice(&ours.stdout).unwrap_or_default();
    let theirs = python::run("audit.py", &arguments).unwrap();
    let shown = String::from_utf8_lossy(&theirs.stderr).into_owned();
    assert!(
        theirs.status.success() || shown.starts_with("BAD"),
        "{shown}"
    );
    let bad = shown
        .strip_prefix("BAD, row ")
        .and_then(|rest| rest.split(':').next()?.parse().ok());
    let ours = (ours.status.success(), verdict["first_bad"].as_u64());
    [ours, (theirs.status.success(), bad)]
}

const GOOD: [Verdict; 2] = [(true, None); 2];

/// The rows of an export.
fn rows(directory: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(directory.join("entries.cbor")).unwrap();
    let mut rest = bytes.as_slice();
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let (_, behind) = Leaf::split_from(rest).unwrap();
        rows.push(rest[..rest.len() - behind.len()].to_vec());
        rest = behind;
    }
    rows
}

#[test]
fn two_programs_judge_an_exported_trail_alike_whatever_is_done_to_it() {
    let world = world();
    let vkey = first_key(&world);
    let whole = export(&world, "export");
    assert_eq!(verdicts(&world, &whole, &vkey, &["--row", "1"]), GOOD);
    let rows = rows(&whole);
    let count = rows.len() as u64;
    assert!(count >= 8, "{count} rows");
    let copy = world.path("changed");
    fs::create_dir(&copy).unwrap();
    let fresh = || {
        for file in fs::read_dir(&whole).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    };
    let put = |name: &str, bytes: Vec<u8>| fs::write(copy.join(name), bytes).unwrap();
    let bad_at = |row: u64, what: &str| {
        let expected = [(false, Some(row)); 2];
        assert_eq!(verdicts(&world, &copy, &vkey, &[]), expected, "{what}");
    };

    // One bit of each row, at another place each time.
    for row in 0..rows.len() {
        fresh();
        let mut changed = rows.clone();
        let at = (row * 31 + 7) % changed[row].len();
        changed[row][at] ^= 1;
        put("entries.cbor", changed.concat());
        bad_at(row as u64, &format!("byte {at} of row {row}"));
    }
    for row in [0, rows.len() / 2, rows.len() - 1] {
        fresh();
        let mut dropped = rows.clone();
        dropped.remove(row);
        put("entries.cbor", dropped.concat());
        bad_at(row as u64, &format!("row {row} dropped"));
    }
    fresh();
    let mut swapped = rows.clone();
    swapped.swap(2, 3);
    put("entries.cbor", swapped.concat());
    bad_at(2, "rows swapped");
    fresh();
    put("entries.cbor", [rows.concat(), rows[0].clone()].concat());
    bad_at(count, "a row too many");
    fresh();
    let mut hashes = fs::read(whole.join("hashes.bin")).unwrap();
    hashes[32 * 4 + 5] ^= 1;
    put("hashes.bin", hashes.clone());
    bad_at(4, "a hash");
    hashes[32 * 4 + 5] ^= 1;
    // Cut off everywhere but in what was signed.
    fresh();
    put("entries.cbor", rows[..5].concat());
    put("hashes.bin", hashes[..32 * 5].to_vec());
    bad_at(5, "a cut tail");
    // Nothing signed.
    fresh();
    put("checkpoints.jsonl", Vec::new());
    bad_at(0, "no checkpoint");

    // Withheld values prove all the same; wrong ones, and wrong salts, do not.
    fresh();
    let openings = fs::read_to_string(whole.join("openings.jsonl")).unwrap();
    let opening: Value = serde_json::from_str(openings.lines().next().unwrap()).unwrap();
    assert!(opening["value"].as_str().unwrap().ends_with("/backup"));
    let row = opening["seq"].as_u64().unwrap();
    assert!(!String::from_utf8_lossy(&rows.concat()).contains("/backup\""));
    fs::remove_file(copy.join("openings.jsonl")).unwrap();
    assert_eq!(verdicts(&world, &copy, &vkey, &[]), GOOD, "withheld");
    for (from, to) in [
        ("/backup\"", "/backup2\""),
        ("\"salt\":\"", "\"salt\":\"00"),
    ] {
        let mut changed = openings.replacen(from, to, 1);
        if to.contains("00") {
            let salt = opening["salt"].as_str().unwrap();
            changed = openings.replacen(salt, &salt.chars().rev().collect::<String>(), 1);
        }
        put("openings.jsonl", changed.into_bytes());
        bad_at(row, to);
    }
    let redacted = world.path("redacted");
    world
        .outhaul_ok(&["audit", "export", "--redact", text(&redacted)])
        .unwrap();
    assert!(!redacted.join("openings.jsonl").exists());
    assert_eq!(verdicts(&world, &redacted, &vkey, &[]), GOOD);

    // Another key, and one row's proof.
    let other = world.path("other");
    fs::write(&other, "outhaul-1/audit+00000000+AQ==").unwrap();
    let [ours, theirs] = verdicts(&world, &whole, &other, &[]);
    assert!(!ours.0 && !theirs.0);
    let proof = world.path("row.tlog-proof");
    world
        .outhaul_ok(&["audit", "prove", "3", text(&proof)])
        .unwrap();
    assert_eq!(verdicts(&world, &proof, &vkey, &[]), GOOD);
    let proven = fs::read_to_string(&proof).unwrap();
    fs::write(&proof, proven.replacen("index 3", "index 4", 1)).unwrap();
    assert_eq!(verdicts(&world, &proof, &vkey, &[]), [(false, None); 2]);
}

#[test]
fn a_trail_whose_end_was_taken_back_shows_against_a_saved_checkpoint_and_only_there() {
    let mut world = world();
    let vkey = first_key(&world);
    let early = world.path("early.checkpoint");
    let late = world.path("late.checkpoint");
    let checkpoint = |world: &World, file: &Path| {
        let note = world.outhaul_ok(&["audit", "checkpoint"]).unwrap();
        fs::write(file, note).unwrap();
    };
    checkpoint(&world, &early);
    world.stop_broker().unwrap();
    // Whoever holds the machine holds the key: they take an older state, and go on from there as if nothing had been.
    let copied = Command::new("cp")
        .args([
            "-a",
            text(&world.path("broker")),
            text(&world.path("older")),
        ])
        .status()
        .unwrap();
    assert!(copied.success());
    world.start_broker().unwrap();
    world.outhaul_ok(&["audit", "rotate-key"]).unwrap();
    checkpoint(&world, &late);
    let honest = export(&world, "honest");
    for since in [&early, &late] {
        assert_eq!(
            verdicts(&world, &honest, &vkey, &["--since", text(since)]),
            GOOD
        );
    }
    world.stop_broker().unwrap();
    fs::remove_dir_all(world.path("broker")).unwrap();
    fs::rename(world.path("older"), world.path("broker")).unwrap();
    world.start_broker().unwrap();
    let shorter = export(&world, "shorter");
    assert_eq!(
        verdicts(&world, &shorter, &vkey, &[]),
        GOOD,
        "alone it is whole"
    );
    let since_early = verdicts(&world, &shorter, &vkey, &["--since", text(&early)]);
    assert_eq!(since_early, GOOD, "saved before the fork");
    let rows = rows(&shorter).len() as u64;
    let since_late = verdicts(&world, &shorter, &vkey, &["--since", text(&late)]);
    assert_eq!(since_late, [(false, Some(rows)); 2], "rows are missing");
    // And when it has grown past what was saved: two views of one log.
    for name in ["one", "two", "three"] {
        let file = world.path(name);
        world
            .outhaul_ok(&["reader", "add", name, "--output", text(&file)])
            .unwrap();
    }
    let forked = export(&world, "forked");
    assert_eq!(
        verdicts(&world, &forked, &vkey, &[]),
        GOOD,
        "alone it is whole"
    );
    let since_late = verdicts(&world, &forked, &vkey, &["--since", text(&late)]);
    assert_eq!(since_late, [(false, None); 2], "another trail");
}

#[test]
fn the_key_of_the_trail_changes_and_the_first_one_verifies_all_of_it() {
    let mut world = world();
    let vkey = first_key(&world);
    let saved = world.path("saved.checkpoint");
    for round in 0..2 {
        world.outhaul_ok(&["audit", "rotate-key"]).unwrap();
        if round == 0 {
            let note = world.outhaul_ok(&["audit", "checkpoint"]).unwrap();
            fs::write(&saved, note).unwrap();
        }
        world.kill_broker();
        world.start_broker().unwrap();
    }
    let exported = export(&world, "export");
    assert_eq!(
        verdicts(&world, &exported, &vkey, &["--since", text(&saved)]),
        GOOD
    );
    let current = world.outhaul_ok(&["audit", "key", "--current"]).unwrap();
    assert_ne!(current, fs::read_to_string(&vkey).unwrap());
    let current_file = world.path("current");
    fs::write(&current_file, &current).unwrap();
    let [ours, theirs] = verdicts(&world, &exported, &current_file, &[]);
    assert!(!ours.0 && ours == theirs, "{ours:?} {theirs:?}");
    // A handing over that only one of the two signed is none.
    let notes = fs::read_to_string(exported.join("checkpoints.jsonl")).unwrap();
    let handing = notes
        .lines()
        .find(|line| line.matches('\u{2014}').count() == 2)
        .unwrap();
    let mut value: Value = serde_json::from_str(handing).unwrap();
    let row = value["size"].as_u64().unwrap() - 1;
    let note = value["note"].as_str().unwrap().to_owned();
    let last_line = note.trim_end().rfind('\n').unwrap();
    value["note"] = note[..=last_line].into();
    let changed = notes.replacen(handing, &value.to_string(), 1);
    fs::write(exported.join("checkpoints.jsonl"), changed).unwrap();
    assert_eq!(
        verdicts(&world, &exported, &vkey, &[]),
        [(false, Some(row)); 2]
    );
}

#[test]
fn who_follows_the_trail_misses_nothing_when_the_broker_restarts() {
    let mut world = world();
    let mut follow = world
        .outhaul(&["audit", "follow", "--json", "--from", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut seen: Vec<Value> = Vec::new();
    let mut until = |name: &str| {
        loop {
            let line = lines.next().expect("it goes on").unwrap();
            let row: Value = serde_json::from_str(&line).unwrap();
            let found = row["name"] == name;
            seen.push(row);
            if found {
                break;
            }
        }
    };
    until("backup.made");
    world.kill_broker();
    world.start_broker().unwrap();
    until("broker.started");
    world.outhaul_ok(&["audit", "rotate-key"]).unwrap();
    until("key.rotated");
    follow.kill().unwrap();
    follow.wait().unwrap();
    let numbers: Vec<_> = seen
        .iter()
        .map(|row| row["seq"].as_u64().unwrap())
        .collect();
    let expected: Vec<_> = (0..seen.len() as u64).collect();
    assert_eq!(numbers, expected, "each row once, in order");
    assert_eq!(seen[0]["name"], "broker.started");
    let listed = world
        .outhaul_ok(&["audit", "list", "--json", "--name", "reader.*"])
        .unwrap();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 4);
    let shown = world.outhaul_ok(&["audit", "show", "1"]).unwrap();
    assert!(shown.contains("\"prev\""), "{shown}");
    wait::until("a checkpoint to be signed without being asked for", || {
        let newest = tests::local::get_json(&world.socket(), "/v1/audit/checkpoints").ok()?;
        (!newest["checkpoints"].as_array()?.is_empty()).then_some(())
    });
}
