//! MQTT: being written.
