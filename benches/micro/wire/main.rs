//! What the wire costs: batches of events, tokens with their proofs, and bare Ed25519 beside them. The figures that matter are printed
//! as a table at the end, each beside its limit and beside what bare signatures cost in the same run.
//!
//! - `cargo bench --package benches --bench wire`: as the broker is built, for the limits.
//! - `cargo bench --profile small --package benches --bench wire`: as the operator and the shim are built. A verify must stay below
//!   100 µs there: at opt-level "z" without the exceptions in `Cargo.toml` it takes milliseconds.

mod samples;
mod table;

use std::{hint::black_box, io::Write as _, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput};
use ed25519_dalek::{Signer as _, SigningKey};
use protocol::{
    event::Events,
    possession,
    stream::{Batch, Verdict, Verifier},
    time::UnixMillis,
    token,
};

use self::samples::{AUDIENCE, Sample, event, sample, writer};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    table::forget();
    bare(&mut criterion);
    batches(&mut criterion);
    parts(&mut criterion);
    tokens(&mut criterion);
    criterion.final_summary();
    // Nobody reads on: then nobody reads the table.
    let _ = std::io::stdout().write_all(table::text().as_bytes());
}

/// The floor: one signature and one strict verification, over a head's length.
fn bare(criterion: &mut Criterion) {
    let key = SigningKey::from_bytes(&[7; 32]);
    let message = [0x5a; 250];
    let signature = key.sign(&message);
    let public = key.verifying_key();
    let mut group = criterion.benchmark_group("bare");
    group.bench_function("sign", |bencher| {
        bencher.iter(|| key.sign(black_box(&message)));
    });
    group.bench_function("verify", |bencher| {
        bencher.iter(|| {
            public
                .verify_strict(black_box(&message), &signature)
                .is_ok()
        });
    });
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    for count in table::BATCHES {
        let (host, sandbox, mut sealing) = writer();
        let key = sealing.key().public();
        let mut group = criterion.benchmark_group("batch");
        group.throughput(Throughput::Elements(count));
        let id = BenchmarkId::new("encode and sign", count);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                for _ in 0..count {
                    let _ = sealing.push(black_box(&event()));
                }
                black_box(sealing.seal(UnixMillis(1), false))
            });
        });
        let payload = samples::batch(count);
        let fresh = Verifier::new(&host, &sandbox, key);
        let id = BenchmarkId::new("verify and decode", count);
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                let mut verifier = fresh.clone();
                match verifier.check(black_box(&payload)) {
                    Ok(Verdict::Next(_, events)) => {
                        events.map(|event| event.data.len()).sum::<usize>()
                    }
                    _ => 0,
                }
            });
        });
        group.finish();
    }
}

/// Where the time of a batch goes.
fn parts(criterion: &mut Criterion) {
    for count in table::BATCHES {
        let payload = samples::batch(count);
        let Ok(batch) = Batch::parse(&payload) else {
            continue;
        };
        let body = batch.body;
        let mut group = criterion.benchmark_group("part");
        group.bench_function(BenchmarkId::new("encode events", count), |bencher| {
            let mut out = Vec::with_capacity(body.len());
            bencher.iter(|| {
                out.clear();
                for _ in 0..count {
                    black_box(&event()).encode(&mut out);
                }
                out.len()
            });
        });
        group.bench_function(BenchmarkId::new("hash body", count), |bencher| {
            bencher.iter(|| blake3::hash(black_box(body)));
        });
        group.bench_function(BenchmarkId::new("take head apart", count), |bencher| {
            bencher.iter(|| Batch::parse(black_box(&payload)).is_ok());
        });
        group.bench_function(BenchmarkId::new("decode events", count), |bencher| {
            bencher.iter(|| match Events::parse(black_box(body), count) {
                Ok(events) => events.map(|event| event.data.len()).sum::<usize>(),
                Err(_) => 0,
            });
        });
        group.finish();
    }
}

/// What the gate does for one connection.
fn tokens(criterion: &mut Criterion) {
    let Some(Sample {
        issuer,
        now,
        challenge,
        host,
        sandbox,
    }) = sample()
    else {
        return;
    };
    let mut group = criterion.benchmark_group("token");
    for (name, (token, proof)) in [("host", host), ("sandbox", sandbox)] {
        let check = || {
            let grant = token::check(black_box(&token), &[issuer], AUDIENCE, now).ok()?;
            Some(possession::is_proven(
                &grant.holder,
                &challenge,
                black_box(&proof),
            ))
        };
        assert_eq!(check(), Some(true), "{name}: what is measured must be good");
        let id = BenchmarkId::new("check with proof", name);
        group.bench_function(id, |bencher| bencher.iter(check));
    }
    group.finish();
}
