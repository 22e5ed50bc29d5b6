//! Tests of `inspect`.

use protocol::{
    audit::{Checkpoint, SignedCheckpoint, Vkey},
    command::{Command, Order, Stop},
    exchange::{self, InstallProof, Proof, Request, Succession},
    id::{CommandId, HostId, SandboxId},
    install_key::InstallKey,
    key::{Audit, Dispatcher, Host, Issuer, Sandbox},
    key_change::{Change, RestoredTrail, RevokedKey, Statement},
    reader_token::ReaderToken,
    report::News,
    signed,
    time::UnixMillis,
    token::{HostTerms, mint_host, mint_sandbox},
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{finding::Outcome, given::Keys, *};
use crate::cli::{
    known_hosts::tests::secret,
    verify::tests::{batches, host, launched_news, report_by, sandbox},
};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOST_KEY: u8 = 1;
const SANDBOX_KEY: u8 = 2;

fn keys() -> Keys {
    Keys {
        issuers: vec![secret::<Issuer>(10).public()],
        dispatchers: vec![secret::<Dispatcher>(12).public()],
        hosts: vec![secret::<Host>(HOST_KEY).public()],
        sandboxes: vec![secret::<Sandbox>(SANDBOX_KEY).public()],
    }
}

fn host_token() -> Vec<u8> {
    mint_host(
        &secret::<Issuer>(10),
        &HostTerms {
            audience: "outhaul-test",
            host: &host(),
            key: secret::<Host>(HOST_KEY).public(),
            generation: 1,
            id: [1; 8],
            issued: NOW,
            life_s: 3600,
        },
    )
}

fn sandbox_token() -> Vec<u8> {
    let key = secret::<Sandbox>(SANDBOX_KEY).public();
    let host_key = secret::<Host>(HOST_KEY);
    mint_sandbox(&host_key, &host_token(), &sandbox(), &key, [2; 8], NOW).unwrap()
}

fn command() -> Vec<u8> {
    let stop = Stop {
        sandbox: sandbox(),
        grace_s: 10,
    };
    let command = Command {
        id: CommandId([1; 16]),
        host: host(),
        issued: NOW,
        expires: UnixMillis(NOW.0 + 60_000),
        order: Order::Stop(stop),
    };
    protocol::command::sign(&secret::<Dispatcher>(12), &command)
}

fn succession() -> Vec<u8> {
    let succession = Succession {
        host: host(),
        generation: 2,
        key: secret::<Host>(3).public(),
        time: NOW,
    };
    signed::sign(&secret::<Host>(HOST_KEY), &succession, b"")
}

fn request(proof: Proof) -> Vec<u8> {
    let request = Request {
        nonce: [0; 32].into(),
        host: host(),
        key: secret::<Host>(3).public(),
        generation: 2,
        proof,
        witness: None,
    };
    exchange::sign_request(&secret::<Host>(3), &request)
}

fn statement(change: Change) -> Vec<u8> {
    Statement { change, time: NOW }.sign(&secret::<Dispatcher>(12))
}

fn revoked() -> Change {
    let key = secret::<Dispatcher>(14).public();
    Change::Revoke(RevokedKey { key })
}

fn restored() -> Change {
    let audit = secret::<Audit>(13);
    let checkpoint = Checkpoint::new("b/audit", 3, [7; 32]).unwrap();
    Change::Restored(RestoredTrail {
        at: NOW,
        vkey: Vkey::new("b/audit", audit.public()).unwrap().to_string(),
        note: SignedCheckpoint::sign(checkpoint, &[&audit]).to_string(),
    })
}

/// Every kind that is signed, and how many checks it has.
fn signed_messages() -> Vec<(&'static str, Vec<u8>)> {
    let forwarded = News::Forwarded(protocol::report::Forwarded {
        sandbox: sandbox(),
        batch: batches(&["one"])[0].clone().into(),
    });
    vec![
        ("host token", host_token()),
        ("sandbox token", sandbox_token()),
        ("command", command()),
        (
            "report",
            report_by(HOST_KEY, launched_news(protocol::command::Content::Full)).payload,
        ),
        ("report", report_by(HOST_KEY, forwarded).payload),
        ("batch of events", batches(&["one"])[0].clone()),
        (
            "exchange request",
            request(Proof::HostKey(succession().into())),
        ),
        ("succession", succession()),
        ("dispatcher's statement", statement(revoked())),
        ("dispatcher's statement", statement(restored())),
    ]
}

fn outcomes(found: &Inspection) -> Vec<Outcome> {
    found.checks.iter().map(|check| check.outcome).collect()
}

#[test]
fn with_its_keys_everything_verifies() {
    for (kind, bytes) in signed_messages() {
        let found = inspect(&bytes, &keys(), NOW).unwrap();
        assert_eq!(found.kind, kind);
        assert!(
            outcomes(&found).iter().all(|one| *one == Outcome::Good),
            "{}",
            found.to_text()
        );
    }
}

#[test]
fn without_keys_nothing_is_said_to_verify_and_the_key_is_named() {
    for (kind, bytes) in signed_messages() {
        let found = inspect(&bytes, &Keys::default(), NOW).unwrap();
        let text = found.to_text();
        assert!(!found.has_failed(), "{text}");
        if kind != "exchange request" {
            assert!(text.contains("give it with --key"), "{text}");
        }
    }
}

#[test]
fn one_changed_bit_of_the_signature_is_bad() {
    for (kind, mut bytes) in signed_messages() {
        // The last byte of a batch is of its body.
        let last = bytes.last_mut().unwrap();
        *last ^= 1;
        let found = inspect(&bytes, &keys(), NOW).unwrap();
        assert!(found.has_failed(), "{kind}: {}", found.to_text());
    }
}

#[test]
fn dates_that_have_passed_are_said() {
    let later = UnixMillis(NOW.0 + 2 * 3_600_000);
    for bytes in [host_token(), sandbox_token(), command()] {
        let found = inspect(&bytes, &keys(), later).unwrap();
        assert!(found.has_failed());
        assert!(found.to_text().contains(" ago"), "{}", found.to_text());
    }
}

#[test]
fn of_a_reader_token_the_kid_is_shown_and_whether_it_was_copied_whole() {
    let token = ReaderToken::new([5; 8], Zeroizing::new([6; 32]));
    let text = format!("{}\n", *token.to_text());
    let found = inspect(text.as_bytes(), &Keys::default(), NOW).unwrap();
    assert_eq!(found.kind, "reader token");
    assert!(!found.has_failed());
    assert!(found.to_text().contains("0505050505050505"));
    let cut = &text.trim()[..60];
    let found = inspect(cut.as_bytes(), &Keys::default(), NOW).unwrap();
    assert!(found.has_failed(), "{}", found.to_text());
}

#[test]
fn a_secret_is_never_shown() {
    let key = InstallKey::new([5; 8], Zeroizing::new([6; 32]));
    let proof = Proof::InstallKey(InstallProof::from(&key));
    let token = ReaderToken::new([5; 8], Zeroizing::new([6; 32]));
    let host_secret = secret::<Host>(HOST_KEY);
    // Both have the same secret, and so the same digits.
    let hidden = [
        protocol::id::hex(&[6; 32]),
        key.to_text()[17..60].to_owned(),
        protocol::id::hex(&token.hash()),
    ];
    for bytes in [
        request(proof),
        key.to_text().as_bytes().to_vec(),
        token.to_text().as_bytes().to_vec(),
        host_secret.to_file_text().as_bytes().to_vec(),
    ] {
        let found = inspect(&bytes, &Keys::default(), NOW).unwrap();
        let shown = format!("{}{}", found.to_text(), found.to_json());
        assert!(
            hidden.iter().all(|secret| !shown.contains(secret)),
            "{shown}"
        );
        assert!(
            !shown.contains(&protocol::id::hex(&[HOST_KEY; 32])),
            "{shown}"
        );
    }
}

#[test]
fn what_is_nothing_of_ours_is_nothing() {
    for bytes in [&b""[..], b"hello", &[0xa0], &[0x84, 0x40, 0xa0, 0x40, 0x40]] {
        assert!(inspect(bytes, &keys(), NOW).is_none(), "{bytes:02x?}");
    }
}

#[test]
fn a_message_is_read_from_its_digits_too() {
    assert_eq!(unhex(b"00 ff\n0A"), Some(vec![0, 255, 10]));
    assert_eq!(unhex(b"0"), None);
    assert_eq!(unhex(b"0g"), None);
    assert_eq!(unhex(&host_token()), None);
}

#[test]
fn programs_get_every_field_and_check() {
    let found = inspect(&sandbox_token(), &keys(), NOW).unwrap().to_json();
    assert_eq!(found["verifies"], true);
    assert_eq!(found["fields"]["subject"], "edge-1/build-7");
    assert_eq!(found["fields"]["parent"]["generation"], 1);
    assert!(
        found["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|check| check["outcome"] == "ok")
    );
    let names: Vec<&Value> = found["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["what"])
        .collect();
    assert!(
        names.contains(&&Value::from("parent: signature")),
        "{names:?}"
    );
}

#[test]
fn names_of_strangers_do_not_drive_the_terminal() {
    let refused = News::Refused(protocol::report::Refused {
        command: CommandId([1; 16]),
        sandbox: SandboxId::new("build-7").unwrap(),
        reason: protocol::report::Reason::Busy,
        detail: "\x1b[2Jx".to_owned(),
    });
    let found = inspect(&report_by(HOST_KEY, refused).payload, &keys(), NOW).unwrap();
    assert!(!found.to_text().contains('\x1b'));
    assert!(HostId::new("edge-1").is_ok());
}
