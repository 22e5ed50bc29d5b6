//! Cases 55 to 67: SUBSCRIBE and UNSUBSCRIBE, as a host and a sandbox may use them.
//!
//! What readers may do, wildcards above all, belongs beside this, in a file of its own.

use crate::{
    bystander::packet_id,
    bytes::{
        Hello, PING, PONG, acknowledge, disconnect, packet, suback, subscribe, subscribe_with,
        text, unsuback, unsubscribe,
    },
    site::{Credentials, Site, run},
};

const NOT_ITS_OWN: &str = "asks for what it may not";
const NOT_A_PACKET: &str = "not a packet";

/// `who` subscribes and is answered with these codes; the link lives.
#[track_caller]
fn is_answered(site: &mut Site, who: &Credentials, filters: &[&str], codes: &[u8]) {
    let mut wire = site.online(who);
    wire.says(&subscribe(7, filters), &suback(7, codes));
    wire.lives();
    wire.send(&[0xE0, 0]);
    wire.ends(&[]);
    if let Some(refused) = codes.iter().find(|code| **code >= 0x80) {
        site.packets(*refused, 1);
    }
}

#[test]
fn case_55_a_sandbox_subscribes_to_nothing() {
    run(|site| {
        let who = site.sandbox();
        let (own, commands) = (who.topic(), who.commands());
        for filter in [
            &own,
            &commands,
            "v1/edge-b/reports",
            "x",
            "#",
            "v1/+/+/events",
        ] {
            is_answered(site, &who, &[filter], &[0x87]);
        }
        let mut wire = site.online(&who);
        for id in [1, 2] {
            wire.says(&subscribe(id, &[&own]), &suback(id, &[0x87]));
        }
        wire.send(&subscribe(3, &[&own]));
        wire.ends(&disconnect(0x87));
        site.packets(0x87, 2);
        site.ended(0x87, NOT_ITS_OWN);
    });
}

#[test]
fn case_56_a_wildcard_is_not_for_hosts() {
    run(|site| {
        let host = site.host();
        for filter in [
            "#",
            "+",
            "+/+",
            "v1/+/commands",
            "v1/+/h/s/ev",
            "v1/edge-b/#",
        ] {
            is_answered(site, &host, &[filter], &[0xA2]);
        }
    });
}

#[test]
fn case_57_the_brokers_own_topics_are_for_nobody() {
    run(|site| {
        let (host, sandbox) = (site.host(), site.sandbox());
        for filter in ["$SYS/#", "$SYS/broker/uptime", "$internal/+", "$CONTROL/#"] {
            is_answered(site, &host, &[filter], &[0x87]);
            is_answered(site, &sandbox, &[filter], &[0x87]);
        }
    });
}

#[test]
fn case_58_a_shared_subscription_is_refused_however_it_is_written() {
    run(|site| {
        let host = site.host();
        for filter in [
            "$share/g/v1/edge-a/commands",
            "$share//x",
            "$share/g/",
            "$share/ab",
            "$share/+/x",
            "$share/#",
            "$share/g/#",
        ] {
            is_answered(site, &host, &[filter], &[0x9E]);
        }
    });
}

#[test]
fn case_59_nobody_joins_a_group_and_takes_what_is_anothers() {
    run(|site| {
        let host = site.host();
        let mut wire = site.subscribed(&host.hello());
        let own = host.commands();
        for group in ["g", "edge-a", "edge-b"] {
            let shared = format!("$share/{group}/{own}");
            wire.says(&subscribe(2, &[&shared]), &suback(2, &[0x9E]));
            site.packets(0x9E, 1);
        }
        let commands: Vec<_> = (0..5).map(|_| site.command()).collect();
        for command in commands {
            assert!(wire.packet().ends_with(&command), "it gets every one");
        }
    });
}

#[test]
fn case_60_a_filter_that_is_none_is_refused() {
    run(|site| {
        for (filter, reason) in [
            ("a/#/b", 0x8F),
            ("a#", 0x8F),
            ("+a", 0x8F),
            ("#/", 0x8F),
            ("a/b+", 0x8F),
            ("", 0x8F),
            ("a\0b", 0x81),
            ("a\u{7F}b", 0x81),
            ("\u{FFFF}", 0x81),
        ] {
            site.sandbox_is_ended(&subscribe(1, &[filter]), reason, NOT_A_PACKET);
            site.sandbox_is_ended(&unsubscribe(1, &[filter]), reason, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_61_of_a_list_only_what_is_allowed_is_active() {
    run(|site| {
        let host = site.host();
        let mut wire = site.online(&host);
        let own = host.commands();
        let filters = [
            "v1/edge-a/commands",
            &own,
            "v1/edge-b/reports",
            "v1/+/commands",
        ];
        wire.says(&subscribe(1, &filters), &suback(1, &[0x87, 1, 0x87, 0xA2]));
        site.packets(0x87, 1);
        // A command of the other host, and one of its own: only the second comes.
        site.is_well();
        let command = site.command();
        assert!(wire.packet().ends_with(&command));
    });
}

#[test]
fn case_62_ten_thousand_filters_are_answered_in_bounded_work() {
    run(|site| {
        let who = site.sandbox();
        let mut wire = site.online(&who);
        let filters = vec!["a"; 10_000];
        let codes = [vec![0x87; 8], vec![0x97; 9_992]].concat();
        wire.says(&subscribe(1, &filters), &suback(1, &codes));
        site.packets(0x87, 1);
        let codes = [vec![0x11; 8], vec![0x83; 9_992]].concat();
        wire.says(&unsubscribe(2, &filters), &unsuback(2, &codes));
        let filters = vec!["a"; 20_000];
        site.sandbox_is_ended(&subscribe(1, &filters), 0x95, NOT_A_PACKET);
        // A host that subscribes again and again has one subscription.
        let host = site.host();
        let mut wire = site.subscribed(&host.hello());
        for id in 1..1_000 {
            wire.says(&subscribe(id, &[&host.commands()]), &suback(id, &[1]));
        }
        let command = site.command();
        assert!(wire.packet().ends_with(&command));
        wire.says(&PING, &PONG);
        site.memory_growth_max = 8 << 20;
    });
}

#[test]
fn case_63_options_that_do_not_exist_are_refused() {
    run(|site| {
        let host = site.host();
        let own = host.commands();
        let one = |options| subscribe_with(1, &[], &[(&own, options)]);
        let mut flagless = one(1);
        flagless[0] = 0x80;
        let shared = subscribe_with(1, &[], &[("$share/g/x", 0x05)]);
        for (bytes, reason, why) in [
            (subscribe(0, &[&own]), 0x82, NOT_A_PACKET),
            (unsubscribe(0, &[&own]), 0x82, NOT_A_PACKET),
            (flagless, 0x81, NOT_A_PACKET),
            (one(0x31), 0x82, NOT_A_PACKET),
            (one(0x03), 0x82, NOT_A_PACKET),
            (one(0x41), 0x81, NOT_A_PACKET),
            (one(0x81), 0x81, NOT_A_PACKET),
            (shared, 0x82, NOT_A_PACKET),
            (
                subscribe_with(1, &[vec![0x0B, 0]], &[(&own, 1)]),
                0x82,
                NOT_A_PACKET,
            ),
            (
                subscribe_with(1, &[vec![0x0B, 1]], &[(&own, 1)]),
                0xA1,
                "a subscription identifier",
            ),
        ] {
            site.sandbox_is_ended(&bytes, reason, why);
        }
        // QoS 0 would lose a command without a word, and QoS 2 is not offered: the one is refused, the other is granted as QoS 1.
        let mut wire = site.online(&host);
        wire.says(&one(0), &suback(1, &[0x83]));
        site.packets(0x83, 1);
        wire.says(&one(2), &suback(1, &[1]));
    });
}

#[test]
fn case_64_a_subscribe_without_a_filter_or_its_options_is_refused() {
    run(|site| {
        for (first, body, reason) in [
            (0x82, vec![0, 1, 0], 0x82),
            (0xA2, vec![0, 1, 0], 0x82),
            (0x82, [vec![0, 1, 0], text("a")].concat(), 0x81),
            (0x82, [vec![0, 1, 0, 0, 9], b"a".to_vec()].concat(), 0x81),
            (0x82, vec![0, 1], 0x81),
            (0x82, vec![0], 0x81),
            (0x82, vec![], 0x81),
            (
                0x82,
                [vec![0, 1, 0], text("a"), vec![1], text("b")].concat(),
                0x81,
            ),
        ] {
            site.sandbox_is_ended(&packet(first, &body), reason, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_65_a_second_subscription_delivers_nothing_twice() {
    run(|site| {
        let host = site.host();
        let mut wire = site.subscribed(&host.hello());
        let own = host.commands();
        wire.says(&subscribe(2, &[&own, &own]), &suback(2, &[1, 1]));
        for _ in 0..3 {
            let command = site.command();
            let publish = wire.packet();
            assert!(publish.ends_with(&command));
            wire.says(&PING, &PONG);
            wire.send(&acknowledge(4, packet_id(&publish)));
        }
    });
}

#[test]
fn case_66_an_unsubscribe_from_nothing_is_answered() {
    run(|site| {
        for who in [site.host(), site.sandbox()] {
            let mut wire = site.online(&who);
            for filter in ["x", "v1/edge-b/commands", "#", "$share/g/x"] {
                wire.says(&unsubscribe(9, &[filter]), &unsuback(9, &[0x11]));
            }
            wire.lives();
        }
    });
}

#[test]
fn case_67_an_unsubscribe_has_one_answer_and_ends_what_it_names() {
    run(|site| {
        let host = site.host();
        let hello: Hello = host.hello();
        let mut wire = site.subscribed(&hello);
        let own = host.commands();
        wire.says(&unsubscribe(2, &["x"]), &unsuback(2, &[0x11]));
        let command = site.command();
        let publish = wire.packet();
        assert!(publish.ends_with(&command), "what was not named goes on");
        wire.send(&acknowledge(4, packet_id(&publish)));
        wire.says(&unsubscribe(3, &["x", &own]), &unsuback(3, &[0x11, 0]));
        let waiting = site.command();
        wire.says(&PING, &PONG);
        // Both are open, since no report has settled them: they come with the next subscription.
        wire.says(&subscribe(4, &[&own]), &suback(4, &[1]));
        for command in [command, waiting] {
            assert!(wire.packet().ends_with(&command));
        }
    });
}
