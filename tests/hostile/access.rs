//! Cases 109 to 113: access tokens over HTTPS.

use std::{fs, sync::Arc, time::Duration};

use serde_json::json;
use tests::{
    bearer::{Answer, ask, send},
    client::tls_config,
    local, wait,
    world::BrokerTerms,
};

use crate::{
    bystander::launch,
    site::{HOST, Site, host_id, run_on},
    wire::{Came, Wire},
};

/// The host that stands by.
const NEIGHBOUR: &str = "edge-a";

/// Runs a case where access tokens are taken.
fn run_open(case: impl FnOnce(&mut Site)) {
    let terms = BrokerTerms {
        flags: &["--allow-access"],
        ..BrokerTerms::default()
    };
    run_on(terms, case);
}

fn give(site: &mut Site, name: &str, more: &[&str]) -> String {
    let file = site.world.path(&format!("access-{name}"));
    let path = file.to_string_lossy();
    let arguments = [&["access", "add", name, "--output", &path], more].concat();
    site.world.outhaul_ok(&arguments).unwrap();
    let token = fs::read_to_string(&file).unwrap().trim().to_owned();
    // Of the text the secret, which is what may stand nowhere; the file is its holder's.
    site.secrets.add(token.as_bytes());
    fs::remove_file(&file).unwrap();
    token
}

fn tokens(site: &mut Site, why: &str, count: u64) {
    let series = format!("outhaul_gate_tokens_refused_total{{why=\"{why}\"}}");
    site.counts(&series, count, count);
}

fn requests(site: &mut Site, why: &str, count: u64) {
    let series = format!("outhaul_gate_requests_refused_total{{why=\"{why}\"}}");
    site.counts(&series, count, count);
}

/// Sends a request whose lines are these.
#[track_caller]
fn request(site: &Site, lines: &[&str], body: &[u8]) -> Answer {
    let head = format!(
        "{}\r\nHost: x\r\nConnection: close\r\n\r\n",
        lines.join("\r\n")
    );
    send(&site.world, &[head.as_bytes(), body].concat()).unwrap()
}

#[test]
fn case_109_tokens_that_are_none_open_nothing_and_learn_nothing() {
    run_open(|site| {
        let own = give(site, "ada", &["--role", "admin"]);
        let gone = give(site, "gone", &["--role", "admin"]);
        site.world
            .outhaul_ok(&["access", "revoke", "gone"])
            .unwrap();
        let mut changed = own.clone().into_bytes();
        let last = changed.len() - 20;
        changed[last] = if changed[last] == b'a' { b'b' } else { b'a' };
        let changed = String::from_utf8(changed).unwrap();
        let wrong = [
            gone,
            changed,
            own[..own.len() - 1].to_owned(),
            own.replacen("oat1", "ort1", 1),
            own.to_uppercase(),
            "oat1_".to_owned(),
            "x".repeat(8_000),
        ];
        let mut said = Vec::new();
        for path in [
            "/v1/hosts",
            "/v1/hosts/edge-a/keys",
            "/v1/records?follow=true",
        ] {
            for token in &wrong {
                let answer = ask(&site.world, Some(token), "GET", path, b"").unwrap();
                assert_eq!(answer.status, 401, "{answer:?}");
                said.push(answer.body);
            }
        }
        said.dedup();
        assert_eq!(said.len(), 1, "all of them hear the same");
        tokens(site, "unknown_access", 3 * wrong.len() as u64);
        let answer = ask(&site.world, Some(&own), "GET", "/v1/hosts", b"").unwrap();
        assert_eq!(answer.status, 200);
    });
}

#[test]
fn case_110_one_token_in_one_header_is_one_and_nothing_else_is() {
    run_open(|site| {
        let own = give(site, "ada", &["--role", "admin"]);
        let bearer = format!("Authorization: Bearer {own}");
        let basic = format!("Authorization: Basic {own}");
        let bare = format!("Authorization: {own}");
        let cookie = format!("Cookie: access={own}");
        let (get, forwarded) = (
            "GET /v1/hosts HTTP/1.1",
            format!("X-Authorization: Bearer {own}"),
        );
        let in_query = format!("GET /v1/hosts?access_token={own} HTTP/1.1");
        let other = "Authorization: Bearer oat1_x";
        for lines in [
            &[get, &bearer, other][..],
            &[get, other, &bearer],
            &[get, &bearer, &bearer],
            &[get, &basic],
            &[get, &bare],
            &[get, &cookie],
            &[get, &forwarded],
            &[&in_query],
            &["GET /v1/hosts HTTP/1.1", "Authorization:"],
        ] {
            let answer = request(site, lines, b"");
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, "token_missing")
            );
        }
        tokens(site, "no_access", 9);
        // What looks like a second request is the first one's body, or is asked anew who it is.
        let smuggled = "GET /v1/audit HTTP/1.1\r\nHost: x\r\n\r\n";
        let length = format!("Content-Length: {}", smuggled.len());
        let post = "POST /v1/access HTTP/1.1";
        let answer = request(site, &[post, &bearer, &length], smuggled.as_bytes());
        assert_eq!(answer.status, 400);
        let chunked = "Transfer-Encoding: chunked";
        let twice = format!("0\r\n\r\n{smuggled}");
        let get = "GET /v1/whoami HTTP/1.1";
        let head = format!("{get}\r\nHost: x\r\n{bearer}\r\n{length}\r\n{chunked}\r\n\r\n{twice}");
        let answer = send(&site.world, head.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(!text.contains("\"rows\""), "{text}");
        let series = "outhaul_gate_tokens_refused_total{why=\"no_access\"}";
        site.counts(series, 0, 1);
    });
}

#[test]
fn case_111_a_request_of_a_token_is_as_large_as_it_may_be_and_no_larger() {
    run_open(|site| {
        let own = give(site, "ada", &["--role", "admin"]);
        let bearer = format!("Authorization: Bearer {own}");
        let post = "POST /v1/commands HTTP/1.1";
        let large = vec![b'x'; 200 << 10];
        let length = format!("Content-Length: {}", large.len());
        let head = format!("{post}\r\nHost: x\r\n{bearer}\r\n{length}\r\n\r\n");
        // What is closed before it was read whole is reset, which may overtake the answer.
        if let Ok(answer) = send(&site.world, &[head.as_bytes(), &large].concat()) {
            assert_eq!(answer.status, 413, "{answer:?}");
        }
        let answer = request(
            site,
            &[post, &bearer, "Content-Length: 70000"],
            &large[..70_000],
        );
        assert_eq!(answer.status, 413, "{answer:?}");
        let long = format!("Authorization: Bearer {}", "x".repeat(64 << 10));
        if let Ok(answer) = send(
            &site.world,
            format!("GET /v1/hosts HTTP/1.1\r\nHost: x\r\n{long}\r\n\r\n").as_bytes(),
        ) {
            assert_eq!(answer.status, 431, "{answer:?}");
        }
        let path = format!("GET /v1/hosts/{}/keys HTTP/1.1", "e".repeat(10_000));
        assert_eq!(request(site, &[&path, &bearer], b"").status, 400);
        let query = "GET /v1/records?from=-1&from=2 HTTP/1.1";
        assert_eq!(request(site, &[query, &bearer], b"").status, 400);
    });
}

#[test]
fn case_112_a_token_of_another_host_or_a_lesser_role_changes_nothing() {
    run_open(|site| {
        let viewer = give(site, "viewer", &["--role", "viewer"]);
        let other = give(site, "other", &["--role", "admin", "--host", HOST]);
        let dispatcher = give(site, "dispatcher", &["--role", "dispatcher"]);
        let command = launch(&host_id(NEIGHBOUR), 900, wait::now());
        let before = site.audit().len();
        let more = json!({ "name": "more", "role": "admin", "days": 1 }).to_string();
        let (revoke, access) = (format!("/v1/hosts/{NEIGHBOUR}/revoke"), "/v1/access");
        for (token, method, path, body, why) in [
            (&viewer, "POST", "/v1/commands", &command[..], "role"),
            (&viewer, "POST", &*revoke, b"", "role"),
            (&viewer, "POST", access, more.as_bytes(), "role"),
            (&dispatcher, "POST", &*revoke, b"", "role"),
            (&dispatcher, "DELETE", "/v1/access/viewer", b"", "role"),
            (&dispatcher, "POST", "/v1/backups", b"{}", "machine"),
            (&other, "POST", access, more.as_bytes(), "all_hosts"),
            (&other, "GET", "/v1/audit", b"", "all_hosts"),
            (&other, "POST", &*revoke, b"", "other_host"),
        ] {
            let answer = ask(&site.world, Some(token), method, path, body).unwrap();
            assert_eq!(answer.status, 403, "{path} {answer:?}");
            requests(site, why, 1);
        }
        // Judged where the body is read.
        let answer = ask(&site.world, Some(&other), "POST", "/v1/commands", &command).unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "host_not_allowed")
        );
        assert_eq!(site.audit().len(), before, "and nobody bought a row");
    });
}

#[test]
fn case_113_the_33rd_stream_of_a_token_gets_none_and_others_are_served() {
    const STREAMS: usize = 32;
    run_open(|site| {
        let own = give(site, "ada", &["--role", "viewer"]);
        let other = give(site, "bob", &["--role", "viewer"]);
        let config = Arc::new(tls_config(&site.ca(), &[b"http/1.1"]).unwrap());
        let follow = format!(
            "GET /v1/records?follow=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {own}\r\n\r\n"
        );
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let mut wire = Wire::over(site.tcp(), Arc::clone(&config)).unwrap();
            wire.send(follow.as_bytes());
            assert_eq!(wire.look(Duration::from_secs(20)), Came::Bytes);
            assert!(wire.unread().starts_with(b"HTTP/1.1 200"));
            open.push(wire);
        }
        let asked = |token: &str| ask(&site.world, Some(token), "GET", "/v1/hosts", b"").unwrap();
        assert_eq!(asked(&own).status, 429);
        assert_eq!(asked(&other).status, 200);
        local::get(&site.world.socket(), "/v1/records").unwrap();
        drop(open);
        let mut refused = 1;
        wait::until("its turns to come back", || {
            let answer = ask(&site.world, Some(&own), "GET", "/v1/hosts", b"").unwrap();
            refused += u64::from(answer.status == 429);
            (answer.status == 200).then_some(())
        });
        requests(site, "too_many", refused);
    });
}
