//! The golden vectors: good ones are accepted and say what they say, bad ones are refused for their reason, and none ever changes.
//!
//! Each is judged through a public door of this crate, as a peer would judge it.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in a test a failed step is a failed test"
)]

use std::{collections::HashSet, fmt::Display, str::FromStr};

use protocol::{
    audit::{Leaf, SignedCheckpoint, TlogProof, Vkey},
    cbor,
    command::{self, Order},
    exchange::{self, Challenge, Grant, Proof, Refused},
    id::{HostId, SandboxId, hex},
    install_key::InstallKey,
    key::{Audit, Dispatcher, Holder, Host, Issuer, Public, Role, Sandbox, Secret},
    key_change::{Change, Statement},
    limits::EXCHANGE_BYTES_MAX,
    possession,
    reader_token::ReaderToken,
    record::Reader,
    report::{self, News, Report},
    scope::{Permission, Scope},
    stream::{Verdict, Verifier, Writer, stream_id},
    stream_file::{Check, Why},
    time::UnixMillis,
    token::{self, HostTerms},
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

const GOOD: &str = include_str!("../vectors/good.jsonl");
const BAD: &str = include_str!("../vectors/bad.jsonl");

/// What was there once: in this file, so many lines from its first, and their BLAKE3. Seals are added behind the last one of their file,
/// and never changed.
const SEALS: &[(&str, usize, &str)] = &[
    (
        "good.jsonl",
        189,
        "810263427c641a8e3ca92e9829ea138383d08106b38d3a5432978d73f243f0aa",
    ),
    (
        "bad.jsonl",
        653,
        "b8308d11fcc3586b4a8656557b3f9b24792f87bb74b45fcbd3b2638579870d3a",
    ),
    (
        "good.jsonl",
        191,
        "ea51f7eb258104333dc7b574ed1c2b2423b380bbfff73f53c562243ac60ca996",
    ),
    (
        "bad.jsonl",
        654,
        "60bf3c47750f13a6b46025af8c96fd39673d51095fe9ffdfb16e9dd4cc072b1f",
    ),
    (
        "good.jsonl",
        195,
        "239bde0ba8d7af8c92a18a9c91eba2a4f2e436a8c0eccd12cd0868805d28ea8b",
    ),
    (
        "bad.jsonl",
        661,
        "c3c38ccf368892efaa69b2937147dd372bac9936e339d7dfabccdab042065bfd",
    ),
    (
        "good.jsonl",
        200,
        "a9300d7d37bee0556326e81f37113d8dc0fa81c428dccea4b666139580bdb36a",
    ),
    (
        "bad.jsonl",
        671,
        "6df29f5216520986613e67454d81e163be9f7694be4c80be6a53ed1b150022a6",
    ),
    (
        "good.jsonl",
        204,
        "09c42f05bb8ea94ebea64701d63a7738a730b59736c1973969b254f25f9065e7",
    ),
    (
        "bad.jsonl",
        675,
        "e29c68bff1e36b91756d1f15ed2091aaa0e4927c31a1aa9f5c75208c9c5a01ce",
    ),
    (
        "good.jsonl",
        206,
        "4da06f920836347e81b80756c3e0260e492a03a74a670971676cc549f37e811f",
    ),
    (
        "bad.jsonl",
        676,
        "2293fda9e674417db20b9a37457d40ce7823543f3eed179f12cd361c2e6864cf",
    ),
    (
        "good.jsonl",
        222,
        "a96926405deb2dbec13d90f048809c2247829118d5f3067388afc8567e9d5a30",
    ),
    (
        "bad.jsonl",
        712,
        "893f24ffaed845559dd0641d128fc7c2b59f40357d0a30b895c546b597b2c57d",
    ),
    (
        "good.jsonl",
        227,
        "cbf9783d7e27745db27dbd58a3d749e7cc5d212bcf82c58c20af984e1fb6571e",
    ),
    (
        "bad.jsonl",
        719,
        "74e4f63dc6e1c40e76cff5ff3e4f96241a043e906d952fa4d3d2c61d38e6dfd4",
    ),
    (
        "good.jsonl",
        228,
        "d4209519245d905031823f8d96f7000b7dc4632cdeb49a1870deb8b886c6fe12",
    ),
    (
        "bad.jsonl",
        724,
        "d9121a3fe1dd32eb541d5574b2ddeac82ab489cc74fddc932c5844a27006b2a4",
    ),
];

#[test]
fn every_good_vector_is_accepted() {
    let mut wrong = Vec::new();
    for vector in vectors(GOOD) {
        assert_eq!(vector.field("verdict"), "ok", "{}", vector.name());
        let found = match vector.judge() {
            Ok(found) => found,
            Err(reason) => {
                wrong.push(format!("{} is refused: {reason}", vector.name()));
                continue;
            }
        };
        let said = vector.json["value"].as_object();
        for (field, value) in said.into_iter().flatten() {
            if found.get(field) != Some(value) {
                wrong.push(format!("{}: {field} is not {value}", vector.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_bad_vector_is_refused_for_its_reason() {
    let mut wrong = Vec::new();
    for vector in vectors(BAD) {
        assert_eq!(vector.field("verdict"), "refused", "{}", vector.name());
        assert!(!vector.field("why").is_empty(), "{}", vector.name());
        match vector.judge() {
            Err(reason) if reason == vector.field("reason") => {}
            Err(reason) => wrong.push(format!("{}: {reason}", vector.name())),
            Ok(_) => wrong.push(format!("{} is accepted", vector.name())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_unique() {
    let mut names = HashSet::new();
    for vector in vectors(GOOD).chain(vectors(BAD)) {
        let name = vector.name().to_owned();
        let is_kebab = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        assert!(name.bytes().all(is_kebab), "{name:?} is in kebab case");
        assert!(names.insert(name.clone()), "{name} is there twice");
    }
}

#[test]
fn no_vector_was_changed_or_taken_away() {
    for (file, text) in [("good.jsonl", GOOD), ("bad.jsonl", BAD)] {
        let seals = SEALS.iter().filter(|(name, ..)| *name == file);
        let mut sealed = 0;
        for (_, count, seal) in seals {
            sealed = *count;
            assert_eq!(seal_of(text, sealed), **seal, "{file}, {sealed} lines");
        }
        let count = text.lines().count();
        assert!(
            text.ends_with('\n') && sealed == count,
            "add the seal ({file:?}, {count}, {:?})",
            seal_of(text, count)
        );
    }
}

fn seal_of(text: &str, count: usize) -> String {
    let lines: String = text.split_inclusive('\n').take(count).collect();
    blake3::hash(lines.as_bytes()).to_hex().to_string()
}

#[test]
fn what_we_write_ourselves_is_among_the_vectors() {
    let host = HostId::new("edge-1").unwrap();
    let sandbox = SandboxId::new("build-7").unwrap();
    let now = UnixMillis(1_800_000_000_000);
    let terms = HostTerms {
        audience: "outhaul-vectors",
        host: &host,
        key: secret::<Host>(0x0b).public(),
        generation: 1,
        id: [1; 8],
        issued: now,
        life_s: 3600,
    };
    let parent = token::mint_host(&secret(0x0a), &terms);
    assert_eq!(hex(&parent), bytes_of("host-token"));
    let key = secret::<Sandbox>(0x0d);
    let token = token::mint_sandbox(&secret(0x0b), &parent, &sandbox, &key.public(), [2; 8], now);
    assert_eq!(hex(&token.unwrap()), bytes_of("sandbox-token"));
    let mut writer = Writer::new(key, stream_id(&host, &sandbox), [2; 8]);
    let empty = writer.seal(now, false);
    assert_eq!(hex(&empty), bytes_of("batch-without-events"));
    let install_key = InstallKey::new([6; 8], Zeroizing::new([6; 32]));
    let texts: Vec<_> = vectors(GOOD)
        .filter(|vector| vector.name() == "install-key")
        .map(|vector| vector.field("text").to_owned())
        .collect();
    assert_eq!(texts, [install_key.to_text().to_string()]);
    let token = ReaderToken::new([7; 8], Zeroizing::new([7; 32]));
    let vector = vectors(GOOD).find(|vector| vector.name() == "reader-token");
    assert_eq!(vector.unwrap().field("text"), *token.to_text());
    let proof = possession::prove(&secret::<Host>(0x0b), &[8; 8], &[9; 8]);
    let vector = vectors(GOOD).find(|vector| vector.name() == "possession-of-a-hosts-key");
    assert_eq!(vector.unwrap().field("proof"), hex(&proof));
}

fn bytes_of(name: &str) -> String {
    let vector = vectors(GOOD).find(|vector| vector.name() == name);
    vector.unwrap().field("hex").to_owned()
}

fn secret<R: Role>(seed: u8) -> Secret<R> {
    Secret::from_seed(&Zeroizing::new([seed; 32]))
}

fn vectors(lines: &str) -> impl Iterator<Item = Vector> {
    lines.lines().map(|line| Vector {
        json: serde_json::from_str(line).unwrap(),
    })
}

struct Vector {
    json: Value,
}

/// What was found in it, or why it is refused.
type Judged = Result<Value, String>;

fn refuse(error: impl Display) -> String {
    error.to_string()
}

impl Vector {
    fn name(&self) -> &str {
        self.field("name")
    }

    fn field(&self, name: &str) -> &str {
        self.json[name].as_str().unwrap_or_else(|| {
            panic!("{} has no {name}", self.json["name"]);
        })
    }

    fn parse<T: FromStr>(&self, field: &str) -> T {
        let parsed = self.field(field).parse();
        parsed.unwrap_or_else(|_| panic!("{}: {field}", self.name()))
    }

    fn number(&self, field: &str) -> u64 {
        self.json[field].as_u64().unwrap()
    }

    fn bytes(&self, field: &str) -> Vec<u8> {
        unhex(self.field(field))
    }

    fn now(&self) -> UnixMillis {
        UnixMillis(self.number("now_s") * 1000)
    }

    fn judge(&self) -> Judged {
        match self.field("kind") {
            "token" => self.token(),
            "command" => self.command(),
            "report" => self.report(),
            "batch" => self.batch(),
            "succession" => self.succession(),
            "statement" => self.statement(),
            "request" => self.request(),
            "challenge" => {
                self.answer(|challenge: &Challenge| json!({"time_ms": challenge.time.0}))
            }
            "grant" => self.answer(|grant: &Grant| {
                json!({
                    "time_ms": grant.time.0,
                    "generation": grant.generation,
                    "authorities": grant.authorities.as_ref().map(Vec::len),
                    "others": grant.trail.as_ref().map(|trail| trail.others.len()),
                    "handovers": grant.trail.as_ref().map(|trail| trail.handovers.len()),
                })
            }),
            "refused" => self.answer(|refused: &Refused| {
                json!({
                    "reason": refused.reason.word(),
                    "time_ms": refused.time.0,
                    "generation": refused.generation,
                })
            }),
            "stream" => self.stream(),
            "install-key" => self.install_key(),
            "reader-token" => self.reader_token(),
            "public-key" => self.public_key(),
            "possession" => self.possession(),
            "covers" => self.covers(),
            "audit-row" => self.audit_row(),
            "checkpoint" => self.checkpoint(),
            "cosignature" => self.cosignature(),
            "tlog-proof" => self.tlog_proof(),
            other => panic!("{}: no kind {other:?}", self.name()),
        }
    }

    fn token(&self) -> Judged {
        let issuers = [self.parse::<Public<Issuer>>("issuer_key")];
        let bytes = self.bytes("hex");
        let grant = token::check(&bytes, &issuers, self.field("audience"), self.now());
        let grant = grant.map_err(refuse)?;
        Ok(json!({
            "subject": grant.subject.to_string(),
            "expires_s": grant.expires_s,
            "generation": grant.generation,
            "id": hex(&grant.id),
        }))
    }

    fn command(&self) -> Judged {
        let dispatchers = [self.parse::<Public<Dispatcher>>("dispatcher_key")];
        let host = self.parse("host");
        let verified = command::verify(&self.bytes("hex"), &dispatchers, &host, self.now());
        let command = verified.map_err(refuse)?.into_value();
        let order = match &command.order {
            Order::Launch(_) => "launch",
            Order::Stop(_) => "stop",
        };
        Ok(json!({
            "id": command.id.to_string(),
            "order": order,
            "sandbox": command.order.sandbox().as_str(),
        }))
    }

    fn report(&self) -> Judged {
        let keys = [self.parse::<Public<Host>>("host_key")];
        let verified = report::verify(&self.bytes("hex"), &keys, &self.parse("host"));
        Ok(said(verified.map_err(refuse)?.value()))
    }

    fn batch(&self) -> Judged {
        let key = self.parse("sandbox_key");
        let mut verifier = Verifier::new(&self.parse("host"), &self.parse("sandbox"), key);
        for before in self.json["before"].as_array().into_iter().flatten() {
            let before = unhex(before.as_str().unwrap());
            verifier.check(&before).unwrap();
        }
        let bytes = self.bytes("hex");
        let (head, events) = match verifier.check(&bytes).map_err(refuse)? {
            Verdict::Again => return Ok(json!({"again": true})),
            Verdict::Purged(_) => panic!("a body that is there is read"),
            Verdict::Next(head, events) => (head, events),
        };
        let events: Vec<_> = events.map(|event| event.kind.word()).collect();
        Ok(json!({
            "epoch": head.epoch,
            "batch": head.batch,
            "first": head.first,
            "count": head.count,
            "closing": head.closing.is_some(),
            "events": events,
        }))
    }

    fn succession(&self) -> Judged {
        let (host, key) = (self.parse("host"), self.parse("host_key"));
        let bytes = self.bytes("hex");
        let links = [bytes.as_slice()];
        let keys = exchange::follow(&host, key, self.number("generation"), links);
        let keys = keys.map_err(refuse)?;
        let (generation, key) = keys.last().unwrap();
        Ok(json!({"generation": generation, "key": key.to_string()}))
    }

    fn statement(&self) -> Judged {
        let dispatchers = [self.parse::<Public<Dispatcher>>("dispatcher_key")];
        let verified = Statement::verify(&self.bytes("hex"), &dispatchers, self.now());
        let (says, key, until) = match verified.map_err(refuse)?.into_value().change {
            Change::Next(next) => ("next", next.key, Some(next.until.0)),
            Change::Revoke(revoked) => ("revoke", revoked.key, None),
            Change::Restored(trail) => {
                let (_, note) = trail.checkpoint().unwrap();
                let size = note.unverified().size();
                return Ok(json!({"says": "restored", "at_ms": trail.at.0, "size": size}));
            }
        };
        Ok(json!({"says": says, "key": key.to_string(), "until_ms": until}))
    }

    fn request(&self) -> Judged {
        let verified = exchange::verify_request(&self.bytes("hex"));
        let request = verified.map_err(refuse)?.into_value();
        let proof = match request.proof {
            Proof::InstallKey(_) => "install_key",
            Proof::HostKey(_) => "succession",
            Proof::HostKeys(_) => "successions",
        };
        Ok(json!({
            "host": request.host.as_str(),
            "generation": request.generation,
            "proof": proof,
        }))
    }

    /// What the exchange answers, which TLS vouches for.
    fn answer<T: serde::Serialize + serde::de::DeserializeOwned>(
        &self,
        said: impl Fn(&T) -> Value,
    ) -> Judged {
        let bytes = self.bytes("hex");
        cbor::from_slice(&bytes, EXCHANGE_BYTES_MAX)
            .map(|answer| said(&answer))
            .map_err(refuse)
    }

    fn stream(&self) -> Judged {
        let mut reader = Reader::default();
        reader.push(&self.bytes("hex"));
        let at_0 = |why: Why| format!("item 0: {why}");
        let opening = reader.take_opening().map_err(|_| at_0(Why::Malformed))?;
        let opening = opening.ok_or_else(|| at_0(Why::CutShort))?;
        let dispatchers = (!self.json["dispatcher_key"].is_null())
            .then(|| vec![self.parse::<Public<Dispatcher>>("dispatcher_key")]);
        let mut check = Check::new(opening, self.parse("host_key"), dispatchers);
        while !reader.is_empty() {
            let unreadable = |why: Why| refuse(check.unreadable(why));
            let record = reader.take().map_err(|_| unreadable(Why::Malformed))?;
            let record = record.ok_or_else(|| unreadable(Why::CutShort))?;
            check.record(&record).map_err(refuse)?;
        }
        check.finish().map_err(refuse)?;
        let found = check.found();
        Ok(json!({
            "whole": check.is_whole() && !check.misses_beginning(),
            "part": check.misses_beginning(),
            "earlier": found.earlier,
            "items": found.items,
            "batches": found.batches,
            "events": check.events(),
            "redelivered": found.redelivered,
            "dropped": found.dropped,
            "exit_code": found.exit_code,
            "reports": found.reports,
            "commands": found.commands,
            "holes": found.holes,
            "purged": found.purged,
            "purged_events": found.purged_events,
            "removed": found.removed,
        }))
    }

    fn install_key(&self) -> Judged {
        let key = InstallKey::from_text(self.field("text")).map_err(refuse)?;
        let proof = cbor::to_vec(key.secret());
        Ok(json!({"kid": hex(&key.kid), "secret": hex(&proof[2..])}))
    }

    fn reader_token(&self) -> Judged {
        let token = ReaderToken::from_text(self.field("text")).map_err(refuse)?;
        Ok(json!({"kid": hex(&token.kid), "secret_sha256": hex(&token.hash())}))
    }

    fn public_key(&self) -> Judged {
        let text = self.field("text");
        match self.field("role") {
            "dispatcher" => read_key::<Dispatcher>(text),
            "issuer" => read_key::<Issuer>(text),
            "audit" => read_key::<Audit>(text),
            "host" => read_key::<Host>(text),
            "sandbox" => read_key::<Sandbox>(text),
            "holder" => read_key::<Holder>(text),
            other => panic!("{}: no role {other:?}", self.name()),
        }
    }

    fn possession(&self) -> Judged {
        let key: [u8; 32] = self.bytes("key").try_into().unwrap();
        let key = Public::<Holder>::from_bytes(&key).unwrap();
        let challenge = self.bytes("challenge").try_into().unwrap();
        if possession::is_proven(&key, &challenge, &self.bytes("proof")) {
            Ok(Value::Null)
        } else {
            Err("the proof does not hold".into())
        }
    }

    fn audit_row(&self) -> Judged {
        let bytes = self.bytes("hex");
        let row = Leaf::from_bytes(&bytes).map_err(refuse)?;
        Ok(json!({"seq": row.seq, "hash": hex(&row.hash())}))
    }

    fn checkpoint(&self) -> Judged {
        let note = SignedCheckpoint::parse(self.field("text")).map_err(refuse)?;
        let checkpoint = note.verify(&self.parse("vkey")).map_err(refuse)?;
        Ok(json!({"size": checkpoint.size()}))
    }

    fn cosignature(&self) -> Judged {
        let note = SignedCheckpoint::parse(self.field("text")).map_err(refuse)?;
        let time_s = note.verify_cosigned(&self.parse::<Vkey<Host>>("vkey"));
        Ok(json!({"time_s": time_s.map_err(refuse)?}))
    }

    fn tlog_proof(&self) -> Judged {
        let proof = TlogProof::parse(self.field("text")).map_err(refuse)?;
        let row = proof.check().map_err(refuse)?;
        let checkpoint = proof
            .checkpoint
            .verify(&self.parse("vkey"))
            .map_err(refuse)?;
        Ok(json!({"seq": row.seq, "size": checkpoint.size()}))
    }

    fn covers(&self) -> Judged {
        let scope = Scope::one(self.field("rule").into(), Permission::Pub);
        match scope.rule_for(self.field("filter"), Permission::Pub) {
            Some(_) => Ok(Value::Null),
            None => Err("not covered".into()),
        }
    }
}

fn read_key<R: Role>(text: &str) -> Judged {
    let key: Public<R> = text.parse().map_err(refuse)?;
    Ok(json!({"kid": hex(&key.id())}))
}

fn said(report: &Report) -> Value {
    let mut said = json!({
        "number": report.number,
        "news": report.news.word(),
        "sandbox": report.news.sandbox().map(SandboxId::as_str),
    });
    match &report.news {
        News::Refused(refused) => said["reason"] = refused.reason.word().into(),
        News::Launched(launched) => said["content"] = launched.content.word().into(),
        News::Ended(ended) => {
            said["state"] = ended.state.word().into();
            said["exit_code"] = ended.exit_code.into();
            said["reason"] = ended.reason.map(report::Reason::word).into();
        }
        News::Status(status) => {
            let sightings = status.sandboxes.iter();
            said["sandboxes"] = sightings
                .map(|one| format!("{} {}", one.sandbox, one.state))
                .collect();
            said["skew_ms"] = status.skew_ms.into();
        }
        News::Stopped(_) | News::Forwarded(_) | News::Other(_) => {}
    }
    said
}

fn unhex(digits: &str) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).unwrap();
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).unwrap())
        .collect()
}
