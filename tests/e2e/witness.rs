//! The operator as witness of the audit trail: what the broker shows it has to go on from what it saw, or nobody is obeyed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use agent::shell::store::Store;
use protocol::audit::{Leaf, SignedCheckpoint};
use serde_json::Value;
use tests::{docker, programs::Programs, wait, world::World};

fn path(world: &World, name: &str) -> String {
    world.path(name).to_string_lossy().into_owned()
}

/// A broker and an operator that is connected. No sandbox runs here, so no engine is needed.
fn connected() -> World {
    let mut world = World::with_broker().unwrap();
    world.add_host().unwrap();
    world.engine_socket = Some(world.path("no-engine.sock"));
    world.write_policy("").unwrap();
    world.start_operator().unwrap();
    until_renewed(&world, 1);
    world
}

/// A command of the host's owner.
fn owner(world: &World, arguments: &[&str]) -> Output {
    Command::new(Programs::get().path("outhaul-agent"))
        .args(arguments)
        .args(world.agent_flags())
        .args(["--policy", &path(world, "policy.toml")])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What the operator says, and the exit code.
fn status(world: &World) -> (Value, i32) {
    let output = owner(world, &["status", "--json"]);
    let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (value, output.status.code().unwrap())
}

/// Waits until the host has a key of this generation, and its connection is up.
fn until_renewed(world: &World, generation: u64) -> Value {
    wait::until("the host to have a fresh token and a connection", || {
        let (value, _) = status(world);
        let is_there = value["running"] == true
            && value["said"]["generation"] == generation
            && value["said"]["connection"]["connected"] == true;
        is_there.then(|| value["said"].clone())
    })
}

/// The operator starts as after a reboot of its machine: without the time it trusts no token, and renews before anything else.
fn reboot(world: &mut World) -> Value {
    world.kill_operator();
    let generation = forget_time(&world.path("operator"));
    world.start_operator().unwrap();
    until_renewed(world, generation + 1)
}

fn forget_time(state_dir: &Path) -> u64 {
    let store = Store::open(state_dir).unwrap();
    let mut identity = store.load_identity().unwrap().unwrap();
    identity.fix = None;
    store.save_identity(&identity).unwrap();
    identity.generation()
}

fn rows(shown: &Value) -> u64 {
    shown["size"].as_u64().unwrap()
}

/// Writes more rows into the trail.
fn grow(world: &World, rounds: usize) {
    for round in 0..rounds {
        let file = path(world, &format!("reader-{round}"));
        world
            .outhaul_ok(&["reader", "add", "siem", "--output", &file])
            .unwrap();
        world.outhaul_ok(&["reader", "remove", "siem"]).unwrap();
        fs::remove_file(file).unwrap();
    }
}

/// What somebody does who holds the broker's machine, its store and its audit key: changes a row, and makes all that follows from it fit.
/// What hosts cosigned is left, since nothing there says that it does not fit.
fn rewrite_history(world: &mut World) {
    world.stop_broker().unwrap();
    let store = rusqlite::Connection::open(world.path("broker/state.db")).unwrap();
    store
        .execute_batch(
            "DROP TRIGGER audit_no_update; DELETE FROM audit_node; DELETE FROM audit_checkpoint;
             UPDATE audit SET subject = 'nobody' WHERE seq = 1;",
        )
        .unwrap();
    let mut select = store.prepare("SELECT * FROM audit ORDER BY seq").unwrap();
    let mut found = select.query([]).unwrap();
    let mut prev = [0; 32];
    while let Some(row) = found.next().unwrap() {
        let number = |name: &str| row.get::<_, i64>(name).unwrap();
        let text = |name: &str| row.get::<_, String>(name).unwrap();
        let seq = number("seq");
        let (name, subject, actor, fields) =
            (text("name"), text("subject"), text("actor"), text("fields"));
        let leaf = Leaf {
            seq: seq.try_into().unwrap(),
            time_ms: number("time_ms").try_into().unwrap(),
            name: &name,
            subject: &subject,
            actor: &actor,
            fields: &fields,
            prev: &prev,
        };
        let hash = leaf.hash();
        store
            .execute(
                "UPDATE audit SET prev = ?, hash = ? WHERE seq = ?",
                (prev, hash, seq),
            )
            .unwrap();
        prev = hash;
    }
    drop(found);
    drop(select);
    drop(store);
    world.start_broker().unwrap();
}

#[test]
fn at_each_renewal_the_host_keeps_a_trail_that_goes_on_and_cosigns_the_one_before() {
    let mut world = connected();
    let (value, code) = status(&world);
    assert_eq!((code, &value["state"]), (0, &Value::from("connected")));
    let mut last = rows(&value["said"]["witness"]["kept"]);
    assert!(last > 0);
    let witnesses = |world: &World| -> Value {
        let said = world.outhaul_ok(&["audit", "checkpoint", "--cosigned", "--json"]);
        serde_json::from_str::<Value>(&said.unwrap()).unwrap()["witnesses"].clone()
    };
    assert_eq!(
        witnesses(&world),
        Value::Array(Vec::new()),
        "nothing is cosigned yet"
    );
    for round in 0..3 {
        grow(&world, round);
        let said = reboot(&mut world);
        let kept = rows(&said["witness"]["kept"]);
        assert!(kept > last, "{kept} rows after {last}");
        assert_eq!(said["witness"]["stopped"], Value::Null);
        let cosigned = witnesses(&world);
        assert_eq!(cosigned[0]["host"], world.host.as_str());
        assert_eq!(rows(&cosigned[0]), last, "what it kept before");
        last = kept;
    }
    // The owner's other commands say it too, and both programs that read notes take what was cosigned.
    let identity = owner(&world, &["identity", "--json"]);
    let identity: Value = serde_json::from_slice(&identity.stdout).unwrap();
    let vkey = world.outhaul_ok(&["audit", "key"]).unwrap();
    assert_eq!(identity["audit_vkey"], vkey.trim());
    assert!(
        identity["cosigns_as"]
            .as_str()
            .unwrap()
            .starts_with(&format!("{}+", world.host))
    );
    assert_eq!(identity["dispatchers"].as_array().unwrap().len(), 1);
    assert_eq!(identity["authorities"].as_array().unwrap().len(), 1);
    let note = world
        .outhaul_ok(&["audit", "checkpoint", "--cosigned"])
        .unwrap();
    assert!(
        note.contains(&format!("\u{2014} {} ", world.host)),
        "{note}"
    );
    // The key changes hands, and the witness follows.
    world.outhaul_ok(&["audit", "rotate-key"]).unwrap();
    let said = reboot(&mut world);
    assert_eq!(said["witness"]["stopped"], Value::Null);
    let current = world.outhaul_ok(&["audit", "key", "--current"]).unwrap();
    assert_eq!(said["witness"]["kept"]["vkey"], current.trim());
    assert_ne!(current, vkey);
}

#[test]
fn a_broker_that_rewrote_its_history_is_obeyed_no_more_until_the_owner_accepts_it() {
    let mut world = World::connected().unwrap();
    let detach = |name: &'static str| {
        [
            "run",
            "--detach",
            "--name",
            name,
            docker::IMAGE,
            "--",
            "sleep",
            "600",
        ]
    };
    world.outhaul_ok(&detach("before")).unwrap();
    rewrite_history(&mut world);
    let said = reboot(&mut world);
    let (_, code) = status(&world);
    assert_eq!(code, 5);
    assert_eq!(said["witness"]["stopped"]["reason"], "rewritten");
    assert!(
        world
            .log("operator")
            .contains("the witness stops this host")
    );
    let shown = owner(&world, &["status"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        text.contains("STOPPED") && text.contains("accept-restore"),
        "{text}"
    );

    // What was asked before goes on, and nothing new is obeyed; whoever asks is told why.
    let refused = world
        .outhaul_output(&["run", "--name", "after", docker::IMAGE, "--", "true"])
        .unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && told.contains("witness: "),
        "{told}"
    );
    let refused = world.outhaul_output(&["stop", "before"]).unwrap();
    assert!(!refused.status.success());
    assert_eq!(docker::containers(&world.host).len(), 1);
    // A restart forgets nothing of it.
    let said = reboot(&mut world);
    assert_eq!(said["witness"]["stopped"]["reason"], "rewritten");

    // Both notes are there for whoever is to judge, and contradict each other.
    let evidence = evidence(&world.path("operator/evidence"));
    assert_eq!(evidence.len(), 2, "{evidence:?}");
    let looked = owner(&world, &["accept-restore"]);
    assert_eq!(
        looked.status.code(),
        Some(1),
        "it only shows what would be accepted"
    );
    assert_eq!(status(&world).1, 5);
    let accepted = owner(&world, &["accept-restore", "--yes"]);
    assert!(
        accepted.status.success(),
        "{}",
        String::from_utf8_lossy(&accepted.stderr)
    );
    assert_eq!(status(&world).1, 0);
    world
        .outhaul_ok(&["run", "--name", "again", docker::IMAGE, "--", "true"])
        .unwrap();
    world
        .outhaul_ok(&["stop", "before", "--grace", "1s"])
        .unwrap();
    // From there on it witnesses as before.
    let said = reboot(&mut world);
    assert_eq!(said["witness"]["stopped"], Value::Null);
}

/// The notes in a folder.
fn evidence(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    let mut notes: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    notes.sort_unstable();
    notes
}

/// A second operator. Gone when dropped.
struct Second(Child);

impl Drop for Second {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_host_sees_by_what_the_first_cosigned_that_the_broker_has_two_histories() {
    let mut world = connected();
    grow(&world, 2);
    reboot(&mut world);
    reboot(&mut world);
    // The first host looks at nothing more: what it saw speaks for it.
    world.kill_operator();
    rewrite_history(&mut world);
    let name = format!("{}-b", world.host);
    let (bundle, state, run) = (
        path(&world, "bundle-b"),
        path(&world, "operator-b"),
        path(&world, "run-b"),
    );
    world
        .outhaul_ok(&["host", "add", &name, "--kind", "docker", "--out", &bundle])
        .unwrap();
    let flags = [
        "--bundle",
        &bundle,
        "--state-dir",
        &state,
        "--run-dir",
        &run,
        "--docker-socket",
        "/nowhere",
    ];
    let agent = || {
        let mut command = Command::new(Programs::get().path("outhaul-agent"));
        command.stdin(Stdio::null());
        command
    };
    let log = fs::File::create(world.path("log/operator-b")).unwrap();
    let _second = Second(agent().arg("run").args(flags).stderr(log).spawn().unwrap());
    let stopped = wait::until("the second host to be stopped by its witness", || {
        let output = agent()
            .args(["status", "--json"])
            .args(flags)
            .output()
            .unwrap();
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        (output.status.code() == Some(5)).then(|| value["said"]["witness"]["stopped"].clone())
    });
    assert_eq!(stopped["reason"], "split_view");
    assert_eq!(stopped["other"][0], world.host.as_str());
    assert_eq!(evidence(&world.path("operator-b/evidence")).len(), 2);
}

/// The host is shown the trail as it stands, and keeps that; how many rows. As a renewal would do, but that the host's key stays the one
/// that the backup knows: this is about the trail.
fn see_newest(world: &World) -> u64 {
    let store = Store::open(&world.path("operator")).unwrap();
    let mut witness = store.load_witness().unwrap();
    let note = world.outhaul_ok(&["audit", "checkpoint"]).unwrap();
    let kept = witness.kept.as_mut().unwrap();
    kept.note = SignedCheckpoint::parse(&note).unwrap();
    let rows = kept.checkpoint().size();
    store.save_witness(&witness).unwrap();
    rows
}

/// A broker that is back from a backup, and a host that has seen more of it; how many rows.
fn restored() -> (World, u64) {
    let mut world = connected();
    let (backup, keys, words, data) = (
        path(&world, "backup"),
        path(&world, "keys"),
        path(&world, "words"),
        path(&world, "broker"),
    );
    fs::write(&words, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&words, fs::Permissions::from_mode(0o600)).unwrap();
    let keys_of = ["--passphrase-file", &words];
    let backup_args = ["backup", "--to", &backup, "--keys-to", &keys];
    world
        .outhaul_ok(&[&backup_args[..], &keys_of].concat())
        .unwrap();
    grow(&world, 10);
    world.kill_operator();
    let kept = see_newest(&world);
    world.kill_broker();
    fs::rename(&data, world.path("broker.lost")).unwrap();
    let restore = [
        "restore",
        "--from",
        &backup,
        "--data-dir",
        &data,
        "--keys-from",
        &keys,
    ];
    world
        .outhaul_ok(&[&restore[..], &keys_of].concat())
        .unwrap();
    world.start_broker().unwrap();
    (world, kept)
}

/// The host comes back, and is stopped; what its witness says.
fn until_stopped(world: &mut World) -> Value {
    forget_time(&world.path("operator"));
    world.start_operator().unwrap();
    wait::until("the witness to stop the host", || {
        let (value, code) = status(world);
        (code == 5).then(|| value["said"]["witness"]["stopped"].clone())
    })
}

#[test]
fn after_a_restore_the_witness_stops_the_host_and_its_owner_lets_it_go_on() {
    let (mut world, kept) = restored();
    let stopped = until_stopped(&mut world);
    assert_eq!(stopped["reason"], "behind");
    assert!(rows(&stopped["shown"]) < kept);
    // The broker has it on record, and its owner is told.
    let listed = world
        .outhaul_ok(&["audit", "list", "--name", "witness.conflict", "--json"])
        .unwrap();
    assert!(listed.contains(&world.host), "{listed}");
    let cosigned = world
        .outhaul_output(&["audit", "checkpoint", "--cosigned"])
        .unwrap();
    assert_eq!(cosigned.status.code(), Some(1));

    let accepted = owner(&world, &["accept-restore", "--yes"]);
    let text = String::from_utf8_lossy(&accepted.stdout).into_owned();
    assert!(
        accepted.status.success() && text.contains(&format!("has seen {kept} rows")),
        "{text}"
    );
    let said = reboot(&mut world);
    assert_eq!(said["witness"]["stopped"], Value::Null);
    assert_eq!(status(&world).1, 0);
}

#[test]
fn a_dispatcher_whom_the_host_lists_lets_it_go_on_after_a_restore_and_nobody_else_does() {
    let (mut world, kept) = restored();
    until_stopped(&mut world);
    // Somebody whom the broker knows, and this host's owner does not list.
    let stranger = path(&world, "stranger.key");
    let accept = ["dispatcher", "accept-restore", "--yes"];
    world
        .outhaul_ok(&[
            "--dispatcher-key",
            &stranger,
            "dispatcher",
            "init",
            "--name",
            "eve",
        ])
        .unwrap();
    world
        .outhaul_ok(&[&["--dispatcher-key", &stranger][..], &accept].concat())
        .unwrap();
    wait::until("the host to hear of it", || {
        let log = world.log("operator");
        log.contains("a dispatcher's statement changes nothing")
            .then_some(())
    });
    assert_eq!(status(&world).1, 5);
    // Whoever only looks has said nothing.
    let shown = world
        .outhaul_output(&["dispatcher", "accept-restore"])
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(1));
    assert!(text.contains("incarnation 2"), "{text}");
    assert_eq!(status(&world).1, 5);

    world.outhaul_ok(&accept).unwrap();
    wait::until("the host to go on", || {
        (status(&world).1 == 0).then_some(())
    });
    let listed = [
        "audit",
        "list",
        "--name",
        "dispatcher.accepted_restore",
        "--json",
    ];
    let listed = world.outhaul_ok(&listed).unwrap();
    assert_eq!(listed.matches("restored_ms").count(), 2, "{listed}");
    // Its witness goes on from there: what it keeps is proven to it again, and a change would show.
    let said = reboot(&mut world);
    assert_eq!(said["witness"]["stopped"], Value::Null);
    assert!(rows(&said["witness"]["kept"]) < kept);
    rewrite_history(&mut world);
    let said = reboot(&mut world);
    assert_eq!(said["witness"]["stopped"]["reason"], "rewritten");
    // The same word again does not undo that.
    world.outhaul_ok(&accept).unwrap();
    wait::until("the host to hear of it again", || {
        let log = world.log("operator");
        log.contains("a dispatcher's word for a restore changes nothing")
            .then_some(())
    });
    assert_eq!(status(&world).1, 5);
}

#[test]
fn a_host_that_was_away_hears_of_the_restore_when_it_comes_back() {
    let (mut world, _) = restored();
    world
        .outhaul_ok(&["dispatcher", "accept-restore", "--yes"])
        .unwrap();
    forget_time(&world.path("operator"));
    world.start_operator().unwrap();
    wait::until("the host to go on", || {
        let log = world.log("operator");
        (log.contains("a dispatcher says that the broker was restored") && status(&world).1 == 0)
            .then_some(())
    });
    let said = reboot(&mut world);
    assert_eq!(said["witness"]["stopped"], Value::Null);
}

#[test]
fn status_says_what_is_wrong_when_the_broker_or_the_operator_is_gone() {
    let mut world = connected();
    let kept = fs::metadata(world.path("operator/status.json")).unwrap();
    assert_eq!(kept.permissions().mode() & 0o777, 0o600);
    world.kill_broker();
    let said = wait::until("the operator to say that it is not connected", || {
        let (value, code) = status(&world);
        (code == 3).then(|| value["said"].clone())
    });
    assert_eq!(said["connection"]["connected"], false);
    assert!(said["connection"]["why"].is_string(), "{said}");
    world.kill_operator();
    let (value, code) = status(&world);
    assert_eq!((code, &value["state"]), (4, &Value::from("not_running")));
    let shown = owner(&world, &["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("NOT RUNNING"));
}
