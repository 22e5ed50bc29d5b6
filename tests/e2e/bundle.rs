//! The bundle, applied as its README.txt says: from `outhaul host bundle` to containers that are what the compose project promises.

use std::{fs, path::Path, process::Command};

use agent::core::policy::Policy;
use serde_json::Value;
use tests::{
    docker::{self, docker},
    programs::{Programs, root},
    sockets, wait,
    world::World,
};

/// The user of the compose project.
const USER: &str = "10500";

/// What this test makes in the engine, removed when it ends.
struct Made {
    project: String,
    image: String,
    host: String,
}

impl Drop for Made {
    fn drop(&mut self) {
        for container in self.containers("") {
            let _ = docker(&["rm", "-f", &container]);
        }
        docker::remove_containers(&self.host);
        let _ = docker(&["image", "rm", "-f", &self.image]);
    }
}

impl Made {
    /// The project's containers, of one service or of all.
    fn containers(&self, service: &str) -> Vec<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service = format!("label=com.docker.compose.service={service}");
        let mut arguments = vec!["ps", "-aq", "--no-trunc", "--filter", &project];
        if !service.ends_with('=') {
            arguments.extend(["--filter", &service]);
        }
        let listed = docker(&arguments).unwrap_or_default();
        listed.lines().map(str::to_owned).collect()
    }

    /// What the engine says of a service's one container.
    fn inspect(&self, service: &str) -> Value {
        let containers = self.containers(service);
        assert_eq!(containers.len(), 1, "{service}");
        let text = docker(&["inspect", &containers[0]]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()[0].take()
    }

    fn logs(&self) -> String {
        let of = |id: &String| {
            let said = Command::new("docker").args(["logs", id]).output().unwrap();
            String::from_utf8_lossy(&said.stderr).into_owned()
        };
        self.containers("").iter().map(of).collect()
    }
}

fn run_script(script: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = Command::new(script)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}: {said}\n{errors}",
        script.display()
    );
    said.trim().to_owned()
}

/// A broker at the address where containers on the engine's bridge find this machine, under a name that only they know.
fn broker_for_containers() -> World {
    let mut world = World::empty().unwrap();
    world.listen = bridge_address();
    world.public_name = Some("broker.test".to_owned());
    world.start_broker().unwrap();
    world.outhaul_ok(&["dispatcher", "init"]).unwrap();
    world
}

/// This machine's address on the engine's bridge: the first of its network, where nobody chose another.
fn bridge_address() -> String {
    let config = "{{(index .IPAM.Config 0).Gateway}} {{(index .IPAM.Config 0).Subnet}}";
    let said = docker(&["network", "inspect", "bridge", "--format", config]).unwrap();
    let (gateway, subnet) = said.rsplit_once(' ').unwrap_or(("", &said));
    if !gateway.is_empty() {
        return gateway.to_owned();
    }
    let network = subnet.split('/').next().unwrap();
    let network: std::net::Ipv4Addr = network.parse().unwrap();
    std::net::Ipv4Addr::from(u32::from(network) + 1).to_string()
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn a_bundle_becomes_a_host_that_is_bounded_hardened_and_runs_sandboxes() {
    docker::ensure_image().unwrap();
    let world = broker_for_containers();
    let made = Made {
        project: format!("outhaul-{}", world.host),
        image: format!("outhaul-agent-{}:1", world.host),
        host: world.host.clone(),
    };
    let programs = Programs::get().dir.to_string_lossy();
    let tag = ["--bin", &programs, "--tag", &made.image];
    assert_eq!(
        run_script(&root().join("deploy/image/build.sh"), &tag, &[]),
        made.image
    );
    // Added, and fetched again: the second is the one that counts.
    let bundle = world.path("bundle");
    let add = ["host", "add", &world.host, "--kind", "docker", "--out"];
    let added = world
        .outhaul_output(&[&add[..], &[&world.path("first").to_string_lossy()]].concat())
        .unwrap();
    let warned = String::from_utf8_lossy(&added.stderr);
    assert!(
        added.status.success() && warned.contains("cannot reach itself at broker.test:"),
        "a name that leads nowhere from here is a warning, and no more: {warned}"
    );
    let fetch = [
        "host",
        "bundle",
        &world.host,
        "--image",
        &made.image,
        "--out",
    ];
    world
        .outhaul_ok(&[&fetch[..], &[&bundle.to_string_lossy()]].concat())
        .unwrap();
    let first_key = fs::read_to_string(world.path("first/install.key")).unwrap();
    let key = fs::read_to_string(bundle.join("install.key")).unwrap();
    assert_ne!(first_key, key);
    // What the owner does: allows an image and a source, and lets the containers find the broker.
    let policy = bundle.join("policy.toml");
    let images = format!("images = [\"{}\"]\ncontent = \"full\"", docker::IMAGE);
    replace(&policy, "\nimages = []", &format!("\n{images}"));
    replace(
        &policy,
        "# [sources]",
        &format!("[sources]\ntools = \"{programs}\""),
    );
    let known = format!("extra_hosts: [\"broker.test:{}\"]", world.listen);
    let source =
        format!("{{type: bind, source: \"{programs}\", target: \"{programs}\", read_only: true}}");
    fs::write(
        bundle.join("compose.override.yaml"),
        format!(
            "services:\n  operator:\n    {known}\n    volumes: [{source}]\n  egress:\n    {known}\n"
        ),
    )
    .unwrap();
    let state = world.path("state").to_string_lossy().into_owned();
    let variables = [("OUTHAUL_STATE_DIR", state.as_str())];
    run_script(&bundle.join("install.sh"), &["compose"], &variables);
    let connected = wait::until_ok(wait::DEADLINE, || {
        world.is_connected().then_some(()).ok_or(())
    });
    assert!(connected.is_ok(), "it does not connect:\n{}", made.logs());

    // The key is used up, and nowhere.
    wait::until("the install key to be removed", || {
        (!world.path("state/install.key").exists()).then_some(())
    });
    assert!(!bundle.join("install.key").exists());

    // A sandbox runs, its stream comes through the egress container, and its command comes through nothing.
    let broker = format!("connect=broker.test:{}", world.port);
    let run = [
        "run",
        "--host",
        &world.host,
        "--content",
        "full",
        "--source",
        "tools",
    ];
    let said = world
        .outhaul_ok(
            &[
                &run[..],
                &[docker::IMAGE, "--", "/sources/tools/probe", &broker],
            ]
            .concat(),
        )
        .unwrap_or_else(|error| panic!("{error:#}\n{}", made.logs()));
    assert!(
        said.contains("HTTP/1.1 403 not_the_shim"),
        "{said}\n{}",
        made.logs()
    );

    // And what runs is what the project says, by the engine's word and the kernel's.
    let engine_group = {
        use std::os::unix::fs::MetadataExt as _;
        fs::metadata("/var/run/docker.sock")
            .unwrap()
            .gid()
            .to_string()
    };
    let run_dir = format!("{state}/run");
    let here = bundle.to_string_lossy().into_owned();
    let operator = made.inspect("operator");
    let egress = made.inspect("egress");
    for container in [&operator, &egress] {
        is_hardened(container);
        let everything = container.to_string();
        for secret in [key.trim(), first_key.trim(), "ohk1_"] {
            assert!(
                !everything.contains(secret),
                "a secret shows in `docker inspect`"
            );
        }
    }
    assert_eq!(
        operator["HostConfig"]["GroupAdd"],
        serde_json::json!([engine_group])
    );
    assert_eq!(operator["HostConfig"]["PidMode"], "");
    assert_eq!(
        mounts(&operator),
        [
            ("/etc/outhaul-agent".to_owned(), here.clone(), false),
            (
                "/run/engine.sock".to_owned(),
                "/var/run/docker.sock".to_owned(),
                true
            ),
            (programs.to_string(), programs.to_string(), false),
            (state.clone(), state.clone(), true),
        ]
        .into_iter()
        .collect()
    );
    assert!(
        is_nothing(&egress["HostConfig"]["GroupAdd"]),
        "no engine for egress"
    );
    assert_eq!(egress["HostConfig"]["PidMode"], "host");
    assert_eq!(
        mounts(&egress),
        [
            ("/etc/outhaul-agent".to_owned(), here, false),
            (run_dir.clone(), run_dir, true),
        ]
        .into_iter()
        .collect()
    );
    let pids: Vec<u32> = [&operator, &egress]
        .iter()
        .map(|container| u32::try_from(container["State"]["Pid"].as_u64().unwrap()).unwrap())
        .collect();
    for (pid, groups) in pids.iter().zip([&*engine_group, ""]) {
        is_confined(*pid, groups);
        assert!(!sockets::inodes_of(*pid).is_empty());
    }
    assert_eq!(
        sockets::listening(&pids),
        Vec::<String>::new(),
        "nothing listens"
    );

    // Applied again, it goes on as it was: the state is there, and no key is needed.
    run_script(&bundle.join("install.sh"), &["compose"], &variables);
    let again = wait::until_ok(wait::DEADLINE, || {
        world.is_connected().then_some(()).ok_or(())
    });
    assert!(again.is_ok(), "{}", made.logs());
    let ran = world.outhaul_ok(&[
        "run",
        "--host",
        &world.host,
        "--content",
        "full",
        docker::IMAGE,
        "--",
        "echo",
        "again",
    ]);
    assert!(ran.unwrap().contains("again"), "{}", made.logs());

    // An egress process that could see no sandbox's processes does not start at all.
    let alone = Command::new("docker")
        .args([
            "run",
            "--rm",
            "--network",
            "none",
            &made.image,
            "egress",
            "--broker",
            "b:1",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&alone.stderr);
    assert!(
        !alone.status.success() && said.contains("pid: host"),
        "{said}"
    );
}

/// Bounded and without rights, as the engine has it.
fn is_hardened(container: &Value) {
    let host = &container["HostConfig"];
    let shown = format!("{host:#}");
    assert_eq!(container["Config"]["User"], format!("{USER}:{USER}"));
    for (key, wanted) in [
        ("Memory", serde_json::json!(64 << 20)),
        ("MemorySwap", serde_json::json!(64 << 20)),
        ("NanoCpus", serde_json::json!(500_000_000)),
        ("PidsLimit", serde_json::json!(64)),
        ("ReadonlyRootfs", serde_json::json!(true)),
        ("Privileged", serde_json::json!(false)),
        ("CapDrop", serde_json::json!(["ALL"])),
        ("NetworkMode", serde_json::json!("bridge")),
        ("PublishAllPorts", serde_json::json!(false)),
        ("UsernsMode", serde_json::json!("")),
        ("UTSMode", serde_json::json!("")),
    ] {
        assert_eq!(host[key], wanted, "{key} in {shown}");
    }
    // The engine adds "label=disable" for whoever shares its pid namespace, on machines without SELinux too.
    let options = host["SecurityOpt"].as_array().unwrap();
    let options: Vec<_> = options.iter().filter_map(Value::as_str).collect();
    match host["PidMode"].as_str() {
        Some("host") => assert!(options.starts_with(&["no-new-privileges:true"]), "{shown}"),
        _ => assert_eq!(options, ["no-new-privileges:true"]),
    }
    for (of, key) in [
        (host, "CapAdd"),
        (host, "Devices"),
        (host, "PortBindings"),
        (&container["Config"], "ExposedPorts"),
        (&container["NetworkSettings"], "Ports"),
    ] {
        assert!(is_nothing(&of[key]), "{key} in {shown}");
    }
    let variables = container["Config"]["Env"].as_array().unwrap();
    for variable in variables {
        let variable = variable.as_str().unwrap();
        assert!(
            variable.starts_with("OUTHAUL_AGENT_") || variable.starts_with("PATH="),
            "{variable}"
        );
    }
}

/// Engines say it in different ways.
fn is_nothing(value: &Value) -> bool {
    value.is_null()
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty)
}

/// The same, as the kernel has it.
fn is_confined(pid: u32, groups: &str) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(field("Uid:"), [USER; 4].join(" "));
    assert_eq!(field("Gid:"), [USER; 4].join(" "));
    let others: Vec<_> = field("Groups:")
        .split(' ')
        .filter(|group| *group != USER)
        .map(str::to_owned)
        .collect();
    assert_eq!(others.join(" "), groups);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
}

/// Where it is inside, where that is on the machine, and whether it may be written.
fn mounts(container: &Value) -> std::collections::BTreeSet<(String, String, bool)> {
    let mounts = container["Mounts"].as_array().unwrap();
    let text = |mount: &Value, key: &str| mount[key].as_str().unwrap().to_owned();
    mounts
        .iter()
        .map(|mount| {
            assert_eq!(mount["Type"], "bind");
            (
                text(mount, "Destination"),
                text(mount, "Source"),
                mount["RW"] == true,
            )
        })
        .collect()
}

#[test]
fn a_broker_that_was_told_no_public_address_gives_out_no_bundle() {
    let mut world = World::empty().unwrap();
    world.public_name = None;
    world.start_broker().unwrap();
    world.outhaul_ok(&["dispatcher", "init"]).unwrap();
    let out = world.path("bundle");
    let add = ["host", "add", "edge-1", "--kind", "docker", "--out"];
    let refused = world
        .outhaul_output(&[&add[..], &[&out.to_string_lossy()]].concat())
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("--public-address NAME:PORT"), "{said}");
    assert!(!out.exists(), "and leaves nothing behind");
    let hosts = tests::local::get_json(&world.socket(), "/v1/hosts").unwrap();
    assert_eq!(hosts["hosts"], serde_json::json!([]));
}

#[test]
fn what_is_in_a_bundle_is_sound_and_a_broker_that_is_reached_gets_no_warning() {
    let world = World::with_broker().unwrap();
    world.outhaul_ok(&["dispatcher", "init"]).unwrap();
    let bundle = world.path("bundle");
    let out = bundle.to_string_lossy();
    let add = [
        "--json",
        "host",
        "add",
        &world.host,
        "--kind",
        "docker",
        "--out",
        &out,
    ];
    let said: Value = serde_json::from_str(&world.outhaul_ok(&add).unwrap()).unwrap();
    assert_eq!(said["warning"], Value::Null, "{said}");
    // The policy allows nothing; and with every example in it, it is still one.
    let policy = fs::read_to_string(bundle.join("policy.toml")).unwrap();
    assert_eq!(Policy::parse(&policy, "p").unwrap(), Policy::default());
    let examples: String = policy
        .lines()
        .filter(|line| *line != "images = []")
        .map(|line| match line.strip_prefix("# ") {
            Some(bare) if bare.starts_with('[') || bare.contains(" = ") => format!("{bare}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(Policy::parse(&examples, "p").unwrap(), Policy::default());
    // The units are what systemd understands, where there is one to ask.
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command
            .args(arguments)
            .current_dir(bundle.join("systemd"))
            .output()
            .ok()
    };
    for unit in ["outhaul-egress.service", "outhaul-agent.service"] {
        // The program is not installed here; any that is there will do.
        replace(
            &bundle.join("systemd").join(unit),
            "/usr/local/bin/outhaul-agent",
            "/bin/true",
        );
        let unit = format!("./{unit}");
        let Some(verified) = analyze(&["verify", "--man=no", &unit]) else {
            return;
        };
        let said = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success() && said.is_empty(), "{said}");
        // Of 10, in tenths: how exposed it is, in systemd's own opinion.
        let judged = analyze(&["security", "--offline=true", "--threshold=20", &unit]).unwrap();
        let said = String::from_utf8_lossy(&judged.stdout);
        assert!(judged.status.success(), "{said}");
    }
}
