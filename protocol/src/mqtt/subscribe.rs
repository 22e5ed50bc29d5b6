//! SUBSCRIBE, MQTT 5.0 §3.8: asking for messages.

use std::num::NonZeroU32;

use super::decode_error::DecodeError;
use super::frame::{Frame, Kind};
use super::list::{Entry, List};
use super::property::{Properties, UserProperties, id};
use super::qos::{PacketId, Qos};
use super::reader::Reader;
use super::text;
use super::version::Version;
use super::writer::{self, EncodeError};

/// A SUBSCRIBE packet. `Debug` does not show its filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// What SUBACK will name.
    pub id: PacketId,
    /// What is asked for: at least one, each with a valid filter.
    pub subscriptions: List<'a, Subscription<'a>>,
    /// Subscription Identifier.
    pub subscription_id: Option<NonZeroU32>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

/// One filter of a SUBSCRIBE, with its options (MQTT 5.0 §3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// Topic Filter, of the form of MQTT 5.0 §4.7.1. Whether `$share/…` is well formed is not looked at.
    pub filter: &'a str,
    /// Maximum QoS.
    pub qos: Qos,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// What to do with retained messages at the time of a subscription (MQTT 5.0 §3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetainHandling {
    /// 0: send them. The only one of MQTT 3.1.1.
    Send,
    /// 1: send them if the subscription is new.
    SendIfNew,
    /// 2: do not send them.
    DoNotSend,
}

const NO_LOCAL: u8 = 0b0000_0100;
const RETAIN_AS_PUBLISHED: u8 = 0b0000_1000;
const RESERVED: u8 = 0b1100_0000;
const RESERVED_V311: u8 = 0b1111_1100;

impl<'a> Subscription<'a> {
    /// A subscription with the options of MQTT 3.1.1.
    pub const fn new(filter: &'a str, qos: Qos) -> Self {
        Self {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let filter = reader.text()?;
        let options = reader.u8()?;
        Self::of(filter, options)
    }

    /// Checks `filter` and the options of MQTT 5, of which those of 3.1.1 are a part.
    fn of(filter: &'a str, options: u8) -> Result<Self, DecodeError> {
        text::check_topic_filter(filter)?;
        if options & RESERVED != 0 {
            return Err(DecodeError::SubscriptionReserved);
        }
        let subscription = Self {
            filter,
            qos: Qos::of(options & 0b11).ok_or(DecodeError::SubscriptionOptions)?,
            no_local: options & NO_LOCAL != 0,
            retain_as_published: options & RETAIN_AS_PUBLISHED != 0,
            retain_handling: match options >> 4 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::SubscriptionOptions),
            },
        };
        if subscription.no_local && filter.starts_with("$share/") {
            return Err(DecodeError::NoLocalOnShared);
        }
        Ok(subscription)
    }

    fn options(&self) -> u8 {
        let retain_handling = match self.retain_handling {
            RetainHandling::Send => 0,
            RetainHandling::SendIfNew => 1,
            RetainHandling::DoNotSend => 2,
        };
        self.qos.value()
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | retain_handling << 4
    }
}

impl<'a> Entry<'a> for Subscription<'a> {
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut reader = Reader::new(bytes);
        let subscription = Self::read(&mut reader).ok()?;
        Some((subscription, reader.rest()))
    }
}

impl<'a> Subscribe<'a> {
    /// A SUBSCRIBE without properties.
    pub const fn new(id: PacketId, subscriptions: List<'a, Subscription<'a>>) -> Self {
        Self {
            id,
            subscriptions,
            subscription_id: None,
            user_properties: UserProperties::EMPTY,
        }
    }

    pub(super) fn decode(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body());
        let mut subscribe = Self::new(reader.packet_id()?, List::EMPTY);
        let mut properties = Properties::open(&mut reader, version)?;
        while let Some(id) = properties.next_id()? {
            match id {
                id::SUBSCRIPTION_ID => {
                    subscribe.subscription_id = Some(properties.subscription_id()?);
                }
                _ => return Err(DecodeError::PropertyNotAllowed),
            }
        }
        subscribe.user_properties = properties.user_properties();

        let bytes = reader.rest();
        let mut count = 0;
        while !reader.is_empty() {
            let filter = reader.text()?;
            let options = reader.u8()?;
            if version == Version::V311 && options & RESERVED_V311 != 0 {
                return Err(DecodeError::SubscriptionReserved);
            }
            Subscription::of(filter, options)?;
            count += 1;
        }
        if count == 0 {
            return Err(DecodeError::NoFilters);
        }
        subscribe.subscriptions = List::checked(bytes, count);
        Ok(subscribe)
    }

    /// Appends the packet to `out`. In MQTT 3.1.1 only filters and QoS are left of it.
    ///
    /// # Errors
    /// [`EncodeError::TooLong`] and [`EncodeError::BadText`].
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        writer::packet(out, Kind::Subscribe.first_byte(), 0, |w| {
            w.packet_id(self.id);
            w.properties(version, |w| {
                if let Some(id) = self.subscription_id {
                    w.u8(id::SUBSCRIPTION_ID);
                    w.vbi(id.get());
                }
                w.user_properties(&self.user_properties);
            });
            for subscription in &self.subscriptions {
                w.text(subscription.filter);
                w.u8(match version {
                    Version::V5 => subscription.options(),
                    Version::V311 => subscription.qos.value(),
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::ClientPacket;
    use super::super::testing::{client, pid, raw, section, text};
    use super::*;

    fn decode(bytes: &[u8], version: Version) -> Result<Subscribe<'_>, DecodeError> {
        let ClientPacket::Subscribe(subscribe) = client(bytes, version)? else {
            panic!("another packet");
        };
        Ok(subscribe)
    }

    /// The error of a SUBSCRIBE of MQTT 5 for one filter.
    fn refused(filter: &str, options: u8) -> Option<DecodeError> {
        let bytes = raw(0x82, &[&[0, 7, 0], &text(filter), &[options]]);
        decode(&bytes, Version::V5).err()
    }

    #[test]
    fn mqtt_subscriptions_are_read_in_their_order() {
        let bytes = raw(
            0x82,
            &[
                &[0, 7],
                &section(&[&[0x0B, 0x80, 0x01]]),
                &text("v1/+/+/events"),
                &[0x01],
                &text("v1/edge-1/reports"),
                &[0x2C],
            ],
        );
        let subscribe = decode(&bytes, Version::V5).unwrap();
        assert_eq!(subscribe.id, pid(7));
        assert_eq!(subscribe.subscription_id, NonZeroU32::new(128));
        let expected = [
            Subscription::new("v1/+/+/events", Qos::AtLeastOnce),
            Subscription {
                no_local: true,
                retain_as_published: true,
                retain_handling: RetainHandling::DoNotSend,
                ..Subscription::new("v1/edge-1/reports", Qos::AtMostOnce)
            },
        ];
        assert_eq!(subscribe.subscriptions, List::from(&expected));
        assert!(subscribe.subscriptions.iter().eq(expected));
    }

    #[test]
    fn mqtt_filters_against_the_standard_are_refused() {
        for filter in ["a/#/b", "a#", "+a", "", "#/a", "a/+b"] {
            assert_eq!(refused(filter, 0), Some(DecodeError::FilterInvalid));
        }
        assert_eq!(refused("a\0", 0), Some(DecodeError::BadText));
    }

    #[test]
    fn mqtt_shared_filters_are_decoded_for_the_gate_to_refuse() {
        for filter in [
            "$share/g/x",
            "$share//x",
            "$share/g/",
            "$share/ab",
            "$share/+/x",
            "$SYS/#",
        ] {
            assert_eq!(refused(filter, 1), None, "{filter}");
        }
        assert_eq!(
            refused("$share/g/x", NO_LOCAL),
            Some(DecodeError::NoLocalOnShared)
        );
        assert_eq!(refused("$shared", NO_LOCAL), None);
    }

    #[test]
    fn mqtt_each_options_byte_is_taken_or_refused() {
        for options in 0..=u8::MAX {
            let expected = match options {
                _ if options & 0xC0 != 0 => Some(DecodeError::SubscriptionReserved),
                _ if options & 0x03 == 3 || options & 0x30 == 0x30 => {
                    Some(DecodeError::SubscriptionOptions)
                }
                _ => None,
            };
            assert_eq!(refused("a", options), expected, "{options:#04x}");

            let bytes = raw(0x82, &[&[0, 7], &text("a"), &[options]]);
            let expected = match options {
                0..=2 => None,
                3 => Some(DecodeError::SubscriptionOptions),
                _ => Some(DecodeError::SubscriptionReserved),
            };
            assert_eq!(decode(&bytes, Version::V311).err(), expected);
        }
    }

    #[test]
    fn mqtt_malformed_subscribes_are_refused() {
        for (body, error) in [
            (&[0, 0, 0, 0, 1, b'a', 0][..], DecodeError::PacketIdZero),
            (&[0, 7, 0], DecodeError::NoFilters),
            (&[0, 7], DecodeError::Truncated),
            (&[0, 7, 0, 0, 1, b'a'], DecodeError::Truncated),
            (&[0, 7, 0, 0, 1, b'a', 0, 0], DecodeError::Truncated),
            (
                &[0, 7, 2, 0x0B, 0, 0, 1, b'a', 0],
                DecodeError::SubscriptionIdZero,
            ),
            (
                &[0, 7, 4, 0x0B, 1, 0x0B, 1, 0, 1, b'a', 0],
                DecodeError::PropertyTwice,
            ),
            (
                &[0, 7, 2, 0x01, 0, 0, 1, b'a', 0],
                DecodeError::PropertyNotAllowed,
            ),
        ] {
            let bytes = raw(0x82, &[body]);
            assert_eq!(decode(&bytes, Version::V5), Err(error), "{body:x?}");
        }
        assert_eq!(
            decode(&raw(0x82, &[&[0, 7]]), Version::V311),
            Err(DecodeError::NoFilters)
        );
    }

    #[test]
    fn mqtt_many_filters_are_counted_for_the_gate_to_bound() {
        let filter = [&text("a")[..], &[0]].concat();
        let bytes = raw(0x82, &[&[0, 7, 0], &filter.repeat(10_000)]);
        let subscribe = decode(&bytes, Version::V5).unwrap();
        assert_eq!(subscribe.subscriptions.len(), 10_000);
        assert_eq!(subscribe.subscriptions.iter().count(), 10_000);
    }
}
