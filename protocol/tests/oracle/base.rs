//! Valid packets of every kind that a client sends, in parts, so that their properties can be changed one by one.

use protocol::mqtt::Version;

/// One packet in parts.
#[derive(Clone)]
pub(crate) struct Base {
    pub(crate) version: Version,
    /// Type and flags.
    pub(crate) first: u8,
    /// What comes before the properties.
    pub(crate) before: Vec<u8>,
    /// The properties, identifiers and all; `None` where there is no section.
    pub(crate) properties: Option<Vec<Vec<u8>>>,
    /// What comes behind them.
    pub(crate) after: Vec<u8>,
}

impl Base {
    fn v5(first: u8, before: &[&[u8]], properties: &[&[u8]], after: &[&[u8]]) -> Self {
        Self {
            version: Version::V5,
            first,
            before: before.concat(),
            properties: Some(properties.iter().map(|one| one.to_vec()).collect()),
            after: after.concat(),
        }
    }

    fn bare(version: Version, first: u8, body: &[&[u8]]) -> Self {
        Self {
            version,
            first,
            before: body.concat(),
            properties: None,
            after: Vec::new(),
        }
    }

    /// What is behind the fixed header.
    pub(crate) fn body(&self) -> Vec<u8> {
        let section = self.properties.as_ref().map(|properties| {
            let properties = properties.concat();
            [length(properties.len()), properties].concat()
        });
        [&self.before, &section.unwrap_or_default(), &self.after]
            .map(Vec::as_slice)
            .concat()
    }

    /// The whole packet.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        packet(self.first, &self.body())
    }
}

/// A packet with a length that fits.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], length(body.len()).as_slice(), body].concat()
}

/// A variable byte integer in its shortest form.
pub(crate) fn length(mut value: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = u8::try_from(value % 128).unwrap();
        value /= 128;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// A text with its length.
pub(crate) fn text(text: &[u8]) -> Vec<u8> {
    [
        u16::try_from(text.len()).unwrap().to_be_bytes().as_slice(),
        text,
    ]
    .concat()
}

/// All of them.
pub(crate) fn bases() -> Vec<Base> {
    [connects(), publishes(), others(), old()].concat()
}

fn connects() -> Vec<Base> {
    let head = |flags: u8| [b"\0\x04MQTT\x05", [flags, 0, 30].as_slice()].concat();
    let id = text(b"edge-1");
    let (topic, payload) = (text(b"a/b"), text(b"gone"));
    let auth: [&[u8]; 2] = [b"\x15\0\x03ace", b"\x16\0\x03\0\x01t"];
    vec![
        Base::v5(0x10, &[&head(2)], &[], &[&id]),
        Base::v5(0x10, &[&head(0)], &[], &[&text(b"")]),
        Base::v5(0x10, &[&head(2)], &auth, &[&id]),
        Base::v5(
            0x10,
            &[&head(2)],
            &[
                b"\x11\0\0\0\x3c",
                b"\x21\0\x14",
                b"\x27\0\0\x10\0",
                b"\x22\0\x0a",
                b"\x19\x01",
                b"\x17\0",
                b"\x26\0\x01k\0\x01v",
                b"\x26\0\x01k\0\x01w",
            ],
            &[&id],
        ),
        Base::v5(
            0x10,
            &[&head(0xc2)],
            &[],
            &[&id, &text(b"user"), &text(b"pass")],
        ),
        Base::v5(0x10, &[&head(0x82)], &[], &[&id, &text(b"user")]),
        // MQTT 5 allows a password by itself.
        Base::v5(0x10, &[&head(0x42)], &[], &[&id, &text(b"pass")]),
        // The will's properties are the ones that change here.
        Base::v5(
            0x10,
            &[&head(0x36), &[0], &id],
            &[
                b"\x18\0\0\0\x05",
                b"\x01\x01",
                b"\x02\0\0\0\x09",
                b"\x03\0\x01t",
                b"\x08\0\x01r",
                b"\x09\0\x01c",
                b"\x26\0\x01k\0\x01v",
            ],
            &[&topic, &payload],
        ),
        Base::v5(0x10, &[&head(0x06), &[0], &id], &[], &[&topic, &payload]),
        Base::v5(
            0x10,
            &[&head(0xee), &[0], &id],
            &[],
            &[&topic, &payload, &text(b"u"), &text(b"p")],
        ),
    ]
}

fn publishes() -> Vec<Base> {
    let topic = text(b"v1/edge-1/reports");
    vec![
        Base::v5(0x30, &[&topic], &[], &[b"payload"]),
        Base::v5(0x31, &[&text(b"t")], &[], &[b""]),
        Base::v5(0x32, &[&topic, &[0, 7]], &[], &[b"payload"]),
        Base::v5(0x3c, &[&topic, &[0x12, 0x34]], &[], &[b"payload"]),
        Base::v5(
            0x32,
            &[&topic, &[0, 7]],
            &[
                b"\x01\x01",
                b"\x02\0\0\0\x09",
                b"\x23\0\x02",
                b"\x08\0\x01r",
                b"\x09\0\x02\0\xff",
                b"\x03\0\x01t",
                b"\x26\0\x01k\0\x01v",
            ],
            &["text, not more: é".as_bytes()],
        ),
        Base::v5(0x30, &[&text(b"")], &[b"\x23\0\x02"], &[b"payload"]),
        Base::v5(0x30, &[&text("é/\u{fffd}x".as_bytes())], &[], &[&[0xff, 0]]),
    ]
}

fn others() -> Vec<Base> {
    let v5 = Version::V5;
    let reason: &[u8] = b"\x1f\0\x02no";
    let user: &[u8] = b"\x26\0\x01k\0\x01v";
    let one_filter = [text(b"v1/edge-1/commands"), vec![1]].concat();
    let filters = [
        text(b"a/+/b"),
        vec![0x2e],
        text(b"#"),
        vec![0x10],
        text(b"$share/g/x"),
        vec![2],
    ];
    let mut all = vec![
        Base::v5(0x82, &[&[0, 1]], &[], &[&one_filter]),
        Base::v5(0x82, &[&[0, 1]], &[b"\x0b\x07", user], &[&filters.concat()]),
        Base::v5(0xa2, &[&[0, 1]], &[], &[&text(b"v1/edge-1/commands")]),
        Base::v5(0xa2, &[&[0, 1]], &[user], &[&text(b"a/+"), &text(b"#")]),
        Base::bare(v5, 0xc0, &[]),
        Base::bare(v5, 0xe0, &[]),
        Base::bare(v5, 0xe0, &[&[0x04]]),
        Base::v5(0xe0, &[&[0]], &[b"\x11\0\0\0\x05", reason, user], &[]),
        Base::v5(
            0xf0,
            &[&[0x18]],
            &[b"\x15\0\x03ace", b"\x16\0\x02\0\xff"],
            &[],
        ),
        Base::v5(0xf0, &[&[0x19]], &[b"\x15\0\x03ace", reason, user], &[]),
    ];
    for (first, code) in [(0x40, 0x10), (0x50, 0x97), (0x62, 0x92), (0x70, 0x92)] {
        all.push(Base::bare(v5, first, &[&[0, 7]]));
        all.push(Base::bare(v5, first, &[&[0, 7, code]]));
        all.push(Base::v5(first, &[&[0, 7, code]], &[reason, user], &[]));
    }
    all
}

fn old() -> Vec<Base> {
    let head = |flags: u8| [b"\0\x04MQTT\x04", [flags, 0, 30].as_slice()].concat();
    let bare = |first, body: &[&[u8]]| Base::bare(Version::V311, first, body);
    let id = text(b"reader");
    let (topic, payload) = (text(b"a/b"), text(b"gone"));
    let mut all = vec![
        bare(0x10, &[&head(2), &id]),
        bare(0x10, &[&head(0), &id]),
        bare(0x10, &[&head(2), &text(b"")]),
        bare(0x10, &[&head(0xc2), &id, &text(b"user"), &text(b"pass")]),
        bare(0x10, &[&head(0x82), &id, &text(b"user")]),
        bare(0x10, &[&head(0x36), &id, &topic, &payload]),
        bare(
            0x10,
            &[&head(0xee), &id, &topic, &payload, &text(b"u"), &text(b"p")],
        ),
        bare(0x30, &[&topic, b"payload"]),
        bare(0x33, &[&topic, &[0, 7], b"payload"]),
        bare(0x3c, &[&topic, &[0, 7]]),
        bare(0x30, &[&text(b"bench/a"), b"payload"]),
        bare(0x32, &[&text(b"bench/a/b"), &[0, 7], b"payload"]),
        bare(0x3a, &[&text(b"bench/a"), &[0, 8]]),
        bare(
            0x82,
            &[&[0, 1], &text(b"bench/+"), &[0], &text(b"bench/a/#"), &[1]],
        ),
        bare(0xa2, &[&[0, 1], &text(b"bench/#"), &text(b"bench/a")]),
        bare(0x82, &[&[0, 1], &topic, &[1], &text(b"a/+/#"), &[2]]),
        bare(0xa2, &[&[0, 1], &topic, &text(b"#")]),
        bare(0xc0, &[]),
        bare(0xe0, &[]),
    ];
    all.extend([0x40, 0x50, 0x62, 0x70].map(|first| bare(first, &[&[0, 7]])));
    all
}
