//! What a decoder made of a packet, in words that two decoders have in common.

use std::collections::BTreeMap;

/// What the packet says, field by field. What has its default, by the standard, is left out.
pub(crate) type Facts = BTreeMap<&'static str, String>;

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// More bytes are needed.
    Incomplete,
    /// It is refused.
    Refused(String),
    /// It is taken.
    Taken(Facts),
    /// The decoder panicked.
    Panicked,
}

impl Outcome {
    /// In a word or a few.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Incomplete => "incomplete".to_owned(),
            Self::Refused(why) => format!("refused: {why}"),
            Self::Taken(_) => "taken".to_owned(),
            Self::Panicked => "panics".to_owned(),
        }
    }
}

/// Bytes as they are shown.
pub(crate) fn hex(bytes: &[u8]) -> String {
    format!("{bytes:02x?}")
}

/// Notes a field.
pub(crate) fn note(facts: &mut Facts, name: &'static str, value: impl ToString) {
    facts.insert(name, value.to_string());
}

/// Notes a field unless it has its default.
pub(crate) fn note_unless<T: PartialEq + ToString>(
    facts: &mut Facts,
    name: &'static str,
    value: T,
    default: T,
) {
    if value != default {
        facts.insert(name, value.to_string());
    }
}

/// Notes a field if it is there.
pub(crate) fn note_if(facts: &mut Facts, name: &'static str, value: Option<impl ToString>) {
    if let Some(value) = value {
        facts.insert(name, value.to_string());
    }
}

/// Notes one more entry of a list.
pub(crate) fn append(facts: &mut Facts, name: &'static str, value: &str) {
    let list = facts.entry(name).or_default();
    list.push_str(value);
    list.push(';');
}
