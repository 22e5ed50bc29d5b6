//! What a host's identity is worth, and how each right of it ends: by the commands that people type, on live links.

use std::time::Duration;

use agent::{core::host::identity::Identity, core::witness::Witness, shell::store::read_identity};
use protocol::{
    cbor,
    exchange::{CHALLENGE_PATH, Challenge, EXCHANGE_PATH, Refusal, Refused},
    key::{Dispatcher, Secret},
    limits::EXCHANGE_BYTES_MAX,
};
use serde_json::Value;
use tests::{docker, enroll, local, wait, world::World};
use zeroize::Zeroizing;

/// How soon rights that were taken away must end a connection.
const WITHDRAWN_WAIT: Duration = Duration::from_secs(5);
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo count $i; sleep 0.1; done";

/// A series of the metrics; 0 if it is not there.
fn counted(world: &World, series: &str) -> u64 {
    let page = local::get(&world.socket(), "/v1/metrics").unwrap();
    let page = String::from_utf8(page).unwrap();
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Does something, and waits until so many connections more have ended in this way: soon enough.
fn ends(world: &World, reason: &str, why: &str, count: u64, work: impl FnOnce()) {
    let series =
        format!("outhaul_gate_connections_ended_total{{reason=\"{reason}\",why=\"{why}\"}}");
    let before = counted(world, &series);
    let ((), took) = wait::timed(|| {
        work();
        wait::until(why, || {
            (counted(world, &series) >= before + count).then_some(())
        });
    });
    assert!(took < WITHDRAWN_WAIT, "{why}: {took:?}");
}

fn json(world: &World, arguments: &[&str]) -> Value {
    let arguments = [&["--json"], arguments].concat();
    let printed = world.outhaul_ok(&arguments).unwrap();
    serde_json::from_str(&printed).unwrap()
}

/// What the command line says when it refuses.
fn refused(world: &World, arguments: &[&str]) -> String {
    let output = world.outhaul_output(arguments).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The names of the audit rows about a subject, and who did it.
fn audit(world: &World, subject: &str) -> Vec<(String, String)> {
    let page = local::get_json(&world.socket(), "/v1/audit?from=0").unwrap();
    let rows = page["rows"].as_array().unwrap();
    let of = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    rows.iter()
        .filter(|row| row["subject"] == subject)
        .map(|row| (of(row, "name"), of(row, "actor")))
        .collect()
}

fn by_us(name: &str) -> (String, String) {
    let uid = rustix::process::geteuid().as_raw();
    (name.to_owned(), format!("uid:{uid}"))
}

#[test]
fn a_host_is_added_shown_renamed_and_removed_and_its_name_is_never_given_again() {
    let world = World::with_broker().unwrap();
    world.add_host().unwrap();
    let name = world.host.as_str();
    let shown = json(&world, &["host", "show", name]);
    assert_eq!(shown["state"], "new");
    assert_eq!(shown["added_by"], by_us("").1);
    assert_eq!(shown["install_keys"][0]["state"], "unused");
    let renamed = json(&world, &["host", "rename", name, "Rack 4, Berlin"]);
    assert_eq!(renamed["label"], "Rack 4, Berlin");
    let listed = world.outhaul_ok(&["host", "list"]).unwrap();
    assert!(
        listed.contains("Rack 4, Berlin") && listed.contains(name),
        "{listed}"
    );
    world
        .outhaul_ok(&["host", "rename", name, "--clear"])
        .unwrap();
    assert_eq!(json(&world, &["host", "show", name])["label"], Value::Null);

    let fingerprint = shown["install_keys"][0]["fingerprint"].clone();
    let revoked = json(&world, &["host", "revoke", name, "--install-key"]);
    assert_eq!(revoked["key_fingerprint"], fingerprint);
    let again = refused(&world, &["host", "revoke", name, "--install-key"]);
    assert!(again.contains("no unused install key"), "{again}");
    let ahead = refused(&world, &["host", "revoke", name, "--generation", "1"]);
    assert!(ahead.contains("generation 0"), "{ahead}");

    let removed = world.outhaul_ok(&["host", "remove", name]).unwrap();
    assert!(removed.contains("never used again"), "{removed}");
    assert_eq!(json(&world, &["host", "list"]), Value::Array(vec![]));
    assert_eq!(
        json(&world, &["host", "list", "--all"])[0]["state"],
        "removed"
    );
    let out = world.path("again").to_string_lossy().into_owned();
    for reissue in [&[][..], &["--reissue"]] {
        let add = ["host", "add", name, "--kind", "docker", "--out", &out];
        let said = refused(&world, &[&add[..], reissue].concat());
        assert!(said.contains("never used again"), "{said}");
    }
    let rows = audit(&world, name);
    for name in [
        "host.operator_bundle",
        "host.renamed",
        "host.install_key_revoked",
        "host.removed",
    ] {
        assert!(rows.contains(&by_us(name)), "{name}: {rows:?}");
    }
}

#[test]
fn somebody_elses_dispatcher_key_is_registered_by_its_name_and_taken_away_again() {
    let world = World::with_broker().unwrap();
    let key = Secret::<Dispatcher>::from_seed(&Zeroizing::new([77; 32])).public();
    let key = key.to_string();
    let added = json(&world, &["dispatcher", "add", &key, "--name", "ci"]);
    assert_eq!(
        (&added["name"], &added["key"]),
        (&"ci".into(), &key.as_str().into())
    );
    let twice = refused(&world, &["dispatcher", "add", &key, "--name", "ci-2"]);
    assert!(twice.contains("is registered"), "{twice}");
    let listed = world.outhaul_ok(&["dispatcher", "list"]).unwrap();
    assert!(listed.contains("ci") && listed.contains(&key), "{listed}");
    world.outhaul_ok(&["dispatcher", "remove", &key]).unwrap();
    let rows = audit(&world, "ci");
    assert_eq!(
        rows,
        [by_us("dispatcher.added"), by_us("dispatcher.removed")]
    );
}

#[test]
fn each_right_of_a_host_that_is_at_work_ends_by_its_command_within_five_seconds_and_stays_ended() {
    let mut world = World::connected().unwrap();
    let name = world.host.clone();
    for sandbox in ["one", "two"] {
        let run = ["run", "--detach", "--name", sandbox, "--content", "full"];
        let script = [docker::IMAGE, "--", "sh", "-c", COUNT];
        world.outhaul_ok(&[&run[..], &script].concat()).unwrap();
        wait::until("it to count", || {
            let logs = world.outhaul_ok(&["logs", sandbox]).ok()?;
            logs.contains("count 3\n").then_some(())
        });
    }
    let in_use = refused(&world, &["host", "remove", &name]);
    assert!(in_use.contains("--force"), "{in_use}");

    // A sandbox: cut off, and it runs on.
    ends(&world, "0x98", "its sandbox was revoked", 1, || {
        let said = world.outhaul_ok(&["sandbox", "revoke", "one"]).unwrap();
        assert!(said.contains("outhaul stop"), "{said}");
    });
    let denied = "outhaul_gate_tokens_refused_total{why=\"revoked_sandbox\"}";
    wait::until("it to try again", || {
        (counted(&world, denied) > 0).then_some(())
    });
    assert_eq!(docker::containers(&name).len(), 2);
    assert!(world.is_connected());
    let shown = json(&world, &["host", "show", &name]);
    assert_eq!(shown["revoked_sandboxes"][0], "one");
    assert_eq!(shown["sandboxes"].as_array().unwrap().len(), 2);
    assert!(audit(&world, &format!("{name}/one")).contains(&by_us("sandbox.revoked")));

    // A generation, the newest one: host and sandboxes. Its operator says what can be done.
    ends(&world, "0xA0", "rights of its host changed", 2, || {
        let said = world
            .outhaul_ok(&["host", "revoke", &name, "--generation", "1"])
            .unwrap();
        assert!(said.contains("--reissue"), "{said}");
    });
    wait::until("its operator to say so", || {
        let remedy = format!("`outhaul host show {name}`");
        world.log("operator").contains(&remedy).then_some(())
    });
    assert!(audit(&world, &name).contains(&by_us("host.generation_revoked")));
    world.kill_broker();
    world.start_broker().unwrap();
    let denied = "outhaul_gate_tokens_refused_total{why=\"generation\"}";
    wait::until("a sandbox to be refused by the new start", || {
        (counted(&world, denied) > 0).then_some(())
    });
    assert!(!world.is_connected());
    assert_eq!(
        json(&world, &["host", "show", &name])["keys"][0]["revoked"],
        true
    );

    // All of it, and its name.
    world
        .outhaul_ok(&["host", "remove", &name, "--force"])
        .unwrap();
    let denied = "outhaul_gate_tokens_refused_total{why=\"revoked_host\"}";
    wait::until("it to be refused as revoked", || {
        (counted(&world, denied) > 0).then_some(())
    });
    let kept = local::records(&world.socket(), &name).unwrap();
    assert!(!kept.is_empty(), "its journal stays");
}

/// What a machine does that has a copy of a host's state directory.
fn clone_renews(world: &World, copy: &[u8]) -> Option<Refusal> {
    let mut identity = Identity::from_bytes(copy).unwrap();
    identity.pending = None;
    identity.prepare(&Zeroizing::new([66; 32]), wait::now());
    let ca = world.path("broker/keys/ca.crt");
    let (_, body) = enroll::answer(world.port, &ca, CHALLENGE_PATH, &[]).unwrap();
    let challenge: Challenge = cbor::from_slice(&body, EXCHANGE_BYTES_MAX).unwrap();
    let request = identity
        .request(
            challenge.nonce.into_array(),
            None,
            &Witness::default(),
            wait::now(),
        )
        .unwrap();
    let (_, body) = enroll::answer(world.port, &ca, EXCHANGE_PATH, &request).unwrap();
    let refused: Option<Refused> = cbor::from_slice(&body, EXCHANGE_BYTES_MAX).ok();
    refused.map(|refused| refused.reason)
}

#[test]
fn a_copy_of_a_host_gives_itself_away_locks_it_and_its_owner_unlocks_it() {
    docker::ensure_image().unwrap();
    let mut world = World::with_broker_flags(&["--token-life-s", "20"]).unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    let state = world.path("operator");
    let copy = read_identity(&state).unwrap().unwrap();
    let (first, copy) = (copy.generation(), copy.to_bytes());
    // The host renews, with a new key; the copy is left behind.
    wait::until("the host to renew", || {
        let now = read_identity(&state).ok()??;
        (now.generation() > first).then_some(())
    });
    ends(&world, "0x98", "its host was revoked or locked", 1, || {
        assert_eq!(clone_renews(&world, &copy), Some(Refusal::Locked));
    });
    let name = world.host.clone();
    let unlock = format!("`outhaul host unlock {name}`");
    wait::until("its operator to say what to do", || {
        world.log("operator").contains(&unlock).then_some(())
    });
    let page = world.outhaul_ok(&["host", "show", &name]).unwrap();
    assert!(
        page.contains(&format!("outhaul host unlock {name}")),
        "{page}"
    );
    world.outhaul_ok(&["host", "unlock", &name]).unwrap();
    // Its operator would come by itself, in a minute or two; a new start need not wait.
    world.kill_operator();
    world.start_operator().unwrap();
    world.wait_connected();
    let rows = audit(&world, &name);
    let locked = ("host.locked".to_owned(), format!("host:{name}"));
    assert!(
        rows.contains(&locked) && rows.contains(&by_us("host.unlocked")),
        "{rows:?}"
    );
}
