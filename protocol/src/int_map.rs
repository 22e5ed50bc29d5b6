//! Messages as CBOR maps with integer labels, and choices as `[label, body]`: written once, so that encoding and decoding
//! cannot drift apart.
//!
//! Labels are given in the order of RFC 8949 §4.2.1 (0, 1, 2, … then −1, −2, …); the strict decoder in [`crate::cbor`] refuses
//! any other order, since it compares with our own re-encoding. A repeated label is refused everywhere.
//!
//! What is *closed* refuses whatever it does not know: a restriction that is not understood must not be lost. What is `open` is news:
//! a map skips unknown labels from [`OPEN_LABELS_FROM`](crate::limits::OPEN_LABELS_FROM), a choice or a word that is unknown becomes
//! `Other`. So an older reader understands a newer writer as far as that writer allows (`SPEC.md`, chapter 9).

/// Defines a struct that travels as a map with integer labels. `req` fields must be there, `opt` fields may be left out.
macro_rules! int_map {
    ( $(#[$meta:meta])* $vis:vis struct $name:ident { $($fields:tt)* } ) => {
        int_map!(@build false $(#[$meta])* $vis struct $name { $($fields)* });
    };
    ( $(#[$meta:meta])* $vis:vis open struct $name:ident { $($fields:tt)* } ) => {
        int_map!(@build true $(#[$meta])* $vis struct $name { $($fields)* });
    };
    (
        @build $open:literal
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {
            $( $(#[$field_meta:meta])* $label:literal => $need:ident $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        $vis struct $name {
            $( $(#[$field_meta])* $vis $field: int_map!(@type $need $ty), )*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let count = 0_usize $( + int_map!(@count $need self.$field) )*;
                let mut map = serializer.serialize_map(Some(count))?;
                $( int_map!(@put $need map, $label, self.$field); )*
                map.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Labels;
                impl<'de> serde::de::Visitor<'de> for Labels {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a ", stringify!($name), " map"))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        use serde::de::Error as _;
                        $( let mut $field: Option<$ty> = None; )*
                        let mut last = i64::MIN;
                        while let Some(label) = map.next_key::<i64>()? {
                            // Of an open map no label is negative, so its order is that of the numbers.
                            if $open && label <= last {
                                return Err(A::Error::custom("labels out of order"));
                            }
                            last = label;
                            match label {
                                $( $label => {
                                    if $field.is_some() {
                                        return Err(A::Error::custom("repeated label"));
                                    }
                                    $field = Some(map.next_value()?);
                                } )*
                                $crate::limits::OPEN_LABELS_FROM.. if $open => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                                _ => return Err(A::Error::custom("unknown label")),
                            }
                        }
                        let _ = last;
                        Ok($name { $( $field: int_map!(@take $need $field), )* })
                    }
                }
                deserializer.deserialize_map(Labels)
            }
        }
    };
    (@type req $ty:ty) => { $ty };
    (@type opt $ty:ty) => { Option<$ty> };
    (@count req $value:expr) => { 1 };
    (@count opt $value:expr) => { usize::from($value.is_some()) };
    (@put req $map:ident, $label:literal, $value:expr) => { $map.serialize_entry(&$label, &$value)? };
    (@put opt $map:ident, $label:literal, $value:expr) => {
        if let Some(value) = &$value {
            $map.serialize_entry(&$label, value)?;
        }
    };
    (@take req $slot:ident) => { $slot.ok_or_else(|| A::Error::custom("missing label"))? };
    (@take opt $slot:ident) => { $slot };
}

/// Defines a choice that travels as `[label, body]`. An `open` one has a variant more, `Other`, for a label that is unknown here:
/// its body is skipped.
macro_rules! int_choice {
    ( $(#[$meta:meta])* pub enum $name:ident { $($variants:tt)* } ) => {
        int_choice!(@build [] [_] $(#[$meta])* pub enum $name { $($variants)* });
    };
    ( $(#[$meta:meta])* pub open enum $name:ident { $($variants:tt)* } ) => {
        int_choice!(@build [Other] [] $(#[$meta])* pub enum $name { $($variants)* });
    };
    (
        @build [$($other:ident)?] [$($rest:pat)?]
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $label:literal => $variant:ident($body:ty) ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant($body), )*
            $(
                /// Something newer than this program, by its label. It changes nothing.
                $other(u64),
            )?
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $( Self::$variant(body) => serde::Serialize::serialize(&($label, body), serializer), )*
                    // What the strict decoder compares with, once the body is cut out. We write no such thing.
                    $( Self::$other(label) => serde::Serialize::serialize(&(label,), serializer), )?
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Labelled;
                impl<'de> serde::de::Visitor<'de> for Labelled {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!("a [label, ", stringify!($name), "] pair"))
                    }
                    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<$name, A::Error> {
                        use serde::de::Error as _;
                        let label: u64 = seq.next_element()?.ok_or_else(|| A::Error::custom("missing label"))?;
                        match label {
                            $( $label => Ok($name::$variant(
                                seq.next_element()?.ok_or_else(|| A::Error::custom("missing body"))?,
                            )), )*
                            $( label => {
                                seq.next_element::<serde::de::IgnoredAny>()?
                                    .ok_or_else(|| A::Error::custom("missing body"))?;
                                Ok($name::$other(label))
                            } )?
                            $( $rest => Err(A::Error::custom("unknown label")), )?
                        }
                    }
                }
                deserializer.deserialize_tuple(2, Labelled)
            }
        }
    };
}

/// Defines a plain enum that travels as an unsigned number and prints as a stable word. An `open` one has a value more, `Other`, for
/// a number that is unknown here.
macro_rules! int_word {
    ( $(#[$meta:meta])* pub enum $name:ident { $($variants:tt)* } ) => {
        int_word!(@build [] [_] $(#[$meta])* pub enum $name { $($variants)* });
    };
    ( $(#[$meta:meta])* pub open enum $name:ident { $($variants:tt)* } ) => {
        int_word!(@build [Other] [] $(#[$meta])* pub enum $name { $($variants)* });
    };
    (
        @build [$($other:ident)?] [$($rest:pat)?]
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $label:literal => $variant:ident = $word:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
            $(
                /// A word newer than this program, by its number.
                $other(u64),
            )?
        }

        impl $name {
            /// Every value that has a word, in the order of its labels.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The number that stands for it on the wire.
            #[must_use]
            pub const fn label(self) -> u64 {
                match self { $( Self::$variant => $label, )* $( Self::$other(label) => label, )? }
            }

            /// The word that people and programs see.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* $( Self::$other(_) => int_word!(@word $other), )? }
            }

            /// The value for a number, if there is one.
            #[must_use]
            pub const fn from_label(label: u64) -> Option<Self> {
                match label {
                    $( $label => Some(Self::$variant), )*
                    $( label => Some(Self::$other(label)), )?
                    $( $rest => None, )?
                }
            }

            /// The value for a word, if there is one.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.word() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.word())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u64(self.label())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use serde::de::Error as _;
                Self::from_label(u64::deserialize(deserializer)?)
                    .ok_or_else(|| D::Error::custom("unknown number"))
            }
        }
    };
    (@word $other:ident) => { "other" };
}

#[cfg(test)]
mod tests;
