//! Whom a host obeys. The broker is in an enemy's hands here: all its files, its address, its certificate.

use std::{fs, time::Duration};

use protocol::{
    command::{self, Command, Content, Launch, Limits, Order},
    id::{CommandId, HostId, SandboxId},
    key::{Dispatcher, Secret},
    time::UnixMillis,
    topic::Topic,
};
use tests::{docker, hostile::Hostile, local, wait, world::World};
use zeroize::Zeroizing;

/// How long a container that must not appear is looked for.
const LOOK: Duration = Duration::from_secs(3);

fn now() -> UnixMillis {
    let now = fs::metadata("/proc/self")
        .and_then(|metadata| metadata.modified())
        .unwrap();
    UnixMillis(
        u64::try_from(
            now.duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_millis(),
        )
        .unwrap(),
    )
}

fn launch(host: &HostId, sandbox: &str, id: u8) -> Command {
    Command {
        id: CommandId([id; 16]),
        host: host.clone(),
        issued: now(),
        expires: now().plus(Duration::from_secs(600)),
        order: Order::Launch(Launch {
            sandbox: SandboxId::new(sandbox).unwrap(),
            image: docker::IMAGE.into(),
            arguments: vec!["sleep".into(), "600".into()],
            environment: vec![],
            sources: vec![],
            limits: Limits::default(),
            content: Content::Metadata,
            isolation: None,
        }),
    }
}

#[test]
fn who_holds_every_file_of_the_broker_starts_nothing() {
    let mut world = World::connected().unwrap();
    let host = world.host_id();
    // A command that a listed dispatcher really gave, carried out and over: the enemy finds it in the journal.
    world
        .outhaul_ok(&["run", "--name", "before", docker::IMAGE, "--", "true"])
        .unwrap();
    wait::until("the first sandbox's container to be gone", || {
        docker::containers(&world.host).is_empty().then_some(())
    });
    let records = local::records(&world.socket(), &world.host).unwrap();
    let replayed = records
        .iter()
        .find(|record| record.kind == 3)
        .expect("a command in the journal")
        .payload
        .clone();
    let listed = world.dispatcher_key().unwrap();
    world.kill_broker();

    let keys = world.path("broker/keys");
    let mut enemy =
        Hostile::start(world.port, &keys, Topic::Commands(host.clone()).to_string()).unwrap();
    let own: Secret<Dispatcher> = Secret::from_seed(&Zeroizing::new([9; 32]));
    // The issuer's secret, taken for a dispatcher's.
    let issuer = fs::read_to_string(keys.join("issuer.key"))
        .unwrap()
        .replace("ohi1_", "ohd1_");
    let issuer = Secret::<Dispatcher>::from_file_text(&issuer).unwrap();
    let elsewhere = HostId::new("another-host").unwrap();
    let expired = Command {
        issued: UnixMillis(now().0 - 700_000),
        expires: UnixMillis(now().0 - 100_000),
        ..launch(&host, "expired", 3)
    };
    let mut altered = command::sign(&listed, &launch(&host, "altered", 4));
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let attempts = [
        (
            "signed by a key of its own",
            command::sign(&own, &launch(&host, "own", 1)),
        ),
        (
            "signed by the broker's issuer key",
            command::sign(&issuer, &launch(&host, "issuer", 2)),
        ),
        (
            "for another host",
            command::sign(&listed, &launch(&elsewhere, "elsewhere", 5)),
        ),
        ("expired", command::sign(&listed, &expired)),
        ("altered", altered),
        ("replayed", replayed),
        ("unsigned", b"launch".to_vec()),
        ("empty", Vec::new()),
    ];
    for (what, bytes) in attempts {
        enemy
            .command(bytes)
            .unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", world.log("operator")));
    }
    assert!(
        wait::never(LOOK, || !docker::containers(&world.host).is_empty()),
        "a container was started"
    );

    // The same way is open to who may use it: so the test can fail.
    enemy
        .command(command::sign(&listed, &launch(&host, "after", 6)))
        .unwrap();
    wait::until("the listed dispatcher's sandbox", || {
        (docker::containers(&world.host).len() == 1).then_some(())
    });
}

#[test]
fn the_hosts_policy_beats_a_signed_command() {
    let world = World::connected().unwrap();
    let run = |arguments: &[&str]| {
        let output = world
            .outhaul_output(&[&["run"], arguments].concat())
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let cases: [(&[&str], &str); 4] = [
        (&["another-image:1", "--", "true"], "images"),
        (&["--source", "etc", docker::IMAGE, "--", "true"], "sources"),
        (
            &["--memory", "900GiB", docker::IMAGE, "--", "true"],
            "memory",
        ),
        (&["--life", "9000h", docker::IMAGE, "--", "true"], "life"),
    ];
    for (arguments, rule) in cases {
        let (code, said) = run(arguments);
        assert_eq!(code, Some(125), "{arguments:?}: {said}");
        assert!(
            said.contains("policy_refused") && said.contains(rule),
            "{arguments:?}: {said}"
        );
    }
    assert!(docker::containers(&world.host).is_empty());
}
