//! The door between bytes and values: deterministic CBOR (RFC 8949 §4.2.1) and nothing else.
//!
//! Decoding is decode, re-encode, compare: what is not byte for byte what we would have written is refused. Our own decoder is strict
//! already; the comparison with what the library writes closes what it cannot see, such as unsorted keys, and holds the two together.

mod decode;
pub(crate) mod head;

use std::io::{self, Write};

use serde::{Serialize, de::Deserialize};

use decode::Decoder;

/// Why bytes were refused. Says nothing of their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// Longer than the limit for this message, or a list in it.
    #[error("longer than its limit")]
    TooLong,
    /// Not CBOR, or not this message.
    #[error("not well-formed")]
    Malformed,
    /// Readable, but not the one deterministic encoding.
    #[error("not in deterministic encoding")]
    NotDeterministic,
}

/// Encodes `value`. Our own types always encode; an empty vector would mean a bug, and is refused by every decoder.
#[must_use]
pub fn to_vec<T: Serialize>(value: &T) -> Vec<u8> {
    let encoded = serde_cbor::to_vec(value);
    debug_assert!(encoded.is_ok(), "our own types encode");
    encoded.unwrap_or_default()
}

/// Decodes one value that fills `bytes` exactly, refusing anything but its deterministic encoding.
///
/// # Errors
/// [`CborError::TooLong`] past `bytes_max`, before anything is read, or for a list that is longer than any of ours; else what was wrong
/// with the bytes.
pub fn from_slice<'a, T>(bytes: &'a [u8], bytes_max: usize) -> Result<T, CborError>
where
    T: Deserialize<'a> + Serialize,
{
    if bytes.len() > bytes_max {
        return Err(CborError::TooLong);
    }
    let mut decoder = Decoder::new(bytes);
    let value = T::deserialize(&mut decoder)?;
    let known = decoder.end()?;
    let mut same = Same { rest: &known };
    let encoded = serde_cbor::to_writer(&mut same, &value);
    if encoded.is_err() || !same.rest.is_empty() {
        return Err(CborError::NotDeterministic);
    }
    Ok(value)
}

/// Compares what is written to it with what is expected, so that a re-encoding costs no memory.
struct Same<'a> {
    rest: &'a [u8],
}

impl Write for Same<'_> {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        match self.rest.strip_prefix(written) {
            Some(rest) => {
                self.rest = rest;
                Ok(written.len())
            }
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    int_map! {
        /// A map to try the macro with.
        struct Sample {
            /// A.
            1 => req number: u64,
            /// B.
            2 => opt text: String,
            /// C.
            -1 => req bytes: serde_bytes::ByteArray<2>,
        }
    }

    fn sample(text: Option<&str>) -> Sample {
        Sample {
            number: 7,
            text: text.map(str::to_owned),
            bytes: [1, 2].into(),
        }
    }

    #[test]
    fn a_map_round_trips_with_and_without_its_optional_label() {
        for text in [None, Some("x")] {
            let bytes = to_vec(&sample(text));
            assert_eq!(from_slice::<Sample>(&bytes, 64), Ok(sample(text)));
        }
        assert_eq!(to_vec(&sample(None)), [0xa2, 1, 7, 0x20, 0x42, 1, 2]);
    }

    #[test]
    fn only_the_deterministic_encoding_is_accepted() {
        use CborError::{Malformed, NotDeterministic, TooLong};
        let cases: &[(&[u8], CborError, &str)] = &[
            (&[], Malformed, "nothing"),
            (
                &[0xa2, 0x20, 0x42, 1, 2, 1, 7],
                NotDeterministic,
                "labels out of order",
            ),
            (
                &[0xa2, 1, 0x18, 7, 0x20, 0x42, 1, 2],
                NotDeterministic,
                "a long integer",
            ),
            (
                &[0xbf, 1, 7, 0x20, 0x42, 1, 2, 0xff],
                NotDeterministic,
                "an indefinite map",
            ),
            (
                &[0xa2, 1, 7, 0x20, 0x42, 1, 2, 0],
                Malformed,
                "a trailing byte",
            ),
            (
                &[0xa3, 1, 7, 1, 7, 0x20, 0x42, 1, 2],
                Malformed,
                "a repeated label",
            ),
            (
                &[0xa3, 1, 7, 3, 7, 0x20, 0x42, 1, 2],
                Malformed,
                "an unknown label",
            ),
            (&[0xa1, 1, 7], Malformed, "a missing label"),
            (
                &[0xa2, 1, 7, 0x20, 0x43, 1, 2, 3],
                Malformed,
                "three bytes for two",
            ),
            (&[0x82, 7, 0x42, 1, 2], Malformed, "an array for a map"),
            (&[0; 65], TooLong, "more than the limit"),
        ];
        for (bytes, error, what) in cases {
            assert_eq!(from_slice::<Sample>(bytes, 64), Err(*error), "{what}");
        }
    }
}
