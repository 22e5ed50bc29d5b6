//! What the tests of several packets share: bytes built by hand, and packets of any content.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// More than any packet of these tests.
pub(super) const MAX: usize = 1 << 20;

/// A packet of `parts` with the right length before them.
pub(super) fn raw(first_byte: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    writer::packet(&mut out, first_byte, 0, |w| {
        parts.iter().for_each(|part| w.raw(part));
    })
    .unwrap();
    out
}

/// Bytes behind their length of two bytes.
pub(super) fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// Properties behind their length.
pub(super) fn section(properties: &[&[u8]]) -> Vec<u8> {
    raw(0, properties).split_off(1)
}

/// Decodes all of `bytes` as one packet from a client.
pub(super) fn client(bytes: &[u8], version: Version) -> Result<ClientPacket<'_>, DecodeError> {
    let frame = frame(bytes, MAX)?.expect("a whole packet");
    assert_eq!(frame.total_bytes(), bytes.len());
    decode_client(&frame, version)
}

/// Decodes all of `bytes` as one packet from a server.
pub(super) fn server(bytes: &[u8], version: Version) -> Result<ServerPacket<'_>, DecodeError> {
    let frame = frame(bytes, MAX)?.expect("a whole packet");
    assert_eq!(frame.total_bytes(), bytes.len());
    decode_server(&frame, version)
}

/// A packet identifier.
pub(super) fn pid(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// What packets are made of. Each kind takes what it has a place for.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) version: Version,
    id: u16,
    secs: Option<u32>,
    number: Option<u16>,
    flags: [bool; 6],
    small: u8,
    topic: String,
    texts: [Option<String>; 4],
    blob: Option<Vec<u8>>,
    payload: Vec<u8>,
    pairs: Vec<(String, String)>,
    filters: Vec<String>,
}

/// Any parts.
pub(super) fn parts() -> impl Strategy<Value = Parts> {
    let text = "[ -~é𝔘\u{A0}]{0,12}";
    (
        (
            any::<bool>(),
            1..=u16::MAX,
            any::<Option<u32>>(),
            any::<Option<u16>>(),
        ),
        (any::<[bool; 6]>(), any::<u8>(), "[ -\"$-*,-~é]{1,20}"),
        [
            option::of(text),
            option::of(text),
            option::of(text),
            option::of(text),
        ],
        (
            option::of(vec(any::<u8>(), 0..40)),
            vec(any::<u8>(), 0..300),
        ),
        vec((text, "[a-z]{0,40}"), 0..=USER_PROPERTIES_MAX),
        vec(r"(\$share/)?([a-z]{0,5}/|\+/){0,3}(#|\+|[a-z]{1,5})", 1..5),
    )
        .prop_map(|(a, b, texts, c, pairs, filters)| Parts {
            version: if a.0 { Version::V5 } else { Version::V311 },
            id: a.1,
            secs: a.2,
            number: a.3,
            flags: b.0,
            small: b.1,
            topic: b.2,
            texts,
            blob: c.0,
            payload: c.1,
            pairs,
            filters,
        })
}

impl Parts {
    /// Runs `check` with a packet of each kind that a client sends.
    pub(super) fn each_client_packet(&self, mut check: impl FnMut(ClientPacket<'_>)) {
        let pairs = self.pairs();
        let user_properties = UserProperties::from(&pairs[..]);
        let subscriptions = self.subscriptions();
        let filters: Vec<&str> = self.filters.iter().map(String::as_str).collect();
        let v5 = self.version == Version::V5;

        check(ClientPacket::Connect(self.connect(user_properties)));
        check(ClientPacket::Publish(self.publish(user_properties)));
        for kind in ACK_KINDS {
            check(ClientPacket::Ack(self.ack(kind, user_properties)));
        }
        check(ClientPacket::Subscribe(Subscribe {
            id: pid(self.id),
            subscriptions: List::from(&subscriptions[..]),
            subscription_id: self
                .number
                .filter(|_| v5)
                .and_then(|n| NonZeroU32::new(n.into())),
            user_properties,
        }));
        check(ClientPacket::Unsubscribe(Unsubscribe {
            id: pid(self.id),
            filters: List::from(&filters[..]),
            user_properties,
        }));
        check(ClientPacket::PingReq);
        check(ClientPacket::Disconnect(if v5 {
            Disconnect {
                session_expiry_secs: self.secs,
                reason_string: self.text(0),
                user_properties,
                ..Disconnect::new(self.pick(&[
                    ReasonCode::NORMAL_DISCONNECTION,
                    ReasonCode::DISCONNECT_WITH_WILL,
                    ReasonCode::PROTOCOL_ERROR,
                ]))
            }
        } else {
            Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)
        }));
        if v5 {
            check(ClientPacket::Auth(Auth {
                reason: self.pick(&[
                    ReasonCode::CONTINUE_AUTHENTICATION,
                    ReasonCode::RE_AUTHENTICATE,
                ]),
                ..self.auth(user_properties)
            }));
        }
    }

    /// Runs `check` with a packet of each kind that a server sends.
    pub(super) fn each_server_packet(&self, mut check: impl FnMut(ServerPacket<'_>)) {
        let pairs = self.pairs();
        let user_properties = UserProperties::from(&pairs[..]);
        let v5 = self.version == Version::V5;

        check(ServerPacket::ConnAck(self.connack(user_properties)));
        check(ServerPacket::Publish(self.publish(user_properties)));
        for kind in ACK_KINDS {
            check(ServerPacket::Ack(self.ack(kind, user_properties)));
        }
        let reasons = [
            self.pick(&[ReasonCode::GRANTED_QOS_1, ReasonCode::UNSPECIFIED_ERROR]),
            ReasonCode::GRANTED_QOS_0,
        ];
        check(ServerPacket::SubAck(SubAck {
            reason_string: self.text(0),
            user_properties,
            ..SubAck::to_subscribe(pid(self.id), List::from(&reasons))
        }));
        let reasons = [
            self.pick(&[ReasonCode::SUCCESS, ReasonCode::NOT_AUTHORIZED]),
            ReasonCode::NO_SUBSCRIPTION_EXISTED,
        ];
        check(ServerPacket::SubAck(SubAck {
            reason_string: self.text(0),
            user_properties,
            ..SubAck::to_unsubscribe(
                pid(self.id),
                if v5 {
                    List::from(&reasons)
                } else {
                    List::EMPTY
                },
            )
        }));
        check(ServerPacket::PingResp);
        if v5 {
            check(ServerPacket::Disconnect(Disconnect {
                reason_string: self.text(0),
                server_reference: self.text(1),
                user_properties,
                ..Disconnect::new(self.pick(&[
                    ReasonCode::NORMAL_DISCONNECTION,
                    ReasonCode::SESSION_TAKEN_OVER,
                ]))
            }));
            check(ServerPacket::Auth(Auth {
                reason: self.pick(&[ReasonCode::SUCCESS, ReasonCode::CONTINUE_AUTHENTICATION]),
                ..self.auth(user_properties)
            }));
        }
    }

    fn connect<'a>(&'a self, user_properties: UserProperties<'a>) -> Connect<'a> {
        let clean_start = self.flags[0];
        let user_name = self.texts[1].as_deref();
        let plain = Connect {
            version: self.version,
            clean_start,
            user_name,
            password: self.blob.as_deref().filter(|_| user_name.is_some()),
            will: self.flags[1].then(|| Will {
                topic: &self.topic,
                payload: &self.payload,
                qos: self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]),
                retain: self.flags[2],
                delay_secs: if self.version == Version::V5 {
                    self.secs.unwrap_or(0)
                } else {
                    0
                },
                properties: self.message(user_properties),
            }),
            session_expiry_secs: if clean_start { 0 } else { u32::MAX },
            ..Connect::new(self.texts[0].as_deref().unwrap_or(""), self.id)
        };
        if self.version == Version::V311 {
            return plain;
        }
        Connect {
            password: self.blob.as_deref(),
            session_expiry_secs: self.secs.unwrap_or(0),
            receive_maximum: pid(self.id),
            packet_bytes_max: self.secs.and_then(NonZeroU32::new),
            topic_alias_max: self.number.unwrap_or(0),
            wants_problem_info: self.flags[3],
            auth_method: self.text(2),
            auth_data: self.blob.as_deref().filter(|_| self.text(2).is_some()),
            user_properties,
            ..plain
        }
    }

    fn connack<'a>(&'a self, user_properties: UserProperties<'a>) -> ConnAck<'a> {
        let reason = self.pick(&[
            ReasonCode::SUCCESS,
            ReasonCode::NOT_AUTHORIZED,
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            ReasonCode::SERVER_UNAVAILABLE,
        ]);
        let plain = ConnAck {
            session_present: self.flags[0] && !reason.is_error(),
            ..ConnAck::new(reason)
        };
        if self.version == Version::V311 {
            return plain;
        }
        ConnAck {
            session_expiry_secs: self.secs,
            receive_maximum: self.number.and_then(NonZeroU16::new),
            qos_max: self.pick(&[None, Some(Qos::AtMostOnce), Some(Qos::AtLeastOnce)]),
            retain_available: self.pick(&[None, Some(false), Some(true)]),
            packet_bytes_max: self.secs.and_then(NonZeroU32::new),
            assigned_client_id: self.text(0),
            topic_alias_max: self.number,
            reason_string: self.text(1),
            wildcard_available: self.flags[1].then_some(self.flags[2]),
            subscription_id_available: self.flags[2].then_some(self.flags[3]),
            shared_available: self.flags[3].then_some(self.flags[4]),
            server_keep_alive_secs: self.number,
            response_info: self.text(3),
            server_reference: self.text(3),
            auth_method: self.text(2),
            auth_data: self.blob.as_deref().filter(|_| self.text(2).is_some()),
            user_properties,
            ..plain
        }
    }

    fn publish<'a>(&'a self, user_properties: UserProperties<'a>) -> Publish<'a> {
        let (id, dup) = (pid(self.id), self.flags[0]);
        Publish {
            retain: self.flags[1],
            topic_alias: self
                .number
                .filter(|_| self.version == Version::V5)
                .and_then(NonZeroU16::new),
            properties: self.message(user_properties),
            ..Publish::new(
                &self.topic,
                self.pick(&[
                    Delivery::AtMostOnce,
                    Delivery::AtLeastOnce { id, dup },
                    Delivery::ExactlyOnce { id, dup },
                ]),
                &self.payload,
            )
        }
    }

    fn message<'a>(&'a self, user_properties: UserProperties<'a>) -> MessageProperties<'a> {
        if self.version == Version::V311 {
            return MessageProperties::default();
        }
        MessageProperties {
            payload_is_text: self.flags[4],
            expiry_secs: self.secs,
            content_type: self.text(0),
            response_topic: self.flags[5].then_some(&self.topic),
            correlation_data: self.blob.as_deref(),
            user_properties,
        }
    }

    fn ack<'a>(&'a self, kind: AckKind, user_properties: UserProperties<'a>) -> Ack<'a> {
        let plain = Ack::puback(pid(self.id), ReasonCode::SUCCESS);
        if self.version == Version::V311 {
            return Ack { kind, ..plain };
        }
        let failure = match kind {
            AckKind::PubAck | AckKind::PubRec => ReasonCode::NOT_AUTHORIZED,
            AckKind::PubRel | AckKind::PubComp => ReasonCode::PACKET_IDENTIFIER_NOT_FOUND,
        };
        Ack {
            kind,
            reason: self.pick(&[ReasonCode::SUCCESS, failure]),
            reason_string: self.text(0),
            user_properties,
            ..plain
        }
    }

    fn auth<'a>(&'a self, user_properties: UserProperties<'a>) -> Auth<'a> {
        Auth {
            reason_string: self.text(0),
            user_properties,
            ..Auth::new(
                ReasonCode::SUCCESS,
                self.text(2).unwrap_or("ace"),
                self.blob.as_deref(),
            )
        }
    }

    fn subscriptions(&self) -> Vec<Subscription<'_>> {
        let qos = self.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        let all = self
            .filters
            .iter()
            .map(|filter| Subscription::new(filter, qos));
        if self.version == Version::V311 {
            return all.collect();
        }
        all.map(|plain| Subscription {
            no_local: self.flags[0] && !plain.filter.starts_with("$share/"),
            retain_as_published: self.flags[1],
            retain_handling: self.pick(&[
                RetainHandling::Send,
                RetainHandling::SendIfNew,
                RetainHandling::DoNotSend,
            ]),
            ..plain
        })
        .collect()
    }

    /// User properties, which MQTT 3.1.1 has not.
    fn pairs(&self) -> Vec<(&str, &str)> {
        let pairs = self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        pairs.filter(|_| self.version == Version::V5).collect()
    }

    /// A text for a property, which MQTT 3.1.1 has not.
    fn text(&self, at: usize) -> Option<&str> {
        self.texts[at]
            .as_deref()
            .filter(|_| self.version == Version::V5)
    }

    fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[usize::from(self.small) % of.len()]
    }
}

const ACK_KINDS: [AckKind; 4] = [
    AckKind::PubAck,
    AckKind::PubRec,
    AckKind::PubRel,
    AckKind::PubComp,
];
