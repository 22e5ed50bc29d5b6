//! Cases 89 to 105 and 107: readers and load tests, with bearer tokens, over MQTT 5 and 3.1.1.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};
use tests::{wait, world::BrokerTerms};

use crate::{
    bearer::{
        Reader, add, hello_of, message, older, older_connack, online, publish, remove, run_open,
    },
    bytes::{
        Hello, Post, acknowledge, auth, disconnect, packet, property, puback, suback, subscribe,
        subscribe_with, text, unsuback, unsubscribe,
    },
    site::{Site, run, run_on},
    wire::Wire,
};

/// The series of tokens that open nothing have this word for any that is of nobody known here.
const UNKNOWN: &str = "unknown_reader";
const REFUSED: &str = "its token is refused";
const MAY_NOT: &str = "asks for what it may not";
const TAKEN_OVER: &str = "taken over by a newer connection";
const REMOVED: &str = "its reader was removed";

#[track_caller]
fn is_refused(site: &mut Site, hello: &Hello, reason: u8, why: &str) {
    site.stranger(&hello.bytes(), reason, why);
}

#[test]
fn case_89_readers_are_let_in_only_where_they_are_turned_on() {
    run(|site| {
        let siem = add(site, "siem", &[]);
        let no = "a user name or password";
        is_refused(site, &siem.hello(), 0x86, no);
        let mut wire = site.dial();
        wire.send(&older(siem.hello()).bytes());
        wire.ends(&older_connack(1));
        site.ended(0x84, "not MQTT 5");
    });
    // One kind being turned on turns on no other.
    let terms = BrokerTerms {
        flags: &["--allow-readers"],
        ..BrokerTerms::default()
    };
    run_on(terms, |site| {
        let load = add(site, "load", &["--bench"]);
        is_refused(site, &load.hello(), 0x87, REFUSED);
        site.token("reader_off");
    });
}

#[test]
fn case_90_every_token_that_opens_nothing_gets_one_answer() {
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let other = add(site, "other", &[]);
        let gone = add(site, "gone", &[]);
        remove(site, "gone");
        let mut changed = siem.token.clone();
        let last = if changed.ends_with('a') { "b" } else { "a" };
        changed.replace_range(changed.len() - 1.., last);
        let long = "x".repeat(3_000);
        let bad = ["", "wrong", &changed, &siem.token[..66], &gone.token, &long];
        for password in bad {
            let hello = hello_of("siem", "siem", password);
            is_refused(site, &hello, 0x87, REFUSED);
            site.token(UNKNOWN);
            let mut wire = site.dial();
            wire.send(&older(hello).bytes());
            wire.ends(&older_connack(5));
            site.ended(0x87, REFUSED);
            site.token(UNKNOWN);
        }
        let foreign = "another reader's token";
        for user in ["siem", "nobody", ""] {
            let hello = hello_of("siem", user, &other.token);
            is_refused(site, &hello, 0x87, foreign);
        }
        // Half of what is needed.
        for (flags, rest) in [(0x82, "siem"), (0x42, siem.token.as_str())] {
            let hello = Hello {
                flags,
                rest: text(rest),
                ..siem.hello()
            };
            is_refused(site, &hello, 0x86, "a user name or password");
        }
        online(site, &siem.hello()).0.lives();
    });
}

#[test]
fn case_91_a_readers_client_id_is_its_own() {
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let host = site.host();
        let mut operator = site.online(&host);
        for id in [host.subject.as_str(), "other", "siemx", "siem/", "SIEM"] {
            let hello = hello_of(id, "siem", &siem.token);
            is_refused(site, &hello, 0x85, "its client id is not its own");
        }
        let long = format!("siem/{}", "x".repeat(124));
        for id in ["siem/#", "siem/+", "$siem", "siem/a b", "siem/é", &long] {
            let hello = hello_of(id, "siem", &siem.token);
            is_refused(site, &hello, 0x85, "not a client id for a reader");
        }
        let nameless = siem.again("");
        is_refused(site, &nameless, 0x85, "not a client id for a reader");
        operator.lives();
    });
}

#[test]
fn case_92_a_reader_has_one_method_and_shows_its_token_once() {
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let both = siem.hello().with(property(0x15, "ace"));
        is_refused(site, &both, 0x8C, "a password and another method");
        for reason in [0x18, 0x19] {
            let (mut wire, _) = online(site, &siem.hello());
            wire.send(&auth(reason, &[0; 8]));
            wire.ends(&disconnect(0x82));
            site.ended(0x82, "AUTH without a method");
        }
        let mut will = siem.hello().with_will(0, &[], "v1/edge-b/reports");
        will.rest = [will.rest, text("siem"), text(&siem.token)].concat();
        is_refused(site, &will, 0x87, "a will");
    });
}

#[test]
fn case_93_a_session_is_kept_no_longer_than_a_week() {
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let forever = siem.hello().with(vec![0x11, 0xFF, 0xFF, 0xFF, 0xFF]);
        let mut wire = site.dial();
        wire.send(&forever.bytes());
        let answer = wire.packet();
        let week = [&[0x11], 604_800_u32.to_be_bytes().as_slice()].concat();
        assert!(answer[3] == 0 && answer.windows(5).any(|part| part == week));
    });
}

#[test]
fn case_94_a_reader_publishes_nothing() {
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let who = site.sandbox();
        let (mut wire, _) = online(site, &siem.hello());
        let topics = [who.topic(), who.commands(), "bench/a".to_owned()];
        for (id, topic) in (1..).zip(&topics[..2]) {
            let post = Post::new(topic, id, b"not its own");
            wire.says(&post.bytes(), &puback(id, 0x87));
            site.packets(0x87, 1);
        }
        wire.send(&Post::new(&topics[2], 3, b"not its own").bytes());
        wire.ends(&disconnect(0x87));
        site.ended(0x87, MAY_NOT);
        let (mut wire, _) = online(site, &siem.hello());
        wire.send(&Post::quiet(&topics[0], b"not its own").bytes());
        wire.ends(&disconnect(0x87));
        site.ended(0x87, MAY_NOT);
        // Over MQTT 3.1.1 a PUBACK would mean that it was taken.
        let (mut wire, _) = online(site, &older(siem.hello()));
        let body = [text(&topics[0]), vec![0, 1], b"not its own".to_vec()];
        wire.send(&packet(0x32, &body.concat()));
        wire.ends(&[]);
        site.ended(0x87, MAY_NOT);
    });
}

#[test]
fn case_95_a_reader_hears_what_its_token_opens_and_no_more() {
    const FILTERS: [&str; 8] = [
        "#",
        "v1/#",
        "v1/+/commands",
        "v1/+/+/events",
        "v1/edge-a/reports",
        "bench/#",
        "$share/g/v1/edge-b/+/events",
        "v1/edge-b/+/events",
    ];
    const CODES: [u8; 8] = [0x87, 0x87, 0x87, 0x87, 0x87, 0x87, 0x9E, 1];
    run_open(|site| {
        let siem = add(site, "siem", &["--host", "edge-b"]);
        let (mut wire, _) = online(site, &siem.hello());
        wire.says(&subscribe(1, &FILTERS), &suback(1, &CODES));
        site.packets(0x87, 1);
        wire.says(&subscribe(2, &FILTERS), &suback(2, &CODES));
        site.packets(0x87, 1);
        wire.send(&subscribe(3, &FILTERS));
        wire.ends(&disconnect(0x87));
        site.ended(0x87, MAY_NOT);
        // MQTT 3.1.1 has one code for all of them.
        let (mut wire, _) = online(site, &older(siem.hello()));
        let filters = FILTERS.map(|filter| [text(filter), vec![1]].concat());
        wire.send(&packet(0x82, &[vec![0, 1], filters.concat()].concat()));
        let codes = CODES.map(|code| if code < 0x80 { code } else { 0x80 });
        wire.expect(&packet(0x90, &[&[0, 1], codes.as_slice()].concat()));
        site.packets(0x87, 1);
    });
}

#[test]
fn case_96_a_reader_has_so_many_filters_and_no_more() {
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let (mut wire, _) = online(site, &siem.hello());
        let filters: Vec<_> = (0..64).map(|n| format!("v1/h{n}/+/events")).collect();
        for (id, eight) in (1..).zip(filters.chunks(8)) {
            let eight: Vec<_> = eight.iter().map(String::as_str).collect();
            wire.says(&subscribe(id, &eight), &suback(id, &[1; 8]));
        }
        wire.says(&subscribe(9, &["v1/+/reports"]), &suback(9, &[0x97]));
        site.packets(0x97, 1);
        // What it has it may have again.
        wire.says(&subscribe(10, &["v1/h0/+/events"]), &suback(10, &[1]));
        wire.says(&unsubscribe(11, &["v1/h1/+/events"]), &unsuback(11, &[0]));
        wire.says(&subscribe(12, &["v1/+/reports"]), &suback(12, &[1]));
        // Of one packet the ninth is not looked at.
        let (mut wire, _) = online(site, &siem.hello());
        let nine: Vec<_> = filters[..9].iter().map(String::as_str).collect();
        let codes = [[1; 8].as_slice(), &[0x97]].concat();
        wire.says(&subscribe(1, &nine), &suback(1, &codes));
        site.packets(0x97, 1);
        site.ended(0x8E, TAKEN_OVER);
    });
}

#[test]
fn case_97_a_beginning_that_is_none_is_refused_and_one_to_come_is_now() {
    run_open(|site| {
        let load = add(site, "load", &["--bench"]);
        let (mut source, _) = online(site, &hello_of("source", "load", &load.token));
        publish(&mut source, "bench/a", &[b"before"]);
        let (mut wire, _) = online(site, &load.hello());
        let from = |value: &str| [vec![0x26], text("from"), text(value)].concat();
        for (id, value) in (1..).zip(["yesterday", "-1", "", "18446744073709551616", "1e3"]) {
            let asked = subscribe_with(id, &[from(value)], &[("bench/#", 1)]);
            wire.says(&asked, &suback(id, &[0x83]));
            site.packets(0x83, 1);
        }
        let asked = subscribe_with(9, &[from(&u64::MAX.to_string())], &[("bench/#", 1)]);
        wire.says(&asked, &suback(9, &[1]));
        publish(&mut source, "bench/a", &[b"after"]);
        message(&mut wire, b"after");
    });
}

#[test]
fn case_98_a_reader_that_takes_nothing_costs_nothing_and_misses_nothing() {
    const MESSAGES: u16 = 600;
    const MESSAGE_BYTES: usize = 60 << 10;
    /// What fills at once, so that the broker has to hold back.
    const SOCKET_BYTES: usize = 4 << 10;
    run_open(|site| {
        let load = add(site, "load", &["--bench"]);
        let (mut source, _) = online(site, &hello_of("source", "load", &load.token));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(SOCKET_BYTES).unwrap();
        let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, site.world.port));
        socket.connect(&broker.into()).unwrap();
        let mut deaf = Wire::over(socket.into(), site.config()).unwrap();
        deaf.send(&load.again("deaf").bytes());
        assert_eq!(deaf.packet()[3], 0);
        deaf.says(&subscribe(1, &["bench/#"]), &suback(1, &[1]));
        let payload = |number: u16| [&number.to_be_bytes(), [7; MESSAGE_BYTES].as_slice()].concat();
        for number in 1..=MESSAGES {
            let post = Post::new("bench/a", number, &payload(number));
            source.says(&post.bytes(), &puback(number, 0));
        }
        site.is_well();
        let why = "the client takes no bytes";
        let ended =
            format!("outhaul_gate_connections_ended_total{{reason=\"none\",why=\"{why}\"}}");
        wait::until("it to be given up", || {
            (site.counted(&ended) == 1).then_some(())
        });
        site.closed(why, 1);
        let (mut again, is_resumed) = online(site, &load.again("deaf"));
        assert!(is_resumed, "its place was kept");
        for number in 1..=MESSAGES {
            let id = message(&mut again, &payload(number));
            again.send(&acknowledge(4, id));
        }
        again.lives();
    });
}

#[test]
fn case_99_a_readers_window_and_its_quality_are_kept() {
    run_open(|site| {
        let load = add(site, "load", &["--bench"]);
        let (mut source, _) = online(site, &hello_of("source", "load", &load.token));
        let narrow = load.hello().with(vec![0x21, 0, 1]);
        let (mut wire, _) = online(site, &narrow);
        wire.says(&subscribe_with(1, &[], &[("bench/#", 2)]), &suback(1, &[1]));
        publish(&mut source, "bench/a", &[b"1", b"2", b"3"]);
        for payload in [b"1", b"2", b"3"] {
            let id = message(&mut wire, payload);
            wire.lives();
            wire.send(&acknowledge(4, id));
        }
        // Messages at QoS 0 and 1 are published, of QoS 2 none.
        source.send(&Post::new("bench/a", 4, b"4").flagged(4).bytes());
        source.ends(&disconnect(0x9B));
        site.ended(0x9B, "QoS 2");
    });
}

#[test]
fn case_100_what_is_unsubscribed_comes_no_more() {
    run_open(|site| {
        let load = add(site, "load", &["--bench"]);
        let (mut source, _) = online(site, &hello_of("source", "load", &load.token));
        let (mut wire, _) = online(site, &load.hello());
        let both = ["bench/a/+", "bench/b/+"];
        wire.says(&subscribe(1, &both), &suback(1, &[1, 1]));
        let asked = ["bench/a/+", "bench/a/+", "bench/c", "#", "$share/g/x"];
        wire.says(
            &unsubscribe(2, &asked),
            &unsuback(2, &[0, 0x11, 0x11, 0x11, 0x11]),
        );
        publish(&mut source, "bench/a/1", &[b"no"]);
        publish(&mut source, "bench/b/1", &[b"yes"]);
        let id = message(&mut wire, b"yes");
        wire.send(&acknowledge(4, id));
        wire.says(&unsubscribe(3, &["bench/b/+"]), &unsuback(3, &[0]));
        publish(&mut source, "bench/b/1", &[b"no more"]);
        wire.lives();
        // Who comes back after that begins anew.
        wire.says(&subscribe(4, &["bench/b/+"]), &suback(4, &[1]));
        publish(&mut source, "bench/b/1", &[b"again"]);
        message(&mut wire, b"again");
    });
}

#[test]
fn case_101_a_session_that_is_taken_over_goes_on_where_it_was() {
    run_open(|site| {
        let load = add(site, "load", &["--bench"]);
        let (mut source, _) = online(site, &hello_of("source", "load", &load.token));
        let (mut old, _) = online(site, &load.again("one"));
        old.says(&subscribe(1, &["bench/#"]), &suback(1, &[1]));
        publish(&mut source, "bench/a", &[b"1", b"2", b"3"]);
        let first = message(&mut old, b"1");
        message(&mut old, b"2");
        message(&mut old, b"3");
        old.send(&acknowledge(4, first));
        old.lives();
        let (mut new, is_resumed) = online(site, &load.again("one"));
        assert!(is_resumed);
        old.ends(&disconnect(0x8E));
        site.ended(0x8E, TAKEN_OVER);
        for payload in [b"2", b"3"] {
            let publish = new.packet();
            assert!(publish[0] == 0x3A && publish.ends_with(payload), "a repeat");
        }
        publish(&mut source, "bench/a", &[b"4"]);
        message(&mut new, b"4");
    });
}

#[test]
fn case_102_a_session_does_not_outlive_its_readers_rights() {
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let (mut wire, _) = online(site, &siem.again("siem"));
        wire.says(&subscribe(1, &["v1/+/+/events"]), &suback(1, &[1]));
        remove(site, "siem");
        wire.ends(&disconnect(0x98));
        site.ended(0x98, REMOVED);
        let narrow = add(site, "siem", &["--host", "edge-b"]);
        is_refused(site, &siem.again("siem"), 0x87, REFUSED);
        site.token(UNKNOWN);
        let (mut wire, is_resumed) = online(site, &narrow.again("siem"));
        assert!(!is_resumed, "another reader of the same name");
        // Nothing of the bystander's host, which the other heard.
        site.is_well();
        wire.lives();
        wire.says(&unsubscribe(1, &["v1/+/+/events"]), &unsuback(1, &[0x11]));
    });
}

#[test]
fn case_103_without_a_keep_alive_an_older_client_stays() {
    run_open(|site| {
        let load = add(site, "load", &["--bench"]);
        let kept = |id: &str, keep_alive| Hello {
            keep_alive,
            ..older(hello_of(id, "load", &load.token))
        };
        let (mut patient, _) = online(site, &kept("patient", 0));
        let (brief, _) = online(site, &kept("brief", 1));
        brief.ends(&[]);
        site.ended(0x8D, "fell silent");
        patient.lives();
    });
}

#[test]
fn case_104_a_load_test_stays_below_bench() {
    run_open(|site| {
        let load = add(site, "load", &["--bench"]);
        let who = site.sandbox();
        let levels = format!("bench/{}", "a/".repeat(300));
        let nine = "bench/1/2/3/4/5/6/7/8";
        let none = "not a topic name";
        for (topic, why) in [
            ("bench/a+", "not a packet"),
            ("bench/#", "not a packet"),
            ("bench/é", none),
            (&levels, none),
            (nine, none),
        ] {
            let (mut wire, _) = online(site, &load.hello());
            wire.send(&Post::new(topic, 1, b"x").bytes());
            wire.ends(&disconnect(0x90));
            site.ended(0x90, why);
        }
        let (events, commands) = (who.topic(), who.commands());
        let foreign = [
            "bench",
            "bench/",
            "bench//a",
            "benches/a",
            "Bench/a",
            "/bench/a",
            "bench/$a",
            "$SYS/bench/a",
            &events,
            &commands,
        ];
        for topic in foreign {
            let (mut wire, _) = online(site, &load.hello());
            let post = Post::new(topic, 1, b"x");
            wire.says(&post.bytes(), &puback(1, 0x87));
            site.packets(0x87, 1);
            wire.says(&subscribe(2, &[topic]), &suback(2, &[0x87]));
            site.packets(0x87, 1);
            wire.send(&subscribe(3, &["#", "+/a", "v1/+/+/events", &levels]));
            wire.ends(&disconnect(0x87));
            site.ended(0x87, MAY_NOT);
        }
        let (mut wire, _) = online(site, &load.hello());
        wire.says(&subscribe(1, &["$share/g/bench/#"]), &suback(1, &[0x9E]));
        site.packets(0x9E, 1);
    });
}

#[test]
fn case_105_load_tests_evict_only_their_own_clients() {
    run_open(|site| {
        let [one, two] = ["one", "two"].map(|name| add(site, name, &["--bench"]));
        let hello = |reader: &Reader| hello_of("client", &reader.name, &reader.token);
        let (mut first, _) = online(site, &hello(&one));
        let (mut other, _) = online(site, &hello(&two));
        first.lives();
        let (mut second, _) = online(site, &hello(&one));
        first.ends(&disconnect(0x8E));
        site.ended(0x8E, TAKEN_OVER);
        other.lives();
        second.lives();
        // A host's name is no name of theirs: whoever calls itself so is still a load test.
        let host = site.host();
        let mut operator = site.subscribed(&host.hello());
        let (mut same, _) = online(site, &hello_of(&host.subject, "one", &one.token));
        operator.lives();
        let reports = host.topic();
        same.says(&Post::new(&reports, 1, b"x").bytes(), &puback(1, 0x87));
        site.packets(0x87, 1);
    });
}

#[test]
fn case_107_a_token_that_leaked_opens_so_many_connections_and_no_more() {
    const CONNECTIONS_MAX: usize = 64;
    run_open(|site| {
        let siem = add(site, "siem", &[]);
        let of = |number: usize| hello_of(&format!("siem/{number}"), "siem", &siem.token);
        let mut wires: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|number| online(site, &of(number)).0)
            .collect();
        let full = "as many of its kind are connected as may be";
        is_refused(site, &of(CONNECTIONS_MAX), 0x97, full);
        let mut older_one = site.dial();
        older_one.send(&older(of(CONNECTIONS_MAX)).bytes());
        older_one.ends(&older_connack(3));
        site.ended(0x97, full);
        // Others have their own, and one of its own may come again.
        let load = add(site, "load", &["--bench"]);
        online(site, &load.hello()).0.lives();
        let (mut again, _) = online(site, &of(0));
        wires.swap_remove(0).ends(&disconnect(0x8E));
        site.ended(0x8E, TAKEN_OVER);
        again.lives();
        // One that went has made room.
        let mut gone = wires.pop().unwrap();
        gone.send(&[0xE0, 0]);
        gone.ends(&[]);
        let freed = wait::until("its seat to be free", || {
            let mut wire = site.dial();
            wire.send(&of(CONNECTIONS_MAX).bytes());
            let code = wire.packet()[3];
            (code == 0).then_some(wire)
        });
        drop(freed);
        // Told no, now and then, before that.
        let series =
            format!("outhaul_gate_connections_ended_total{{reason=\"0x97\",why=\"{full}\"}}");
        site.counts(&series, 0, 100);
    });
}
