//! The decoder under every message, by itself: what it takes is deterministic CBOR, and says no more and no less than its value.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use protocol::{
    cbor::{self, CborError},
    command::{Command, Launch},
    exchange::{self, Challenge, Grant, Proof, Request, Succession},
    limits::MESSAGE_BYTES_MAX,
    report::{Ended, Forwarded, Launched, Status, Stopped},
    stream::Head,
    token::Claims,
};
use protocol_fuzz::{input::Input, item::Item, quiet};
use serde::{Serialize, de::DeserializeOwned};
use serde_bytes::{ByteArray, ByteBuf};

/// Items of any array that a reader must understand.
const LIST_MAX: usize = 256;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.byte();
    let bytes = input.rest();
    match kind % 20 {
        0 => closed::<Command>(bytes),
        1 => closed::<Launch>(bytes),
        2 => closed::<Request>(bytes),
        3 => closed::<Proof>(bytes),
        4 => closed::<Succession>(bytes),
        5 => closed::<Head>(bytes),
        6 => closed::<Claims>(bytes),
        7 => open::<Challenge>(bytes, &[]),
        8 => open::<Grant>(bytes, &[65, 66]),
        9 => open::<exchange::Refused>(bytes, &[65]),
        10 => open::<Launched>(bytes, &[]),
        11 => open::<Ended>(bytes, &[]),
        12 => open::<Forwarded>(bytes, &[]),
        13 => open::<Stopped>(bytes, &[]),
        14 => open::<Status>(bytes, &[65]),
        15 => plain::<Vec<u64>>(bytes, |item| is_list(item, is_number)),
        16 => plain::<Vec<(String, Option<bool>)>>(bytes, |item| is_list(item, is_pair)),
        17 => plain::<i64>(bytes, |item| {
            const MAX: u64 = i64::MAX as u64;
            matches!(item, Item::Uint(0..=MAX) | Item::Negative(0..=MAX))
        }),
        18 => plain::<ByteArray<8>>(bytes, |item| matches!(item, Item::Bytes(b) if b.len() == 8)),
        _ => plain::<ByteBuf>(bytes, |item| matches!(item, Item::Bytes(_))),
    }
});

/// What is taken has one encoding: the one that came.
fn closed<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    if let Some(value) = read::<T>(bytes) {
        assert_eq!(cbor::to_vec(&value), bytes);
        assert!(Item::read(bytes).is_some());
    }
}

/// What is taken has one encoding, less what is skipped. And what may be skipped changes nothing: a reader of the rest reads alike.
/// `labels` are those from 64 on that it knows.
fn open<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8], labels: &[u64]) {
    let value = read::<T>(bytes);
    let Some(item) = Item::read(bytes).filter(|_| bytes.len() <= MESSAGE_BYTES_MAX) else {
        return assert!(value.is_none());
    };
    let is_known = |path: &[u64], label| path.is_empty() && labels.contains(&label);
    let may_be_skipped = item.may_be_skipped_in(&is_known);
    let known = item.without_skipped(&is_known).to_vec();
    if let Some(value) = &value {
        assert_eq!(cbor::to_vec(value), known);
    }
    assert_eq!(value, read::<T>(&known).filter(|_| may_be_skipped));
}

/// A type that is simple enough to say which items it takes: those, and no others.
fn plain<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    bytes: &[u8],
    is_one: impl Fn(&Item) -> bool,
) {
    closed::<T>(bytes);
    assert_eq!(
        read::<T>(bytes).is_some(),
        Item::read(bytes).as_ref().is_some_and(is_one)
    );
}

fn is_list(item: &Item, is_one: impl Fn(&Item) -> bool) -> bool {
    matches!(item, Item::Array(all) if all.len() <= LIST_MAX && all.iter().all(is_one))
}

fn is_number(item: &Item) -> bool {
    matches!(item, Item::Uint(_))
}

fn is_pair(item: &Item) -> bool {
    matches!(item, Item::Array(pair) if matches!(pair.as_slice(), [Item::Text(_), Item::Simple(_)]))
}

fn read<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let read = cbor::from_slice(bytes, MESSAGE_BYTES_MAX);
    if bytes.len() > MESSAGE_BYTES_MAX {
        assert!(matches!(read, Err(CborError::TooLong)));
    }
    if !bytes.is_empty() {
        assert!(cbor::from_slice::<T>(bytes, bytes.len() - 1).is_err());
    }
    read.map_err(quiet::check).ok()
}
