//! Messages as CBOR maps with integer labels, and choices as `[label, body]`: written once, so that encoding and decoding
//! cannot drift apart.
//!
//! Labels are given in the order of RFC 8949 §4.2.1 (0, 1, 2, … then −1, −2, …); the strict decoder in [`crate::cbor`] refuses
//! any other order, since it compares with our own re-encoding. An unknown or repeated label is refused.

/// Defines a struct that travels as a map with integer labels. `req` fields must be there, `opt` fields may be left out.
macro_rules! int_map {
    (
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
                        while let Some(label) = map.next_key::<i64>()? {
                            match label {
                                $( $label => {
                                    if $field.is_some() {
                                        return Err(A::Error::custom("repeated label"));
                                    }
                                    $field = Some(map.next_value()?);
                                } )*
                                _ => return Err(A::Error::custom("unknown label")),
                            }
                        }
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

/// Defines a choice that travels as `[label, body]`.
macro_rules! int_choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $label:literal => $variant:ident($body:ty) ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant($body), )*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $( Self::$variant(body) => serde::Serialize::serialize(&($label, body), serializer), )*
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
                            _ => Err(A::Error::custom("unknown label")),
                        }
                    }
                }
                deserializer.deserialize_tuple(2, Labelled)
            }
        }
    };
}

/// Defines a plain enum that travels as an unsigned number and prints as a stable word.
macro_rules! int_word {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $label:literal => $variant:ident = $word:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $name {
            /// Every value, in the order of its labels.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The number that stands for it on the wire.
            #[must_use]
            pub const fn label(self) -> u64 {
                match self { $( Self::$variant => $label, )* }
            }

            /// The word that people and programs see.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
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
                let label = u64::deserialize(deserializer)?;
                Self::ALL.iter().copied().find(|value| value.label() == label)
                    .ok_or_else(|| D::Error::custom("unknown number"))
            }
        }
    };
}
