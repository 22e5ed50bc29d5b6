//! Ed25519 in the profile it is built with. In `small` a verify must stay below 100 µs: at opt-level "z" without the exceptions in
//! `Cargo.toml` it takes milliseconds.
//!
//! `cargo bench --profile small --package benches --bench verify`

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use protocol::{
    event::{Event, Kind},
    id::{HostId, SandboxId},
    key::{Sandbox, Secret},
    stream::{Verifier, Writer, stream_id},
    time::UnixMillis,
};
use zeroize::Zeroizing;

/// An event of 233 bytes, as the numbers in the design assume.
const DATA: [u8; 212] = [b'x'; 212];

fn event() -> Event<'static> {
    Event {
        time: UnixMillis(1_800_000_000_000),
        kind: Kind::Stdout,
        flags: 0,
        size: 213,
        value: 0,
        data: &DATA,
    }
}

fn writer() -> (HostId, SandboxId, Writer) {
    let (Ok(host), Ok(sandbox)) = (HostId::new("edge-1"), SandboxId::new("build-7")) else {
        unreachable!()
    };
    let key: Secret<Sandbox> = Secret::from_seed(&Zeroizing::new([7; 32]));
    let writer = Writer::new(key, stream_id(&host, &sandbox), [1; 8]);
    (host, sandbox, writer)
}

fn bench(criterion: &mut Criterion) {
    for count in [1, 64, 256] {
        let mut group = criterion.benchmark_group(format!("batch of {count}"));
        group.throughput(criterion::Throughput::Elements(count));
        let (host, sandbox, mut writer) = writer();
        let key = writer.key().public();
        group.bench_function("encode and sign", |bencher| {
            bencher.iter(|| {
                for _ in 0..count {
                    let _ = writer.push(black_box(&event()));
                }
                black_box(writer.seal(UnixMillis(1), false))
            });
        });
        let (_, _, mut writer) = self::writer();
        for _ in 0..count {
            let _ = writer.push(&event());
        }
        let payload = writer.seal(UnixMillis(1), false);
        let fresh = Verifier::new(&host, &sandbox, key);
        group.bench_function("verify and decode", |bencher| {
            bencher.iter(|| {
                let mut verifier = fresh.clone();
                match verifier.check(black_box(&payload)) {
                    Ok(protocol::stream::Verdict::Next(_, events)) => {
                        events.map(|event| event.data.len()).sum::<usize>()
                    }
                    _ => 0,
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
