//! Cases 1 to 11: TCP, TLS, and what comes before a CONNECT.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustls::{AlertDescription, ClientConnection, pki_types::ServerName};
use socket2::{Domain, Socket, Type};
use tests::{client::tls_config, wait, world::BrokerTerms};

use crate::{
    bytes::Post,
    site::{Site, run, run_on},
    wire::{Came, Wire, plain_ends},
};

/// What a stranger has in all: five seconds, and what a busy machine adds.
const STRANGER_WAIT_MAX: Duration = Duration::from_secs(8);
/// How slowly a slow client writes. Slower than that it would only be silent.
const DRIBBLE: Duration = Duration::from_millis(300);
/// Slow clients at once: fewer than the strangers one address may be.
const SLOW_CLIENTS: usize = 32;

const SILENT: &str = "outhaul_gate_tcp_silent_total";
const TLS_FAILED: &str = "outhaul_gate_tls_failed_total";
const UNKNOWN: &str = "outhaul_gate_speech_unknown_total";
const ACCEPTED: &str = "outhaul_gate_tcp_accepted_total";
const CROWDED: &str = "outhaul_gate_tcp_crowded_total";
const ACCEPT_FAILED: &str = "outhaul_gate_tcp_accept_failures_total";

/// A connection from another address of this machine.
fn from(address: Ipv4Addr, port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.connect(&peer.into()).unwrap();
    socket.into()
}

/// A ClientHello as TLS itself would send it.
fn client_hello(site: &Site) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut tls = ClientConnection::new(site.config(), name).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    hello
}

/// Whether the other side has ended, waiting as long as a slow client does between two bytes.
fn has_ended(mut tcp: &TcpStream, wait: Duration) -> bool {
    tcp.set_read_timeout(Some(wait)).unwrap();
    let mut byte = [0];
    match tcp.read(&mut byte) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// The same, without waiting.
fn has_ended_by_now(mut tcp: &TcpStream) -> bool {
    tcp.set_nonblocking(true).unwrap();
    let read = tcp.read(&mut [0]);
    tcp.set_nonblocking(false).unwrap();
    !matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

#[test]
fn case_01_a_client_that_says_nothing_is_sent_away_and_holds_nobody_up() {
    run(|site| {
        let silent: Vec<_> = (0..300).map(|_| site.tcp()).collect();
        let who = site.sandbox();
        site.online(&who).lives();
        site.is_well();
        let ((), took) = wait::timed(|| silent.iter().for_each(|tcp| plain_ends(tcp, &[])));
        assert!(took < STRANGER_WAIT_MAX, "{took:?}");
        site.counts(SILENT, 300, 300);
    });
}

#[test]
fn case_02_a_dribbled_client_hello_ends_at_one_deadline() {
    run(|site| {
        let hello = client_hello(site);
        let slow: Vec<_> = (0..SLOW_CLIENTS).map(|_| site.tcp()).collect();
        let mut next = hello.iter();
        let ((), took) = wait::timed(|| {
            // Every one of them writes a byte now and then, until the first is sent away.
            while !has_ended(&slow[0], DRIBBLE) {
                let byte = next.next().unwrap();
                for mut tcp in &slow {
                    let _ = tcp.write_all(&[*byte]);
                }
                site.is_well();
            }
        });
        assert!(took < STRANGER_WAIT_MAX, "{took:?}");
        for tcp in &slow[1..] {
            assert!(has_ended(tcp, STRANGER_WAIT_MAX));
        }
        site.counts(TLS_FAILED, 32, 32);
    });
}

#[test]
fn case_03_a_dribbled_connect_ends_at_one_deadline() {
    run(|site| {
        let who = site.sandbox();
        let connect = who.hello().bytes();
        let mut slow: Vec<_> = (0..SLOW_CLIENTS).map(|_| site.dial()).collect();
        let mut next = connect.iter();
        let ((), took) = wait::timed(|| {
            while slow[0].look(DRIBBLE) != Came::End {
                let byte = next.next().unwrap();
                slow.iter_mut().for_each(|wire| wire.send(&[*byte]));
                site.is_well();
            }
        });
        assert!(took < STRANGER_WAIT_MAX, "{took:?}");
        slow.drain(1..).for_each(|wire| wire.ends(&[]));
        site.closed("did not prove itself in time", 32);
    });
}

#[test]
fn case_04_what_is_neither_mqtt_nor_http_gets_no_answer() {
    run(|site| {
        for bytes in [
            b"\x00\x00\x00\x00".as_slice(),
            b"SSH-2.0-x\r\n",
            b"\xFF\xFE\xFD\xFC",
        ] {
            let mut wire = site.dial();
            wire.send(bytes);
            wire.ends(&[]);
            site.closed("not MQTT", 1);
        }
        // Without ALPN the first byte decides; a letter would be HTTP.
        let config = Arc::new(tls_config(&site.ca(), &[]).unwrap());
        for bytes in [b"\x00\x00".as_slice(), b"\x30\x02", b"\x16\x03\x01"] {
            let mut wire = Wire::over(site.tcp(), Arc::clone(&config)).unwrap();
            wire.send(bytes);
            wire.ends(&[]);
            site.counts(UNKNOWN, 1, 1);
        }
        // Plain text where TLS should be: an alert, and the end.
        let mut tcp = site.tcp();
        tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 21, "an alert at most");
        site.counts(TLS_FAILED, 1, 1);
    });
}

#[test]
fn case_05_a_first_packet_that_is_no_connect_gets_no_answer_and_no_memory() {
    run(|site| {
        for first in [0x30, 0x32, 0x82, 0xA2, 0xC0, 0xE0, 0xF0] {
            let mut wire = site.dial();
            wire.send(&[first, 0xFF, 0xFF, 0xFF, 0x7F]);
            wire.ends(&[]);
            site.closed("not MQTT", 1);
        }
        let mut wire = site.dial();
        wire.send(&Post::new("v1/edge-b/reports", 1, b"too early").bytes());
        wire.ends(&[]);
        site.closed("the first packet is not CONNECT", 1);
        site.memory_growth_max = 2 << 20;
    });
}

#[test]
fn case_06_a_length_of_five_bytes_is_malformed() {
    run(|site| site.stranger(&[0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], 0x81, "not a packet"));
}

#[test]
fn case_07_a_connect_of_268_megabytes_is_refused_by_its_header() {
    run(|site| {
        for _ in 0..50 {
            site.stranger(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F], 0x95, "not a packet");
        }
        // One past what a stranger may send, and the most that it may.
        site.stranger(&[0x10, 0xFE, 0x1F], 0x95, "not a packet");
        let mut wire = site.dial();
        wire.send(&[0x10, 0xFD, 0x1F]);
        assert_eq!(wire.look(DRIBBLE), Came::Nothing, "it waits for the rest");
        drop(wire);
        site.memory_growth_max = 4 << 20;
    });
}

// The gate delays an address past its share; it refuses only past 2,048 connections, which is more than one host hides.
#[test]
fn case_08_a_flood_from_one_address_waits_and_others_do_not() {
    const FLOOD: usize = 10_000;
    /// Who may wait of one address.
    const WAITING_MAX: u64 = 2_048;
    /// Connections between two looks at which of them were closed.
    const AT_ONCE: usize = 250;
    /// Handshakes that are begun and not gone on with: as many as one address has room for.
    const BEGUN: u64 = 64;
    /// Who waits at the door has a task, of 15 KB in a build that is not optimised.
    const VISITOR_BYTES_MAX: u64 = 24 << 10;
    run(|site| {
        let (crowd, patient) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
        let mut held = Vec::new();
        for _ in 0..FLOOD / AT_ONCE {
            held.extend((0..AT_ONCE).map(|_| from(crowd, site.world.port)));
            held.retain(|tcp| !has_ended_by_now(tcp));
            assert!(site.counted_less(ACCEPTED, &[SILENT, CROWDED]) <= WAITING_MAX);
        }
        site.is_well();
        let who = site.sandbox();
        site.online(&who).lives();
        held.iter().for_each(|tcp| plain_ends(tcp, &[]));
        drop(held);
        wait::until("the flood to be counted", || {
            (site.counted(SILENT) + site.counted(CROWDED) == FLOOD as u64).then_some(())
        });
        site.counts(SILENT, WAITING_MAX, FLOOD as u64);
        // At no look did more of them wait than one address may. How many were too many is for the machine's pace to say; some were.
        site.counts(CROWDED, 1, FLOOD as u64);

        // The most that one address may have at the door, and what a task of each takes.
        site.memory_growth_max = WAITING_MAX * VISITOR_BYTES_MAX;

        // Of an address that has its share of strangers, the next waits for one of them to go, and is welcome then.
        let hello = client_hello(site);
        let begun: Vec<_> = (0..BEGUN)
            .map(|_| {
                let mut tcp = from(patient, site.world.port);
                tcp.write_all(&hello[..1]).unwrap();
                tcp
            })
            .collect();
        // They are all inside by then, and stay: who comes in one batch is not let in in its order.
        assert!(wait::never(DRIBBLE, || begun.iter().any(has_ended_by_now)));
        let who = site.sandbox();
        let mut wire = Wire::over(from(patient, site.world.port), site.config()).unwrap();
        assert!(
            begun.iter().any(has_ended_by_now),
            "it was let in before there was room"
        );
        assert_eq!(site.greet_over(&mut wire, &who.hello(), &who)[3], 0);
        wire.lives();
        site.counts(TLS_FAILED, BEGUN, BEGUN);
    });
}

#[test]
fn case_08_addresses_that_fill_the_door_make_room_for_others() {
    /// With as many of each, more than there is room for.
    const ADDRESSES: u8 = 5;
    const OF_EACH: usize = 1_900;
    /// How long one waits at the door. Who is gone before has made room.
    const DELAY_MAX: Duration = Duration::from_secs(30);
    run(|site| {
        let hello = client_hello(site);
        let (crowd, took) = wait::timed(|| {
            let mut crowd = Vec::new();
            for last in 0..ADDRESSES {
                let address = Ipv4Addr::new(127, 0, 1, last);
                crowd.extend((0..OF_EACH).map(|_| {
                    let mut tcp = from(address, site.world.port);
                    // It has begun, and may wait.
                    let _ = tcp.write_all(&hello[..1]);
                    tcp
                }));
            }
            wait::until("the door to be full", || {
                (site.counted(CROWDED) > 0).then_some(())
            });
            crowd
        });
        assert!(took < DELAY_MAX, "{took:?}: nobody had to make room");
        site.is_well();
        for _ in 0..10 {
            let who = site.sandbox();
            let (_, took) = wait::timed(|| site.online(&who).lives());
            assert!(took < STRANGER_WAIT_MAX / 2, "{took:?}");
        }
        let gone = crowd.iter().filter(|tcp| has_ended_by_now(tcp)).count();
        assert!(gone < crowd.len() / 2, "{gone} of the crowd are gone");
        drop(crowd);
        let all = usize::from(ADDRESSES) * OF_EACH;
        let of = |site: &Site, series| usize::try_from(site.counted(series)).unwrap();
        wait::until("the crowd to be counted", || {
            let counted = [SILENT, CROWDED, TLS_FAILED].map(|series| of(site, series));
            (counted.iter().sum::<usize>() == all).then_some(())
        });
        site.counts(CROWDED, 1, all as u64);
        site.counts(TLS_FAILED, 1, all as u64);
        site.counts(SILENT, 0, all as u64);
        // What a task of each takes, in a build that is not optimised.
        site.memory_growth_max = (all as u64) * (24 << 10);
    });
}

/// A ClientHello of a TLS before 1.3: it names its version in the old place, and no other.
fn old_client_hello(minor: u8) -> Vec<u8> {
    let extensions = [
        // Groups x25519 and secp256r1; signatures ECDSA and RSA-PSS with SHA-256.
        [0x00, 0x0A, 0, 6, 0, 4, 0, 0x1D, 0, 0x17].as_slice(),
        &[0x00, 0x0D, 0, 6, 0, 4, 0x04, 0x03, 0x08, 0x04],
    ]
    .concat();
    let length = u8::try_from(extensions.len()).unwrap();
    let body = [
        [3, minor].as_slice(),
        &[7; 32],
        &[0],
        // ECDHE-ECDSA and ECDHE-RSA with AES-128-GCM, RSA with AES-128-CBC.
        &[0, 6, 0xC0, 0x2B, 0xC0, 0x2F, 0x00, 0x2F],
        &[1, 0],
        &[0, length],
        &extensions,
    ]
    .concat();
    let length = u8::try_from(body.len()).unwrap();
    let handshake = [[1, 0, 0, length].as_slice(), &body].concat();
    let length = u8::try_from(handshake.len()).unwrap();
    [[0x16, 3, 1, 0, length].as_slice(), &handshake].concat()
}

#[test]
fn case_09_an_old_tls_or_an_unknown_protocol_gets_an_alert() {
    run(|site| {
        for minor in [1, 2, 3] {
            let mut tcp = site.tcp();
            tcp.write_all(&old_client_hello(minor)).unwrap();
            // Fatal, protocol_version.
            plain_ends(&tcp, &[0x15, 3, 3, 0, 2, 2, 70]);
            site.counts(TLS_FAILED, 1, 1);
        }
        for protocols in [[b"h2".as_slice()].as_slice(), &[b"smtp", b"mqtt2"]] {
            let config = Arc::new(tls_config(&site.ca(), protocols).unwrap());
            let error = Wire::over(site.tcp(), config).err().unwrap();
            let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
            assert!(error.to_string().contains(&alert.to_string()), "{error}");
            site.counts(TLS_FAILED, 1, 1);
        }
        // Missing ALPN and missing SNI are accepted.
        let who = site.sandbox();
        for (protocols, sni) in [([].as_slice(), true), (&[b"mqtt".as_slice()], false)] {
            let mut config = tls_config(&site.ca(), protocols).unwrap();
            config.enable_sni = sni;
            let mut wire = Wire::over(site.tcp(), Arc::new(config)).unwrap();
            assert_eq!(site.greet_over(&mut wire, &who.hello(), &who)[3], 0);
            wire.send(&[0xE0, 0]);
            wire.ends(&[]);
        }
    });
}

// TLS 1.3 has no renegotiation; what is left of it is a ClientHello in the clear.
#[test]
fn case_10_nothing_is_taken_before_the_handshake_or_beside_it() {
    run(|site| {
        let mut config = tls_config(&site.ca(), &[b"mqtt"]).unwrap();
        config.enable_early_data = true;
        let config = Arc::new(config);
        let who = site.sandbox();
        for _ in 0..2 {
            let name = ServerName::try_from("localhost").unwrap();
            let mut tls = ClientConnection::new(Arc::clone(&config), name).unwrap();
            assert!(tls.early_data().is_none(), "the broker grants none");
            let mut wire = Wire::over(site.tcp(), Arc::clone(&config)).unwrap();
            assert_eq!(site.greet_over(&mut wire, &who.hello(), &who)[3], 0);
            // The second time it could resume its session, and was challenged all the same.
            wire.send(&[0xE0, 0]);
            wire.ends(&[]);
        }
        let mut wire = site.online(&who);
        wire.send_naked(&client_hello(site));
        while wire.look(STRANGER_WAIT_MAX) == Came::Bytes {}
        let broken = "outhaul_gate_connections_ended_total{reason=\"none\",why=\"reading failed\"}";
        wait::until("it to be counted", || {
            (site.counted(broken) == 1).then_some(())
        });
    });
}

/// Clock ticks, a hundredth of a second each, that the broker has worked.
fn ticks(site: &Site) -> u64 {
    let pid = site.world.broker_pid().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split_ascii_whitespace()
        .collect();
    // utime and stime.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn case_11_a_broker_out_of_descriptors_waits_for_some_and_goes_on() {
    const FILES_MAX: u32 = 64;
    let terms = BrokerTerms {
        files_max: Some(FILES_MAX),
        ..BrokerTerms::default()
    };
    run_on(terms, |site| {
        let audience = |site: &Site| {
            let status = tests::local::get_json(&site.world.socket(), "/v1/status").unwrap();
            status["audience"].as_str().unwrap().to_owned()
        };
        let before = audience(site);
        let who = site.sandbox();
        let mut wire = site.online(&who);
        let crowd: Vec<_> = (0..FILES_MAX).map(|_| site.tcp()).collect();
        wait::until("the broker to run out of descriptors", || {
            let log = site.world.log("broker");
            log.contains("accepting connections failed").then_some(())
        });
        let start = ticks(site);
        assert!(
            wait::never(Duration::from_secs(1), || ticks(site) > start + 50),
            "it spins"
        );
        wire.lives();
        drop(crowd);
        let late = site.sandbox();
        site.online(&late).lives();
        assert_eq!(audience(site), before);
        let log = site.world.log("broker");
        assert!(log.contains("few files may be open"), "it says why");
        site.counts(SILENT, 1, u64::from(FILES_MAX));
        site.counts(ACCEPT_FAILED, 1, 100);
    });
}

#[test]
fn case_11_descriptors_that_the_broker_may_give_itself_do_not_run_out() {
    const FILES_AT_FIRST: u32 = 64;
    let terms = BrokerTerms {
        files_at_first: Some(FILES_AT_FIRST),
        ..BrokerTerms::default()
    };
    run_on(terms, |site| {
        let crowd: Vec<_> = (0..4 * FILES_AT_FIRST).map(|_| site.tcp()).collect();
        let who = site.sandbox();
        site.online(&who).lives();
        crowd.iter().for_each(|tcp| plain_ends(tcp, &[]));
        site.counts(SILENT, 256, 256);
    });
}
