//! CBOR in the deterministic encoding, straight from RFC 8949 §4.2.1 and `SPEC.md` 1.1: what our decoder is measured against.

/// Deeper than any message of ours with anything that it may skip.
const DEPTH_MAX: usize = 32;

/// Pairs of any map, arrays and maps inside what is skipped, and the last label that may be (`SPEC.md` 9).
const PAIRS_MAX: usize = 23;
const SKIPPED_DEPTH_MAX: usize = 8;

/// Whether a message knows this label, from 64 on, in the map that lies below these labels.
pub type Known<'a> = &'a dyn Fn(&[u64], u64) -> bool;
const LABEL_MAX: u64 = i64::MAX as u64;

/// One item. What our protocol does not speak (tags, floats, `undefined`) has no variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An unsigned integer.
    Uint(u64),
    /// A negative integer, −1 − n.
    Negative(u64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text.
    Text(String),
    /// An array.
    Array(Vec<Item>),
    /// A map, in the order of its keys.
    Map(Vec<(Item, Item)>),
    /// `false`, `true` or `null`, by its byte.
    Simple(u8),
}

impl Item {
    /// The one item that `bytes` encode, if they do so deterministically and hold nothing else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (item, rest) = read(bytes, DEPTH_MAX)?;
        rest.is_empty().then_some(item)
    }

    /// The item at the front of `bytes`, and what follows it.
    pub fn read_front(bytes: &[u8]) -> Option<(Self, &[u8])> {
        read(bytes, DEPTH_MAX)
    }

    /// Its encoding.
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Self::Uint(value) => head(0, *value),
            Self::Negative(value) => head(1, *value),
            Self::Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
            Self::Text(text) => [head(3, text.len() as u64), text.clone().into_bytes()].concat(),
            Self::Array(items) => {
                let all = items.iter().map(Self::to_vec);
                [head(4, items.len() as u64)]
                    .into_iter()
                    .chain(all)
                    .collect::<Vec<_>>()
                    .concat()
            }
            Self::Map(pairs) => {
                let all = pairs
                    .iter()
                    .flat_map(|(key, value)| [key.to_vec(), value.to_vec()]);
                [head(5, pairs.len() as u64)]
                    .into_iter()
                    .chain(all)
                    .collect::<Vec<_>>()
                    .concat()
            }
            Self::Simple(byte) => vec![*byte],
        }
    }

    /// What a reader knows of an open message: the pairs with labels from 64 are skipped, everywhere (`SPEC.md` 9), but those that are
    /// known by now.
    pub fn without_skipped(self, known: Known<'_>) -> Self {
        self.without_skipped_at(known, &[])
    }

    fn without_skipped_at(self, known: Known<'_>, path: &[u64]) -> Self {
        match self {
            Self::Array(items) => {
                let items = items.into_iter();
                Self::Array(
                    items
                        .map(|item| item.without_skipped_at(known, path))
                        .collect(),
                )
            }
            Self::Map(pairs) => Self::Map(
                pairs
                    .into_iter()
                    .filter(|(key, _)| match key {
                        Self::Uint(label @ 64..) => known(path, *label),
                        _ => true,
                    })
                    .map(|(key, value)| {
                        let inside = key.below(path);
                        (key, value.without_skipped_at(known, &inside))
                    })
                    .collect(),
            ),
            other => other,
        }
    }

    /// Whether what [`Item::without_skipped`] leaves out is such that a reader skips it and does not refuse it (`SPEC.md` 9).
    pub fn may_be_skipped_in(&self, known: Known<'_>) -> bool {
        self.may_be_skipped_at(known, &[])
    }

    fn may_be_skipped_at(&self, known: Known<'_>, path: &[u64]) -> bool {
        match self {
            Self::Array(items) => items.iter().all(|item| item.may_be_skipped_at(known, path)),
            Self::Map(pairs) => {
                pairs.len() <= PAIRS_MAX
                    && pairs.iter().all(|(key, value)| match key {
                        Self::Uint(label @ 64..) if !known(path, *label) => {
                            *label <= LABEL_MAX && value.is_skippable(SKIPPED_DEPTH_MAX)
                        }
                        _ => value.may_be_skipped_at(known, &key.below(path)),
                    })
            }
            _ => true,
        }
    }

    fn below(&self, path: &[u64]) -> Vec<u64> {
        match self {
            Self::Uint(label) => [path, &[*label]].concat(),
            _ => path.to_vec(),
        }
    }

    fn is_skippable(&self, depth: usize) -> bool {
        let is_key = |key: &Self| matches!(key, Self::Uint(_) | Self::Negative(_) | Self::Text(_));
        match self {
            Self::Array(items) => {
                depth > 0 && items.iter().all(|item| item.is_skippable(depth - 1))
            }
            Self::Map(pairs) => {
                depth > 0
                    && pairs.len() <= PAIRS_MAX
                    && pairs
                        .iter()
                        .all(|(key, value)| is_key(key) && value.is_skippable(depth - 1))
            }
            _ => true,
        }
    }

    /// The value of a map under an unsigned label.
    pub fn label_mut(&mut self, label: u64) -> Option<&mut Self> {
        let Self::Map(pairs) = self else {
            return None;
        };
        let found = pairs.iter_mut().find(|(key, _)| *key == Self::Uint(label));
        found.map(|(_, value)| value)
    }
}

fn read(bytes: &[u8], depth: usize) -> Option<(Item, &[u8])> {
    let inside = depth.checked_sub(1)?;
    let (major, argument, rest) = read_head(bytes)?;
    match major {
        0 => Some((Item::Uint(argument), rest)),
        1 => Some((Item::Negative(argument), rest)),
        2 | 3 => {
            let (string, rest) = rest.split_at_checked(usize::try_from(argument).ok()?)?;
            let item = match major {
                2 => Item::Bytes(string.to_vec()),
                _ => Item::Text(std::str::from_utf8(string).ok()?.to_owned()),
            };
            Some((item, rest))
        }
        4 => read_array(rest, argument, inside),
        5 => read_map(rest, argument, inside),
        7 if (20..=22).contains(&argument) && bytes.len() - rest.len() == 1 => {
            Some((Item::Simple(bytes[0]), rest))
        }
        _ => None,
    }
}

fn read_array(mut rest: &[u8], count: u64, depth: usize) -> Option<(Item, &[u8])> {
    let mut items = Vec::new();
    for _ in 0..count {
        let (item, after) = read(rest, depth)?;
        items.push(item);
        rest = after;
    }
    Some((Item::Array(items), rest))
}

fn read_map(mut rest: &[u8], count: u64, depth: usize) -> Option<(Item, &[u8])> {
    let mut pairs: Vec<(Item, Item)> = Vec::new();
    for _ in 0..count {
        let (key, after) = read(rest, depth)?;
        if pairs
            .last()
            .is_some_and(|(last, _)| last.to_vec() >= key.to_vec())
        {
            return None;
        }
        let (value, after) = read(after, depth)?;
        pairs.push((key, value));
        rest = after;
    }
    Some((Item::Map(pairs), rest))
}

/// Major type, argument in its shortest form, and what follows.
fn read_head(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let width = match first & 0x1f {
        low @ 0..=23 => return Some((first >> 5, low.into(), rest)),
        24 => 1,
        25 => 2,
        26 => 4,
        27 => 8,
        _ => return None,
    };
    let (argument, rest) = rest.split_at_checked(width)?;
    let argument = argument
        .iter()
        .fold(0, |all, byte| all << 8 | u64::from(*byte));
    let is_shortest = head(0, argument).len() == 1 + width;
    is_shortest.then_some((first >> 5, argument, rest))
}

fn head(major: u8, argument: u64) -> Vec<u8> {
    let bytes = argument.to_be_bytes();
    let (low, width) = match argument {
        0..=23 => return vec![major << 5 | bytes[7]],
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    [&[major << 5 | low], &bytes[8 - width..]].concat()
}
