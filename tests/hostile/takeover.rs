//! Cases 29 to 35: two connections of one subject, and the end of rights.

use std::{net::Ipv4Addr, time::Duration};

use protocol::{
    scope::{Permission, Scope},
    time::UnixMillis,
    token,
};
use tests::{local, wait};

use crate::{
    bytes::{
        PING, PONG, Post, auth, connack, disconnect, packet, property, puback, section, suback,
        subscribe, text, unsubscribe,
    },
    site::{Credentials, HOST, Minted, Site, nonce_of, run},
    wire::{Came, Wire},
};

const TAKEN_OVER: &str = "taken over by a newer connection";
/// How soon rights that were withdrawn must end a connection.
const WITHDRAWN_WAIT: Duration = Duration::from_secs(5);

/// Presents a fresh token on a live link, and proves its key: what the gate says then.
fn renew(wire: &mut Wire, who: &Credentials) -> Vec<u8> {
    wire.send(&auth(0x19, &text(&who.token)));
    let challenge = wire.packet();
    let Some(nonce) = nonce_of(&challenge) else {
        return challenge;
    };
    let key = who.key::<protocol::key::Host>();
    let proof = protocol::possession::prove(&key, &nonce, &[8; 8]);
    wire.send(&auth(0x18, &proof));
    wire.packet()
}

/// The gate's word that a renewal is complete.
fn renewed() -> Vec<u8> {
    let properties = section(&[property(0x15, "ace")]);
    packet(0xF0, &[[0].as_slice(), &properties].concat())
}

/// A token of the host that ends in so many seconds, the leeway of a minute included.
fn short(site: &mut Site, left_s: u64) -> Credentials {
    let age_s = 1_000;
    site.minted(&Minted {
        issued: UnixMillis(wait::now().0 - age_s * 1_000),
        life_s: age_s - 60 + left_s,
        ..Minted::good()
    })
}

fn revoke(site: &Site) {
    let path = format!("/v1/hosts/{HOST}/revoke");
    local::post(&site.world.socket(), &path, "application/json", b"").unwrap();
}

#[test]
fn case_29_a_newer_connection_takes_over_and_its_host_was_never_gone() {
    run(|site| {
        let host = site.host();
        let old = site.subscribed(&host.hello());
        let mut new = site.subscribed(&host.hello());
        old.ends(&disconnect(0x8E));
        site.ended(0x8E, TAKEN_OVER);
        new.lives();
        let command = site.command();
        assert!(new.packet().ends_with(&command));
        site.is_well();
        let came_and_went: Vec<_> = site
            .audit()
            .into_iter()
            .filter(|(name, subject)| subject == HOST && name.contains("connected"))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(came_and_went, ["host.connected"]);
    });
}

#[test]
fn case_30_nobody_is_taken_over_with_other_credentials() {
    run(|site| {
        let (who, other) = (site.sandbox(), site.sandbox());
        let mut old = site.online(&who);
        let hello = crate::bytes::Hello::new(&who.subject, &other.token);
        let why = "its client id is not its token's subject";
        site.stranger(&hello.bytes(), 0x85, why);
        // Its token, and not its key.
        let thief = Credentials {
            seed: other.seed,
            ..who.clone()
        };
        let (wire, answer) = site.greet(&who.hello(), &thief);
        assert_eq!(answer, connack(0x87));
        wire.ends(&[]);
        site.ended(0x87, "did not prove that it holds its token's key");
        old.lives();
    });
}

#[test]
fn case_31_a_storm_of_takeovers_is_slowed_down_and_leaves_nothing() {
    const STORM: u64 = 300;
    run(|site| {
        let host = site.host();
        let mut slowed = 0;
        let mut last = None;
        for round in 0..STORM {
            let (mut wire, answer) = site.greet(&host.hello(), &host);
            if answer[3] == 0 {
                // Comes, subscribes or unsubscribes, and does not wait for an answer.
                let filter = host.commands();
                if round % 2 == 0 {
                    wire.send(&subscribe(1, &[&filter]));
                }
                if round % 3 == 0 {
                    wire.send(&unsubscribe(2, &[&filter]));
                }
                last = Some(wire);
            } else {
                assert_eq!(answer, connack(0x9F));
                slowed += 1;
            }
        }
        assert!(slowed > STORM / 2, "{slowed} of {STORM}");
        site.ended_many(0x9F, "taken over too often", slowed);
        let series =
            format!("outhaul_gate_connections_ended_total{{reason=\"0x8E\",why=\"{TAKEN_OVER}\"}}");
        // The first takes over nobody; and one may have gone by itself before it was told.
        let taken_over = STORM - slowed - 1;
        site.counts(&series, taken_over.saturating_sub(5), taken_over);
        drop(last);
        wait::until("all but the bystander to be gone", || {
            let online = site.counted("outhaul_gate_admitted_total");
            (online == site.counted("outhaul_gate_left_total")).then_some(())
        });
    });
}

#[test]
fn case_32_the_late_goodbye_of_an_old_connection_does_not_reach_the_new() {
    run(|site| {
        let host = site.host();
        let mut old = site.subscribed(&host.hello());
        // Fewer than the takeovers that may come at once.
        for _ in 0..8 {
            let mut new = site.subscribed(&host.hello());
            old.send(&[0xE0, 0]);
            old.ends(&disconnect(0x8E));
            site.ended(0x8E, TAKEN_OVER);
            let command = site.command();
            // Those of the rounds before come first: nothing has settled them.
            while !new.packet().ends_with(&command) {}
            new.lives();
            old = new;
        }
    });
}

#[test]
fn case_33_a_session_is_not_resumed_and_a_renewal_ends_what_it_does_not_permit() {
    run(|site| {
        let host = site.host();
        let mut wire = site.subscribed(&host.hello());
        wire.send(&[0xE0, 0]);
        wire.ends(&[]);
        // Without Clean Start, and with a session that would last: it has no subscription all the same.
        let hello = crate::bytes::Hello {
            flags: 0,
            ..host.hello().with(vec![0x11, 0, 0, 0xFF, 0xFF])
        };
        let (mut wire, answer) = site.greet(&hello, &host);
        assert_eq!(answer[2..4], [0, 0], "no session, and welcome");
        let command = site.command();
        site.is_well();
        wire.says(&PING, &PONG);
        // Nor has anything come since: the next bytes are the answer, and then the command.
        wire.says(&subscribe(1, &[&host.commands()]), &suback(1, &[1]));
        assert!(wire.packet().ends_with(&command));

        let mut claims = token::peek(&host.token).unwrap();
        claims.scope = Scope::one(host.topic(), Permission::Pub);
        let narrow = Credentials {
            token: token::seal_claims(site.issuer(), &claims, None),
            ..host
        };
        site.keep(&narrow);
        assert_eq!(renew(&mut wire, &narrow), disconnect(0x87));
        wire.ends(&[]);
        site.ended(0x87, "its new token does not permit its subscription");
    });
}

#[test]
fn case_34_a_connection_ends_with_its_token_unless_it_renews_and_with_its_rights() {
    run(|site| {
        let ending = short(site, 3);
        let mut wire = site.online(&ending);
        wire.lives();
        wire.ends(&disconnect(0xA0));
        site.ended(0xA0, "its token ended");

        let ending = short(site, 4);
        let mut wire = site.online(&ending);
        assert_eq!(renew(&mut wire, &site.host()), renewed());
        assert_eq!(wire.look(Duration::from_secs(5)), Came::Nothing);
        wire.lives();

        let who = site.sandbox();
        let sandbox = site.online(&who);
        revoke(site);
        let ((), took) = wait::timed(|| {
            wire.ends(&disconnect(0x98));
            sandbox.ends(&disconnect(0x98));
        });
        assert!(took < WITHDRAWN_WAIT, "{took:?}");
        site.ended_many(0x98, "its host was revoked or locked", 2);
        site.stranger(&who.hello().bytes(), 0x87, "its token is refused");
        site.token("revoked_host");
    });
}

#[test]
fn case_35_a_captured_connect_is_worthless() {
    run(|site| {
        let who = site.sandbox();
        let mut wire = site.dial();
        wire.send(&who.hello().bytes());
        let (answer, proof) = crate::site::prove(&mut wire, &who);
        assert_eq!(answer[3], 0);
        let proof = proof.unwrap();
        site.secrets.add(&proof);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let elsewhere = std::net::SocketAddr::from((Ipv4Addr::new(127, 0, 0, 9), 0));
        socket.bind(&elsewhere.into()).unwrap();
        let gate = std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, site.world.port));
        socket.connect(&gate.into()).unwrap();
        let mut replay = Wire::over(socket.into(), site.config()).unwrap();
        replay.send(&who.hello().bytes());
        assert!(nonce_of(&replay.packet()).is_some());
        replay.send(&auth(0x18, &proof));
        replay.ends(&connack(0x87));
        site.ended(0x87, "did not prove that it holds its token's key");
        // Whoever it was taken from does not notice.
        let post = Post::new(who.topic(), 1, &who.batch());
        wire.says(&post.bytes(), &puback(1, 0));
    });
}
