//! Cases 36 to 54: PUBLISH, most of them by a sandbox.

use std::time::Duration;

use tests::local;

use crate::{
    bytes::{PING, PONG, Post, disconnect, packet, property, puback, text},
    site::{HOST, run},
};

const NOT_ITS_OWN: &str = "asks for what it may not";
const NOT_A_NAME: &str = "not a topic name";
const NOT_A_PACKET: &str = "not a packet";
/// What a payload says that is refused: it must be found nowhere.
const CANARY: &[u8] = b"a canary in the coal mine 29f6b1";

#[test]
fn case_36_a_topic_that_is_not_its_own_is_refused() {
    run(|site| {
        site.secrets.add(CANARY);
        let foreign = [
            "v1/edge-b/other/events",
            "v1/edge-a/by/events",
            "v1/edge-b/reports",
            "v1/edge-b/commands",
            "bench/x",
            "x",
        ];
        for topic in foreign {
            let quiet = Post::quiet(topic, CANARY);
            site.sandbox_is_ended(&quiet.bytes(), 0x87, NOT_ITS_OWN);
        }
        for topic in foreign {
            let who = site.sandbox();
            let mut wire = site.online(&who);
            for id in [1, 2] {
                let post = Post::new(topic, id, CANARY);
                wire.says(&post.bytes(), &puback(id, 0x87));
            }
            wire.send(&Post::new(topic, 3, CANARY).bytes());
            wire.ends(&disconnect(0x87));
            site.packets(0x87, 2);
            site.ended(0x87, NOT_ITS_OWN);
        }
    });
}

#[test]
fn case_37_a_topic_that_is_not_ascii_is_refused() {
    run(|site| {
        for topic in ["é/x", "日本/x", "v1/edge-b/\u{1F600}/events", "\u{FEFF}v1"] {
            for post in [Post::new(topic, 1, b"x"), Post::quiet(topic, b"x")] {
                site.sandbox_is_ended(&post.bytes(), 0x90, NOT_A_NAME);
            }
        }
    });
}

#[test]
fn case_38_a_topic_with_wildcards_is_refused() {
    run(|site| {
        for topic in ["#", "+", "v1/+/+/events", "v1/edge-b/#", "a#b"] {
            let post = Post::new(topic, 1, b"x");
            site.sandbox_is_ended(&post.bytes(), 0x90, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_39_an_empty_topic_is_a_protocol_error() {
    run(|site| {
        let post = Post::new("", 1, b"x");
        site.sandbox_is_ended(&post.bytes(), 0x82, NOT_A_PACKET);
    });
}

#[test]
fn case_40_a_topic_that_is_no_text_is_malformed() {
    run(|site| {
        for topic in [
            b"v1/\0/x".as_slice(),
            b"v1/\x01",
            b"v1/\x7F",
            b"v1/\x1B[2J",
            // U+0085, U+FFFE, U+FDD0.
            b"v1/\xC2\x85",
            b"v1/\xEF\xBF\xBE",
            b"v1/\xEF\xB7\x90",
            // A surrogate, two overlong forms, past the last code point, half a character.
            b"v1/\xED\xA0\x80",
            b"v1/\xC0\xAF",
            b"v1/\xE0\x80\xAF",
            b"v1/\xF4\x90\x80\x80",
            b"v1/\xE2\x82",
        ] {
            let post = Post::new(topic, 1, b"x");
            site.sandbox_is_ended(&post.bytes(), 0x81, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_41_a_topic_of_the_brokers_own_is_refused() {
    run(|site| {
        let topics = ["$SYS/x", "$CONTROL/x", "$share/g/x", "$internal", "probe"];
        for topic in topics {
            let who = site.sandbox();
            let mut wire = site.online(&who);
            let post = Post::new(topic, 1, b"x");
            wire.says(&post.bytes(), &puback(1, 0x87));
            wire.lives();
            site.packets(0x87, 1);
        }
    });
}

// 65,535 bytes of topic fit no packet of ours, so the longest that is looked at is a little shorter.
#[test]
fn case_42_a_long_or_deep_topic_is_refused() {
    run(|site| {
        let whole = [vec![b'a'; 65_535], vec![b'/'; 65_535]];
        for topic in whole {
            let post = Post::new(topic, 1, b"");
            site.sandbox_is_ended(&post.bytes(), 0x95, NOT_A_PACKET);
        }
        let long = [
            vec![b'a'; 65_000],
            vec![b'/'; 65_000],
            vec![b'a'; 257],
            b"a/a/a/a/a/a/a/a/a".to_vec(),
        ];
        for topic in long {
            let post = Post::new(topic, 1, b"");
            site.sandbox_is_ended(&post.bytes(), 0x90, NOT_A_NAME);
        }
        // The longest and deepest that is a name, and nobody's.
        for topic in [vec![b'a'; 256], b"a/a/a/a/a/a/a/a".to_vec()] {
            let who = site.sandbox();
            let mut wire = site.online(&who);
            wire.says(&Post::new(topic, 1, b"").bytes(), &puback(1, 0x87));
            site.packets(0x87, 1);
        }
    });
}

#[test]
fn case_43_a_packet_that_is_too_large_is_refused_before_it_comes() {
    run(|site| {
        // One more than 65,536 in all, and the most that can be written: only their headers are sent.
        for header in [
            [0x32, 0xFE, 0xFF, 0x03].as_slice(),
            &[0x32, 0xFF, 0xFF, 0xFF, 0x7F],
        ] {
            site.sandbox_is_ended(header, 0x95, NOT_A_PACKET);
        }
        site.memory_growth_max = 4 << 20;
    });
}

#[test]
fn case_44_qos_2_is_refused() {
    run(|site| {
        let who = site.sandbox();
        for flags in [0x04, 0x0C] {
            let post = Post::new(who.topic(), 1, &who.batch()).flagged(flags);
            site.is_ended(&who, &post.bytes(), 0x9B, "QoS 2");
        }
    });
}

#[test]
fn case_45_a_qos_or_identifier_that_does_not_exist_is_refused() {
    run(|site| {
        let who = site.sandbox();
        let batch = who.batch();
        let post = Post::new(who.topic(), 1, &batch);
        let zero = Post::new(who.topic(), 0, &batch);
        let dup = Post::quiet(who.topic(), &batch).flagged(0x08);
        for (post, reason) in [
            (post.clone().flagged(0x06), 0x81),
            (post.flagged(0x0E), 0x81),
            (zero.clone(), 0x82),
            (zero.flagged(0x04), 0x82),
            (dup, 0x82),
        ] {
            site.sandbox_is_ended(&post.bytes(), reason, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_46_nothing_is_retained_and_an_empty_message_clears_nothing() {
    run(|site| {
        let who = site.sandbox();
        let topic = who.topic();
        for post in [
            Post::new(&topic, 1, &who.batch()).flagged(0x03),
            Post::quiet(&topic, &who.batch()).flagged(0x01),
            Post::new(&topic, 1, b"").flagged(0x03),
        ] {
            site.sandbox_is_ended(&post.bytes(), 0x9A, "a retained message");
        }
        let mut wire = site.online(&who);
        wire.says(&Post::new(&topic, 1, &who.batch()).bytes(), &puback(1, 0));
        wire.says(&Post::new(&topic, 2, b"").bytes(), &puback(2, 0x99));
        site.packets(0x99, 1);
        let records = local::records(&site.world.socket(), HOST).unwrap();
        assert_eq!(records.len(), 1, "what was accepted is there");
    });
}

#[test]
fn case_47_a_topic_alias_is_refused() {
    run(|site| {
        let who = site.sandbox();
        let own = Post::new(who.topic(), 1, &who.batch());
        for (alias, why) in [
            (0, NOT_A_PACKET),
            (1, "a topic alias"),
            (u16::MAX, "a topic alias"),
        ] {
            let alias = [vec![0x23], alias.to_be_bytes().to_vec()].concat();
            site.is_ended(&who, &own.clone().with(alias.clone()).bytes(), 0x94, why);
            // As a name for a topic that was never allowed.
            let nameless = Post::new("", 2, b"x").with(alias);
            site.is_ended(&who, &nameless.bytes(), 0x94, why);
        }
    });
}

#[test]
fn case_48_a_subscription_identifier_in_a_publish_is_a_protocol_error() {
    run(|site| {
        let who = site.sandbox();
        let post = Post::new(who.topic(), 1, &who.batch()).with(vec![0x0B, 1]);
        site.is_ended(&who, &post.bytes(), 0x82, NOT_A_PACKET);
    });
}

#[test]
fn case_49_what_travels_with_a_message_is_bounded_and_not_honoured() {
    run(|site| {
        let who = site.sandbox();
        let mut writer = who.writer();
        let mut wire = site.online(&who);
        let elsewhere = "v1/edge-a/commands";
        let allowed = [
            vec![0x02, 0, 0, 0, 0],
            vec![0x02, 0xFF, 0xFF, 0xFF, 0xFF],
            property(0x08, elsewhere),
            property(0x09, vec![7; 1_000]),
            property(0x03, "application/cbor"),
        ];
        let count = allowed.len();
        for (id, extra) in (1..).zip(allowed) {
            let batch = writer.seal(tests::wait::now(), false);
            let post = Post::new(who.topic(), id, &batch).with(extra);
            wire.says(&post.bytes(), &puback(id, 0));
        }
        // The bystander is the host named: had anything come there, its next packet would be another.
        site.is_well();
        let records = local::records(&site.world.socket(), HOST).unwrap();
        assert_eq!(records.len(), count);
        let carried = |record: &local::Record| {
            let payload = String::from_utf8_lossy(&record.payload).into_owned();
            payload.contains(elsewhere)
        };
        assert!(!records.iter().any(carried), "properties are not kept");

        let own = Post::new(who.topic(), 9, &who.batch());
        for (extra, reason) in [
            (property(0x09, vec![7; 65_000]), 0x95),
            (property(0x08, ""), 0x82),
            (property(0x08, "v1/+/x"), 0x90),
            (vec![0x02, 0, 0], 0x81),
        ] {
            let mut post = own.clone().with(extra);
            if reason == 0x81 {
                post.payload = Vec::new();
            } else if reason == 0x95 {
                post.payload = vec![0; 1_000];
            }
            site.sandbox_is_ended(&post.bytes(), reason, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_50_more_unacknowledged_than_receive_maximum_is_refused() {
    run(|site| {
        let who = site.sandbox();
        let mut wire = site.online(&who);
        // In one record, so that none is acknowledged before the last is read.
        let burst = |count| -> Vec<u8> {
            (1..=count)
                .flat_map(|id| Post::new(who.topic(), id, b"x").bytes())
                .collect()
        };
        wire.send(&burst(128));
        for id in 1..=128 {
            wire.expect(&puback(id, 0x99));
        }
        site.packets(0x99, 128);
        wire.send(&burst(129));
        wire.ends(&disconnect(0x93));
        site.ended(0x93, "more unacknowledged than we take");
    });
}

#[test]
fn case_51_a_flood_is_slowed_down_and_others_are_served() {
    const FLOOD: usize = 10_000;
    run(|site| {
        let who = site.sandbox();
        let mut wire = site.online(&who);
        wire.be_patient();
        let post = Post::quiet(who.topic(), &who.batch()).bytes();
        let flood = std::thread::spawn(move || {
            for _ in 0..FLOOD / 100 {
                wire.try_send(&post.repeat(100)).unwrap();
            }
            wire.says(&PING, &PONG);
            wire
        });
        while !flood.is_finished() {
            site.is_well();
        }
        let _wire = flood.join().unwrap();
        tests::wait::until("the flood to be stored", || {
            (site.counted("outhaul_gate_stored_total") >= FLOOD as u64).then_some(())
        });
    });
}

#[test]
fn case_52_topics_cost_nothing_since_nobody_has_more_than_one() {
    run(|site| {
        site.memory_growth_max = 8 << 20;
        for round in 0..40 {
            let who = site.sandbox();
            let mut wire = site.online(&who);
            for id in [1, 2] {
                let topic = format!("v1/{HOST}/{round}-{id}/events");
                wire.says(&Post::new(topic, id, b"x").bytes(), &puback(id, 0x87));
            }
            let topic = format!("v1/{HOST}/{round}-3/events");
            wire.send(&Post::new(topic, 3, b"x").bytes());
            wire.ends(&disconnect(0x87));
            site.packets(0x87, 2);
            site.ended(0x87, NOT_ITS_OWN);
        }
    });
}

#[test]
fn case_53_a_payload_that_is_not_the_text_it_says_is_refused() {
    run(|site| {
        let who = site.sandbox();
        let mut wire = site.online(&who);
        let post = Post::new(who.topic(), 1, b"\xFF\xFE").with(vec![0x01, 1]);
        wire.says(&post.bytes(), &puback(1, 0x99));
        wire.lives();
        site.packets(0x99, 1);
    });
}

#[test]
fn case_54_a_publish_that_ends_inside_a_field_is_malformed() {
    run(|site| {
        let who = site.sandbox();
        let topic = text(who.topic());
        let rows = [
            vec![],
            vec![0],
            vec![0, 9, b'x'],
            topic.clone(),
            [topic.clone(), vec![0]].concat(),
            [topic.clone(), vec![0, 1]].concat(),
            // Properties that are longer than the packet, and a length of five bytes.
            [topic.clone(), vec![0, 1, 9, 0x01, 0]].concat(),
            [topic.clone(), vec![0, 1, 0xFF, 0xFF, 0xFF, 0x7F]].concat(),
            [topic, vec![0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]].concat(),
        ];
        for body in rows {
            site.sandbox_is_ended(&packet(0x32, &body), 0x81, NOT_A_PACKET);
        }
        // Half a packet, and then nothing: it is waited for, as long as a client may be silent.
        let mut wire = site.online(&who);
        wire.send(&[0x32, 100, 0]);
        assert_eq!(wire.packet_within(Duration::from_millis(200)), None);
        wire.finish();
        wire.ends(&[]);
    });
}
