//! The figures, each beside the other engines' and beside its limit.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    engine::{Kind, Step},
    usage::Used,
};

/// Appending: computing time for a record.
const APPEND_US_MAX: f64 = 1.0;
/// Reading: records a second, from the page cache.
const SCAN_PER_S_MIN: f64 = 2e6;
/// Opening a large journal, in seconds.
const OPEN_S_MAX: f64 = 2.0;
/// Memory that a larger journal may take more: the index of its segments, and noise.
const GROWTH_KIB_MAX: f64 = 4096.0;

/// Everything that was measured, by engine, step and size.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    used: BTreeMap<(Kind, Step, u64), Used>,
}

impl Figures {
    pub(crate) fn note(&mut self, kind: Kind, step: Step, records: u64, used: Used) {
        self.used.insert((kind, step, records), used);
    }

    pub(crate) fn text(&self, records: u64, large: u64, commit: u64) -> String {
        let mut text = format!(
            "\nrecords of 256 bytes, {commit} in each durable commit; memory is the most that was resident\n{:<10} {:>11} {:>14} {:>14} {:>10} {:>12} {:>10} {:>10}\n",
            "engine",
            "records",
            "append CPU µs",
            "append rec/s",
            "open s",
            "scan rec/s",
            "append MB",
            "scan MB"
        );
        let rows = [Kind::Ours, Kind::Sqlite, Kind::Fjall].map(|kind| (kind, records));
        for (kind, records) in rows.into_iter().chain([(Kind::Ours, large)]) {
            let get = |step| self.used.get(&(kind, step, records)).copied();
            let (Some(append), Some(open), Some(scan)) =
                (get(Step::Append), get(Step::Open), get(Step::Scan))
            else {
                continue;
            };
            let _ = writeln!(
                text,
                "{:<10} {records:>11} {:>14.2} {:>14.0} {:>10.3} {:>12.0} {:>10.1} {:>10.1}",
                kind.word(),
                cpu_us(append, records),
                rate(append, records),
                open.wall.as_secs_f64(),
                rate(scan, records),
                float(append.resident_kib) / 1024.0,
                float(scan.resident_kib) / 1024.0,
            );
        }
        text.push('\n');
        for (what, value, limit, holds) in self.limits(records, large) {
            let verdict = if holds { "holds" } else { "DOES NOT HOLD" };
            let _ = writeln!(
                text,
                "{what:<48} {value:>12.2}  limit {limit:>10.2}  {verdict}"
            );
        }
        text
    }

    pub(crate) fn holds(&self, records: u64, large: u64) -> bool {
        let limits = self.limits(records, large);
        limits.len() == 5 && limits.iter().all(|(.., holds)| *holds)
    }

    fn limits(&self, records: u64, large: u64) -> Vec<(&'static str, f64, f64, bool)> {
        let get = |step, records| self.used.get(&(Kind::Ours, step, records)).copied();
        let most = |what, value: f64, limit: f64| (what, value, limit, value <= limit);
        let mut limits = Vec::new();
        if let Some(append) = get(Step::Append, large) {
            let value = cpu_us(append, large);
            limits.push(most("append: CPU µs for a record", value, APPEND_US_MAX));
        }
        if let Some(scan) = get(Step::Scan, large) {
            let value = rate(scan, large);
            let holds = value >= SCAN_PER_S_MIN;
            limits.push((
                "scan: records a second, at least",
                value,
                SCAN_PER_S_MIN,
                holds,
            ));
        }
        if let Some(open) = get(Step::Open, large) {
            let value = open.wall.as_secs_f64();
            limits.push(most("open: seconds", value, OPEN_S_MAX));
        }
        for (step, what) in [
            (Step::Open, "memory to open, KiB more than the small one's"),
            (Step::Scan, "memory to read, KiB more than the small one's"),
        ] {
            if let (Some(small), Some(big)) = (get(step, records), get(step, large)) {
                let value = float(big.resident_kib) - float(small.resident_kib);
                limits.push(most(what, value, GROWTH_KIB_MAX));
            }
        }
        limits
    }
}

fn cpu_us(used: Used, records: u64) -> f64 {
    used.cpu.as_secs_f64() * 1e6 / float(records)
}

fn rate(used: Used, records: u64) -> f64 {
    float(records) / used.wall.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
const fn float(count: u64) -> f64 {
    count as f64
}
