//! The figures beside their limits, read back from what criterion measured.

use std::{env, fs, path::PathBuf};

/// Sizes of the batches that are measured.
pub(crate) const BATCHES: [u64; 3] = [1, 64, 256];

/// A figure that has a limit: its benchmark, what it is divided by, and the limit in nanoseconds.
const LIMITS: [(&str, u64, f64); 6] = [
    ("batch/encode and sign/64", 64, 600.0),
    ("batch/verify and decode/64", 64, 1_100.0),
    ("batch/encode and sign/256", 256, 300.0),
    ("batch/verify and decode/256", 256, 550.0),
    ("token/check with proof/host", 1, 110_000.0),
    ("token/check with proof/sandbox", 1, 170_000.0),
];

/// A batch and its parts, for the writer and for the reader.
const PARTS: [&str; 9] = [
    "batch/encode and sign",
    "part/encode events",
    "part/hash body",
    "bare/sign",
    "batch/verify and decode",
    "part/take head apart",
    "bare/verify",
    "part/hash body",
    "part/decode events",
];

/// What a figure rests on: so many bare signatures and verifications.
fn floor(name: &str) -> Option<f64> {
    let (sign, verify) = (median("bare/sign")?, median("bare/verify")?);
    Some(match name {
        name if name.contains("sign/") => sign,
        "token/check with proof/host" => 2.0 * verify,
        "token/check with proof/sandbox" => 3.0 * verify,
        _ => verify,
    })
}

/// The tables; figures that were not measured are left out.
pub(crate) fn text() -> String {
    let mut text = String::from(
        "\nmedians of this run, for one event or one token; share: of it, what bare Ed25519 takes\n",
    );
    text.push_str(&format!(
        "{:<34} {:>10} {:>10} {:>7} {:>7}\n",
        "", "measured", "limit", "ratio", "share"
    ));
    for (name, count, limit) in LIMITS {
        let (Some(time), Some(floor)) = (median(name), floor(name)) else {
            continue;
        };
        let each = per(time, count);
        text.push_str(&format!(
            "{name:<34} {:>10} {:>10} {:>7.2} {:>6.0}%\n",
            shown(each),
            shown(limit),
            each / limit,
            100.0 * floor / time,
        ));
    }
    text.push_str("\nwhere the time of a batch goes, whole batches\n");
    let [one, normal, most] = BATCHES;
    text.push_str(&format!(
        "{:<34} {one:>10} {normal:>10} {most:>10}\n",
        "events"
    ));
    for name in PARTS {
        let [one, normal, most] = BATCHES.map(|count| {
            median(&format!("{name}/{count}"))
                .or_else(|| median(name))
                .map_or_else(|| "-".to_owned(), shown)
        });
        text.push_str(&format!("{name:<34} {one:>10} {normal:>10} {most:>10}\n"));
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "a batch has at most 256 events")]
fn per(time: f64, count: u64) -> f64 {
    time / count as f64
}

fn shown(nanos: f64) -> String {
    format!("{:.2} µs", nanos / 1000.0)
}

/// Removes what an earlier run left, so that the tables hold this run's figures only.
pub(crate) fn forget() {
    let batches = PARTS
        .iter()
        .flat_map(|name| BATCHES.map(|count| format!("{name}/{count}")));
    let names = LIMITS.iter().map(|(name, ..)| (*name).to_owned());
    for name in names.chain(batches).chain(PARTS.map(str::to_owned)) {
        let _ = fs::remove_file(estimates(&name));
    }
}

fn estimates(name: &str) -> PathBuf {
    home().join(name).join("new/estimates.json")
}

/// The median of a benchmark in nanoseconds, as criterion left it.
fn median(name: &str) -> Option<f64> {
    let text = fs::read_to_string(estimates(name)).ok()?;
    let estimates: serde_json::Value = serde_json::from_str(&text).ok()?;
    estimates.get("median")?.get("point_estimate")?.as_f64()
}

/// Where criterion writes: beside the profile's directory that this program runs from.
fn home() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let beside = || Some(env::current_exe().ok()?.ancestors().nth(3)?.to_owned());
    target
        .or_else(beside)
        .unwrap_or_else(|| "target".into())
        .join("criterion")
}
