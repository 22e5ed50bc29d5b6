//! The plane with a real journal, store and router.

mod audit;
mod identity;
mod presence;
mod restore;
mod retention;
mod right;
mod rotation;
mod witness;

use std::{path::Path, time::Duration};

use protocol::{
    command::{self, Command, Content, Launch, Limits, Order, Stop},
    event::{Event, Kind},
    exchange::{Grant, InstallProof, Proof, Refusal, Request, Succession, sign_request},
    id::CommandId,
    install_key::InstallKey,
    key::{Dispatcher, Host, Sandbox},
    report::{self, Ended, Forwarded, Launched, News, Report, State, Status, Stopped},
    scope::Permission,
    signed,
    stream::{Writer, stream_id},
};
use serde_bytes::ByteBuf;
use tempfile::TempDir;

use super::*;
use crate::shell::{
    journal::{Durability, Filter, Item, OwnedRecord},
    room::Room,
    router,
    store::{DispatcherRow, HostKind},
};

const PEER: Peer = Peer::Local { uid: 1000 };

fn secret<R: protocol::key::Role>(byte: u8) -> protocol::key::Secret<R> {
    protocol::key::Secret::from_seed(&Zeroizing::new([byte; 32]))
}

fn edge() -> HostId {
    HostId::new("edge-1").unwrap()
}

fn build() -> SandboxId {
    SandboxId::new("build-7").unwrap()
}

/// The last plane's clerk may hold the journal for a moment longer than we did.
async fn open_journal(place: &Path) -> Journal {
    let deadline = clock::mono() + Duration::from_secs(10);
    loop {
        match Journal::open(&place.join("journal"), Durability::Os) {
            Ok(journal) => return journal,
            Err(error) => assert!(clock::mono() < deadline, "{error:#}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn open_in(place: &Path) -> Plane {
    open_changed(place, |_| ()).await
}

async fn open_changed(place: &Path, change: impl FnOnce(&mut Parts)) -> Plane {
    let store = Store::open(&place.join("state.db")).unwrap();
    let directory = crate::shell::keys::DataDir::open(&place.join("identity")).unwrap();
    let mut parts = Parts {
        audit: AuditKey::open(&directory, secret(6), &store, "outhaul-1").unwrap(),
        store,
        room: Room::open(place, 1).unwrap(),
        journal: open_journal(place).await,
        bench: None,
        places: Places::open(&place.join("places")).unwrap(),
        admitted: Admitted::default(),
        retention: crate::core::retention::Limits::default(),
        router: Router::spawn(router::default_config()).await.unwrap(),
        issuer: Issuers::of(secret(1)),
        recovery_window: Duration::from_secs(72 * 3600),
        token_life: Duration::from_secs(3600),
        install_key_life: Duration::from_secs(24 * 3600),
        address: "broker.example:8443".to_owned(),
        is_address_set: true,
        certificates: Facts::sample(),
    };
    change(&mut parts);
    Plane::open(parts).unwrap()
}

/// A plane with a registered dispatcher.
async fn plane() -> (TempDir, Plane) {
    let place = tempfile::tempdir().unwrap();
    let plane = open_in(place.path()).await;
    let row = DispatcherRow {
        public_key: *secret::<Dispatcher>(2).public().as_bytes(),
        name: "ada".to_owned(),
        added_ms: 1,
        added_by: "uid:1000".to_owned(),
        until_ms: None,
    };
    assert!(plane.store().add_dispatcher(&row).unwrap());
    (place, plane)
}

fn bundle(plane: &Plane, reissue: bool) -> InstallKey {
    let dispatchers = [secret::<Dispatcher>(2).public()];
    let added = plane
        .add_host(&edge(), HostKind::Docker, &dispatchers, reissue, &PEER)
        .unwrap();
    assert!(added.bundle_toml.contains("broker.example:8443"));
    InstallKey::from_text(&added.install_key).unwrap()
}

async fn exchange(plane: &Plane, key: u8, generation: u64, proof: Proof) -> Result<Grant, Refusal> {
    let key = secret::<Host>(key);
    let request = Request {
        nonce: plane.challenge().unwrap().nonce,
        host: edge(),
        key: key.public(),
        generation,
        proof,
        witness: None,
    };
    let answer = plane.exchange(sign_request(&key, &request)).await;
    answer.map_err(|no| no.reason)
}

async fn enroll(plane: &Plane, install: &InstallKey, key: u8) -> Result<Grant, Refusal> {
    exchange(plane, key, 1, Proof::InstallKey(install.into())).await
}

async fn renew(plane: &Plane, old: u8, new: u8, generation: u64) -> Result<Grant, Refusal> {
    let succession = Succession {
        host: edge(),
        generation,
        key: secret::<Host>(new).public(),
        time: UnixMillis(1),
    };
    let signed = signed::sign(&secret::<Host>(old), &succession, b"");
    let proof = Proof::HostKey(ByteBuf::from(signed));
    exchange(plane, new, generation, proof).await
}

/// A plane whose host is enrolled with key 10.
async fn enrolled() -> (TempDir, Plane, Grant) {
    let (place, plane) = plane().await;
    let install = bundle(&plane, false);
    let grant = enroll(&plane, &install, 10).await.unwrap();
    (place, plane, grant)
}

fn launch(plane: &Plane, id: u8, sandbox: &str) -> Vec<u8> {
    let launch = Launch {
        sandbox: SandboxId::new(sandbox).unwrap(),
        image: "tool:1".into(),
        arguments: vec![],
        environment: vec![],
        sources: vec![],
        limits: Limits::default(),
        content: Content::Full,
        isolation: None,
    };
    signed_command(plane, 2, id, Order::Launch(launch))
}

fn signed_command(plane: &Plane, signer: u8, id: u8, order: Order) -> Vec<u8> {
    let issued = plane.now();
    let expires = issued.plus(Duration::from_secs(600));
    let command = Command {
        id: CommandId([id; 16]),
        host: edge(),
        issued,
        expires,
        order,
    };
    command::sign(&secret(signer), &command)
}

fn signed_report(key: u8, number: u64, news: News) -> Vec<u8> {
    report::sign(
        &secret(key),
        &Report {
            host: edge(),
            number,
            time: UnixMillis(1),
            news,
        },
    )
}

fn launched(command: u8) -> News {
    News::Launched(Launched {
        command: CommandId([command; 16]),
        sandbox: build(),
        key: secret::<Sandbox>(20).public(),
        image: "sha256:00".into(),
        container: "c".into(),
        content: Content::Full,
    })
}

fn ended() -> News {
    News::Ended(Ended {
        command: None,
        sandbox: build(),
        state: State::Finished,
        exit_code: Some(3),
        reason: None,
        detail: String::new(),
    })
}

fn writer() -> Writer {
    Writer::new(secret(20), stream_id(&edge(), &build()), [7; 8])
}

fn batch(writer: &mut Writer, text: &[u8]) -> Vec<u8> {
    let event = Event {
        time: UnixMillis(1),
        kind: Kind::Stdout,
        flags: 0,
        size: text.len() as u64,
        value: 0,
        data: text,
    };
    assert!(writer.push(&event));
    writer.seal(UnixMillis(1), false)
}

fn records(plane: &Plane) -> Vec<OwnedRecord> {
    let batch = plane
        .journal()
        .reader(0, Filter::default())
        .next_batch(1_000, 1 << 20)
        .unwrap();
    let record = |item| match item {
        Item::Record(record) => record,
        Item::Gap { .. } => panic!("nothing is missing"),
    };
    batch.items.into_iter().map(record).collect()
}

fn state(plane: &Plane) -> (String, Option<i32>) {
    let row = plane.store().sandbox("edge-1", "build-7").unwrap().unwrap();
    (row.state, row.exit_code)
}

fn audit_names(plane: &Plane) -> Vec<String> {
    plane
        .store()
        .audit_rows(0, 100)
        .unwrap()
        .into_iter()
        .map(|row| row.name)
        .collect()
}

async fn accept(plane: &Plane, sandbox: &SandboxId, payload: Vec<u8>) -> Accepted {
    let accepted = plane
        .accept_events((&edge(), sandbox), stream_id(&edge(), sandbox), &[payload])
        .await;
    let [accepted] = accepted[..] else {
        panic!("one answer for each");
    };
    accepted
}

#[tokio::test]
async fn of_batches_that_come_together_each_has_its_own_answer_and_place() {
    let (_place, plane, _) = enrolled().await;
    let stream = stream_id(&edge(), &build());
    let mut writer = writer();
    let (one, two) = (batch(&mut writer, b"one"), batch(&mut writer, b"two"));
    let forked = batch(&mut self::writer(), b"other");
    let together = [
        one.clone(),
        b"rubbish".to_vec(),
        one.clone(),
        forked,
        two.clone(),
    ];
    let accepted = plane
        .accept_events((&edge(), &build()), stream, &together)
        .await;
    assert_eq!(
        accepted,
        [
            Accepted::Stored,
            Accepted::Malformed,
            Accepted::Again,
            Accepted::Fork,
            Accepted::Stored
        ]
    );
    let rubbish = [b"rubbish".to_vec(), Vec::new()];
    let accepted = plane
        .accept_events((&edge(), &build()), stream, &rubbish)
        .await;
    assert_eq!(accepted, [Accepted::Malformed; 2]);
    let payloads: Vec<_> = records(&plane)
        .into_iter()
        .map(|record| record.payload)
        .collect();
    assert_eq!(payloads, [one, two]);
}

#[tokio::test]
async fn a_batch_is_stored_once_however_often_it_comes_and_over_a_restart() {
    let (place, plane, _) = enrolled().await;
    let mut writer = writer();
    let (one, two) = (batch(&mut writer, b"one"), batch(&mut writer, b"two"));
    let mut fork = self::writer();
    let forked = batch(&mut fork, b"other");
    let take = |plane: &Plane, bytes: &[u8]| {
        let (plane, bytes) = (plane.clone(), bytes.to_vec());
        async move { accept(&plane, &build(), bytes).await }
    };
    assert_eq!(take(&plane, &one).await, Accepted::Stored);
    assert_eq!(take(&plane, &one).await, Accepted::Again);
    assert_eq!(take(&plane, &forked).await, Accepted::Fork);
    assert_eq!(
        take(&plane, &two[..two.len() - 1]).await,
        Accepted::Malformed
    );
    let other = SandboxId::new("build-8").unwrap();
    assert_eq!(
        accept(&plane, &other, one.clone()).await,
        Accepted::Malformed,
        "another's stream"
    );
    drop(plane);
    let plane = open_in(place.path()).await;
    assert_eq!(take(&plane, &one).await, Accepted::Again);
    assert_eq!(take(&plane, &forked).await, Accepted::Fork);
    assert_eq!(take(&plane, &two).await, Accepted::Stored);
    let payloads: Vec<_> = records(&plane)
        .into_iter()
        .map(|record| record.payload)
        .collect();
    assert_eq!(payloads, [one, two]);
}

#[tokio::test]
async fn a_command_is_kept_until_a_report_settles_it() {
    let (place, plane, _) = enrolled().await;
    let bytes = launch(&plane, 1, "build-7");
    let mut link = plane.router().link(&edge()).await.unwrap();
    let offset = plane.submit_command(bytes.clone(), PEER).await.unwrap();
    assert_eq!(
        link.next().await,
        Some(router::Delivery::Message(bytes.clone())),
        "live"
    );
    assert_eq!(
        plane.submit_command(bytes.clone(), PEER).await.unwrap(),
        offset,
        "the same again"
    );
    assert_eq!(
        plane.open_commands(&edge()).await.unwrap(),
        std::slice::from_ref(&bytes)
    );
    assert_eq!(state(&plane), ("creating".to_owned(), None));
    drop((link, plane));
    let plane = open_in(place.path()).await;
    assert_eq!(
        plane.open_commands(&edge()).await.unwrap(),
        [bytes],
        "over a restart"
    );
    let report = signed_report(10, 1, launched(1));
    assert_eq!(
        plane.accept_report(&edge(), report.clone()).await,
        Accepted::Stored
    );
    assert_eq!(plane.accept_report(&edge(), report).await, Accepted::Again);
    assert!(plane.open_commands(&edge()).await.unwrap().is_empty());
    assert_eq!(state(&plane), ("running".to_owned(), None));
    assert_eq!(
        plane
            .accept_report(&edge(), signed_report(10, 2, ended()))
            .await,
        Accepted::Stored
    );
    assert_eq!(state(&plane), ("finished".to_owned(), Some(3)));
    let row = plane.store().sandbox("edge-1", "build-7").unwrap().unwrap();
    assert_eq!(
        row.public_key,
        Some(*secret::<Sandbox>(20).public().as_bytes())
    );
    assert_eq!(
        (row.image.as_deref(), Extra::of(&row).first_offset),
        (Some("tool:1"), Some(offset))
    );
    let names = audit_names(&plane);
    for name in [
        "sandbox.launch_requested",
        "sandbox.running",
        "sandbox.finished",
    ] {
        assert_eq!(
            names.iter().filter(|other| *other == name).count(),
            1,
            "{name}: {names:?}"
        );
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_is_refused_with_its_reason() {
    let (_place, plane, _) = enrolled().await;
    let submit = |bytes: Vec<u8>| {
        let plane = plane.clone();
        async move { plane.submit_command(bytes, PEER).await.unwrap_err() }
    };
    let stop = |sandbox: &str| {
        Order::Stop(Stop {
            sandbox: SandboxId::new(sandbox).unwrap(),
            grace_s: 1,
        })
    };
    plane
        .submit_command(launch(&plane, 1, "build-7"), PEER)
        .await
        .unwrap();
    assert!(matches!(
        submit(launch(&plane, 2, "build-7")).await,
        SubmitError::SandboxExists(..)
    ));
    assert!(matches!(
        submit(launch(&plane, 1, "build-8")).await,
        SubmitError::IdTaken
    ));
    assert!(matches!(
        submit(vec![0; 70_000]).await,
        SubmitError::TooLarge { .. }
    ));
    assert!(matches!(submit(vec![0; 7]).await, SubmitError::Malformed));
    let unlisted = signed_command(&plane, 3, 4, stop("build-7"));
    assert!(matches!(submit(unlisted).await, SubmitError::Dispatcher));
    let nothing = signed_command(&plane, 2, 5, stop("build-9"));
    assert!(matches!(
        submit(nothing).await,
        SubmitError::SandboxUnknown(..)
    ));
    assert!(plane.revoke_host(&edge(), &PEER).unwrap());
    assert!(matches!(
        submit(launch(&plane, 6, "build-9")).await,
        SubmitError::HostRevoked(_)
    ));
    assert_eq!(records(&plane).len(), 1, "nothing else was journaled");
}

#[tokio::test]
async fn reports_are_taken_under_the_keys_a_host_has_and_had_and_no_others() {
    let (_place, plane, _) = enrolled().await;
    let late = signed_report(10, 1, launched(1));
    renew(&plane, 10, 11, 2).await.unwrap();
    assert_eq!(
        plane.accept_report(&edge(), late.clone()).await,
        Accepted::Stored
    );
    assert_eq!(plane.accept_report(&edge(), late).await, Accepted::Again);
    assert_eq!(
        plane
            .accept_report(&edge(), signed_report(11, 2, ended()))
            .await,
        Accepted::Stored
    );
    assert_eq!(
        plane
            .accept_report(&edge(), signed_report(99, 3, ended()))
            .await,
        Accepted::Malformed
    );
    let stopped = News::Stopped(Stopped {
        command: CommandId([9; 16]),
        sandbox: build(),
    });
    assert_eq!(
        plane
            .accept_report(&edge(), signed_report(11, 2, stopped))
            .await,
        Accepted::Fork
    );
    let other = HostId::new("edge-2").unwrap();
    assert_eq!(
        plane
            .accept_report(&other, signed_report(11, 4, ended()))
            .await,
        Accepted::Malformed
    );
}

#[tokio::test]
async fn what_a_container_left_unsent_is_filed_under_it_once() {
    let (_place, plane, _) = enrolled().await;
    let mut writer = writer();
    let (one, two) = (batch(&mut writer, b"one"), batch(&mut writer, b"two"));
    assert_eq!(
        accept(&plane, &build(), one.clone()).await,
        Accepted::Stored
    );
    let forward = |number, batch: &[u8]| {
        let news = News::Forwarded(Forwarded {
            sandbox: build(),
            batch: ByteBuf::from(batch),
        });
        signed_report(10, number, news)
    };
    for (number, bytes) in [(1, one.as_slice()), (2, &two), (3, b"rubbish"), (4, &two)] {
        assert_eq!(
            plane.accept_report(&edge(), forward(number, bytes)).await,
            Accepted::Stored
        );
    }
    let events: Vec<_> = records(&plane)
        .into_iter()
        .filter(|record| record.kind == crate::core::journal::RecordKind::Event)
        .map(|record| (record.sandbox, record.payload))
        .collect();
    let name = Some("build-7".to_owned());
    assert_eq!(events, [(name.clone(), one), (name, two.clone())]);
    assert_eq!(
        accept(&plane, &build(), two).await,
        Accepted::Again,
        "the sandbox comes back"
    );
}

#[tokio::test]
async fn what_a_crash_left_out_of_the_store_is_put_there_from_the_journal() {
    let (place, plane, _) = enrolled().await;
    let command = launch(&plane, 1, "build-7");
    let report = signed_report(10, 1, launched(1));
    // Straight to the journal, as if the process ended before the store followed.
    for (kind, payload) in [
        (crate::core::journal::RecordKind::Command, &command),
        (crate::core::journal::RecordKind::Report, &report),
    ] {
        let entry = crate::core::journal::Entry {
            kind,
            host: "edge-1",
            sandbox: Some("build-7"),
            time_ms: plane.now().0,
            payload,
        };
        plane.journal().append(entry).await.unwrap();
    }
    drop(plane);
    let plane = open_in(place.path()).await;
    assert_eq!(state(&plane).0, "running");
    assert!(plane.open_commands(&edge()).await.unwrap().is_empty());
    assert_eq!(plane.accept_report(&edge(), report).await, Accepted::Again);
    assert_eq!(
        plane.submit_command(command, PEER).await.unwrap(),
        0,
        "its first place counts"
    );
}
