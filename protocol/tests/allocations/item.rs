//! A CBOR item as a tree, so that it can be broken at any place. Written without our decoder: what is measured does not measure itself.

pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const MAP: u8 = 5;

/// An item. Whatever is in it is written as it stands, good or bad.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// An integer, `true` or `false`; or anything hostile.
    Plain(Vec<u8>),
    Bytes(Vec<u8>),
    Text(Vec<u8>),
    /// Bytes that hold an item.
    Inside(Box<Self>),
    Array(Vec<Self>),
    /// Keys and values in turn.
    Map(Vec<Self>),
}

/// Where an item is: the way to it from the outermost, by the number of each child.
pub(crate) type Place = Vec<usize>;

impl Item {
    /// The item that fills `bytes`, which are ours and good.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let (item, rest) = Self::read(bytes);
        assert!(rest.is_empty(), "one item");
        item
    }

    fn read(bytes: &[u8]) -> (Self, &[u8]) {
        let (argument, rest) = argument(bytes);
        let size = usize::try_from(argument).unwrap_or(usize::MAX);
        match bytes[0] >> 5 {
            BYTES => (Self::Bytes(rest[..size].to_vec()), &rest[size..]),
            TEXT => (Self::Text(rest[..size].to_vec()), &rest[size..]),
            ARRAY => {
                let (items, rest) = Self::read_many(size, rest);
                (Self::Array(items), rest)
            }
            MAP => {
                let (items, rest) = Self::read_many(size * 2, rest);
                (Self::Map(items), rest)
            }
            _ => (
                Self::Plain(bytes[..bytes.len() - rest.len()].to_vec()),
                rest,
            ),
        }
    }

    fn read_many(count: usize, mut rest: &[u8]) -> (Vec<Self>, &[u8]) {
        let mut items = Vec::new();
        for _ in 0..count {
            let (item, behind) = Self::read(rest);
            items.push(item);
            rest = behind;
        }
        (items, rest)
    }

    /// Its encoding.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let all = |items: &[Self]| items.iter().map(Self::encode).collect::<Vec<_>>().concat();
        let string = |major, bytes: &[u8]| [&head(major, bytes.len()), bytes].concat();
        match self {
            Self::Plain(bytes) => bytes.clone(),
            Self::Bytes(bytes) => string(BYTES, bytes),
            Self::Text(text) => string(TEXT, text),
            Self::Inside(item) => string(BYTES, &item.encode()),
            Self::Array(items) => [head(ARRAY, items.len()), all(items)].concat(),
            Self::Map(items) => [head(MAP, items.len() / 2), all(items)].concat(),
        }
    }

    /// What is directly in it.
    pub(crate) fn children(&self) -> Vec<Self> {
        match self {
            Self::Array(items) | Self::Map(items) => items.clone(),
            Self::Inside(item) => vec![(**item).clone()],
            Self::Plain(_) | Self::Bytes(_) | Self::Text(_) => Vec::new(),
        }
    }

    /// Every place in it, its own first.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = vec![Vec::new()];
        for (number, child) in self.children().iter().enumerate() {
            for inner in child.places() {
                places.push([&[number][..], &inner].concat());
            }
        }
        places
    }

    /// What is at `place`.
    pub(crate) fn at(&self, place: &[usize]) -> Self {
        match place.split_first() {
            None => self.clone(),
            Some((number, inner)) => self.children()[*number].at(inner),
        }
    }

    /// The same with `item` at `place`.
    pub(crate) fn with(&self, place: &[usize], item: &Self) -> Self {
        let Some((number, inner)) = place.split_first() else {
            return item.clone();
        };
        let mut children = self.children();
        children[*number] = children[*number].with(inner, item);
        match self {
            Self::Array(_) => Self::Array(children),
            Self::Map(_) => Self::Map(children),
            _ => Self::Inside(Box::new(children.remove(0))),
        }
    }
}

/// The argument of the first head, and what is behind it.
fn argument(bytes: &[u8]) -> (u64, &[u8]) {
    let width = match bytes[0] & 0x1f {
        small @ 0..=23 => return (u64::from(small), &bytes[1..]),
        24 => 1,
        25 => 2,
        26 => 4,
        _ => 8,
    };
    let (argument, rest) = bytes[1..].split_at(width);
    let value = argument
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    (value, rest)
}

/// The shortest head.
pub(crate) fn head(major: u8, value: usize) -> Vec<u8> {
    let width = match value {
        0..=23 => 0,
        24..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    head_of_width(major, value as u64, width)
}

/// A head whose argument takes `width` bytes, needed or not.
pub(crate) fn head_of_width(major: u8, value: u64, width: usize) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let low = match width {
        0 => bytes[7],
        1 => 24,
        2 => 25,
        4 => 26,
        _ => 27,
    };
    [&[major << 5 | low][..], &bytes[bytes.len() - width..]].concat()
}

#[test]
fn a_tree_is_written_as_it_was_read() {
    let bytes = [
        0xa2, 1, 0x82, 0x41, 7, 0x61, b'a', 0x20, 0x83, 0x18, 64, 0xf5, 0x19, 1, 0,
    ];
    let item = Item::parse(&bytes);
    assert_eq!(item.encode(), bytes);
    assert_eq!(item.places().len(), 10);
    assert_eq!(item.at(&[1, 1]).encode(), [0x61, b'a']);
    let changed = item.with(&[1, 1], &Item::Plain(vec![9]));
    assert_eq!(changed.encode()[..6], [0xa2, 1, 0x82, 0x41, 7, 9]);
}
