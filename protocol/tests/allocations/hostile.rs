//! Hostile values to put into a message, and hostile forms of what is in it.

use crate::item::{ARRAY, BYTES, Item, MAP, TEXT, head, head_of_width};

/// Something hostile.
pub(crate) struct Hostile {
    pub(crate) what: &'static str,
    pub(crate) item: Item,
    pub(crate) fits: Fits,
}

/// Where something hostile is what it should be, so that it cannot be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fits {
    Nowhere,
    /// In what is skipped unread.
    Skipped,
    Somewhere,
}

fn never(what: &'static str, bytes: Vec<u8>) -> Hostile {
    let item = Item::Plain(bytes);
    let fits = Fits::Nowhere;
    Hostile { what, item, fits }
}

fn unless_skipped(what: &'static str, bytes: Vec<u8>) -> Hostile {
    let fits = Fits::Skipped;
    Hostile {
        fits,
        ..never(what, bytes)
    }
}

fn perhaps(what: &'static str, bytes: Vec<u8>) -> Hostile {
    let fits = Fits::Somewhere;
    Hostile {
        fits,
        ..never(what, bytes)
    }
}

/// Values that ask for much and bring little. None is longer than `room`.
pub(crate) fn bombs(room: usize) -> Vec<Hostile> {
    let mut bombs = deep(room);
    bombs.extend(long());
    bombs.extend(wide(room));
    bombs.extend(large(room));
    bombs.extend(odd());
    bombs
}

/// Thousands of arrays, maps and tags in each other.
fn deep(room: usize) -> Vec<Hostile> {
    let filled =
        |unit: &[u8], end: &[u8]| [unit.repeat(room / unit.len() - 1), end.to_vec()].concat();
    vec![
        never("deep arrays", filled(&[0x81], &[0x80])),
        never("deep maps", filled(&[0xa1, 1], &[0xa0])),
        never("deep maps of 64", filled(&[0xa1, 0x18, 64], &[0xa0])),
        never("deep keys", filled(&[0xa1], &[1])),
        never("deep pairs", filled(&[0x82, 1], &[1])),
        never("deep tags", filled(&[0xc1], &[1])),
        never("deep long tags", filled(&[0xd9, 0xd9, 0xf7], &[1])),
        never("deep open arrays", filled(&[0x9f], &[0xff])),
        never("deep open maps", filled(&[0xbf, 1], &[0xff])),
        never("deep and unfinished", filled(&[0x82], &[])),
        never("nine arrays", [vec![0x81; 9], vec![1]].concat()),
    ]
}

/// Lengths that nothing follows.
fn long() -> Vec<Hostile> {
    let mut bombs = Vec::new();
    for length in [
        0xffff,
        0xffff_ffff,
        1 << 32,
        i64::MAX as u64,
        1 << 63,
        u64::MAX,
    ] {
        for (what, major) in [
            ("long bytes", BYTES),
            ("long text", TEXT),
            ("long array", ARRAY),
            ("long map", MAP),
        ] {
            let bytes = head_of_width(major, length, if length == 0xffff { 2 } else { 8 });
            bombs.push(never(what, [&bytes[..], &[0x01; 40]].concat()));
            bombs.push(never(what, bytes));
        }
    }
    bombs.push(never(
        "long array of pairs",
        vec![0x9a, 0, 1, 0, 0, 0x82, 0x60, 0x60, 0x82],
    ));
    bombs
}

/// As many small things as there is room for, as many as the longest list may hold, and one more.
fn wide(room: usize) -> Vec<Hostile> {
    let units: [(&str, &[u8]); 13] = [
        ("many numbers", &[0]),
        ("many empty texts", &[0x60]),
        ("many empty bytes", &[0x40]),
        ("many empty arrays", &[0x80]),
        ("many empty maps", &[0xa0]),
        ("many ids", &[0x61, b'a']),
        ("many empty variables", &[0x82, 0x60, 0x60]),
        ("many variables", &[0x82, 0x61, b'A', 0x60]),
        ("many sightings", &[0xa2, 1, 0x61, b'a', 2, 1]),
        (
            "many scope entries",
            &[0x82, 0x61, b'a', 0x81, 0x63, b'p', b'u', b'b'],
        ),
        ("many empty scope entries", &[0x82, 0x60, 0x80]),
        ("many permissions", &[0x63, b'p', b'u', b'b']),
        ("many maps that skip", &SKIPPING_SIGHTING),
    ];
    let mut bombs = Vec::new();
    for (what, unit) in units {
        let most = (room - 5) / unit.len();
        let list = |count| [head(ARRAY, count), unit.repeat(count)].concat();
        bombs.push(perhaps(what, list(most.min(LIST_ITEMS_MAX))));
        if most > LIST_ITEMS_MAX {
            bombs.push(unless_skipped(what, list(LIST_ITEMS_MAX + 1)));
            bombs.push(unless_skipped(what, list(most)));
        }
    }
    bombs
}

/// The longest list of any message.
const LIST_ITEMS_MAX: usize = 256;

/// A sighting with three pairs that a reader of today skips.
const SKIPPING_SIGHTING: [u8; 15] = [
    0xa5, 1, 0x61, b'a', 2, 1, 0x18, 64, 0xf6, 0x18, 65, 0xf6, 0x18, 66, 0xf6,
];

/// One thing of all the room, and maps at their limit.
fn large(room: usize) -> Vec<Hostile> {
    let string = |major, byte| {
        let size = room - 5;
        [head(major, size), vec![byte; size]].concat()
    };
    let map = |count: u8| {
        let pairs = (0..count).flat_map(|number| [0x18, 64 + number, 0xf6]);
        [head(MAP, count.into()), pairs.collect()].concat()
    };
    vec![
        never("a map of 24", map(24)),
        perhaps("a map of 23", map(23)),
        perhaps("a text of all the room", string(TEXT, b'a')),
        perhaps("bytes of all the room", string(BYTES, 0)),
    ]
}

/// What no message has, or has elsewhere.
fn odd() -> Vec<Hostile> {
    let mut bombs = vec![
        perhaps("false", vec![0xf4]),
        perhaps("true", vec![0xf5]),
        never("undefined", vec![0xf7]),
        never("a simple value", vec![0xe0]),
        never("a long simple value", vec![0xf8, 32]),
        never("a float of 2 bytes", vec![0xf9, 0, 0]),
        never("a float of 4 bytes", vec![0xfa, 0, 0, 0, 0]),
        never("a float of 8 bytes", vec![0xfb, 0, 0, 0, 0, 0, 0, 0, 0]),
        never("a break", vec![0xff]),
        never("a reserved head", vec![0x1c]),
        never("bytes in pieces", vec![0x5f, 0x41, 0, 0xff]),
        never("text in pieces", vec![0x7f, 0x61, b'a', 0xff]),
        never("an open array", vec![0x9f, 1, 0xff]),
        never("an open map", vec![0xbf, 1, 1, 0xff]),
        never("a bignum", vec![0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        never("text that is none", vec![0x61, 0xff]),
        perhaps("zero", vec![0]),
        perhaps("the largest number", head_of_width(0, u64::MAX, 8)),
        perhaps("minus one", vec![0x20]),
        perhaps("the least number", head_of_width(1, u64::MAX, 8)),
        perhaps("an empty array", vec![0x80]),
        perhaps("an empty map", vec![0xa0]),
        perhaps("an empty text", vec![0x60]),
        perhaps("empty bytes", vec![0x40]),
        perhaps("null", vec![0xf6]),
    ];
    bombs.extend([1, 2, 4, 8].map(|width| never("a long zero", head_of_width(0, 0, width))));
    bombs
}

/// Other encodings of one item, and other types of value in its place.
pub(crate) fn twists(item: &Item) -> Vec<Hostile> {
    let bytes = item.encode();
    let mut twists = vec![
        never("a tag before it", [&[0xc1][..], &bytes].concat()),
        never(
            "a long tag before it",
            [&[0xd9, 0xd9, 0xf7][..], &bytes].concat(),
        ),
        unless_skipped("an array around it", [&[0x81][..], &bytes].concat()),
        never("itself twice", [&bytes[..], &bytes].concat()),
        never("nothing", Vec::new()),
    ];
    if bytes.len() > 1 {
        twists.push(unless_skipped("its first byte", bytes[..1].to_vec()));
        twists.push(unless_skipped(
            "all but its last byte",
            bytes[..bytes.len() - 1].to_vec(),
        ));
    }
    for width in [1, 2, 4, 8] {
        twists.extend(widened(&bytes, width).map(|bytes| never("a longer head", bytes)));
    }
    let around = [head(BYTES, bytes.len()), bytes.clone()].concat();
    match item {
        Item::Bytes(_) => twists.push(perhaps("more bytes", around)),
        _ => twists.push(unless_skipped("bytes around it", around)),
    }
    match item {
        Item::Plain(_) => {}
        Item::Bytes(_) | Item::Inside(_) => {
            twists.push(unless_skipped("text for bytes", with_major(&bytes, TEXT)));
            twists.push(never("in pieces", [&[0x5f][..], &bytes, &[0xff]].concat()));
        }
        Item::Text(_) => {
            twists.push(unless_skipped("bytes for text", with_major(&bytes, BYTES)));
            twists.push(never("in pieces", [&[0x7f][..], &bytes, &[0xff]].concat()));
        }
        Item::Array(items) => {
            twists.push(never("indefinite", indefinite(0x9f, items)));
            let pairs = items
                .iter()
                .enumerate()
                .flat_map(|(number, item)| [Item::Plain(head(0, number)), item.clone()]);
            twists.push(unless_skipped(
                "a map for an array",
                Item::Map(pairs.collect()).encode(),
            ));
        }
        Item::Map(items) => twists.extend(of_map(items)),
    }
    twists
}

fn of_map(items: &[Item]) -> Vec<Hostile> {
    let pairs: Vec<&[Item]> = items.chunks(2).collect();
    let map = |pairs: &[&[Item]]| Item::Map(pairs.concat()).encode();
    let unknown = [Item::Plain(vec![23]), Item::Plain(vec![0xf6])];
    let too_few = [head(MAP, pairs.len() + 1), bytes_of(items)].concat();
    let mut twists = vec![
        never("indefinite", indefinite(0xbf, items)),
        unless_skipped("an unknown pair", map(&[&pairs[..], &[&unknown]].concat())),
        never("a pair too few", too_few),
        unless_skipped("keys and values", Item::Array(items.to_vec()).encode()),
    ];
    let (Some(first), Some(last)) = (pairs.first(), pairs.last()) else {
        return twists;
    };
    let labelled = |label: &dyn Fn(&Item) -> Item| {
        let pairs = pairs.iter();
        let items = pairs.flat_map(|pair| [label(&pair[0]), pair[1].clone()]);
        Item::Map(items.collect()).encode()
    };
    let long = |label: &Item| Item::Plain(widened(&label.encode(), 8).unwrap());
    let values = pairs.iter().map(|pair| pair[1].clone()).collect();
    twists.extend([
        unless_skipped("an array for a map", Item::Array(values).encode()),
        unless_skipped("text keys", labelled(&|label| Item::Text(label.encode()))),
        never("longer keys", labelled(&long)),
        never(
            "the first pair twice",
            map(&[&[*first], &pairs[..]].concat()),
        ),
        never("the last pair twice", map(&[&pairs[..], &[*last]].concat())),
        unless_skipped("no pair", head(MAP, 0)),
    ]);
    if pairs.len() > 1 {
        let reversed: Vec<&[Item]> = pairs.iter().rev().copied().collect();
        twists.push(never("keys out of order", map(&reversed)));
    }
    twists
}

fn indefinite(first: u8, items: &[Item]) -> Vec<u8> {
    [vec![first], bytes_of(items), vec![0xff]].concat()
}

fn bytes_of(items: &[Item]) -> Vec<u8> {
    items.iter().flat_map(Item::encode).collect()
}

fn with_major(bytes: &[u8], major: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[0] = bytes[0] & 0x1f | major << 5;
    bytes
}

/// The same item with its first argument in `width` bytes, if that is longer than it is.
fn widened(bytes: &[u8], width: usize) -> Option<Vec<u8>> {
    let first = bytes[0];
    let now = match first & 0x1f {
        0..=23 => 0,
        24 => 1,
        25 => 2,
        26 => 4,
        _ => return None,
    };
    if width <= now || first >> 5 == 7 {
        return None;
    }
    let value = if now == 0 {
        u64::from(first & 0x1f)
    } else {
        bytes[1..=now]
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte))
    };
    Some(
        [
            head_of_width(first >> 5, value, width),
            bytes[1 + now..].to_vec(),
        ]
        .concat(),
    )
}
