//! Counters of the gate. Numbers only; who and what is for the audit trail.

use std::sync::atomic::{AtomicU64, Ordering};

use protocol::mqtt::ReasonCode;

/// Reason codes that are refusals (MQTT 5.0 §2.4): `0x80` to `0xFF`.
const REFUSALS: usize = 128;

/// Counters. Each stands by itself: a reader may see one of two that belong together.
#[derive(Debug)]
pub struct Metrics {
    /// TCP connections accepted.
    pub accepted: Counter,
    /// TCP connections closed at once: too many wait, from that address or in all.
    pub crowded: Counter,
    /// Times that accepting failed, for want of descriptors mostly.
    pub accept_failed: Counter,
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
    /// Commands that were larger than their host takes.
    pub skipped: Counter,
    refused: [Counter; REFUSALS],
}

impl Metrics {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            accepted: Counter::default(),
            crowded: Counter::default(),
            accept_failed: Counter::default(),
            proxy_failed: Counter::default(),
            tls_failed: Counter::default(),
            unknown: Counter::default(),
            http: Counter::default(),
            mqtt: Counter::default(),
            admitted: Counter::default(),
            ended: Counter::default(),
            published: Counter::default(),
            stored: Counter::default(),
            skipped: Counter::default(),
            refused: std::array::from_fn(|_| Counter::default()),
        }
    }

    /// Counts a connection that was ended with `reason`.
    pub fn refuse(&self, reason: ReasonCode) {
        if let Some(counter) = self.refusals_of(reason) {
            counter.add();
        }
    }

    /// How many connections were ended with `reason`.
    #[must_use]
    pub fn refused(&self, reason: ReasonCode) -> u64 {
        self.refusals_of(reason).map_or(0, Counter::count)
    }

    /// Every reason that ended a connection, and how many.
    pub fn refusals(&self) -> impl Iterator<Item = (ReasonCode, u64)> {
        ReasonCode::ALL
            .iter()
            .map(|reason| (*reason, self.refused(*reason)))
            .filter(|(_, count)| *count > 0)
    }

    fn refusals_of(&self, reason: ReasonCode) -> Option<&Counter> {
        let at = usize::from(reason.value()).checked_sub(0x80)?;
        self.refused.get(at)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_their_reason() {
        let metrics = Metrics::new();
        metrics.refuse(ReasonCode::NOT_AUTHORIZED);
        metrics.refuse(ReasonCode::NOT_AUTHORIZED);
        metrics.refuse(ReasonCode::MAXIMUM_CONNECT_TIME);
        let refusals: Vec<_> = metrics.refusals().collect();
        assert_eq!(
            refusals,
            [
                (ReasonCode::NOT_AUTHORIZED, 2),
                (ReasonCode::MAXIMUM_CONNECT_TIME, 1)
            ]
        );
    }
}
