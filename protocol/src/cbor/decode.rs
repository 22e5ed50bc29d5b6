//! Deterministic CBOR into our types, by way of serde: each value is read as what its type says and as nothing else.
//!
//! Reading is led by the type, so it never goes deeper than the type does. A list is refused by its head if it is longer than any of
//! ours, and room is made for no more items than there are bytes left. No other encoding of a struct, no text for bytes, no tag,
//! float or unknown field gets through. (A general decoder also costs the operator 350 KB: it is instantiated whole for every type
//! that it can meet.)

use std::borrow::Cow;

use serde::de::{
    self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
    value::BorrowedStrDeserializer,
};

use super::{
    CborError,
    head::{ARRAY, BYTES, FALSE, MAP, NEGATIVE, NULL, Reader, TRUE, UINT},
};
use crate::limits::{ARRAY_ITEMS_MAX, MAP_PAIRS_MAX, OPEN_LABELS_FROM, SKIPPED_DEPTH_MAX};

/// Reads one value from the front of a slice.
#[derive(Debug)]
pub(super) struct Decoder<'de> {
    bytes: &'de [u8],
    reader: Reader<'de>,
    /// What may be skipped now, if anything.
    open: Option<Open>,
    /// What was read so far, without what was skipped; empty until something is.
    known: Vec<u8>,
    /// How far `known` goes, counted in `bytes`.
    known_to: usize,
}

/// Something newer than this program, if it is skipped: a pair of a map, or the body of a choice.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Where in `known` the first byte of the map or choice is, or will be, which counts it.
    head_at: usize,
    /// Where it begins, counted in `bytes`.
    from: usize,
}

impl<'de> Decoder<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self {
            bytes,
            reader: Reader::new(bytes),
            open: None,
            known: Vec::new(),
            known_to: 0,
        }
    }

    /// The bytes without what was skipped: what a writer would have sent who knows no more than we do.
    ///
    /// # Errors
    /// [`CborError::Malformed`] if anything follows the value.
    pub(super) fn end(mut self) -> Result<Cow<'de, [u8]>, CborError> {
        if self.reader.peek().is_some() {
            return Err(CborError::Malformed);
        }
        if self.known_to == 0 {
            return Ok(Cow::Borrowed(self.bytes));
        }
        self.keep_to(self.bytes.len());
        Ok(Cow::Owned(self.known))
    }

    /// Copies what was read up to `position` and not skipped. Each byte is copied once, however much is skipped.
    fn keep_to(&mut self, position: usize) {
        let kept = self.bytes.get(self.known_to..position).unwrap_or_default();
        self.known
            .reserve_exact(kept.len() + self.reader.rest().len());
        self.known.extend_from_slice(kept);
    }

    /// Leaves out what is open and ends here. Counts are below 24, so each is in its head's first byte.
    fn leave_out(&mut self, open: Open) {
        self.keep_to(open.from);
        self.known_to = self.position();
        if let Some(head) = self.known.get_mut(open.head_at) {
            *head -= 1;
        }
    }

    fn position(&self) -> usize {
        self.bytes.len() - self.reader.rest().len()
    }

    fn text(&mut self) -> Result<&'de str, CborError> {
        self.reader.text()
    }

    fn unsigned(&mut self) -> Result<u64, CborError> {
        self.reader.head(UINT)
    }

    fn signed(&mut self) -> Result<i64, CborError> {
        let negative = self.reader.peek().is_some_and(|byte| byte >> 5 == NEGATIVE);
        let argument = self.reader.head(if negative { NEGATIVE } else { UINT })?;
        let value = i64::try_from(argument).map_err(|_| CborError::Malformed)?;
        Ok(if negative { -1 - value } else { value })
    }

    fn skip_byte(&mut self) {
        self.reader = Reader::new(self.reader.rest().get(1..).unwrap_or_default());
    }
}

/// Errors say nothing of the content, and neither does serde here.
impl de::Error for CborError {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self::Malformed
    }
}

macro_rules! numbers {
    ($read:ident => $($method:ident $visit:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
                visitor.$visit(self.$read()?)
            }
        )*
    };
}

impl<'de> de::Deserializer<'de> for &mut Decoder<'de> {
    type Error = CborError;

    fn is_human_readable(&self) -> bool {
        false
    }

    numbers!(unsigned => deserialize_u8 visit_u64 deserialize_u16 visit_u64 deserialize_u32 visit_u64 deserialize_u64 visit_u64);
    numbers!(signed => deserialize_i8 visit_i64 deserialize_i16 visit_i64 deserialize_i32 visit_i64 deserialize_i64 visit_i64);
    numbers!(text => deserialize_str visit_borrowed_str deserialize_string visit_borrowed_str deserialize_identifier visit_borrowed_str);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        let value = match self.reader.peek() {
            Some(FALSE) => false,
            Some(TRUE) => true,
            _ => return Err(CborError::Malformed),
        };
        self.skip_byte();
        visitor.visit_bool(value)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        visitor.visit_borrowed_bytes(self.reader.string(BYTES)?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        if self.reader.peek() == Some(NULL) {
            self.skip_byte();
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, CborError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        let mut items = Items::of(self, ARRAY)?;
        if items.left > ARRAY_ITEMS_MAX {
            return Err(CborError::TooLong);
        }
        let value = visitor.visit_seq(&mut items)?;
        items.end(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, CborError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        let mut items = Items::of(self, MAP)?;
        if items.left > MAP_PAIRS_MAX {
            return Err(CborError::Malformed);
        }
        let value = visitor.visit_map(&mut items)?;
        items.end(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CborError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, CborError> {
        visitor.visit_enum(Word(self.text()?))
    }

    /// Skips what an open message may hold beyond what we know; anywhere else an unknown field has no meaning.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, CborError> {
        let open = self.open.take().ok_or(CborError::Malformed)?;
        self.reader.skip(SKIPPED_DEPTH_MAX)?;
        self.leave_out(open);
        visitor.visit_unit()
    }

    // A type that takes whatever comes has no one encoding.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, CborError> {
        Err(CborError::Malformed)
    }

    serde::forward_to_deserialize_any! { i128 u128 f32 f64 char unit unit_struct tuple_struct }
}

/// The items of an array, or the pairs of a map.
struct Items<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    head_at: usize,
    count: u64,
    left: u64,
}

impl<'a, 'de> Items<'a, 'de> {
    fn of(decoder: &'a mut Decoder<'de>, major: u8) -> Result<Self, CborError> {
        let head_at = decoder.known.len() + decoder.position() - decoder.known_to;
        let count = decoder.reader.head(major)?;
        Ok(Self {
            decoder,
            head_at,
            count,
            left: count,
        })
    }

    /// How many items to make room for: each takes a byte at the least.
    fn hint(&self) -> usize {
        let bytes = self.decoder.reader.rest().len();
        usize::try_from(self.left).map_or(bytes, |left| left.min(bytes))
    }

    /// The visitor has taken what it knows; if there is more, this was another type's value.
    fn end<T>(&self, value: T) -> Result<T, CborError> {
        if self.left == 0 {
            Ok(value)
        } else {
            Err(CborError::Malformed)
        }
    }

    /// The next item or key, which `may_be_skipped` together with what belongs to it.
    fn next<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
        may_be_skipped: bool,
    ) -> Result<Option<T::Value>, CborError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        let from = self.decoder.position();
        self.decoder.open = may_be_skipped.then_some(Open {
            head_at: self.head_at,
            from,
        });
        seed.deserialize(&mut *self.decoder).map(Some)
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = CborError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, CborError> {
        let is_body_of_choice = self.count == 2 && self.left == 1;
        self.next(seed, is_body_of_choice)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = CborError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, CborError> {
        let mut ahead = self.decoder.reader;
        let is_open = ahead
            .uint()
            .is_some_and(|label| label >= OPEN_LABELS_FROM.unsigned_abs());
        self.next(seed, is_open)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, CborError> {
        seed.deserialize(&mut *self.decoder)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.hint())
    }
}

/// A choice among words, each travelling as its text.
struct Word<'de>(&'de str);

impl<'de> EnumAccess<'de> for Word<'de> {
    type Error = CborError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), CborError> {
        let value = seed.deserialize(BorrowedStrDeserializer::<CborError>::new(self.0))?;
        Ok((value, self))
    }
}

impl<'de> VariantAccess<'de> for Word<'de> {
    type Error = CborError;

    fn unit_variant(self) -> Result<(), CborError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, CborError> {
        Err(CborError::Malformed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, CborError> {
        Err(CborError::Malformed)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, CborError> {
        Err(CborError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum Choice {
        One,
        Two,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Sample {
        yes: bool,
        small: u8,
        large: u64,
        negative: i64,
        text: String,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        perhaps: Option<u32>,
        list: Vec<(String, u16)>,
        choice: Choice,
    }

    fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CborError> {
        let mut decoder = Decoder::new(bytes);
        let value = T::deserialize(&mut decoder)?;
        decoder.end().map(|_| value)
    }

    proptest! {
        #[test]
        fn what_the_library_writes_is_read_back(
            yes: bool, small: u8, large: u64, negative: i64, text: String, bytes: Vec<u8>, perhaps: Option<u32>,
            list: Vec<(String, u16)>, one: bool,
        ) {
            let choice = if one { Choice::One } else { Choice::Two };
            let sample = Sample { yes, small, large, negative, text, bytes, perhaps, list, choice };
            prop_assert_eq!(decode::<Sample>(&serde_cbor::to_vec(&sample).unwrap()), Ok(sample));
        }

        #[test]
        fn what_is_read_from_any_bytes_the_library_reads_alike(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let sample = Sample {
                yes: true, small: 24, large: 1 << 40, negative: -7, text: "text".into(), bytes: vec![1, 2], perhaps: Some(3),
                list: vec![("a".into(), 1), ("b".into(), 2)], choice: Choice::Two,
            };
            let mut bytes = serde_cbor::to_vec(&sample).unwrap();
            for (index, byte) in &flips {
                *index.get_mut(&mut bytes) = *byte;
            }
            if let Ok(value) = decode::<Sample>(&bytes) {
                prop_assert_eq!(serde_cbor::from_slice::<Sample>(&bytes).unwrap(), value);
            }
        }
    }

    #[test]
    fn a_value_is_read_as_its_type_and_as_nothing_else() {
        assert_eq!(decode::<u64>(&[0x07]), Ok(7));
        assert_eq!(decode::<i64>(&[0x26]), Ok(-7));
        assert_eq!(
            decode::<i64>(&[0x3b, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            Ok(i64::MIN)
        );
        assert_eq!(decode::<Vec<u64>>(&[0x82, 1, 2]), Ok(vec![1, 2]));
        let malformed = |error: Option<CborError>| assert_eq!(error, Some(CborError::Malformed));
        malformed(decode::<u64>(&[0x20]).err());
        malformed(decode::<i64>(&[0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0]).err());
        malformed(decode::<u8>(&[0x19, 1, 0]).err());
        malformed(decode::<String>(&[0x41, b'a']).err());
        malformed(decode::<String>(&[0x61, 0xff]).err());
        malformed(decode::<serde_bytes::ByteBuf>(&[0x61, b'a']).err());
        malformed(decode::<Vec<u64>>(&[0x81, 0xc1, 1]).err());
        malformed(decode::<bool>(&[1]).err());
        malformed(decode::<(u64, u64)>(&[0x83, 1, 2, 3]).err());
        malformed(decode::<(u64, u64)>(&[0x81, 1]).err());
        malformed(decode::<Choice>(&[0xa1, 0x63, b'O', b'n', b'e', 0xf6]).err());
        malformed(decode::<f64>(&[0xf9, 0, 0]).err());
    }

    #[test]
    fn a_length_bomb_ends_where_its_bytes_do() {
        let list = |bytes: &[u8]| decode::<Vec<u64>>(bytes);
        assert_eq!(
            list(&[0x9b, 0x0f, 255, 255, 255, 255, 255, 255, 255, 1, 1]),
            Err(CborError::TooLong)
        );
        assert_eq!(list(&[0x98, 200, 1, 1]), Err(CborError::Malformed));
        assert_eq!(list(&[0x9f, 0xff]), Err(CborError::NotDeterministic));
        assert_eq!(
            decode::<Vec<Vec<u64>>>(&[0x81; 1 << 16]),
            Err(CborError::Malformed)
        );
    }

    #[test]
    fn a_list_longer_than_any_of_ours_is_refused_by_its_head() {
        let list = |count: usize| serde_cbor::to_vec(&vec![7_u64; count]).unwrap();
        let most = usize::try_from(ARRAY_ITEMS_MAX).unwrap();
        assert_eq!(decode::<Vec<u64>>(&list(most)), Ok(vec![7; most]));
        assert_eq!(decode::<Vec<u64>>(&list(most + 1)), Err(CborError::TooLong));
    }
}
