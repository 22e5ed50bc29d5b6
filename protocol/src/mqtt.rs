//! The MQTT codec, shared by gate and shim: MQTT 5.0, and 3.1.1 for readers that speak nothing newer.
//!
//! [`frame`] finds one packet in a buffer; [`decode_client`] and [`decode_server`] look into it. They borrow from the buffer
//! and allocate nothing, so that a stranger's packet costs its own bytes and no more. Everything the standard forbids is
//! refused, with a [`DecodeError`] that knows what to answer. What the standard allows is decoded, wills and QoS 2 included:
//! refusing those is a decision, and decisions are the gate's.
//!
//! Every packet has `encode`, which appends it to a `Vec<u8>`. What is encoded decodes to the same value.

mod ack;
mod auth;
mod client;
mod connack;
mod connect;
mod decode_error;
mod disconnect;
mod frame;
mod hidden;
mod list;
mod message;
mod property;
mod publish;
mod qos;
mod reader;
mod reason;
mod server;
mod suback;
mod subscribe;
mod text;
mod unsubscribe;
mod version;
mod will;
mod writer;

#[cfg(test)]
mod testing;

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use client::{ClientPacket, PINGREQ, decode_client};
pub use connack::ConnAck;
pub use connect::Connect;
pub use decode_error::DecodeError;
pub use disconnect::Disconnect;
pub use frame::{Frame, Kind, frame};
pub use list::{Entry, Iter, List};
pub use message::MessageProperties;
pub use property::{USER_PROPERTIES_MAX, UserProperties};
pub use publish::Publish;
pub use qos::{Delivery, PacketId, Qos};
pub use reason::ReasonCode;
pub use server::{PINGRESP, ServerPacket, decode_server};
pub use suback::{SubAck, SubAckKind};
pub use subscribe::{RetainHandling, Subscribe, Subscription};
pub use unsubscribe::Unsubscribe;
pub use version::{Side, Version};
pub use will::Will;
pub use writer::EncodeError;
