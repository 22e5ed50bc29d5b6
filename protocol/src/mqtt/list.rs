//! Lists inside packets: checked where they stand when decoded, lent by the caller when encoded.

use std::fmt;
use std::iter::FusedIterator;

/// A list in a packet: of user properties, of filters, of reason codes.
///
/// A decoded one is the bytes of the packet, all of which were checked: going through it cannot fail and allocates nothing.
/// One to encode is a slice: `List::from(&[…])`. Lists are equal if their entries are.
pub struct List<'a, T>(Form<'a, T>);

enum Form<'a, T> {
    /// `count` entries in `bytes`, each read once before without error.
    Wire {
        bytes: &'a [u8],
        count: usize,
    },
    Given(&'a [T]),
}

/// What a [`List`] can hold. Only this module tree has use for it.
pub trait Entry<'a>: Copy {
    /// The first entry of `bytes`, and what is behind it; `None` where there is no valid one.
    #[doc(hidden)]
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])>;
}

impl<'a, T> List<'a, T> {
    /// The list without entries.
    pub const EMPTY: Self = Self(Form::Given(&[]));

    /// `count` entries that the caller has read from `bytes` without error.
    pub(super) const fn checked(bytes: &'a [u8], count: usize) -> Self {
        if count == 0 {
            return Self::EMPTY;
        }
        Self(Form::Wire { bytes, count })
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        match self.0 {
            Form::Wire { count, .. } => count,
            Form::Given(entries) => entries.len(),
        }
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries in their order.
    pub const fn iter(&self) -> Iter<'a, T> {
        Iter(match self.0 {
            Form::Wire { bytes, count } => Form::Wire { bytes, count },
            Form::Given(entries) => Form::Given(entries),
        })
    }
}

/// The entries of a [`List`].
pub struct Iter<'a, T>(Form<'a, T>);

impl<'a, T: Entry<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.0 {
            Form::Wire { count: 0, .. } => None,
            Form::Wire { bytes, count } => {
                let read = T::read(bytes);
                debug_assert!(read.is_some(), "the list was checked when decoded");
                let (entry, rest) = read?;
                *bytes = rest;
                *count -= 1;
                Some(entry)
            }
            Form::Given(entries) => {
                let (first, rest) = entries.split_first()?;
                *entries = rest;
                Some(*first)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match self.0 {
            Form::Wire { count, .. } => count,
            Form::Given(entries) => entries.len(),
        };
        (left, Some(left))
    }
}

impl<'a, T: Entry<'a>> ExactSizeIterator for Iter<'a, T> {}
impl<'a, T: Entry<'a>> FusedIterator for Iter<'a, T> {}

impl<'a, T: Entry<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(entries: &'a [T]) -> Self {
        Self(Form::Given(entries))
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for List<'a, T> {
    fn from(entries: &'a [T; N]) -> Self {
        Self(Form::Given(entries))
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for List<'_, T> {}

impl<T> Clone for Form<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Form<'_, T> {}

impl<'a, T: Entry<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<'a, T: Entry<'a> + Eq> Eq for List<'a, T> {}

/// How many, not which: the entries are a stranger's.
impl<T> fmt::Debug for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} entries>", self.len())
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", List(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of two bytes.
    impl<'a> Entry<'a> for [u8; 2] {
        fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
            bytes
                .split_first_chunk::<2>()
                .map(|(pair, rest)| (*pair, rest))
        }
    }

    #[test]
    fn mqtt_a_list_from_the_wire_equals_the_same_list_given() {
        let wire: List<'_, [u8; 2]> = List::checked(&[1, 2, 3, 4, 5], 2);
        let given = List::from(&[[1, 2], [3, 4]]);
        assert_eq!(wire, given);
        assert_eq!(wire.iter().len(), 2);
        assert_ne!(wire, List::from(&[[1, 2]]));
        assert_ne!(wire, List::from(&[[1, 2], [3, 5]]));
        assert_eq!(List::<[u8; 2]>::checked(&[], 0), List::EMPTY);
    }

    #[test]
    fn mqtt_a_list_shows_no_content() {
        assert_eq!(format!("{:?}", List::from(&[[7, 7]])), "<1 entries>");
    }
}
