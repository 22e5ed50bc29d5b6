//! The envelope of everything that is signed: `COSE_Sign1` (RFC 9052 §4.2), untagged, with Ed25519 (−19, RFC 9864).
//!
//! The profile is narrow so that there is one way to write each message: the protected header is exactly `{1: -19, 4: kid, 16: typ}`,
//! the unprotected one is empty, but for a delegated token's parent under 13 (`kcwt`, RFC 9528). What is verified is the bytes that
//! were received, never a re-encoding.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    cbor::{
        self, CborError,
        head::{self, Reader},
    },
    key::{KeyId, Public, Role, Secret},
};

/// How every protected header begins: a map of three, `1: -19` (`alg` Ed25519), `4:` (`kid`), eight bytes.
const PROTECTED_FRONT: [u8; 5] = [0xa3, 0x01, 0x32, 0x04, 0x48];
/// Header label 16, `typ`.
const TYP: u64 = 16;
/// Header label 13, `kcwt`: a CWT that holds the signer's key.
const KCWT: u64 = 13;

/// What kind of message an envelope holds (header 16, RFC 9596). A signature over one kind is no signature over another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typ {
    /// A registered content format number; 61 is `application/cwt`.
    Number(u64),
    /// A media type of our own.
    Text(&'static str),
}

/// A message that travels signed.
pub trait Message: Serialize + DeserializeOwned {
    /// Its kind.
    const TYP: Typ;
    /// The role whose key signs it.
    type Signer: Role;
    /// The longest encoding accepted, in bytes, envelope included.
    const BYTES_MAX: usize;
}

/// Why a signed message was refused. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not an envelope of our profile, or not of this kind.
    #[error("not a signed message of this kind")]
    Envelope,
    /// The payload is not this message.
    #[error("the payload is {0}")]
    Payload(CborError),
    /// No key we know has its key id.
    #[error("signed by a key that is not listed")]
    UnknownKey,
    /// The signature is wrong.
    #[error("the signature does not verify")]
    Signature,
}

/// A value whose signature was checked, and the key that signed it. Only [`verify`] and its kin in this crate make one.
///
/// ```compile_fail
/// let forged = protocol::signed::Verified { value: 1, signer: loop {} };
/// ```
pub struct Verified<T, R> {
    value: T,
    signer: Public<R>,
}

impl<T, R> Verified<T, R> {
    pub(crate) fn new(value: T, signer: Public<R>) -> Self {
        Self { value, signer }
    }

    /// The message.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The message, by value.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The key that signed it.
    pub fn signer(&self) -> Public<R> {
        self.signer
    }
}

impl<T: Clone, R> Clone for Verified<T, R> {
    fn clone(&self) -> Self {
        Self::new(self.value.clone(), self.signer)
    }
}

impl<T: fmt::Debug, R: Role> fmt::Debug for Verified<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {:?}", self.value, self.signer)
    }
}

/// Signs `value`. `aad` binds it to a place without travelling in it: a command's topic, or nothing.
#[must_use]
pub fn sign<T: Message>(key: &Secret<T::Signer>, value: &T, aad: &[u8]) -> Vec<u8> {
    seal(key, T::TYP, &cbor::to_vec(value), aad, None)
}

/// Checks that one of `keys` signed `bytes` as a `T` for `aad`, and decodes it.
///
/// # Errors
/// [`VerifyError`], with the signature checked before the payload is decoded.
pub fn verify<T: Message>(
    bytes: &[u8],
    keys: &[Public<T::Signer>],
    aad: &[u8],
) -> Result<Verified<T, T::Signer>, VerifyError> {
    let envelope = Envelope::parse(bytes, T::TYP, T::BYTES_MAX)?;
    let signer = envelope.verify(keys, aad)?;
    let value = cbor::from_slice(envelope.payload, T::BYTES_MAX).map_err(VerifyError::Payload)?;
    Ok(Verified::new(value, signer))
}

/// Decodes without checking the signature, to find out which key to check it with. What it returns proves nothing.
///
/// # Errors
/// [`VerifyError`], except for the signature.
pub fn peek<T: Message>(bytes: &[u8]) -> Result<T, VerifyError> {
    let envelope = Envelope::parse(bytes, T::TYP, T::BYTES_MAX)?;
    cbor::from_slice(envelope.payload, T::BYTES_MAX).map_err(VerifyError::Payload)
}

/// Builds an envelope over an encoded payload.
pub(crate) fn seal<R: Role>(
    key: &Secret<R>,
    typ: Typ,
    payload: &[u8],
    aad: &[u8],
    parent: Option<&[u8]>,
) -> Vec<u8> {
    let mut protected = Vec::with_capacity(64);
    put_protected(&mut protected, typ, &key.public().id());
    let signature = key.sign(&to_be_signed(&protected, aad, payload));
    let mut out = Vec::with_capacity(protected.len() + payload.len() + 80);
    head::put_array(&mut out, 4);
    head::put_bytes(&mut out, &protected);
    match parent {
        None => head::put_map(&mut out, 0),
        Some(parent) => {
            head::put_map(&mut out, 1);
            head::put_uint(&mut out, KCWT);
            out.extend_from_slice(parent);
        }
    }
    head::put_bytes(&mut out, payload);
    head::put_bytes(&mut out, &signature);
    out
}

/// An envelope taken apart, borrowing from the bytes received. Nothing in it is proven until [`Envelope::verify`].
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    protected: &'a [u8],
    /// A hint which key signed it.
    pub kid: KeyId,
    /// The whole parent token, if it carries one.
    pub parent: Option<&'a [u8]>,
    /// The encoded message.
    pub payload: &'a [u8],
    signature: &'a [u8; 64],
}

impl<'a> Envelope<'a> {
    /// Takes apart an envelope that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`VerifyError::Envelope`] if it is longer than `bytes_max`, of another kind, or not in our profile.
    pub fn parse(bytes: &'a [u8], typ: Typ, bytes_max: usize) -> Result<Self, VerifyError> {
        let (envelope, rest) = Self::read(bytes, typ, bytes_max, false)?;
        rest.is_empty()
            .then_some(envelope)
            .ok_or(VerifyError::Envelope)
    }

    /// Takes apart the envelope at the front of `bytes`; what follows it is given back.
    ///
    /// # Errors
    /// [`VerifyError::Envelope`] if it is of another kind, or not in our profile.
    pub fn parse_front(bytes: &'a [u8], typ: Typ) -> Result<(Self, &'a [u8]), VerifyError> {
        Self::read(bytes, typ, usize::MAX, false)
    }

    /// Takes apart a token that fills `bytes` exactly. It alone may carry a parent: the unprotected header is under no signature, and
    /// of a delegated token the parent's own signature and the chain's rules hold what is there.
    ///
    /// # Errors
    /// [`VerifyError::Envelope`], as [`Envelope::parse`].
    pub fn parse_token(bytes: &'a [u8], typ: Typ, bytes_max: usize) -> Result<Self, VerifyError> {
        let (envelope, rest) = Self::read(bytes, typ, bytes_max, true)?;
        rest.is_empty()
            .then_some(envelope)
            .ok_or(VerifyError::Envelope)
    }

    /// Whether an envelope of this kind is at the front of `bytes`, whatever it holds: what they claim to be.
    #[must_use]
    pub fn is_at_front(bytes: &[u8], typ: Typ) -> bool {
        Envelope::read(bytes, typ, usize::MAX, true).is_ok()
    }

    fn read(
        bytes: &'a [u8],
        typ: Typ,
        bytes_max: usize,
        parent_allowed: bool,
    ) -> Result<(Self, &'a [u8]), VerifyError> {
        if bytes.len() > bytes_max {
            return Err(VerifyError::Envelope);
        }
        let mut reader = Reader::new(bytes);
        let envelope = read(&mut reader, typ, parent_allowed).ok_or(VerifyError::Envelope)?;
        Ok((envelope, reader.rest()))
    }

    /// Checks the signature with whichever of `keys` has the envelope's key id.
    ///
    /// # Errors
    /// [`VerifyError::UnknownKey`] or [`VerifyError::Signature`].
    pub fn verify<R: Role>(
        &self,
        keys: &[Public<R>],
        aad: &[u8],
    ) -> Result<Public<R>, VerifyError> {
        let key = keys
            .iter()
            .find(|key| key.id() == self.kid)
            .ok_or(VerifyError::UnknownKey)?;
        key.verify(
            &to_be_signed(self.protected, aad, self.payload),
            self.signature,
        )
        .map_err(|_| VerifyError::Signature)?;
        Ok(*key)
    }
}

fn read<'a>(reader: &mut Reader<'a>, typ: Typ, parent_allowed: bool) -> Option<Envelope<'a>> {
    if reader.array()? != 4 {
        return None;
    }
    let protected = reader.bytes()?;
    let kid = read_protected(protected, typ)?;
    let parent = match reader.map()? {
        0 => None,
        1 if parent_allowed => {
            if reader.uint()? != KCWT {
                return None;
            }
            let before = reader.rest();
            // Depth is two, for ever: a parent has no parent.
            read(reader, typ, false)?;
            before.get(..before.len() - reader.rest().len())
        }
        _ => return None,
    };
    Some(Envelope {
        protected,
        kid,
        parent,
        payload: reader.bytes()?,
        signature: reader.bytes()?.try_into().ok()?,
    })
}

/// What [`put_protected`] writes, and nothing else: the reader takes only the shortest form of each item.
fn read_protected(bytes: &[u8], typ: Typ) -> Option<KeyId> {
    let (kid, rest) = bytes.strip_prefix(&PROTECTED_FRONT)?.split_first_chunk()?;
    let mut reader = Reader::new(rest);
    let is_typ = reader.uint()? == TYP
        && match typ {
            Typ::Number(number) => reader.uint()? == number,
            Typ::Text(text) => reader.text().ok()? == text,
        };
    (is_typ && reader.rest().is_empty()).then_some(*kid)
}

fn put_protected(out: &mut Vec<u8>, typ: Typ, kid: &KeyId) {
    out.extend_from_slice(&PROTECTED_FRONT);
    out.extend_from_slice(kid);
    head::put_uint(out, TYP);
    match typ {
        Typ::Number(number) => head::put_uint(out, number),
        Typ::Text(text) => head::put_text(out, text),
    }
}

/// `Sig_structure` of RFC 9052 §4.4.
fn to_be_signed(protected: &[u8], aad: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(protected.len() + aad.len() + payload.len() + 32);
    head::put_array(&mut out, 4);
    head::put_text(&mut out, "Signature1");
    head::put_bytes(&mut out, protected);
    head::put_bytes(&mut out, aad);
    head::put_bytes(&mut out, payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Dispatcher, seeded};

    int_map! {
        /// A message to try the envelope with.
        struct Note {
            /// A number.
            1 => req number: u64,
        }
    }

    impl Message for Note {
        const TYP: Typ = Typ::Text("application/vnd.outhaul.note+cbor");
        type Signer = Dispatcher;
        const BYTES_MAX: usize = 256;
    }

    const NOTE: Note = Note { number: 7 };

    #[test]
    fn a_signed_message_verifies_with_its_key_and_place_only() {
        let key = seeded::<Dispatcher>(1);
        let other = seeded::<Dispatcher>(2);
        let bytes = sign(&key, &NOTE, b"here");
        let verified = verify::<Note>(&bytes, &[other.public(), key.public()], b"here").unwrap();
        assert_eq!((verified.value(), verified.signer()), (&NOTE, key.public()));
        let wrong = |keys: &[_], aad: &[u8]| verify::<Note>(&bytes, keys, aad).unwrap_err();
        assert_eq!(wrong(&[key.public()], b"there"), VerifyError::Signature);
        assert_eq!(wrong(&[other.public()], b"here"), VerifyError::UnknownKey);
        assert_eq!(wrong(&[], b"here"), VerifyError::UnknownKey);
    }

    #[test]
    fn no_single_changed_bit_and_no_shorter_or_longer_form_verifies() {
        let key = seeded::<Dispatcher>(1);
        let bytes = sign(&key, &NOTE, b"");
        for index in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[index / 8] ^= 1 << (index % 8);
            assert!(
                verify::<Note>(&changed, &[key.public()], b"").is_err(),
                "bit {index}"
            );
        }
        for length in 0..bytes.len() {
            assert!(verify::<Note>(&bytes[..length], &[key.public()], b"").is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(verify::<Note>(&longer, &[key.public()], b"").is_err());
    }

    #[test]
    fn a_signature_over_one_kind_is_none_over_another() {
        let key = seeded::<Dispatcher>(1);
        let bytes = seal(
            &key,
            Typ::Text("application/vnd.outhaul.other+cbor"),
            &cbor::to_vec(&NOTE),
            b"",
            None,
        );
        assert_eq!(
            verify::<Note>(&bytes, &[key.public()], b"").unwrap_err(),
            VerifyError::Envelope
        );
    }

    #[test]
    fn a_parent_inside_a_parent_is_refused() {
        let key = seeded::<Dispatcher>(1);
        let seal = |parent: Option<&[u8]>| seal(&key, Note::TYP, &cbor::to_vec(&NOTE), b"", parent);
        let one = seal(None);
        let two = seal(Some(&one));
        let three = seal(Some(&two));
        let parse = |bytes| Envelope::parse_token(bytes, Note::TYP, 1024);
        assert_eq!(parse(&two).unwrap().parent, Some(&one[..]));
        assert_eq!(parse(&three).unwrap_err(), VerifyError::Envelope);
    }

    #[test]
    fn nothing_can_be_put_into_the_header_that_no_signature_covers() {
        let key = seeded::<Dispatcher>(1);
        let one = sign(&key, &NOTE, b"");
        let with_parent = seal(&key, Note::TYP, &cbor::to_vec(&NOTE), b"", Some(&one));
        assert!(verify::<Note>(&one, &[key.public()], b"").is_ok());
        assert_eq!(
            verify::<Note>(&with_parent, &[key.public()], b"").err(),
            Some(VerifyError::Envelope)
        );
        assert!(peek::<Note>(&with_parent).is_err());
        assert!(Envelope::parse_front(&with_parent, Note::TYP).is_err());
    }
}
