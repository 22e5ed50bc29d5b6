//! Quality of service, and how one message is delivered: MQTT 5.0 §4.3.

use std::num::NonZeroU16;

/// A packet identifier (MQTT 5.0 §2.2.1): never zero.
pub type PacketId = NonZeroU16;

/// Quality of service (MQTT 5.0 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Qos {
    /// QoS 0: sent once, perhaps lost.
    AtMostOnce,
    /// QoS 1: acknowledged, perhaps sent twice.
    AtLeastOnce,
    /// QoS 2. Decoded so that the gate can refuse it by name.
    ExactlyOnce,
}

impl Qos {
    /// The number of the standard.
    pub const fn value(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }

    /// The quality of service of two bits, 3 of which is none.
    pub(super) const fn of(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

/// How a PUBLISH is delivered: its QoS with what goes with it, so that QoS 0 has neither an identifier nor a duplicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// What PUBACK will name.
        id: PacketId,
        /// Whether it may have been sent before (MQTT 5.0 §3.3.1.1).
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// What PUBREC will name.
        id: PacketId,
        /// Whether it may have been sent before (MQTT 5.0 §3.3.1.1).
        dup: bool,
    },
}

impl Delivery {
    /// QoS 1, for the first time.
    pub const fn at_least_once(id: PacketId) -> Self {
        Self::AtLeastOnce { id, dup: false }
    }

    /// The quality of service.
    pub const fn qos(self) -> Qos {
        match self {
            Self::AtMostOnce => Qos::AtMostOnce,
            Self::AtLeastOnce { .. } => Qos::AtLeastOnce,
            Self::ExactlyOnce { .. } => Qos::ExactlyOnce,
        }
    }

    /// The packet identifier, unless QoS 0.
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce { id, .. } | Self::ExactlyOnce { id, .. } => Some(id),
        }
    }

    /// Whether it may have been sent before.
    pub const fn dup(self) -> bool {
        match self {
            Self::AtMostOnce => false,
            Self::AtLeastOnce { dup, .. } | Self::ExactlyOnce { dup, .. } => dup,
        }
    }
}
