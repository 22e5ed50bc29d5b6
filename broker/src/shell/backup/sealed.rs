//! The private keys, in a file of their own under a passphrase.
//!
//! ```text
//! OUTHAUL KEYS 1\n | memory KiB u32 | passes u32 | lanes u32 | salt 16 | nonce 12 | sealed
//! ```
//!
//! Integers are little-endian. The key is Argon2id (RFC 9106) of passphrase and salt; `sealed` is ChaCha20-Poly1305 (RFC 8439) of a
//! JSON text, with everything before it as associated data.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail, ensure};
use argon2::{Algorithm, Argon2, Params, Version};
use protocol::time::UnixMillis;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::shell::keys::{DataDir, fill_random, read_secret};

/// The shortest passphrase, in bytes. Whoever has the file may try as many as Argon2 lets them.
pub const PASSPHRASE_BYTES_MIN: usize = 12;
/// The longest sealed file, in bytes: some twenty files of a few hundred bytes.
const SEALED_BYTES_MAX: usize = 1024 * 1024;
const MAGIC: &[u8; 15] = b"OUTHAUL KEYS 1\n";
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const HEAD_BYTES: usize = MAGIC.len() + 12 + SALT_BYTES + NONCE_BYTES;
/// Argon2id's cost: 64 MiB, 3 passes, 4 lanes (RFC 9106 §4, second choice).
const COST: [u32; 3] = [64 * 1024, 3, 4];
/// The most of each that a file may ask of whoever opens it: 1 GiB, 16 passes, 16 lanes.
const COST_MAX: [u32; 3] = [1024 * 1024, 16, 16];
/// How often the keys are read, until two readings are alike: the authority may be rotated meanwhile.
const READINGS_MAX: usize = 5;

/// Every file below `keys/`, and whose they are. Wiped on drop.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct KeyFiles {
    /// The broker's name in tokens.
    pub audience: String,
    /// When they were read.
    pub made: UnixMillis,
    files: BTreeMap<String, String>,
}

impl Drop for KeyFiles {
    fn drop(&mut self) {
        self.files.values_mut().for_each(Zeroize::zeroize);
    }
}

impl std::fmt::Debug for KeyFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyFiles({}, {:?})", self.audience, self.names())
    }
}

impl KeyFiles {
    /// Reads them from a data directory, as of one moment.
    ///
    /// # Errors
    /// One is open to others, or cannot be read.
    pub fn read(directory: &DataDir, audience: &str, now: UnixMillis) -> anyhow::Result<Self> {
        let mut before = read_files(directory)?;
        for _ in 0..READINGS_MAX {
            let files = read_files(directory)?;
            if files == before {
                let audience = audience.to_owned();
                return Ok(Self {
                    audience,
                    made: now,
                    files,
                });
            }
            before = files;
        }
        bail!("read the keys: they change all the time")
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.files.keys().map(String::as_str).collect()
    }

    /// Each name, and what is in it.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The file that holds them.
    ///
    /// # Errors
    /// The passphrase is too short, or the system gives no random bytes.
    pub fn seal(&self, passphrase: &str) -> anyhow::Result<Vec<u8>> {
        self.seal_at(COST, passphrase)
    }

    fn seal_at(&self, cost: [u32; 3], passphrase: &str) -> anyhow::Result<Vec<u8>> {
        ensure!(
            passphrase.len() >= PASSPHRASE_BYTES_MIN,
            "the passphrase is too short: at least {PASSPHRASE_BYTES_MIN} characters, better six random words"
        );
        let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_BYTES]);
        fill_random(&mut salt)?;
        fill_random(&mut nonce)?;
        let costs = cost.map(u32::to_le_bytes);
        let head = [MAGIC, costs.as_flattened(), &salt, &nonce].concat();
        let mut text = Zeroizing::new(serde_json::to_vec(self).context("write the keys")?);
        let tag = cipher(passphrase, cost, &salt)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&head),
                &mut text,
            )
            .map_err(|_| anyhow::anyhow!("seal the keys"))?;
        Ok([&head, text.as_slice(), tag.as_ref()].concat())
    }

    /// Opens such a file.
    ///
    /// # Errors
    /// It is none, the passphrase is another, or it was changed.
    pub fn open(sealed: &[u8], passphrase: &str) -> anyhow::Result<Self> {
        let (head, text) = sealed
            .split_at_checked(HEAD_BYTES)
            .filter(|(head, _)| head.starts_with(MAGIC))
            .context("it is not a file of keys that `outhaul backup --keys-to` wrote")?;
        let mut rest = head.get(MAGIC.len()..).unwrap_or_default();
        let mut cost = [0; 3];
        for (field, most) in cost.iter_mut().zip(COST_MAX) {
            let (bytes, after) = rest.split_first_chunk::<4>().context("it is cut short")?;
            (*field, rest) = (u32::from_le_bytes(*bytes), after);
            ensure!(
                *field <= most,
                "it asks for more work than any of ours does: it was changed"
            );
        }
        let (salt, nonce) = rest.split_at(SALT_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce)
            .map_err(|_| anyhow::anyhow!("it is cut short"))?;
        let cipher = cipher(passphrase, cost, salt)?;
        let mut text = Zeroizing::new(text.to_vec());
        let text = cipher
            .open_in_place(nonce, Aad::from(head), &mut text)
            .map_err(|_| {
                anyhow::anyhow!(
                    "the passphrase is not the one it was written with, or it was changed"
                )
            })?;
        let keys: Self =
            serde_json::from_slice(text).map_err(|_| anyhow::anyhow!("its content is not ours"))?;
        ensure!(
            keys.files.keys().all(|name| is_name(name)),
            "its content is not ours"
        );
        Ok(keys)
    }

    /// The same, from a file.
    ///
    /// # Errors
    /// As [`Self::open`], or it cannot be read.
    pub fn open_file(path: &Path, passphrase: &str) -> anyhow::Result<Self> {
        use std::io::Read as _;
        let open = || -> anyhow::Result<Self> {
            let mut sealed = Vec::new();
            let most = u64::try_from(SEALED_BYTES_MAX)?;
            std::fs::File::open(path)?
                .take(most)
                .read_to_end(&mut sealed)?;
            Self::open(&sealed, passphrase)
        };
        open().with_context(|| format!("open keys {}", path.display()))
    }
}

fn read_files(directory: &DataDir) -> anyhow::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let keys = directory.key("");
    let listing = || format!("list {}", keys.display());
    for entry in std::fs::read_dir(&keys).with_context(listing)? {
        let entry = entry.with_context(listing)?;
        let (name, is_file) = (
            entry.file_name(),
            entry.file_type().with_context(listing)?.is_file(),
        );
        // One that is still being written has another name.
        if let Some(name) = name.to_str().filter(|name| is_file && is_name(name))
            && let Some(text) = read_secret(&directory.key(name))?
        {
            files.insert(name.to_owned(), text.to_string());
        }
    }
    Ok(files)
}

fn is_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// The salt is new in every file, so each key is used for one message.
fn cipher(passphrase: &str, cost: [u32; 3], salt: &[u8]) -> anyhow::Result<LessSafeKey> {
    let [memory, passes, lanes] = cost;
    let mut key = Zeroizing::new([0; 32]);
    let params = Params::new(memory, passes, lanes, Some(key.len()));
    let params = params.map_err(|error| anyhow::anyhow!("its cost is none: {error}"))?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, &mut *key)
        .map_err(|error| anyhow::anyhow!("derive a key from the passphrase: {error}"))?;
    let key = UnboundKey::new(&CHACHA20_POLY1305, &*key)
        .map_err(|_| anyhow::anyhow!("make the cipher"))?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "correct horse battery";

    fn keys() -> KeyFiles {
        let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        KeyFiles {
            audience: "outhaul-00".to_owned(),
            made: UnixMillis(7),
            files: [file("issuer.key", "ois1_secret_x"), file("ca.crt", "PEM")].into(),
        }
    }

    #[test]
    fn keys_come_back_with_their_passphrase_alone_and_show_nothing_without() {
        let sealed = keys().seal(WORDS).unwrap();
        assert!(KeyFiles::open(&sealed, WORDS).unwrap() == keys());
        assert!(KeyFiles::open(&sealed, "correct horse batterY").is_err());
        assert!(!sealed.windows(6).any(|six| six == b"secret"));
        assert!(!format!("{:?}", keys()).contains("secret"));
        assert_ne!(sealed, keys().seal(WORDS).unwrap());
        assert!(keys().seal("short").is_err());
    }

    #[test]
    fn what_was_changed_does_not_open_and_asks_for_no_work_without_bound() {
        let sealed = keys().seal_at([64, 1, 1], WORDS).unwrap();
        // The costs are in here: some of these are refused for what they ask.
        let salt = MAGIC.len() + 12;
        for at in (0..salt).chain([salt, salt + SALT_BYTES, HEAD_BYTES, sealed.len() - 1]) {
            let mut bad = sealed.clone();
            bad[at] ^= 0x80;
            assert!(KeyFiles::open(&bad, WORDS).is_err(), "byte {at}");
        }
        for cut in [0, 14, HEAD_BYTES - 1, HEAD_BYTES, sealed.len() - 1] {
            assert!(KeyFiles::open(&sealed[..cut], WORDS).is_err(), "cut {cut}");
        }
    }
}
