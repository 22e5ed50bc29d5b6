//! The kill loop with an operator: sandboxes on a real engine that print numbered lines, commands that come between kills, and a reader
//! over HTTPS, while the broker is killed at random points and started again.

use std::{
    collections::BTreeMap,
    process::{Child, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::Value;
use tests::{docker, local, wait, world::World};

use crate::{
    follower::{Follower, Seen},
    kill::{kills, random_up_to},
};

/// Sandboxes that live through all of it.
const LONG: [&str; 2] = ["long-1", "long-2"];
/// Counts until it is told to stop, and says so.
const COUNT: &str = "trap 'echo told to stop; exit 7' TERM; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done";
/// What a sandbox does that is launched between two kills.
const SHORT: &str = "echo one; echo two; exit 3";
/// Kills between two of those, at least.
const KILLS_PER_COMMAND: u64 = 8;
/// So many of those, at most: each waits for an operator that backs off.
const COMMANDS_MAX: u64 = 20;
/// How long a command may take that comes between kills: the operator waits for up to a minute before it dials a broker again that it
/// has missed so often.
const COMMAND_WAIT: Duration = Duration::from_secs(180);
/// The broker lives until so many records more, at most, are in its journal.
const LIFE_RECORDS_MAX: u64 = 12;

fn run<'a>(name: &'a str, script: &'a str) -> Vec<&'a str> {
    let named = ["run", "--detach", "--name", name, "--content", "full"];
    [&named[..], &[docker::IMAGE, "--", "sh", "-c", script]].concat()
}

fn next_offset(world: &World) -> Option<u64> {
    let status = local::get_json(&world.socket(), "/v1/status").ok()?;
    status.get("next_offset")?.as_u64()
}

/// Whatever its broker did meanwhile: a command that was taken is not given again, and one that was not taken is.
fn see_through(world: &World, name: &str, asking: Child) {
    let said = asking.wait_with_output().unwrap();
    if said.status.success() {
        return;
    }
    let again = world.outhaul_output(&run(name, SHORT)).unwrap();
    let told = String::from_utf8_lossy(&again.stderr);
    // Its first asker never heard that it was taken.
    let is_known = told.contains("has, or had, a sandbox");
    assert!(again.status.success() || is_known, "{name}: {told}");
}

/// One verified line of `outhaul events --json` after the other.
fn events(world: &World) -> Vec<Value> {
    let listed = world.outhaul_ok(&["events", "--json"]).unwrap();
    let lines = listed.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until a sandbox has ended; what it ended with.
fn end_of(world: &World, name: &str) -> (String, i64) {
    let end = wait::until_ok(COMMAND_WAIT, || has_ended(world, name).ok_or(()));
    end.unwrap_or_else(|()| panic!("{name} does not end"))
}

fn has_ended(world: &World, name: &str) -> Option<(String, i64)> {
    let listed = world.outhaul_ok(&["ps", "-a", "--json"]).unwrap();
    let sandboxes: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let one = sandboxes.iter().find(|one| one["sandbox"] == name)?;
    Some((
        one["state"].as_str()?.to_owned(),
        one["exit_code"].as_i64()?,
    ))
}

#[test]
fn no_kill_of_the_broker_costs_a_sandbox_a_line_or_a_command() {
    docker::ensure_image().unwrap();
    let mut world = World::with_broker_flags(&["--allow-readers"]).unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    let follower = Follower::new(&world);
    let seen = Arc::new(Seen::default());
    let following = std::thread::spawn({
        let seen = Arc::clone(&seen);
        move || follower.run(&seen)
    });
    for name in LONG {
        world.outhaul_ok(&run(name, COUNT)).unwrap();
    }
    for name in LONG {
        wait::until("it to count", || {
            let logs = world.outhaul_ok(&["logs", name]).ok()?;
            logs.contains("line 3\n").then_some(())
        });
    }
    let started = |world: &World| {
        let mut started: Vec<_> = docker::containers(&world.host)
            .iter()
            .map(|container| {
                docker::inspect(
                    container,
                    "{{.Name}} {{.State.StartedAt}} {{.State.Running}}",
                )
            })
            .collect();
        started.sort();
        started
    };
    let before = started(&world);

    let mut shorts: Vec<String> = Vec::new();
    let mut short_ends = Vec::new();
    for kill in 0..kills() {
        let until = next_offset(&world).unwrap() + random_up_to(LIFE_RECORDS_MAX);
        wait::until("the host's side to say more", || {
            next_offset(&world)
                .is_some_and(|next| next >= until)
                .then_some(())
        });
        let is_due = kill % KILLS_PER_COMMAND.max(kills() / COMMANDS_MAX) == 0;
        // One at a time: the host's policy has room for so many.
        if let Some(last) = shorts.last().filter(|_| is_due) {
            short_ends.push(end_of(&world, last));
        }
        let asking = is_due.then(|| {
            let name = format!("short-{kill}");
            let mut command = world.outhaul(&run(&name, SHORT));
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            (name, command.spawn().unwrap())
        });
        world.kill_broker();
        world.start_broker().unwrap();
        if let Some((name, asking)) = asking {
            see_through(&world, &name, asking);
            shorts.push(name);
        }
    }

    // Nobody was killed by it, and everybody is still told what to do.
    short_ends.extend(shorts.last().map(|last| end_of(&world, last)));
    assert_eq!(short_ends.len(), shorts.len());
    assert!(
        short_ends.iter().all(|(_, code)| *code == 3),
        "{short_ends:?}"
    );
    wait::until("their containers to be gone", || {
        (docker::containers(&world.host).len() == LONG.len()).then_some(())
    });
    assert_eq!(
        started(&world),
        before,
        "the same containers, never restarted"
    );
    for name in LONG {
        world.outhaul_ok(&["stop", name, "--grace", "20s"]).unwrap();
    }
    for name in LONG {
        let (_, code) = end_of(&world, name);
        assert_eq!(code, 7, "{name}");
    }

    // Each chain verifies to its end, and each line is there once.
    let mut lines_in_all = 0;
    for name in LONG {
        let logs = world.outhaul_ok(&["logs", name]).unwrap();
        let lines: Vec<_> = logs.lines().collect();
        let (last, counted) = lines.split_last().unwrap();
        assert_eq!(*last, "told to stop");
        for (number, line) in (1..).zip(counted) {
            assert_eq!(*line, format!("line {number}"), "{name}");
        }
        lines_in_all += counted.len();
    }
    for name in &shorts {
        assert_eq!(world.outhaul_ok(&["logs", name]).unwrap(), "one\ntwo\n");
    }
    let mut told: BTreeMap<(String, String), u32> = BTreeMap::new();
    for event in events(&world) {
        let kind = event["type"].as_str().unwrap();
        assert!(!["unverified", "missing", "gap"].contains(&kind), "{event}");
        let sandbox = event["sandbox"].as_str().unwrap_or_default();
        *told
            .entry((sandbox.to_owned(), kind.to_owned()))
            .or_default() += 1;
    }
    for name in shorts.iter().map(String::as_str).chain(LONG) {
        for kind in ["launched", "started", "exited", "ended"] {
            let count = told.get(&(name.to_owned(), kind.to_owned()));
            assert_eq!(count, Some(&1), "{name} {kind}");
        }
    }

    // The reader over HTTPS: every record it may read, once, in order.
    let records = local::records(&world.socket(), &world.host).unwrap();
    let readable: Vec<_> = records.iter().filter(|record| record.kind != 3).collect();
    let last = readable.last().unwrap().offset;
    wait::until("the reader to be through", || {
        (seen.last.load(Ordering::Relaxed) >= last).then_some(())
    });
    seen.is_over.store(true, Ordering::Relaxed);
    world.stop_broker().unwrap();
    let read = following.join().unwrap();
    let offsets: Vec<_> = read.iter().map(|event| event.id).collect();
    let expected: Vec<_> = readable.iter().map(|record| record.offset).collect();
    assert!(
        offsets == expected,
        "{} read of {}",
        offsets.len(),
        expected.len()
    );
    println!(
        "{} kills, {lines_in_all} lines of {} sandboxes and {} commands, each there once; {} records came to the reader, none again",
        kills(),
        LONG.len(),
        shorts.len() + LONG.len(),
        read.len(),
    );
}
