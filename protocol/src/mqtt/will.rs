//! The will of a CONNECT: a message to be published when its link breaks, MQTT 5.0 §3.1.2.5. Outhaul accepts none; it is
//! decoded so that the gate can refuse it by name.

use std::fmt;

use super::decode_error::DecodeError;
use super::hidden::Hidden;
use super::message::MessageProperties;
use super::property::{Properties, id};
use super::qos::Qos;
use super::reader::Reader;
use super::text;
use super::version::Version;
use super::writer::Writer;

/// A will message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Where to publish: not empty, without wildcards.
    pub topic: &'a str,
    /// What to publish.
    pub payload: &'a [u8],
    /// With which quality of service.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// Will Delay Interval, in seconds.
    pub delay_secs: u32,
    /// The properties of the message.
    pub properties: MessageProperties<'a>,
}

impl<'a> Will<'a> {
    /// Reads the will's part of a CONNECT payload (§3.1.3.2 to §3.1.3.4).
    pub(super) fn read(
        reader: &mut Reader<'a>,
        version: Version,
        qos: Qos,
        retain: bool,
    ) -> Result<Self, DecodeError> {
        let mut delay_secs = 0;
        let mut message = MessageProperties::default();
        let mut properties = Properties::open(reader, version)?;
        while let Some(id) = properties.next_id()? {
            if id == id::WILL_DELAY {
                delay_secs = properties.u32()?;
            } else if !message.read(id, &mut properties)? {
                return Err(DecodeError::PropertyNotAllowed);
            }
        }
        message.user_properties = properties.user_properties();

        let topic = reader.text()?;
        if topic.is_empty() {
            return Err(DecodeError::TopicEmpty);
        }
        text::check_topic_name(topic)?;
        Ok(Self {
            topic,
            payload: reader.binary()?,
            qos,
            retain,
            delay_secs,
            properties: message,
        })
    }

    pub(super) fn write(&self, version: Version, w: &mut Writer<'_>) {
        w.properties(version, |w| {
            w.u32_property(id::WILL_DELAY, Some(self.delay_secs).filter(|d| *d > 0));
            self.properties.write(w);
        });
        w.text(self.topic);
        w.binary(self.payload);
    }
}

/// Shows no payload.
impl fmt::Debug for Will<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Will")
            .field("topic", &self.topic)
            .field("payload", &Hidden(self.payload))
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("delay_secs", &self.delay_secs)
            .field("properties", &self.properties)
            .finish()
    }
}
