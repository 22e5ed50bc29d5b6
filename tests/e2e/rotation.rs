//! Keys that last are followed by others while hosts are away, and in an emergency.

use std::fs;

use protocol::{
    key::{Dispatcher, Secret},
    key_change::{Change, NextKey, RevokedKey, Statement},
};
use serde_json::{Value, json};
use tests::{docker, enroll, local, wait, world::World};
use zeroize::Zeroizing;

/// A broker and an operator that is connected. No sandbox runs here, so no engine is needed.
fn without_engine() -> World {
    let mut world = World::with_broker().unwrap();
    world.engine_socket = Some(world.path("no-engine.sock"));
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    start(&mut world);
    world
}

fn start(world: &mut World) {
    let before = links(world);
    world.start_operator().unwrap();
    wait::until("the operator to connect", || {
        (links(world) > before).then_some(())
    });
    world.wait_connected();
}

/// How often the operator connected.
fn links(world: &World) -> usize {
    world.log("operator").matches(" connected skew_ms").count()
}

fn run(world: &World, name: &str) -> (Option<i32>, String) {
    let order = ["run", "--name", name, docker::IMAGE, "--", "true"];
    let output = world.outhaul_output(&order).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// Says it to the broker, as a dispatcher's program would.
fn say(world: &World, key: &Secret<Dispatcher>, change: Change, name: &str) {
    let statement = Statement {
        change,
        time: wait::now(),
    };
    let body = json!({ "statement": protocol::id::hex(&statement.sign(key)), "name": name });
    let path = "/v1/dispatchers/statements";
    let body = body.to_string();
    local::post(&world.socket(), path, "application/json", body.as_bytes()).unwrap();
}

#[test]
fn the_issuer_key_is_rotated_under_a_link_and_survives_a_restart_and_voids_at_once_if_told() {
    let mut world = without_engine();
    let listed = |world: &World| -> Value {
        serde_json::from_str(&world.outhaul_ok(&["key", "list", "--json"]).unwrap()).unwrap()
    };
    let before = listed(&world);
    world.outhaul_ok(&["key", "rotate", "issuer"]).unwrap();
    let after = listed(&world);
    assert_eq!(
        after["audience"], before["audience"],
        "the broker's name stays"
    );
    assert_eq!(after["keys"][1]["key"], before["keys"][0]["key"]);
    assert_eq!(after["keys"][1]["state"], "past");
    assert_eq!(links(&world), 1, "nobody noticed");
    // Over a restart the token of the old key still opens a link: the operator does not ask for another.
    world.stop_broker().unwrap();
    world.start_broker().unwrap();
    wait::until("the operator to be back", || {
        (links(&world) == 2).then_some(())
    });
    let fresh = |world: &World| {
        world
            .log("operator")
            .matches("the host has a fresh token")
            .count()
    };
    assert_eq!(fresh(&world), 1);
    assert_eq!(listed(&world), after);
    // In an emergency its link is closed, and it comes back with its own key.
    world
        .outhaul_ok(&["key", "rotate", "issuer", "--now"])
        .unwrap();
    wait::until("the operator to be back", || {
        (links(&world) == 3).then_some(())
    });
    assert_eq!(fresh(&world), 2);
    // One that was away meanwhile: its token is of a void key.
    world.kill_operator();
    world
        .outhaul_ok(&["key", "rotate", "issuer", "--now"])
        .unwrap();
    start(&mut world);
    assert_eq!(fresh(&world), 3);
    let issuers = listed(&world)["keys"].clone();
    let issuers = issuers.as_array().unwrap();
    assert_eq!(
        issuers.iter().filter(|key| key["role"] == "issuer").count(),
        1
    );
}

#[test]
fn a_host_that_was_away_obeys_a_dispatchers_next_keys_and_not_one_that_was_revoked() {
    let mut world = World::connected().unwrap();
    let first = world.dispatcher_key().unwrap();
    // Another dispatcher, whom the owner lists too.
    let other = Secret::<Dispatcher>::from_seed(&Zeroizing::new([77; 32]));
    enroll::add_dispatcher(&world, &other).unwrap();
    world.kill_operator();
    world
        .write_policy(&format!("dispatchers = [\"{}\"]", other.public()))
        .unwrap();
    // Followed twice while the host is away.
    world
        .outhaul_ok(&["dispatcher", "rotate", "--overlap", "0s"])
        .unwrap();
    world
        .outhaul_ok(&["dispatcher", "rotate", "--name", "ada-now"])
        .unwrap();
    let (second, path) = (
        world.dispatcher_key().unwrap(),
        world.path("config/outhaul/dispatcher.key"),
    );
    assert_ne!(first.public(), second.public());
    world.start_operator().unwrap();
    world.wait_connected();
    let (code, said) = run(&world, "by-the-next");
    assert_eq!(code, Some(0), "{said}\n{}", world.log("operator"));
    // The first key has ended: the broker takes nothing of it.
    let current = fs::read(&path).unwrap();
    fs::write(&path, first.to_file_text().as_bytes()).unwrap();
    let (code, said) = run(&world, "by-the-first");
    assert!(code != Some(0) && said.contains("not registered"), "{said}");
    fs::write(&path, &current).unwrap();
    // Somebody has the present key, and names one of his own; the other dispatcher revokes it.
    let thief = Secret::<Dispatcher>::from_seed(&Zeroizing::new([78; 32]));
    let change = Change::Next(NextKey {
        key: thief.public(),
        until: wait::now(),
    });
    say(&world, &second, change, "thief");
    let change = Change::Revoke(RevokedKey {
        key: second.public(),
    });
    say(&world, &other, change, "none");
    wait::until("the host to hear of it, on its link", || {
        world
            .log("operator")
            .contains("a dispatcher's key was revoked")
            .then_some(())
    });
    // At the broker, and on the host whatever the broker does: register them again, as a broker in wrong hands would.
    for (key, name) in [(&second, "again"), (&thief, "thief-again")] {
        let body = json!({ "key": key.public().to_string(), "name": name }).to_string();
        let kind = "application/json";
        local::post(&world.socket(), "/v1/dispatchers", kind, body.as_bytes()).unwrap();
    }
    world.kill_operator();
    world.start_operator().unwrap();
    world.wait_connected();
    for (n, key) in [&second, &thief].into_iter().enumerate() {
        fs::write(&path, key.to_file_text().as_bytes()).unwrap();
        let name = format!("revoked-{n}");
        let detached = [
            "run",
            "--detach",
            "--name",
            &name,
            docker::IMAGE,
            "--",
            "true",
        ];
        world.outhaul_ok(&detached).unwrap();
    }
    wait::until("the host to ignore them", || {
        let ignored = world
            .log("operator")
            .matches("a command was ignored")
            .count();
        (ignored >= 2).then_some(())
    });
    // The one that is left goes on.
    fs::write(&path, other.to_file_text().as_bytes()).unwrap();
    let (code, said) = run(&world, "by-the-other");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_machine_takes_the_place_of_a_lost_one_by_a_reissued_bundle() {
    let mut world = without_engine();
    let first = world.host_key().unwrap();
    world.kill_operator();
    for name in ["operator", "bundle"] {
        fs::rename(world.path(name), world.path(&format!("lost-{name}"))).unwrap();
    }
    let bundle = world.path("bundle").to_string_lossy().into_owned();
    let host = world.host.clone();
    let order = [
        "host",
        "add",
        &host,
        "--kind",
        "docker",
        "--out",
        &bundle,
        "--reissue",
    ];
    world.outhaul_ok(&order).unwrap();
    start(&mut world);
    assert_ne!(world.host_key().unwrap(), first);
    // From here on it renews like any other.
    let audit = local::get_json(&world.socket(), "/v1/audit").unwrap();
    assert_eq!(audit.to_string().matches("host.enrolled").count(), 2);
    world
        .outhaul_ok(&["key", "rotate", "issuer", "--now"])
        .unwrap();
    wait::until("it to renew with the key it enrolled with", || {
        let keys = local::get_json(&world.socket(), &format!("/v1/hosts/{host}/keys")).unwrap();
        (keys["keys"].as_array().unwrap().len() == 3).then_some(())
    });
}
