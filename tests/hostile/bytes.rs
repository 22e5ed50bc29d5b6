//! Packets as bytes, well formed or not: no codec of ours stands between a test and the wire.

/// A packet: its first byte, the length of its body in the shortest form, its body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first], vbi(body.len()).as_slice(), body].concat()
}

/// A variable byte integer (MQTT 5.0 §1.5.5).
pub(crate) fn vbi(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7F).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Two bytes of length, and the bytes.
pub(crate) fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let length = u16::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// Properties with their length.
pub(crate) fn section(properties: &[Vec<u8>]) -> Vec<u8> {
    let all = properties.concat();
    [vbi(all.len()), all].concat()
}

/// A property with a text or binary value.
pub(crate) fn property(id: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    [&[id], text(value).as_slice()].concat()
}

/// So many user properties.
pub(crate) fn user_properties(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|_| [vec![0x26], text("a"), text("b")].concat())
        .collect()
}

/// A CONNECT, field by field.
#[derive(Clone)]
pub(crate) struct Hello {
    pub(crate) protocol: Vec<u8>,
    pub(crate) level: u8,
    pub(crate) flags: u8,
    pub(crate) keep_alive: u16,
    pub(crate) properties: Vec<Vec<u8>>,
    pub(crate) client_id: Vec<u8>,
    /// Will, user name and password, as they are.
    pub(crate) rest: Vec<u8>,
}

impl Hello {
    /// A good one.
    pub(crate) fn new(client_id: &str, token: &[u8]) -> Self {
        Self {
            protocol: b"MQTT".to_vec(),
            level: 5,
            flags: 0x02,
            keep_alive: 60,
            properties: vec![property(0x15, "ace"), property(0x16, text(token))],
            client_id: client_id.into(),
            rest: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }

    /// With a will of these flags, properties and topic.
    pub(crate) fn with_will(mut self, flags: u8, properties: &[Vec<u8>], topic: &str) -> Self {
        self.flags |= 0x04 | flags;
        self.rest = [section(properties), text(topic), text("last words")].concat();
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let fields = [self.level, self.flags];
        let properties = match self.level {
            3 | 4 => Vec::new(),
            _ => section(&self.properties),
        };
        let body = [
            &text(&self.protocol),
            fields.as_slice(),
            &self.keep_alive.to_be_bytes(),
            &properties,
            &text(&self.client_id),
            &self.rest,
        ];
        packet(0x10, &body.concat())
    }
}

/// A PUBLISH, field by field.
#[derive(Clone)]
pub(crate) struct Post {
    /// The first byte's low half: DUP, QoS, RETAIN.
    pub(crate) flags: u8,
    pub(crate) topic: Vec<u8>,
    pub(crate) id: Option<u16>,
    pub(crate) properties: Vec<Vec<u8>>,
    pub(crate) payload: Vec<u8>,
}

impl Post {
    /// At QoS 1.
    pub(crate) fn new(topic: impl AsRef<[u8]>, id: u16, payload: &[u8]) -> Self {
        Self {
            flags: 0x02,
            topic: topic.as_ref().to_vec(),
            id: Some(id),
            properties: Vec::new(),
            payload: payload.to_vec(),
        }
    }

    /// At QoS 0.
    pub(crate) fn quiet(topic: impl AsRef<[u8]>, payload: &[u8]) -> Self {
        Self {
            flags: 0,
            id: None,
            ..Self::new(topic, 0, payload)
        }
    }

    pub(crate) fn with(mut self, property: Vec<u8>) -> Self {
        self.properties.push(property);
        self
    }

    pub(crate) fn flagged(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let id = self
            .id
            .map_or_else(Vec::new, |id| id.to_be_bytes().to_vec());
        let body = [
            &text(&self.topic),
            id.as_slice(),
            &section(&self.properties),
            &self.payload,
        ];
        packet(0x30 | self.flags, &body.concat())
    }
}

/// A SUBSCRIBE with these properties, filters and their options.
pub(crate) fn subscribe_with(id: u16, properties: &[Vec<u8>], filters: &[(&str, u8)]) -> Vec<u8> {
    let filters: Vec<u8> = filters
        .iter()
        .flat_map(|(filter, options)| [text(filter), vec![*options]].concat())
        .collect();
    let body = [&id.to_be_bytes(), section(properties).as_slice(), &filters].concat();
    packet(0x82, &body)
}

/// A SUBSCRIBE at QoS 1.
pub(crate) fn subscribe(id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<_> = filters.iter().map(|filter| (*filter, 1)).collect();
    subscribe_with(id, &[], &filters)
}

/// An UNSUBSCRIBE.
pub(crate) fn unsubscribe(id: u16, filters: &[&str]) -> Vec<u8> {
    let filters: Vec<u8> = filters.iter().flat_map(text).collect();
    packet(
        0xA2,
        &[&id.to_be_bytes(), [0].as_slice(), &filters].concat(),
    )
}

/// An AUTH with this reason and data.
pub(crate) fn auth(reason: u8, data: &[u8]) -> Vec<u8> {
    let properties = section(&[property(0x15, "ace"), property(0x16, data)]);
    packet(0xF0, &[&[reason], properties.as_slice()].concat())
}

/// An acknowledgement of this kind: 4 PUBACK, 5 PUBREC, 6 PUBREL, 7 PUBCOMP.
pub(crate) fn acknowledge(kind: u8, id: u16) -> Vec<u8> {
    let flags = if kind == 6 { 0x02 } else { 0 };
    packet(kind << 4 | flags, &id.to_be_bytes())
}

/// PINGREQ.
pub(crate) const PING: [u8; 2] = [0xC0, 0];
/// PINGRESP.
pub(crate) const PONG: [u8; 2] = [0xD0, 0];

/// What the gate says to a CONNECT that it refuses.
pub(crate) fn connack(reason: u8) -> Vec<u8> {
    vec![0x20, 3, 0, reason, 0]
}

/// What the gate says before it closes.
pub(crate) fn disconnect(reason: u8) -> Vec<u8> {
    vec![0xE0, 2, reason, 0]
}

/// What the gate says to a PUBLISH: nothing behind the identifier if all is well.
pub(crate) fn puback(id: u16, reason: u8) -> Vec<u8> {
    let id = id.to_be_bytes();
    match reason {
        0 => packet(0x40, &id),
        reason => packet(0x40, &[id.as_slice(), &[reason]].concat()),
    }
}

/// What the gate says to a SUBSCRIBE.
pub(crate) fn suback(id: u16, reasons: &[u8]) -> Vec<u8> {
    packet(0x90, &[&id.to_be_bytes(), [0].as_slice(), reasons].concat())
}

/// What the gate says to an UNSUBSCRIBE.
pub(crate) fn unsuback(id: u16, reasons: &[u8]) -> Vec<u8> {
    packet(0xB0, &[&id.to_be_bytes(), [0].as_slice(), reasons].concat())
}
