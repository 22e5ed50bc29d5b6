//! Rounds of retention: what of the sealed segments goes, and its going. The rules are in [`crate::core::retention`].

use super::catalog::Sealed;
use super::rewrite::{self, Fate, Gone, Source};
use super::{Journal, summary};
use crate::core::journal::removed::Count;
use crate::core::retention::{Census, Goes, Left, Limits, Summary, Verdict};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// What a round is told.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// What is kept at the most.
    pub limits: Limits,
    /// The time, milliseconds since 1970.
    pub now_ms: u64,
    /// Segments with anything at or past this offset are left alone.
    pub floor: u64,
    /// Records that are needed, with their hosts: they stay whatever the limits say.
    pub needed: BTreeMap<u64, String>,
}

/// Where losses are written down, before they take effect.
pub type Ledger<'a> = &'a mut dyn FnMut(&[Gone]) -> anyhow::Result<()>;

/// What is kept.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Each segment, the last one being written.
    pub segments: Vec<Kept>,
    /// Records and bytes of each host.
    pub hosts: BTreeMap<String, Count>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its first offset.
    pub first: u64,
    /// The first offset after it.
    pub end: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// When the first of them was accepted, milliseconds since 1970; none if there is none.
    pub first_ms: Option<u64>,
    /// When the last of them was.
    pub last_ms: Option<u64>,
    /// Whether all of it can be read.
    pub is_whole: bool,
}

impl Journal {
    /// Removes what passes the limits; what that was. Blocks, beside commits; one round at a time.
    ///
    /// A segment that cannot be rewritten stays as it is, and the log says so.
    ///
    /// # Errors
    /// The disk refuses, or the ledger does. What was removed before that is in the ledger; the rest is as it was.
    pub fn retain(&self, order: &Order, ledger: Ledger<'_>) -> anyhow::Result<Vec<Gone>> {
        let inner = &self.inner;
        let _turn = inner.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = inner.catalog.dir();
        let mut census = Census::new(order.limits, order.now_ms);
        let sealed = inner.catalog.sealed();
        for sealed in &sealed {
            census.add(&summary::load(dir, sealed)?);
        }
        let mut plan = census.plan();
        let mut round = Round {
            journal: self,
            order,
            ledger,
            group: Vec::new(),
            left: None,
            gone: Vec::new(),
            failed: None,
            oldest_ms: None,
        };
        for sealed in sealed.iter().take_while(|sealed| sealed.end <= order.floor) {
            let summary = summary::load(dir, sealed)?;
            let needed = order.needed_in(sealed);
            round.judge(sealed, &summary, plan.judge(&summary, &needed))?;
        }
        round.flush()?;
        let Round {
            gone,
            failed,
            oldest_ms,
            ..
        } = round;
        if let Some(error) = failed {
            tracing::warn!(
                error = format!("{error:#}"),
                "what is past its limits stays in a journal segment until it can be rewritten"
            );
        }
        inner
            .oldest_ms
            .store(oldest_ms.unwrap_or_default(), Ordering::Relaxed);
        Ok(gone)
    }

    /// Seals the segment that is written, if anything is in it, and begins the next.
    ///
    /// # Errors
    /// The journal has failed.
    pub async fn roll(&self) -> anyhow::Result<()> {
        self.inner.status.roll.store(true, Ordering::Relaxed);
        let barrier = self.reserve(0).await.context("begin a journal segment")?;
        barrier.submit().await.context("begin a journal segment")?;
        Ok(())
    }

    /// When the first record of the segment that is written was accepted, milliseconds since 1970. Blocks.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn active_since(&self) -> anyhow::Result<Option<u64>> {
        let first = self.inner.catalog.active();
        let batch = self
            .reader(first, super::Filter::default())
            .next_batch(1, 1)?;
        Ok(batch.items.iter().find_map(|item| match item {
            super::Item::Record(record) => Some(record.time_ms),
            super::Item::Gap { .. } => None,
        }))
    }

    /// How many segments there are, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        (
            self.inner.catalog.sealed().len() + 1,
            self.inner.catalog.bytes(),
        )
    }

    /// When the oldest record was accepted, as of the last round; none before the first, or if there is no sealed one.
    #[must_use]
    pub fn oldest_ms(&self) -> Option<u64> {
        Some(self.inner.oldest_ms.load(Ordering::Relaxed)).filter(|oldest| *oldest > 0)
    }

    /// What is kept. Blocks: it reads what was never summed up, and the segment that is written.
    ///
    /// # Errors
    /// A segment is not there.
    pub fn inventory(&self) -> anyhow::Result<Inventory> {
        let inner = &self.inner;
        // No segment may go between the look at the catalog and the look at it.
        let _turn = inner.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = inner.catalog.dir();
        let mut inventory = Inventory::default();
        for sealed in inner.catalog.sealed() {
            inventory.add(&sealed, &summary::load(dir, &sealed)?);
        }
        let first = inner.catalog.active();
        if let Some(place) = inner.catalog.locate(first.max(self.next_offset())) {
            let active = Sealed {
                first: place.first,
                end: place.end_offset,
                bytes: place.end_bytes,
                serial: place.serial,
            };
            inventory.add(&active, &summary::sum_up(dir, &active)?);
        }
        Ok(inventory)
    }
}

impl Inventory {
    fn add(&mut self, sealed: &Sealed, summary: &Summary) {
        let is_empty = summary.hosts.is_empty();
        self.segments.push(Kept {
            first: sealed.first,
            end: sealed.end,
            bytes: sealed.bytes,
            records: summary.hosts.values().map(|count| count.records).sum(),
            first_ms: (!is_empty).then_some(summary.first_ms),
            last_ms: (!is_empty).then_some(summary.last_ms),
            is_whole: summary.is_whole,
        });
        for (host, count) in &summary.hosts {
            self.hosts.entry(host.clone()).or_default().add(*count);
        }
    }
}

impl Order {
    /// How many records of each host are needed in a segment.
    fn needed_in(&self, sealed: &Sealed) -> BTreeMap<String, u64> {
        let mut needed = BTreeMap::new();
        for (_, host) in self.needed.range(sealed.first..sealed.end) {
            *needed.entry(host.clone()).or_default() += 1;
        }
        needed
    }
}

/// A round under way.
struct Round<'a> {
    journal: &'a Journal,
    order: &'a Order,
    ledger: Ledger<'a>,
    /// Segments that follow each other and may become one, each with what goes of it.
    group: Vec<(Source, Goes)>,
    /// What will be left of the group.
    left: Option<Left>,
    gone: Vec<Gone>,
    /// The first rewriting that failed. The others go on: one bad segment must not keep everything else.
    failed: Option<anyhow::Error>,
    oldest_ms: Option<u64>,
}

impl Round<'_> {
    fn judge(
        &mut self,
        sealed: &Sealed,
        summary: &Summary,
        verdict: Verdict,
    ) -> anyhow::Result<()> {
        let (goes, vanishes) = match verdict {
            Verdict::Stays => (Goes::new(), false),
            Verdict::Loses(goes) => (goes, false),
            Verdict::Vanishes(goes) => (goes, true),
        };
        let staying = summary
            .hosts
            .iter()
            .filter(|(host, _)| !goes.contains_key(*host));
        let left = Left {
            bytes: staying.map(|(_, count)| count.bytes).sum(),
            first_ms: summary.first_ms,
            last_ms: summary.last_ms,
        };
        if left.bytes > 0 && self.oldest_ms.is_none() {
            self.oldest_ms = Some(summary.first_ms);
        }
        if !summary.is_whole && !vanishes {
            // It cannot be copied, so nothing joins it.
            return self.flush();
        }
        let sizes = self.journal.inner.sizes;
        let limits = &self.order.limits;
        let joined = match self.left {
            Some(before) => before.join(left, sizes.segment_bytes, limits),
            None => Some(left),
        };
        if joined.is_none() {
            self.flush()?;
        }
        self.left = Some(joined.unwrap_or(left));
        let source = Source {
            sealed: *sealed,
            vanishes,
        };
        self.group.push((source, goes));
        Ok(())
    }

    /// Rewrites the group, if there is any use in it.
    fn flush(&mut self) -> anyhow::Result<()> {
        self.left = None;
        let group = std::mem::take(&mut self.group);
        let changes = |(source, goes): &(Source, Goes)| source.vanishes || !goes.is_empty();
        if group.len() < 2 && !group.iter().any(changes) {
            return Ok(());
        }
        let (sources, goes): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let needed = &self.order.needed;
        let mut decide = |record: &crate::core::journal::Record<'_>| {
            let at = sources.partition_point(|source| source.sealed.end <= record.offset);
            let cause = goes.get(at).and_then(|goes| goes.get(record.host));
            match cause.filter(|_| !needed.contains_key(&record.offset)) {
                Some(cause) => Fate::Remove(*cause),
                None => Fate::Keep,
            }
        };
        let catalog = &self.journal.inner.catalog;
        let rewritten = match rewrite::rewrite(catalog, &sources, &mut decide) {
            Ok(rewritten) => rewritten,
            Err(error) => {
                // A segment may have gone bad since it was summed up: it is looked at again.
                for source in &sources {
                    summary::forget(catalog.dir(), source.sealed.first);
                }
                self.failed.get_or_insert(error);
                return Ok(());
            }
        };
        (self.ledger)(&rewritten.gone()).context("write down what goes")?;
        self.gone.extend(rewrite::install(catalog, rewritten)?);
        Ok(())
    }
}
