//! Which certificate authorities this host trusts: those of its bundle, and those that the broker named since.
//!
//! The broker names its authorities in every grant, so that the next one is known long before the last one ends. What was learned
//! belongs to the bundle's `ca.crt` under which it was learned: the owner who replaces that file starts anew.

use protocol::limits::{AUTHORITIES_BYTES_MAX, AUTHORITIES_MAX};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What was learned, as it is persisted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learned {
    /// The hash of the bundle's `ca.crt`.
    bundle: ByteBuf,
    /// Certificates, DER, in the broker's order.
    authorities: Vec<ByteBuf>,
}

impl Learned {
    /// What counts of what was persisted: nothing, if the bundle's `ca.crt` is another by now.
    #[must_use]
    pub fn under(bundle: &[u8; 32], earlier: Option<Self>) -> Self {
        earlier
            .filter(|earlier| earlier.bundle == bundle)
            .unwrap_or_else(|| Self {
                bundle: ByteBuf::from(bundle.to_vec()),
                authorities: Vec::new(),
            })
    }

    /// What counts once the broker has named its authorities; nothing, if that changes nothing. An older broker names none, and more
    /// than the protocol allows are none.
    #[must_use]
    pub fn after(&self, told: &[ByteBuf]) -> Option<Self> {
        let bytes: usize = told.iter().map(|one| one.len()).sum();
        let is_bounded = told.len() <= AUTHORITIES_MAX && bytes <= AUTHORITIES_BYTES_MAX;
        let is_news = !told.is_empty() && is_bounded && told != self.authorities;
        is_news.then(|| Self {
            bundle: self.bundle.clone(),
            authorities: told.to_vec(),
        })
    }

    /// The certificates, DER.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.authorities.iter().map(|one| one.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(count: u8, bytes: usize) -> Vec<ByteBuf> {
        (0..count).map(|n| ByteBuf::from(vec![n; bytes])).collect()
    }

    #[test]
    fn what_was_learned_lasts_until_the_bundles_authority_is_replaced() {
        let fresh = Learned::under(&[1; 32], None);
        assert_eq!(fresh.authorities().count(), 0);
        let learned = fresh.after(&list(2, 500)).unwrap();
        let again = Learned::under(&[1; 32], Some(learned.clone()));
        assert_eq!(again, learned);
        let replaced = Learned::under(&[2; 32], Some(learned));
        assert_eq!(replaced.authorities().count(), 0);
    }

    #[test]
    fn the_newest_list_counts_and_one_that_says_nothing_new_changes_nothing() {
        let learned = Learned::under(&[1; 32], None).after(&list(2, 500)).unwrap();
        assert_eq!(learned.after(&list(2, 500)), None);
        assert_eq!(learned.after(&[]), None);
        let next = learned.after(&list(1, 400)).unwrap();
        assert_eq!(next.authorities().count(), 1);
    }

    #[test]
    fn more_than_the_protocol_allows_is_not_learned() {
        let learned = Learned::under(&[1; 32], None);
        let many = u8::try_from(AUTHORITIES_MAX).unwrap() + 1;
        assert_eq!(learned.after(&list(many, 1)), None);
        assert!(learned.after(&list(many - 1, 1)).is_some());
        assert_eq!(learned.after(&list(1, AUTHORITIES_BYTES_MAX + 1)), None);
    }
}
