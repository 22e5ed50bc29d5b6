//! Cases from 81: those that came to mind while the others were written.

use std::{sync::Arc, time::Duration};

use protocol::key::Host;
use tests::{client::tls_config, local, wait};

use crate::{
    bytes::{
        Hello, Post, acknowledge, auth, connack, disconnect, packet, property, puback, section,
        subscribe, text, user_properties,
    },
    site::{HOST, nonce_of, run},
    wire::{Came, Wire},
};

const NOT_A_PACKET: &str = "not a packet";

#[test]
fn case_81_a_flood_of_renewals_is_one_renewal_at_a_time() {
    run(|site| {
        let who = site.sandbox();
        let begin = auth(0x19, &text(&who.token));
        let mut wire = site.online(&who);
        wire.send(&begin);
        assert!(nonce_of(&wire.packet()).is_some());
        wire.send(&begin);
        wire.ends(&disconnect(0x82));
        site.ended(0x82, "a step of authentication out of turn");
        // A proof that nobody asked for, a token that is none, and one of somebody else.
        let out_of_turn = "a step of authentication out of turn";
        site.sandbox_is_ended(&auth(0x18, &[7; 72]), 0x82, out_of_turn);
        let rubbish = auth(0x19, &text("rubbish"));
        site.sandbox_is_ended(&rubbish, 0x87, "its new token is refused");
        site.token("malformed");
        let other = site.sandbox();
        let others = auth(0x19, &text(&other.token));
        site.sandbox_is_ended(&others, 0x87, "its new token names somebody else");
        // One that is begun and never finished.
        let mut wire = site.online(&who);
        wire.send(&begin);
        assert!(nonce_of(&wire.packet()).is_some());
        let ((), took) = wait::timed(|| wire.ends(&disconnect(0x87)));
        assert!(took < Duration::from_secs(8), "{took:?}");
        site.ended(0x87, "did not finish its renewal");
        // A renewal finished two hundred times over is only work of its own.
        let mut wire = site.online(&who);
        for _ in 0..200 {
            wire.send(&begin);
            let nonce = nonce_of(&wire.packet()).unwrap();
            let proof = protocol::possession::prove(&who.key::<Host>(), &nonce, &[8; 8]);
            wire.send(&auth(0x18, &proof));
            assert_eq!(wire.packet()[2], 0);
        }
        wire.lives();
    });
}

#[test]
fn case_82_a_packet_identifier_in_use_is_a_protocol_error() {
    run(|site| {
        let who = site.sandbox();
        let post = Post::new(who.topic(), 7, b"x").bytes();
        // In one record, so that the first is not answered before the second is read.
        site.is_ended(
            &who,
            &post.repeat(2),
            0x82,
            "a packet identifier that is in use",
        );
        // Once it is answered it is free.
        let mut wire = site.online(&who);
        for _ in 0..3 {
            wire.says(&post, &puback(7, 0x99));
        }
        site.packets(0x99, 3);
    });
}

#[test]
fn case_83_eight_user_properties_are_the_most_in_every_packet() {
    run(|site| {
        let who = site.sandbox();
        let post = |count| {
            let mut post = Post::new(who.topic(), 1, b"x");
            post.properties = user_properties(count);
            post.bytes()
        };
        let subscribe =
            |count| crate::bytes::subscribe_with(1, &user_properties(count), &[("a", 1)]);
        let puback = |count| {
            let properties = section(&user_properties(count));
            packet(0x40, &[[0, 1, 0].as_slice(), &properties].concat())
        };
        let goodbye = |count| {
            let properties = section(&user_properties(count));
            packet(0xE0, &[[0].as_slice(), &properties].concat())
        };
        let mut wire = site.online(&who);
        wire.says(&post(8), &crate::bytes::puback(1, 0x99));
        site.packets(0x99, 1);
        wire.says(&subscribe(8), &crate::bytes::suback(1, &[0x87]));
        site.packets(0x87, 1);
        wire.send(&puback(8));
        wire.lives();
        wire.send(&goodbye(8));
        wire.ends(&[]);
        for bytes in [post(9), subscribe(9), puback(9), goodbye(9)] {
            site.sandbox_is_ended(&bytes, 0x95, NOT_A_PACKET);
        }
    });
}

#[test]
fn case_84_a_packet_of_64_kib_is_taken_and_one_byte_more_is_not() {
    run(|site| {
        let who = site.sandbox();
        let empty = Post::new(who.topic(), 1, b"").bytes().len();
        // Its length then takes two bytes more than that of an empty one.
        let filled = |total: usize| {
            let payload = vec![0; total - empty - 2];
            Post::new(who.topic(), 1, &payload).bytes()
        };
        let largest = filled(64 * 1024);
        assert_eq!(largest.len(), 65_536);
        let mut wire = site.online(&who);
        wire.says(&largest, &puback(1, 0x99));
        site.packets(0x99, 1);
        wire.lives();
        site.sandbox_is_ended(&filled(64 * 1024 + 1), 0x95, NOT_A_PACKET);
        // Before the proof it is four kilobytes.
        let who = site.sandbox();
        let hello = |total: usize| {
            let hello = who.hello();
            let filler = total - hello.bytes().len() - 5;
            hello.with([vec![0x26], text("a"), text(vec![b'x'; filler - 1])].concat())
        };
        let bound = hello(4_096).bytes();
        let bound = &hello(4_096 + 4_096 - bound.len());
        assert_eq!(bound.bytes().len(), 4_096);
        site.online_with(bound, &who).lives();
        let mut past = bound.clone();
        past.properties.push(property(0x26, ""));
        site.stranger(&past.bytes(), 0x95, NOT_A_PACKET);
    });
}

#[test]
fn case_85_who_hangs_up_before_the_proof_was_never_here() {
    run(|site| {
        let who = site.sandbox();
        let mut wire = site.dial();
        wire.send(&who.hello().bytes());
        assert!(nonce_of(&wire.packet()).is_some());
        wire.finish();
        wire.ends(&[]);
        // The same in the middle of its proof.
        let mut wire = site.dial();
        wire.send(&who.hello().bytes());
        let nonce = nonce_of(&wire.packet()).unwrap();
        let proof = protocol::possession::prove(&who.key::<Host>(), &nonce, &[7; 8]);
        let step = auth(0x18, &proof);
        wire.send(&step[..step.len() - 1]);
        wire.finish();
        wire.ends(&[]);
        wait::until("both to be counted", || {
            let why = "the client closed the connection";
            let series =
                format!("outhaul_gate_connections_ended_total{{reason=\"none\",why=\"{why}\"}}");
            (site.counted(&series) == 2).then_some(())
        });
        assert_eq!(site.counted("outhaul_gate_admitted_total"), 0);
    });
}

#[test]
fn case_86_nothing_is_taken_before_its_sender_was_let_in() {
    run(|site| {
        let who = site.sandbox();
        let post = Post::new(who.topic(), 1, &who.batch()).bytes();
        for early in [
            post,
            subscribe(1, &[&who.topic()]),
            vec![0xC0, 0],
            acknowledge(4, 1),
            who.hello().bytes(),
        ] {
            let mut wire = site.dial();
            wire.send(&[who.hello().bytes(), early].concat());
            assert!(
                nonce_of(&wire.packet()).is_some(),
                "the challenge comes first"
            );
            wire.ends(&connack(0x82));
            site.ended(0x82, "a packet out of turn");
        }
        // A guess at the proof, before the challenge is known.
        let mut wire = site.dial();
        wire.send(&[who.hello().bytes(), auth(0x18, &[7; 72])].concat());
        assert!(nonce_of(&wire.packet()).is_some());
        wire.ends(&connack(0x87));
        site.ended(0x87, "did not prove that it holds its token's key");
        assert!(
            local::records(&site.world.socket(), HOST)
                .unwrap()
                .is_empty()
        );
    });
}

#[test]
fn case_87_a_connection_that_is_cut_leaves_nothing() {
    run(|site| {
        let who = site.sandbox();
        for _ in 0..3 {
            let wire = site.online(&who);
            wire.cut();
        }
        wait::until("it to be gone", || {
            let online = site.counted("outhaul_gate_admitted_total");
            (online == 3 && site.counted("outhaul_gate_left_total") == 3).then_some(())
        });
        // Cut while it was being let in, the older one may be told that it is taken over.
        for (reason, why) in [
            ("none", "reading failed"),
            ("0x8E", "taken over by a newer connection"),
        ] {
            let series = format!(
                "outhaul_gate_connections_ended_total{{reason=\"{reason}\",why=\"{why}\"}}"
            );
            site.counts(&series, 0, 3);
        }
    });
}

/// What the port answers to HTTP as it is.
fn web(site: &crate::site::Site, request: &[u8]) -> String {
    let config = Arc::new(tls_config(&site.ca(), &[b"http/1.1"]).unwrap());
    let mut wire = Wire::over(site.tcp(), config).unwrap();
    wire.send(request);
    while wire.look(Duration::from_secs(20)) == Came::Bytes {}
    String::from_utf8_lossy(wire.unread()).into_owned()
}

#[test]
fn case_88_a_request_is_one_request_and_has_one_answer() {
    run(|site| {
        let smuggled = "GET /v1/hosts HTTP/1.1\r\nHost: x\r\n\r\n";
        let post = "POST /v1/exchange/challenge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let length = smuggled.len();
        for head in [
            "Content-Length: 4\r\nContent-Length: 5\r\n".to_owned(),
            "Transfer-Encoding: chunked, identity\r\n".to_owned(),
            "Transfer-Encoding: xchunked\r\n".to_owned(),
            "Content-Length: +4\r\n".to_owned(),
            "Content-Length: 18446744073709551616\r\n".to_owned(),
            format!("Content-Length: {length}\r\nBad Header: x\r\n"),
        ] {
            let answer = web(site, format!("{post}{head}\r\n{smuggled}").as_bytes());
            assert!(answer.starts_with("HTTP/1.1 4"), "{head}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{head}: {answer}");
        }
        // Both lengths: chunks win, what is behind them is another request, and it finds nothing.
        let both = format!(
            "POST /v1/exchange/challenge HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        );
        let answer = web(site, both.as_bytes());
        assert!(!answer.contains("edge-"), "{answer}");
        // Heads that are too long or too many, and chunks of a size that no body has.
        let many = "A: b\r\n".repeat(1_000);
        let long = format!("A: {}\r\n", "b".repeat(64 * 1024));
        for (head, is_cut) in [(many, false), (long, true)] {
            let answer = web(site, format!("{post}{head}\r\n").as_bytes());
            // What is closed before it was read whole is reset, which may overtake the answer.
            let is_refused = answer.starts_with("HTTP/1.1 431") || (is_cut && answer.is_empty());
            assert!(is_refused, "{answer}");
        }
        let post = "POST /v1/exchange HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
        let chunk = format!("{post}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n");
        let answer = web(site, chunk.as_bytes());
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
        // What the command line may ask is not to be had here.
        for path in [
            "/v1/hosts",
            "/v1/metrics",
            "/v1/audit",
            "/../v1/status",
            "/v1//status",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            let answer = web(site, request.as_bytes());
            assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        }
        // MQTT where HTTP was agreed, and HTTP where MQTT was.
        let hello: Hello = site.sandbox().hello();
        let answer = web(site, &hello.bytes());
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
        let mut wire = site.dial();
        wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        wire.ends(&[]);
        site.closed("not MQTT", 1);
    });
}
