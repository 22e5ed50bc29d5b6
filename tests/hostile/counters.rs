//! What the broker counted, read from outside: every refusal that a case causes must be there, and no other.

use std::{collections::BTreeMap, path::Path};

use tests::local;

/// What clients do every day: counted, and no refusal. A connection breaks when its client goes without a word.
const ORDINARY: [&str; 4] = [
    "the client disconnected",
    "the client closed the connection",
    "reading failed",
    "writing failed",
];
/// The counters of refusals. Those with labels have a series for each reason.
const REFUSALS: [&str; 11] = [
    "outhaul_gate_requests_refused_total",
    "outhaul_gate_streams_refused_total",
    "outhaul_gate_connections_ended_total",
    "outhaul_gate_packets_refused_total",
    "outhaul_gate_tokens_refused_total",
    "outhaul_gate_tcp_crowded_total",
    "outhaul_gate_tcp_accept_failures_total",
    "outhaul_gate_tcp_silent_total",
    "outhaul_gate_tls_failed_total",
    "outhaul_gate_speech_unknown_total",
    "outhaul_gate_messages_skipped_total",
];

/// What every series of the gate starts with.
const GATE: &str = "outhaul_gate_";

/// Every series of the gate with its value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters(BTreeMap<String, u64>);

impl Counters {
    pub(crate) fn read(socket: &Path) -> Self {
        let text = local::get(socket, "/v1/metrics").unwrap();
        let text = String::from_utf8(text).unwrap();
        let samples = text.lines().filter(|line| line.starts_with(GATE));
        let parsed = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        });
        Self(parsed.collect())
    }

    pub(crate) fn of(&self, series: &str) -> u64 {
        self.0.get(series).copied().unwrap_or(0)
    }

    /// The refusals that were counted since.
    pub(crate) fn refusals_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let mut since = BTreeMap::new();
        for (series, count) in &self.0 {
            let name = series.split('{').next().unwrap_or_default();
            let is_ordinary = ORDINARY.iter().any(|why| series.contains(why));
            let count = count - before.of(series);
            if REFUSALS.contains(&name) && !is_ordinary && count > 0 {
                since.insert(series.clone(), count);
            }
        }
        since
    }
}

/// What a case expects to be counted: how many at least, and at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected(BTreeMap<String, (u64, u64)>);

impl Expected {
    pub(crate) fn add(&mut self, series: String, least: u64, most: u64) {
        let entry = self.0.entry(series).or_default();
        entry.0 += least;
        entry.1 += most;
    }

    /// What does not fit, in words; nothing if all does.
    pub(crate) fn compare(&self, counted: &BTreeMap<String, u64>) -> Vec<String> {
        let mut wrong = Vec::new();
        for series in counted.keys().chain(self.0.keys()) {
            let (least, most) = self.0.get(series).copied().unwrap_or((0, 0));
            let count = counted.get(series).copied().unwrap_or(0);
            if !(least..=most).contains(&count) {
                wrong.push(format!(
                    "{series} counted {count}, expected {least} to {most}"
                ));
            }
        }
        wrong.dedup();
        wrong
    }
}
