//! What it costs to wait for the disk: many publishers that each wait for every acknowledgement, and one alone, beside an fdatasync of the
//! same disk in the same round.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    broker::Broker,
    clock,
    publish::{Effort, Shape, acknowledged},
    report::{Bound, Column, Limit, Report, Row},
};

/// Publishers who share a sync.
const MANY: Shape = Shape {
    publishers: 200,
    window: 1,
};
/// The same number: at best all of them share every sync.
const PUBLISHERS: f64 = 200.0;
/// Nobody shares one.
const ALONE: Shape = Shape {
    publishers: 1,
    window: 1,
};
/// One waits for the disk and the kernel's scheduler each time: fewer of its messages take as long.
const ALONE_PART: usize = 20;
/// Syncs whose median counts.
const SYNCS: u16 = 101;
/// What is written before each: the pages that a small commit touches.
const SYNC_BYTES: usize = 4096;
/// Of what is possible, this must be reached.
const SHARE_MIN: f64 = 0.7;
/// A commit that just missed a sync waits for that one and then for its own: one and a half on average.
const SYNCS_FOR_ONE: f64 = 1.5;
/// What one alone may wait besides its sync.
const ALONE_EXTRA_US: f64 = 1_000.0;

const MANY_COLUMNS: [Column; 3] = [
    Column {
        title: "acked/s",
        key: "acknowledged_per_s",
        digits: 0,
    },
    Column {
        title: "of possible",
        key: "share_of_possible",
        digits: 2,
    },
    Column {
        title: "fdatasync µs",
        key: "fdatasync_us",
        digits: 0,
    },
];

const ALONE_COLUMNS: [Column; 3] = [
    Column {
        title: "wait µs",
        key: "wait_us",
        digits: 0,
    },
    Column {
        title: "besides sync µs",
        key: "besides_sync_us",
        digits: 0,
    },
    Column {
        title: "fdatasync µs",
        key: "fdatasync_us",
        digits: 0,
    },
];

/// Rounds of both shapes with each broker in turn. What is possible is the lesser of what the same broker does in `os` mode and what the
/// disk allows, so both modes of it must be here.
pub(crate) fn run(brokers: &[Broker], dir: &Path, effort: Effort) -> anyhow::Result<[Report; 2]> {
    let rows = || {
        brokers.iter().map(|broker| Row {
            broker: broker.name.clone(),
            rounds: Vec::new(),
        })
    };
    let (mut many, mut alone): (Vec<_>, Vec<_>) = (rows().collect(), rows().collect());
    let os = brokers
        .iter()
        .position(|broker| broker.name == "outhaul-os");
    for round in 0..effort.rounds {
        let mut rates = vec![0.0; brokers.len()];
        let mut round_us = sync_us(dir)?;
        for place in 0..brokers.len() {
            let at = (round + place) % brokers.len();
            let (Some(broker), Some(rate), Some(row)) =
                (brokers.get(at), rates.get_mut(at), alone.get_mut(at))
            else {
                continue;
            };
            let what = || format!("round {} with {}", round + 1, broker.name);
            *rate = acknowledged(broker, MANY, effort).with_context(what)?;
            let few = Effort {
                messages: effort.messages / ALONE_PART,
                ..effort
            };
            // The disk has moods: what it took just before and just after.
            let before = sync_us(dir)?;
            let wait_us = 1e6 / acknowledged(broker, ALONE, few).with_context(what)?;
            let sync_us = f64::midpoint(before, sync_us(dir)?);
            row.rounds.push(vec![wait_us, wait_us - sync_us, sync_us]);
            round_us = f64::midpoint(round_us, sync_us);
        }
        let of_os = os.and_then(|at| rates.get(at)).copied().unwrap_or(f64::NAN);
        let of_disk = PUBLISHERS / (SYNCS_FOR_ONE * round_us / 1e6);
        for (row, rate) in many.iter_mut().zip(rates) {
            row.rounds
                .push(vec![rate, rate / of_os.min(of_disk), round_us]);
        }
    }
    let about = |shape: Shape| {
        format!(
            "{} publisher(s), {} in flight each; QoS 1, TLS 1.3, no reader; median of {} round(s)",
            shape.publishers, shape.window, effort.rounds
        )
    };
    let report = |name: &str, shape, columns, rows| Report {
        bench: format!("durable {name}"),
        about: about(shape),
        columns,
        rows,
        limits: Vec::new(),
    };
    let mut many = report("200x1", MANY, &MANY_COLUMNS, many);
    let mut alone = report("1x1", ALONE, &ALONE_COLUMNS, alone);
    let fsync = "outhaul-fsync";
    many.limits.push(Limit {
        broker: fsync.to_owned(),
        what: "of what `os` mode or the disk allows, whichever is less",
        bound: Bound::Least(SHARE_MIN),
        value: many.median(fsync, 1),
    });
    alone.limits.push(Limit {
        broker: fsync.to_owned(),
        what: "µs that one alone waits besides its fdatasync",
        bound: Bound::Most(ALONE_EXTRA_US),
        value: alone.median(fsync, 1),
    });
    Ok([many, alone])
}

/// How long an fdatasync takes here, in microseconds: the median of some, each after a small write that makes the file longer, as a
/// journal's does.
fn sync_us(dir: &Path) -> anyhow::Result<f64> {
    let path = dir.join("fdatasync");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .context("make a file to sync")?;
    let mut times = (0..SYNCS)
        .map(|number| sync(&file, u64::from(number)))
        .collect::<Result<Vec<_>, _>>()
        .context("sync a file")?;
    std::fs::remove_file(&path).context("remove the file")?;
    times.sort_unstable();
    let middle = times.get(times.len() / 2).context("no syncs")?;
    Ok(middle.as_secs_f64() * 1e6)
}

fn sync(file: &File, number: u64) -> std::io::Result<Duration> {
    let bytes = [0x5a; SYNC_BYTES];
    file.write_all_at(&bytes, number * bytes.len() as u64)?;
    let start = clock::mono();
    file.sync_data()?;
    Ok(clock::mono() - start)
}
