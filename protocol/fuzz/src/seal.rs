//! The envelope of `SPEC.md` 1.4, built by hand, so that any bytes at all can stand under a good signature.

use std::sync::OnceLock;

use ed25519_dalek::{Signer as _, SigningKey};
use protocol::signed::Typ;
use sha2::{Digest as _, Sha256};

use crate::item::Item;

/// Signs `payload`, whatever it is, with the key of the seed that is `seed` 32 times over. `parent` is a token for the header.
pub fn seal(seed: u8, typ: Typ, payload: &[u8], aad: &[u8], parent: Option<&[u8]>) -> Vec<u8> {
    let (key, kid) = key(seed);
    let protected = Item::Map(vec![
        (Item::Uint(1), Item::Negative(18)),
        (Item::Uint(4), Item::Bytes(kid.to_vec())),
        (Item::Uint(16), typ_item(typ)),
    ]);
    let protected = Item::Bytes(protected.to_vec());
    let to_be_signed = Item::Array(vec![
        Item::Text("Signature1".to_owned()),
        protected.clone(),
        Item::Bytes(aad.to_vec()),
        Item::Bytes(payload.to_vec()),
    ]);
    let signature = key.sign(&to_be_signed.to_vec()).to_bytes();
    let unprotected = match parent {
        None => vec![0xa0],
        Some(parent) => [&[0xa1, 13], parent].concat(),
    };
    [
        vec![0x84],
        protected.to_vec(),
        unprotected,
        Item::Bytes(payload.to_vec()).to_vec(),
        Item::Bytes(signature.to_vec()).to_vec(),
    ]
    .concat()
}

/// Whether to sign `payload` and verify it, which costs more than all else. What does not decode is refused behind the signature,
/// whatever it is, so that is tried now and then only.
pub fn is_worth_signing(payload: &[u8], decodes: bool) -> bool {
    decodes || payload.len().is_multiple_of(8)
}

fn typ_item(typ: Typ) -> Item {
    match typ {
        Typ::Number(number) => Item::Uint(number),
        Typ::Text(text) => Item::Text(text.to_owned()),
    }
}

/// The key and its kid. Made once: the public half costs as much as a signature.
fn key(seed: u8) -> &'static (SigningKey, [u8; 8]) {
    static KEYS: [OnceLock<(SigningKey, [u8; 8])>; 256] = [const { OnceLock::new() }; 256];
    KEYS[usize::from(seed)].get_or_init(|| {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let mut hash = Sha256::new();
        hash.update([0xa3, 0x01, 0x01, 0x20, 0x06, 0x21, 0x58, 0x20]);
        hash.update(key.verifying_key().as_bytes());
        let kid = *hash.finalize().first_chunk().expect("32 bytes have 8");
        (key, kid)
    })
}

#[cfg(test)]
mod tests {
    use protocol::{
        command::{self, Command, Order, Stop},
        id::CommandId,
        signed::Message as _,
    };

    use super::*;
    use crate::world::{self, DISPATCHER, NOW};

    #[test]
    fn an_envelope_built_by_hand_is_the_one_that_the_protocol_builds() {
        let command = Command {
            id: CommandId([1; 16]),
            host: world::host(),
            issued: NOW,
            expires: NOW,
            order: Order::Stop(Stop {
                sandbox: world::sandbox(),
                grace_s: 10,
            }),
        };
        let payload = protocol::cbor::to_vec(&command);
        let by_hand = seal(
            DISPATCHER,
            Command::TYP,
            &payload,
            b"v1/edge-1/commands",
            None,
        );
        assert_eq!(by_hand, command::sign(world::secret(DISPATCHER), &command));
    }
}
