//! The kill loop: publishers and a reader, while the broker is killed at random points and started again.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use protocol::{
    id::HostId,
    key::{Dispatcher, Host, Secret},
    stream::{Verdict, Verifier},
};
use tests::{enroll, local, wait, world::World};
use zeroize::Zeroizing;

use crate::{
    publisher::{Publisher, Shared},
    reader::{Progress, Reader},
};

/// Kills, unless `OUTHAUL_KILLS` says otherwise (`tests/run.sh --kills N`).
const KILLS: u64 = 50;
const PUBLISHERS: u8 = 4;
/// The broker lives until so many batches more, at most, were acknowledged.
const LIFE_BATCHES_MAX: u64 = 200;

#[expect(
    clippy::disallowed_methods,
    reason = "how long this test runs is its caller's to say"
)]
pub(crate) fn kills() -> u64 {
    let asked = std::env::var("OUTHAUL_KILLS").ok();
    asked.map_or(KILLS, |text| {
        text.parse().expect("OUTHAUL_KILLS is a number")
    })
}

/// From 1 to `max`: how much more is to happen before the next kill, which is at a random point of the broker's work, and not of the
/// clock.
pub(crate) fn random_up_to(max: u64) -> u64 {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    1 + u64::from_le_bytes(random) % max
}

#[test]
fn what_was_acknowledged_is_there_exactly_once_after_every_kill() {
    let mut world = World::with_broker_flags(&["--allow-readers"]).unwrap();
    let host = HostId::new("edge-1").unwrap();
    let dispatcher = Secret::<Dispatcher>::from_seed(&Zeroizing::new([101; 32]));
    let host_seed = [102; 32];
    let host_key = Secret::<Host>::from_seed(&Zeroizing::new(host_seed));
    enroll::add_dispatcher(&world, &dispatcher).unwrap();
    let token = enroll::enroll(&world, &host, &dispatcher, &host_key, &mut Vec::new()).unwrap();
    let publishers: Vec<_> = (1..=PUBLISHERS)
        .map(|number| Publisher::new(&world, &host, number, host_seed, &token))
        .collect();
    let reader = Reader::new(&world);
    reader.subscribe();

    let shared = Arc::new(Shared::default());
    let progress = Arc::new(Progress::default());
    let threads: Vec<_> = publishers
        .iter()
        .map(|publisher| {
            let (publisher, shared) = (publisher.clone(), Arc::clone(&shared));
            std::thread::spawn(move || publisher.run(&shared))
        })
        .collect();
    let reading = std::thread::spawn({
        let progress = Arc::clone(&progress);
        move || reader.run(&progress)
    });

    let mut seen = 0;
    for _ in 0..kills() {
        let until = seen + random_up_to(LIFE_BATCHES_MAX);
        wait::until("more acknowledgements", || {
            (shared.acknowledged.load(Ordering::Relaxed) >= until).then_some(())
        });
        world.kill_broker();
        seen = shared.acknowledged.load(Ordering::Relaxed);
        world.start_broker().unwrap();
    }
    shared.is_over.store(true, Ordering::Relaxed);
    let acknowledged: Vec<_> = threads.into_iter().map(|one| one.join().unwrap()).collect();

    // The journal: of each stream every batch, once, in order, and the chain holds.
    let records = local::records(&world.socket(), host.as_str()).unwrap();
    assert!(
        records.iter().all(|record| record.kind == 1),
        "no gap, and events only"
    );
    for (publisher, sent) in publishers.iter().zip(&acknowledged) {
        let of_it = records
            .iter()
            .filter(|record| record.sandbox == publisher.sandbox.as_str());
        let kept: Vec<_> = of_it.map(|record| record.payload.as_slice()).collect();
        assert!(kept == *sent, "{} sent, {} kept", sent.len(), kept.len());
        let mut verifier = Verifier::new(&publisher.host, &publisher.sandbox, publisher.key());
        for batch in kept {
            let verdict = verifier.check(batch).unwrap();
            assert!(matches!(verdict, Verdict::Next(..)), "{verdict:?}");
        }
    }

    // The reader: every offset; what came twice came the same, said so, and was not acknowledged.
    let last = records.last().unwrap().offset;
    wait::until("the reader to be through", || {
        (progress.last.load(Ordering::Relaxed) >= last).then_some(())
    });
    progress.is_over.store(true, Ordering::Relaxed);
    // Its connection ends with the broker.
    world.kill_broker();
    world.start_broker().unwrap();
    let mut read = BTreeMap::new();
    let mut repeats = 0;
    let reading = reading.join().unwrap();
    let needless = reading.needless;
    assert!(
        needless.is_empty(),
        "acknowledged, and came again: {needless:?}"
    );
    for message in reading.messages {
        assert_eq!(message.gap, None);
        let before = read.insert(message.offset, message.payload.clone());
        assert!(before.is_none() || message.is_repeat);
        repeats += u64::from(before.is_some());
        assert!(before.is_none_or(|before| before == message.payload));
    }
    let all: BTreeMap<_, _> = records
        .into_iter()
        .map(|record| (record.offset, record.payload))
        .collect();
    assert_eq!(read.last_key_value().map(|(offset, _)| *offset), Some(last));
    assert!(read == all, "{} read of {}", read.len(), all.len());
    println!(
        "{} kills, {} batches acknowledged, each there once; {repeats} came to the reader again",
        kills(),
        all.len(),
    );
}
