//! Counters of the gate, and their exposition for Prometheus. Numbers only; who and what is for the audit trail.

mod exposition;
mod page;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use protocol::mqtt::ReasonCode;

use crate::core::gate::Ending;

pub use exposition::exposition;
pub use page::{CONTENT_TYPE, Page};

/// Counters. Each stands by itself: a reader may see one of two that belong together.
#[derive(Debug, Default)]
pub struct Metrics {
    /// TCP connections accepted.
    pub accepted: Counter,
    /// TCP connections closed at once: too many wait, from that address or in all.
    pub crowded: Counter,
    /// Times that accepting failed, for want of descriptors mostly.
    pub accept_failed: Counter,
    /// TCP connections that said nothing in time.
    pub silent: Counter,
    /// Connections from a listed load balancer without a PROXY header that can be used.
    pub proxy_failed: Counter,
    /// TLS handshakes that failed or took too long.
    pub tls_failed: Counter,
    /// Connections that spoke neither MQTT nor HTTP.
    pub unknown: Counter,
    /// Connections that spoke HTTP.
    pub http: Counter,
    /// Connections that spoke MQTT.
    pub mqtt: Counter,
    /// Principals that came online.
    pub admitted: Counter,
    /// Principals that went offline. [`Metrics::admitted`] less this is who is online.
    pub ended: Counter,
    /// Publishes that were handed on to be stored.
    pub published: Counter,
    /// Of these, answered as stored.
    pub stored: Counter,
    /// Messages that were larger than their client takes.
    pub skipped: Counter,
    /// Streams of events over HTTPS that were begun.
    pub streams: Counter,
    /// How they ended, in our words.
    streams_ended: Tally<&'static str>,
    /// Requests for one that got none, by a word of ours.
    streams_refused: Tally<&'static str>,
    /// How MQTT connections ended: the code that the client was told, if any, and why.
    endings: Tally<(Option<ReasonCode>, &'static str)>,
    /// Packets that were answered with a refusal while their connection went on.
    packets: Tally<ReasonCode>,
    /// Requests with a good access token that were refused all the same, by a word of ours.
    requests_refused: Tally<&'static str>,
    /// Tokens that opened nothing, by a word of ours: the client is told none of this.
    tokens: Tally<&'static str>,
}

impl Metrics {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts how an MQTT connection ended.
    pub fn end(&self, ending: Ending) {
        self.endings.add((ending.reason, ending.why));
    }

    /// Counts a packet that was refused while its connection goes on.
    pub fn refuse_packet(&self, reason: ReasonCode) {
        self.packets.add(reason);
    }

    /// Counts a token that opened nothing.
    pub fn refuse_token(&self, why: &'static str) {
        self.tokens.add(why);
    }

    /// Counts a request that a good access token does not open.
    pub fn refuse_request(&self, why: &'static str) {
        self.requests_refused.add(why);
    }

    /// Counts a request for a stream of events that got none.
    pub fn refuse_stream(&self, why: &'static str) {
        self.streams_refused.add(why);
    }

    /// Counts how a stream of events ended.
    pub fn end_stream(&self, why: &'static str) {
        self.streams_ended.add(why);
    }

    /// How many connections were ended with `reason`.
    #[must_use]
    pub fn refused(&self, reason: ReasonCode) -> u64 {
        let counts = self.endings.counts();
        counts
            .iter()
            .filter(|((told, _), _)| *told == Some(reason))
            .map(|(_, count)| count)
            .sum()
    }

    /// Everything, onto a page. Who serves it says to whom.
    pub fn write(&self, page: &mut Page) {
        for (name, help, counter) in self.plain() {
            page.count(name, help, counter.count());
        }
        let name = "outhaul_connections";
        page.gauge(name, "Principals that are online.");
        let online = self.admitted.count().saturating_sub(self.ended.count());
        page.sample(name, &[], online);
        let name = "outhaul_gate_connections_ended_total";
        page.counter(
            name,
            "MQTT connections that ended, by what the client was told and why.",
        );
        for ((reason, why), count) in self.endings.counts() {
            let reason = reason.map_or_else(|| "none".to_owned(), code);
            page.sample(name, &[("reason", &reason), ("why", why)], count);
        }
        let name = "outhaul_gate_packets_refused_total";
        page.counter(
            name,
            "Packets that were refused while their connection went on, by reason.",
        );
        for (reason, count) in self.packets.counts() {
            page.sample(name, &[("reason", &code(reason))], count);
        }
        let name = "outhaul_gate_tokens_refused_total";
        page.counter(
            name,
            "Tokens that opened nothing, by what the client is not told.",
        );
        for (why, count) in self.tokens.counts() {
            page.sample(name, &[("why", why)], count);
        }
        let name = "outhaul_gate_requests_refused_total";
        page.counter(
            name,
            "Requests with a good access token that were refused all the same, by why.",
        );
        for (why, count) in self.requests_refused.counts() {
            page.sample(name, &[("why", why)], count);
        }
        let name = "outhaul_gate_streams_ended_total";
        page.counter(name, "Streams of events over HTTPS that ended, by why.");
        for (why, count) in self.streams_ended.counts() {
            page.sample(name, &[("why", why)], count);
        }
        let name = "outhaul_gate_streams_refused_total";
        page.counter(
            name,
            "Requests for a stream of events that got none, by why.",
        );
        for (why, count) in self.streams_refused.counts() {
            page.sample(name, &[("why", why)], count);
        }
    }

    fn plain(&self) -> [(&'static str, &'static str, &Counter); 15] {
        [
            (
                "outhaul_gate_tcp_accepted_total",
                "TCP connections accepted.",
                &self.accepted,
            ),
            (
                "outhaul_gate_tcp_crowded_total",
                "TCP connections closed at once, since too many wait.",
                &self.crowded,
            ),
            (
                "outhaul_gate_tcp_accept_failures_total",
                "Times that accepting a connection failed.",
                &self.accept_failed,
            ),
            (
                "outhaul_gate_tcp_silent_total",
                "TCP connections that said nothing in time.",
                &self.silent,
            ),
            (
                "outhaul_gate_proxy_failed_total",
                "Connections from a load balancer without a PROXY header that can be used.",
                &self.proxy_failed,
            ),
            (
                "outhaul_gate_tls_failed_total",
                "TLS handshakes that failed or took too long.",
                &self.tls_failed,
            ),
            (
                "outhaul_gate_speech_unknown_total",
                "Connections that spoke neither MQTT nor HTTP.",
                &self.unknown,
            ),
            (
                "outhaul_gate_http_total",
                "Connections that spoke HTTP.",
                &self.http,
            ),
            (
                "outhaul_gate_mqtt_total",
                "Connections that spoke MQTT.",
                &self.mqtt,
            ),
            (
                "outhaul_gate_streams_total",
                "Streams of events over HTTPS that were begun.",
                &self.streams,
            ),
            (
                "outhaul_gate_admitted_total",
                "Principals that came online.",
                &self.admitted,
            ),
            (
                "outhaul_gate_left_total",
                "Principals that went offline.",
                &self.ended,
            ),
            (
                "outhaul_gate_published_total",
                "Publishes that were handed on to be stored.",
                &self.published,
            ),
            (
                "outhaul_gate_stored_total",
                "Publishes that were answered as stored.",
                &self.stored,
            ),
            (
                "outhaul_gate_messages_skipped_total",
                "Messages that were larger than their client takes.",
                &self.skipped,
            ),
        ]
    }
}

fn code(reason: ReasonCode) -> String {
    format!("0x{:02X}", reason.value())
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn add(&self) {
        self.add_many(1);
    }

    /// So many more.
    pub fn add_many(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The count.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers that only grow, by labels of ours: as many as the program has words for, whatever strangers send.
#[derive(Debug)]
struct Tally<K>(Mutex<BTreeMap<K, u64>>);

impl<K: Ord + Clone> Tally<K> {
    fn add(&self, key: K) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(key).or_default() += 1;
    }

    fn counts(&self) -> BTreeMap<K, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ending(reason: Option<ReasonCode>, why: &'static str) -> Ending {
        Ending { reason, why }
    }

    #[test]
    fn endings_are_counted_by_what_was_told_and_why() {
        let metrics = Metrics::new();
        let told = Some(ReasonCode::NOT_AUTHORIZED);
        metrics.end(ending(told, "no token"));
        metrics.end(ending(told, "its token ended meanwhile"));
        metrics.end(ending(None, "not MQTT"));
        assert_eq!(metrics.refused(ReasonCode::NOT_AUTHORIZED), 2);
        assert_eq!(metrics.refused(ReasonCode::MALFORMED_PACKET), 0);
        let mut page = Page::default();
        metrics.write(&mut page);
        let text = page.into_text();
        for line in [
            "outhaul_gate_connections_ended_total{reason=\"0x87\",why=\"no token\"} 1\n",
            "outhaul_gate_connections_ended_total{reason=\"none\",why=\"not MQTT\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_sample_has_its_type_and_stands_behind_it() {
        let metrics = Metrics::new();
        metrics.accepted.add();
        metrics.refuse_packet(ReasonCode::PAYLOAD_FORMAT_INVALID);
        metrics.refuse_token("expired");
        let mut page = Page::default();
        metrics.write(&mut page);
        let text = page.into_text();
        let mut name = "";
        for line in text.lines() {
            if let Some(typed) = line.strip_prefix("# TYPE ") {
                name = typed.split_once(' ').unwrap().0;
            } else if !line.starts_with("# HELP ") {
                let rest = line.strip_prefix(name).unwrap();
                assert!(rest.starts_with([' ', '{']), "{line}");
                let value = line.rsplit(' ').next().unwrap();
                value.parse::<u64>().unwrap();
            }
        }
        for line in [
            "outhaul_gate_tcp_accepted_total 1\n",
            "outhaul_gate_packets_refused_total{reason=\"0x99\"} 1\n",
            "outhaul_gate_tokens_refused_total{why=\"expired\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
