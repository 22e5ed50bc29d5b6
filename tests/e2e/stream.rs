//! What a sandbox writes arrives: complete, in order, signed by its key, which the host vouches for.

use std::collections::BTreeMap;

use protocol::{
    event::{FLAG_CONTINUED, Kind},
    report::{self, News},
    stream::{Verdict, Verifier},
};
use tests::{docker::IMAGE, local, world::World};

/// Prints 20,000 numbered lines on standard output, some on standard error, part of a line, and ends with 7.
const SCRIPT: &str = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done; echo oops >&2; printf 'no end'; exit 7";

fn expected() -> String {
    (1..=20_000)
        .map(|number| format!("line {number}\n"))
        .collect::<String>()
        + "no end"
}

#[test]
fn events_arrive_complete_in_order_signed_and_bound_to_the_host() {
    let world = World::connected().unwrap();
    let output = world
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
            SCRIPT,
        ])
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(7),
        "the exit code is the sandbox's: {said}"
    );
    assert!(said.contains("oops"));
    assert!(
        String::from_utf8_lossy(&output.stdout) == expected(),
        "the command line prints what the sandbox printed"
    );

    // And again from the journal, without the command line: all that is trusted is the host's key.
    let host_key = world.host_key().unwrap();
    let mut verifiers = BTreeMap::new();
    let mut batches = Vec::new();
    for record in local::records(&world.socket(), &world.host).unwrap() {
        match record.kind {
            1 => batches.push(record),
            2 => {
                let report = report::verify(&record.payload, &[host_key], &world.host_id())
                    .unwrap()
                    .into_value();
                if let News::Launched(launched) = report.news {
                    let verifier = Verifier::new(&world.host_id(), &launched.sandbox, launched.key);
                    verifiers.insert(launched.sandbox.to_string(), verifier);
                }
            }
            _ => {}
        }
    }
    let verifier = verifiers
        .get_mut("count")
        .expect("the host vouched for the sandbox's key");
    let mut printed = Vec::new();
    let mut exit_code = None;
    for batch in &batches {
        assert_eq!(batch.sandbox, "count");
        let Verdict::Next(_, events) = verifier.check(&batch.payload).unwrap() else {
            panic!("a batch is in the journal twice");
        };
        for event in events {
            if event.kind == Kind::Stdout {
                printed.extend_from_slice(event.data);
                if event.flags & FLAG_CONTINUED == 0 {
                    printed.push(b'\n');
                }
            }
            if event.kind == Kind::Exited {
                exit_code = Some(event.value);
            }
        }
    }
    assert!(printed == expected().as_bytes(), "every byte, in order");
    assert_eq!(exit_code, Some(7));
    assert!(verifier.is_closed(), "the stream says that it is whole");
}

#[test]
fn under_metadata_no_output_leaves_the_host() {
    let world = World::connected().unwrap();
    let script = "echo planted-secret; echo planted-secret >&2";
    let output = world
        .outhaul_output(&[
            "run",
            "--name",
            "quiet",
            "--content",
            "metadata",
            IMAGE,
            "--",
            "sh",
            "-c",
            script,
        ])
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let needle = b"planted-secret";
    let records = local::records(&world.socket(), &world.host).unwrap();
    let events: Vec<_> = records.iter().filter(|record| record.kind == 1).collect();
    assert!(!events.is_empty());
    let leaked = events.iter().any(|event| {
        event
            .payload
            .windows(needle.len())
            .any(|window| window == needle)
    });
    assert!(!leaked && !String::from_utf8_lossy(&output.stdout).contains("planted-secret"));
}
