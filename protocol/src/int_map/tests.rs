//! Older writers with newer readers, and newer writers with older readers (`SPEC.md`, chapter 9).
#![expect(
    dead_code,
    unreachable_pub,
    reason = "the macros make public types, with more than is used here"
)]

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cbor::{CborError, from_slice, to_vec},
    id::HostId,
    key::{Host, seeded},
    limits::{MAP_PAIRS_MAX, SKIPPED_DEPTH_MAX},
    report::{self, News, Report},
    signed::{self, Message, Typ},
    time::UnixMillis,
};

/// One message in three versions of a program: as it was, with something that may be skipped, with something that must be understood.
mod was {
    int_word! {
        /// A word.
        pub open enum Word {
            /// A.
            1 => One = "one",
        }
    }
    int_choice! {
        /// A choice.
        pub open enum Choice {
            /// A.
            1 => One(u64),
        }
    }
    int_map! {
        /// News.
        pub open struct Note {
            /// A.
            1 => req number: u64,
            /// B.
            2 => req word: Word,
            /// C.
            3 => req choice: Choice,
        }
    }
    int_word! {
        /// A word.
        pub enum StrictWord {
            /// A.
            1 => One = "one",
        }
    }
    int_choice! {
        /// A choice.
        pub enum StrictChoice {
            /// A.
            1 => One(u64),
        }
    }
    int_map! {
        /// A right.
        pub struct Right {
            /// A.
            1 => req number: u64,
        }
    }
}

mod now {
    int_word! {
        /// A word.
        pub open enum Word {
            /// A.
            1 => One = "one",
            /// B.
            9 => Nine = "nine",
        }
    }
    int_choice! {
        /// A choice.
        pub open enum Choice {
            /// A.
            1 => One(u64),
            /// B.
            7 => Seven(Vec<u64>),
        }
    }
    int_map! {
        /// News.
        pub open struct Note {
            /// A.
            1 => req number: u64,
            /// B.
            2 => req word: Word,
            /// C.
            3 => req choice: Choice,
            /// Must be understood.
            4 => opt limit: u64,
            /// May be skipped.
            64 => opt hint: String,
            /// May be skipped.
            300 => opt more: Vec<(u64, bool)>,
        }
    }
    int_map! {
        /// A right.
        pub struct Right {
            /// A.
            1 => req number: u64,
            /// In a closed map no label may be skipped.
            64 => opt hint: String,
        }
    }
}

fn old() -> was::Note {
    was::Note {
        number: 7,
        word: was::Word::One,
        choice: was::Choice::One(5),
    }
}

fn new() -> now::Note {
    now::Note {
        number: 7,
        word: now::Word::One,
        choice: now::Choice::One(5),
        limit: None,
        hint: None,
        more: None,
    }
}

fn read<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<T, CborError> {
    from_slice(bytes, 4096)
}

/// What the other side reads of what one side writes.
fn across<W: Serialize, R: DeserializeOwned + Serialize>(written: &W) -> Result<R, CborError> {
    read(&to_vec(written))
}

#[test]
fn a_newer_reader_takes_what_an_older_writer_says() {
    assert_eq!(across(&old()), Ok(new()));
}

#[test]
fn an_older_reader_skips_what_its_writer_lets_it_skip() {
    let written = now::Note {
        hint: Some("a hint".to_owned()),
        more: Some(vec![(1, true), (2, false)]),
        ..new()
    };
    assert_eq!(across(&written), Ok(old()));
}

#[test]
fn an_older_reader_refuses_what_it_must_understand() {
    let written = now::Note {
        limit: Some(1),
        ..new()
    };
    assert!(across::<_, was::Note>(&written).is_err());
}

#[test]
fn an_unknown_word_or_choice_of_news_is_kept_as_other() {
    let written = now::Note {
        word: now::Word::Nine,
        choice: now::Choice::Seven(vec![1, 2, 3]),
        hint: Some("and a hint".to_owned()),
        ..new()
    };
    let seen: was::Note = across(&written).unwrap();
    assert_eq!(seen.word, was::Word::Other(9));
    assert_eq!(seen.word.word(), "other");
    assert_eq!(seen.choice, was::Choice::Other(7));
}

#[test]
fn what_gives_rights_refuses_all_that_it_does_not_know() {
    let written = now::Right {
        number: 7,
        hint: Some("x".to_owned()),
    };
    assert!(across::<_, was::Right>(&written).is_err());
    assert!(
        across::<_, was::Right>(&now::Right {
            hint: None,
            ..written
        })
        .is_ok()
    );
    assert!(across::<_, was::StrictWord>(&now::Word::Nine).is_err());
    assert!(across::<_, was::StrictWord>(&now::Word::One).is_ok());
    assert!(across::<_, was::StrictChoice>(&now::Choice::Seven(Vec::new())).is_err());
    assert!(across::<_, was::StrictChoice>(&now::Choice::One(1)).is_ok());
}

/// The old note with `skipped` behind it: pairs of a label from 64 and a value, encoded.
fn with(skipped: &[&[u8]]) -> Vec<u8> {
    let mut bytes = to_vec(&old());
    bytes[0] += u8::try_from(skipped.len()).unwrap();
    skipped
        .iter()
        .for_each(|pair| bytes.extend_from_slice(pair));
    bytes
}

#[track_caller]
fn refused<T: Debug>(read: &Result<T, CborError>, why: &str) {
    assert!(read.is_err(), "{why}: {read:?}");
}

#[test]
fn skipping_is_not_leniency() {
    let note = |skipped: &[&[u8]]| read::<was::Note>(&with(skipped));
    let hint: &[u8] = &[0x18, 64, 1];
    assert_eq!(note(&[hint, &[0x18, 65, 0x61, b'x']]), Ok(old()));
    refused(&note(&[hint, hint]), "twice");
    refused(&note(&[&[0x18, 65, 1], hint]), "out of order");
    refused(&note(&[&[0x19, 0, 64, 1]]), "a label in a longer form");
    refused(&note(&[&[0x18, 63, 1]]), "a label below 64");
    refused(&note(&[&[0x20, 1]]), "a negative label");
    refused(
        &note(&[&[0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0, 1]]),
        "a label past 2^63 - 1",
    );
    refused(&note(&[&[0x61, b'x', 1]]), "a label that is text");
    refused(&note(&[&[0x18, 64, 0x18, 1]]), "a number in a longer form");
    refused(&note(&[&[0x18, 64, 0x9f, 0xff]]), "an indefinite array");
    refused(&note(&[&[0x18, 64, 0xc0, 1]]), "a tag");
    refused(&note(&[&[0x18, 64, 0xf9, 0, 0]]), "a float");
    refused(&note(&[&[0x18, 64, 0xf7]]), "undefined");
    refused(&note(&[&[0x18, 64, 0x61, 0xff]]), "text that is not UTF-8");
    refused(
        &note(&[&[0x18, 64, 0xa2, 2, 1, 1, 1]]),
        "keys out of order inside",
    );
    refused(
        &note(&[&[0x18, 64, 0xa2, 1, 1, 1, 1]]),
        "a key twice inside",
    );
    refused(&note(&[&[0x18, 64, 0xa1, 0xf5, 1]]), "a key that is true");
    refused(
        &note(&[&[0x18, 64, 0xa1, 0x80, 1]]),
        "a key that is an array",
    );
    refused(&note(&[&[0x18, 64]]), "no value");
    refused(&note(&[&[0x18, 64, 0x42, 1]]), "a value that is cut short");
}

#[test]
fn what_is_skipped_nests_eight_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let mut pair = vec![0x18, 64];
        pair.extend(vec![0x81; depth]);
        pair.push(1);
        read::<was::Note>(&with(&[&pair]))
    };
    assert_eq!(nested(SKIPPED_DEPTH_MAX), Ok(old()));
    refused(&nested(SKIPPED_DEPTH_MAX + 1), "nine deep");
}

#[test]
fn a_map_has_23_pairs_and_no_more() {
    let labels = |count: u8| {
        let pairs: Vec<Vec<u8>> = (0..count).map(|more| vec![0x18, 64 + more, 1]).collect();
        let total = 3 + count;
        let mut bytes = Vec::new();
        if total < 24 {
            bytes.push(0xa0 | total);
        } else {
            bytes.extend([0xb8, total]);
        }
        bytes.extend(&to_vec(&old())[1..]);
        bytes.extend(pairs.concat());
        read::<was::Note>(&bytes)
    };
    let most = u8::try_from(MAP_PAIRS_MAX).unwrap() - 3;
    assert_eq!(labels(most), Ok(old()));
    refused(&labels(most + 1), "24 pairs");
}

/// A report as a newer operator may write it.
struct NewerReport;

impl Serialize for NewerReport {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry(&1, "edge-1")?;
        map.serialize_entry(&2, &9)?;
        map.serialize_entry(&3, &5)?;
        map.serialize_entry(&4, &(99, "something new"))?;
        map.serialize_entry(&64, &[1, 2, 3])?;
        map.end()
    }
}

impl<'de> serde::Deserialize<'de> for NewerReport {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("only written"))
    }
}

impl Message for NewerReport {
    const TYP: Typ = Report::TYP;
    type Signer = Host;
    const BYTES_MAX: usize = Report::BYTES_MAX;
}

#[test]
fn a_newer_operators_report_verifies_over_the_bytes_that_came() {
    let key = seeded::<Host>(1);
    let host = HostId::new("edge-1").unwrap();
    let bytes = signed::sign(&key, &NewerReport, b"v1/edge-1/reports");
    let report = report::verify(&bytes, &[key.public()], &host).unwrap();
    assert_eq!(report.value().news, News::Other(99));
    assert_eq!(report.value().time, UnixMillis(5));
}
