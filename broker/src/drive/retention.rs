//! What the journal does not keep goes by itself: a round now and then, in a task of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Weak,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use protocol::{hole::Cause, limits::LEEWAY_S};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::{Inner, Plane, lock};
use crate::{
    core::{journal::removed::Count, retention::Limits},
    shell::{
        clock,
        journal::{Gone, Order},
        store::AuditEntry,
    },
};

/// How often it is looked whether a segment was begun: bytes pass their limit a segment at a time.
const LOOK: Duration = Duration::from_secs(10);
/// How often a round is made, whether or not one was: ages pass their limit at any time.
const ROUND: Duration = Duration::from_secs(60);
/// The least time between two rows of the audit trail about what went: the ledger has it all, and a host that writes without end shall
/// not fill the trail too.
const AUDIT_MS: u64 = 60 * 60 * 1000;

/// What went since the broker started.
#[derive(Debug, Default)]
pub(super) struct Dropped {
    /// By cause.
    counts: BTreeMap<Cause, Count>,
    /// What the audit trail has not been told.
    untold: Vec<Gone>,
    /// When it was last told.
    told_ms: Option<u64>,
}

impl Plane {
    /// What is kept at the most.
    #[must_use]
    pub fn retention(&self) -> Limits {
        self.inner.parts.retention
    }

    /// What went since the broker started, by cause.
    #[must_use]
    pub fn dropped(&self) -> BTreeMap<Cause, Count> {
        lock(&self.inner.dropped).counts.clone()
    }

    /// One round.
    ///
    /// # Errors
    /// The journal or the store cannot be read or written. What went is written down; what did not, stays for the next round.
    pub async fn retain(&self) -> anyhow::Result<()> {
        self.roll_if_due().await?;
        let floor = self.settled_end().await;
        self.blocking(move |plane| plane.retain_below(floor)).await
    }

    /// A segment that is written slowly is sealed by the clock, so that what is too old can go.
    async fn roll_if_due(&self) -> anyhow::Result<()> {
        let Some(span) = self.retention().span_ms() else {
            return Ok(());
        };
        let since = self
            .blocking(|plane| plane.journal().active_since())
            .await?;
        if since.is_some_and(|since| since.saturating_add(span) < self.now().0) {
            self.journal().roll().await?;
        }
        Ok(())
    }

    /// An offset below which the store has followed everything: it rests on nothing there but what it says it does.
    pub(super) async fn settled_end(&self) -> u64 {
        // Whoever submits a command has it in the journal before it is in the store.
        let _turn = self.inner.submitting.lock().await;
        let end = self.journal().next_offset();
        self.followed().await;
        end
    }

    fn retain_below(&self, floor: u64) -> anyhow::Result<()> {
        let now = self.now();
        // As long as a host would take it.
        let over = now.0.saturating_sub(2 * LEEWAY_S * 1000);
        let order = Order {
            limits: self.retention(),
            now_ms: now.0,
            floor,
            needed: self.store().needed_records(over)?.into_iter().collect(),
        };
        let mut ledger = |gone: &[Gone]| self.store().record_dropped(gone, now.0);
        let gone = self.journal().retain(&order, &mut ledger)?;
        self.note_gone(gone, now.0)
    }

    fn note_gone(&self, gone: Vec<Gone>, now_ms: u64) -> anyhow::Result<()> {
        let told = {
            let mut dropped = lock(&self.inner.dropped);
            for one in &gone {
                dropped.counts.entry(one.cause).or_default().add(one.count);
            }
            dropped.untold.extend(gone);
            let is_due = dropped
                .told_ms
                .is_none_or(|told| told.saturating_add(AUDIT_MS) <= now_ms);
            if dropped.untold.is_empty() || !is_due {
                // Losses of one host and cause become one, so that what waits is bounded by the hosts.
                merge(&mut dropped.untold);
                return Ok(());
            }
            dropped.told_ms = Some(now_ms);
            std::mem::take(&mut dropped.untold)
        };
        let fields = summary(&told);
        tracing::info!(%fields, "the journal dropped what is past its limits");
        self.store().record_audit(&AuditEntry {
            time_ms: now_ms,
            name: "journal.dropped",
            subject: "journal",
            actor: "broker",
            fields: &fields,
        })?;
        Ok(())
    }

    pub(super) fn count_purged(&self, gone: &[Gone]) {
        let mut dropped = lock(&self.inner.dropped);
        for one in gone {
            dropped.counts.entry(one.cause).or_default().add(one.count);
        }
    }
}

fn merge(gone: &mut Vec<Gone>) {
    let mut merged: BTreeMap<(String, Cause), Gone> = BTreeMap::new();
    for one in gone.drain(..) {
        match merged.get_mut(&(one.host.clone(), one.cause)) {
            Some(known) => {
                known.from = known.from.min(one.from);
                known.to = known.to.max(one.to);
                known.first_ms = known.first_ms.min(one.first_ms);
                known.last_ms = known.last_ms.max(one.last_ms);
                known.count.add(one.count);
            }
            None => {
                merged.insert((one.host.clone(), one.cause), one);
            }
        }
    }
    gone.extend(merged.into_values());
}

/// For the audit trail: how much for each cause, of how many hosts, from where to where.
pub(super) fn summary(gone: &[Gone]) -> serde_json::Value {
    let mut causes: BTreeMap<&str, Count> = BTreeMap::new();
    for one in gone {
        causes.entry(one.cause.word()).or_default().add(one.count);
    }
    let causes: serde_json::Map<_, _> = causes
        .into_iter()
        .map(|(cause, count)| {
            let count = json!({ "records": count.records, "bytes": count.bytes });
            (cause.to_owned(), count)
        })
        .collect();
    let hosts: BTreeSet<&str> = gone.iter().map(|one| one.host.as_str()).collect();
    json!({
        "causes": causes,
        "hosts": hosts.len(),
        "from_offset": gone.iter().map(|one| one.from).min(),
        "to_offset": gone.iter().map(|one| one.to).max(),
        "first_ms": gone.iter().map(|one| one.first_ms).min(),
        "last_ms": gone.iter().map(|one| one.last_ms).max(),
    })
}

/// Makes rounds until the plane is gone.
pub(super) async fn run(inner: Weak<Inner>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(Instant, usize)> = None;
    loop {
        looks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let plane = Plane { inner };
        let (now, segments) = (clock::mono(), plane.journal().size().0);
        let is_due = last.is_none_or(|(made, known)| {
            now.saturating_duration_since(made) >= ROUND || segments > known
        });
        if !is_due {
            continue;
        }
        if let Err(error) = plane
            .retain()
            .await
            .context("keep the journal to its limits")
        {
            tracing::warn!(
                error = format!("{error:#}"),
                "what is past its limits stays for now"
            );
        }
        last = Some((now, plane.journal().size().0));
    }
}
