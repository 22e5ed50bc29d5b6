//! The packets that both decoders are asked about: valid ones, and everything that one small change makes of them.

use std::{collections::BTreeSet, fs, path::Path, slice};

use protocol::mqtt::{Version, frame};

use crate::base::{Base, bases, length, packet, text};

/// Bytes that mean something to some field: bounds, lengths, property identifiers, wildcards, pieces of UTF-8.
const BYTES: [u8; 32] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0b, 0x10, 0x11, 0x15, 0x16, 0x1f, 0x21, 0x23,
    0x26, 0x2b, 0x2f, 0x42, 0x6b, 0x7e, 0x7f, 0x80, 0x81, 0x92, 0xc2, 0xc3, 0xed, 0xef, 0xfe, 0xff,
];

/// All, each once, in an order that does not change.
pub(crate) fn cases() -> Vec<(Version, Vec<u8>)> {
    let mut all = Cases::default();
    for base in bases() {
        all.changed(&base);
        all.cut_and_stretched(&base);
        if let Some(properties) = &base.properties {
            all.with_other_properties(&base, properties);
        }
    }
    all.seeds();
    let (new, old) = (all.new.into_iter(), all.old.into_iter());
    new.map(|bytes| (Version::V5, bytes))
        .chain(old.map(|bytes| (Version::V311, bytes)))
        .collect()
}

#[derive(Default)]
struct Cases {
    new: BTreeSet<Vec<u8>>,
    old: BTreeSet<Vec<u8>>,
}

impl Cases {
    fn add(&mut self, version: Version, bytes: Vec<u8>) {
        match version {
            Version::V5 => self.new.insert(bytes),
            Version::V311 => self.old.insert(bytes),
        };
    }

    /// As it is, and each byte as something else.
    fn changed(&mut self, base: &Base) {
        let bytes = base.bytes();
        for at in 0..bytes.len() {
            let was = bytes[at];
            let bits = (0..8).map(|bit| was ^ 1 << bit);
            let next = [was.wrapping_add(1), was.wrapping_sub(1)];
            for byte in BYTES.into_iter().chain(bits).chain(next) {
                let mut changed = bytes.clone();
                changed[at] = byte;
                self.add(base.version, changed);
            }
        }
        self.add(base.version, bytes);
    }

    /// Shorter and longer, with a length that fits and one that does not.
    fn cut_and_stretched(&mut self, base: &Base) {
        let (version, first, bytes, body) = (base.version, base.first, base.bytes(), base.body());
        for end in 0..bytes.len() {
            self.add(version, bytes[..end].to_vec());
        }
        for end in 0..body.len() {
            self.add(version, packet(first, &body[..end]));
            self.add(
                version,
                packet(first, &[&body[..end], &body[end + 1..]].concat()),
            );
            self.add(
                version,
                packet(
                    first,
                    &[&body[..end], &body[end..=end], &body[end..]].concat(),
                ),
            );
        }
        for more in [
            &[0][..],
            &[0xff],
            &[0, 0],
            &[0; 8],
            b"\0\x01a",
            b"\0\x01a\0",
        ] {
            self.add(version, packet(first, &[&body, more].concat()));
        }
        let mut long = length(body.len());
        *long.last_mut().unwrap() |= 0x80;
        for tail in [
            &[0][..],
            &[0x80, 0],
            &[0x80, 0x80, 0],
            &[0x80, 0x80, 0x80, 0x80, 0],
        ] {
            self.add(version, [&[first], long.as_slice(), tail, &body].concat());
        }
        self.add(version, [&[first], [0xff; 4].as_slice(), &body].concat());
    }

    /// Every property of MQTT 5, with values good and bad: instead of those that are there, behind them, before them, and twice.
    fn with_other_properties(&mut self, base: &Base, properties: &[Vec<u8>]) {
        let mut with = |properties: Vec<Vec<u8>>| {
            let mut changed = base.clone();
            changed.properties = Some(properties);
            self.add(base.version, changed.bytes());
        };
        for at in 0..properties.len() {
            let mut fewer = properties.to_vec();
            fewer.remove(at);
            with(fewer.clone());
            let mut twice = properties.to_vec();
            twice.push(properties[at].clone());
            with(twice);
            fewer.push(properties[at].clone());
            with(fewer);
        }
        for property in all_properties() {
            with(vec![property.clone()]);
            with([properties, slice::from_ref(&property)].concat());
            with([slice::from_ref(&property), properties].concat());
            with([properties, &[property.clone(), property]].concat());
        }
        for count in [7, 8, 9, 20] {
            with(vec![b"\x26\0\x01k\0\x01v".to_vec(); count]);
        }
    }

    /// What the fuzz targets start from, packet by packet.
    fn seeds(&mut self) {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = here.join("../protocol/fuzz/corpus/packet");
        for entry in fs::read_dir(folder).unwrap() {
            let seed = fs::read(entry.unwrap().path()).unwrap();
            let (mode, mut rest) = seed.split_first().unwrap();
            let version = if *mode < 2 {
                Version::V5
            } else {
                Version::V311
            };
            while let Some(found) = frame(rest, usize::MAX).unwrap() {
                let (whole, behind) = rest.split_at(found.total_bytes());
                self.add(version, whole.to_vec());
                rest = behind;
            }
        }
    }
}

/// Every property identifier, the unknown ones too, with values of its type (MQTT 5.0 §2.2.2.2).
fn all_properties() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for id in 0..=0x2b_u8 {
        let values: Vec<Vec<u8>> = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => {
                [0, 1, 2, 0xff].map(|byte| vec![byte]).into()
            }
            0x13 | 0x21..=0x23 => [[0, 0], [0, 1], [0xff; 2]].map(Vec::from).into(),
            0x02 | 0x11 | 0x18 | 0x27 => [[0; 4], [0, 0, 0, 1], [0xff; 4]].map(Vec::from).into(),
            0x0b => [
                &[0][..],
                &[1],
                &[0x80, 0],
                &[0xff, 0xff, 0xff, 0x7f],
                &[0xff; 5],
            ]
            .map(Vec::from)
            .into(),
            0x26 => [
                (&b"k"[..], &b"v"[..]),
                (b"", b""),
                (b"\0", b"v"),
                (b"k", &[0xff]),
            ]
            .map(|(name, value)| [text(name), text(value)].concat())
            .into(),
            _ => [
                &b"x"[..],
                b"",
                b"#",
                b"a/+",
                b"a\0b",
                b"\x01",
                &[0xc3],
                &[0xef, 0xbf, 0xbe],
            ]
            .map(text)
            .into(),
        };
        all.extend(values.into_iter().map(|value| [vec![id], value].concat()));
    }
    all.extend([
        vec![0x80, 0x01],
        vec![0xff, 0x7f],
        vec![0x81, 0x00, 0x01],
        vec![0x3f],
    ]);
    all
}
