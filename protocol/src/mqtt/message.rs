//! What PUBLISH and a will have in common: the properties that travel with a message, MQTT 5.0 §3.3.2.3 and §3.1.3.2.

use std::fmt;

use super::decode_error::DecodeError;
use super::hidden::Hidden;
use super::property::{Properties, UserProperties, id};
use super::text;
use super::writer::Writer;

/// The properties of a message, for whoever receives it in the end. All absent in MQTT 3.1.1.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageProperties<'a> {
    /// Payload Format Indicator 1: the sender says that the payload is UTF-8 text. Not checked by the decoder.
    pub payload_is_text: bool,
    /// Message Expiry Interval, in seconds.
    pub expiry_secs: Option<u32>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Response Topic: not empty, without wildcards.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// User properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> MessageProperties<'a> {
    /// Reads the value of property `id`, or says `false` if it is none of these.
    pub(super) fn read(
        &mut self,
        id: u8,
        properties: &mut Properties<'a>,
    ) -> Result<bool, DecodeError> {
        match id {
            id::PAYLOAD_FORMAT => self.payload_is_text = properties.flag()?,
            id::MESSAGE_EXPIRY => self.expiry_secs = Some(properties.u32()?),
            id::CONTENT_TYPE => self.content_type = Some(properties.text()?),
            id::RESPONSE_TOPIC => {
                let topic = properties.text()?;
                if topic.is_empty() {
                    return Err(DecodeError::TopicEmpty);
                }
                text::check_topic_name(topic)?;
                self.response_topic = Some(topic);
            }
            id::CORRELATION_DATA => self.correlation_data = Some(properties.binary()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        w.flag_property(id::PAYLOAD_FORMAT, self.payload_is_text.then_some(true));
        w.u32_property(id::MESSAGE_EXPIRY, self.expiry_secs);
        w.text_property(id::CONTENT_TYPE, self.content_type);
        w.text_property(id::RESPONSE_TOPIC, self.response_topic);
        w.binary_property(id::CORRELATION_DATA, self.correlation_data);
        w.user_properties(&self.user_properties);
    }
}

/// Shows no correlation data.
impl fmt::Debug for MessageProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageProperties")
            .field("payload_is_text", &self.payload_is_text)
            .field("expiry_secs", &self.expiry_secs)
            .field("content_type", &self.content_type)
            .field("response_topic", &self.response_topic)
            .field("correlation_data", &self.correlation_data.map(Hidden))
            .field("user_properties", &self.user_properties)
            .finish()
    }
}
