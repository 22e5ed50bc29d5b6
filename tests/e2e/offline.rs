//! What was signed verifies without a broker, and without our code: an exported stream, tokens, commands and reports of a real run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use agent::shell::store::read_identity;
use protocol::{
    command,
    id::HostId,
    key::{Dispatcher, Host, Issuer, Public, Secret},
    record::{Reader, Record},
    report,
    time::UnixMillis,
    token::{self, Subject},
};
use serde_json::Value;
use tests::{docker::IMAGE, local, python, wait, world::World};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(error)
    )
}

/// The host's first key, as its owner prints it.
fn anchor(world: &World) -> String {
    let output = std::process::Command::new(tests::programs::Programs::get().path("outhaul-agent"))
        .args(["identity", "--json", "--state-dir"])
        .arg(world.path("operator"))
        .output()
        .unwrap();
    let identity: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    identity["first_key"].as_str().unwrap().to_owned()
}

/// A run of 300 lines that ends with 7, exported.
fn exported(world: &World) -> PathBuf {
    let script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line $i; done; sleep 0.3; exit 7";
    let run = world
        .outhaul_output(&[
            "run",
            "--name",
            "count",
            "--content",
            "full",
            IMAGE,
            "--",
            "sh",
            "-c",
            script,
        ])
        .unwrap();
    assert_eq!(run.status.code(), Some(7), "{}", said(&run));
    let file = world.path("count.stream");
    let export = world
        .outhaul_output(&["export-stream", "count", text(&file)])
        .unwrap();
    assert_eq!(export.status.code(), Some(0), "{}", said(&export));
    assert!(
        said(&export).starts_with("OK, whole: 302 events"),
        "{}",
        said(&export)
    );
    file
}

/// The verdicts of our program and of the stranger's: verifies, and the item that does not.
fn verdicts(world: &World, file: &Path, anchor: &str) -> [(bool, Option<u64>); 2] {
    let ours = world
        .outhaul_output(&["verify-stream", "--json", "--host-key", anchor, text(file)])
        .unwrap();
    // Without an answer there is no item either.
    let verdict: Value = serde_json::from_slice(&ours.stdout).unwrap_or_default();
    let ours = (ours.status.success(), verdict["item"].as_u64());
    let theirs = python::run("verify.py", &["stream", text(file), "--host-key", anchor]).unwrap();
    let shown = said(&theirs);
    let item = shown
        .strip_prefix("BAD: item ")
        .and_then(|rest| rest.split(':').next()?.parse().ok());
    assert!(theirs.status.success() || item.is_some(), "{shown}");
    [ours, (theirs.status.success(), item)]
}

#[test]
fn two_programs_judge_an_exported_stream_alike() {
    let world = World::connected().unwrap();
    let (file, anchor) = (exported(&world), anchor(&world));
    assert_eq!(verdicts(&world, &file, &anchor), [(true, None); 2]);
    let other = Secret::<Host>::from_seed(&zeroize::Zeroizing::new([9; 32])).public();
    let [ours, theirs] = verdicts(&world, &file, &other.to_string());
    assert!(
        !ours.0 && ours == theirs,
        "another host's key: {ours:?} {theirs:?}"
    );

    let good = fs::read(&file).unwrap();
    let mut reader = Reader::default();
    reader.push(&good);
    let opening = reader.take_opening().unwrap().unwrap().encode();
    let mut records = Vec::new();
    while let Some(record) = reader.take().unwrap() {
        records.push(record);
    }
    let changed = world.path("changed.stream");
    for missing in 0..records.len() {
        let kept = records
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != missing);
        let kept: Vec<u8> = kept
            .flat_map(|(_, record)| Record::encode(record))
            .collect();
        fs::write(&changed, [&opening[..], &kept].concat()).unwrap();
        let [ours, theirs] = verdicts(&world, &changed, &anchor);
        assert_eq!(ours, theirs, "without record {missing}");
    }
    // Spread over the file: heads, signatures, bodies, places, and the records around them.
    for step in 0..48 {
        let at = opening.len() + step * (good.len() - opening.len()) / 48;
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&changed, bytes).unwrap();
        let [ours, theirs] = verdicts(&world, &changed, &anchor);
        assert_eq!(ours, theirs, "byte {at} changed");
    }
}

#[test]
fn a_part_of_a_stream_verifies_and_says_that_its_beginning_is_missing() {
    let world = World::connected().unwrap();
    let (whole, anchor) = (exported(&world), anchor(&world));
    let all = fs::read(&whole).unwrap();
    let records = local::records(&world.socket(), &world.host).unwrap();
    let mut batches: Vec<_> = records.iter().filter(|record| record.kind == 1).collect();
    batches.retain(|record| record.sandbox == "count");
    let last = batches.last().unwrap();
    assert!(batches[0].time_ms < last.time_ms);
    let at = wait::rfc_3339(last.time_ms);
    let export = |range: &[&str], name: &str| {
        let file = world.path(name);
        let arguments = [&["export-stream", "count", text(&file)], range].concat();
        let output = world.outhaul_output(&arguments).unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        (file, said(&output))
    };
    let verdict = |file: &Path| {
        let flags = ["--json", "--host-key", &anchor, text(file)];
        let ours = world.outhaul_output(&[&["verify-stream"], &flags[..]].concat());
        let ours: Value = serde_json::from_slice(&ours.unwrap().stdout).unwrap();
        let theirs = python::run("verify.py", &["stream", text(file), "--host-key", &anchor]);
        (ours, said(&theirs.unwrap()))
    };
    let (end, shown) = export(&["--since", &at], "end.part");
    assert!(shown.starts_with("OK, part: "), "{shown}");
    assert!(
        shown.contains("the beginning: what came before event "),
        "{shown}"
    );
    assert!(fs::metadata(&end).unwrap().len() < all.len() as u64);
    let (ours, theirs) = verdict(&end);
    assert_eq!(
        (&ours["verdict"], &ours["has_end"]),
        (&Value::from("part"), &Value::from(true))
    );
    let [events, before] = ["events", "events_before"].map(|name| ours[name].as_u64().unwrap());
    assert!(before > 0 && events > 0);
    assert_eq!(before + events, 302);
    let says = format!("OK, part: what came before event {before} is not in it: {events} events");
    assert!(theirs.starts_with(&says), "{theirs}");
    assert_eq!(verdicts(&world, &end, &anchor), [(true, None); 2]);
    // And the other half, which has its beginning.
    let (begin, shown) = export(&["--until", &at], "begin.stream");
    assert!(shown.starts_with("OK, open: "), "{shown}");
    let (ours, _) = verdict(&begin);
    assert_eq!(ours["events"].as_u64(), Some(before));
    assert_eq!(verdicts(&world, &begin, &anchor), [(true, None); 2]);
    // Of everything that the host's sandboxes said: whole here, since the range has all of it.
    let directory = world.path("all");
    let arguments = [
        "export-host",
        "--since",
        "1h",
        &world.host,
        text(&directory),
    ];
    let listed = world.outhaul_ok(&arguments).unwrap();
    assert!(
        listed.contains("count.stream") && listed.contains("OK, whole: 302 events"),
        "{listed}"
    );
    assert!(fs::read(directory.join("count.stream")).unwrap() == all);
    let empty = world.path("empty");
    let arguments = ["export-host", "--since", "0s", &world.host, text(&empty)];
    world.outhaul_ok(&arguments).unwrap();
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

/// A file with bytes, for a program to read.
fn put(world: &World, name: &str, bytes: &[u8]) -> String {
    let path = world.path(name);
    fs::write(&path, bytes).unwrap();
    text(&path).to_owned()
}

#[test]
fn tokens_commands_and_reports_verify_with_a_strangers_code_too() {
    let world = World::connected().unwrap();
    world
        .outhaul_ok(&[
            "run", "--detach", "--name", "long", IMAGE, "--", "sleep", "600",
        ])
        .unwrap();
    let token_file = world.path("run/long/in/token");
    let sandbox_token = wait::until("the sandbox's token", || fs::read(&token_file).ok());
    let identity = read_identity(&world.path("operator")).unwrap().unwrap();
    let host_token = identity.current.unwrap().token;
    let issuer = fs::read_to_string(world.path("broker/keys/issuer.key")).unwrap();
    let issuer = Secret::<Issuer>::from_file_text(&issuer)
        .unwrap()
        .public()
        .to_string();
    let dispatcher = world.dispatcher_key().unwrap().public().to_string();
    let host_key = anchor(&world);
    let status = local::get_json(&world.socket(), "/v1/status").unwrap();
    let audience = status["audience"].as_str().unwrap();
    let host = world.host.as_str();

    let of_token = ["--issuer-key", &issuer, "--audience", audience];
    let of_command = ["--dispatcher-key", &dispatcher, "--host", host];
    let of_report = ["--host-key", &host_key, "--host", host];
    let mut messages = vec![
        (
            "token",
            put(&world, "host.token", &host_token),
            &of_token,
            &issuer,
        ),
        (
            "token",
            put(&world, "sandbox.token", &sandbox_token),
            &of_token,
            &issuer,
        ),
    ];
    for record in local::records(&world.socket(), host).unwrap() {
        let name = format!("record-{}", record.offset);
        match record.kind {
            2 => messages.push((
                "report",
                put(&world, &name, &record.payload),
                &of_report,
                &host_key,
            )),
            3 => messages.push((
                "command",
                put(&world, &name, &record.payload),
                &of_command,
                &dispatcher,
            )),
            _ => {}
        }
    }
    let kinds: Vec<&str> = messages.iter().map(|(kind, ..)| *kind).collect();
    assert!(
        kinds.contains(&"report") && kinds.contains(&"command"),
        "{kinds:?}"
    );
    for (kind, file, given, key) in &messages {
        let inspected = world
            .outhaul_output(&["inspect", "--key", key, file])
            .unwrap();
        assert!(inspected.status.success(), "{}", said(&inspected));
        let verified =
            python::run("verify.py", &[&[*kind, file][..], &given[..]].concat()).unwrap();
        assert!(verified.status.success(), "{kind}: {}", said(&verified));
        let aad = match *kind {
            "report" => format!("v1/{host}/reports"),
            "command" => format!("v1/{host}/commands"),
            _ => String::new(),
        };
        let checked =
            python::run("interop.py", &["check", kind, file, key, "--aad", &aad]).unwrap();
        assert!(checked.status.success(), "{kind}: {}", said(&checked));
        // And neither takes what was changed.
        let mut bytes = fs::read(file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let bad = put(&world, "changed", &bytes);
        let inspected = world
            .outhaul_output(&["inspect", "--key", key, &bad])
            .unwrap();
        assert_eq!(inspected.status.code(), Some(1), "{}", said(&inspected));
        let verified =
            python::run("verify.py", &[&[*kind, &bad][..], &given[..]].concat()).unwrap();
        assert_eq!(
            verified.status.code(),
            Some(1),
            "{kind}: {}",
            said(&verified)
        );
        let checked =
            python::run("interop.py", &["check", kind, &bad, key, "--aad", &aad]).unwrap();
        assert_eq!(checked.status.code(), Some(1), "{kind}: {}", said(&checked));
    }
}

#[test]
fn what_another_cose_library_signs_is_taken_here() {
    let place = tempfile::tempdir().unwrap();
    let made = python::run("interop.py", &["sign", text(place.path())]).unwrap();
    assert!(made.status.success(), "{}", said(&made));
    let read = |name: &str| fs::read(place.path().join(name)).unwrap();
    let keys: Value = serde_json::from_slice(&read("keys.json")).unwrap();
    let key = |role: &str| keys[role].as_str().unwrap();
    let issuer: Public<Issuer> = key("issuer").parse().unwrap();
    let dispatcher: Public<Dispatcher> = key("dispatcher").parse().unwrap();
    let host_key: Public<Host> = key("host").parse().unwrap();
    let host = HostId::new("edge-1").unwrap();
    let audience = keys["audience"].as_str().unwrap();
    let now = UnixMillis(1_800_000_000_000);
    for (name, subject) in [
        ("host.token", "edge-1"),
        ("sandbox.token", "edge-1/build-7"),
    ] {
        let grant = token::check(&read(name), &[issuer], audience, now).unwrap();
        assert_eq!(Some(grant.subject), Subject::parse(subject));
    }
    for name in ["stop.command", "launch.command"] {
        command::verify(&read(name), &[dispatcher], &host, now).unwrap();
    }
    report::verify(&read("launched.report"), &[host_key], &host).unwrap();
}
