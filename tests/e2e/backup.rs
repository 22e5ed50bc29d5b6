//! A broker restored from its backup, and a host that goes on as if it had been away: with its token, its sandbox, and its chain, which
//! shows what is gone.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;
use tests::{docker, wait, world::World};

/// Counts once a tenth of a second; long enough to be there before, between and after.
const COUNT: &str =
    "i=0; while [ $i -lt 150 ]; do i=$((i+1)); echo count $i; sleep 0.1; done; exit 5";

#[test]
fn a_host_and_its_sandbox_go_on_with_a_restored_broker_and_the_chain_shows_what_is_gone() {
    let mut world = World::connected().unwrap();
    let run = [
        "run",
        "--detach",
        "--name",
        "count",
        "--content",
        "full",
        docker::IMAGE,
    ];
    let command = [&run[..], &["--", "sh", "-c", COUNT]].concat();
    world.outhaul_ok(&command).unwrap();
    let wait_for = |world: &World, line: &str| {
        wait::until(line, || {
            let logs = world.outhaul_output(&["logs", "count"]).ok()?;
            String::from_utf8_lossy(&logs.stdout)
                .contains(line)
                .then_some(())
        });
    };
    wait_for(&world, "count 10\n");
    let path = |name: &str| world.path(name).to_string_lossy().into_owned();
    let (backup, keys, words, data) = (path("backup"), path("keys"), path("words"), path("broker"));
    fs::write(&words, "correct horse battery staple\n").unwrap();
    fs::set_permissions(&words, fs::Permissions::from_mode(0o600)).unwrap();
    let with = ["--keys-to", &keys, "--passphrase-file", &words];
    world
        .outhaul_ok(&[&["backup", "--to", &backup], &with[..]].concat())
        .unwrap();
    wait_for(&world, "count 40\n");
    world.kill_broker();
    fs::rename(&data, world.path("broker.lost")).unwrap();
    let from = [
        "restore",
        "--from",
        &backup,
        "--data-dir",
        &data,
        "--keys-from",
        &keys,
    ];
    let said = world
        .outhaul_ok(&[&from[..], &["--passphrase-file", &words]].concat())
        .unwrap();
    assert!(
        said.contains("as incarnation 2") && said.contains("gone"),
        "{said}"
    );
    world.start_broker().unwrap();

    world.wait_connected();
    wait::until("the sandbox to end with its code", || {
        world
            .outhaul_ok(&["ps", "-a", "--json"])
            .ok()?
            .contains("\"exit_code\":5")
            .then_some(())
    });
    let file = world.path("count.stream").to_string_lossy().into_owned();
    // Written all the same: it is evidence.
    let exported = world
        .outhaul_output(&["export-stream", "count", &file])
        .unwrap();
    assert_eq!(exported.status.code(), Some(1));
    let judged = world
        .outhaul_output(&["verify-stream", "--json", &file])
        .unwrap();
    let judged: Value = serde_json::from_slice(&judged.stdout).unwrap();
    assert_eq!(judged["verdict"], "bad");
    let missing = judged["missing"].to_string();
    assert!(
        missing.contains("batches ") && missing.contains("in 1 places"),
        "{judged}"
    );
    let logs = world.outhaul_output(&["logs", "count"]).unwrap();
    let warned = String::from_utf8_lossy(&logs.stderr);
    assert!(warned.contains("withdrawn by incarnation 2"), "{warned}");
    wait::until("its container to be gone", || {
        docker::containers(&world.host).is_empty().then_some(())
    });
}
