//! Rows of the audit trail, their tree, and notes about it (`SPEC.md`, 14), by hand.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::Signer as _;
use protocol::id::hex;
use sha2::{Digest as _, Sha256};

use crate::item::{Item, array, bytes, text, uint};
use crate::world::{public, secret};

/// Signs the trail.
pub(crate) const AUDIT: u8 = 0x0f;
/// Signs it after that.
pub(crate) const NEXT_AUDIT: u8 = 0x1f;
pub(crate) const ORIGIN: &str = "outhaul-vectors/audit";
pub(crate) const WITNESS: &str = "outhaul-vectors/edge-1";
/// The types of signatures: a log's, a witness's.
pub(crate) const LOG: u8 = 1;
pub(crate) const COSIGNER: u8 = 4;

pub(crate) type Hash = [u8; 32];

pub(crate) fn row(seq: u64, prev: &[u8]) -> Item {
    array(&[
        uint(seq),
        uint(1_800_000_000_000 + seq),
        text("host.enrolled"),
        text("edge-1"),
        text("host:edge-1"),
        text(r#"{"generation":1}"#),
        bytes(prev),
    ])
}

/// The first `count` rows, each naming the one before.
pub(crate) fn rows(count: u64) -> Vec<Item> {
    let mut prev = [0; 32];
    (0..count)
        .map(|seq| {
            let row = row(seq, &prev);
            prev = leaf(&row);
            row
        })
        .collect()
}

pub(crate) fn leaf(row: &[u8]) -> Hash {
    Sha256::digest([&[0], row].concat()).into()
}

pub(crate) fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::digest([&[1], left.as_slice(), right].concat()).into()
}

/// RFC 6962 §2.1, word for word.
pub(crate) fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node(&root(left), &root(right))
        }
    }
}

pub(crate) fn leaves(count: u64) -> Vec<Hash> {
    rows(count).iter().map(|row| leaf(row)).collect()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The text of the checkpoint of so many rows.
pub(crate) fn checkpoint(count: u64) -> String {
    format!("{ORIGIN}\n{count}\n{}\n", base64(&root(&leaves(count))))
}

fn key_id(name: &str, kind: u8, seed: u8) -> Vec<u8> {
    let key = [name.as_bytes(), b"\n", &[kind], &public(seed)].concat();
    Sha256::digest(key)[..4].to_vec()
}

pub(crate) fn vkey(name: &str, kind: u8, seed: u8) -> String {
    let typed = [&[kind], public(seed).as_slice()].concat();
    format!(
        "{name}+{}+{}",
        hex(&key_id(name, kind, seed)),
        base64(&typed)
    )
}

/// A line in this key's name, whatever was signed.
pub(crate) fn line(name: &str, kind: u8, seed: u8, signature: &[u8]) -> String {
    let bytes = [&key_id(name, kind, seed), signature].concat();
    format!("\u{2014} {name} {}\n", base64(&bytes))
}

pub(crate) fn signed(seed: u8, text: &str) -> String {
    let signature = secret(seed).sign(text.as_bytes()).to_bytes();
    line(ORIGIN, LOG, seed, &signature)
}

pub(crate) fn cosigned(seed: u8, text: &str, time_s: u64) -> String {
    let message = format!("cosignature/v1\ntime {time_s}\n{text}");
    let signature = secret(seed).sign(message.as_bytes()).to_bytes();
    let timed = [time_s.to_be_bytes().as_slice(), &signature].concat();
    line(WITNESS, COSIGNER, seed, &timed)
}

/// A note of this text and these lines.
pub(crate) fn note(text: &str, lines: &[String]) -> String {
    format!("{text}\n{}", lines.concat())
}

/// The proof of a row, by its way from the leaf up.
pub(crate) fn proof(row: &[u8], index: u64, path: &[Hash], note: &str) -> String {
    let path: String = path.iter().map(|hash| base64(hash) + "\n").collect();
    format!(
        "c2sp.org/tlog-proof@v1\nextra {}\nindex {index}\n{path}\n{note}",
        base64(row)
    )
}
