//! Cases 75 to 80: what the broker rests on, and those who read what it took.

use std::{fs, time::Duration};

use protocol::{
    key::{Host, Secret},
    report::{self, News, Report, Stopped},
    token,
};
use serde_json::Value;
use tests::{
    local, wait,
    world::{BrokerTerms, World},
};
use zeroize::Zeroizing;

use crate::{
    bystander::launch,
    bytes::{Post, auth, connack, disconnect, puback},
    site::{Credentials, HOST, Site, command_id, data, dispatcher, host_id, nonce_of, run},
};

/// How soon rights that were withdrawn must end a connection.
const WITHDRAWN_WAIT: Duration = Duration::from_secs(5);

/// A report that settles a command nobody gave.
fn stopped(host: &str, number: u64, time: protocol::time::UnixMillis) -> Report {
    Report {
        host: host_id(host),
        number,
        time,
        news: News::Stopped(Stopped {
            command: command_id(7),
            sandbox: protocol::id::SandboxId::new("build-1").unwrap(),
        }),
    }
}

/// The broker's readiness, as a probe sees it.
fn readiness(world: &World) -> Value {
    local::get_json(&world.socket(), "/v1/status")
        .map_or(Value::Null, |mut status| status["reasons"].take())
}

/// A file that the broker must name, and what is done to it.
type Change = (&'static str, fn(&World));

#[test]
fn case_75_a_store_that_cannot_be_trusted_opens_nothing() {
    // At a start: a store that is none, that cannot be opened, and keys that are gone or open to others.
    let changes: [Change; 4] = [
        ("state.db", |world| {
            fs::write(
                data(world, "state.db"),
                b"not a database, and longer than its head".repeat(99),
            )
            .unwrap();
        }),
        ("state.db", |world| {
            fs::remove_file(data(world, "state.db")).unwrap();
            fs::create_dir(data(world, "state.db")).unwrap();
        }),
        ("issuer.key", |world| {
            fs::remove_file(data(world, "keys/issuer.key")).unwrap();
        }),
        ("issuer.key", |world| {
            use std::os::unix::fs::PermissionsExt as _;
            let open = fs::Permissions::from_mode(0o644);
            fs::set_permissions(data(world, "keys/issuer.key"), open).unwrap();
        }),
    ];
    for (name, change) in changes {
        let mut site = Site::open(BrokerTerms::default());
        site.world.kill_broker();
        for companion in ["state.db-wal", "state.db-shm"] {
            let _ = fs::remove_file(data(&site.world, companion));
        }
        change(&site.world);
        let error = format!("{:#}", site.world.start_broker().unwrap_err());
        assert!(error.contains(name), "{error}");
        site.is_discreet();
    }
    // A store that is gone, or empty, knows no host: tokens that were good open nothing.
    for is_there in [false, true] {
        let mut site = Site::open(BrokerTerms::default());
        let who = site.host();
        site.world.kill_broker();
        for file in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = fs::remove_file(data(&site.world, file));
        }
        if is_there {
            fs::write(data(&site.world, "state.db"), b"").unwrap();
        }
        site.world.start_broker().unwrap();
        let (wire, answer) = site.greet(&who.hello(), &who);
        assert_eq!(answer, connack(0x87));
        wire.ends(&[]);
        site.is_discreet();
    }
}

#[test]
fn case_75_a_store_that_is_lost_while_it_serves_turns_readiness_red() {
    let mut site = Site::open(BrokerTerms::default());
    assert_eq!(readiness(&site.world), Value::Array(vec![]));
    for file in ["state.db", "state.db-wal", "state.db-shm"] {
        let path = data(&site.world, file);
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        // In its place: the broker has it open.
        let rubbish = vec![0xA5; usize::try_from(length).unwrap()];
        use std::os::unix::fs::FileExt as _;
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&rubbish, 0).unwrap();
    }
    // What needs the store is refused, and the broker says that it is not well, or ends.
    let order = launch(&host_id(HOST), 1, wait::now());
    assert!(
        site.submit(&order).is_err(),
        "a command that could not be recorded"
    );
    wait::until("readiness to turn red", || {
        let has_ended = site.world.broker_has_ended();
        let reasons = readiness(&site.world);
        (has_ended
            || reasons
                .as_array()
                .is_some_and(|reasons| !reasons.is_empty()))
        .then_some(())
    });
    site.is_discreet();
}

#[test]
fn case_76_rights_that_are_withdrawn_end_what_is_under_way() {
    run(|site| {
        let host = site.host();
        let sandboxes = [site.sandbox(), site.sandbox()];
        let mut wires: Vec<_> = sandboxes.iter().map(|who| site.online(who)).collect();
        let operator = site.subscribed(&host.hello());
        for (wire, who) in wires.iter_mut().zip(&sandboxes) {
            wire.says(
                &Post::new(who.topic(), 1, &who.batch()).bytes(),
                &puback(1, 0),
            );
        }
        let path = format!("/v1/hosts/{HOST}/revoke");
        local::post(&site.world.socket(), &path, "application/json", b"").unwrap();
        let ((), took) = wait::timed(|| {
            operator.ends(&disconnect(0x98));
            wires
                .drain(..)
                .for_each(|wire| wire.ends(&disconnect(0x98)));
        });
        assert!(took < WITHDRAWN_WAIT, "{took:?}");
        site.ended_many(0x98, "its host was revoked or locked", 3);
        for who in [&host, &sandboxes[0]] {
            site.stranger(&who.hello().bytes(), 0x87, "its token is refused");
            site.token("revoked_host");
        }
        let order = launch(&host_id(HOST), 1, wait::now());
        assert!(
            site.submit(&order)
                .unwrap_err()
                .to_string()
                .contains("host_revoked")
        );
        let revoked = ("host.revoked".to_owned(), HOST.to_owned());
        assert!(site.audit().contains(&revoked), "{:?}", site.audit());
    });
}

/// Values that cost a careless reader its stack, its memory or its certainty.
fn bombs() -> Vec<Vec<u8>> {
    let deep = |head: &[u8]| [head.repeat(10_000), vec![0]].concat();
    vec![
        // Arrays, maps and tags, ten thousand deep; arrays without an end.
        deep(&[0x81]),
        deep(&[0xA1, 0]),
        deep(&[0xC1]),
        vec![0x9F; 10_000],
        // Texts without an end, and of 2^63 bytes.
        [vec![0x5F, 0x41, 0], vec![0xFF]].concat(),
        vec![0x7F; 100],
        vec![0x5B, 0x80, 0, 0, 0, 0, 0, 0, 0],
        vec![0x7B, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        // A list of 2^64 items, a map of 2^32.
        vec![0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        vec![0xBA, 0xFF, 0xFF, 0xFF, 0xFF],
        // A key twice, a key that is no number, a number that is not in its shortest form.
        vec![0xA2, 1, 0, 1, 0],
        vec![0xA1, 0xF9, 0x7E, 0, 0],
        vec![0xA1, 0x18, 1, 0],
        // Tags of every size around nothing; a float; undefined; a break alone.
        vec![0xD8, 0x3D, 0xD9, 0xD9, 0xF7, 0xDA, 0, 0, 0, 1, 0xF6],
        vec![0xFB, 0x7F, 0xF0, 0, 0, 0, 0, 0, 0],
        vec![0xF7],
        vec![0xFF],
        vec![],
    ]
}

/// The same, and each as the payload of an envelope that looks signed, and as its protected header.
fn wrapped_bombs() -> Vec<Vec<u8>> {
    let bytes = |value: &[u8]| {
        let length = u16::try_from(value.len()).unwrap().to_be_bytes();
        [&[0x59], length.as_slice(), value].concat()
    };
    let envelope = |protected: &[u8], payload: &[u8]| {
        let signature = [[0x58, 64].as_slice(), &[7; 64]].concat();
        [
            &[0xD2, 0x84],
            bytes(protected).as_slice(),
            &[0xA0],
            &bytes(payload),
            &signature,
        ]
        .concat()
    };
    let bombs = bombs();
    let inside = bombs
        .iter()
        .flat_map(|bomb| [envelope(&[0xA1, 1, 0x27], bomb), envelope(bomb, &[0xA0])]);
    bombs.iter().cloned().chain(inside).collect()
}

#[test]
fn case_78_a_payload_that_would_blow_up_its_reader_is_refused() {
    run(|site| {
        let (host, sandbox) = (site.host(), site.sandbox());
        for who in [&host, &sandbox] {
            let mut wire = site.online(who);
            for bomb in wrapped_bombs() {
                wire.says(&Post::new(who.topic(), 1, &bomb).bytes(), &puback(1, 0x99));
                site.packets(0x99, 1);
            }
            wire.lives();
        }
        for bomb in wrapped_bombs() {
            let refused = site.submit(&bomb).unwrap_err().to_string();
            assert!(refused.contains("command_malformed"), "{refused}");
        }
        // Who looks at such a thing offline is told that it is nothing of ours, and no more.
        let file = site.world.path("bomb");
        for bomb in bombs() {
            fs::write(&file, &bomb).unwrap();
            for command in ["inspect", "verify-stream"] {
                let output = site
                    .world
                    .outhaul_output(&[command, &file.to_string_lossy()])
                    .unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                assert_eq!(output.status.code(), Some(1), "{command}: {said}");
                assert!(!said.contains("panicked"), "{said}");
            }
        }
        assert!(
            local::records(&site.world.socket(), HOST)
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn case_79_what_was_signed_is_good_in_its_place_and_once() {
    run(|site| {
        let (one, other) = (site.sandbox(), site.sandbox());
        let mut writer = one.writer();
        let batch = writer.seal(wait::now(), false);
        let mut wire = site.online(&one);
        let says = |wire: &mut crate::wire::Wire, who: &Credentials, payload: &[u8], reason| {
            wire.says(
                &Post::new(who.topic(), 1, payload).bytes(),
                &puback(1, reason),
            );
        };
        says(&mut wire, &one, &batch, 0);
        // Again: acknowledged, and kept once.
        says(&mut wire, &one, &batch, 0);
        // Another batch under its number.
        let fork = one
            .writer()
            .seal(wait::now().plus(Duration::from_secs(1)), true);
        says(&mut wire, &one, &fork, 0x99);
        site.packets(0x99, 1);
        // As another sandbox's.
        let mut wire = site.online(&other);
        says(&mut wire, &other, &batch, 0x99);
        site.packets(0x99, 1);
        let events = local::records(&site.world.socket(), HOST).unwrap();
        assert_eq!(events.len(), 1, "one batch, once");

        // A report of this host; of another; by another's key; and a command in its place.
        let host = site.host();
        let report = report::sign(&host.key(), &stopped(HOST, 1, wait::now()));
        let strange: Secret<Host> = Secret::from_seed(&Zeroizing::new([9; 32]));
        let mut wire = site.online(&host);
        says(&mut wire, &host, &report, 0);
        says(&mut wire, &host, &report, 0);
        let later = wait::now().plus(Duration::from_secs(1));
        for bad in [
            report::sign(&host.key(), &stopped("edge-a", 2, later)),
            report::sign(&strange, &stopped(HOST, 2, later)),
            report::sign(&host.key(), &stopped(HOST, 1, later)),
            launch(&host_id(HOST), 5, later),
            batch,
        ] {
            says(&mut wire, &host, &bad, 0x99);
            site.packets(0x99, 1);
        }
        wait::until("both forks to be on record", || {
            let names: Vec<_> = site.audit().into_iter().map(|(name, _)| name).collect();
            let is_there = |name: &str| names.iter().any(|one| one == name);
            (is_there("sandbox.stream_forked") && is_there("host.reports_forked")).then_some(())
        });

        // Commands: the same again is the same; anything else under its id, too old, or by a stranger is refused.
        let order = launch(&host_id(HOST), 5, wait::now());
        assert_eq!(site.submit(&order).unwrap(), site.submit(&order).unwrap());
        let later = launch(&host_id(HOST), 5, wait::now().plus(Duration::from_secs(2)));
        let old = launch(
            &host_id(HOST),
            6,
            protocol::time::UnixMillis(wait::now().0 - 3_600_000),
        );
        let early = launch(
            &host_id(HOST),
            6,
            wait::now().plus(Duration::from_secs(600)),
        );
        let nobody = launch(&host_id("edge-z"), 6, wait::now());
        let mut forged = launch(&host_id(HOST), 6, wait::now());
        *forged.last_mut().unwrap() ^= 1;
        for (bytes, code) in [
            (later, "command_id_taken"),
            (old, "command_expired"),
            (early, "command_early"),
            (nobody, "host_unknown"),
            (forged, "command_malformed"),
            (report, "command_malformed"),
        ] {
            let refused = site.submit(&bytes).unwrap_err().to_string();
            assert!(refused.contains(code), "{code}: {refused}");
        }
        let path = format!("/v1/dispatchers/{}", dispatcher().public());
        assert!(!path.contains("secret"));
    });
}

/// The order of the curve's base point, in little-endian bytes (RFC 8032 §5.1).
const ORDER: [u8; 32] = [
    0xED, 0xD3, 0xF5, 0x5C, 0x1A, 0x63, 0x12, 0x58, 0xD6, 0x9C, 0xF7, 0xA2, 0xDE, 0xF9, 0xDE, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// A signature whose S is the same number, and not in its one encoding.
fn not_canonical(signature: &mut [u8]) {
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = u8::try_from(sum & 0xFF).unwrap();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0, "it still fits");
}

#[test]
fn case_80_a_weak_key_or_a_second_form_of_a_signature_proves_nothing() {
    run(|site| {
        let who = site.sandbox();
        // Points of small order, and encodings that are no point or not the only one.
        let mut weak = vec![[0; 32], [0xFF; 32]];
        let mut one = [0; 32];
        one[0] = 1;
        weak.push(one);
        one[31] = 0x80;
        weak.push(one);
        let mut minus_one = [0xFF; 32];
        minus_one[0] = 0xEC;
        minus_one[31] = 0x7F;
        weak.push(minus_one);
        for key in weak {
            let mut claims = token::peek(&site.host().token).unwrap();
            claims.confirmation.key.x = key.into();
            let weak = Credentials {
                token: token::seal_claims(site.issuer(), &claims, None),
                ..site.host()
            };
            site.secrets.add(&weak.token);
            site.stranger(&weak.hello().bytes(), 0x87, "its token is refused");
            site.token("claims");
        }
        // A proof with S past the order of the group, with a bit changed, of another challenge, cut short, made longer.
        let unproven = "did not prove that it holds its token's key";
        let changes: [fn(&mut Vec<u8>); 6] = [
            |proof| not_canonical(&mut proof[8..]),
            |proof| proof[71] ^= 0x20,
            |proof| proof[8] ^= 1,
            |proof| proof[0] ^= 1,
            |proof| proof.truncate(71),
            |proof| proof.push(0),
        ];
        for change in changes {
            let mut wire = site.dial();
            wire.send(&who.hello().bytes());
            let nonce = nonce_of(&wire.packet()).unwrap();
            let mut proof =
                protocol::possession::prove(&who.key::<Host>(), &nonce, &[7; 8]).to_vec();
            change(&mut proof);
            site.secrets.add(&proof);
            wire.send(&auth(0x18, &proof));
            wire.ends(&connack(0x87));
            site.ended(0x87, unproven);
        }
        // The same for the signature of a token.
        let mut twisted = who.token.clone();
        let at = twisted.len() - 64;
        not_canonical(&mut twisted[at..]);
        let twisted = Credentials {
            token: twisted,
            ..who
        };
        site.stranger(&twisted.hello().bytes(), 0x87, "its token is refused");
        site.token("signature");
    });
}
