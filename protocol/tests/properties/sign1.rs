//! Signed messages built by hand, as `SPEC.md` 1.4 has them: for what our own writers never write.

use std::collections::BTreeMap;

use ed25519_dalek::{Signer as _, SigningKey};
use protocol::{
    cbor,
    key::{Host, KeyId},
};
use serde_bytes::Bytes;

use crate::any::secret;

/// An envelope of `payload` by the key of the seed `seed` × 32. `typ` is encoded already.
pub(crate) fn seal(seed: u8, typ: &[u8], payload: &[u8]) -> Vec<u8> {
    // A kid does not depend on the role.
    let kid: KeyId = secret::<Host>(seed).public().id();
    let protected = [&[0xa3, 1, 0x32, 4, 0x48][..], &kid, &[16], typ].concat();
    let signed = cbor::to_vec(&(
        "Signature1",
        Bytes::new(&protected),
        Bytes::new(b""),
        Bytes::new(payload),
    ));
    let signature = SigningKey::from_bytes(&[seed; 32]).sign(&signed).to_bytes();
    cbor::to_vec(&(
        Bytes::new(&protected),
        BTreeMap::<u8, u8>::new(),
        Bytes::new(payload),
        Bytes::new(&signature),
    ))
}
