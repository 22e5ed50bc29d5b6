//! What the plane lets go of the journal, and what it holds on to.

use super::*;
use crate::core::retention::Limits as Kept;
use protocol::{hole::Cause, stream::Batch};

/// A plane that keeps nothing for long, with a host that runs a sandbox and owes an answer.
async fn busy() -> (TempDir, Plane) {
    let (place, plane, _) = enrolled().await;
    plane
        .submit_command(launch(&plane, 1, "build-7"), PEER)
        .await
        .unwrap();
    let report = signed_report(10, 1, launched(1));
    assert_eq!(plane.accept_report(&edge(), report).await, Accepted::Stored);
    plane
        .submit_command(launch(&plane, 2, "build-8"), PEER)
        .await
        .unwrap();
    let mut writer = writer();
    for text in [&b"one"[..], b"two"] {
        let batch = batch(&mut writer, text);
        assert_eq!(accept(&plane, &build(), batch).await, Accepted::Stored);
    }
    plane.journal().roll().await.unwrap();
    (place, plane)
}

/// Everything goes but what is needed.
async fn let_go(plane: &Plane) -> String {
    let order = crate::shell::journal::Order {
        limits: Kept {
            age_ms: Some(1),
            ..Kept::default()
        },
        now_ms: u64::MAX,
        floor: plane.settled_end().await,
        needed: plane
            .store()
            .needed_records(plane.now().0)
            .unwrap()
            .into_iter()
            .collect(),
    };
    plane
        .journal()
        .retain(&order, &mut |gone| plane.store().record_dropped(gone, 1))
        .unwrap();
    let batch = plane
        .journal()
        .reader(0, Filter::default())
        .next_batch(100, 1 << 20)
        .unwrap();
    let words = batch.items.iter().map(|item| match item {
        Item::Record(record) => record.offset.to_string(),
        Item::Gap { from, to, causes } => format!("{from}-{to}!{causes}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn what_is_unsettled_or_names_the_key_of_what_runs_stays_until_it_no_longer_is() {
    let (place, plane) = busy().await;
    assert_eq!(let_go(&plane).await, "0-1!age 1 2 3-5!age");
    assert_eq!(
        plane.open_commands(&edge()).await.unwrap(),
        [record_at(&plane, 2)]
    );
    drop(plane);
    let plane = open_in(place.path()).await;
    assert_eq!(
        plane.open_commands(&edge()).await.unwrap().len(),
        1,
        "after a restart too"
    );
    assert_eq!(state(&plane).0, "running");
    let report = signed_report(10, 2, ended());
    assert_eq!(plane.accept_report(&edge(), report).await, Accepted::Stored);
    plane.journal().roll().await.unwrap();
    assert_eq!(let_go(&plane).await, "0-2!age 2 3-6!age");
    let dropped = plane.store().dropped().unwrap();
    let row = dropped.first().unwrap();
    assert_eq!(
        (row.host.as_str(), row.cause.as_str(), row.records),
        ("edge-1", "age", 5)
    );
    assert_eq!((row.from_offset, row.to_offset), (0, 6));
}

fn record_at(plane: &Plane, offset: u64) -> Vec<u8> {
    let batch = plane
        .journal()
        .reader(offset, Filter::default())
        .next_batch(1, 1 << 20)
        .unwrap();
    match batch.items.into_iter().next() {
        Some(Item::Record(record)) if record.offset == offset => record.payload,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_round_drops_what_is_too_old_tells_the_audit_trail_once_and_counts_it() {
    let place = tempfile::tempdir().unwrap();
    let journal = open_journal(place.path()).await;
    for sandbox in ["a", "b"] {
        let entry = crate::core::journal::Entry {
            kind: crate::core::journal::RecordKind::Event,
            host: "edge-1",
            sandbox: Some(sandbox),
            time_ms: 1_000,
            payload: b"old",
        };
        journal.append(entry).await.unwrap();
    }
    drop(journal);
    let kept = Kept {
        age_ms: Some(86_400_000),
        ..Kept::default()
    };
    let plane = open_changed(place.path(), |parts| parts.retention = kept).await;
    for _ in 0..2 {
        plane.retain().await.unwrap();
    }
    assert_eq!(
        (plane.journal().oldest(), plane.journal().next_offset()),
        (2, 2)
    );
    // The plane makes a round of its own at its start, and may be the one that drops: then its word of it is still on its way.
    let told = || {
        let mut rows = plane.store().audit_rows(0, 100).unwrap();
        rows.retain(|row| row.name == "journal.dropped");
        rows
    };
    let deadline = clock::mono() + Duration::from_secs(20);
    while told().is_empty() {
        assert!(clock::mono() < deadline, "nothing was told");
        tokio::task::yield_now().await;
    }
    assert_eq!(plane.dropped()[&Cause::Age].records, 2);
    let told = told();
    assert_eq!(told.len(), 1);
    assert!(
        told[0].fields.contains(r#""age":{"bytes":"#),
        "{}",
        told[0].fields
    );
}

#[tokio::test]
async fn a_purge_takes_the_bodies_leaves_the_heads_and_is_in_the_audit_trail() {
    let (_place, plane) = busy().await;
    let mut ending = writer();
    let _ = (batch(&mut ending, b"one"), batch(&mut ending, b"two"));
    let forwarded = Forwarded {
        sandbox: build(),
        batch: ByteBuf::from(batch(&mut ending, b"three")),
    };
    let report = signed_report(10, 2, News::Forwarded(forwarded));
    assert_eq!(plane.accept_report(&edge(), report).await, Accepted::Stored);
    let purge = |sandbox: &str, before| Purge {
        host: edge(),
        sandbox: SandboxId::new(sandbox).ok(),
        before,
    };
    for (other, before) in [("build-8", None), ("build-7", Some(UnixMillis(0)))] {
        let purged = plane.purge(purge(other, before), PEER).await.unwrap();
        assert_eq!(purged.gone, []);
    }
    let purged = plane.purge(purge("build-7", None), PEER).await.unwrap();
    let count = |purged: &crate::shell::journal::Purged| -> u64 {
        purged.gone.iter().map(|gone| gone.count.records).sum()
    };
    assert_eq!((count(&purged), purged.damaged), (4, vec![]));
    let batch = plane
        .journal()
        .reader(0, Filter::default())
        .next_batch(100, 1 << 20)
        .unwrap();
    let mut heads = Vec::new();
    for item in &batch.items {
        match item {
            Item::Record(record) if record.is_purged => {
                heads.push(Batch::parse_head(&record.payload).unwrap().head.batch);
            }
            Item::Record(record) => assert!(record.offset < 3),
            Item::Gap { from, to, causes } => {
                assert_eq!((*from, *to, *causes), (5, 6, Cause::Purge.into()));
            }
        }
    }
    assert_eq!(heads, [0, 1, 2]);
    let rows = plane.store().audit_rows(0, 100).unwrap();
    let told: Vec<_> = rows
        .iter()
        .filter(|row| row.name == "journal.purged")
        .collect();
    assert_eq!(
        (told.len(), told[2].subject.as_str(), told[2].actor.as_str()),
        (3, "edge-1/build-7", "uid:1000")
    );
    assert!(
        told[2].fields.contains(r#""records":4"#),
        "{}",
        told[2].fields
    );
    assert_eq!(
        count(&plane.purge(purge("build-7", None), PEER).await.unwrap()),
        0,
        "once"
    );
}

#[tokio::test]
async fn a_purged_batch_that_comes_again_is_known_and_its_body_does_not_come_back() {
    let (place, plane) = busy().await;
    let all = Purge {
        host: edge(),
        sandbox: None,
        before: None,
    };
    plane.purge(all, PEER).await.unwrap();
    drop(plane);
    let plane = open_in(place.path()).await;
    let again = batch(&mut writer(), b"one");
    assert_eq!(accept(&plane, &build(), again).await, Accepted::Again);
}
