//! COSE by hand (`SPEC.md`, 1.4): an envelope whose every part can be another than it should be, and is signed all the same.

use ed25519_dalek::Signer as _;
use sha2::{Digest as _, Sha512};

use crate::{
    item::{Item, array, bytes, int, text, uint},
    world::{kid_of, public, secret},
};

/// An envelope before it is signed.
#[derive(Clone)]
pub(crate) struct Envelope {
    /// The seed of the key that signs.
    pub(crate) seed: u8,
    /// The header that is signed, encoded.
    pub(crate) protected: Item,
    /// The header that is not.
    pub(crate) unprotected: Item,
    pub(crate) aad: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Envelope {
    pub(crate) fn new(seed: u8, typ: Item, aad: &str, payload: impl Into<Item>) -> Self {
        Self {
            seed,
            protected: header(&kid_of(&public(seed)), typ),
            unprotected: vec![0xa0],
            aad: aad.into(),
            payload: payload.into(),
        }
    }

    pub(crate) fn signature(&self) -> [u8; 64] {
        secret(self.seed).sign(&self.signed()).to_bytes()
    }

    /// What the signature is over (RFC 9052 §4.4).
    pub(crate) fn signed(&self) -> Vec<u8> {
        array(&[
            text("Signature1"),
            bytes(&self.protected),
            bytes(&self.aad),
            bytes(&self.payload),
        ])
    }

    /// The four items, each encoded.
    pub(crate) fn parts(&self) -> [Item; 4] {
        self.parts_with(&self.signature())
    }

    pub(crate) fn parts_with(&self, signature: &[u8]) -> [Item; 4] {
        [
            bytes(&self.protected),
            self.unprotected.clone(),
            bytes(&self.payload),
            bytes(signature),
        ]
    }

    pub(crate) fn seal(&self) -> Vec<u8> {
        array(&self.parts())
    }

    /// With another signature than its own.
    pub(crate) fn seal_with(&self, signature: &[u8]) -> Vec<u8> {
        array(&self.parts_with(signature))
    }
}

/// `{1: -19, 4: kid, 16: typ}`.
pub(crate) fn header(kid: &[u8], typ: Item) -> Item {
    header_of(&[(1, int(-19)), (4, bytes(kid)), (16, typ)])
}

/// A header of these pairs, in this order.
pub(crate) fn header_of(pairs: &[(i64, Item)]) -> Item {
    let mut header = vec![0xa0 | u8::try_from(pairs.len()).unwrap_or(23)];
    for (label, value) in pairs {
        header.extend([uint(label.unsigned_abs()), value.clone()].concat());
    }
    header
}

/// The same signature with S + L in the place of S: it fits the equation, and is refused all the same.
pub(crate) fn plus_order(signature: &[u8; 64]) -> [u8; 64] {
    // L = 2²⁵² + 27742317777372353535851937790883648493, little-endian.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut sum = *signature;
    let mut carry = 0;
    for (byte, order) in sum[32..].iter_mut().zip(ORDER) {
        let value = u16::from(*byte) + u16::from(order) + carry;
        *byte = value.to_le_bytes()[0];
        carry = value >> 8;
    }
    sum
}

/// A signature of an honest key whose R is the neutral point: R = 0·B, so S = k·a. Only a strict reader refuses it.
pub(crate) fn small_order_r(envelope: &Envelope) -> [u8; 64] {
    let key = secret(envelope.seed);
    let mut signature = [0; 64];
    signature[0] = 1;
    let mut hash = Sha512::new();
    hash.update(&signature[..32]);
    hash.update(key.verifying_key().as_bytes());
    hash.update(envelope.signed());
    let a = key.to_scalar();
    let number = |byte: u16| like(&a, byte);
    let k = (hash.finalize().iter().rev()).fold(number(0), |k, byte| {
        k * number(256) + number((*byte).into())
    });
    signature[32..].copy_from_slice((k * a).as_bytes());
    signature
}

/// A number of the type of `_other`, whose name this crate cannot say.
fn like<T: From<u16>>(_other: &T, number: u16) -> T {
    number.into()
}
