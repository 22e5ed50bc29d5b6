//! Cases 12 to 28: CONNECT.

use std::time::Duration;

use protocol::key::{Issuer, Secret};
use tests::wait;
use zeroize::Zeroizing;

use crate::{
    bystander::packet_id,
    bytes::{
        Hello, PING, PONG, Post, acknowledge, auth, connack, packet, property, puback, section,
        subscribe, text, user_properties,
    },
    site::{Credentials, HOST, Minted, run},
};

/// The gate's CONNACK to a good CONNECT that asked for `keep_alive`; what the time is stands in its last 13 bytes.
fn welcome(keep_alive: u8) -> Vec<u8> {
    let properties = [
        vec![0x11, 0, 0, 0, 0],
        vec![0x21, 0, 128],
        vec![0x24, 1],
        vec![0x25, 0],
        vec![0x27, 0, 1, 0, 0],
        vec![0x28, 0],
        vec![0x29, 0],
        vec![0x2A, 0],
        vec![0x13, 0, keep_alive],
        property(0x15, "ace"),
        [vec![0x26], text("durability"), text("fsync")].concat(),
        [vec![0x26], text("server-time"), text("0000000000000")].concat(),
    ];
    packet(0x20, &[[0, 0].as_slice(), &section(&properties)].concat())
}

/// The digits of the time made zeros.
fn timeless(mut connack: Vec<u8>) -> Vec<u8> {
    let digits = connack.len() - 13;
    assert!(connack[digits..].iter().all(u8::is_ascii_digit));
    connack[digits..].fill(b'0');
    connack
}

#[test]
fn case_12_another_protocol_or_version_is_refused_in_words_it_knows() {
    run(|site| {
        let hello = site.sandbox().hello();
        for (name, level) in [("MQTT", 3), ("MQTT", 6), ("MQIsdp", 3), ("MQIsdp", 5)] {
            let hello = Hello {
                protocol: name.into(),
                level,
                ..hello.clone()
            };
            site.stranger(&hello.bytes(), 0x84, "not a packet");
        }
        // MQTT 3.1.1 is for readers; a sandbox that speaks it is told so as MQTT 3.1.1 has it.
        let mut wire = site.dial();
        wire.send(&Hello { level: 4, ..hello }.bytes());
        wire.ends(&[0x20, 2, 0, 1]);
        site.ended(0x84, "not MQTT 5");
    });
}

#[test]
fn case_13_connect_flags_that_contradict_each_other_are_malformed() {
    run(|site| {
        let hello = site.sandbox().hello();
        for flags in [0x03, 0x02 | 0x08, 0x02 | 0x20, 0x02 | 0x10, 0x06 | 0x18] {
            let hello = Hello {
                flags,
                ..hello.clone()
            };
            site.stranger(&hello.bytes(), 0x81, "not a packet");
        }
    });
}

// There is nothing to guess byte by byte, since a token is a signature over everything in it, and nothing to try often, since each
// try is a stranger's handshake of which one address has 64: so no delay is added, and no table of failures is kept. What takes
// over too often gets 0x9F: see case 31.
#[test]
fn case_14_no_token_or_a_bad_one_opens_nothing() {
    run(|site| {
        let who = site.sandbox();
        let hello = |properties: &[Vec<u8>]| {
            let properties = properties.to_vec();
            Hello {
                properties,
                ..who.hello()
            }
        };
        let ace = property(0x15, "ace");
        let strange = "not our authentication method";
        site.stranger(&hello(&[]).bytes(), 0x8C, strange);
        let named = Hello {
            flags: 0xC2,
            rest: [text("ada"), text("a password that is a secret")].concat(),
            ..hello(&[])
        };
        site.secrets.add(b"a password that is a secret");
        site.stranger(&named.bytes(), 0x86, "a user name or password");
        let token = &who.token;
        for data in [
            None,
            Some(vec![]),
            Some(vec![0]),
            Some(vec![0, 0]),
            // A length that is not the token's, either way.
            Some([vec![0, 1], token.clone()].concat()),
            Some([text(token), vec![0]].concat()),
            Some(text(vec![0; 2 * 1024 + 1])),
        ] {
            let data = data.map(|data| property(0x16, data));
            let properties: Vec<_> = [Some(ace.clone()), data].into_iter().flatten().collect();
            site.stranger(&hello(&properties).bytes(), 0x87, "no token");
        }
        for bad in [b"rubbish".to_vec(), token[..token.len() - 1].to_vec()] {
            site.stranger(
                &Hello::new(&who.subject, &bad).bytes(),
                0x87,
                "its token is refused",
            );
            site.token("malformed");
        }
        let mut forged = token.clone();
        *forged.last_mut().unwrap() ^= 1;
        site.stranger(
            &Hello::new(&who.subject, &forged).bytes(),
            0x87,
            "its token is refused",
        );
        site.token("signature");
    });
}

#[test]
fn case_15_why_a_token_is_refused_is_counted_and_not_told() {
    run(|site| {
        let now = wait::now();
        let hour = Duration::from_secs(3600);
        let other: Secret<Issuer> = Secret::from_seed(&Zeroizing::new([8; 32]));
        let ago = protocol::time::UnixMillis(now.0 - 3_600_000);
        let rows = [
            (
                "expired",
                Minted {
                    issued: ago,
                    life_s: 600,
                    ..Minted::good()
                },
            ),
            (
                "early",
                Minted {
                    issued: now.plus(hour),
                    ..Minted::good()
                },
            ),
            (
                "audience",
                Minted {
                    audience: Some("outhaul-another"),
                    ..Minted::good()
                },
            ),
            (
                "signature",
                Minted {
                    issuer: Some(&other),
                    ..Minted::good()
                },
            ),
            (
                "unknown_host",
                Minted {
                    host: "edge-z",
                    ..Minted::good()
                },
            ),
            (
                "generation",
                Minted {
                    generation: 9,
                    ..Minted::good()
                },
            ),
            (
                "claims",
                Minted {
                    life_s: 7200,
                    ..Minted::good()
                },
            ),
        ];
        for (why, minted) in rows {
            let who = site.minted(&minted);
            site.stranger(&who.hello().bytes(), 0x87, "its token is refused");
            site.token(why);
        }
        // What a clock may be wrong by is let in.
        let soon = now.plus(Duration::from_secs(45));
        let who = site.minted(&Minted {
            issued: soon,
            ..Minted::good()
        });
        site.online(&who).lives();
    });
}

#[test]
fn case_16_a_token_opens_only_its_own_subject() {
    run(|site| {
        let (who, other) = (site.sandbox(), site.sandbox());
        let why = "its client id is not its token's subject";
        for name in [other.subject.as_str(), HOST, "edge-a", "edge-a/by"] {
            site.stranger(&Hello::new(name, &who.token).bytes(), 0x85, why);
        }
        let host = site.host();
        site.stranger(&Hello::new(&who.subject, &host.token).bytes(), 0x85, why);
    });
}

// What is no text at all is malformed before it is a name (MQTT 5.0 §1.5.4), and 65 kB is more than a stranger may send.
#[test]
fn case_17_a_client_id_that_is_no_name_of_ours_is_refused() {
    run(|site| {
        let token = site.sandbox().token;
        let long = "a".repeat(65);
        for name in [
            "",
            "#",
            "+",
            "$SYS",
            "edge-b/",
            "/build-1",
            "edge-b/build-1/x",
            "edge-b/+",
            "Edge-b",
            "edge b",
            "edge_b",
            "__proto__",
            "constructor.prototype",
            "../edge-b",
            "édge",
            &long,
        ] {
            let why = "not a client id of ours";
            site.stranger(&Hello::new(name, &token).bytes(), 0x85, why);
        }
        for name in [
            b"edge\0b".as_slice(),
            b"edge\xFFb",
            b"\xED\xA0\x80",
            b"\xC0\xAF",
            b"a\x7F",
        ] {
            let client_id = name.to_vec();
            let hello = Hello {
                client_id,
                ..Hello::new("", &token)
            };
            site.stranger(&hello.bytes(), 0x81, "not a packet");
        }
        let huge = Hello::new(&"a".repeat(65_000), &token);
        site.stranger(&huge.bytes(), 0x95, "not a packet");
    });
}

#[test]
fn case_18_a_keep_alive_is_at_most_a_minute_and_is_enforced() {
    run(|site| {
        for (asked, granted) in [(0, 60), (65_535, 60), (61, 60), (60, 60), (1, 1)] {
            let who = site.sandbox();
            let hello = Hello {
                keep_alive: asked,
                ..who.hello()
            };
            let (wire, answer) = site.greet(&hello, &who);
            assert_eq!(timeless(answer), welcome(granted));
            if asked == 1 {
                let ((), took) = wait::timed(|| wire.ends(&[0xE0, 2, 0x8D, 0]));
                assert!(took > Duration::from_millis(1_400), "{took:?}");
                site.ended(0x8D, "fell silent");
            }
        }
    });
}

#[test]
fn case_19_a_session_is_never_kept_whatever_is_asked() {
    run(|site| {
        let who = site.sandbox();
        for round in 0..3 {
            let hello = Hello {
                // Without Clean Start.
                flags: 0,
                ..who.hello().with(vec![0x11, 0xFF, 0xFF, 0xFF, 0xFF])
            };
            let (mut wire, answer) = site.greet(&hello, &who);
            assert_eq!(answer[2], 0, "no session is present in round {round}");
            assert_eq!(timeless(answer), welcome(60));
            wire.send(&[0xE0, 0]);
            wire.ends(&[]);
        }
        wait::until("its state to be freed", || {
            let online = site.counted("outhaul_gate_admitted_total");
            (online == site.counted("outhaul_gate_left_total")).then_some(())
        });
    });
}

#[test]
fn case_20_more_than_eight_user_properties_are_too_many() {
    run(|site| {
        let who = site.sandbox();
        let hello = |count| Hello {
            properties: [who.hello().properties, user_properties(count)].concat(),
            ..who.hello()
        };
        for count in [9, 100, 1_000] {
            site.stranger(&hello(count).bytes(), 0x95, "not a packet");
        }
        let large = [vec![0x26], text("a"), text(vec![b'x'; 64_000])].concat();
        site.stranger(&who.hello().with(large).bytes(), 0x95, "not a packet");
        site.online_with(&hello(8), &who).lives();
        for count in [9, 1_000, 8_000] {
            let who = site.sandbox();
            let mut post = Post::new(who.topic(), 1, &who.batch());
            post.properties = user_properties(count);
            site.is_ended(&who, &post.bytes(), 0x95, "not a packet");
        }
    });
}

#[test]
fn case_21_a_property_twice_unknown_or_of_another_type_is_refused() {
    run(|site| {
        let who = site.sandbox();
        let hello = |properties: &[u8]| who.hello().with(properties.to_vec()).bytes();
        for (properties, reason) in [
            ([0x21, 0, 9, 0x21, 0, 9].as_slice(), 0x82),
            (&[0x15, 0, 1, b'x'], 0x82),
            (&[0x17, 2], 0x82),
            // Those of other packets, and one that no packet has.
            (&[0x23, 0, 1], 0x81),
            (&[0x12, 0, 1, b'x'], 0x81),
            (&[0x7E, 1], 0x81),
            (&[0xFF, 1], 0x81),
            // Shorter than its type.
            (&[0x21, 0], 0x81),
        ] {
            site.stranger(&hello(properties), reason, "not a packet");
        }
        for (properties, reason) in [
            ([0x01, 0, 0x01, 0].as_slice(), 0x82),
            (&[0x01, 2], 0x82),
            (&[0x21, 0, 1], 0x81),
            (&[0x7E, 1], 0x81),
            (&[0x02, 0], 0x81),
        ] {
            let who = site.sandbox();
            let mut post = Post::new(who.topic(), 1, &[]).with(properties.to_vec());
            // Behind the properties nothing, so that a property that is too short meets the end.
            post.payload = Vec::new();
            site.is_ended(&who, &post.bytes(), reason, "not a packet");
        }
    });
}

#[test]
fn case_22_a_second_connect_is_a_protocol_error() {
    run(|site| {
        let who = site.sandbox();
        let connect = who.hello().bytes();
        site.is_ended(&who, &connect, 0x82, "a second CONNECT");
        // And before the proof: the challenge has come, and no answer to it.
        let mut wire = site.dial();
        wire.send(&connect);
        let challenge = wire.packet();
        assert_eq!(challenge[0], 0xF0);
        wire.send(&connect);
        wire.ends(&connack(0x82));
        site.ended(0x82, "a packet out of turn");
    });
}

#[test]
fn case_23_a_will_does_not_get_around_the_rules() {
    run(|site| {
        let who = site.sandbox();
        let own = who.topic();
        for topic in ["v1/edge-a/by/events", "v1/edge-a/commands", "$SYS/x", &own] {
            let hello = who.hello().with_will(0, &[], topic);
            site.stranger(&hello.bytes(), 0x87, "a will");
        }
    });
}

#[test]
fn case_24_a_will_whose_topic_is_not_ascii_is_refused() {
    run(|site| {
        let who = site.sandbox();
        for topic in ["é/x", "日本", "\u{1F600}"] {
            let hello = who.hello().with_will(0, &[], topic);
            site.stranger(&hello.bytes(), 0x90, "a will");
        }
    });
}

// No will is taken, whatever its delay: so one that is longer than the session is refused as a will.
#[test]
fn case_25_a_will_is_refused_by_what_is_wrong_with_it_first() {
    run(|site| {
        let who = site.sandbox();
        let own = who.topic();
        let delay = vec![0x18, 0, 0, 0xFF, 0xFF];
        for (flags, properties, topic, reason, why) in [
            (0x20, vec![], own.as_str(), 0x9A, "a will"),
            (0x10, vec![], &own, 0x9B, "a will"),
            (0x30, vec![], &own, 0x9A, "a will"),
            (0, vec![delay.clone()], &own, 0x87, "a will"),
            (0, vec![delay.clone(), delay], &own, 0x82, "not a packet"),
            (0, vec![vec![0x21, 0, 1]], &own, 0x81, "not a packet"),
            (0, user_properties(9), &own, 0x95, "not a packet"),
            (0, vec![], "", 0x82, "not a packet"),
            (0, vec![], "v1/#", 0x90, "not a packet"),
        ] {
            let hello = who.hello().with_will(flags, &properties, topic);
            site.stranger(&hello.bytes(), reason, why);
        }
    });
}

#[test]
fn case_26_another_authentication_is_refused_and_auth_comes_after_connect() {
    run(|site| {
        let who = site.sandbox();
        for method in ["", "SCRAM-SHA-1", "ACE", "ace\u{20}"] {
            let hello = Hello {
                properties: vec![property(0x15, method), property(0x16, text(&who.token))],
                ..who.hello()
            };
            site.stranger(&hello.bytes(), 0x8C, "not our authentication method");
        }
        let mut wire = site.dial();
        wire.send(&auth(0x18, &[7; 72]));
        wire.ends(&[]);
        site.closed("the first packet is not CONNECT", 1);
        // The method never changes on the way.
        let mut wire = site.dial();
        wire.send(&who.hello().bytes());
        assert_eq!(wire.packet()[0], 0xF0);
        let properties = section(&[property(0x15, "other"), property(0x16, [7; 72])]);
        wire.send(&packet(0xF0, &[[0x18].as_slice(), &properties].concat()));
        wire.ends(&connack(0x8C));
        site.ended(0x8C, "changes its authentication method");
    });
}

#[test]
fn case_27_a_client_that_takes_nothing_is_refused() {
    run(|site| {
        let hello = site.sandbox().hello();
        for (property, reason, why) in [
            (vec![0x21, 0, 0], 0x82, "not a packet"),
            (vec![0x27, 0, 0, 0, 0], 0x82, "not a packet"),
            (vec![0x27, 0, 0, 0, 255], 0x95, "takes too small packets"),
        ] {
            site.stranger(&hello.clone().with(property).bytes(), reason, why);
        }
        let who = site.sandbox();
        let hello = who.hello().with(vec![0x27, 0, 0, 1, 0]);
        site.online_with(&hello, &who).lives();
    });
}

#[test]
fn case_28_a_receive_maximum_of_one_is_honoured() {
    run(|site| {
        let host: Credentials = site.host();
        let hello = host.hello().with(vec![0x21, 0, 1]);
        // Before it subscribes: past a window that waits it would be told that it is too slow, see case 73.
        let commands: Vec<_> = (0..3).map(|_| site.command()).collect();
        let mut wire = site.subscribed(&hello);
        for command in &commands {
            let publish = wire.packet();
            assert!(publish.ends_with(command), "oldest first");
            // A ping overtakes nothing: were a second one on its way, it would come before.
            wire.says(&PING, &PONG);
            wire.send(&acknowledge(4, packet_id(&publish)));
        }
        wire.lives();
        // Nor is it a matter of what the client publishes.
        let id = puback(5, 0x99);
        wire.says(&Post::new(host.topic(), 5, b"no report").bytes(), &id);
        site.packets(0x99, 1);
        let again = subscribe(6, &[&host.commands()]);
        wire.says(&again, &crate::bytes::suback(6, &[1]));
    });
}
