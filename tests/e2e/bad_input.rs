//! Bad input: one clear error that says what to do, a non-zero exit, nothing half-done left behind.

use std::{
    fs,
    process::{Command, Output},
};

use tests::{docker, programs::Programs, wait, world::World};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One error, on one line that starts with the program's name, and an exit code other than 0.
#[track_caller]
fn assert_refused(output: &Output, words: &[&str]) {
    let said = text(output);
    assert!(!output.status.success(), "it succeeded: {said}");
    let is_error = |line: &&str| {
        let starts = line.starts_with("outhaul") || line.starts_with("error: ");
        starts && !line.contains(": first contact with ")
    };
    assert_eq!(
        said.lines().filter(is_error).count(),
        1,
        "one error: {said}"
    );
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn agent(arguments: &[String]) -> Output {
    Command::new(Programs::get().path("outhaul-agent"))
        .args(arguments)
        .output()
        .unwrap()
}

/// `outhaul-agent run` in a world, with other flags in front; the last of two same flags does not count, so replace them.
fn run_agent(world: &World, change: impl FnOnce(&mut Vec<String>)) -> Output {
    let mut arguments = vec!["run".to_owned()];
    arguments.extend(world.agent_flags());
    arguments.extend([
        "--policy".to_owned(),
        world.path("policy.toml").to_string_lossy().into_owned(),
    ]);
    change(&mut arguments);
    agent(&arguments)
}

#[test]
fn a_used_install_key_is_refused_and_leaves_nothing_behind() {
    let mut world = World::with_broker().unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    let key = fs::read(world.path("bundle/install.key")).unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    world.kill_operator();
    fs::write(world.path("bundle/install.key"), key).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(
        world.path("bundle/install.key"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let state = world.path("second").to_string_lossy().into_owned();
    let output = run_agent(&world, |arguments| {
        let index = arguments
            .iter()
            .position(|argument| argument == "--state-dir")
            .unwrap();
        arguments[index + 1] = state.clone();
    });
    assert_refused(&output, &["install key", "outhaul host"]);
    let left: Vec<_> = fs::read_dir(&state)
        .map(|entries| entries.flatten().map(|entry| entry.file_name()).collect())
        .unwrap_or_default();
    assert!(
        !left
            .iter()
            .any(|name| name.to_string_lossy().contains("identity")),
        "{left:?}"
    );
}

#[test]
fn a_bad_bundle_policy_or_setting_is_one_clear_error() {
    let world = World::with_broker().unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    let bundle = world.path("bundle/bundle.toml");
    let good = fs::read_to_string(&bundle).unwrap();
    fs::write(&bundle, good.replace("version = 1", "version = 9")).unwrap();
    assert_refused(&run_agent(&world, |_| ()), &["bundle.toml", "version"]);
    fs::write(&bundle, format!("{good}\nsurprise = 1\n")).unwrap();
    assert_refused(&run_agent(&world, |_| ()), &["bundle.toml", "surprise"]);
    fs::remove_file(&bundle).unwrap();
    assert_refused(&run_agent(&world, |_| ()), &["bundle.toml"]);
    fs::write(&bundle, &good).unwrap();
    fs::write(world.path("policy.toml"), "imags = []\n").unwrap();
    assert_refused(&run_agent(&world, |_| ()), &["policy.toml", "imags"]);
    world.write_policy("").unwrap();
    fs::write(world.path("bundle/install.key"), "ohk1_not_a_key").unwrap();
    assert_refused(&run_agent(&world, |_| ()), &["install.key"]);
    let config = world.path("broker.toml");
    fs::write(&config, "listn = \"x\"\n").unwrap();
    let output = world
        .outhaul_output(&[
            "serve",
            "--data-dir",
            "/nonexistent-outhaul",
            "--config",
            &config.to_string_lossy(),
        ])
        .unwrap();
    assert_refused(&output, &["broker.toml", "listn"]);
    assert!(!std::path::Path::new("/nonexistent-outhaul").exists());
}

#[test]
fn asking_for_backtraces_does_not_change_an_error() {
    let output = Command::new(Programs::get().path("outhaul-agent"))
        .args(["identity", "--state-dir", "/nonexistent"])
        .envs([("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "1")])
        .output()
        .unwrap();
    assert_refused(&output, &["/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_the_command_line_cannot_do_it_says() {
    let world = World::connected().unwrap();
    let run = |arguments: &[&str]| world.outhaul_output(arguments).unwrap();
    assert_refused(
        &run(&["run", "--host", "nobody", docker::IMAGE, "--", "true"]),
        &["nobody", "host"],
    );
    assert_refused(
        &run(&["host", "add", "Not_A_Name", "--kind", "docker"]),
        &["a-z"],
    );
    assert_refused(&run(&["logs", "nothing"]), &["nothing"]);
    assert_refused(&run(&["stop", "nothing"]), &["nothing"]);
    let nobody = world
        .outhaul(&["ps"])
        .env("OUTHAUL_SOCKET", "/nonexistent.sock")
        .output()
        .unwrap();
    assert_refused(&nobody, &["/nonexistent.sock", "outhaul serve"]);
    let no_key = world
        .outhaul(&["run", docker::IMAGE])
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .output()
        .unwrap();
    assert_refused(&no_key, &["dispatcher init"]);
}

#[test]
fn a_missing_image_and_an_unreadable_source_are_refused_with_their_reason() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::with_broker().unwrap();
    docker::ensure_image().unwrap();
    world.add_host().unwrap();
    let locked = world.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o700)).unwrap();
    let policy = format!(
        "images = [\"{}\", \"not-here:1\"]\n[sources]\nlocked = \"{}\"\n",
        docker::IMAGE,
        locked.display()
    );
    fs::write(world.path("policy.toml"), policy).unwrap();
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    assert_refused(
        &world
            .outhaul_output(&["run", "not-here:1", "--", "true"])
            .unwrap(),
        &["image_not_found", "not-here"],
    );
    let output = world
        .outhaul_output(&["run", "--source", "locked", docker::IMAGE, "--", "true"])
        .unwrap();
    assert_refused(&output, &["source_unreadable", "locked"]);
    assert!(docker::containers(&world.host).is_empty());
}

#[test]
fn an_unreachable_broker_is_said_and_waited_for() {
    let mut world = World::with_broker().unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    world.kill_broker();
    world.start_operator().unwrap();
    let address = format!("localhost:{}", world.port);
    wait::until("the operator to say that the broker is unreachable", || {
        world.log("operator").contains(&address).then_some(())
    });
    world.start_broker().unwrap();
    world.wait_connected();
}

#[test]
fn an_engine_that_is_not_running_is_said_refused_for_and_waited_for() {
    docker::ensure_image().unwrap();
    let mut world = World::with_broker().unwrap();
    world.add_host().unwrap();
    world.write_policy("").unwrap();
    let socket = world.path("engine.sock");
    world.engine_socket = Some(socket.clone());
    world.start_egress().unwrap();
    world.start_operator().unwrap();
    world.wait_connected();
    wait::until("the operator to say that the engine is silent", || {
        let log = world.log("operator");
        (log.contains("engine does not answer") && log.contains("engine.sock")).then_some(())
    });
    let run = ["run", docker::IMAGE, "--", "true"];
    let refused = world.outhaul_output(&run).unwrap();
    assert_refused(&refused, &["engine_unavailable"]);
    assert!(docker::containers(&world.host).is_empty());
    std::os::unix::fs::symlink("/var/run/docker.sock", &socket).unwrap();
    wait::until("the engine to be used once it is there", || {
        let output = world.outhaul_output(&run).unwrap();
        output.status.success().then_some(())
    });
}
