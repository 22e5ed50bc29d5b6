//! Tests of `launch`.

use std::path::PathBuf;

use bollard::models::ContainerInspectResponse;
use serde_json::{Value, json};

use super::{body::cpu_shares, *};

/// What a real engine (API 1.41, control groups v1) made of [`spec`].
const FIXTURE: &str = include_str!("inspect-1.41.json");

pub(crate) fn host() -> HostId {
    HostId::new("edge-1").unwrap()
}

pub(crate) fn fixture() -> ContainerInspectResponse {
    serde_json::from_str(FIXTURE).unwrap()
}

fn launch() -> Launch {
    Launch {
        sandbox: SandboxId::new("build-7").unwrap(),
        image: "tool:1".into(),
        arguments: vec!["make".into(), "test".into()],
        environment: vec![("DEPTH".into(), "2".into())],
        sources: vec![SourceName::new("project").unwrap()],
        limits: Limits::default(),
        content: Content::Full,
        isolation: Some(IsolationKey::new("ticket-9").unwrap()),
    }
}

fn permit() -> Permit {
    Permit {
        content: Content::Redacted,
        limits: Limits::default(),
        sources: BTreeMap::from([(
            SourceName::new("project").unwrap(),
            PathBuf::from("/srv/project"),
        )]),
    }
}

fn image() -> ImageFacts {
    ImageFacts {
        id: format!("sha256:{}", "a".repeat(64)),
        entrypoint: vec!["/bin/tool".into()],
        command: vec!["--help".into()],
        environment: vec!["LANG=C.UTF-8".into()],
        volumes: BTreeSet::from(["/data".into()]),
        ports: BTreeSet::from(["80/tcp".into()]),
        labels: BTreeMap::from([("maker".into(), "somebody".into())]),
        ..ImageFacts::default()
    }
}

fn make(launch: &Launch, permit: &Permit, image: ImageFacts) -> Result<Spec, SpecError> {
    let run = Path::new("/var/lib/outhaul-agent/run");
    Spec::new(
        &host(),
        CommandId([7; 16]),
        launch,
        permit,
        image,
        run,
        BTreeSet::new(),
    )
}

fn spec() -> Spec {
    make(&launch(), &permit(), image()).unwrap()
}

/// The fixture with a value put at a place such as `/HostConfig/Privileged`.
fn changed(place: &str, value: Value) -> ContainerInspectResponse {
    let mut inspected: Value = serde_json::from_str(FIXTURE).unwrap();
    let (parent, field) = place.rsplit_once('/').unwrap();
    let parent = inspected.pointer_mut(parent).unwrap();
    parent.as_object_mut().unwrap().insert(field.into(), value);
    serde_json::from_value(inspected).unwrap()
}

fn found(place: &str, value: Value) -> Vec<Difference> {
    differences(&spec(), &changed(place, value))
}

#[test]
fn what_the_engine_made_of_it_is_what_was_asked() {
    assert_eq!(differences(&spec(), &fixture()), []);
}

#[test]
fn every_field_that_an_engine_shows_is_compared() {
    let inspected: Value = serde_json::from_str(FIXTURE).unwrap();
    // Not part of what was asked for: nothing is made of them, or (the last two) this API of ours does not know them.
    let free = [
        "OnBuild",
        "Shell",
        "ArgsEscaped",
        "KernelMemory",
        "KernelMemoryTCP",
    ];
    for part in ["HostConfig", "Config"] {
        for (field, value) in inspected[part].as_object().unwrap() {
            if free.contains(&field.as_str()) {
                continue;
            }
            let place = format!("/{part}/{field}");
            let another = another(field, value);
            assert!(
                !found(&place, another.clone()).is_empty(),
                "{place} made {another}"
            );
        }
    }
}

/// Another value of the same type.
fn another(field: &str, value: &Value) -> Value {
    match (field, value) {
        ("Isolation", _) => json!("hyperv"),
        ("CgroupnsMode", _) => json!("host"),
        ("RestartPolicy", _) => json!({"Name": "always", "MaximumRetryCount": 0}),
        ("MaskedPaths" | "ReadonlyPaths", _) => json!([]),
        ("PortBindings", _) => json!({"80/tcp": [{"HostIp": "", "HostPort": "80"}]}),
        ("MemorySwappiness", _) => json!(60),
        ("ConsoleSize", _) => json!([80, 25]),
        ("DeviceRequests", _) => json!([{"Count": -1}]),
        ("Devices", _) => json!([{"PathOnHost": "/dev/sda"}]),
        ("BlkioWeightDevice", _) => json!([{"Path": "/dev/sda", "Weight": 1}]),
        (field, _) if field.starts_with("BlkioDevice") => json!([{"Path": "/dev/sda", "Rate": 1}]),
        ("Mounts" | "Ulimits", _) => json!([]),
        ("Volumes" | "ExposedPorts", _) => json!({"/other": {}}),
        ("LogConfig", _) => json!({"Type": "json-file", "Config": {}}),
        ("Healthcheck", _) => json!({"Test": ["CMD", "/bin/sh"]}),
        ("Labels" | "Tmpfs", _) => json!({"/other": "x"}),
        (_, Value::Bool(value)) => json!(!value),
        (_, Value::Number(value)) => json!(value.as_i64().unwrap() + 1),
        (_, Value::String(value)) => json!(format!("{value}x")),
        (_, Value::Array(_) | Value::Null) => json!(["other"]),
        (_, Value::Object(_)) => panic!("say what else {field} may be"),
    }
}

#[test]
fn what_would_open_a_sandbox_is_a_difference() {
    let bind = |source: &str, target: &str, rw: bool, propagation: &str| {
        let mode = if rw { "rw" } else { "ro" };
        json!({"Type": "bind", "Source": source, "Destination": target, "Mode": mode, "RW": rw, "Propagation": propagation})
    };
    let points = |extra: Value| {
        let mut points = serde_json::to_value(fixture().mounts.unwrap()).unwrap();
        points.as_array_mut().unwrap().push(extra);
        points
    };
    for (place, value) in [
        ("/HostConfig/Privileged", json!(true)),
        ("/HostConfig/CapAdd", json!(["SYS_ADMIN"])),
        ("/HostConfig/CapDrop", json!(null)),
        ("/HostConfig/CapDrop", json!(["NET_RAW"])),
        ("/HostConfig/SecurityOpt", json!(null)),
        (
            "/HostConfig/SecurityOpt",
            json!(["no-new-privileges", "seccomp=unconfined"]),
        ),
        ("/HostConfig/PidMode", json!("host")),
        ("/HostConfig/IpcMode", json!("host")),
        ("/HostConfig/UTSMode", json!("host")),
        ("/HostConfig/UsernsMode", json!("host")),
        ("/HostConfig/NetworkMode", json!("bridge")),
        ("/HostConfig/NetworkMode", json!("container:x")),
        ("/HostConfig/CgroupParent", json!("/")),
        ("/HostConfig/Binds", json!(["/:/host"])),
        ("/HostConfig/VolumesFrom", json!(["x"])),
        ("/HostConfig/DeviceCgroupRules", json!(["a *:* rwm"])),
        ("/HostConfig/Sysctls", json!({"kernel.x": "1"})),
        ("/HostConfig/StorageOpt", json!({"size": "1T"})),
        ("/HostConfig/GroupAdd", json!(["docker"])),
        ("/HostConfig/ReadonlyRootfs", json!(false)),
        ("/HostConfig/OomKillDisable", json!(true)),
        ("/HostConfig/AutoRemove", json!(true)),
        ("/HostConfig/PublishAllPorts", json!(true)),
        ("/HostConfig/Memory", json!(0)),
        ("/HostConfig/MemorySwap", json!(-1)),
        ("/HostConfig/PidsLimit", json!(null)),
        ("/HostConfig/NanoCpus", json!(0)),
        ("/HostConfig/Init", json!(null)),
        ("/HostConfig/Init", json!(true)),
        ("/HostConfig/Runtime", json!("nvidia")),
        ("/HostConfig/MaskedPaths", json!(null)),
        ("/HostConfig/MaskedPaths", json!(["/proc/kcore"])),
        ("/HostConfig/ReadonlyPaths", json!(["/proc/sys"])),
        ("/HostConfig/Tmpfs", json!({"/tmp": "rw,exec"})),
        ("/Config/User", json!("")),
        ("/Config/User", json!("0:0")),
        ("/Config/Env", json!(["OTHER=1"])),
        ("/Config/Labels", json!({})),
        ("/Config/Healthcheck", json!(null)),
        ("/Image", json!("sha256:bb")),
        ("/Path", json!("/bin/sh")),
        ("/Args", json!(["run", "--", "make"])),
        ("/ExecIDs", json!(["x"])),
        ("/AppArmorProfile", json!("unconfined")),
        ("/Mounts", json!([])),
        (
            "/Mounts",
            points(bind("/var/run/docker.sock", "/x", true, "rprivate")),
        ),
        (
            "/Mounts",
            points(
                json!({"Type": "volume", "Name": "v", "Source": "/v", "Destination": "/v", "RW": true}),
            ),
        ),
        (
            "/Mounts",
            points(json!({"Type": "tmpfs", "Destination": "/elsewhere", "RW": true})),
        ),
        (
            "/NetworkSettings/Ports",
            json!({"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}),
        ),
        ("/NetworkSettings/Networks", json!({"bridge": {}})),
    ] {
        assert!(
            !found(place, value.clone()).is_empty(),
            "{place} made {value}"
        );
    }
}

#[test]
fn a_mount_that_was_asked_for_must_be_as_it_was_asked_for() {
    let points = serde_json::to_value(fixture().mounts.unwrap()).unwrap();
    for index in 0..points.as_array().unwrap().len() {
        for (field, value) in [
            ("Source", json!("/etc")),
            ("Destination", json!("/etc")),
            ("Type", json!("volume")),
            ("Propagation", json!("rshared")),
            ("RW", json!(points[index]["RW"] != true)),
        ] {
            let mut points = points.clone();
            points[index][field] = value;
            assert!(
                !found("/Mounts", points).is_empty(),
                "{field} of mount {index}"
            );
        }
    }
}

#[test]
fn what_a_difference_shows_is_short_and_no_secret() {
    let found = found("/Config/Env", json!(["TOKEN=hunter2"]));
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|one| !one.to_string().contains("hunter2")),
        "{found:?}"
    );
    let long = json!(["x".repeat(10_000)]);
    let found = differences(&spec(), &changed("/HostConfig/CapAdd", long));
    assert!(found.iter().all(|one| one.to_string().len() < 300));
}

#[test]
fn a_shortcoming_is_tolerated_only_if_it_is_listed_and_only_where_it_shows() {
    for (degradation, field, made) in [
        (Degradation::SwapLimit, "MemorySwap", json!(-1)),
        (Degradation::PidsLimit, "PidsLimit", json!(null)),
        (Degradation::MemoryLimit, "Memory", json!(0)),
        (Degradation::CpuLimit, "NanoCpus", json!(0)),
        (Degradation::CpuShares, "CpuShares", json!(0)),
    ] {
        let inspected = changed(&format!("/HostConfig/{field}"), made);
        assert!(
            !differences(&spec(), &inspected).is_empty(),
            "{field} unasked"
        );
        let tolerant = Spec {
            tolerated: BTreeSet::from([degradation]),
            ..spec()
        };
        assert_eq!(differences(&tolerant, &inspected), [], "{field}");
        let other = changed(&format!("/HostConfig/{field}"), json!(12_345));
        assert!(
            !differences(&tolerant, &other).is_empty(),
            "{field} of another value"
        );
        assert!(
            !differences(&tolerant, &changed("/HostConfig/Privileged", json!(true))).is_empty()
        );
    }
}

#[test]
fn an_engine_that_hides_more_is_no_difference() {
    let mut masked = serde_json::to_value(fixture().host_config.unwrap().masked_paths).unwrap();
    masked
        .as_array_mut()
        .unwrap()
        .push(json!("/sys/devices/virtual/powercap"));
    assert_eq!(found("/HostConfig/MaskedPaths", masked), []);
}

#[test]
fn the_command_is_the_launchs_or_else_the_images() {
    let command = |arguments: &[&str]| {
        let arguments = arguments.iter().map(|&argument| argument.into()).collect();
        let spec = make(
            &Launch {
                arguments,
                ..launch()
            },
            &permit(),
            image(),
        )
        .unwrap();
        create_body(&spec).cmd.unwrap()
    };
    assert_eq!(command(&["make"]), ["make"]);
    assert_eq!(command(&[]), ["/bin/tool", "--help"]);
    let nothing = ImageFacts {
        entrypoint: vec![],
        command: vec![],
        ..image()
    };
    let silent = Launch {
        arguments: vec![],
        ..launch()
    };
    assert_eq!(make(&silent, &permit(), nothing), Err(SpecError::NoCommand));
}

#[test]
fn variables_have_an_order_of_precedence_and_ours_are_not_for_others() {
    let image = ImageFacts {
        environment: ["PATH=/opt", "HOME=/root", "A=image", "B=image", "EMPTY"]
            .map(String::from)
            .to_vec(),
        ..image()
    };
    let launch = Launch {
        environment: vec![("A".into(), "command".into())],
        ..launch()
    };
    let body = create_body(&make(&launch, &permit(), image.clone()).unwrap());
    assert_eq!(
        body.env.unwrap(),
        [
            "A=command",
            "B=image",
            "EMPTY=",
            "HOME=/workspace",
            "OUTHAUL_HOST=edge-1",
            "OUTHAUL_SANDBOX=build-7",
            "PATH=/opt",
            "TMPDIR=/tmp",
        ]
    );
    let asks = Launch {
        environment: vec![("OUTHAUL_HOST".into(), "x".into())],
        ..launch.clone()
    };
    assert_eq!(
        make(&asks, &permit(), image.clone()),
        Err(SpecError::ReservedVariable)
    );
    let brings = ImageFacts {
        environment: vec!["OUTHAUL_X=1".into()],
        ..image.clone()
    };
    assert_eq!(
        make(&launch, &permit(), brings),
        Err(SpecError::ReservedVariable)
    );
    let labelled = ImageFacts {
        labels: BTreeMap::from([("outhaul.x".into(), "1".into())]),
        ..image
    };
    assert_eq!(
        make(&launch, &permit(), labelled),
        Err(SpecError::ReservedLabel)
    );
}

#[test]
fn an_images_volume_becomes_scratch_and_cannot_cover_what_is_ours() {
    let tmpfs = create_body(&spec()).host_config.unwrap().tmpfs.unwrap();
    assert_eq!(
        tmpfs["/data"],
        "rw,noexec,nosuid,nodev,size=1073741824,uid=10001,gid=10001,mode=0700"
    );
    for volume in [
        "/",
        "/run/outhaul/in",
        "/workspace",
        "/sources/x",
        "/tmp",
        "data",
        "/a/../run",
        "/a:b",
        "/a,exec",
    ] {
        let image = ImageFacts {
            volumes: BTreeSet::from([volume.into()]),
            ..image()
        };
        assert_eq!(
            make(&launch(), &permit(), image),
            Err(SpecError::Volumes),
            "{volume}"
        );
    }
}

#[test]
fn a_limit_that_an_engine_cannot_count_is_refused() {
    for limits in [
        Limits {
            cpu_millis: u64::MAX,
            ..Limits::default()
        },
        Limits {
            memory_bytes: u64::MAX,
            ..Limits::default()
        },
        Limits {
            pids: 0,
            ..Limits::default()
        },
    ] {
        assert_eq!(
            make(&launch(), &Permit { limits, ..permit() }, image()),
            Err(SpecError::Range)
        );
    }
    assert_eq!(
        [1, 500, 1000, 4000, u64::MAX].map(cpu_shares),
        [2, 512, 1024, 4096, 262_144]
    );
}

#[test]
fn the_hash_is_of_what_a_sandbox_is_and_not_of_its_name() {
    let renamed = Launch {
        sandbox: SandboxId::new("build-8").unwrap(),
        isolation: None,
        ..launch()
    };
    assert_eq!(
        make(&renamed, &permit(), image()).unwrap().hash(),
        spec().hash()
    );
    let others = [
        make(
            &Launch {
                arguments: vec!["make test".into()],
                ..launch()
            },
            &permit(),
            image(),
        ),
        make(
            &Launch {
                environment: vec![],
                ..launch()
            },
            &permit(),
            image(),
        ),
        make(
            &launch(),
            &Permit {
                content: Content::Full,
                ..permit()
            },
            image(),
        ),
        make(
            &launch(),
            &Permit {
                sources: BTreeMap::new(),
                ..permit()
            },
            image(),
        ),
        make(
            &launch(),
            &Permit {
                limits: Limits {
                    pids: 1,
                    ..Limits::default()
                },
                ..permit()
            },
            image(),
        ),
        make(
            &launch(),
            &permit(),
            ImageFacts {
                id: "sha256:bb".into(),
                ..image()
            },
        ),
    ];
    let hashes: BTreeSet<String> = others.map(|other| other.unwrap().hash()).into();
    assert_eq!(hashes.len(), 6);
    assert!(!hashes.contains(&spec().hash()));
}

#[test]
fn a_path_that_an_engine_would_read_as_two_is_refused() {
    for path in ["relative", "/a:b", "/a,b"] {
        let sources = BTreeMap::from([(SourceName::new("project").unwrap(), PathBuf::from(path))]);
        assert_eq!(
            make(
                &launch(),
                &Permit {
                    sources,
                    ..permit()
                },
                image()
            ),
            Err(SpecError::Path),
            "{path}"
        );
    }
}
