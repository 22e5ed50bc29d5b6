//! A dropped connection and a dead process are pauses, not losses.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use tests::{docker, local, wait, world::World};

/// Counts once a tenth of a second; long enough to see it go on.
const COUNT: &str =
    "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo count $i; sleep 0.1; done; exit 5";

/// Follows a run until it has counted to 10, does something to the world, and follows it to its end.
fn count_through(world: &mut World, disturb: impl FnOnce(&mut World)) {
    let mut command = world.outhaul(&[
        "run",
        "--name",
        "count",
        "--content",
        "full",
        docker::IMAGE,
        "--",
        "sh",
        "-c",
        COUNT,
    ]);
    let mut run = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let mut seen = Vec::new();
    while seen.len() < 10 {
        seen.push(lines.next().expect("the run goes on").unwrap());
    }
    disturb(world);
    seen.extend(lines.map(Result::unwrap));
    let expected: Vec<_> = (1..=100).map(|number| format!("count {number}")).collect();
    assert!(seen == expected, "every line once, in order: {seen:?}");
    assert_eq!(run.wait().unwrap().code(), Some(5));
}

#[test]
fn a_void_issuer_key_closes_every_link_and_its_hosts_and_their_sandboxes_come_back() {
    let mut world = World::connected().unwrap();
    count_through(&mut world, |world| {
        let links = |world: &World| world.log("operator").matches(" connected skew_ms").count();
        let before = links(world);
        world
            .outhaul_ok(&["key", "rotate", "issuer", "--now"])
            .unwrap();
        wait::until("the operator to be back with a fresh token", || {
            (links(world) > before).then_some(())
        });
    });
}

#[test]
fn killing_the_operator_leaves_the_sandbox_running_and_a_new_one_adopts_it() {
    let mut world = World::connected().unwrap();
    count_through(&mut world, |world| {
        let before = docker::containers(&world.host);
        assert_eq!(before.len(), 1);
        world.kill_operator();
        assert_eq!(docker::inspect(&before[0], "{{.State.Running}}"), "true");
        world.start_operator().unwrap();
        world.wait_connected();
        assert_eq!(
            docker::containers(&world.host),
            before,
            "the same container"
        );
    });
    wait::until("the adopted container to be removed", || {
        docker::containers(&world.host).is_empty().then_some(())
    });
}

#[test]
fn killing_the_broker_loses_no_event() {
    let mut world = World::connected().unwrap();
    let mut command = world.outhaul(&[
        "run",
        "--detach",
        "--name",
        "count",
        "--content",
        "full",
        docker::IMAGE,
        "--",
        "sh",
        "-c",
        COUNT,
    ]);
    assert!(command.status().unwrap().success());
    wait::until("the first events", || {
        let logs = world.outhaul_ok(&["logs", "count"]).ok()?;
        logs.contains("count 10\n").then_some(())
    });
    world.kill_broker();
    world.start_broker().unwrap();
    let logs = wait::until("the last event", || {
        let logs = world.outhaul_ok(&["logs", "count"]).ok()?;
        logs.contains("count 100\n").then_some(logs)
    });
    let expected: String = (1..=100)
        .map(|number| format!("count {number}\n"))
        .collect();
    assert!(logs == expected, "every line once, in order: {logs}");
}

#[test]
fn who_follows_over_a_broker_that_is_killed_goes_on_without_a_miss_or_a_repeat() {
    let mut world = World::connected().unwrap();
    let follow = |world: &World, arguments: &[&str]| {
        let mut command = world.outhaul(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        (child, lines)
    };
    let (mut events, mut heard) = follow(&world, &["events", "-f", "--from", "0", "--json"]);
    let run = ["run", "--detach", "--name", "count", "--content", "full"];
    let script = [docker::IMAGE, "--", "sh", "-c", COUNT];
    world.outhaul_ok(&[&run[..], &script].concat()).unwrap();
    let (mut logs, mut lines) = follow(&world, &["logs", "-f", "count"]);
    let mut printed = Vec::new();
    for so_far in [10, 30] {
        while printed.len() < so_far {
            printed.push(lines.next().expect("it goes on").unwrap());
        }
        world.kill_broker();
        world.start_broker().unwrap();
    }
    printed.extend(lines.map(Result::unwrap));
    let expected: Vec<_> = (1..=100).map(|number| format!("count {number}")).collect();
    assert!(
        printed == expected,
        "every line once, in order: {printed:?}"
    );
    assert_eq!(logs.wait().unwrap().code(), Some(0));
    let mut offsets = Vec::new();
    let mut counted = Vec::new();
    let mut has_ended = false;
    while !(has_ended && counted.len() == expected.len()) {
        let line = heard.next().expect("it goes on").unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        has_ended |= line["type"] == "ended";
        if line["type"] == "stdout" {
            counted.push(line["data"].as_str().unwrap().to_owned());
        }
        assert!(
            line["type"] != "missing" && line["type"] != "unverified",
            "{line}"
        );
        // A note is nobody's record.
        if line["type"] != "note" {
            offsets.push(line["offset"].as_u64().unwrap());
        }
    }
    assert!(
        counted == expected,
        "every line once, in order: {counted:?}"
    );
    assert!(offsets.is_sorted());
    events.kill().unwrap();
    events.wait().unwrap();
}

#[test]
fn logs_and_events_begin_and_end_at_a_time() {
    let world = World::connected().unwrap();
    let script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done";
    let run = ["run", "--name", "slow", "--content", "full"];
    let script = [docker::IMAGE, "--", "sh", "-c", script];
    world.outhaul_ok(&[&run[..], &script].concat()).unwrap();
    let records = local::records(&world.socket(), &world.host).unwrap();
    let batches: Vec<_> = records.iter().filter(|record| record.kind == 1).collect();
    let (middle, last) = (batches[batches.len() / 2], batches[batches.len() - 1]);
    assert!(batches[0].time_ms < middle.time_ms && middle.time_ms < last.time_ms);
    let [from, to] = [middle, last].map(|record| wait::rfc_3339(record.time_ms));
    let all = world.outhaul_ok(&["logs", "slow"]).unwrap();
    let late = world
        .outhaul_ok(&["logs", "slow", "--since", &from])
        .unwrap();
    assert!(all.starts_with("line 1\n") && all.ends_with("line 5\n"));
    assert!(
        !late.is_empty() && late.len() < all.len() && all.ends_with(&late),
        "{late}"
    );
    let offsets = |arguments: &[&str]| -> Vec<u64> {
        let listed = world.outhaul_ok(&[&["events", "--json"], arguments].concat());
        let listed = listed.unwrap();
        let lines = listed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        let of_journal = lines.iter().filter(|line| line["type"] != "note");
        of_journal
            .map(|line| line["offset"].as_u64().unwrap())
            .collect()
    };
    let all = offsets(&[]);
    let between = offsets(&["--since", &from, "--until", &to]);
    let expected: Vec<_> = all
        .into_iter()
        .filter(|offset| (middle.offset..last.offset).contains(offset))
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(between, expected);
    assert_eq!(offsets(&["--since", "1h"]), offsets(&[]));
    assert_eq!(offsets(&["--since", "0s"]), [0; 0]);
}

#[test]
fn a_sandbox_is_stopped_and_its_container_is_gone() {
    let world = World::connected().unwrap();
    world
        .outhaul_ok(&[
            "run",
            "--detach",
            "--name",
            "long",
            docker::IMAGE,
            "--",
            "sleep",
            "600",
        ])
        .unwrap();
    wait::until("it to run", || {
        world
            .outhaul_ok(&["ps"])
            .ok()?
            .contains("running")
            .then_some(())
    });
    world
        .outhaul_ok(&["stop", "long", "--grace", "1s"])
        .unwrap();
    wait::until("its container to be gone", || {
        docker::containers(&world.host).is_empty().then_some(())
    });
    let listed = world.outhaul_ok(&["ps", "-a"]).unwrap();
    assert!(listed.contains("stopped"), "{listed}");
}
