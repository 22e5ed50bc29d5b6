//! Nothing reaches in, and a sandbox reaches nothing but the broker, through the shim alone.

use std::fs;

use tests::{docker, sockets, wait, world::World};

#[test]
fn nothing_on_the_host_side_listens_on_an_ip_socket() {
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
    let container = docker::containers(&world.host).remove(0);
    let shim: u32 = docker::inspect(&container, "{{.State.Pid}}")
        .parse()
        .unwrap();
    let mut pids = world.host_side_pids();
    pids.push(shim);
    assert_eq!(pids.len(), 3);
    for pid in &pids {
        assert!(
            !sockets::inodes_of(*pid).is_empty(),
            "process {pid} has sockets to look at"
        );
    }
    assert_eq!(sockets::listening(&pids), Vec::<String>::new());
    assert_eq!(
        docker::inspect(
            &container,
            "{{.HostConfig.NetworkMode}} {{.NetworkSettings.Ports}}"
        ),
        "none map[]"
    );
    // The broker does listen: the test can see a listener.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(sockets::listening(&[std::process::id()]).len(), 1);
    drop(listener);
}

#[test]
fn a_sandbox_reaches_nothing_but_the_broker_through_its_shim() {
    let world = World::connected().unwrap();
    // The engine's own default, which a host keeps unless its owner changes it.
    let bridge = "172.17.0.1";
    let broker = format!("connect=localhost:{}", world.port);
    let attempts = [
        format!("tcp=127.0.0.1:{}", world.port),
        format!("tcp={bridge}:{}", world.port),
        "tcp=169.254.169.254:80".into(),
        "tcp=1.1.1.1:443".into(),
        broker.clone(),
        "connect=example.com:443".into(),
        "memory=1".into(),
        "write=/etc/passwd".into(),
        "write=/sources/tools/x".into(),
        "write=/run/outhaul/in/token".into(),
        "write=/workspace/x".into(),
    ];
    let mut arguments = vec![
        "run",
        "--content",
        "full",
        "--source",
        "tools",
        docker::IMAGE,
        "--",
        "/sources/tools/probe",
    ];
    arguments.extend(attempts.iter().map(String::as_str));
    let said = world.outhaul_ok(&arguments).unwrap();
    let result = |attempt: &str| {
        let line = said
            .lines()
            .find(|line| line.starts_with(&format!("{attempt}: ")));
        line.unwrap_or_else(|| panic!("{attempt} is not in {said}"))
            .split_once(": ")
            .unwrap()
            .1
            .to_owned()
    };
    for attempt in attempts
        .iter()
        .filter(|attempt| attempt.starts_with("tcp="))
    {
        assert_ne!(result(attempt), "open", "{attempt}");
    }
    assert_eq!(
        result(&broker),
        "HTTP/1.1 403 not_the_shim",
        "the command itself may not even reach the broker"
    );
    assert_eq!(
        result("connect=example.com:443"),
        "HTTP/1.1 403 not_the_shim"
    );
    assert_eq!(
        result("memory=1"),
        "PermissionDenied",
        "the key is in the shim's memory"
    );
    for attempt in [
        "write=/etc/passwd",
        "write=/sources/tools/x",
        "write=/run/outhaul/in/token",
    ] {
        assert_ne!(result(attempt), "open", "{attempt}");
    }
    assert_eq!(
        result("write=/workspace/x"),
        "open",
        "the workspace is there to be written"
    );
}

#[test]
fn a_sandbox_is_what_the_hardening_table_says() {
    let world = World::connected().unwrap();
    let script = "cat /proc/self/status; id -u; id -g; ls /sys/class/net";
    let said = world
        .outhaul_ok(&[
            "run",
            "--content",
            "full",
            docker::IMAGE,
            "--",
            "sh",
            "-c",
            script,
        ])
        .unwrap();
    for row in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(said.contains(row), "{row} is not in {said}");
    }
    assert!(said.ends_with("10001\n10001\nlo\n"), "{said}");
}

#[test]
fn secrets_are_files_that_only_their_owner_reads_and_show_nowhere_else() {
    use std::os::unix::fs::PermissionsExt as _;
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
    assert!(
        !world.path("bundle/install.key").exists(),
        "the install key is removed once it is used"
    );
    let mut pending = vec![
        world.path("broker/keys"),
        world.path("operator"),
        world.path("config/outhaul/dispatcher.key"),
    ];
    let mut secrets = 0;
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if metadata.is_file() && path.extension().is_none_or(|extension| extension != "crt")
        {
            assert_eq!(
                metadata.permissions().mode() & 0o077,
                0,
                "{} is open to others",
                path.display()
            );
            secrets += 1;
        }
    }
    assert!(secrets >= 5, "keys were looked at");
    let container = docker::containers(&world.host).remove(0);
    let shown = docker::docker(&["inspect", &container]).unwrap();
    let logs = ["broker", "operator", "egress"]
        .map(|name| world.log(name))
        .concat();
    for marker in ["_secret_", "ohk1_"] {
        assert!(
            !shown.contains(marker) && !logs.contains(marker),
            "{marker} shows"
        );
    }
}
