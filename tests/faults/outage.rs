//! An outage longer than every token, with a sandbox at work throughout and an operator that starts again in the middle of it: everything
//! goes on, with nobody's help, and nothing is lost.

use std::time::Duration;

use agent::shell::store::read_identity;
use protocol::{limits::LEEWAY_S, time::UnixMillis};
use tests::{docker, local, wait, world::World};

/// As short as a broker allows, in seconds.
const TOKEN_LIFE_S: u64 = 20;
/// Lifetimes for which nobody hears of the broker.
const LIFETIMES: u64 = 3;
/// How long a wait may take here that is for a date: all of the outage, and the leeway.
const OUTAGE_WAIT: Duration = Duration::from_secs(180);
/// The operator's longest wait between two attempts is a minute; the machine may be busy.
const BACK_WAIT: Duration = Duration::from_secs(120);
const COUNT: &str = "trap 'echo told to stop; exit 7' TERM; i=0; while :; do i=$((i+1)); echo count $i; sleep 0.1; done";

/// When the token ends that the operator has on disk.
fn token_end(world: &World) -> UnixMillis {
    let identity = read_identity(&world.path("operator")).unwrap();
    identity.unwrap().token_life().unwrap().1
}

fn wait_for_date(what: &str, date: UnixMillis) {
    let come = wait::until_ok(OUTAGE_WAIT, || {
        if wait::now() > date { Ok(()) } else { Err(()) }
    });
    come.unwrap_or_else(|()| panic!("{what} does not come"));
}

fn counted(world: &World) -> u64 {
    let logs = world.outhaul_ok(&["logs", "count"]).unwrap_or_default();
    let mut lines = logs.lines().rev();
    let last = lines.find_map(|line| line.strip_prefix("count "));
    last.map_or(0, |number| number.parse().unwrap())
}

fn audit_names(world: &World) -> Vec<String> {
    let page = local::get_json(&world.socket(), "/v1/audit?from=0").unwrap();
    let rows = page["rows"].as_array().unwrap();
    rows.iter()
        .map(|row| row["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_outage_of_three_token_lives_with_an_operator_that_starts_again_in_it_needs_nobody_and_loses_nothing()
 {
    docker::ensure_image().unwrap();
    let life = TOKEN_LIFE_S.to_string();
    let mut world = World::with_broker_flags(&["--token-life-s", &life]).unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    let run = ["run", "--detach", "--name", "count", "--content", "full"];
    let script = [docker::IMAGE, "--", "sh", "-c", COUNT];
    world.outhaul_ok(&[&run[..], &script].concat()).unwrap();
    wait::until("it to count", || (counted(&world) >= 10).then_some(()));
    let containers = docker::containers(&world.host);
    let started = docker::inspect(&containers[0], "{{.State.StartedAt}}");

    world.kill_broker();
    let cut = wait::now();
    let end = token_end(&world);
    assert!(
        end <= cut.plus(Duration::from_secs(TOKEN_LIFE_S)),
        "a token lives as long as the broker was told"
    );
    // The operator starts anew when its token is over, and finds its sandbox without any broker.
    wait_for_date("the token's end", end);
    world.kill_operator();
    let before = world.log("operator").matches("sandbox adopted").count();
    world.start_operator().unwrap();
    wait::until("the sandbox to be taken up again", || {
        (world.log("operator").matches("sandbox adopted").count() > before).then_some(())
    });
    // Past three lifetimes, and past what any clock is forgiven.
    let lives = cut.plus(Duration::from_secs(TOKEN_LIFE_S * LIFETIMES));
    wait_for_date("the third lifetime's end", lives);
    wait_for_date(
        "the end of the leeway",
        end.plus(Duration::from_secs(LEEWAY_S)),
    );
    assert_eq!(token_end(&world), end, "nobody gave it another");

    world.start_broker().unwrap();
    let back = wait::until_ok(BACK_WAIT, || {
        if world.is_connected() {
            Ok(())
        } else {
            Err(())
        }
    });
    back.expect("the operator comes back by itself");
    let gone_on = counted(&world) + 20;
    let went_on = wait::until_ok(BACK_WAIT, || {
        if counted(&world) >= gone_on {
            Ok(())
        } else {
            Err(())
        }
    });
    went_on.expect("its sandbox has a fresh token and goes on");
    world
        .outhaul_ok(&["stop", "count", "--grace", "20s"])
        .unwrap();

    let logs = wait::until("its last line", || {
        let logs = world.outhaul_ok(&["logs", "count"]).ok()?;
        logs.ends_with("told to stop\n").then_some(logs)
    });
    let lines: Vec<_> = logs.lines().collect();
    let (_, counted) = lines.split_last().unwrap();
    for (number, line) in (1_u64..).zip(counted) {
        assert_eq!(*line, format!("count {number}"), "each line once, in order");
    }
    // It printed all the while: a line each tenth of a second, or somewhat more.
    assert!(counted.len() as u64 > TOKEN_LIFE_S * LIFETIMES * 5);
    let names = audit_names(&world);
    let times = |name: &str| names.iter().filter(|one| *one == name).count();
    assert_eq!(
        (times("host.enrolled"), times("host.operator_bundle")),
        (1, 1)
    );
    assert_eq!(times("host.locked") + times("host.unlocked"), 0);
    let listed = world.outhaul_ok(&["ps", "-a", "--json"]).unwrap();
    let ended: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        ended[0]["reason"], "stopped",
        "as we asked, and by nothing else"
    );
    assert!(!world.log("operator").contains("panicked"));
    println!(
        "{} lines over an outage of {} s, each there once; started {started}, never again",
        counted.len(),
        (wait::now().since(cut)).as_secs(),
    );
}
