//! A broker's full disk, seen from a host: what runs goes on, what was ordered to stop stops, and everything that was said arrives.

use tests::{docker, local, wait, world::World};

use crate::mount::{self, Kind, Mount};

const COUNT: &str = "i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo count $i; sleep 0.1; done";

#[test]
fn while_the_brokers_disk_is_full_sandboxes_run_on_and_stop_when_told_and_all_their_events_arrive()
{
    docker::ensure_image().unwrap();
    // Before the world, so that it goes after it.
    let disk = Mount::new(Kind::Tmpfs, 64);
    let mut world = World::empty().unwrap();
    mount::link(&disk.data(), &world.path("broker"));
    world.start_broker().unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    let launch = |name: &str, script: &str| {
        let mut run = vec!["run", "--detach", "--name", name, "--content", "full"];
        run.extend([docker::IMAGE, "--", "sh", "-c", script]);
        world.outhaul_output(&run).unwrap()
    };
    assert!(launch("long", "sleep 600").status.success());
    wait::until("it to run", || {
        let listed = world.outhaul_ok(&["ps"]).ok()?;
        listed.contains("running").then_some(())
    });
    let long = docker::containers(&world.host);
    assert!(launch("count", COUNT).status.success());
    wait::until("the first events", || {
        let logs = world.outhaul_ok(&["logs", "count"]).ok()?;
        logs.contains("count 10\n").then_some(())
    });

    disk.fill();
    wait::until("the broker to see it", || {
        let status = local::get_json(&world.socket(), "/v1/status").ok()?;
        (!status["reasons"].as_array()?.is_empty()).then_some(())
    });
    let refused = launch("late", "true");
    assert!(!refused.status.success());
    let refused = String::from_utf8(refused.stderr).unwrap();
    assert!(
        refused.contains("nearly full: free some space"),
        "{refused}"
    );
    let mut stop = world.outhaul(&["stop", "long", "--grace", "1s"]);
    let mut stop = stop.spawn().unwrap();
    wait::until("what was told to stop to be gone", || {
        let left = docker::containers(&world.host);
        let running = |one: &String| docker::inspect(one, "{{.State.Running}}") == "true";
        (!left.iter().any(|one| *one == long[0] && running(one))).then_some(())
    });
    let count: Vec<_> = docker::containers(&world.host);
    let count: Vec<_> = count.iter().filter(|one| **one != long[0]).collect();
    assert_eq!(count.len(), 1);
    assert_eq!(docker::inspect(count[0], "{{.State.Running}}"), "true");

    disk.free();
    let logs = wait::until("the last event", || {
        let logs = world.outhaul_ok(&["logs", "count"]).ok()?;
        logs.contains("count 80\n").then_some(logs)
    });
    let expected: String = (1..=80).map(|number| format!("count {number}\n")).collect();
    assert!(logs == expected, "every line once, in order: {logs}");
    assert!(
        stop.wait().unwrap().success(),
        "it heard of the stop in the end"
    );
}
