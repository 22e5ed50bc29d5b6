//! The host's successions on disk: parts of a few links each, the oldest of which are dropped.

use std::path::PathBuf;

use protocol::cbor;
use protocol::limits::SUCCESSIONS_MAX;

use super::{FILE_BYTES_MAX, SUCCESSIONS, Store, file};
use crate::core::chain::{Link, PARTS_MAX, part_of, shown, with};

impl Store {
    /// Keeps a succession. Doing it again changes nothing.
    ///
    /// # Errors
    /// If it is not on disk.
    pub fn save_link(&self, link: Link) -> anyhow::Result<()> {
        let number = part_of(link.generation);
        let part = self.load_part(number)?.unwrap_or_default();
        let is_new = part.is_empty();
        let part = with(part, link);
        file::write(&self.part_path(number), &cbor::to_vec(&part))?;
        if is_new {
            let names = file::list(&self.dir.join(SUCCESSIONS))?;
            for name in names.iter().rev().skip(PARTS_MAX) {
                file::remove(&self.dir.join(SUCCESSIONS).join(name))?;
            }
        }
        Ok(())
    }

    /// The successions to be shown to a broker that knows the key of generation `after`; from the first that is kept if it did not say.
    ///
    /// # Errors
    /// If a part is damaged or cannot be read.
    pub fn load_chain(&self, after: Option<u64>) -> anyhow::Result<Vec<Link>> {
        let first = match after {
            Some(after) => part_of(after.saturating_add(1)),
            None => {
                let names = file::list(&self.dir.join(SUCCESSIONS))?;
                let oldest = names.first().and_then(|name| name.parse().ok());
                oldest.unwrap_or(0)
            }
        };
        let mut links = Vec::new();
        // As many parts as one request can show, wherever it begins.
        for number in first..=first.saturating_add(SUCCESSIONS_MAX as u64 / 8) {
            let Some(part) = self.load_part(number)? else {
                break;
            };
            links.extend(part);
        }
        Ok(shown(links, after))
    }

    fn load_part(&self, number: u64) -> anyhow::Result<Option<Vec<Link>>> {
        let path = self.part_path(number);
        let Some(bytes) = file::read(&path, FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        cbor::from_slice(&bytes, FILE_BYTES_MAX)
            .map(Some)
            .map_err(|_| file::damaged(&path, "it is of another version"))
    }

    fn part_path(&self, number: u64) -> PathBuf {
        self.dir.join(SUCCESSIONS).join(format!("{number:020}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{open, reopen};
    use super::*;

    fn link(generation: u64) -> Link {
        Link {
            generation,
            succession: vec![7; 260].into(),
        }
    }

    fn generations(store: &Store, after: Option<u64>) -> Vec<u64> {
        let links = store.load_chain(after).unwrap();
        links.iter().map(|link| link.generation).collect()
    }

    #[test]
    fn a_chain_is_kept_over_restarts_and_given_from_where_it_is_asked_for() {
        let (_dir, mut store) = open();
        for generation in 2..=70 {
            // A restart at each: the same link may be saved again.
            store.save_link(link(generation)).unwrap();
            store = reopen(store);
            store.save_link(link(generation)).unwrap();
        }
        assert_eq!(generations(&store, None), (2..=25).collect::<Vec<_>>());
        for after in 1..70 {
            let expected: Vec<u64> = (after + 1..=70).take(SUCCESSIONS_MAX).collect();
            assert_eq!(generations(&store, Some(after)), expected);
        }
        assert!(generations(&store, Some(70)).is_empty());
    }

    #[test]
    fn the_oldest_part_gives_way() {
        let (_dir, store) = open();
        for number in 0..=PARTS_MAX as u64 + 1 {
            store.save_link(link(number * 16 + 3)).unwrap();
        }
        assert_eq!(generations(&store, None), [2 * 16 + 3]);
        assert!(generations(&store, Some(2)).is_empty());
    }
}
