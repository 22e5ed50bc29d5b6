//! Purging: what the owner wants gone, wherever it stands. Segments that hold none of it are not touched.

use super::catalog::Sealed;
use super::keep::Ledger;
use super::rewrite::{self, Fate, Gone, Source};
use super::segment::{Scan, Step};
use super::{Journal, summary};
use crate::core::journal::Record;
use anyhow::Context as _;
use std::sync::PoisonError;

/// What a purge did.
#[derive(Clone, Debug, Default)]
pub struct Purged {
    /// What went.
    pub gone: Vec<Gone>,
    /// Segments that cannot be read to their end, and so were not rewritten: their offsets, up to and not including the second. What is
    /// in them stays until they are too old.
    pub damaged: Vec<(u64, u64)>,
}

impl Journal {
    /// Purges what `decide` says of the records of `host` below `end`, which is sealed already ([`Journal::roll`]). When this returns,
    /// the bytes are gone from the files, and stay gone over a power cut. Blocks, beside commits.
    ///
    /// # Errors
    /// The disk refuses, or the ledger does: some of it may be purged then.
    pub fn purge(
        &self,
        host: &str,
        end: u64,
        decide: &mut dyn FnMut(&Record<'_>) -> Fate,
        ledger: Ledger<'_>,
    ) -> anyhow::Result<Purged> {
        let inner = &self.inner;
        let _turn = inner.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        let catalog = &inner.catalog;
        let mut purged = Purged::default();
        let mut of_host = |record: &Record<'_>| {
            if record.host == host && record.offset < end {
                decide(record)
            } else {
                Fate::Keep
            }
        };
        let sealed = catalog.sealed().into_iter();
        for sealed in sealed.take_while(|sealed| sealed.first < end) {
            let summary = summary::load(catalog.dir(), &sealed)?;
            if !summary.is_whole {
                purged.damaged.push((sealed.first, sealed.end));
                continue;
            }
            let is_in = summary.hosts.contains_key(host);
            if !is_in || !self.holds_any(&sealed, &mut of_host)? {
                continue;
            }
            let source = Source {
                sealed,
                vanishes: false,
            };
            let rewritten = rewrite::rewrite(catalog, &[source], &mut of_host)?;
            ledger(&rewritten.gone()).context("write down what is purged")?;
            purged.gone.extend(rewrite::install(catalog, rewritten)?);
        }
        Ok(purged)
    }

    /// Whether there is anything in a segment that is to go.
    fn holds_any(
        &self,
        sealed: &Sealed,
        decide: &mut dyn FnMut(&Record<'_>) -> Fate,
    ) -> anyhow::Result<bool> {
        let dir = self.inner.catalog.dir();
        let Some(mut scan) = Scan::open(dir, sealed.first, sealed.bytes)? else {
            return Ok(false);
        };
        let mut at = sealed.first;
        loop {
            match scan.step(at)? {
                Step::Record(record, _) if decide(&record) != Fate::Keep => return Ok(true),
                Step::Record(..) => at += 1,
                Step::Removed(removed) => at = removed.to,
                // Damage shows when it is rewritten.
                Step::Bad(_) => return Ok(true),
                Step::End => return Ok(false),
            }
        }
    }
}
