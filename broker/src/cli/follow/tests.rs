//! Tests of `follow`.

use super::super::{
    fake_broker::FakeBroker,
    known_hosts::tests::secret,
    verify::tests::{batch, batches, ended, host, launched, sandbox},
};
use super::*;
use protocol::key::Host;

fn reader(broker: &FakeBroker, from: u64, follow: bool, start: Start) -> Follower {
    let known_hosts = KnownHosts::new(broker.path().join("config"));
    let query = Query {
        from,
        follow,
        ..Query::default()
    };
    Follower::new(broker.client(), known_hosts, query, start)
}

/// A run, as records 0 to 3: launched, two batches, ended.
fn run() -> Vec<Vec<u8>> {
    let batches = batches(&["one", "two"]);
    let records = [
        launched(),
        batch(batches[0].clone()),
        batch(batches[1].clone()),
        ended(),
    ];
    let numbered = records.into_iter().enumerate();
    numbered
        .map(|(index, record)| {
            let offset = index as u64;
            Record { offset, ..record }.encode()
        })
        .collect()
}

fn keys(seed: u8) -> Vec<u8> {
    let key = secret::<Host>(seed).public();
    format!(r#"{{"keys":[{{"generation":1,"key":"{key}","succession":null}}]}}"#).into_bytes()
}

/// What a reader sees of one line.
fn word(line: &Line) -> String {
    match &line.what {
        What::Event(told) => String::from_utf8(told.data.clone()).unwrap(),
        What::Report(news) => news.word().to_owned(),
        What::Note(note) => format!("note: {}", note.split(':').next().unwrap()),
        What::Unverified(_) => "unverified".to_owned(),
        What::Distrusted(_) => "distrusted".to_owned(),
        What::Asked { .. } | What::Missing(_) | What::Purged { .. } | What::Withdrawn(_) => {
            "?".to_owned()
        }
    }
}

async fn words(follower: &mut Follower, until: &str) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(lines) = follower.next().await.unwrap() {
        words.extend(lines.iter().map(word));
        if words.last().is_some_and(|last| last == until) {
            break;
        }
    }
    words
}

#[tokio::test]
async fn a_run_is_read_verified_and_its_host_pinned() {
    let broker = FakeBroker::new(|path, _| {
        if path.starts_with("/v1/records") {
            run().concat()
        } else {
            keys(1)
        }
    });
    let mut follower = reader(&broker, 0, false, Start::Origin);
    assert_eq!(
        words(&mut follower, "").await,
        [
            "note: first contact with edge-1",
            "launched",
            "one",
            "two",
            "ended"
        ]
    );
    assert!(follower.follow().is_closed(&host(), &sandbox()));
    assert!(broker.path().join("config/known_hosts.toml").exists());
    let again = words(&mut reader(&broker, 0, false, Start::Origin), "").await;
    assert_eq!(again[0], "launched", "pinned by now");
}

#[tokio::test]
async fn what_a_broker_broke_off_is_asked_for_again_from_there() {
    let broker = FakeBroker::new(|path, _| {
        let run = run();
        if path.starts_with("/v1/records?from=0") {
            // Two records and half of the third.
            [&run[0][..], &run[1], &run[2][..run[2].len() / 2]].concat()
        } else if path.starts_with("/v1/records?from=2") {
            run[2..].concat()
        } else {
            keys(1)
        }
    });
    let mut follower = reader(&broker, 0, true, Start::Origin);
    let words = words(&mut follower, "ended").await;
    assert_eq!(words[1..3], ["launched", "one"]);
    assert!(words[3].starts_with("note: the broker does not answer"));
    assert_eq!(words[4..], ["two", "ended"]);
    assert_eq!(follower.follow().failures(), 0);
}

#[tokio::test]
async fn records_that_end_in_the_middle_are_an_error_where_nothing_is_followed() {
    let broker = FakeBroker::new(|path, _| {
        let run = run();
        if path.starts_with("/v1/records") {
            [&run[0][..], &run[1][..10]].concat()
        } else {
            keys(1)
        }
    });
    let mut follower = reader(&broker, 0, false, Start::Origin);
    assert!(follower.next().await.unwrap().is_some());
    let error = follower.next().await.unwrap_err();
    assert!(error.to_string().contains("broke off"), "{error:#}");
}

#[tokio::test]
async fn reading_from_the_middle_verifies_from_the_start() {
    let broker = FakeBroker::new(|path, _| {
        let run = run();
        if path.starts_with("/v1/sandboxes/") {
            br#"{"host":"edge-1","sandbox":"build-7","image":"web:1","state":"running","reason":null,"exit_code":null,
                "detail":null,"created_ms":1,"updated_ms":1,"first_offset":0}"#
                .to_vec()
        } else if path.starts_with("/v1/records?from=0") {
            run.concat()
        } else if path.starts_with("/v1/records") {
            run[2..].concat()
        } else {
            keys(1)
        }
    });
    let mut follower = reader(&broker, 2, false, Start::Midway);
    let words = words(&mut follower, "").await;
    assert_eq!(words[1..], ["two", "ended"]);
    assert_eq!(follower.follow().failures(), 0);
    let asked = broker.asked();
    assert!(
        asked.contains(&"/v1/records?from=0&follow=false&host=edge-1&sandbox=build-7".to_owned()),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_host_with_another_key_than_the_pinned_one_is_not_believed() {
    let broker = FakeBroker::new(|path, _| {
        if path.starts_with("/v1/records") {
            run().concat()
        } else {
            keys(1)
        }
    });
    let known_hosts = KnownHosts::new(broker.path().join("config"));
    let other = api::HostKey {
        generation: 1,
        key: secret::<Host>(9).public().to_string(),
        succession: None,
    };
    known_hosts.judge(&host(), &[other]).unwrap().unwrap();
    let words = words(&mut reader(&broker, 0, false, Start::Origin), "").await;
    assert_eq!(words[..2], ["distrusted", "unverified"]);
    assert!(words.iter().all(|word| word != "one" && word != "ended"));
}

#[test]
fn a_query_is_a_path() {
    let query = Query {
        from: 3,
        to: None,
        host: HostId::new("edge-1").ok(),
        sandbox: SandboxId::new("build-7").ok(),
        follow: true,
    };
    assert_eq!(
        query.path(9),
        "/v1/records?from=9&follow=true&host=edge-1&sandbox=build-7"
    );
    assert_eq!(Query::default().path(0), "/v1/records?from=0&follow=false");
}
