//! Certificates change under way, and nobody is cut off.

use std::{fs, path::Path};

use tests::{client::Client, wait, world::World};

/// The certificate that a client sees which trusts `ca` alone.
fn shown(world: &World, ca: &Path) -> anyhow::Result<Vec<u8>> {
    Client::dial(world.port, ca)?.server_certificate()
}

/// A broker and an operator that is connected. No sandbox runs here, so no engine is needed.
fn connected() -> World {
    let mut world = World::with_broker().unwrap();
    world.add_host().unwrap();
    start_operator(&mut world);
    world
}

fn start_operator(world: &mut World) {
    world.engine_socket = Some(world.path("no-engine.sock"));
    world.write_policy("").unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    // The broker knows it a moment before the operator does.
    wait::until("the operator to say so", || {
        (links(world).0 == 1).then_some(())
    });
}

/// How often the operator connected, and how often it lost the link.
fn links(world: &World) -> (usize, usize) {
    let log = world.log("operator");
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    (lines(" connected skew_ms"), lines("not connected"))
}

#[test]
fn an_authority_is_rotated_while_an_operator_is_connected_and_nobody_is_cut_off() {
    let world = connected();
    let (old, current) = (
        world.path("bundle/ca.crt"),
        world.path("broker/keys/ca.crt"),
    );
    let before = shown(&world, &old).unwrap();
    assert_eq!(links(&world), (1, 0), "{}", world.log("operator"));
    world.outhaul_ok(&["ca", "rotate"]).unwrap();
    let after = shown(&world, &old).unwrap();
    assert_ne!(before, after, "a fresh link sees a new certificate");
    assert_eq!(
        shown(&world, &current).unwrap(),
        after,
        "the new authority alone vouches for it"
    );
    let listed = world.outhaul_ok(&["ca", "list", "--pem"]).unwrap();
    assert_eq!(listed.matches("BEGIN CERTIFICATE").count(), 2, "{listed}");
    assert!(listed.contains(fs::read_to_string(&old).unwrap().trim()));
    let audit = tests::local::get_json(&world.socket(), "/v1/audit").unwrap();
    assert!(audit.to_string().contains("key.rotated"), "{audit}");
    assert!(world.is_connected());
    assert_eq!(links(&world), (1, 0), "{}", world.log("operator"));
}

#[test]
fn a_host_learns_the_next_authority_and_needs_its_bundles_no_more() {
    let mut world = World::with_broker().unwrap();
    world.add_host().unwrap();
    world.outhaul_ok(&["ca", "rotate"]).unwrap();
    // It knows the old authority alone, and enrols.
    start_operator(&mut world);
    assert!(world.path("operator/authorities").exists());
    world.kill_operator();
    world.outhaul_ok(&["ca", "retire", "--yes"]).unwrap();
    let refused = shown(&world, &world.path("bundle/ca.crt")).unwrap_err();
    assert!(
        format!("{refused:#}").contains("UnknownIssuer"),
        "{refused:#}"
    );
    world.start_operator().unwrap();
    wait::until("the operator to connect again", || {
        (links(&world).0 == 2).then_some(())
    });
    // The owner who replaces ca.crt starts anew: by another authority's, nothing that was learned counts.
    world.kill_operator();
    let stranger = World::with_broker().unwrap();
    fs::copy(
        stranger.path("broker/keys/ca.crt"),
        world.path("bundle/ca.crt"),
    )
    .unwrap();
    world.start_operator().unwrap();
    let said = wait::until("the operator to say what is wrong", || {
        let log = world.log("operator");
        let line = log
            .lines()
            .find(|line| line.contains("leads to no authority"));
        line.map(str::to_owned)
    });
    for part in ["SHA-256", "outhaul ca list --pem", "ca.crt"] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn files_of_an_authority_of_ones_own_are_taken_up_while_an_operator_is_connected() {
    // Another broker's keys are as good as anybody's.
    let issuer = World::with_broker().unwrap();
    let mut world = World::with_broker().unwrap();
    let take = |world: &World, names: &[&str]| {
        for name in names {
            let from = issuer.path("broker/keys").join(name);
            fs::copy(from, world.path(name)).unwrap();
        }
    };
    let all = ["server.crt", "server.key", "ca.crt"];
    take(&world, &all);
    world.kill_broker();
    for (flag, name) in [
        ("certificate", all[0]),
        ("key", all[1]),
        ("authority", all[2]),
    ] {
        let path = world.path(name).to_string_lossy().into_owned();
        world.broker_flags.extend([format!("--tls-{flag}"), path]);
    }
    world.start_broker().unwrap();
    world.add_host().unwrap();
    assert_eq!(
        fs::read(world.path("bundle/ca.crt")).unwrap(),
        fs::read(world.path("ca.crt")).unwrap(),
        "bundles carry that authority"
    );
    start_operator(&mut world);
    let bundled = world.path("bundle/ca.crt");
    let before = shown(&world, &bundled).unwrap();
    // Half of what changed: it does not fit, and everything stays as it is.
    issuer.outhaul_ok(&["ca", "rotate"]).unwrap();
    take(&world, &all[..1]);
    world.hang_up_broker().unwrap();
    wait::until("the broker to say that the files do not fit", || {
        let log = world.log("broker");
        log.contains("does not belong to the certificate")
            .then_some(())
    });
    assert_eq!(shown(&world, &bundled).unwrap(), before);
    // All of it; the bundle's authority is the old one, which the new one is not certified by here.
    take(&world, &all[1..]);
    world.hang_up_broker().unwrap();
    let authority = world.path("ca.crt");
    wait::until("the broker to show the new certificate", || {
        let after = shown(&world, &authority).ok()?;
        (after != before).then_some(())
    });
    assert!(world.is_connected());
    assert_eq!(links(&world), (1, 0), "{}", world.log("operator"));
}
