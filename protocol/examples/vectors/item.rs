//! CBOR by hand: what is put together here is written as it stands, good or bad. Written without our encoder, so that the vectors do not
//! follow its mistakes.

/// An encoded item.
pub(crate) type Item = Vec<u8>;

pub(crate) const NULL: u8 = 0xf6;
pub(crate) const TRUE: u8 = 0xf5;
pub(crate) const FALSE: u8 = 0xf4;

/// A head in its shortest form (RFC 8949 §3).
pub(crate) fn head(major: u8, argument: u64) -> Item {
    let width = match argument {
        0..=23 => 0,
        24..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    };
    head_of_width(major, argument, width)
}

/// A head whose argument takes so many bytes, though fewer might do.
pub(crate) fn head_of_width(major: u8, argument: u64, width: usize) -> Item {
    let bytes = argument.to_be_bytes();
    let low = match width {
        0 => bytes[7],
        1 => 24,
        2 => 25,
        4 => 26,
        _ => 27,
    };
    [&[major << 5 | low], &bytes[8 - width..]].concat()
}

pub(crate) fn uint(number: u64) -> Item {
    head(0, number)
}

/// A label.
pub(crate) fn int(number: i64) -> Item {
    if number < 0 {
        head(1, number.unsigned_abs() - 1)
    } else {
        head(0, number.unsigned_abs())
    }
}

pub(crate) fn bytes(content: &[u8]) -> Item {
    [head(2, content.len() as u64), content.to_vec()].concat()
}

pub(crate) fn text(content: &str) -> Item {
    [head(3, content.len() as u64), content.into()].concat()
}

pub(crate) fn array(items: &[Item]) -> Item {
    [head(4, items.len() as u64), items.concat()].concat()
}

/// Arrays in each other, `depth` of them.
pub(crate) fn nested(depth: usize) -> Item {
    [vec![0x81; depth - 1], vec![0x80]].concat()
}

/// A map: pairs of encoded keys and values, in the order in which they are written.
#[derive(Clone)]
pub(crate) struct Map(pub(crate) Vec<(Item, Item)>);

impl Map {
    pub(crate) fn new(pairs: &[(i64, Item)]) -> Self {
        let pairs = pairs.iter();
        Self(
            pairs
                .map(|(label, value)| (int(*label), value.clone()))
                .collect(),
        )
    }

    /// With this value under this label, in its place.
    pub(crate) fn with(mut self, label: i64, value: impl Into<Item>) -> Self {
        let key = int(label);
        self.0.retain(|(other, _)| *other != key);
        let at = self.0.partition_point(|(other, _)| *other < key);
        self.0.insert(at, (key, value.into()));
        self
    }

    /// With this pair at the end, wherever it belongs.
    pub(crate) fn then(mut self, label: i64, value: impl Into<Item>) -> Self {
        self.0.push((int(label), value.into()));
        self
    }

    pub(crate) fn without(mut self, label: i64) -> Self {
        self.0.retain(|(other, _)| *other != int(label));
        self
    }

    pub(crate) fn encode(&self) -> Item {
        let pairs = self
            .0
            .iter()
            .flat_map(|(key, value)| [key.as_slice(), value]);
        [
            head(5, self.0.len() as u64),
            pairs.flatten().copied().collect(),
        ]
        .concat()
    }
}

impl From<Map> for Item {
    fn from(map: Map) -> Self {
        map.encode()
    }
}
